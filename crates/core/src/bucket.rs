//! A token bucket on the core's clock.

use std::time::Duration;

use crate::limits::Rate;
use crate::time::Time;

/// Debt is forgiven beyond what so many seconds earn: a burst that others asked for must not
/// silence us for long.
const DEBT_MAX_SECONDS: f64 = 2.0;

#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    tokens: f64,
    filled_at: Time,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(rate: Rate, now: Time) -> Self {
        Self { rate, tokens: rate.burst, filled_at: now }
    }

    /// Tokens there are.
    pub(crate) fn level(&mut self, now: Time) -> f64 {
        let gained = now.since(self.filled_at).as_secs_f64() * self.rate.per_second;
        self.filled_at = self.filled_at.max(now);
        self.tokens = (self.tokens + gained).min(self.rate.burst);
        self.tokens
    }

    /// Takes `tokens` if they are there.
    pub(crate) fn take(&mut self, tokens: f64, now: Time) -> bool {
        let there = self.level(now) >= tokens;
        if there {
            self.tokens -= tokens;
        }
        there
    }

    /// Takes `tokens` even on credit: what is already on its way cannot be refused.
    pub(crate) fn charge(&mut self, tokens: f64, now: Time) {
        self.level(now);
        self.tokens = (self.tokens - tokens).max(-DEBT_MAX_SECONDS * self.rate.per_second);
    }

    /// Gives `tokens` back.
    pub(crate) fn refund(&mut self, tokens: f64) {
        self.tokens = (self.tokens + tokens).min(self.rate.burst);
    }

    /// Time until `tokens` are there, rounded up to the microseconds of the clock: zero must mean
    /// that they can be taken.
    pub(crate) fn wait(&mut self, tokens: f64, now: Time) -> Duration {
        let lacking = tokens - self.level(now);
        if lacking <= 0.0 {
            Duration::ZERO
        } else {
            Duration::from_micros((lacking / self.rate.per_second * 1e6).ceil() as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_wait_can_be_taken() {
        let now = Time::from_micros(1 << 50);
        let mut bucket = Bucket::new(Rate { per_second: 50.0, burst: 1.0 }, now);
        // As the sum of many small gains may be.
        bucket.tokens = 1.0 - 1e-9;
        assert!(!bucket.take(1.0, now));
        let wait = bucket.wait(1.0, now);
        assert_eq!(wait, Duration::from_micros(1));
        assert!(bucket.take(1.0, now + wait) && !bucket.wait(1.0, now + wait).is_zero());
    }
}
