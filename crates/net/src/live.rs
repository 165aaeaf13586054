//! What may be changed while it is used.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// The value in force. An operation takes it when it begins and keeps it to its end. Clones share
/// it.
#[derive(Debug)]
pub struct Live<T>(Arc<ArcSwap<T>>);

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Default> Default for Live<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Live<T> {
    /// Puts a value in force.
    pub fn new(value: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(value)))
    }

    /// The value in force.
    pub fn get(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Puts another one in force.
    pub fn swap(&self, value: T) {
        self.0.store(Arc::new(value));
    }
}
