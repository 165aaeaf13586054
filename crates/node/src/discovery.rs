//! Where to join: fixed targets, and names that stand for many.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use canary_core::{Target, TargetError};

use crate::resolve::Resolver;

/// How often a name is resolved again while it gives addresses.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);
/// How soon after it gave none.
const LOOKUP_RETRY: Duration = Duration::from_secs(1);
/// How long one look-up may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// One `--target`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seed {
    /// `HOST:PORT`: one bot. Its name is resolved whenever it is dialled.
    Fixed(Target),
    /// `dns:NAME:PORT`: a bot at every address of the name, such as a headless Service.
    Dns(Target),
}

impl FromStr for Seed {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let Some(name) = text
            .get(..4)
            .filter(|scheme| scheme.eq_ignore_ascii_case("dns:"))
            .and_then(|_| text.get(4..))
        else {
            return Ok(Self::Fixed(text.parse()?));
        };
        // `dns:80` is a host of that name.
        name.parse()
            .map(Self::Dns)
            .or_else(|error| text.parse().map(Self::Fixed).map_err(|_| error))
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(target) => target.fmt(f),
            Self::Dns(target) => write!(f, "dns:{target}"),
        }
    }
}

/// Keeps the targets to join at up to date: calls `found` with all of them, first at once and then
/// whenever they change.
pub(crate) async fn discover(
    seeds: Vec<Seed>,
    resolver: Resolver,
    found: impl AsyncFn(Vec<Target>),
) {
    let mut known: Vec<Vec<Target>> = seeds
        .iter()
        .map(|seed| match seed {
            Seed::Fixed(target) => vec![target.clone()],
            Seed::Dns(_) => Vec::new(),
        })
        .collect();
    let names: Vec<_> = seeds
        .iter()
        .enumerate()
        .filter_map(|(index, seed)| match seed {
            Seed::Dns(name) => Some((index, name.clone())),
            Seed::Fixed(_) => None,
        })
        .collect();
    found(known.concat()).await;
    while !names.is_empty() {
        let mut changed = false;
        let mut missing = false;
        for (index, name) in &names {
            match lookup(name, &resolver).await {
                Ok(addresses) => {
                    resolver.remember(name, &addresses);
                    changed |= known[*index] != addresses;
                    known[*index] = addresses;
                }
                Err(why) => {
                    // What was known stays: a resolver that is down is no reason to forget where
                    // others are.
                    tracing::debug!(%name, why, "cannot look up the targets of a name");
                    missing = true;
                    // A name that never resolved is a target that does not admit us, and is
                    // reported and counted as one.
                    if known[*index].is_empty() {
                        known[*index].push(name.clone());
                        changed = true;
                    }
                }
            }
        }
        if changed {
            found(known.concat()).await;
        }
        tokio::time::sleep(if missing { LOOKUP_RETRY } else { LOOKUP_INTERVAL }).await;
    }
}

async fn lookup(name: &Target, resolver: &Resolver) -> Result<Vec<Target>, String> {
    let addresses =
        resolver.resolve(name, LOOKUP_TIMEOUT).await.map_err(|error| error.to_string())?;
    let mut targets: Vec<_> = addresses
        .iter()
        .filter_map(|address| Target::new(&address.ip().to_string(), address.port()).ok())
        .collect();
    targets.sort_unstable();
    targets.dedup();
    Ok(targets)
}
