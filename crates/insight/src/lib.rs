//! Explains: finds the reason why a matrix is red.
//!
//! The matrix of a broken network is red in many places for one reason. [`Insight::observe`] reads
//! a snapshot and names the reason: an [`Incident`] with a kind, a culprit, when it began, and one
//! sentence. It is pure: it opens no socket and reads no clock, and the same snapshots in the same
//! order give the same report, whichever bot they come from.
//!
//! # The model
//!
//! Every row that advances is a witness. A pair is *bad* if it fails, loses packets, or is slower
//! than it usually is; these three layers are explained one after the other, by the same model:
//!
//! * A **cause** breaks a rectangle of the matrix, from some nodes to some nodes: a column (nobody
//!   reaches a node), a row (a node reaches nobody), both, a block (groups that share a label, or
//!   that fail alike), or a single cell.
//! * A pair under a cause is bad with a probability near one, any other pair by chance; so each bad
//!   pair speaks for a cause as often as it failed in a row, and each good pair speaks against it
//!   (a noisy-OR model).
//! * A cause costs its description: naming one path of n² is dearer than naming one node of n.
//! * The explanation is the set of causes that explains best, found greedily and pruned.
//!
//! What was found becomes an incident when it lasts, and is closed when nothing has spoken for it
//! for a while. What those concerned say themselves decides what kind of thing it is: a node that
//! nobody reaches is down if its row is silent, and has a broken way in if its row advances.

mod block;
mod cause;
mod evidence;
mod groups;
mod incident;
mod judge;
pub mod limits;
mod matrix;
mod over;
mod search;
mod soon;
mod track;
mod words;

use std::sync::Arc;

use canary_core::{Now, Snapshot};

use crate::evidence::{Evidence, Layer};
use crate::groups::Groups;
use crate::judge::Finding;
use crate::matrix::Matrix;
use crate::over::Over;
use crate::search::Search;
use crate::track::Tracker;

pub use incident::{
    Change, Confidence, Culprit, Event, Group, Id, Incident, Kind, Pairs, Severity,
};

/// Explains the snapshots of one bot. It remembers what the pairs are usually like, and which
/// incidents are open.
#[derive(Debug, Default)]
pub struct Insight {
    matrix: Matrix,
    over: Over,
    tracker: Tracker,
}

/// What is wrong, by one observation.
#[derive(Clone, Debug)]
pub struct Report {
    /// When the snapshot was made.
    pub now: Now,
    /// All of it in one sentence.
    pub verdict: String,
    /// Incidents that last, the worst first.
    pub open: Vec<Arc<Incident>>,
    /// Incidents that are over, newest first.
    pub closed: Vec<Arc<Incident>>,
    /// What happened to incidents, oldest first.
    pub events: Vec<Event>,
    /// How much of the mesh this bot sees.
    pub sight: Sight,
}

/// How much of the mesh a bot sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Nodes that are or should be there, this one included.
    pub nodes: usize,
    /// Nodes whose rows advance, this one included: only of these it is known what they measure.
    pub visible: usize,
    /// Pairs of visible nodes with others, by what is known of them.
    pub ok: usize,
    /// Pairs that fail.
    pub failed: usize,
    /// Pairs of which it is not known how they are.
    pub unknown: usize,
}

impl Insight {
    /// Without any memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads what a snapshot says beyond earlier ones, and reports what is wrong.
    pub fn observe(&mut self, snapshot: &Snapshot) -> Report {
        self.matrix.read(snapshot);
        let mut findings = judge::unreliable(&self.matrix);
        findings.extend(soon::findings(&self.matrix, snapshot));
        let mut worse = Vec::new();
        let stated = self.tracker.incumbents(Layer::Failing);
        self.over.forget(&self.matrix.freed);
        let mut found_failing = Vec::new();
        for layer in Layer::ALL {
            let void = |source, failing: &_| self.over.is_void(source, failing);
            let Some(evidence) = Evidence::of(&self.matrix, layer, void) else { continue };
            let groups = Groups::of(&evidence);
            let mut incumbents = self.tracker.incumbents(layer);
            // Numbers mean other nodes now, and a group may have grown: the
            // search begins again.
            if self.matrix.is_renumbered {
                incumbents.clear();
            }
            incumbents.retain(|cause| layer != Layer::Failing || !self.over.has_ended(cause));
            let search = Search {
                evidence: &evidence,
                groups: &groups,
                incumbents: &incumbents,
                worse: &worse,
            };
            let mut found = Vec::new();
            for cause in search.explain() {
                if let Some(finding) = judge::finding(&cause, &evidence, &groups, snapshot) {
                    found.push(finding);
                    worse.push(cause.cause);
                }
            }
            if layer == Layer::Failing {
                let causes = found.iter().filter_map(|finding| finding.cause.clone());
                found_failing =
                    causes.map(|(_, cause)| (cause.clone(), cause.block(&evidence))).collect();
            }
            findings.extend(found);
        }
        self.over.update(&self.matrix, &stated, found_failing, snapshot.now.time);
        let void = |source, failing: &_| self.over.is_void(source, failing);
        let failing = Evidence::of(&self.matrix, Layer::Failing, void);
        let is_explained = |finding: &Finding| {
            let (Some(evidence), Some((_, cause))) = (&failing, &finding.cause) else {
                return false;
            };
            let score = cause.block(evidence).weigh(evidence, |_, _| false);
            score.bad > score.good
        };
        self.tracker.update(findings, snapshot.now, is_explained);
        let sight = self.sight();
        let open = self.tracker.open();
        Report {
            now: snapshot.now,
            verdict: verdict(&open, sight, snapshot),
            open,
            closed: self.tracker.closed(),
            events: self.tracker.events(),
            sight,
        }
    }

    fn sight(&self) -> Sight {
        let mut sight = Sight::default();
        let expected: Vec<_> = self.matrix.nodes().filter(|(_, node)| node.is_expected()).collect();
        sight.nodes = expected.len();
        for (index, node) in expected.iter().filter(|(_, node)| node.is_heard) {
            sight.visible += 1;
            if !node.tells {
                sight.unknown += sight.nodes - 1;
                continue;
            }
            let known = node
                .said
                .known
                .ones()
                .filter(|index| self.matrix.node(*index).is_some_and(matrix::Node::is_expected))
                .count();
            let is_expected = |failing: &&matrix::Failing| {
                self.matrix.node(failing.target as usize).is_some_and(matrix::Node::is_expected)
            };
            let (mut failed, mut over) = (0, 0);
            for failing in node.said.failing.iter().filter(is_expected) {
                *(if self.over.is_void(*index, failing) { &mut over } else { &mut failed }) += 1;
            }
            sight.failed += failed;
            sight.ok += known.saturating_sub(failed + over);
            sight.unknown += over + (sight.nodes - 1).saturating_sub(known);
        }
        sight
    }
}

/// The state of the mesh in one sentence.
fn verdict(open: &[Arc<Incident>], sight: Sight, snapshot: &Snapshot) -> String {
    let hidden = sight.nodes - sight.visible;
    let mut text = match open {
        [] if sight.nodes < 2 => {
            let why = if snapshot.targets.is_empty() {
                "it has no target"
            } else {
                "none of its targets admits it now"
            };
            format!("{} knows no other node: {why}.", snapshot.me.name)
        }
        [] if sight.failed > 0 => {
            let pairs = words::count(sight.ok + sight.failed + sight.unknown, "pair");
            format!("{} of {pairs} fail at this moment; the cause is not known yet.", sight.failed)
        }
        [] if sight.unknown > 0 && hidden == 0 => {
            format!(
                "No fault is known; {} of {} have been measured.",
                sight.ok + sight.failed,
                words::count(sight.ok + sight.failed + sight.unknown, "pair")
            )
        }
        [] if hidden == 0 => format!("All {} nodes reach each other.", sight.nodes),
        [] => "No fault is known.".to_owned(),
        [only] => only.summary.clone(),
        [first, others @ ..] => {
            format!("{} There are {} more incidents.", first.summary, others.len())
                .replace("are 1 more incidents", "is 1 more incident")
        }
    };
    // That a node says nothing which is down needs no word.
    let down = open
        .iter()
        .filter(|incident| match incident.kind {
            Kind::BotDown | Kind::NodeUnreachable => true,
            Kind::OriginalStuck => matches!(incident.culprit, Culprit::Node(_)),
            _ => false,
        })
        .count();
    if hidden > down {
        text.push_str(&format!(
            " From here {} of {} nodes are visible.",
            sight.visible, sight.nodes
        ));
    }
    text
}
