//! One core, driven by hand.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses a part of it"
)]

use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    Config, Core, Exchange, Incarnation, Instance, Labels, Now, Output, ProbeReport, Record,
    Request, RequestId, Response, Status, Target, Time, Timing, Wall,
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

/// The core is asked to let `joiner` in, and reaches it.
pub fn let_in(core: &mut Core, joiner: &Arc<Record>, now: Now) {
    core.handle_request(RequestId(1), Request::Join(Arc::clone(joiner)), now);
    let calls: Vec<_> = std::iter::from_fn(|| core.poll_output()).collect();
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

/// What `peer` says; what the core does about it at once is nobody's concern.
pub fn tell(core: &mut Core, peer: &Record, exchange: Exchange, now: Now) {
    say(core, peer, exchange, now);
    drain(core);
}

pub fn status(core: &Core, node: &Record, now: Now) -> Status {
    core.snapshot(now).members.iter().find(|member| member.record.name == node.name).unwrap().status
}

pub fn drain(core: &mut Core) {
    while core.poll_output().is_some() {}
}

/// The answer of who has no news.
pub fn nothing_new(exchange: &Exchange) -> Response {
    Response::Exchange(Box::new(Exchange {
        from: exchange.to,
        to: exchange.from,
        ..Exchange::default()
    }))
}
