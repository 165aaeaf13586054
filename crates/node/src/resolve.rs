//! Names to addresses, as the host's applications see them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};

use canary_core::Target;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Look-ups at once: each holds a thread until the system's resolver answers, however long that takes. Further ones wait.
const LOOKUPS_MAX: usize = 32;
/// The same for names that strangers told: a name server that never answers is theirs to give.
const STRANGERS_LOOKUPS_MAX: usize = 8;
/// Addresses of one name that are used; a name with more is a list that only discovery wants whole.
const ADDRESSES_MAX: usize = 4096;

/// A place among the look-ups at once.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held, and given back when it is dropped")] Option<OwnedSemaphorePermit>);

/// The system's resolver, with a bound on what is asked at once.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    permits: Arc<Semaphore>,
    /// The configured name by which an address was found.
    found: Arc<Mutex<BTreeMap<Target, String>>>,
}

impl Resolver {
    pub(crate) fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(LOOKUPS_MAX)), found: Arc::default() }
    }

    /// The same for names that are not known to be a member's: however long they take, they hold up nobody else's.
    pub(crate) fn for_strangers(&self) -> Self {
        Self { permits: Arc::new(Semaphore::new(STRANGERS_LOOKUPS_MAX)), found: Arc::clone(&self.found) }
    }

    /// Remembers that these addresses were found by a configured name, and no others.
    pub(crate) fn remember(&self, name: &Target, addresses: &[Target]) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.retain(|_, held| held != name.host());
        found.extend(addresses.iter().map(|address| (address.clone(), name.host().to_owned())));
    }

    /// The configured name by which an address was found: whoever is joined at it has to prove that name.
    pub(crate) fn found_as(&self, address: &Target) -> Option<String> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).get(address).cloned()
    }

    /// Waits until a look-up may begin, if the target needs one: the system's resolver may hold its thread for long after we gave up.
    pub(crate) async fn turn(&self, target: &Target) -> Turn {
        if target.host().parse::<IpAddr>().is_ok() {
            return Turn(None);
        }
        // The semaphore is never closed; without a permit the look-up fails below.
        Turn(Arc::clone(&self.permits).acquire_owned().await.ok())
    }

    /// All addresses of a target, in the order of preference.
    pub(crate) async fn resolve(&self, target: &Target) -> io::Result<Vec<SocketAddr>> {
        let turn = self.turn(target).await;
        self.resolve_in(turn, target).await
    }

    /// The same, in a turn that was waited for. An address needs no look-up.
    pub(crate) async fn resolve_in(&self, turn: Turn, target: &Target) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = target.host().parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, target.port())]);
        }
        let (host, port) = (target.host().to_owned(), target.port());
        let looking = tokio::task::spawn_blocking(move || {
            // The turn ends with the look-up, not with whoever waits for it.
            let _turn = turn;
            Ok::<_, io::Error>((host.as_str(), port).to_socket_addrs()?.take(ADDRESSES_MAX).collect::<Vec<_>>())
        });
        let mut addresses = looking.await.map_err(io::Error::other)??;
        // Some resolvers list an address once for each protocol.
        let mut seen = std::collections::HashSet::new();
        addresses.retain(|address| seen.insert(*address));
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn strangers_names_hold_up_nobody_elses() {
        let resolver = Resolver::new();
        let strangers = resolver.for_strangers();
        let name = "owl.example.net:1".parse().unwrap();
        let at_once = |resolver: &Resolver| match std::pin::pin!(resolver.turn(&name)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        };
        let held: Vec<_> = std::iter::from_fn(|| at_once(&strangers)).collect();
        assert_eq!(held.len(), STRANGERS_LOOKUPS_MAX);
        assert!(at_once(&resolver).is_some());
        drop(held);
        assert!(at_once(&strangers).is_some());
    }
}
