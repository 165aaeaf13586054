//! What could be to blame, which pairs that would break, and how well it explains those that are.
//!
//! Every cause breaks a rectangle of the matrix: all pairs from some nodes to some nodes, in one
//! direction or both. A node that is down is a column, one whose outgoing connections fail is a
//! row, a partition is a block, and a broken path is a single cell. So one score serves all.

use fixedbitset::FixedBitSet;

use crate::block::Block;
use crate::evidence::Evidence;
use crate::groups::Groups;
use crate::matrix::Index;

/// Something that could be to blame.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// Nobody reaches this node.
    To(Index),
    /// This node reaches nobody.
    From(Index),
    /// Both.
    Node(Index),
    /// From some nodes to some others, or between them.
    Block(Block),
    /// From one node to another, or between them.
    Path {
        /// Who measures.
        from: Index,
        /// Whom.
        to: Index,
        /// Whether the other direction is meant, too.
        both: bool,
    },
}

impl Cause {
    /// The pairs that it breaks.
    pub(crate) fn block(&self, evidence: &Evidence<'_>) -> Block {
        let only = |index: Index| {
            let mut set = FixedBitSet::with_capacity(evidence.len());
            set.set(index, true);
            set
        };
        let all_but = |index: Index| {
            let mut set = evidence.all.clone();
            set.set(index, false);
            set
        };
        match self {
            Self::To(index) => Block { from: all_but(*index), to: only(*index), both: false },
            Self::From(index) => Block { from: only(*index), to: all_but(*index), both: false },
            Self::Node(index) => Block { from: only(*index), to: all_but(*index), both: true },
            Self::Block(block) => block.clone(),
            Self::Path { from, to, both } => {
                Block { from: only(*from), to: only(*to), both: *both }
            }
        }
    }

    /// What it costs to name it: one path of n² is dearer than one node of n, and a group that has
    /// a name is cheaper than one that has none.
    pub(crate) fn price(&self, evidence: &Evidence<'_>, groups: &Groups) -> f64 {
        let name = evidence.name_price();
        match self {
            Self::To(_) | Self::From(_) => name + 1.0,
            Self::Node(_) => name + 2.0,
            Self::Path { both, .. } => 2.0 * name + if *both { 1.0 } else { 0.0 },
            Self::Block(block) => name + groups.describe(block, name).price,
        }
    }
}
