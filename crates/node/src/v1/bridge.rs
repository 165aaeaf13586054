//! Carries out what this bot does for guests.

use std::sync::Arc;

use canary_core::{JoinAnswer, NodeName, Request, Response, Snapshot, Target};
use canary_guests::{Done, Hosting, JOIN_TIMEOUT, Joined, LOOK, Looked, Order, record, record_for};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::heard::Heard;
use super::samples::pages;
use super::speak::{Context, Found, PATIENCE};
use super::tell::{pushed, tell};
use crate::clock;
use crate::parts::Command;
use crate::transport::Arrived;

/// What waits for the bridge. A push counts as one, and holds its place until it is done.
pub(crate) const TOLD_WAITING_MAX: usize = 4096;

/// The task that cares for guests.
#[derive(Debug)]
pub(crate) struct Bridge {
    context: Context,
    driver: mpsc::Sender<Arrived>,
    commands: mpsc::Sender<Command>,
    told: mpsc::Receiver<Heard>,
    hosting: Hosting,
}

impl Bridge {
    pub(crate) fn new(
        context: Context,
        driver: mpsc::Sender<Arrived>,
        commands: mpsc::Sender<Command>,
        told: mpsc::Receiver<Heard>,
    ) -> Self {
        let joins = Arc::clone(&context.joins);
        let hosting = Hosting::new(joins, context.probe_timeout, clock::now().time);
        Self { context, driver, commands, told, hosting }
    }

    /// Runs until nobody can tell anything any more.
    pub(crate) async fn run(mut self) {
        let mut tasks = JoinSet::new();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                told = self.told.recv() => {
                    let Some((told, _place)) = told else { return };
                    self.hosting.handle_told(told, &self.context.snapshot(), clock::now().time);
                }
                Some(done) = tasks.join_next() => if let Ok(Some(done)) = done {
                    self.hosting.handle_done(done, &self.context.snapshot(), clock::now().time);
                },
                _ = look.tick() => {
                    self.hosting.handle_timeout(&self.context.snapshot(), clock::now().time);
                }
            }
            while let Some(order) = self.hosting.poll_order() {
                self.carry_out(order, &mut tasks).await;
            }
        }
    }

    async fn carry_out(&mut self, order: Order, tasks: &mut JoinSet<Option<Done>>) {
        let (context, driver) = (self.context.clone(), self.driver.clone());
        match order {
            Order::Look { name, target } => drop(tasks.spawn(async move {
                let finding = find(&context, &driver, &name, &target);
                let found = tokio::time::timeout(PATIENCE, finding).await;
                Some(Done::Looked(name, found.unwrap_or(Looked::Failed)))
            })),
            Order::AskAgain(target) => drop(tasks.spawn(async move {
                let _ = context.find(&target, None).await;
                None
            })),
            // One after the other: a roster is taken once a row waits for it.
            Order::Gossip(exchange) => drop(ask(&driver, Request::Exchange(exchange)).await),
            Order::Renew(next) => drop(tasks.spawn(async move {
                ask(&driver, Request::Join(next)).await;
                None
            })),
            Order::Push { guest, discover, mut informed } => {
                let snapshot = self.context.snapshot();
                drop(tasks.spawn(async move {
                    let target = &guest.target;
                    // What it answers is heard by way of the context.
                    let answers = if discover {
                        let joined = context.join(target, JOIN_TIMEOUT).await;
                        matches!(joined, Ok(Joined::As(_) | Joined::Unnamed))
                    } else {
                        !context.waits(&snapshot, target)
                    };
                    if answers && discover {
                        informed.let_us_in();
                    }
                    if answers {
                        tell(context.links(), &snapshot, &guest, &mut informed).await;
                    }
                    Some(Done::Pushed(guest, informed))
                }));
            }
            Order::Forward { host, samples } => drop(tasks.spawn(async move {
                for page in pages(&samples) {
                    if !pushed(context.links(), &host, page).await {
                        break;
                    }
                }
                Some(Done::Forwarded(host))
            })),
            Order::Pending(pending) => {
                if self.commands.try_send(Command::Pending(pending)).is_err() {
                    let snapshot = self.context.snapshot();
                    self.hosting.handle_done(Done::Untold, &snapshot, clock::now().time);
                }
            }
        }
    }
}

/// Asks our own core as if a peer did.
async fn ask(driver: &mpsc::Sender<Arrived>, request: Request) -> Option<Response> {
    let (reply, answer) = oneshot::channel();
    // Peers wait for no place there, and neither do we.
    driver.try_send(Arrived { request, names: None, reply }).ok()?;
    answer.await.ok()?.ok()
}

/// Has the core admit a guest: it dials back, as it does with every joiner.
async fn let_in(
    driver: &mpsc::Sender<Arrived>,
    snapshot: &Snapshot,
    name: &NodeName,
    target: &Target,
) -> Option<Response> {
    let joiner = record_for(name, target, snapshot.member(name));
    match ask(driver, Request::Join(Arc::new(joiner))).await {
        // A goodbye or a larger incarnation was reported in between.
        Some(Response::Join(JoinAnswer::Outdated(held))) => {
            ask(driver, Request::Join(Arc::new(record(name, target, held.next())))).await
        }
        answer => answer,
    }
}

/// Finds out which protocol a reported node speaks, and has it admitted.
async fn find(
    context: &Context,
    driver: &mpsc::Sender<Arrived>,
    name: &NodeName,
    target: &Target,
) -> Looked {
    let answer = match context.find(target, Some(name)).await {
        // One of ours: gossip will bring it, or this is how islands meet.
        Ok(Found::Ours(record)) => ask(driver, Request::Join(record)).await,
        Ok(Found::Guest(Some(other))) if other != *name => return Looked::Another(other),
        Ok(Found::Guest(_)) => let_in(driver, &context.snapshot(), name, target).await,
        Ok(Found::Busy) | Err(_) => None,
    };
    match answer {
        // Where the name is held by a living one there is nothing to find out.
        Some(Response::Join(
            JoinAnswer::Admitted(_) | JoinAnswer::Yourself | JoinAnswer::NameTaken(_),
        )) => Looked::Settled,
        _ => Looked::Failed,
    }
}
