//! Meshes of our bots and of the original's.

use std::collections::BTreeSet;
use std::time::Duration;

use super::original::Original;
use super::{Bot, wait};

/// The original measures one random node every three seconds, and finds the others by chance.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn all_names(bots: &[Bot], originals: &[Original]) -> BTreeSet<String> {
    bots.iter()
        .map(|bot| bot.name().to_owned())
        .chain(originals.iter().map(|original| original.name.clone()))
        .collect()
}

/// Everybody lists everybody, and holds a number for every pair.
pub fn whole(bots: &[Bot], originals: &[Original]) -> bool {
    let names = all_names(bots, originals);
    let pairs = names.len() * (names.len() - 1);
    let others =
        |name: &str| names.iter().filter(|other| *other != name).cloned().collect::<BTreeSet<_>>();
    bots.iter().all(|bot| {
        bot.nodes().is_some_and(|nodes| nodes == others(bot.name()))
            && bot.measured_pairs().len() == pairs
    }) && originals.iter().all(|original| {
        original.nodes() == others(&original.name) && original.measured_pairs().len() == pairs
    })
}

pub fn becomes_whole(bots: &[Bot], originals: &[Original]) {
    let taken = wait(PATIENCE, || whole(bots, originals));
    originals.iter().for_each(Original::assert_well);
    let of = |bot: &Bot| {
        format!("{}: {:?}, {} pairs", bot.name(), bot.nodes(), bot.measured_pairs().len())
    };
    let by = |original: &Original| {
        format!(
            "{}: {:?}, {} pairs",
            original.name,
            original.nodes(),
            original.measured_pairs().len()
        )
    };
    let told: Vec<_> = bots.iter().map(of).chain(originals.iter().map(by)).collect();
    assert!(taken.is_some(), "the mixed mesh did not become whole: {told:#?}");
    eprintln!("whole after {:.1} s", taken.unwrap().as_secs_f64());
}
