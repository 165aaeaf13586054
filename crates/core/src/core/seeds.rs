//! Getting in: the targets at which this bot asks to join.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info};

use super::Core;
use super::calls::{Calling, Found};
use super::deadlines::Timer;
use super::learn::Source;
use crate::identity::{Instance, Record, Target};
use crate::limits::{JOIN_BACKOFF_MIN, JOIN_TIMEOUT, SEEDS_MAX, SELF_SEED_INTERVAL};
use crate::members::{ME, Slot};
use crate::message::{Heard, JoinAnswer, Request, Response};
use crate::orders::{CallError, Output};
use crate::tally::{EventKind, Refusal};
use crate::time::{Moment, Time};

/// A seed that is a living member is looked at again after so long.
const KNOWN_SEED_INTERVAL: Duration = Duration::from_secs(5);
/// Joins of ours under way at once: a name may have thousands of addresses, and each holds a
/// descriptor until it answers.
const JOINS_OUT_MAX: usize = 32;
/// How soon a target is tried that found no place among them.
const JOIN_TURN: Duration = Duration::from_millis(250);
/// Why a bot of the original whose loops are stuck does not admit us.
const STUCK: &str =
    "it answers, but its own loops are stuck: it measures nothing and admits nobody; restart it";

/// Why one is not asked yet.
const IN_TURN: &str = "a bot of the original is there, and ours ask it one after the other";
/// A bot of the original whose loops are stuck is looked at again after so long.
const STUCK_SEED_INTERVAL: Duration = Duration::from_secs(15);

/// A target that is asked to admit us.
#[derive(Clone, Debug)]
pub(super) struct Seed {
    pub(super) target: Target,
    backoff: Duration,
    asking: bool,
    /// Who answered there last.
    answered: Option<Instance>,
    /// Why it did not admit us; none once it did.
    pub(super) problem: Option<String>,
    /// Since when it does not.
    pub(super) failing_since: Time,
    /// Whether that was logged.
    pub(super) logged: bool,
    /// Whether discovery still lists it.
    pub(super) listed: bool,
}

/// The targets at which this bot asks to join.
#[derive(Debug, Default)]
pub(super) struct Seeds(Vec<Seed>);

impl Seeds {
    fn get(&self, index: u32) -> Option<&Seed> {
        self.0.get(index as usize)
    }

    fn get_mut(&mut self, index: u32) -> Option<&mut Seed> {
        self.0.get_mut(index as usize)
    }

    fn find(&self, target: &Target) -> Option<u32> {
        self.0.iter().position(|seed| seed.target == *target).map(|index| index as u32)
    }

    /// A place for one more: that of a seed that is not listed any more, so that indices stay what
    /// timers know.
    fn place(&mut self, seed: Seed) -> Option<u32> {
        let free = self.0.iter().position(|seed| !seed.listed && !seed.asking);
        match free {
            Some(index) => self.0[index] = seed,
            None if self.0.len() < SEEDS_MAX => self.0.push(seed),
            None => return None,
        }
        Some(free.unwrap_or(self.0.len() - 1) as u32)
    }

    /// The targets but this bot itself, if there are any and each of them is a bot of the original
    /// whose loops are stuck.
    pub(super) fn only_stuck(&self, me: Instance) -> Option<Vec<String>> {
        let others = || self.listed().filter(|seed| seed.answered != Some(me));
        let all: Vec<_> = others().map(|seed| seed.target.to_string()).collect();
        (!all.is_empty() && others().all(|seed| seed.problem.as_deref() == Some(STUCK)))
            .then_some(all)
    }

    /// Those that discovery lists.
    fn listed(&self) -> impl Iterator<Item = &Seed> {
        self.0.iter().filter(|seed| seed.listed)
    }

    /// Listed targets that nobody admitted this bot at, but for bots of the original: one of ours
    /// waits there, and all of ours tell of it.
    pub(super) fn wrong(&mut self) -> impl Iterator<Item = &mut Seed> {
        let is_original = |seed: &Seed| {
            seed.problem.as_deref().is_some_and(|problem| problem == STUCK || problem == IN_TURN)
        };
        self.0.iter_mut().filter(move |seed| seed.listed && !is_original(seed))
    }
}

impl Core {
    /// Joins at these targets from here on.
    pub(super) fn set_seeds(&mut self, targets: Vec<Target>, now: Moment) {
        for seed in &mut self.joining.seeds.0 {
            seed.listed &= targets.contains(&seed.target);
        }
        for target in targets {
            if let Some(index) = self.joining.seeds.find(&target) {
                // One that was listed before and is again has lost its turn.
                if self
                    .joining
                    .seeds
                    .get_mut(index)
                    .is_some_and(|seed| !std::mem::replace(&mut seed.listed, true))
                {
                    self.deadlines.timers.set(Timer::Seed(index), now.time);
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
            match self.joining.seeds.place(seed) {
                Some(index) => self.deadlines.timers.set(Timer::Seed(index), now.time),
                None => self.refuse(Refusal::SeedsFull),
            }
        }
    }

    /// Seeds that did not admit us, with their reasons.
    pub(super) fn join_problems(&self) -> Vec<(Target, String)> {
        self.joining
            .seeds
            .listed()
            .filter_map(|seed| Some((seed.target.clone(), seed.problem.clone()?)))
            .collect()
    }

    /// Every listed seed, with whether it admitted us.
    pub(super) fn targets(&self) -> Vec<(Target, bool)> {
        self.joining
            .seeds
            .listed()
            .map(|seed| (seed.target.clone(), seed.answered.is_some() && seed.problem.is_none()))
            .collect()
    }

    pub(super) fn seed_due(&mut self, index: u32, now: Moment) {
        let Some(seed) = self.joining.seeds.get(index) else {
            return;
        };
        if !seed.listed {
            return;
        }
        // Behind another address there may be many: who answered there once is not all that can be
        // found there.
        let at_its_own = |slot| {
            self.members
                .get(slot)
                .is_some_and(|member| member.record.target == seed.target && member.is_present())
        };
        let again = match seed.answered.and_then(|instance| self.members.of_instance(instance)) {
            Some(ME) if at_its_own(ME) => Some(SELF_SEED_INTERVAL),
            Some(slot) if at_its_own(slot) => Some(KNOWN_SEED_INTERVAL),
            _ => None,
        };
        if let Some(again) = again {
            self.deadlines.timers.set(Timer::Seed(index), now.time + again);
            return;
        }
        if seed.asking || self.joining.naming.yields() {
            self.deadlines.timers.set(Timer::Seed(index), now.time + self.config.join_interval);
            return;
        }
        if self.joining.seeds.0.iter().filter(|seed| seed.asking).count() >= JOINS_OUT_MAX {
            self.deadlines.timers.set(Timer::Seed(index), now.time + JOIN_TURN);
            return;
        }
        let target = seed.target.clone();
        if let Some(seed) = self.joining.seeds.get_mut(index) {
            seed.asking = true;
        }
        self.ask_to_join(target.clone(), Some(target));
    }

    fn ask_to_join(&mut self, target: Target, seed: Option<Target>) {
        let request = Request::Join(Arc::clone(self.record()));
        self.call_at(target, None, Calling::Join { seed }, request, JOIN_TIMEOUT);
    }

    /// Asks a member to admit us that does not know us.
    pub(super) fn join_at_member(&mut self, slot: Slot) {
        if self.joining.naming.yields() {
            return;
        }
        if let Some(member) = self.members.get(slot) {
            self.ask_to_join(member.record.target.clone(), None);
        }
    }

    pub(super) fn join_answered(
        &mut self,
        target: Option<Target>,
        result: Result<Response, CallError>,
        now: Moment,
    ) {
        let index = target.as_ref().and_then(|target| self.joining.seeds.find(target));
        if let Some(seed) = index.and_then(|index| self.joining.seeds.get_mut(index)) {
            seed.asking = false;
        }
        let answer = match result {
            Ok(Response::Join(answer)) => answer,
            Ok(Response::Busy) => JoinAnswer::Busy,
            Ok(_) => {
                return self.not_admitted(
                    index,
                    "it answered something else than was asked".to_owned(),
                    now,
                );
            }
            Err(error) => return self.not_admitted(index, error.detail, now),
        };
        match answer {
            JoinAnswer::Admitted(record) => self.admitted_by(index, record, target.as_ref(), now),
            JoinAnswer::Yourself => {
                self.seed_answered(index, self.record().instance, KNOWN_SEED_INTERVAL, now);
            }
            JoinAnswer::NameTaken(holder) => {
                let reason = format!(
                    "the name {} is held by a living node at {}",
                    holder.name, holder.target
                );
                self.not_admitted(index, reason, now);
                if self.joining.naming.starts() {
                    self.ask_holder(target, holder);
                } else {
                    self.look_at_claimant(holder);
                }
            }
            JoinAnswer::Outdated(incarnation) => {
                // Many seeds may say so of one request: the first is heeded. What nobody would
                // believe of us is not outdone.
                let own = self.record().incarnation;
                if incarnation >= own && incarnation.can_be_outdone_by(own) {
                    self.reincarnate(incarnation, now);
                }
                self.seed_again(index, JOIN_BACKOFF_MIN, now);
            }
            JoinAnswer::Unreachable(why) => {
                self.not_admitted(
                    index,
                    format!("it cannot reach this bot at {}: {why}", self.record().target),
                    now,
                );
            }
            JoinAnswer::Busy => self.not_admitted(index, "it has too much to do".to_owned(), now),
            JoinAnswer::Stuck => {
                self.not_admitted(index, STUCK.to_owned(), now);
                self.seed_again(index, self.config.join_interval.max(STUCK_SEED_INTERVAL), now);
            }
            JoinAnswer::InTurn => self.not_admitted(index, IN_TURN.to_owned(), now),
            JoinAnswer::Unknown(number) => self.not_admitted(
                index,
                format!("it gave an answer of a later release (number {number})"),
                now,
            ),
            JoinAnswer::OtherMesh(theirs) => {
                let (theirs, ours) = (theirs.as_str(), self.record().mesh.as_str());
                let reason = format!(
                    "it belongs to the mesh {theirs:?} and this bot to {ours:?}; give both the same --mesh-name"
                );
                self.not_admitted(index, reason, now);
            }
        }
    }

    /// The node that a peer names as the holder of our name was asked itself. Only its own answer
    /// ends this bot.
    pub(super) fn holder_answered(
        &mut self,
        seed: Option<Target>,
        holder: &Record,
        result: Result<Response, CallError>,
        now: Moment,
    ) {
        if !self.joining.naming.starts() {
            return;
        }
        match Found::instead_of(self.record(), result) {
            Found::OtherIncarnation(record) if record.instance != self.record().instance => {
                self.orders.outbox.push(Output::NameTaken(record));
            }
            _ => {
                let index = seed.as_ref().and_then(|target| self.joining.seeds.find(target));
                let reason = format!(
                    "it says that this bot's name is held by a node at {}, which does not answer by it",
                    holder.target
                );
                self.not_admitted(index, reason, now);
            }
        }
    }

    fn admitted_by(
        &mut self,
        index: Option<u32>,
        record: Arc<Record>,
        dialled: Option<&Target>,
        now: Moment,
    ) {
        self.joining.naming.is_in();
        self.seed_answered(index, record.instance, KNOWN_SEED_INTERVAL, now);
        if record.name == self.record().name {
            return;
        }
        // What answered at its own target is proven; behind another address it is hearsay.
        let source = if dialled == Some(&record.target) {
            Source::Answered
        } else {
            Source::Told(record.instance)
        };
        let heard = Heard { record, changed: 0, heartbeat: 0, age: Duration::ZERO, left: false };
        if let Some(slot) = self.learn(heard, source, now) {
            self.begin_exchange(slot, now);
        }
    }

    fn seed_answered(
        &mut self,
        index: Option<u32>,
        instance: Instance,
        again: Duration,
        now: Moment,
    ) {
        if let Some(seed) = index.and_then(|index| self.joining.seeds.get_mut(index)) {
            seed.answered = Some(instance);
            seed.backoff = JOIN_BACKOFF_MIN;
            seed.logged = false;
            if seed.problem.take().is_some() {
                info!(target = %seed.target, "admitted");
            }
        }
        self.seed_again(index, again, now);
    }

    fn seed_again(&mut self, index: Option<u32>, after: Duration, now: Moment) {
        if let Some(index) = index {
            self.deadlines.timers.set(Timer::Seed(index), now.time + after);
        }
    }

    fn not_admitted(&mut self, index: Option<u32>, why: String, now: Moment) {
        let jitter = 0.5 + self.rng.f64();
        let longest = self.config.join_interval;
        let Some(seed) = index.and_then(|index| self.joining.seeds.get_mut(index)) else {
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
            // Nobody has to act on a peer that is still starting: it is said aloud only when it is
            // not about a connection.
            debug!(%target, why, "not admitted yet");
            seed.problem = Some(why.clone());
            self.journal.note(now, EventKind::NotLetIn(format!("{target}: {why}")));
        }
        self.seed_again(index, pause, now);
    }
}
