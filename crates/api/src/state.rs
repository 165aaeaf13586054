//! What every handler may use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use canary_core::{Histogram, NodeName};
use canary_net::{Guard, Stats};
use tokio::sync::Semaphore;

use crate::push::counts::Counts;
use crate::v2::live::Live;
use crate::{Config, Content, Source};

/// A bot that has not shown what it knows for so long is wedged: it shows it every second.
pub(crate) const WEDGED_AFTER: Duration = Duration::from_secs(10);

/// What every handler may use.
pub(crate) struct Api {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) guard: Guard,
    pub(crate) metrics: crate::Metrics,
    pub(crate) pins: Vec<(NodeName, NodeName)>,
    pub(crate) has_page: bool,
    pub(crate) version: &'static str,
    pub(crate) requests: Requests,
    pub(crate) port: Arc<Stats>,
    /// Places of scrapes whose families are written whole.
    pub(crate) whole_scrapes: Arc<Semaphore>,
    pub(crate) live: Arc<Live>,
    /// What became of the metrics that are sent, by receiver.
    pub(crate) pushes: Arc<[Arc<Counts>]>,
}

/// Scrapes whose families are written whole, at once: each holds megabytes until it is read.
const WHOLE_SCRAPES_MAX: usize = 2;

impl Api {
    pub(crate) fn new(
        config: Config,
        source: Arc<dyn Source>,
        live: Arc<Live>,
        port: Arc<Stats>,
    ) -> Self {
        let Config { guard, content: Content { metrics, page: has_page, pins, pushes }, version } =
            config;
        Self {
            source,
            guard,
            metrics,
            pins,
            has_page,
            version,
            requests: Requests::default(),
            port,
            whole_scrapes: Arc::new(Semaphore::new(WHOLE_SCRAPES_MAX)),
            live,
            pushes: pushes.iter().map(|push| Arc::new(Counts::new(push.protocol))).collect(),
        }
    }
}

/// Route, method and code of a request; each from a small set, so that strangers cannot make
/// series.
pub(crate) type Key = (String, &'static str, u16);

/// Durations of requests until their answer began.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<BTreeMap<Key, Histogram>>);

impl Requests {
    pub(crate) fn observe(&self, key: Key, begun: Instant) {
        canary_net::lock(&self.0).entry(key).or_default().observe(begun.elapsed());
    }

    /// All that was counted so far.
    pub(crate) fn all(&self) -> Vec<(Key, Histogram)> {
        let counted = canary_net::lock(&self.0);
        counted.iter().map(|(key, histogram)| (key.clone(), *histogram)).collect()
    }
}
