//! One core, driven by hand.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses a part of it"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    Answer, CallError, CallId, Config, Core, Exchange, Failure, Incarnation, Instance, Labels, Now,
    Output, ProbeId, ProbeReport, Record, Request, RequestId, Response, Status, Target, Time,
    Timing, Wall,
};

pub fn at(millis: u64) -> Now {
    Now {
        time: Time::from_micros((1 << 50) + millis * 1000),
        wall: Wall::from_unix_millis(1_700_000_000_000 + millis),
    }
}

pub fn record(name: &str) -> Arc<Record> {
    Arc::new(Record {
        mesh: canary_core::MeshName::default(),
        name: name.parse().unwrap(),
        target: Target::new(name, 8081).unwrap(),
        labels: Labels::default(),
        incarnation: Incarnation(1),
        instance: Instance(name.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte))),
    })
}

pub fn core(config: Config) -> Core {
    Core::new(
        config,
        "me".parse().unwrap(),
        Target::new("me", 8081).unwrap(),
        Labels::default(),
        1,
        at(0),
    )
}

/// The core is asked to admit `joiner`, and reaches it.
pub fn admit(core: &mut Core, joiner: &Arc<Record>, now: Now) {
    core.handle_request(RequestId(1), Request::Join(Arc::clone(joiner)), now);
    let calls: Vec<_> = orders(core).collect();
    for output in calls {
        if let Output::Call { id, request: Request::Identify, .. } = output {
            core.handle_response(id, Ok(Response::Identify(Arc::clone(joiner))), now);
        }
    }
}

/// What a probe finds out that is answered at once.
pub fn answer_of(whom: &Record) -> ProbeReport {
    let (name, incarnation, instance) = (whom.name.clone(), whom.incarnation, whom.instance);
    let millisecond = Duration::from_millis(1);
    let (resolve, connect, first_request) = (Duration::ZERO, millisecond, millisecond);
    let timing = Timing { resolve, connect, tls: None, first_request, request: None, kernel: None };
    ProbeReport::Answered { timing, name, incarnation, instance }
}

/// What `peer` says; what the core does about it stays in its output.
pub fn say(core: &mut Core, peer: &Record, exchange: Exchange, now: Now) {
    core.handle_request(
        RequestId(2),
        Request::Exchange(Box::new(Exchange { from: Some(peer.instance), ..exchange })),
        now,
    );
}

/// What `peer` says; what the core does about it at once does not matter here.
pub fn tell(core: &mut Core, peer: &Record, exchange: Exchange, now: Now) {
    say(core, peer, exchange, now);
    drain(core);
}

pub fn status(core: &Core, node: &Record, now: Now) -> Status {
    core.snapshot(now).members.iter().find(|member| member.record.name == node.name).unwrap().status
}

/// What the core has put out and nobody took yet.
pub fn orders(core: &mut Core) -> impl Iterator<Item = Output> + '_ {
    std::iter::from_fn(|| core.poll_output())
}

pub fn drain(core: &mut Core) {
    orders(core).for_each(drop);
}

/// The answer of who has no news.
pub fn nothing_new(exchange: &Exchange) -> Response {
    Response::Exchange(Box::new(Exchange {
        from: exchange.to,
        to: exchange.from,
        ..Exchange::default()
    }))
}

/// What becomes of a probe or a call that a core ordered.
#[derive(Clone, Debug)]
pub enum Deed {
    /// It is never answered.
    Nothing,
    /// The probe ends so.
    Probe(ProbeReport),
    /// The call ends so.
    Call(Result<Response, CallError>),
    /// That, after so many milliseconds.
    After(u64, Box<Self>),
}

impl Deed {
    pub fn after(self, millis: u64) -> Self {
        Self::After(millis, Box::new(self))
    }
}

/// All nodes are well: they answer probes, have no news, and say that they reach the node that
/// they are asked about.
pub fn well(output: &Output) -> Deed {
    match output {
        Output::Probe { whom, .. } => Deed::Probe(answer_of(whom)),
        Output::Call { request: Request::Exchange(exchange), .. } => {
            Deed::Call(Ok(nothing_new(exchange)))
        }
        Output::Call { request: Request::IndirectProbe(_), .. } => {
            Deed::Call(Ok(Response::IndirectProbe(Answer::Reached)))
        }
        _ => Deed::Nothing,
    }
}

/// A probe or a call that fails like this.
pub fn fails(output: &Output, failure: Failure) -> Deed {
    match output {
        Output::Probe { .. } => Deed::Probe(ProbeReport::Failed(failure)),
        Output::Call { .. } => Deed::Call(Err(CallError { failure, detail: String::new() })),
        _ => Deed::Nothing,
    }
}

/// The node that a probe or a call is for.
pub fn whom(output: &Output) -> Option<&Arc<Record>> {
    match output {
        Output::Probe { whom, .. } => Some(whom),
        Output::Call { whom, .. } => whom.as_ref(),
        _ => None,
    }
}

/// Drives a core as a driver would, in a world in which `deed` says what becomes of its orders.
pub struct World<F> {
    deed: F,
    /// What is still to come, by when, in order.
    open: BTreeMap<(u64, usize), (Order, Deed)>,
    orders: usize,
}

#[derive(Clone, Copy)]
enum Order {
    Probe(ProbeId),
    Call(CallId),
}

impl<F: FnMut(&Output, u64) -> Deed> World<F> {
    pub fn new(deed: F) -> Self {
        Self { deed, open: BTreeMap::new(), orders: 0 }
    }

    /// Probes that are still to end.
    pub fn probes_open(&self) -> usize {
        self.open.values().filter(|(order, _)| matches!(order, Order::Probe(_))).count()
    }

    /// It is `now`, in milliseconds: what is due happens.
    pub fn step(&mut self, core: &mut Core, now: u64) {
        while let Some(((due, number), (order, deed))) = self.open.pop_first() {
            if due > now {
                self.open.insert((due, number), (order, deed));
                break;
            }
            self.carry_out(core, order, deed, now);
        }
        core.handle_timeout(at(now));
        while let Some(output) = core.poll_output() {
            let order = match &output {
                Output::Probe { id, .. } => Order::Probe(*id),
                Output::Call { id, .. } => Order::Call(*id),
                _ => continue,
            };
            let deed = (self.deed)(&output, now);
            self.carry_out(core, order, deed, now);
        }
    }

    fn carry_out(&mut self, core: &mut Core, order: Order, deed: Deed, now: u64) {
        match (order, deed) {
            (Order::Probe(id), Deed::Probe(report)) => core.handle_probe(id, report, at(now)),
            (Order::Call(id), Deed::Call(result)) => core.handle_response(id, result, at(now)),
            (order, Deed::After(millis, deed)) => {
                self.orders += 1;
                self.open.insert((now + millis, self.orders), (order, *deed));
            }
            (_, Deed::Nothing) => {}
            (_, deed) => panic!("{deed:?} is no end of such an order"),
        }
    }
}

/// Lets time pass, from one time in milliseconds to another, in steps of 20.
pub fn play(core: &mut Core, from: u64, to: u64, deed: impl FnMut(&Output, u64) -> Deed) {
    let mut world = World::new(deed);
    (from..to).step_by(20).for_each(|now| world.step(core, now));
}
