//! What a guest gets: members that it may not know, and samples that it lacks.

use canary_core::{Record, Snapshot, Target};
use canary_guests::{Informed, news_of};

use super::samples::{PAGE_SAMPLES_MAX, pages};
use super::speak::{PATIENCE, node};
use crate::transport::{Links, original as pb};

pub(super) async fn pushed(links: &Links, target: &Target, page: pb::Samples) -> bool {
    let pushing = async { links.original(target).await.ok()?.push_samples(page).await.ok() };
    tokio::time::timeout(PATIENCE, pushing).await.is_ok_and(|answer| answer.is_some())
}

/// Tells a guest of members and samples, and writes down how far it took them.
pub(super) async fn tell(
    links: &Links,
    snapshot: &Snapshot,
    guest: &Record,
    informed: &mut Informed,
) {
    let me: &Record = &snapshot.me;
    for member in informed.members_to_tell(guest, snapshot) {
        let news = pb::NodeDiscoveryRequest {
            new_node: Some(node(member)).into(),
            i_am_node: Some(node(me)).into(),
            ..Default::default()
        };
        let telling =
            async { links.original(&guest.target).await.ok()?.node_discovery(news).await.ok() };
        if !tokio::time::timeout(PATIENCE, telling).await.is_ok_and(|answer| answer.is_some()) {
            informed.answers = false;
            return;
        }
        informed.told.insert(member.name.clone());
    }
    informed.forget_untold(me);
    let (rows, mut ahead, mut waiting) =
        (snapshot.members.len(), informed.progress.clone(), Vec::new());
    for row in 0..=rows {
        waiting.extend(news_of(row, &guest.name, snapshot, &mut ahead));
        if waiting.len() < PAGE_SAMPLES_MAX && row < rows {
            continue;
        }
        for page in pages(&std::mem::take(&mut waiting)) {
            if !pushed(links, &guest.target, page).await {
                return;
            }
        }
        informed.progress.clone_from(&ahead);
    }
}
