//! A map for what is walked in order all the time, and seldom changes.

use std::borrow::Borrow;
use std::ops::RangeInclusive;

/// Entries in order of their keys, side by side in memory. A search is by bisection; an insertion
/// moves what comes after it.
#[derive(Clone, Debug)]
pub(crate) struct Sorted<K, V>(Vec<(K, V)>);

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> Sorted<K, V> {
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.0.binary_search_by(|(held, _)| held.borrow().cmp(key))
    }

    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().and_then(|at| self.0.get(at)).map(|(_, value)| value)
    }

    /// Puts a value there, in place of any before.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        match self.find(&key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if let Ok(at) = self.find(key) {
            self.0.remove(at);
        }
    }

    /// All entries in order.
    pub(crate) fn entries(&self) -> &[(K, V)] {
        &self.0
    }

    /// The entries from the first key of `range` to the last, both included.
    pub(crate) fn range(&self, range: RangeInclusive<K>) -> &[(K, V)] {
        let from = self.0.partition_point(|(key, _)| key < range.start());
        let rest = &self.0[from..];
        &rest[..rest.partition_point(|(key, _)| key <= range.end())]
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
