//! What ours cost bots of the original, and how a stuck one is reported.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use support::original::{Original, call_now};
use support::puppet::Message;
use support::{Bot, Plan, alone, get_json, own_address, plans_at, settle, wait};

const STUCK: &str = "answers, but its own loops are stuck";

/// Tells a bot of a node as a bot of the original does that knows both.
fn tell_of(bot: &Plan, original: &Original) {
    let node = |name: &str, target: &str| {
        Message::default().bytes(1, name.as_bytes()).bytes(2, target.as_bytes())
    };
    let news = Message::default()
        .message(1, &node(&original.name, &original.target.to_string()))
        .message(2, &node("other", "other:8081"));
    call_now(bot.target().parse().unwrap(), "NodeDiscovery", &news.0).unwrap();
}

fn know(bots: &[Bot], originals: &[Original]) -> bool {
    let names: BTreeSet<_> = bots
        .iter()
        .map(|bot| bot.name().to_owned())
        .chain(originals.iter().map(|old| old.name.clone()))
        .collect();
    bots.iter().all(|bot| {
        let others = names.iter().filter(|name| *name != bot.name()).cloned().collect();
        bot.nodes() == Some(others)
    })
}

/// Open incidents of the kind, by culprit, with their sentences.
fn stuck_at(bot: &Bot) -> Vec<(String, String)> {
    let Some(answer) = get_json(bot.api(), "/api/v2/incidents?state=open") else {
        return Vec::new();
    };
    let of_kind = answer["incidents"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|incident| incident["kind"] == "original_stuck");
    of_kind
        .map(|incident| {
            (
                incident["culprit"]["node"].to_string(),
                incident["summary"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

#[test]
fn stuck_originals_are_members_and_told_as_what_they_are_and_seldom_asked() {
    let _turn = alone();
    let address = own_address();
    let originals: Vec<_> =
        ["old-1", "old-2"].iter().map(|name| Original::stuck_on(name, address)).collect();
    let plans = plans_at(address, 30);
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let begun = Instant::now();
    originals.iter().zip(&plans[3..]).for_each(|(original, plan)| tell_of(plan, original));
    let known = wait(Duration::from_secs(10), || know(&bots, &originals));
    assert!(
        known.is_some(),
        "{:?}",
        bots.iter().map(|bot| bot.nodes().map(|nodes| nodes.len())).collect::<Vec<_>>()
    );
    eprintln!("all know all after {:.1} s", begun.elapsed().as_secs_f64());
    // It is an incident at every bot, not only at the one that asked.
    let told = wait(Duration::from_secs(30), || bots.iter().all(|bot| stuck_at(bot).len() == 2));
    assert!(told.is_some(), "{:?}", bots.iter().map(stuck_at).collect::<Vec<_>>());
    let (_, sentence) = &stuck_at(&bots[7])[0];
    assert!(
        sentence.contains("own loops have been stuck") && sentence.contains("restart it"),
        "{sentence}"
    );
    let node = get_json(bots[8].api(), "/api/v2/nodes/old-1").unwrap();
    assert_eq!(
        (&node["stuck"], &node["state"], &node["reached"]["state"]),
        (&true.into(), &"alive".into(), &"ok".into()),
        "{node}"
    );
    let held: Vec<_> = originals.iter().map(|original| original.state().held).collect();
    assert!(held.iter().all(|held| *held <= 2), "{held:?}");
    let lines: usize = bots.iter().map(|bot| bot.logged().matches(STUCK).count()).sum();
    assert_eq!(lines, 2, "one line for each in the whole mesh");
    // They are restarted: they measure, and nothing is said of them any more.
    let restarted = originals.into_iter().map(|mut original| {
        original.stop();
        Original::start(&original.name, original.target, &[plans[11].target()])
    });
    let originals: Vec<_> = restarted.collect();
    let well = wait(Duration::from_secs(60), || bots.iter().all(|bot| stuck_at(bot).is_empty()));
    assert!(well.is_some(), "{:?}", bots.iter().map(stuck_at).collect::<Vec<_>>());
    originals.iter().for_each(Original::assert_well);
}

#[test]
fn an_original_among_many_of_ours_is_measured_five_times_a_second_and_asked_seldom() {
    let _turn = alone();
    let address = own_address();
    let plans = plans_at(address, 29);
    let original = Original::start_on("old", address, &[plans[0].target()]);
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let known = wait(Duration::from_secs(30), || know(&bots, std::slice::from_ref(&original)));
    assert!(known.is_some(), "{:?}", bots.iter().map(Bot::nodes).collect::<Vec<_>>());
    let measured =
        |bot: &Bot| bot.measured_pairs().contains(&(bot.name().to_owned(), "old".to_owned()));
    let all = wait(Duration::from_secs(30), || bots.iter().all(measured));
    assert!(all.is_some(), "not all of ours measured it");
    let count = || {
        let state = original.state();
        (state.probes, state.joins)
    };
    let (before, begun) = (count(), Instant::now());
    #[expect(clippy::disallowed_methods, reason = "the time over which it is counted")]
    std::thread::sleep(Duration::from_secs(60));
    let (after, seconds) = (count(), begun.elapsed().as_secs_f64());
    let (probes, joins) =
        ((after.0 - before.0) as f64 / seconds, (after.1 - before.1) as f64 / seconds);
    eprintln!("{probes:.2} probes and {joins:.3} calls of JoinMesh a second");
    assert!(
        (2.5..=5.0).contains(&probes) && joins <= 0.1,
        "{probes:.2} probes and {joins:.3} calls of JoinMesh a second"
    );
    original.assert_well();
}

#[test]
fn where_the_only_targets_are_stuck_it_is_said_so() {
    let _turn = alone();
    let address = own_address();
    let original = Original::stuck_on("old", address);
    let plan = Plan { seeds: vec![original.target.to_string()], ..plans_at(address, 1).remove(0) };
    let bot = plan.start();
    let said = wait(Duration::from_secs(20), || {
        bot.logged().contains("its targets answer, but their own loops are stuck")
    });
    assert!(said.is_some(), "{}", bot.logged());
    assert!(!bot.logged().contains("check its targets"), "{}", bot.logged());
    let verdict =
        || get_json(bot.api(), "/api/v2/verdict").unwrap()["verdict"].as_str().unwrap().to_owned();
    let stated = wait(Duration::from_secs(20), || verdict().contains("own loops have been stuck"));
    assert!(stated.is_some(), "{}", verdict());
    assert_eq!(original.state().held, 1);
}
