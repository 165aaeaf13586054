//! How much memory others' rows and rosters may take: twice what an honest mesh of the known
//! members needs, whichever peer sends them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Core;
use crate::limits::{HOLDINGS_FLOOR, HOLDINGS_UNKNOWN};
use crate::members::{ME, Member, Members};
use crate::roster::{Roster, RosterId};

/// Largest packed cell of an honest row.
const CELL_BYTES_MAX: usize = 12;
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
        let of = |is_known: bool| {
            members
                .all()
                .filter(move |(slot, member)| *slot != ME && member.known == is_known)
                .map(|(_, member)| member)
        };
        let used = |is_known| -> BTreeSet<_> {
            of(is_known)
                .flat_map(|member| [member.row(), member.pending()])
                .flatten()
                .map(|row| row.frame().roster())
                .collect()
        };
        let (by_known, by_unknown) = (used(true), used(false));
        let bytes = |is_known: bool| {
            let counts =
                |id: &RosterId| is_known != (by_unknown.contains(id) && !by_known.contains(id));
            rosters
                .iter()
                .filter(|(id, _)| counts(id))
                .map(|(_, roster)| roster.bytes())
                .sum::<usize>()
        };
        *self = Self {
            known: of(true).count(),
            of_known: of(true).map(Member::row_bytes).sum::<usize>() + bytes(true),
            of_unknown: of(false).map(Member::row_bytes).sum::<usize>() + bytes(false),
        };
    }
}

impl Core {
    /// Whether so many more bytes of a member's rows may be held.
    pub(super) fn may_hold(&self, bytes: usize, is_known: bool) -> bool {
        // A newcomer hears the rows of a whole mesh before it has reached any of it.
        let members = if is_known { self.members.present_known() } else { self.members.present() };
        self.holdings.may_take(bytes, is_known, members)
    }

    /// So many bytes more, or fewer, are held.
    pub(super) fn now_holds(&mut self, before: usize, after: usize, is_known: bool) {
        let held =
            if is_known { &mut self.holdings.of_known } else { &mut self.holdings.of_unknown };
        *held = (*held + after).saturating_sub(before);
    }

    /// Looks how much is held. Called once a second.
    pub(super) fn count_holdings(&mut self) {
        self.holdings.recount(&self.members, &self.gossip.rosters);
    }
}
