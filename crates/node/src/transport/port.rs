//! The mesh port: who answers a request, how long that may take, and what its messages may hold.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use canary_net::token::Verdict;
use canary_net::{
    Accepted, Door, Guard, Held, IpNet, Ledger, Metered, Peer, Refusal, Refused, Reply,
};
use connectrpc::{ConnectRpcBody, ConnectRpcService, Dispatcher, Router};
use http::{Response, StatusCode};
use http_body_util::{Either, Empty};
use hyper::body::Body as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use super::flight;
use super::server::{MeshService, QUESTION_BYTES_MAX, beside};
use crate::v1;

/// From the headers of a request to its answer: longer than the driver may take, and than half a
/// megabyte takes on a slow path.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// The mesh port may have one in so many of the descriptors that this process may open: the rest is
/// for the API and for what is dialled.
const MESH_PORT_SHARE: u64 = 2;

type Answer = Response<Held<Either<ConnectRpcBody, Empty<Bytes>>>>;

/// What the mesh port lets strangers hold. A mesh of two thousand may share one edge's address.
fn limits(proxies: Arc<[IpNet]>) -> canary_net::Limits {
    let limits = canary_net::Limits {
        proxies,
        handshakes: 1024,
        handshakes_per_address: 64,
        handshake_time: Duration::from_secs(5),
        connections: 8192,
        connections_per_address: 4096,
        header_bytes: 16 * 1024,
        headers: 64,
        streams: 16,
        header_time: Duration::from_secs(10),
        // Peers close what they have not used for fifty seconds.
        idle_time: Duration::from_secs(60),
        // Every answer has an end, and a connection that asks nothing more has one, too.
        pings: false,
        write_patience: Duration::from_secs(10),
        // Half of the longest message: it comes whole in two round trips.
        window_bytes: 256 * 1024,
        drain_time: Duration::from_millis(500),
        gathered_bytes: canary_net::GATHERED_BYTES,
    };
    limits.fit(canary_net::accept::descriptors_max(), MESH_PORT_SHARE)
}

/// Serves the mesh port until `stop`: our protocol, and with `guests` the original's.
pub(crate) async fn serve(
    listener: TcpListener,
    service: Arc<MeshService>,
    guests: Option<Arc<v1::GuestService>>,
    guard: Guard,
    stats: Arc<canary_net::Stats>,
    stop: CancellationToken,
) {
    let door = Door::Mesh(guard.tls.clone());
    let limits = limits(Arc::clone(&guard.proxies));
    let port = Arc::new(Port {
        ours: Arc::clone(&service).into_service(),
        others: beside(guests.clone()),
        service,
        guests,
        guard,
    });
    let known = Arc::clone(&port);
    let serving = canary_net::accept::serve(
        listener,
        door,
        limits,
        stats,
        stop.clone(),
        Some(Arc::new(move |read: &[u8], turn| known.probed(read, turn))),
        move |request| Arc::clone(&port).answer(request),
    );
    tokio::select! {
        () = stop.cancelled() => {}
        () = serving => {}
    }
}

struct Port<D> {
    service: Arc<MeshService>,
    ours: ConnectRpcService<D>,
    others: ConnectRpcService<Router>,
    guests: Option<Arc<v1::GuestService>>,
    guard: Guard,
}

impl<D: Dispatcher> Port<D> {
    /// The answer to a probe that came in one flight; none to anything else, and to who may not ask.
    fn probed(&self, read: &[u8], turn: usize) -> Option<Reply> {
        let question = flight::Question::read(read, turn)?;
        let tokens = self.guard.tokens.get();
        if !tokens.is_empty() {
            let token = http::HeaderValue::from_bytes(question.token?).ok()?;
            (tokens.judge(Some(&token)) == Verdict::Valid).then_some(())?;
        }
        let bytes = self.service.probed(turn)?;
        Some(Reply { bytes, is_last: turn == flight::LAST_TURN })
    }

    async fn answer(self: Arc<Self>, mut request: Accepted) -> Result<Answer, Infallible> {
        if let Some(refused) = self.refuse(&mut request) {
            return Ok(refused);
        }
        let address = address_of(&request);
        let later = self.service.later(&request);
        let most = MeshService::body_max(request.uri().path());
        let ledger = self.ledger(request.uri().path(), most);
        let charge = ledger.map(|ledger| Arc::new(Mutex::new(ledger.open(address))));
        let refused = Refused::default();
        let ours = request.uri().path().starts_with("/mesh.v2.");
        let request = request.map(|body| Metered::new(body, most, charge.clone(), refused.clone()));
        let answer =
            if ours { self.ours.clone().call(request) } else { self.others.clone().call(request) };
        // Reading the request is in it: a client that sends half a message cannot keep it here.
        let answer = tokio::time::timeout(REQUEST_TIME, answer).await;
        drop(charge);
        let Ok(Ok(response)) = answer else {
            self.service.note_unread();
            return Ok(empty(status(StatusCode::REQUEST_TIMEOUT)));
        };
        if refused.get() == Some(Refusal::Long) {
            self.service.note_unread();
            return Ok(empty(status(StatusCode::PAYLOAD_TOO_LARGE)));
        }
        // What waits to be read counts as what waits to be sent.
        let mut held = ledger.map(|ledger| ledger.open(address));
        let bytes = usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX);
        if refused.get().is_some() || held.as_mut().is_some_and(|held| held.add(bytes).is_err()) {
            self.service.note_overdrawn();
            return Ok(empty(later));
        }
        self.service.note(&response);
        Ok(response.map(|body| Held::new(Either::Left(body), held)))
    }

    /// The answer to a request that nobody looks at; none if somebody does.
    fn refuse(&self, request: &mut Accepted) -> Option<Answer> {
        if let Some(turned_away) = self.service.turn_away(&self.guard, request) {
            return Some(empty(turned_away));
        }
        let full = self.guests.as_ref().is_some_and(|guests| guests.place(request).is_err());
        full.then(|| empty(self.service.busy(request)))
    }

    /// Where the messages of a request to this path are charged, if they can be long. Pushes of
    /// guests have places of their own, so that a full ledger keeps no probe from its answer.
    fn ledger(&self, path: &str, most: usize) -> Option<&Arc<Ledger>> {
        (path != v1::PUSH_PATH && most > QUESTION_BYTES_MAX).then_some(&self.service.ledger)
    }
}

fn address_of(request: &Accepted) -> IpAddr {
    request.extensions().get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip())
}

fn status(code: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = code;
    response
}

fn empty(response: Response<Empty<Bytes>>) -> Answer {
    response.map(|empty| Held::new(Either::Right(empty), None))
}
