//! Bytes of guests all the way to what the core is asked because of them.

use buffa::{Message as _, MessageView as _};
use canary_core::{Core, NodeName, Record, Request, Roster, Wall};
use std::sync::Arc;
use std::time::Duration;

use canary_guests::{Measured, gossip_of, is_guest, record_for};

use super::network::told_of;
use super::samples::{pages, read};
use crate::transport::original as pb;

/// What a push of `guest` leads to.
pub(crate) fn pushed(
    pushed: &pb::SamplesView<'_>,
    guest: &Record,
    me: &Record,
    now: Wall,
) -> impl Iterator<Item = Request> + use<> {
    let read =
        |sample: &pb::SampleView<'_>| read(sample, Duration::from_secs(3), now).ok().flatten();
    let mut measured = Measured::default();
    let taken = pushed
        .samples
        .iter()
        .filter_map(read)
        .filter(|sample| measured.take(sample))
        .collect::<Vec<_>>();
    for page in pages(&taken) {
        let bytes = page.encode_to_vec();
        let told_on = pb::SamplesView::decode_view(&bytes).expect("what was written can be read");
        assert!(
            told_on.samples.iter().all(|sample| read(sample).is_some()),
            "another host would not take it"
        );
    }
    let names = [guest.name.clone(), me.name.clone()];
    measured.retain(|from| *from == guest.name, |to| names.contains(to));
    let gossip = gossip_of(&measured, guest, 1, Roster::new(names), me.instance);
    gossip.into_iter().map(|exchange| Request::Exchange(Box::new(exchange)))
}

/// What an answer of a guest to a joiner leads to.
pub(crate) fn joined(answer: pb::JoinMeshResponse, core: &Core) -> Vec<Request> {
    let own = answer.my_name.parse::<NodeName>().ok();
    let at = own.and_then(|name| Some((name.clone(), format!("{name}:1").parse().ok()?)));
    let records =
        told_of(answer.nodes).chain(at).map(|(name, target)| record_for(&name, &target, None));
    records
        .inspect(|record| assert!(is_guest(record) && record.instance != core.record().instance))
        .map(|record| Request::Join(Arc::new(record)))
        .collect()
}
