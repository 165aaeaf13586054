//! A scenario's stage: a world, the script of its faults, and what was found out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use canary_core::{Attempt, Config, EventKind, NodeName};
use fastrand::Rng;

use crate::check::{self, Matrix};
use crate::world::{HostId, Link, Starvation, World};

pub use crate::setup::{Observers, Setup};

/// A disturbance explains what is seen for so long after it: questions, suspicion, death and their
/// spread.
const AFTERMATH: Duration = Duration::from_secs(20);
/// How long all hosts are excused: longer than a fault that begins and ends between two checks.
const EXCUSED: Duration = Duration::from_secs(50);
/// How long a pausing observer stands still.
pub const OBSERVER_PAUSE: Duration = Duration::from_secs(2);
/// Labels of attempts are exact to a tick, and an attempt at the very edge of an outage may go
/// either way.
const EDGE: Duration = Duration::from_millis(300);

/// What was checked, and what came out.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was promised.
    pub promise: String,
    /// What was seen.
    pub figure: String,
    /// What it is held against.
    pub bound: String,
    /// Whether the promise was kept.
    pub held: bool,
}

/// What is done to a host, and undone by its own undoing only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Process,
    Pause,
    Silence,
    Island,
    Pair,
}

/// A time in which something was done to a host, in time since the world began.
#[derive(Clone, Copy, Debug)]
struct Disturbance {
    kind: Kind,
    from: Duration,
    /// None while it lasts.
    to: Option<Duration>,
    /// Others may hold it for dead because of this.
    may_be_dead: bool,
    /// It may hold others for dead because of this.
    may_be_wrong: bool,
}

/// A pair that could not be measured for a while; none stands for everybody.
#[derive(Clone, Copy, Debug)]
struct Outage {
    kind: Kind,
    from: HostId,
    to: Option<HostId>,
    begin: Duration,
    end: Option<Duration>,
}

/// Somebody held somebody for dead.
#[derive(Clone, Debug)]
pub struct Death {
    /// Who.
    pub observer: HostId,
    /// Whom.
    pub name: NodeName,
    /// When, since the world began.
    pub at: Duration,
}

/// A world with its script and findings.
#[derive(Debug)]
pub struct Stage {
    /// The world.
    pub world: World,
    /// What it is made from.
    pub setup: Setup,
    /// What the scenario draws from.
    pub rng: Rng,
    /// What was found out.
    pub findings: Vec<Finding>,
    matrix: Matrix,
    disturbances: BTreeMap<HostId, Vec<Disturbance>>,
    outages: Vec<Outage>,
    /// The next event to read of each process.
    read: BTreeMap<(HostId, u64), u64>,
    deaths: Vec<Death>,
    status_changes: Vec<Duration>,
    lies: BTreeSet<String>,
    /// Names that more than one bot has.
    pub ambiguous: BTreeSet<NodeName>,
    pausing: Vec<HostId>,
    /// The pausing stand still.
    standing: bool,
    /// What was done, and when, to find the cause.
    script: Vec<(Duration, String)>,
}

impl Stage {
    /// A world of `setup.nodes` bots that start at one instant and join at the first three.
    pub fn new(setup: Setup) -> Self {
        let publish_interval = setup.publish_interval;
        Self::with_config(setup, Config { publish_interval, ..Config::default() })
    }

    /// The same with settings other than the defaults.
    pub fn with_config(setup: Setup, config: Config) -> Self {
        let link = Link { loss: setup.loss, ..Link::default() };
        let mut stage = Self {
            world: World::new(setup.seed, config, link),
            setup,
            rng: Rng::with_seed(setup.seed ^ 0x9e37_79b9_7f4a_7c15),
            findings: Vec::new(),
            matrix: Matrix::new(setup.loss > 0.0),
            disturbances: BTreeMap::new(),
            outages: Vec::new(),
            read: BTreeMap::new(),
            deaths: Vec::new(),
            status_changes: Vec::new(),
            lies: BTreeSet::new(),
            ambiguous: BTreeSet::new(),
            pausing: Vec::new(),
            standing: false,
            script: Vec::new(),
        };
        for index in 0..setup.nodes {
            let seeds = stage.seeds(HostId(index));
            stage.world.add(&format!("bot-{index:04}"), &seeds);
        }
        stage
    }

    /// The first three hosts that are there already.
    pub fn seeds(&self, of: HostId) -> Vec<HostId> {
        (0..3).map(HostId).filter(|seed| *seed != of && seed.0 < self.world.len()).collect()
    }

    /// How finely time is cut when a state is waited for: looking at a thousand bots costs more
    /// than running them.
    fn step(&self) -> Duration {
        Duration::from_millis(if self.world.len() <= 60 { 50 } else { 250 })
    }

    /// Lets time pass, and reads what the bots report.
    pub fn run(&mut self, duration: Duration) {
        // The world's clock counts microseconds.
        let end = self.world.elapsed() + Duration::from_micros(duration.as_micros() as u64);
        while self.world.elapsed() < end {
            self.slice(end.saturating_sub(self.world.elapsed()).min(Duration::from_secs(1)));
            self.read();
        }
    }

    /// Lets a little time pass; the pausing stand still for two seconds out of ten.
    fn slice(&mut self, duration: Duration) {
        let standing = self.world.elapsed().as_secs() % 10 < OBSERVER_PAUSE.as_secs();
        if standing != self.standing {
            self.standing = standing;
            for id in self.pausing.clone() {
                if standing { self.world.pause(id) } else { self.world.resume(id) }
            }
        }
        self.world.run(duration);
    }

    /// Reads the events of everybody, and looks for latencies that cannot be.
    pub fn read(&mut self) {
        let elapsed = self.world.elapsed();
        for id in self.world.running().collect::<Vec<_>>() {
            let Some((events, now)) = self.world.events(id) else { continue };
            let next = self.read.entry((id, self.world.run_of(id))).or_default();
            for event in events.since(*next) {
                *next = event.sequence + 1;
                // Where the wall clock stepped, the time of reading has to do.
                let behind = Duration::from_millis(
                    now.wall.unix_millis().saturating_sub(event.wall.unix_millis()),
                );
                let at = elapsed.saturating_sub(if self.world.wall_clock_is_true(id) {
                    behind
                } else {
                    Duration::ZERO
                });
                match &event.kind {
                    EventKind::Died(name) => {
                        self.deaths.push(Death { observer: id, name: name.clone(), at });
                        self.status_changes.push(at);
                    }
                    EventKind::Revived(_) | EventKind::Left(_) => self.status_changes.push(at),
                    _ => {}
                }
            }
            if self.outages.is_empty() || !self.world.wall_clock_is_true(id) {
                continue;
            }
            for outage in
                self.outages.iter().filter(|outage| outage.from == id || outage.to.is_none())
            {
                let others = match outage.to {
                    Some(to) => self.world.member(id, self.world.name(to)).into_iter().collect(),
                    None if outage.from == id => {
                        self.world.snapshot(id).map_or_else(Vec::new, |snapshot| snapshot.members)
                    }
                    None => {
                        self.world.member(id, self.world.name(outage.from)).into_iter().collect()
                    }
                };
                for member in
                    others.iter().filter(|member| !self.ambiguous.contains(&member.record.name))
                {
                    let Some((Attempt::Ok(timing), wall)) = member.pair.main().latest() else {
                        continue;
                    };
                    let begun = elapsed.saturating_sub(Duration::from_millis(
                        now.wall.unix_millis().saturating_sub(wall.unix_millis()),
                    ));
                    let answered = begun + timing.total();
                    let end = outage.end.unwrap_or(elapsed);
                    if begun > outage.begin + EDGE && answered + EDGE < end {
                        self.lies.insert(format!(
                            "{} measured {} at {begun:?}",
                            self.world.name(id),
                            member.record.name
                        ));
                    }
                }
            }
        }
    }

    /// Waits for a state, at most `limit`; tells how long it took.
    pub fn wait(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&World) -> bool,
    ) -> Option<Duration> {
        let begun = self.world.elapsed();
        while !done(&self.world) {
            if self.world.elapsed() >= begun + limit {
                self.read();
                return None;
            }
            self.slice(self.step());
        }
        self.read();
        Some(self.world.elapsed() - begun)
    }

    /// Waits until every bot knows every bot.
    pub fn wait_known(&mut self, limit: Duration) -> Option<Duration> {
        self.wait(limit, check::all_know_all)
    }

    /// Waits until every bot knows every bot and holds a measurement of every pair.
    pub fn wait_whole(&mut self, limit: Duration) -> Option<Duration> {
        self.wait_whole_while(limit, |_| {})
    }

    /// The same; `look` sees every step on the way.
    pub fn wait_whole_while(
        &mut self,
        limit: Duration,
        mut look: impl FnMut(&World),
    ) -> Option<Duration> {
        let mut matrix = std::mem::take(&mut self.matrix);
        let taken = self.wait(limit, |world| {
            look(world);
            check::all_know_all(world) && matrix.full(world)
        });
        self.matrix = matrix;
        taken
    }

    /// A mesh that is whole before anything is done to it.
    pub fn settle(&mut self) {
        let limit = Duration::from_secs(120) + self.pair_interval() * 6;
        let whole = self.wait_whole(limit);
        self.found("the mesh settles before the faults begin", whole, limit);
    }

    /// How often each pair is measured in a mesh of this size.
    pub fn pair_interval(&self) -> Duration {
        let config = Config::default();
        config
            .probe_interval
            .max(Duration::from_secs_f64(self.world.len() as f64 / config.probe_rate_max))
    }

    /// Makes a tenth of the bots, three at most in a mesh of forty, fare as the setup wants; never
    /// one of `spared`.
    pub fn disturb_observers(&mut self, spared: &[HostId]) {
        let all: Vec<_> = self.world.running().filter(|id| !spared.contains(id)).collect();
        let chosen: Vec<_> = all.iter().copied().step_by(10).collect();
        match self.setup.observers {
            Observers::Healthy => {}
            Observers::Pausing => self.pausing = chosen,
            Observers::Starved => {
                let starvation = Starvation {
                    run: Duration::from_millis(20),
                    every: Duration::from_millis(200),
                };
                chosen.into_iter().for_each(|id| self.world.starve(id, Some(starvation)));
            }
        }
    }

    /// Ends what [`Stage::disturb_observers`] began.
    pub fn relieve_observers(&mut self) {
        for id in std::mem::take(&mut self.pausing) {
            self.world.resume(id);
        }
        self.standing = false;
        self.world
            .running()
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|id| self.world.starve(id, None));
    }

    /// What was done, and when.
    pub fn script(&self) -> &[(Duration, String)] {
        &self.script
    }

    /// Writes down what is done.
    pub fn write(&mut self, what: String) {
        self.script.push((self.world.elapsed(), what));
    }

    fn disturb(&mut self, kind: Kind, id: HostId, may_be_dead: bool, may_be_wrong: bool) {
        let from = self.world.elapsed();
        self.disturbances.entry(id).or_default().push(Disturbance {
            kind,
            from,
            to: None,
            may_be_dead,
            may_be_wrong,
        });
    }

    /// What was done to the host is over.
    fn undisturb(&mut self, kind: Kind, id: HostId) {
        let now = self.world.elapsed();
        for disturbance in self
            .disturbances
            .entry(id)
            .or_default()
            .iter_mut()
            .filter(|disturbance| disturbance.kind == kind)
        {
            disturbance.to = disturbance.to.or(Some(now));
        }
        for outage in self
            .outages
            .iter_mut()
            .filter(|outage| outage.kind == kind && (outage.from == id || outage.to == Some(id)))
        {
            outage.end = outage.end.or(Some(now));
        }
    }

    /// How many bots run that nothing is done to.
    pub fn undisturbed(&self) -> usize {
        let disturbed = |id: &HostId| {
            self.disturbances
                .get(id)
                .is_some_and(|all| all.iter().any(|disturbance| disturbance.to.is_none()))
        };
        self.world.running().filter(|id| !disturbed(id)).count()
    }

    /// Whatever anybody holds of anybody just now, and for a while, is no lie.
    pub fn excuse_all(&mut self) {
        let now = self.world.elapsed();
        for id in (0..self.world.len()).map(HostId) {
            self.disturbances.entry(id).or_default().push(Disturbance {
                kind: Kind::Pair,
                from: now,
                to: Some(now + EXCUSED),
                may_be_dead: true,
                may_be_wrong: true,
            });
        }
    }

    fn outage(&mut self, kind: Kind, from: HostId, to: Option<HostId>) {
        self.outages.push(Outage { kind, from, to, begin: self.world.elapsed(), end: None });
    }

    /// The process ends without a word.
    pub fn crash(&mut self, id: HostId) {
        self.write(format!("crash {}", id.0));
        self.disturb(Kind::Process, id, true, false);
        self.outage(Kind::Process, id, None);
        self.world.crash(id);
    }

    /// The process says goodbye and ends.
    pub fn leave(&mut self, id: HostId) {
        self.write(format!("leave {}", id.0));
        self.disturb(Kind::Process, id, true, false);
        self.world.leave(id);
    }

    /// A process starts where one had ended.
    pub fn start(&mut self, id: HostId) {
        self.write(format!("start {}", id.0));
        let seeds = self.seeds(id);
        self.world.start(id, &seeds);
        self.undisturb(Kind::Process, id);
        self.undisturb(Kind::Pause, id);
    }

    /// The process stops running, for longer than others wait.
    pub fn pause(&mut self, id: HostId) {
        self.write(format!("pause {}", id.0));
        self.disturb(Kind::Pause, id, true, false);
        self.outage(Kind::Pause, id, None);
        self.world.pause(id);
    }

    /// It runs again.
    pub fn resume(&mut self, id: HostId) {
        self.write(format!("resume {}", id.0));
        self.undisturb(Kind::Pause, id);
        self.world.resume(id);
    }

    /// Packets to and from the host vanish.
    pub fn silence(&mut self, id: HostId) {
        self.write(format!("silence {}", id.0));
        self.disturb(Kind::Silence, id, true, true);
        self.outage(Kind::Silence, id, None);
        self.world.silence(id, true);
    }

    /// They travel again.
    pub fn unsilence(&mut self, id: HostId) {
        self.write(format!("unsilence {}", id.0));
        self.undisturb(Kind::Silence, id);
        self.world.silence(id, false);
    }

    /// Puts some hosts on an island of their own.
    pub fn part(&mut self, island: &[HostId]) {
        self.write(format!("part {:?}", island.iter().map(|id| id.0).collect::<Vec<_>>()));
        for id in self.world.running().collect::<Vec<_>>() {
            self.disturb(Kind::Island, id, true, true);
        }
        let others: Vec<_> = self.world.running().filter(|id| !island.contains(id)).collect();
        for id in island {
            self.world.put_on_island(*id, 1);
            for other in &others {
                self.outage(Kind::Island, *id, Some(*other));
                self.outage(Kind::Island, *other, Some(*id));
            }
        }
    }

    /// One mesh again.
    pub fn unite(&mut self) {
        self.write("unite".to_owned());
        for id in (0..self.world.len()).map(HostId) {
            self.world.put_on_island(id, 0);
            self.undisturb(Kind::Island, id);
        }
    }

    /// Packets from one host to another vanish; no connection works in either direction.
    pub fn cut(&mut self, from: HostId, to: HostId) {
        self.write(format!("cut {} -> {}", from.0, to.0));
        self.outage(Kind::Pair, from, Some(to));
        self.outage(Kind::Pair, to, Some(from));
        self.world.cut(from, to, true);
    }

    /// Connections from one host to another are refused.
    pub fn refuse(&mut self, from: HostId, to: HostId) {
        self.write(format!("refuse {} -> {}", from.0, to.0));
        self.outage(Kind::Pair, from, Some(to));
        self.world.refuse(from, to, true);
    }

    /// Ends [`Stage::cut`] and [`Stage::refuse`] of a pair.
    pub fn repair(&mut self, from: HostId, to: HostId) {
        self.write(format!("repair {} -> {}", from.0, to.0));
        let now = self.world.elapsed();
        self.world.cut(from, to, false);
        self.world.refuse(from, to, false);
        let ended = |outage: &&mut Outage| {
            outage.kind == Kind::Pair
                && ((outage.from, outage.to) == (from, Some(to))
                    || (outage.from, outage.to) == (to, Some(from)))
        };
        self.outages
            .iter_mut()
            .filter(ended)
            .for_each(|outage| outage.end = outage.end.or(Some(now)));
    }

    /// Moves a host that runs nothing to another address.
    pub fn move_to(&mut self, id: HostId, target: canary_core::Target) {
        self.world.move_to(id, target);
    }

    /// Writes down a time that has a limit.
    pub fn found(&mut self, promise: &str, taken: Option<Duration>, limit: Duration) {
        let figure = taken
            .map_or_else(|| "never".to_owned(), |taken| format!("{:.2} s", taken.as_secs_f64()));
        let bound = format!("{:.1} s", limit.as_secs_f64());
        self.findings.push(Finding {
            promise: promise.to_owned(),
            figure,
            bound,
            held: taken.is_some_and(|taken| taken <= limit),
        });
    }

    /// Writes down a number that has a limit.
    pub fn found_number(&mut self, promise: &str, figure: f64, limit: f64, unit: &str) {
        let held = figure <= limit;
        self.findings.push(Finding {
            promise: promise.to_owned(),
            figure: format!("{figure:.1} {unit}"),
            bound: format!("{limit:.1} {unit}"),
            held,
        });
    }

    /// Writes down whether something is so.
    pub fn found_that(&mut self, promise: &str, held: bool, detail: impl Into<String>) {
        self.findings.push(Finding {
            promise: promise.to_owned(),
            figure: detail.into(),
            bound: "always".to_owned(),
            held,
        });
    }

    /// When each of `observers` first held `name` for dead after `since`, as a time after it.
    pub fn detections(
        &self,
        name: &NodeName,
        since: Duration,
        observers: &[HostId],
    ) -> Vec<Option<Duration>> {
        let first = |observer: &HostId| {
            let deaths = self.deaths.iter().filter(|death| {
                death.observer == *observer && death.name == *name && death.at >= since
            });
            deaths.map(|death| death.at.saturating_sub(since)).min()
        };
        observers.iter().map(first).collect()
    }

    /// Waits until all of `observers` held each of `names` for dead, or were found not to; in steps
    /// of a second.
    pub fn wait_detected(
        &mut self,
        names: &[NodeName],
        observers: &[HostId],
        limit: Duration,
    ) -> Vec<Vec<Option<Duration>>> {
        let since = self.world.elapsed();
        loop {
            let detections: Vec<_> =
                names.iter().map(|name| self.detections(name, since, observers)).collect();
            if detections.iter().flatten().all(Option::is_some)
                || self.world.elapsed() >= since + limit
            {
                return detections;
            }
            self.run(Duration::from_secs(1));
        }
    }

    /// How often anybody held anybody for dead so far.
    pub fn deaths(&self) -> usize {
        self.deaths.len()
    }

    /// Deaths that nothing in the script explains.
    pub fn false_deaths(&self) -> Vec<Death> {
        let hosts: BTreeMap<_, _> = (0..self.world.len())
            .map(|index| (self.world.name(HostId(index)).clone(), HostId(index)))
            .collect();
        let explained = |id: HostId, at: Duration, which: fn(&Disturbance) -> bool| {
            let all = self.disturbances.get(&id).map_or(&[][..], Vec::as_slice);
            // What a host goes through goes on where it was when the host runs again.
            let ran = |from: Duration| {
                let pauses = all.iter().filter(|disturbance| disturbance.kind == Kind::Pause);
                let paused: Duration = pauses
                    .map(|pause| {
                        pause.to.unwrap_or(at).min(at).saturating_sub(pause.from.max(from))
                    })
                    .sum();
                at.saturating_sub(from).saturating_sub(paused)
            };
            all.iter().any(|disturbance| {
                which(disturbance)
                    && disturbance.from <= at
                    && disturbance.to.is_none_or(|to| at <= to || ran(to) <= AFTERMATH)
            })
        };
        let unexplained = |death: &&Death| {
            let subject = hosts
                .get(&death.name)
                .is_some_and(|id| explained(*id, death.at, |disturbance| disturbance.may_be_dead));
            !subject && !explained(death.observer, death.at, |disturbance| disturbance.may_be_wrong)
        };
        self.deaths.iter().filter(unexplained).cloned().collect()
    }

    /// The time of the latest change of anybody's status at anybody.
    pub fn last_status_change(&self) -> Duration {
        self.status_changes.iter().max().copied().unwrap_or_default()
    }

    /// What holds at the end of every scenario.
    pub fn conclude(&mut self) {
        let before = check::probes_ended(&self.world);
        // A bot that was short of time measures less often for a while, and says so.
        let slowest = self
            .world
            .running()
            .filter_map(|id| self.world.snapshot(id))
            .map(|snapshot| snapshot.pair_interval)
            .max();
        self.run(Duration::from_secs(10).max(slowest.unwrap_or_default() * 2));
        let after = check::probes_ended(&self.world);
        let free = before.iter().filter(|(id, _)| self.world.runs_freely(**id));
        let wedged = free
            .filter(|(id, ended)| {
                self.world.len() > 1 && after.get(id).is_some_and(|now| now <= ended)
            })
            .count();
        self.found_that("nobody is wedged", wedged == 0, format!("{wedged} bots stand still"));
        self.read();
        let false_deaths = self.false_deaths();
        let example = false_deaths.first().map_or_else(String::new, |death| {
            let before = self.script.iter().filter(|(at, _)| *at <= death.at).rev().take(8);
            let script: Vec<_> =
                before.map(|(at, what)| format!("{what} at {:.1}", at.as_secs_f64())).collect();
            let (name, at, by) =
                (&death.name, death.at.as_secs_f64(), self.world.name(death.observer));
            format!(", first {name} at {at:.2} s by {by} after {}", script.join(", "))
        });
        self.found_that(
            "no living node is considered dead",
            false_deaths.is_empty(),
            format!("{} false deaths{example}", false_deaths.len()),
        );
        let lies = self.lies.len();
        let example = self.lies.first().cloned().unwrap_or_default();
        self.found_that("an outage is no latency", lies == 0, format!("{lies} lies {example}"));
        if self.world.len() <= 200 {
            let sane = check::no_bogus_latency(&self.world, Config::default().probe_timeout);
            self.found_that("no latency is above the probe timeout", sane, "all rows read");
        }
    }
}
