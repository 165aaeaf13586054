//! Plays a guest's part of `mesh.v2` for the core, after asking the guest itself.

use std::sync::Arc;
use std::time::Duration;

use buffa_types::google::protobuf::Empty;
use canary_core::limits::HEARD_PER_INTRODUCER_MAX;
use canary_core::{
    Answer, CallError, Exchange, Failure, JoinAnswer, MemberView, NodeName, Record, Request,
    Response, Snapshot, Status, Target,
};
use canary_guests::{
    JOIN_PATIENCE, JOIN_TIMEOUT, Joined, Joins, Sign, Told, Turn, Who, answers, guest_at, is_guest,
    rank,
};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tracing::{info, warn};

use super::Protocol;
use super::heard::Heard;
use crate::clock;
use crate::transport::{Links, original as pb};

/// Guests that are asked who they are at once: each may answer with half a megabyte.
const ASKED_AT_ONCE: usize = 16;
/// How long a connection to a guest has been there before it is asked to admit us: one that
/// started just now may wait for an answer to its own joining, and never wakes if it is asked
/// before that.
const SETTLED: Duration = Duration::from_secs(10);
/// How long one candidate, and one call to a guest, may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// What a call to a guest may need beside the guest.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    links: Arc<Links>,
    pub(super) joins: Arc<Joins>,
    /// A call of `JoinMesh` has ended.
    ended: Arc<Notify>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    told: mpsc::Sender<Heard>,
    protocol: Protocol,
    /// No reported latency is above it.
    pub(super) probe_timeout: Duration,
    asking: Arc<Semaphore>,
}

/// Who is at an address.
pub(super) enum Found {
    /// One of ours.
    Ours(Arc<Record>),
    /// A guest of this name; none if it holds our name for another's, and does not tell.
    Guest(Option<NodeName>),
    /// One of ours that has no time to say who it is.
    Busy,
}

impl Context {
    pub(crate) fn new(
        links: Arc<Links>,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        told: mpsc::Sender<Heard>,
        protocol: Protocol,
        probe_timeout: Duration,
    ) -> Self {
        let asking = Arc::new(Semaphore::new(ASKED_AT_ONCE));
        Self {
            links,
            joins: Arc::default(),
            ended: Arc::default(),
            snapshot,
            told,
            protocol,
            probe_timeout,
            asking,
        }
    }

    pub(super) fn links(&self) -> &Arc<Links> {
        &self.links
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Has the bridge hear something; whether there is room for it.
    pub(super) fn tell(&self, heard: Heard) -> bool {
        self.told.try_send(heard).is_ok()
    }

    /// Asks who is at an address, in our protocol first: who was a guest may be one of ours by now.
    /// A guest that is stuck does not say; others say that it is `expected`.
    pub(super) async fn find(
        &self,
        target: &Target,
        expected: Option<&NodeName>,
    ) -> Result<Found, CallError> {
        if self.protocol == Protocol::Auto {
            match self.links.ask_ours(target, Request::Identify).await {
                Ok(Response::Identify(record)) => {
                    self.joins.found_ours(target, Arc::clone(&record), clock::now().time);
                    return Ok(Found::Ours(record));
                }
                Ok(Response::Busy) => return Ok(Found::Busy),
                Ok(_) => return Err(failed(target, "it answers something else than was asked")),
                Err(error) if error.unimplemented => {}
                Err(error) => {
                    self.joins.missed(target, error.call.failure);
                    return Err(error.call);
                }
            }
        }
        if let Some(name) = self.joins.guest_just_now(target, clock::now().time) {
            return Ok(Found::Guest(Some(name)));
        }
        match (self.join(target, JOIN_PATIENCE).await?, expected) {
            (Joined::As(name), _) => Ok(Found::Guest(Some(name))),
            (Joined::Unnamed, _) => Ok(Found::Guest(None)),
            (Joined::Stuck | Joined::Later, Some(name)) => {
                self.is_there(target).await?;
                // It answers by any name: the first one stays.
                let snapshot = self.snapshot();
                let known = guest_at(&snapshot, target).map(|guest| guest.record.name.clone());
                Ok(Found::Guest(Some(known.unwrap_or_else(|| name.clone()))))
            }
            (Joined::Stuck | Joined::Later, None) => {
                Err(failed(target, "it does not say who it is"))
            }
        }
    }

    /// Has a guest admit this bot, if it may be asked now, and waits so long for what comes of it.
    pub(super) async fn join(
        &self,
        target: &Target,
        patience: Duration,
    ) -> Result<Joined, CallError> {
        let snapshot = self.snapshot();
        let now = clock::now().time;
        match self.joins.turn(target, self.joins.elsewhere(&snapshot, target, now), now) {
            // The caller may have less time than the guest. What came of it is kept.
            Turn::Ask => drop(tokio::spawn({
                let (context, target) = (self.clone(), target.clone());
                async move { context.ask(&target).await }
            })),
            Turn::UnderWay => {}
            Turn::Stuck => return Ok(Joined::Stuck),
            Turn::Elsewhere => return Ok(Joined::Later),
        }
        let outcome = async {
            loop {
                let ended = self.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if let Some(outcome) = self.joins.outcome(target) {
                    return outcome;
                }
                ended.await;
            }
        };
        tokio::time::timeout(patience, outcome).await.unwrap_or(Ok(Joined::Later))
    }

    /// Asks a guest to admit us, and keeps what came of it.
    async fn ask(&self, target: &Target) {
        let outcome = self.ask_now(target).await;
        let snapshot = self.snapshot();
        let node =
            guest_at(&snapshot, target).map_or("unknown", |guest| guest.record.name.as_str());
        let is_stuck = outcome == Ok(Joined::Stuck);
        // One line in the whole mesh is enough.
        let is_known = snapshot.pending().any(|(name, pending)| {
            pending.is_stuck() && pending.target == *target && *name != snapshot.me.name
        });
        if self.joins.ended(target, outcome, clock::now().time) && !is_known {
            if is_stuck {
                let what = "a bot of the original answers, but its own loops are stuck: it measures nothing and admits nobody; restart it";
                warn!(%target, node, "{what}");
            } else {
                info!(%target, node, "a bot of the original admits others again");
            }
        }
        self.ended.notify_waiters();
    }

    /// Asks a guest to admit us. It tells its name, and whom it knows.
    async fn ask_now(&self, target: &Target) -> Result<Joined, CallError> {
        let _turn =
            self.asking.acquire().await.map_err(|_| failed(target, "this bot is leaving"))?;
        let client = in_time(target, PATIENCE, self.links.original(target)).await?;
        let me = node(&self.snapshot().me);
        let Ok(answer) = tokio::time::timeout(JOIN_TIMEOUT, client.join_mesh(me)).await else {
            self.is_there(target).await?;
            let snapshot = self.snapshot();
            return match guest_at(&snapshot, target).is_some_and(|guest| snapshot.measures(guest)) {
                // Its loops run, and it was slow this once.
                true => Err(late(target, JOIN_TIMEOUT)),
                false => Ok(Joined::Stuck),
            };
        };
        let answer = answer.map_err(|error| self.links.explain(target, &error))?.into_owned();
        let teller: Arc<str> = target.host().into();
        for (name, target) in told_of(answer.nodes) {
            // What does not fit is reported again.
            let (sign, teller) = (Sign::Hearsay, Arc::clone(&teller));
            self.tell((Told::Node { name, target, sign, teller }, None));
        }
        if !answer.name_unique && answer.my_name.is_empty() {
            return Ok(Joined::Unnamed);
        }
        Ok(Joined::As(answer.my_name.parse().map_err(|_| failed(target, "its name is not valid"))?))
    }

    /// Whether a bot of the original is there: it answers what it answers even if its loops are
    /// stuck.
    async fn is_there(&self, target: &Target) -> Result<(), CallError> {
        let asked = async {
            let client = self.links.original(target).await?;
            client
                .ping(node(&self.snapshot().me))
                .await
                .map_err(|error| self.links.explain(target, &error))?;
            client
                .rtt(Empty::default())
                .await
                .map_err(|error| self.links.explain(target, &error))?;
            Ok(())
        };
        in_time(target, PATIENCE, asked).await
    }

    /// Whether a guest is known not to answer, or not to have answered yet.
    pub(super) fn waits(&self, snapshot: &Snapshot, target: &Target) -> bool {
        self.joins.waits(snapshot, target, clock::now().time)
    }

    /// The last known node at the address of a guest. One that nobody doubts is who it was: two of
    /// ours ask it all the time. Else it is asked in the background: a node that is slow to answer
    /// this may answer everything else.
    fn at(&self, guest: &Record) -> Option<Who> {
        let (snapshot, target) = (self.snapshot(), &guest.target);
        let is_unsound =
            |member: &MemberView| member.status != Status::Alive || member.record.target != *target;
        let claimed = || {
            snapshot
                .membership()
                .any(|member| member.record.target == *target && member.record.name != guest.name)
        };
        let is_doubted = snapshot.member(&guest.name).is_some_and(is_unsound) || claimed();
        let now = clock::now().time;
        // A bot that yields its name does not use it.
        if snapshot.name_conflict().is_some() {
            return self.joins.at(target, now);
        }
        let (context, at) = (self.clone(), target.clone());
        if is_doubted && self.joins.look_again(target, now) {
            tokio::spawn(async move {
                if context.settled(&at).await {
                    let _ = tokio::time::timeout(PATIENCE, context.find(&at, None)).await;
                }
            });
        } else if !is_doubted
            && self.protocol == Protocol::Auto
            && self.joins.look_seldom(target, now)
        {
            tokio::spawn(async move {
                let asked = context.links.ask_ours(&at, Request::Identify);
                if let Ok(Ok(Response::Identify(record))) =
                    tokio::time::timeout(PATIENCE, asked).await
                {
                    context.joins.found_ours(&at, record, clock::now().time);
                }
            });
        }
        self.joins.at(target, now)
    }

    /// Waits until one connection has stood for some time; whether it does.
    async fn settled(&self, target: &Target) -> bool {
        let dialling = tokio::time::timeout(PATIENCE, self.links.original(target)).await;
        if !matches!(dialling, Ok(Ok(_))) {
            return false;
        }
        let Some(since) = self.links.warm_since(target) else { return false };
        tokio::time::sleep(SETTLED.saturating_sub(since.elapsed())).await;
        self.links.warm_since(target) == Some(since)
    }

    /// Whether another than this guest is known to be at its address by now.
    pub(crate) fn is_another(&self, guest: &Record) -> bool {
        match self.at(guest) {
            Some(Who::Ours(_)) => true,
            Some(Who::Guest(name)) => name != guest.name,
            None => false,
        }
    }
}

/// Asks a peer: `whom` is meant, with its heartbeat as far as it is heard.
pub(crate) async fn speak(
    context: &Context,
    whom: Option<(Arc<Record>, u64)>,
    target: &Target,
    request: Request,
) -> Result<Response, CallError> {
    let guest = whom.filter(|(whom, _)| is_guest(whom));
    match (request, guest) {
        (request @ Request::Join(_), _) => join(context, target, request).await,
        (Request::Identify, guest) => {
            identify(context, guest.map(|(guest, _)| guest), target).await
        }
        (Request::Exchange(exchange), Some((guest, heartbeat))) => {
            exchange_with(context, &guest, heartbeat, &exchange).await
        }
        // It cannot try others for us.
        (Request::Ask(_), Some(_)) => Ok(Response::Asked(Answer::Unknown)),
        (request, None) => {
            context.links.ask_ours(target, request).await.map_err(|error| error.call)
        }
    }
}

async fn join(context: &Context, target: &Target, request: Request) -> Result<Response, CallError> {
    if context.protocol == Protocol::Auto {
        match context.links.ask_ours(target, request).await {
            Err(error) if error.unimplemented => {}
            Err(error) => {
                context.joins.missed(target, error.call.failure);
                return Err(error.call);
            }
            answered => {
                context.joins.forget(target);
                return answered.map_err(|error| error.call);
            }
        }
    }
    let answer = |answer| Ok(Response::Join(answer));
    let snapshot = context.snapshot();
    // Others know it, or it said who it is a moment ago: it is enough that it is there.
    let said = match context.joins.at(target, clock::now().time) {
        Some(Who::Guest(name)) => snapshot.member(&name).filter(|member| is_guest(&member.record)),
        _ => None,
    };
    if let Some(guest) =
        said.or_else(|| guest_at(&snapshot, target)).filter(|guest| guest.status == Status::Alive)
    {
        context.is_there(target).await?;
        return answer(JoinAnswer::Admitted(Arc::clone(&guest.record)));
    }
    // Another of ours waits there: it is said why, and not whose turn it is.
    let now = clock::now().time;
    if context.joins.elsewhere(&snapshot, target, now).is_none()
        && !context.joins.is_turn(target, rank(&snapshot, target), now)
    {
        if context.protocol == Protocol::V1 {
            // Nothing was asked yet: somebody has to be there at all.
            in_time(target, PATIENCE, context.links.original(target)).await?;
        }
        return answer(JoinAnswer::InTurn);
    }
    let name = match context.join(target, JOIN_PATIENCE).await? {
        Joined::As(name) => name,
        Joined::Stuck => return answer(JoinAnswer::Stuck),
        Joined::Later => match context.joins.outcome(target) {
            Some(Err(error)) => return Err(error),
            _ => return answer(JoinAnswer::InTurn),
        },
        Joined::Unnamed => {
            let holds = "a bot of the original there holds our name for another target; it forgets that some time after nobody is there";
            return answer(JoinAnswer::Unreachable(holds.to_owned()));
        }
    };
    answer(answers::let_in(&context.snapshot(), &name, target))
}

async fn identify(
    context: &Context,
    guest: Option<Arc<Record>>,
    target: &Target,
) -> Result<Response, CallError> {
    let expected = guest.as_ref().map(|guest| &guest.name);
    let name = match context.find(target, expected).await? {
        Found::Ours(record) => return Ok(Response::Identify(record)),
        Found::Busy => return Ok(Response::Busy),
        Found::Guest(name) => name.ok_or_else(|| failed(target, "it does not tell its name"))?,
    };
    let record = answers::identified(&context.snapshot(), &name, target, guest);
    Ok(Response::Identify(record))
}

/// Asks a guest whether it is there, and answers as it would: with its next heartbeat.
async fn exchange_with(
    context: &Context,
    guest: &Arc<Record>,
    heartbeat: u64,
    asked: &Exchange,
) -> Result<Response, CallError> {
    let target = &guest.target;
    match context.at(guest) {
        Some(Who::Ours(record)) => return Ok(Response::NotMe(record)),
        Some(Who::Guest(name)) if name != guest.name => {
            return Err(CallError {
                failure: Failure::Identity,
                detail: format!("{target}: it is {name} by now"),
            });
        }
        Some(Who::Guest(_)) | None => {}
    }
    let client = context.links.original(target).await?;
    client
        .ping(node(&context.snapshot().me))
        .await
        .map_err(|error| context.links.explain(target, &error))?;
    if answers::is_spoiled(heartbeat) {
        context.tell((Told::Spoiled(Arc::clone(guest)), None));
    }
    let exchange = answers::sign_of_life(guest, heartbeat, asked.from);
    Ok(Response::Exchange(Box::new(exchange)))
}

/// Whom a guest tells of, as far as it can be.
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

/// What a guest answers within some time.
async fn in_time<T>(
    target: &Target,
    limit: Duration,
    asked: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| Err(late(target, limit)))
}

fn late(target: &Target, limit: Duration) -> CallError {
    CallError {
        failure: Failure::Timeout,
        detail: format!("{target} did not answer within {limit:?}"),
    }
}

fn failed(target: &Target, why: &str) -> CallError {
    CallError { failure: Failure::Protocol, detail: format!("{target}: {why}") }
}
