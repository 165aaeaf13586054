//! The state of one bot, its inputs and its outputs. Each file of this folder has the rules of one
//! idea, and owns the state that it needs alone.

mod admit;
mod calls;
mod changes;
mod deadlines;
mod detect;
mod gossip;
mod guards;
mod holdings;
mod learn;
mod names;
mod publish;
mod report;
mod rows;
mod rumour;
mod schedule;
mod seeds;
mod snapshot;
mod stalls;
mod vouch;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use self::calls::{Calling, Calls, Counted};
use self::deadlines::{Deadlines, Due, Patience, Timer};
use self::detect::Questions;
use self::gossip::Gossip;
use self::guards::Guards;
use self::names::Naming;
use self::publish::Publisher;
use self::report::Reports;
use self::schedule::{SHORTEST_TURN, Schedule};
use self::seeds::Seeds;
use crate::config::Config;
use crate::identity::{Incarnation, Instance, Labels, NodeName, Record, Target};
use crate::limits::{
    HOUSEKEEPING_INTERVAL, INCARNATION_MAX, LEAVE_PEERS, LEAVE_TIME, SILENCE_MAX,
    UNPROVEN_FORGET_AFTER,
};
use crate::liveness::Status;
use crate::members::{ME, Member, Members, Slot};
use crate::message::{Answer, Exchange, Request, Response};
use crate::orders::{CallError, CallId, Outbox, Output, ProbeId, ProbeReport, RequestId};
use crate::pending::PendingJoin;
use crate::probes::{Probes, Probing, Purpose};
use crate::release::Release;
use crate::secured::Secured;
use crate::series::ProbeKind;
use crate::tally::{Events, Journal, Refusal};
use crate::time::{Moment, Now, Time};
use crate::witness::Witness;

pub use self::names::Standing;
pub use self::snapshot::{MemberView, Snapshot};

/// How nodes come in: this one, and others.
#[derive(Debug)]
struct Joining {
    /// Our own name, and who else claims it.
    naming: Naming,
    /// Where to join.
    seeds: Seeds,
    /// Addresses that nobody proved, and how often they may be dialled.
    guards: Guards,
}

/// What the driver was ordered to do, and its answers that are awaited.
#[derive(Debug)]
struct Orders {
    /// What it did not take yet.
    outbox: Outbox,
    /// Calls in flight.
    calls: Calls,
    /// Probes in flight.
    probes: Probes,
}

/// Whether a node lives that does not answer.
#[derive(Debug)]
struct Detector {
    /// Doubts that are being looked into.
    questions: Questions,
    /// Whether what we did not hear may be our own fault.
    witness: Witness,
}

/// One bot's view of the mesh, and every decision about it. See the crate's page for how to drive
/// it.
#[derive(Debug)]
pub struct Core {
    /// What an operator set.
    config: Config,
    /// Everything random follows from it.
    rng: Rng,
    /// Everybody we know, ourselves included.
    members: Members,
    /// How nodes come in.
    joining: Joining,
    /// Whose turn it is to be measured, as far as this host keeps up.
    schedule: Schedule,
    /// Whether a node lives that does not answer.
    detector: Detector,
    /// What travels between bots, at which rate, and how much of it is held.
    gossip: Gossip,
    /// The own row.
    publisher: Publisher,
    /// What is to be done when.
    deadlines: Deadlines,
    /// What the driver has to do, and what it is doing.
    orders: Orders,
    /// What happened, for readers.
    journal: Journal,
    /// What happened, for the log.
    reports: Reports,
    /// This bot says goodbye, and does nothing else any more.
    leaving: bool,
}

/// Making one.
impl Core {
    /// A bot that knows nobody yet. Its incarnation is `now.wall`; everything random follows from
    /// `seed`.
    pub fn new(
        config: Config,
        name: NodeName,
        target: Target,
        labels: Labels,
        seed: u64,
        now: Now,
    ) -> Self {
        let mut rng = Rng::with_seed(seed);
        let instance = Instance(rng.u64(1..));
        // A clock beyond all reason must not make an incarnation that nobody takes.
        let incarnation = Incarnation(now.wall.unix_millis().min(INCARNATION_MAX));
        let me = Arc::new(Record {
            mesh: config.mesh_name.clone(),
            name,
            target,
            labels,
            incarnation,
            instance,
        });
        let time = now.time;
        let witness = Witness::new(time);
        let mut deadlines = Deadlines::default();
        deadlines.timers.set(Timer::Tick, time);
        deadlines.timers.set(Timer::Housekeeping, time + HOUSEKEEPING_INTERVAL);
        Self {
            rng,
            members: Members::new(me, witness.moment(now)),
            joining: Joining {
                naming: Naming::new(time),
                seeds: Seeds::default(),
                guards: Guards::new(time),
            },
            schedule: Schedule::default(),
            detector: Detector { questions: Questions::new(time), witness },
            gossip: Gossip::new(&config, time),
            publisher: Publisher::new(time),
            deadlines,
            orders: Orders {
                outbox: Outbox::default(),
                calls: Calls::default(),
                probes: Probes::new(&config, time),
            },
            journal: Journal::default(),
            reports: Reports::new(time),
            leaving: false,
            config,
        }
    }

    /// The same core, for which only these nodes take part in gossip and can be asked about others;
    /// the rest are measured, and asked for their own heartbeat. Without this all take part.
    #[must_use]
    pub fn with_gossipers(mut self, takes_part: fn(&Record) -> bool) -> Self {
        self.gossip.only(takes_part);
        self
    }

    /// The same core, which tells others that it is of this release.
    #[must_use]
    pub fn with_release(mut self, release: Release) -> Self {
        self.publisher.set_release(release);
        self
    }

    /// The same core, which measures these kinds as well with each turn of a pair, where the other
    /// node has a responder for it. Of more than
    /// [`PROBE_KINDS_MAX`](crate::limits::PROBE_KINDS_MAX) the first are taken.
    #[must_use]
    pub fn with_kinds(
        mut self,
        kinds: Vec<ProbeKind>,
        responds: fn(&Record, ProbeKind) -> bool,
    ) -> Self {
        self.schedule.measure(kinds, responds);
        self
    }

    /// The same core, which reports every frame and patch, own and received, as
    /// [`Output::Published`].
    #[must_use]
    pub fn with_published(mut self) -> Self {
        self.publisher.tell();
        self
    }
}

/// Inputs. Each is followed by draining [`Core::poll_output`].
impl Core {
    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        let now = self.take_input(None, now);
        while let Some((due, what)) = self.deadlines.take(&self.detector.witness, now.time) {
            match what {
                // Nothing is left to do but to leave.
                what if self.leaving && !matches!(what, Due::Timer(Timer::Leave)) => {}
                Due::Timer(timer) => self.timer_ended(timer, due, now),
                Due::Patience(patience) => self.patience_ended(patience, now),
            }
        }
    }

    /// A peer asks.
    pub fn handle_request(&mut self, id: RequestId, request: Request, now: Now) {
        let now = self.take_input(None, now);
        self.detector.witness.handle_contact(now.time);
        match request {
            Request::Join(record) => self.handle_join(id, record, now),
            Request::Identify => self.reply(id, Response::Identify(self.introduction())),
            Request::Exchange(exchange) => self.handle_exchange(id, *exchange, now),
            Request::IndirectProbe(instance) => self.handle_indirect_probe(id, instance, now),
        }
    }

    /// A call that was ordered has ended.
    pub fn handle_response(&mut self, id: CallId, result: Result<Response, CallError>, now: Now) {
        let now = self.take_input(Some(id.0), now);
        self.deadlines.patience.cancel(Patience::SlowCall(id));
        let Some(calling) = self.orders.calls.remove(id) else {
            return;
        };
        if self.leaving && !matches!(calling, Calling::Leave) {
            return;
        }
        if result.as_ref().map_or_else(|error| error.failure.is_answer(), |_| true) {
            self.detector.witness.handle_contact(now.time);
        }
        match calling {
            Calling::Join { seed } => self.join_answered(seed, result, now),
            Calling::Incumbent { request, joiner } => {
                self.incumbent_answered(request, joiner, result, now);
            }
            Calling::DialBack { request, joiner } => {
                self.dial_back_answered(request, joiner, result, now);
            }
            Calling::Exchange(sent) => self.exchange_answered(id, sent, result, now),
            Calling::IndirectProbe { about, question, sent_at } => {
                let answer = match result {
                    Ok(Response::IndirectProbe(answer)) => answer,
                    _ => Answer::Unknown,
                };
                self.question_answered(about, question, sent_at, answer, now);
            }
            Calling::Identify { slot } => self.identify_answered(slot, result, now),
            Calling::Succession { slot, successor, asked } => {
                self.succession_answered(slot, successor, asked, result, now);
            }
            Calling::Contest { claimant } => self.contest_answered(claimant, result, now),
            Calling::Vote { about } => self.vote_answered(about, &result, now),
            Calling::Holder { seed, holder } => self.holder_answered(seed, &holder, result, now),
            Calling::Leave if self.orders.calls.in_flight(Counted::Leave) == 0 => {
                self.finish_leaving();
            }
            Calling::Leave => {}
        }
    }

    /// Says goodbye. [`Output::Left`] follows within a second; nothing else is done from here on.
    pub fn leave(&mut self, now: Now) {
        if std::mem::replace(&mut self.leaving, true) {
            return;
        }
        let now = self.take_input(None, now);
        let entry = crate::digest::Entry { left: true, ..self.members.me().entry(0, now.time) };
        let fit = |member: &Member| member.is_partner() && self.takes_part(member);
        let mut partners: Vec<_> =
            self.members.others().filter(|(_, member)| fit(member)).map(|(slot, _)| slot).collect();
        self.rng.shuffle(&mut partners);
        partners.truncate(LEAVE_PEERS);
        self.deadlines.timers.set(Timer::Leave, now.time + LEAVE_TIME);
        for slot in &partners {
            let Some(member) = self.members.get(*slot) else { continue };
            let whom = Arc::clone(&member.record);
            let exchange = Exchange {
                from: Some(entry.instance),
                to: Some(whom.instance),
                entries: vec![entry],
                ..Exchange::default()
            };
            self.call(&whom, Calling::Leave, Request::Exchange(Box::new(exchange)), LEAVE_TIME);
        }
        if partners.is_empty() {
            self.finish_leaving();
        }
    }

    /// Tells which targets to join at, in place of those before. The own address may be among them.
    pub fn handle_seeds(&mut self, targets: Vec<Target>, now: Now) {
        let now = self.take_input(None, now);
        self.set_seeds(targets, now);
    }

    /// A probe that was ordered has ended.
    pub fn handle_probe(&mut self, id: ProbeId, report: ProbeReport, now: Now) {
        let now = self.take_input(Some(id.0), now);
        self.probe_ended(id, report, now);
    }

    /// How connections are secured, as the shell saw at a handshake: the next frame tells the
    /// others.
    pub fn handle_secured(&mut self, secured: Secured) {
        self.publisher.set_secured(secured);
    }

    /// Where this bot waits for bots of the original to admit it, in place of what it said
    /// before: the others hear of it soon.
    pub fn handle_pending(&mut self, pending: Vec<PendingJoin>, now: Now) {
        let now = self.take_input(None, now);
        self.tell_pending(pending, now);
    }
}

/// What to do next.
impl Core {
    /// Takes the next thing to do. Drain it after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.orders.outbox.take()
    }

    /// When [`Core::handle_timeout`] wants to be called; now, while output is queued.
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.orders.outbox.is_empty() {
            self.deadlines.next(&self.detector.witness).map(|(at, _)| at)
        } else {
            Some(Time::ZERO)
        }
    }
}

/// What it knows.
impl Core {
    /// Who this bot is now. It changes when a former incarnation of the name is overtaken.
    pub fn record(&self) -> &Arc<Record> {
        &self.members.me().record
    }

    /// Who this bot says it is: while it yields its name it names the holder.
    pub fn introduction(&self) -> Arc<Record> {
        match self.joining.naming.standing() {
            Standing::Yielded(holder) => Arc::clone(holder),
            Standing::Starting | Standing::Member => Arc::clone(self.record()),
        }
    }

    /// Who a member describes itself as.
    pub fn record_of(&self, instance: Instance) -> Option<&Arc<Record>> {
        self.members
            .of_instance(instance)
            .and_then(|slot| self.members.get(slot))
            .map(|member| &member.record)
    }

    /// The highest known heartbeat of a member.
    pub fn heartbeat_of(&self, instance: Instance) -> Option<u64> {
        self.members
            .of_instance(instance)
            .and_then(|slot| self.members.get(slot))
            .map(|member| member.liveness.heartbeat().0)
    }

    /// What happened lately.
    pub fn events(&self) -> &Events {
        self.journal.events()
    }

    /// How often each pair is measured: the configured interval, or what the budget allows, or what
    /// this host can do in time.
    pub fn pair_interval(&self) -> Duration {
        let pairs = self.members.present_known();
        let within_budget = self
            .config
            .probe_interval
            .max(Duration::from_secs_f64(pairs as f64 / self.config.probe_rate_max));
        self.schedule.load.stretched(within_budget)
    }

    /// How often the pair to a node that takes no part in gossip is measured: as every pair, but no
    /// more often than all bots together may.
    fn outsider_interval(&self) -> Duration {
        let probers = self
            .members
            .others()
            .filter(|(_, other)| other.known && other.is_present() && self.takes_part(other))
            .count()
            + 1;
        // Intervals vary: the shortest one keeps the bound, too.
        self.pair_interval().max(Duration::from_secs_f64(
            probers as f64 / self.config.original_rate_max / SHORTEST_TURN,
        ))
    }

    /// An immutable view of everything.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        self.view(now)
    }
}

/// What the files of this folder share.
impl Core {
    fn timer_ended(&mut self, timer: Timer, due: Time, now: Moment) {
        match timer {
            Timer::Tick => self.tick(now),
            Timer::Push => self.push(now),
            Timer::Publish => self.publish(now),
            Timer::Housekeeping => self.keep_house(now),
            Timer::Budget => self.fire_ready(now),
            Timer::Probe(slot) => self.pair_due(slot, due, now),
            Timer::Dial(slot) => self.dial_dead(slot, now),
            Timer::Seed(index) => self.seed_due(index, now),
            Timer::Contest => self.contest_again(),
            Timer::Leave => self.orders.outbox.push(Output::Left),
        }
    }

    fn patience_ended(&mut self, patience: Patience, now: Moment) {
        match patience {
            Patience::SlowProbe(id) => self.probe_slow(id, now),
            Patience::SlowCall(id) => self.call_slow(id, now),
            Patience::Repeat(slot) => self.repeat_question(slot, now),
            Patience::Verdict(slot) => self.close_question(slot, now),
            Patience::Death(slot) => self.death_due(slot, now),
        }
    }

    fn finish_leaving(&mut self) {
        // The timer goes with the first time.
        if self.deadlines.timers.at(Timer::Leave).is_some() {
            self.deadlines.timers.cancel(Timer::Leave);
            self.orders.outbox.push(Output::Left);
        }
    }

    /// Calls a node at its target.
    fn call(
        &mut self,
        whom: &Arc<Record>,
        calling: Calling,
        request: Request,
        timeout: Duration,
    ) -> CallId {
        self.call_at(whom.target.clone(), Some(Arc::clone(whom)), calling, request, timeout)
    }

    /// Calls the node at a target, whichever it is.
    fn call_at(
        &mut self,
        target: Target,
        whom: Option<Arc<Record>>,
        calling: Calling,
        request: Request,
        timeout: Duration,
    ) -> CallId {
        let id = CallId(self.orders.outbox.number());
        self.orders.calls.insert(id, calling);
        self.orders.outbox.push(Output::Call { id, target, whom, request, timeout });
        id
    }

    fn order_probe(&mut self, slot: Slot, purpose: Purpose, now: Moment) -> Option<ProbeId> {
        let member = self.members.get(slot)?;
        let whom = Arc::clone(&member.record);
        let doubt_after = member.pair.doubt_after(self.config.probe_timeout);
        let id = ProbeId(self.orders.outbox.number());
        self.orders.probes.insert(id, Probing::new(slot, purpose, now));
        if purpose == Purpose::Schedule {
            self.deadlines.patience.set(Patience::SlowProbe(id), now.attentive + doubt_after);
        }
        self.orders.outbox.push(Output::Probe { id, whom, kind: purpose.kind() });
        Some(id)
    }

    fn reply(&mut self, to: RequestId, response: Response) {
        self.orders.outbox.push(Output::Reply { to, response });
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.journal.refuse(refusal);
    }

    fn keep_house(&mut self, now: Moment) {
        self.deadlines.timers.set(Timer::Housekeeping, now.time + HOUSEKEEPING_INTERVAL);
        self.notice_isolation(now);
        if self.schedule.load.look() {
            self.reschedule(now);
        }
        self.collect_rosters();
        self.count_holdings();
        self.look_for_vouchers(now);
        self.greet_outsiders(now);
        self.joining.guards.expire(now.time);
        self.report(now);
        for slot in self.members.other_slots() {
            self.keep_member(slot, now);
        }
    }

    fn keep_member(&mut self, slot: Slot, now: Moment) {
        let retain_samples = self.config.retain_samples;
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        member.drop_rows_older_than(retain_samples, now.time);
        if member.left_long_ago(now.time) && self.publisher.place(slot).is_some() {
            self.publisher.roster_shrank();
        }
        let Some(member) = self.members.get(slot) else {
            return;
        };
        let silence = member.liveness.silence(now);
        // A host that slept for long finds many silent for as long, and some of them are back soon.
        let grace = UNPROVEN_FORGET_AFTER.min(self.config.retain_nodes);
        let changed_just_now = now.time.since(member.liveness.since()) <= grace;
        let unproven = !member.proven && silence > UNPROVEN_FORGET_AFTER && !changed_just_now;
        let retained =
            member.is_present() || silence <= self.config.retain_nodes || changed_just_now;
        if unproven || !retained {
            self.forget(slot, now);
            return;
        }
        if member.liveness.status() == Status::Alive
            && silence > SILENCE_MAX
            && !self.detector.witness.is_isolated()
        {
            self.suspect_silent(slot, now);
        }
    }

    /// Starts a new incarnation under the same name, larger than any that was heard.
    fn reincarnate(&mut self, heard: Incarnation, now: Moment) {
        let me = self.members.me();
        let incarnation = heard.max(me.record.incarnation).next();
        let record =
            Record { incarnation, instance: Instance(self.rng.u64(1..)), ..(*me.record).clone() };
        let liveness = me.liveness.clone();
        self.members.replace(ME, Arc::new(record), liveness, None, now.time);
        self.publisher.restart();
        self.spread_record(ME, now);
        self.roster_changed(now);
    }
}
