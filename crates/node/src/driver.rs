//! The one task that owns the core: inputs in, outputs carried out, snapshots shown.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    CallError, CallId, Core, Failure, Output, ProbeId, ProbeReport, Request, RequestId, Response,
    Secured, Snapshot,
};
use canary_net::tls::{Facts, PeerNames};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::clock;
use crate::parts::{Command, End, Identity};
use crate::prober::{Probed, Prober};
use crate::traffic::Traffic;
use crate::transport::{Arrived, Impostor, Links, MeshService, Refused};
use crate::v1;

/// Snapshots are shown at most so often: what changes in between is in the next one.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(100);
/// And at least so often, so that ages and intervals in it are true.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(1);
/// Inputs taken between two looks at the outputs, so that neither starves the other.
const INPUTS_PER_TURN: usize = 64;
/// How long a certificate that a peer showed is thought of.
const SHOWN_RECENTLY: Duration = Duration::from_secs(300);
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
    /// What was refused below the core, by the reason as metrics call it.
    pub fn by_reason(&self) -> Vec<(String, u64)> {
        let Refused { unreadable, busy, tokenless, impostors, joins_limited, overdrawn } =
            self.service.refused();
        let own = [
            ("malformed", unreadable + self.links.malformed()),
            ("driver_busy", busy),
            ("mesh_overdrawn", overdrawn),
            ("joins_limited", joins_limited),
            // The last good addresses of a name were used because it was not resolved.
            ("lookup_stale", self.links.stale_lookups()),
            ("mesh_token", tokenless),
            ("mesh_impostor", impostors),
        ];
        let of_port = self.port.by_reason();
        let of_port = of_port.into_iter().map(|(reason, count)| (format!("mesh_{reason}"), count));
        own.into_iter().map(|(reason, count)| (reason.to_owned(), count)).chain(of_port).collect()
    }
}

/// What a task of ours has to report.
#[derive(Debug)]
enum Done {
    Probe(ProbeId, Probed),
    Call(CallId, Result<Response, CallError>),
}

/// What the driver is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) core: Core,
    pub(crate) prober: Arc<Prober>,
    pub(crate) links: Arc<Links>,
    /// How to speak to bots of the original; none if they are to stay outside.
    pub(crate) original: Option<v1::Host>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) arrivals: mpsc::Receiver<Arrived>,
    pub(crate) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(crate) me: watch::Sender<Identity>,
    /// Ends when a task dies that the bot cannot do without.
    pub(crate) tasks: JoinSet<&'static str>,
}

#[derive(Debug)]
pub(crate) struct Driver {
    parts: Parts,
    /// Probes and calls under way.
    running: JoinSet<Done>,
    /// Where answers to requests of peers go.
    replies: HashMap<RequestId, oneshot::Sender<Result<Response, Impostor>>>,
    /// The latest number of a request.
    latest: u64,
    /// The earliest expiry among certificates that peers showed recently, and when we saw it.
    soonest: Option<(u64, Instant)>,
    /// When a snapshot was last shown.
    shown_at: Instant,
    /// Something changed since.
    dirty: bool,
    /// When idle connections were last looked for.
    swept_at: Instant,
}

/// What the driver waited for.
enum Event {
    /// A part of this bot ended, which should not.
    Ended(&'static str),
    Command(Command),
    Done(Result<Done, JoinError>),
    Arrived(Arrived),
    /// Time passed.
    Due,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts,
            running: JoinSet::new(),
            replies: HashMap::new(),
            latest: 0,
            soonest: None,
            shown_at: Instant::now(),
            dirty: true,
            swept_at: Instant::now(),
        }
    }

    /// Drives the core until it has left, or must not run.
    pub(crate) async fn drive(mut self) -> End {
        loop {
            while let Some(output) = self.parts.core.poll_output() {
                if let Some(end) = self.carry_out(output) {
                    return end;
                }
            }
            self.show();
            self.sweep();
            let event = self.event().await;
            self.dirty |= !matches!(event, Event::Due);
            if let Some(end) = self.take(event) {
                return end;
            }
            let now = clock::now();
            if self.parts.core.poll_timeout().is_some_and(|at| at <= now.time) {
                self.parts.core.handle_timeout(now);
                self.dirty = true;
            }
        }
    }

    /// Shows who this bot is and what it knows, where that changed.
    fn show(&mut self) {
        let identity = Identity::of(&self.parts.core);
        if self.parts.me.borrow().differs(&identity) {
            self.parts.me.send_replace(identity);
        }
        if self.shown_at.elapsed() >= self.snapshot_pause() {
            self.parts.snapshots.send_replace(Arc::new(self.parts.core.snapshot(clock::now())));
            self.shown_at = Instant::now();
            self.dirty = false;
        }
    }

    fn snapshot_pause(&self) -> Duration {
        if self.dirty { SNAPSHOT_INTERVAL } else { SNAPSHOT_AGE_MAX }
    }

    fn sweep(&mut self) {
        if self.swept_at.elapsed() >= SWEEP_INTERVAL {
            self.parts.links.sweep();
            self.swept_at = Instant::now();
        }
    }

    async fn event(&mut self) -> Event {
        let timeout = self.parts.core.poll_timeout();
        let due = timeout.map_or(SNAPSHOT_AGE_MAX, |at| at.since(clock::now().time));
        let wake = (Instant::now() + due).min(self.shown_at + self.snapshot_pause());
        tokio::select! {
            // What is already here comes before what is due: an answer that waited is no silence.
            biased;
            Some(ended) = self.parts.tasks.join_next() => {
                Event::Ended(ended.unwrap_or("a task that panicked"))
            }
            Some(command) = self.parts.commands.recv() => Event::Command(command),
            Some(done) = self.running.join_next() => Event::Done(done),
            Some(arrived) = self.parts.arrivals.recv() => Event::Arrived(arrived),
            () = tokio::time::sleep_until(wake) => Event::Due,
        }
    }

    /// Takes what came, and what came with it.
    fn take(&mut self, event: Event) -> Option<End> {
        match event {
            Event::Ended(task) => {
                tracing::error!(
                    task,
                    "a part of this bot ended by itself, and the bot with it; please report it"
                );
                return Some(End::Failed);
            }
            Event::Command(command) => self.command(command),
            Event::Done(done) => {
                self.done(done);
                for _ in 0..INPUTS_PER_TURN {
                    let Some(done) = self.running.try_join_next() else { break };
                    self.done(done);
                }
            }
            Event::Arrived(arrived) => {
                self.arrived(arrived);
                for _ in 0..INPUTS_PER_TURN {
                    let Ok(arrived) = self.parts.arrivals.try_recv() else { break };
                    self.arrived(arrived);
                }
            }
            Event::Due => {}
        }
        None
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Seeds(targets) => {
                self.parts.prober.resolver.configure(&targets);
                self.parts.core.handle_seeds(targets, clock::now());
            }
            Command::Pending(pending) => self.parts.core.handle_pending(pending, clock::now()),
            Command::Leave => self.parts.core.leave(clock::now()),
        }
    }

    fn arrived(&mut self, arrived: Arrived) {
        if let Some(names) = &arrived.names
            && let Err(impostor) = speaks_for_itself(&self.parts.core, &arrived.request, names)
        {
            let _ = arrived.reply.send(Err(impostor));
            return;
        }
        self.latest += 1;
        let id = RequestId(self.latest);
        // A caller that went away leaves its sender closed; it is dropped when its reply is due.
        self.replies.insert(id, arrived.reply);
        self.parts.core.handle_request(id, arrived.request, clock::now());
    }

    /// A peer's certificate was seen: what expires first is what others should hear of.
    fn shown(&mut self, shown: Secured) {
        let soonest = match self.soonest {
            Some((expires, at)) if expires < shown.expires && at.elapsed() < SHOWN_RECENTLY => {
                expires
            }
            _ => {
                self.soonest = Some((shown.expires, Instant::now()));
                shown.expires
            }
        };
        let own = self.parts.prober.guard.tls.get().own.as_ref().map(Facts::expires_unix);
        self.parts.core.handle_secured(Secured { expires: own.unwrap_or(soonest), ..shown });
    }

    fn done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::Probe(id, Probed { report, secured })) => {
                if let Some(shown) = secured {
                    self.shown(shown);
                }
                self.parts.core.handle_probe(id, report, clock::now());
            }
            Ok(Done::Call(id, result)) => self.parts.core.handle_response(id, result, clock::now()),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {}
        }
    }

    fn carry_out(&mut self, output: Output) -> Option<End> {
        match output {
            Output::Probe { id, whom, .. } => {
                let prober = Arc::clone(&self.parts.prober);
                let original = self.parts.original.clone().filter(|_| v1::is_guest(&whom));
                self.running.spawn(async move {
                    let mut probed = prober.probe(&whom, original.is_some()).await;
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
                let links = Arc::clone(&self.parts.links);
                let heartbeat = whom
                    .as_ref()
                    .and_then(|whom| self.parts.core.heartbeat_of(whom.instance))
                    .unwrap_or_default();
                let original = self.parts.original.clone();
                self.running.spawn(async move {
                    let asked = async {
                        match &original {
                            Some(original) => {
                                let whom = whom.map(|whom| (whom, heartbeat));
                                original.speak(whom, &target, request).await
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
                if let Some(reply) = self.replies.remove(&to) {
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
        // An unknown peer is not admitted anyway.
        Request::Exchange(exchange) => {
            match exchange.from.and_then(|instance| core.record_of(instance)) {
                Some(record) => record,
                None => return Ok(()),
            }
        }
        Request::Identify | Request::IndirectProbe(_) => return Ok(()),
    };
    Impostor::unless(names, speaker)
}
