//! What a host that does not keep up spares: many bots may share it, and must not drown each other.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    Answer, Config, Core, Entry, Exchange, Failure, Heard, JoinAnswer, Now, Output, ProbeReport,
    Record, Request, RequestId, Response, Status, Suspicion,
};
use support::{
    Deed, World, admit, answer_of, at, core, fails, orders, play, record, say, status, tell, well,
    whom,
};

/// A core that admitted so many nodes, and has budget for all of them.
fn core_with(count: usize) -> (Core, Vec<Arc<Record>>) {
    core_configured(count, Config { probe_rate_max: 1000.0, ..Config::default() })
}

fn core_configured(count: usize, config: Config) -> (Core, Vec<Arc<Record>>) {
    let mut core = core(config);
    let nodes: Vec<_> = (0..count).map(|index| record(&format!("node-{index:02}"))).collect();
    for node in &nodes {
        admit(&mut core, node, at(0));
    }
    (core, nodes)
}

/// What the core did.
#[derive(Default)]
struct Done {
    probes: Vec<Arc<Record>>,
    exchanges: Vec<Exchange>,
}

/// Lets time pass as a driver would. Probes end as `report` says, at once; who has none answers
/// nothing; nobody has news.
fn drive(
    core: &mut Core,
    from: u64,
    to: u64,
    report: impl Fn(&Record) -> Option<ProbeReport>,
) -> Done {
    let mut done = Done::default();
    play(core, from, to, |output, _| match output {
        Output::Probe { whom, .. } => {
            done.probes.push(Arc::clone(whom));
            report(whom).map_or(Deed::Nothing, Deed::Probe)
        }
        Output::Call { request: Request::Exchange(exchange), .. }
            if whom(output).is_none_or(|whom| report(whom).is_some()) =>
        {
            done.exchanges.push((**exchange).clone());
            well(output)
        }
        _ => Deed::Nothing,
    });
    done
}

fn answered(whom: &Record) -> Option<ProbeReport> {
    Some(answer_of(whom))
}

fn spoiled(_: &Record) -> Option<ProbeReport> {
    Some(ProbeReport::Void)
}

/// Probes that are ordered by then, and not reported yet.
fn ordered(core: &mut Core, now: Now) -> Vec<(canary_core::ProbeId, Arc<Record>)> {
    core.handle_timeout(now);
    let probe = |output| match output {
        Output::Probe { id, whom, .. } => Some((id, whom)),
        _ => None,
    };
    orders(core).filter_map(probe).collect()
}

#[test]
fn so_many_probes_are_under_way_as_the_host_can_bear() {
    let (mut core, _) = core_with(60);
    let mut under_way = ordered(&mut core, at(200));
    assert_eq!(under_way.len(), 16);
    for (now, expected) in [(220, 8), (240, 4), (260, 2), (280, 1), (300, 1)] {
        for (id, _) in under_way.drain(..) {
            core.handle_probe(id, ProbeReport::Void, at(now));
        }
        under_way = ordered(&mut core, at(now));
        assert_eq!(under_way.len(), expected, "at {now}");
    }
    // Once it keeps up, all that waited is measured, more and more at once.
    let mut most = 0;
    for now in (320..3000).step_by(20) {
        most = most.max(under_way.len());
        for (id, whom) in under_way.drain(..) {
            core.handle_probe(id, answer_of(&whom), at(now));
        }
        under_way = ordered(&mut core, at(now));
    }
    let snapshot = core.snapshot(at(3000));
    assert!(snapshot.members.iter().all(|member| member.pair.main().latest().is_some()));
    assert!((4..60).contains(&most), "{most}");
}

#[test]
fn what_was_not_used_shows_nothing_of_what_the_host_can_bear() {
    let (mut core, _) = core_with(3);
    drive(&mut core, 20, 120_000, answered);
    for index in 0..50 {
        admit(&mut core, &record(&format!("more-{index:02}")), at(120_000));
    }
    assert_eq!(ordered(&mut core, at(120_200)).len(), 16);
}

#[test]
fn a_black_hole_holds_no_places_that_others_need() {
    let (mut core, nodes) = core_with(60);
    for now in (20..400).step_by(20) {
        for (id, _) in ordered(&mut core, at(now)) {
            core.handle_probe(id, ProbeReport::Void, at(now));
        }
    }
    // From now on the host keeps up, and half of the mesh is silent.
    let silent = |node: &Record| {
        nodes.iter().position(|other| other.name == node.name).is_some_and(|index| index % 2 == 0)
    };
    play(&mut core, 2000, 7500, |output, _| match output {
        output if whom(output).is_some_and(|whom| silent(whom)) => match output {
            Output::Probe { .. } => fails(output, Failure::Timeout).after(3000),
            _ => Deed::Nothing,
        },
        Output::Call { request: Request::IndirectProbe(_), .. } => Deed::Nothing,
        output => well(output),
    });
    let snapshot = core.snapshot(at(7500));
    let unmeasured = snapshot
        .members
        .iter()
        .filter(|member| member.pair.main().latest().is_none() && !silent(&member.record))
        .count();
    assert_eq!(unmeasured, 0);
}

#[test]
fn a_pair_that_waits_for_its_turn_gets_one_however_often_its_node_is_doubted() {
    let (mut core, nodes) = core_with(60);
    let mut under_way = ordered(&mut core, at(100));
    let mut had_turns = under_way.clone();
    // Until one at a time is left.
    for now in (110..190).step_by(10) {
        for (id, _) in under_way.drain(..) {
            core.handle_probe(id, ProbeReport::Void, at(now));
        }
        under_way = ordered(&mut core, at(now));
        had_turns.extend(under_way.clone());
    }
    let waits = nodes
        .iter()
        .skip(1)
        .find(|node| had_turns.iter().all(|(_, whom)| whom.name != node.name))
        .unwrap();
    for round in 0..10 {
        let now = 210 + 10 * round;
        let suspicions =
            vec![Suspicion { instance: waits.instance, age: Duration::ZERO, refused: false }];
        tell(&mut core, &nodes[0], Exchange { suspicions, ..Exchange::default() }, at(now));
        let entry = Entry {
            instance: waits.instance,
            changed: 0,
            heartbeat: 1000 + round,
            age: Duration::ZERO,
            left: false,
            version: 0,
        };
        tell(
            &mut core,
            &nodes[0],
            Exchange { entries: vec![entry], ..Exchange::default() },
            at(now + 5),
        );
        assert_eq!(ordered(&mut core, at(now + 9)).len(), 0);
    }
    for (id, whom) in under_way {
        core.handle_probe(id, answer_of(&whom), at(420));
    }
    // Before any call is overdue, and repeats probes for that.
    let done = drive(&mut core, 420, 1000, answered);
    assert_eq!(done.probes.iter().filter(|whom| whom.name == waits.name).count(), 1);
}

#[test]
fn the_less_a_host_keeps_up_the_later_it_tries_again() {
    let (mut core, nodes) = core_with(10);
    let first = drive(&mut core, 20, 3020, spoiled).probes.len();
    assert!(first >= nodes.len(), "{first}");
    drive(&mut core, 3020, 20_020, spoiled);
    let later = drive(&mut core, 20_020, 40_020, spoiled).probes.len();
    assert!((1..=3 * nodes.len()).contains(&later), "{later} probes in 20 s");
}

#[test]
fn news_waits_while_the_host_does_not_keep_up() {
    let pushes = |report: fn(&Record) -> Option<ProbeReport>| {
        let (mut core, nodes) = core_with(5);
        drive(&mut core, 20, 10_020, report);
        let mut pushed = 0;
        for round in 0..50 {
            let now = 10_020 + 100 * round;
            let heard = Heard {
                record: record(&format!("new-{round:02}")),
                changed: 0,
                heartbeat: 1,
                age: Duration::ZERO,
                left: false,
            };
            tell(
                &mut core,
                &nodes[0],
                Exchange { records: vec![heard], ..Exchange::default() },
                at(now),
            );
            let done = drive(&mut core, now, now + 100, report);
            pushed += done.exchanges.iter().filter(|exchange| !exchange.records.is_empty()).count();
        }
        pushed
    };
    let (busy, calm) = (pushes(spoiled), pushes(answered));
    assert!(busy > 0 && busy * 5 < calm, "{busy} pushes, else {calm}");
}

#[test]
fn a_host_that_does_not_keep_up_still_refutes_at_once() {
    let (mut core, nodes) = core_with(5);
    drive(&mut core, 20, 10_020, spoiled);
    let me = core.record().instance;
    let heard =
        Heard { record: record("new"), changed: 0, heartbeat: 1, age: Duration::ZERO, left: false };
    tell(
        &mut core,
        &nodes[0],
        Exchange { records: vec![heard], ..Exchange::default() },
        at(10_020),
    );
    drive(&mut core, 10_020, 12_020, spoiled);
    // A push just now: the next one would wait.
    let suspicions = vec![Suspicion { instance: me, age: Duration::ZERO, refused: false }];
    tell(
        &mut core,
        &nodes[0],
        Exchange { suspicions: suspicions.clone(), ..Exchange::default() },
        at(12_020),
    );
    drive(&mut core, 12_020, 12_140, spoiled);
    tell(&mut core, &nodes[0], Exchange { suspicions, ..Exchange::default() }, at(12_140));
    let told = drive(&mut core, 12_140, 12_280, spoiled).exchanges;
    assert!(told.iter().any(|exchange| exchange.range.is_none()
        && exchange.entries.iter().any(|entry| entry.instance == me)));
}

#[test]
fn a_doubted_node_is_not_asked_by_who_does_not_keep_up() {
    for keeps_up in [true, false] {
        let (mut core, nodes) = core_with(40);
        drive(&mut core, 20, 1000, answered);
        let report = if keeps_up { answered } else { spoiled };
        drive(&mut core, 1000, 6000, report);
        let suspicions =
            vec![Suspicion { instance: nodes[1].instance, age: Duration::ZERO, refused: false }];
        say(&mut core, &nodes[0], Exchange { suspicions, ..Exchange::default() }, at(6000));
        let asked = orders(&mut core).any(|output| match output {
            Output::Call { whom, request: Request::Exchange(exchange), .. } => {
                whom.is_some_and(|whom| whom.name == nodes[1].name)
                    && !exchange.suspicions.is_empty()
            }
            _ => false,
        });
        assert_eq!(asked, keeps_up);
    }
}

#[test]
fn a_node_that_lives_again_is_measured_at_once_unless_the_host_does_not_keep_up_and_it_answered_just_now()
 {
    for keeps_up in [true, false] {
        // No exchange that is overdue has it dialled, and its second turn comes after all this.
        let (gossip_interval, probe_interval) = (Duration::from_secs(60), Duration::from_secs(20));
        let (mut core, nodes) =
            core_configured(3, Config { gossip_interval, probe_interval, ..Config::default() });
        let doubted = &nodes[1];
        let others = if keeps_up { answered } else { spoiled };
        let report =
            |whom: &Record| if whom.name == doubted.name { answered(whom) } else { others(whom) };
        drive(&mut core, 20, 4000, report);
        let suspicions =
            vec![Suspicion { instance: doubted.instance, age: Duration::ZERO, refused: true }];
        tell(&mut core, &nodes[0], Exchange { suspicions, ..Exchange::default() }, at(4000));
        // It answers nobody: it is for others to say that it lives.
        let dies = 4000 + 1520;
        drive(&mut core, 4000, dies, |whom| {
            (whom.name != doubted.name).then(|| others(whom)).flatten()
        });
        assert_eq!(status(&core, doubted, at(dies)), Status::Dead);
        let entry = Entry {
            instance: doubted.instance,
            changed: 0,
            heartbeat: 1000,
            age: Duration::ZERO,
            left: false,
            version: 0,
        };
        tell(
            &mut core,
            &nodes[0],
            Exchange { entries: vec![entry], ..Exchange::default() },
            at(dies),
        );
        assert_eq!(status(&core, doubted, at(dies)), Status::Alive);
        let probed =
            |done: Done| done.probes.iter().filter(|whom| whom.name == doubted.name).count();
        // First probes are spread over a tenth of a second, stretched by sixteen at most.
        let soon = if keeps_up { dies + 200 } else { dies + 1600 };
        assert_eq!(probed(drive(&mut core, dies, soon, report)), usize::from(keeps_up));
        assert!(probed(drive(&mut core, soon, dies + 400_000, report)) > 0);
    }
}

#[test]
fn a_member_is_admitted_again_without_being_dialled_unless_it_is_doubted() {
    let (mut core, nodes) = core_with(3);
    let joiner = &nodes[1];
    let joined = |core: &mut Core, now: Now| {
        support::drain(core);
        core.handle_request(RequestId(7), Request::Join(Arc::clone(joiner)), now);
        orders(core).collect::<Vec<_>>()
    };
    let outputs = joined(&mut core, at(100));
    assert!(
        matches!(
            &outputs[..],
            [Output::Reply { response: Response::Join(JoinAnswer::Admitted(_)), .. }]
        ),
        "{outputs:?}"
    );
    let suspicions =
        vec![Suspicion { instance: joiner.instance, age: Duration::ZERO, refused: true }];
    tell(&mut core, &nodes[0], Exchange { suspicions, ..Exchange::default() }, at(200));
    let outputs = joined(&mut core, at(220));
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, Output::Call { request: Request::Identify, .. })),
        "{outputs:?}"
    );
    // Our own latest probe of it failed, though nobody doubts it yet.
    let (mut failing, nodes) = core_with(3);
    let probes = ordered(&mut failing, at(200));
    let (id, whom) = probes.iter().find(|(_, whom)| whom.name == nodes[1].name).unwrap();
    failing.handle_probe(*id, ProbeReport::Failed(Failure::Timeout), at(220));
    assert_eq!(status(&failing, whom, at(220)), Status::Alive);
    let outputs = joined(&mut failing, at(220));
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, Output::Call { request: Request::Identify, .. })),
        "{outputs:?}"
    );
    // What it says of itself now is not what it answered with then.
    let moved = Arc::new(Record {
        target: canary_core::Target::new("elsewhere", 8081).unwrap(),
        ..(*nodes[2]).clone()
    });
    core.handle_request(RequestId(8), Request::Join(moved), at(240));
    let outputs: Vec<_> = orders(&mut core).collect();
    assert!(!outputs.iter().any(|output| matches!(output, Output::Reply { .. })), "{outputs:?}");
}

/// How many asks a host sends in twenty seconds about a node whose probes time out and whose
/// heartbeat arrives every second.
fn asks_about_a_node_that_flaps(report: impl Fn(&Record) -> Option<ProbeReport>) -> usize {
    let (mut core, nodes) = core_with(20);
    let (victim, peer) = (&nodes[0], &nodes[1]);
    drive(&mut core, 20, 6000, &report);
    let mut asks = 0;
    let mut world = World::new(|output: &Output, _| match output {
        Output::Probe { whom, .. } if whom.name != victim.name => {
            Deed::Probe(report(whom).unwrap())
        }
        Output::Call { request: Request::IndirectProbe(about), .. } => {
            asks += usize::from(*about == victim.instance);
            Deed::Call(Ok(Response::IndirectProbe(Answer::Failed(Failure::Timeout))))
        }
        output if whom(output).is_some_and(|whom| whom.name == victim.name) => {
            fails(output, Failure::Timeout)
        }
        output => well(output),
    });
    for now in (6000..26_000).step_by(20) {
        if now % 1000 == 0 {
            let beat = Entry {
                instance: victim.instance,
                version: 0,
                changed: 0,
                heartbeat: 10 + now / 1000,
                age: Duration::ZERO,
                left: false,
            };
            tell(&mut core, peer, Exchange { entries: vec![beat], ..Exchange::default() }, at(now));
        }
        world.step(&mut core, now);
    }
    asks
}

#[test]
fn a_host_that_does_not_keep_up_seldom_asks_about_a_node_that_flaps() {
    let (by_a_sound_host, by_a_starved_one) =
        (asks_about_a_node_that_flaps(answered), asks_about_a_node_that_flaps(spoiled));
    // Three peers each time: once, and then once in ten seconds.
    assert!(by_a_starved_one <= 9, "{by_a_starved_one} asks");
    assert!(by_a_sound_host > by_a_starved_one, "{by_a_sound_host} and {by_a_starved_one} asks");
}
