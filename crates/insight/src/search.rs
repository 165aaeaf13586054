//! Finds the fewest causes that explain the evidence best: the best one first, then the best for
//! what is left, then those that turn out to be needless are dropped.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use canary_core::{Failure, Time};
use fixedbitset::FixedBitSet;

use crate::block::{Block, Score};
use crate::cause::Cause;
use crate::evidence::{Evidence, Layer, empty};
use crate::groups::{Group, Groups};
use crate::limits::{
    BRIDGES_MAX, CANDIDATES_MAX, INCUMBENT_PRICE, PARTS_MAX, REFINED_PAIRS_MAX, TOGETHER,
};
use crate::matrix::Index;

/// A cause that was found, and how well it explains.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) cause: Cause,
    pub(crate) score: Score,
    /// By how many nats it explains better than the best other cause of about the same pairs.
    pub(crate) margin: f64,
}

/// Which bad pairs are explained: by source, by the position in its list.
type Explained = Vec<FixedBitSet>;

/// The search in one layer.
pub(crate) struct Search<'a> {
    pub(crate) evidence: &'a Evidence<'a>,
    pub(crate) groups: &'a Groups,
    /// Causes that are stated already.
    pub(crate) incumbents: &'a BTreeSet<Cause>,
    /// Causes of a worse layer: what they cover needs no other explanation.
    pub(crate) worse: &'a [Cause],
}

impl Search<'_> {
    /// The causes, the best first.
    pub(crate) fn explain(&self) -> Vec<Found> {
        let mut explained = self.explained_by(self.worse);
        let mut found: Vec<Found> = Vec::new();
        // What is stated stays, as long as it explains.
        for incumbent in self.incumbents {
            let stated = self.grown(self.score(incumbent.clone(), &explained), &explained);
            let is_known = found.iter().any(|found| found.cause == stated.cause);
            if self.is_accepted(&stated) && !is_known {
                mark(self.evidence, &stated.cause, &mut explained);
                found.push(stated);
            }
        }
        while found.len() < self.evidence.layer.causes_max() {
            let Some(best) = self.best(&explained) else { break };
            let parts = self.parts(&best, &explained);
            let value = |parts: &[Found]| parts.iter().map(|part| part.score.value).sum::<f64>();
            let is_better_in_parts = parts.len() > 1
                && parts.iter().all(|part| self.is_accepted(part))
                && value(&parts) >= best.score.value;
            let chosen =
                if is_better_in_parts { parts } else { vec![self.shaped(best, &explained)] };
            chosen.iter().for_each(|found| mark(self.evidence, &found.cause, &mut explained));
            found.extend(chosen);
        }
        self.prune(&mut found);
        found
    }

    /// The cause that explains best what is left, if any explains it better than chance.
    fn best(&self, explained: &Explained) -> Option<Found> {
        let candidates = candidates(self.evidence, self.groups, explained);
        let mut scored: Vec<Found> =
            candidates.into_iter().map(|cause| self.score(cause, explained)).collect();
        scored.sort_by(|a, b| {
            b.score.value.total_cmp(&a.score.value).then_with(|| a.cause.cmp(&b.cause))
        });
        let mut scored = scored.into_iter();
        let best = scored.next().filter(|best| self.is_accepted(best))?;
        let rivals = scored.filter(|rival| rival.score.gained >= best.score.gained * 0.7);
        let rival = rivals.map(|rival| rival.score.value).fold(0.0, f64::max);
        Some(Found { margin: best.score.value - rival, ..best })
    }

    fn is_accepted(&self, found: &Found) -> bool {
        found.score.value >= self.evidence.layer.accepted(matches!(found.cause, Cause::Path { .. }))
    }

    /// A stated block against all others, if that explains as well by now: pairs that had not been
    /// measured when it was stated have been since.
    fn grown(&self, stated: Found, explained: &Explained) -> Found {
        let Cause::Block(block) = &stated.cause else { return stated };
        let whole = Cause::Block(block.with_side(block.sides().0, &self.evidence.all));
        if whole == stated.cause || self.groups.has_name(block.sides().1) {
            return stated;
        }
        let mut grown = self.score(whole.clone(), explained);
        // It is the same cause, and has paid already.
        grown.score.value += (1.0 - INCUMBENT_PRICE) * whole.price(self.evidence, self.groups);
        if grown.score.value >= stated.score.value { grown } else { stated }
    }

    /// A block without those nodes that reach the other side, as far as it explains better without
    /// them.
    fn without_bridges(&self, found: Found, explained: &Explained) -> Found {
        let mut best = found;
        // Packets are lost now and then: pairs that lose none say little of a node.
        let bridges_max = if self.evidence.layer == Layer::Failing { BRIDGES_MAX } else { 0 };
        for _ in 0..bridges_max {
            let Cause::Block(block) = &best.cause else { break };
            let rest = self.bridge(block).and_then(|bridge| block.without(bridge));
            let Some(rest) = rest.filter(|_| best.score.good > 0) else { break };
            let rest = self.score(Cause::Block(rest), explained);
            if rest.score.value <= best.score.value {
                break;
            }
            best = Found { margin: best.margin, ..rest };
        }
        best
    }

    /// The node whose pairs contradict a block most.
    fn bridge(&self, block: &Block) -> Option<Index> {
        let began = block.began(self.evidence);
        let mut works_with = vec![0; self.evidence.len()];
        for (from, to) in block.directions() {
            for source in from.intersection(&self.evidence.witnesses) {
                for target in self
                    .evidence
                    .works(source, began)
                    .into_iter()
                    .flat_map(|works| works.intersection(to))
                {
                    works_with[source] += 1;
                    works_with[target] += 1;
                }
            }
        }
        let most =
            works_with.iter().enumerate().max_by_key(|(index, works)| (**works, Reverse(*index)));
        most.filter(|(_, works)| **works > 0).map(|(index, _)| index)
    }

    /// A cause with those nodes that make it explain best. A side that has a name is cut from all
    /// others but the bridges, if that explains better: some rows may not show all failures yet.
    fn shaped(&self, found: Found, explained: &Explained) -> Found {
        let found = self.without_bridges(self.refined(found, explained), explained);
        let Cause::Block(block) = &found.cause else { return found };
        let (side, _) = block.sides();
        if self.evidence.layer != Layer::Failing || !self.groups.has_name(side) {
            return found;
        }
        let whole = self.score(Cause::Block(block.with_side(side, &self.evidence.all)), explained);
        let whole = self.without_bridges(whole, explained);
        if whole.score.value > found.score.value {
            Found { margin: found.margin, ..whole }
        } else {
            found
        }
    }

    fn score(&self, cause: Cause, explained: &Explained) -> Found {
        let mut score = cause
            .block(self.evidence)
            .weigh(self.evidence, |source, at| explained[source].contains(at));
        let share = if self.incumbents.contains(&cause) { INCUMBENT_PRICE } else { 1.0 };
        score.value = score.gained
            - self.evidence.layer.contradiction() * score.good as f64
            - share * cause.price(self.evidence, self.groups);
        Found { cause, score, margin: score.value }
    }

    /// What a side of a block consists of that has no name: groups that have one, and single nodes.
    /// They may have nothing in common.
    fn parts(&self, whole: &Found, explained: &Explained) -> Vec<Found> {
        let Cause::Block(block) = &whole.cause else { return Vec::new() };
        let (smaller, larger) = block.sides();
        // The larger one may be two zones, or a zone and a node that died: then the smaller one is
        // cut from either.
        let is_larger = self.groups.has_name(smaller);
        if is_larger
            && (self.groups.has_name(larger)
                || !block.from.is_disjoint(&block.to)
                || self.groups.are_all(block))
        {
            return Vec::new();
        }
        let side = if is_larger { larger } else { smaller };
        let part_of = |nodes: &FixedBitSet| match is_larger {
            true => block.with_larger_side(nodes),
            false => block.with_side(nodes, &self.evidence.all),
        };
        let mut groups: Vec<_> = self
            .groups
            .iter()
            .map(|group| (group.nodes.count_ones(..), group))
            .filter(|(size, _)| *size > 1)
            .collect();
        groups.sort_by(|(one, a), (other, b)| other.cmp(one).then_with(|| a.label.cmp(&b.label)));
        // Groups of all labels, and of each label alone: one may lie across those of another.
        let keys: BTreeSet<_> = groups.iter().map(|(_, group)| Some(group.key)).collect();
        let choices = keys.into_iter().chain([None]).map(|key| {
            let of_key = |group: &&Group| key.is_none_or(|key| group.key == key);
            let groups = groups.iter().map(|(_, group)| *group).filter(of_key);
            self.apart(side, groups, is_larger, part_of, explained)
        });
        let value = |parts: &[Found]| parts.iter().map(|part| part.score.value).sum::<f64>();
        choices
            .max_by(|one, other| value(one).total_cmp(&value(other)))
            .unwrap_or_default()
            .into_iter()
            .map(|part| Found { margin: part.margin.min(whole.margin), ..part })
            .collect()
    }

    /// A side in parts: those of these groups that lie in it, and the nodes that are left. Each
    /// explains what those before it do not.
    fn apart<'g>(
        &self,
        side: &FixedBitSet,
        groups: impl Iterator<Item = &'g Group>,
        is_larger: bool,
        part_of: impl Fn(&FixedBitSet) -> Block,
        explained: &Explained,
    ) -> Vec<Found> {
        let mut explained = explained.clone();
        let mut parts: Vec<Found> = Vec::new();
        let mut left = side.clone();
        for group in groups {
            if group.nodes.is_subset(&left) {
                left.difference_with(&group.nodes);
                let part = self.score(Cause::Block(part_of(&group.nodes)), &explained);
                mark(self.evidence, &part.cause, &mut explained);
                parts.push(part);
            }
        }
        // A zone that is cut from nearly all others is one cut.
        if is_larger && parts.len() > PARTS_MAX {
            return Vec::new();
        }
        for index in left.ones().take(CANDIDATES_MAX) {
            let shapes = [Cause::To(index), Cause::From(index), Cause::Node(index)];
            let scored = shapes.map(|cause| self.score(cause, &explained));
            if let Some(best) =
                scored.into_iter().max_by(|a, b| a.score.value.total_cmp(&b.score.value))
            {
                mark(self.evidence, &best.cause, &mut explained);
                parts.push(best);
            }
        }
        parts
    }

    /// A block whose smaller side has no name, with those nodes on that side that make it explain
    /// best.
    fn refined(&self, found: Found, explained: &Explained) -> Found {
        let mut best = found;
        let pairs: usize = self.evidence.bad.iter().map(Vec::len).sum();
        if pairs > REFINED_PAIRS_MAX {
            return best;
        }
        for index in self.evidence.all.ones() {
            let Cause::Block(block) = &best.cause else { return best };
            let (side, _) = block.sides();
            if self.groups.has_name(side) {
                return best;
            }
            let mut other = side.clone();
            other.toggle(index);
            if other.count_ones(..) < 2
                || other.count_ones(..) + 2 > self.evidence.all.count_ones(..)
            {
                continue;
            }
            let changed =
                self.score(Cause::Block(block.with_side(&other, &self.evidence.all)), explained);
            if changed.score.value > best.score.value {
                best = Found { margin: best.margin, ..changed };
            }
        }
        best
    }

    /// Drops causes, the weakest first, that explain nothing which the others do not explain as
    /// well.
    fn prune(&self, found: &mut Vec<Found>) {
        for at in (0..found.len()).rev() {
            let others = found
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != at)
                .map(|(_, found)| &found.cause);
            let by_others = self.explained_by(self.worse.iter().chain(others));
            if found.len() > 1 && self.score(found[at].cause.clone(), &by_others).score.value < 0.0
            {
                found.remove(at);
            }
        }
    }

    fn explained_by<'c>(&self, causes: impl IntoIterator<Item = &'c Cause>) -> Explained {
        let mut explained: Explained =
            self.evidence.bad.iter().map(|bad| FixedBitSet::with_capacity(bad.len())).collect();
        causes.into_iter().for_each(|cause| mark(self.evidence, cause, &mut explained));
        explained
    }
}

fn mark(evidence: &Evidence<'_>, cause: &Cause, explained: &mut Explained) {
    for (from, to) in cause.block(evidence).directions() {
        for source in from.intersection(&evidence.witnesses) {
            for (at, bad) in evidence.bad[source].iter().enumerate() {
                if to.contains(bad.target) {
                    explained[source].set(at, true);
                }
            }
        }
    }
}

/// What could explain some of what is left.
fn candidates(evidence: &Evidence<'_>, groups: &Groups, explained: &Explained) -> BTreeSet<Cause> {
    let left = Left::of(evidence, explained);
    let mut causes = BTreeSet::new();
    let (to, from) = (top(&left.to), top(&left.from));
    causes.extend(to.iter().map(|index| Cause::To(*index)));
    causes.extend(from.iter().map(|index| Cause::From(*index)));
    let both =
        to.iter().chain(&from).filter(|index| left.to[**index] > 0.0 && left.from[**index] > 0.0);
    causes.extend(both.map(|index| Cause::Node(*index)));
    causes.extend(left.paths());
    causes.extend(labelled(evidence, groups, &left));
    causes.extend(together(evidence, &left));
    causes.extend(alike(evidence, &left));
    causes.extend(heavy(evidence, &left));
    causes.retain(|cause| !matches!(cause, Cause::Block(block) if groups.is_of_one(block)));
    causes
}

/// The nodes with the greatest weights.
fn top(weights: &[f64]) -> Vec<Index> {
    let mut order: Vec<_> = weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight > 0.0)
        .map(|(index, weight)| (*weight, index))
        .collect();
    order.sort_by(|(a, one), (b, other)| b.total_cmp(a).then(one.cmp(other)));
    order.into_iter().take(CANDIDATES_MAX).map(|(_, index)| index).collect()
}

/// Bad pairs that nothing explains yet.
struct Left {
    /// By source: the targets.
    targets: Vec<FixedBitSet>,
    /// Weights by target and by source.
    to: Vec<f64>,
    from: Vec<f64>,
    pairs: Vec<(f64, Index, Index)>,
}

impl Left {
    fn of(evidence: &Evidence<'_>, explained: &Explained) -> Self {
        let mut left = Self {
            targets: vec![empty(evidence.matrix); evidence.len()],
            to: vec![0.0; evidence.len()],
            from: vec![0.0; evidence.len()],
            pairs: Vec::new(),
        };
        for source in evidence.witnesses.ones() {
            for (_, bad) in evidence.bad[source]
                .iter()
                .enumerate()
                .filter(|(at, _)| !explained[source].contains(*at))
            {
                left.targets[source].set(bad.target, true);
                left.to[bad.target] += bad.weight;
                left.from[source] += bad.weight;
                left.pairs.push((bad.weight, source, bad.target));
            }
        }
        left.pairs.sort_by(|(a, one, two), (b, other, another)| {
            b.total_cmp(a).then((one, two).cmp(&(other, another)))
        });
        left
    }

    fn paths(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        for (_, from, to) in self.pairs.iter().take(CANDIDATES_MAX).copied() {
            causes.push(Cause::Path { from, to, both: false });
            if self.targets[to].contains(from) {
                causes.push(Cause::Path { from: from.min(to), to: from.max(to), both: true });
            }
        }
        causes
    }
}

/// Blocks between groups that share a label, and between such a group and all others.
fn labelled(evidence: &Evidence<'_>, groups: &Groups, left: &Left) -> Vec<Cause> {
    let mut causes = Vec::new();
    let weight = |group: &&Group| {
        group.nodes.ones().map(|node| left.to[node] + left.from[node]).sum::<f64>()
    };
    let mut weighed: Vec<_> = groups
        .iter()
        .map(|group| (weight(&group), group))
        .filter(|(weight, _)| *weight > 0.0)
        .collect();
    weighed
        .sort_by(|(a, one), (b, other)| b.total_cmp(a).then_with(|| one.label.cmp(&other.label)));
    let groups: Vec<_> =
        weighed.into_iter().take(2 * CANDIDATES_MAX).map(|(_, group)| group).collect();
    let has_bad = |from: &FixedBitSet, to: &FixedBitSet| {
        from.ones().any(|source| !left.targets[source].is_disjoint(to))
    };
    let mut add = |from: &FixedBitSet, to: &FixedBitSet| {
        let (there, back) = (has_bad(from, to), has_bad(to, from));
        if there {
            causes.push(Cause::Block(Block { from: from.clone(), to: to.clone(), both: false }));
        }
        if back {
            causes.push(Cause::Block(Block { from: to.clone(), to: from.clone(), both: false }));
        }
        if there && back {
            causes.push(Cause::Block(Block::between(from.clone(), to.clone())));
        }
    };
    for (at, group) in groups.iter().enumerate() {
        let mut rest = evidence.all.clone();
        rest.difference_with(&group.nodes);
        if group.nodes.count_ones(..) > 1 || rest.count_ones(..) > 1 {
            add(&group.nodes, &rest);
        }
        let others = groups[at + 1..].iter().filter(|other| other.key == group.key);
        for other in
            others.filter(|other| group.nodes.count_ones(..) + other.nodes.count_ones(..) > 2)
        {
            add(&group.nodes, &other.nodes);
        }
    }
    causes
}

/// Nodes that all of us lost at one instant, and that did not refuse: one cut rather than many
/// deaths.
fn together(evidence: &Evidence<'_>, left: &Left) -> Vec<Cause> {
    let mut lost: Vec<(Time, Index)> = Vec::new();
    for target in evidence.all.ones().filter(|target| left.to[*target] > 0.0) {
        let (mut firsts, mut refused) = (Vec::new(), 0);
        for source in
            evidence.witnesses.ones().filter(|source| left.targets[*source].contains(target))
        {
            let Ok(at) = evidence.bad[source].binary_search_by_key(&target, |bad| bad.target)
            else {
                continue;
            };
            let bad = &evidence.bad[source][at];
            firsts.extend(bad.first);
            refused += usize::from(matches!(bad.kind, Some(Failure::Refused | Failure::Identity)));
        }
        firsts.sort_unstable();
        let Some(median) = firsts.get(firsts.len() / 2).copied() else { continue };
        let reaches = |source: &Index| {
            evidence.works(*source, Some(median)).is_some_and(|works| works.contains(target))
        };
        let others = evidence.witnesses.ones().filter(reaches).count();
        if firsts.len() > 3 * others && refused * 2 < firsts.len().max(1) {
            lost.push((median, target));
        }
    }
    lost.sort_unstable();
    let mut causes = Vec::new();
    for run in lost.chunk_by(|(one, _), (other, _)| other.since(*one) <= TOGETHER) {
        if run.len() < 2 {
            continue;
        }
        let mut to = empty(evidence.matrix);
        run.iter().for_each(|(_, target)| to.set(*target, true));
        let mut from = evidence.present.clone();
        from.difference_with(&to);
        if from.count_ones(..) > 0 {
            causes.push(Cause::Block(Block { from: from.clone(), to: to.clone(), both: false }));
            causes.push(Cause::Block(Block::between(from, to)));
        }
    }
    causes
}

/// The nodes with the most bad pairs against all others: where pairs are bad now and then, no two
/// of them look alike.
fn heavy(evidence: &Evidence<'_>, left: &Left) -> Option<Cause> {
    let weights: Vec<_> = left.to.iter().zip(&left.from).map(|(to, from)| to + from).collect();
    let most = weights.iter().copied().fold(0.0, f64::max);
    let mut side = empty(evidence.matrix);
    for (index, _) in weights.iter().enumerate().filter(|(_, weight)| **weight > most / 2.0) {
        side.set(index, true);
    }
    let mut rest = evidence.all.clone();
    rest.difference_with(&side);
    let is_worth = side.count_ones(..) > 1 && rest.count_ones(..) > 1;
    is_worth.then_some(Cause::Block(Block::between(side, rest)))
}

/// Sources that fail at the same targets.
fn alike(evidence: &Evidence<'_>, left: &Left) -> Vec<Cause> {
    let mut patterns: BTreeMap<&FixedBitSet, usize> = BTreeMap::new();
    for source in evidence.witnesses.ones() {
        let targets = &left.targets[source];
        // What everybody fails at is a node's fault, and what fails everywhere is a source's.
        if targets.count_ones(..) > 0 {
            *patterns.entry(targets).or_default() += 1;
        }
    }
    let mut order: Vec<_> = patterns
        .into_iter()
        .map(|(targets, count)| (count * targets.count_ones(..), targets))
        .collect();
    order.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.cmp(other)));
    let mut causes = Vec::new();
    for (_, pattern) in order.into_iter().take(CANDIDATES_MAX) {
        let size = pattern.count_ones(..);
        let mut from = empty(evidence.matrix);
        for source in evidence.witnesses.ones() {
            let shared = left.targets[source].intersection_count(pattern)
                + usize::from(pattern.contains(source));
            from.set(source, shared * 5 >= size * 4 && left.targets[source].count_ones(..) > 0);
        }
        let sources = from.count_ones(..);
        let mut to = empty(evidence.matrix);
        for target in pattern.ones() {
            let failing =
                from.ones().filter(|source| left.targets[*source].contains(target)).count()
                    + usize::from(from.contains(target));
            to.set(target, failing * 5 >= sources * 4);
        }
        if sources * to.count_ones(..) < 2 {
            continue;
        }
        causes.push(Cause::Block(Block { from: from.clone(), to: to.clone(), both: false }));
        if from.is_disjoint(&to) {
            causes.push(Cause::Block(Block::between(from, to)));
        }
    }
    causes
}
