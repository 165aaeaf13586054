//! What the rows of a snapshot say, kept from one observation to the next: failures in a row, and
//! how each pair usually is.
//!
//! A row is read when it changes, and only what is new in it. Nodes have numbers that stay while
//! the node is known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    Cell, Failure, Incarnation, Instance, LatencyCode, NodeName, Record, RosterId, Row, Snapshot,
    State, Status, Time, Version,
};
use fixedbitset::FixedBitSet;

use crate::limits::{
    NEWS_TRAVEL, OVER_KEPT, QUALITY_PAIRS_MAX, REPEATED_WITHIN, SILENT_AFTER, SLOW_MIN, SLOW_STEPS,
    WARM,
};

/// A node's number.
pub(crate) type Index = usize;

/// Marks a place of a roster whose name is not known here.
const NOBODY: u32 = u32::MAX;

/// All that is known of all pairs.
#[derive(Debug, Default)]
pub(crate) struct Matrix {
    nodes: Vec<Option<Node>>,
    index: BTreeMap<NodeName, Index>,
    /// Which node has which place in a roster.
    places: BTreeMap<RosterId, Arc<[u32]>>,
    /// This bot's own number.
    pub(crate) me: Index,
    /// Whether the latest snapshot had other nodes than the one before.
    pub(crate) is_renumbered: bool,
    /// Numbers of nodes that it has no more.
    pub(crate) freed: Vec<Index>,
    pair_interval: Duration,
}

/// One node, and what its row says.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) record: Arc<Record>,
    pub(crate) status: Status,
    /// Until when its row tells how every pair is.
    pub(crate) holds_at: Time,
    /// Whether the row still held when the node was last heard.
    pub(crate) row_holds: bool,
    /// Whether it is known how its pairs are.
    pub(crate) tells: bool,
    /// Whether it takes part in gossip: a bot of the original does not.
    pub(crate) takes_part: bool,
    /// Whether its row is evidence: it lives, its row advances and tells how pairs are, and what it
    /// says is recent.
    pub(crate) is_witness: bool,
    /// Whether its row advances.
    pub(crate) is_heard: bool,
    /// How far its row had come when it was lost; none if it has advanced since.
    lost_at: Option<(Incarnation, Instance, Version)>,
    /// Whether its row advances but most of what it says is old: the host has no time to measure.
    pub(crate) is_behind: bool,
    pub(crate) expires: Option<u64>,
    /// How often each other node measures it, as far as this bot's own pace tells.
    pub(crate) interval: Duration,
    pub(crate) said: Said,
}

/// What the row of one node says.
#[derive(Debug, Default)]
pub(crate) struct Said {
    succession: Option<(Incarnation, Instance)>,
    version: Version,
    /// The label of the latest frame that was read, on our clock.
    pub(crate) framed_at: Time,
    /// Nodes of which it has a result.
    pub(crate) known: FixedBitSet,
    /// Nodes that it fails to reach, in ascending order.
    pub(crate) failing: Vec<Failing>,
    /// Nodes that it failed to reach lately, and reaches again, in ascending order.
    pub(crate) recovered: Vec<Recovered>,
    /// By node; empty in a mesh that is too large.
    pub(crate) quality: Vec<Quality>,
    /// Whether any pair is slow, or loses packets.
    pub(crate) is_worse: bool,
    /// Frames in a row of which most cells were old.
    behind: u8,
}

/// A pair that fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failing {
    pub(crate) target: u32,
    pub(crate) kind: Failure,
    /// When the first of the attempts in a row began, and when its failure was published.
    pub(crate) first: Time,
    published: Time,
    /// When the latest of them began, as far as it was published.
    pub(crate) latest: Time,
}

/// A pair that works again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovered {
    pub(crate) target: u32,
    /// When the first attempt began that was answered.
    pub(crate) at: Time,
}

/// What is usual moves in quarters of the steps of a latency code.
const QUARTERS: u16 = 4;

/// How a pair usually is, and how it is now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quality {
    /// The usual total as a latency code, in quarters of its steps.
    usual: u16,
    /// Samples seen, up to [`WARM`].
    seen: u8,
    /// What speaks for being slower than usual.
    pub(crate) slow: Suspicion,
    /// What speaks for losing packets.
    pub(crate) lossy: Suspicion,
    /// The latest slow total in eighths of the usual one.
    pub(crate) times: u8,
}

/// A running sum of evidence in tenths of a nat that never falls below zero (CUSUM, Page 1954):
/// noise does not add up, a change does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Suspicion(u8);

impl Suspicion {
    /// Beyond it more says nothing new, and takes as long to be forgotten.
    const MAX: u8 = 240;

    fn see(&mut self, is_bad: bool, odds: Odds) {
        self.0 = if is_bad {
            self.0.saturating_add(odds.bad).min(Self::MAX)
        } else {
            // What was certain is doubted sooner than sample by sample: it may be over.
            self.0.saturating_sub(odds.good.max(self.0 / 8))
        };
    }

    /// In nats.
    pub(crate) fn nats(self) -> f64 {
        f64::from(self.0) / 10.0
    }
}

/// What a sample says, in tenths of a nat.
#[derive(Clone, Copy, Debug)]
struct Odds {
    bad: u8,
    good: u8,
}

/// Of a slow path nine samples of ten are slow; by chance one of twenty is.
const SLOW_ODDS: Odds = Odds { bad: 29, good: 22 };
/// On a lossy path every second sample shows lost packets; where one packet of a hundred is lost,
/// one sample of seventeen does.
const LOSSY_ODDS: Odds = Odds { bad: 21, good: 6 };

impl Quality {
    fn sample(&mut self, total: LatencyCode, retransmissions: u8) {
        self.lossy.see(retransmissions > 0, LOSSY_ODDS);
        if retransmissions > 0 {
            // The latency contains waiting for the lost packet: it says nothing about the path's
            // usual pace.
            return;
        }
        let code = QUARTERS * (total.get() - 1);
        let difference = i32::from(code) - i32::from(self.usual);
        if self.seen < WARM {
            self.seen += 1;
            self.usual = if self.seen == 1 {
                code
            } else {
                (i32::from(self.usual) + difference / i32::from(self.seen)) as u16
            };
            return;
        }
        let is_slow = code > self.usual.saturating_add(SLOW_STEPS) && {
            let usual = LatencyCode::from_raw(self.usual / QUARTERS + 1);
            let usual = usual.map(LatencyCode::decode).unwrap_or_default();
            let now = total.decode();
            self.times = (now.as_secs_f64() / usual.as_secs_f64().max(1e-9) * 8.0).min(255.0) as u8;
            now.saturating_sub(usual) > SLOW_MIN
        };
        self.slow.see(is_slow, SLOW_ODDS);
        // A new normal is learned too, but in hours, not in minutes.
        let step = if is_slow { 1 } else { difference / 16 };
        self.usual = (i32::from(self.usual) + step) as u16;
    }

    fn is_worse(&self) -> bool {
        self.slow != Suspicion::default() || self.lossy != Suspicion::default()
    }
}

impl Failing {
    /// How many attempts in a row failed: its source had nothing else to say until `holds_at`.
    pub(crate) fn streak(&self, holds_at: Time, interval: Duration) -> u8 {
        let lasting = holds_at.since(self.published + NEWS_TRAVEL);
        let turns = lasting.as_secs_f64() / interval.as_secs_f64().max(0.001);
        let repeated = u8::from(lasting >= REPEATED_WITHIN);
        (turns.min(100.0) as u8).saturating_add(1 + repeated)
    }
}

impl Matrix {
    /// Takes in what a snapshot says that earlier ones did not.
    pub(crate) fn read(&mut self, snapshot: &Snapshot) {
        self.pair_interval = snapshot.pair_interval;
        self.number(snapshot);
        self.forget_rosters(snapshot);
        let now = snapshot.now.time;
        let present = self.present(snapshot);
        let own = (
            &snapshot.me,
            Status::Alive,
            snapshot.own_row.as_deref(),
            (true, now),
            (true, snapshot.pair_interval),
        );
        let others = snapshot.nodes().map(|view| {
            let pace = (view.takes_part, view.interval);
            (
                &view.record,
                view.status,
                view.row.as_deref(),
                (view.row_holds, view.row_holds_at),
                pace,
            )
        });
        let fresh = SILENT_AFTER.max(snapshot.publish_interval * 3);
        let behind_after = snapshot.pair_interval * 3 + Duration::from_secs(5);
        let has_quality = self.index.len().pow(2) <= QUALITY_PAIRS_MAX;
        for (record, status, row, (holds, holds_at), (takes_part, interval)) in
            std::iter::once(own).chain(others)
        {
            let Some(&index) = self.index.get(&record.name) else { continue };
            let places = row.and_then(|row| self.places_of(row));
            let nodes = self.nodes.len();
            let Some(Some(node)) = self.nodes.get_mut(index) else { continue };
            node.said.fit(nodes, has_quality);
            if let (Some(row), Some(places)) = (row, places) {
                node.expires = row.frame().secured().map(|secured| secured.expires);
                node.said.read(row, record.succession(), &places, &present, now, behind_after);
            }
            (node.record, node.status, node.interval) = (Arc::clone(record), status, interval);
            // A bot of the original says nothing of what is new, and measures seldom.
            node.holds_at = if takes_part { holds_at } else { node.said.framed_at };
            // When a lost node is heard again, its row is still the old one, until a new version
            // arrives.
            let (incarnation, instance) = record.succession();
            let came_to = (incarnation, instance, row.map_or(0, Row::version));
            if !status.is_present() {
                node.lost_at = Some(came_to);
            } else if node.lost_at.is_some_and(|lost_at| lost_at != came_to) {
                node.lost_at = None;
            }
            node.is_heard = index == self.me
                || (status.is_present()
                    && node.lost_at.is_none()
                    && row.is_some_and(|row| row.age(now) < fresh));
            let is_behind = node.is_heard && node.said.behind > 1;
            // A bot of the original measures each pair seldom: that is no fault, and what it says
            // is old all the same.
            node.is_behind = is_behind && takes_part;
            // A newer row that has not arrived may say something else.
            node.row_holds = holds || !takes_part;
            let is_outdated = !node.row_holds && now.since(node.holds_at) >= SILENT_AFTER;
            node.tells = node.is_heard && !is_outdated;
            node.is_witness = node.tells && !is_behind;
            node.takes_part = takes_part;
        }
    }

    /// Nodes that are there, without those that are measured more seldom than others: how old a
    /// result of them is tells nothing.
    fn present(&self, snapshot: &Snapshot) -> FixedBitSet {
        let mut present = FixedBitSet::with_capacity(self.nodes.len());
        let others =
            snapshot.present().filter(|view| view.takes_part).map(|view| &view.record.name);
        for index in
            std::iter::once(&snapshot.me.name).chain(others).filter_map(|name| self.index.get(name))
        {
            present.set(*index, true);
        }
        present
    }

    /// Gives every known node a number, and takes it from those that are forgotten.
    fn number(&mut self, snapshot: &Snapshot) {
        let known: BTreeMap<&NodeName, &Arc<Record>> =
            std::iter::once((&snapshot.me.name, &snapshot.me))
                .chain(snapshot.nodes().map(|view| (&view.record.name, &view.record)))
                .collect();
        let gone: Vec<_> = self
            .index
            .iter()
            .filter(|(name, _)| !known.contains_key(name))
            .map(|(name, index)| (name.clone(), *index))
            .collect();
        for (name, index) in &gone {
            self.index.remove(name);
            self.nodes[*index] = None;
            for node in self.nodes.iter_mut().flatten() {
                node.said.forget(*index);
            }
        }
        let mut has_changed = !gone.is_empty();
        for (name, record) in known {
            if self.index.contains_key(name) {
                continue;
            }
            has_changed = true;
            let free = self.nodes.iter().position(Option::is_none).unwrap_or(self.nodes.len());
            if free == self.nodes.len() {
                self.nodes.push(None);
            }
            self.nodes[free] = Some(Node::new(Arc::clone(record)));
            self.index.insert(name.clone(), free);
        }
        self.is_renumbered = has_changed;
        self.freed = gone.into_iter().map(|(_, index)| index).collect();
        if has_changed {
            self.places.clear();
        }
        self.me = self.index.get(&snapshot.me.name).copied().unwrap_or_default();
    }

    fn places_of(&mut self, row: &Row) -> Option<Arc<[u32]>> {
        let roster = row.roster()?;
        let index = &self.index;
        let places = self.places.entry(roster.id()).or_insert_with(|| {
            let place = |name: &NodeName| index.get(name).map_or(NOBODY, |index| *index as u32);
            roster.names().iter().map(place).collect()
        });
        Some(Arc::clone(places))
    }

    fn forget_rosters(&mut self, snapshot: &Snapshot) {
        if self.places.len() > 8 {
            let rows = snapshot
                .members
                .iter()
                .filter_map(|view| view.row.as_deref())
                .chain(snapshot.own_row.as_deref());
            let used: std::collections::BTreeSet<_> =
                rows.filter_map(|row| Some(row.roster()?.id())).collect();
            self.places.retain(|id, _| used.contains(id));
        }
    }

    /// Numbers given so far; some may be free.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The node with a number.
    pub(crate) fn node(&self, index: Index) -> Option<&Node> {
        self.nodes.get(index)?.as_ref()
    }

    /// All nodes with their numbers.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (Index, &Node)> {
        self.nodes.iter().enumerate().filter_map(|(index, node)| Some((index, node.as_ref()?)))
    }

    /// The number of a node.
    pub(crate) fn index(&self, name: &NodeName) -> Option<Index> {
        self.index.get(name).copied()
    }

    /// How often others measure a node.
    pub(crate) fn interval_of(&self, target: Index) -> Duration {
        self.node(target).map_or(self.pair_interval, |node| node.interval)
    }

    /// How often each pair is measured.
    pub(crate) fn pair_interval(&self) -> Duration {
        self.pair_interval
    }
}

impl Node {
    fn new(record: Arc<Record>) -> Self {
        Self {
            record,
            status: Status::Alive,
            holds_at: Time::ZERO,
            row_holds: false,
            tells: false,
            takes_part: true,
            is_witness: false,
            is_heard: false,
            lost_at: None,
            is_behind: false,
            expires: None,
            interval: Duration::ZERO,
            said: Said::default(),
        }
    }

    /// The name.
    pub(crate) fn name(&self) -> &NodeName {
        &self.record.name
    }

    /// Whether it is there, or should be: it did not leave.
    pub(crate) fn is_expected(&self) -> bool {
        self.status != Status::Left
    }
}

impl Said {
    fn fit(&mut self, nodes: usize, has_quality: bool) {
        self.known.grow(nodes);
        if has_quality {
            self.quality.resize(nodes, Quality::default());
        } else {
            self.quality = Vec::new();
            self.is_worse = false;
        }
    }

    /// A node is forgotten, and its number will be given to another.
    fn forget(&mut self, index: Index) {
        if index < self.known.len() {
            self.known.set(index, false);
        }
        self.failing.retain(|failing| failing.target as usize != index);
        self.recovered.retain(|recovered| recovered.target as usize != index);
        if let Some(quality) = self.quality.get_mut(index) {
            *quality = Quality::default();
        }
    }

    fn read(
        &mut self,
        row: &Row,
        succession: (Incarnation, Instance),
        places: &[u32],
        present: &FixedBitSet,
        now: Time,
        behind_after: Duration,
    ) {
        if self.succession != Some(succession) {
            // Another process: what the former one failed at is not known to fail.
            (self.succession, self.version, self.framed_at) = (Some(succession), 0, Time::ZERO);
            self.failing.clear();
            self.recovered.clear();
            self.known.clear();
        }
        if self.version >= row.version() {
            return;
        }
        let framed_at = now.back(row.frame_age(now));
        let is_new_frame = row.frame().version() > self.version;
        let read_until = std::mem::replace(&mut self.framed_at, framed_at);
        self.recovered.retain(|recovered| now.since(recovered.at) < OVER_KEPT);
        let (mut old, mut all) = (0, 0);
        for news in row.news(self.version) {
            let Some(target) = places.get(news.place).copied().filter(|target| *target != NOBODY)
            else {
                continue;
            };
            // Who fails for long is found dead by the source, and then measured seldom, unless the
            // source itself is to blame.
            if matches!(news.cell.state, State::Ok { .. } | State::Failed(Failure::Local))
                && !news.is_patch
                && present.contains(target as usize)
            {
                all += 1;
                old += u32::from(news.cell.age() > behind_after);
            }
            // A frame repeats attempts of earlier ones. Patches are no fair sample: they tell of
            // what changed alone.
            let is_sample = !news.is_patch && news.attempted > read_until;
            self.take(target, news.cell, news.attempted, is_sample);
        }
        if is_new_frame {
            self.behind = if all > 1 && old * 2 > all { self.behind.saturating_add(1) } else { 0 };
        }
        self.version = row.version();
        self.is_worse = self.quality.iter().any(Quality::is_worse);
    }

    fn failing_at(&self, target: u32) -> Result<usize, usize> {
        self.failing.binary_search_by_key(&target, |failing| failing.target)
    }

    fn recovered_at(&self, target: u32) -> Result<usize, usize> {
        self.recovered.binary_search_by_key(&target, |recovered| recovered.target)
    }

    /// Books one cell.
    fn take(&mut self, target: u32, cell: Cell, attempted: Time, is_sample: bool) {
        let index = target as usize;
        if index >= self.known.len() {
            return;
        }
        self.known.set(index, cell.state != State::Unknown);
        let place = self.failing_at(target);
        match (cell.state, place) {
            (State::Unknown, Ok(place)) => {
                self.failing.remove(place);
            }
            (State::Unknown, Err(_)) => {}
            (State::Ok { total, .. }, place) => {
                if let Ok(place) = place {
                    self.failing.remove(place);
                    let recovered = Recovered { target, at: attempted };
                    match self.recovered_at(target) {
                        Ok(place) => self.recovered[place] = recovered,
                        Err(place) => self.recovered.insert(place, recovered),
                    }
                }
                if let Some(quality) = self.quality.get_mut(index).filter(|_| is_sample) {
                    quality.sample(total, cell.retransmissions);
                }
            }
            (State::Failed(kind), Ok(place)) => {
                (self.failing[place].kind, self.failing[place].latest) = (kind, attempted);
            }
            (State::Failed(kind), Err(place)) => {
                if let Ok(place) = self.recovered_at(target) {
                    self.recovered.remove(place);
                }
                self.failing.insert(
                    place,
                    Failing {
                        target,
                        kind,
                        first: attempted,
                        published: attempted + cell.age(),
                        latest: attempted,
                    },
                );
                if let Some(quality) = self.quality.get_mut(index) {
                    quality.slow = Suspicion::default();
                }
            }
        }
    }
}
