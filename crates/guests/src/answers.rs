//! What a host answers its own core in the place of a guest, by what was found at the guest's
//! address.

use std::sync::Arc;
use std::time::Duration;

use canary_core::limits::{INCARNATION_MAX, INCARNATION_ROOM};
use canary_core::{Entry, Exchange, Instance, JoinAnswer, NodeName, Record, Snapshot, Target};

use crate::guest::{is_guest, record_for};

/// A heartbeat beyond this was never made by a host: nothing could advance it.
const HEARTBEAT_MAX: u64 = 1 << 62;

/// A guest called `name` at `target` admitted this bot.
pub(crate) fn admitted(snapshot: &Snapshot, name: &NodeName, target: &Target) -> JoinAnswer {
    if *name == snapshot.me.name {
        return JoinAnswer::NameTaken(Arc::new(record_for(name, target, None)));
    }
    let held = snapshot.member(name);
    match held.filter(|held| held.status.is_present() && held.record.target != *target) {
        // The same one by another address: what is known of it stays.
        Some(held) if is_guest(&held.record) => JoinAnswer::Admitted(Arc::clone(&held.record)),
        Some(held) => JoinAnswer::Unreachable(format!(
            "a bot of the original there has the name of the node {name} at {}",
            held.record.target
        )),
        None => JoinAnswer::Admitted(Arc::new(record_for(name, target, held))),
    }
}

/// A guest at `target` says that it is `name`, where `expected` was asked for.
pub(crate) fn identified(
    snapshot: &Snapshot,
    name: &NodeName,
    target: &Target,
    expected: Option<Arc<Record>>,
) -> Arc<Record> {
    let held = snapshot.member(name);
    // Guests have no incarnation, so we choose one. Above what is believed by hearsay it grows by
    // one.
    let most = INCARNATION_MAX + INCARNATION_ROOM;
    let largest = held.map_or(most, |held| held.record.incarnation.next().0.max(most));
    match expected {
        Some(guest)
            if guest.name == *name && guest.target == *target && guest.incarnation.0 <= largest =>
        {
            guest
        }
        _ => Arc::new(record_for(name, target, held)),
    }
}

/// Whether somebody told a lie of a guest that it cannot refute itself: no heartbeat is larger.
pub(crate) fn is_spoiled(heartbeat: u64) -> bool {
    heartbeat >= HEARTBEAT_MAX
}

/// A guest is there, which was heard up to `heartbeat`: its next one.
pub(crate) fn sign_of_life(guest: &Record, heartbeat: u64, to: Option<Instance>) -> Exchange {
    let entry = Entry {
        instance: guest.instance,
        version: 0,
        changed: 0,
        heartbeat: heartbeat.saturating_add(1),
        age: Duration::ZERO,
        left: false,
    };
    Exchange { from: Some(guest.instance), to, entries: vec![entry], ..Exchange::default() }
}
