//! What is counted: plain counters and histograms, exact, kept beside the own row.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::cell::Failure;
use crate::identity::NodeName;
use crate::limits::EVENTS_MAX;
use crate::time::{Moment, Wall};

/// Upper bounds of the latency buckets in seconds: 1-2.5-5 steps from 100 µs to 10 s, a superset of
/// the original's eleven.
pub const BUCKETS_SECONDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// A histogram of durations over [`BUCKETS_SECONDS`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Observations in each bucket (not cumulative); the last is above every bound.
    pub buckets: [u64; BUCKETS_SECONDS.len() + 1],
    /// Sum of all observations in seconds.
    pub sum_seconds: f64,
}

impl Histogram {
    /// Counts `duration`.
    pub fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS_SECONDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket] += 1;
        self.sum_seconds += seconds;
    }

    /// Number of observations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Sub-buckets of a doubling of [`Native`], as a power of two: each bound is 9 % above the one
/// before.
pub const NATIVE_SCHEMA: i32 = 3;

/// A sparse histogram of durations over exponential buckets, as Prometheus' native ones have them:
/// bucket `i` ends at 2^(i / 8) seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Native(Vec<(i32, u64)>);

impl Native {
    /// Counts `duration`; one below a nanosecond counts as one.
    pub fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64().max(1e-9);
        let bucket = (seconds.log2() * f64::from(1 << NATIVE_SCHEMA)).ceil() as i32;
        match self.0.binary_search_by_key(&bucket, |(index, _)| *index) {
            Ok(place) => self.0[place].1 += 1,
            Err(place) => self.0.insert(place, (bucket, 1)),
        }
    }

    /// Buckets that hold anything, in ascending order, with their observations. A nanosecond to a
    /// thousand seconds is 320 buckets.
    pub fn buckets(&self) -> &[(i32, u64)] {
        &self.0
    }
}

/// Sum and count of durations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Sum in seconds.
    pub sum_seconds: f64,
    /// Number of observations.
    pub count: u64,
}

impl Summary {
    /// Counts `duration`.
    pub fn observe(&mut self, duration: Duration) {
        self.sum_seconds += duration.as_secs_f64();
        self.count += 1;
    }
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// Why something was refused or left out: one for every bound.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Refusal { $($(#[$doc])* $variant,)* }

        impl Refusal {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The lower-case name, as in metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

refusals! {
    /// An exchange of somebody who was not admitted.
    NotAdmitted = "not_admitted",
    /// A request for another instance than ours.
    NotMe = "not_me",
    /// A node beyond the largest number of members.
    MembersFull = "members_full",
    /// A node beyond what one introducer may name.
    IntroducerFull = "introducer_full",
    /// A node beyond those that may be known without having answered.
    UnprovenFull = "unproven_full",
    /// A node whose instance belongs to another name.
    InstanceTaken = "instance_taken",
    /// A node or a joiner of another mesh.
    OtherMesh = "other_mesh",
    /// A join beyond those being proven.
    JoinsFull = "joins_full",
    /// A joiner that could not be reached at its target.
    JoinUnreachable = "join_unreachable",
    /// A joiner whose name is held by a living node.
    NameTaken = "name_taken",
    /// A question beyond those that are open, or again about a node that flaps.
    QuestionsFull = "questions_full",
    /// A request to try a node beyond those under way, or for a node unknown.
    IndirectProbesFull = "indirect_probes_full",
    /// An exchange that was due while too many were under way.
    ExchangesFull = "exchanges_full",
    /// Gossip that the rate held back.
    GossipRate = "gossip_rate",
    /// A dial of an unproven node that was held back.
    UnprovenDial = "unproven_dial",
    /// A rumour that is not pushed because too many wait; the next exchange brings it.
    RumoursFull = "rumours_full",
    /// A part of an exchange that could not be read: malformed, beyond what one exchange may have,
    /// or of a later release.
    Unreadable = "unreadable",
    /// A row of a source or an incarnation that is not known.
    RowUnknown = "row_unknown",
    /// A row older than half its retention.
    RowOld = "row_old",
    /// A row or a roster beyond the memory that an honest mesh of the known members needs.
    RowsFull = "rows_full",
    /// A row that does not fit its roster.
    RowMismatch = "row_mismatch",
    /// A roster that no row asked for.
    RosterUnwanted = "roster_unwanted",
    /// A target to join at beyond the largest number.
    SeedsFull = "seeds_full",
    /// A probe that this host itself spoiled: late, starved, or out of descriptors.
    ProbeVoid = "probe_void",
    /// A probe of another kind than the main one beyond those in flight.
    MeasuresFull = "measures_full",
}

/// How often each [`Refusal`] happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals([u64; Refusal::ALL.len()]);

impl Refusals {
    /// Counts one.
    pub fn count(&mut self, refusal: Refusal) {
        self.count_many(refusal, 1);
    }

    /// Counts so many at once.
    pub(crate) fn count_many(&mut self, refusal: Refusal, many: u64) {
        self.0[refusal as usize] += many;
    }

    /// How often `refusal` happened.
    pub fn of(&self, refusal: Refusal) -> u64 {
        self.0[refusal as usize]
    }

    /// All with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        Refusal::ALL.iter().map(|refusal| (*refusal, self.of(*refusal)))
    }
}

/// Something an operator would want to read later.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Counts all events since the start; a gap shows that some were dropped.
    pub sequence: u64,
    /// When it was noticed, by our clock.
    pub wall: Wall,
    /// What happened.
    pub kind: EventKind,
}

/// What an [`Event`] tells.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// A node became known.
    Joined(NodeName),
    /// A node runs in a new incarnation.
    Restarted(NodeName),
    /// A node is doubted.
    Suspected(NodeName),
    /// A node is dead.
    Died(NodeName),
    /// A suspected, dead or departed node lives.
    Revived(NodeName),
    /// A node said goodbye.
    Left(NodeName),
    /// A dead or departed node is no longer remembered.
    Forgotten(NodeName),
    /// The latest attempt from here failed, and the one before had not.
    PathFailed(NodeName, Failure),
    /// The latest attempt from here succeeded, and the one before had failed.
    PathRecovered(NodeName),
    /// Our loop did not run for so long.
    Stalled(Duration),
    /// We hear from nobody.
    Isolated,
    /// We hear from somebody again.
    Heard,
    /// Another living node has our name; it is reached at this target.
    NameConflict(String),
    /// Nobody else has our name any more.
    NameRegained,
    /// A peer did not admit us, and says why.
    NotLetIn(String),
}

/// The latest events, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Events {
    next: u64,
    ring: VecDeque<Arc<Event>>,
}

impl Events {
    pub(crate) fn push(&mut self, wall: Wall, kind: EventKind) {
        if self.ring.len() >= EVENTS_MAX {
            self.ring.pop_front();
        }
        self.ring.push_back(Arc::new(Event { sequence: self.next, wall, kind }));
        self.next += 1;
    }

    /// Those with a sequence number of at least `sequence`, oldest first.
    pub fn since(&self, sequence: u64) -> impl Iterator<Item = &Arc<Event>> {
        let oldest = self.next - self.ring.len() as u64;
        self.ring.iter().skip(sequence.saturating_sub(oldest) as usize)
    }
}

/// What happened, and what was refused.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    events: Events,
    refusals: Refusals,
}

impl Journal {
    /// Something happened.
    pub(crate) fn note(&mut self, now: Moment, kind: EventKind) {
        self.events.push(now.wall, kind);
    }

    /// Something was refused.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        self.refusals.count(refusal);
    }

    /// So much was refused.
    pub(crate) fn refuse_many(&mut self, refusal: Refusal, count: u64) {
        self.refusals.count_many(refusal, count);
    }

    /// The latest events.
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// What was refused since the start.
    pub(crate) fn refusals(&self) -> Refusals {
        self.refusals
    }
}
