//! Nodes that take no part in gossip: how often they are measured, and what ours tell of them.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use canary_core::{
    Config, Core, Exchange, Frame, JoinAnswer, Output, PendingJoin, Request, Response, Roster,
    RowNews, Wall,
};
use support::{Deed, admit, at, core, play, record, tell, well};

fn mesh(ours: usize, config: Config) -> Core {
    let mut core = core(config).with_gossipers(|record| !record.name.as_str().starts_with("old"));
    for (number, name) in
        (1..).zip((0..ours).map(|number| format!("bot-{number}")).chain(["old".to_owned()]))
    {
        // Joins have a budget.
        admit(&mut core, &record(&name), at(100 * number));
    }
    core
}

/// Probes by name, while everybody answers.
fn probes(core: &mut Core, from: u64, until: u64) -> BTreeMap<String, usize> {
    let mut probes = BTreeMap::new();
    play(core, from, until, |output, _| {
        if let Output::Probe { whom, .. } = output {
            *probes.entry(whom.name.as_str().to_owned()).or_default() += 1;
        }
        well(output)
    });
    probes
}

#[test]
fn all_bots_together_measure_an_outsider_so_often_and_no_more() {
    // Of 30 bots each makes a thirtieth of five a second: one in six seconds, and ours are measured
    // each three.
    let mut core = mesh(29, Config::default());
    let seen = probes(&mut core, 3000, 603_000);
    assert!((90..=100).contains(&seen["old"]), "{seen:?}");
    assert!((190..=210).contains(&seen["bot-7"]), "{seen:?}");
    let interval = core.snapshot(at(603_000)).member(&record("old").name).unwrap().interval;
    assert!((6.0..6.5).contains(&interval.as_secs_f64()), "{interval:?}");
    // Three bots may measure it as often as each other.
    let seen = probes(&mut mesh(2, Config::default()), 3000, 603_000);
    assert!((190..=210).contains(&seen["old"]), "{seen:?}");
    let seen =
        probes(&mut mesh(2, Config { original_rate_max: 0.1, ..Config::default() }), 3000, 603_000);
    assert!((17..=20).contains(&seen["old"]), "{seen:?}");
}

#[test]
fn a_stuck_outsider_is_one_for_all_that_hear_of_it_until_it_measures() {
    let (bot, old) = (record("bot-0"), record("old"));
    let mut core = mesh(1, Config::default());
    let roster = Roster::new(["me", "bot-0", "old"].map(|name| name.parse().unwrap()));
    let row = |source: &canary_core::Record, pending: Vec<PendingJoin>| {
        let frame =
            Frame::new(1, roster.id(), Wall::from_unix_millis(1 << 40), &[Default::default(); 3])
                .with_pending(pending);
        let frame = Some((Arc::new(frame), Default::default()));
        Exchange {
            rows: vec![RowNews {
                source: source.instance,
                frame,
                patches: Vec::new(),
                age: Default::default(),
            }],
            ..Exchange::default()
        }
    };
    let waits =
        |target: &canary_core::Target| PendingJoin { target: target.clone(), unanswered: 1 };
    // A bot of ours is none, whatever another says of it.
    tell(
        &mut core,
        &bot,
        row(&bot, vec![waits(&old.target), waits(&record("me").target), waits(&bot.target)]),
        at(3000),
    );
    tell(
        &mut core,
        &bot,
        Exchange { rosters: vec![Arc::clone(&roster)], ..Exchange::default() },
        at(3000),
    );
    assert_eq!(core.snapshot(at(3000)).stuck().into_iter().collect::<Vec<_>>(), [&old.target]);
    tell(&mut core, &bot, row(&old, Vec::new()), at(4000));
    assert!(core.snapshot(at(4000)).stuck().is_empty(), "it measures");
    assert_eq!(core.snapshot(at(35_000)).stuck().len(), 1, "no more");
}

#[test]
fn a_bot_whose_target_is_stuck_says_so_and_seldom_asks_there() {
    let mut core =
        core(Config::default()).with_gossipers(|record| !record.name.as_str().starts_with("old"));
    core.handle_seeds(vec![record("old").target.clone()], at(0));
    let mut asked = Vec::new();
    play(&mut core, 0, 60_000, |output, now| match output {
        Output::Call { request: Request::Join(_), .. } => {
            asked.push(now);
            Deed::Call(Ok(Response::Join(JoinAnswer::Stuck)))
        }
        _ => Deed::Nothing,
    });
    assert_eq!(asked.len(), 4, "{asked:?}");
    let problems = core.snapshot(at(60_000)).join_problems;
    assert!(
        problems[0].1.contains("its own loops are stuck") && problems[0].1.contains("restart it"),
        "{problems:?}"
    );
}
