//! Addresses that nobody proved: how often they are dialled, so that this bot cannot be aimed at a third party.

use std::sync::Arc;
use std::time::Duration;

use crate::bucket::Bucket;
use crate::core::Core;
use crate::identity::Target;
use crate::limits::{ADDRESS_GUARDS_MAX, Backoff, JOINER_BACKOFF_MAX, UNPROVEN_BACKOFF, UNPROVEN_DIALS};
use crate::time::{Now, Time};

/// An address of something unproven that failed when it was dialled.
#[derive(Clone, Debug)]
pub(crate) struct AddressGuard {
    backoff: Duration,
    pub(crate) not_before: Time,
    /// Why a joiner could not be reached there; it is told again without being dialled again.
    pub(crate) why: Option<Arc<str>>,
}

pub(crate) fn unproven_budget(now: Time) -> Bucket {
    Bucket::new(UNPROVEN_DIALS, now)
}

impl Core {
    /// Whether an unproven address may be dialled now; else when.
    pub(crate) fn may_dial_unproven(&mut self, target: &Target, now: Now) -> Result<(), Time> {
        if let Some(guard) = self.guards.get(target)
            && guard.not_before > now.time
        {
            return Err(guard.not_before);
        }
        if self.unproven_budget.take(1.0, now.time) {
            // Until it answers nobody else may claim the same address and have it dialled again.
            let backoff = self.guards.get(target).map_or(UNPROVEN_BACKOFF.first, |guard| guard.backoff);
            self.insert_guard(target, AddressGuard { backoff, not_before: now.time + backoff, why: None });
            return Ok(());
        }
        Err(now.time + self.unproven_budget.wait(1.0, now.time).max(Duration::from_millis(50)))
    }

    /// An unproven address failed: it is left alone for a while, longer each time.
    pub(crate) fn guard(&mut self, target: &Target, why: Option<&str>, now: Now) {
        let Backoff { first, longest } = UNPROVEN_BACKOFF;
        let longest = if why.is_some() { JOINER_BACKOFF_MAX } else { longest };
        let backoff = self.guards.get(target).map_or(first, |guard| (guard.backoff * 2).min(longest));
        self.insert_guard(target, AddressGuard { backoff, not_before: now.time + backoff, why: why.map(Arc::from) });
    }

    fn insert_guard(&mut self, target: &Target, guard: AddressGuard) {
        if self.guards.len() >= ADDRESS_GUARDS_MAX && !self.guards.contains_key(target) {
            let soonest = self.guards.iter().min_by_key(|(_, guard)| guard.not_before).map(|(target, _)| target.clone());
            if let Some(soonest) = soonest {
                self.guards.remove(&soonest);
            }
        }
        self.guards.insert(target.clone(), guard);
    }

    pub(crate) fn expire_guards(&mut self, now: Now) {
        self.guards.retain(|_, guard| guard.not_before + UNPROVEN_BACKOFF.longest > now.time);
    }
}
