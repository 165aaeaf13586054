//! Hosts, links, and the queue of what happens next.

mod faults;
mod guests;
mod host;
mod network;
mod release;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    Config, Core, Events, Failure, Labels, MemberView, NodeName, Now, Snapshot, Target, Time, Wall,
};
use canary_guests::is_guest;
use fastrand::Rng;

pub use host::Starvation;
use host::{Host, Input};
pub use release::Release;

/// The world begins this long after the origin of its clock: further back than any retention.
const EPOCH: Duration = Duration::from_secs(400 * 24 * 3600);

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

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: Duration::from_micros(500),
            jitter: Duration::from_micros(200),
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
        }
    }
}

#[derive(Debug)]
struct Event {
    host: HostId,
    run: u64,
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
    /// Connections from the first to the second fail like this.
    denials: BTreeMap<(HostId, HostId), Failure>,
    /// Ways between two hosts, the smaller number first, that are not like the others.
    ways: BTreeMap<(HostId, HostId), Link>,
    /// Whether bots of ours host bots of the original.
    hosts_guests: bool,
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
            denials: BTreeMap::new(),
            ways: BTreeMap::new(),
            hosts_guests: false,
            fingerprint: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Adds a host with a running bot that joins at `seeds`. Host number `n` has the target
    /// `host-n:8081`.
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

    /// The same with labels.
    pub fn add_labelled(&mut self, name: &str, labels: Labels, seeds: &[HostId]) -> HostId {
        let id = self.place(name, target_of(HostId(self.hosts.len())));
        self.hosts[id.0].labels = labels;
        self.start(id, seeds);
        id
    }

    fn place(&mut self, name: &str, target: Target) -> HostId {
        let id = HostId(self.hosts.len());
        let name = name.parse().expect("a scenario's names are valid");
        self.hosts.push(Host::new(name, target));
        id
    }

    /// Starts a process on a host that has none, at the host's present target.
    pub fn start(&mut self, id: HostId, seeds: &[HostId]) {
        let now = self.now_of(id);
        let seed = self.rng.u64(..);
        let seeds = seeds.iter().map(|seed| self.hosts[seed.0].target.clone()).collect();
        let host = &mut self.hosts[id.0];
        let mut core = Core::new(
            self.config.clone(),
            host.name.clone(),
            host.target.clone(),
            host.labels.clone(),
            seed,
            now,
        );
        if self.hosts_guests {
            core = core.with_gossipers(|record| !is_guest(record));
        }
        core.handle_seeds(seeds, now);
        host.begin_run();
        host.core = Some(core);
        self.listening.insert(host.target.clone(), id);
        self.begin_hosting(id);
        self.drain(id);
    }

    /// The next process that starts on a host is of this release.
    pub fn set_release(&mut self, id: HostId, release: Release) {
        self.hosts[id.0].release = release;
    }

    /// Rows of hosts of the next release that some running bot holds without what that release
    /// adds: it was lost on the way.
    pub fn rows_cut_short(&self) -> usize {
        let next: BTreeSet<_> = self
            .hosts
            .iter()
            .filter(|host| host.release == Release::Next)
            .map(|host| &host.name)
            .collect();
        let snapshots = self.running().filter_map(|id| self.snapshot(id));
        let rows = snapshots
            .flat_map(|snapshot| snapshot.members)
            .filter(|member| next.contains(&member.record.name));
        let frames = rows.filter_map(|member| member.row).map(|row| Arc::clone(row.frame()));
        frames.filter(|frame| !frame.sections().any(|(kind, _)| kind == release::FUTURE)).count()
    }

    /// Time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.now.since(Time::ZERO + EPOCH)
    }

    /// All hosts with a running bot, paused ones included.
    pub fn running(&self) -> impl Iterator<Item = HostId> + '_ {
        self.hosts
            .iter()
            .enumerate()
            .filter(|(_, host)| host.core.is_some())
            .map(|(index, _)| HostId(index))
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

    /// What the bot of a host knows of one other; none if no bot runs, or it knows no such name.
    pub fn member(&self, id: HostId, name: &NodeName) -> Option<MemberView> {
        self.hosts[id.0].core.as_ref()?.member(name)
    }

    /// What happened lately to the bot of a host, and the host's clocks; none if no bot runs.
    pub fn events(&self, id: HostId) -> Option<(&Events, Now)> {
        self.hosts[id.0].core.as_ref().map(|core| (core.events(), self.now_of(id)))
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

    /// Wall-clock time where no clock stepped.
    pub fn wall(&self) -> Wall {
        Wall::from_unix_millis(
            (Duration::from_secs(1_700_000_000) + self.elapsed()).as_millis() as u64
        )
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
                input if self.hosts[event.host.0].run == event.run => {
                    self.give(event.host, input);
                }
                Input::Knock(knock) => self.reset_knock(knock),
                _ => {}
            }
        }
        self.now = end;
    }

    /// Lets time pass until `done`, at most `limit`; tells how long it took.
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
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
    pub fn run_of(&self, id: HostId) -> u64 {
        self.hosts[id.0].run
    }

    /// Whether the host's wall clock never stepped, or back to where it was.
    pub fn wall_clock_is_true(&self, id: HostId) -> bool {
        self.hosts[id.0].wall_ahead == 0
    }

    fn note(&mut self, value: u64) {
        self.fingerprint = (self.fingerprint ^ value).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn schedule(&mut self, at: Time, host: HostId, input: Input) {
        let run = self.hosts[host.0].run;
        self.schedule_for(at, host, run, input);
    }

    fn schedule_for(&mut self, at: Time, host: HostId, run: u64, input: Input) {
        self.next_event += 1;
        let event = Some(Event { host, run, input });
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
