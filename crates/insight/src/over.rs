//! Causes that are over, and what was known of their pairs before.
//!
//! Rows tell of a repair one after the other, over a minute in a large mesh. Those that did not yet
//! look like the fault of their sources. So a failure that was seen before its cause was over says
//! nothing, until that pair is measured again.

use std::collections::BTreeSet;

use canary_core::Time;
use fixedbitset::FixedBitSet;

use crate::block::Block;
use crate::cause::Cause;
use crate::limits::{HOLD, OVER_KEPT, OVER_MAX};
use crate::matrix::{Failing, Index, Matrix};

/// What is over.
#[derive(Debug, Default)]
pub(crate) struct Over {
    /// Causes that are stated, and explained what failed when they were last found.
    standing: Vec<Standing>,
    ended: Vec<Ended>,
}

#[derive(Debug)]
struct Standing {
    cause: Cause,
    block: Block,
    /// Since about when it explains: what recovered before did so of something else.
    since: Time,
    /// Most pairs that failed at once in each of its directions.
    most: [usize; 2],
}

#[derive(Debug)]
struct Ended {
    cause: Cause,
    block: Block,
    at: Time,
    /// Pairs that something else breaks still.
    spared: Vec<Block>,
    /// Whether it was found again since, by failures of after its end.
    is_back: bool,
}

impl Over {
    /// Whether all that is known of a pair that failed is of before its cause was over.
    pub(crate) fn is_void(&self, source: Index, failing: &Failing) -> bool {
        let target = failing.target as usize;
        let is_of = |ended: &Ended| {
            failing.latest < ended.at
                && ended.block.covers(source, target)
                && !ended.spared.iter().any(|block| block.covers(source, target))
        };
        self.ended.iter().any(is_of)
    }

    /// Whether a stated cause is over. It has to be found again like any other.
    pub(crate) fn has_ended(&self, cause: &Cause) -> bool {
        self.ended.iter().any(|ended| ended.cause == *cause && !ended.is_back)
    }

    /// Takes in which causes are stated, and which were found now, with their pairs. A stated one is
    /// over if half of what failed at its worst does not fail any more, and more was answered since
    /// than fails; one of two directions, if that is so in one of them.
    pub(crate) fn update(
        &mut self,
        matrix: &Matrix,
        stated: &BTreeSet<Cause>,
        found: Vec<(Cause, Block)>,
        now: Time,
    ) {
        self.ended.retain(|ended| now.since(ended.at) < OVER_KEPT);
        for ended in &mut self.ended {
            ended.is_back |= found.iter().any(|(cause, _)| *cause == ended.cause);
        }
        self.standing.retain(|standing| stated.contains(&standing.cause));
        for (cause, block) in found.into_iter().filter(|(cause, _)| stated.contains(cause)) {
            if !self.standing.iter().any(|standing| standing.cause == cause) {
                self.standing.push(Standing {
                    cause,
                    block,
                    since: now.back(HOLD * 2),
                    most: [0; 2],
                });
            }
        }
        let (mut over, mut standing) = (Vec::new(), Vec::new());
        for mut stands in std::mem::take(&mut self.standing) {
            let is_over = self.is_over(matrix, &mut stands);
            if is_over { &mut over } else { &mut standing }.push(stands);
        }
        let spared: Vec<_> = standing.iter().map(|standing| standing.block.clone()).collect();
        for Standing { cause, block, .. } in over {
            let spared = spared.clone();
            self.ended.retain(|ended| ended.cause != cause);
            self.ended.push(Ended { cause, block, at: now, spared, is_back: false });
        }
        self.standing = standing;
        let excess = self.ended.len().saturating_sub(OVER_MAX);
        self.ended.drain(..excess);
    }

    /// The numbers of these nodes will be given to others.
    pub(crate) fn forget(&mut self, freed: &[Index]) {
        let is_of = |set: &FixedBitSet| freed.iter().any(|index| set.contains(*index));
        let is_kept = |block: &Block| !is_of(&block.from) && !is_of(&block.to);
        if !freed.is_empty() {
            self.standing.retain(|standing| is_kept(&standing.block));
            self.ended.retain(|ended| is_kept(&ended.block));
        }
    }

    /// Whether, in one of its directions, half of what failed at its worst does not fail any more,
    /// and more is known to work since it began than to fail.
    fn is_over(&self, matrix: &Matrix, standing: &mut Standing) -> bool {
        let Standing { block, since, most, .. } = standing;
        let mut ways = block.directions().zip(most);
        ways.any(|((from, to), most)| {
            let (mut fail, mut work) = (0, 0);
            for source in from.ones() {
                let Some(node) = matrix.node(source).filter(|node| node.is_witness) else {
                    continue;
                };
                let is_of = |target: u32| to.contains(target as usize);
                let failing = || node.said.failing.iter().filter(|pair| is_of(pair.target));
                fail += failing().filter(|failing| !self.is_void(source, failing)).count();
                let recovered = node
                    .said
                    .recovered
                    .iter()
                    .filter(|pair| is_of(pair.target) && pair.at > *since);
                // Of a whole row of after it began all pairs were measured since.
                work += if node.said.framed_at.back(matrix.pair_interval()) > *since {
                    node.said.known.intersection(to).count().saturating_sub(failing().count())
                } else {
                    recovered.count()
                };
            }
            *most = fail.max(*most);
            work > fail && fail * 2 <= *most
        })
    }
}
