//! Our own standstills: time in which the loop did not run is nobody's silence, and what waited for us meanwhile is no news.

use std::time::Duration;

use tracing::warn;

use crate::core::{Core, Timer};
use crate::limits::{CATCHING_UP, DOUBT_AFTER, STALL_MIN};
use crate::tally::EventKind;
use crate::time::{Now, Time};

/// When the loop did not run.
#[derive(Debug)]
pub(crate) struct Stalls {
    /// All of them together.
    pub(crate) total: Duration,
    /// Lateness up to here is forgiven already.
    forgiven_until: Time,
    /// How long the loop had not run then.
    latest: Duration,
    /// What was ordered up to this number was ordered before that.
    ordered_before: u64,
    /// What is handled just now answers an order that is younger than the stall.
    fresh: bool,
}

impl Stalls {
    pub(crate) fn new(now: Time) -> Self {
        Self { total: Duration::ZERO, forgiven_until: now, latest: Duration::ZERO, ordered_before: 0, fresh: false }
    }
}

impl Core {
    /// Begins to handle an input: the answer to what was ordered under a number, or something else.
    pub(crate) fn take_input(&mut self, order: Option<u64>, now: Now) {
        self.notice_stall(now);
        self.stalls.fresh = order.is_some_and(|order| order > self.stalls.ordered_before);
    }

    /// Whether what arrives now may have waited for our own loop.
    pub(crate) fn is_catching_up(&self, now: Now) -> bool {
        !self.stalls.fresh && self.stalls.latest >= DOUBT_AFTER && now.time.since(self.stalls.forgiven_until) < CATCHING_UP
    }

    /// Time in which our loop did not run is nobody's silence but our own.
    fn notice_stall(&mut self, now: Now) {
        let Some(due) = self.timers.next() else {
            return;
        };
        let stall = now.time.since(due.max(self.stalls.forgiven_until));
        if stall < STALL_MIN {
            return;
        }
        self.stalls.forgiven_until = now.time;
        self.stalls.latest = stall;
        self.stalls.ordered_before = self.next_id;
        self.stalls.total += stall;
        warn!(?stall, "this bot's own loop did not run; silence of others in that time is not held against them");
        self.events.push(now.wall, EventKind::Stalled(stall));
        for slot in self.members.other_slots() {
            if let Some(member) = self.members.get_mut(slot) {
                member.life.forgive(stall);
                if let Some(deadline) = member.life.deadline() {
                    self.timers.set(Timer::Death(slot), deadline);
                }
            }
        }
        self.contact_at = (self.contact_at + stall).min(now.time);
        self.forgive_questions(stall, now);
        for (id, probing) in &mut self.probes {
            probing.begun = (probing.begun + stall).min(now.time);
            self.timers.set_later(Timer::SlowProbe(*id), stall, now.time);
        }
        for id in self.calls.keys() {
            self.timers.set_later(Timer::SlowCall(*id), stall, now.time);
        }
    }
}
