//! Deadlines in one small table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::time::Time;

/// At most one deadline for each key.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    queue: BTreeSet<(Time, K)>,
    at: BTreeMap<K, Time>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { queue: BTreeSet::new(), at: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Sets the deadline of `key`, in place of any before.
    pub(crate) fn set(&mut self, key: K, at: Time) {
        if let Some(before) = self.at.insert(key.clone(), at) {
            self.queue.remove(&(before, key.clone()));
        }
        self.queue.insert((at, key));
    }

    /// Sets the deadline of `key` unless it has an earlier one.
    pub(crate) fn set_earlier(&mut self, key: K, at: Time) {
        if self.at.get(&key).is_none_or(|before| *before > at) {
            self.set(key, at);
        }
    }

    /// The deadline of `key`.
    pub(crate) fn at(&self, key: &K) -> Option<Time> {
        self.at.get(key).copied()
    }

    pub(crate) fn cancel(&mut self, key: &K) {
        if let Some(before) = self.at.remove(key) {
            self.queue.remove(&(before, key.clone()));
        }
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Time> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes the earliest deadline that is due.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<(Time, K)> {
        let (at, _) = self.queue.first()?;
        if *at > now {
            return None;
        }
        let (at, key) = self.queue.pop_first()?;
        self.at.remove(&key);
        Some((at, key))
    }

    /// Puts the deadline of `key` off by `delay`, if it has one.
    pub(crate) fn set_later(&mut self, key: K, delay: Duration, now: Time) {
        if let Some(at) = self.at.get(&key).copied() {
            self.set(key, (at + delay).max(now));
        }
    }
}
