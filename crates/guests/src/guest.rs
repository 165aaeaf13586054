//! Who a guest is to the mesh: a record that every host makes alike.

use canary_core::{
    Incarnation, Instance, Labels, MemberView, MeshName, NodeName, Record, Snapshot, Status,
    Target, rendezvous, stable_hash,
};

/// A guest publishes no incarnation and no instance: both follow from what it tells, so that all
/// hosts agree.
pub fn record(name: &NodeName, target: &Target, incarnation: Incarnation) -> Record {
    let instance = instance_of(name, target, incarnation);
    // It names no mesh: a mesh with a name takes no guests.
    let mesh = MeshName::default();
    Record {
        mesh,
        name: name.clone(),
        target: target.clone(),
        labels: Labels::default(),
        incarnation,
        instance,
    }
}

/// How the instance of every guest ends: for all but one in 65,536 nodes of ours no hash has to be
/// made.
const MARK: u64 = 0xca11;

/// 64-bit FNV-1a with a final mix, and the mark of guests at its end.
fn instance_of(name: &NodeName, target: &Target, incarnation: Incarnation) -> Instance {
    let (target, incarnation) = (target.to_string(), incarnation.0.to_le_bytes());
    let parts = [b"mesh.v1".as_slice(), name.as_str().as_bytes(), target.as_bytes(), &incarnation];
    let hash = stable_hash(parts.into_iter().flat_map(|part| part.iter().copied().chain([0xff])));
    Instance(hash & !0xffff | MARK)
}

/// Whether a record is a guest's.
pub fn is_guest(record: &Record) -> bool {
    record.instance.0 & 0xffff == MARK
        && record.instance == instance_of(&record.name, &record.target, record.incarnation)
}

/// The record of a guest that says that it is `name` at `target`, where `held` is what the mesh
/// knows by that name.
pub fn record_for(name: &NodeName, target: &Target, held: Option<&MemberView>) -> Record {
    match held {
        Some(held)
            if is_guest(&held.record)
                && held.record.target == *target
                && held.status != Status::Left =>
        {
            (*held.record).clone()
        }
        // A guest that takes a name over, or comes back from a goodbye, is a new incarnation of it.
        Some(held) => record(name, target, held.record.incarnation.next()),
        None => record(name, target, Incarnation(1)),
    }
}

/// The two hosts of a guest, by rendezvous hashing of the hosts that are there: all hosts choose
/// alike.
pub fn sponsors<'a>(
    guest: &NodeName,
    hosts: impl Iterator<Item = &'a NodeName>,
) -> Vec<&'a NodeName> {
    let weight = |host: &NodeName| rendezvous(host, guest);
    let mut hosts: Vec<_> = hosts.collect();
    hosts.sort_unstable_by_key(|host| (std::cmp::Reverse(weight(host)), *host));
    hosts.truncate(2);
    hosts
}

/// The guest that is known to be at an address.
pub fn guest_at<'a>(snapshot: &'a Snapshot, target: &Target) -> Option<&'a MemberView> {
    snapshot.membership().find(|member| member.record.target == *target && is_guest(&member.record))
}

/// How many of ours are before this bot at an address, in an order that all agree on, and how many
/// there are.
pub fn rank(snapshot: &Snapshot, target: &Target) -> (usize, usize) {
    let target = target.to_string();
    let weight =
        |host: &NodeName| stable_hash(host.as_str().bytes().chain([0xff]).chain(target.bytes()));
    let mine = weight(&snapshot.me.name);
    let others = || snapshot.membership().filter(|member| !is_guest(&member.record));
    (others().filter(|member| weight(&member.record.name) > mine).count(), others().count() + 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn held(record: &Record, status: Status) -> MemberView {
        let now = canary_core::Time::ZERO;
        MemberView {
            record: Arc::new(record.clone()),
            status,
            since: now,
            evidence_at: now,
            proven: true,
            known: true,
            pair: Arc::default(),
            interval: Duration::from_secs(3),
            takes_part: true,
            row: None,
            version: 0,
            row_holds_at: now,
            row_holds: true,
        }
    }

    #[test]
    fn all_hosts_make_the_same_record_and_only_a_guests_is_one() {
        let (owl, target) = (name("owl"), "owl:8081".parse().unwrap());
        let first = record_for(&owl, &target, None);
        assert!(is_guest(&first));
        assert_eq!(record_for(&owl, &target, Some(&held(&first, Status::Dead))), first);
        assert!(!is_guest(&Record { instance: Instance(7), ..first.clone() }));
        // It moves, takes over from one of ours, or comes back from a goodbye that somebody told of
        // it: a larger incarnation.
        let moved =
            record_for(&owl, &"elsewhere:1".parse().unwrap(), Some(&held(&first, Status::Dead)));
        let back = record_for(&owl, &target, Some(&held(&first, Status::Left)));
        assert!(
            [&moved, &back]
                .iter()
                .all(|record| is_guest(record) && record.incarnation > first.incarnation)
        );
        let ours = Record { instance: Instance(7), incarnation: Incarnation(1 << 40), ..first };
        assert_eq!(
            record_for(&owl, &target, Some(&held(&ours, Status::Dead))).incarnation,
            ours.incarnation.next()
        );
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
