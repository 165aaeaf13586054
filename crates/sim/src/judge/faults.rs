//! What is broken, and what should be said of it.

use std::time::Duration;

use canary_core::{Config, Failure};
use canary_insight::Kind;

use super::{Blame, Mesh};
use crate::world::{HostId, Link, Starvation, target_of};

/// What a play expects to be said.
#[derive(Debug, Default)]
pub struct Expect {
    /// The culprits, and the kinds of incidents that are right for each.
    pub blames: Vec<(Blame, &'static [Kind])>,
    /// What may be said besides: true, but not the point.
    pub also: Vec<(Blame, &'static [Kind])>,
    /// Hosts that are cut off: they know nothing of what else is broken.
    pub cut_off: Vec<HostId>,
    /// Whom the fault hits.
    chosen: Vec<HostId>,
    /// Between whom it strikes.
    groups: (Vec<HostId>, Vec<HostId>),
}

type Act = fn(&mut Mesh, &mut Expect);

/// A fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Its name in tables.
    pub name: &'static str,
    /// Fewest nodes.
    pub nodes_min: usize,
    /// How many causes it has.
    pub causes: usize,
    /// Whether bots have to know first what is usual.
    pub needs_warmth: bool,
    /// Whether it takes hours to play, so that it is played only when it is asked for.
    pub is_long: bool,
    /// How the bots of the mesh are configured.
    pub config: fn() -> Config,
    /// Chooses whom it hits.
    pub choose: Act,
    /// Does it.
    pub act: Act,
    /// Undoes it.
    pub repair: Act,
}

impl Expect {
    /// Bots that should be among the observers.
    pub(super) fn watched(&self) -> Vec<HostId> {
        let (inside, outside) = &self.groups;
        self.chosen.iter().chain(inside.first()).chain(outside.first()).copied().collect()
    }

    /// Whether a host can know the culprit.
    pub(super) fn can_name(&self, observer: HostId, blame: &Blame) -> bool {
        !self.cut_off.contains(&observer) || *blame == Blame::Node(observer)
    }

    fn first(&self) -> HostId {
        self.chosen[0]
    }

    fn path(&self) -> (HostId, HostId) {
        (self.chosen[self.chosen.len() - 2], self.chosen[self.chosen.len() - 1])
    }

    fn blame_node(&mut self, id: HostId, kinds: &'static [Kind]) {
        self.blames.push((Blame::Node(id), kinds));
    }

    fn blame_first(&mut self, kinds: &'static [Kind]) {
        self.blame_node(self.first(), kinds);
    }

    fn blame_path(&mut self, kinds: &'static [Kind]) {
        let (a, b) = self.path();
        self.blames.push((Blame::Path(a, b), kinds));
    }

    fn blame_groups(&mut self, kinds: &'static [Kind]) {
        let (a, b) = self.groups.clone();
        self.blames.push((Blame::Groups(a, b), kinds));
    }
}

const DOWN: &[Kind] = &[Kind::BotDown, Kind::NodeUnreachable, Kind::HostCutOff];
const OUTBOUND: &[Kind] = &[Kind::OutboundBroken];
const INBOUND: &[Kind] = &[Kind::InboundBroken];
/// Nothing is accepted in either direction, so that the row is silent as well.
const REJECTED: &[Kind] =
    &[Kind::InboundBroken, Kind::OutboundBroken, Kind::NodeUnreachable, Kind::HostCutOff];
const PATH: &[Kind] = &[Kind::PathFailing];
const CUT: &[Kind] = &[Kind::Partition];

fn one(mesh: &mut Mesh, expect: &mut Expect) {
    expect.chosen = vec![mesh.any()];
}

fn two(mesh: &mut Mesh, expect: &mut Expect) {
    let first = mesh.any();
    expect.chosen = vec![first, mesh.any_but(&[first])];
}

fn three(mesh: &mut Mesh, expect: &mut Expect) {
    two(mesh, expect);
    let third = mesh.any_but(&expect.chosen);
    expect.chosen.push(third);
}

/// The last zone against all others, without some of both that stay bridges.
fn zone_but(mesh: &mut Mesh, expect: &mut Expect, bridges: usize) {
    let mut inside = mesh.zone(*mesh.zones.last().unwrap_or(&0));
    let mut outside = mesh.all_but(&inside);
    for at in 0..bridges {
        if at % 2 == 0 {
            outside.pop()
        } else {
            inside.pop()
        };
    }
    expect.groups = (inside, outside);
}

fn zone(mesh: &mut Mesh, expect: &mut Expect) {
    zone_but(mesh, expect, 0);
}

/// Four that have no label in common.
fn rack(mesh: &mut Mesh, expect: &mut Expect) {
    let start = mesh.rng.usize(3..mesh.zones.len() - 6);
    let rack: Vec<_> = [0, 1, 3, 5].map(|step| HostId(start + step)).to_vec();
    expect.groups = (rack.clone(), mesh.all_but(&rack));
}

fn each_pair(expect: &Expect, mut act: impl FnMut(HostId, HostId)) {
    for a in &expect.groups.0 {
        expect.groups.1.iter().for_each(|b| act(*a, *b));
    }
}

fn nothing(_: &mut Mesh, _: &mut Expect) {}

fn crash_first(mesh: &mut Mesh, expect: &mut Expect) {
    mesh.world.crash(expect.first());
    expect.blame_first(DOWN);
}

fn start_again(mesh: &mut Mesh, expect: &mut Expect) {
    for id in expect.chosen.clone() {
        if mesh.world.snapshot(id).is_none() {
            mesh.world.start(id, &[HostId(0), HostId(1), HostId(2)]);
        }
    }
}

/// Connections to the first and from it fail in these ways.
fn deny(
    mesh: &mut Mesh,
    expect: &mut Expect,
    inbound: Option<Failure>,
    outbound: Option<Failure>,
    kinds: &'static [Kind],
) {
    mesh.world.deny_inbound(expect.first(), inbound);
    mesh.world.deny_outbound(expect.first(), outbound);
    expect.blame_first(kinds);
}

fn allow(mesh: &mut Mesh, expect: &mut Expect) {
    for id in &expect.chosen {
        mesh.world.deny_inbound(*id, None);
        mesh.world.deny_outbound(*id, None);
    }
}

fn cut_groups(mesh: &mut Mesh, expect: &mut Expect) {
    each_pair(expect, |a, b| mesh.world.cut(a, b, true));
    expect.blame_groups(CUT);
}

fn join_groups(mesh: &mut Mesh, expect: &mut Expect) {
    each_pair(expect, |a, b| {
        mesh.world.cut(a, b, false);
        mesh.world.deny(a, b, None);
        mesh.world.deny(b, a, None);
        mesh.world.set_way(a, b, None);
    });
}

fn mend_path(mesh: &mut Mesh, expect: &mut Expect) {
    let (a, b) = expect.path();
    mesh.world.cut(a, b, false);
    mesh.world.deny(a, b, None);
    mesh.world.set_way(a, b, None);
}

const fn slow() -> Link {
    Link {
        delay: Duration::from_millis(40),
        jitter: Duration::from_micros(200),
        loss: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
    }
}

const fn lossy() -> Link {
    Link { delay: Duration::from_micros(500), loss: 0.15, ..slow() }
}

const fn fault(name: &'static str, choose: Act, act: Act, repair: Act) -> Fault {
    Fault {
        name,
        nodes_min: 5,
        causes: 1,
        needs_warmth: false,
        is_long: false,
        config: Config::default,
        choose,
        act,
        repair,
    }
}

const fn warm(fault: Fault) -> Fault {
    Fault { needs_warmth: true, ..fault }
}

const fn at_length(fault: Fault) -> Fault {
    Fault { is_long: true, ..fault }
}

/// In a mesh where news takes long to reach everybody, as in one of many hundreds: gossip may send
/// little more than the rows take.
const fn scarce(fault: Fault) -> Fault {
    let config = || Config { probe_rate_max: 10.0, gossip_rate_max: 8_000, ..Config::default() };
    Fault { nodes_min: 60, config, ..fault }
}

const fn double(fault: Fault) -> Fault {
    Fault { causes: 2, nodes_min: 8, ..fault }
}

const fn healthy(fault: Fault) -> Fault {
    Fault { causes: 0, ..fault }
}

const fn from(nodes_min: usize, fault: Fault) -> Fault {
    Fault { nodes_min, ..fault }
}

/// All faults: single ones, then double ones, then what is none.
pub const ALL: &[Fault] = &[
    fault("crash", one, crash_first, start_again),
    fault(
        "hang",
        one,
        |mesh, expect| {
            mesh.world.pause(expect.first());
            expect.blame_first(DOWN);
        },
        |mesh, expect| mesh.world.resume(expect.first()),
    ),
    fault(
        "host gone",
        one,
        |mesh, expect| {
            mesh.world.silence(expect.first(), true);
            expect.blame_first(DOWN);
        },
        |mesh, expect| mesh.world.silence(expect.first(), false),
    ),
    fault(
        "isolated",
        one,
        |mesh, expect| {
            mesh.world.put_on_island(expect.first(), 1);
            expect.blame_first(DOWN);
        },
        |mesh, expect| mesh.world.put_on_island(expect.first(), 0),
    ),
    fault(
        "egress dropped",
        one,
        |mesh, expect| deny(mesh, expect, None, Some(Failure::Timeout), OUTBOUND),
        allow,
    ),
    fault(
        "ingress dropped",
        one,
        |mesh, expect| deny(mesh, expect, Some(Failure::Timeout), None, INBOUND),
        allow,
    ),
    fault(
        "ingress refused",
        one,
        |mesh, expect| deny(mesh, expect, Some(Failure::Refused), None, INBOUND),
        allow,
    ),
    fault(
        "resolver broken",
        one,
        |mesh, expect| deny(mesh, expect, None, Some(Failure::Dns), OUTBOUND),
        allow,
    ),
    fault(
        "ports exhausted",
        one,
        |mesh, expect| deny(mesh, expect, None, Some(Failure::Local), OUTBOUND),
        allow,
    ),
    fault(
        "certificate expired",
        one,
        |mesh, expect| deny(mesh, expect, Some(Failure::Tls), Some(Failure::Tls), REJECTED),
        allow,
    ),
    fault(
        "wrong token",
        one,
        |mesh, expect| deny(mesh, expect, Some(Failure::Auth), Some(Failure::Auth), REJECTED),
        allow,
    ),
    fault(
        "port reused",
        one,
        |mesh, expect| {
            let target = mesh.world.target(expect.first()).clone();
            mesh.world.crash(expect.first());
            mesh.world.add_at("newcomer", target, &[HostId(0), HostId(1), HostId(2)]);
            expect.blame_first(DOWN);
        },
        |mesh, expect| {
            let elsewhere = target_of(HostId(9_999));
            mesh.world.move_to(expect.first(), elsewhere);
            start_again(mesh, expect);
        },
    ),
    fault(
        "path refused",
        two,
        |mesh, expect| {
            let (a, b) = expect.path();
            mesh.world.deny(a, b, Some(Failure::Refused));
            expect.blame_path(PATH);
        },
        mend_path,
    ),
    fault(
        "path dropped",
        two,
        |mesh, expect| {
            let (a, b) = expect.path();
            mesh.world.deny(a, b, Some(Failure::Timeout));
            expect.blame_path(PATH);
        },
        mend_path,
    ),
    fault(
        "path cut",
        two,
        |mesh, expect| {
            let (a, b) = expect.path();
            mesh.world.cut(a, b, true);
            expect.blame_path(PATH);
        },
        mend_path,
    ),
    fault(
        "path flaps",
        two,
        |mesh, expect| {
            let (a, b) = expect.path();
            expect.blame_path(PATH);
            for _ in 0..3 {
                mesh.world.cut(a, b, true);
                mesh.run(Duration::from_secs(20));
                mesh.world.cut(a, b, false);
                mesh.run(Duration::from_secs(20));
            }
            mesh.world.cut(a, b, true);
        },
        mend_path,
    ),
    fault("zone cut", zone, cut_groups, join_groups),
    scarce(fault("zone cut, gossip scarce", zone, cut_groups, join_groups)),
    scarce(fault(
        "cut with 1 bridge, gossip scarce",
        |mesh, expect| zone_but(mesh, expect, 1),
        cut_groups,
        join_groups,
    )),
    fault(
        "zone denied one way",
        zone,
        |mesh, expect| {
            each_pair(expect, |a, b| mesh.world.deny(b, a, Some(Failure::Timeout)));
            expect.blame_groups(&[Kind::OneWay]);
        },
        join_groups,
    ),
    from(
        8,
        fault(
            "cut with 1 bridge",
            |mesh, expect| zone_but(mesh, expect, 1),
            cut_groups,
            join_groups,
        ),
    ),
    from(
        8,
        fault(
            "cut with 1 bridge, refused",
            |mesh, expect| zone_but(mesh, expect, 1),
            |mesh, expect| {
                each_pair(expect, |a, b| {
                    mesh.world.deny(a, b, Some(Failure::Refused));
                    mesh.world.deny(b, a, Some(Failure::Refused));
                });
                expect.blame_groups(CUT);
            },
            join_groups,
        ),
    ),
    from(
        20,
        fault(
            "cut with 3 bridges",
            |mesh, expect| zone_but(mesh, expect, 3),
            cut_groups,
            join_groups,
        ),
    ),
    from(
        100,
        fault(
            "cut with 10 bridges",
            |mesh, expect| zone_but(mesh, expect, 10),
            cut_groups,
            join_groups,
        ),
    ),
    from(20, fault("rack cut", rack, cut_groups, join_groups)),
    warm(fault(
        "slow node",
        one,
        |mesh, expect| {
            mesh.world.set_way_of(expect.first(), Some(slow()));
            expect.blame_first(&[Kind::NodeSlow]);
        },
        |mesh, expect| mesh.world.set_way_of(expect.first(), None),
    )),
    warm(fault(
        "slow zone pair",
        zone,
        |mesh, expect| {
            each_pair(expect, |a, b| mesh.world.set_way(a, b, Some(slow())));
            expect.blame_groups(&[Kind::GroupSlow]);
        },
        join_groups,
    )),
    warm(fault(
        "slow path",
        two,
        |mesh, expect| {
            let (a, b) = expect.path();
            mesh.world.set_way(a, b, Some(slow()));
            expect.blame_path(&[Kind::PathSlow]);
        },
        mend_path,
    )),
    warm(fault(
        "lossy uplink",
        one,
        |mesh, expect| {
            mesh.world.set_way_of(expect.first(), Some(lossy()));
            expect.blame_first(&[Kind::NodeLossy]);
        },
        |mesh, expect| mesh.world.set_way_of(expect.first(), None),
    )),
    warm(fault(
        "lossy zone pair",
        zone,
        |mesh, expect| {
            each_pair(expect, |a, b| mesh.world.set_way(a, b, Some(lossy())));
            expect.blame_groups(&[Kind::GroupLossy]);
        },
        join_groups,
    )),
    warm(fault(
        "starved observer",
        one,
        |mesh, expect| {
            let starvation =
                Starvation { run: Duration::from_millis(20), every: Duration::from_millis(400) };
            mesh.world.starve(expect.first(), Some(starvation));
            expect.blame_first(&[Kind::ObserverUnreliable, Kind::NodeSlow]);
        },
        |mesh, expect| mesh.world.starve(expect.first(), None),
    )),
    double(fault(
        "two crashes",
        two,
        |mesh, expect| {
            for id in expect.chosen.clone() {
                mesh.world.crash(id);
                expect.blame_node(id, DOWN);
            }
        },
        start_again,
    )),
    double(fault(
        "two hosts gone",
        two,
        |mesh, expect| {
            for id in expect.chosen.clone() {
                mesh.world.silence(id, true);
                expect.blame_node(id, DOWN);
                expect.cut_off.push(id);
            }
        },
        |mesh, expect| expect.chosen.iter().for_each(|id| mesh.world.silence(*id, false)),
    )),
    double(fault(
        "crash and path",
        three,
        |mesh, expect| {
            crash_first(mesh, expect);
            let (a, b) = expect.path();
            mesh.world.cut(a, b, true);
            expect.blame_path(PATH);
        },
        |mesh, expect| {
            mend_path(mesh, expect);
            start_again(mesh, expect);
        },
    )),
    double(fault(
        "egress and crash",
        two,
        |mesh, expect| {
            deny(mesh, expect, None, Some(Failure::Dns), OUTBOUND);
            mesh.world.crash(expect.chosen[1]);
            expect.blame_node(expect.chosen[1], DOWN);
        },
        |mesh, expect| {
            allow(mesh, expect);
            start_again(mesh, expect);
        },
    )),
    double(fault(
        "crash, then zone cut",
        |mesh, expect| {
            zone(mesh, expect);
            // Not a bot that others join at, and not one of the zone.
            let spared: Vec<_> =
                expect.groups.0.iter().copied().chain((0..3).map(HostId)).collect();
            expect.chosen = vec![mesh.any_but(&spared)];
        },
        |mesh, expect| {
            crash_first(mesh, expect);
            mesh.run(Duration::from_secs(20));
            let victim = expect.first();
            expect.groups.1.retain(|id| *id != victim);
            cut_groups(mesh, expect);
        },
        |mesh, expect| {
            join_groups(mesh, expect);
            start_again(mesh, expect);
        },
    )),
    double(fault(
        "cascade",
        two,
        |mesh, expect| {
            for id in expect.chosen.clone() {
                mesh.world.crash(id);
                expect.blame_node(id, DOWN);
                mesh.run(Duration::from_secs(10));
            }
        },
        start_again,
    )),
    healthy(fault(
        "rolling restart",
        nothing,
        |mesh, _| {
            for id in (0..mesh.zones.len().min(8)).map(HostId) {
                mesh.world.leave(id);
                mesh.run(Duration::from_secs(4));
                let seeds: Vec<_> = (0..3).map(HostId).filter(|seed| *seed != id).collect();
                mesh.world.start(id, &seeds);
                mesh.run(Duration::from_secs(4));
            }
        },
        nothing,
    )),
    healthy(fault(
        "killed and back in 3 s",
        one,
        |mesh, expect| {
            mesh.world.crash(expect.first());
            mesh.run(Duration::from_secs(3));
            start_again(mesh, expect);
        },
        nothing,
    )),
    healthy(fault(
        "scale up by half",
        nothing,
        |mesh, _| {
            let count = mesh.zones.len();
            (count..count + count / 2).for_each(|index| mesh.join(index));
        },
        nothing,
    )),
    healthy(fault(
        "scale down by half",
        nothing,
        |mesh, _| {
            let count = mesh.zones.len();
            (count - count / 2..count).for_each(|index| mesh.world.leave(HostId(index)));
        },
        nothing,
    )),
    healthy(warm(at_length(fault(
        "a week of health",
        |mesh, _| {
            mesh.world.set_link(Link {
                delay: Duration::from_millis(10),
                loss: 0.0005,
                ..Link::default()
            });
            // Nobody takes what was measured before that for usual.
            mesh.world.run(Duration::from_secs(40));
        },
        |mesh, _| {
            for step in 0..7 * 24 * 12 {
                let share = (f64::from(step) / (24.0 * 12.0) * std::f64::consts::TAU).sin();
                let delay = Duration::from_secs_f64(0.010 * 1.5f64.powf(share));
                mesh.world.set_link(Link { delay, loss: 0.0005, ..Link::default() });
                mesh.run(Duration::from_secs(300));
            }
        },
        nothing,
    )))),
    healthy(warm(fault(
        "latency by day and night",
        |mesh, _| {
            mesh.world.set_link(Link { delay: Duration::from_millis(10), ..Link::default() });
            // Nobody takes what was measured before that for usual.
            mesh.world.run(Duration::from_secs(40));
        },
        |mesh, _| {
            // The swing of a day in two hours.
            for step in 0..360 {
                let share = (f64::from(step) / 360.0 * std::f64::consts::TAU).sin();
                let delay = Duration::from_secs_f64(0.010 * 1.5f64.powf(share));
                mesh.world.set_link(Link { delay, ..Link::default() });
                mesh.run(Duration::from_secs(20));
            }
        },
        nothing,
    ))),
    healthy(warm(fault(
        "1 % loss",
        nothing,
        |mesh, _| {
            mesh.world.set_link(Link { loss: 0.01, ..Link::default() });
            mesh.run(Duration::from_secs(240));
        },
        nothing,
    ))),
];
