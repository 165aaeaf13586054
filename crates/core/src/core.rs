//! The state of one bot, its inputs and its outputs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use crate::bucket::Bucket;
use crate::cell::Failure;
use crate::config::Config;
use crate::detect::Question;
use crate::gossip::Gossip;
use crate::guards::AddressGuard;
use crate::holdings::Holdings;
use crate::identity::{Incarnation, Instance, Labels, NodeName, Record, Target};
use crate::join::{Seed, Standing};
use crate::life::Status;
use crate::limits::{
    EXCHANGE_LEGS_MAX, HOUSEKEEPING_INTERVAL, INCARNATION_MAX, LEAVE_PEERS, LEAVE_TIME, SILENCE_MAX, UNPROVEN_FORGET_AFTER,
};
use crate::load::Load;
use crate::members::{ME, Member, Members, Slot};
use crate::message::{Answer, Exchange, Request, Response};
use crate::names::{Contest, Succession};
use crate::pair::Timing;
use crate::probes::{Probes, Probing, Purpose};
use crate::publish::Publisher;
use crate::report::Reports;
use crate::schedule::Measured;
use crate::tally::{Events, Histogram, Refusal, Refusals};
use crate::time::{Now, Time};
use crate::queue::{Queue, Timers};
use crate::witness::Witness;

/// Names a probe between its order and its report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(pub u64);

/// Names a call between its order and its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Names a request of a peer between its arrival and our reply; chosen by the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What the core wants done.
#[derive(Debug)]
pub enum Output {
    /// Measure this target, and report by [`Core::handle_probe`] after at most the configured probe timeout.
    Probe {
        /// Names it in the report.
        id: ProbeId,
        /// Whom to dial, at its target: there may be others.
        whom: Arc<Record>,
    },
    /// Ask a peer, and report by [`Core::handle_response`].
    Call {
        /// Names it in the report.
        id: CallId,
        /// Where to dial.
        target: Target,
        /// Who is meant, or says that it is there; none where anybody is.
        whom: Option<Arc<Record>>,
        /// What to ask.
        request: Request,
        /// Give up after so long.
        timeout: Duration,
    },
    /// Answer a peer's request.
    Reply {
        /// Which one.
        to: RequestId,
        /// The answer.
        response: Response,
    },
    /// At the start a living node was found to hold our name: the bot must not run.
    NameTaken(Arc<Record>),
    /// All goodbyes are said: the bot may end.
    Left,
}

/// How a probe ended.
#[derive(Clone, Debug)]
pub enum ProbeReport {
    /// Somebody answered.
    Answered {
        /// What was measured.
        timing: Timing,
        /// The name that answered.
        name: NodeName,
        /// Which life of it.
        incarnation: Incarnation,
        /// Which process.
        instance: Instance,
    },
    /// It failed.
    Failed(Failure),
    /// This host was too late, out of descriptors or starved: it says nothing about the network.
    Void,
}

/// Why a call has no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// The kind.
    pub failure: Failure,
    /// What to tell a person.
    pub detail: String,
}

/// Which message of an exchange it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leg {
    /// The digest that begins it.
    Digest,
    /// What the answer to an earlier message made us send, with its number.
    Follow(u8),
    /// Rumours, without a digest.
    Push,
    /// It asks a suspect for its own heartbeat: nothing follows, and the heartbeat is spread.
    Inquiry,
}

impl Leg {
    /// The message after it; none once the exchange has as many as it may have.
    pub(crate) fn next(self) -> Option<Self> {
        let number = match self {
            Self::Digest => 1,
            Self::Push => 2,
            Self::Follow(number) => number,
            Self::Inquiry => return None,
        };
        (number < EXCHANGE_LEGS_MAX).then_some(Self::Follow(number + 1))
    }
}

/// A message of gossip on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentExchange {
    pub(crate) instance: Instance,
    pub(crate) leg: Leg,
    pub(crate) sent_at: Time,
}

/// What a call is for.
#[derive(Clone, Debug)]
pub(crate) enum Calling {
    /// To be let in at a seed, or at a member that does not know us.
    Join { seed: Option<Target> },
    /// Does the holder of a name still live that a joiner claims?
    Incumbent { request: RequestId, joiner: Arc<Record> },
    /// Is a joiner reached at its target?
    DialBack { request: RequestId, joiner: Arc<Record> },
    /// Gossip that we began.
    Exchange(SentExchange),
    /// A peer is asked to try a node.
    Ask { about: Instance, question: u64, sent_at: Time },
    /// Who answers at this member's target?
    Identify { slot: Slot },
    /// Does a member live on in a larger life that somebody tells of?
    Succession { slot: Slot, successor: Arc<Record>, asked: Succession },
    /// Does the other holder of our own name live?
    Contest { claimant: Arc<Record> },
    /// Does a peer hold the other holder of our own name for alive?
    Vote { about: Instance },
    /// At the start a peer said that this one has our name. Does it?
    Holder { seed: Option<Target>, holder: Arc<Record> },
    /// Goodbye.
    Leave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The next exchange of the tick.
    Tick,
    /// Rumours may be pushed.
    Push,
    /// Something of the own row is to be published.
    Publish,
    /// Retention, silence, forgotten nodes.
    Housekeeping,
    /// The budget has a probe again.
    Budget,
    /// It is the turn of the pair to this member.
    Probe(Slot),
    /// A probe has been unanswered for too long.
    SlowProbe(ProbeId),
    /// A call has been unanswered for too long.
    SlowCall(CallId),
    /// A question repeats its probe.
    Repeat(Slot),
    /// A question ends.
    Verdict(Slot),
    /// A suspect dies.
    Death(Slot),
    /// A dead member is dialled.
    Dial(Slot),
    /// A target is asked to let us in.
    Seed(u32),
    /// Another holder of our name is looked at again.
    Contest,
    /// Enough waited for goodbyes.
    Leave,
}

/// One bot's view of the mesh, and every decision about it. See the crate's page for how to drive it.
#[derive(Debug)]
pub struct Core {
    pub(crate) config: Config,
    /// Who takes part in gossip, by [`Core::with_gossipers`].
    takes_part: fn(&Record) -> bool,
    pub(crate) rng: Rng,
    pub(crate) members: Members,
    pub(crate) standing: Standing,
    pub(crate) contest: Contest,
    pub(crate) timers: Timers<Timer>,
    pub(crate) output: VecDeque<Output>,
    pub(crate) probes: Probes,
    pub(crate) calls: BTreeMap<CallId, Calling>,
    pub(crate) next_id: u64,

    /// Pairs whose turn has come: those never measured first, then by when it came.
    pub(crate) ready: Queue<Slot, (Measured, Time)>,
    pub(crate) inquiry_budget: Bucket,
    pub(crate) unproven_budget: Bucket,
    pub(crate) join_budget: Bucket,
    pub(crate) guards: BTreeMap<Target, AddressGuard>,
    pub(crate) seeds: Vec<Seed>,
    pub(crate) questions: BTreeMap<Slot, Question>,
    pub(crate) gossip: Gossip,
    pub(crate) holdings: Holdings,
    pub(crate) publisher: Publisher,

    /// Whether what we did not hear may be our own fault.
    pub(crate) witness: Witness,
    leaving: Option<usize>,

    pub(crate) refusals: Refusals,
    pub(crate) reports: Reports,
    pub(crate) events: Events,
    pub(crate) schedule_delay: Histogram,
    pub(crate) load: Load,
}

impl Core {
    /// A bot that knows nobody yet. Its incarnation is `now.wall`; everything random follows from `seed`.
    pub fn new(config: Config, name: NodeName, target: Target, labels: Labels, seed: u64, now: Now) -> Self {
        let mut rng = Rng::with_seed(seed);
        let instance = Instance(rng.u64(1..));
        // A clock beyond all reason must not make a life that nobody takes.
        let incarnation = Incarnation(now.wall.unix_millis().min(INCARNATION_MAX));
        let me = Arc::new(Record { mesh: config.mesh_name.clone(), name, target, labels, incarnation, instance });
        let time = now.time;
        let probes = Probes::new(&config, time);
        let mut timers = Timers::default();
        timers.set(Timer::Tick, time);
        timers.set(Timer::Housekeeping, time + HOUSEKEEPING_INTERVAL);
        Self {
            inquiry_budget: crate::detect::inquiry_budget(time),
            unproven_budget: crate::guards::unproven_budget(time),
            join_budget: crate::join::join_budget(time),
            gossip: Gossip::new(&config, time),
            holdings: Holdings::default(),
            publisher: Publisher::new(time),
            members: Members::new(me, time),
            standing: Standing::Starting,
            contest: Contest::new(time),
            reports: Reports::new(time),
            config,
            takes_part: |_| true,
            rng,
            timers,
            output: VecDeque::new(),
            probes,
            calls: BTreeMap::new(),
            next_id: 0,
            ready: Queue::default(),
            guards: BTreeMap::new(),
            seeds: Vec::new(),
            questions: BTreeMap::new(),
            witness: Witness::new(time),
            leaving: None,
            refusals: Refusals::default(),
            events: Events::default(),
            schedule_delay: Histogram::default(),
            load: Load::default(),
        }
    }

    /// The same core, for which only these nodes take part in gossip and can be asked about others; the rest are measured, and asked for their own
    /// heartbeat. Without this all take part.
    #[must_use]
    pub fn with_gossipers(self, takes_part: fn(&Record) -> bool) -> Self {
        Self { takes_part, ..self }
    }

    /// Whether it takes part in gossip, and can be asked about others.
    pub(crate) fn takes_part(&self, member: &Member) -> bool {
        (self.takes_part)(&member.record)
    }

    /// Who this bot is now. It changes when a former life of the name is overtaken.
    pub fn record(&self) -> &Arc<Record> {
        &self.members.me().record
    }

    /// Who a member describes itself as.
    pub fn record_of(&self, instance: Instance) -> Option<&Arc<Record>> {
        self.members.of_instance(instance).and_then(|slot| self.members.get(slot)).map(|member| &member.record)
    }

    /// The highest heartbeat heard of a member.
    pub fn heartbeat_of(&self, instance: Instance) -> Option<u64> {
        self.members.of_instance(instance).and_then(|slot| self.members.get(slot)).map(|member| member.life.heartbeat().0)
    }

    /// What happened lately.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Takes the next thing to do. Drain it after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// When [`Core::handle_timeout`] wants to be called; now, while output is queued.
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.output.is_empty() { self.timers.first().map(|(at, _)| at) } else { Some(Time::ZERO) }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.take_input(None, now);
        while let Some((due, timer)) = self.timers.pop_due(now.time) {
            match timer {
                Timer::Leave => self.finish_leaving(),
                _ if self.leaving.is_some() => {}
                Timer::Tick => self.tick(now),
                Timer::Push => self.push(now),
                Timer::Publish => self.publish(now),
                Timer::Housekeeping => self.keep_house(now),
                Timer::Budget => self.fire_ready(now),
                Timer::Probe(slot) => self.pair_due(slot, due, now),
                Timer::SlowProbe(id) => self.probe_slow(id, now),
                Timer::SlowCall(id) => self.call_slow(id, now),
                Timer::Repeat(slot) => self.repeat_question(slot, now),
                Timer::Verdict(slot) => self.close_question(slot, now),
                Timer::Death(slot) => self.death_due(slot, now),
                Timer::Dial(slot) => self.dial_dead(slot, now),
                Timer::Seed(index) => self.seed_due(index, now),
                Timer::Contest => self.contest_again(now),
            }
        }
    }

    /// A peer asks.
    pub fn handle_request(&mut self, id: RequestId, request: Request, now: Now) {
        self.take_input(None, now);
        self.witness.handle_contact(now.time);
        match request {
            Request::Join(record) => self.joiner(id, record, now),
            Request::Identify => self.reply(id, Response::Identify(self.introduction())),
            Request::Exchange(exchange) => self.exchange_arrived(id, *exchange, now),
            Request::Ask(instance) => self.asked(id, instance, now),
        }
    }

    /// A call that was ordered has ended.
    pub fn handle_response(&mut self, id: CallId, result: Result<Response, CallError>, now: Now) {
        self.take_input(Some(id.0), now);
        self.timers.cancel(Timer::SlowCall(id));
        let Some(calling) = self.calls.remove(&id) else {
            return;
        };
        if self.leaving.is_some() && !matches!(calling, Calling::Leave) {
            return;
        }
        if result.as_ref().map_or_else(|error| is_answer(error.failure), |_| true) {
            self.witness.handle_contact(now.time);
        }
        match calling {
            Calling::Join { seed } => self.join_answered(seed, result, now),
            Calling::Incumbent { request, joiner } => self.incumbent_answered(request, joiner, result, now),
            Calling::DialBack { request, joiner } => self.dial_back_answered(request, joiner, result, now),
            Calling::Exchange(sent) => self.exchange_answered(id, sent, result, now),
            Calling::Ask { about, question, sent_at } => {
                let answer = match result {
                    Ok(Response::Asked(answer)) => answer,
                    _ => Answer::Unknown,
                };
                self.question_answered(about, question, sent_at, answer, now);
            }
            Calling::Identify { slot } => self.identified(slot, result, now),
            Calling::Succession { slot, successor, asked } => self.succession_answered(slot, successor, asked, result, now),
            Calling::Contest { claimant } => self.contest_answered(claimant, result, now),
            Calling::Vote { about } => self.voted(about, &result, now),
            Calling::Holder { seed, holder } => self.holder_answered(seed, &holder, result, now),
            Calling::Leave => {
                self.leaving = self.leaving.map(|open| open.saturating_sub(1));
                if self.leaving == Some(0) {
                    self.finish_leaving();
                }
            }
        }
    }

    /// Says goodbye. [`Output::Left`] follows within a second; nothing else is done from here on.
    pub fn leave(&mut self, now: Now) {
        if self.leaving.is_some() {
            return;
        }
        let entry = crate::message::Entry { left: true, ..self.members.me().entry(0, now.time) };
        let told = |member: &Member| member.is_partner() && self.takes_part(member);
        let mut partners: Vec<_> = self.members.others().filter(|(_, member)| told(member)).map(|(slot, _)| slot).collect();
        self.rng.shuffle(&mut partners);
        partners.truncate(LEAVE_PEERS);
        self.leaving = Some(partners.len());
        self.timers.set(Timer::Leave, now.time + LEAVE_TIME);
        for slot in &partners {
            let Some(member) = self.members.get(*slot) else { continue };
            let whom = Arc::clone(&member.record);
            let exchange = Exchange { from: Some(entry.instance), to: Some(whom.instance), entries: vec![entry], ..Exchange::default() };
            self.call(&whom, Calling::Leave, Request::Exchange(Box::new(exchange)), LEAVE_TIME);
        }
        if partners.is_empty() {
            self.finish_leaving();
        }
    }

    fn finish_leaving(&mut self) {
        if self.leaving.is_some() && !self.output.iter().any(|output| matches!(output, Output::Left)) {
            self.timers.cancel(Timer::Leave);
            self.output.push_back(Output::Left);
        }
    }

    /// Calls who is at its target, or says so.
    pub(crate) fn call(&mut self, whom: &Arc<Record>, calling: Calling, request: Request, timeout: Duration) -> CallId {
        self.call_at(whom.target.clone(), Some(Arc::clone(whom)), calling, request, timeout)
    }

    /// Calls whoever is at a target.
    pub(crate) fn call_at(
        &mut self,
        target: Target,
        whom: Option<Arc<Record>>,
        calling: Calling,
        request: Request,
        timeout: Duration,
    ) -> CallId {
        self.next_id += 1;
        let id = CallId(self.next_id);
        self.calls.insert(id, calling);
        self.output.push_back(Output::Call { id, target, whom, request, timeout });
        id
    }

    pub(crate) fn order_probe(&mut self, slot: Slot, purpose: Purpose, now: Now) -> Option<ProbeId> {
        let member = self.members.get(slot)?;
        let (whom, name) = (Arc::clone(&member.record), member.record.name.clone());
        let doubt_after = member.pair.doubt_after(self.config.probe_timeout);
        self.next_id += 1;
        let id = ProbeId(self.next_id);
        self.probes.insert(id, Probing::new(slot, name, purpose, now.time));
        if purpose == Purpose::Schedule {
            self.timers.set(Timer::SlowProbe(id), now.time + doubt_after);
        }
        self.output.push_back(Output::Probe { id, whom });
        Some(id)
    }

    pub(crate) fn reply(&mut self, to: RequestId, response: Response) {
        self.output.push_back(Output::Reply { to, response });
    }

    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        self.refusals.count(refusal);
    }

    fn keep_house(&mut self, now: Now) {
        self.timers.set(Timer::Housekeeping, now.time + HOUSEKEEPING_INTERVAL);
        self.notice_isolation(now);
        if self.load.look() {
            self.reschedule(now);
        }
        self.collect_rosters();
        self.count_holdings();
        self.look_for_vouchers(now);
        self.expire_guards(now);
        self.report(now);
        for slot in self.members.other_slots() {
            self.keep_member(slot, now);
        }
    }

    fn keep_member(&mut self, slot: Slot, now: Now) {
        let retain_samples = self.config.retain_samples;
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        member.drop_rows_older_than(retain_samples, now.time);
        if member.left_long_ago(now.time) && self.publisher.place(slot, &member.record.name).is_some() {
            self.publisher.roster_shrank();
        }
        let Some(member) = self.members.get(slot) else {
            return;
        };
        let silence = member.life.silence(now.time);
        let unproven = !member.proven && silence > UNPROVEN_FORGET_AFTER;
        let retained = member.is_present() || silence <= self.config.retain_nodes;
        if unproven || !retained {
            self.forget(slot, now);
            return;
        }
        if member.life.status() == Status::Alive && silence > SILENCE_MAX && !self.witness.is_isolated() {
            self.silent(slot, now);
        }
    }

    /// Starts a new life under the same name, larger than any that was heard.
    pub(crate) fn reincarnate(&mut self, heard: Incarnation, now: Now) {
        let me = self.members.me();
        let incarnation = heard.max(me.record.incarnation).next();
        let record = Record { incarnation, instance: Instance(self.rng.u64(1..)), ..(*me.record).clone() };
        let life = me.life.clone();
        self.members.replace(ME, Arc::new(record), life, None, now.time);
        self.publisher.restart();
        self.spread_record(ME, now);
        self.roster_changed(now);
    }
}

/// Whether a failure is an answer of the other host: our own network works then.
pub(crate) fn is_answer(failure: Failure) -> bool {
    matches!(failure, Failure::Refused | Failure::Identity | Failure::Protocol | Failure::Auth | Failure::Tls)
}

/// Whether a failure says at once that the node is not there: nothing listens, or somebody else does.
pub(crate) fn is_refusal(failure: Failure) -> bool {
    matches!(failure, Failure::Refused | Failure::Identity)
}
