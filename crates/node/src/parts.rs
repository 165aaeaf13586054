//! What the parts of a bot say to each other.

use std::sync::Arc;

use canary_core::{Core, PendingJoin, Record, Target};

/// What reaches the driver from elsewhere.
#[derive(Debug)]
pub(crate) enum Command {
    /// Discovery found these targets.
    Seeds(Vec<Target>),
    /// Bots of the original do not admit this one at these addresses.
    Pending(Vec<PendingJoin>),
    /// Say goodbye.
    Leave,
}

/// Who this bot is, and who it says it is: the holder of its name, while it yields that.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) me: Arc<Record>,
    pub(crate) introduction: Arc<Record>,
}

impl Identity {
    pub(crate) fn of(core: &Core) -> Self {
        Self { me: Arc::clone(core.record()), introduction: core.introduction() }
    }

    pub(crate) fn differs(&self, other: &Self) -> bool {
        !Arc::ptr_eq(&self.me, &other.me) || !Arc::ptr_eq(&self.introduction, &other.introduction)
    }
}

/// How a bot ended.
#[derive(Clone, Debug)]
pub enum End {
    /// It said goodbye.
    Left,
    /// At the start a living node was found to have its name.
    NameTaken(Arc<Record>),
    /// It failed by a fault of its own.
    Failed,
}
