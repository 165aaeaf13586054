//! Time as the core sees it: always an argument, never read.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// A point on the host's clock that never steps and counts suspend, in microseconds from an
/// arbitrary origin.
///
/// Only differences mean anything, and only on one host: what travels between hosts is an age. The
/// driver of a core keeps the origin further back than any retention; otherwise old ages would be
/// cut short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The point `micros` microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the origin.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The point `ago` before this one, or the origin if that lies before it.
    pub fn back(self, ago: Duration) -> Self {
        Self(self.0.saturating_sub(micros(ago)))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(micros(rhs)))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Wall-clock time in milliseconds since the Unix epoch.
///
/// A label for people. Clocks of hosts disagree and step, so nothing is ever decided by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(u64);

impl Wall {
    /// The instant `millis` milliseconds after the Unix epoch.
    pub const fn from_unix_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_millis(self) -> u64 {
        self.0
    }

    /// The label `ago` before this one.
    pub fn back(self, ago: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// A point on the attentive clock of a core, which stands while its own loop does not run.
///
/// Patience with others runs on it: how long they may be silent, and when a suspect dies. When
/// something happened, and what was first, is a matter of [`Time`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attentive(Time);

impl Attentive {
    /// The clock of a core that starts at `time`.
    pub const fn starting_at(time: Time) -> Self {
        Self(time)
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.since(earlier.0)
    }

    /// The point `ago` before this one.
    pub fn back(self, ago: Duration) -> Self {
        Self(self.0.back(ago))
    }
}

impl Add<Duration> for Attentive {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0 + rhs)
    }
}

/// Now on every clock that a core goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// What decides.
    pub time: Time,
    /// What labels.
    pub wall: Wall,
    /// What patience runs on.
    pub attentive: Attentive,
}

impl Moment {
    /// What the driver read.
    pub(crate) fn read(self) -> Now {
        Now { time: self.time, wall: self.wall }
    }

    /// What the attentive clock showed at `time`, if the loop has run ever since.
    pub fn attentive_at(self, time: Time) -> Attentive {
        self.attentive.back(self.time.since(time))
    }
}

/// Both clocks of the host, read together by the driver of the core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// What decides.
    pub time: Time,
    /// What labels.
    pub wall: Wall,
}
