//! What is learned of members, and how far each source is believed.

use std::sync::Arc;

use tracing::info;

use super::Core;
use super::calls::Counted;
use super::deadlines::{Patience, Timer};
use super::rumour::CREDIT_MIN;
use super::schedule::Why;
use crate::identity::{Instance, Record};
use crate::limits::{
    EXCHANGES_IN_FLIGHT_MAX, SILENCE_MAX, SUCCESSION_AFTER, UNPROVEN_FORGET_AFTER,
};
use crate::liveness::{Doubt, Liveness, Status};
use crate::members::{Member, Slot};
use crate::message::Heard;
use crate::tally::{EventKind, Refusal};
use crate::time::Moment;

/// Nodes that are greeted a second: those that are silent must not take the places of all
/// exchanges.
const GREETINGS: usize = 8;

/// How a record came to us, and so how far it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// This peer reported it.
    Told(Instance),
    /// It answered at its target.
    Answered,
    /// It answered at its target, and the former holder of the name does not answer any more.
    Succeeds,
}

/// What is held of a name, against what is reported of it.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// The held incarnation is the larger one.
    is_larger: bool,
    /// Both are the same process.
    is_same: bool,
    /// Both are at the same target.
    is_at_target: bool,
    /// The held incarnation is implausible, and may be replaced at the reported target
    /// ([`Member::gives_way_at`](crate::members::Member)).
    gives_way: bool,
    /// The held node answered, and there was evidence of it just now.
    lives: bool,
}

/// Which of two incarnations of a name is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// The held one: the report is about it.
    Held,
    /// The reported one: it takes the place of the held one.
    Reported,
    /// The nodes themselves are asked before anything changes.
    AskFirst,
    /// The held one, and the report says nothing about it.
    Ignore,
}

fn which_incarnation(held: Held, source: Source) -> Choice {
    let first_hand = !matches!(source, Source::Told(_));
    let may_succeed = match source {
        Source::Told(_) => false,
        // At one place there is but one of them, and it answered.
        Source::Answered => held.is_at_target,
        Source::Succeeds => true,
    };
    match held {
        Held { is_larger: true, gives_way: true, .. } if !first_hand => Choice::AskFirst,
        Held { is_larger: true, gives_way: false, .. } => Choice::Ignore,
        Held { is_same: true, .. } => Choice::Held,
        Held { lives: true, .. } if !may_succeed => Choice::AskFirst,
        _ => Choice::Reported,
    }
}

impl Core {
    /// Applies a report about a member, as far as its source is believed.
    pub(super) fn learn(&mut self, heard: Heard, source: Source, now: Moment) -> Option<Slot> {
        let record = heard.record;
        if record.mesh != self.record().mesh {
            self.refuse(Refusal::OtherMesh);
            return None;
        }
        if record.name == self.record().name {
            self.hear_own_name(record, heard.left, now);
            return None;
        }
        let introducer = match source {
            Source::Told(introducer) => Some(introducer),
            Source::Answered | Source::Succeeds => None,
        };
        let first_hand = introducer.is_none();
        if !self.may_have_instance(&record, first_hand, now) {
            return None;
        }
        let slot = self.members.holder_of(&record);
        let held = slot.and_then(|slot| self.members.get(slot));
        let is_held = held.is_some_and(|held| held.record.succession() == record.succession());
        if heard.age > self.config.retain_nodes / 2
            || !(record.incarnation.is_believable(first_hand) || is_held)
        {
            return None;
        }
        let liveness = Liveness::new(heard.heartbeat, heard.age, now);
        let slot = match slot {
            Some(slot) => {
                let held = self.members.get(slot)?;
                let held = Held {
                    is_larger: held.record.succession() > record.succession(),
                    is_same: held.record.instance == record.instance,
                    is_at_target: held.record.target == record.target,
                    gives_way: held.gives_way_at(&record.target),
                    lives: held.is_partner() && held.liveness.silence(now) < SUCCESSION_AFTER,
                };
                match which_incarnation(held, source) {
                    Choice::Held => {}
                    Choice::Reported => {
                        self.begin_incarnation(slot, record, liveness, introducer, now);
                    }
                    Choice::AskFirst => {
                        self.look_for_successor(slot, record, now);
                        return None;
                    }
                    Choice::Ignore => return None,
                }
                slot
            }
            // A node that has been silent for so long would be forgotten at once.
            None if !first_hand && heard.age > UNPROVEN_FORGET_AFTER => return None,
            None => self.take_in(record, liveness, introducer, now)?,
        };
        if first_hand {
            self.prove(slot, now);
            self.reached_since(slot, now.time, now);
        }
        self.hear(slot, (heard.heartbeat, heard.changed), heard.age, now);
        let member = self.members.get_mut(slot)?;
        if heard.left {
            let change = member.liveness.leave(now);
            self.apply_change(slot, change, now);
        } else if heard.age > SILENCE_MAX && member.liveness.status() == Status::Alive {
            // The peer reports a long silence, but its report may be stale: suspect first, so that
            // it can be refuted.
            let change = member.liveness.suspect(Doubt::shared(now.time, false, now), now);
            self.apply_change(slot, change, now);
        }
        Some(slot)
    }

    /// A name that is held goes on in another incarnation.
    fn begin_incarnation(
        &mut self,
        slot: Slot,
        record: Arc<Record>,
        liveness: Liveness,
        introducer: Option<Instance>,
        now: Moment,
    ) {
        let moved = self.members.get(slot).is_some_and(|held| held.record.target != record.target);
        self.deadlines.patience.cancel(Patience::Death(slot));
        self.deadlines.timers.cancel(Timer::Dial(slot));
        self.drop_question(slot);
        let (name, target, labels) =
            (record.name.clone(), record.target.clone(), record.labels.clone());
        self.members.replace(slot, record, liveness, introducer, now.time);
        if moved {
            info!(node = %name, %target, %labels, "a node is at another address: it moved, or another host took its name");
        } else {
            info!(node = %name, %target, %labels, "a node restarted");
        }
        self.journal.note(now, EventKind::Restarted(name));
        self.spread_record(slot, now);
        self.give_turn(slot, Why::AtOnce, now);
    }

    /// A name that is not held yet; none if there is no room for it.
    fn take_in(
        &mut self,
        record: Arc<Record>,
        liveness: Liveness,
        introducer: Option<Instance>,
        now: Moment,
    ) -> Option<Slot> {
        let (name, target, labels) =
            (record.name.clone(), record.target.clone(), record.labels.clone());
        let (slot, evicted) = match self.members.insert(record, liveness, introducer, now.time) {
            Ok(inserted) => inserted,
            Err(refusal) => {
                self.refuse(refusal);
                return None;
            }
        };
        if let Some((former, evicted)) = evicted {
            self.drop_all_due(former);
            self.note_forgotten(&evicted, now);
        }
        if introducer.is_none() {
            info!(node = %name, %target, %labels, "a new node");
            self.journal.note(now, EventKind::Joined(name));
        }
        if introducer.is_none() || self.lists_all(now) {
            self.roster_changed(now);
        }
        self.spread_record(slot, now);
        self.give_turn(slot, Why::AtOnce, now);
        Some(slot)
    }

    /// Asks new nodes that take no part in gossip for a sign of life: their first measurement may
    /// be some time off. Called once a second.
    pub(super) fn greet_outsiders(&mut self, now: Moment) {
        let full = self.orders.calls.in_flight(Counted::Digest) >= EXCHANGES_IN_FLIGHT_MAX;
        if self.joining.naming.yields() || full || self.own_credit(now) < CREDIT_MIN {
            return;
        }
        let is_new = |member: &Member| {
            !member.proven && member.is_present() && !member.exchanging && !self.takes_part(member)
        };
        let new: Vec<_> = self
            .members
            .others()
            .filter(|(_, member)| is_new(member))
            .map(|(slot, _)| slot)
            .collect();
        let mut greeted = 0;
        for slot in new {
            let Some(target) = self.members.get(slot).map(|member| member.record.target.clone())
            else {
                continue;
            };
            if greeted < GREETINGS && self.joining.guards.admit(&target, now.time).is_ok() {
                greeted += 1;
                self.begin_exchange(slot, now);
            }
        }
    }

    /// It answered at its target, by its name, in this incarnation.
    pub(super) fn prove(&mut self, slot: Slot, now: Moment) {
        let was_known = self.members.get(slot).is_some_and(|member| member.known);
        if self.members.prove(slot) {
            self.joining.guards.refund_unproven();
            self.partner_found(slot, now);
        }
        if !was_known && let Some(member) = self.members.get(slot) {
            let Record { name, target, labels, .. } = &*member.record;
            info!(node = %name, %target, %labels, "a new node");
            self.journal.note(now, EventKind::Joined(name.clone()));
        }
        if !self.publisher.will_list(slot) {
            self.roster_changed(now);
        }
        if let Some(member) = self.members.get(slot) {
            self.joining.guards.remove(&member.record.target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_table_of_two_incarnations_of_a_name() {
        let told = Source::Told(Instance(9));
        let (answered, succeeds) = (Source::Answered, Source::Succeeds);
        // Is the held incarnation larger, the same process, at the same target, implausible, alive;
        // who says so; and what follows.
        #[rustfmt::skip]
        let table = [
            ("hearsay of the same incarnation",                       [false, true,  true,  false, true ], told,     Choice::Held),
            ("the same incarnation answers",                          [false, true,  true,  false, true ], answered, Choice::Held),
            ("hearsay of a former incarnation",                       [true,  false, true,  false, true ], told,     Choice::Ignore),
            ("a former incarnation answers",                          [true,  false, true,  false, true ], answered, Choice::Ignore),
            ("hearsay of a larger incarnation, the held one lives",   [false, false, true,  false, true ], told,     Choice::AskFirst),
            ("the same, elsewhere",                            [false, false, false, false, true ], told,     Choice::AskFirst),
            ("hearsay of a larger incarnation, the held one is gone", [false, false, false, false, false], told,     Choice::Reported),
            ("a larger incarnation answers at the same place",        [false, false, true,  false, true ], answered, Choice::Reported),
            ("a larger incarnation answers elsewhere",                [false, false, false, false, true ], answered, Choice::AskFirst),
            ("the same, and the held one was asked",           [false, false, false, false, true ], succeeds, Choice::Reported),
            ("hearsay against an implausible incarnation",            [true,  false, true,  true,  false], told,     Choice::AskFirst),
            ("an answer against an implausible incarnation",          [true,  false, true,  true,  false], answered, Choice::Reported),
            ("the same, elsewhere, while the held one lives",  [true,  false, false, true,  true ], answered, Choice::AskFirst),
        ];
        for (what, [is_larger, is_same, is_at_target, gives_way, lives], source, choice) in table {
            assert_eq!(
                which_incarnation(
                    Held { is_larger, is_same, is_at_target, gives_way, lives },
                    source
                ),
                choice,
                "{what}"
            );
        }
    }
}
