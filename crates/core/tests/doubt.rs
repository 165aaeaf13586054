//! What others' doubts may do to us.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    CallId, Config, Core, Exchange, Heard, Incarnation, Instance, Labels, Now, Output, Record, Request, RequestId, Response, Status,
    Suspicion, Target, Time, Wall,
};

fn at(millis: u64) -> Now {
    Now { time: Time::from_micros((1 << 50) + millis * 1000), wall: Wall::from_unix_millis(1_700_000_000_000 + millis) }
}

fn record(name: &str) -> Arc<Record> {
    Arc::new(Record {
        name: name.parse().unwrap(),
        target: Target::new(name, 8081).unwrap(),
        labels: Labels::default(),
        incarnation: Incarnation(1),
        instance: Instance(name.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte))),
    })
}

/// A core that let `peer` in and heard of `other` from it.
fn core_with_two() -> (Core, Arc<Record>, Arc<Record>) {
    let (peer, other) = (record("peer"), record("other"));
    let mut core = Core::new(Config::default(), "me".parse().unwrap(), Target::new("me", 8081).unwrap(), Labels::default(), 1, at(0));
    core.handle_request(RequestId(1), Request::Join(Arc::clone(&peer)), at(0));
    let mut dialled: Vec<CallId> = Vec::new();
    while let Some(output) = core.poll_output() {
        if let Output::Call { id, request: Request::Identify, .. } = output {
            dialled.push(id);
        }
    }
    core.handle_response(dialled[0], Ok(Response::Identify(Arc::clone(&peer))), at(0));
    let heard = Heard { record: Arc::clone(&other), heartbeat: 1, age: Duration::ZERO, left: false };
    tell(&mut core, &peer, Exchange { records: vec![heard], ..Exchange::default() }, at(0));
    (core, peer, other)
}

fn tell(core: &mut Core, peer: &Record, exchange: Exchange, now: Now) {
    core.handle_request(RequestId(2), Request::Exchange(Box::new(Exchange { from: Some(peer.instance), ..exchange })), now);
    drain(core);
}

fn drain(core: &mut Core) {
    while core.poll_output().is_some() {}
}

/// Lets time pass as a driver would, up to `millis`.
fn pass(core: &mut Core, from: u64, millis: u64) {
    for now in (from..=millis).step_by(20) {
        core.handle_timeout(at(now));
        drain(core);
    }
}

fn status(core: &Core, record: &Record, now: Now) -> Status {
    core.snapshot(now).members.iter().find(|member| member.record.name == record.name).unwrap().status
}

fn doubt(other: &Record, age_millis: u64) -> Vec<Suspicion> {
    vec![Suspicion { instance: other.instance, age: Duration::from_millis(age_millis), refused: true }]
}

#[test]
fn an_old_suspicion_leaves_time_to_refute_it_however_it_comes() {
    for range in [None, Some((0, u64::MAX))] {
        let (mut core, peer, other) = core_with_two();
        pass(&mut core, 20, 1600);
        tell(&mut core, &peer, Exchange { range, suspicions: doubt(&other, 1590), ..Exchange::default() }, at(1600));
        pass(&mut core, 1620, 2060);
        assert_eq!(status(&core, &other, at(2060)), Status::Suspect, "{range:?}");
        pass(&mut core, 2080, 2140);
        assert_eq!(status(&core, &other, at(2140)), Status::Dead, "{range:?}");
    }
}

#[test]
fn what_waited_for_a_paused_host_kills_nobody() {
    let (mut core, peer, other) = core_with_two();
    pass(&mut core, 20, 100);
    // Six seconds later it finds a suspicion that was told at some time meanwhile.
    tell(&mut core, &peer, Exchange { suspicions: doubt(&other, 1400), ..Exchange::default() }, at(6100));
    pass(&mut core, 6120, 6700);
    assert_eq!(status(&core, &other, at(6700)), Status::Alive);
}
