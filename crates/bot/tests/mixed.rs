//! Meshes of ours and of the original's bots, which are played by the facts about their wire.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use support::original::Original;
use support::{Bot, Plan, alone, own_address, plans_at, settle, wait};

/// The original measures one random node every three seconds, and finds the others by chance.
const PATIENCE: Duration = Duration::from_secs(120);

fn all_names(bots: &[Bot], originals: &[Original]) -> BTreeSet<String> {
    bots.iter().map(|bot| bot.name().to_owned()).chain(originals.iter().map(|original| original.name.clone())).collect()
}

/// Everybody lists everybody, and holds a number for every pair.
fn whole(bots: &[Bot], originals: &[Original]) -> bool {
    let names = all_names(bots, originals);
    let pairs = names.len() * (names.len() - 1);
    let others = |name: &str| names.iter().filter(|other| *other != name).cloned().collect::<BTreeSet<_>>();
    bots.iter().all(|bot| bot.nodes().is_some_and(|nodes| nodes == others(bot.name())) && bot.measured_pairs().len() == pairs)
        && originals.iter().all(|original| original.nodes() == others(&original.name) && original.measured_pairs().len() == pairs)
}

fn becomes_whole(bots: &[Bot], originals: &[Original]) {
    let taken = wait(PATIENCE, || whole(bots, originals));
    originals.iter().for_each(Original::assert_well);
    let of = |bot: &Bot| format!("{}: {:?}, {} pairs", bot.name(), bot.nodes(), bot.measured_pairs().len());
    let by = |original: &Original| format!("{}: {:?}, {} pairs", original.name, original.nodes(), original.measured_pairs().len());
    let told: Vec<_> = bots.iter().map(of).chain(originals.iter().map(by)).collect();
    assert!(taken.is_some(), "the mixed mesh did not become whole: {told:#?}");
    eprintln!("whole after {:.1} s", taken.unwrap().as_secs_f64());
}

#[test]
fn ours_join_theirs() {
    let _turn = alone();
    let address = own_address();
    let first = Original::start_on("old-0", address, &[]);
    let second = Original::start_on("old-1", address, &[first.target.to_string()]);
    let seeds = vec![first.target.to_string()];
    let plans: Vec<_> = plans_at(address, 2).into_iter().map(|plan| Plan { seeds: seeds.clone(), ..plan }).collect();
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    becomes_whole(&bots, &[first, second]);
}

#[test]
fn theirs_join_ours() {
    let _turn = alone();
    let plans = plans_at(own_address(), 2);
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let targets = [plans[0].target()];
    let originals = ["old-0", "old-1"].map(|name| Original::start_on(name, plans[0].address, &targets));
    becomes_whole(&bots, &originals);
}

#[test]
fn both_start_at_once() {
    let _turn = alone();
    let plans = plans_at(own_address(), 3);
    let ports = support::free_ports(plans[0].address, 3);
    let old: Vec<_> = ports.iter().map(|port| format!("{}:{port}", plans[0].address)).collect();
    // Everybody knows one of the other kind.
    let bots: Vec<_> = plans.iter().map(|plan| Plan { seeds: vec![old[0].clone(), plans[0].target()], ..plan.clone() }.start()).collect();
    let originals: Vec<_> = old
        .iter()
        .enumerate()
        .map(|(number, target)| Original::start(&format!("old-{number}"), target.parse().unwrap(), &[plans[1].target()]))
        .collect();
    becomes_whole(&bots, &originals);
}

#[test]
fn a_guest_that_is_gone_is_lost_and_one_of_ours_takes_its_place() {
    let _turn = alone();
    let plans = plans_at(own_address(), 2);
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let mut original = Original::start_on("swan", plans[0].address, &[plans[0].target()]);
    let lists = |bot: &Bot, name: &str| bot.nodes().is_some_and(|nodes| nodes.contains(name));
    assert!(wait(Duration::from_secs(30), || bots.iter().all(|bot| lists(bot, "swan"))).is_some());
    original.assert_well();
    original.stop();
    let lost = wait(Duration::from_secs(15), || bots.iter().all(|bot| !lists(bot, "swan")));
    eprintln!("lost after {lost:.1?}");
    assert!(lost.is_some(), "a guest that is gone is listed on");
    // One of ours, of the same name and at the same target.
    let heir = Plan { name: "swan".to_owned(), mesh_port: original.target.port(), ..plans_at(plans[0].address, 1).remove(0) };
    let heir = Plan { seeds: vec![plans[0].target()], ..heir }.start();
    let bots: Vec<_> = bots.into_iter().chain([heir]).collect();
    settle(&bots);
}
