//! What is to be done when, on both clocks.

use crate::members::Slot;
use crate::orders::{CallId, ProbeId};
use crate::queue::Queue;
use crate::time::{Attentive, Time};
use crate::witness::Witness;

/// What this bot does by itself, on the clock of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The next exchange of the tick.
    Tick,
    /// Rumours may be pushed.
    Push,
    /// Something of the own row is to be published.
    Publish,
    /// Retention, silence, forgotten nodes.
    Housekeeping,
    /// The budget has a probe again.
    Budget,
    /// It is the turn of the pair to this member.
    Probe(Slot),
    /// A dead member is dialled.
    Dial(Slot),
    /// A target is asked to admit us.
    Seed(u32),
    /// Another holder of our name is looked at again.
    Contest,
    /// Enough waited for goodbyes.
    Leave,
}

/// What waits for others, on the attentive clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Patience {
    /// A probe has been unanswered for too long.
    SlowProbe(ProbeId),
    /// A call has been unanswered for too long.
    SlowCall(CallId),
    /// A question repeats its probe.
    Repeat(Slot),
    /// A question ends.
    Verdict(Slot),
    /// A suspect dies.
    Death(Slot),
}

/// A deadline of either kind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    Timer(Timer),
    Patience(Patience),
}

/// Everything that is to be done, and when.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// What is to be done when.
    pub(super) timers: Queue<Timer, Time>,
    /// Until when others have time.
    pub(super) patience: Queue<Patience, Attentive>,
}

impl Deadlines {
    /// The earliest one, as the clocks go now.
    pub(super) fn next(&self, witness: &Witness) -> Option<(Time, Due)> {
        let timer = self.timers.first().map(|(at, timer)| (at, Due::Timer(timer)));
        let patience = self
            .patience
            .first()
            .map(|(at, patience)| (witness.time_of(at), Due::Patience(patience)));
        timer.into_iter().chain(patience).min_by_key(|(at, _)| *at)
    }

    /// Takes the earliest one that is due.
    pub(super) fn take(&mut self, witness: &Witness, now: Time) -> Option<(Time, Due)> {
        let (at, due) = self.next(witness).filter(|(at, _)| *at <= now)?;
        match due {
            Due::Timer(timer) => self.timers.cancel(timer),
            Due::Patience(patience) => self.patience.cancel(patience),
        }
        Some((at, due))
    }
}
