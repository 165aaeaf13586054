//! Names to addresses, as the host's applications see them. A name that is not resolved harms only
//! itself.
//!
//! There is at most one look-up of a name at once, and other callers wait for it. While it hangs,
//! or the name server fails, the last good addresses of the name are used. A late answer is kept
//! for the next caller.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use canary_core::Target;
use tokio::sync::{Semaphore, oneshot, watch};

/// Look-ups at once that are younger than [`SLOW`]. Further ones wait: none keeps its place for
/// longer.
const QUICK_MAX: usize = 32;
/// The same for names that strangers gave: they may name a server that never answers.
const STRANGERS_QUICK_MAX: usize = 8;
/// A look-up that takes longer is slow: it gives its place up, and holds its thread alone.
const SLOW: Duration = Duration::from_secs(1);
/// Threads of slow look-ups. A name that was slow is not looked up while there are so many; names
/// that were not are.
const SLOW_MAX: usize = 64;
/// How long a look-up may take before the last good addresses are used.
const HANGS: Duration = Duration::from_millis(500);
/// Names that are remembered. The one that was used longest ago goes first.
const NAMES_MAX: usize = 4096;
/// Addresses of one name that are used; a name with more is a list that only discovery wants whole.
const ADDRESSES_MAX: usize = 4096;
/// Stack of a thread that looks up: the system's resolver may load modules.
const STACK_BYTES: usize = 1 << 20;

/// What a look-up gave: addresses, or the reason.
type Found = Result<Arc<[IpAddr]>, LookupError>;

/// Why there are no addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookupError {
    /// The name server says that there are none.
    #[error("the name {0} does not exist, or has no address")]
    None(String),
    /// The name server fails.
    #[error("the name {name} could not be resolved: {why}")]
    Failed { name: String, why: String },
    /// There was no answer in time.
    #[error("the name {0} could not be resolved in time: the name server does not answer")]
    Silent(String),
    /// This host lacks a thread for it.
    #[error("this host has no thread to resolve the name {0}")]
    NoThread(String),
    /// It is an address that only its own host can mean.
    #[error("{0} is loopback, link-local or no host's address, and this bot is reached elsewhere")]
    Local(String),
}

impl LookupError {
    /// Whether it is this host that lacks something.
    pub(crate) fn is_own_fault(&self) -> bool {
        matches!(self, Self::NoThread(_))
    }
}

/// What is known of one name.
#[derive(Debug)]
struct Name {
    good: Option<Arc<[IpAddr]>>,
    looking: Option<watch::Receiver<Option<Found>>>,
    slow: bool,
    used: Instant,
}

#[derive(Debug)]
struct Lane {
    names: Mutex<BTreeMap<String, Name>>,
    quick: Arc<Semaphore>,
    slow: AtomicUsize,
}

/// The system's resolver, with a bound on what is asked at once.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    lane: Arc<Lane>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The configured name by which an address was found.
    found: Mutex<BTreeMap<Target, String>>,
    /// Targets that the operator named.
    configured: Mutex<BTreeSet<Target>>,
    /// This bot itself is reached at a loopback or link-local address.
    is_local: bool,
    /// Times that the last good addresses were used because the name was not resolved.
    stale: AtomicU64,
}

impl Lane {
    fn new(quick: usize) -> Arc<Self> {
        Arc::new(Self {
            names: Mutex::default(),
            quick: Arc::new(Semaphore::new(quick)),
            slow: AtomicUsize::new(0),
        })
    }
}

impl Resolver {
    /// For a bot that others reach at `me`, and that listens on `address`.
    pub(crate) fn new(me: &Target, address: IpAddr) -> Self {
        let is_local = address.is_loopback()
            || me.host() == "localhost"
            || me.host().parse().is_ok_and(is_local);
        let shared = Shared {
            found: Mutex::default(),
            configured: Mutex::default(),
            is_local,
            stale: AtomicU64::new(0),
        };
        Self { lane: Lane::new(QUICK_MAX), shared: Arc::new(shared) }
    }

    /// The same for names that are not known to be a member's: however long they take, they hold up
    /// nobody else's.
    pub(crate) fn for_strangers(&self) -> Self {
        Self { lane: Lane::new(STRANGERS_QUICK_MAX), shared: Arc::clone(&self.shared) }
    }

    /// The operator names these targets, and no others.
    pub(crate) fn configure(&self, targets: &[Target]) {
        *canary_net::lock(&self.shared.configured) = targets.iter().cloned().collect();
    }

    /// Remembers that these addresses were found by a configured name, and no others.
    pub(crate) fn remember(&self, name: &Target, addresses: &[Target]) {
        let mut found = canary_net::lock(&self.shared.found);
        found.retain(|_, held| held != name.host());
        found.extend(addresses.iter().map(|address| (address.clone(), name.host().to_owned())));
    }

    /// The configured name by which an address was found: the node that is joined at it has to
    /// prove that name.
    pub(crate) fn found_as(&self, address: &Target) -> Option<String> {
        canary_net::lock(&self.shared.found).get(address).cloned()
    }

    /// Times that the last good addresses of a name were used because it was not resolved.
    pub(crate) fn stale(&self) -> u64 {
        self.shared.stale.load(Ordering::Relaxed)
    }

    /// All addresses of a target, in the order of preference. Where there is nothing to fall back
    /// on it waits for at most `patience`.
    pub(crate) async fn resolve(
        &self,
        target: &Target,
        patience: Duration,
    ) -> Result<Vec<SocketAddr>, LookupError> {
        let addresses = match target.host().parse::<IpAddr>() {
            Ok(address) => Arc::from([address]),
            Err(_) => self.look_up(target.host(), patience).await?,
        };
        let usable = |address: &&IpAddr| {
            self.shared.is_local || !is_local(**address) || self.is_configured(target)
        };
        let usable: Vec<_> = addresses
            .iter()
            .filter(usable)
            .map(|address| SocketAddr::new(*address, target.port()))
            .collect();
        if usable.is_empty() {
            Err(LookupError::Local(target.host().to_owned()))
        } else {
            Ok(usable)
        }
    }

    fn is_configured(&self, target: &Target) -> bool {
        canary_net::lock(&self.shared.configured).contains(target)
    }

    async fn look_up(&self, host: &str, patience: Duration) -> Found {
        let (good, looking) = self.begin(host)?;
        let Some(mut looking) = looking else {
            return self.fall_back(good, LookupError::Silent(host.to_owned()));
        };
        let patience = if good.is_some() { patience.min(HANGS) } else { patience };
        let waited = tokio::time::timeout(patience, looking.wait_for(Option::is_some)).await;
        let found = match waited {
            Ok(Ok(found)) => found.clone(),
            // A look-up that is gone without a word lacked a thread.
            Ok(Err(_)) => Some(Err(LookupError::NoThread(host.to_owned()))),
            Err(_) => None,
        };
        match found {
            Some(Ok(addresses)) => Ok(addresses),
            Some(Err(error @ LookupError::None(_))) => Err(error),
            Some(Err(error)) => self.fall_back(good, error),
            None => self.fall_back(good, LookupError::Silent(host.to_owned())),
        }
    }

    fn fall_back(&self, good: Option<Arc<[IpAddr]>>, error: LookupError) -> Found {
        let good = good.ok_or(error)?;
        self.shared.stale.fetch_add(1, Ordering::Relaxed);
        Ok(good)
    }

    /// The last good addresses of a name, and the look-up that is under way: the one that was, or a
    /// new one; none if there must not be any.
    #[expect(clippy::type_complexity, reason = "one caller")]
    fn begin(
        &self,
        host: &str,
    ) -> Result<(Option<Arc<[IpAddr]>>, Option<watch::Receiver<Option<Found>>>), LookupError> {
        let mut names = canary_net::lock(&self.lane.names);
        if names.len() >= NAMES_MAX && !names.contains_key(host) {
            let idle = names.iter().filter(|(_, name)| name.looking.is_none());
            let oldest = idle.min_by_key(|(_, name)| name.used).map(|(host, _)| host.clone());
            // So many look-ups at once are not of configured names.
            let oldest = oldest.ok_or_else(|| LookupError::Silent(host.to_owned()))?;
            names.remove(&oldest);
        }
        let fresh = || Name { good: None, looking: None, slow: false, used: Instant::now() };
        let name = names.entry(host.to_owned()).or_insert_with(fresh);
        name.used = Instant::now();
        if name.looking.is_none()
            && !(name.slow && self.lane.slow.load(Ordering::Relaxed) >= SLOW_MAX)
        {
            let (told, looking) = watch::channel(None);
            name.looking = Some(looking);
            tokio::spawn(look(Arc::clone(&self.lane), host.to_owned(), name.slow, told));
        }
        Ok((name.good.clone(), name.looking.clone()))
    }
}

/// Looks a name up, and tells everybody who waits for it.
async fn look(lane: Arc<Lane>, host: String, slow: bool, told: watch::Sender<Option<Found>>) {
    // The semaphore is never closed.
    let mut place = if slow { None } else { lane.quick.acquire().await.ok() };
    if slow {
        lane.slow.fetch_add(1, Ordering::Relaxed);
    }
    let (found, late) = match ask_system(&host) {
        Ok(mut answer) => match tokio::time::timeout(SLOW, &mut answer).await {
            Ok(found) => (found.ok(), false),
            Err(_) => {
                if place.take().is_some() {
                    lane.slow.fetch_add(1, Ordering::Relaxed);
                }
                let found = answer.await.ok();
                (found, true)
            }
        },
        Err(_) => (None, false),
    };
    if slow || late {
        lane.slow.fetch_sub(1, Ordering::Relaxed);
    }
    let found = found.unwrap_or_else(|| Err(LookupError::NoThread(host.clone())));
    let mut names = canary_net::lock(&lane.names);
    if let Some(name) = names.get_mut(&host) {
        name.looking = None;
        name.slow = late;
        match &found {
            Ok(addresses) => name.good = Some(Arc::clone(addresses)),
            Err(LookupError::None(_)) => name.good = None,
            Err(_) => {}
        }
    }
    drop(names);
    told.send_replace(Some(found));
}

/// Asks the system's resolver, on a thread of its own.
fn ask_system(host: &str) -> io::Result<oneshot::Receiver<Found>> {
    let (answer, answered) = oneshot::channel();
    let host = host.to_owned();
    std::thread::Builder::new().name("resolve".to_owned()).stack_size(STACK_BYTES).spawn(
        move || {
            // Who asked may be gone.
            let _ = answer.send(ask(&host));
        },
    )?;
    Ok(answered)
}

fn ask(host: &str) -> Found {
    match (host, 0).to_socket_addrs() {
        Ok(addresses) => {
            // Some resolvers list an address once for each protocol.
            let mut seen = BTreeSet::new();
            let addresses: Vec<_> = addresses
                .map(|address| address.ip())
                .filter(|ip| seen.insert(*ip))
                .take(ADDRESSES_MAX)
                .collect();
            if addresses.is_empty() {
                Err(LookupError::None(host.to_owned()))
            } else {
                Ok(addresses.into())
            }
        }
        Err(error) => {
            let why = error.to_string();
            // What getaddrinfo says of a name that is not there (EAI_NONAME, EAI_NODATA); all else
            // may pass.
            let none =
                ["not known", "No address associated", "nodename nor servname", "No such host"];
            if none.iter().any(|words| why.contains(words)) {
                return Err(LookupError::None(host.to_owned()));
            }
            let why = why.trim_start_matches("failed to lookup address information: ").to_owned();
            Err(LookupError::Failed { name: host.to_owned(), why })
        }
    }
}

/// Whether an address means another host on each host, or none: nobody else can tell us to dial it.
fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    /// A look-up of `host` that hangs.
    fn hang(resolver: &Resolver, host: &str, good: Option<&str>) -> watch::Sender<Option<Found>> {
        let (told, looking) = watch::channel(None);
        let good = good.map(|address| Arc::from([address.parse().unwrap()]));
        let name = Name { good, looking: Some(looking), slow: true, used: Instant::now() };
        resolver.lane.names.lock().unwrap().insert(host.to_owned(), name);
        told
    }

    #[tokio::test]
    async fn the_last_good_addresses_are_used_while_a_look_up_hangs() {
        let resolver = Resolver::new(&target("192.0.2.1:1"), IpAddr::from([0, 0, 0, 0]));
        let _hangs = hang(&resolver, "owl.example", Some("192.0.2.7"));
        let found = resolver.resolve(&target("owl.example:80"), Duration::from_secs(60)).await;
        assert_eq!(found, Ok(vec!["192.0.2.7:80".parse().unwrap()]));
        assert_eq!(resolver.stale(), 1);
        let _hangs = hang(&resolver, "duck.example", None);
        let found = resolver.resolve(&target("duck.example:80"), Duration::from_millis(10)).await;
        assert_eq!(found, Err(LookupError::Silent("duck.example".to_owned())));
    }

    #[tokio::test]
    async fn a_second_request_waits_for_the_same_look_up() {
        let resolver = Resolver::new(&target("192.0.2.1:1"), IpAddr::from([0, 0, 0, 0]));
        let told = hang(&resolver, "owl.example", None);
        let (resolver, owl) = (&resolver, target("owl.example:80"));
        let ask = || resolver.resolve(&owl, Duration::from_secs(60));
        let answer =
            async { told.send_replace(Some(Ok(Arc::from(["192.0.2.9".parse().unwrap()])))) };
        let (one, other, _) = tokio::join!(ask(), ask(), answer);
        assert_eq!((one.as_ref().map(Vec::len), one == other), (Ok(1), true));
    }

    #[tokio::test]
    async fn names_that_hang_hold_up_no_others() {
        let resolver = Resolver::new(&target("127.0.0.1:1"), IpAddr::from([0, 0, 0, 0]));
        let hung: Vec<_> =
            (0..500).map(|number| hang(&resolver, &format!("{number}.example"), None)).collect();
        resolver.lane.slow.store(SLOW_MAX, Ordering::Relaxed);
        let found =
            resolver.resolve(&target("localhost:80"), Duration::from_secs(10)).await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback()));
        // One that was slow before waits for a place among the slow, and says at once that it has
        // none.
        resolver.lane.names.lock().unwrap().get_mut("0.example").unwrap().looking = None;
        let found = resolver.resolve(&target("0.example:80"), Duration::from_secs(60)).await;
        assert_eq!(found, Err(LookupError::Silent("0.example".to_owned())));
        drop(hung);
    }

    #[tokio::test]
    async fn nobody_else_has_a_bot_dial_its_own_host() {
        let resolver = Resolver::new(&target("192.0.2.1:1"), IpAddr::from([0, 0, 0, 0]));
        let patience = Duration::from_secs(5);
        for local in [
            "127.0.0.1:22",
            "127.9.9.9:1",
            "169.254.169.254:80",
            "0.0.0.0:1",
            "[::1]:1",
            "[fe80::1]:1",
            "[::ffff:127.0.0.1]:1",
            "localhost:1",
        ] {
            let found = resolver.resolve(&target(local), patience).await;
            assert!(matches!(found, Err(LookupError::Local(_))), "{local}: {found:?}");
        }
        assert!(resolver.resolve(&target("192.0.2.2:1"), patience).await.is_ok());
        // What the operator named is dialled, and on a mesh that lives on loopback everything is.
        resolver.configure(&[target("127.0.0.1:22")]);
        assert!(resolver.resolve(&target("127.0.0.1:22"), patience).await.is_ok());
        assert!(resolver.resolve(&target("127.0.0.1:23"), patience).await.is_err());
        assert!(
            Resolver::new(&target("a.test:1"), IpAddr::from([127, 0, 0, 5]))
                .resolve(&target("127.0.0.1:23"), patience)
                .await
                .is_ok()
        );
    }
}
