//! Groups of nodes that have a name: those that share a label.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use fixedbitset::FixedBitSet;

use crate::block::Block;
use crate::evidence::{Evidence, Layer};
use crate::limits::{ALL_GROUPS_MAX, GROUPS_MAX};

/// Groups by label.
#[derive(Debug)]
pub(crate) struct Groups {
    by_label: Vec<Group>,
    /// All nodes that are or should be there.
    all: FixedBitSet,
    /// Those of them that somebody hears.
    present: FixedBitSet,
    /// Whether a few nodes may be on no side.
    has_bridges: bool,
}

/// The nodes with one label.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) label: String,
    /// The number of the label's key.
    pub(crate) key: usize,
    pub(crate) nodes: FixedBitSet,
}

/// How a set of nodes can be named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Named {
    /// All nodes with this label.
    Label(String),
    /// All nodes with this label but so many.
    LabelBut(String, usize),
    /// All that the other side is not, or all but a few.
    Rest,
    /// By their names alone.
    Nodes,
}

impl Groups {
    /// The groups of all nodes that are or should be there. A label that every node has, or that
    /// names nodes one by one, makes none.
    pub(crate) fn of(evidence: &Evidence<'_>) -> Self {
        let (matrix, all) = (evidence.matrix, &evidence.all);
        let mut keys: BTreeMap<&str, BTreeMap<&str, FixedBitSet>> = BTreeMap::new();
        for (index, node) in matrix.nodes().filter(|(index, _)| all.contains(*index)) {
            for (key, value) in node.record.labels.iter() {
                let values = keys.entry(key).or_default();
                let nodes =
                    values.entry(value).or_insert_with(|| FixedBitSet::with_capacity(matrix.len()));
                nodes.set(index, true);
            }
        }
        let mut groups = Vec::new();
        for (number, (key, values)) in keys.into_iter().enumerate() {
            let is_grouping =
                values.len() <= GROUPS_MAX && values.values().any(|nodes| nodes.count_ones(..) > 1);
            if !is_grouping || groups.len() + values.len() > ALL_GROUPS_MAX {
                continue;
            }
            for (value, nodes) in values {
                if nodes != *all {
                    groups.push(Group { label: format!("{key}={value}"), key: number, nodes });
                }
            }
        }
        let has_bridges = evidence.layer == Layer::Failing;
        let present = evidence.present.clone();
        Self { by_label: groups, all: all.clone(), present, has_bridges }
    }

    /// All groups.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.by_label.iter()
    }

    /// How both sides of a block are named, the cheapest way; `name` is the price of a node.
    pub(crate) fn describe(&self, block: &Block, name: f64) -> Described {
        let (from, to) = (self.name(&block.from), self.name(&block.to));
        let (from_price, to_price) =
            (self.price(&from, &block.from, name), self.price(&to, &block.to, name));
        let apart = Described { from, to, price: from_price + to_price };
        let Some(spared) = self.spared(block) else { return apart };
        // Of two that cost the same everybody has to choose the same.
        let is_from_named = match from_price.total_cmp(&to_price) {
            Ordering::Equal => apart.from <= apart.to,
            order => order == Ordering::Less,
        };
        let (named, rest) =
            if is_from_named { (&apart.from, &block.to) } else { (&apart.to, &block.from) };
        let price = from_price.min(to_price) + spared as f64 / 2.0 * name;
        let is_rest = spared == 0
            || (self.has_bridges && spared * 3 <= rest.count_ones(..) && price < apart.price);
        match (is_rest, named.clone()) {
            (false, _) => apart,
            (true, from) if is_from_named => Described { from, to: Named::Rest, price },
            (true, to) => Described { from: Named::Rest, to, price },
        }
    }

    /// Whether a set of nodes has a name of its own.
    pub(crate) fn has_name(&self, side: &FixedBitSet) -> bool {
        self.name(side) != Named::Nodes
    }

    /// Whether a block says the same as a node, or as a path between two.
    pub(crate) fn is_of_one(&self, block: &Block) -> bool {
        let (from, to) = (block.from.count_ones(..), block.to.count_ones(..));
        (from == 1 && to == 1) || ((from == 1 || to == 1) && self.are_all(block))
    }

    /// Whether the two sides are all nodes.
    pub(crate) fn are_all(&self, block: &Block) -> bool {
        self.spared(block) == Some(0)
    }

    /// How many nodes are on neither side; none if the sides overlap. Of those that nobody hears it
    /// is not known to which side they belong.
    fn spared(&self, block: &Block) -> Option<usize> {
        let is_spared = |node: &usize| !block.from.contains(*node) && !block.to.contains(*node);
        let spared = self.present.intersection(&self.all).filter(is_spared);
        block.from.is_disjoint(&block.to).then(|| spared.count())
    }

    fn name(&self, side: &FixedBitSet) -> Named {
        let size = side.count_ones(..);
        if let Some(group) = self.by_label.iter().find(|group| group.nodes == *side) {
            return Named::Label(group.label.clone());
        }
        let near = self.by_label.iter().filter_map(|group| {
            let missing = group.nodes.difference(side).count();
            let is_near = side.is_subset(&group.nodes) && missing * 3 <= size && size > 1;
            is_near.then_some((missing, group))
        });
        match near.min_by_key(|(missing, _)| *missing) {
            Some((missing, group)) => Named::LabelBut(group.label.clone(), missing),
            None => Named::Nodes,
        }
    }

    fn price(&self, named: &Named, side: &FixedBitSet, name: f64) -> f64 {
        let label = (self.by_label.len().max(2) as f64).ln() + 1.0;
        match named {
            Named::Label(_) => label,
            Named::LabelBut(_, missing) => label + *missing as f64 * name,
            Named::Rest => 0.0,
            Named::Nodes => (1.0 + side.count_ones(..) as f64 / 2.0) * name,
        }
    }
}

/// How both sides of a block are named, and what that costs.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) from: Named,
    pub(crate) to: Named,
    pub(crate) price: f64,
}
