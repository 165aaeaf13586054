//! What a guest gets: members that it may not know, and samples that it lacks.

use std::collections::BTreeSet;

use canary_core::{NodeName, Record, Snapshot, Target};
use canary_guests::{Progress, news_of};

use super::samples::{PAGE_SAMPLES_MAX, pages};
use super::speak::{PATIENCE, node};
use crate::transport::{Links, original as pb};

pub(super) async fn pushed(links: &Links, target: &Target, page: pb::Samples) -> bool {
    let pushing = async { links.original(target).await.ok()?.push_samples(page).await.ok() };
    tokio::time::timeout(PATIENCE, pushing).await.is_ok_and(|answer| answer.is_some())
}

/// Tells a guest of members and samples; how far it took them is written down, and whether it took
/// all is returned.
pub(super) async fn tell(
    links: &Links,
    snapshot: &Snapshot,
    guest: &Record,
    progress: &mut Progress,
    told: &mut BTreeSet<NodeName>,
) -> bool {
    told.retain(|name| snapshot.member(name).is_some_and(|member| member.status.is_present()));
    let me: &Record = &snapshot.me;
    for member in snapshot.present().filter(|member| member.record.name != guest.name) {
        if told.contains(&member.record.name) {
            continue;
        }
        let news = pb::NodeDiscoveryRequest {
            new_node: Some(node(&member.record)).into(),
            i_am_node: Some(node(me)).into(),
            ..Default::default()
        };
        let telling =
            async { links.original(&guest.target).await.ok()?.node_discovery(news).await.ok() };
        if !tokio::time::timeout(PATIENCE, telling).await.is_ok_and(|answer| answer.is_some()) {
            return false;
        }
        told.insert(member.record.name.clone());
    }
    progress.retain(|name, _| *name == me.name || told.contains(name));
    let (rows, mut ahead, mut waiting) = (snapshot.members.len(), progress.clone(), Vec::new());
    for row in 0..=rows {
        waiting.extend(news_of(row, &guest.name, snapshot, &mut ahead));
        if waiting.len() < PAGE_SAMPLES_MAX && row < rows {
            continue;
        }
        for page in pages(&std::mem::take(&mut waiting)) {
            if !pushed(links, &guest.target, page).await {
                return false;
            }
        }
        progress.clone_from(&ahead);
    }
    true
}
