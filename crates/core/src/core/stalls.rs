//! What a stall of our own loop, and hearing from nobody, mean for everything else.

use tracing::{info, warn};

use super::{Core, Timer};
use crate::orders::Order;
use crate::tally::EventKind;
use crate::time::Now;

impl Core {
    /// Begins to handle an input: the answer to the order with this number, or something else.
    /// Every patience is longer by a stall of our own.
    pub(super) fn take_input(&mut self, order: Option<Order>, now: Now) {
        let Some(stall) = self.witness.handle_input(
            order,
            self.timers.first().map(|(at, _)| at),
            self.outbox.latest(),
            now.time,
        ) else {
            return;
        };
        warn!(
            ?stall,
            "this bot's own loop did not run; silence of others in that time is not held against them"
        );
        self.journal.note(now, EventKind::Stalled(stall));
        for slot in self.members.other_slots() {
            if let Some(member) = self.members.get_mut(slot) {
                member.life.forgive(stall);
                if let Some(deadline) = member.life.deadline() {
                    self.timers.set(Timer::Death(slot), deadline);
                }
            }
        }
        self.forgive_questions(stall, now);
        self.probes.forgive(stall, now.time);
        for id in self.probes.ids() {
            self.timers.set_later(Timer::SlowProbe(id), stall, now.time);
        }
        for id in self.calls.ids() {
            self.timers.set_later(Timer::SlowCall(id), stall, now.time);
        }
    }

    /// Whether hearing nobody is a finding about ourselves. With one other, silence of that one
    /// *is* hearing nobody.
    pub(super) fn hears_nobody(&self, now: Now) -> bool {
        self.witness.hears_nobody(now.time) && self.members.present() >= 2
    }

    pub(super) fn notice_isolation(&mut self, now: Now) {
        // Once cut off, everybody is dead after a while: that is no news of anybody.
        let goes_on = self.witness.is_isolated() && self.witness.hears_nobody(now.time);
        let isolated = (self.hears_nobody(now) || goes_on) && !self.naming.yields();
        if !self.witness.set_isolated(isolated) {
            return;
        }
        if isolated {
            warn!("this bot hears from nobody: its own network may be cut");
        } else {
            info!("this bot hears from others again");
        }
        self.journal.note(now, if isolated { EventKind::Isolated } else { EventKind::Heard });
    }
}
