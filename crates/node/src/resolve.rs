//! Names to addresses, as the host's applications see them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use canary_core::Target;
use tokio::sync::Semaphore;

/// Look-ups at once: each holds a thread until the system's resolver answers, however long that takes. Further ones wait.
const LOOKUPS_MAX: usize = 32;
/// Addresses of one name that are used; a name with more is a list that only discovery wants whole.
const ADDRESSES_MAX: usize = 4096;

/// The system's resolver, with a bound on what is asked at once.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    permits: Arc<Semaphore>,
}

impl Resolver {
    pub(crate) fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    /// All addresses of a target, in the order of preference. An address needs no look-up.
    pub(crate) async fn resolve(&self, target: &Target) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = target.host().parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, target.port())]);
        }
        let _permit = self.permits.acquire().await.map_err(io::Error::other)?;
        let found = tokio::net::lookup_host((target.host(), target.port())).await?;
        let mut addresses: Vec<_> = found.take(ADDRESSES_MAX).collect();
        // Some resolvers list an address once for each protocol.
        let mut seen = std::collections::HashSet::new();
        addresses.retain(|address| seen.insert(*address));
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(addresses)
    }
}
