//! Plays a guest's part of `mesh.v2` for the core, after asking the guest itself.

use std::sync::Arc;
use std::time::Duration;

use canary_core::limits::{HEARD_PER_INTRODUCER_MAX, INCARNATION_MAX, INCARNATION_ROOM};
use canary_core::{Answer, CallError, Entry, Exchange, Failure, JoinAnswer, NodeName, Record, Request, Response, Snapshot, Target};
use tokio::sync::{Semaphore, mpsc, watch};

use super::bridge::{PATIENCE, Sign, Told};
use super::guest::{Who, is_guest, record_for};
use super::{Guests, Protocol};
use crate::transport::{Links, original as pb};

/// Guests that are asked who they are at once: each may answer with half a megabyte.
const ASKED_AT_ONCE: usize = 16;
/// How long a connection to a guest has been there before it is asked to let us in: one that started just now may wait for an answer to its own
/// joining, and never wakes if it is asked before that.
const SETTLED: Duration = Duration::from_secs(10);
/// A heartbeat beyond this was never made by a host: nothing could advance it.
const HEARTBEAT_MAX: u64 = 1 << 62;

/// What a call to a guest may need beside the guest.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    links: Arc<Links>,
    guests: Arc<Guests>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    told: mpsc::Sender<Told>,
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
        told: mpsc::Sender<Told>,
        protocol: Protocol,
        probe_timeout: Duration,
    ) -> Self {
        let asking = Arc::new(Semaphore::new(ASKED_AT_ONCE));
        Self { links, guests: Arc::default(), snapshot, told, protocol, probe_timeout, asking }
    }

    pub(super) fn links(&self) -> &Arc<Links> {
        &self.links
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Has the bridge hear something; whether there is room for it.
    pub(super) fn tell(&self, told: Told) -> bool {
        self.told.try_send(told).is_ok()
    }

    /// Asks who is at an address, in our protocol first: who was a guest may be one of ours by now.
    pub(super) async fn find(&self, target: &Target) -> Result<Found, CallError> {
        if self.protocol == Protocol::Auto {
            match self.links.ask_ours(target, Request::Identify).await {
                Ok(Response::Identify(record)) => {
                    self.guests.found(target, Who::Ours(Arc::clone(&record)));
                    return Ok(Found::Ours(record));
                }
                Ok(Response::Busy) => return Ok(Found::Busy),
                Ok(_) => return Err(failed(target, "it answers something else than was asked")),
                Err(error) if error.unimplemented => {}
                Err(error) => return Err(error.call),
            }
        }
        Ok(Found::Guest(self.join(target).await?))
    }

    /// Joins at a guest, which tells its name and whom it knows; no name where it holds ours to be another's.
    pub(super) async fn join(&self, target: &Target) -> Result<Option<NodeName>, CallError> {
        let _turn = self.asking.acquire().await.map_err(|_| failed(target, "this bot is leaving"))?;
        let client = self.links.original(target).await?;
        let me = node(&self.snapshot().me);
        let answer = client.join_mesh(me).await.map_err(|error| self.links.explain(target, &error))?.into_owned();
        let teller: Arc<str> = target.host().into();
        for (name, target) in told_of(answer.nodes) {
            // What does not fit is reported again.
            self.tell(Told::Node { name, target, sign: Sign::Hearsay, teller: Arc::clone(&teller) });
        }
        if !answer.name_unique && answer.my_name.is_empty() {
            return Ok(None);
        }
        let name: NodeName = answer.my_name.parse().map_err(|_| failed(target, "its name is not valid"))?;
        self.guests.found(target, Who::Guest(name.clone()));
        Ok(Some(name))
    }

    /// The last known node at an address. If that is some time ago, it is refreshed in the background: a node that is slow to answer this may
    /// answer everything else.
    fn at(&self, target: &Target) -> Option<Who> {
        // A bot that yields its name does not use it.
        if self.snapshot().name_conflict().is_none() && self.guests.ask_again(target) {
            let (context, target) = (self.clone(), target.clone());
            tokio::spawn(async move {
                if context.settled(&target).await {
                    let _ = tokio::time::timeout(PATIENCE, context.find(&target)).await;
                }
            });
        }
        self.guests.at(target)
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
        match self.at(&guest.target) {
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
        (Request::Identify, guest) => identify(context, guest.map(|(guest, _)| guest), target).await,
        (Request::Exchange(exchange), Some((guest, heartbeat))) => exchange_with(context, &guest, heartbeat, &exchange).await,
        // It cannot try others for us.
        (Request::Ask(_), Some(_)) => Ok(Response::Asked(Answer::Unknown)),
        (request, None) => context.links.ask_ours(target, request).await.map_err(|error| error.call),
    }
}

async fn join(context: &Context, target: &Target, request: Request) -> Result<Response, CallError> {
    if context.protocol == Protocol::Auto {
        match context.links.ask_ours(target, request).await {
            Err(error) if error.unimplemented => {}
            answered => return answered.map_err(|error| error.call),
        }
    }
    let answer = |answer| Ok(Response::Join(answer));
    let Some(name) = context.join(target).await? else {
        let holds = "a bot of the original there holds our name for another target; it forgets that some time after nobody is there";
        return answer(JoinAnswer::Unreachable(holds.to_owned()));
    };
    let snapshot = context.snapshot();
    if name == snapshot.me.name {
        return answer(JoinAnswer::NameTaken(Arc::new(record_for(&name, target, None))));
    }
    let held = snapshot.member(&name);
    match held.filter(|held| held.status.is_present() && held.record.target != *target) {
        // The same one by another address: what is known of it stays.
        Some(held) if is_guest(&held.record) => answer(JoinAnswer::Admitted(Arc::clone(&held.record))),
        Some(held) => answer(JoinAnswer::Unreachable(format!(
            "a bot of the original there has the name of the node {name} at {}",
            held.record.target
        ))),
        None => answer(JoinAnswer::Admitted(Arc::new(record_for(&name, target, held)))),
    }
}

async fn identify(context: &Context, guest: Option<Arc<Record>>, target: &Target) -> Result<Response, CallError> {
    let name = match context.find(target).await? {
        Found::Ours(record) => return Ok(Response::Identify(record)),
        Found::Busy => return Ok(Response::Busy),
        Found::Guest(name) => name.ok_or_else(|| failed(target, "it does not tell its name"))?,
    };
    let snapshot = context.snapshot();
    let held = snapshot.member(&name);
    // Guests have no incarnation, so we choose one. Above what is believed by hearsay it grows by one.
    let most = INCARNATION_MAX + INCARNATION_ROOM;
    let largest = held.map_or(most, |held| held.record.incarnation.next().0.max(most));
    let record = match guest {
        Some(guest) if guest.name == name && guest.target == *target && guest.incarnation.0 <= largest => guest,
        _ => Arc::new(record_for(&name, target, held)),
    };
    Ok(Response::Identify(record))
}

/// Asks a guest whether it is there, and answers as it would: with its next heartbeat.
async fn exchange_with(context: &Context, guest: &Arc<Record>, heartbeat: u64, asked: &Exchange) -> Result<Response, CallError> {
    let target = &guest.target;
    match context.at(target) {
        Some(Who::Ours(record)) => return Ok(Response::NotMe(record)),
        Some(Who::Guest(name)) if name != guest.name => {
            return Err(CallError { failure: Failure::Identity, detail: format!("{target}: it is {name} by now") });
        }
        Some(Who::Guest(_)) | None => {}
    }
    let client = context.links.original(target).await?;
    client.ping(node(&context.snapshot().me)).await.map_err(|error| context.links.explain(target, &error))?;
    if heartbeat >= HEARTBEAT_MAX {
        // Somebody told a lie of it that it cannot refute itself.
        context.tell(Told::Spoiled(Arc::clone(guest)));
    }
    let heartbeat = heartbeat.saturating_add(1);
    let entry = Entry { instance: guest.instance, version: 0, heartbeat, age: Duration::ZERO, left: false };
    Ok(Response::Exchange(Box::new(Exchange { from: Some(guest.instance), to: asked.from, entries: vec![entry], ..Exchange::default() })))
}

/// Whom a guest tells of, as far as it can be.
pub(super) fn told_of(nodes: Vec<pb::Node>) -> impl Iterator<Item = (NodeName, Target)> {
    nodes.into_iter().take(HEARD_PER_INTRODUCER_MAX).filter_map(|node| Some((node.name.parse().ok()?, node.target.parse().ok()?)))
}

pub(super) fn node(record: &Record) -> pb::Node {
    pb::Node { name: record.name.as_str().to_owned(), target: record.target.to_string(), ..Default::default() }
}

fn failed(target: &Target, why: &str) -> CallError {
    CallError { failure: Failure::Protocol, detail: format!("{target}: {why}") }
}
