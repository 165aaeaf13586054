//! Admission: what a joiner claims is believed once it answered at its target.

use std::sync::Arc;
use std::time::Duration;

use super::Core;
use super::calls::{Calling, Counted, Found};
use super::learn::Source;
use crate::cell::Failure;
use crate::identity::{Record, Target};
use crate::limits::{IDENTIFY_TIMEOUT, JOINS_PENDING_MAX};
use crate::liveness::Status;
use crate::members::ME;
use crate::message::{Heard, JoinAnswer, Request, Response};
use crate::orders::{CallError, RequestId};
use crate::tally::{EventKind, Refusal};
use crate::time::Moment;

/// The answer to a joiner at whose target another node, or no bot, answers.
const TOLD_ANOTHER: &str = "another answers there";

/// The answer to a joiner after a failed dial-back: enough to correct its set-up, and too little to
/// scan others.
fn told_joiner(failure: Failure) -> &'static str {
    match failure {
        Failure::Tls | Failure::Auth => {
            "it presents no credentials there that are accepted; compare certificates and mesh tokens of both"
        }
        Failure::Protocol | Failure::Identity => TOLD_ANOTHER,
        Failure::Dns
        | Failure::Refused
        | Failure::Unreachable
        | Failure::Timeout
        | Failure::Reset
        | Failure::Local
        | Failure::Other => "no connection",
    }
}

impl Core {
    /// A peer asks to join. Its claims are believed only once it has answered at its target.
    pub(super) fn handle_join(&mut self, id: RequestId, joiner: Arc<Record>, now: Moment) {
        let me = self.record();
        if joiner.instance == me.instance || self.members.formerly(joiner.instance) == Some(ME) {
            return self.reply(id, Response::Join(JoinAnswer::Yourself));
        }
        if joiner.mesh != me.mesh {
            let mesh = me.mesh.clone();
            self.refuse(Refusal::OtherMesh);
            self.reports.other_mesh(&joiner, now);
            return self.reply(id, Response::Join(JoinAnswer::OtherMesh(mesh)));
        }
        if joiner.name == me.name {
            let holder = self.introduction();
            self.refuse(Refusal::NameTaken);
            self.reports.name_claimed(&joiner, &holder.target, now);
            return self.reply(id, Response::Join(JoinAnswer::NameTaken(holder)));
        }
        if self.is_in(&joiner) {
            let answer = self.admission();
            return self.reply(id, Response::Join(answer));
        }
        if let Some(why) = self.joining.guards.why_unreachable(&joiner.target, now.time) {
            self.refuse(Refusal::JoinUnreachable);
            return self.reply(id, Response::Join(JoinAnswer::Unreachable(why)));
        }
        // A node that answered us at this very target before is dialled without a charge, so that a
        // flood of strangers keeps no member out.
        let held = self.members.named(&joiner.name).and_then(|slot| self.members.get(slot));
        let is_known = held.is_some_and(|held| held.known && held.record.target == joiner.target);
        let full = self.orders.calls.in_flight(Counted::Joiner) >= JOINS_PENDING_MAX;
        if full || (!is_known && !self.joining.guards.may_dial_joiner(now.time)) {
            self.refuse(Refusal::JoinsFull);
            return self.reply(id, Response::Join(JoinAnswer::Busy));
        }
        let incumbent =
            self.members.named(&joiner.name).and_then(|slot| self.members.get(slot)).filter(
                |member| {
                    let other = member.record.instance != joiner.instance
                        && member.record.target != joiner.target;
                    other && member.liveness.status() != Status::Left
                },
            );
        match incumbent.map(|member| Arc::clone(&member.record)) {
            Some(incumbent) => {
                let calling = Calling::Incumbent { request: id, joiner };
                self.call(&incumbent, calling, Request::Identify, IDENTIFY_TIMEOUT);
            }
            None => self.dial_back(id, joiner),
        }
    }

    /// Whether this very node answered us at this very target before, our latest probe of it did
    /// not fail, and nobody doubts that it lives: there is nothing to prove.
    fn is_in(&self, joiner: &Record) -> bool {
        let held =
            self.members.of_instance(joiner.instance).and_then(|slot| self.members.get(slot));
        held.is_some_and(|held| {
            let undoubted = held.proven
                && held.liveness.status() == Status::Alive
                && held.pair.failing_since().is_none();
            undoubted && *held.record == *joiner && self.takes_part(held)
        })
    }

    pub(super) fn incumbent_answered(
        &mut self,
        request: RequestId,
        joiner: Arc<Record>,
        result: Result<Response, CallError>,
        now: Moment,
    ) {
        match Found::instead_of(&joiner, result) {
            Found::OtherIncarnation(record) if record.instance != joiner.instance => {
                self.refuse(Refusal::NameTaken);
                self.joining.guards.refund_joiner();
                self.reports.name_claimed(&joiner, &record.target, now);
                self.reply(request, Response::Join(JoinAnswer::NameTaken(record)));
            }
            // The holder lives, and has no time to say so.
            Found::Busy => self.reply(request, Response::Join(JoinAnswer::Busy)),
            _ => self.dial_back(request, joiner),
        }
    }

    fn dial_back(&mut self, request: RequestId, joiner: Arc<Record>) {
        let whom = Arc::clone(&joiner);
        self.call(
            &whom,
            Calling::DialBack { request, joiner },
            Request::Identify,
            IDENTIFY_TIMEOUT,
        );
    }

    pub(super) fn dial_back_answered(
        &mut self,
        request: RequestId,
        joiner: Arc<Record>,
        result: Result<Response, CallError>,
        now: Moment,
    ) {
        // The joiner learns only what it needs: the details are for our own log.
        let (unreachable, told) = match Found::instead_of(&joiner, result) {
            Found::Same(record) if record.mesh == joiner.mesh => {
                self.joining.guards.refund_joiner();
                self.joining.guards.remove(&joiner.target);
                let answer = self.admit(&record, &joiner.target, now);
                return self.reply(request, Response::Join(answer));
            }
            Found::Same(record) | Found::OtherIncarnation(record) | Found::OtherName(record) => {
                (format!("another node answers there: {}", record.name), TOLD_ANOTHER)
            }
            Found::Busy => return self.reply(request, Response::Join(JoinAnswer::Busy)),
            Found::Stranger => {
                ("it answers something else than was asked".to_owned(), TOLD_ANOTHER)
            }
            Found::Nobody(error) => {
                // Only where nothing answered: a living node must not be kept out because another
                // claimed its address.
                let told = told_joiner(error.failure);
                self.joining.guards.failed(&joiner.target, Some(told), now.time);
                (error.detail, told)
            }
        };
        self.refuse(Refusal::JoinUnreachable);
        self.reports.joiner_unreachable(&joiner, &unreachable, now);
        self.journal.note(
            now,
            EventKind::NotLetIn(format!("{} at {}: {unreachable}", joiner.name, joiner.target)),
        );
        self.reply(request, Response::Join(JoinAnswer::Unreachable(told.to_owned())));
    }

    /// Admits the node that answered at `dialled`. Its answer counts, not what the joiner claimed.
    fn admit(&mut self, record: &Arc<Record>, dialled: &Target, now: Moment) -> JoinAnswer {
        if self
            .members
            .holder_elsewhere(record)
            .is_some_and(|slot| self.members.get(slot).is_none_or(|member| member.proven))
        {
            // Somebody else has its instance: it takes another one with its next incarnation.
            self.refuse(Refusal::InstanceTaken);
            return JoinAnswer::Outdated(record.incarnation);
        }
        if let Some(member) =
            self.members.named(&record.name).and_then(|slot| self.members.get(slot))
        {
            let (held, left) = (&member.record, member.liveness.status() == Status::Left);
            let outdated = held.succession() > record.succession() && !member.gives_way_at(dialled);
            if outdated || (left && held.instance == record.instance) {
                return JoinAnswer::Outdated(held.incarnation);
            }
        }
        let record = if record.target == *dialled {
            Arc::clone(record)
        } else {
            Arc::new(Record { target: dialled.clone(), ..(**record).clone() })
        };
        let heard = Heard { record, changed: 0, heartbeat: 0, age: Duration::ZERO, left: false };
        match self.learn(heard, Source::Succeeds, now) {
            Some(_) => self.admission(),
            None => JoinAnswer::Busy,
        }
    }

    /// Admits a joiner. A bot that admits others is a member itself.
    fn admission(&mut self) -> JoinAnswer {
        self.joining.naming.is_in();
        JoinAnswer::Admitted(Arc::clone(self.record()))
    }
}
