//! `mesh.v1`: what guests call. Everything is answered at once from what is known; what it leads to
//! is the bridge's.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use buffa_types::google::protobuf::Empty;
use canary_core::{NodeName, Record, Request, Response, Target};
use canary_guests::{Sign, Told, is_guest};
use canary_net::tls::PeerNames;
use canary_net::{Full, IpNet, Ledger, Peer};
use connectrpc::{
    ConnectError, ErrorCode, RequestContext, Response as RpcResponse, ServiceRequest, ServiceResult,
};
use tokio::sync::Semaphore;

use super::heard::{Heard, Place};
use super::network::{Network, node};
use super::samples;
use crate::clock;
use crate::transport::original as pb;

/// How long the holder of a joiner's name has for its answer: the original gives up after three
/// seconds.
const JOIN_TIME: Duration = Duration::from_millis(1500);
/// Holders of names that are asked at once.
const INCUMBENTS_ASKED_MAX: usize = 16;
/// Pushes that are under way or waiting at once, in all and of one address: each may be four
/// megabytes. Further ones have to come again.
const PUSHES_MAX: (usize, usize) = (8, 2);

/// The one method with long messages.
pub(crate) const PUSH_PATH: &str = "/mesh.v1.MeshService/PushSamples";
/// Largest message of any other in bytes.
pub(crate) const SHORT_BYTES_MAX: usize = 64 * 1024;

/// Answers guests.
#[derive(Debug)]
pub(crate) struct GuestService {
    network: Network,
    pushes: Arc<Ledger>,
    incumbents: Semaphore,
}

impl GuestService {
    pub(crate) fn new(network: Network, proxies: Arc<[IpNet]>) -> Arc<Self> {
        let pushes = Ledger::new(PUSHES_MAX.0, PUSHES_MAX.1, proxies);
        Arc::new(Self { network, pushes, incumbents: Semaphore::new(INCUMBENTS_ASKED_MAX) })
    }

    /// Gives a request whose body may be long its place; an error if there is none.
    pub(crate) fn place<B>(&self, request: &mut http::Request<B>) -> Result<(), Full> {
        if request.uri().path() == PUSH_PATH {
            let address = request
                .extensions()
                .get::<Peer>()
                .map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
            let place = self.pushes.take(address)?;
            request.extensions_mut().insert(Arc::new(place));
        }
        Ok(())
    }

    fn tell(&self, heard: Heard) -> Result<(), ConnectError> {
        self.network.told.try_send(heard).map_err(|_| busy())
    }

    fn tell_of(
        &self,
        ctx: &RequestContext,
        (name, target): (NodeName, Target),
        sign: Sign,
    ) -> Result<(), ConnectError> {
        // A peer with a certificate speaks only as the node that it names, here as in our own
        // protocol.
        if ctx
            .extensions()
            .get::<PeerNames>()
            .is_some_and(|names| !names.cover(name.as_str()) && !names.cover(target.host()))
        {
            return Err(ConnectError::new(
                ErrorCode::PermissionDenied,
                "the certificate names neither the node nor the host of its target",
            ));
        }
        self.tell((Told::Node { name, target, sign, teller: teller(ctx) }, None))
    }

    /// Whether one of ours answers at its target.
    async fn lives(&self, incumbent: &Record) -> Result<bool, ConnectError> {
        let _turn = self.incumbents.try_acquire().map_err(|_| busy())?;
        let asking = self.network.links.ask_ours(&incumbent.target, Request::Identify);
        let answer = tokio::time::timeout(JOIN_TIME, asking).await;
        Ok(matches!(answer, Ok(Ok(Response::Identify(record))) if record.name == incumbent.name))
    }
}

fn busy() -> ConnectError {
    ConnectError::new(ErrorCode::ResourceExhausted, "too much to do; come again later")
}

/// Who reports, as far as it can be distinguished from others: the network of its address.
fn teller(ctx: &RequestContext) -> Arc<str> {
    let network = ctx.extensions().get::<Peer>().map(|peer| match peer.0.ip().to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{:x?}", &address.segments()[..4]),
    });
    network.unwrap_or_default().into()
}

fn read(node: &pb::Node) -> Result<(NodeName, Target), ConnectError> {
    let malformed = |why: String| {
        ConnectError::new(ErrorCode::InvalidArgument, format!("the message is malformed: {why}"))
    };
    let name =
        node.name.parse().map_err(|error: canary_core::NameError| malformed(error.to_string()))?;
    let target = node
        .target
        .parse()
        .map_err(|error: canary_core::TargetError| malformed(error.to_string()))?;
    Ok((name, target))
}

fn empty() -> ServiceResult<Empty> {
    RpcResponse::ok(Empty::default())
}

#[expect(refining_impl_trait, reason = "the handlers name what they return")]
impl pb::MeshService for GuestService {
    async fn join_mesh(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, pb::Node>,
    ) -> ServiceResult<pb::JoinMeshResponse> {
        let (name, target) = read(&request.to_owned_message())?;
        let snapshot = self.network.snapshot();
        if snapshot.name_conflict().is_some() {
            // A bot that yields its name does not use it.
            return Err(busy());
        }
        let my_name = snapshot.me.name.as_str().to_owned();
        let incumbent = snapshot
            .member(&name)
            .filter(|held| held.status.is_present() && held.record.target != target);
        // A guest that is known by another address, as behind a Service, would end if it were told
        // that its name is held.
        let is_held = match incumbent.filter(|held| !is_guest(&held.record)) {
            Some(held) => self.lives(&held.record).await?,
            None => name == snapshot.me.name,
        };
        if is_held {
            return RpcResponse::ok(pb::JoinMeshResponse { my_name, ..Default::default() });
        }
        // The joiner itself is not asked anything before it has its answer.
        self.tell_of(&ctx, (name.clone(), target), Sign::Joins)?;
        let others = snapshot
            .present()
            .filter(|member| member.record.name != name)
            .map(|member| node(&member.record));
        let nodes = std::iter::once(node(&snapshot.me)).chain(others).collect();
        RpcResponse::ok(pb::JoinMeshResponse {
            name_unique: true,
            my_name,
            nodes,
            ..Default::default()
        })
    }

    async fn ping(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, pb::Node>,
    ) -> ServiceResult<Empty> {
        self.tell_of(&ctx, read(&request.to_owned_message())?, Sign::Pings)?;
        empty()
    }

    async fn node_discovery(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, pb::NodeDiscoveryRequest>,
    ) -> ServiceResult<Empty> {
        let request: pb::NodeDiscoveryRequest = request.to_owned_message();
        // The original says of itself where it listens, which nobody need reach.
        if let Some(node) = request.new_node.into_option() {
            self.tell_of(&ctx, read(&node)?, Sign::Hearsay)?;
        }
        empty()
    }

    async fn push_samples(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, pb::Samples>,
    ) -> ServiceResult<Empty> {
        let snapshot = self.network.snapshot();
        let now = clock::now().wall;
        // Two kinds of every pair: more than that is no news.
        let most = 2 * (snapshot.members.len() + 1).pow(2);
        let (mut read, mut refused, mut good) = (Vec::new(), None, false);
        for sample in &request.samples {
            match samples::read(sample, self.network.probe_timeout, now) {
                Ok(sample) => {
                    good = true;
                    read.extend(
                        sample
                            .filter(|_| read.len() < most)
                            .and_then(|sample| sample.of(&snapshot)),
                    );
                }
                Err(why) => refused = Some(why),
            }
        }
        // What is good of it is kept: guests pass on what they were told, and one bad sample would
        // silence all others.
        match refused.filter(|_| !good) {
            Some(why) => Err(ConnectError::new(ErrorCode::InvalidArgument, why)),
            None => {
                let place = ctx.extensions().get::<Arc<Place>>().cloned();
                self.tell((Told::Samples(read), place))?;
                empty()
            }
        }
    }

    async fn rtt(
        &self,
        _ctx: RequestContext,
        _request: ServiceRequest<'_, Empty>,
    ) -> ServiceResult<Empty> {
        empty()
    }
}
