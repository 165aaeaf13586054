//! Calls to peers over one warm connection each.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use buffa::Message as _;
use bytes::Bytes;
use canary_core::{
    CallError, Detail, Failure, Instance, NodeName, Record, Request, Response, Snapshot, Target,
};
use canary_guests::Unanswered;
use canary_net::{GATHERED_BYTES, Gathered, Guard, Live, Tokens};
use connectrpc::client::{ClientBody, ClientConfig, ClientTransport};
use connectrpc::{ConnectError, ErrorCode, Protocol};
use http_body_util::{BodyExt as _, Collected, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{MESSAGE_BYTES_MAX, detail, pb, wire};
use crate::connect::connect_any;
use crate::failure::{Blame, Cause, Remembering, blame, blame_connect};
use crate::resolve::{LookupError, Resolver};
use crate::secure;
use crate::traffic::{Direction, Kind, Traffic};

/// Warm connections held at once. The one idle for longest goes first.
const LINKS_MAX: usize = 512;
/// A connection without a call for so long is closed: in a large mesh partners change all the time.
const IDLE_MAX: Duration = Duration::from_secs(50);
/// How often a peer with a call under way is asked whether it is there, and how long it may take.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// How long a call waits for a name that was never resolved: less than any call may take, so that
/// the reason can be reported.
const LOOKUP_PATIENCE: Duration = Duration::from_millis(1200);

type BoxError = Box<dyn StdError + Send + Sync>;

/// What went wrong below the protocol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("the connection failed")]
    Http2(#[source] hyper::Error),
    #[error("the answer was cut short")]
    Body(#[source] BoxError),
}

/// One connection; clones share it, and the last one closes it.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    sender: hyper::client::conn::http2::SendRequest<ClientBody>,
    tokens: Live<Tokens>,
    scheme: &'static str,
    since: Instant,
    cause: Cause,
    driver: Arc<Driver>,
}

#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    fn is_closed(&self) -> bool {
        self.sender.is_closed() || self.driver.0.is_finished()
    }
}

impl ClientTransport for Link {
    type ResponseBody = Collected<Bytes>;
    type Error = LinkError;

    fn send(
        &self,
        mut request: http::Request<ClientBody>,
    ) -> Pin<Box<dyn Future<Output = Result<http::Response<Self::ResponseBody>, LinkError>> + Send>>
    {
        let mut sender = self.sender.clone();
        if let Some(token) = self.tokens.get().header() {
            request.headers_mut().insert(http::header::AUTHORIZATION, token);
        }
        Box::pin(async move {
            let (parts, body) =
                sender.send_request(request).await.map_err(LinkError::Http2)?.into_parts();
            // Collected here, so that a reset in mid-body keeps its cause.
            let body = Limited::new(body, MESSAGE_BYTES_MAX + 5)
                .collect()
                .await
                .map_err(LinkError::Body)?;
            Ok(http::Response::from_parts(parts, body))
        })
    }
}

/// Warm connections by target.
#[derive(Debug)]
pub(crate) struct Links {
    resolver: Resolver,
    strangers: Resolver,
    guard: Guard,
    traffic: Arc<Traffic>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    links: Mutex<HashMap<Target, (Link, Instant)>>,
    malformed: AtomicU64,
}

impl Links {
    pub(crate) fn new(
        resolver: Resolver,
        guard: Guard,
        traffic: Arc<Traffic>,
        snapshot: watch::Receiver<Arc<Snapshot>>,
    ) -> Self {
        let strangers = resolver.for_strangers();
        Self {
            resolver,
            strangers,
            guard,
            traffic,
            snapshot,
            links: Mutex::default(),
            malformed: AtomicU64::new(0),
        }
    }

    /// Times that the last good addresses of a name were used because it was not resolved.
    pub(crate) fn stale_lookups(&self) -> u64 {
        self.resolver.stale()
    }

    /// Answers that could not be read.
    pub(crate) fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }

    /// Waits for what is asked of a peer, for at most `timeout` from dialling to the answer.
    pub(crate) async fn within(
        &self,
        target: &Target,
        timeout: Duration,
        asked: impl Future<Output = Result<Response, CallError>>,
    ) -> Result<Response, CallError> {
        match tokio::time::timeout(timeout, asked).await {
            Ok(result) => result,
            Err(_) => {
                // What does not answer is not worth keeping warm: the next call finds out afresh.
                self.forget(target);
                Err(CallError {
                    failure: Failure::Timeout,
                    detail: format!("{target} did not answer within {timeout:?}"),
                })
            }
        }
    }

    /// Asks a peer by our own protocol.
    pub(crate) async fn ask_ours(
        &self,
        target: &Target,
        request: Request,
    ) -> Result<Response, Unanswered> {
        let link = if matches!(request, Request::Join(_)) {
            // Ask the node that answers at this address now: names move, and one address may have
            // many nodes behind it.
            self.forget(target);
            let found_as = self.resolver.found_as(target);
            let link = self
                .dial(&self.resolver, target, found_as.as_deref().unwrap_or(target.host()))
                .await?;
            if found_as.is_none() {
                self.keep(target, &link);
            }
            link
        } else if let Some(link) = self.warm(target) {
            link
        } else {
            // Who has to be asked for its name may be anybody.
            let is_stranger = matches!(request, Request::Identify) && !self.is_members(target);
            let resolver = if is_stranger { &self.strangers } else { &self.resolver };
            let link = self.dial(resolver, target, target.host()).await?;
            self.keep(target, &link);
            link
        };
        let config = config_for(target, &link)?;
        let (cause, scheme) = (Arc::clone(&link.cause), link.scheme);
        let client = pb::MeshServiceClient::new(link, config);
        let response = match self.ask(&client, request).await {
            Ok(response) => response,
            // It lives, and has no time for this.
            Err(error)
                if error.code == ErrorCode::ResourceExhausted && error.source().is_none() =>
            {
                return Ok(Response::Busy);
            }
            Err(error) => {
                let unimplemented =
                    error.code == ErrorCode::Unimplemented && error.source().is_none();
                let mut call = self.explain(target, &error);
                if let Some(failure) = cause
                    .get()
                    .filter(|_| matches!(call.failure, Failure::Reset | Failure::Protocol))
                {
                    call.failure = *failure;
                }
                if call.failure == Failure::Reset && scheme == "http" {
                    call.detail.push_str("; does it want TLS?");
                }
                return Err(Unanswered { unimplemented, call });
            }
        };
        response.map_err(|why| {
            self.malformed.fetch_add(1, Ordering::Relaxed);
            CallError {
                failure: Failure::Protocol,
                detail: format!("{target} gave a malformed answer: {why}"),
            }
            .into()
        })
    }

    /// Asks a member, as the instance `from`, what it knows of its pair to `target`.
    pub(crate) async fn describe(
        &self,
        member: &Record,
        from: Instance,
        target: &NodeName,
    ) -> Result<Detail, CallError> {
        let whom = &member.target;
        let link = self.member_link(whom).await?;
        let client = pb::MeshServiceClient::new(link.clone(), config_for(whom, &link)?);
        let request = pb::DescribeRequest {
            from: from.0,
            to: member.instance.0,
            target: target.as_str().to_owned(),
            ..Default::default()
        };
        self.traffic.count(Kind::Describe, Direction::Out, request.encoded_len() as usize);
        let answer = client
            .describe(request)
            .await
            .map_err(|error| self.explain(whom, &error))?
            .into_owned();
        self.traffic.count(Kind::Describe, Direction::In, answer.encoded_len() as usize);
        Ok(detail::read(answer))
    }

    /// What a failed call says of the peer.
    pub(crate) fn explain(&self, target: &Target, error: &ConnectError) -> CallError {
        if error.code == ErrorCode::Unavailable {
            self.forget(target);
        }
        explain(target, error)
    }

    /// A client of the original's protocol, on a connection that is shared with ours.
    pub(crate) async fn original(
        &self,
        target: &Target,
    ) -> Result<super::original::MeshServiceClient<Link>, CallError> {
        let link = self.member_link(target).await?;
        let config = config_for(target, &link)?;
        Ok(super::original::MeshServiceClient::new(link, config))
    }

    /// A warm connection to a member.
    async fn member_link(&self, target: &Target) -> Result<Link, CallError> {
        if let Some(link) = self.warm(target) {
            return Ok(link);
        }
        let link = self.dial(&self.resolver, target, target.host()).await?;
        self.keep(target, &link);
        Ok(link)
    }

    async fn ask(
        &self,
        client: &pb::MeshServiceClient<Link>,
        request: Request,
    ) -> Result<Result<Response, wire::Malformed>, ConnectError> {
        let sent = |kind, len: u32| self.traffic.count(kind, Direction::Out, len as usize);
        let received = |kind, len: u32| self.traffic.count(kind, Direction::In, len as usize);
        Ok(match request {
            Request::Identify => {
                sent(Kind::Identify, 0);
                let node = client.identify(pb::IdentifyRequest::default()).await?.into_owned();
                received(Kind::Identify, node.encoded_len());
                wire::record(node).map(Response::Identify)
            }
            Request::Join(record) => {
                let request = pb::JoinRequest {
                    node: Some(wire::node(&record)).into(),
                    ..Default::default()
                };
                sent(Kind::Join, request.encoded_len());
                let answer = client.join(request).await?.into_owned();
                received(Kind::Join, answer.encoded_len());
                wire::join_answer(answer).map(Response::Join)
            }
            Request::Exchange(exchange) => {
                let request = pb::ExchangeRequest {
                    gossip: Some(wire::gossip(&exchange)).into(),
                    ..Default::default()
                };
                sent(Kind::Exchange, request.encoded_len());
                let answer = client.exchange(request).await?.into_owned();
                received(Kind::Exchange, answer.encoded_len());
                wire::exchange_answer(answer)
            }
            Request::IndirectProbe(instance) => {
                let request =
                    pb::IndirectProbeRequest { instance: instance.0, ..Default::default() };
                sent(Kind::IndirectProbe, request.encoded_len());
                let answer = client.indirect_probe(request).await?.into_owned();
                received(Kind::IndirectProbe, answer.encoded_len());
                Ok(Response::IndirectProbe(wire::answer(&answer)))
            }
        })
    }

    /// Whether somebody answered at a target who is known by it.
    fn is_members(&self, target: &Target) -> bool {
        self.snapshot
            .borrow()
            .members
            .iter()
            .any(|member| member.proven && member.record.target == *target)
    }

    fn warm(&self, target: &Target) -> Option<Link> {
        let mut links = canary_net::lock(&self.links);
        let (link, used) = links.get_mut(target)?;
        if link.is_closed() {
            links.remove(target);
            return None;
        }
        *used = Instant::now();
        Some(link.clone())
    }

    /// Since when there is a connection to a target; none if there is none.
    pub(crate) fn warm_since(&self, target: &Target) -> Option<Instant> {
        self.warm(target).map(|link| link.since)
    }

    fn forget(&self, target: &Target) {
        canary_net::lock(&self.links).remove(target);
    }

    /// Closes connections that nobody used lately.
    pub(crate) fn sweep(&self) {
        let mut links = canary_net::lock(&self.links);
        links.retain(|_, (link, used)| !link.is_closed() && used.elapsed() < IDLE_MAX);
    }

    /// Connects to a peer that proves to be `host`.
    async fn dial(
        &self,
        resolver: &Resolver,
        target: &Target,
        host: &str,
    ) -> Result<Link, CallError> {
        let fail = |failure, why: &dyn std::fmt::Display| CallError {
            failure,
            detail: format!("cannot connect to {target}: {why}"),
        };
        let addresses =
            resolver.resolve(target, LOOKUP_PATIENCE).await.map_err(|error| match error {
                LookupError::Local(_) => fail(Failure::Unreachable, &error),
                // Nothing is known of the peer.
                LookupError::NoThread(_) => fail(Failure::Timeout, &error),
                _ => fail(Failure::Dns, &error),
            })?;
        let (stream, _) =
            connect_any(&addresses).await.map_err(|error| match blame_connect(&error) {
                Blame::Network(failure) => fail(failure, &error),
                // Nothing is known of the peer, and nothing worse may be concluded than that it was
                // not heard in time.
                Blame::Ourselves => fail(Failure::Timeout, &error),
            })?;
        let set = self.guard.tls.get();
        let stream =
            secure::secure(&set, host, stream).await.map_err(|error| fail(Failure::Tls, &error))?;
        let (stream, cause) = Remembering::new(Gathered::new(stream, GATHERED_BYTES));
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1)
            .max_header_list_size(16 * 1024)
            .handshake::<_, ClientBody>(TokioIo::new(stream))
            .await
            .map_err(|error| fail(Failure::Protocol, &error))?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a peer ended");
            }
        });
        let (tokens, scheme) = (self.guard.tokens.clone(), secure::scheme(&set));
        Ok(Link {
            sender,
            tokens,
            scheme,
            since: Instant::now(),
            cause,
            driver: Arc::new(Driver(driver)),
        })
    }

    fn keep(&self, target: &Target, link: &Link) {
        let mut links = canary_net::lock(&self.links);
        if links.len() >= LINKS_MAX {
            let oldest =
                links.iter().min_by_key(|(_, (_, used))| *used).map(|(target, _)| target.clone());
            oldest.and_then(|target| links.remove(&target));
        }
        links.insert(target.clone(), (link.clone(), Instant::now()));
    }
}

fn config_for(target: &Target, link: &Link) -> Result<ClientConfig, CallError> {
    let uri: http::Uri = format!("{}://{target}", link.scheme).parse().map_err(|_| CallError {
        failure: Failure::Protocol,
        detail: format!("{target} is not a target that can be called"),
    })?;
    Ok(ClientConfig::new(uri)
        .with_protocol(Protocol::Grpc)
        .with_default_max_message_size(MESSAGE_BYTES_MAX))
}

/// What an error of the RPC library says about the peer.
fn explain(target: &Target, error: &ConnectError) -> CallError {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            let failure = match blame(io) {
                Blame::Network(failure) => failure,
                Blame::Ourselves => Failure::Timeout,
            };
            return CallError {
                failure,
                detail: format!("the connection to {target} failed: {io}"),
            };
        }
        cause = inner.source();
    }
    let transport = error.source().is_some_and(<dyn StdError>::is::<LinkError>);
    let failure = match error.code {
        _ if transport => Failure::Reset,
        ErrorCode::DeadlineExceeded => Failure::Timeout,
        ErrorCode::Unauthenticated | ErrorCode::PermissionDenied => Failure::Auth,
        ErrorCode::Unavailable => Failure::Reset,
        _ => Failure::Protocol,
    };
    let message = error.message.as_deref().map(wire::detail).unwrap_or_default();
    let detail = match message.as_str() {
        // What our own API answers to a client without a token.
        "no token provided" => {
            format!("{target} is a bot's API port; give its mesh port, 8081 by default")
        }
        _ if transport => format!("{target} closed the connection without an answer"),
        _ => format!("{target} answered with an error: {message}"),
    };
    CallError { failure, detail }
}
