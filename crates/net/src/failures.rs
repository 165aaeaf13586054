//! Failed authentications, by client, so that guessing is slow. A valid credential is judged first
//! and never counted here: nobody is delayed by another client's failures.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::rates::Rates;

/// Failures of one client that are answered at once, a collector with an old token and its
/// neighbours behind one address, and how many a second after that.
const FAILURES: (f64, f64) = (100.0, 10.0);

/// Failed authentications, by client.
#[derive(Debug)]
pub struct Failures {
    rates: Rates,
    limited: AtomicU64,
}

impl Default for Failures {
    fn default() -> Self {
        Self { rates: Rates::new(FAILURES.0, FAILURES.1), limited: AtomicU64::new(0) }
    }
}

impl Failures {
    /// Notes a failure. Returns whether the client may get the reason, or has to come again later.
    pub fn note(&self, address: IpAddr) -> bool {
        let answered = self.rates.take(address);
        if !answered {
            self.limited.fetch_add(1, Ordering::Relaxed);
        }
        answered
    }

    /// Failures whose clients were asked to come again later.
    pub fn limited(&self) -> u64 {
        self.limited.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn guessing_is_slow() {
        let (rates, now, guesser) =
            (Failures::default().rates, Instant::now(), IpAddr::from([192, 0, 2, 1]));
        assert_eq!((0..200).filter(|_| rates.spend(guesser, now)).count(), 100);
        assert_eq!(
            (0..200).filter(|_| rates.spend(guesser, now + Duration::from_secs(1))).count(),
            10
        );
    }
}
