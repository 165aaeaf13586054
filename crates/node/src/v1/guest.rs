//! Who a guest is to the mesh: a record that every host makes alike.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use canary_core::{Incarnation, Instance, Labels, NodeName, Record, Target};

/// Guests that are proposed to the core at once, and those whose heartbeat is kept; the first by their target go when there are more.
const KEPT_MAX: usize = 4096;

/// A guest tells of no life and of no process: both follow from what it tells, so that all hosts agree.
fn record(name: &NodeName, target: &Target, incarnation: Incarnation) -> Record {
    let instance = instance_of(name, target, incarnation);
    Record { name: name.clone(), target: target.clone(), labels: Labels::default(), incarnation, instance }
}

/// 64-bit FNV-1a with a final mix, never zero.
fn instance_of(name: &NodeName, target: &Target, incarnation: Incarnation) -> Instance {
    let (target, incarnation) = (target.to_string(), incarnation.0.to_le_bytes());
    let parts = [b"mesh.v1".as_slice(), name.as_str().as_bytes(), target.as_bytes(), &incarnation];
    Instance(hash(parts.into_iter().flat_map(|part| part.iter().copied().chain([0xff]))).max(1))
}

fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash ^= hash >> 32;
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Whether a record is a guest's.
pub(crate) fn is_guest(record: &Record) -> bool {
    record.instance == instance_of(&record.name, &record.target, record.incarnation)
}

/// The record of a guest that says that it is `name` at `target`, where `held` is what the mesh knows by that name.
pub(super) fn record_for(name: &NodeName, target: &Target, held: Option<&Record>) -> Record {
    match held {
        Some(held) if is_guest(held) && held.target == *target => held.clone(),
        // A guest that takes a name over is a new life of it.
        Some(held) => record(name, target, held.incarnation.next()),
        None => record(name, target, Incarnation(1)),
    }
}

/// The two hosts of a guest, by rendezvous hashing of the hosts that are there: all hosts choose alike.
pub(super) fn sponsors<'a>(guest: &NodeName, hosts: impl Iterator<Item = &'a NodeName>) -> Vec<&'a NodeName> {
    let weight = |host: &NodeName| hash(host.as_str().bytes().chain([0xff]).chain(guest.as_str().bytes()));
    let mut hosts: Vec<_> = hosts.collect();
    hosts.sort_unstable_by_key(|host| (std::cmp::Reverse(weight(host)), *host));
    hosts.truncate(2);
    hosts
}

/// What the hosts of one process know of guests beside the core.
#[derive(Debug, Default)]
pub(crate) struct Guests(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Records that are about to be let in, by target.
    proposed: BTreeMap<Target, Arc<Record>>,
    /// The highest heartbeat that was heard or made for a guest.
    heartbeats: BTreeMap<u64, u64>,
}

impl Guests {
    /// Whoever is asked at this target while it is let in answers for this record.
    pub(super) fn propose(&self, record: Arc<Record>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.proposed.len() >= KEPT_MAX {
            kept.proposed.pop_first();
        }
        kept.proposed.insert(record.target.clone(), record);
    }

    /// Who is about to be let in at this target.
    pub(crate) fn proposed(&self, target: &Target) -> Option<Arc<Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).proposed.get(target).cloned()
    }

    /// It is in, or is not.
    pub(super) fn settled(&self, target: &Target) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).proposed.remove(target);
    }

    /// The next heartbeat of a guest that was just reached, beyond `heard`.
    pub(super) fn beat(&self, guest: Instance, heard: u64) -> u64 {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.heartbeats.len() >= KEPT_MAX && !kept.heartbeats.contains_key(&guest.0) {
            kept.heartbeats.pop_first();
        }
        let heartbeat = kept.heartbeats.entry(guest.0).or_default();
        *heartbeat = (*heartbeat).max(heard).saturating_add(1);
        *heartbeat
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    #[test]
    fn all_hosts_make_the_same_record_and_only_a_guests_is_one() {
        let (owl, target) = (name("owl"), "owl:8081".parse().unwrap());
        let first = record_for(&owl, &target, None);
        assert!(is_guest(&first));
        assert_eq!(record_for(&owl, &target, Some(&first)), first);
        assert!(!is_guest(&Record { instance: Instance(7), ..first.clone() }));
        // It moves, or takes over from one of ours: a larger life.
        let moved = record_for(&owl, &"elsewhere:1".parse().unwrap(), Some(&first));
        assert!(is_guest(&moved) && moved.incarnation > first.incarnation);
        let ours = Record { instance: Instance(7), incarnation: Incarnation(1 << 40), ..first };
        assert_eq!(record_for(&owl, &target, Some(&ours)).incarnation, ours.incarnation.next());
    }

    #[test]
    fn every_guest_has_two_hosts_and_the_load_is_spread() {
        let hosts: Vec<_> = (0..10).map(|number| name(&format!("host-{number}"))).collect();
        let mut load = BTreeMap::<&NodeName, u32>::new();
        let guests: Vec<_> = (0..200).map(|number| name(&format!("guest-{number}"))).collect();
        for guest in &guests {
            let chosen = sponsors(guest, hosts.iter());
            assert_eq!(chosen.len(), 2);
            assert_eq!(chosen, sponsors(guest, hosts.iter().rev()));
            chosen.into_iter().for_each(|host| *load.entry(host).or_default() += 1);
        }
        assert!(load.values().all(|load| (15..80).contains(load)), "{load:?}");
        assert_eq!(sponsors(&guests[0], hosts.iter().take(1)).len(), 1);
    }
}
