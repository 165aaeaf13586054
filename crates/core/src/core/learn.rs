//! What is learned of members, and how far each source is believed.

use tracing::info;

use super::schedule::Why;
use super::{Core, Timer};
use crate::identity::{Instance, Record};
use crate::life::{Doubt, Life, Status};
use crate::limits::{SILENCE_MAX, SUCCESSION_AFTER, UNPROVEN_FORGET_AFTER};
use crate::members::Slot;
use crate::message::Heard;
use crate::tally::{EventKind, Refusal};
use crate::time::Now;

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

impl Core {
    /// Applies a report about a member, as far as its source is believed.
    pub(super) fn learn(&mut self, heard: Heard, source: Source, now: Now) -> Option<Slot> {
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
        let held = self.members.named(&record.name).and_then(|slot| self.members.get(slot));
        let is_held = held.is_some_and(|held| held.record.life() == record.life());
        if heard.age > self.config.retain_nodes / 2 || !(record.incarnation.is_believable(first_hand) || is_held) {
            return None;
        }
        let slot = match self.members.named(&record.name) {
            Some(slot) => {
                let held = self.members.get(slot)?;
                if held.record.life() > record.life() && !(first_hand && held.gives_way_at(&record.target)) {
                    if held.gives_way_at(&record.target) {
                        self.look_for_successor(slot, record, now);
                    }
                    return None;
                }
                let other_life = held.record.instance != record.instance;
                let lives = held.is_partner() && held.life.silence(now.time) < SUCCESSION_AFTER;
                let may_succeed = match source {
                    Source::Told(_) => false,
                    // At one place there is but one of them, and it answered.
                    Source::Answered => held.record.target == record.target,
                    Source::Succeeds => true,
                };
                if other_life && lives && !may_succeed {
                    self.look_for_successor(slot, record, now);
                    return None;
                }
                if other_life {
                    let life = Life::new(heard.heartbeat, heard.age, now.time);
                    let name = record.name.clone();
                    let moved = held.record.target != record.target;
                    self.timers.cancel(Timer::Death(slot));
                    self.timers.cancel(Timer::Dial(slot));
                    self.drop_question(slot);
                    let (target, labels) = (record.target.clone(), record.labels.clone());
                    self.members.replace(slot, record, life, introducer, now.time);
                    info!(node = %name, %target, %labels, moved, "a node restarted");
                    self.journal.note(now, EventKind::Restarted(name));
                    self.spread_record(slot, now);
                    self.give_turn(slot, Why::AtOnce, now);
                }
                slot
            }
            // A node that has been silent for so long would be forgotten at once.
            None if !first_hand && heard.age > UNPROVEN_FORGET_AFTER => return None,
            None => {
                let life = Life::new(heard.heartbeat, heard.age, now.time);
                let (name, target, labels) = (record.name.clone(), record.target.clone(), record.labels.clone());
                let (slot, evicted) = match self.members.insert(record, life, introducer, now.time) {
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
                if first_hand {
                    info!(node = %name, %target, %labels, "a new node");
                    self.journal.note(now, EventKind::Joined(name));
                    self.roster_changed(now);
                }
                self.spread_record(slot, now);
                self.give_turn(slot, Why::AtOnce, now);
                slot
            }
        };
        if first_hand {
            self.prove(slot, now);
            self.reached_since(slot, now.time, now);
        }
        self.hear(slot, heard.heartbeat, heard.age, now);
        let member = self.members.get_mut(slot)?;
        if heard.left {
            let change = member.life.leave(now.time);
            self.apply_change(slot, change, now);
        } else if heard.age > SILENCE_MAX && member.life.status() == Status::Alive {
            // The peer reports a long silence, but its report may be stale: suspect first, so that it can be refuted.
            let change = member.life.suspect(Doubt { first_failure: now.time, refused: false, unheard: false }, now.time);
            self.apply_change(slot, change, now);
        }
        Some(slot)
    }

    /// It answered at its target, by its name, in this life.
    pub(super) fn prove(&mut self, slot: Slot, now: Now) {
        let was_known = self.members.get(slot).is_some_and(|member| member.known);
        if self.members.prove(slot) {
            self.guards.refund_unproven();
            self.partner_found(slot, now);
        }
        if !was_known && let Some(member) = self.members.get(slot) {
            let Record { name, target, labels, .. } = &*member.record;
            info!(node = %name, %target, %labels, "a new node");
            self.journal.note(now, EventKind::Joined(name.clone()));
        }
        if self.publisher.place(slot).is_none() {
            self.roster_changed(now);
        }
        if let Some(member) = self.members.get(slot) {
            self.guards.remove(&member.record.target);
        }
    }
}
