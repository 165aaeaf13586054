//! How long a mesh takes to notice that a bot is gone.

use std::time::Duration;

use super::{DETECTED_P99, HEALED};
use crate::stage::{OBSERVER_PAUSE, Observers, Stage};
use crate::world::HostId;

/// A paused observer hears nothing.
pub(super) fn detected_bound(stage: &Stage) -> Duration {
    DETECTED_P99
        + if stage.setup.observers == Observers::Pausing { OBSERVER_PAUSE } else { Duration::ZERO }
}

pub(super) fn detect(stage: &mut Stage) {
    stage.settle();
    let nodes = stage.world.len();
    let victims: Vec<_> = (0..nodes).map(HostId).rev().take((nodes - 1).min(3)).collect();
    stage.disturb_observers(&victims);
    stage.run(Duration::from_secs(15));
    for kind in Fault::ALL {
        let victim = victims[stage.rng.usize(..victims.len())];
        let figures = &detections(stage, &[(kind, victim)])[0];
        let p99 = figures.quantile(0.99);
        // Of a few observers the 99th in a hundred is the slowest, and that one may itself have
        // been paused.
        if p99.is_none_or(|p99| p99 > DETECTED_P99) {
            let detail = format!("{:.1?}", figures.0);
            stage.write(detail);
        }
        stage.found(
            &format!("{} is known to all others, p99", kind.as_str()),
            p99,
            detected_bound(stage),
        );
    }
    stage.relieve_observers();
}

/// Three ways not to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process ends: its port refuses.
    Refused,
    /// Packets vanish.
    Silent,
    /// The process stands still: its port accepts and says nothing.
    Paused,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Refused, Self::Silent, Self::Paused];

    /// As in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Paused => "paused",
        }
    }
}

/// How long each observer took.
#[derive(Clone, Debug, Default)]
pub struct Detections(pub(super) Vec<Option<Duration>>);

impl Detections {
    /// The time within which so many of them knew; none if that many never did.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by_key(|taken| taken.unwrap_or(Duration::MAX));
        let index = (sorted.len() as f64 * quantile).ceil() as usize;
        sorted.get(index.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().flatten()
    }

    /// Adds those of another fault.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }
}

/// Does faults to bots at one instant, waits until everybody else knows, undoes them, and waits
/// until all are back.
pub fn detections(stage: &mut Stage, faults: &[(Fault, HostId)]) -> Vec<Detections> {
    let phase = Duration::from_millis(stage.rng.u64(..3000));
    stage.run(phase);
    let names: Vec<_> =
        faults.iter().map(|(_, victim)| stage.world.name(*victim).clone()).collect();
    let observers: Vec<_> =
        stage.world.running().filter(|id| faults.iter().all(|(_, victim)| victim != id)).collect();
    for (fault, victim) in faults {
        match fault {
            Fault::Refused => stage.crash(*victim),
            Fault::Silent => stage.silence(*victim),
            Fault::Paused => stage.pause(*victim),
        }
    }
    let taken = stage.wait_detected(&names, &observers, Duration::from_secs(20));
    for (fault, victim) in faults {
        match fault {
            Fault::Refused => stage.start(*victim),
            Fault::Silent => stage.unsilence(*victim),
            Fault::Paused => stage.resume(*victim),
        }
    }
    stage.wait_known(HEALED);
    stage.run(Duration::from_secs(2));
    taken.into_iter().map(Detections).collect()
}
