//! What others' doubts may do to us.

#![allow(clippy::unwrap_used)]

mod support;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    Answer, Config, Core, Entry, Exchange, Failure, Heard, Now, Output, Record, Request, RequestId,
    Response, Status, Suspicion,
};
use support::{
    Deed, World, admit, answer_of, at, core, drain, fails, orders, play, record, say, status, tell,
    well, whom,
};

/// A core that admitted `peer` and knows `other` from it.
fn core_with_two() -> (Core, Arc<Record>, Arc<Record>) {
    let (peer, other) = (record("peer"), record("other"));
    let mut core = core(Config::default());
    admit(&mut core, &peer, at(0));
    let heard = Heard {
        record: Arc::clone(&other),
        changed: 0,
        heartbeat: 1,
        age: Duration::ZERO,
        left: false,
    };
    tell(&mut core, &peer, Exchange { records: vec![heard], ..Exchange::default() }, at(0));
    (core, peer, other)
}

/// Lets time pass as a driver would, up to `millis`.
fn pass(core: &mut Core, from: u64, millis: u64) {
    for now in (from..=millis).step_by(20) {
        core.handle_timeout(at(now));
        drain(core);
    }
}

fn doubt(other: &Record, age_millis: u64) -> Vec<Suspicion> {
    vec![Suspicion {
        instance: other.instance,
        age: Duration::from_millis(age_millis),
        refused: true,
    }]
}

#[test]
fn an_old_suspicion_leaves_time_to_refute_it_however_it_comes() {
    for range in [None, Some(canary_core::InstanceRange::ALL)] {
        let (mut core, peer, other) = core_with_two();
        pass(&mut core, 20, 1600);
        tell(
            &mut core,
            &peer,
            Exchange { range, suspicions: doubt(&other, 1590), ..Exchange::default() },
            at(1600),
        );
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
    // Six seconds later it finds a suspicion that arrived at some time between.
    tell(
        &mut core,
        &peer,
        Exchange { suspicions: doubt(&other, 1400), ..Exchange::default() },
        at(6100),
    );
    pass(&mut core, 6120, 6700);
    assert_eq!(status(&core, &other, at(6700)), Status::Alive);
}

#[test]
fn an_answer_is_as_old_as_what_it_answers() {
    let (mut core, peer, other) = core_with_two();
    let mut sent = None;
    for now in (20..=5000).step_by(20) {
        core.handle_timeout(at(now));
        for output in orders(&mut core) {
            if let Output::Call { id, whom: Some(whom), request: Request::Exchange(_), .. } = output
                && whom.name == peer.name
            {
                sent.get_or_insert((id, now));
            }
        }
        if sent.is_some() {
            break;
        }
    }
    let (call, now) = sent.unwrap();
    // Somebody could not reach it half a second later; the answer from before that was lost and
    // comes again.
    pass(&mut core, now + 20, now + 700);
    tell(
        &mut core,
        &other,
        Exchange { suspicions: doubt(&peer, 200), ..Exchange::default() },
        at(now + 700),
    );
    assert_eq!(status(&core, &peer, at(now + 700)), Status::Suspect);
    let own = Entry {
        instance: peer.instance,
        version: 0,
        changed: 0,
        heartbeat: 2,
        age: Duration::ZERO,
        left: false,
    };
    let answer = Exchange { from: Some(peer.instance), entries: vec![own], ..Exchange::default() };
    core.handle_response(call, Ok(Response::Exchange(Box::new(answer))), at(now + 720));
    assert_eq!(status(&core, &peer, at(now + 720)), Status::Suspect);
}

/// Lets time pass in which nothing is reached, and returns how many suspicions were pushed; peers
/// that are asked to try say that they failed as well, if they can be heard.
fn pass_in_vain(core: &mut Core, from: u64, to: u64, peers_heard: bool) -> usize {
    let mut pushed = 0;
    play(core, from, to, |output, _| match output {
        Output::Call { request: Request::IndirectProbe(_), .. } if peers_heard => {
            Deed::Call(Ok(Response::IndirectProbe(Answer::Failed(Failure::Timeout))))
        }
        output => {
            if let Output::Call { request: Request::Exchange(exchange), .. } = output
                && exchange.range.is_none()
            {
                pushed += exchange.suspicions.len();
            }
            fails(output, Failure::Timeout)
        }
    });
    pushed
}

/// What the core says of others to `peer`, who asks.
fn doubts_told(core: &mut Core, peer: &Record, now: Now) -> usize {
    let digest = Exchange {
        from: Some(peer.instance),
        range: Some(canary_core::InstanceRange::ALL),
        ..Exchange::default()
    };
    core.handle_request(RequestId(3), Request::Exchange(Box::new(digest)), now);
    let told = orders(core).filter_map(|output| match output {
        Output::Reply { response: Response::Exchange(answer), .. } => Some(answer.suspicions.len()),
        _ => None,
    });
    told.last().unwrap()
}

#[test]
fn doubts_of_the_time_in_which_a_node_was_cut_off_are_not_passed_on() {
    for peers_heard in [true, false] {
        let mut core = core(Config::default());
        let peers = ["one", "two", "three"].map(record);
        peers.iter().for_each(|peer| admit(&mut core, peer, at(0)));
        drain(&mut core);
        let pushed = pass_in_vain(&mut core, 20, 3000, peers_heard);
        assert!(peers.iter().any(|peer| status(&core, peer, at(3000)) != Status::Alive));
        let told = doubts_told(&mut core, &peers[0], at(3000));
        assert_eq!(
            (pushed > 0, told > 0),
            (peers_heard, peers_heard),
            "{pushed} pushed, {told} told"
        );
    }
}

#[test]
fn a_report_that_comes_late_does_not_show_that_somebody_was_heard_just_now() {
    let mut core = core(Config::default());
    let peers = ["one", "two", "three"].map(record);
    peers.iter().for_each(|peer| admit(&mut core, peer, at(0)));
    drain(&mut core);
    // The first probe was answered at once, and its second request never; of all else nothing is
    // heard.
    let mut first = None;
    play(&mut core, 20, 2520, |output, now| match output {
        Output::Probe { whom, .. } if first.is_none() => {
            first = Some(now);
            Deed::Probe(answer_of(whom)).after(1500)
        }
        _ => Deed::Nothing,
    });
    assert!(first.is_some_and(|begun| begun < 900));
    assert!(peers.iter().any(|peer| status(&core, peer, at(2500)) == Status::Suspect));
    assert_eq!(doubts_told(&mut core, &peers[0], at(2500)), 0);
}

#[test]
fn bots_that_seldom_talk_do_not_take_the_pauses_for_their_own_silence() {
    let mut core = core(Config {
        gossip_interval: Duration::from_secs(60),
        probe_interval: Duration::from_secs(60),
        ..Config::default()
    });
    let peers = ["one", "two", "three"].map(record);
    peers.iter().for_each(|peer| admit(&mut core, peer, at(0)));
    drain(&mut core);
    // All is answered at first; then nothing but the questions, and these after a second.
    let asked = Cell::new(None);
    let mut world = World::new(|output: &Output, now| match output {
        Output::Call { request: Request::IndirectProbe(_), .. } => {
            asked.set(asked.get().or(Some(now)));
            Deed::Call(Ok(Response::IndirectProbe(Answer::Failed(Failure::Timeout)))).after(1000)
        }
        output if now < 10_000 => well(output),
        _ => Deed::Nothing,
    });
    for now in (20..100_000).step_by(20) {
        world.step(&mut core, now);
        if asked.get().is_some_and(|at| at + 1400 == now) {
            assert!(doubts_told(&mut core, &peers[0], at(now)) > 0);
            return;
        }
    }
    panic!("nobody is asked about");
}

#[test]
fn news_is_not_spent_on_who_takes_no_part() {
    let mut core =
        core(Config::default()).with_gossipers(|record| !record.name.as_str().starts_with("deaf"));
    let deaf: Vec<_> = (0..40).map(|number| record(&format!("deaf-{number}"))).collect();
    let hearing = record("peer");
    for (number, joiner) in (1..).zip(deaf.iter().chain([&hearing])) {
        // Joins have a budget.
        admit(&mut core, joiner, at(1000 * number));
    }
    drain(&mut core);
    let (mut pushed, mut gossiped, mut asked) = (0, 0, 0);
    let mut doubted = false;
    play(&mut core, 42_000, 52_000, |output, _| match output {
        Output::Call { request: Request::Exchange(exchange), .. } => {
            let deaf = whom(output).is_some_and(|whom| whom.name.as_str().starts_with("deaf"));
            assert!(!deaf || exchange.range.is_some(), "a push to who does not hear it");
            pushed += u32::from(exchange.range.is_none());
            gossiped += u32::from(!deaf && exchange.range.is_some());
            well(output)
        }
        Output::Call { request: Request::IndirectProbe(_), .. } => {
            assert_eq!(whom(output).unwrap().name, hearing.name);
            asked += 1;
            Deed::Nothing
        }
        Output::Probe { whom, .. } if whom.name == deaf[0].name => {
            doubted = true;
            fails(output, Failure::Timeout)
        }
        output => well(output),
    });
    assert!(doubted && asked > 0 && pushed > 0, "{doubted} {asked} {pushed}");
    assert!(gossiped >= 10, "{gossiped} exchanges in ten seconds");
    core.leave(at(52_000));
    let told = orders(&mut core).filter_map(|output| match output {
        Output::Call { whom, request: Request::Exchange(exchange), .. }
            if exchange.entries.iter().any(|entry| entry.left) =>
        {
            whom
        }
        _ => None,
    });
    assert_eq!(
        told.map(|whom| whom.name.clone()).collect::<Vec<_>>(),
        std::slice::from_ref(&hearing.name)
    );
}

#[test]
fn a_restart_where_we_are_refused_is_no_death_and_a_living_incarnation_gives_way_to_no_hearsay() {
    for restarts in [true, false] {
        let (peer, other) = (record("peer"), record("other"));
        let mut core = core(Config::default());
        admit(&mut core, &peer, at(0));
        admit(&mut core, &other, at(0));
        let heir = Arc::new(Record {
            incarnation: canary_core::Incarnation(2),
            instance: canary_core::Instance(99),
            ..(*other).clone()
        });
        let mut world = World::new(|output: &Output, now| {
            let refused = whom(output).is_some_and(|whom| whom.name == other.name) && now > 1000;
            if refused { fails(output, Failure::Refused) } else { well(output) }
        });
        for millis in (20..60_000).step_by(20) {
            let now = at(millis);
            // A firewall refuses our connections to the other; the peer has news of it.
            if millis % 500 == 0 {
                let entry = |node: &Record| Entry {
                    instance: node.instance,
                    version: 0,
                    changed: 0,
                    heartbeat: millis,
                    age: Duration::from_millis(300),
                    left: false,
                };
                let told = if restarts && millis > 5000 { &heir } else { &other };
                let tale = Heard {
                    record: Arc::clone(&heir),
                    changed: 0,
                    heartbeat: millis,
                    age: Duration::from_millis(300),
                    left: false,
                };
                let records = if millis > 5000 { vec![tale] } else { Vec::new() };
                say(
                    &mut core,
                    &peer,
                    Exchange { entries: vec![entry(told)], records, ..Exchange::default() },
                    now,
                );
            }
            world.step(&mut core, millis);
            assert_ne!(
                status(&core, &other, now),
                Status::Dead,
                "after {millis} ms, restarts: {restarts}"
            );
        }
        let held = core
            .snapshot(at(60_000))
            .members
            .iter()
            .find(|member| member.record.name == other.name)
            .unwrap()
            .record
            .instance;
        assert_eq!(held == heir.instance, restarts);
    }
}

#[test]
fn the_doubts_about_half_of_a_mesh_take_no_turn_to_be_measured() {
    const CUT: u64 = 12_000;
    let config = Config { probe_timeout: Duration::from_secs(10), ..Config::default() };
    let mut core = core(config.clone());
    let nodes: Vec<_> = (0..300).map(|index| record(&format!("node-{index:03}"))).collect();
    nodes.iter().for_each(|node| admit(&mut core, node, at(0)));
    // From the cut on a bridge alone tells of half of them, and what is asked of them is
    // never answered.
    let beyond = |whom: &Record, millis: u64| millis >= CUT && whom.name.as_str() >= "node-150";
    let mut world = World::new(|output: &Output, now| match output {
        output if whom(output).is_some_and(|whom| beyond(whom, now)) => match output {
            Output::Probe { .. } => fails(output, Failure::Timeout).after(10_000),
            output => fails(output, Failure::Timeout).after(3000),
        },
        Output::Call { request: Request::IndirectProbe(_), .. } => {
            Deed::Call(Ok(Response::IndirectProbe(Answer::Failed(Failure::Timeout))))
        }
        output => well(output),
    });
    let mut most = 0;
    for millis in (20..CUT + 40_000).step_by(20) {
        let now = at(millis);
        if millis % 200 == 0 {
            let news = |node: &Arc<Record>| Entry {
                instance: node.instance,
                version: 0,
                changed: 0,
                heartbeat: millis,
                age: Duration::from_millis(300),
                left: false,
            };
            say(
                &mut core,
                &nodes[0],
                Exchange { entries: nodes.iter().map(news).collect(), ..Exchange::default() },
                now,
            );
        }
        // Those on our side doubt the others as we do, and ask us.
        if millis >= CUT {
            let suspicion = |index: u64| Suspicion {
                instance: nodes[150 + index as usize % 150].instance,
                age: Duration::from_millis(1300),
                refused: false,
            };
            let suspicions = (0..8).map(|index| suspicion(millis / 20 * 8 + index)).collect();
            say(&mut core, &nodes[1], Exchange { suspicions, ..Exchange::default() }, now);
            core.handle_request(
                RequestId(millis),
                Request::IndirectProbe(nodes[150 + (millis / 20) as usize % 150].instance),
                now,
            );
        }
        world.step(&mut core, millis);
        most = most.max(world.probes_open());
    }
    // Twice 256, and what twenty a second and sixty-four at once that others ask for leave to a
    // timeout of ten seconds.
    assert!(most <= 2 * 256 + 20 * 10 + 64, "{most} probes under way");
    let now = at(CUT + 40_000);
    let snapshot = core.snapshot(now);
    assert_eq!(snapshot.members.iter().filter(|member| member.status == Status::Dead).count(), 0);
    let begun =
        snapshot.members.iter().map(|member| member.pair.main().latest().unwrap().1).min().unwrap();
    let longest = Duration::from_millis(now.wall.unix_millis() - begun.unix_millis());
    // A turn that falls into a failing attempt is left to the next.
    assert!(
        longest < snapshot.pair_interval * 2 + config.probe_timeout * 2,
        "{longest:?}, every {:?}",
        snapshot.pair_interval
    );
}
