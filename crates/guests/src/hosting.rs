//! Admits guests, publishes their rows, and reports to them what they lack.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    Exchange, Instance, MemberView, NodeName, PendingJoin, Record, Roster, RowNews, Snapshot,
    Target, Time, Version,
};

use crate::guest::{is_guest, record, sponsors};
use crate::joins::Joins;
use crate::samples::{Measured, Progress, Sample, fresh_since, is_ahead, roster};

/// How often [`Hosting::handle_timeout`] wants to be called.
pub const LOOK: Duration = Duration::from_millis(500);
/// How often a guest gets what changed, as with the original.
const PUSH_INTERVAL: Duration = Duration::from_secs(5);
/// How often a guest's row is published, at most.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(2);
/// How often a guest gets the list of members and is asked for its own: it forgets a node that does
/// not answer once, and never asks again.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(30);
/// How often a guest gets all samples once more: it may have lost some.
const TELL_ALL_INTERVAL: Duration = Duration::from_secs(300);
/// Nodes that guests reported and that are not members yet. Further ones are reported again.
const CANDIDATES_MAX: usize = 1024;
/// Candidates that are looked at at once, and begun with at one look: eight dials a second,
/// otherwise a client that reaches one port could aim the mesh.
const LOOKS_MAX: (usize, usize) = (8, 4);
/// Candidates of one teller, so that none keeps others' out.
const CANDIDATES_PER_TELLER_MAX: usize = 64;
/// A bot of the original that is asked while it waits for its own answer never wakes from that. A
/// node that joins, or is reported because it joined somewhere, is left alone for so long. One that
/// pings has joined.
const JOINING: Duration = Duration::from_secs(2);
/// First pause before a candidate is looked at again; each is twice as long.
const PAUSE: Duration = Duration::from_secs(2);
/// After so many looks a candidate is forgotten, unless it is reported again.
const TRIES_MAX: u32 = 6;
/// Samples that wait to be passed on, and pairs whose latest was. Further ones are not: they come
/// by others, or by the guest itself.
const FORWARD_MAX: usize = 100_000;
/// A row's version beyond this was never made by a host: nothing could follow it.
const VERSION_MAX: Version = 1 << 62;
/// How often samples of nodes that are no longer known are dropped.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);

/// What guests tell.
#[derive(Clone, Debug)]
pub enum Told {
    /// There is a node, somebody said.
    Node {
        /// Its name.
        name: NodeName,
        /// Where it answers.
        target: Target,
        /// How it became known.
        sign: Sign,
        /// Who said so, as far as reporters can be distinguished.
        teller: Arc<str>,
    },
    /// Somebody told a lie of this guest that it cannot refute itself.
    Spoiled(Arc<Record>),
    /// What guests measured.
    Samples(Vec<Sample>),
}

/// How a node became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It wants to join: it has just started, and knows nothing.
    Joins,
    /// It pings.
    Pings,
    /// Another node reported it.
    Hearsay,
}

/// What the driver has to do.
#[derive(Clone, Debug)]
pub enum Order {
    /// Find out which protocol a reported node speaks, and have it admitted; [`Done::Looked`] says
    /// what came of it.
    Look {
        /// By which name it was reported.
        name: NodeName,
        /// Where.
        target: Target,
    },
    /// Ask a stuck guest again whether it admits this bot. What comes of it is kept by [`Joins`].
    AskAgain(Target),
    /// Give this to the own core, as if the guest had sent it.
    Gossip(Box<Exchange>),
    /// Give this record to the own core, as if the guest joined with it: what was reported of its
    /// present incarnation cannot be outdone. One of ours does that by itself.
    Renew(Arc<Record>),
    /// Tell a guest of members and samples; [`Done::Pushed`] says what it has then.
    Push {
        /// Whom.
        guest: Arc<Record>,
        /// Ask it first to admit this bot, which has it tell whom it knows. If it answers, that is
        /// [`Informed::let_us_in`]; if not, nothing else is said to it this time. Where this is
        /// false, nothing is said while it is known not to answer, or has not answered yet.
        discover: bool,
        /// What it has by now.
        informed: Informed,
    },
    /// Pass samples of guests on to one of ours that hosts them; [`Done::Forwarded`] follows.
    Forward {
        /// Where.
        host: Target,
        /// What.
        samples: Vec<Sample>,
    },
    /// Tell the own core where this bot waits for guests; [`Done::Untold`] if that fails.
    Pending(Vec<PendingJoin>),
}

impl Order {
    /// Whether the next order has to wait until this one is carried out: a roster is taken once a
    /// row waits for it.
    pub fn is_in_turn(&self) -> bool {
        matches!(self, Self::Gossip(_) | Self::Pending(_))
    }
}

/// What a guest has from this bot.
#[derive(Clone, Debug, Default)]
pub struct Informed {
    /// Up to where it has the samples of each row.
    pub progress: Progress,
    /// Members that were reported to it since it last admitted this bot.
    pub told: BTreeSet<NodeName>,
    /// It admitted this bot, and has answered every report of a member since. A stuck guest answers
    /// neither, and each such call leaves something behind there for good: where this is false no
    /// member is reported to it.
    pub answers: bool,
}

impl Informed {
    /// The guest admitted this bot: all members are reported to it again, for it may have forgotten
    /// some.
    pub fn let_us_in(&mut self) {
        // What was sent while no member was reported may be of members that it does not know.
        if !self.answers {
            self.progress.clear();
        }
        self.told.clear();
        self.answers = true;
    }

    /// The members that may be reported to it now: those that are there and were not yet.
    pub fn members_to_tell<'a>(
        &mut self,
        guest: &Record,
        snapshot: &'a Snapshot,
    ) -> Vec<&'a Arc<Record>> {
        self.told.retain(|name| is_present(snapshot, name));
        let told = |member: &&MemberView| self.told.contains(&member.record.name);
        let others = snapshot.present().filter(|member| member.record.name != guest.name);
        others.filter(|member| self.answers && !told(member)).map(|member| &member.record).collect()
    }

    /// Samples of members that were not reported to it have to be sent again once they were.
    /// Where no member is reported they are sent once.
    pub fn forget_untold(&mut self, me: &Record) {
        if self.answers {
            self.progress.retain(|name, _| *name == me.name || self.told.contains(name));
        }
    }
}

/// What came of an order.
#[derive(Clone, Debug)]
pub enum Done {
    /// Of [`Order::Look`] at the node with this name.
    Looked(NodeName, Looked),
    /// Of [`Order::Push`] to this guest: what it has by now.
    Pushed(Arc<Record>, Informed),
    /// Of [`Order::Forward`] to this host.
    Forwarded(Target),
    /// The core had no room for [`Order::Pending`].
    Untold,
}

/// What came of a look at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// It is in, or never will be.
    Settled,
    /// Another is at its address.
    Another(NodeName),
    /// It has to be looked at again.
    Failed,
}

/// A node that was reported.
#[derive(Debug)]
struct Candidate {
    target: Target,
    teller: Arc<str>,
    /// It is looked at though a node of its name is there: it may have taken that one's place.
    joins: bool,
    not_before: Time,
    tries: u32,
    looking: bool,
}

/// What is done for one guest.
#[derive(Debug)]
struct Care {
    /// The incarnation of the guest that it is for.
    instance: Instance,
    informed: Informed,
    discovered_at: Option<Time>,
    all_told_at: Option<Time>,
    /// It started again since: it knows nothing.
    rejoined: bool,
    pushed_at: Option<Time>,
    published_at: Option<Time>,
    pushing: bool,
}

impl Care {
    fn of(guest: &Record) -> Self {
        Self {
            instance: guest.instance,
            informed: Informed::default(),
            discovered_at: None,
            all_told_at: None,
            rejoined: false,
            pushed_at: None,
            published_at: None,
            pushing: false,
        }
    }
}

/// What one bot of ours does for guests. See the crate's page for how to drive it.
#[derive(Debug)]
pub struct Hosting {
    joins: Arc<Joins>,
    /// No reported latency is above it.
    probe_timeout: Duration,
    candidates: BTreeMap<NodeName, Candidate>,
    /// What the guests that this bot cares for measured.
    measured: Measured,
    /// What was passed on recently of other guests.
    passed: Measured,
    cares: BTreeMap<NodeName, Care>,
    /// Guests with samples that are not published.
    dirty: BTreeSet<NodeName>,
    /// Samples of guests that others care for, on their way to those.
    forward: Vec<Sample>,
    /// Hosts to which some are on their way.
    forwarding: BTreeSet<Target>,
    /// What was last reported to the others of guests that do not answer; none if it is to be
    /// reported again.
    pending: Option<Vec<PendingJoin>>,
    forgot_at: Time,
    orders: VecDeque<Order>,
}

/// Inputs. Each is followed by draining [`Hosting::poll_order`].
impl Hosting {
    /// A bot that knows no guest yet. `joins` is shared with what speaks to guests.
    pub fn new(joins: Arc<Joins>, probe_timeout: Duration, now: Time) -> Self {
        Self {
            joins,
            probe_timeout,
            candidates: BTreeMap::new(),
            measured: Measured::default(),
            passed: Measured::default(),
            cares: BTreeMap::new(),
            dirty: BTreeSet::new(),
            forward: Vec::new(),
            forwarding: BTreeSet::new(),
            pending: Some(Vec::new()),
            forgot_at: now,
            orders: VecDeque::new(),
        }
    }

    /// Guests told something.
    pub fn handle_told(&mut self, told: Told, snapshot: &Snapshot, now: Time) {
        match told {
            Told::Node { name, target, sign, teller } => {
                self.hear_of(snapshot, name, target, sign, teller, now);
            }
            Told::Spoiled(record) => self.renew(&record),
            Told::Samples(samples) => self.hear_samples(snapshot, samples),
        }
    }

    /// An order was carried out, or could not be.
    pub fn handle_done(&mut self, done: Done, snapshot: &Snapshot, now: Time) {
        match done {
            Done::Looked(name, Looked::Settled) => {
                self.candidates.remove(&name);
            }
            Done::Looked(name, Looked::Another(other)) => {
                self.failed(&name, now);
                // It takes the place of the reported node, with its pauses: otherwise the address
                // could be asked without end.
                if !is_present(snapshot, &other)
                    && !self.candidates.contains_key(&other)
                    && let Some(candidate) = self.candidates.remove(&name)
                {
                    self.candidates.insert(other, candidate);
                }
            }
            Done::Looked(name, Looked::Failed) => self.failed(&name, now),
            Done::Pushed(guest, informed) => {
                let care = self.cares.get_mut(&guest.name);
                if let Some(care) = care.filter(|care| care.instance == guest.instance) {
                    (care.pushing, care.informed) = (false, informed);
                }
            }
            Done::Forwarded(host) => {
                self.forwarding.remove(&host);
            }
            Done::Untold => self.pending = None,
        }
    }

    /// Looks at all guests. Called every [`LOOK`].
    pub fn handle_timeout(&mut self, snapshot: &Snapshot, now: Time) {
        if snapshot.name_conflict().is_some() {
            // A bot that yields its name does not use it.
            return;
        }
        self.look_at_candidates(snapshot, now);
        self.look_at_pending(snapshot, now);
        if now.since(self.forgot_at) > FORGET_INTERVAL {
            self.forgot_at = now;
            let known =
                |name: &NodeName| *name == snapshot.me.name || snapshot.member(name).is_some();
            self.measured
                .retain(|name| guest_in(snapshot, name) && is_sponsored(snapshot, name), known);
            self.passed.forget_before(fresh_since(snapshot.now.wall));
        }
        let instance = |name: &NodeName| {
            snapshot
                .member(name)
                .filter(|member| member.status.is_present())
                .map(|member| member.record.instance)
        };
        self.cares.retain(|name, care| instance(name) == Some(care.instance));
        self.dirty.retain(|name| guest_in(snapshot, name));
        for guest in snapshot.membership().filter(|member| is_guest(&member.record)) {
            if is_sponsored(snapshot, &guest.record.name) {
                self.publish(snapshot, guest, now);
                self.push(guest, now);
            }
        }
        self.pass_on(snapshot);
    }

    /// Takes the next thing to do. Drain it after every input. Exchanges reach the core in the
    /// order of their orders. While the [`Done`] of an order is awaited, no other of its kind is
    /// given for the same node, incarnation of a guest, or host.
    pub fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }
}

impl Hosting {
    fn hear_samples(&mut self, snapshot: &Snapshot, samples: Vec<Sample>) {
        let mut mine = BTreeMap::new();
        let mut room = FORWARD_MAX.saturating_sub(self.passed.len().max(self.forward.len()));
        for sample in samples {
            if *mine
                .entry(sample.from().clone())
                .or_insert_with(|| is_sponsored(snapshot, sample.from()))
            {
                if self.measured.take(&sample) {
                    self.dirty.insert(sample.from().clone());
                }
            } else if room > 0 && sample.is_fresh(snapshot.now.wall) && self.passed.take(&sample) {
                room -= 1;
                self.forward.push(sample);
            }
        }
    }

    fn hear_of(
        &mut self,
        snapshot: &Snapshot,
        name: NodeName,
        target: Target,
        sign: Sign,
        teller: Arc<str>,
        now: Time,
    ) {
        let held = snapshot.member(&name).filter(|member| member.status.is_present());
        let joins = sign == Sign::Joins;
        if sign != Sign::Hearsay {
            self.joins.heard(&target, now);
        }
        // Anybody can claim this. What goes to the guest waits for it now and then, and no longer.
        let there = held.is_some_and(|held| held.record.target == target);
        if joins
            && there
            && let Some(care) = self.cares.get_mut(&name).filter(|care| !care.rejoined)
        {
            (care.rejoined, care.pushed_at) = (true, Some(now));
        }
        let known = held
            .is_some_and(|held| !joins || (is_guest(&held.record) && held.record.target == target));
        if known || name == snapshot.me.name || target == snapshot.me.target {
            return;
        }
        // However many claim one address, it is dialled for one of them.
        let claimed = self.candidates.values().any(|candidate| candidate.target == target);
        if let Some(candidate) = self.candidates.get_mut(&name) {
            candidate.joins |= joins;
            if sign == Sign::Pings && candidate.tries == 0 && candidate.target == target {
                candidate.not_before = now;
            }
            // Another address has to wait until the first has failed, and is not looked at sooner
            // for it.
            if !candidate.looking && candidate.tries > 0 && !claimed {
                candidate.target = target;
            }
            return;
        }
        let of_teller =
            self.candidates.values().filter(|candidate| candidate.teller == teller).count();
        if claimed || of_teller >= CANDIDATES_PER_TELLER_MAX {
            return;
        }
        if self.candidates.len() >= CANDIDATES_MAX {
            // The one that failed most often gives way.
            let failed = self
                .candidates
                .iter()
                .filter(|(_, candidate)| !candidate.looking && candidate.tries > 0);
            let Some(name) =
                failed.max_by_key(|(_, candidate)| candidate.tries).map(|(name, _)| name.clone())
            else {
                return;
            };
            self.candidates.remove(&name);
        }
        let not_before = if sign == Sign::Pings { now } else { now + JOINING };
        self.candidates.insert(
            name,
            Candidate { target, teller, joins, not_before, tries: 0, looking: false },
        );
    }

    /// A candidate has to be looked at again, later each time.
    fn failed(&mut self, name: &NodeName, now: Time) {
        if let Some(candidate) = self.candidates.get_mut(name) {
            candidate.looking = false;
            candidate.not_before = now + PAUSE * (1 << candidate.tries);
            candidate.tries += 1;
        }
        self.candidates.retain(|_, candidate| candidate.tries < TRIES_MAX);
    }

    fn look_at_candidates(&mut self, snapshot: &Snapshot, now: Time) {
        self.candidates.retain(|name, candidate| {
            candidate.looking || candidate.joins || !is_present(snapshot, name)
        });
        let looking = self.candidates.values().filter(|candidate| candidate.looking).count();
        let mut due: Vec<_> = self
            .candidates
            .iter_mut()
            .filter(|(_, candidate)| !candidate.looking && candidate.not_before <= now)
            .collect();
        // Who was never looked at is next, and of those who waits longest, whatever its name.
        due.sort_by_key(|(_, candidate)| (candidate.tries, candidate.not_before));
        let room = LOOKS_MAX.0.saturating_sub(looking).min(LOOKS_MAX.1);
        for (name, candidate) in due.into_iter().take(room) {
            candidate.looking = true;
            let (name, target) = (name.clone(), candidate.target.clone());
            self.orders.push_back(Order::Look { name, target });
        }
    }

    /// Asks stuck guests again in time, and tells the others where this bot waits.
    fn look_at_pending(&mut self, snapshot: &Snapshot, now: Time) {
        let pending = self.joins.told(snapshot, now);
        for PendingJoin { target, .. } in pending.iter().filter(|pending| pending.is_stuck()) {
            let began = self.joins.began(target);
            // It measures; or it died since, and what answers there next is another process.
            let refutes = |member: &MemberView| match member.status.is_present() {
                true => snapshot.measures(member),
                false => began.is_some_and(|began| member.since > began),
            };
            let mut there = snapshot.members.iter().filter(|view| view.record.target == *target);
            if there.any(refutes) {
                self.joins.forget(target);
            }
            if self.joins.is_due(target, now) {
                self.orders.push_back(Order::AskAgain(target.clone()));
            }
        }
        if self.pending.as_ref() != Some(&pending) {
            self.orders.push_back(Order::Pending(pending.clone()));
            self.pending = Some(pending);
        }
    }

    /// Publishes the row of a guest for it, if there is anything new in it.
    fn publish(&mut self, snapshot: &Snapshot, guest: &MemberView, now: Time) {
        let name = &guest.record.name;
        let care = self.cares.entry(name.clone()).or_insert_with(|| Care::of(&guest.record));
        if care.published_at.is_some_and(|at| now.since(at) < PUBLISH_INTERVAL)
            || !self.dirty.remove(name)
        {
            return;
        }
        care.published_at = Some(now);
        if let Some(row) = &guest.row {
            // Other guests repeat what they know of it: where nothing is newer, it need not have
            // measured anything.
            let published = row.frame().wall().unix_millis() / 1000;
            let is_news = self.measured.newest(name).is_some_and(|newest| newest > published);
            if !is_news && guest.version < VERSION_MAX && !is_ahead(published, snapshot.now.wall) {
                return;
            }
            // What its other host published is as good.
            self.measured.take_row(name, row, self.probe_timeout, snapshot.now.wall);
        }
        // One that cannot be read counts as well: it could never be.
        if guest.version >= VERSION_MAX {
            return self.renew(&guest.record);
        }
        let (version, roster) = (guest.version + 1, roster(snapshot));
        let gossip =
            gossip_of(&self.measured, &guest.record, version, roster, snapshot.me.instance);
        self.orders.extend(gossip.map(|exchange| Order::Gossip(Box::new(exchange))));
    }

    /// Tells a guest what changed, and of members that it may not know.
    fn push(&mut self, guest: &MemberView, now: Time) {
        let care =
            self.cares.entry(guest.record.name.clone()).or_insert_with(|| Care::of(&guest.record));
        if care.pushing || care.pushed_at.is_some_and(|at| now.since(at) < PUSH_INTERVAL) {
            return;
        }
        (care.pushing, care.pushed_at) = (true, Some(now));
        let due = |at: Option<Time>, interval| at.is_none_or(|at| now.since(at) > interval);
        let discover = due(care.discovered_at, DISCOVERY_INTERVAL);
        if discover {
            care.discovered_at = Some(now);
        }
        if due(care.all_told_at, if care.rejoined { DISCOVERY_INTERVAL } else { TELL_ALL_INTERVAL })
        {
            (care.all_told_at, care.rejoined) = (Some(now), false);
            care.informed.progress.clear();
        }
        let (guest, informed) = (Arc::clone(&guest.record), care.informed.clone());
        self.orders.push_back(Order::Push { guest, discover, informed });
    }

    /// Passes samples of guests on to those who care for them; they take from us what they would
    /// take from a guest.
    fn pass_on(&mut self, snapshot: &Snapshot) {
        let mut by_host = BTreeMap::<Target, Vec<Sample>>::new();
        let mut hosts = BTreeMap::<NodeName, Vec<Target>>::new();
        for sample in std::mem::take(&mut self.forward) {
            let of = |from: &NodeName| {
                sponsored(snapshot, from)
                    .into_iter()
                    .filter_map(|host| Some(snapshot.member(host)?.record.target.clone()))
                    .collect()
            };
            for host in hosts.entry(sample.from().clone()).or_insert_with_key(|from| of(from)) {
                by_host.entry(host.clone()).or_default().push(sample.clone());
            }
        }
        for (host, samples) in by_host {
            // What does not reach a host that is slow or gone comes to it by others, or by the
            // guest itself.
            if self.forwarding.insert(host.clone()) {
                self.orders.push_back(Order::Forward { host, samples });
            }
        }
    }

    /// Has a guest begin a new incarnation.
    fn renew(&mut self, guest: &Record) {
        let next = record(&guest.name, &guest.target, guest.incarnation.next());
        self.orders.push_back(Order::Renew(Arc::new(next)));
    }
}

/// The row of a guest as it would gossip it itself. A roster is taken once a row waits for it.
pub fn gossip_of(
    measured: &Measured,
    guest: &Record,
    version: Version,
    roster: Arc<Roster>,
    to: Instance,
) -> [Exchange; 2] {
    let frame = Arc::new(measured.frame(&guest.name, version, &roster));
    let news = RowNews {
        source: guest.instance,
        frame: Some((frame, Duration::ZERO)),
        patches: Vec::new(),
        age: Duration::ZERO,
    };
    let exchange = || Exchange { from: Some(guest.instance), to: Some(to), ..Exchange::default() };
    [Exchange { rows: vec![news], ..exchange() }, Exchange { rosters: vec![roster], ..exchange() }]
}

fn is_present(snapshot: &Snapshot, name: &NodeName) -> bool {
    snapshot.member(name).is_some_and(|member| member.status.is_present())
}

fn guest_in(snapshot: &Snapshot, name: &NodeName) -> bool {
    snapshot
        .member(name)
        .is_some_and(|member| member.status.is_present() && is_guest(&member.record))
}

/// Who of our bots cares for a guest.
fn sponsored<'a>(snapshot: &'a Snapshot, guest: &NodeName) -> Vec<&'a NodeName> {
    let hosts = snapshot
        .membership()
        .filter(|member| !is_guest(&member.record))
        .map(|member| &member.record.name);
    sponsors(guest, hosts.chain([&snapshot.me.name]))
}

fn is_sponsored(snapshot: &Snapshot, guest: &NodeName) -> bool {
    sponsored(snapshot, guest).contains(&&snapshot.me.name)
}
