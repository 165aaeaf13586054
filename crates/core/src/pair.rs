//! The own pairs: what this bot measured of one other node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::cell::{Cell, Failure};
use crate::limits::DOUBT_AFTER;
use crate::series::{Attempt, ProbeKind, Series, Timing};
use crate::time::{Moment, Now, Time, Wall};

/// All that this bot knows of its pair to one node: a series for each kind of probe. The detector
/// reads the main one alone.
#[derive(Clone, Debug, Default)]
pub struct Pair {
    main: Series,
    others: BTreeMap<ProbeKind, Arc<Series>>,
    /// The longest total of the main series lately: it decays by a sixteenth with every success.
    usual_max: Duration,
    /// When our attempts of the main kind began to fail, and how many did since; none while the
    /// latest was answered.
    failing: Option<(Time, u32)>,
    /// When the latest attempt of the main kind was sent that was answered, booked or not.
    answered_at: Time,
}

/// What the source of a pair alone knows of it, since it started: too much to publish of every
/// pair, and told when somebody asks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail {
    /// The latest attempt with its phases; none if it failed, or before the first.
    pub latest: Option<Timing>,
    /// How long attempts have been failing without a success between them; none while the latest
    /// was answered.
    pub failing_for: Option<Duration>,
    /// When an attempt last succeeded, by the source's clock.
    pub last_success: Option<Wall>,
    /// Successful attempts.
    pub successes: u64,
    /// Failed attempts, by the code of their kind.
    pub failures: [u64; Failure::ALL.len()],
    /// Segments that the kernel sent under the successful attempts.
    pub segments: u64,
    /// Segments that it sent again.
    pub retransmissions: u64,
}

/// What an attempt changed, as far as others must hear of it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// A change between success and failure or of the kind of failure, or the first attempt
    /// failed.
    State,
    /// The first attempt, and it was answered.
    First,
    /// The latency jumped.
    Jump,
    /// Nothing that cannot wait.
    None,
}

/// A jump is a change by half or double, and by at least so much: below it is noise of the hosts.
const JUMP_MIN: Duration = Duration::from_millis(5);

impl Pair {
    /// A pair of which nothing is known but these attempts of the main kind, each with the moment
    /// at which it began and ended: for tests of what shows a pair.
    pub fn measured(attempts: impl IntoIterator<Item = (Attempt, Now)>) -> Self {
        let mut pair = Self::default();
        for (attempt, now) in attempts {
            let moment = Moment { time: now.time, wall: now.wall, ..Moment::default() };
            pair.book(attempt, now.time, now.time, moment);
        }
        pair
    }

    /// What probes of the main kind found out.
    pub fn main(&self) -> &Series {
        &self.main
    }

    /// What probes of this kind found out; none before the first.
    pub fn series(&self, kind: ProbeKind) -> Option<&Series> {
        if kind == ProbeKind::MAIN {
            Some(&self.main)
        } else {
            self.others.get(&kind).map(Arc::as_ref)
        }
    }

    /// What is not published of the main kind.
    pub fn detail(&self, now: Time) -> Detail {
        let Series { last_success, successes, failures, segments, retransmissions, .. } = self.main;
        let latest = self.main.latest().and_then(|(attempt, _)| match attempt {
            Attempt::Ok(timing) => Some(timing),
            Attempt::Failed(_) => None,
        });
        let failing_for = self.failing_since().map(|since| now.since(since));
        Detail { latest, failing_for, last_success, successes, failures, segments, retransmissions }
    }

    /// What is published of this kind, aged against a row whose label is `label`.
    pub(crate) fn cell(&self, kind: ProbeKind, label: Time) -> Cell {
        self.series(kind).map(|series| series.cell(label)).unwrap_or_default()
    }

    /// Books an attempt of the main kind that was ordered at `ordered_at`, for our own loop ran
    /// since `begun`, and reports what changed.
    pub(crate) fn book(
        &mut self,
        attempt: Attempt,
        ordered_at: Time,
        begun: Time,
        now: Moment,
    ) -> Urgency {
        let urgency = self.urgency(&attempt);
        match attempt {
            Attempt::Ok(timing) => {
                self.usual_max = timing.total().max(self.usual_max - self.usual_max / 16);
            }
            Attempt::Failed(_) => {
                let (_, count) = self.failing.get_or_insert((begun.max(self.answered_at), 0));
                *count = count.saturating_add(1);
            }
        }
        self.main.book(attempt, ordered_at, now);
        urgency
    }

    /// Books an attempt of another kind: it says nothing about whether the node lives.
    pub(crate) fn book_other(
        &mut self,
        kind: ProbeKind,
        attempt: Attempt,
        ordered_at: Time,
        now: Moment,
    ) {
        Arc::make_mut(self.others.entry(kind).or_default()).book(attempt, ordered_at, now);
    }

    fn urgency(&self, attempt: &Attempt) -> Urgency {
        match (self.main.latest().map(|(latest, _)| latest), attempt) {
            (Some(Attempt::Ok(before)), Attempt::Ok(after)) => {
                let (low, high) =
                    (before.total().min(after.total()), before.total().max(after.total()));
                if high > low * 2 && high - low > JUMP_MIN { Urgency::Jump } else { Urgency::None }
            }
            (Some(Attempt::Failed(before)), Attempt::Failed(after)) if before == *after => {
                Urgency::None
            }
            (None, Attempt::Ok(_)) => Urgency::First,
            _ => Urgency::State,
        }
    }

    /// An attempt that was sent at `sent_at` was answered, booked or not: what failed until then is
    /// over.
    pub(crate) fn answered(&mut self, sent_at: Time) {
        self.answered_at = self.answered_at.max(sent_at);
        self.failing = self.failing.filter(|(since, _)| *since > sent_at);
    }

    /// When our attempts began to fail: the first of the latest failures in a row, or what was
    /// answered while it was under way. None while the latest attempt was answered.
    pub fn failing_since(&self) -> Option<Time> {
        self.failing.map(|(since, _)| since)
    }

    /// Whether more than one attempt failed in a row: a lost packet alone does not do that often.
    pub(crate) fn failed_again(&self) -> bool {
        self.failing.is_some_and(|(_, count)| count > 1)
    }

    /// How long a probe may be unanswered before that raises doubt: on a slow pair longer than it
    /// has usually taken.
    pub(crate) fn doubt_after(&self, probe_timeout: Duration) -> Duration {
        DOUBT_AFTER.max(self.usual_max + self.usual_max / 2).min(probe_timeout)
    }
}
