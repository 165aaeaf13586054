//! Where the tasks of a bot that hosts guests leave what they want of the world, and find what
//! came of it: [`Network`] without sockets.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use canary_core::{
    CallError, CallId, Failure, NodeName, PendingJoin, Record, Request, Response, Snapshot, Target,
    Time,
};
use canary_guests::{Admission, Done, Network, Sample, Told, Unanswered};

use super::{Message, Reply};

/// What came of a task.
pub(super) enum Ended {
    /// Nobody waits for it.
    Alone,
    /// It carried out an order.
    Order(Option<Done>),
    /// It made a call for the core.
    Call(CallId, Result<Response, CallError>),
}

/// Something that a bot does beside other things.
pub(super) struct Task(Pin<Box<dyn Future<Output = Ended> + Send>>);

impl Task {
    pub(super) fn new(task: impl Future<Output = Ended> + Send + 'static) -> Self {
        Self(Box::pin(task))
    }

    /// Goes on as far as it can. It is polled again whenever something has come.
    pub(super) fn go_on(&mut self) -> Poll<Ended> {
        self.0.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }
}

impl Debug for Task {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}

/// What a task wants of the world. An answer to what has a number is delivered by it.
#[derive(Debug)]
pub(super) enum Wish {
    Call(u64, Target, Message),
    AskCore(u64, Request),
    Sleep(u64, Duration),
    Settle(u64, Target, Duration),
    Tell(Told),
    Publish(Vec<PendingJoin>),
    Spawn(Task),
}

/// What came of a wish.
#[derive(Debug)]
pub(super) enum Came {
    Answer(Result<Reply, Failure>),
    Response(Response),
    /// Time is over; whether all is as it was.
    Over(bool),
}

#[derive(Debug)]
struct State {
    now: Time,
    snapshot: Arc<Snapshot>,
    wishes: Vec<Wish>,
    /// What tasks wait for, and what came of it.
    awaited: BTreeMap<u64, Option<Came>>,
    next: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Desk(Arc<Mutex<State>>);

impl Desk {
    pub(super) fn new(snapshot: Snapshot, now: Time) -> Self {
        let snapshot = Arc::new(snapshot);
        let state = State { now, snapshot, wishes: Vec::new(), awaited: BTreeMap::new(), next: 0 };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time and what the core knows, for all that tasks do next.
    pub(super) fn set(&self, snapshot: Snapshot, now: Time) {
        let mut state = self.state();
        (state.snapshot, state.now) = (Arc::new(snapshot), now);
    }

    pub(super) fn take_wishes(&self) -> Vec<Wish> {
        std::mem::take(&mut self.state().wishes)
    }

    /// Delivers what came of a wish; whether anybody waits for it still.
    pub(super) fn deliver(&self, number: u64, came: Came) -> bool {
        let mut state = self.state();
        let place = state.awaited.get_mut(&number);
        place.map(|place| *place = Some(came)).is_some()
    }

    /// Whether a task still waits for what comes by this number.
    pub(super) fn is_awaited(&self, number: u64) -> bool {
        self.state().awaited.contains_key(&number)
    }

    fn wish(&self, wish: Wish) {
        self.state().wishes.push(wish);
    }

    fn awaits(&self, wish: impl FnOnce(u64) -> Wish) -> Awaited {
        let mut state = self.state();
        state.next += 1;
        let number = state.next;
        state.awaited.insert(number, None);
        state.wishes.push(wish(number));
        Awaited { desk: self.clone(), number }
    }

    async fn call(&self, target: &Target, message: Message) -> Result<Reply, CallError> {
        match self.awaits(|number| Wish::Call(number, target.clone(), message)).await {
            Came::Answer(answer) => answer.map_err(failed),
            Came::Response(_) | Came::Over(_) => unreachable!("calls are answered"),
        }
    }

    /// The own name and target.
    fn me(&self) -> (NodeName, Target) {
        let me = &self.state().snapshot.me;
        (me.name.clone(), me.target.clone())
    }
}

/// Ready once something was delivered.
#[derive(Debug)]
struct Awaited {
    desk: Desk,
    number: u64,
}

impl Future for Awaited {
    type Output = Came;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Came> {
        let came = self.desk.state().awaited.get_mut(&self.number).and_then(Option::take);
        came.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.desk.state().awaited.remove(&self.number);
    }
}

impl Network for Desk {
    type Connection = ();

    fn now(&self) -> Time {
        self.state().now
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.state().snapshot)
    }

    fn tell(&self, told: Told) -> bool {
        self.wish(Wish::Tell(told));
        true
    }

    fn publish(&self, pending: Vec<PendingJoin>) -> bool {
        self.wish(Wish::Publish(pending));
        true
    }

    fn found_stuck(&self, _: &Target, _: Option<&NodeName>, _: bool) {}

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.wish(Wish::Spawn(Task::new(async move {
            task.await;
            Ended::Alone
        })));
    }

    async fn sleep(&self, pause: Duration) {
        self.awaits(|number| Wish::Sleep(number, pause)).await;
    }

    async fn ask_core(&self, request: Request) -> Option<Response> {
        match self.awaits(|number| Wish::AskCore(number, request)).await {
            Came::Response(response) => Some(response),
            Came::Answer(_) | Came::Over(_) => None,
        }
    }

    async fn ask_ours(&self, target: &Target, request: Request) -> Result<Response, Unanswered> {
        match (self.call(target, Message::Identify).await?, request) {
            (Reply::Ours(record), Request::Identify) => Ok(Response::Identify(record)),
            (Reply::Unimplemented, _) => {
                Err(Unanswered { unimplemented: true, call: failed(Failure::Protocol) })
            }
            // One of ours has just taken the place of a guest: the core asks again.
            _ => Err(failed(Failure::Protocol).into()),
        }
    }

    async fn connect(&self, _: &Target) -> Result<(), CallError> {
        // Whether that is possible shows in the call that follows.
        Ok(())
    }

    async fn settles(&self, target: &Target, pause: Duration) -> bool {
        let settled = self.awaits(|number| Wish::Settle(number, target.clone(), pause));
        matches!(settled.await, Came::Over(true))
    }

    async fn join(&self, (): (), target: &Target) -> Result<Admission, CallError> {
        let (name, at) = self.me();
        match self.call(target, Message::Join(name, at)).await? {
            Reply::Joined(name, nodes) => {
                Ok(Admission { is_unique: true, name: name.as_str().to_owned(), nodes })
            }
            Reply::NotUnique => {
                Ok(Admission { is_unique: false, name: String::new(), nodes: Vec::new() })
            }
            _ => Err(failed(Failure::Protocol)),
        }
    }

    async fn ping(&self, target: &Target) -> Result<(), CallError> {
        let (name, at) = self.me();
        self.call(target, Message::Ping(name, at)).await.map(drop)
    }

    async fn rtt(&self, target: &Target) -> Result<(), CallError> {
        self.call(target, Message::Rtt).await.map(drop)
    }

    async fn discover(&self, target: &Target, member: &Record) -> Result<(), CallError> {
        let message = Message::Discover(member.name.clone(), member.target.clone());
        self.call(target, message).await.map(drop)
    }

    async fn push(&self, target: &Target, samples: &[Sample]) -> Result<(), CallError> {
        if samples.is_empty() {
            return Ok(());
        }
        self.call(target, Message::Push(samples.to_vec())).await.map(drop)
    }
}

pub(super) fn failed(failure: Failure) -> CallError {
    CallError { failure, detail: failure.as_str().to_owned() }
}
