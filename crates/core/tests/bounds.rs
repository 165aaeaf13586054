//! What a peer can make a bot hold, send and do: each has a bound, and what is the bot's own is not
//! spent by others.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use canary_core::limits::{HEARD_PER_INTRODUCER_MAX, HOLDINGS_FLOOR, MEMBERS_MAX};
use canary_core::{
    Cell, Config, Core, Exchange, Failure, Frame, Heard, Incarnation, Instance, KernelTiming,
    Labels, Lines, NodeName, Output, ProbeReport, Record, Refusal, Request, RequestId, Response,
    Roster, RowNews, State, Status, Target, Wall,
};
use support::{Deed, admit, answer_of, at, core, drain, fails, play, record, tell, well};

fn refused(core: &Core, refusal: Refusal) -> u64 {
    core.snapshot(at(0)).refusals.of(refusal)
}

fn ghost(number: u64) -> Arc<Record> {
    let name = format!("ghost-{number}");
    let target =
        Target::new(&format!("192.0.2.{}", number % 250 + 1), 1000 + (number / 250) as u16)
            .unwrap();
    let (mesh, labels) = (canary_core::MeshName::default(), Labels::default());
    Arc::new(Record {
        mesh,
        name: name.parse().unwrap(),
        target,
        labels,
        incarnation: Incarnation(1),
        instance: Instance(1 << 40 | number),
    })
}

fn told(records: impl Iterator<Item = Arc<Record>>) -> Exchange {
    let heard =
        |record| Heard { record, changed: 0, heartbeat: 1, age: Duration::ZERO, left: false };
    Exchange { records: records.map(heard).collect(), ..Exchange::default() }
}

/// A row over a roster of its own: a few letters on the wire, and far more in memory.
fn row_of(source: &Record, number: u64, names: usize) -> Exchange {
    let roster = Roster::new(
        (0..names).map(|index| format!("{number:x}.{index:x}").parse::<NodeName>().unwrap()),
    );
    let frame = Arc::new(Frame::new(
        1,
        roster.id(),
        Wall::from_unix_millis(1),
        &vec![Cell::default(); names],
    ));
    let news = RowNews {
        source: source.instance,
        frame: Some((frame, Duration::ZERO)),
        patches: Vec::new(),
        age: Duration::ZERO,
    };
    Exchange { rows: vec![news], rosters: vec![roster], ..Exchange::default() }
}

#[test]
fn rows_of_names_that_never_answered_take_bounded_memory() {
    let (mut core, liar) = (core(Config::default()), record("liar"));
    admit(&mut core, &liar, at(0));
    tell(&mut core, &liar, told((0..400).map(ghost)), at(1));
    let mut largest = 0;
    for number in 0..400 {
        let Exchange { rows, rosters, .. } = row_of(&ghost(number), number, 4000);
        tell(&mut core, &liar, Exchange { rows, ..Exchange::default() }, at(2));
        tell(&mut core, &liar, Exchange { rosters, ..Exchange::default() }, at(2));
        let held: usize = core
            .snapshot(at(3))
            .members
            .iter()
            .filter_map(|member| member.row.as_ref()?.roster().cloned())
            .map(|roster| 48 * roster.names().len())
            .sum();
        largest = largest.max(held);
    }
    assert!(largest <= 2 * HOLDINGS_FLOOR, "{largest} bytes of rosters");
    assert!(refused(&core, Refusal::RowsFull) > 300);
    // Nothing more of ghosts fits: what a member that is known publishes has room all the same.
    for number in 400..600 {
        tell(&mut core, &liar, told(std::iter::once(ghost(number))), at(3));
        let Exchange { rows, rosters, .. } =
            row_of(&ghost(number), number, 1 + number as usize % 50);
        tell(&mut core, &liar, Exchange { rows, ..Exchange::default() }, at(3));
        tell(&mut core, &liar, Exchange { rosters, ..Exchange::default() }, at(3));
    }
    let Exchange { rows, rosters, .. } = row_of(&liar, 9999, 3);
    tell(&mut core, &liar, Exchange { rows, ..Exchange::default() }, at(3));
    tell(&mut core, &liar, Exchange { rosters, ..Exchange::default() }, at(3));
    assert!(core.snapshot(at(5000)).member(&liar.name).unwrap().row.is_some());
}

#[test]
fn names_that_never_answered_stretch_no_interval_and_are_in_no_list() {
    let (mut core, liar) = (core(Config::default()), record("liar"));
    admit(&mut core, &liar, at(0));
    let before = (core.pair_interval(), core.publish_interval(at(0).time));
    for round in 0..8 {
        tell(&mut core, &liar, told((round * 500..round * 500 + 500).map(ghost)), at(1 + round));
    }
    assert_eq!((core.pair_interval(), core.publish_interval(at(0).time)), before);
    let snapshot = core.snapshot(at(10));
    assert_eq!(
        snapshot.present().map(|member| member.record.name.as_str()).collect::<Vec<_>>(),
        ["liar"]
    );
    assert!(
        snapshot.members.len() <= HEARD_PER_INTRODUCER_MAX + 1
            && snapshot.unproven == snapshot.members.len() - 1
    );
}

#[test]
fn hearsay_takes_the_place_of_no_dead_node_that_answered_once() {
    let (mut core, heron) = (core(Config::default()), record("heron"));
    admit(&mut core, &heron, at(0));
    let liars: Vec<_> = (0..16).map(|number| record(&format!("liar-{number}"))).collect();
    for liar in &liars {
        admit(&mut core, liar, at(0));
    }
    drain(&mut core);
    // Heron dies.
    let doubt = canary_core::Suspicion {
        instance: heron.instance,
        age: Duration::from_secs(3),
        refused: true,
    };
    for millis in (0..=11_000).step_by(20) {
        core.handle_timeout(at(millis));
        drain(&mut core);
        if millis == 10_000 {
            tell(
                &mut core,
                &liars[0],
                Exchange { suspicions: vec![doubt], ..Exchange::default() },
                at(millis),
            );
        }
    }
    assert_eq!(support::status(&core, &heron, at(11_000)), Status::Dead);
    for (index, liar) in (0_u64..).zip(&liars) {
        tell(&mut core, liar, told((index * 500..index * 500 + 500).map(ghost)), at(11_001));
    }
    let snapshot = core.snapshot(at(11_002));
    assert!(snapshot.member(&heron.name).is_some() && snapshot.members.len() < MEMBERS_MAX);
    assert!(refused(&core, Refusal::UnprovenFull) > 0);
}

#[test]
fn what_others_ask_holds_back_neither_the_own_row_nor_the_own_digests() {
    let fat = |number: u64| {
        let labels = (0..16).map(|key| (format!("key-{key}"), "v".repeat(120)));
        Arc::new(Record { labels: Labels::new(labels).unwrap(), ..(*ghost(number)).clone() })
    };
    let (mut core, liar, honest) = (core(Config::default()), record("liar"), record("honest"));
    admit(&mut core, &liar, at(0));
    admit(&mut core, &honest, at(0));
    for number in 0..60 {
        tell(&mut core, &liar, told(std::iter::once(fat(number))), at(1));
    }
    let (mut digests, mut answered, mut probes) = (0, 0, BTreeMap::new());
    for millis in (100..30_000_u64).step_by(20) {
        if millis % 160 == 0 {
            let wants_records = (0..60).map(|number| fat(number).instance).collect();
            let question =
                Exchange { from: Some(liar.instance), wants_records, ..Exchange::default() };
            core.handle_request(
                RequestId(millis),
                Request::Exchange(Box::new(question)),
                at(millis),
            );
        }
        core.handle_timeout(at(millis));
        while let Some(output) = core.poll_output() {
            match output {
                Output::Reply { response: Response::Exchange(answer), .. } => {
                    answered += answer.packed_len();
                }
                Output::Call { id, request: Request::Exchange(exchange), .. } => {
                    digests += usize::from(exchange.range.is_some());
                    core.handle_response(id, Ok(support::nothing_new(&exchange)), at(millis));
                }
                Output::Probe { id, whom, .. } => {
                    probes.insert(id, whom);
                }
                _ => {}
            }
        }
        for (id, whom) in std::mem::take(&mut probes) {
            core.handle_probe(id, answer_of(&whom), at(millis));
        }
    }
    assert!(digests >= 55, "{digests} digests in 30 s, two a second are due");
    let share = Config::default().gossip_rate_max as usize / 2 * 30 + (1 << 20);
    assert!(answered < share, "{answered} bytes of answers");
    assert!(core.snapshot(at(30_000)).own_row.is_some());
}

/// The core has one member, `owl`; every probe of it ends with `report`.
fn measure(core: &mut Core, report: impl Fn(&Record) -> ProbeReport, until: u64) {
    play(core, 0, until, |output, _| match output {
        Output::Probe { whom, .. } => Deed::Probe(report(whom)),
        output => well(output),
    });
}

#[test]
fn a_pair_that_this_host_cannot_try_becomes_a_failure_that_nobody_else_is_blamed_for() {
    let (mut core, owl) = (core(Config::default()), record("owl"));
    admit(&mut core, &owl, at(0));
    measure(&mut core, |_| ProbeReport::Void, 60_000);
    let snapshot = core.snapshot(at(60_000));
    let seen = snapshot.member(&owl.name).unwrap();
    assert!(seen.pair.main().failures[usize::from(Failure::Local.code())] > 0);
    assert_eq!(seen.status, Status::Alive);
    let cell = snapshot.own_row.unwrap().cell_of(&owl.name).unwrap();
    assert_eq!(cell.state, State::Failed(Failure::Local));
}

#[test]
fn a_node_that_others_reach_and_this_bot_never_did_is_a_broken_pair_and_no_mere_name() {
    let (mut core, owl) = (core(Config::default()), record("owl"));
    admit(&mut core, &owl, at(0));
    tell(&mut core, &owl, told([ghost(1), ghost(2)].into_iter()), at(0));
    // Owl publishes that it reaches the first of both.
    let names = [ghost(1).name.clone(), ghost(2).name.clone()];
    let roster = Roster::new(names.clone());
    let reached = State::Ok {
        total: canary_core::LatencyCode::encode(Duration::from_millis(1)),
        request: None,
        jitter: None,
    };
    let cells = [Cell { state: reached, ..Cell::default() }, Cell::default()];
    let frame = Arc::new(Frame::new(1, roster.id(), Wall::from_unix_millis(1), &cells));
    let news = RowNews {
        source: owl.instance,
        frame: Some((frame, Duration::ZERO)),
        patches: Vec::new(),
        age: Duration::ZERO,
    };
    tell(&mut core, &owl, Exchange { rows: vec![news], ..Exchange::default() }, at(1));
    tell(&mut core, &owl, Exchange { rosters: vec![roster], ..Exchange::default() }, at(1));
    let report = |whom: &Record| {
        if whom.name == owl.name {
            answer_of(whom)
        } else {
            ProbeReport::Failed(Failure::Unreachable)
        }
    };
    measure(&mut core, report, 20_000);
    let snapshot = core.snapshot(at(20_000));
    let listed: Vec<_> = snapshot.nodes().map(|member| member.record.name.clone()).collect();
    assert!(listed.contains(&names[0]) && !listed.contains(&names[1]), "{listed:?}");
    let cell = snapshot.own_row.as_ref().unwrap().cell_of(&names[0]).unwrap();
    assert_eq!(cell.state, State::Failed(Failure::Unreachable));
}

#[test]
fn a_liar_that_vouches_for_its_ghosts_lists_few_of_them() {
    let (mut core, liar) = (core(Config::default()), record("liar"));
    admit(&mut core, &liar, at(0));
    tell(&mut core, &liar, told((0..100).map(ghost)), at(0));
    let roster = Roster::new((0..100).map(|number| ghost(number).name.clone()));
    let reached = State::Ok {
        total: canary_core::LatencyCode::encode(Duration::from_millis(1)),
        request: None,
        jitter: None,
    };
    let frame = Arc::new(Frame::new(
        1,
        roster.id(),
        Wall::from_unix_millis(1),
        &vec![Cell { state: reached, ..Cell::default() }; 100],
    ));
    let news = RowNews {
        source: liar.instance,
        frame: Some((frame, Duration::ZERO)),
        patches: Vec::new(),
        age: Duration::ZERO,
    };
    tell(&mut core, &liar, Exchange { rows: vec![news], ..Exchange::default() }, at(1));
    tell(&mut core, &liar, Exchange { rosters: vec![roster], ..Exchange::default() }, at(1));
    let report = |whom: &Record| {
        if whom.name == liar.name { answer_of(whom) } else { ProbeReport::Failed(Failure::Refused) }
    };
    measure(&mut core, report, 120_000);
    let listed = core.snapshot(at(120_000)).nodes().count();
    assert!(
        listed <= 1 + canary_core::limits::VOUCHED_MIN,
        "{listed} of a hundred ghosts are listed"
    );
}

#[test]
fn a_latency_that_contains_a_retransmission_is_marked() {
    let (mut core, owl) = (core(Config::default()), record("owl"));
    admit(&mut core, &owl, at(0));
    let report = |whom: &Record| match answer_of(whom) {
        ProbeReport::Answered { timing, name, incarnation, instance } => {
            let kernel = Some(KernelTiming {
                rtt: Duration::from_millis(1),
                retransmissions: 2,
                segments: 9,
            });
            ProbeReport::Answered {
                timing: canary_core::Timing { kernel, ..timing },
                name,
                incarnation,
                instance,
            }
        }
        other => other,
    };
    measure(&mut core, report, 15_000);
    let snapshot = core.snapshot(at(15_000));
    let cell = snapshot.own_row.as_ref().unwrap().cell_of(&owl.name).unwrap();
    assert_eq!(cell.retransmissions, 2);
    let pair = &snapshot.member(&owl.name).unwrap().pair;
    assert!(
        pair.main().successes > 2
            && pair.main().retransmissions == 2 * pair.main().successes
            && pair.main().segments == 9 * pair.main().successes
    );
}

#[test]
fn names_that_never_answered_are_in_the_row_of_a_young_bot_alone() {
    let lists_ghosts = |core: &mut Core, now: u64| {
        for step in (now..now + 1000).step_by(20) {
            core.handle_timeout(at(step));
            drain(core);
        }
        let row = core.snapshot(at(now + 1000)).own_row.expect("a row is published");
        let roster = row.roster().unwrap();
        (1..=20).any(|number| roster.position(&ghost(number).name).is_some())
    };
    let peer = record("peer");
    let young = || {
        let mut core = core(Config::default());
        admit(&mut core, &peer, at(0));
        core
    };
    let mut told_of_many = young();
    for few in 0..3 {
        tell(&mut told_of_many, &peer, told((few * 400..few * 400 + 400).map(ghost)), at(100));
    }
    assert!(!lists_ghosts(&mut told_of_many, 12_000), "one peer cannot make a roster long");
    let mut core = young();
    tell(&mut core, &peer, told((1..=10).map(ghost)), at(100));
    assert!(lists_ghosts(&mut core, 200), "all that start together have one roster");
    for now in (1200..90_000).step_by(20) {
        core.handle_timeout(at(now));
        drain(&mut core);
    }
    tell(&mut core, &peer, told((11..=20).map(ghost)), at(90_000));
    assert!(!lists_ghosts(&mut core, 90_000), "only a bot that started just now lists them");
}

#[test]
fn digests_of_a_large_mesh_are_of_equal_parts_and_two_in_a_row_of_everybody() {
    let mut core = core(Config::default());
    let peer = record("peer");
    admit(&mut core, &peer, at(0));
    drain(&mut core);
    tell(&mut core, &peer, told((1..=299).map(ghost)), at(0));
    // What changed lately comes on top of each.
    let mut ranges = Vec::new();
    play(&mut core, 20, 30_000, |output, now| {
        if let Output::Call { request: Request::Exchange(exchange), .. } = output
            && let Some(range) = exchange.range
            && now > 12_000
        {
            let lines = exchange.lines.as_ref().map_or(0, Lines::count);
            ranges.push((range.low(), range.high(), exchange.entries.len() + lines));
        }
        well(output)
    });
    assert!(ranges.len() > 20, "{} digests", ranges.len());
    for pair in ranges.windows(2) {
        let [(low, high, entries), (next, end, others)] = pair else { panic!("two") };
        let goes_on = high.0.checked_add(1) == Some(next.0) && *end == Instance(u64::MAX);
        let begins = *high == Instance(u64::MAX) && *next == Instance(0);
        assert!(goes_on || begins, "from {low:?} to {high:?}, then from {next:?} to {end:?}");
        assert!((150..=152).contains(entries) && (150..=152).contains(others), "{pair:?}");
    }
}

#[test]
fn a_host_that_slept_for_days_dials_those_that_seem_dead_when_it_wakes() {
    let mut core = core(Config::default());
    let (peer, owl) = (record("peer"), record("owl"));
    for node in [&peer, &owl] {
        admit(&mut core, node, at(0));
    }
    play(&mut core, 20, 10_000, |output, _| well(output));
    // Its network is back later than its loop.
    let woken = 3 * 24 * 3600 * 1000;
    play(&mut core, woken, woken + 20_000, |output, _| fails(output, Failure::Timeout));
    let held = core.snapshot(at(woken + 20_000)).members.len();
    assert_eq!(held, 2, "it would be alone for good");
    play(&mut core, woken + 20_000, woken + 60_000, |output, _| well(output));
    let snapshot = core.snapshot(at(woken + 60_000));
    assert!(snapshot.members.iter().all(|member| member.status == Status::Alive));
}
