//! The judge of `insight`: breaks something in a settled mesh, and compares what the bots say with
//! what was done.
//!
//! A play is right if every observer names the culprit, in time, and nobody names anything else.

use std::collections::BTreeSet;
use std::time::Duration;

use canary_core::{Config, Labels, NodeName};
use canary_insight::{Change, Confidence, Culprit, Incident, Insight};
use fastrand::Rng;

use crate::check;
use crate::world::{HostId, Link, World};

mod faults;

pub use faults::{ALL, Expect, Fault};

/// From a detected fault to its name.
const NAMED_WITHIN: Duration = Duration::from_secs(15);
/// From a fault until all can know that something fails, in a mesh where every pair is measured
/// more often than that.
const DETECTED_WITHIN: Duration = Duration::from_secs(6);
/// Observers in a mesh of more than twenty: the culprit's own bots, and some others.
const OBSERVERS_MAX: usize = 12;

/// The culprit of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blame {
    /// A node.
    Node(HostId),
    /// The way between two, in one direction or both.
    Path(HostId, HostId),
    /// The way between two groups.
    Groups(Vec<HostId>, Vec<HostId>),
}

/// A mesh to break.
#[derive(Debug)]
pub struct Mesh {
    /// The world.
    pub world: World,
    /// What the fault draws from.
    pub rng: Rng,
    /// The zone of each host, whether or not it has a label.
    pub zones: Vec<usize>,
    labelled: bool,
    observers: Vec<(HostId, u64, Insight, u64)>,
    /// What was claimed.
    claims: Vec<Claim>,
}

#[derive(Clone, Debug)]
struct Claim {
    observer: HostId,
    at: Duration,
    change: Change,
    incident: std::sync::Arc<Incident>,
}

/// What came out of one play.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Observers that could have named the culprit.
    pub observers: usize,
    /// How long each of those that did took, shortest first.
    pub named: Vec<Duration>,
    /// What else was claimed, by how many, with the greatest confidence.
    pub wrong: Vec<(String, usize, Confidence)>,
    /// Whether two observers of one side gave one incident different ids.
    pub disagree: bool,
    /// Incidents that were still open two minutes after the repair.
    pub left_open: usize,
    /// Names that all observers together had to give.
    pub expected: usize,
    /// In which time.
    pub bound: Duration,
    /// Everything that was claimed, in order.
    pub log: Vec<String>,
}

impl Outcome {
    /// Whether the right culprit was named by everybody in time, and alone.
    pub fn is_right(&self) -> bool {
        let in_time = self.named.iter().filter(|taken| **taken <= self.bound).count();
        self.wrong.is_empty() && in_time >= self.expected
    }

    /// Whether a wrong culprit was stated with high confidence.
    pub fn is_misleading(&self) -> bool {
        self.wrong.iter().any(|(.., confidence)| *confidence == Confidence::High)
    }
}

impl Mesh {
    fn new(nodes: usize, seed: u64, labelled: bool, config: Config) -> Self {
        let rng = Rng::with_seed(seed ^ 0x1d5e_c7ed);
        let mut world = World::new(seed, config, Link::default());
        let zone_count = if nodes < 8 { 2 } else { 4 };
        let zones: Vec<_> = (0..nodes).map(|index| index * zone_count / nodes).collect();
        for (index, zone) in zones.iter().enumerate() {
            let seeds: Vec<_> = (0..index.min(3)).map(HostId).collect();
            world.add_labelled(&format!("bot-{index:03}"), labels(*zone, labelled), &seeds);
        }
        Self { world, rng, zones, labelled, observers: Vec::new(), claims: Vec::new() }
    }

    /// Another bot starts.
    pub fn join(&mut self, index: usize) {
        let zone = self.zones.last().copied().unwrap_or_default();
        self.zones.push(zone);
        self.world.add_labelled(
            &format!("bot-{index:03}"),
            labels(zone, self.labelled),
            &[HostId(0), HostId(1), HostId(2)],
        );
    }

    /// A host that nobody joins at: those that are left find each other again.
    pub fn any(&mut self) -> HostId {
        HostId(self.rng.usize(3..self.zones.len()))
    }

    /// Another one.
    pub fn any_but(&mut self, not: &[HostId]) -> HostId {
        loop {
            let id = HostId(self.rng.usize(..self.zones.len()));
            if !not.contains(&id) {
                return id;
            }
        }
    }

    /// All hosts of a zone.
    pub fn zone(&self, zone: usize) -> Vec<HostId> {
        self.zones
            .iter()
            .enumerate()
            .filter(|(_, of)| **of == zone)
            .map(|(index, _)| HostId(index))
            .collect()
    }

    /// All hosts but these.
    pub fn all_but(&self, not: &[HostId]) -> Vec<HostId> {
        (0..self.zones.len()).map(HostId).filter(|id| !not.contains(id)).collect()
    }

    /// Lets time pass, and observes every second.
    pub fn run(&mut self, duration: Duration) {
        let end = self.world.elapsed() + duration;
        while self.world.elapsed() < end {
            self.world.run(Duration::from_secs(1).min(end - self.world.elapsed()));
            self.observe();
        }
    }

    fn observe(&mut self) {
        let at = self.world.elapsed();
        for (id, run, insight, read) in &mut self.observers {
            let runs = self.world.runs_freely(*id) && self.world.run_of(*id) == *run;
            let Some(snapshot) = self.world.snapshot(*id).filter(|_| runs) else { continue };
            let report = insight.observe(&snapshot);
            for event in report.events.iter().filter(|event| event.sequence > *read) {
                self.claims.push(Claim {
                    observer: *id,
                    at,
                    change: event.change,
                    incident: event.incident.clone(),
                });
            }
            *read = report.events.last().map_or(*read, |event| event.sequence);
        }
    }

    /// All bots of a small mesh; of a large one some, and those that the fault is about.
    fn choose_observers(&mut self, concerned: &[HostId]) {
        let mut all: Vec<_> = self.world.running().collect();
        if all.len() > 20 {
            self.rng.shuffle(&mut all);
            all.truncate(OBSERVERS_MAX);
            all.extend(concerned);
            all.sort_unstable();
            all.dedup();
        }
        self.observers =
            all.into_iter().map(|id| (id, self.world.run_of(id), Insight::new(), 0)).collect();
    }

    /// Observers whose process has run since they began, and runs freely.
    fn watching(&self) -> Vec<HostId> {
        let runs =
            |id: HostId, run: u64| self.world.runs_freely(id) && self.world.run_of(id) == run;
        self.observers.iter().filter(|(id, run, ..)| runs(*id, *run)).map(|(id, ..)| *id).collect()
    }

    fn name(&self, id: HostId) -> NodeName {
        self.world.name(id).clone()
    }

    fn is_blamed(&self, blame: &Blame, incident: &Incident, expect: &Expect) -> bool {
        let is_node = |(blame, _): &(Blame, _)| {
            if let Blame::Node(id) = blame { Some(self.name(*id)) } else { None }
        };
        let down: BTreeSet<_> = expect.blames.iter().filter_map(is_node).collect();
        let names = |ids: &[HostId]| ids.iter().map(|id| self.name(*id)).collect::<BTreeSet<_>>();
        match (blame, &incident.culprit) {
            (Blame::Node(id), Culprit::Node(name)) => *name == self.name(*id),
            (Blame::Path(a, b), Culprit::Path { source, target, .. }) => {
                names(&[*a, *b]) == BTreeSet::from([source.clone(), target.clone()])
            }
            (Blame::Groups(a, b), Culprit::Groups { from, to, .. }) => {
                let (one, other): (BTreeSet<_>, BTreeSet<_>) =
                    (from.nodes.iter().cloned().collect(), to.nodes.iter().cloned().collect());
                let (a, b) = (names(a), names(b));
                // Of what is down besides nobody can tell on which side it is.
                let is = |seen: &BTreeSet<NodeName>, is: &BTreeSet<NodeName>| {
                    seen.symmetric_difference(is).all(|name| down.contains(name))
                };
                (is(&one, &a) && is(&other, &b)) || (is(&one, &b) && is(&other, &a))
            }
            // A group of one is a node, and two groups of one are a path.
            (Blame::Groups(a, b), Culprit::Node(name)) => {
                [a, b].iter().any(|side| side.len() == 1 && names(side).contains(name))
            }
            _ => false,
        }
    }
}

fn labels(zone: usize, labelled: bool) -> Labels {
    let label = || ("zone".to_owned(), char::from(b'a' + zone as u8).to_string());
    Labels::new(labelled.then(label)).expect("labels of a play are valid")
}

/// Plays one fault; none if it makes no sense in so small a mesh.
pub fn play(fault: &Fault, nodes: usize, seed: u64, labelled: bool) -> Option<Outcome> {
    if nodes < fault.nodes_min {
        return None;
    }
    let config = (fault.config)();
    let mut mesh = Mesh::new(nodes, seed, labelled, config.clone());
    let pair_interval =
        config.probe_interval.max(Duration::from_secs_f64(nodes as f64 / config.probe_rate_max));
    mesh.world.run_until(Duration::from_secs(60) + pair_interval * 4, check::all_know_all);
    mesh.world.run(pair_interval * 2 + Duration::from_secs(10));
    let mut expect = Expect::default();
    (fault.choose)(&mut mesh, &mut expect);
    mesh.choose_observers(&expect.watched());
    // What is usual has to be learned before it can be seen to change.
    let published = config.publish_interval.max(pair_interval);
    mesh.run(if fault.needs_warmth { published * 10 } else { Duration::from_secs(12) });
    let begun = mesh.world.elapsed();
    (fault.act)(&mut mesh, &mut expect);
    let acted = mesh.world.elapsed();
    // What is slower than usual is detected when it was published three times.
    let detected =
        if fault.needs_warmth { published * 3 } else { DETECTED_WITHIN.max(pair_interval) };
    let bound = NAMED_WITHIN + detected;
    let bound = bound + if fault.causes > 1 { acted - begun } else { Duration::ZERO };
    mesh.run(
        (bound + Duration::from_secs(5)).saturating_sub(acted - begun).max(Duration::from_secs(5)),
    );
    let watching = mesh.watching();
    (fault.repair)(&mut mesh, &mut expect);
    mesh.run(if fault.needs_warmth {
        published * 10 + Duration::from_secs(60)
    } else {
        Duration::from_secs(130) + pair_interval * 2
    });
    let (named, agree) = named(&mesh, &expect, begun, &watching);
    let expected = expect
        .blames
        .iter()
        .map(|(blame, _)| watching.iter().filter(|id| expect.can_name(**id, blame)).count())
        .sum();
    let (wrong, left_open) = (wrong(&mesh, &expect), open_at_end(&mesh));
    Some(Outcome {
        observers: watching.len(),
        named,
        wrong,
        disagree: !agree,
        left_open,
        expected,
        bound,
        log: log(&mesh, begun),
    })
}

fn log(mesh: &Mesh, begun: Duration) -> Vec<String> {
    let line = |claim: &Claim| {
        let at = claim.at.as_secs_f64() - begun.as_secs_f64();
        let (by, change, incident) =
            (mesh.world.name(claim.observer), claim.change.as_str(), &claim.incident);
        let confidence = incident.confidence.as_str();
        format!(
            "{at:6.1} s  {by} {change} {} {} ({confidence}): {} {}",
            incident.kind.as_str(),
            incident.culprit,
            incident.summary,
            incident.evidence.join("; ")
        )
    };
    mesh.claims.iter().map(line).collect()
}

/// When observers that watch named what was to be named, and whether they gave it one id.
fn named(
    mesh: &Mesh,
    expect: &Expect,
    begun: Duration,
    watching: &[HostId],
) -> (Vec<Duration>, bool) {
    let mut named = Vec::new();
    let mut agree = true;
    for (blame, kinds) in &expect.blames {
        let mut ids = BTreeSet::new();
        for observer in watching.iter().filter(|observer| expect.can_name(**observer, blame)) {
            let right = mesh.claims.iter().find(|claim| {
                claim.observer == *observer
                    && claim.at > begun
                    && claim.change != Change::Closed
                    && kinds.contains(&claim.incident.kind)
                    && mesh.is_blamed(blame, &claim.incident, expect)
            });
            if let Some(claim) = right {
                named.push(claim.at - begun);
                ids.insert(claim.incident.id);
            }
        }
        agree &= ids.len() <= 1;
    }
    named.sort_unstable();
    (named, agree)
}

fn wrong(mesh: &Mesh, expect: &Expect) -> Vec<(String, usize, Confidence)> {
    let mut wrong: Vec<(String, BTreeSet<HostId>, Confidence)> = Vec::new();
    for claim in mesh.claims.iter().filter(|claim| claim.change != Change::Closed) {
        let said = expect.blames.iter().chain(&expect.also);
        if said.into_iter().any(|(blame, kinds)| {
            kinds.contains(&claim.incident.kind) && mesh.is_blamed(blame, &claim.incident, expect)
        }) {
            continue;
        }
        let what = format!("{} {}", claim.incident.kind.as_str(), claim.incident.culprit);
        match wrong.iter_mut().find(|(known, ..)| *known == what) {
            Some((_, by, confidence)) => {
                by.insert(claim.observer);
                *confidence = (*confidence).max(claim.incident.confidence);
            }
            None => wrong.push((what, BTreeSet::from([claim.observer]), claim.incident.confidence)),
        }
    }
    wrong.into_iter().map(|(what, by, confidence)| (what, by.len(), confidence)).collect()
}

fn open_at_end(mesh: &Mesh) -> usize {
    let mut open = BTreeSet::new();
    for claim in &mesh.claims {
        let key = (claim.observer, claim.incident.id);
        if claim.change == Change::Closed {
            open.remove(&key)
        } else {
            open.insert(key)
        };
    }
    let watching = mesh.watching();
    open.into_iter().filter(|(observer, _)| watching.contains(observer)).count()
}
