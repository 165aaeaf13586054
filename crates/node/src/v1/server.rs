//! `mesh.v1`: what guests call. Everything is answered at once from what is known; what it leads to is the bridge's.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use buffa_types::google::protobuf::Empty;
use canary_core::{JoinAnswer, NodeName, Response, Snapshot, Target};
use canary_net::{Full, IpNet, Peer, Places};
use connectrpc::{ConnectError, ErrorCode, RequestContext, Response as RpcResponse, ServiceRequest, ServiceResult};
use tokio::sync::{mpsc, watch};

use super::bridge::{Told, let_in};
use super::guest::is_guest;
use super::{samples, speak};
use crate::clock;
use crate::transport::{Arrived, original as pb};

/// How long a joiner waits for its answer, at most: the original gives up after three seconds.
const JOIN_TIME: Duration = Duration::from_millis(1800);
/// Pushes that are under way or waiting at once, in all and of one address: each may be four megabytes. Further ones are told to come again.
const PUSHES_MAX: (usize, usize) = (8, 2);

/// The one method with long messages.
pub(crate) const PUSH_PATH: &str = "/mesh.v1.MeshService/PushSamples";
/// Largest message of any other in bytes.
pub(crate) const SHORT_BYTES_MAX: usize = 64 * 1024;

/// Answers guests.
#[derive(Debug)]
pub(crate) struct GuestService {
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(crate) told: mpsc::Sender<Told>,
    pub(crate) driver: mpsc::Sender<Arrived>,
    pub(crate) probe_timeout: Duration,
    pushes: Arc<Places>,
}

/// What a push holds from its head until its samples are taken in.
pub(crate) type Place = canary_net::Place;

impl GuestService {
    pub(crate) fn new(
        snapshot: watch::Receiver<Arc<Snapshot>>,
        told: mpsc::Sender<Told>,
        driver: mpsc::Sender<Arrived>,
        probe_timeout: Duration,
        proxies: Arc<[IpNet]>,
    ) -> Arc<Self> {
        let pushes = Places::new(PUSHES_MAX.0, PUSHES_MAX.1, proxies);
        Arc::new(Self { snapshot, told, driver, probe_timeout, pushes })
    }

    /// Gives a request whose body may be long its place; an error if there is none.
    pub(crate) fn place<B>(&self, request: &mut http::Request<B>) -> Result<(), Full> {
        if request.uri().path() == PUSH_PATH {
            let address = request.extensions().get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
            let place = self.pushes.take(address)?;
            request.extensions_mut().insert(Arc::new(place));
        }
        Ok(())
    }

    fn tell(&self, told: Told) -> Result<(), ConnectError> {
        self.told.try_send(told).map_err(|_| ConnectError::new(ErrorCode::ResourceExhausted, "too much to do; come again later"))
    }
}

fn read(node: &pb::Node) -> Result<(NodeName, Target), ConnectError> {
    let malformed = |why: String| ConnectError::new(ErrorCode::InvalidArgument, format!("the message is malformed: {why}"));
    let name = node.name.parse().map_err(|error: canary_core::NameError| malformed(error.to_string()))?;
    let target = node.target.parse().map_err(|error: canary_core::TargetError| malformed(error.to_string()))?;
    Ok((name, target))
}

fn empty() -> ServiceResult<Empty> {
    RpcResponse::ok(Empty::default())
}

#[expect(refining_impl_trait, reason = "the handlers name what they return")]
impl pb::MeshService for GuestService {
    async fn join_mesh(&self, _ctx: RequestContext, request: ServiceRequest<'_, pb::Node>) -> ServiceResult<pb::JoinMeshResponse> {
        let (name, target) = read(&request.to_owned_message())?;
        let snapshot = Arc::clone(&self.snapshot.borrow());
        if name == snapshot.me.name {
            return RpcResponse::ok(pb::JoinMeshResponse::default());
        }
        let answer = tokio::time::timeout(JOIN_TIME, let_in(&self.driver, &snapshot, &name, &target)).await;
        match answer.ok().flatten() {
            Some(Response::Join(JoinAnswer::NameTaken(holder))) if !is_guest(&holder) => {
                return RpcResponse::ok(pb::JoinMeshResponse::default());
            }
            Some(Response::Join(JoinAnswer::Yourself)) => return RpcResponse::ok(pb::JoinMeshResponse::default()),
            // A guest that is known by another address, as behind a Service, asks its own name of itself: it would end if it were told so.
            Some(Response::Join(JoinAnswer::NameTaken(_) | JoinAnswer::Admitted(_))) => self.tell(Told::Joined { name: name.clone() })?,
            // It is looked at again if it could not be reached by now.
            _ => self.tell(Told::Node { name: name.clone(), target })?,
        }
        let others = snapshot.present().filter(|member| member.record.name != name).map(|member| speak::node(&member.record));
        let nodes = std::iter::once(speak::node(&snapshot.me)).chain(others).collect();
        let my_name = snapshot.me.name.as_str().to_owned();
        RpcResponse::ok(pb::JoinMeshResponse { name_unique: true, my_name, nodes, ..Default::default() })
    }

    async fn ping(&self, _ctx: RequestContext, request: ServiceRequest<'_, pb::Node>) -> ServiceResult<Empty> {
        let (name, target) = read(&request.to_owned_message())?;
        self.tell(Told::Node { name, target })?;
        empty()
    }

    async fn node_discovery(&self, _ctx: RequestContext, request: ServiceRequest<'_, pb::NodeDiscoveryRequest>) -> ServiceResult<Empty> {
        let request: pb::NodeDiscoveryRequest = request.to_owned_message();
        // The original says of itself where it listens, which nobody need reach.
        if let Some(node) = request.new_node.into_option() {
            let (name, target) = read(&node)?;
            self.tell(Told::Node { name, target })?;
        }
        empty()
    }

    async fn push_samples(&self, ctx: RequestContext, request: ServiceRequest<'_, pb::Samples>) -> ServiceResult<Empty> {
        let snapshot = Arc::clone(&self.snapshot.borrow());
        let now = clock::now().wall;
        // Two kinds of every pair: more than that is no news.
        let most = 2 * (snapshot.members.len() + 1).pow(2);
        let (mut read, mut refused, mut good) = (Vec::new(), None, false);
        for sample in &request.samples {
            match samples::read(sample, self.probe_timeout, now) {
                Ok(sample) => {
                    good = true;
                    read.extend(sample.filter(|_| read.len() < most).and_then(|sample| sample.of(&snapshot)));
                }
                Err(why) => refused = Some(why),
            }
        }
        // What is good of it is kept: guests pass on what they were told, and one bad sample would silence all others.
        match refused.filter(|_| !good) {
            Some(why) => Err(ConnectError::new(ErrorCode::InvalidArgument, why)),
            None => {
                self.tell(Told::Samples(read, ctx.extensions().get::<Arc<Place>>().cloned()))?;
                empty()
            }
        }
    }

    async fn rtt(&self, _ctx: RequestContext, _request: ServiceRequest<'_, Empty>) -> ServiceResult<Empty> {
        empty()
    }
}
