//! `mesh.v1`: what guests call. Everything is answered at once from what is known; what it leads to is the bridge's.

use std::sync::Arc;
use std::time::Duration;

use buffa_types::google::protobuf::Empty;
use canary_core::{JoinAnswer, NodeName, Response, Snapshot, Target};
use connectrpc::{ConnectError, ErrorCode, RequestContext, Response as RpcResponse, ServiceRequest, ServiceResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::bridge::{Told, let_in};
use super::{Guests, samples, speak};
use crate::clock;
use crate::transport::{Arrived, original as pb};

/// How long a joiner waits for its answer, at most: the original gives up after three seconds.
const JOIN_TIME: Duration = Duration::from_millis(1800);
/// Pushes that are read at once: each may be four megabytes. Further ones are told to come again.
const PUSHES_MAX: usize = 16;

/// The one method with long messages.
pub(crate) const PUSH_PATH: &str = "/mesh.v1.MeshService/PushSamples";
/// Largest message of any other in bytes.
pub(crate) const SHORT_BYTES_MAX: usize = 64 * 1024;

/// Answers guests.
#[derive(Debug)]
pub(crate) struct GuestService {
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(crate) guests: Arc<Guests>,
    pub(crate) told: mpsc::Sender<Told>,
    pub(crate) driver: mpsc::Sender<Arrived>,
    pub(crate) probe_timeout: Duration,
    pushes: Arc<Semaphore>,
}

impl GuestService {
    pub(crate) fn new(
        snapshot: watch::Receiver<Arc<Snapshot>>,
        guests: Arc<Guests>,
        told: mpsc::Sender<Told>,
        driver: mpsc::Sender<Arrived>,
        probe_timeout: Duration,
    ) -> Arc<Self> {
        Arc::new(Self { snapshot, guests, told, driver, probe_timeout, pushes: Arc::new(Semaphore::new(PUSHES_MAX)) })
    }

    /// A place for a request whose body may be long, to be held until it is answered; an error if there is none.
    pub(crate) fn place(&self, path: &str) -> Result<Option<OwnedSemaphorePermit>, tokio::sync::TryAcquireError> {
        if path != PUSH_PATH {
            return Ok(None);
        }
        Arc::clone(&self.pushes).try_acquire_owned().map(Some)
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
        self.tell(Told::Joined { name: name.clone() })?;
        let answer = tokio::time::timeout(JOIN_TIME, let_in(&self.driver, &self.guests, &snapshot, &name, &target)).await;
        if matches!(answer, Ok(Some(Response::Join(JoinAnswer::NameTaken(_) | JoinAnswer::Yourself)))) {
            return RpcResponse::ok(pb::JoinMeshResponse::default());
        }
        // It is looked at again if it could not be reached by now.
        self.tell(Told::Node { name: name.clone(), target })?;
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
        for node in [request.new_node.into_option(), request.i_am_node.into_option()].into_iter().flatten() {
            let (name, target) = read(&node)?;
            self.tell(Told::Node { name, target })?;
        }
        empty()
    }

    async fn push_samples(&self, _ctx: RequestContext, request: ServiceRequest<'_, pb::Samples>) -> ServiceResult<Empty> {
        let samples: pb::Samples = request.to_owned_message();
        let (mut read, mut refused) = (Vec::with_capacity(samples.samples.len()), None);
        for sample in &samples.samples {
            match samples::read(sample, self.probe_timeout, clock::now().wall) {
                Ok(sample) => read.extend(sample),
                Err(why) => refused = Some(why),
            }
        }
        // What is good of it is kept: guests pass on what they were told, and one bad sample would silence all others.
        match refused.filter(|_| read.is_empty()) {
            Some(why) => Err(ConnectError::new(ErrorCode::InvalidArgument, why)),
            None => {
                self.tell(Told::Samples(read))?;
                empty()
            }
        }
    }

    async fn rtt(&self, _ctx: RequestContext, _request: ServiceRequest<'_, Empty>) -> ServiceResult<Empty> {
        empty()
    }
}
