//! A queue in which each key waits at most once: deadlines, and pairs whose turn has come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::time::Time;

/// Keys in order of their rank, the lowest first; equal ranks in order of the keys.
#[derive(Debug)]
pub(crate) struct Queue<K, R> {
    order: BTreeSet<(R, K)>,
    ranks: BTreeMap<K, R>,
}

/// At most one deadline for each key.
pub(crate) type Timers<K> = Queue<K, Time>;

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

    fn pop_first(&mut self) -> Option<(R, K)> {
        let (rank, key) = self.order.pop_first()?;
        self.ranks.remove(&key);
        Some((rank, key))
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// Takes the earliest deadline that is due.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<(Time, K)> {
        if self.first()?.0 > now { None } else { self.pop_first() }
    }

    /// Puts the deadline of `key` off by `delay`, if it has one.
    pub(crate) fn set_later(&mut self, key: K, delay: Duration, now: Time) {
        if let Some(at) = self.at(key) {
            self.set(key, (at + delay).max(now));
        }
    }
}
