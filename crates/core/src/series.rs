//! What the attempts of one kind found out about one pair, exact.

use std::time::Duration;

use crate::cell::{Cell, Failure, State, TICK};
use crate::code::{JitterCode, LatencyCode};
use crate::limits::LOSS_WINDOW;
use crate::tally::{Histogram, Native, Summary};
use crate::time::{Moment, Time, Wall};

/// A kind of probe. To the core it is a number: what is measured, and how, is decided by the shell
/// that carries the probes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeKind(u8);

impl ProbeKind {
    /// The kind that every node answers, and the only one that says whether a node lives: a
    /// connection and two requests.
    pub const MAIN: Self = Self(0);

    /// Another kind: `number` is that of its cells on the wire.
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// What the prober measured, each phase beside its system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Resolving the target's host; zero for an address.
    pub resolve: Duration,
    /// Connecting.
    pub connect: Duration,
    /// Agreeing on a secure channel; none on a plain connection.
    pub tls: Option<Duration>,
    /// The first request, which also sets up HTTP/2.
    pub first_request: Duration,
    /// A second request on the warm connection; none if it failed.
    pub request: Option<Duration>,
    /// The kernel's own view of the connection, where it offers one.
    pub kernel: Option<KernelTiming>,
}

/// The kernel's own measurement of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelTiming {
    /// Its smoothed round-trip time.
    pub rtt: Duration,
    /// Segments that it sent again.
    pub retransmissions: u32,
    /// Segments that it sent.
    pub segments: u32,
}

impl Timing {
    /// Connect, TLS and first request.
    pub fn total(&self) -> Duration {
        self.connect + self.tls.unwrap_or_default() + self.first_request
    }
}

/// How the latest attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It was answered, after so long.
    Ok(Timing),
    /// It failed.
    Failed(Failure),
}

/// The attempts of one kind with one node.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// The latest attempt with the time it began; none before the first.
    latest: Option<(Attempt, Time, Wall)>,
    /// Failures of the latest attempts, newest in the lowest bit.
    losses: u64,
    /// Attempts in the window.
    attempts: u32,
    /// Smoothed difference between successive totals in nanoseconds (RFC 3550 section 6.4.1).
    jitter: Option<f64>,
    /// The total before, for the jitter.
    previous: Option<Duration>,
    /// When an attempt last succeeded, by our clock.
    pub last_success: Option<Wall>,
    /// Successful attempts.
    pub successes: u64,
    /// Failed attempts, by kind.
    pub failures: [u64; Failure::ALL.len()],
    /// Totals of the successful attempts.
    pub total: Histogram,
    /// Second requests of the successful attempts.
    pub request: Histogram,
    /// The totals once more, in fine buckets.
    pub native_total: Native,
    /// The second requests once more, in fine buckets.
    pub native_request: Native,
    /// Phases of the successful attempts: resolve, connect, tls, first request.
    pub phases: [Summary; 4],
    /// Segments that the kernel sent under the successful attempts.
    pub segments: u64,
    /// Segments that the kernel sent again under the successful attempts: packets that were lost
    /// and cost no attempt.
    pub retransmissions: u64,
}

impl Series {
    /// The latest attempt, with the wall-clock time it began.
    pub fn latest(&self) -> Option<(Attempt, Wall)> {
        self.latest.map(|(attempt, _, wall)| (attempt, wall))
    }

    /// When the latest attempt began, if it was answered.
    pub(crate) fn answered_latest(&self) -> Option<Time> {
        self.latest
            .and_then(|(attempt, begun, _)| matches!(attempt, Attempt::Ok(_)).then_some(begun))
    }

    /// How the latest attempt failed, if it did.
    pub(crate) fn latest_failure(&self) -> Option<Failure> {
        self.latest.and_then(|(attempt, ..)| match attempt {
            Attempt::Failed(kind) => Some(kind),
            Attempt::Ok(_) => None,
        })
    }

    /// Books an attempt that was ordered at `ordered_at`.
    pub(crate) fn book(&mut self, attempt: Attempt, ordered_at: Time, now: Moment) {
        let wall = now.wall.back(now.time.since(ordered_at));
        self.losses = self.losses << 1 | u64::from(matches!(attempt, Attempt::Failed(_)));
        self.attempts = (self.attempts + 1).min(LOSS_WINDOW);
        match attempt {
            Attempt::Ok(timing) => self.book_success(timing, now),
            Attempt::Failed(kind) => {
                if let Some(count) = self.failures.get_mut(usize::from(kind.code())) {
                    *count += 1;
                }
            }
        }
        self.latest = Some((attempt, ordered_at, wall));
    }

    fn book_success(&mut self, timing: Timing, now: Moment) {
        let total = timing.total();
        if let Some(previous) = self.previous {
            let difference = total.abs_diff(previous).as_nanos() as f64;
            self.jitter = Some(
                self.jitter.map_or(difference, |jitter| jitter + (difference - jitter) / 16.0),
            );
        }
        self.previous = Some(total);
        self.last_success = Some(now.wall);
        self.successes += 1;
        self.total.observe(total);
        self.native_total.observe(total);
        if let Some(request) = timing.request {
            self.request.observe(request);
            self.native_request.observe(request);
        }
        let [resolve, connect, tls, first_request] = &mut self.phases;
        resolve.observe(timing.resolve);
        connect.observe(timing.connect);
        if let Some(duration) = timing.tls {
            tls.observe(duration);
        }
        first_request.observe(timing.first_request);
        if let Some(kernel) = timing.kernel {
            self.segments += u64::from(kernel.segments);
            self.retransmissions += u64::from(kernel.retransmissions);
        }
    }

    /// Attempts in the loss window, and how many of them failed.
    pub fn loss(&self) -> (u32, u32) {
        let mask = u64::MAX >> (64 - self.attempts.max(1));
        (self.attempts, if self.attempts == 0 { 0 } else { (self.losses & mask).count_ones() })
    }

    /// Smoothed difference between successive totals; none before the second success.
    pub fn jitter(&self) -> Option<Duration> {
        self.jitter.map(|nanos| Duration::from_nanos(nanos as u64))
    }

    /// What is published, aged against a row whose label is `label`.
    pub(crate) fn cell(&self, label: Time) -> Cell {
        let Some((attempt, begun, _)) = self.latest else {
            return Cell::default();
        };
        let state = match attempt {
            Attempt::Ok(timing) => State::Ok {
                total: LatencyCode::encode(timing.total()),
                request: timing.request.map(LatencyCode::encode),
                jitter: self.jitter().map(JitterCode::encode),
            },
            Attempt::Failed(kind) => State::Failed(kind),
        };
        let sent_again = match attempt {
            Attempt::Ok(timing) => timing.kernel.map_or(0, |kernel| kernel.retransmissions),
            Attempt::Failed(_) => 0,
        };
        let (attempts, lost) = self.loss();
        let ticks = |time: Time| time.micros() / TICK.as_micros() as u64;
        Cell {
            state,
            age_ticks: u32::try_from(ticks(label).saturating_sub(ticks(begun))).unwrap_or(u32::MAX),
            loss: u8::try_from((lost * 255).div_ceil(attempts.max(1))).unwrap_or(u8::MAX),
            retransmissions: u8::try_from(sent_again).unwrap_or(u8::MAX),
        }
    }
}
