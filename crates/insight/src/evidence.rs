//! The matrix as the model sees it: for each layer, which pairs are bad and how much that weighs,
//! and which are good.

use std::collections::BTreeSet;
use std::time::Duration;

use canary_core::{Failure, Time};
use fixedbitset::FixedBitSet;

use crate::limits::{ATTEMPT, CAUSES_MAX};
use crate::matrix::{Failing, Index, Matrix, Node, Quality};

/// Nearly all have reported if at most one of so many has not.
const NEARLY: usize = 10;

/// What is explained: each layer by the same model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    /// Pairs that fail.
    Failing,
    /// Pairs in which packets are lost.
    Lossy,
    /// Pairs that are slower than usual.
    Slow,
}

/// How probably a pair under a cause fails, and any pair by chance: as many as fail now, and
/// [`CHANCES`] more, within these bounds. So in a large mesh, in which one path of very many is
/// dear to name, a failure that stands out says more.
const FAILS_UNDER_CAUSE: f64 = 0.985;
const FAILS_BY_CHANCE: f64 = 0.02;
const FAILS_BY_CHANCE_MIN: f64 = 0.000_2;
const CHANCES: usize = 20;
/// The same where packets are lost besides.
const FAILS_BY_LOSS: f64 = 0.4;
/// What speaks for losing packets from this on (in nats) is no accident.
const LOSES: f64 = 4.0;
/// The same as the mean over a row or a column; one packet in a hundred comes to a third of it.
const ALL_LOSE: f64 = 0.5;
/// Bad pairs from which on it can be said that most are.
const GENERAL_FROM: usize = 100;
/// Failures in a row beyond which more say nothing new.
const STREAK_MAX: u8 = 5;

impl Layer {
    pub(crate) const ALL: [Self; 3] = [Self::Failing, Self::Lossy, Self::Slow];

    /// What a good pair weighs against a cause, in nats.
    pub(crate) fn contradiction(self) -> f64 {
        match self {
            Self::Failing => ((1.0 - FAILS_BY_CHANCE) / (1.0 - FAILS_UNDER_CAUSE)).ln(),
            // What spoke against it has been subtracted sample by sample.
            Self::Lossy => 1.0,
            Self::Slow => 1.5,
        }
    }

    /// Causes that one observation finds at most.
    pub(crate) fn causes_max(self) -> usize {
        if self == Self::Failing { CAUSES_MAX } else { CAUSES_MAX / 6 }
    }

    /// Nats by which a cause must explain the matrix better than chance does. Loss strikes some of
    /// a thousand paths again and again by chance alone.
    pub(crate) fn accepted(self, is_path: bool) -> f64 {
        match self {
            Self::Failing => 2.0,
            Self::Slow => 6.0,
            Self::Lossy if is_path => 14.0,
            Self::Lossy => 12.0,
        }
    }
}

/// A bad pair of one source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bad {
    pub(crate) target: Index,
    pub(crate) weight: f64,
    /// How often in a row.
    pub(crate) streak: u8,
    /// When the first of the bad attempts began; none where that is not kept.
    pub(crate) first: Option<Time>,
    /// How it fails.
    pub(crate) kind: Option<Failure>,
    /// By how much the latency is above the usual one, in eighths.
    pub(crate) times: u8,
}

/// One layer of the matrix.
#[derive(Debug)]
pub(crate) struct Evidence<'a> {
    pub(crate) matrix: &'a Matrix,
    pub(crate) layer: Layer,
    /// Nodes that are or should be there.
    pub(crate) all: FixedBitSet,
    /// Those of them that somebody hears.
    pub(crate) present: FixedBitSet,
    /// Nodes whose rows are evidence.
    pub(crate) witnesses: FixedBitSet,
    /// Nodes whose rows or columns lose packets.
    lossy: FixedBitSet,
    /// How probably a pair fails by chance; only of use where failures are explained.
    by_chance: f64,
    /// By source, targets ascending.
    pub(crate) bad: Vec<Vec<Bad>>,
    /// By source: what was good when it was last measured, as far as that is known here.
    pub(crate) good: Vec<FixedBitSet>,
    /// The same without bots of the original, which are measured seldom; empty where there are none.
    good_lately: Vec<FixedBitSet>,
    /// By source: since when all of the latter were measured, and since when all were.
    good_since: Vec<(Time, Time)>,
}

/// Nodes by what is known of their pairs since something began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct News {
    /// Those that are heard, take part in gossip, and have time to measure.
    all: usize,
    /// Those of them whose rows hold.
    hold: usize,
    /// Those of the latter that measured all pairs since.
    known: usize,
}

impl News {
    /// Whether all whose rows hold did.
    pub(crate) fn is_complete(self) -> bool {
        self.known == self.hold
    }

    /// Whether nearly all of them did.
    pub(crate) fn is_nearly_complete(self) -> bool {
        (self.hold - self.known) * NEARLY <= self.hold
    }

    /// Whether most of all did.
    pub(crate) fn is_of_most(self) -> bool {
        self.known * 2 >= self.all
    }
}

impl<'a> Evidence<'a> {
    /// The evidence of one layer; none if no pair is bad. Of a pair whose failure is `void` it is
    /// not known how it is now.
    pub(crate) fn of(
        matrix: &'a Matrix,
        layer: Layer,
        void: impl Fn(Index, &Failing) -> bool,
    ) -> Option<Self> {
        let is_bad = |said: &crate::matrix::Said| match layer {
            Layer::Failing => !said.failing.is_empty(),
            Layer::Lossy | Layer::Slow => said.is_worse,
        };
        if !matrix.nodes().any(|(_, node)| node.is_witness && is_bad(&node.said)) {
            return None;
        }
        let (mut all, mut witnesses, mut present) = (empty(matrix), empty(matrix), empty(matrix));
        let (mut regular, mut seldom) = (empty(matrix), Duration::ZERO);
        for (index, node) in matrix.nodes().filter(|(_, node)| node.is_expected()) {
            all.set(index, true);
            witnesses.set(index, node.is_witness);
            present.set(index, node.status.is_present());
            regular.set(index, node.takes_part);
            seldom = if node.takes_part { seldom } else { seldom.max(node.interval) };
        }
        let mut evidence = Self {
            matrix,
            layer,
            all,
            present,
            witnesses,
            lossy: lossy(matrix),
            by_chance: FAILS_BY_CHANCE,
            bad: vec![Vec::new(); matrix.len()],
            good: vec![empty(matrix); matrix.len()],
            good_lately: if seldom > Duration::ZERO {
                vec![empty(matrix); matrix.len()]
            } else {
                Vec::new()
            },
            good_since: vec![(Time::ZERO, Time::ZERO); matrix.len()],
        };
        if layer == Layer::Failing {
            evidence.by_chance = evidence.by_chance(&void);
        }
        let mut total = 0;
        for (index, node) in matrix.nodes().filter(|(_, node)| node.is_witness) {
            let bad = evidence.bad_of(index, &void);
            total += bad.len();
            // A pair to the dead is seldom tried: an old success contradicts nothing.
            let mut good = node.said.known.clone();
            good.intersect_with(&evidence.present);
            good.set(index, false);
            for failing in &node.said.failing {
                good.set(failing.target as usize, false);
            }
            bad.iter().for_each(|bad| good.set(bad.target, false));
            evidence.bad[index] = bad;
            if let Some(lately) = evidence.good_lately.get_mut(index) {
                lately.clone_from(&good);
                lately.intersect_with(&regular);
            }
            evidence.good[index] = good;
            let lately = evidence.measured_since(node);
            let all = lately.back(seldom.saturating_sub(matrix.pair_interval()));
            evidence.good_since[index] = (lately, all);
        }
        let good: usize = evidence.good.iter().map(|good| good.count_ones(..)).sum();
        // Where most pairs are worse than usual it is the hosts that are short of time, all of
        // them, and no cause stands out.
        let is_general = layer != Layer::Failing && total > GENERAL_FROM && total > 2 * good;
        (total > 0 && !is_general).then_some(evidence)
    }

    fn bad_of(&self, source: Index, void: &impl Fn(Index, &Failing) -> bool) -> Vec<Bad> {
        let Some(node) = self.matrix.node(source) else { return Vec::new() };
        let is_target = |target: Index| target != source && self.all.contains(target);
        match self.layer {
            Layer::Failing => {
                let bad = |failing: &Failing| {
                    let streak = failing
                        .streak(node.holds_at, self.matrix.interval_of(failing.target as usize));
                    let loses = self.lossy.contains(source)
                        || self.lossy.contains(failing.target as usize)
                        || node
                            .said
                            .quality
                            .get(failing.target as usize)
                            .is_some_and(|quality| quality.lossy.nats() > LOSES);
                    let by_chance = if loses { FAILS_BY_LOSS } else { self.by_chance };
                    let weight =
                        f64::from(streak.min(STREAK_MAX)) * (FAILS_UNDER_CAUSE / by_chance).ln();
                    let (first, kind) = (Some(failing.first), Some(failing.kind));
                    let bad = Bad {
                        target: failing.target as usize,
                        weight,
                        streak,
                        first,
                        kind,
                        times: 0,
                    };
                    (is_target(bad.target) && !void(source, failing)).then_some(bad)
                };
                node.said.failing.iter().filter_map(bad).collect()
            }
            Layer::Lossy | Layer::Slow if !node.said.is_worse => Vec::new(),
            Layer::Lossy | Layer::Slow => {
                let fails: BTreeSet<_> =
                    node.said.failing.iter().map(|failing| failing.target as usize).collect();
                let bad = |(target, quality): (Index, &Quality)| {
                    let weight = match self.layer {
                        Layer::Lossy => quality.lossy.nats(),
                        // What waits for lost packets is loss, not slowness.
                        _ if quality.lossy.nats() > LOSES => 0.0,
                        _ => quality.slow.nats(),
                    };
                    let is_bad = weight > 0.0 && is_target(target) && !fails.contains(&target);
                    is_bad.then_some(Bad {
                        target,
                        weight,
                        streak: 1,
                        first: None,
                        kind: None,
                        times: quality.times,
                    })
                };
                node.said.quality.iter().enumerate().filter_map(bad).collect()
            }
        }
    }

    /// How probably a pair fails by chance, judged by all.
    fn by_chance(&self, void: impl Fn(Index, &Failing) -> bool) -> f64 {
        let (mut fails, mut known) = (0, 0);
        for (source, node) in self.matrix.nodes().filter(|(_, node)| node.is_witness) {
            known += node.said.known.count_ones(..);
            let is_bad = |failing: &&Failing| {
                self.all.contains(failing.target as usize) && !void(source, failing)
            };
            fails += node.said.failing.iter().filter(is_bad).count();
        }
        let share = (fails + CHANCES) as f64 / known.max(1) as f64;
        share.clamp(FAILS_BY_CHANCE_MIN, FAILS_BY_CHANCE)
    }

    /// The pairs of a source that work, if something `began` then: results of before do not
    /// contradict it. With none all do.
    pub(crate) fn works(&self, source: Index, began: Option<Time>) -> Option<&FixedBitSet> {
        let (lately, all) = self.good_since[source];
        match began {
            Some(began) if lately < began => None,
            Some(began) if all < began => {
                Some(self.good_lately.get(source).unwrap_or(&self.good[source]))
            }
            _ => Some(&self.good[source]),
        }
    }

    /// Since when a node measured all its pairs, those of bots of the original aside, as far as its
    /// row tells.
    fn measured_since(&self, node: &Node) -> Time {
        node.holds_at.back(node.interval.max(self.matrix.pair_interval()) + ATTEMPT)
    }

    /// What is known of how pairs are since something `began`.
    pub(crate) fn news_since(&self, began: Option<Time>) -> News {
        let mut news = News::default();
        for (index, node) in self.matrix.nodes() {
            if self.present.contains(index) && node.takes_part && !node.is_behind {
                news.all += 1;
                news.hold += usize::from(node.row_holds);
                let is_known = began.is_none_or(|began| self.measured_since(node) >= began);
                news.known += usize::from(node.row_holds && is_known);
            }
        }
        news
    }

    /// What it costs to name one of all nodes, in nats.
    pub(crate) fn name_price(&self) -> f64 {
        (self.all.count_ones(..).max(2) as f64).ln()
    }

    /// How many numbers there are.
    pub(crate) fn len(&self) -> usize {
        self.matrix.len()
    }
}

/// Nodes with packets lost to or from most others.
fn lossy(matrix: &Matrix) -> FixedBitSet {
    let mut sums = vec![(0.0, 0.0); matrix.len()];
    for (source, node) in matrix.nodes().filter(|(_, node)| node.said.is_worse) {
        for (target, quality) in node.said.quality.iter().enumerate() {
            sums[source].0 += quality.lossy.nats();
            sums[target].1 += quality.lossy.nats();
        }
    }
    let mut lossy = empty(matrix);
    let others = matrix.nodes().count().saturating_sub(1) as f64;
    for (index, (row, column)) in sums.into_iter().enumerate() {
        lossy.set(index, row.max(column) > ALL_LOSE * others);
    }
    lossy
}

pub(crate) fn empty(matrix: &Matrix) -> FixedBitSet {
    FixedBitSet::with_capacity(matrix.len())
}
