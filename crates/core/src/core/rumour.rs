//! Rumours: what is new and pushed at once, to a few others, a few times.

use std::time::Duration;

use super::Core;
use super::calls::Leg;
use super::deadlines::Timer;
use crate::identity::Instance;
use crate::limits::{
    EXCHANGE_CONTENT_BYTES_MAX, PUSH_FANOUT, PUSH_INTERVAL, PUSHES_PER_ROW, PUSHES_PER_RUMOUR,
    RECORDS_PER_EXCHANGE_MAX, RUMOURS_MAX, SUSPICIONS_MAX,
};
use crate::liveness::Status;
use crate::members::Slot;
use crate::message::{Exchange, RowNews};
use crate::row::Version;
use crate::tally::Refusal;
use crate::time::Moment;

/// A frame without patches that is younger than this is worth a rumour: its changes did not fit a
/// patch.
pub(super) const FRAME_IS_NEWS: Duration = Duration::from_secs(2);
/// Rate credit without which no exchange is begun: the digest alone would exceed the rate.
pub(super) const CREDIT_MIN: f64 = 0.0;
/// A push without anybody to push to is tried again after so long.
const PUSH_RETRY: Duration = Duration::from_millis(500);

/// What is new, and about whom; the order is the order of urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rumour {
    Suspicion(Instance),
    Liveness(Instance),
    Record(Instance),
    Row(Instance),
}

/// A rumour on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// Pushes that still carry it.
    pushes: u8,
    /// For a row: the version before the news, which others have as we had it.
    since: Version,
}

impl Core {
    pub(super) fn spread_suspicion(&mut self, slot: Slot, now: Moment) {
        self.spread_about(slot, Rumour::Suspicion, now);
    }

    pub(super) fn spread_liveness(&mut self, slot: Slot, now: Moment) {
        self.spread_about(slot, Rumour::Liveness, now);
    }

    pub(super) fn spread_record(&mut self, slot: Slot, now: Moment) {
        self.spread_about(slot, Rumour::Record, now);
    }

    /// Own changes after version `since` that others must hear of at once.
    pub(super) fn spread_own_row(&mut self, since: Version, now: Moment) {
        self.spread(Rumour::Row(self.record().instance), since, now);
    }

    fn spread_about(&mut self, slot: Slot, rumour: impl FnOnce(Instance) -> Rumour, now: Moment) {
        if let Some(member) = self.members.get(slot) {
            let rumour = rumour(member.record.instance);
            self.spread(rumour, 0, now);
        }
    }

    pub(super) fn spread(&mut self, rumour: Rumour, since: Version, now: Moment) {
        let held = self.gossip.rumours.get(&rumour);
        if held.is_none() && self.gossip.rumours.len() >= RUMOURS_MAX {
            return self.refuse(Refusal::RumoursFull);
        }
        let since = held.map_or(since, |held| held.since.min(since));
        let pushes =
            if matches!(rumour, Rumour::Row(_)) { PUSHES_PER_ROW } else { PUSHES_PER_RUMOUR };
        self.gossip.rumours.insert(rumour, Waiting { pushes, since });
        // That we live cannot wait for us to have time.
        let refutes = rumour == Rumour::Liveness(self.record().instance);
        self.push_after(
            if refutes { PUSH_INTERVAL } else { self.schedule.load.stretched(PUSH_INTERVAL) },
            now,
        );
    }

    /// Pushes so long after the last push, if not before.
    pub(super) fn push_after(&mut self, pause: Duration, now: Moment) {
        self.deadlines.timers.set_earlier(Timer::Push, now.time.max(self.gossip.pushed_at + pause));
    }

    /// Pushes the rumours to a few others.
    pub(super) fn push(&mut self, now: Moment) {
        if self.gossip.rumours.is_empty() || self.joining.naming.yields() {
            return;
        }
        let mut partners = self.gossipers();
        if partners.is_empty() {
            self.deadlines.timers.set(Timer::Push, now.time + PUSH_RETRY);
            return;
        }
        // Doubt and its answers are a few bytes and cannot wait for credit; the order of rumours
        // puts them first.
        let urgent = matches!(
            self.gossip.rumours.first_key_value(),
            Some((Rumour::Suspicion(_) | Rumour::Liveness(_), _))
        );
        if self.own_credit(now) < CREDIT_MIN && !urgent {
            self.refuse(Refusal::GossipRate);
            self.deadlines.timers.set(Timer::Push, now.time + PUSH_RETRY);
            return;
        }
        self.gossip.pushed_at = now.time;
        let exchange = self.rumours_to_push(now);
        if !self.gossip.rumours.is_empty() {
            self.deadlines
                .timers
                .set(Timer::Push, now.time + self.schedule.load.stretched(PUSH_INTERVAL));
        }
        if exchange.is_empty() {
            return;
        }
        for index in 0..PUSH_FANOUT.min(partners.len()) {
            let chosen = self.rng.usize(index..partners.len());
            partners.swap(index, chosen);
            self.send_exchange(partners[index], exchange.clone(), Leg::Push, now);
        }
    }

    fn rumours_to_push(&mut self, now: Moment) -> Exchange {
        let mut exchange = Exchange::default();
        let mut room =
            EXCHANGE_CONTENT_BYTES_MAX.min(self.own_credit(now).max(0.0) as usize / PUSH_FANOUT);
        let rumours: Vec<_> =
            self.gossip.rumours.iter().map(|(rumour, waiting)| (*rumour, *waiting)).collect();
        for (rumour, waiting) in rumours {
            let (Rumour::Suspicion(instance)
            | Rumour::Liveness(instance)
            | Rumour::Record(instance)
            | Rumour::Row(instance)) = rumour;
            let member = self.members.of_instance(instance).and_then(|slot| self.members.get(slot));
            match (rumour, member) {
                (_, None) => {}
                (Rumour::Suspicion(_), Some(member)) => {
                    if let Some(suspicion) = member
                        .suspicion(now.time)
                        .filter(|_| member.liveness.status() == Status::Suspect)
                    {
                        if exchange.suspicions.len() >= SUSPICIONS_MAX {
                            continue;
                        }
                        exchange.suspicions.push(suspicion);
                    }
                }
                (Rumour::Liveness(_), Some(member)) => {
                    exchange.entries.push(member.entry(0, now.time));
                }
                (Rumour::Record(_), Some(member)) => {
                    let len = member.record.packed_len();
                    if len > room || exchange.records.len() >= RECORDS_PER_EXCHANGE_MAX {
                        continue;
                    }
                    room -= len;
                    exchange.records.push(member.heard(now.time));
                }
                (Rumour::Row(_), Some(member)) => {
                    let news = member.row().and_then(|row| {
                        RowNews::since(instance, row, waiting.since, now.time).filter(|news| {
                            news.frame.is_none() || row.age(now.time) < FRAME_IS_NEWS
                        })
                    });
                    if let Some(news) = news {
                        let len = news.weight();
                        if len > room {
                            continue;
                        }
                        room -= len;
                        exchange.rows.push(news);
                    }
                }
            }
            if waiting.pushes > 1 && member.is_some() {
                self.gossip
                    .rumours
                    .insert(rumour, Waiting { pushes: waiting.pushes - 1, ..waiting });
            } else {
                self.gossip.rumours.remove(&rumour);
            }
        }
        exchange
    }
}
