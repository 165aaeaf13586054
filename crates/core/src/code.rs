//! Latencies as logarithmic codes: small on the wire, and exact to the same share at every size.

use std::num::{NonZeroU8, NonZeroU16};
use std::time::Duration;

/// A latency from 1 ns to 1,000 s in steps of 0.169 %: one of 10 ms is right within 9 µs, which is
/// less than the hosts at both ends add to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LatencyCode(NonZeroU16);

/// The code of 1,000 s; that of 1 ns is one.
const LATENCY_MAX: u16 = 1 << 14;
/// Steps between the two.
const LATENCY_STEPS: f64 = (LATENCY_MAX - 1) as f64;
/// ln(1,000 s ÷ 1 ns).
const LATENCY_SPAN: f64 = 27.631_021_115_928_547;

impl LatencyCode {
    /// The nearest code; latencies outside the range take its ends.
    pub fn encode(latency: Duration) -> Self {
        let nanos = (latency.as_nanos() as f64).max(1.0);
        let step = (nanos.ln() / LATENCY_SPAN * LATENCY_STEPS).round().clamp(0.0, LATENCY_STEPS);
        Self(NonZeroU16::MIN.saturating_add(step as u16))
    }

    /// The latency of the code, within 0.085 % of what was encoded.
    pub fn decode(self) -> Duration {
        let step = f64::from(self.0.get() - 1);
        Duration::from_nanos((step / LATENCY_STEPS * LATENCY_SPAN).exp().round() as u64)
    }

    /// The code as it travels; never zero.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// From a travelled code; none for zero, and for more than 1,000 s.
    pub const fn from_raw(raw: u16) -> Option<Self> {
        match NonZeroU16::new(raw) {
            Some(code) if raw <= LATENCY_MAX => Some(Self(code)),
            _ => None,
        }
    }
}

/// A jitter from 1 µs to 10 s in 255 steps of 6.5 % each: jitter is an estimate, and a byte is what
/// it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JitterCode(NonZeroU8);

/// ln(10 s ÷ 1 µs).
const JITTER_SPAN: f64 = 16.118_095_650_958_32;

impl JitterCode {
    /// The nearest code; jitters outside the range take its ends.
    pub fn encode(jitter: Duration) -> Self {
        let micros = (jitter.as_nanos() as f64 / 1000.0).max(1.0);
        let step = (micros.ln() / JITTER_SPAN * 254.0).round().clamp(0.0, 254.0);
        Self(NonZeroU8::MIN.saturating_add(step as u8))
    }

    /// The jitter of the code, within 3.3 % of what was encoded.
    pub fn decode(self) -> Duration {
        let step = f64::from(self.0.get() - 1);
        Duration::from_nanos(((step / 254.0 * JITTER_SPAN).exp() * 1000.0).round() as u64)
    }

    /// The code as it travels; never zero.
    pub const fn get(self) -> u8 {
        self.0.get()
    }

    /// From a travelled code; none for zero.
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match NonZeroU8::new(raw) {
            Some(code) => Some(Self(code)),
            None => None,
        }
    }
}
