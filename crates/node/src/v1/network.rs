//! Calls of `mesh.v1`, and what else a host needs of the world.

use std::sync::Arc;
use std::time::Duration;

use buffa_types::google::protobuf::Empty;
use canary_core::limits::HEARD_PER_INTRODUCER_MAX;
use canary_core::{
    CallError, Failure, NodeName, PendingJoin, Record, Request, Response, Snapshot, Target, Time,
};
use canary_guests::{Admission, PATIENCE, Sample, Told, Unanswered};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::heard::Heard;
use super::samples::pages;
use crate::clock;
use crate::parts::Command;
use crate::transport::{Arrived, Link, Links, original as pb};

/// A host on real sockets.
pub(crate) type Host = canary_guests::Host<Network>;

/// What a host needs of this bot.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) links: Arc<Links>,
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(crate) told: mpsc::Sender<Heard>,
    pub(crate) driver: mpsc::Sender<Arrived>,
    pub(crate) commands: mpsc::Sender<Command>,
    /// No reported latency is above it.
    pub(crate) probe_timeout: Duration,
}

impl Network {
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    fn me(&self) -> pb::Node {
        node(&self.snapshot.borrow().me)
    }
}

/// Calls methods of `mesh.v1` on one connection.
type Client = pb::MeshServiceClient<Link>;

impl canary_guests::Network for Network {
    type Connection = Client;

    fn now(&self) -> Time {
        clock::now().time
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot()
    }

    fn tell(&self, told: Told) -> bool {
        self.told.try_send((told, None)).is_ok()
    }

    fn publish(&self, pending: Vec<PendingJoin>) -> bool {
        self.commands.try_send(Command::Pending(pending)).is_ok()
    }

    fn found_stuck(&self, target: &Target, guest: Option<&NodeName>, is_stuck: bool) {
        let node = guest.map_or("unknown", NodeName::as_str);
        if is_stuck {
            let what = "a bot of the original answers, but its own loops are stuck: it measures nothing and admits nobody; restart it";
            warn!(%target, node, "{what}");
        } else {
            info!(%target, node, "a bot of the original admits others again");
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(task));
    }

    async fn sleep(&self, pause: Duration) {
        tokio::time::sleep(pause).await;
    }

    async fn ask_core(&self, request: Request) -> Option<Response> {
        let (reply, answer) = oneshot::channel();
        // Peers wait for no place there, and neither do we.
        self.driver.try_send(Arrived { request, names: None, reply }).ok()?;
        answer.await.ok()?.ok()
    }

    async fn ask_ours(&self, target: &Target, request: Request) -> Result<Response, Unanswered> {
        self.links.ask_ours(target, request).await
    }

    async fn connect(&self, target: &Target) -> Result<Client, CallError> {
        self.links.original(target).await
    }

    async fn settles(&self, target: &Target, pause: Duration) -> bool {
        let connected = tokio::time::timeout(PATIENCE, self.links.original(target)).await;
        if !matches!(connected, Ok(Ok(_))) {
            return false;
        }
        let Some(since) = self.links.warm_since(target) else { return false };
        tokio::time::sleep(pause.saturating_sub(since.elapsed())).await;
        self.links.warm_since(target) == Some(since)
    }

    async fn join(&self, client: Client, target: &Target) -> Result<Admission, CallError> {
        let answer = client.join_mesh(self.me()).await;
        let answer = answer.map_err(|error| self.links.explain(target, &error))?.into_owned();
        let nodes = told_of(answer.nodes).collect();
        Ok(Admission { is_unique: answer.name_unique, name: answer.my_name, nodes })
    }

    async fn ping(&self, target: &Target) -> Result<(), CallError> {
        let client = self.links.original(target).await?;
        let answer = client.ping(self.me()).await;
        answer.map(drop).map_err(|error| self.links.explain(target, &error))
    }

    async fn rtt(&self, target: &Target) -> Result<(), CallError> {
        let client = self.links.original(target).await?;
        let answer = client.rtt(Empty::default()).await;
        answer.map(drop).map_err(|error| self.links.explain(target, &error))
    }

    async fn discover(&self, target: &Target, member: &Record) -> Result<(), CallError> {
        let news = pb::NodeDiscoveryRequest {
            new_node: Some(node(member)).into(),
            i_am_node: Some(self.me()).into(),
            ..Default::default()
        };
        let client = self.links.original(target).await?;
        let answer = client.node_discovery(news).await;
        answer.map(drop).map_err(|error| self.links.explain(target, &error))
    }

    async fn push(&self, target: &Target, samples: &[Sample]) -> Result<(), CallError> {
        for page in pages(samples) {
            let pushing = async {
                let answer = self.links.original(target).await?.push_samples(page).await;
                answer.map(drop).map_err(|error| self.links.explain(target, &error))
            };
            tokio::time::timeout(PATIENCE, pushing).await.unwrap_or_else(|_| {
                let detail = format!("{target} did not take samples within {PATIENCE:?}");
                Err(CallError { failure: Failure::Timeout, detail })
            })?;
        }
        Ok(())
    }
}

/// The nodes that a guest reports, as far as they can be read.
pub(super) fn told_of(nodes: Vec<pb::Node>) -> impl Iterator<Item = (NodeName, Target)> {
    nodes
        .into_iter()
        .take(HEARD_PER_INTRODUCER_MAX)
        .filter_map(|node| Some((node.name.parse().ok()?, node.target.parse().ok()?)))
}

pub(super) fn node(record: &Record) -> pb::Node {
    pb::Node {
        name: record.name.as_str().to_owned(),
        target: record.target.to_string(),
        ..Default::default()
    }
}
