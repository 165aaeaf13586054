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
use crate::evidence::Evidence;
use crate::limits::{OVER_KEPT, OVER_MAX};
use crate::matrix::Index;

/// What is over.
#[derive(Debug, Default)]
pub(crate) struct Over {
    /// Stated causes that explained the latest observation, and their pairs.
    standing: Vec<(Cause, Block)>,
    ended: Vec<Ended>,
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
    /// Whether all that is known of a pair, whose latest attempt failed, is of before its cause was
    /// over.
    pub(crate) fn covers(&self, source: Index, target: Index, attempted: Time) -> bool {
        let is_of = |ended: &Ended| {
            attempted < ended.at
                && ended.block.covers(source, target)
                && !ended.spared.iter().any(|block| block.covers(source, target))
        };
        self.ended.iter().any(is_of)
    }

    /// Whether a stated cause is over. It has to be found again like any other.
    pub(crate) fn has_ended(&self, cause: &Cause) -> bool {
        self.ended.iter().any(|ended| ended.cause == *cause && !ended.is_back)
    }

    /// Takes in which of the stated causes explain what fails now. One that did so until now is
    /// over if most of its pairs work; one of two directions, if one of them works.
    pub(crate) fn update(
        &mut self,
        evidence: &Evidence<'_>,
        stated: &BTreeSet<Cause>,
        found: &BTreeSet<Cause>,
        now: Time,
    ) {
        for ended in &mut self.ended {
            ended.is_back |= found.contains(&ended.cause);
        }
        let standing = stated.intersection(found);
        let standing = standing.map(|cause| (cause.clone(), cause.block(evidence))).collect();
        let before: Vec<_> = std::mem::replace(&mut self.standing, standing);
        let gone = before.into_iter().filter(|(cause, block)| {
            let score = block.weigh(evidence, |_, _| false);
            !found.contains(cause) && score.good > score.bad
        });
        let is_half = |(_, block): &mut (Cause, Block)| {
            let works = |(from, to): (&FixedBitSet, &FixedBitSet)| {
                let way = Block { from: from.clone(), to: to.clone(), both: false };
                let score = way.weigh(evidence, |_, _| false);
                score.good > score.bad
            };
            block.both && block.directions().any(works)
        };
        let over: Vec<_> = gone.chain(self.standing.extract_if(.., is_half)).collect();
        self.end(over, now);
        self.ended.retain(|ended| now.since(ended.at) < OVER_KEPT);
    }

    /// Nothing fails any more, as far as is known.
    pub(crate) fn all_work(&mut self, now: Time) {
        let over = std::mem::take(&mut self.standing);
        self.end(over, now);
    }

    /// Numbers mean other nodes now.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    fn end(&mut self, over: Vec<(Cause, Block)>, at: Time) {
        let spared: Vec<_> = self.standing.iter().map(|(_, block)| block.clone()).collect();
        for (cause, block) in over {
            self.ended.retain(|ended| ended.cause != cause);
            self.ended.push(Ended { cause, block, at, spared: spared.clone(), is_back: false });
        }
        let excess = self.ended.len().saturating_sub(OVER_MAX);
        self.ended.drain(..excess);
    }
}
