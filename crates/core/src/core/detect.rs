//! Doubt is a question, asked at once: is it the node, the path, or ourselves?

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Core;
use super::calls::{Calling, Leg};
use super::deadlines::Patience;
use super::schedule::Why;
use crate::bucket::Bucket;
use crate::cell::Failure;
use crate::identity::Instance;
use crate::limits::{
    DEATH_AFTER_SILENCE, FLAP_PAUSE, FLAP_PAUSE_MAX, INDIRECT_PROBE_TIMEOUT, INDIRECT_PROBES,
    INQUIRIES, INQUIRY_PAUSE, NODES_PER_QUESTION, QUESTION_TIME, QUESTIONS_MAX, QUESTIONS_MIN,
    REPEAT_DELAY,
};
use crate::liveness::{Change, Doubt, Status};
use crate::members::{ME, Slot};
use crate::message::{Answer, Exchange, Request, Response, Suspicion};
use crate::orders::{CallId, Order, ProbeId, RequestId};
use crate::probes::{Lane, Purpose};
use crate::tally::Refusal;
use crate::time::{Attentive, Moment, Time};

/// A member that failed to answer is tried again, by us and by others.
#[derive(Debug)]
struct Question {
    /// Answers to an earlier question about the same member are ignored.
    number: Order,
    /// The probe or call that is overdue, while nothing else failed; if it is answered after all,
    /// it is as if nobody had asked.
    raised_by: Option<Order>,
    first_failure: Time,
    /// The same on the attentive clock.
    patient_since: Attentive,
    /// Every attempt so far was refused.
    refused: bool,
    /// Repetitions that are not answered yet, or not even sent.
    probes_open: u8,
    /// Peers that have not answered yet.
    indirect_open: u8,
    /// Repetitions that this host spoiled.
    voids: u8,
    /// Somebody else could not reach it either, or its own host says that it is not there.
    confirmed: bool,
}

/// The questions that are open, and what others' doubts may have us ask.
#[derive(Debug)]
pub(super) struct Questions {
    open: BTreeMap<Slot, Question>,
    inquiries: Bucket,
}

impl Questions {
    pub(super) fn new(now: Time) -> Self {
        Self { open: BTreeMap::new(), inquiries: Bucket::new(INQUIRIES, now) }
    }
}

impl Core {
    /// An attempt with this member failed.
    pub(super) fn doubt(&mut self, slot: Slot, refused: bool, now: Moment) {
        self.ask_about(slot, refused, None, now);
    }

    /// The probe or call that was ordered under this number is overdue.
    fn doubt_overdue(&mut self, slot: Slot, order: Order, now: Moment) {
        if !self.detector.witness.is_starved(now.time) {
            self.ask_about(slot, false, Some(order), now);
        }
    }

    fn ask_about(&mut self, slot: Slot, refused: bool, raised_by: Option<Order>, now: Moment) {
        if let Some(question) = self.detector.questions.open.get_mut(&slot) {
            question.refused &= refused;
            question.raised_by = question.raised_by.filter(|order| raised_by == Some(*order));
            return;
        }
        let Some(member) =
            self.members.get(slot).filter(|member| slot != ME && member.is_partner())
        else {
            return;
        };
        let is_shared = |doubt: Doubt| {
            !doubt.unheard || self.detector.witness.heard_nobody_since(doubt.first_failure)
        };
        if member.liveness.status() == Status::Suspect
            && member.liveness.doubt().is_none_or(is_shared)
        {
            return;
        }
        // Bots that reach it will suspect it when it is gone; our own failures say nothing new. In
        // a mesh of two there is only us.
        if self.members.present() >= 2 && member.is_behind_a_broken_path(now) {
            return;
        }
        let present = self.members.present();
        if !self.schedule.load.keeps_up()
            && member.flaps(now.time)
            && now.time.since(member.questioned_at)
                < (FLAP_PAUSE * present as u32).min(FLAP_PAUSE_MAX)
        {
            self.refuse(Refusal::QuestionsFull);
            return;
        }
        let full = self.detector.questions.open.len()
            >= (present / NODES_PER_QUESTION).clamp(QUESTIONS_MIN, QUESTIONS_MAX);
        // A question that was answered otherwise leaves its probes to their timeout, and each that
        // is open may still repeat its own.
        if full || self.orders.probes.free(Lane::Question) < self.detector.questions.open.len() + 2
        {
            self.refuse(Refusal::QuestionsFull);
            return;
        }
        let about = member.record.instance;
        let peers = self.peers_to_ask(slot);
        let number = self.orders.outbox.number();
        let indirect_open = peers.len() as u8;
        let question = Question {
            number,
            raised_by,
            first_failure: now.time,
            patient_since: now.attentive,
            refused,
            probes_open: 2,
            indirect_open,
            voids: 0,
            confirmed: false,
        };
        self.detector.questions.open.insert(slot, question);
        if let Some(member) = self.members.get_mut(slot) {
            member.questioned_at = now.time;
        }
        self.order_probe(slot, Purpose::Question(number), now);
        self.deadlines.patience.set(Patience::Repeat(slot), now.attentive + REPEAT_DELAY);
        self.deadlines.patience.set(Patience::Verdict(slot), now.attentive + QUESTION_TIME);
        for peer in peers {
            if let Some(whom) = self.members.get(peer).map(|member| Arc::clone(&member.record)) {
                self.call(
                    &whom,
                    Calling::IndirectProbe { about, question: number, sent_at: now.time },
                    Request::IndirectProbe(about),
                    INDIRECT_PROBE_TIMEOUT,
                );
            }
        }
    }

    fn peers_to_ask(&mut self, about: Slot) -> Vec<Slot> {
        let may = |(slot, member): &(Slot, &crate::members::Member)| {
            let fit = *slot != about
                && member.is_partner()
                && member.liveness.status() == Status::Alive
                && !self.detector.questions.open.contains_key(slot);
            fit && self.takes_part(member)
        };
        let mut peers: Vec<_> = self.members.others().filter(may).map(|(slot, _)| slot).collect();
        let chosen = INDIRECT_PROBES.min(peers.len());
        for index in 0..chosen {
            let other = self.rng.usize(index..peers.len());
            peers.swap(index, other);
        }
        peers.truncate(chosen);
        peers
    }

    pub(super) fn repeat_question(&mut self, slot: Slot, now: Moment) {
        if let Some(number) =
            self.detector.questions.open.get(&slot).map(|question| question.number)
        {
            self.order_probe(slot, Purpose::Question(number), now);
        }
    }

    pub(super) fn question_probed(
        &mut self,
        slot: Slot,
        number: Order,
        failure: &Option<Failure>,
        now: Moment,
    ) {
        let Some(question) = self
            .detector
            .questions
            .open
            .get_mut(&slot)
            .filter(|question| question.number == number)
        else {
            return;
        };
        question.probes_open = question.probes_open.saturating_sub(1);
        match failure {
            Some(kind) => {
                question.refused &= kind.is_refusal();
                question.confirmed |= kind.is_refusal();
                question.raised_by = None;
            }
            None => question.voids += 1,
        }
        self.answered_enough(slot, now);
    }

    pub(super) fn question_answered(
        &mut self,
        about: Instance,
        number: Order,
        asked_at: Time,
        answer: Answer,
        now: Moment,
    ) {
        let Some(slot) = self.members.of_instance(about) else {
            return;
        };
        let asked = |question: &&mut Question| question.number == number;
        if answer == Answer::Reached {
            self.reached_since(slot, asked_at, now);
            return;
        }
        let Some(question) = self.detector.questions.open.get_mut(&slot).filter(asked) else {
            return;
        };
        question.indirect_open = question.indirect_open.saturating_sub(1);
        if let Answer::Failed(kind) = answer {
            question.refused &= kind.is_refusal();
            question.confirmed = true;
            question.raised_by = None;
        }
        self.answered_enough(slot, now);
    }

    /// What was overdue is answered after all.
    pub(super) fn overdue_answered(&mut self, slot: Slot, order: Order) {
        if self
            .detector
            .questions
            .open
            .get(&slot)
            .is_some_and(|question| question.raised_by == Some(order))
        {
            self.drop_question(slot);
        }
    }

    fn answered_enough(&mut self, slot: Slot, now: Moment) {
        if self
            .detector
            .questions
            .open
            .get(&slot)
            .is_some_and(|question| question.probes_open == 0 && question.indirect_open == 0)
        {
            self.close_question(slot, now);
        }
    }

    /// Nobody reached it. Newer evidence may arrive until the deadline of the suspicion, which is
    /// shared unless the fault may be ours.
    pub(super) fn close_question(&mut self, slot: Slot, now: Moment) {
        let Some(question) = self.take_question(slot) else {
            return;
        };
        if question.voids > 0 {
            // We could not test it properly: others will ask, and we will again.
            return;
        }
        let on_our_word = !question.confirmed && self.members.present() >= 2;
        if on_our_word && self.detector.witness.was_silent_after(question.first_failure) {
            // It may have been about ourselves: it is tried again now that somebody is heard.
            self.give_turn(slot, Why::AtOnce, now);
            return;
        }
        let nothing_open = question.probes_open == 0 && question.indirect_open == 0;
        let unheard =
            on_our_word && self.detector.witness.heard_nobody_since(question.first_failure);
        let doubt = Doubt {
            // Later by a stall of ours: others have as long to refute it as if there had been none.
            first_failure: now.time.back(now.attentive.since(question.patient_since)),
            patient_since: question.patient_since,
            refused: question.refused && nothing_open,
            unheard,
        };
        if let Some(member) = self.members.get_mut(slot) {
            let change = member.liveness.suspect(doubt, now);
            self.apply_change(slot, change, now);
        }
    }

    fn take_question(&mut self, slot: Slot) -> Option<Question> {
        self.deadlines.patience.cancel(Patience::Repeat(slot));
        self.deadlines.patience.cancel(Patience::Verdict(slot));
        self.detector.questions.open.remove(&slot)
    }

    /// Ends the question about a member without a verdict.
    pub(super) fn drop_question(&mut self, slot: Slot) {
        self.take_question(slot);
    }

    /// Ends the question if newer evidence answered it.
    pub(super) fn settle_question(&mut self, slot: Slot) {
        let evidence_at = self.members.get(slot).map(|member| member.liveness.evidence_at());
        if self
            .detector
            .questions
            .open
            .get(&slot)
            .is_some_and(|question| evidence_at > Some(question.first_failure))
        {
            self.drop_question(slot);
        }
    }

    pub(super) fn probe_slow(&mut self, id: ProbeId, now: Moment) {
        let Some(slot) = self.orders.probes.get(id).map(|probing| probing.slot) else {
            return;
        };
        // The asker wants to know by now. A late answer is still evidence for ourselves.
        if let Some(request) = self.orders.probes.stop_waiting(id) {
            self.reply(request, Response::IndirectProbe(Answer::Failed(Failure::Timeout)));
            return;
        }
        if !self.detector.witness.is_starved(now.time) {
            self.orders.probes.set_overdue(id);
            self.fire_ready(now);
        }
        self.doubt_overdue(slot, id.0, now);
    }

    pub(super) fn call_slow(&mut self, id: CallId, now: Moment) {
        if let Some(Calling::Exchange(sent)) = self.orders.calls.get(id)
            && let Some(slot) = self.members.of_instance(sent.instance)
        {
            self.doubt_overdue(slot, id.0, now);
        }
    }

    /// A peer doubts a node and asks us to try.
    pub(super) fn handle_indirect_probe(&mut self, id: RequestId, about: Instance, now: Moment) {
        let answer = match self.members.of_instance(about) {
            Some(ME) => Answer::Reached,
            Some(slot) if self.may_probe_for_others(slot, now) => {
                let ordered = self.order_probe(slot, Purpose::IndirectProbe(id), now);
                let wait = self
                    .members
                    .get(slot)
                    .map(|member| member.pair.doubt_after(self.config.probe_timeout));
                if let (Some(probe), Some(wait)) = (ordered, wait) {
                    self.deadlines.patience.set(Patience::SlowProbe(probe), now.attentive + wait);
                }
                return;
            }
            _ => {
                self.refuse(Refusal::IndirectProbesFull);
                Answer::Unknown
            }
        };
        self.reply(id, Response::IndirectProbe(answer));
    }

    fn may_probe_for_others(&mut self, slot: Slot, now: Moment) -> bool {
        self.orders.probes.admit(Lane::IndirectProbe, now.time).is_ok()
            && self.members.get(slot).is_some_and(|member| member.proven)
    }

    /// A peer says that nobody could reach this one: as news that it pushes, or in its digest.
    pub(super) fn hear_suspicion(&mut self, suspicion: Suspicion, pushed: bool, now: Moment) {
        let Some(slot) = self.members.of_instance(suspicion.instance) else {
            return;
        };
        if slot == ME {
            self.beat(now);
            self.spread_liveness(ME, now);
            return;
        }
        if self.detector.witness.input_is_stale(now.time) {
            // Its age is unknown by now, and it may have been refuted. If it still stands, it comes
            // again.
            return;
        }
        let doubt = Doubt::shared(now.time.back(suspicion.age), suspicion.refused, now);
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        let change = member.liveness.suspect(doubt, now);
        self.apply_change(slot, change, now);
        // What we know from a probe of ours is no evidence to others: only a heartbeat that is
        // younger than the doubt is.
        let beat_at = self.members.get(slot).map(|member| member.liveness.heartbeat().1);
        match change {
            Change::Refuted if !pushed => {}
            Change::Refuted if beat_at > Some(doubt.first_failure) => {
                self.speak_for(slot, suspicion, now);
            }
            Change::Refuted | Change::Suspected => self.inquire(slot, suspicion, now),
            _ => {}
        }
    }

    /// Spreads a heartbeat that refutes a suspicion which could still lead to a death. A peer that
    /// repeats the suspicion does not make us spread it each time.
    fn speak_for(&mut self, slot: Slot, suspicion: Suspicion, now: Moment) {
        if suspicion.age < DEATH_AFTER_SILENCE * 2 && self.may_speak_for(slot, now) {
            self.spread_liveness(slot, now);
        }
    }

    /// Whether nothing was done for the sake of this doubted member just now.
    fn may_speak_for(&mut self, slot: Slot, now: Moment) -> bool {
        let Some(member) = self
            .members
            .get_mut(slot)
            .filter(|member| now.time.since(member.inquired_at) > INQUIRY_PAUSE)
        else {
            return false;
        };
        member.inquired_at = now.time;
        true
    }

    /// Asks a node that somebody else doubts, if our way to it was good: what others cannot reach
    /// may live, and then it is for us to say so.
    fn inquire(&mut self, slot: Slot, suspicion: Suspicion, now: Moment) {
        if self.detector.witness.is_starved(now.time) && !self.schedule.load.keeps_up() {
            return;
        }
        let may = |member: &crate::members::Member| {
            member.proven
                && member.pair.main().latest().is_some()
                && member.pair.failing_since().is_none()
        };
        if self.members.get(slot).is_some_and(may)
            && self.may_speak_for(slot, now)
            && self.detector.questions.inquiries.take(1.0, now.time)
        {
            let exchange = Exchange { suspicions: vec![suspicion], ..Exchange::default() };
            self.send_exchange(slot, exchange, Leg::Inquiry, now);
        }
    }

    /// The deadline of a suspect has come.
    pub(super) fn death_due(&mut self, slot: Slot, now: Moment) {
        let alone = self.hears_nobody();
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        if let Some(doubt) = member.liveness.doubt()
            && let Some(deadline) = member.liveness.deadline()
            && alone
            && !doubt.refused
        {
            // Hearing from nobody is first of all a finding about ourselves; it buys the others as
            // much time again, once.
            let extended = deadline + doubt.patience();
            if extended > now.attentive {
                self.deadlines.patience.set(Patience::Death(slot), extended);
                return;
            }
        }
        let change = member.liveness.expire(now);
        if let Some(deadline) = member.liveness.deadline() {
            self.deadlines.patience.set(Patience::Death(slot), deadline);
        }
        self.apply_change(slot, change, now);
    }

    /// A probe that was ordered at `ordered_at` failed: if others were heard before and after, a
    /// death that we kept private may be shared.
    pub(super) fn confirm_death(&mut self, slot: Slot, ordered_at: Time, now: Moment) {
        if self.detector.witness.heard_around(ordered_at)
            && let Some(member) = self.members.get_mut(slot)
            && member.liveness.confirm()
        {
            member.changed_at = now.time;
        }
    }

    /// There has been no evidence for so long that it is doubtful even though no probe of ours
    /// failed.
    pub(super) fn suspect_silent(&mut self, slot: Slot, now: Moment) {
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        if member.proven {
            self.doubt(slot, false, now);
        } else {
            let change = member.liveness.suspect(Doubt::shared(now.time, false, now), now);
            self.apply_change(slot, change, now);
        }
    }
}
