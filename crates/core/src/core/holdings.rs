//! How much memory others' rows and rosters may take: twice what an honest mesh of the known
//! members needs, whichever peer sends them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Core;
use crate::limits::{HOLDINGS_FLOOR, HOLDINGS_UNKNOWN};
use crate::members::Members;
use crate::roster::{Roster, RosterId};

/// Largest packed cell of an honest row.
const CELL_BYTES_MAX: usize = 14;
/// What a row takes beside its cells.
const ROW_OVERHEAD: usize = 512;
/// What a name in a roster takes whose letters are held anyway.
const SHARED_NAME_BYTES: usize = 16;

/// Bytes that are held, by who they are of. Exact once a second; in between what goes is counted
/// with the next look.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// Members that answered this bot once.
    known: usize,
    /// Bytes of their rows and of the rosters of these.
    of_known: usize,
    /// The same of members that never did.
    of_unknown: usize,
}

impl Holdings {
    /// Twice what so many members need for a row and a roster each, and room for small meshes.
    /// Rosters differ while members come and go.
    fn allowance(&self, known: usize) -> usize {
        let known = self.known.max(known) + 1;
        HOLDINGS_FLOOR + 2 * known * (known * (CELL_BYTES_MAX + SHARED_NAME_BYTES) + ROW_OVERHEAD)
    }

    fn may_take(&self, bytes: usize, is_known: bool, members: usize) -> bool {
        let allowance = self.allowance(members);
        if is_known {
            self.of_known + bytes <= allowance
        } else {
            self.of_unknown + bytes <= (allowance / HOLDINGS_UNKNOWN.0).min(HOLDINGS_UNKNOWN.1)
        }
    }

    /// Rosters count with the rows that refer to them: with those of known members, if any of
    /// theirs does.
    fn recount(&mut self, members: &Members, rosters: &BTreeMap<RosterId, Arc<Roster>>) {
        *self = Self::default();
        for (_, member) in members.others() {
            self.known += usize::from(member.known);
            *self.held(member.known) += member.row_bytes();
        }
        let [by_known, by_unknown] =
            [true, false].map(|is_known| members.rosters(|member| member.known == is_known));
        for (id, roster) in rosters {
            *self.held(by_known.contains(id) || !by_unknown.contains(id)) += roster.bytes();
        }
    }

    fn held(&mut self, is_known: bool) -> &mut usize {
        if is_known { &mut self.of_known } else { &mut self.of_unknown }
    }
}

impl Core {
    /// Whether so many more bytes of a member's rows may be held.
    pub(super) fn may_hold(&self, bytes: usize, is_known: bool) -> bool {
        // A newcomer hears the rows of a whole mesh before it has reached any of it.
        let members = if is_known { self.members.present_known() } else { self.members.present() };
        self.gossip.holdings.may_take(bytes, is_known, members)
    }

    /// So many bytes more, or fewer, are held.
    pub(super) fn now_holds(&mut self, before: usize, after: usize, is_known: bool) {
        let held = self.gossip.holdings.held(is_known);
        *held = (*held + after).saturating_sub(before);
    }

    /// Looks how much is held. Called once a second.
    pub(super) fn count_holdings(&mut self) {
        self.gossip.holdings.recount(&self.members, &self.gossip.rosters);
    }
}
