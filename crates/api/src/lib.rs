//! Shows what a bot knows to clients that have a token. It reads snapshots and holds no state of
//! the mesh.

mod auth;
mod form;
#[doc(hidden)]
pub mod fuzz;
mod mesh_metrics;
mod metrics;
mod picture;
mod process;
mod push;
mod refusals;
mod requests;
mod routes;
mod rpc;
mod state;
mod tagged;
#[cfg(test)]
mod tests;
mod v1;
mod v2;
mod web;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use canary_core::{Detail, MemberView, NodeName, Snapshot};
use canary_insight::Report;
use canary_net::{Accepted, Door, Guard, IpNet, Limits, Peer, Stats};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

pub use push::{Push, PushProtocol};
pub use v2::openapi;

/// Where the API reads from.
pub trait Source: Send + Sync + 'static {
    /// What the bot knows now.
    fn snapshot(&self) -> Arc<Snapshot>;
    /// How long ago it last showed what it knows.
    fn snapshot_age(&self) -> Duration;
    /// What is wrong, as far as it knows.
    fn report(&self) -> Arc<Report>;
    /// What its transport counted.
    fn transport(&self) -> Transport;
    /// Asks another node what it alone knows of its pair to `target`.
    fn describe(&self, source: MemberView, target: NodeName) -> Telling;
}

/// A node that was asked of one of its pairs: what it tells, and how long ago it told; in words why
/// it does not.
pub type Telling = Pin<Box<dyn Future<Output = Result<(Detail, Duration), String>> + Send>>;

/// Counters of the mesh's transport.
#[derive(Clone, Debug, Default)]
pub struct Transport {
    /// Messages and their bytes, by kind and direction.
    pub messages: Vec<Messages>,
    /// What was refused below the core, by reason.
    pub refused: Vec<(String, u64)>,
    /// Log lines that were not written, by reason; none where the process logs otherwise.
    pub log_lost: Vec<(&'static str, u64)>,
}

/// Messages of one kind in one direction.
#[derive(Clone, Copy, Debug)]
pub struct Messages {
    /// What they are for.
    pub kind: &'static str,
    /// `in` or `out`.
    pub direction: &'static str,
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How much `/metrics` tells of each pair. Over a mesh that is series for every pair of nodes,
/// which somebody has to store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetricsLevel {
    /// Nothing of pairs: only of the bot and its mesh.
    Off,
    /// Counters, the last success, and sums of the phases.
    Pairs,
    /// Histograms, too.
    #[default]
    Histograms,
}

/// What `/metrics` and `/metrics/mesh` show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// How much of each pair.
    pub level: MetricsLevel,
    /// The original's families: `node_count`, and with histograms `rtt`.
    pub legacy: bool,
    /// Pairs that `/metrics/mesh` has series of, at most.
    pub pairs_max: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { level: MetricsLevel::default(), legacy: true, pairs_max: 10_000 }
    }
}

/// What the API port shows, and what it sends.
#[derive(Clone, Debug)]
pub struct Content {
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Whether browsers get the page at `/`.
    pub page: bool,
    /// Pairs, each source and target, that `/metrics/mesh` has series of before any other.
    pub pins: Vec<(NodeName, NodeName)>,
    /// Where the metrics are sent as well.
    pub pushes: Vec<Push>,
}

impl Default for Content {
    fn default() -> Self {
        Self { metrics: Metrics::default(), page: true, pins: Vec::new(), pushes: Vec::new() }
    }
}

/// What the API port needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose tokens open the API, and what it speaks.
    pub guard: Guard,
    /// What it shows.
    pub content: Content,
    /// The program's version, as `/version` and the metrics tell it.
    pub version: &'static str,
}

/// The API port may have one in so many of the descriptors that this process may open.
const API_PORT_SHARE: u64 = 8;

/// What the API port lets strangers hold.
fn port_limits(proxies: Arc<[IpNet]>) -> Limits {
    let limits = Limits {
        proxies,
        handshakes: 256,
        handshakes_per_address: 32,
        handshake_time: Duration::from_secs(5),
        connections: 512,
        connections_per_address: 128,
        header_bytes: 16 * 1024,
        headers: 64,
        // Each may hold a piece of an answer that is not read.
        streams: 16,
        header_time: Duration::from_secs(30),
        idle_time: Duration::from_secs(120),
        pings: true,
        write_patience: Duration::from_secs(20),
        window_bytes: 64 * 1024,
        drain_time: Duration::from_secs(1),
        // Its clients speak HTTP/1, too.
        gathered_bytes: 0,
    };
    limits.fit(canary_net::accept::descriptors_max(), API_PORT_SHARE)
}

/// Keeps the journal, and sends what changes to those who watch.
async fn watch(live: Arc<v2::live::Live>, source: Arc<dyn Source>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(v2::live::LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        live.look(&source.snapshot(), &source.report());
    }
}

/// Serves the API on `listener` until `stop`.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    source: Arc<dyn Source>,
    stop: CancellationToken,
) {
    let port = Arc::new(Stats::default());
    let door = Door::Api(config.guard.tls.clone());
    let limits = port_limits(Arc::clone(&config.guard.proxies));
    let live = Arc::new(v2::live::Live::default());
    tokio::spawn(watch(Arc::clone(&live), Arc::clone(&source), stop.clone()));
    let pushes = config.content.pushes.clone();
    let api = Arc::new(state::Api::new(config, source, live, Arc::clone(&port)));
    let mut pushing = tokio::task::JoinSet::new();
    for (push, counts) in pushes.into_iter().zip(api.pushes.iter()) {
        pushing.spawn(push::run(Arc::clone(&api), push, Arc::clone(counts), stop.clone()));
    }
    let router = routes::router(api);
    let service = move |mut request: Accepted| {
        let peer = request
            .extensions()
            .get::<Peer>()
            .map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |peer| peer.0);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request.map(axum::body::Body::new))
    };
    canary_net::accept::serve(listener, door, limits, port, stop, None, service).await;
    // They end by themselves soon after the stop.
    pushing.join_all().await;
}
