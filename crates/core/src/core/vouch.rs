//! Nodes that live and never answered this bot: known members that reach one vouch for it. It is a
//! broken path then, and has to be seen.

use tracing::info;

use super::Core;
use crate::cell::State;
use crate::limits::VOUCHED_MIN;
use crate::members::Slot;
use crate::tally::EventKind;
use crate::time::Moment;

/// Names that are looked for in rows at one look.
const LOOKED_FOR_MAX: usize = 8;
/// Rows that are read for one of them.
const ROWS_READ_MAX: usize = 128;

impl Core {
    /// Takes for known what this bot failed to reach twice in a row and a known member reaches.
    /// Called once a second.
    pub(super) fn look_for_vouchers(&mut self, now: Moment) {
        let unknown = self.members.others().filter(|(_, member)| {
            !member.known && member.is_present() && member.pair.failed_again()
        });
        let mut candidates: Vec<_> = unknown.map(|(slot, _)| slot).collect();
        // Another few each time: names that nobody vouches for hold up no others.
        self.rng.shuffle(&mut candidates);
        for slot in candidates.into_iter().take(LOOKED_FOR_MAX) {
            // A liar can publish that it reaches anybody: there are never more of those than of
            // nodes that answered.
            let known =
                self.members.others().filter(|(_, member)| member.known && !member.vouched).count();
            let vouched = self.members.others().filter(|(_, member)| member.vouched).count();
            if vouched >= known.max(VOUCHED_MIN) {
                return;
            }
            if self.is_reached_by_others(slot) {
                self.members.vouch(slot);
                self.report_vouched(slot, now);
                if let Some(member) = self.members.get(slot) {
                    let (name, target) = (member.record.name.clone(), &member.record.target);
                    info!(node = %name, %target, labels = %member.record.labels, "a new node, which others reach and this bot does not");
                    self.journal.note(now, EventKind::Joined(name));
                }
                self.roster_changed(now);
            }
        }
    }

    fn is_reached_by_others(&self, slot: Slot) -> bool {
        let Some(name) = self.members.get(slot).map(|member| &member.record.name) else {
            return false;
        };
        let rows = self
            .members
            .others()
            .filter(|(_, member)| member.is_partner())
            .filter_map(|(_, member)| member.row());
        let mut cells = rows.take(ROWS_READ_MAX).filter_map(|row| row.cell_of(name));
        cells.any(|cell| matches!(cell.state, State::Ok { .. }))
    }
}
