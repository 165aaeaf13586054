//! The mesh port's service: probes and questions about pairs are answered on the spot, everything
//! else by the driver.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use canary_core::{Instance, JoinAnswer, Record, Request, Response, Snapshot};
use canary_net::tls::PeerNames;
use canary_net::token::Verdict;
use canary_net::{Guard, IpNet, Ledger, Peer, Rates, Seldom};
use connectrpc::{
    CompressionPolicy, CompressionRegistry, ConnectError, ConnectRpcService, ErrorCode, Limits,
    RequestContext, Response as RpcResponse, Router, ServiceRequest, ServiceResult,
};
use connectrpc_reflection::Reflector;
use tokio::sync::{mpsc, oneshot, watch};

use super::{MESSAGE_BYTES_MAX, detail, flight, pb, wire};
use crate::parts::Identity;
use crate::traffic::{Direction, Kind, Traffic};
use crate::v1;

/// Memory that the elements of one message may take once decoded: entries of a few bytes become
/// structs.
const ELEMENT_MEMORY_MAX: usize = 8 * MESSAGE_BYTES_MAX;
/// How long the driver may take for an answer: two identifications of a joiner, and what it takes
/// to be scheduled.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Codes of answers to what cannot be read, is too long, or asks for what there is not, as HTTP
/// says it.
const REFUSING_HTTP: [u16; 6] = [400, 404, 405, 413, 415, 429];
/// The same as gRPC says it: INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED.
const REFUSING_GRPC: [u32; 3] = [3, 8, 12];

/// gRPC's code for a caller without a valid token.
const UNAUTHENTICATED: u32 = 16;

/// gRPC's code for what is not done here.
const UNIMPLEMENTED: u32 = 12;

/// gRPC's code for a caller who asks for too much at once.
const RESOURCE_EXHAUSTED: u32 = 8;

/// Joins of one address that fail: so many at once, and so many a second after that. Each has a bot
/// dial an address; those that succeed are free.
const JOINS_FAILING: (f64, f64) = (64.0, 2.0);
/// Bytes of messages under way, in all and of one address: fourteen of the longest, and three. Most
/// are a few hundred bytes long.
const BYTES_UNDER_WAY: (usize, usize) = (8 << 20, 2 << 20);
/// Largest request to join in bytes: a name, a target and labels.
const JOIN_BYTES_MAX: usize = 16 * 1024;
/// Largest request that says nothing of itself in bytes.
pub(super) const QUESTION_BYTES_MAX: usize = 1024;

/// A peer's request on its way to the driver.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) request: Request,
    /// Whom the certificate of the peer names, if it presented one.
    pub(crate) names: Option<PeerNames>,
    pub(crate) reply: oneshot::Sender<Result<Response, Impostor>>,
}

/// Who spoke as another than its certificate names.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the certificate names {names}: neither the node {node} nor the host of its target")]
pub(crate) struct Impostor {
    pub(crate) node: String,
    pub(crate) names: String,
}

impl Impostor {
    /// Holds a speaker to its certificate, which names the node or the host of its target.
    pub(crate) fn unless(names: &PeerNames, speaker: &Record) -> Result<(), Self> {
        if names.cover(speaker.name.as_str()) || names.cover(speaker.target.host()) {
            return Ok(());
        }
        Err(Self {
            node: speaker.name.as_str().to_owned(),
            names: names.iter().take(8).collect::<Vec<_>>().join(", "),
        })
    }
}

/// Answers `mesh.v2`.
#[derive(Debug)]
pub(crate) struct MeshService {
    me: watch::Receiver<Identity>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    driver: mpsc::Sender<Arrived>,
    traffic: Arc<Traffic>,
    /// Joins that fail, by address.
    joins: Rates,
    /// Bytes of messages under way.
    pub(crate) ledger: Arc<Ledger>,
    proxies: Arc<[IpNet]>,
    refused: AtomicU64,
    busy: AtomicU64,
    overdrawn: AtomicU64,
    joins_limited: AtomicU64,
    tokenless: AtomicU64,
    impostors: AtomicU64,
}

/// What the service refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Messages that could not be read.
    pub(crate) unreadable: u64,
    /// Requests while the driver had too much to do.
    pub(crate) busy: u64,
    /// Requests without a valid token.
    pub(crate) tokenless: u64,
    /// Requests of peers that spoke as another than their certificate names.
    pub(crate) impostors: u64,
    /// Joins that were put off because their address had failed too often.
    pub(crate) joins_limited: u64,
    /// Messages that were put off because too many bytes were under way.
    pub(crate) overdrawn: u64,
}

impl MeshService {
    pub(crate) fn new(
        me: watch::Receiver<Identity>,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        driver: mpsc::Sender<Arrived>,
        traffic: Arc<Traffic>,
        proxies: Arc<[IpNet]>,
    ) -> Arc<Self> {
        Arc::new(Self {
            me,
            snapshot,
            driver,
            traffic,
            joins: Rates::new(JOINS_FAILING.0, JOINS_FAILING.1),
            ledger: Ledger::new(BYTES_UNDER_WAY.0, BYTES_UNDER_WAY.1, Arc::clone(&proxies)),
            proxies,
            overdrawn: AtomicU64::new(0),
            joins_limited: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            tokenless: AtomicU64::new(0),
            impostors: AtomicU64::new(0),
        })
    }

    /// The service as the accept loop takes it.
    pub(crate) fn into_service(
        self: Arc<Self>,
    ) -> ConnectRpcService<impl connectrpc::Dispatcher + 'static> {
        let limits = Limits::default()
            .with_max_request_body_size(MESSAGE_BYTES_MAX + 5)
            .with_max_message_size(MESSAGE_BYTES_MAX)
            .with_element_memory_limit(ELEMENT_MEMORY_MAX);
        // Rows are packed already: to compress them again costs the processor more than the network
        // gains.
        ConnectRpcService::new(pb::MeshServiceServer::from_arc(self))
            .with_limits(limits)
            .with_compression(CompressionRegistry::new())
            .with_compression_policy(CompressionPolicy::disabled())
    }

    /// Largest body of a request to this path.
    pub(crate) fn body_max(path: &str) -> usize {
        match path {
            "/mesh.v2.MeshService/Exchange" => MESSAGE_BYTES_MAX + 5,
            "/mesh.v2.MeshService/Join" => JOIN_BYTES_MAX,
            v1::PUSH_PATH => v1::MESSAGE_BYTES_MAX + 5,
            path if path.starts_with("/mesh.v2.") => QUESTION_BYTES_MAX,
            _ => v1::SHORT_BYTES_MAX,
        }
    }

    /// Counts a message for which there were too many bytes under way.
    pub(crate) fn note_overdrawn(&self) {
        self.overdrawn.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was not there in time, or was too long.
    pub(crate) fn note_unread(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// What was refused so far.
    pub(crate) fn refused(&self) -> Refused {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Refused {
            unreadable: count(&self.refused),
            busy: count(&self.busy),
            tokenless: count(&self.tokenless),
            impostors: count(&self.impostors),
            joins_limited: count(&self.joins_limited),
            overdrawn: count(&self.overdrawn),
        }
    }

    /// The answer to a request in JSON, or without a valid token, where the mesh has one; none if
    /// it may pass.
    pub(crate) fn turn_away<B, A: Default>(
        &self,
        guard: &Guard,
        request: &http::Request<B>,
    ) -> Option<http::Response<A>> {
        let tokens = guard.tokens.get();
        let headers = request.headers();
        let kind = headers.get(http::header::CONTENT_TYPE);
        let packed = |name| {
            headers.get(name).is_some_and(|coding: &http::HeaderValue| {
                !coding.as_bytes().eq_ignore_ascii_case(b"identity")
            })
        };
        // What is compressed costs far more than it took to send, and nobody who belongs to a mesh
        // compresses. A watch never ends.
        if packed("grpc-encoding")
            || packed("content-encoding")
            || packed("connect-content-encoding")
            || request.uri().path() == HEALTH_WATCH
        {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Some(unimplemented(request));
        }
        // A few bytes of JSON make large structures, and nobody who belongs to a mesh speaks it.
        if kind.is_some_and(|kind| {
            kind.as_bytes().windows(4).any(|part| part.eq_ignore_ascii_case(b"json"))
        }) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let mut response = http::Response::new(A::default());
            *response.status_mut() = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Some(response);
        }
        if tokens.is_empty()
            || tokens.judge(request.headers().get(http::header::AUTHORIZATION)) == Verdict::Valid
        {
            return None;
        }
        self.tokenless.fetch_add(1, Ordering::Relaxed);
        static TOKENLESS: [Seldom; 2] = [Seldom::new(), Seldom::new()];
        let is_guest = request.uri().path().starts_with("/mesh.v1.");
        if let Some(left_out) = TOKENLESS[usize::from(is_guest)].allows() {
            let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_string());
            if is_guest {
                tracing::warn!(
                    peer,
                    left_out,
                    "a bot of the original stays outside: it cannot present a mesh token"
                );
            } else {
                tracing::warn!(
                    peer,
                    left_out,
                    "refused a peer: its mesh token is missing or wrong; give both the same"
                );
            }
        }
        if request.extensions().get::<Peer>().is_some_and(|peer| !guard.failures.note(peer.0.ip()))
        {
            return Some(later(request));
        }
        let why = Some("the mesh token is missing or wrong");
        Some(refusal(request, http::StatusCode::UNAUTHORIZED, UNAUTHENTICATED, why))
    }

    /// The answer to a request that is to come again later; it is counted where it is given.
    pub(crate) fn later<B, A: Default>(&self, request: &http::Request<B>) -> http::Response<A> {
        later(request)
    }

    /// The answer to a request for which there is no place just now.
    pub(crate) fn busy<B, A: Default>(&self, request: &http::Request<B>) -> http::Response<A> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        later(request)
    }

    /// Looks at an answer on its way out: what the RPC library refused by itself, no handler has
    /// seen.
    pub(crate) fn note<B>(&self, answer: &http::Response<B>) {
        let code = answer
            .headers()
            .get("grpc-status")
            .and_then(|code| code.to_str().ok()?.parse().ok())
            .unwrap_or(0);
        // Responses with Retry-After are already counted as `busy`.
        let busy = answer.headers().contains_key(http::header::RETRY_AFTER);
        if !busy
            && (REFUSING_HTTP.contains(&answer.status().as_u16()) || REFUSING_GRPC.contains(&code))
        {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The flight that answers a probe.
    pub(super) fn probed(&self, turn: usize) -> Option<Vec<u8>> {
        let answer = wire::probe_response(&self.me.borrow().me);
        let message = buffa::Message::encode_to_vec(&answer);
        let body = [&[0], &u32::try_from(message.len()).ok()?.to_be_bytes()[..], &message].concat();
        let flight = flight::write_answer(&body, turn)?;
        self.count(Kind::Probe, 0, message.len());
        Some(flight)
    }

    async fn ask_driver(
        &self,
        ctx: &RequestContext,
        request: Request,
    ) -> Result<Response, ConnectError> {
        let (reply, answer) = oneshot::channel();
        let names = ctx.extensions().get::<PeerNames>().cloned();
        self.driver.try_send(Arrived { request, names, reply }).map_err(|_| {
            self.busy.fetch_add(1, Ordering::Relaxed);
            let later = http::HeaderMap::from_iter([(
                http::header::RETRY_AFTER,
                http::HeaderValue::from_static("1"),
            )]);
            ConnectError::new(ErrorCode::ResourceExhausted, "too many requests; come again later")
                .with_headers(later)
        })?;
        match tokio::time::timeout(ANSWER_TIME, answer).await {
            Ok(Ok(Ok(response))) => Ok(response),
            Ok(Ok(Err(impostor))) => Err(self.refuse(ctx, &impostor)),
            Ok(Err(_)) => Err(ConnectError::new(ErrorCode::Unavailable, "the bot is leaving")),
            Err(_) => Err(ConnectError::new(ErrorCode::DeadlineExceeded, "no answer in time")),
        }
    }

    fn refuse(&self, ctx: &RequestContext, impostor: &Impostor) -> ConnectError {
        self.impostors.fetch_add(1, Ordering::Relaxed);
        static IMPOSTORS: Seldom = Seldom::new();
        if let Some(left_out) = IMPOSTORS.allows() {
            let peer = ctx.extensions().get::<Peer>().map(|peer| peer.0.ip().to_string());
            tracing::warn!(peer, %impostor, left_out, "refused a peer that speaks as another node than its certificate names");
        }
        ConnectError::new(ErrorCode::PermissionDenied, impostor.to_string())
    }

    /// The member that speaks as this instance, held to the names of its certificate.
    fn member(
        &self,
        ctx: &RequestContext,
        snapshot: &Snapshot,
        instance: Instance,
    ) -> Result<(), ConnectError> {
        let member = snapshot
            .members
            .iter()
            .find(|member| member.record.instance == instance && member.proven);
        let Some(member) = member else {
            return Err(ConnectError::new(ErrorCode::PermissionDenied, "join first"));
        };
        match ctx.extensions().get::<PeerNames>() {
            Some(names) => Impostor::unless(names, &member.record)
                .map_err(|impostor| self.refuse(ctx, &impostor)),
            None => Ok(()),
        }
    }

    fn count(&self, kind: Kind, received: usize, sent: usize) {
        self.traffic.count(kind, Direction::In, received);
        self.traffic.count(kind, Direction::Out, sent);
    }
}

/// A stream that a client may keep open without end.
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// The answer to what this port does not do.
fn unimplemented<B, A: Default>(request: &http::Request<B>) -> http::Response<A> {
    let status = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
    let mut response: http::Response<A> = refusal(request, status, UNIMPLEMENTED, None);
    if response.status() != status {
        let identity = http::HeaderValue::from_static("identity");
        response.headers_mut().insert("grpc-accept-encoding", identity);
    }
    response
}

/// The answer to a client that is to come again later.
fn later<B, A: Default>(request: &http::Request<B>) -> http::Response<A> {
    let mut response =
        refusal(request, http::StatusCode::TOO_MANY_REQUESTS, RESOURCE_EXHAUSTED, None);
    response.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("1"));
    response
}

/// An empty answer that refuses a request: by gRPC's code and words where gRPC is spoken, by the
/// HTTP status elsewhere.
fn refusal<B, A: Default>(
    request: &http::Request<B>,
    status: http::StatusCode,
    code: u32,
    message: Option<&'static str>,
) -> http::Response<A> {
    let mut response = http::Response::new(A::default());
    match canary_net::refused_call(request.headers(), code, message) {
        Some(headers) => *response.headers_mut() = headers,
        None => *response.status_mut() = status,
    }
    response
}

fn malformed(why: &str) -> ConnectError {
    ConnectError::new(ErrorCode::InvalidArgument, format!("the message is malformed: {why}"))
}

fn unexpected() -> ConnectError {
    ConnectError::new(ErrorCode::Internal, "the answer does not fit the question")
}

#[expect(refining_impl_trait, reason = "the handlers name what they return")]
impl pb::MeshService for MeshService {
    async fn probe(
        &self,
        _ctx: RequestContext,
        _request: ServiceRequest<'_, pb::ProbeRequest>,
    ) -> ServiceResult<pb::ProbeResponse> {
        let answer = wire::probe_response(&self.me.borrow().me);
        self.count(Kind::Probe, 0, encoded_len(&answer));
        RpcResponse::ok(answer)
    }

    async fn identify(
        &self,
        _ctx: RequestContext,
        _request: ServiceRequest<'_, pb::IdentifyRequest>,
    ) -> ServiceResult<pb::Node> {
        let answer = wire::node(&self.me.borrow().introduction);
        self.count(Kind::Identify, 0, encoded_len(&answer));
        RpcResponse::ok(answer)
    }

    async fn join(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, pb::JoinRequest>,
    ) -> ServiceResult<pb::JoinResponse> {
        let request: pb::JoinRequest = request.to_owned_message();
        let received = encoded_len(&request);
        let node = request.node.into_option().ok_or_else(|| malformed("the node is missing"))?;
        let record = wire::record(node).map_err(|why| malformed(&why))?;
        if v1::is_guest(&record) {
            return Err(malformed("a bot of the original does not speak this protocol"));
        }
        let address = ctx.extensions().get::<Peer>().map(|peer| peer.0.ip());
        let address = address.filter(|address| {
            !self.proxies.iter().any(|proxy| proxy.contains(&address.to_canonical()))
        });
        let answer = if address.is_none_or(|address| self.joins.take(address)) {
            let Response::Join(answer) = self.ask_driver(&ctx, Request::Join(record)).await? else {
                return Err(unexpected());
            };
            answer
        } else {
            self.joins_limited.fetch_add(1, Ordering::Relaxed);
            JoinAnswer::Busy
        };
        if let (
            Some(address),
            JoinAnswer::Admitted(_) | JoinAnswer::Yourself | JoinAnswer::Outdated(_),
        ) = (address, &answer)
        {
            self.joins.refund(address);
        }
        let answer = wire::join_response(&answer);
        self.count(Kind::Join, received, encoded_len(&answer));
        RpcResponse::ok(answer)
    }

    async fn exchange(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, pb::ExchangeRequest>,
    ) -> ServiceResult<pb::ExchangeResponse> {
        let request: pb::ExchangeRequest = request.to_owned_message();
        let received = encoded_len(&request);
        let gossip =
            request.gossip.into_option().ok_or_else(|| malformed("the gossip is missing"))?;
        let exchange = wire::exchange(gossip);
        let response = self.ask_driver(&ctx, Request::Exchange(Box::new(exchange))).await?;
        let answer = wire::exchange_response(&response).ok_or_else(unexpected)?;
        self.count(Kind::Exchange, received, encoded_len(&answer));
        RpcResponse::ok(answer)
    }

    async fn indirect_probe(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, pb::IndirectProbeRequest>,
    ) -> ServiceResult<pb::IndirectProbeResponse> {
        let Response::IndirectProbe(answer) =
            self.ask_driver(&ctx, Request::IndirectProbe(Instance(request.instance))).await?
        else {
            return Err(unexpected());
        };
        let answer = wire::indirect_probe_response(answer);
        self.count(Kind::IndirectProbe, 9, encoded_len(&answer));
        RpcResponse::ok(answer)
    }

    async fn describe(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, pb::DescribeRequest>,
    ) -> ServiceResult<pb::DescribeResponse> {
        let request: pb::DescribeRequest = request.to_owned_message();
        let snapshot = Arc::clone(&self.snapshot.borrow());
        self.member(&ctx, &snapshot, Instance(request.from))?;
        if request.to != snapshot.me.instance.0 {
            return Err(ConnectError::new(
                ErrorCode::FailedPrecondition,
                "another node answers here",
            ));
        }
        let target = request
            .target
            .parse()
            .map_err(|error: canary_core::NameError| malformed(&error.to_string()))?;
        let unknown =
            || ConnectError::new(ErrorCode::NotFound, "this node does not know the target");
        let pair = &snapshot.member(&target).ok_or_else(unknown)?.pair;
        let answer = detail::pack(&pair.detail(snapshot.now.time));
        self.count(Kind::Describe, encoded_len(&request), encoded_len(&answer));
        RpcResponse::ok(answer)
    }
}

/// What the mesh port serves beside our own protocol.
pub(super) fn beside(original: Option<Arc<v1::GuestService>>) -> ConnectRpcService<Router> {
    let limits = |bytes: usize| {
        Limits::default().with_max_request_body_size(bytes + 5).with_max_message_size(bytes)
    };
    let mut router = Router::new();
    if let Some(original) = original {
        router = router
            .add_service(original)
            .with_route_limits(v1::PUSH_PATH, limits(v1::MESSAGE_BYTES_MAX));
    }
    let (router, _) =
        connectrpc_health::install_static(router, ["mesh.v2.MeshService", "mesh.v1.MeshService"]);
    // The descriptors are this build's own.
    let reflector = Reflector::from_descriptor_set_bytes(super::DESCRIPTORS)
        .expect("the generator wrote the descriptors");
    ConnectRpcService::new(connectrpc_reflection::install(router, reflector))
        .with_limits(limits(v1::SHORT_BYTES_MAX))
        .with_compression(CompressionRegistry::new())
        .with_compression_policy(CompressionPolicy::disabled())
}

fn encoded_len(message: &impl buffa::Message) -> usize {
    message.encoded_len() as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn what_is_turned_away_for_want_of_time_is_not_malformed() {
        let record = Record {
            mesh: canary_core::MeshName::default(),
            name: "owl".parse().unwrap(),
            target: "owl:1".parse().unwrap(),
            labels: canary_core::Labels::default(),
            incarnation: canary_core::Incarnation(1),
            instance: Instance(1),
        };
        // A driver that takes one request and answers none.
        let me = Arc::new(record);
        let identity = Identity { me: Arc::clone(&me), introduction: me };
        let ((_me, me), (driver, _arrivals)) = (watch::channel(identity), mpsc::channel(1));
        let core = canary_core::Core::new(
            canary_core::Config::default(),
            "owl".parse().unwrap(),
            "owl:1".parse().unwrap(),
            canary_core::Labels::default(),
            1,
            crate::clock::now(),
        );
        let (_snapshots, snapshot) = watch::channel(Arc::new(core.snapshot(crate::clock::now())));
        let service = MeshService::new(me, snapshot, driver, Arc::default(), Arc::default());
        let ask = || {
            let message = bytes::Bytes::from_static(&[0, 0, 0, 0, 9, 9, 1, 0, 0, 0, 0, 0, 0, 0]);
            let request = http::Request::post("http://owl/mesh.v2.MeshService/IndirectProbe")
                .header("content-type", "application/grpc");
            let request = request.body(http_body_util::Full::new(message)).unwrap();
            tower_service::Service::call(&mut Arc::clone(&service).into_service(), request)
        };
        let waiting = tokio::spawn(ask());
        tokio::task::yield_now().await;
        let answer = ask().await.unwrap();
        service.note(&answer);
        assert_eq!(answer.headers()["grpc-status"], "8");
        assert_eq!(service.refused(), Refused { busy: 1, ..Refused::default() });
        waiting.abort();
    }
}
