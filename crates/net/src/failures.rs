//! Failed authentications, by client, so that guessing is slow. Whoever presents a valid credential is judged first and never comes here: nobody
//! is delayed by another's failures.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::accept::client;

/// Failures of one client that are answered at once: a collector with an old token, and its neighbours behind one address.
const BURST: f64 = 100.0;
/// Failures a second that are answered after that.
const PER_SECOND: f64 = 10.0;
/// Clients that are remembered. While so many fail at once, all others that fail are put off, too.
const CLIENTS_MAX: usize = 4096;

/// What is left to each client that failed of late.
#[derive(Debug, Default)]
pub struct Failures {
    clients: Mutex<HashMap<IpAddr, (f64, Instant)>>,
    limited: AtomicU64,
}

impl Failures {
    /// Notes a failure; tells whether the client may be told of it, or is to come again later.
    pub fn note(&self, address: IpAddr) -> bool {
        let answered = self.spend(client(address), Instant::now());
        if !answered {
            self.limited.fetch_add(1, Ordering::Relaxed);
        }
        answered
    }

    /// Failures whose clients were told to come again later.
    pub fn limited(&self) -> u64 {
        self.limited.load(Ordering::Relaxed)
    }

    fn spend(&self, client: IpAddr, now: Instant) -> bool {
        let credit = |(left, at): (f64, Instant)| (left + now.saturating_duration_since(at).as_secs_f64() * PER_SECOND).min(BURST);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&client) {
            clients.retain(|_, held| credit(*held) < BURST);
            if clients.len() >= CLIENTS_MAX {
                return false;
            }
        }
        let held = clients.entry(client).or_insert((BURST, now));
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
        let (failures, now) = (Failures::default(), Instant::now());
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
