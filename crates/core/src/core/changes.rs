//! What a change in a member's liveness means for everything else.

use std::time::Duration;

use tracing::{debug, info};

use super::Core;
use super::deadlines::{Patience, Timer};
use super::schedule::Why;
use crate::liveness::Change;
use crate::members::{Member, Slot};
use crate::tally::EventKind;
use crate::time::{Moment, Time};

impl Core {
    /// An attempt with this member succeeded that was sent at `sent_at`: it lived after that. How
    /// long after nobody can tell, for the answer may have been lost on its way and sent again.
    pub(super) fn reached_since(&mut self, slot: Slot, sent_at: Time, now: Moment) {
        let at = (sent_at + Duration::from_micros(1)).min(now.time);
        if let Some(member) = self.members.get_mut(slot) {
            let change = member.liveness.evidence(at, now);
            self.apply_change(slot, change, now);
        }
        self.settle_question(slot);
    }

    /// Carries out what a change of a member's liveness means.
    pub(super) fn apply_change(&mut self, slot: Slot, change: Change, now: Moment) {
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        let name = member.record.name.clone();
        let deadline = member.liveness.deadline();
        if change != Change::None && change != Change::Refuted {
            member.changed_at = now.time;
            if matches!(change, Change::Died | Change::Left) {
                member.lost_at = Some(now.time);
            }
            self.members.recount();
        }
        match change {
            Change::None | Change::Refuted => {
                // An earlier first failure brings the deadline forward.
                if let Some(deadline) = deadline {
                    self.deadlines.patience.set_earlier(Patience::Death(slot), deadline);
                }
            }
            Change::Suspected => {
                debug!(node = %name, "nobody could reach the node; it is suspected");
                self.journal.note(now, EventKind::Suspected(name));
                if let Some(deadline) = deadline {
                    self.deadlines.patience.set(Patience::Death(slot), deadline);
                }
                self.spread_suspicion(slot, now);
            }
            Change::Died => {
                self.report_death(slot, now);
                self.journal.note(now, EventKind::Died(name));
                self.drop_present(slot);
                self.deadlines.timers.set(Timer::Dial(slot), now.time + self.dial_interval(slot));
            }
            Change::Revived => {
                match self.members.get_mut(slot).and_then(|member| member.lost_at.take()) {
                    Some(lost_at) => self.report_return(slot, now.time.since(lost_at), now),
                    None => debug!(node = %name, "the node lives; it is suspected no more"),
                }
                self.journal.note(now, EventKind::Revived(name));
                self.deadlines.patience.cancel(Patience::Death(slot));
                self.deadlines.timers.cancel(Timer::Dial(slot));
                self.settle_question(slot);
                self.give_turn(slot, Why::Back, now);
                self.spread_liveness(slot, now);
            }
            Change::Left => {
                info!(node = %name, "the node left");
                self.journal.note(now, EventKind::Left(name));
                self.drop_present(slot);
                self.deadlines.patience.cancel(Patience::Death(slot));
                self.deadlines.timers.cancel(Timer::Dial(slot));
                self.spread_liveness(slot, now);
            }
        }
    }

    /// Takes a member out of everything that is for the present.
    fn drop_present(&mut self, slot: Slot) {
        self.unschedule(slot);
        self.drop_question(slot);
    }

    /// Nothing is due any more for this member.
    pub(super) fn drop_all_due(&mut self, slot: Slot) {
        self.drop_present(slot);
        self.deadlines.patience.cancel(Patience::Death(slot));
        self.deadlines.timers.cancel(Timer::Dial(slot));
    }

    /// Takes a member out of everything.
    pub(super) fn forget(&mut self, slot: Slot, now: Moment) {
        self.drop_all_due(slot);
        if let Some(member) = self.members.remove(slot) {
            self.note_forgotten(&member, now);
        }
        self.roster_changed(now);
    }

    pub(super) fn note_forgotten(&mut self, member: &Member, now: Moment) {
        self.journal.note(now, EventKind::Forgotten(member.record.name.clone()));
    }
}
