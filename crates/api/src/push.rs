//! Metrics that are sent where nobody scrapes: the families of `/metrics`, in the protocol of the
//! receiver.
//!
//! Each receiver has its own queue, bounded in bytes. What cannot be delivered waits and is tried
//! again, ever more seldom; what the receiver refuses is given up. All of it is counted.

pub(crate) mod counts;
mod otlp;
mod queue;
mod remote_write;
#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use canary_net::origin::{DialError, Origin};
use canary_net::tls::Set;
use canary_net::{Live, Seldom, Tokens};
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::metrics::families;
use crate::process::Process;
use crate::state::Api;
use counts::Counts;
pub use counts::PushProtocol;
use queue::{Batch, Queue};
use remote_write::RemoteWrite;

/// What these metrics are called where a scrape would name its job.
const JOB: &str = "canary-bot";

/// How long one delivery may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pauses between deliveries that fail: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The longest pause that a receiver may ask for.
const PAUSE_ASKED_MAX: Duration = Duration::from_secs(300);
/// What is read of an answer, and how long it is waited for once the status is there.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const ANSWER_PATIENCE: Duration = Duration::from_secs(3);
/// How long a bot that ends goes on sending.
const FAREWELL: Duration = Duration::from_secs(1);

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

/// When metrics were read, and of whom.
#[derive(Clone, Copy, Debug)]
struct Round<'a> {
    node: &'a str,
    version: &'a str,
    start_unix_millis: i64,
    unix_millis: i64,
}

/// A bound as OpenMetrics spells it, which is what Prometheus stores of a scrape.
fn bound(seconds: f64) -> String {
    if seconds.is_infinite() { "+Inf".to_owned() } else { format!("{seconds:?}") }
}

/// Reads the metrics regularly, and sends them until `stop`. Then it tells that its series end, if
/// the receiver takes that at once.
pub(crate) async fn run(api: Arc<Api>, push: Push, counts: Arc<Counts>, stop: CancellationToken) {
    let outbox = Outbox::new(counts);
    let mut remote_write = RemoteWrite::default();
    let delivering = deliver(&push, api.version, &outbox);
    tokio::pin!(delivering);
    tokio::select! {
        () = stop.cancelled() => {}
        () = collect(&api, &push, &mut remote_write, &outbox) => {}
        () = &mut delivering => {}
    }
    let node = api.source.snapshot().me.name.clone();
    let round = Round {
        node: node.as_str(),
        version: api.version,
        start_unix_millis: 0,
        unix_millis: unix_millis(),
    };
    let mut left = outbox.change(|queue| {
        remote_write.farewell(&round).into_iter().map(|batch| queue.put(batch)).sum::<u64>()
    });
    outbox.news.notify_one();
    let _ = tokio::time::timeout(FAREWELL, async {
        tokio::select! {
            () = &mut delivering => {}
            () = outbox.emptied() => {}
        }
    })
    .await;
    left += outbox.under_way.load(Relaxed)
        + outbox.change(|queue| {
            std::iter::from_fn(|| queue.take()).map(|batch| batch.samples).sum::<u64>()
        });
    outbox.counts.dropped.fetch_add(left, Relaxed);
    if left > 0 {
        tracing::warn!(receiver = %push.receiver, samples = left, "ends with samples that the receiver of metrics did not take");
    }
}

/// What is between reading and sending.
struct Outbox {
    queue: Mutex<Queue>,
    /// Something waits.
    news: Notify,
    /// Samples that are under way to the receiver.
    under_way: AtomicU64,
    /// Nothing waits any more.
    emptied: Notify,
    counts: Arc<Counts>,
}

impl Outbox {
    fn new(counts: Arc<Counts>) -> Self {
        Self {
            queue: Mutex::default(),
            news: Notify::new(),
            under_way: AtomicU64::new(0),
            emptied: Notify::new(),
            counts,
        }
    }

    /// Waits until everything is delivered.
    async fn emptied(&self) {
        while self.under_way.load(Relaxed) > 0 || self.change(|queue| queue.bytes()) > 0 {
            self.emptied.notified().await;
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut MutexGuard<'_, Queue>) -> T) -> T {
        let mut queue = canary_net::lock(&self.queue);
        let result = change(&mut queue);
        self.counts.waiting_bytes.store(queue.bytes() as u64, Relaxed);
        result
    }
}

async fn collect(api: &Api, push: &Push, remote_write: &mut RemoteWrite, outbox: &Outbox) {
    // Bots that began together do not all send at the same moment.
    let begin = tokio::time::Instant::now() + push.interval.mul_f64(fastrand::f64());
    let mut turn = tokio::time::interval_at(begin, push.interval);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let start_unix_millis = Process::read()
        .start_time_seconds
        .map_or_else(unix_millis, |seconds| (seconds * 1000.0) as i64);
    loop {
        turn.tick().await;
        let node = api.source.snapshot().me.name.clone();
        let round = Round {
            node: node.as_str(),
            version: api.version,
            start_unix_millis,
            unix_millis: unix_millis(),
        };
        let batches = match push.protocol {
            PushProtocol::RemoteWrite => remote_write.batches(&round, families(api)),
            PushProtocol::Otlp => otlp::batches(&round, families(api)),
        };
        let lost: u64 =
            outbox.change(|queue| batches.into_iter().map(|batch| queue.put(batch)).sum());
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
            "dropped the oldest samples: the receiver of metrics does not take them as fast as they come"
        );
    }
}

async fn deliver(push: &Push, version: &str, outbox: &Outbox) {
    let counts = &outbox.counts;
    let (mut is_failing, mut told, mut pause) = (false, Told::default(), PAUSES.0);
    let mut connection = None;
    loop {
        let Some(batch) = outbox.change(|queue| queue.take()) else {
            connection = None;
            outbox.under_way.store(0, Relaxed);
            outbox.emptied.notify_one();
            outbox.news.notified().await;
            continue;
        };
        outbox.under_way.store(batch.samples, Relaxed);
        let sent =
            tokio::time::timeout(PATIENCE, send(push, version, &batch, &mut connection)).await;
        let problem = match sent.unwrap_or_else(|_| {
            Err(Problem::later("late", format!("no answer within {} s", PATIENCE.as_secs())))
        }) {
            Ok(refused) => {
                counts.sent.fetch_add(batch.samples.saturating_sub(refused), Relaxed);
                counts.refused.fetch_add(refused, Relaxed);
                if refused < batch.samples {
                    counts
                        .last_success
                        .store(u64::try_from(unix_millis()).unwrap_or_default(), Relaxed);
                }
                if std::mem::take(&mut is_failing) {
                    tracing::info!(receiver = %push.receiver, "the receiver of metrics takes them again");
                }
                pause = PAUSES.0;
                continue;
            }
            Err(problem) => problem,
        };
        connection = None;
        counts.failures.fetch_add(1, Relaxed);
        if let Some(left_out) = told.allows(&problem.kind) {
            tracing::warn!(receiver = %push.receiver, why = problem.why, tried_again = problem.is_passing, left_out, "the receiver of metrics does not take them");
        }
        if !problem.is_passing {
            counts.refused.fetch_add(batch.samples, Relaxed);
            continue;
        }
        is_failing = true;
        outbox.under_way.store(0, Relaxed);
        let lost = outbox.change(|queue| queue.put_back(batch));
        give_up(push, outbox, lost);
        // Bots whose receiver came back do not all return at the same moment, and none before it
        // wants to be asked.
        let wait = match problem.wait {
            Some(asked) => {
                asked.clamp(PAUSES.0, PAUSE_ASKED_MAX).mul_f64(1.0 + fastrand::f64() / 2.0)
            }
            None => pause.mul_f64(0.5 + fastrand::f64()),
        };
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Lines about failures: another kind at once, the same once a minute.
#[derive(Default)]
struct Told {
    kind: String,
    line: Seldom,
}

impl Told {
    fn allows(&mut self, kind: &str) -> Option<u64> {
        if self.kind != kind {
            (self.kind, self.line) = (kind.to_owned(), Seldom::new());
        }
        self.line.allows()
    }
}

/// Why a batch was not delivered.
struct Problem {
    /// What is the same while the words differ.
    kind: String,
    why: String,
    /// Whether it is worth trying again.
    is_passing: bool,
    /// When the receiver wants to be asked again.
    wait: Option<Duration>,
}

impl Problem {
    fn later(kind: &str, why: String) -> Self {
        Self { kind: kind.to_owned(), why, is_passing: true, wait: None }
    }
}

impl From<DialError> for Problem {
    fn from(error: DialError) -> Self {
        Self::later("dial", canary_net::with_causes(&error))
    }
}

type Connection = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

/// Sends a batch, on the connection of the one before if that is still there. How many of its
/// samples the receiver refused when it took the others.
async fn send(
    push: &Push,
    version: &str,
    batch: &Batch,
    connection: &mut Option<Connection>,
) -> Result<u64, Problem> {
    let mut warm = connection.take();
    if let Some(sender) = &mut warm
        && sender.ready().await.is_err()
    {
        warm = None;
    }
    let mut sender = match warm {
        Some(sender) => sender,
        None => push.receiver.dial(push.tls.get().client.clone()).await?,
    };
    let mut request =
        Request::post(push.receiver.path()).header(header::HOST, push.receiver.authority());
    if let Some(headers) = request.headers_mut() {
        push.protocol.describe(headers);
        headers.extend(
            credentials(&push.credentials.get()).map(|value| (header::AUTHORIZATION, value)),
        );
        headers.extend(
            HeaderValue::try_from(format!("canary-bot/{version}"))
                .map(|agent| (header::USER_AGENT, agent)),
        );
    }
    let broken =
        |error: &dyn std::error::Error| Problem::later("broken", canary_net::with_causes(error));
    let request = request.body(Full::new(batch.body.clone())).map_err(|error| broken(&error))?;
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let status = response.status();
    let wait = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|wait| wait.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    // The status says what became of it, whatever becomes of the body.
    let body = tokio::time::timeout(
        ANSWER_PATIENCE,
        Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect(),
    )
    .await;
    let answer = match body {
        Ok(Ok(body)) => {
            *connection = Some(sender);
            body.to_bytes()
        }
        _ => Bytes::new(),
    };
    if status.is_success() {
        let refused =
            if push.protocol == PushProtocol::Otlp { otlp::refused(&answer) } else { None };
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
    Err(Problem {
        kind: status.to_string(),
        why,
        is_passing: push.protocol.is_passing(status),
        wait,
    })
}

/// The beginning of what a receiver says, on one line.
fn words(text: &str) -> String {
    text.trim().chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `USER:PASSWORD` is presented as such, anything else as a bearer token: no such token has a colon
/// (RFC 6750).
fn credentials(tokens: &Tokens) -> Option<HeaderValue> {
    tokens.basic().or_else(|| tokens.header())
}

fn unix_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
