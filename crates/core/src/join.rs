//! Getting in and letting in: seeds, joiners, and admission.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info};

use crate::bucket::Bucket;
use crate::cell::Failure;
use crate::core::{CallError, Calling, Core, Output, RequestId, Timer};
use crate::identity::{Instance, Record, Target};
use crate::learn::Source;
use crate::life::Status;
use crate::limits::{IDENTIFY_TIMEOUT, JOIN_BACKOFF_MIN, JOIN_TIMEOUT, JOINS_PENDING_MAX, Rate, SEEDS_MAX, SELF_SEED_INTERVAL};
use crate::members::{ME, Slot};
use crate::message::{Heard, JoinAnswer, Request, Response};
use crate::tally::{EventKind, Refusal};
use crate::time::{Now, Time};

/// A seed that is a living member is looked at again after so long.
const KNOWN_SEED_INTERVAL: Duration = Duration::from_secs(5);
/// Joins of ours under way at once: a name may have thousands of addresses, and each holds a descriptor until it answers.
const JOINS_OUT_MAX: usize = 32;
/// How soon a target is tried that found no place among them.
const JOIN_TURN: Duration = Duration::from_millis(250);
/// Failing dial-backs of joiners: a mesh of a thousand may join at three seeds at once, and those succeed.
const JOIN_DIALS: Rate = Rate { per_second: 20.0, burst: 512.0 };

pub(crate) fn join_budget(now: Time) -> Bucket {
    Bucket::new(JOIN_DIALS, now)
}

/// Where this bot stands with its own name.
#[derive(Clone, Debug)]
pub enum Standing {
    /// Nobody let it in yet.
    Starting,
    /// It was let in, or let others in.
    Member,
    /// Another living node holds the name: this one publishes nothing and waits for the other to go.
    Yielded(Arc<Record>),
}

/// A target that is asked to let us in.
#[derive(Clone, Debug)]
pub(crate) struct Seed {
    pub(crate) target: Target,
    backoff: Duration,
    asking: bool,
    /// Who answered there last.
    answered: Option<Instance>,
    /// Why it did not let us in; none once it did.
    pub(crate) problem: Option<String>,
    /// Since when it does not.
    pub(crate) failing_since: Time,
    /// Whether that was logged.
    pub(crate) logged: bool,
    /// Whether discovery still lists it.
    pub(crate) listed: bool,
}

/// What a joiner is told where another node, or no bot, answers at its target.
const TOLD_ANOTHER: &str = "another answers there";

/// What a joiner is told of a failed dial-back: enough to mend its own set-up, and too little to scan others by.
fn told_joiner(failure: Failure) -> &'static str {
    match failure {
        Failure::Tls | Failure::Auth => "it presents no credentials there that are accepted; compare certificates and mesh tokens of both",
        Failure::Protocol | Failure::Identity => TOLD_ANOTHER,
        Failure::Dns | Failure::Refused | Failure::Unreachable | Failure::Timeout | Failure::Reset | Failure::Local | Failure::Other => {
            "no connection"
        }
    }
}

impl Core {
    /// Tells which targets to join at, in place of those before. The own address may be among them.
    pub fn handle_seeds(&mut self, targets: Vec<Target>, now: Now) {
        for seed in &mut self.seeds {
            seed.listed &= targets.contains(&seed.target);
        }
        for target in targets {
            if let Some(index) = self.seeds.iter().position(|seed| seed.target == target) {
                // One that was listed before and is again has lost its turn meanwhile.
                if !std::mem::replace(&mut self.seeds[index].listed, true) {
                    self.timers.set(Timer::Seed(index as u32), now.time);
                }
                continue;
            }
            let seed = Seed {
                target,
                backoff: JOIN_BACKOFF_MIN,
                asking: false,
                answered: None,
                problem: None,
                failing_since: now.time,
                logged: false,
                listed: true,
            };
            // A seed that is no longer listed gives its place away, so that indices stay what timers know.
            let index = match self.seeds.iter().position(|seed| !seed.listed && !seed.asking) {
                Some(index) => {
                    self.seeds[index] = seed;
                    index
                }
                None if self.seeds.len() < SEEDS_MAX => {
                    self.seeds.push(seed);
                    self.seeds.len() - 1
                }
                None => {
                    self.refuse(Refusal::SeedsFull);
                    continue;
                }
            };
            self.timers.set(Timer::Seed(index as u32), now.time);
        }
    }

    /// Seeds that did not let us in, with their reasons.
    pub(crate) fn join_problems(&self) -> Vec<(Target, String)> {
        let listed = self.seeds.iter().filter(|seed| seed.listed);
        listed.filter_map(|seed| Some((seed.target.clone(), seed.problem.clone()?))).collect()
    }

    /// Every listed seed, with whether it let us in.
    pub(crate) fn targets(&self) -> Vec<(Target, bool)> {
        let listed = self.seeds.iter().filter(|seed| seed.listed);
        listed.map(|seed| (seed.target.clone(), seed.answered.is_some() && seed.problem.is_none())).collect()
    }

    pub(crate) fn seed_due(&mut self, index: u32, now: Now) {
        let Some(seed) = self.seeds.get(index as usize) else {
            return;
        };
        if !seed.listed {
            return;
        }
        // Behind another address there may be many: who answered there once is not all that can be found there.
        let at_its_own = |slot| self.members.get(slot).is_some_and(|member| member.record.target == seed.target && member.is_present());
        let again = match seed.answered.and_then(|instance| self.members.of_instance(instance)) {
            Some(ME) if at_its_own(ME) => Some(SELF_SEED_INTERVAL),
            Some(slot) if at_its_own(slot) => Some(KNOWN_SEED_INTERVAL),
            _ => None,
        };
        if let Some(again) = again {
            self.timers.set(Timer::Seed(index), now.time + again);
            return;
        }
        if seed.asking || matches!(self.standing, Standing::Yielded(_)) {
            self.timers.set(Timer::Seed(index), now.time + self.config.join_interval);
            return;
        }
        if self.seeds.iter().filter(|seed| seed.asking).count() >= JOINS_OUT_MAX {
            self.timers.set(Timer::Seed(index), now.time + JOIN_TURN);
            return;
        }
        let target = seed.target.clone();
        if let Some(seed) = self.seeds.get_mut(index as usize) {
            seed.asking = true;
        }
        self.ask_to_join(target.clone(), Some(target));
    }

    fn ask_to_join(&mut self, target: Target, seed: Option<Target>) {
        let request = Request::Join(Arc::clone(self.record()));
        self.call_at(target, None, Calling::Join { seed }, request, JOIN_TIMEOUT);
    }

    /// Asks a member to let us in that does not know us.
    pub(crate) fn join_at_member(&mut self, slot: Slot) {
        if matches!(self.standing, Standing::Yielded(_)) {
            return;
        }
        if let Some(member) = self.members.get(slot) {
            self.ask_to_join(member.record.target.clone(), None);
        }
    }

    pub(crate) fn join_answered(&mut self, target: Option<Target>, result: Result<Response, CallError>, now: Now) {
        let index = target.as_ref().and_then(|target| self.seeds.iter().position(|seed| seed.target == *target));
        if let Some(seed) = index.and_then(|index| self.seeds.get_mut(index)) {
            seed.asking = false;
        }
        let answer = match result {
            Ok(Response::Join(answer)) => answer,
            Ok(Response::Busy) => JoinAnswer::Busy,
            Ok(_) => return self.not_let_in(index, "it answered something else than was asked".to_owned(), now),
            Err(error) => return self.not_let_in(index, error.detail, now),
        };
        match answer {
            JoinAnswer::Admitted(record) => self.let_in(index, record, target.as_ref(), now),
            JoinAnswer::Yourself => self.seed_answered(index, self.record().instance, KNOWN_SEED_INTERVAL, now),
            JoinAnswer::NameTaken(holder) => {
                let reason = format!("the name {} is held by a living node at {}", holder.name, holder.target);
                self.not_let_in(index, reason, now);
                if matches!(self.standing, Standing::Starting) {
                    self.ask_holder(target, holder);
                } else {
                    self.look_at_claimant(holder);
                }
            }
            JoinAnswer::Outdated(incarnation) => {
                // Many seeds may say so of one request: the first is heeded. What nobody would believe of us is not outdone.
                let own = self.record().incarnation;
                if incarnation >= own && incarnation.can_be_outdone_by(own) {
                    self.reincarnate(incarnation, now);
                }
                self.seed_again(index, JOIN_BACKOFF_MIN, now);
            }
            JoinAnswer::Unreachable(why) => {
                self.not_let_in(index, format!("it cannot reach this bot at {}: {why}", self.record().target), now);
            }
            JoinAnswer::Busy => self.not_let_in(index, "it has too much to do".to_owned(), now),
            JoinAnswer::Unknown(number) => self.not_let_in(index, format!("it gave an answer of a later release (number {number})"), now),
            JoinAnswer::OtherMesh(theirs) => {
                let (theirs, ours) = (theirs.as_str(), self.record().mesh.as_str());
                let reason = format!("it belongs to the mesh {theirs:?} and this bot to {ours:?}; give both the same --mesh-name");
                self.not_let_in(index, reason, now);
            }
        }
    }

    /// The node that a peer names as the holder of our name was asked itself. Only its own answer ends this bot.
    pub(crate) fn holder_answered(&mut self, seed: Option<Target>, holder: &Record, result: Result<Response, CallError>, now: Now) {
        if !matches!(self.standing, Standing::Starting) {
            return;
        }
        match result {
            Ok(Response::Identify(record)) if record.name == self.record().name && record.instance != self.record().instance => {
                self.output.push_back(Output::NameTaken(record));
            }
            _ => {
                let index = seed.as_ref().and_then(|target| self.seeds.iter().position(|seed| seed.target == *target));
                let reason = format!("it says that this bot's name is held by a node at {}, which does not answer by it", holder.target);
                self.not_let_in(index, reason, now);
            }
        }
    }

    fn let_in(&mut self, index: Option<usize>, record: Arc<Record>, dialled: Option<&Target>, now: Now) {
        if matches!(self.standing, Standing::Starting) {
            self.standing = Standing::Member;
        }
        self.seed_answered(index, record.instance, KNOWN_SEED_INTERVAL, now);
        if record.name == self.record().name {
            return;
        }
        // What answered at its own target is proven; behind another address it is as good as heard of.
        let source = if dialled == Some(&record.target) { Source::Answered } else { Source::Told(record.instance) };
        let heard = Heard { record, heartbeat: 0, age: Duration::ZERO, left: false };
        if let Some(slot) = self.learn(heard, source, now) {
            self.begin_exchange(slot, now);
        }
    }

    fn seed_answered(&mut self, index: Option<usize>, instance: Instance, again: Duration, now: Now) {
        if let Some(seed) = index.and_then(|index| self.seeds.get_mut(index)) {
            seed.answered = Some(instance);
            seed.backoff = JOIN_BACKOFF_MIN;
            seed.logged = false;
            if seed.problem.take().is_some() {
                info!(target = %seed.target, "let in");
            }
        }
        self.seed_again(index, again, now);
    }

    fn seed_again(&mut self, index: Option<usize>, after: Duration, now: Now) {
        if let Some(index) = index {
            self.timers.set(Timer::Seed(index as u32), now.time + after);
        }
    }

    fn not_let_in(&mut self, index: Option<usize>, why: String, now: Now) {
        let jitter = 0.5 + self.rng.f64();
        let longest = self.config.join_interval;
        let Some(seed) = index.and_then(|index| self.seeds.get_mut(index)) else {
            return;
        };
        let pause = seed.backoff.min(longest).mul_f64(jitter);
        seed.backoff = (seed.backoff * 2).min(longest);
        seed.answered = None;
        let target = seed.target.clone();
        if seed.problem.is_none() {
            seed.failing_since = now.time;
        }
        if seed.problem.as_ref() != Some(&why) {
            // Nobody has to act on a peer that is still starting: it is said aloud only when it is not about a connection.
            debug!(%target, why, "not let in yet");
            seed.problem = Some(why.clone());
            self.events.push(now.wall, EventKind::NotLetIn(format!("{target}: {why}")));
        }
        self.seed_again(index, pause, now);
    }

    /// A peer wants to be let in. Nothing that it claims is believed before it answered at its target.
    pub(crate) fn joiner(&mut self, id: RequestId, joiner: Arc<Record>, now: Now) {
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
            let answer = self.admitted();
            return self.reply(id, Response::Join(answer));
        }
        let pending = |calling: &&Calling| matches!(calling, Calling::Incumbent { .. } | Calling::DialBack { .. });
        let held_back = self.guards.get(&joiner.target).filter(|guard| guard.not_before > now.time).cloned();
        if let Some(why) = held_back.as_ref().and_then(|guard| guard.why.as_ref()) {
            self.refuse(Refusal::JoinUnreachable);
            return self.reply(id, Response::Join(JoinAnswer::Unreachable(why.to_string())));
        }
        // Dialling whoever answered us at this very target before is no burden to anybody: a flood of strangers keeps no member out.
        let held = self.members.named(&joiner.name).and_then(|slot| self.members.get(slot));
        let is_known = held.is_some_and(|held| held.known && held.record.target == joiner.target);
        let full = self.calls.values().filter(pending).count() >= JOINS_PENDING_MAX;
        if full || (!is_known && !self.join_budget.take(1.0, now.time)) {
            self.refuse(Refusal::JoinsFull);
            return self.reply(id, Response::Join(JoinAnswer::Busy));
        }
        let incumbent = self.members.named(&joiner.name).and_then(|slot| self.members.get(slot)).filter(|member| {
            let other = member.record.instance != joiner.instance && member.record.target != joiner.target;
            other && member.life.status() != Status::Left
        });
        match incumbent.map(|member| Arc::clone(&member.record)) {
            Some(incumbent) => {
                let calling = Calling::Incumbent { request: id, joiner };
                self.call(&incumbent, calling, Request::Identify, IDENTIFY_TIMEOUT);
            }
            None => self.dial_back(id, joiner),
        }
    }

    /// Whether this very node answered us at this very target before, our latest probe of it did not fail, and nobody doubts that it lives: there
    /// is nothing to prove.
    fn is_in(&self, joiner: &Record) -> bool {
        let held = self.members.of_instance(joiner.instance).and_then(|slot| self.members.get(slot));
        held.is_some_and(|held| {
            let undoubted = held.proven && held.life.status() == Status::Alive && held.pair.failing_since().is_none();
            undoubted && *held.record == *joiner && self.takes_part(held)
        })
    }

    pub(crate) fn incumbent_answered(&mut self, request: RequestId, joiner: Arc<Record>, result: Result<Response, CallError>, now: Now) {
        match result {
            Ok(Response::Identify(record)) if record.name == joiner.name && record.instance != joiner.instance => {
                self.refuse(Refusal::NameTaken);
                self.join_budget.refund(1.0);
                self.reports.name_claimed(&joiner, &record.target, now);
                self.reply(request, Response::Join(JoinAnswer::NameTaken(record)));
            }
            // The holder lives, and has no time to say so.
            Ok(Response::Busy) => self.reply(request, Response::Join(JoinAnswer::Busy)),
            _ => self.dial_back(request, joiner),
        }
    }

    fn dial_back(&mut self, request: RequestId, joiner: Arc<Record>) {
        let whom = Arc::clone(&joiner);
        self.call(&whom, Calling::DialBack { request, joiner }, Request::Identify, IDENTIFY_TIMEOUT);
    }

    pub(crate) fn dial_back_answered(&mut self, request: RequestId, joiner: Arc<Record>, result: Result<Response, CallError>, now: Now) {
        // The joiner is told no more than it has to know: what its target answers to us is for our own log.
        let (unreachable, told) = match result {
            Ok(Response::Identify(record))
                if record.life() == joiner.life() && record.name == joiner.name && record.mesh == joiner.mesh =>
            {
                self.join_budget.refund(1.0);
                self.guards.remove(&joiner.target);
                let answer = self.admit(&record, &joiner.target, now);
                return self.reply(request, Response::Join(answer));
            }
            Ok(Response::Identify(record)) => (format!("another node answers there: {}", record.name), TOLD_ANOTHER),
            Ok(Response::Busy) => return self.reply(request, Response::Join(JoinAnswer::Busy)),
            Ok(_) => ("it answers something else than was asked".to_owned(), TOLD_ANOTHER),
            Err(error) => {
                // Where somebody answers nobody is kept out: whoever may be there should not pay for another's claim.
                let told = told_joiner(error.failure);
                self.guard(&joiner.target, Some(told), now);
                (error.detail, told)
            }
        };
        self.refuse(Refusal::JoinUnreachable);
        self.reports.joiner_unreachable(&joiner, &unreachable, now);
        self.events.push(now.wall, EventKind::NotLetIn(format!("{} at {}: {unreachable}", joiner.name, joiner.target)));
        self.reply(request, Response::Join(JoinAnswer::Unreachable(told.to_owned())));
    }

    /// Lets in whoever answered at `dialled`. What it says there counts, not what the joiner claimed.
    fn admit(&mut self, record: &Arc<Record>, dialled: &Target, now: Now) -> JoinAnswer {
        if self.members.holder_elsewhere(record).is_some_and(|slot| self.members.get(slot).is_none_or(|member| member.proven)) {
            // Somebody else has its instance: it takes another one with its next life.
            self.refuse(Refusal::InstanceTaken);
            return JoinAnswer::Outdated(record.incarnation);
        }
        if let Some(member) = self.members.named(&record.name).and_then(|slot| self.members.get(slot)) {
            let (held, left) = (&member.record, member.life.status() == Status::Left);
            let outdated = held.life() > record.life() && !member.gives_way_at(dialled);
            if outdated || (left && held.instance == record.instance) {
                return JoinAnswer::Outdated(held.incarnation);
            }
        }
        let record =
            if record.target == *dialled { Arc::clone(record) } else { Arc::new(Record { target: dialled.clone(), ..(**record).clone() }) };
        let heard = Heard { record, heartbeat: 0, age: Duration::ZERO, left: false };
        match self.learn(heard, Source::Succeeds, now) {
            Some(_) => self.admitted(),
            None => JoinAnswer::Busy,
        }
    }

    /// Who lets others in is in.
    fn admitted(&mut self) -> JoinAnswer {
        if matches!(self.standing, Standing::Starting) {
            self.standing = Standing::Member;
        }
        JoinAnswer::Admitted(Arc::clone(self.record()))
    }
}
