//! What the log reports: one line for each thing that happened, however many bots, pairs or
//! attempts show it.
//!
//! Changes of one kind are collected for a moment, so that a partition is one line and not one for
//! each node behind it. What repeats is logged once a minute, with the number of lines left out.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::Core;
use crate::cell::{Failure, State};
use crate::identity::{NodeName, Record, Target};
use crate::members::{Member, Slot};
use crate::time::{Moment, Time};

/// A change waits so long for others of its kind; every further one adds as much again, up to the
/// second figure.
const GATHER: (Duration, Duration) = (Duration::from_millis(1500), Duration::from_secs(5));
/// Up to so many changes of one kind have a line each.
const LINES_MAX: usize = 3;
/// Names in a line that stands for many changes.
const NAMES_MAX: usize = 8;
/// Changes of one kind that are kept until they are logged; further ones are counted.
const GATHERED_MAX: usize = 64;
/// What repeats is logged so often.
const REPEAT: Duration = Duration::from_secs(60);
/// How long a target may fail, and a bot be alone, before that is logged.
const TARGET_PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));
/// How often this bot looks at itself with others' eyes.
const LOOK: Duration = Duration::from_secs(5);
/// Rows that are read to find out who reaches a node.
const ROWS_READ_MAX: usize = 128;
/// Distance of this host's clock from the others' that is logged, and how often.
const CLOCK: (u64, Duration) = (5000, Duration::from_secs(3600));

/// Lets one line a minute pass.
#[derive(Debug, Default)]
struct Seldom {
    again: Time,
    left_out: u64,
}

impl Seldom {
    /// How many were left out before this one; none if this one is, too.
    fn allows(&mut self, now: Moment) -> Option<u64> {
        if now.time < self.again {
            self.left_out += 1;
            return None;
        }
        self.again = now.time + REPEAT;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// What changed; the order is the order of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Dead,
    Back,
    Unreached,
    Reached,
}

/// Changes of one kind that wait for others.
#[derive(Debug)]
struct Gathered {
    first_at: Time,
    latest_at: Time,
    changes: Vec<Change>,
    more: usize,
}

#[derive(Debug)]
struct Change {
    name: NodeName,
    target: Target,
    kind: Option<Failure>,
    lasted: Duration,
}

/// What was logged, and what waits to be.
#[derive(Debug)]
pub(super) struct Reports {
    gathered: BTreeMap<Topic, Gathered>,
    names_claimed: Seldom,
    joiners: Seldom,
    other_meshes: Seldom,
    strangers: Seldom,
    alone_again: Time,
    looked_at: Time,
    /// Since when all others fail to reach this bot, and whether that was logged.
    unreached: Option<(Time, bool)>,
    clock_again: Time,
}

impl Reports {
    pub(super) fn new(started: Time) -> Self {
        Self {
            gathered: BTreeMap::new(),
            names_claimed: Seldom::default(),
            joiners: Seldom::default(),
            other_meshes: Seldom::default(),
            strangers: Seldom::default(),
            alone_again: started + TARGET_PATIENCE.0,
            looked_at: started,
            unreached: None,
            clock_again: started,
        }
    }

    /// Somebody claims the name of a living node.
    pub(super) fn name_claimed(&mut self, claimant: &Record, held_at: &Target, now: Moment) {
        if let Some(left_out) = self.names_claimed.allows(now) {
            let (name, target) = (&claimant.name, &claimant.target);
            warn!(%name, %target, %held_at, left_out, "a node claims the name of a living one and is refused; give it another name");
        }
    }

    /// A joiner does not answer at its target.
    pub(super) fn joiner_unreachable(&mut self, joiner: &Record, why: &str, now: Moment) {
        if let Some(left_out) = self.joiners.allows(now) {
            let (node, target) = (&joiner.name, &joiner.target);
            warn!(%node, %target, why, left_out, "a node asks to join and is not reached at its address");
        }
    }

    /// A joiner belongs to another mesh.
    pub(super) fn other_mesh(&mut self, joiner: &Record, now: Moment) {
        if let Some(left_out) = self.other_meshes.allows(now) {
            let (node, target, mesh) = (&joiner.name, &joiner.target, joiner.mesh.as_str());
            warn!(%node, %target, mesh, left_out, "a node of another mesh asks to join and is refused; compare --mesh-name");
        }
    }

    fn gather(&mut self, topic: Topic, change: Change, now: Moment) {
        let fresh =
            || Gathered { first_at: now.time, latest_at: now.time, changes: Vec::new(), more: 0 };
        let gathered = self.gathered.entry(topic).or_insert_with(fresh);
        gathered.latest_at = now.time;
        // A node that dies and comes back again and again is one node.
        if let Some(before) = gathered.changes.iter_mut().find(|before| before.name == change.name)
        {
            *before = change;
        } else if gathered.changes.len() < GATHERED_MAX {
            gathered.changes.push(change);
        } else {
            gathered.more += 1;
        }
    }
}

impl Core {
    fn gather(
        &mut self,
        slot: Slot,
        topic: Topic,
        kind: Option<Failure>,
        lasted: Duration,
        now: Moment,
    ) {
        if let Some(member) = self.members.get(slot) {
            let change = Change {
                name: member.record.name.clone(),
                target: member.record.target.clone(),
                kind,
                lasted,
            };
            self.reports.gather(topic, change, now);
        }
    }

    /// A node is dead. A node that never answered is not reported.
    pub(super) fn report_death(&mut self, slot: Slot, now: Moment) {
        let Some(member) = self.members.get(slot).filter(|member| member.known) else {
            return;
        };
        let refused = member.liveness.doubt().is_some_and(|doubt| doubt.refused);
        let kind = if refused {
            Failure::Refused
        } else {
            member.pair.main().latest_failure().unwrap_or(Failure::Timeout)
        };
        let silence = member.liveness.unheard(now);
        self.gather(slot, Topic::Dead, Some(kind), silence, now);
    }

    /// A node that was dead, or said goodbye, is there again after so long.
    pub(super) fn report_return(&mut self, slot: Slot, gone: Duration, now: Moment) {
        self.gather(slot, Topic::Back, None, gone, now);
    }

    /// A node that this bot never reached is one that others reach.
    pub(super) fn report_vouched(&mut self, slot: Slot, now: Moment) {
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        let since = member.pair.failing_since().unwrap_or(now.time);
        member.path_reported = Some(since);
        let (kind, lasted) = (member.pair.main().latest_failure(), now.time.since(since));
        self.gather(slot, Topic::Unreached, kind, lasted, now);
    }

    /// The pair to a node was measured: a second failure in a row is logged, and the success that
    /// ends it.
    pub(super) fn report_path(&mut self, slot: Slot, now: Moment) {
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        let failed_again =
            member.pair.failed_again().then(|| member.pair.failing_since()).flatten();
        match (member.path_reported, failed_again) {
            (None, Some(since)) if member.is_present() => {
                let (kind, lasted, known) =
                    (member.pair.main().latest_failure(), now.time.since(since), member.known);
                member.path_reported = Some(since);
                if known {
                    self.gather(slot, Topic::Unreached, kind, lasted, now);
                } else if let Some(left_out) = self.reports.strangers.allows(now) {
                    let (node, target) = (&member.record.name, &member.record.target);
                    let kind = kind.map_or("none", Failure::as_str);
                    warn!(%node, %target, kind, left_out, "a node that others know never answered this bot");
                }
            }
            (Some(since), None) if member.pair.failing_since().is_none() => {
                member.path_reported = None;
                let (lasted, there) = (now.time.since(since), member.is_present());
                if there {
                    self.gather(slot, Topic::Reached, None, lasted, now);
                }
            }
            _ => {}
        }
    }

    /// Logs what is due. Called once a second.
    pub(super) fn report(&mut self, now: Moment) {
        let due = |gathered: &Gathered| {
            now.time.since(gathered.latest_at) >= GATHER.0
                || now.time.since(gathered.first_at) >= GATHER.1
        };
        let topics: Vec<_> = self
            .reports
            .gathered
            .iter()
            .filter(|(_, gathered)| due(gathered))
            .map(|(topic, _)| *topic)
            .collect();
        for topic in topics {
            if let Some(gathered) = self.reports.gathered.remove(&topic) {
                self.log(topic, &gathered);
            }
        }
        self.report_targets(now);
        if now.time.since(self.reports.looked_at) >= LOOK {
            self.reports.looked_at = now.time;
            self.report_unreached(now);
            self.report_clock(now);
        }
    }

    fn log(&self, topic: Topic, gathered: &Gathered) {
        let count = gathered.changes.len() + gathered.more;
        if count <= LINES_MAX {
            return gathered.changes.iter().for_each(|change| self.log_one(topic, change));
        }
        let names: Vec<_> =
            gathered.changes.iter().take(NAMES_MAX).map(|change| change.name.as_str()).collect();
        let (names, known) =
            (names.join(" "), self.members.others().filter(|(_, member)| member.known).count());
        match topic {
            Topic::Dead => warn!(
                nodes = count,
                known, names, "many nodes are dead at once: a partition, or this host is cut off"
            ),
            Topic::Back => info!(nodes = count, known, names, "nodes are back"),
            Topic::Unreached => warn!(
                nodes = count,
                known, names, "this bot cannot reach many nodes: its own way out, or a partition"
            ),
            Topic::Reached => info!(nodes = count, known, names, "this bot reaches nodes again"),
        }
        for change in &gathered.changes {
            debug!(node = %change.name, target = %change.target, kind = change.kind.map(Failure::as_str), ?topic, "one of many");
        }
    }

    fn log_one(&self, topic: Topic, change: &Change) {
        let (node, target, lasted) = (&change.name, &change.target, shown(change.lasted));
        let kind = change.kind.map(Failure::as_str);
        match topic {
            Topic::Dead => warn!(%node, %target, kind, silent_for = lasted, "a node is dead"),
            Topic::Back => info!(%node, %target, gone_for = lasted, "a node is back"),
            Topic::Reached => {
                info!(%node, %target, failed_for = lasted, "this bot reaches a node again");
            }
            Topic::Unreached => {
                let (reached_by, asked) = self.reached_by(node);
                warn!(%node, %target, kind, failing_for = lasted, reached_by, others = asked, "this bot cannot reach a node");
            }
        }
    }

    /// How many others reach a node, by what they published of it, and how many published anything.
    fn reached_by(&self, node: &NodeName) -> (usize, usize) {
        let rows = self
            .members
            .others()
            .filter(|(_, member)| member.is_partner() && member.record.name != *node);
        let cells = rows
            .filter_map(|(_, member)| member.row())
            .take(ROWS_READ_MAX)
            .filter_map(|row| row.cell_of(node));
        cells.fold((0, 0), |(reached, asked), cell| match cell.state {
            State::Ok { .. } => (reached + 1, asked + 1),
            State::Failed(_) => (reached, asked + 1),
            State::Unknown => (reached, asked),
        })
    }

    /// Targets that do not admit this bot, and being alone: the commonest mistakes of a first
    /// start.
    fn report_targets(&mut self, now: Moment) {
        let alone = !self.members.others().any(|(_, member)| member.is_present() && member.known);
        if !alone {
            self.reports.alone_again = now.time + TARGET_PATIENCE.0;
            for seed in self.joining.seeds.wrong().filter(|seed| !seed.logged) {
                if let Some(why) = &seed.problem
                    && now.time.since(seed.failing_since) >= TARGET_PATIENCE.1
                {
                    seed.logged = true;
                    warn!(target = %seed.target, why, "a target does not admit this bot; check it, or remove it");
                }
            }
            return;
        }
        if now.time < self.reports.alone_again {
            return;
        }
        self.reports.alone_again = now.time + REPEAT;
        if let Some(targets) = self.joining.seeds.only_stuck(self.record().instance) {
            let targets = targets.join(" ");
            warn!(%targets, "this bot knows nobody: its targets answer, but their own loops are stuck, so they admit nobody; restart them");
            return;
        }
        let problems = self.join_problems();
        match problems.first() {
            Some((target, why)) => {
                warn!(%target, why, targets_failing = problems.len(), "no target admits this bot, and it knows nobody; check its targets");
            }
            None => warn!(
                "this bot is alone: no target leads to another one, and none has joined; give --target"
            ),
        }
    }

    /// If all others fail to reach this bot while it reaches them, the fault is near itself.
    fn report_unreached(&mut self, now: Moment) {
        let me = self.record().clone();
        let rows = self
            .members
            .others()
            .filter(|(_, member)| member.is_partner())
            .filter_map(|(_, member)| member.row());
        // Who reaches this bot ends it: to look for it in every row once a second would cost more
        // than all gossip.
        let failures: Option<Vec<_>> = rows
            .take(ROWS_READ_MAX)
            .filter_map(|row| row.cell_of(&me.name))
            .map(|cell| match cell.state {
                State::Failed(kind) => Some(kind),
                State::Ok { .. } | State::Unknown => None,
            })
            .collect();
        let failures = failures.unwrap_or_default();
        let unreached = failures.len() >= 2 && !self.detector.witness.is_isolated();
        match (&mut self.reports.unreached, unreached) {
            (None, true) => self.reports.unreached = Some((now.time, false)),
            (Some((_, logged)), true) if !*logged => {
                *logged = true;
                let (others, kind) = (failures.len(), failures.first().map(|kind| kind.as_str()));
                warn!(address = %me.target, others, kind, "all others fail to reach this bot: a firewall, or a wrong address?");
            }
            (Some((since, logged)), false) => {
                if *logged {
                    info!(
                        failed_for = shown(now.time.since(*since)),
                        "others reach this bot again"
                    );
                }
                self.reports.unreached = None;
            }
            _ => {}
        }
    }

    /// Samples are dated by their source's clock: one that is far from the others' misleads
    /// readers.
    fn report_clock(&mut self, now: Moment) {
        if now.time < self.reports.clock_again {
            return;
        }
        let offset = |(_, member): (Slot, &Member)| {
            Some(member.row().filter(|_| member.is_partner())?.clock_offset_millis(now.read()))
        };
        let mut offsets: Vec<_> = self.members.others().filter_map(offset).collect();
        if offsets.len() < 2 {
            return;
        }
        offsets.sort_unstable();
        let median = offsets[offsets.len() / 2];
        if median.unsigned_abs() > CLOCK.0 {
            self.reports.clock_again = now.time + CLOCK.1;
            let direction = if median > 0 { "behind" } else { "ahead of" };
            let seconds = median.unsigned_abs() / 1000;
            error!(
                seconds,
                direction,
                "this host's clock is far from the others'; set it, or its samples carry wrong times"
            );
        }
    }
}

/// A duration for people: to a tenth of a second.
fn shown(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_node_that_dies_again_and_again_is_one_of_many() {
        let now = Moment::default();
        let mut reports = Reports::new(now.time);
        for name in ["owl", "owl", "duck", "owl"] {
            let target = Target::new(name, 8081).unwrap();
            let change = Change {
                name: name.parse().unwrap(),
                target,
                kind: Some(Failure::Timeout),
                lasted: Duration::from_secs(3),
            };
            reports.gather(Topic::Dead, change, now);
        }
        let gathered = &reports.gathered[&Topic::Dead];
        assert_eq!((gathered.changes.len(), gathered.more), (2, 0));
    }
}
