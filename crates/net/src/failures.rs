//! Failed authentications, by client, so that guessing is slow. Whoever presents a valid credential is judged first and never comes here: nobody
//! is delayed by another's failures.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::accept::client;

/// Failures of one client that are answered at once, a collector with an old token and its neighbours behind one address, and how many a second
/// after that.
const FAILURES: (f64, f64) = (100.0, 10.0);
/// Clients that are remembered. While so many fail at once, all others that fail are put off, too.
const CLIENTS_MAX: usize = 4096;

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
    /// Notes a failure; tells whether the client may be told of it, or is to come again later.
    pub fn note(&self, address: IpAddr) -> bool {
        let answered = self.rates.take(address);
        if !answered {
            self.limited.fetch_add(1, Ordering::Relaxed);
        }
        answered
    }

    /// Failures whose clients were told to come again later.
    pub fn limited(&self) -> u64 {
        self.limited.load(Ordering::Relaxed)
    }
}

/// What is left to each client of something that it may do so often.
#[derive(Debug)]
pub struct Rates {
    burst: f64,
    per_second: f64,
    clients: Mutex<HashMap<IpAddr, (f64, Instant)>>,
}

impl Rates {
    /// So many at once, and so many a second after that.
    pub fn new(burst: f64, per_second: f64) -> Self {
        Self { burst, per_second, clients: Mutex::default() }
    }

    /// Takes one, if the client has one left.
    pub fn take(&self, address: IpAddr) -> bool {
        self.spend(client(address), Instant::now())
    }

    /// Gives one back.
    pub fn refund(&self, address: IpAddr) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((left, _)) = clients.get_mut(&client(address)) {
            *left = (*left + 1.0).min(self.burst);
        }
    }

    fn spend(&self, client: IpAddr, now: Instant) -> bool {
        let (burst, per_second) = (self.burst, self.per_second);
        let credit = |(left, at): (f64, Instant)| (left + now.saturating_duration_since(at).as_secs_f64() * per_second).min(burst);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&client) {
            clients.retain(|_, held| credit(*held) < burst);
            if clients.len() >= CLIENTS_MAX {
                return false;
            }
        }
        let held = clients.entry(client).or_insert((burst, now));
        let left = credit(*held);
        let answered = left >= 1.0;
        *held = (if answered { left - 1.0 } else { left }, now);
        answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn guessing_is_slow_and_harms_nobody_else() {
        let (failures, now) = (Failures::default().rates, Instant::now());
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        assert_eq!((0..200).filter(|_| failures.spend(address(1), now)).count(), 100);
        assert!(failures.spend(address(2), now), "another's failures are held against it");
        assert_eq!((0..200).filter(|_| failures.spend(address(1), now + Duration::from_secs(1))).count(), 10);
        // However many come, so many are remembered; those who failed long ago make room.
        let answered = (0..10_000).filter(|number| failures.spend(address(100 + number), now)).count();
        assert!(answered < CLIENTS_MAX && failures.clients.lock().is_ok_and(|clients| clients.len() <= CLIENTS_MAX));
        assert!(failures.spend(address(50_000), now + Duration::from_secs(60)));
    }
}
