//! A host, its process, and what waits while that does not run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use canary_core::{
    CallError, CallId, Core, Failure, Labels, NodeName, Output, ProbeId, ProbeReport, Request,
    RequestId, Response, Target, Time,
};

use super::guests::{Guest, Hosts, Then, V1};
use super::{HostId, Link, Release, World};

/// Lateness of a prober beyond which its measurement says more about itself.
const LATE_MAX: Duration = Duration::from_millis(100);

/// A process that gets to run only now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Starvation {
    /// It runs for so long,
    pub run: Duration,
    /// once in so long.
    pub every: Duration,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: NodeName,
    pub(super) target: Target,
    pub(super) labels: Labels,
    /// None while no process of ours runs.
    pub(super) core: Option<Core>,
    /// None while no process of the original runs.
    pub(super) guest: Option<Guest>,
    /// What the process does for guests, if it does.
    pub(super) hosting: Option<Hosts>,
    /// What the core is asked by tasks of its own process, which wait by these numbers.
    pub(super) own: BTreeMap<RequestId, u64>,
    /// Calls of `mesh.v1` that have not ended, by their numbers.
    pub(super) open_v1: BTreeMap<u64, Then>,
    pub(super) next_v1: u64,
    /// Which release its process is of.
    pub(super) release: Release,
    /// Counts processes, so that events for a former one are dropped.
    pub(super) run: u64,
    /// The process is stopped: connections are accepted and nothing is answered.
    pub(super) paused: bool,
    /// Packets to and from it vanish.
    pub(super) silent: bool,
    /// How connections to it fail, and those that it opens, if they do.
    pub(super) inbound: Option<Failure>,
    pub(super) outbound: Option<Failure>,
    /// How packets travel to and from it, if not like everybody's.
    pub(super) way: Option<Link>,
    /// Which side of a partition it is on.
    pub(super) island: u32,
    /// It runs only now and then.
    pub(super) starved: Option<Starvation>,
    /// By how many milliseconds its wall clock is ahead.
    pub(super) wall_ahead: i64,
    /// What arrived while it did not run, and when.
    pub(super) inbox: Vec<(Time, Input)>,
    /// It is woken when it may run again.
    pub(super) thawing: bool,
    /// Bytes of gossip that it sent.
    pub(super) gossip_sent: u64,
    pub(super) next_request: u64,
    /// Where replies to requests go.
    pub(super) waiting: BTreeMap<RequestId, Waiting>,
    /// Calls that have not ended: whichever of answer and timeout comes first wins.
    pub(super) open_calls: BTreeSet<CallId>,
    /// Probes that have not ended, likewise, with what they measured so far: once the first request
    /// is answered they no longer fail.
    pub(super) open_probes: BTreeMap<ProbeId, Option<ProbeReport>>,
    /// It asked to end because its name was taken.
    pub(super) refused_name: bool,
    pub(super) left: bool,
    /// The earliest wake-up that is queued.
    pub(super) wake_at: Option<Time>,
}

impl Host {
    /// A host that runs no process yet.
    pub(super) fn new(name: NodeName, target: Target) -> Self {
        Self {
            name,
            target,
            labels: Labels::default(),
            core: None,
            guest: None,
            hosting: None,
            own: BTreeMap::new(),
            open_v1: BTreeMap::new(),
            next_v1: 0,
            release: Release::This,
            run: 0,
            paused: false,
            silent: false,
            inbound: None,
            outbound: None,
            way: None,
            island: 0,
            starved: None,
            wall_ahead: 0,
            inbox: Vec::new(),
            thawing: false,
            gossip_sent: 0,
            next_request: 0,
            waiting: BTreeMap::new(),
            open_calls: BTreeSet::new(),
            open_probes: BTreeMap::new(),
            refused_name: false,
            left: false,
            wake_at: None,
        }
    }

    /// Whether a process runs: without one connections are refused.
    pub(super) fn runs(&self) -> bool {
        self.core.is_some() || self.guest.is_some()
    }

    /// The process that runs, if one does, is no more.
    pub(super) fn end_run(&mut self) {
        (self.core, self.guest, self.hosting) = (None, None, None);
        self.run += 1;
        self.waiting.clear();
        self.own.clear();
        self.open_v1.clear();
    }

    /// A process is about to start.
    pub(super) fn begin_run(&mut self) {
        self.end_run();
        self.paused = false;
        self.refused_name = false;
        self.left = false;
        self.wake_at = None;
        self.inbox.clear();
        self.thawing = false;
        self.open_calls.clear();
        self.open_probes.clear();
    }

    pub(super) fn next_request_id(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) caller: HostId,
    pub(super) caller_run: u64,
    pub(super) call: CallId,
}

/// A request of a probe arrives at the host that it measures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Knock {
    pub(super) prober: HostId,
    pub(super) prober_run: u64,
    pub(super) probe: ProbeId,
    /// When this request was sent.
    pub(super) sent: Time,
    pub(super) connect: Duration,
    /// Segments that the prober's kernel sent again so far.
    pub(super) retransmissions: u32,
    /// How long the first request took; none while this is the first.
    pub(super) first_request: Option<Duration>,
}

#[derive(Debug)]
pub(super) enum Input {
    Wake,
    /// Something between bots of the original and ours.
    V1(V1),
    /// A starved process may run again.
    Thaw,
    Knock(Knock),
    Request {
        request: Request,
        from: Waiting,
    },
    Response {
        call: CallId,
        result: Result<Response, CallError>,
        /// Who answered; none if nobody did.
        from: Option<HostId>,
    },
    Probe {
        probe: ProbeId,
        report: ProbeReport,
        /// Who answered; none if nobody did.
        from: Option<HostId>,
    },
}

impl Input {
    /// Whose packet brings it; none if no packet does.
    pub(super) fn sender(&self) -> Option<HostId> {
        match self {
            Self::Wake | Self::Thaw => None,
            Self::V1(v1) => v1.sender(),
            Self::Knock(knock) => Some(knock.prober),
            Self::Request { from, .. } => Some(from.caller),
            Self::Response { from, .. } | Self::Probe { from, .. } => *from,
        }
    }
}

impl World {
    /// When a process may next run; none while it is paused.
    fn runs_at(&self, id: HostId, at: Time) -> Option<Time> {
        let host = &self.hosts[id.0];
        if host.paused {
            return None;
        }
        let Some(Starvation { run, every }) = host.starved else { return Some(at) };
        let into = Duration::from_micros(at.micros() % (every.as_micros() as u64).max(1));
        Some(if into < run { at } else { at + (every - into) })
    }

    pub(super) fn give(&mut self, id: HostId, input: Input) {
        match self.runs_at(id, self.now) {
            Some(at) if at <= self.now => {
                self.catch_up(id);
                self.take(id, input);
            }
            later => {
                let host = &mut self.hosts[id.0];
                match input {
                    Input::Wake => host.wake_at = None,
                    Input::Thaw => host.thawing = false,
                    input => host.inbox.push((self.now, input)),
                }
                if let Some(at) = later
                    && !std::mem::replace(&mut self.hosts[id.0].thawing, true)
                {
                    self.schedule(at, id, Input::Thaw);
                }
            }
        }
    }

    /// Takes what arrived while the process did not run.
    pub(super) fn catch_up(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0];
        let run = host.run;
        for (arrived, input) in std::mem::take(&mut host.inbox) {
            // A prober that did not run when its probe ended knows that it measured itself.
            let input = match input {
                Input::Probe { probe, from, .. } if self.now.since(arrived) > LATE_MAX => {
                    Input::Probe { probe, report: ProbeReport::Void, from }
                }
                input => input,
            };
            if self.hosts[id.0].run == run {
                self.take(id, input);
            }
        }
    }

    pub(super) fn take(&mut self, id: HostId, input: Input) {
        let input = match input {
            Input::V1(input) => return self.take_v1(id, input),
            Input::Knock(knock) => {
                let record = match &self.hosts[id.0].core {
                    Some(core) => std::sync::Arc::clone(core.record()),
                    None => self.guest_for(id, knock.prober),
                };
                return self.answer_knock(id, knock, &record);
            }
            input => input,
        };
        let now = self.now_of(id);
        let host = &mut self.hosts[id.0];
        let Some(core) = &mut host.core else { return };
        match input {
            Input::Wake | Input::Thaw => {
                // A wake-up that an earlier one overtook is nothing: that one set the next.
                let due = host.wake_at.is_none_or(|at| at <= now.time);
                if matches!(input, Input::Thaw) {
                    host.thawing = false;
                } else if !due {
                    return;
                }
                host.wake_at = host.wake_at.filter(|at| *at > now.time);
                if core.poll_timeout().is_some_and(|at| at <= now.time) {
                    core.handle_timeout(now);
                }
            }
            Input::Request { request, from } => {
                host.next_request += 1;
                let request_id = RequestId(host.next_request);
                host.waiting.insert(request_id, from);
                core.handle_request(request_id, request, now);
            }
            Input::Response { call, result, .. } => {
                if host.open_calls.remove(&call) {
                    core.handle_response(call, result, now);
                    self.call_ended(id, call);
                }
            }
            Input::Probe { probe, report, .. } => {
                let Some(so_far) = host.open_probes.remove(&probe) else { return };
                let report = match (report, so_far) {
                    (ProbeReport::Failed(_), Some(answered)) => answered,
                    (report, _) => report,
                };
                core.handle_probe(probe, report, now);
            }
            // They were taken above.
            Input::Knock(_) | Input::V1(_) => {}
        }
        self.drain(id);
    }

    pub(super) fn drain(&mut self, id: HostId) {
        loop {
            let host = &mut self.hosts[id.0];
            let Some(core) = &mut host.core else { return };
            let Some(output) = core.poll_output() else { break };
            match output {
                Output::Probe { id: probe, whom, .. } => self.probe(id, probe, &whom.target),
                Output::Call { id: call, target, whom, request, timeout } => {
                    self.call(id, call, (&target, whom), request, timeout);
                }
                Output::Reply { to, response } => self.reply(id, to, response),
                Output::NameTaken(_) => host.refused_name = true,
                Output::Left => host.left = true,
                // Not asked for.
                Output::Published { .. } => {}
            }
        }
        let host = &mut self.hosts[id.0];
        if host.left || host.refused_name {
            host.end_run();
            return;
        }
        let wake = host.core.as_ref().and_then(Core::poll_timeout).map(|at| at.max(self.now));
        if let Some(at) = wake
            && host.wake_at.is_none_or(|queued| queued > at)
        {
            host.wake_at = Some(at);
            self.schedule(at, id, Input::Wake);
        }
    }
}
