//! The one task that owns the core: inputs in, outputs carried out, snapshots shown.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    CallError, CallId, Core, Failure, Output, PendingJoin, ProbeId, ProbeReport, Record, Request,
    RequestId, Response, Secured, Snapshot, Target,
};
use canary_net::Guard;
use canary_net::tls::{Facts, PeerNames};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bot::End;
use crate::clock::{self, StallWatch};
use crate::prober::{self, Probed};
use crate::resolve::Resolver;
use crate::traffic::Traffic;
use crate::transport::{Arrived, Impostor, Links, MeshService};
use crate::v1;

/// Snapshots are shown at most so often: what changes in between is in the next one.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(50);
/// And at least so often, so that ages and intervals in it are true.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(1);
/// Inputs taken between two looks at the outputs, so that neither starves the other.
const INPUTS_PER_TURN: usize = 64;
/// How long a certificate that a peer showed is thought of.
const SHOWN_OF_LATE: Duration = Duration::from_secs(300);
/// How often idle connections are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Counters of the shell that the core does not see.
#[derive(Clone, Debug)]
pub struct NodeStats {
    /// Messages and bytes of the mesh.
    pub traffic: Arc<Traffic>,
    /// What the accept loop of the mesh port saw.
    pub port: Arc<canary_net::Stats>,
    pub(crate) service: Arc<MeshService>,
    pub(crate) links: Arc<Links>,
}

impl NodeStats {
    /// Messages of peers that could not be read.
    pub fn malformed(&self) -> u64 {
        self.service.refused().0 + self.links.malformed()
    }

    /// Requests of peers that were turned away because the driver had too much to do.
    pub fn busy(&self) -> u64 {
        self.service.refused().1
    }

    /// Joins that were put off because their address had failed too often.
    pub fn joins_limited(&self) -> u64 {
        self.service.joins_limited()
    }

    /// Messages that were put off because too many bytes were under way.
    pub fn overdrawn(&self) -> u64 {
        self.service.overdrawn()
    }

    /// Times that the last good addresses of a name were used because it was not resolved.
    pub fn stale_lookups(&self) -> u64 {
        self.links.stale_lookups()
    }

    /// Requests without a valid token, and of peers that spoke as another than their certificate
    /// names.
    pub fn unauthenticated(&self) -> (u64, u64) {
        self.service.unauthenticated()
    }
}

/// What reaches the driver from elsewhere.
#[derive(Debug)]
pub(crate) enum Command {
    /// Discovery found these targets.
    Seeds(Vec<Target>),
    /// Bots of the original do not let this one in at these addresses.
    Pending(Vec<PendingJoin>),
    /// Say goodbye.
    Leave,
}

/// What a task of ours has to report.
#[derive(Debug)]
enum Done {
    Probe(ProbeId, Probed),
    Call(CallId, Result<Response, CallError>),
}

#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) core: Core,
    pub(crate) probe_timeout: Duration,
    pub(crate) resolver: Resolver,
    pub(crate) links: Arc<Links>,
    /// How to speak to bots of the original; none if they are to stay outside.
    pub(crate) original: Option<v1::Context>,
    pub(crate) guard: Guard,
    /// The earliest expiry among certificates that peers showed recently, and when we saw it.
    pub(crate) soonest: Option<(u64, Instant)>,
    pub(crate) stalls: Arc<StallWatch>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) arrivals: mpsc::Receiver<Arrived>,
    pub(crate) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(crate) me: watch::Sender<Identity>,
    /// Ends when a task dies that the bot cannot do without.
    pub(crate) tasks: JoinSet<&'static str>,
}

/// Who this bot is, and who it says it is: the holder of its name, while it yields that.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) me: Arc<Record>,
    pub(crate) introduction: Arc<Record>,
}

impl Identity {
    fn differs(&self, me: &Arc<Record>, introduction: &Arc<Record>) -> bool {
        !Arc::ptr_eq(&self.me, me) || !Arc::ptr_eq(&self.introduction, introduction)
    }
}

impl Driver {
    /// Drives the core until it has left, or must not run.
    pub(crate) async fn drive(mut self) -> End {
        let mut tasks: JoinSet<Done> = JoinSet::new();
        let mut replies: HashMap<RequestId, oneshot::Sender<Result<Response, Impostor>>> =
            HashMap::new();
        let mut next_request = 0;
        let mut shown_at = Instant::now();
        let mut dirty = true;
        let mut swept_at = Instant::now();
        loop {
            while let Some(output) = self.core.poll_output() {
                if let Some(end) = self.carry_out(output, &mut tasks, &mut replies) {
                    return end;
                }
            }
            let (me, introduction) = (self.core.record(), self.core.introduction());
            if self.me.borrow().differs(me, &introduction) {
                self.me.send_replace(Identity { me: Arc::clone(me), introduction });
            }
            let pause = if dirty { SNAPSHOT_INTERVAL } else { SNAPSHOT_AGE_MAX };
            if shown_at.elapsed() >= pause {
                self.snapshots.send_replace(Arc::new(self.core.snapshot(clock::now())));
                shown_at = Instant::now();
                dirty = false;
            }
            if swept_at.elapsed() >= SWEEP_INTERVAL {
                self.links.sweep();
                swept_at = Instant::now();
            }
            let pause = if dirty { SNAPSHOT_INTERVAL } else { SNAPSHOT_AGE_MAX };
            let due =
                self.core.poll_timeout().map_or(SNAPSHOT_AGE_MAX, |at| at.since(clock::now().time));
            let wake = (Instant::now() + due).min(shown_at + pause);
            let mut touched = true;
            tokio::select! {
                // What is already here comes before what is due: an answer that waited is no
                // silence.
                biased;
                Some(ended) = self.tasks.join_next() => {
                    let task = ended.unwrap_or("a task that panicked");
                    tracing::error!(task, "a part of this bot ended by itself, and the bot with it; please report it");
                    return End::Failed;
                }
                Some(command) = self.commands.recv() => self.command(command),
                Some(done) = tasks.join_next() => {
                    self.done(done);
                    for _ in 0..INPUTS_PER_TURN {
                        match tasks.try_join_next() {
                            Some(done) => self.done(done),
                            None => break,
                        }
                    }
                }
                Some(arrived) = self.arrivals.recv() => {
                    self.arrived(arrived, &mut next_request, &mut replies);
                    for _ in 0..INPUTS_PER_TURN {
                        match self.arrivals.try_recv() {
                            Ok(arrived) => self.arrived(arrived, &mut next_request, &mut replies),
                            Err(_) => break,
                        }
                    }
                }
                () = tokio::time::sleep_until(wake) => touched = false,
            }
            let now = clock::now();
            if self.core.poll_timeout().is_some_and(|at| at <= now.time) {
                self.core.handle_timeout(now);
                touched = true;
            }
            dirty |= touched;
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Seeds(targets) => {
                self.resolver.configure(&targets);
                self.core.handle_seeds(targets, clock::now());
            }
            Command::Pending(pending) => self.core.handle_pending(pending, clock::now()),
            Command::Leave => self.core.leave(clock::now()),
        }
    }

    fn arrived(
        &mut self,
        arrived: Arrived,
        next: &mut u64,
        replies: &mut HashMap<RequestId, oneshot::Sender<Result<Response, Impostor>>>,
    ) {
        if let Some(names) = &arrived.names
            && let Err(impostor) = speaks_for_itself(&self.core, &arrived.request, names)
        {
            let _ = arrived.reply.send(Err(impostor));
            return;
        }
        *next += 1;
        let id = RequestId(*next);
        // A caller that went away leaves its sender closed; it is dropped when its reply is due.
        replies.insert(id, arrived.reply);
        self.core.handle_request(id, arrived.request, clock::now());
    }

    /// A peer's certificate was seen: what expires first is what others should hear of.
    fn shown(&mut self, shown: Secured) {
        let soonest = match self.soonest {
            Some((expires, at)) if expires < shown.expires && at.elapsed() < SHOWN_OF_LATE => {
                expires
            }
            _ => {
                self.soonest = Some((shown.expires, Instant::now()));
                shown.expires
            }
        };
        let own = self.guard.tls.get().own.as_ref().map(Facts::expires_unix);
        self.core.handle_secured(Secured { expires: own.unwrap_or(soonest), ..shown });
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Probe(id, Probed { report, secured })) => {
                if let Some(shown) = secured {
                    self.shown(shown);
                }
                self.core.handle_probe(id, report, clock::now());
            }
            Ok(Done::Call(id, result)) => self.core.handle_response(id, result, clock::now()),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {}
        }
    }

    fn carry_out(
        &mut self,
        output: Output,
        tasks: &mut JoinSet<Done>,
        replies: &mut HashMap<RequestId, oneshot::Sender<Result<Response, Impostor>>>,
    ) -> Option<End> {
        match output {
            Output::Probe { id, whom, .. } => {
                let (resolver, stalls, timeout) =
                    (self.resolver.clone(), Arc::clone(&self.stalls), self.probe_timeout);
                let guard = self.guard.clone();
                let original = self.original.clone().filter(|_| v1::is_guest(&whom));
                tasks.spawn(async move {
                    let mut probed = prober::probe(
                        &whom,
                        original.is_some(),
                        timeout,
                        &resolver,
                        &guard,
                        &stalls,
                    )
                    .await;
                    if let (Some(original), ProbeReport::Answered { .. }) =
                        (original, &probed.report)
                        && original.is_another(&whom)
                    {
                        probed.report = ProbeReport::Failed(Failure::Identity);
                    }
                    Done::Probe(id, probed)
                });
            }
            Output::Call { id, target, whom, request, timeout } => {
                let links = Arc::clone(&self.links);
                let heartbeat = whom
                    .as_ref()
                    .and_then(|whom| self.core.heartbeat_of(whom.instance))
                    .unwrap_or_default();
                let original = self.original.clone();
                tasks.spawn(async move {
                    let asked = async {
                        match &original {
                            Some(original) => {
                                v1::speak(
                                    original,
                                    whom.map(|whom| (whom, heartbeat)),
                                    &target,
                                    request,
                                )
                                .await
                            }
                            None => {
                                links.ask_ours(&target, request).await.map_err(|error| error.call)
                            }
                        }
                    };
                    Done::Call(id, links.within(&target, timeout, asked).await)
                });
            }
            Output::Reply { to, response } => {
                if let Some(reply) = replies.remove(&to) {
                    let _ = reply.send(Ok(response));
                }
            }
            Output::NameTaken(holder) => return Some(End::NameTaken(holder)),
            Output::Left => return Some(End::Left),
            // Not asked for.
            Output::Published { .. } => {}
        }
        None
    }
}

/// Whether the certificate of a peer names the node that it speaks as: by the node's name, or by
/// the host of its target.
fn speaks_for_itself(core: &Core, request: &Request, names: &PeerNames) -> Result<(), Impostor> {
    let speaker = match request {
        Request::Join(record) => record,
        // Who is not known is not let in anyway.
        Request::Exchange(exchange) => {
            match exchange.from.and_then(|instance| core.record_of(instance)) {
                Some(record) => record,
                None => return Ok(()),
            }
        }
        Request::Identify | Request::Ask(_) => return Ok(()),
    };
    Impostor::unless(names, speaker)
}
