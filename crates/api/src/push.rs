//! Metrics that are sent where nobody scrapes: the families of `/metrics`, in the protocol of the receiver.
//!
//! Each receiver has its own queue, bounded in bytes. What cannot be delivered waits and is tried again, ever more seldom; what the receiver
//! refuses is given up. All of it is counted.

mod otlp;
mod queue;
mod remote_write;
#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use canary_net::origin::{DialError, Origin};
use canary_net::tls::Set;
use canary_net::{Live, Seldom, Tokens};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::metrics::families;
use crate::process::Process;
use crate::routes::Api;
use queue::{Batch, Queue};
use remote_write::RemoteWrite;

/// What these metrics are called where a scrape would name its job.
const JOB: &str = "canary-bot";

/// How long one delivery may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pauses between deliveries that fail: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// What is read of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What a receiver speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushProtocol {
    /// Prometheus remote write 1.0.
    RemoteWrite,
    /// OTLP over HTTP with protobuf.
    Otlp,
}

impl PushProtocol {
    /// As metrics and settings call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RemoteWrite => "remote_write",
            Self::Otlp => "otlp",
        }
    }

    /// Whether what was answered so may be tried again. OTLP names the few codes; with remote write it is the server's fault, or haste.
    fn is_passing(self, status: StatusCode) -> bool {
        match self {
            Self::RemoteWrite => status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS,
            Self::Otlp => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }

    fn describe(self, headers: &mut HeaderMap) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let encoding = match self {
            Self::RemoteWrite => {
                headers.insert("x-prometheus-remote-write-version", HeaderValue::from_static("0.1.0"));
                "snappy"
            }
            Self::Otlp => "gzip",
        };
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
}

/// Where metrics are sent, and how.
#[derive(Clone, Debug)]
pub struct Push {
    /// What the receiver speaks.
    pub protocol: PushProtocol,
    /// Its URL.
    pub receiver: Origin,
    /// How often everything is sent.
    pub interval: Duration,
    /// The first of them is presented to it, if there is any.
    pub credentials: Live<Tokens>,
    /// How to dial `https`.
    pub tls: Live<Set>,
}

/// What became of the samples for one receiver.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) protocol: PushProtocol,
    pub(crate) sent: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) waiting_bytes: AtomicU64,
    /// Milliseconds since the epoch; 0 before the first.
    pub(crate) last_success: AtomicU64,
}

impl Counts {
    pub(crate) fn new(protocol: PushProtocol) -> Self {
        let zero = AtomicU64::default;
        Self { protocol, sent: zero(), refused: zero(), dropped: zero(), failures: zero(), waiting_bytes: zero(), last_success: zero() }
    }
}

/// When metrics were read, and of whom.
#[derive(Clone, Copy, Debug)]
struct Round<'a> {
    node: &'a str,
    version: &'a str,
    start_unix_millis: i64,
    unix_millis: i64,
}

/// A bound as the text of metrics spells it.
fn bound(seconds: f64) -> String {
    if seconds.is_infinite() { "+Inf".to_owned() } else { seconds.to_string() }
}

/// Reads the metrics regularly, and sends them until `stop`.
pub(crate) async fn run(api: Arc<Api>, push: Push, counts: Arc<Counts>, stop: CancellationToken) {
    let outbox = Outbox { queue: Mutex::default(), news: Notify::new(), counts };
    let both = async { tokio::join!(collect(&api, &push, &outbox), deliver(&push, api.version, &outbox)) };
    stop.run_until_cancelled(both).await;
}

/// What is between reading and sending.
struct Outbox {
    queue: Mutex<Queue>,
    news: Notify,
    counts: Arc<Counts>,
}

impl Outbox {
    fn change<T>(&self, change: impl FnOnce(&mut MutexGuard<'_, Queue>) -> T) -> T {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut queue);
        self.counts.waiting_bytes.store(queue.bytes() as u64, Relaxed);
        result
    }
}

async fn collect(api: &Api, push: &Push, outbox: &Outbox) {
    // Bots that began together do not all send at the same moment.
    let begin = tokio::time::Instant::now() + push.interval.mul_f64(fastrand::f64());
    let mut turn = tokio::time::interval_at(begin, push.interval);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut remote_write = RemoteWrite::default();
    let start_unix_millis = Process::read().start_time_seconds.map_or_else(unix_millis, |seconds| (seconds * 1000.0) as i64);
    loop {
        turn.tick().await;
        let node = api.source.snapshot().me.name.clone();
        let round = Round { node: node.as_str(), version: api.version, start_unix_millis, unix_millis: unix_millis() };
        let batches = match push.protocol {
            PushProtocol::RemoteWrite => remote_write.batches(&round, families(api)),
            PushProtocol::Otlp => otlp::batches(&round, families(api)),
        };
        let lost: u64 = outbox.change(|queue| batches.into_iter().map(|batch| queue.put(batch)).sum());
        give_up(push, outbox, lost);
        outbox.news.notify_one();
    }
}

fn give_up(push: &Push, outbox: &Outbox, lost: u64) {
    outbox.counts.dropped.fetch_add(lost, Relaxed);
    static LINES: Seldom = Seldom::new();
    if lost > 0
        && let Some(left_out) = LINES.allows()
    {
        let receiver = push.receiver.to_string();
        tracing::warn!(
            receiver,
            samples = lost,
            left_out,
            "gave up the oldest samples: the receiver of metrics has been out of reach for long"
        );
    }
}

async fn deliver(push: &Push, version: &str, outbox: &Outbox) {
    let counts = &outbox.counts;
    let mut failed: Option<String> = None;
    let mut pause = PAUSES.0;
    loop {
        let Some(batch) = outbox.change(|queue| queue.take()) else {
            outbox.news.notified().await;
            continue;
        };
        let sent = tokio::time::timeout(PATIENCE, send(push, version, &batch)).await;
        let problem = match sent.unwrap_or_else(|_| Err(Problem::later(format!("no answer within {} s", PATIENCE.as_secs())))) {
            Ok(refused) => {
                counts.sent.fetch_add(batch.samples.saturating_sub(refused), Relaxed);
                counts.refused.fetch_add(refused, Relaxed);
                counts.last_success.store(u64::try_from(unix_millis()).unwrap_or_default(), Relaxed);
                if failed.take().is_some() {
                    tracing::info!(receiver = %push.receiver, "the receiver of metrics takes them again");
                }
                pause = PAUSES.0;
                continue;
            }
            Err(problem) => problem,
        };
        counts.failures.fetch_add(1, Relaxed);
        if failed.as_ref() != Some(&problem.why) {
            tracing::warn!(receiver = %push.receiver, why = problem.why, tried_again = problem.is_passing, "the receiver of metrics does not take them");
            failed = Some(problem.why);
        }
        if problem.is_passing {
            let lost = outbox.change(|queue| queue.put_back(batch));
            give_up(push, outbox, lost);
        } else {
            counts.refused.fetch_add(batch.samples, Relaxed);
            continue;
        }
        // Bots whose receiver came back do not all return at the same moment.
        let wait = problem.wait.unwrap_or(pause).clamp(PAUSES.0, PAUSES.1);
        tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64())).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Why a batch was not delivered.
struct Problem {
    why: String,
    /// Whether it is worth trying again.
    is_passing: bool,
    /// When the receiver wants to be asked again.
    wait: Option<Duration>,
}

impl Problem {
    fn later(why: String) -> Self {
        Self { why, is_passing: true, wait: None }
    }
}

impl From<DialError> for Problem {
    fn from(error: DialError) -> Self {
        Self::later(canary_net::with_causes(&error))
    }
}

/// Sends a batch. How many of its samples the receiver refused when it took the others.
async fn send(push: &Push, version: &str, batch: &Batch) -> Result<u64, Problem> {
    let mut connection = push.receiver.dial(push.tls.get().client.clone()).await?;
    let mut request = Request::post(push.receiver.path()).header(header::HOST, push.receiver.authority());
    if let Some(headers) = request.headers_mut() {
        push.protocol.describe(headers);
        headers.extend(credentials(&push.credentials.get()).map(|value| (header::AUTHORIZATION, value)));
        headers.extend(HeaderValue::try_from(format!("canary-bot/{version}")).map(|agent| (header::USER_AGENT, agent)));
    }
    let broken = |error: &dyn std::error::Error| Problem::later(canary_net::with_causes(error));
    let request = request.body(Full::new(batch.body.clone())).map_err(|error| broken(&error))?;
    let response = connection.send_request(request).await.map_err(|error| broken(&error))?;
    let status = response.status();
    let wait = response.headers().get(header::RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok()).map(Duration::from_secs);
    let answer =
        Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if status.is_success() {
        let refused = if push.protocol == PushProtocol::Otlp { otlp::refused(&answer) } else { None };
        let Some((refused, why)) = refused else {
            return Ok(0);
        };
        static LINES: Seldom = Seldom::new();
        if let Some(left_out) = LINES.allows() {
            tracing::warn!(receiver = %push.receiver, refused, why = words(&why), left_out, "the receiver of metrics refused some");
        }
        return Ok(refused.min(batch.samples));
    }
    let why = match String::from_utf8(answer.to_vec()) {
        Ok(text) if !text.trim().is_empty() => format!("{status}: {}", words(&text)),
        _ => status.to_string(),
    };
    Err(Problem { why, is_passing: push.protocol.is_passing(status), wait })
}

/// The beginning of what a receiver says, on one line.
fn words(text: &str) -> String {
    text.trim().chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `USER:PASSWORD` is presented as such, anything else as a bearer token: no such token has a colon (RFC 6750).
fn credentials(tokens: &Tokens) -> Option<HeaderValue> {
    tokens.basic().or_else(|| tokens.header())
}

fn unix_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
