//! Probes in flight, in lanes: each purpose has its own places and its own budget, so that none
//! takes another's.
//!
//! In an outage there are many doubts. They must not keep the schedule from measuring, or doubts
//! feed themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bucket::Bucket;
use crate::config::Config;
use crate::limits::{
    DEAD_DIALS_SHARE, INDIRECT_PROBE_RATE, INDIRECT_PROBES_IN_FLIGHT_MAX, PROBES_IN_FLIGHT_MAX,
    Rate,
};
use crate::members::Slot;
use crate::orders::{Order, ProbeId, RequestId};
use crate::series::{ProbeKind, Timing};
use crate::time::{Attentive, Moment, Time};

/// Why a probe was ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It is the pair's turn: it is booked.
    Schedule,
    /// It repeats a doubtful one, for the question with this number.
    Question(Order),
    /// It is the pair's turn as well, and measures another kind: it is booked, and says nothing
    /// about whether the node lives.
    Measure(ProbeKind),
    /// It looks whether a dead node is back.
    Dial,
    /// A peer asked.
    IndirectProbe(RequestId),
    /// A peer asked and has its answer: what comes is for ourselves, and not booked.
    Evidence,
}

/// Which purposes share places and a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Turns of pairs. [`Load`](crate::load::Load) has a window for them besides.
    Schedule,
    /// Repetitions for questions; how many questions there may be is another limit.
    Question,
    /// Dials of the dead.
    Dial,
    /// Probes on behalf of others.
    IndirectProbe,
    /// Probes of other kinds. They are ordered with a turn, and so within the budget of the
    /// schedule.
    Measure,
}

impl Purpose {
    /// What is to be measured.
    pub(crate) fn kind(self) -> ProbeKind {
        if let Self::Measure(kind) = self { kind } else { ProbeKind::MAIN }
    }

    fn lane(self) -> Option<Lane> {
        match self {
            Self::Schedule => Some(Lane::Schedule),
            Self::Question(_) => Some(Lane::Question),
            Self::Dial => Some(Lane::Dial),
            Self::Measure(_) => Some(Lane::Measure),
            Self::IndirectProbe(_) => Some(Lane::IndirectProbe),
            // Nobody waits for it any more, and it ends by its timeout.
            Self::Evidence => None,
        }
    }
}

/// One probe in flight.
#[derive(Clone, Debug)]
pub(crate) struct Probing {
    pub(crate) slot: Slot,
    pub(crate) purpose: Purpose,
    /// When it was ordered: what it measured is of then.
    pub(crate) ordered_at: Time,
    /// The same on the attentive clock.
    ordered: Attentive,
    /// It is unanswered for longer than it usually takes, and this host had time to hear of an
    /// answer.
    overdue: bool,
}

impl Probing {
    pub(crate) fn new(slot: Slot, purpose: Purpose, now: Moment) -> Self {
        let (ordered_at, ordered) = (now.time, now.attentive);
        Self { slot, purpose, ordered_at, ordered, overdue: false }
    }

    /// When it was ordered, later by the time in which our own loop did not run.
    pub(crate) fn begun(&self, now: Moment) -> Time {
        now.time.back(now.attentive.since(self.ordered))
    }

    /// When the first of its two requests was sent, at the earliest.
    pub(crate) fn sent_at(&self, timing: &Timing) -> Time {
        self.ordered_at + timing.resolve + timing.connect + timing.tls.unwrap_or_default()
    }
}

/// Why a lane takes no probe now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// All its places are taken.
    Places,
    /// Its budget has a probe again after so long.
    Budget(Duration),
}

#[derive(Debug)]
struct Places {
    in_flight: usize,
    max: usize,
    /// None where something else limits how often.
    budget: Option<Bucket>,
}

/// All probes in flight.
#[derive(Debug)]
pub(crate) struct Probes {
    open: BTreeMap<ProbeId, Probing>,
    /// By [`Lane`].
    lanes: [Places; 5],
    /// Those of the schedule that are overdue.
    overdue: usize,
}

impl Probes {
    pub(crate) fn new(config: &Config, now: Time) -> Self {
        let rate = config.probe_rate_max;
        // Beside the budget of the living.
        let dials = rate * DEAD_DIALS_SHARE;
        let places = |max, budget: Option<Rate>| Places {
            in_flight: 0,
            max,
            budget: budget.map(|rate| Bucket::new(rate, now)),
        };
        let lanes = [
            places(
                PROBES_IN_FLIGHT_MAX,
                Some(Rate { per_second: rate, burst: (rate / 4.0).max(1.0) }),
            ),
            places(PROBES_IN_FLIGHT_MAX, None),
            places(PROBES_IN_FLIGHT_MAX, Some(Rate { per_second: dials, burst: dials.max(1.0) })),
            places(INDIRECT_PROBES_IN_FLIGHT_MAX, Some(INDIRECT_PROBE_RATE)),
            places(PROBES_IN_FLIGHT_MAX, None),
        ];
        Self { open: BTreeMap::new(), lanes, overdue: 0 }
    }

    /// Free places of a lane.
    pub(crate) fn free(&self, lane: Lane) -> usize {
        let places = &self.lanes[lane as usize];
        places.max.saturating_sub(places.in_flight)
    }

    /// Whether a lane takes a probe now.
    pub(crate) fn check(&mut self, lane: Lane, now: Time) -> Result<(), Full> {
        if self.free(lane) == 0 {
            return Err(Full::Places);
        }
        match self.lanes[lane as usize].budget.as_mut().map(|budget| budget.wait(1.0, now)) {
            Some(wait) if wait > Duration::ZERO => Err(Full::Budget(wait)),
            _ => Ok(()),
        }
    }

    /// Takes a probe from the budget of a lane.
    pub(crate) fn spend(&mut self, lane: Lane, now: Time) {
        if let Some(budget) = &mut self.lanes[lane as usize].budget {
            budget.take(1.0, now);
        }
    }

    /// Takes a probe from the budget of a lane, if the lane takes one now.
    pub(crate) fn admit(&mut self, lane: Lane, now: Time) -> Result<(), Full> {
        self.check(lane, now)?;
        self.spend(lane, now);
        Ok(())
    }

    /// Probes of the schedule in flight, without those that are overdue: they cost nothing any
    /// more, and a black hole must not hold places that others need.
    pub(crate) fn under_way(&self) -> usize {
        self.lanes[Lane::Schedule as usize].in_flight - self.overdue
    }

    pub(crate) fn insert(&mut self, id: ProbeId, probing: Probing) {
        if let Some(lane) = probing.purpose.lane() {
            self.lanes[lane as usize].in_flight += 1;
        }
        self.open.insert(id, probing);
    }

    pub(crate) fn remove(&mut self, id: ProbeId) -> Option<Probing> {
        let probing = self.open.remove(&id)?;
        if let Some(lane) = probing.purpose.lane() {
            self.lanes[lane as usize].in_flight -= 1;
        }
        self.overdue -= usize::from(probing.overdue);
        Some(probing)
    }

    pub(crate) fn get(&self, id: ProbeId) -> Option<&Probing> {
        self.open.get(&id)
    }

    /// A probe of the schedule is unanswered for longer than it usually takes.
    pub(crate) fn set_overdue(&mut self, id: ProbeId) {
        if let Some(probing) = self
            .open
            .get_mut(&id)
            .filter(|probing| probing.purpose == Purpose::Schedule && !probing.overdue)
        {
            probing.overdue = true;
            self.overdue += 1;
        }
    }

    /// A peer that asked for a probe gets its answer without it; tells which request that was.
    pub(crate) fn stop_waiting(&mut self, id: ProbeId) -> Option<RequestId> {
        let probing = self.open.get_mut(&id)?;
        let Purpose::IndirectProbe(request) = probing.purpose else { return None };
        probing.purpose = Purpose::Evidence;
        self.lanes[Lane::IndirectProbe as usize].in_flight -= 1;
        Some(request)
    }
}
