//! A queue in which each key waits at most once: deadlines, and pairs whose turn has come.

use std::collections::{BTreeMap, BTreeSet};

/// Keys in order of their rank, the lowest first; equal ranks in order of the keys.
#[derive(Debug)]
pub(crate) struct Queue<K, R> {
    order: BTreeSet<(R, K)>,
    ranks: BTreeMap<K, R>,
}

impl<K, R> Default for Queue<K, R> {
    fn default() -> Self {
        Self { order: BTreeSet::new(), ranks: BTreeMap::new() }
    }
}

impl<K: Ord + Copy, R: Ord + Copy> Queue<K, R> {
    /// Gives `key` this rank, in place of any before.
    pub(crate) fn set(&mut self, key: K, rank: R) {
        if let Some(before) = self.ranks.insert(key, rank) {
            self.order.remove(&(before, key));
        }
        self.order.insert((rank, key));
    }

    /// Gives `key` this rank unless it has a lower one.
    pub(crate) fn set_earlier(&mut self, key: K, rank: R) {
        if self.ranks.get(&key).is_none_or(|before| *before > rank) {
            self.set(key, rank);
        }
    }

    /// The rank of `key`; none if it does not wait.
    pub(crate) fn at(&self, key: K) -> Option<R> {
        self.ranks.get(&key).copied()
    }

    pub(crate) fn cancel(&mut self, key: K) {
        if let Some(before) = self.ranks.remove(&key) {
            self.order.remove(&(before, key));
        }
    }

    /// The lowest rank and its key.
    pub(crate) fn first(&self) -> Option<(R, K)> {
        self.order.first().copied()
    }
}
