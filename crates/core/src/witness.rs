//! Whether this bot is a sound witness: what it did not hear may be its own fault.
//!
//! There are three reasons for doubt. Its own loop stalled: silence in that time proves nothing,
//! and input that waited is old. It hears nobody: its own network may be cut. It spoiled a probe:
//! the host is short of time or of descriptors.
//!
//! This module answers what the rules of the detector ask about that. `docs/detector.md` has the
//! table of what follows.

use std::time::Duration;

use crate::limits::{CATCHING_UP, DOUBT_AFTER, ISOLATED_AFTER, SELF_DOUBT, STALL_MIN};
use crate::orders::Order;
use crate::time::{Attentive, Moment, Now, Time};

#[derive(Debug)]
pub(crate) struct Witness {
    /// When the latest input came.
    at: Time,
    /// The attentive clock then.
    attentive: Attentive,
    /// Time in which our loop did not run, in all.
    stalled: Duration,
    /// When the latest stall ended; lateness up to here is accounted for.
    stall_ended_at: Time,
    /// How long the latest stall was.
    stall: Duration,
    /// Orders up to this number were given before the latest stall ended.
    stall_order: Order,
    /// The input at hand answers an order that is younger than the latest stall.
    is_fresh: bool,
    /// When anybody was last heard: an answer, a refusal, or a request.
    heard_at: Time,
    /// The same on the attentive clock.
    heard: Attentive,
    /// When somebody was heard again after a silence of [`ISOLATED_AFTER`].
    heard_again_at: Time,
    /// That was noticed, and not yet that it is over.
    isolated: bool,
    /// When this host last spoiled a probe.
    spoiled_at: Option<Time>,
}

impl Witness {
    pub(crate) fn new(now: Time) -> Self {
        Self {
            at: now,
            attentive: Attentive::starting_at(now),
            stalled: Duration::ZERO,
            stall_ended_at: now,
            stall: Duration::ZERO,
            stall_order: Order::default(),
            is_fresh: false,
            heard_at: now,
            heard: Attentive::starting_at(now),
            heard_again_at: now,
            isolated: false,
            spoiled_at: None,
        }
    }

    /// Takes note of an input: the answer to the order with this number, or something else. `due`
    /// is the earliest deadline of our loop, `latest` the number of the latest order. Returns how
    /// long the loop did not run, if that was a stall.
    pub(crate) fn handle_input(
        &mut self,
        order: Option<Order>,
        due: Option<Time>,
        latest: Order,
        now: Time,
    ) -> Option<Duration> {
        let late = due.map_or(Duration::ZERO, |due| now.since(due.max(self.stall_ended_at)));
        let stall = (late >= STALL_MIN).then_some(late);
        if let Some(stall) = stall {
            self.stalled += stall;
            self.stall = stall;
            self.stall_ended_at = now;
            self.stall_order = latest;
        }
        let ran = now.since(self.at).saturating_sub(stall.unwrap_or_default());
        self.attentive = self.attentive + ran;
        self.at = self.at.max(now);
        self.is_fresh = order.is_some_and(|order| order > self.stall_order);
        stall
    }

    /// Somebody was heard at `at`: our own network worked.
    pub(crate) fn handle_contact(&mut self, at: Time) {
        let attentive = self.attentive.back(self.at.since(at));
        if attentive.since(self.heard) > ISOLATED_AFTER {
            self.heard_again_at = at;
        }
        self.heard_at = self.heard_at.max(at);
        self.heard = self.heard.max(attentive);
    }

    /// The moment of the input at hand, or of a look at `now` that is none.
    pub(crate) fn moment(&self, now: Now) -> Moment {
        let Now { time, wall } = now;
        Moment { time, wall, attentive: self.attentive + time.since(self.at) }
    }

    /// When the attentive clock shows `due`, if the loop runs until then.
    pub(crate) fn time_of(&self, due: Attentive) -> Time {
        self.at + due.since(self.attentive)
    }

    /// This host spoiled a probe.
    pub(crate) fn handle_spoiled(&mut self, now: Time) {
        self.spoiled_at = Some(now);
    }

    /// Time in which our loop did not run, in all.
    pub(crate) fn stalled(&self) -> Duration {
        self.stalled
    }

    /// Takes note of whether this bot takes its own network for cut; tells whether that is news.
    pub(crate) fn set_isolated(&mut self, isolated: bool) -> bool {
        std::mem::replace(&mut self.isolated, isolated) != isolated
    }

    /// Whether this bot takes its own network for cut.
    pub(crate) fn is_isolated(&self) -> bool {
        self.isolated
    }

    /// Whether the input at hand may have waited for our loop, so that what it says of others may
    /// be overtaken.
    pub(crate) fn input_is_stale(&self, now: Time) -> bool {
        !self.is_fresh && self.stall >= DOUBT_AFTER && now.since(self.stall_ended_at) < CATCHING_UP
    }

    /// Whether nobody was heard for so long that it says more about us than about them.
    pub(crate) fn hears_nobody(&self) -> bool {
        self.attentive.since(self.heard) > ISOLATED_AFTER
    }

    /// Whether nobody was heard since `at`: a failure of then may be our own network's.
    pub(crate) fn heard_nobody_since(&self, at: Time) -> bool {
        self.heard_at < at
    }

    /// Whether a silence of ours ended after `at`: a failure of then may have been our own
    /// network's.
    pub(crate) fn was_silent_after(&self, at: Time) -> bool {
        at < self.heard_again_at
    }

    /// Whether others were heard without a break from before `at` until after it: a failure of then
    /// is not ours.
    pub(crate) fn heard_around(&self, at: Time) -> bool {
        self.heard_at > at && at > self.heard_again_at
    }

    /// Whether this host spoiled a probe just now: an answer that seems overdue may be waiting
    /// here.
    pub(crate) fn is_starved(&self, now: Time) -> bool {
        self.spoiled_at.is_some_and(|at| now.since(at) < SELF_DOUBT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_secs(1000) + Duration::from_millis(millis)
    }

    /// An input that was in time, in a mesh of many.
    fn look(witness: &mut Witness, now: Time) {
        assert_eq!(witness.handle_input(None, None, Order::default(), now), None);
    }

    /// The stall that an input at `now` shows, if something was due at `due`.
    fn stalled(witness: &mut Witness, due: u64, now: u64) -> Option<Duration> {
        witness.handle_input(None, Some(at(due)), Order::default(), at(now))
    }

    /// What the detector asks, at `now`, of a failure at `failed`: stale, hears nobody, nobody
    /// since the failure, silent after it, heard around it, starved.
    fn answers(witness: &mut Witness, failed: u64, now: u64) -> [bool; 6] {
        let (failed, now) = (at(failed), at(now));
        if now > witness.at {
            look(witness, now);
        }
        [
            witness.input_is_stale(now),
            witness.hears_nobody(),
            witness.heard_nobody_since(failed),
            witness.was_silent_after(failed),
            witness.heard_around(failed),
            witness.is_starved(now),
        ]
    }

    #[test]
    fn the_truth_table_of_a_witness() {
        let sound = || {
            let mut witness = Witness::new(at(0));
            for heard in [2000, 4000, 5000] {
                look(&mut witness, at(heard));
                witness.handle_contact(at(heard));
            }
            witness
        };
        let stalled_for = |stall: u64, order: Option<u64>| {
            let mut witness = sound();
            witness.handle_input(
                order.map(Order::new),
                Some(at(5100)),
                Order::new(7),
                at(5100 + stall),
            );
            witness
        };
        let heard_again = || {
            let mut witness = sound();
            look(&mut witness, at(9000));
            witness.handle_contact(at(9000));
            witness
        };
        let spoiled = || {
            let mut witness = sound();
            witness.handle_spoiled(at(5000));
            witness
        };
        // Each with when something failed, when is asked, and the answers.
        #[rustfmt::skip]
        let table = [
            ("sound, failure long ago",             sound(),                    4500, 5200, [false, false, false, false, true,  false]),
            ("sound, failure just now",             sound(),                    5100, 5200, [false, false, true,  false, false, false]),
            ("nobody is heard since the failure",   sound(),                    5100, 7500, [false, true,  true,  false, false, false]),
            ("nobody is heard, failure before",     sound(),                    4500, 7500, [false, true,  false, false, true,  false]),
            ("heard again, failure before that",    heard_again(),              8000, 9100, [false, false, false, true,  false, false]),
            ("heard again, failure after that",     heard_again(),              9050, 9100, [false, false, true,  false, false, false]),
            ("a short stall makes no input stale",  stalled_for(300, None),     4500, 5400, [false, false, false, false, true,  false]),
            ("a long one does",                     stalled_for(3000, None),    4500, 8100, [true,  false, false, false, true,  false]),
            ("and only for a moment",               stalled_for(3000, None),    4500, 8300, [false, false, false, false, true,  false]),
            ("not what answers a later order",      stalled_for(3000, Some(8)), 4500, 8100, [false, false, false, false, true,  false]),
            ("but what answers an earlier one",     stalled_for(3000, Some(7)), 4500, 8100, [true,  false, false, false, true,  false]),
            ("starved",                             spoiled(),                  4500, 5900, [false, false, false, false, true,  true]),
            ("and no longer",                       spoiled(),                  4500, 6100, [false, false, false, false, true,  false]),
        ];
        for (what, mut witness, failed, now, expected) in table {
            assert_eq!(answers(&mut witness, failed, now), expected, "{what}");
        }
    }

    #[test]
    fn a_stall_is_no_silence_and_is_counted_once() {
        let mut witness = Witness::new(at(0));
        look(&mut witness, at(1000));
        witness.handle_contact(at(1000));
        assert_eq!(stalled(&mut witness, 1100, 1200), None, "lateness that is no stall");
        assert_eq!(stalled(&mut witness, 1100, 6100), Some(Duration::from_secs(5)));
        assert_eq!(stalled(&mut witness, 1100, 6110), None, "the same lateness again");
        look(&mut witness, at(6200));
        assert!(!witness.hears_nobody(), "the silence of the stall is ours");
        look(&mut witness, at(8200));
        assert!(witness.hears_nobody());
        assert_eq!(witness.stalled(), Duration::from_secs(5));
    }

    #[test]
    fn the_attentive_clock_stands_in_a_stall() {
        let mut witness = Witness::new(at(0));
        look(&mut witness, at(2000));
        assert_eq!(stalled(&mut witness, 2100, 7100), Some(Duration::from_secs(5)));
        look(&mut witness, at(8000));
        assert_eq!(witness.attentive, Attentive::starting_at(at(3000)));
        assert_eq!(witness.time_of(witness.attentive + Duration::from_secs(1)), at(9000));
    }
}
