//! Log lines that would repeat: one a minute, with the number of those left out.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often a line that repeats is logged.
const PAUSE: Duration = Duration::from_secs(60);

/// Lets one line a minute pass.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// For a `static`.
    pub const fn new() -> Self {
        Self(Mutex::new((None, 0)))
    }

    /// How many lines were left out since the last one; none if this one is to be left out as well.
    pub fn allows(&self) -> Option<u64> {
        self.allows_at(Instant::now())
    }

    fn allows_at(&self, now: Instant) -> Option<u64> {
        let mut state = crate::lock(&self.0);
        if state.0.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            state.1 += 1;
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_passes_and_tells_how_many_did_not() {
        let (seldom, now) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.allows_at(now), Some(0));
        assert!(
            (0..30).all(|second| seldom.allows_at(now + Duration::from_secs(second)).is_none())
        );
        assert_eq!(seldom.allows_at(now + PAUSE), Some(30));
    }
}
