//! Rates by key: a burst at once, and so many a second after that.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Instant;

use crate::ledger::client;

/// Keys that are remembered. While so many are short of credit at once, all others get nothing,
/// too.
const KEYS_MAX: usize = 4096;

/// The credit of each key, such as a client's address, for something that it may do so often.
#[derive(Debug)]
pub struct Rates<K = IpAddr> {
    burst: f64,
    per_second: f64,
    credits: Mutex<HashMap<K, (f64, Instant)>>,
}

impl<K: Eq + Hash> Rates<K> {
    /// So many at once, and so many a second after that.
    pub fn new(burst: f64, per_second: f64) -> Self {
        Self { burst, per_second, credits: Mutex::default() }
    }

    /// Takes one, if the key has one left.
    pub fn spend(&self, key: K, now: Instant) -> bool {
        let (burst, per_second) = (self.burst, self.per_second);
        let credit = |(left, at): (f64, Instant)| {
            (left + now.saturating_duration_since(at).as_secs_f64() * per_second).min(burst)
        };
        let mut credits = crate::lock(&self.credits);
        if credits.len() >= KEYS_MAX && !credits.contains_key(&key) {
            credits.retain(|_, held| credit(*held) < burst);
            if credits.len() >= KEYS_MAX {
                return false;
            }
        }
        let held = credits.entry(key).or_insert((burst, now));
        let left = credit(*held);
        let allowed = left >= 1.0;
        *held = (if allowed { left - 1.0 } else { left }, now);
        allowed
    }
}

impl Rates {
    /// Takes one, if the client has one left.
    pub fn take(&self, address: IpAddr) -> bool {
        self.spend(client(address), Instant::now())
    }

    /// Gives one back.
    pub fn refund(&self, address: IpAddr) {
        let mut credits = crate::lock(&self.credits);
        if let Some((left, _)) = credits.get_mut(&client(address)) {
            *left = (*left + 1.0).min(self.burst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_key_has_its_own_credit_and_few_keys_are_remembered() {
        let (rates, now) = (Rates::new(100.0, 10.0), Instant::now());
        assert_eq!((0..200).filter(|_| rates.spend(1, now)).count(), 100);
        assert!(rates.spend(2, now), "another's spending is held against it");
        assert_eq!((0..200).filter(|_| rates.spend(1, now + Duration::from_secs(1))).count(), 10);
        // However many come, so many are remembered; those with all their credit make room.
        let allowed = (0..10_000).filter(|number| rates.spend(100 + number, now)).count();
        assert!(
            allowed < KEYS_MAX
                && rates.credits.lock().is_ok_and(|credits| credits.len() <= KEYS_MAX)
        );
        assert!(rates.spend(50_000, now + Duration::from_secs(60)));
    }
}
