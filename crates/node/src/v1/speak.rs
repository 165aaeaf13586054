//! Plays a guest's part of `mesh.v2` for the core, after asking the guest itself.

use std::sync::Arc;

use canary_core::{Answer, CallError, Entry, Exchange, Failure, JoinAnswer, NodeName, Record, Request, Response, Snapshot, Target};

use super::bridge::Told;
use super::guest::record_for;
use super::{Guests, Protocol};
use crate::transport::{Links, original as pb};

/// What a call to a guest may need beside the guest.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) links: Arc<Links>,
    pub(crate) guests: Arc<Guests>,
    pub(crate) snapshot: tokio::sync::watch::Receiver<Arc<Snapshot>>,
    pub(crate) told: tokio::sync::mpsc::Sender<Told>,
    pub(crate) protocol: Protocol,
}

/// Asks a peer that is a guest, if `guest` says so, or may turn out to be one.
pub(crate) async fn speak(context: &Context, guest: Option<Arc<Record>>, target: &Target, request: Request) -> Result<Response, CallError> {
    let finding_out = matches!(request, Request::Identify | Request::Join(_));
    if guest.is_none() && !finding_out {
        return context.links.ask_ours(target, request).await.map_err(|error| error.call);
    }
    // Who was a guest may be one of ours by now: whoever asks who it is should hear it.
    if finding_out && context.protocol == Protocol::Auto {
        match context.links.ask_ours(target, request.clone()).await {
            Err(error) if error.unimplemented => {}
            Err(error) => return Err(error.call),
            Ok(response) => return Ok(response),
        }
    }
    let me = Arc::clone(&context.snapshot.borrow().me);
    match request {
        Request::Join(_) => {
            let (name, nodes) = join(context, &me, target).await?;
            tell_of(context, nodes);
            let Some(name) = name else {
                return Ok(Response::Join(JoinAnswer::Unreachable(format!(
                    "a bot of the original there holds the name {} for another target; it forgets that some time after nobody is there",
                    me.name
                ))));
            };
            if name == me.name {
                return Ok(Response::Join(JoinAnswer::NameTaken(Arc::new(record_for(&name, target, None)))));
            }
            let held = context.snapshot.borrow().member(&name).map(|member| Arc::clone(&member.record));
            Ok(Response::Join(JoinAnswer::Admitted(Arc::new(record_for(&name, target, held.as_deref())))))
        }
        Request::Identify => {
            let (name, nodes) = join(context, &me, target).await?;
            tell_of(context, nodes);
            let known = guest.filter(|known| name.as_ref().is_none_or(|name| *name == known.name));
            match (known, name) {
                (Some(known), _) => Ok(Response::Identify(known)),
                (None, Some(name)) => Ok(Response::Identify(Arc::new(record_for(&name, target, None)))),
                (None, None) => Err(failed(target, "it does not tell its name")),
            }
        }
        Request::Exchange(exchange) => {
            let Some(guest) = guest else { return Err(failed(target, "it is no guest")) };
            context.links.original(target).await?.ping(node(&me)).await.map_err(|error| context.links.explain(target, &error))?;
            Ok(Response::Exchange(Box::new(answer_of(context, &guest, &exchange))))
        }
        // It cannot try others for us.
        Request::Ask(_) => Ok(Response::Asked(Answer::Unknown)),
    }
}

/// What a guest that was just reached would answer: that it is there.
fn answer_of(context: &Context, guest: &Record, asked: &Exchange) -> Exchange {
    let heard = asked.entries.iter().find(|entry| entry.instance == guest.instance).map_or(0, |entry| entry.heartbeat);
    let heartbeat = context.guests.beat(guest.instance, heard);
    let entry = Entry { instance: guest.instance, version: 0, heartbeat, age: std::time::Duration::ZERO, left: false };
    Exchange { from: Some(guest.instance), to: asked.from, entries: vec![entry], ..Exchange::default() }
}

/// Joins at a guest: its name, unless it holds ours to be another's, and whom it knows.
async fn join(context: &Context, me: &Record, target: &Target) -> Result<(Option<NodeName>, Vec<pb::Node>), CallError> {
    let client = context.links.original(target).await?;
    let answer = client.join_mesh(node(me)).await.map_err(|error| context.links.explain(target, &error))?.into_owned();
    if !answer.name_unique && answer.my_name.is_empty() {
        return Ok((None, answer.nodes));
    }
    let name = answer.my_name.parse().map_err(|_| failed(target, "its name is not valid"))?;
    Ok((Some(name), answer.nodes))
}

/// Asks a guest whom it knows, and has the bridge hear of them.
pub(super) async fn ask_around(context: &Context, me: &Record, target: &Target) -> Result<(), CallError> {
    let (_, nodes) = join(context, me, target).await?;
    tell_of(context, nodes);
    Ok(())
}

fn tell_of(context: &Context, nodes: Vec<pb::Node>) {
    for node in nodes.into_iter().take(canary_core::limits::HEARD_PER_INTRODUCER_MAX) {
        if let (Ok(name), Ok(target)) = (node.name.parse(), node.target.parse()) {
            // What does not fit is told again.
            let _ = context.told.try_send(Told::Node { name, target });
        }
    }
}

pub(super) fn node(record: &Record) -> pb::Node {
    pb::Node { name: record.name.as_str().to_owned(), target: record.target.to_string(), ..Default::default() }
}

fn failed(target: &Target, why: &str) -> CallError {
    CallError { failure: Failure::Protocol, detail: format!("{target}: {why}") }
}
