//! A queue in which each key waits at most once: deadlines, and pairs whose turn has come.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// So many entries that are no longer true may lie in a queue before it is cleaned up, beside as
/// many as there are keys.
const STALE_MAX: usize = 64;

/// Keys in order of their rank, the lowest first; equal ranks in order of the keys.
#[derive(Debug)]
pub(crate) struct Queue<K, R> {
    /// What counts.
    ranks: BTreeMap<K, R>,
    /// Every entry of `ranks`, and entries that are no longer true; the first one is.
    order: BinaryHeap<Reverse<(R, K)>>,
}

impl<K: Ord, R: Ord> Default for Queue<K, R> {
    fn default() -> Self {
        Self { ranks: BTreeMap::new(), order: BinaryHeap::new() }
    }
}

impl<K: Ord + Copy, R: Ord + Copy> Queue<K, R> {
    /// Gives `key` this rank, in place of any before.
    pub(crate) fn set(&mut self, key: K, rank: R) {
        if self.ranks.insert(key, rank) != Some(rank) {
            self.order.push(Reverse((rank, key)));
            self.clean();
        }
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
        if self.ranks.remove(&key).is_some() {
            self.clean();
        }
    }

    /// The lowest rank and its key.
    pub(crate) fn first(&self) -> Option<(R, K)> {
        self.order.peek().map(|Reverse(first)| *first)
    }

    /// Makes the first entry a true one.
    fn clean(&mut self) {
        let is_true = |Reverse((rank, key)): &Reverse<(R, K)>| self.ranks.get(key) == Some(rank);
        while self.order.peek().is_some_and(|first| !is_true(first)) {
            self.order.pop();
        }
        if self.order.len() > 2 * self.ranks.len() + STALE_MAX {
            self.order.retain(is_true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Set(u8, u8),
        SetEarlier(u8, u8),
        Cancel(u8),
        TakeFirst,
    }

    fn step() -> impl Strategy<Value = Step> {
        let (key, rank) = (0..6u8, 0..6u8);
        prop_oneof![
            (key.clone(), rank.clone()).prop_map(|(key, rank)| Step::Set(key, rank)),
            (key.clone(), rank).prop_map(|(key, rank)| Step::SetEarlier(key, rank)),
            key.prop_map(Step::Cancel),
            Just(Step::TakeFirst),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_map_that_knows_its_lowest_rank(
            steps in prop::collection::vec(step(), 0..400),
        ) {
            let (mut queue, mut ranks) = (Queue::default(), BTreeMap::new());
            for step in steps {
                match step {
                    Step::Set(key, rank) => {
                        queue.set(key, rank);
                        ranks.insert(key, rank);
                    }
                    Step::SetEarlier(key, rank) => {
                        queue.set_earlier(key, rank);
                        let held = ranks.entry(key).or_insert(rank);
                        *held = rank.min(*held);
                    }
                    Step::Cancel(key) => {
                        queue.cancel(key);
                        ranks.remove(&key);
                    }
                    Step::TakeFirst => {
                        if let Some((_, key)) = queue.first() {
                            queue.cancel(key);
                            ranks.remove(&key);
                        }
                    }
                }
                prop_assert_eq!(queue.first(), ranks.iter().map(|(key, rank)| (*rank, *key)).min());
                for key in 0..6 {
                    prop_assert_eq!(queue.at(key), ranks.get(&key).copied());
                }
                prop_assert!(queue.order.len() <= 2 * queue.ranks.len() + STALE_MAX);
            }
        }
    }
}
