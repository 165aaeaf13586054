//! Addresses that nobody proved: how often they are dialled, so that this bot cannot be aimed at a
//! third party.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::bucket::Bucket;
use crate::identity::Target;
use crate::limits::{
    ADDRESS_GUARDS_MAX, Backoff, JOINER_BACKOFF_MAX, Rate, UNPROVEN_BACKOFF, UNPROVEN_DIALS,
};
use crate::time::Time;

/// Failing dial-backs of joiners: a mesh of a thousand may join at three seeds at once, and those
/// succeed.
const JOIN_DIALS: Rate = Rate { per_second: 20.0, burst: 512.0 };

/// An address of something unproven that failed when it was dialled.
#[derive(Debug)]
struct Guard {
    backoff: Duration,
    not_before: Time,
    /// Why a joiner could not be reached there; the same answer is given again without a new dial.
    why: Option<Arc<str>>,
}

/// What keeps this bot from being aimed at others.
#[derive(Debug)]
pub(super) struct Guards {
    addresses: BTreeMap<Target, Guard>,
    /// Failing dials of unproven members.
    unproven: Bucket,
    /// Failing dials of joiners.
    joiners: Bucket,
}

impl Guards {
    pub(super) fn new(now: Time) -> Self {
        Self {
            addresses: BTreeMap::new(),
            unproven: Bucket::new(UNPROVEN_DIALS, now),
            joiners: Bucket::new(JOIN_DIALS, now),
        }
    }

    /// Whether an unproven address may be dialled now, which is charged; else when.
    pub(super) fn admit(&mut self, target: &Target, now: Time) -> Result<(), Time> {
        let guard = self.addresses.get(target);
        if let Some(guard) = guard.filter(|guard| guard.not_before > now) {
            return Err(guard.not_before);
        }
        if self.unproven.take(1.0, now) {
            // Until it answers nobody else may claim the same address and have it dialled again.
            let backoff = guard.map_or(UNPROVEN_BACKOFF.first, |guard| guard.backoff);
            self.insert(target, Guard { backoff, not_before: now + backoff, why: None });
            return Ok(());
        }
        Err(now + self.unproven.wait(1.0, now).max(Duration::from_millis(50)))
    }

    /// An unproven address answered: its dial is not charged.
    pub(super) fn refund_unproven(&mut self) {
        self.unproven.refund(1.0);
    }

    /// Whether one more joiner may be dialled, which is charged.
    pub(super) fn may_dial_joiner(&mut self, now: Time) -> bool {
        self.joiners.take(1.0, now)
    }

    /// A joiner answered: its dial is not charged.
    pub(super) fn refund_joiner(&mut self) {
        self.joiners.refund(1.0);
    }

    /// Why a joiner could not be reached at this address just now; none if it may be tried.
    pub(super) fn why_unreachable(&self, target: &Target, now: Time) -> Option<String> {
        let guard = self.addresses.get(target).filter(|guard| guard.not_before > now)?;
        guard.why.as_ref().map(ToString::to_string)
    }

    /// An unproven address failed: it is left alone for a while, longer each time.
    pub(super) fn failed(&mut self, target: &Target, why: Option<&str>, now: Time) {
        let Backoff { first, longest } = UNPROVEN_BACKOFF;
        let longest = if why.is_some() { JOINER_BACKOFF_MAX } else { longest };
        let backoff =
            self.addresses.get(target).map_or(first, |guard| (guard.backoff * 2).min(longest));
        self.insert(target, Guard { backoff, not_before: now + backoff, why: why.map(Arc::from) });
    }

    /// This host spoiled the dial of an unproven address. That says nothing about the address, so
    /// the next turn of the pair, at `turn`, does not wait for the guard. An address that failed
    /// before is still left alone.
    pub(super) fn spoiled(&mut self, target: &Target, turn: Time) {
        let guard = self
            .addresses
            .get_mut(target)
            .filter(|guard| guard.backoff <= UNPROVEN_BACKOFF.first && guard.why.is_none());
        if let Some(guard) = guard {
            guard.not_before = guard.not_before.min(turn);
        }
    }

    fn insert(&mut self, target: &Target, guard: Guard) {
        if self.addresses.len() >= ADDRESS_GUARDS_MAX && !self.addresses.contains_key(target) {
            let soonest = self
                .addresses
                .iter()
                .min_by_key(|(_, guard)| guard.not_before)
                .map(|(target, _)| target.clone());
            if let Some(soonest) = soonest {
                self.addresses.remove(&soonest);
            }
        }
        self.addresses.insert(target.clone(), guard);
    }

    /// A node answered at this address.
    pub(super) fn remove(&mut self, target: &Target) {
        self.addresses.remove(target);
    }

    pub(super) fn expire(&mut self, now: Time) {
        self.addresses.retain(|_, guard| guard.not_before + UNPROVEN_BACKOFF.longest > now);
    }
}
