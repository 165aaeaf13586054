//! Whose a name is: restarts, twins, and leftovers of former lives.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::core::{CallError, Calling, Core, Timer, is_refusal};
use crate::identity::{Incarnation, Record};
use crate::join::Standing;
use crate::limits::{IDENTIFY_TIMEOUT, INCARNATION_MAX};
use crate::members::{ME, Slot};
use crate::message::{Heard, Request, Response};
use crate::tally::EventKind;
use crate::time::Now;

/// How often a bot that yielded its name looks whether the other still holds it.
const CONTEST_INTERVAL: Duration = Duration::from_secs(10);
/// Shortest and longest pause between two looks at whoever is said to have our name: gossip may say it all the time, and two that cannot reach
/// each other must not outdo each other for ever.
pub(crate) const CONTEST_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// So often in a row the other holder of our name must fail to answer before it is held for gone; a refusal needs no second try.
const CONTEST_TRIES: u8 = 3;

impl Core {
    /// Asks who answers at a member's target: an answer in another life was seen there.
    pub(crate) fn identify(&mut self, slot: Slot) {
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        if !std::mem::replace(&mut member.identifying, true) {
            let whom = Arc::clone(&member.record);
            self.call(&whom, Calling::Identify { slot }, Request::Identify, IDENTIFY_TIMEOUT);
        }
    }

    pub(crate) fn identified(&mut self, slot: Slot, result: Result<Response, CallError>, now: Now) {
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        member.identifying = false;
        let (name, dialled) = (member.record.name.clone(), member.record.target.clone());
        if let Ok(Response::Identify(record)) = result
            && record.name == name
        {
            let proven = record.target == dialled;
            let introducer = (!proven).then_some(record.instance);
            self.learn(Heard { record, heartbeat: 0, age: Duration::ZERO, left: false }, introducer, now);
        }
    }

    /// Somebody tells of a larger life of a member that lives: a restart, or a lie. The living one stays until the other answers.
    pub(crate) fn look_for_successor(&mut self, slot: Slot, successor: Arc<Record>, now: Now) {
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        let same_place = member.record.target == successor.target;
        if member.identifying || (!same_place && self.may_dial_unproven(&successor.target, now).is_err()) {
            return;
        }
        if let Some(member) = self.members.get_mut(slot) {
            member.identifying = true;
        }
        let whom = Arc::clone(&successor);
        self.call(&whom, Calling::Succession { slot, successor }, Request::Identify, IDENTIFY_TIMEOUT);
    }

    pub(crate) fn succession_answered(&mut self, slot: Slot, successor: &Record, result: Result<Response, CallError>, now: Now) {
        if let Some(member) = self.members.get_mut(slot) {
            member.identifying = false;
        }
        if let Ok(Response::Identify(record)) = result
            && record.name == successor.name
            && record.target == successor.target
        {
            self.unproven_budget.refund(1.0);
            self.learn(Heard { record, heartbeat: 0, age: Duration::ZERO, left: false }, None, now);
        }
    }

    /// Somebody speaks of our own name in another life.
    pub(crate) fn hear_own_name(&mut self, record: Arc<Record>, left: bool, now: Now) {
        let me = self.record();
        // Nobody takes what is beyond belief for us, and nobody has to be asked about it.
        let believed = record.incarnation.0 <= INCARNATION_MAX.max(me.incarnation.0);
        if now.time < self.contest_after || left || !believed || record.instance == me.instance || record.life() < me.life() {
            return;
        }
        self.contest_after = now.time + self.contest_pause;
        self.contest(record);
    }

    /// Looks whether the other holder of our name lives. A larger life that does not is a leftover, and is overtaken.
    pub(crate) fn contest(&mut self, claimant: Arc<Record>) {
        if self.calls.values().any(|calling| matches!(calling, Calling::Contest { .. })) {
            return;
        }
        let whom = Arc::clone(&claimant);
        self.call(&whom, Calling::Contest { claimant }, Request::Identify, IDENTIFY_TIMEOUT);
    }

    pub(crate) fn contest_again(&mut self, _now: Now) {
        if let Standing::Yielded(holder) = &self.standing {
            let holder = Arc::clone(holder);
            self.contest(holder);
        }
    }

    pub(crate) fn contest_answered(&mut self, claimant: Arc<Record>, result: Result<Response, CallError>, now: Now) {
        let yielded = matches!(self.standing, Standing::Yielded(_));
        if let Err(error) = &result
            && !is_refusal(error.failure)
            && self.contest_failures + 1 < CONTEST_TRIES
        {
            self.contest_failures += 1;
            return self.contest(claimant);
        }
        self.contest_failures = 0;
        match result {
            Ok(Response::Identify(record)) if record.name == claimant.name && record.instance != self.record().instance => {
                if !yielded && record.life() < self.record().life() {
                    return;
                }
                if !yielded {
                    warn!(name = %record.name, target = %record.target, "another living node has this name; give one of them another");
                    self.events.push(now.wall, EventKind::NameConflict(record.target.to_string()));
                    self.members.me_mut().hold(None, None);
                    self.publisher.restart();
                }
                self.standing = Standing::Yielded(record);
                self.timers.set(Timer::Contest, now.time + CONTEST_INTERVAL);
            }
            _ => {
                if yielded {
                    info!("nobody else has this name any more");
                    self.events.push(now.wall, EventKind::NameRegained);
                    self.standing = Standing::Member;
                }
                self.timers.cancel(&Timer::Contest);
                self.overtake(claimant.incarnation, now);
            }
        }
    }

    fn overtake(&mut self, claimed: Incarnation, now: Now) {
        let own = self.record().incarnation;
        // What nobody would believe of us is not outdone: nobody would take us then.
        if claimed >= own && claimed.0 <= INCARNATION_MAX.max(own.0) {
            self.contest_pause = (self.contest_pause * 2).min(CONTEST_PAUSE.1);
            self.reincarnate(claimed, now);
        } else {
            self.spread_record(ME, now);
            self.roster_changed(now);
        }
    }
}
