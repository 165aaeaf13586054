//! Hosts, links, and the queue of what happens next.

mod network;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use canary_core::{
    CallError, CallId, Config, Core, Labels, NodeName, Now, Output, ProbeId, ProbeReport, Request, RequestId, Response, Snapshot, Target,
    Time, Wall,
};
use fastrand::Rng;

/// The world begins this long after the origin of its clock: further back than any retention.
const EPOCH: Duration = Duration::from_secs(400 * 24 * 3600);
/// Lateness of a prober beyond which its measurement says more about itself.
const LATE_MAX: Duration = Duration::from_millis(100);

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
    /// Share of requests that arrive twice: somebody between retried.
    pub duplicate: f64,
    /// Share of messages that are overtaken by those of the next [`REORDERED_BY`].
    pub reorder: f64,
}

/// How far a reordered message falls back, at most.
pub const REORDERED_BY: Duration = Duration::from_millis(500);

/// A process that gets to run only now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Starvation {
    /// It runs for so long,
    pub run: Duration,
    /// once in so long.
    pub every: Duration,
}

impl Default for Link {
    fn default() -> Self {
        Self { delay: Duration::from_micros(500), jitter: Duration::from_micros(200), loss: 0.0, duplicate: 0.0, reorder: 0.0 }
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
    /// It runs only now and then.
    starved: Option<Starvation>,
    /// By how many milliseconds its wall clock is ahead.
    wall_ahead: i64,
    /// What arrived while it did not run, and when.
    inbox: Vec<(Time, Input)>,
    /// It is woken when it may run again.
    thawing: bool,
    /// Bytes of gossip that it sent.
    gossip_sent: u64,
    next_request: u64,
    /// Where replies to requests go.
    waiting: BTreeMap<RequestId, Waiting>,
    /// Calls that have not ended: whichever of answer and timeout comes first wins.
    open_calls: BTreeSet<CallId>,
    /// Probes that have not ended, likewise, with what they measured so far: once the first request is answered they no longer fail.
    open_probes: BTreeMap<ProbeId, Option<ProbeReport>>,
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

/// A request of a probe arrives at the host that it measures.
#[derive(Clone, Copy, Debug)]
struct Knock {
    prober: HostId,
    prober_life: u64,
    probe: ProbeId,
    /// When this request was sent.
    sent: Time,
    connect: Duration,
    /// How long the first request took; none while this is the first.
    first_request: Option<Duration>,
}

#[derive(Debug)]
enum Input {
    Wake,
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
    fn sender(&self) -> Option<HostId> {
        match self {
            Self::Wake | Self::Thaw => None,
            Self::Knock(knock) => Some(knock.prober),
            Self::Request { from, .. } => Some(from.caller),
            Self::Response { from, .. } | Self::Probe { from, .. } => *from,
        }
    }
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
    queue: BinaryHeap<Reverse<(Time, u64, usize)>>,
    /// The events of the queue, which itself holds only their places.
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    next_event: u64,
    /// Packets from the first to the second vanish.
    cuts: BTreeSet<(HostId, HostId)>,
    /// Connections from the first to the second are refused.
    refusals: BTreeSet<(HostId, HostId)>,
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
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            next_event: 0,
            cuts: BTreeSet::new(),
            refusals: BTreeSet::new(),
            fingerprint: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Adds a host with a running bot that joins at `seeds`. Host number `n` has the target `host-n:8081`.
    pub fn add(&mut self, name: &str, seeds: &[HostId]) -> HostId {
        let target = target_of(HostId(self.hosts.len()));
        self.add_at(name, target, seeds)
    }

    /// The same on an island.
    pub fn add_on(&mut self, name: &str, seeds: &[HostId], island: u32) -> HostId {
        let id = self.place(name, target_of(HostId(self.hosts.len())));
        self.hosts[id.0].island = island;
        self.start(id, seeds);
        id
    }

    /// The same at another target, which may be one that a crashed host had.
    pub fn add_at(&mut self, name: &str, target: Target, seeds: &[HostId]) -> HostId {
        let id = self.place(name, target);
        self.start(id, seeds);
        id
    }

    fn place(&mut self, name: &str, target: Target) -> HostId {
        let id = HostId(self.hosts.len());
        let host = Host {
            name: name.parse().expect("a scenario's names are valid"),
            target,
            core: None,
            life: 0,
            paused: false,
            silent: false,
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
        };
        self.hosts.push(host);
        id
    }

    /// Starts a process on a host that has none, at the host's present target.
    pub fn start(&mut self, id: HostId, seeds: &[HostId]) {
        let now = self.now_of(id);
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
        host.thawing = false;
        host.waiting.clear();
        host.open_calls.clear();
        host.open_probes.clear();
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
        let now = self.now_of(id);
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
        self.catch_up(id);
        self.take(id, Input::Thaw);
    }

    /// The process runs only now and then, or freely again.
    pub fn starve(&mut self, id: HostId, starvation: Option<Starvation>) {
        self.hosts[id.0].starved = starvation;
        if starvation.is_none() {
            self.catch_up(id);
            self.take(id, Input::Thaw);
        }
    }

    /// The host's wall clock steps. The clock that decides does not: no host's does.
    pub fn step_wall_clock(&mut self, id: HostId, millis: i64) {
        self.hosts[id.0].wall_ahead += millis;
    }

    /// Packets from one host to another vanish, or travel again. No connection works without both directions.
    pub fn cut(&mut self, from: HostId, to: HostId, cut: bool) {
        if cut {
            self.cuts.insert((from, to))
        } else {
            self.cuts.remove(&(from, to))
        };
    }

    /// Connections from one host to another are refused, or accepted again. The other direction is another matter.
    pub fn refuse(&mut self, from: HostId, to: HostId, refuse: bool) {
        if refuse {
            self.refusals.insert((from, to))
        } else {
            self.refusals.remove(&(from, to))
        };
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
        self.hosts[id.0].core.as_ref().map(|core| core.snapshot(self.now_of(id)))
    }

    /// Bytes of gossip sent by all hosts so far, in the packed form.
    pub fn gossip_bytes(&self) -> u64 {
        self.hosts.iter().map(|host| host.gossip_sent).sum()
    }

    /// Bytes of gossip that one host sent so far.
    pub fn gossip_bytes_of(&self, id: HostId) -> u64 {
        self.hosts[id.0].gossip_sent
    }

    /// How many hosts there are, with a running bot or without.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there is no host yet.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// The host's target.
    pub fn target(&self, id: HostId) -> &Target {
        &self.hosts[id.0].target
    }

    /// Whether the host's bot runs, and is neither paused nor starved.
    pub fn runs_freely(&self, id: HostId) -> bool {
        let host = &self.hosts[id.0];
        host.core.is_some() && !host.paused && host.starved.is_none()
    }

    /// A digest of everything that happened: equal runs have equal ones.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The clocks of a host.
    fn now_of(&self, id: HostId) -> Now {
        let wall = Duration::from_secs(1_700_000_000) + self.elapsed();
        let wall = (wall.as_millis() as u64).saturating_add_signed(self.hosts[id.0].wall_ahead);
        Now { time: self.now, wall: Wall::from_unix_millis(wall) }
    }

    /// Wall-clock time where nobody's clock stepped.
    pub fn wall(&self) -> Wall {
        Wall::from_unix_millis((Duration::from_secs(1_700_000_000) + self.elapsed()).as_millis() as u64)
    }

    /// Lets `duration` pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(&Reverse((at, sequence, place))) = self.queue.peek() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.free.push(place);
            let Some(event) = self.events[place].take() else { continue };
            self.now = at;
            self.note(at.micros() ^ sequence ^ event.host.0 as u64);
            if event.input.sender().is_some_and(|sender| !self.linked(sender, event.host)) {
                // The link broke while it was under way.
                continue;
            }
            match event.input {
                input if self.hosts[event.host.0].life == event.life => self.give(event.host, input),
                Input::Knock(knock) => self.reset_knock(knock),
                _ => {}
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

    /// Counts the processes that ran on a host.
    pub fn life(&self, id: HostId) -> u64 {
        self.hosts[id.0].life
    }

    /// Whether the host's wall clock never stepped, or back to where it was.
    pub fn wall_clock_is_true(&self, id: HostId) -> bool {
        self.hosts[id.0].wall_ahead == 0
    }

    fn note(&mut self, value: u64) {
        self.fingerprint = (self.fingerprint ^ value).wrapping_mul(0x0000_0100_0000_01b3);
    }

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

    fn give(&mut self, id: HostId, input: Input) {
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
    fn catch_up(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0];
        let life = host.life;
        for (arrived, input) in std::mem::take(&mut host.inbox) {
            // A prober that did not run when its probe ended knows that it measured itself.
            let input = match input {
                Input::Probe { probe, from, .. } if self.now.since(arrived) > LATE_MAX => {
                    Input::Probe { probe, report: ProbeReport::Void, from }
                }
                input => input,
            };
            if self.hosts[id.0].life == life {
                self.take(id, input);
            }
        }
    }

    fn take(&mut self, id: HostId, input: Input) {
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
            Input::Knock(knock) => {
                let record = std::sync::Arc::clone(core.record());
                return self.answer_knock(id, knock, &record);
            }
        }
        self.drain(id);
    }

    fn drain(&mut self, id: HostId) {
        loop {
            let host = &mut self.hosts[id.0];
            let Some(core) = &mut host.core else { return };
            let Some(output) = core.poll_output() else { break };
            match output {
                Output::Probe { id: probe, whom } => self.probe(id, probe, &whom.target),
                Output::Call { id: call, target, request, timeout, .. } => self.call(id, call, &target, request, timeout),
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
        let life = self.hosts[host.0].life;
        self.schedule_for(at, host, life, input);
    }

    fn schedule_for(&mut self, at: Time, host: HostId, life: u64, input: Input) {
        self.next_event += 1;
        let event = Some(Event { host, life, input });
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place] = event;
                place
            }
            None => {
                self.events.push(event);
                self.events.len() - 1
            }
        };
        self.queue.push(Reverse((at, self.next_event, place)));
    }
}

/// The target of host number `id`.
pub fn target_of(id: HostId) -> Target {
    Target::new(&format!("host-{}", id.0), 8081).expect("a host's number makes a valid target")
}
