//! A rectangle of the matrix, and how well it explains what is seen.

use canary_core::Time;
use fixedbitset::FixedBitSet;

use crate::evidence::Evidence;
use crate::matrix::Index;

/// How many bad pairs of each source are looked at to find when a fault began.
const SAMPLED: usize = 8;
/// One of so many attempts may have begun before the fault, and failed because of it.
const EARLY: usize = 20;

/// All pairs from some nodes to some others, or between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Block {
    pub(crate) from: FixedBitSet,
    pub(crate) to: FixedBitSet,
    pub(crate) both: bool,
}

/// How well a cause explains the evidence, in nats.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Score {
    /// Weight of the bad pairs that it explains and nothing else does.
    pub(crate) gained: f64,
    /// How many bad pairs it covers, explained before or not.
    pub(crate) bad: usize,
    /// How many good pairs it covers, which contradict it.
    pub(crate) good: usize,
    /// What is left after contradictions and price.
    pub(crate) value: f64,
}

impl Block {
    /// In both directions; two blocks between the same sides are equal.
    pub(crate) fn between(one: FixedBitSet, other: FixedBitSet) -> Self {
        let (from, to) = if one <= other { (one, other) } else { (other, one) };
        Self { from, to, both: true }
    }

    /// The smaller side and the larger one.
    pub(crate) fn sides(&self) -> (&FixedBitSet, &FixedBitSet) {
        if self.to.count_ones(..) <= self.from.count_ones(..) {
            (&self.to, &self.from)
        } else {
            (&self.from, &self.to)
        }
    }

    /// The same kind of block with these nodes on its smaller side, against all others.
    pub(crate) fn with_side(&self, side: &FixedBitSet, all: &FixedBitSet) -> Self {
        let mut other = all.clone();
        other.difference_with(side);
        match (self.both, self.to.count_ones(..) <= self.from.count_ones(..)) {
            (true, _) => Self::between(side.clone(), other),
            (false, true) => Self { from: other, to: side.clone(), both: false },
            (false, false) => Self { from: side.clone(), to: other, both: false },
        }
    }

    /// The same kind of block with these nodes in place of its larger side.
    pub(crate) fn with_larger_side(&self, side: &FixedBitSet) -> Self {
        match (self.both, self.to.count_ones(..) <= self.from.count_ones(..)) {
            (true, _) => Self::between(side.clone(), self.sides().0.clone()),
            (false, true) => Self { from: side.clone(), ..self.clone() },
            (false, false) => Self { to: side.clone(), ..self.clone() },
        }
    }

    /// The same without a node; none if a side would be empty.
    pub(crate) fn without(&self, node: Index) -> Option<Self> {
        let mut rest = self.clone();
        rest.from.set(node, false);
        rest.to.set(node, false);
        let is_one = rest.from.is_clear() || rest.to.is_clear();
        let rest = if self.both { Self::between(rest.from, rest.to) } else { rest };
        (!is_one).then_some(rest)
    }

    /// Its directions: one, or two.
    pub(crate) fn directions(&self) -> impl Iterator<Item = (&FixedBitSet, &FixedBitSet)> {
        let back = self.both.then_some((&self.to, &self.from));
        std::iter::once((&self.from, &self.to)).chain(back)
    }

    /// Whether it covers a pair.
    pub(crate) fn covers(&self, source: Index, target: Index) -> bool {
        let is_within =
            |(from, to): (&FixedBitSet, &FixedBitSet)| from.contains(source) && to.contains(target);
        self.directions().any(is_within)
    }

    /// When what breaks it began: when the first attempts failed, as far as some pairs of each
    /// source tell, without those that had failed long before or were under way. None if it is not
    /// known, or if one side is a single node. That one is blamed for what all others fail at: what
    /// they succeeded at before speaks for it until they try again. News of two sides may have to
    /// cross the cut.
    pub(crate) fn began(&self, evidence: &Evidence<'_>) -> Option<Time> {
        if self.from.count_ones(..) == 1 || self.to.count_ones(..) == 1 {
            return None;
        }
        let mut firsts = Vec::new();
        for (from, to) in self.directions() {
            for source in from.intersection(&evidence.witnesses) {
                let bad = &evidence.bad[source];
                let some = bad.iter().step_by(bad.len() / SAMPLED + 1);
                firsts
                    .extend(some.filter(|bad| to.contains(bad.target)).filter_map(|bad| bad.first));
            }
        }
        firsts.sort_unstable();
        let median = firsts.get(firsts.len() / 2)?;
        let earliest = median.back(evidence.matrix.pair_interval());
        let of_it = &firsts[firsts.partition_point(|first| *first < earliest)..];
        of_it.get(of_it.len() / EARLY).copied()
    }

    /// Sums up the evidence that the block covers. `is_explained(source, position)` says whether
    /// another cause explains that bad pair of the source.
    pub(crate) fn weigh(
        &self,
        evidence: &Evidence<'_>,
        is_explained: impl Fn(Index, usize) -> bool,
    ) -> Score {
        let mut score = Score::default();
        let began = self.began(evidence);
        for (from, to) in self.directions() {
            for source in from.intersection(&evidence.witnesses) {
                for (position, bad) in evidence.bad[source].iter().enumerate() {
                    if to.contains(bad.target) {
                        score.bad += 1;
                        if !is_explained(source, position) {
                            score.gained += bad.weight;
                        }
                    }
                }
                let works = evidence.works(source, began);
                score.good += works.map_or(0, |works| works.intersection_count(to));
            }
        }
        score
    }
}
