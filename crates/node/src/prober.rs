//! One measurement: its own connection, every phase beside its system calls.
//!
//! The prober speaks HTTP/2 over a socket of its own and calls `mesh.v2.MeshService/Probe` twice:
//! the first request includes the set-up of HTTP/2, the second is the warm connection's. Clocks are
//! read right before the system call that sends and right after the one that received the last of
//! the answer, so that what our own code takes in between is not measured.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use canary_core::{
    Failure, Incarnation, Instance, NodeName, ProbeReport, Record, Secured, Target, Timing,
};
use canary_net::{GATHERED_BYTES, Gathered, Guard, Seldom};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::clock::StallWatch;
use crate::connect::connect_any;
use crate::failure::{Blame, Cause, Remembering, blame, blame_connect};
use crate::kernel;
use crate::resolve::{LookupError, Resolver};
use crate::secure::{self, SecureError};
use crate::transport::{PROBE_PATH, decode_probe_response};
use crate::v1::RTT_PATH;

/// Lateness of our own loop within a probe beyond which the probe says more about us than about the
/// network.
const LATE_MAX: Duration = Duration::from_millis(100);
/// Largest answer to a probe: a name and two numbers.
const ANSWER_BYTES_MAX: usize = 4096;
/// An empty gRPC message: not compressed, no bytes.
const EMPTY_MESSAGE: [u8; 5] = [0; 5];

/// How a probe ended, with a word for the person who reads debug logs.
#[derive(Debug)]
pub(crate) enum Ended {
    Failed(Failure, String),
    Void(String),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        match blame(&error) {
            Blame::Network(failure) => Self::Failed(failure, error.to_string()),
            Blame::Ourselves => Self::Void(error.to_string()),
        }
    }
}

impl From<h2::Error> for Ended {
    fn from(error: h2::Error) -> Self {
        let (reset, detail) = (error.is_reset(), error.to_string());
        if let Some(io) = error.into_io() {
            return io.into();
        }
        Self::Failed(if reset { Failure::Reset } else { Failure::Protocol }, detail)
    }
}

impl From<LookupError> for Ended {
    fn from(error: LookupError) -> Self {
        if error.is_own_fault() {
            Self::Void(error.to_string())
        } else {
            Self::Failed(Failure::Dns, error.to_string())
        }
    }
}

impl From<SecureError> for Ended {
    fn from(error: SecureError) -> Self {
        Self::Failed(Failure::Tls, error.to_string())
    }
}

/// Who answered, and when.
#[derive(Clone, Debug)]
struct Answer {
    name: NodeName,
    incarnation: Incarnation,
    instance: Instance,
    timing: Timing,
    secured: Option<Secured>,
}

/// What came of a probe.
#[derive(Debug)]
pub(crate) struct Probed {
    pub(crate) report: ProbeReport,
    /// What was agreed on, if TLS was.
    pub(crate) secured: Option<Secured>,
}

impl From<ProbeReport> for Probed {
    fn from(report: ProbeReport) -> Self {
        Self { report, secured: None }
    }
}

/// Measures `whom` once, for at most `timeout`: as a guest, or as one of ours.
pub(crate) async fn probe(
    whom: &Record,
    guest: bool,
    timeout: Duration,
    resolver: &Resolver,
    guard: &Guard,
    stalls: &StallWatch,
) -> Probed {
    let (target, guest) = (&whom.target, guest.then_some(whom));
    let watched = stalls.begin();
    let begun = Instant::now();
    let mut progress = Progress::Resolving;
    let ended = tokio::time::timeout(
        timeout,
        measure(target, guest, timeout, resolver, guard, &mut progress),
    )
    .await;
    let late = watched.late();
    // A stop of this process shows as lateness, or as a timeout that was noticed long after it was
    // due.
    if late > LATE_MAX || begun.elapsed() > timeout + LATE_MAX {
        tracing::debug!(%target, ?late, "a probe is void: this host did not run");
        return ProbeReport::Void.into();
    }
    match ended {
        Ok(Ok(answer)) => answer.report(),
        Ok(Err(Ended::Failed(failure, detail))) => {
            tracing::debug!(%target, kind = failure.as_str(), detail, "a probe failed");
            ProbeReport::Failed(failure).into()
        }
        Ok(Err(Ended::Void(detail))) => {
            static VOIDS: Seldom = Seldom::new();
            if let Some(left_out) = VOIDS.allows() {
                tracing::warn!(%target, detail, left_out, "a probe is void: this host lacks something");
            }
            ProbeReport::Void.into()
        }
        Err(_) => match progress {
            // A name that is not resolved in time is a failure of names, not of the path.
            Progress::Resolving => ProbeReport::Failed(Failure::Dns).into(),
            Progress::Dialling => ProbeReport::Failed(Failure::Timeout).into(),
            // The pair is proven; an absent second figure means that the second request was not
            // answered in time.
            Progress::Answered(answer) => answer.report(),
        },
    }
}

/// A single measurement outside of any mesh, and who answered.
#[derive(Clone, Debug)]
pub struct Once {
    /// How the node that answered calls itself.
    pub name: NodeName,
    /// What was measured.
    pub timing: Timing,
    /// What was agreed on, if TLS was.
    pub secured: Option<Secured>,
}

/// Why a single measurement gave no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmeasured {
    /// What failed; [`Failure::Local`] if this host could not try.
    pub kind: Failure,
    /// In words.
    pub detail: String,
}

/// Measures `target` once, for at most `timeout`, as a bot with this guard would.
///
/// # Errors
///
/// The kind of failure that a bot would publish, with the words of the system.
pub async fn probe_once(
    target: &Target,
    timeout: Duration,
    guard: &Guard,
) -> Result<Once, Unmeasured> {
    // The target is named by the operator: it may be this host.
    let resolver = Resolver::new(target, std::net::Ipv4Addr::LOCALHOST.into());
    let mut progress = Progress::Resolving;
    let ended = tokio::time::timeout(
        timeout,
        measure(target, None, timeout, &resolver, guard, &mut progress),
    )
    .await;
    let answer = match (ended, progress) {
        (Ok(Ok(answer)), _) | (Err(_), Progress::Answered(answer)) => answer,
        (Ok(Err(Ended::Failed(kind, detail))), _) => return Err(Unmeasured { kind, detail }),
        (Ok(Err(Ended::Void(detail))), _) => {
            return Err(Unmeasured { kind: Failure::Local, detail });
        }
        (Err(_), Progress::Resolving) => {
            return Err(Unmeasured {
                kind: Failure::Dns,
                detail: "the name was not resolved in time".to_owned(),
            });
        }
        (Err(_), Progress::Dialling) => {
            return Err(Unmeasured {
                kind: Failure::Timeout,
                detail: format!("no answer within {timeout:?}"),
            });
        }
    };
    Ok(Once { name: answer.name, timing: answer.timing, secured: answer.secured })
}

/// How far a probe came.
#[derive(Debug)]
enum Progress {
    Resolving,
    Dialling,
    /// The first request was answered.
    Answered(Answer),
}

impl Answer {
    fn report(self) -> Probed {
        let Self { name, incarnation, instance, timing, secured } = self;
        Probed { report: ProbeReport::Answered { timing, name, incarnation, instance }, secured }
    }
}

async fn measure(
    target: &Target,
    guest: Option<&Record>,
    timeout: Duration,
    resolver: &Resolver,
    guard: &Guard,
    progress: &mut Progress,
) -> Result<Answer, Ended> {
    let begun = Instant::now();
    let addresses = resolver.resolve(target, timeout).await?;
    *progress = Progress::Dialling;
    let resolve = if target.host().parse::<std::net::IpAddr>().is_ok() {
        Duration::ZERO
    } else {
        begun.elapsed()
    };
    let (stream, connect) =
        connect_any(&addresses).await.map_err(|error| match blame_connect(&error) {
            Blame::Network(failure) => Ended::Failed(failure, error.to_string()),
            Blame::Ourselves => Ended::Void(error.to_string()),
        })?;
    let clock = Arc::new(Mutex::new(Stamps::default()));
    let stamped = Stamped { stream, waiting: BytesMut::new(), clock: Arc::clone(&clock) };
    // The set may be swapped at any time: one probe uses one set.
    let set = guard.tls.get();
    let begun = Instant::now();
    let stream = secure::secure(&set, target.host(), stamped).await?;
    let tls = set.client.is_some().then(|| begun.elapsed());
    let agreed = secure::agreed(&stream);
    let (stream, cause) = Remembering::new(Gathered::new(stream, GATHERED_BYTES));
    // The handshake's messages are not the request's.
    take_lap(&clock);
    let (sender, mut connection) = h2::client::Builder::new()
        .max_header_list_size(16 * 1024)
        .max_concurrent_streams(1)
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|error| told(error.into(), &cause))?;
    let asking = Asking {
        uri: format!(
            "{}://{target}{}",
            secure::scheme(&set),
            if guest.is_some() { RTT_PATH } else { PROBE_PATH }
        ),
        token: guard.tokens.get().header(),
    };
    let requests = async {
        let (answer, sender) = request(sender, &asking).await?;
        let Some(first_request) = take_lap(&clock) else {
            return Err(Ended::Failed(
                Failure::Protocol,
                "it answered before it was asked".to_owned(),
            ));
        };
        let (name, incarnation, instance) = match guest {
            // It says nothing of itself; who it is was found out when it was admitted.
            Some(guest) if answer == EMPTY_MESSAGE.as_slice() => {
                (guest.name.clone(), guest.incarnation, guest.instance)
            }
            Some(_) => {
                return Err(Ended::Failed(
                    Failure::Protocol,
                    "the answer to a probe of a guest is not empty".to_owned(),
                ));
            }
            None => decode_probe_response(&answer)
                .map_err(|why| Ended::Failed(Failure::Protocol, why))?,
        };
        // The first answer is what proves the pair. If the second fails, its figure is absent.
        let timing = Timing { resolve, connect, tls, first_request, request: None, kernel: None };
        let first = Answer { name, incarnation, instance, timing, secured: agreed };
        *progress = Progress::Answered(first.clone());
        let request = request(sender, &asking).await.ok().and_then(|_| take_lap(&clock));
        Ok::<_, Ended>(Answer { timing: Timing { request, ..timing }, ..first })
    };
    let mut requests = std::pin::pin!(requests);
    // One task drives both: a hop to another one would be measured.
    let mut answer = std::future::poll_fn(|cx| {
        if let Poll::Ready(answer) = requests.as_mut().poll(cx) {
            return Poll::Ready(answer);
        }
        match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(ended) => match requests.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(answer),
                Poll::Pending => Poll::Ready(Err(match ended {
                    Err(error) => error.into(),
                    Ok(()) => Ended::Failed(
                        Failure::Reset,
                        "the connection was closed before the answer".to_owned(),
                    ),
                })),
            },
            Poll::Pending => requests.as_mut().poll(cx),
        }
    })
    .await
    .map_err(|ended| told(ended, &cause))?;
    answer.timing.kernel = canary_net::lock(&clock).kernel;
    Ok(answer)
}

/// A failure by the first thing that went wrong on the connection: HTTP/2 tells of what it made of
/// it.
fn told(ended: Ended, cause: &Cause) -> Ended {
    match (ended, cause.get()) {
        (Ended::Failed(Failure::Protocol | Failure::Reset, detail), Some(failure)) => {
            Ended::Failed(*failure, detail)
        }
        (ended, _) => ended,
    }
}

/// What both requests of a probe say.
struct Asking {
    uri: String,
    /// What admits us, where the mesh has a token.
    token: Option<http::HeaderValue>,
}

/// Sends one request and reads its whole answer.
async fn request(
    sender: h2::client::SendRequest<Bytes>,
    asking: &Asking,
) -> Result<(Bytes, h2::client::SendRequest<Bytes>), Ended> {
    let mut sender = sender.ready().await?;
    let mut request = http::Request::post(&asking.uri)
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(())
        .map_err(|error| Ended::Failed(Failure::Protocol, error.to_string()))?;
    if let Some(token) = &asking.token {
        request.headers_mut().insert(http::header::AUTHORIZATION, token.clone());
    }
    let (response, mut body) = sender.send_request(request, false)?;
    body.send_data(Bytes::from_static(&EMPTY_MESSAGE), true)?;
    let response = response.await?;
    let status = response.status();
    if !status.is_success() {
        let failure =
            if matches!(status.as_u16(), 401 | 403) { Failure::Auth } else { Failure::Protocol };
        return Err(Ended::Failed(failure, format!("it answered with HTTP status {status}")));
    }
    let early = grpc_status(response.headers());
    let mut incoming = response.into_body();
    let mut answer = BytesMut::new();
    while let Some(chunk) = incoming.data().await {
        let chunk = chunk?;
        incoming.flow_control().release_capacity(chunk.len())?;
        if answer.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Ended::Failed(Failure::Protocol, "the answer is too long".to_owned()));
        }
        answer.put(chunk);
    }
    let trailers = incoming.trailers().await?;
    match early.or_else(|| trailers.as_ref().and_then(grpc_status)).unwrap_or(0) {
        0 => Ok((answer.freeze(), sender)),
        status @ (7 | 16) => {
            Err(Ended::Failed(Failure::Auth, format!("it answered with gRPC status {status}")))
        }
        status => {
            Err(Ended::Failed(Failure::Protocol, format!("it answered with gRPC status {status}")))
        }
    }
}

fn grpc_status(headers: &http::HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// When the request was sent and when the last of its answer was read.
#[derive(Debug, Default)]
struct Stamps {
    sent: Option<Instant>,
    received: Option<Instant>,
    kernel: Option<canary_core::KernelTiming>,
}

/// The time from the send to the last read, and a fresh start for the next request. None if nothing
/// was read after the send: what a peer sent before is no answer.
fn take_lap(clock: &Mutex<Stamps>) -> Option<Duration> {
    let mut stamps = canary_net::lock(clock);
    let (sent, received) = (stamps.sent.take(), stamps.received.take());
    received?.checked_duration_since(sent?)
}

/// A socket that reads the clock beside its system calls, and sends what belongs together in one of
/// them.
#[derive(Debug)]
struct Stamped {
    stream: TcpStream,
    /// Written, but not flushed yet.
    waiting: BytesMut,
    clock: Arc<Mutex<Stamps>>,
}

impl Stamped {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let before = Instant::now();
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(sent);
            canary_net::lock(&self.clock).sent.get_or_insert(before);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stamped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            let at = Instant::now();
            let kernel = kernel::timing(&self.stream);
            let mut stamps = canary_net::lock(&self.clock);
            stamps.received = Some(at);
            stamps.kernel = kernel.or(stamps.kernel);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.waiting.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
