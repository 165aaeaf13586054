//! From causes to findings: which kind of thing is wrong, what speaks for it, and all of it in one
//! sentence.

use std::collections::BTreeMap;
use std::time::Duration;

use canary_core::{Failure, NodeName, Now, Snapshot, Status, Time, Wall};
use fixedbitset::FixedBitSet;

use crate::block::Block;
use crate::cause::Cause;
use crate::evidence::{Evidence, Layer};
use crate::groups::{Groups, Named};
use crate::incident::{Confidence, Culprit, Group, Kind, Pairs, Severity};
use crate::limits::{
    ATTEMPT, CONTRADICTED, HOLD, HOLD_ONE_WAY, HOLD_QUALITY, HOLD_SCATTERED, NEWS_LATE,
    NEWS_TRAVEL, NEWS_WITHIN,
};
use crate::matrix::{Index, Matrix};
use crate::search::Found;
use crate::words::{self, Look};

/// Something that is wrong at this moment. It becomes an incident if it stays.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    /// What stays the same while the kind changes: what is blamed, and in which layer.
    pub(crate) key: String,
    /// In which layer it was found, and as which cause; none if it does not stand in the matrix.
    pub(crate) cause: Option<(Layer, Cause)>,
    pub(crate) kind: Kind,
    pub(crate) severity: Severity,
    pub(crate) confidence: Confidence,
    pub(crate) culprit: Culprit,
    /// None if it is not known when it began.
    pub(crate) since: Option<Wall>,
    pub(crate) pairs: Pairs,
    pub(crate) evidence: Vec<String>,
    /// The sentence, without when it began.
    pub(crate) sentence: words::Sentence,
    /// How long it has to last before it is stated.
    pub(crate) hold: Duration,
    /// Whether enough pairs were measured and reported since it began: those of a block, those that
    /// would show a larger cause than a path, and those that contradict a node's fault. Before that
    /// it is not stated.
    pub(crate) is_tried: bool,
}

/// The finding of one cause.
pub(crate) fn finding(
    found: &Found,
    evidence: &Evidence<'_>,
    groups: &Groups,
    snapshot: &Snapshot,
) -> Option<Finding> {
    let matrix = evidence.matrix;
    let mut block = found.cause.block(evidence);
    let look = look(&block, evidence);
    let (kind, culprit) = classify(&found.cause, &mut block, &look, evidence, groups, snapshot)?;
    let score = block.weigh(evidence, |_, _| false);
    // What is called a cut reaches further than what was found, and has to explain as well.
    let against = evidence.layer.contradiction() * score.good as f64;
    if evidence.layer == Layer::Failing && score.gained < against {
        return None;
    }
    let sources = block.from.intersection(&evidence.witnesses).count();
    let confidence = match (found.margin, found.score.value) {
        (margin, value) if margin >= 4.0 && value >= 8.0 => Confidence::High,
        (margin, _) if margin >= 2.0 => Confidence::Medium,
        _ => Confidence::Low,
    };
    // Which nodes belong to a group that loses packets is seen only bit by bit, and what is left of
    // one that does not any more may look like a node.
    let is_lossy = evidence.layer == Layer::Lossy
        && (matches!(found.cause, Cause::Block(_)) || score.good * 3 > score.bad);
    let confidence = if is_lossy { confidence.min(Confidence::Medium) } else { confidence };
    // Of two nodes each may be the one that is broken, and nobody else can tell.
    let confidence = if evidence.all.count_ones(..) < 3 { Confidence::Low } else { confidence };
    let names = |set: &FixedBitSet| {
        let mut names: Vec<_> =
            set.ones().filter_map(|index| Some(matrix.node(index)?.name().clone())).collect();
        names.sort_unstable();
        names
    };
    let pairs = Pairs {
        sources: names(&block.from),
        targets: names(&block.to),
        both_ways: block.both,
        explained: score.bad,
        contradicting: score.good,
    };
    let began = block.began(evidence).or(look.since);
    let lasting = began.map(|began| snapshot.now.time.since(began)).unwrap_or_default();
    let is_clear = match (evidence.layer, &found.cause) {
        (Layer::Failing, Cause::Path { .. } | Cause::Block(_)) => false,
        (Layer::Failing, _) => score.good * CONTRADICTED <= score.bad,
        (Layer::Lossy | Layer::Slow, _) => true,
    };
    let news = evidence.news_since(began);
    let is_reported =
        || groups.has_name(block.sides().0) || (news.is_of_most() && still_hold(&block, evidence));
    let is_known = is_clear || (news.is_nearly_complete() && is_reported());
    // Whether more fails than the way between two nodes is seen once half of their pairs have been
    // measured.
    let interval = match found.cause {
        Cause::Path { .. } => matrix.pair_interval() / 2,
        _ => matrix.pair_interval(),
    };
    let tried_after = interval + ATTEMPT + NEWS_TRAVEL * 2;
    // A node whose row has not arrived yet may be a bridge.
    let is_late = matches!(found.cause, Cause::Block(_)) && !news.is_complete();
    let stated_after = match is_known {
        true if is_late => tried_after + NEWS_LATE,
        true => tried_after,
        false => NEWS_WITHIN,
    };
    let is_tried = is_clear || lasting >= stated_after;
    let confidence = if is_known { confidence } else { Confidence::Low };
    let hold = match evidence.layer {
        Layer::Failing if kind == Kind::OneWay => HOLD_ONE_WAY,
        Layer::Failing => HOLD,
        Layer::Lossy | Layer::Slow if is_scattered(&culprit) => HOLD_SCATTERED,
        Layer::Lossy | Layer::Slow => HOLD_QUALITY,
    };
    // A death that was noticed otherwise may come before the next attempt to measure a pair.
    let died = match &culprit {
        Culprit::Node(name) => snapshot.member(name).filter(|node| node.status == Status::Dead),
        _ => None,
    };
    let since = look.since.map(|first| died.map_or(first, |node| first.min(node.since)));
    let since = since.map(|at| wall(at, snapshot.now));
    let (sentence, words) = words::of(kind, &culprit, &block, &look, &pairs, evidence, sources);
    let layer = match evidence.layer {
        Layer::Failing => "failing",
        Layer::Lossy => "lossy",
        Layer::Slow => "slow",
    };
    // A cut is one in both directions, also where only one of them can be seen.
    let cause = match &found.cause {
        Cause::Block(_) if block.both => Cause::Block(block.clone()),
        cause => cause.clone(),
    };
    Some(Finding {
        key: format!("{layer} {culprit}"),
        cause: Some((evidence.layer, cause)),
        kind,
        severity: kind.severity(),
        confidence,
        culprit,
        since,
        pairs,
        evidence: words,
        sentence,
        hold,
        is_tried,
    })
}

/// Whether it blames nodes that have no label in common.
fn is_scattered(culprit: &Culprit) -> bool {
    matches!(culprit, Culprit::Groups { from, to, .. } if from.label.is_none() && to.label.is_none())
}

pub(crate) fn wall(at: Time, now: Now) -> Wall {
    now.wall.back(now.time.since(at))
}

fn look(block: &Block, evidence: &Evidence<'_>) -> Look {
    let mut kinds: BTreeMap<Failure, usize> = BTreeMap::new();
    let (mut firsts, mut times, mut streak) = (Vec::new(), Vec::new(), 0);
    for (from, to) in block.directions() {
        for source in from.intersection(&evidence.witnesses) {
            for bad in evidence.bad[source].iter().filter(|bad| to.contains(bad.target)) {
                if let Some(kind) = bad.kind {
                    *kinds.entry(kind).or_default() += 1;
                }
                firsts.extend(bad.first);
                times.push(bad.times);
                streak = streak.max(bad.streak);
            }
        }
    }
    firsts.sort_unstable();
    times.sort_unstable();
    // Something else may have broken one of the pairs long before.
    let usual = firsts
        .get(firsts.len() / 2)
        .map(|median| median.back(evidence.matrix.pair_interval() * 2 + Duration::from_secs(10)));
    let since = firsts.iter().find(|first| usual.is_some_and(|usual| **first >= usual)).copied();
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(kind, count)| (std::cmp::Reverse(*count), *kind));
    let times = times.get(times.len() / 2).map_or(1.0, |eighths| f64::from(*eighths) / 8.0);
    Look { kinds, since, streak, times }
}

/// Which kind of thing is wrong, by the shape of the cause and by what those concerned say
/// themselves.
fn classify(
    cause: &Cause,
    block: &mut Block,
    look: &Look,
    evidence: &Evidence<'_>,
    groups: &Groups,
    snapshot: &Snapshot,
) -> Option<(Kind, Culprit)> {
    let matrix = evidence.matrix;
    let name = |index: Index| matrix.node(index).map(|node| node.name().clone());
    let main = look.kinds.first().map(|(kind, _)| *kind);
    let by_layer = |lossy: Kind, slow: Kind, failing: Kind| match evidence.layer {
        Layer::Failing => failing,
        Layer::Lossy => lossy,
        Layer::Slow => slow,
    };
    let node_kind = |failing: Kind| by_layer(Kind::NodeLossy, Kind::NodeSlow, failing);
    match cause {
        Cause::To(index) => {
            let node = matrix.node(*index)?;
            let is_silent = !node.is_heard;
            let failing = match main {
                _ if !is_silent => Kind::InboundBroken,
                Some(Failure::Refused | Failure::Identity) => Kind::BotDown,
                _ => Kind::NodeUnreachable,
            };
            Some((node_kind(failing), Culprit::Node(name(*index)?)))
        }
        Cause::From(index) => {
            let is_alone = snapshot.isolated
                || !matrix
                    .nodes()
                    .any(|(other, node)| other != matrix.me && node.status.is_present());
            let is_cut_off = *index == matrix.me && is_alone && main.is_some_and(is_silence);
            let failing = if is_cut_off { Kind::HostCutOff } else { Kind::OutboundBroken };
            let kind = if evidence.layer == Layer::Slow && matrix.node(*index)?.is_behind {
                Kind::ObserverUnreliable
            } else {
                node_kind(failing)
            };
            Some((kind, Culprit::Node(name(*index)?)))
        }
        Cause::Node(index) => {
            let failing =
                if *index == matrix.me { Kind::HostCutOff } else { Kind::NodeUnreachable };
            Some((node_kind(failing), Culprit::Node(name(*index)?)))
        }
        // Where one witness is left, path and node cannot be distinguished, and the node is dead.
        Cause::Path { to, .. } if is_last_word(*to, evidence) => {
            let failing = if matches!(main, Some(Failure::Refused | Failure::Identity)) {
                Kind::BotDown
            } else {
                Kind::NodeUnreachable
            };
            Some((failing, Culprit::Node(name(*to)?)))
        }
        Cause::Path { from, to, both } => {
            let kind = by_layer(Kind::PathLossy, Kind::PathSlow, Kind::PathFailing);
            let (source, target) = (name(*from)?, name(*to)?);
            let (source, target) =
                if *both && target < source { (target, source) } else { (source, target) };
            Some((kind, Culprit::Path { source, target, both_ways: *both }))
        }
        Cause::Block(given) => {
            let cut = cut(given, evidence);
            let is_cut = cut.is_some();
            *block = cut.unwrap_or_else(|| given.clone());
            let group = |side: &FixedBitSet, named: Named| {
                let mut nodes: Vec<_> = side.ones().filter_map(name).collect();
                nodes.sort_unstable();
                let (label, is_rest) = match named {
                    Named::Label(label) | Named::LabelBut(label, _) => (Some(label), false),
                    Named::Rest => (None, true),
                    Named::Nodes => (None, false),
                };
                Group { label, is_rest, nodes }
            };
            let described = groups.describe(block, evidence.name_price());
            let (mut from, mut to) =
                (group(&block.from, described.from), group(&block.to, described.to));
            if is_cut {
                (from, to) = in_order(from, to);
            }
            let failing = if is_cut { Kind::Partition } else { Kind::OneWay };
            let kind = by_layer(Kind::GroupLossy, Kind::GroupSlow, failing);
            Some((kind, Culprit::Groups { from, to, both_ways: is_cut }))
        }
    }
}

/// A block as a cut in both directions; none if only one direction is broken. The other direction
/// counts as working only if most of its sources are known to reach somebody. A few that do are
/// bridges.
fn cut(given: &Block, evidence: &Evidence<'_>) -> Option<Block> {
    if given.both {
        return Some(given.clone());
    }
    let began = given.began(evidence);
    let reaches = |source: &Index| {
        evidence.works(*source, began).is_some_and(|works| !works.is_disjoint(&given.from))
    };
    let mut bridges = FixedBitSet::with_capacity(evidence.len());
    bridges.extend(given.to.intersection(&evidence.witnesses).filter(reaches));
    let is_one_way = bridges.count_ones(..) * 2 >= given.to.count_ones(..)
        || evidence.layer != Layer::Failing
        || !given.from.is_disjoint(&given.to);
    (!is_one_way)
        .then(|| Block::between(given.from.clone(), given.to.difference(&bridges).collect()))
}

/// Whether the rows of most sources that speak for a block still hold.
fn still_hold(block: &Block, evidence: &Evidence<'_>) -> bool {
    let (mut all, mut hold) = (0, 0);
    for (from, to) in block.directions() {
        for source in from.intersection(&evidence.witnesses) {
            let says = evidence.bad[source].iter().any(|bad| to.contains(bad.target));
            let Some(node) = evidence.matrix.node(source).filter(|_| says) else { continue };
            all += 1;
            hold += usize::from(node.row_holds);
        }
    }
    hold * 2 >= all
}

/// Whether a node is dead, and only one is left who could say how it was reached.
fn is_last_word(index: Index, evidence: &Evidence<'_>) -> bool {
    let is_dead =
        evidence.matrix.node(index).is_some_and(|node| !node.is_heard && !node.status.is_present());
    evidence.layer == Layer::Failing && is_dead && evidence.witnesses.count_ones(..) == 1
}

/// Whether nothing came back, and the host itself could try.
fn is_silence(kind: Failure) -> bool {
    matches!(kind, Failure::Timeout | Failure::Unreachable)
}

/// The two sides of a cut as everybody orders them: both sides must give it one id. The smaller
/// side is the one that is named.
fn in_order(one: Group, other: Group) -> (Group, Group) {
    let rank =
        |group: &Group| (group.label.is_none(), group.nodes.len(), group.nodes.first().cloned());
    let (mut first, mut second) =
        if rank(&one) <= rank(&other) { (one, other) } else { (other, one) };
    // Of two sides without a label the smaller is named by its nodes, and the other is the rest,
    // from wherever one looks.
    if first.label.is_none() && (first.is_rest || second.is_rest) {
        (first.is_rest, second.is_rest) = (false, true);
    }
    (first, second)
}

/// Nodes of which something is true that the matrix's shape does not say.
pub(crate) fn unreliable(matrix: &Matrix) -> Vec<Finding> {
    let behind = matrix.nodes().filter(|(_, node)| node.is_behind && node.is_expected());
    let finding = |(_, node): (Index, &crate::matrix::Node)| {
        let name: NodeName = node.name().clone();
        Finding {
            key: format!("observer {name}"),
            cause: None,
            kind: Kind::ObserverUnreliable,
            severity: Kind::ObserverUnreliable.severity(),
            confidence: Confidence::High,
            culprit: Culprit::Node(name.clone()),
            since: None,
            pairs: Pairs::default(),
            evidence: vec![format!(
                "most of what {name} publishes is several intervals old, though its row advances"
            )],
            sentence: words::Sentence::new(
                format!("{name} has had no time to measure"),
                "its numbers are shown, not used; look for a starved or throttled host",
            ),
            hold: HOLD_QUALITY,
            is_tried: true,
        }
    };
    behind.map(finding).collect()
}
