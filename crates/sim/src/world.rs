//! Hosts, links, and the queue of what happens next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use canary_core::{
    CallError, CallId, Config, Core, Failure, Labels, NodeName, Now, Output, ProbeId, ProbeReport, Request, RequestId, Response, Snapshot,
    Target, Time, Timing, Wall,
};
use fastrand::Rng;

/// The world begins this long after the origin of its clock: further back than any retention.
const EPOCH: Duration = Duration::from_secs(400 * 24 * 3600);
/// What the kernel waits before it sends a lost SYN again (RFC 6298 section 2).
const SYN_RETRY: Duration = Duration::from_secs(1);
/// What it waits before it sends lost data again on a fast link.
const DATA_RETRY: Duration = Duration::from_millis(200);
/// How long a host takes to answer.
const SERVICE_TIME: Duration = Duration::from_micros(100);

/// A host's place in its world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// How packets travel between two hosts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// One-way delay.
    pub delay: Duration,
    /// Up to so much more, drawn for every message.
    pub jitter: Duration,
    /// Share of packets lost, from 0 to 1. TCP sends them again, later.
    pub loss: f64,
}

impl Default for Link {
    fn default() -> Self {
        Self { delay: Duration::from_micros(500), jitter: Duration::from_micros(200), loss: 0.0 }
    }
}

#[derive(Debug)]
struct Host {
    name: NodeName,
    target: Target,
    /// None while no process runs: connections are refused.
    core: Option<Core>,
    /// Counts processes, so that events for a former one are dropped.
    life: u64,
    /// The process is stopped: connections are accepted and nothing is answered.
    paused: bool,
    /// Packets to and from it vanish.
    silent: bool,
    /// Which side of a partition it is on.
    island: u32,
    /// What arrived while it was paused.
    inbox: Vec<Input>,
    next_request: u64,
    /// Where replies to requests go.
    waiting: BTreeMap<RequestId, Waiting>,
    /// It asked to end because its name was taken.
    refused_name: bool,
    left: bool,
    /// The earliest wake-up that is queued.
    wake_at: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    caller: HostId,
    caller_life: u64,
    call: CallId,
}

#[derive(Debug)]
enum Input {
    Wake,
    Request { request: Request, from: Waiting },
    Response { call: CallId, result: Result<Response, CallError> },
    Probe { probe: ProbeId, report: ProbeReport },
}

#[derive(Debug)]
struct Event {
    host: HostId,
    life: u64,
    input: Input,
}

/// A world of hosts, replayable from its seed.
#[derive(Debug)]
pub struct World {
    now: Time,
    rng: Rng,
    config: Config,
    link: Link,
    hosts: Vec<Host>,
    listening: BTreeMap<Target, HostId>,
    queue: BTreeMap<(Time, u64), Event>,
    next_event: u64,
    /// Calls that have not ended: whichever of answer and timeout comes first wins.
    open_calls: BTreeSet<(HostId, u64, CallId)>,
    gossip_bytes: u64,
    fingerprint: u64,
}

impl World {
    /// An empty world whose links are all alike.
    pub fn new(seed: u64, config: Config, link: Link) -> Self {
        Self {
            now: Time::ZERO + EPOCH,
            rng: Rng::with_seed(seed),
            config,
            link,
            hosts: Vec::new(),
            listening: BTreeMap::new(),
            queue: BTreeMap::new(),
            next_event: 0,
            open_calls: BTreeSet::new(),
            gossip_bytes: 0,
            fingerprint: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Adds a host with a running bot that joins at `seeds`. Host number `n` has the target `host-n:8081`.
    pub fn add(&mut self, name: &str, seeds: &[HostId]) -> HostId {
        let id = HostId(self.hosts.len());
        let host = Host {
            name: name.parse().expect("a scenario's names are valid"),
            target: target_of(id),
            core: None,
            life: 0,
            paused: false,
            silent: false,
            island: 0,
            inbox: Vec::new(),
            next_request: 0,
            waiting: BTreeMap::new(),
            refused_name: false,
            left: false,
            wake_at: None,
        };
        self.hosts.push(host);
        self.start(id, seeds);
        id
    }

    /// Starts a process on a host that has none, at the host's present target.
    pub fn start(&mut self, id: HostId, seeds: &[HostId]) {
        let now = self.now();
        let seed = self.rng.u64(..);
        let seeds = seeds.iter().map(|seed| self.hosts[seed.0].target.clone()).collect();
        let host = &mut self.hosts[id.0];
        let mut core = Core::new(self.config.clone(), host.name.clone(), host.target.clone(), Labels::default(), seed, now);
        core.handle_seeds(seeds, now);
        host.core = Some(core);
        host.life += 1;
        host.paused = false;
        host.refused_name = false;
        host.left = false;
        host.wake_at = None;
        host.inbox.clear();
        host.waiting.clear();
        self.listening.insert(host.target.clone(), id);
        self.drain(id);
    }

    /// The process ends without a word; its port refuses from now on.
    pub fn crash(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0];
        host.core = None;
        host.life += 1;
        host.waiting.clear();
    }

    /// The host moves to another target; whoever comes to the old one is refused.
    pub fn move_to(&mut self, id: HostId, target: Target) {
        let host = &mut self.hosts[id.0];
        self.listening.remove(&host.target);
        host.target = target;
    }

    /// The process says goodbye and ends.
    pub fn leave(&mut self, id: HostId) {
        let now = self.now();
        if let Some(core) = &mut self.hosts[id.0].core {
            core.leave(now);
        }
        self.drain(id);
    }

    /// The process stops running without ending.
    pub fn pause(&mut self, id: HostId) {
        self.hosts[id.0].paused = true;
    }

    /// The process runs again; what came meanwhile is there at once.
    pub fn resume(&mut self, id: HostId) {
        self.hosts[id.0].paused = false;
        let inbox = std::mem::take(&mut self.hosts[id.0].inbox);
        for input in inbox {
            self.give(id, input);
        }
        self.give(id, Input::Wake);
    }

    /// Packets to and from the host vanish, or travel again.
    pub fn silence(&mut self, id: HostId, silent: bool) {
        self.hosts[id.0].silent = silent;
    }

    /// Puts a host on an island: packets travel within islands only.
    pub fn put_on_island(&mut self, id: HostId, island: u32) {
        self.hosts[id.0].island = island;
    }

    /// Changes how packets travel.
    pub fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// Time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.now.since(Time::ZERO + EPOCH)
    }

    /// All hosts with a running bot, paused ones included.
    pub fn running(&self) -> impl Iterator<Item = HostId> + '_ {
        self.hosts.iter().enumerate().filter(|(_, host)| host.core.is_some()).map(|(index, _)| HostId(index))
    }

    /// The name of a host.
    pub fn name(&self, id: HostId) -> &NodeName {
        &self.hosts[id.0].name
    }

    /// Whether the bot found its name taken and must not run.
    pub fn refused_name(&self, id: HostId) -> bool {
        self.hosts[id.0].refused_name
    }

    /// What the bot of a host knows; none if none runs.
    pub fn snapshot(&self, id: HostId) -> Option<Snapshot> {
        self.hosts[id.0].core.as_ref().map(|core| core.snapshot(self.now()))
    }

    /// Bytes of gossip sent by all hosts so far, in the packed form.
    pub fn gossip_bytes(&self) -> u64 {
        self.gossip_bytes
    }

    /// A digest of everything that happened: equal runs have equal ones.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn now(&self) -> Now {
        let wall = Duration::from_secs(1_700_000_000) + self.elapsed();
        Now { time: self.now, wall: Wall::from_unix_millis(wall.as_millis() as u64) }
    }

    /// Lets `duration` pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some((&(at, _), _)) = self.queue.first_key_value() {
            if at > end {
                break;
            }
            let Some(((at, sequence), event)) = self.queue.pop_first() else { break };
            self.now = at;
            self.note(at.micros() ^ sequence ^ event.host.0 as u64);
            if self.hosts[event.host.0].life == event.life {
                self.give(event.host, event.input);
            }
        }
        self.now = end;
    }

    /// Lets time pass until `done`, at most `limit`; tells how long it took.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Option<Duration> {
        const STEP: Duration = Duration::from_millis(50);
        let begin = self.now;
        while !done(self) {
            if self.now.since(begin) >= limit {
                return None;
            }
            self.run(STEP);
        }
        Some(self.now.since(begin))
    }

    fn note(&mut self, value: u64) {
        self.fingerprint = (self.fingerprint ^ value).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn give(&mut self, id: HostId, input: Input) {
        let now = self.now();
        let host = &mut self.hosts[id.0];
        if host.paused {
            match input {
                Input::Wake => host.wake_at = None,
                _ => host.inbox.push(input),
            }
            return;
        }
        let life = host.life;
        let Some(core) = &mut host.core else { return };
        match input {
            Input::Wake => {
                host.wake_at = None;
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
            Input::Response { call, result } => {
                if self.open_calls.remove(&(id, life, call)) {
                    core.handle_response(call, result, now);
                }
            }
            Input::Probe { probe, report } => core.handle_probe(probe, report, now),
        }
        self.drain(id);
    }

    fn drain(&mut self, id: HostId) {
        loop {
            let host = &mut self.hosts[id.0];
            let Some(core) = &mut host.core else { return };
            let Some(output) = core.poll_output() else { break };
            match output {
                Output::Probe { id: probe, target } => self.probe(id, probe, &target),
                Output::Call { id: call, target, request, timeout } => self.call(id, call, &target, request, timeout),
                Output::Reply { to, response } => self.reply(id, to, response),
                Output::NameTaken(_) => host.refused_name = true,
                Output::Left => host.left = true,
            }
        }
        let host = &mut self.hosts[id.0];
        if host.left || host.refused_name {
            host.core = None;
            host.life += 1;
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

    fn schedule(&mut self, at: Time, host: HostId, input: Input) {
        self.next_event += 1;
        let life = self.hosts[host.0].life;
        self.queue.insert((at, self.next_event), Event { host, life, input });
    }

    /// Whether packets travel between two hosts.
    fn linked(&self, a: HostId, b: HostId) -> bool {
        let (a, b) = (&self.hosts[a.0], &self.hosts[b.0]);
        !a.silent && !b.silent && a.island == b.island
    }

    /// One way of one packet, sent again while it is lost.
    fn travel(&mut self, retry: Duration) -> Duration {
        let jitter = self.link.jitter.mul_f64(self.rng.f64());
        let mut taken = self.link.delay + jitter;
        let mut pause = retry;
        while self.rng.f64() < self.link.loss {
            taken += pause;
            pause *= 2;
        }
        taken
    }

    fn probe(&mut self, from: HostId, probe: ProbeId, target: &Target) {
        let timeout = self.config.probe_timeout;
        let give_up = (self.now + timeout, ProbeReport::Failed(Failure::Timeout));
        let (at, report) = match self.listening.get(target).copied() {
            Some(to) if self.linked(from, to) => {
                let connect = self.travel(SYN_RETRY) + self.travel(SYN_RETRY);
                let first_request = self.travel(DATA_RETRY) + SERVICE_TIME + self.travel(DATA_RETRY);
                let request = self.travel(DATA_RETRY) + SERVICE_TIME + self.travel(DATA_RETRY);
                let host = &self.hosts[to.0];
                match &host.core {
                    None if connect <= timeout => (self.now + connect, ProbeReport::Failed(Failure::Refused)),
                    Some(core) if !host.paused && connect + first_request <= timeout => {
                        let record = core.record();
                        let timing = Timing {
                            connect,
                            first_request,
                            request: (connect + first_request + request <= timeout).then_some(request),
                            ..Timing::default()
                        };
                        let report = ProbeReport::Answered {
                            timing,
                            name: record.name.clone(),
                            incarnation: record.incarnation,
                            instance: record.instance,
                        };
                        (self.now + connect + first_request + request, report)
                    }
                    _ => give_up,
                }
            }
            Some(_) => give_up,
            None => (self.now + self.travel(SYN_RETRY) + self.travel(SYN_RETRY), ProbeReport::Failed(Failure::Refused)),
        };
        self.schedule(at, from, Input::Probe { probe, report });
    }

    fn call(&mut self, from: HostId, call: CallId, target: &Target, request: Request, timeout: Duration) {
        if let Request::Exchange(exchange) = &request {
            self.gossip_bytes += exchange.packed_len() as u64;
        }
        let life = self.hosts[from.0].life;
        self.open_calls.insert((from, life, call));
        let failed = |failure: Failure| Input::Response { call, result: Err(CallError { failure, detail: failure.as_str().to_owned() }) };
        self.schedule(self.now + timeout, from, failed(Failure::Timeout));
        match self.listening.get(target).copied() {
            Some(to) if !self.linked(from, to) => {}
            Some(to) if self.hosts[to.0].core.is_some() => {
                let at = self.now + self.travel(DATA_RETRY);
                let from = Waiting { caller: from, caller_life: life, call };
                self.schedule(at, to, Input::Request { request, from });
            }
            _ => {
                let at = self.now + self.travel(SYN_RETRY) + self.travel(SYN_RETRY);
                self.schedule(at, from, failed(Failure::Refused));
            }
        }
    }

    fn reply(&mut self, from: HostId, to: RequestId, response: Response) {
        if let Response::Exchange(exchange) = &response {
            self.gossip_bytes += exchange.packed_len() as u64;
        }
        let Some(waiting) = self.hosts[from.0].waiting.remove(&to) else { return };
        let Waiting { caller, caller_life, call } = waiting;
        if self.linked(from, caller) && self.hosts[caller.0].life == caller_life {
            let at = self.now + SERVICE_TIME + self.travel(DATA_RETRY);
            self.schedule(at, caller, Input::Response { call, result: Ok(response) });
        }
    }
}

/// The target of host number `id`.
pub(crate) fn target_of(id: HostId) -> Target {
    Target::new(&format!("host-{}", id.0), 8081).expect("a host's number makes a valid target")
}
