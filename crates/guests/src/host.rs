//! Asks guests, tells them what they lack, and plays their part of `mesh.v2` for the core: one call
//! after the other. A [`Network`] carries the calls, so a simulator plays this very code.

use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    Answer, CallError, Exchange, Failure, JoinAnswer, MemberView, NodeName, PendingJoin, Record,
    Request, Response, Snapshot, Status, Target, Time,
};
use tokio::sync::{Notify, Semaphore};

use crate::answers;
use crate::guest::{guest_at, is_guest, rank, record, record_for};
use crate::hosting::{Done, Informed, Looked, Order, Sign, Told};
use crate::joins::{JOIN_PATIENCE, JOIN_TIMEOUT, Joined, Joins, Turn, Who};
use crate::samples::{Sample, news_of};

/// Guests that are asked who they are at once: each may answer with half a megabyte.
const ASKED_AT_ONCE: usize = 16;
/// How long a connection to a guest has been there before it is asked to admit us: one that
/// started just now may wait for an answer to its own joining, and never wakes if it is asked
/// before that.
const SETTLED: Duration = Duration::from_secs(10);
/// How long one candidate, and one call to a guest, may take.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// Samples of one page that is pushed to a guest: it stores some thousands a second and gives up
/// after three seconds.
pub const PAGE_SAMPLES_MAX: usize = 10_000;

/// What a host needs of the world: calls to peers and to its own core, and time.
pub trait Network: Clone + Send + Sync + 'static {
    /// To a guest.
    type Connection: Send;

    /// The time now.
    fn now(&self) -> Time;

    /// What the own core knows.
    fn snapshot(&self) -> Arc<Snapshot>;

    /// Has the bot's [`Hosting`](crate::Hosting) hear something; whether there is room for it.
    fn tell(&self, told: Told) -> bool;

    /// Publishes where this bot waits for guests; whether there is room for it.
    fn publish(&self, pending: Vec<PendingJoin>) -> bool;

    /// A guest got stuck, or recovered, and no other bot has said so; `guest` is its name, if that is
    /// known.
    fn found_stuck(&self, target: &Target, guest: Option<&NodeName>, is_stuck: bool);

    /// Runs something beside this.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// Waits for `pause`.
    fn sleep(&self, pause: Duration) -> impl Future<Output = ()> + Send;

    /// Asks the own core as if a peer did; none if it has no time.
    fn ask_core(&self, request: Request) -> impl Future<Output = Option<Response>> + Send;

    /// Asks a peer in our own protocol.
    fn ask_ours(
        &self,
        target: &Target,
        request: Request,
    ) -> impl Future<Output = Result<Response, Unanswered>> + Send;

    /// Connects to a guest, or finds a connection.
    fn connect(
        &self,
        target: &Target,
    ) -> impl Future<Output = Result<Self::Connection, CallError>> + Send;

    /// Waits until the present connection to a guest is `pause` old. Tells whether it lasted.
    fn settles(&self, target: &Target, pause: Duration) -> impl Future<Output = bool> + Send;

    /// Calls `JoinMesh` of a guest. It may never answer.
    fn join(
        &self,
        connection: Self::Connection,
        target: &Target,
    ) -> impl Future<Output = Result<Admission, CallError>> + Send;

    /// Calls `Ping` of a guest.
    fn ping(&self, target: &Target) -> impl Future<Output = Result<(), CallError>> + Send;

    /// Calls `Rtt` of a guest.
    fn rtt(&self, target: &Target) -> impl Future<Output = Result<(), CallError>> + Send;

    /// Calls `NodeDiscovery` of a guest, with a member that it may not know.
    fn discover(
        &self,
        target: &Target,
        member: &Record,
    ) -> impl Future<Output = Result<(), CallError>> + Send;

    /// Calls `PushSamples` of a guest, or of one of ours, as often as it takes, each time for at most
    /// [`PATIENCE`].
    fn push(
        &self,
        target: &Target,
        samples: &[Sample],
    ) -> impl Future<Output = Result<(), CallError>> + Send;
}

/// Why a peer gave no answer of ours.
#[derive(Debug)]
pub struct Unanswered {
    /// It answered that it does not know our protocol.
    pub unimplemented: bool,
    /// What happened.
    pub call: CallError,
}

impl From<CallError> for Unanswered {
    fn from(call: CallError) -> Self {
        Self { unimplemented: false, call }
    }
}

/// What a guest answers to `JoinMesh`.
#[derive(Clone, Debug)]
pub struct Admission {
    /// It knows no other node by our name.
    pub is_unique: bool,
    /// What it says that its own name is; empty if it does not say.
    pub name: String,
    /// Whom it knows.
    pub nodes: Vec<(NodeName, Target)>,
}

/// What answers at an address.
enum Found {
    /// One of ours.
    Ours(Arc<Record>),
    /// A guest of this name; none if it holds our name for another's, and does not tell.
    Guest(Option<NodeName>),
    /// One of ours that has no time to say who it is.
    Busy,
}

/// A bot of ours as guests and the own core see it. Clones share everything.
#[derive(Clone, Debug)]
pub struct Host<N> {
    network: N,
    joins: Arc<Joins>,
    /// A call of `JoinMesh` has ended.
    ended: Arc<Notify>,
    asking: Arc<Semaphore>,
    /// Peers are asked in our own protocol first.
    speaks_ours: bool,
}

/// For the driver.
impl<N: Network> Host<N> {
    /// A host that remembers in `joins` where it asked.
    pub fn new(network: N, joins: Arc<Joins>, speaks_ours: bool) -> Self {
        let asking = Arc::new(Semaphore::new(ASKED_AT_ONCE));
        Self { network, joins, ended: Arc::default(), asking, speaks_ours }
    }

    /// Carries out an order, and says what came of it. Orders that are [in
    /// turn](Order::is_in_turn) are carried out one after the other, in the order in which they come.
    pub async fn carry_out(&self, order: Order) -> Option<Done> {
        match order {
            Order::Look { name, target } => {
                let looked = self.within(PATIENCE, self.look(&name, &target)).await;
                Some(Done::Looked(name, looked.unwrap_or(Looked::Failed)))
            }
            Order::AskAgain(target) => {
                // What the guest answers is kept, however long that takes.
                let _ = self.within(PATIENCE, self.find(&target, None)).await;
                None
            }
            Order::Gossip(exchange) => {
                self.network.ask_core(Request::Exchange(exchange)).await;
                None
            }
            Order::Renew(next) => {
                self.network.ask_core(Request::Join(next)).await;
                None
            }
            Order::Push { guest, discover, mut informed } => {
                // What it answers to a joiner is heard on the way.
                let answers = if discover {
                    let joined = self.admitted(&guest.target, JOIN_TIMEOUT).await;
                    matches!(joined, Ok(Joined::As(_) | Joined::Unnamed))
                } else {
                    !self.joins.waits(&self.network.snapshot(), &guest.target, self.network.now())
                };
                if answers && discover {
                    informed.let_us_in();
                }
                if answers {
                    self.inform(&guest, &mut informed).await;
                }
                Some(Done::Pushed(guest, informed))
            }
            Order::Forward { host, samples } => {
                // What does not arrive comes by others, or by the guest itself.
                let _ = self.network.push(&host, &samples).await;
                Some(Done::Forwarded(host))
            }
            Order::Pending(pending) => (!self.network.publish(pending)).then_some(Done::Untold),
        }
    }

    /// Asks a peer for the core: `whom` is meant, with its heartbeat as far as it is heard.
    ///
    /// # Errors
    ///
    /// When there is no answer that the core could use.
    pub async fn speak(
        &self,
        whom: Option<(Arc<Record>, u64)>,
        target: &Target,
        request: Request,
    ) -> Result<Response, CallError> {
        let guest = whom.filter(|(whom, _)| is_guest(whom));
        match (request, guest) {
            (request @ Request::Join(_), _) => self.join(target, request).await,
            (Request::Identify, guest) => {
                self.identify(guest.map(|(guest, _)| guest), target).await
            }
            (Request::Exchange(exchange), Some((guest, heartbeat))) => {
                self.exchange(&guest, heartbeat, &exchange).await
            }
            // It cannot try others for us.
            (Request::IndirectProbe(_), Some(_)) => Ok(Response::IndirectProbe(Answer::Unknown)),
            (request, None) => {
                self.network.ask_ours(target, request).await.map_err(|error| error.call)
            }
        }
    }

    /// Whether another than this guest is known to be at its address by now.
    pub fn is_another(&self, guest: &Record) -> bool {
        match self.at(guest) {
            Some(Who::Ours(_)) => true,
            Some(Who::Guest(name)) => name != guest.name,
            None => false,
        }
    }
}

/// What answers at an address, and whether it admits us.
impl<N: Network> Host<N> {
    /// Finds out what answers at an address. Our protocol comes first, for a bot of ours may have
    /// taken the place of a guest. A stuck guest does not tell its name: `expected` is the name that
    /// others report.
    async fn find(&self, target: &Target, expected: Option<&NodeName>) -> Result<Found, CallError> {
        if self.speaks_ours {
            match self.network.ask_ours(target, Request::Identify).await {
                Ok(Response::Identify(record)) => {
                    self.joins.found_ours(target, Arc::clone(&record), self.network.now());
                    return Ok(Found::Ours(record));
                }
                Ok(Response::Busy) => return Ok(Found::Busy),
                Ok(_) => return Err(failed(target, "its answer does not fit the request")),
                Err(error) if error.unimplemented => {}
                Err(error) => {
                    self.joins.missed(target, error.call.failure);
                    return Err(error.call);
                }
            }
        }
        if let Some(name) = self.joins.guest_just_now(target, self.network.now()) {
            return Ok(Found::Guest(Some(name)));
        }
        match (self.admitted(target, JOIN_PATIENCE).await?, expected) {
            (Joined::As(name), _) => Ok(Found::Guest(Some(name))),
            (Joined::Unnamed, _) => Ok(Found::Guest(None)),
            (Joined::Stuck | Joined::Later, Some(name)) => {
                self.is_there(target).await?;
                // It answers by any name: the first one stays.
                let snapshot = self.network.snapshot();
                let known = guest_at(&snapshot, target).map(|guest| guest.record.name.clone());
                Ok(Found::Guest(Some(known.unwrap_or_else(|| name.clone()))))
            }
            (Joined::Stuck | Joined::Later, None) => {
                Err(failed(target, "it does not say who it is"))
            }
        }
    }

    /// Has a guest admit this bot, if it may be asked now, and waits so long for what comes of it.
    async fn admitted(&self, target: &Target, patience: Duration) -> Result<Joined, CallError> {
        let (snapshot, now) = (self.network.snapshot(), self.network.now());
        match self.joins.turn(target, self.joins.elsewhere(&snapshot, target, now), now) {
            // The caller may have less time than the guest. What came of it is kept.
            Turn::Ask => self.network.spawn({
                let (host, target) = (self.clone(), target.clone());
                async move { host.ask_to_admit(&target).await }
            }),
            Turn::UnderWay => {}
            Turn::Stuck => return Ok(Joined::Stuck),
            Turn::Elsewhere => return Ok(Joined::Later),
        }
        let outcome = async {
            loop {
                let ended = self.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if let Some(outcome) = self.joins.outcome(target) {
                    return outcome;
                }
                ended.await;
            }
        };
        self.within(patience, outcome).await.unwrap_or(Ok(Joined::Later))
    }

    /// Asks a guest to admit us, and keeps what came of it.
    async fn ask_to_admit(&self, target: &Target) {
        let outcome = self.admission(target).await;
        let snapshot = self.network.snapshot();
        let is_stuck = outcome == Ok(Joined::Stuck);
        // One line in the whole mesh is enough.
        let is_known = snapshot.pending().any(|(name, pending)| {
            pending.is_stuck() && pending.target == *target && *name != snapshot.me.name
        });
        if self.joins.ended(target, outcome, self.network.now()) && !is_known {
            let guest = guest_at(&snapshot, target).map(|guest| &guest.record.name);
            self.network.found_stuck(target, guest, is_stuck);
        }
        self.ended.notify_waiters();
    }

    /// Asks a guest to admit us. It tells its name, and whom it knows.
    async fn admission(&self, target: &Target) -> Result<Joined, CallError> {
        let _turn =
            self.asking.acquire().await.map_err(|_| failed(target, "this bot is leaving"))?;
        let connection = self.in_time(target, self.network.connect(target)).await?;
        let joining = self.network.join(connection, target);
        let Some(answer) = self.within(JOIN_TIMEOUT, joining).await else {
            self.is_there(target).await?;
            let snapshot = self.network.snapshot();
            return match guest_at(&snapshot, target).is_some_and(|guest| snapshot.measures(guest)) {
                // Its loops run, and it was slow this once.
                true => Err(late(target, JOIN_TIMEOUT)),
                false => Ok(Joined::Stuck),
            };
        };
        let Admission { is_unique, name, nodes } = answer?;
        let teller: Arc<str> = target.host().into();
        for (name, target) in nodes {
            // What does not fit is reported again.
            let (sign, teller) = (Sign::Hearsay, Arc::clone(&teller));
            self.network.tell(Told::Node { name, target, sign, teller });
        }
        match name.parse() {
            Ok(name) => Ok(Joined::As(name)),
            Err(_) if name.is_empty() && !is_unique => Ok(Joined::Unnamed),
            Err(_) => Err(failed(target, "its name is not valid")),
        }
    }

    /// Whether a bot of the original is there: it answers what it answers even if its loops are
    /// stuck.
    async fn is_there(&self, target: &Target) -> Result<(), CallError> {
        let asked = async {
            self.network.ping(target).await?;
            self.network.rtt(target).await
        };
        self.in_time(target, asked).await
    }

    /// The last known node at the address of a guest. One that nobody doubts is who it was: two of
    /// ours ask it all the time. Else it is asked in the background: a node that is slow to answer
    /// this may answer everything else.
    fn at(&self, guest: &Record) -> Option<Who> {
        let (snapshot, target) = (self.network.snapshot(), &guest.target);
        let is_unsound =
            |member: &MemberView| member.status != Status::Alive || member.record.target != *target;
        let claimed = || {
            snapshot
                .membership()
                .any(|member| member.record.target == *target && member.record.name != guest.name)
        };
        let is_doubted = snapshot.member(&guest.name).is_some_and(is_unsound) || claimed();
        let now = self.network.now();
        // A bot that yields its name does not use it.
        if snapshot.name_conflict().is_some() {
            return self.joins.at(target, now);
        }
        let (host, at) = (self.clone(), target.clone());
        if is_doubted && self.joins.look_again(target, now) {
            self.network.spawn(async move {
                if host.network.settles(&at, SETTLED).await {
                    let _ = host.within(PATIENCE, host.find(&at, None)).await;
                }
            });
        } else if !is_doubted && self.speaks_ours && self.joins.look_seldom(target, now) {
            self.network.spawn(async move {
                let asked = host.network.ask_ours(&at, Request::Identify);
                if let Some(Ok(Response::Identify(record))) = host.within(PATIENCE, asked).await {
                    host.joins.found_ours(&at, record, host.network.now());
                }
            });
        }
        self.joins.at(target, now)
    }
}

/// What the core asks.
impl<N: Network> Host<N> {
    async fn join(&self, target: &Target, request: Request) -> Result<Response, CallError> {
        if self.speaks_ours {
            match self.network.ask_ours(target, request).await {
                Err(error) if error.unimplemented => {}
                Err(error) => {
                    self.joins.missed(target, error.call.failure);
                    return Err(error.call);
                }
                Ok(answer) => {
                    self.joins.forget(target);
                    return Ok(answer);
                }
            }
        }
        let answer = |answer| Ok(Response::Join(answer));
        let (snapshot, now) = (self.network.snapshot(), self.network.now());
        // Others know it, or it said who it is a moment ago: it is enough that it is there.
        let said = match self.joins.at(target, now) {
            Some(Who::Guest(name)) => {
                snapshot.member(&name).filter(|member| is_guest(&member.record))
            }
            _ => None,
        };
        let known = said.or_else(|| guest_at(&snapshot, target));
        if let Some(guest) = known.filter(|guest| guest.status == Status::Alive) {
            self.is_there(target).await?;
            return answer(JoinAnswer::Admitted(Arc::clone(&guest.record)));
        }
        // Another of ours waits there: it is said why, and not whose turn it is.
        if self.joins.elsewhere(&snapshot, target, now).is_none()
            && !self.joins.is_turn(target, rank(&snapshot, target), now)
        {
            if !self.speaks_ours {
                // Nothing was asked yet: somebody has to be there at all.
                self.in_time(target, self.network.connect(target)).await?;
            }
            return answer(JoinAnswer::InTurn);
        }
        let name = match self.admitted(target, JOIN_PATIENCE).await? {
            Joined::As(name) => name,
            Joined::Stuck => return answer(JoinAnswer::Stuck),
            Joined::Later => match self.joins.outcome(target) {
                Some(Err(error)) => return Err(error),
                _ => return answer(JoinAnswer::InTurn),
            },
            Joined::Unnamed => {
                let holds = "a bot of the original there holds our name for another target; it forgets that some time after nobody is there";
                return answer(JoinAnswer::Unreachable(holds.to_owned()));
            }
        };
        answer(answers::admitted(&self.network.snapshot(), &name, target))
    }

    async fn identify(
        &self,
        guest: Option<Arc<Record>>,
        target: &Target,
    ) -> Result<Response, CallError> {
        let expected = guest.as_ref().map(|guest| &guest.name);
        let name = match self.find(target, expected).await? {
            Found::Ours(record) => return Ok(Response::Identify(record)),
            Found::Busy => return Ok(Response::Busy),
            Found::Guest(name) => {
                name.ok_or_else(|| failed(target, "it does not tell its name"))?
            }
        };
        let record = answers::identified(&self.network.snapshot(), &name, target, guest);
        Ok(Response::Identify(record))
    }

    /// Asks a guest whether it is there, and answers as it would: with its next heartbeat.
    async fn exchange(
        &self,
        guest: &Arc<Record>,
        heartbeat: u64,
        asked: &Exchange,
    ) -> Result<Response, CallError> {
        let target = &guest.target;
        match self.at(guest) {
            Some(Who::Ours(record)) => return Ok(Response::NotMe(record)),
            Some(Who::Guest(name)) if name != guest.name => {
                return Err(CallError {
                    failure: Failure::Identity,
                    detail: format!("{target}: it is {name} by now"),
                });
            }
            Some(Who::Guest(_)) | None => {}
        }
        self.network.ping(target).await?;
        if answers::is_spoiled(heartbeat) {
            self.network.tell(Told::Spoiled(Arc::clone(guest)));
        }
        let exchange = answers::sign_of_life(guest, heartbeat, asked.from);
        Ok(Response::Exchange(Box::new(exchange)))
    }
}

/// What is done for guests.
impl<N: Network> Host<N> {
    /// Finds out which protocol a reported node speaks, and has it admitted.
    async fn look(&self, name: &NodeName, target: &Target) -> Looked {
        let answer = match self.find(target, Some(name)).await {
            // One of ours: gossip will bring it, or this is how islands meet.
            Ok(Found::Ours(record)) => self.network.ask_core(Request::Join(record)).await,
            Ok(Found::Guest(Some(other))) if other != *name => return Looked::Another(other),
            Ok(Found::Guest(_)) => self.admit(name, target).await,
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

    /// Has the core admit a guest: it dials back, as it does with every joiner.
    async fn admit(&self, name: &NodeName, target: &Target) -> Option<Response> {
        let joiner = record_for(name, target, self.network.snapshot().member(name));
        match self.network.ask_core(Request::Join(Arc::new(joiner))).await {
            // A goodbye or a larger incarnation was reported in between.
            Some(Response::Join(JoinAnswer::Outdated(held))) => {
                let next = Arc::new(record(name, target, held.next()));
                self.network.ask_core(Request::Join(next)).await
            }
            answer => answer,
        }
    }

    /// Tells a guest of members and samples, and writes down how far it took them.
    async fn inform(&self, guest: &Record, informed: &mut Informed) {
        let (snapshot, target) = (self.network.snapshot(), &guest.target);
        for member in informed.members_to_tell(guest, &snapshot) {
            let told = self.in_time(target, self.network.discover(target, member)).await;
            if told.is_err() {
                informed.answers = false;
                return;
            }
            informed.told.insert(member.name.clone());
        }
        informed.forget_untold(&snapshot.me);
        let (rows, mut ahead, mut waiting) =
            (snapshot.members.len(), informed.progress.clone(), Vec::new());
        for row in 0..=rows {
            waiting.extend(news_of(row, &guest.name, &snapshot, &mut ahead));
            if waiting.len() < PAGE_SAMPLES_MAX && row < rows {
                continue;
            }
            if self.network.push(target, &std::mem::take(&mut waiting)).await.is_err() {
                return;
            }
            informed.progress.clone_from(&ahead);
        }
    }

    /// What comes within some time; none if nothing does.
    async fn within<T>(&self, limit: Duration, asked: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            answer = asked => Some(answer),
            () = self.network.sleep(limit) => None,
        }
    }

    /// What a guest answers in time.
    async fn in_time<T>(
        &self,
        target: &Target,
        asked: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        self.within(PATIENCE, asked).await.unwrap_or_else(|| Err(late(target, PATIENCE)))
    }
}

fn late(target: &Target, limit: Duration) -> CallError {
    CallError {
        failure: Failure::Timeout,
        detail: format!("{target} did not answer within {limit:?}"),
    }
}

fn failed(target: &Target, why: &str) -> CallError {
    CallError { failure: Failure::Protocol, detail: format!("{target}: {why}") }
}
