//! One accept loop for both ports.
//!
//! Each connection is served in a task of its own. What a stranger can hold is bounded: connections in all and per address, bytes and
//! number of headers, streams, the time to the first request, and the time that an answer may wait to be read.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::patient::Patient;

/// What strangers may hold. Every bound closes or refuses what exceeds it, and counts it in [`Stats`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once. Each takes a descriptor of the host, and memory for what its open requests may send.
    pub connections: usize,
    /// Connections at once of one address, so that one client cannot take them all.
    pub connections_per_address: usize,
    /// Bytes of the headers of one request.
    pub header_bytes: u32,
    /// Headers of one request.
    pub headers: usize,
    /// Requests at once on one connection.
    pub streams: u32,
    /// From the connection to its first request, from header to header, and between requests of HTTP/1.
    pub header_time: Duration,
    /// How long an answer may wait to be read.
    pub write_patience: Duration,
    /// How long open requests may run on once the port is closed.
    pub drain_time: Duration,
}

/// What happened at a port.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections taken.
    pub accepted: AtomicU64,
    /// Connections closed at once because there were too many in all.
    pub full: AtomicU64,
    /// Connections closed at once because their address had too many.
    pub address_full: AtomicU64,
    /// Connections closed because no request came in time.
    pub idle: AtomicU64,
    /// Times that the system gave no connection, for want of descriptors.
    pub failed: AtomicU64,
}

/// Who is at the other end; in the extensions of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// A request as the services behind the loop see it.
pub type Accepted = Request<Incoming>;

/// How long to wait when the system gives no connection: it is out of descriptors, and asking at once again does not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often an HTTP/2 peer is asked whether it is there, and how long it may take.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Serves `service` on `listener` until `stop`; then lets open requests run for a while and closes what is left.
pub async fn serve<S, F, B>(listener: TcpListener, limits: Limits, stats: Arc<Stats>, stop: CancellationToken, service: S)
where
    S: Fn(Accepted) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<B>, std::convert::Infallible>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let places = Arc::new(Places { limits: limits.clone(), taken: Mutex::default() });
    let builder = Arc::new(builder(&limits));
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // A connection that was gone before we came to it is no news; want of descriptors is.
                    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                        stats.failed.fetch_add(1, Ordering::Relaxed);
                        warn!(%error, "cannot accept a connection; raise the limit of open files if this lasts");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            },
        };
        let Some(place) = places.take(peer.ip(), &stats) else {
            continue;
        };
        stats.accepted.fetch_add(1, Ordering::Relaxed);
        let (builder, service, stop) = (Arc::clone(&builder), service.clone(), stop.clone());
        let (limits, stats) = (limits.clone(), Arc::clone(&stats));
        connections.spawn(async move {
            let _place = place;
            serve_one(stream, peer, &builder, &limits, &stats, stop, service).await;
        });
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain_time, drained).await.is_err() {
        debug!("closing connections that did not end in time");
    }
    connections.shutdown().await;
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_headers(limits.headers)
        // hyper needs 8 KiB at least.
        .max_buf_size((limits.header_bytes as usize).max(8 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .max_header_list_size(limits.header_bytes)
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(20);
    builder
}

async fn serve_one<S, F, B>(
    stream: TcpStream,
    peer: SocketAddr,
    builder: &auto::Builder<TokioExecutor>,
    limits: &Limits,
    stats: &Stats,
    stop: CancellationToken,
    service: S,
) where
    S: Fn(Accepted) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<B>, std::convert::Infallible>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let asked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&asked);
    let stamped = hyper::service::service_fn(move |mut request: Accepted| {
        seen.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(Peer(peer));
        service(request)
    });
    let io = TokioIo::new(Patient::new(stream, limits.write_patience));
    let connection = builder.serve_connection(io, stamped);
    let mut connection = std::pin::pin!(connection);
    // The time to the first bytes is not under the header timeout: telling HTTP/1 from HTTP/2 has none of its own.
    let first = tokio::time::sleep(limits.header_time);
    let mut first = std::pin::pin!(first);
    let mut waiting = true;
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%peer, error = %error, "a connection ended");
                }
                return;
            }
            () = first.as_mut(), if waiting => {
                waiting = false;
                if !asked.load(Ordering::Relaxed) {
                    stats.idle.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Who holds how many connections.
#[derive(Debug)]
struct Places {
    limits: Limits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place; free again when it is dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    fn take(self: &Arc<Self>, address: IpAddr, stats: &Stats) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.limits.connections {
            stats.full.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let count = taken.by_address.entry(address).or_default();
        if *count >= self.limits.connections_per_address {
            stats.address_full.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        *count += 1;
        taken.all += 1;
        Some(Place { places: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}
