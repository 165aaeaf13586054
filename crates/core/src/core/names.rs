//! Whose a name is: restarts, twins, and leftovers of former incarnations.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::Core;
use super::calls::{Calling, Counted, Found, Succession};
use super::deadlines::Timer;
use super::learn::Source;
use crate::identity::{Incarnation, Instance, Record, Target};
use crate::limits::{Backoff, IDENTIFY_TIMEOUT, INDIRECT_PROBE_TIMEOUT};
use crate::members::{ME, Member, Slot};
use crate::message::{Answer, Heard, Request, Response};
use crate::orders::CallError;
use crate::tally::{EventKind, Refusal};
use crate::time::{Moment, Time};

/// How often a bot that yielded its name looks whether the other still holds it.
const CONTEST_INTERVAL: Duration = Duration::from_secs(10);
/// Pause between two checks of another claim to our own name. Gossip may repeat the claim all the
/// time, and two nodes that cannot reach each other must not raise their incarnations without end.
const CONTEST_PAUSE: Backoff =
    Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(600) };
/// Attempts in a row that the other holder of our name must leave unanswered before it is
/// considered gone; after a refusal there is no second attempt.
const CONTEST_TRIES: u8 = 3;
/// Hosts that are asked whether another holder of our name is alive: one liar among them
/// decides nothing.
const VOTES_MAX: usize = 5;

/// Where this bot stands with its own name.
#[derive(Clone, Debug)]
pub enum Standing {
    /// Nobody admitted it yet.
    Starting,
    /// It was admitted, or admitted others.
    Member,
    /// Another living node holds the name: this one publishes nothing and waits for the other to
    /// go.
    Yielded(Arc<Record>),
}

/// Our own name: where we stand with it, and what is under way about it.
#[derive(Debug)]
pub(super) struct Naming {
    standing: Standing,
    /// Do not verify another claim to our own name or instance before this time.
    look_after: Time,
    /// The pause after the next look: it grows with every incarnation that was taken because of
    /// one.
    pause: Duration,
    /// How often in a row the other holder of our name did not answer.
    failures: u8,
    /// What peers say of another holder that answered.
    votes: Option<Votes>,
}

/// Peers are asked whether they hold another holder of our name for alive.
#[derive(Debug)]
struct Votes {
    claimant: Arc<Record>,
    asked: u8,
    open: u8,
    /// Peers that reach it. A peer that does not answer does not count.
    for_it: u8,
}

impl Naming {
    pub(super) fn new(now: Time) -> Self {
        Self {
            standing: Standing::Starting,
            look_after: now,
            pause: CONTEST_PAUSE.first,
            failures: 0,
            votes: None,
        }
    }

    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Whether nobody admitted this bot yet.
    pub(super) fn starts(&self) -> bool {
        matches!(self.standing, Standing::Starting)
    }

    /// Whether another living node holds the name.
    pub(super) fn yields(&self) -> bool {
        matches!(self.standing, Standing::Yielded(_))
    }

    /// This bot was admitted, or admitted another.
    pub(super) fn is_in(&mut self) {
        if self.starts() {
            self.standing = Standing::Member;
        }
    }

    /// Whether a claim may be looked at now; if so, the next one has to wait.
    fn may_look(&mut self, now: Time) -> bool {
        if now < self.look_after {
            return false;
        }
        // Long after the last one the pause is a short one again.
        if now.since(self.look_after) > self.pause * 2 {
            self.pause = CONTEST_PAUSE.first;
        }
        self.look_after = now + self.pause;
        true
    }

    /// What came of a claim makes the pause after the next one longer.
    fn lengthen(&mut self) {
        self.pause = (self.pause * 2).min(CONTEST_PAUSE.longest);
    }
}

impl Core {
    /// Asks who answers at a member's target: an answer in another incarnation was seen there.
    pub(super) fn identify(&mut self, slot: Slot) {
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        if !std::mem::replace(&mut member.identifying, true) {
            let whom = Arc::clone(&member.record);
            self.call(&whom, Calling::Identify { slot }, Request::Identify, IDENTIFY_TIMEOUT);
        }
    }

    pub(super) fn identify_answered(
        &mut self,
        slot: Slot,
        result: Result<Response, CallError>,
        now: Moment,
    ) {
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        member.identifying = false;
        let expected = Arc::clone(&member.record);
        if let Some(record) = Found::instead_of(&expected, result).of_that_name() {
            let source = if record.target == expected.target {
                Source::Answered
            } else {
                Source::Told(record.instance)
            };
            self.learn(
                Heard { record, changed: 0, heartbeat: 0, age: Duration::ZERO, left: false },
                source,
                now,
            );
        }
    }

    /// A peer reports a larger incarnation of a member that lives: a restart, or a lie. The
    /// living one stays unless it does not answer any more and the other does. At one place there
    /// is but one of them.
    pub(super) fn look_for_successor(&mut self, slot: Slot, successor: Arc<Record>, now: Moment) {
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        let incumbent = Arc::clone(&member.record);
        let same_place = incumbent.target == successor.target;
        if member.identifying
            || (!same_place && self.joining.guards.admit(&successor.target, now.time).is_err())
        {
            return;
        }
        if let Some(member) = self.members.get_mut(slot) {
            member.identifying = true;
        }
        let (whom, asked) = if same_place {
            (Arc::clone(&successor), Succession::Successor)
        } else {
            (incumbent, Succession::Incumbent)
        };
        self.call(
            &whom,
            Calling::Succession { slot, successor, asked },
            Request::Identify,
            IDENTIFY_TIMEOUT,
        );
    }

    pub(super) fn succession_answered(
        &mut self,
        slot: Slot,
        successor: Arc<Record>,
        asked: Succession,
        result: Result<Response, CallError>,
        now: Moment,
    ) {
        let Some(member) =
            self.members.get_mut(slot).filter(|member| member.record.name == successor.name)
        else {
            return;
        };
        member.identifying = false;
        let found = Found::instead_of(&successor, result);
        if found == Found::Busy && asked == Succession::Incumbent {
            return;
        }
        match (asked, found.of_that_name()) {
            // It lives at its place, perhaps in a next incarnation. While it yields its name it
            // answers with the holder.
            (Succession::Incumbent, Some(record))
                if record.target == member.record.target
                    && record.instance != successor.instance =>
            {
                let held_at = member.record.target.clone();
                self.refuse(Refusal::NameTaken);
                self.reports.name_claimed(&successor, &held_at, now);
                self.learn(
                    Heard { record, changed: 0, heartbeat: 0, age: Duration::ZERO, left: false },
                    Source::Answered,
                    now,
                );
            }
            (Succession::Incumbent, _) => {
                member.identifying = true;
                let whom = Arc::clone(&successor);
                let calling = Calling::Succession { slot, successor, asked: Succession::Successor };
                self.call(&whom, calling, Request::Identify, IDENTIFY_TIMEOUT);
            }
            (Succession::Successor, Some(record)) if record.target == successor.target => {
                if record.target != member.record.target {
                    self.joining.guards.refund_unproven();
                }
                self.learn(
                    Heard { record, changed: 0, heartbeat: 0, age: Duration::ZERO, left: false },
                    Source::Succeeds,
                    now,
                );
            }
            (Succession::Successor, _) => {}
        }
    }

    /// Whether a record may have its instance: no instance belongs to two names. A node that
    /// answered itself takes precedence over a reported one.
    pub(super) fn may_have_instance(
        &mut self,
        record: &Record,
        first_hand: bool,
        now: Moment,
    ) -> bool {
        let holder = match self.members.holder_elsewhere(record) {
            None if record.instance.0 != 0 => return true,
            holder => holder,
        };
        self.refuse(Refusal::InstanceTaken);
        match holder {
            // Bots that learned this first ignore us from now on. Only another instance ends that.
            Some(ME)
                if self.members.of_instance(record.instance) == Some(ME)
                    && self.joining.naming.may_look(now.time) =>
            {
                self.joining.naming.lengthen();
                let incarnation = self.record().incarnation;
                self.reincarnate(incarnation, now);
                false
            }
            Some(slot)
                if first_hand
                    && slot != ME
                    && self.members.get(slot).is_some_and(|member| !member.proven) =>
            {
                self.forget(slot, now);
                true
            }
            _ => false,
        }
    }

    /// Somebody speaks of our own name in another incarnation.
    pub(super) fn hear_own_name(&mut self, record: Arc<Record>, left: bool, now: Moment) {
        let me = self.record();
        // Nobody takes what is beyond belief for us, and nobody has to be asked about it.
        if left
            || !record.incarnation.can_be_outdone_by(me.incarnation)
            || record.instance == me.instance
            || record.succession() < me.succession()
            || !self.joining.naming.may_look(now.time)
        {
            return;
        }
        self.look_at_claimant(record);
    }

    /// Looks whether the other holder of our name lives. A larger incarnation that does not is a
    /// leftover, and is overtaken.
    pub(super) fn look_at_claimant(&mut self, claimant: Arc<Record>) {
        if self.joining.naming.votes.is_some() || self.orders.calls.in_flight(Counted::Contest) > 0
        {
            return;
        }
        let whom = Arc::clone(&claimant);
        self.call(&whom, Calling::Contest { claimant }, Request::Identify, IDENTIFY_TIMEOUT);
    }

    pub(super) fn contest_again(&mut self) {
        if let Standing::Yielded(holder) = &self.joining.naming.standing {
            let holder = Arc::clone(holder);
            self.look_at_claimant(holder);
        }
    }

    pub(super) fn contest_answered(
        &mut self,
        claimant: Arc<Record>,
        result: Result<Response, CallError>,
        now: Moment,
    ) {
        let yielded = self.joining.naming.yields();
        let found = Found::instead_of(&claimant, result);
        if let Found::Nobody(error) = &found
            && !error.failure.is_refusal()
            && self.joining.naming.failures + 1 < CONTEST_TRIES
        {
            self.joining.naming.failures += 1;
            return self.look_at_claimant(claimant);
        }
        self.joining.naming.failures = 0;
        match found {
            // It is there, and has no time: it is looked at again.
            Found::Busy => self.deadlines.timers.set(Timer::Contest, now.time + CONTEST_INTERVAL),
            Found::Same(record) | Found::OtherIncarnation(record)
                if record.instance != self.record().instance =>
            {
                if !yielded && record.succession() < self.record().succession() {
                    return;
                }
                if yielded {
                    self.yield_to(record, now);
                } else {
                    self.ask_for_votes(record, now);
                }
            }
            _ => {
                if yielded {
                    info!("nobody else has this name any more");
                    self.journal.note(now, EventKind::NameRegained);
                    self.joining.naming.standing = Standing::Member;
                }
                self.deadlines.timers.cancel(Timer::Contest);
                self.overtake(claimant.incarnation, now);
            }
        }
    }

    /// Another holder of our name answered, in a larger incarnation. That others hold it for the
    /// one of this name is for them to say: a peer that claims to be us persuades itself alone.
    /// With nobody to ask its answer counts.
    fn ask_for_votes(&mut self, claimant: Arc<Record>, now: Moment) {
        let elsewhere = |member: &Member| member.record.target.host() != claimant.target.host();
        let fit = |member: &Member| {
            member.is_partner()
                && member.record.target != claimant.target
                && self.takes_part(member)
        };
        let fitting = || self.members.others().filter(|(_, member)| fit(member));
        let mut peers: Vec<_> =
            fitting().filter(|(_, member)| elsewhere(member)).map(|(slot, _)| slot).collect();
        if peers.is_empty() {
            peers = fitting().map(|(slot, _)| slot).collect();
        }
        self.rng.shuffle(&mut peers);
        // One vote for each host.
        let mut hosts = BTreeSet::new();
        peers.retain(|slot| {
            self.members
                .get(*slot)
                .is_some_and(|member| hosts.insert(member.record.target.host().to_owned()))
        });
        peers.truncate(VOTES_MAX);
        if peers.is_empty() {
            return self.yield_to(claimant, now);
        }
        let about = claimant.instance;
        self.joining.naming.votes =
            Some(Votes { claimant, asked: peers.len() as u8, open: peers.len() as u8, for_it: 0 });
        for slot in peers {
            if let Some(whom) = self.members.get(slot).map(|member| Arc::clone(&member.record)) {
                self.call(
                    &whom,
                    Calling::Vote { about },
                    Request::IndirectProbe(about),
                    INDIRECT_PROBE_TIMEOUT,
                );
            }
        }
    }

    pub(super) fn vote_answered(
        &mut self,
        about: Instance,
        result: &Result<Response, CallError>,
        now: Moment,
    ) {
        let Some(votes) =
            self.joining.naming.votes.as_mut().filter(|votes| votes.claimant.instance == about)
        else {
            return;
        };
        votes.open = votes.open.saturating_sub(1);
        if matches!(result, Ok(Response::IndirectProbe(Answer::Reached))) {
            votes.for_it += 1;
        }
        if votes.open > 0 {
            return;
        }
        // Two sides of equal size settle, too: the larger incarnation stays.
        let elected = votes.for_it > 0 && 2 * votes.for_it >= votes.asked;
        let claimant = Arc::clone(&votes.claimant);
        self.joining.naming.votes = None;
        if elected && claimant.succession() > self.record().succession() {
            self.yield_to(claimant, now);
        } else {
            self.refuse(Refusal::NameTaken);
            self.joining.naming.lengthen();
            let me = self.record().target.clone();
            self.reports.name_claimed(&claimant, &me, now);
        }
    }

    fn yield_to(&mut self, holder: Arc<Record>, now: Moment) {
        if !self.joining.naming.yields() {
            warn!(
                name = %holder.name,
                target = %holder.target,
                "another living node has this bot's name: this bot publishes nothing until the other is gone; give one of them another name"
            );
            self.journal.note(now, EventKind::NameConflict(holder.target.to_string()));
            self.members.me_mut().hold(None, None);
            self.publisher.restart();
        }
        self.joining.naming.standing = Standing::Yielded(holder);
        self.deadlines.timers.set(Timer::Contest, now.time + CONTEST_INTERVAL);
    }

    /// At the start a peer said that this node has our name: it is asked itself, or a lie would end
    /// us.
    pub(super) fn ask_holder(&mut self, seed: Option<Target>, holder: Arc<Record>) {
        let whom = Arc::clone(&holder);
        self.call(&whom, Calling::Holder { seed, holder }, Request::Identify, IDENTIFY_TIMEOUT);
    }

    fn overtake(&mut self, claimed: Incarnation, now: Moment) {
        let own = self.record().incarnation;
        // What nobody would believe of us is not outdone: nobody would take us then.
        if claimed >= own && claimed.can_be_outdone_by(own) {
            self.joining.naming.lengthen();
            self.reincarnate(claimed, now);
        } else {
            self.spread_record(ME, now);
            self.roster_changed(now);
        }
    }
}
