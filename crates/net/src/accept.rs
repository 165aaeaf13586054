//! One accept loop for both ports.
//!
//! Each connection is served in a task of its own. What a stranger can hold is bounded: connections
//! in all and per address, bytes and number of headers, streams, the time to the first request, and
//! the time that an answer may wait to be read.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::gathered::Gathered;
use crate::ledger::{Full, Ledger};
use crate::live::Live;
use crate::patient::Patient;
use crate::seldom::Seldom;
use crate::shortcut::{Begun, Seen, Shortcut, acknowledge_with_answers, begin};
use crate::tls::{Facts, PeerNames, Set};
use crate::unread::Unread;

/// What strangers may hold. Every bound closes or refuses what exceeds it, and counts it in
/// [`Stats`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once. Each takes a descriptor of the host, and memory for what its open
    /// requests may send.
    pub connections: usize,
    /// Connections at once of one address, so that one client cannot take them all.
    pub connections_per_address: usize,
    /// Bytes of the headers of one request.
    pub header_bytes: u32,
    /// Headers of one request.
    pub headers: usize,
    /// Requests at once on one connection.
    pub streams: u32,
    /// From the connection to its first request, from header to header, and between requests of
    /// HTTP/1.
    pub header_time: Duration,
    /// From one request to the next, on a connection that had one: pings keep none.
    pub idle_time: Duration,
    /// HTTP/2 peers are asked whether they are there, for answers that have no end.
    pub pings: bool,
    /// How long an answer may wait to be read, and how long a connection that is being closed may
    /// take.
    pub write_patience: Duration,
    /// Bytes that a client may send of one request, and of all on a connection, before they are
    /// taken.
    pub window_bytes: u32,
    /// How long open requests may run on once the port is closed.
    pub drain_time: Duration,
    /// TLS handshakes at once; a further one ends the oldest.
    pub handshakes: usize,
    /// TLS handshakes at once of one address.
    pub handshakes_per_address: usize,
    /// How long a TLS handshake may take.
    pub handshake_time: Duration,
    /// Edges behind which many clients share one address: the limits per address do not hold for
    /// them.
    pub proxies: Arc<[IpNet]>,
    /// Parts of an answer up to so many bytes wait for each other, to be one packet. Only for a port
    /// whose clients speak HTTP/2; see [`Gathered`].
    pub gathered_bytes: usize,
}

impl Limits {
    /// Makes room in a host's limit of open descriptors: this port may have one in `share` of them,
    /// and one address three quarters of that. The rest is for other ports and for what this bot
    /// dials itself.
    #[must_use]
    pub fn fit(mut self, descriptors: u64, share: u64) -> Self {
        let most = usize::try_from(descriptors / share).unwrap_or(usize::MAX).max(4);
        self.connections = self.connections.min(most);
        self.connections_per_address =
            self.connections_per_address.min((self.connections / 4 * 3).max(2));
        self
    }
}

/// Descriptors that this process may have open.
pub fn descriptors_max() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// What happened at a port.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections closed at once because there were too many in all.
    pub full: AtomicU64,
    /// Connections closed at once because their address had too many.
    pub address_full: AtomicU64,
    /// Connections closed because no request came in time, the first or a further one.
    pub idle: AtomicU64,
    /// Connections closed because an answer was not read in time.
    pub unread: AtomicU64,
    /// Times that the system gave no connection, for want of descriptors.
    pub failed: AtomicU64,
    /// Handshakes given up because too many were under way, in all or of their address.
    pub handshakes_full: AtomicU64,
    /// TLS handshakes that failed: plain text, no certificate or a wrong one, or given up.
    pub handshakes_failed: AtomicU64,
    /// TLS handshakes that were not done in time.
    pub handshakes_late: AtomicU64,
}

impl Stats {
    /// All of it, by the reason as metrics call it.
    pub fn by_reason(&self) -> [(&'static str, u64); 8] {
        [
            ("connections_full", &self.full),
            ("address_full", &self.address_full),
            ("handshakes_full", &self.handshakes_full),
            ("handshakes_failed", &self.handshakes_failed),
            ("handshakes_late", &self.handshakes_late),
            ("idle", &self.idle),
            ("unread", &self.unread),
            ("accept_failed", &self.failed),
        ]
        .map(|(reason, counter)| (reason, counter.load(Ordering::Relaxed)))
    }
}

/// What a port speaks: looked up for every connection, so that a swapped set is in force at once.
#[derive(Clone, Debug)]
pub enum Door {
    /// Plain text, whatever the set says.
    Plain,
    /// As the mesh port of the set.
    Mesh(Live<Set>),
    /// As the API port of the set.
    Api(Live<Set>),
}

impl Door {
    fn config(&self) -> Option<Arc<ServerConfig>> {
        match self {
            Self::Plain => None,
            Self::Mesh(live) => live.get().mesh.clone(),
            Self::Api(live) => live.get().api.clone(),
        }
    }
}

/// Who is at the other end; in the extensions of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// A request as the services behind the loop see it.
pub type Accepted = Request<Incoming>;

/// How long to wait when the system gives no connection: it is out of descriptors, and asking at
/// once again does not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What HTTP/2 holds of one answer that is not read yet.
const SEND_BUFFER_BYTES: usize = 32 * 1024;
/// How often an HTTP/2 peer is asked whether it is there, and how long it may take.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Serves `service` on `listener` until `stop`; then lets open requests run for a while and closes
/// what is left.
pub async fn serve<S, F, B>(
    listener: TcpListener,
    door: Door,
    limits: Limits,
    stats: Arc<Stats>,
    stop: CancellationToken,
    shortcut: Option<Shortcut>,
    service: S,
) where
    S: Fn(Accepted) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<B>, std::convert::Infallible>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let places = Ledger::new(
        limits.connections,
        limits.connections_per_address,
        Arc::clone(&limits.proxies),
    );
    let handshaking =
        Ledger::new(usize::MAX, limits.handshakes_per_address, Arc::clone(&limits.proxies));
    let handshakes = Arc::new(Handshakes { most: limits.handshakes, open: Mutex::default() });
    let builder = Arc::new(builder(&limits));
    let unread = Unread::new();
    let (failing, refused) = (Seldom::default(), Arc::new(Seldom::default()));
    if shortcut.is_some() && door.config().is_none() {
        acknowledge_with_answers(&listener);
    }
    let mut connections = JoinSet::new();
    let mut watching = std::pin::pin!(unread.watch(limits.write_patience, &stats.unread));
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            () = &mut watching => continue,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // A connection that was gone before we came to it is no news; want of
                    // descriptors is.
                    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                        stats.failed.fetch_add(1, Ordering::Relaxed);
                        if let Some(left_out) = failing.allows() {
                            warn!(%error, left_out, "cannot accept a connection; raise the limit of open files if this lasts");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            },
        };
        let place = match places.take(peer.ip()) {
            Ok(place) => place,
            Err(Full::All) => {
                stats.full.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Err(Full::Address) => {
                stats.address_full.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        };
        // Answers are small and waited for.
        let _ = stream.set_nodelay(true);
        let config = door.config();
        let seen = match (&config, &shortcut) {
            (None, Some(shortcut)) => Seen::at(&stream, shortcut),
            _ => Seen::Nothing,
        };
        let stream = Patient::new(stream, limits.write_patience);
        let (builder, service, stop) = (Arc::clone(&builder), service.clone(), stop.clone());
        let (limits, stats, unread) = (limits.clone(), Arc::clone(&stats), Arc::clone(&unread));
        let (refused, shortcut) = (Arc::clone(&refused), shortcut.clone());
        let Some(config) = config else {
            connections.spawn(async move {
                let _place = place;
                let begun = begin(
                    stream,
                    peer,
                    seen,
                    shortcut.as_ref(),
                    limits.header_time,
                    &stats.idle,
                    &stop,
                )
                .await;
                if let Some(begun) = begun {
                    serve_one(begun, peer, None, &builder, &limits, &stats, &unread, stop, service)
                        .await;
                }
            });
            continue;
        };
        let Ok(of_address) = handshaking.take(peer.ip()) else {
            stats.handshakes_full.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let (number, crowded_out) = handshakes.begin(&stats);
        let handshakes = Arc::clone(&handshakes);
        connections.spawn(async move {
            let _place = place;
            let shaking = tokio::time::timeout(limits.handshake_time, TlsAcceptor::from(config).accept(stream));
            let shaken = tokio::select! {
                shaken = shaking => shaken,
                _ = crowded_out => return,
            };
            handshakes.end(number);
            drop(of_address);
            let stream = match shaken {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    stats.handshakes_failed.fetch_add(1, Ordering::Relaxed);
                    // Who only connects and closes again is a health check.
                    let is_refusal = error.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>);
                    match is_refusal.then(|| refused.allows()).flatten() {
                        Some(left_out) if presents_nothing(&error) => warn!(
                            %peer,
                            left_out,
                            "refused a client that presents no certificate; --client-auth optional admits those, such as bots of the original"
                        ),
                        Some(left_out) => warn!(%peer, %error, left_out, "refused a client: the TLS handshake failed"),
                        None => debug!(%peer, %error, "a TLS handshake failed"),
                    }
                    return;
                }
                Err(_) => {
                    stats.handshakes_late.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            };
            // What a certificate names is known to be readable: it was verified.
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let names = certificate.map(|certificate| Facts::of(certificate).map(|facts| facts.names).unwrap_or_default());
            let (shortcut, patience) = (shortcut.as_ref(), limits.header_time);
            let begun = begin(stream, peer, seen, shortcut, patience, &stats.idle, &stop).await;
            if let Some(begun) = begun {
                serve_one(begun, peer, names, &builder, &limits, &stats, &unread, stop, service).await;
            }
        });
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain_time, drained).await.is_err() {
        debug!("closing connections that did not end in time");
    }
    connections.shutdown().await;
}

fn presents_nothing(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::NoCertificatesPresented))
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
        .keep_alive_interval(limits.pings.then_some(PING.0))
        .keep_alive_timeout(PING.1)
        .max_header_list_size(limits.header_bytes)
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(limits.window_bytes)
        .initial_connection_window_size(limits.window_bytes)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(20);
    builder
}

#[expect(clippy::too_many_arguments, reason = "one caller, and each is another thing")]
async fn serve_one<I, S, F, B>(
    stream: Begun<I>,
    peer: SocketAddr,
    names: Option<PeerNames>,
    builder: &auto::Builder<TokioExecutor>,
    limits: &Limits,
    stats: &Stats,
    unread: &Arc<Unread>,
    stop: CancellationToken,
    service: S,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Accepted) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<B>, std::convert::Infallible>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let opened = stream.opened();
    // The builder reads the first bytes before HTTP/2 writes: from then on it flushes when woken.
    let stream = Gathered::new(stream, limits.gathered_bytes);
    // When the latest request came, or something of an answer was taken.
    let active = Arc::new(Mutex::new(None));
    let latest = Arc::clone(&active);
    let gone = CancellationToken::new();
    let (given_up, unread) = (gone.clone(), Arc::clone(unread));
    let stamped = hyper::service::service_fn(move |mut request: Accepted| {
        *crate::lock(&latest) = Some(Instant::now());
        request.extensions_mut().insert(Peer(peer));
        if let Some(names) = &names {
            request.extensions_mut().insert(names.clone());
        }
        let in_pieces = request.version() == hyper::Version::HTTP_2;
        let (answer, unread, gone, latest) =
            (service(request), Arc::clone(&unread), given_up.clone(), Arc::clone(&latest));
        async move {
            answer.await.map(|response| {
                response.map(|body| unread.watched(body, in_pieces, &gone, &latest))
            })
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), stamped);
    let mut connection = std::pin::pin!(connection);
    // The time to the first bytes is not under the header timeout: telling HTTP/1 from HTTP/2 has
    // none of its own.
    let silence = tokio::time::sleep_until(opened + limits.header_time);
    let mut silence = std::pin::pin!(silence);
    let mut closing = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%peer, error = %error, "a connection ended");
                }
                return;
            }
            () = gone.cancelled() => {
                debug!(%peer, "an answer was not read");
                return;
            }
            () = silence.as_mut() => {
                if closing {
                    // What was to be finished had its time.
                    return;
                }
                let until = crate::lock(&active).map(|latest| latest + limits.idle_time);
                if let Some(until) = until.filter(|until| *until > Instant::now()) {
                    silence.as_mut().reset(until);
                    continue;
                }
                stats.idle.fetch_add(1, Ordering::Relaxed);
                if until.is_none() {
                    return;
                }
                // An answer that is still under way is finished.
                closing = true;
                silence.as_mut().reset(Instant::now() + limits.write_patience);
                connection.as_mut().graceful_shutdown();
            }
            () = stop.cancelled(), if !closing => {
                closing = true;
                silence.as_mut().reset(Instant::now() + limits.write_patience);
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// The TLS handshakes under way. When there are too many, the oldest is dropped: an honest client
/// finishes within a moment, so a flood of idle ones shuts nobody out.
#[derive(Debug)]
struct Handshakes {
    most: usize,
    /// In the order of their beginning; dropping a sender ends one.
    open: Mutex<(u64, BTreeMap<u64, oneshot::Sender<()>>)>,
}

impl Handshakes {
    fn begin(&self, stats: &Stats) -> (u64, oneshot::Receiver<()>) {
        let (ending, crowded_out) = oneshot::channel();
        let mut open = crate::lock(&self.open);
        if open.1.len() >= self.most {
            open.1.pop_first();
            stats.handshakes_full.fetch_add(1, Ordering::Relaxed);
        }
        open.0 += 1;
        let number = open.0;
        open.1.insert(number, ending);
        (number, crowded_out)
    }

    fn end(&self, number: u64) {
        crate::lock(&self.open).1.remove(&number);
    }
}
