//! Between guests and the mesh: lets guests in, publishes their rows, and tells them what they
//! lack.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    Exchange, Instance, JoinAnswer, MemberView, NodeName, PendingJoin, Record, Request, Response,
    Roster, RowNews, Snapshot, Target, Version,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::guest::{is_guest, record, record_for, sponsors};
use super::joins::Joined;
use super::samples::{Measured, Progress, Sample, fresh_since, is_ahead, pages, roster};
use super::server::Place;
use super::speak::{Context, Found, PATIENCE};
use super::tell::{pushed, tell};
use crate::clock;
use crate::driver::Command;
use crate::transport::{Arrived, original as pb};

/// What waits for the bridge. A push counts as one, and holds its place until it is done.
pub(crate) const TOLD_WAITING_MAX: usize = 4096;
/// How often the bridge looks at its guests.
const LOOK: Duration = Duration::from_millis(500);
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
/// After so many looks a candidate is forgotten, unless somebody tells of it again.
const TRIES_MAX: u32 = 6;
/// Samples that wait to be passed on, and pairs whose latest was. Further ones are not: they come
/// by others, or by the guest itself.
const FORWARD_MAX: usize = 100_000;
/// A row's version beyond this was never made by a host: nothing could follow it.
const VERSION_MAX: Version = 1 << 62;
/// How often samples of who is not known any more are looked for.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);

/// What guests tell.
#[derive(Debug)]
pub(crate) enum Told {
    /// There is a node, somebody said.
    Node { name: NodeName, target: Target, sign: Sign, teller: Arc<str> },
    /// Somebody told a lie of this guest that it cannot refute itself.
    Spoiled(Arc<Record>),
    /// Samples, and the place that their push takes.
    Samples(Vec<Sample>, Option<Arc<Place>>),
}

/// How a node became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It wants to join: it has just started, and knows nothing.
    Joins,
    /// It pings.
    Pings,
    /// Another node reported it.
    Hearsay,
}

/// A node that was reported.
#[derive(Debug)]
struct Candidate {
    target: Target,
    teller: Arc<str>,
    /// It is looked at though a node of its name is there: it may have taken that one's place.
    joins: bool,
    not_before: Instant,
    tries: u32,
    looking: bool,
}

/// What is done for one guest.
#[derive(Debug)]
struct Care {
    /// The life of the guest that it is for.
    instance: Instance,
    progress: Progress,
    /// Members that it knows from us.
    told: BTreeSet<NodeName>,
    discovered_at: Option<Instant>,
    all_told_at: Option<Instant>,
    /// It started anew since: it knows nothing.
    rejoined: bool,
    pushed_at: Option<Instant>,
    published_at: Option<Instant>,
    pushing: bool,
}

impl Care {
    fn of(guest: &Record) -> Self {
        Self {
            instance: guest.instance,
            progress: Progress::new(),
            told: BTreeSet::new(),
            discovered_at: None,
            all_told_at: None,
            rejoined: false,
            pushed_at: None,
            published_at: None,
            pushing: false,
        }
    }
}

/// What came of a look at a candidate.
#[derive(Debug)]
enum Looked {
    /// It is in, or never will be.
    Settled,
    /// Another is at its address.
    Another(NodeName),
    /// It has to be looked at again.
    Failed,
}

#[derive(Debug)]
enum Done {
    Looked(NodeName, Looked),
    /// What a guest has by now.
    Pushed(NodeName, Instance, Progress, BTreeSet<NodeName>),
    Forwarded(Target),
    Renewed,
}

/// The task that cares for guests.
#[derive(Debug)]
pub(crate) struct Bridge {
    context: Context,
    driver: mpsc::Sender<Arrived>,
    commands: mpsc::Sender<Command>,
    told: mpsc::Receiver<Told>,
    candidates: BTreeMap<NodeName, Candidate>,
    /// What the guests that this bot cares for measured.
    measured: Measured,
    /// What was passed on recently of other guests.
    passed: Measured,
    cares: BTreeMap<NodeName, Care>,
    /// Guests with samples that are not published.
    dirty: BTreeSet<NodeName>,
    /// Samples of guests that others care for, on their way to those.
    forward: Vec<pb::Sample>,
    /// Hosts to which some are on their way.
    forwarding: BTreeSet<Target>,
    /// What the others were last told of guests that do not answer.
    pending: Vec<PendingJoin>,
    forgot_at: Instant,
}

impl Bridge {
    pub(crate) fn new(
        context: Context,
        driver: mpsc::Sender<Arrived>,
        commands: mpsc::Sender<Command>,
        told: mpsc::Receiver<Told>,
    ) -> Self {
        Self {
            context,
            driver,
            commands,
            told,
            candidates: BTreeMap::new(),
            measured: Measured::default(),
            passed: Measured::default(),
            cares: BTreeMap::new(),
            dirty: BTreeSet::new(),
            forward: Vec::new(),
            forwarding: BTreeSet::new(),
            pending: Vec::new(),
            forgot_at: Instant::now(),
        }
    }

    /// Runs until nobody can tell anything any more.
    pub(crate) async fn run(mut self) {
        let mut tasks = JoinSet::new();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                told = self.told.recv() => match told {
                    Some(told) => self.hear(told, &mut tasks),
                    None => return,
                },
                Some(done) = tasks.join_next() => if let Ok(done) = done { self.done(done) },
                _ = look.tick() => self.look(&mut tasks).await,
            }
        }
    }

    fn hear(&mut self, told: Told, tasks: &mut JoinSet<Done>) {
        let snapshot = self.context.snapshot();
        match told {
            Told::Node { name, target, sign, teller } => {
                self.hear_of(&snapshot, name, target, sign, teller);
            }
            Told::Spoiled(record) => self.renew(&record, tasks),
            Told::Samples(samples, _place) => {
                let mut mine = BTreeMap::new();
                let mut room =
                    FORWARD_MAX.saturating_sub(self.passed.len().max(self.forward.len()));
                for sample in samples {
                    if *mine
                        .entry(sample.from.clone())
                        .or_insert_with(|| is_sponsored(&snapshot, &sample.from))
                    {
                        if self.measured.take(&sample) {
                            self.dirty.insert(sample.from);
                        }
                    } else if room > 0
                        && sample.is_fresh(snapshot.now.wall)
                        && self.passed.take(&sample)
                    {
                        room -= 1;
                        self.forward.push(sample.spell());
                    }
                }
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
    ) {
        let now = Instant::now();
        let held = snapshot.member(&name).filter(|member| member.status.is_present());
        let joins = sign == Sign::Joins;
        if sign != Sign::Hearsay {
            self.context.joins.heard(&target, clock::now().time);
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

    fn done(&mut self, done: Done) {
        match done {
            Done::Looked(name, Looked::Settled) => {
                self.candidates.remove(&name);
            }
            Done::Looked(name, Looked::Another(other)) => {
                let known = self
                    .context
                    .snapshot()
                    .member(&other)
                    .is_some_and(|member| member.status.is_present());
                self.failed(&name);
                // It takes the place of the reported node, with its pauses: otherwise the address
                // could be asked without end.
                if !known
                    && !self.candidates.contains_key(&other)
                    && let Some(candidate) = self.candidates.remove(&name)
                {
                    self.candidates.insert(other, candidate);
                }
            }
            Done::Looked(name, Looked::Failed) => self.failed(&name),
            Done::Pushed(name, instance, progress, told) => {
                if let Some(care) =
                    self.cares.get_mut(&name).filter(|care| care.instance == instance)
                {
                    (care.pushing, care.progress, care.told) = (false, progress, told);
                }
            }
            Done::Forwarded(host) => {
                self.forwarding.remove(&host);
            }
            Done::Renewed => {}
        }
    }

    /// A candidate has to be looked at again, later each time.
    fn failed(&mut self, name: &NodeName) {
        if let Some(candidate) = self.candidates.get_mut(name) {
            candidate.looking = false;
            candidate.not_before = Instant::now() + PAUSE * (1 << candidate.tries);
            candidate.tries += 1;
        }
        self.candidates.retain(|_, candidate| candidate.tries < TRIES_MAX);
    }

    async fn look(&mut self, tasks: &mut JoinSet<Done>) {
        let snapshot = self.context.snapshot();
        if snapshot.name_conflict().is_some() {
            // A bot that yields its name does not use it.
            return;
        }
        self.look_at_candidates(&snapshot, tasks);
        self.look_at_pending(&snapshot, tasks);
        let guests: Vec<_> =
            snapshot.membership().filter(|member| is_guest(&member.record)).collect();
        if self.forgot_at.elapsed() > FORGET_INTERVAL {
            self.forgot_at = Instant::now();
            let known =
                |name: &NodeName| *name == snapshot.me.name || snapshot.member(name).is_some();
            self.measured
                .retain(|name| guest_in(&snapshot, name) && is_sponsored(&snapshot, name), known);
            self.passed.forget_before(fresh_since(snapshot.now.wall));
        }
        let life = |name: &NodeName| {
            snapshot
                .member(name)
                .filter(|member| member.status.is_present())
                .map(|member| member.record.instance)
        };
        self.cares.retain(|name, care| life(name) == Some(care.instance));
        self.dirty.retain(|name| guest_in(&snapshot, name));
        for guest in &guests {
            if is_sponsored(&snapshot, &guest.record.name) {
                self.publish(&snapshot, guest, tasks).await;
                self.push(&snapshot, guest, tasks);
            }
        }
        self.forward(&snapshot, tasks);
    }

    fn look_at_candidates(&mut self, snapshot: &Arc<Snapshot>, tasks: &mut JoinSet<Done>) {
        let present = |name: &NodeName| {
            snapshot.member(name).is_some_and(|member| member.status.is_present())
        };
        self.candidates
            .retain(|name, candidate| candidate.looking || candidate.joins || !present(name));
        let now = Instant::now();
        let looking = self.candidates.values().filter(|candidate| candidate.looking).count();
        let mut due: Vec<_> = self
            .candidates
            .iter_mut()
            .filter(|(_, candidate)| !candidate.looking && candidate.not_before <= now)
            .collect();
        // Who was never looked at is next, and of those who waits longest, whatever its name.
        due.sort_by_key(|(_, candidate)| (candidate.tries, candidate.not_before));
        for (name, candidate) in
            due.into_iter().take(LOOKS_MAX.0.saturating_sub(looking).min(LOOKS_MAX.1))
        {
            candidate.looking = true;
            let (name, target, snapshot) =
                (name.clone(), candidate.target.clone(), Arc::clone(snapshot));
            let (context, driver) = (self.context.clone(), self.driver.clone());
            tasks.spawn(async move {
                let found = tokio::time::timeout(
                    PATIENCE,
                    find(&context, &driver, &snapshot, &name, &target),
                )
                .await;
                Done::Looked(name, found.unwrap_or(Looked::Failed))
            });
        }
    }

    /// Asks stuck guests again in time, and tells the others where this bot waits.
    fn look_at_pending(&mut self, snapshot: &Snapshot, tasks: &mut JoinSet<Done>) {
        let pending = self.context.pending(snapshot);
        for PendingJoin { target, .. } in pending.iter().filter(|pending| pending.is_stuck()) {
            let now = clock::now().time;
            let began = self.context.joins.began(target);
            // It measures; or it died since, and what answers there next is another process.
            let refutes = |member: &MemberView| match member.status.is_present() {
                true => snapshot.measures(member),
                false => began.is_some_and(|began| member.since > began),
            };
            let mut there = snapshot.members.iter().filter(|view| view.record.target == *target);
            if there.any(refutes) {
                self.context.joins.forget(target);
            }
            if self.context.joins.is_due(target, now) {
                let (context, target) = (self.context.clone(), target.clone());
                tasks.spawn(async move {
                    // What comes of it is kept.
                    let _ = context.find(&target, None).await;
                    Done::Renewed
                });
            }
        }
        if pending != self.pending
            && self.commands.try_send(Command::Pending(pending.clone())).is_ok()
        {
            self.pending = pending;
        }
    }

    /// Publishes the row of a guest for it, if there is anything new in it.
    async fn publish(
        &mut self,
        snapshot: &Snapshot,
        guest: &MemberView,
        tasks: &mut JoinSet<Done>,
    ) {
        let name = &guest.record.name;
        let care = self.cares.entry(name.clone()).or_insert_with(|| Care::of(&guest.record));
        if care.published_at.is_some_and(|at| at.elapsed() < PUBLISH_INTERVAL)
            || !self.dirty.remove(name)
        {
            return;
        }
        care.published_at = Some(Instant::now());
        if let Some(row) = &guest.row {
            // Other guests repeat what they know of it: where nothing is newer, it need not have
            // measured anything.
            let published = row.frame().wall().unix_millis() / 1000;
            let is_news = self.measured.newest(name).is_some_and(|newest| newest > published);
            if !is_news && guest.version < VERSION_MAX && !is_ahead(published, snapshot.now.wall) {
                return;
            }
            // What its other host published is as good.
            self.measured.take_row(name, row, self.context.probe_timeout, snapshot.now.wall);
        }
        // One that cannot be read counts as well: it could never be.
        if guest.version >= VERSION_MAX {
            return self.renew(&guest.record, tasks);
        }
        let gossip = gossip_of(
            &self.measured,
            &guest.record,
            guest.version + 1,
            roster(snapshot),
            snapshot.me.instance,
        );
        for exchange in gossip {
            ask(&self.driver, Request::Exchange(Box::new(exchange))).await;
        }
    }

    /// Tells a guest what changed, and of members that it may not know.
    fn push(&mut self, snapshot: &Arc<Snapshot>, guest: &MemberView, tasks: &mut JoinSet<Done>) {
        let care =
            self.cares.entry(guest.record.name.clone()).or_insert_with(|| Care::of(&guest.record));
        if care.pushing || care.pushed_at.is_some_and(|at| at.elapsed() < PUSH_INTERVAL) {
            return;
        }
        (care.pushing, care.pushed_at) = (true, Some(Instant::now()));
        let due =
            |at: Option<Instant>, interval| at.is_none_or(|at: Instant| at.elapsed() > interval);
        let discover = due(care.discovered_at, DISCOVERY_INTERVAL);
        if discover {
            care.discovered_at = Some(Instant::now());
            care.told.clear();
        }
        if due(care.all_told_at, if care.rejoined { DISCOVERY_INTERVAL } else { TELL_ALL_INTERVAL })
        {
            (care.all_told_at, care.rejoined) = (Some(Instant::now()), false);
            care.progress.clear();
        }
        let guest = Arc::clone(&guest.record);
        let (context, snapshot) = (self.context.clone(), Arc::clone(snapshot));
        let (progress, told) = (care.progress.clone(), care.told.clone());
        tasks.spawn(async move {
            // What it answers is heard by way of the context. One that does not answer this would
            // not answer `NodeDiscovery` either.
            let answers = match discover {
                true => {
                    matches!(context.join(&guest.target).await, Ok(Joined::As(_) | Joined::Unnamed))
                }
                false => !context.is_pending(&snapshot, &guest.target),
            };
            let (progress, told) = match answers {
                true => tell(context.links(), &snapshot, &guest, progress, told).await,
                false => (progress, told),
            };
            Done::Pushed(guest.name.clone(), guest.instance, progress, told)
        });
    }

    /// Passes samples of guests on to those who care for them; they take from us what they would
    /// take from a guest.
    fn forward(&mut self, snapshot: &Snapshot, tasks: &mut JoinSet<Done>) {
        let mut by_host = BTreeMap::<Target, Vec<pb::Sample>>::new();
        let mut hosts = BTreeMap::<String, Vec<Target>>::new();
        for sample in std::mem::take(&mut self.forward) {
            let of = |from: &str| {
                let from = from.parse().ok();
                let chosen = from.map(|from| sponsored(snapshot, &from)).unwrap_or_default();
                chosen
                    .into_iter()
                    .filter_map(|host| Some(snapshot.member(host)?.record.target.clone()))
                    .collect()
            };
            for host in hosts.entry(sample.from.clone()).or_insert_with_key(|from| of(from)) {
                by_host.entry(host.clone()).or_default().push(sample.clone());
            }
        }
        for (target, samples) in by_host {
            // What does not reach a host that is slow or gone comes to it by others, or by the
            // guest itself.
            if !self.forwarding.insert(target.clone()) {
                continue;
            }
            let context = self.context.clone();
            tasks.spawn(async move {
                for page in pages(samples) {
                    if !pushed(context.links(), &target, page).await {
                        break;
                    }
                }
                Done::Forwarded(target)
            });
        }
    }

    /// Has a guest begin a new life: what was reported of this one cannot be outdone. One of ours
    /// does that by itself.
    fn renew(&self, guest: &Record, tasks: &mut JoinSet<Done>) {
        let next = Arc::new(record(&guest.name, &guest.target, guest.incarnation.next()));
        let driver = self.driver.clone();
        tasks.spawn(async move {
            ask(&driver, Request::Join(next)).await;
            Done::Renewed
        });
    }
}

/// The row of a guest as it would gossip it itself. A roster is taken once a row waits for it.
pub(super) fn gossip_of(
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

/// Asks our own core as if a peer did.
async fn ask(driver: &mpsc::Sender<Arrived>, request: Request) -> Option<Response> {
    let (reply, answer) = oneshot::channel();
    // Peers wait for no place there, and neither do we.
    driver.try_send(Arrived { request, names: None, reply }).ok()?;
    answer.await.ok()?.ok()
}

/// Has the core let a guest in: it dials back, as it does with every joiner.
async fn let_in(
    driver: &mpsc::Sender<Arrived>,
    snapshot: &Snapshot,
    name: &NodeName,
    target: &Target,
) -> Option<Response> {
    let joiner = record_for(name, target, snapshot.member(name));
    match ask(driver, Request::Join(Arc::new(joiner))).await {
        // A goodbye or a larger incarnation was reported in between.
        Some(Response::Join(JoinAnswer::Outdated(held))) => {
            ask(driver, Request::Join(Arc::new(record(name, target, held.next())))).await
        }
        answer => answer,
    }
}

/// Finds out what a node speaks that somebody told of, and has it let in.
async fn find(
    context: &Context,
    driver: &mpsc::Sender<Arrived>,
    snapshot: &Snapshot,
    name: &NodeName,
    target: &Target,
) -> Looked {
    let answer = match context.find(target, Some(name)).await {
        // One of ours: gossip will bring it, or this is how islands meet.
        Ok(Found::Ours(record)) => ask(driver, Request::Join(record)).await,
        Ok(Found::Guest(Some(other))) if other != *name => return Looked::Another(other),
        Ok(Found::Guest(_)) => let_in(driver, snapshot, name, target).await,
        Ok(Found::Busy) | Err(_) => None,
    };
    match answer {
        // Where the name is held by a living one there is nothing to find out.
        Some(Response::Join(
            JoinAnswer::Admitted(_) | JoinAnswer::Yourself | JoinAnswer::NameTaken(_),
        )) => Looked::Settled,
        _ => Looked::Failed,
    }
}
