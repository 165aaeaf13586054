//! Other kinds of probes: measured with the turns of a pair, published beside the main kind, and
//! never a reason to doubt a node.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use canary_core::{
    Attempt, Config, Core, Exchange, Failure, Output, ProbeKind, ProbeReport, Record, Request,
    RequestId, Response, State, Status,
};
use support::{Deed, admit, answer_of, at, core, drain, orders, play, record, tell, well};

const ECHO: ProbeKind = ProbeKind::new(3);

/// Runs a core until `end`, in milliseconds: everybody answers probes of the main kind, and those
/// of others end as `echo` says. Tells which kinds were ordered of whom, and how many requests to
/// try a node went out.
fn run(
    core: &mut Core,
    from: u64,
    end: u64,
    echo: impl Fn() -> ProbeReport,
) -> (Vec<(String, ProbeKind)>, usize) {
    let (mut ordered, mut asked) = (Vec::new(), 0);
    play(core, from, end, |output, _| match output {
        Output::Probe { whom, kind, .. } => {
            ordered.push((whom.name.to_string(), *kind));
            Deed::Probe(if *kind == ProbeKind::MAIN { answer_of(whom) } else { echo() })
        }
        Output::Call { request: Request::IndirectProbe(_), .. } => {
            asked += 1;
            Deed::Nothing
        }
        output => well(output),
    });
    (ordered, asked)
}

fn with_echo() -> (Core, Arc<Record>, Arc<Record>) {
    let mut core =
        core(Config::default()).with_kinds(vec![ECHO, ProbeKind::MAIN, ECHO], |record, kind| {
            assert_eq!(kind, ECHO, "the main kind needs no responder");
            record.name.as_str() == "owl"
        });
    let (owl, wren) = (record("owl"), record("wren"));
    admit(&mut core, &owl, at(0));
    admit(&mut core, &wren, at(0));
    drain(&mut core);
    (core, owl, wren)
}

#[test]
fn a_kind_is_measured_where_it_is_answered_and_failures_of_it_raise_no_doubt() {
    let (mut core, owl, wren) = with_echo();
    let (ordered, asked) = run(&mut core, 0, 60_000, || ProbeReport::Failed(Failure::Timeout));
    let count = |name: &str, kind| {
        ordered.iter().filter(|order| **order == (name.to_owned(), kind)).count()
    };
    let turns = count("owl", ProbeKind::MAIN);
    assert!(turns >= 5, "{turns}");
    assert_eq!(count("owl", ECHO), turns, "one with each turn");
    assert_eq!(count("wren", ECHO), 0, "it has no responder");
    assert_eq!(asked, 0, "nobody is asked about a node because of it");

    let snapshot = core.snapshot(at(60_000));
    let pair = &snapshot.member(&owl.name).unwrap().pair;
    assert_eq!(snapshot.member(&owl.name).unwrap().status, Status::Alive);
    assert_eq!(pair.main().failures.iter().sum::<u64>(), 0);
    let echo = pair.series(ECHO).unwrap();
    assert_eq!(echo.failures[usize::from(Failure::Timeout.code())], turns as u64);
    assert_eq!(echo.loss(), (turns as u32, turns as u32));
    assert!(matches!(echo.latest(), Some((Attempt::Failed(Failure::Timeout), _))));
    assert!(snapshot.member(&wren.name).unwrap().pair.series(ECHO).is_none());
}

#[test]
fn what_this_host_spoiled_of_a_kind_is_no_attempt() {
    let (mut core, owl, _) = with_echo();
    run(&mut core, 0, 30_000, || ProbeReport::Void);
    let snapshot = core.snapshot(at(30_000));
    assert!(snapshot.member(&owl.name).unwrap().pair.series(ECHO).is_none());
    assert_eq!(
        snapshot.pair_interval,
        Config::default().probe_interval,
        "the schedule of the main kind is not stretched for it"
    );
}

#[test]
fn a_row_tells_of_every_kind_and_bots_without_it_carry_it_on() {
    let (mut source, owl, wren) = with_echo();
    run(&mut source, 0, 30_000, || answer_of(&record("owl")));
    let frame =
        |snapshot: &canary_core::Snapshot| Arc::clone(snapshot.own_row.as_ref().unwrap().frame());
    let snapshot = source.snapshot(at(30_000));
    let own = snapshot.own_row.as_ref().unwrap();
    assert_eq!(frame(&snapshot).kinds().collect::<Vec<_>>(), [ECHO]);
    let shown: Vec<_> = own
        .series(ECHO)
        .iter()
        .map(|view| (view.target.to_string(), matches!(view.cell.state, State::Ok { .. })))
        .collect();
    assert_eq!(
        shown,
        [("me".to_owned(), false), ("owl".to_owned(), true), ("wren".to_owned(), false)]
    );

    // A bot that measures no such kind holds the row of the first, and hands it to another.
    let mut between = Core::new(
        Config::default(),
        "heron".parse().unwrap(),
        canary_core::Target::new("heron", 8081).unwrap(),
        canary_core::Labels::default(),
        2,
        at(0),
    );
    let me = Arc::clone(source.record());
    for node in [&me, &owl, &wren] {
        admit(&mut between, node, at(0));
    }
    drain(&mut between);
    let wants = |asker: &Record, of: &Record| Exchange {
        from: Some(asker.instance),
        wants_rows: vec![(of.instance, 0)],
        ..Exchange::default()
    };
    let answer = |core: &mut Core, exchange: Exchange| {
        core.handle_request(RequestId(9), Request::Exchange(Box::new(exchange)), at(30_000));
        let replies = orders(core).filter_map(|output| match output {
            Output::Reply { response: Response::Exchange(answer), .. } => Some(*answer),
            _ => None,
        });
        replies.last().unwrap()
    };
    let rows = answer(&mut source, wants(&owl, &me)).rows;
    let roster = Arc::clone(own.roster().unwrap());
    tell(&mut between, &me, Exchange { rows, ..Exchange::default() }, at(30_000));
    tell(&mut between, &me, Exchange { rosters: vec![roster], ..Exchange::default() }, at(30_000));
    let held = between.snapshot(at(30_000));
    let row = held.member(&me.name).unwrap().row.as_ref().unwrap();
    assert_eq!(row.series(ECHO).len(), 3, "it can be read there as well");
    let passed_on = answer(&mut between, wants(&owl, &me)).rows;
    let (passed_on, _) = passed_on[0].frame.clone().unwrap();
    assert_eq!(*passed_on, *frame(&snapshot));
    assert!(row.series(ProbeKind::new(9)).is_empty());
}
