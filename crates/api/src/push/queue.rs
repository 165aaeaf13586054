//! What waits to be sent: bounded in bytes, the oldest is given up first.

use std::collections::VecDeque;

use bytes::Bytes;

/// Bytes that may wait for one receiver: little beside the matrix of a large mesh.
pub(crate) const BYTES_MAX: usize = 8 << 20;

/// One request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// As it is sent.
    pub(crate) body: Bytes,
    /// How many samples are in it.
    pub(crate) samples: u64,
}

/// Batches in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Batch>,
    bytes: usize,
}

impl Queue {
    /// Adds a batch. How many samples had to be given up for it, its own if it is larger than the
    /// queue.
    pub(crate) fn put(&mut self, batch: Batch) -> u64 {
        self.bytes += batch.body.len();
        self.waiting.push_back(batch);
        let mut lost = 0;
        while self.bytes > BYTES_MAX
            && let Some(oldest) = self.take()
        {
            lost += oldest.samples;
        }
        lost
    }

    /// The oldest batch.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        let oldest = self.waiting.pop_front()?;
        self.bytes -= oldest.body.len();
        Some(oldest)
    }

    /// Puts back what was taken last, unless newer ones need its place. How many samples were given
    /// up.
    pub(crate) fn put_back(&mut self, batch: Batch) -> u64 {
        if self.bytes + batch.body.len() > BYTES_MAX {
            return batch.samples;
        }
        self.bytes += batch.body.len();
        self.waiting.push_front(batch);
        0
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn batch(bytes: usize, samples: u64) -> Batch {
        Batch { body: vec![0; bytes].into(), samples }
    }

    #[test]
    fn the_oldest_are_given_up_and_counted() {
        let mut queue = Queue::default();
        assert_eq!(queue.put(batch(BYTES_MAX / 2, 1)), 0);
        assert_eq!(queue.put(batch(BYTES_MAX / 2, 2)), 0);
        assert_eq!(queue.put(batch(1, 4)), 1);
        assert_eq!(queue.bytes(), BYTES_MAX / 2 + 1);
        // What was taken has its place until a newer one needs it.
        let taken = queue.take().unwrap();
        assert_eq!(taken.samples, 2);
        assert_eq!(queue.put_back(taken.clone()), 0);
        assert_eq!(queue.take().unwrap(), taken);
        assert_eq!(queue.put(batch(BYTES_MAX - 1, 8)), 0);
        assert_eq!(queue.put_back(taken), 2);
        assert_eq!(queue.put(batch(BYTES_MAX + 1, 16)), 4 + 8 + 16);
        assert_eq!((queue.bytes(), queue.take()), (0, None));
    }
}
