//! When whom is measured.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use canary_core::{Config, Output};
use support::{answer_of, at, core, let_in, record};

#[test]
fn nodes_that_came_at_one_instant_are_not_measured_in_step_for_ever() {
    let config = Config { probe_rate_max: 1000.0, ..Config::default() };
    let interval = config.probe_interval.as_millis() as u64;
    let mut core = core(config);
    let nodes: Vec<_> = (0..60).map(|index| record(&format!("node-{index:02}"))).collect();
    nodes.iter().for_each(|node| let_in(&mut core, node, at(0)));
    let mut turns = BTreeMap::<_, Vec<u64>>::new();
    for millis in (10..3 * interval).step_by(10) {
        core.handle_timeout(at(millis));
        while let Some(output) = core.poll_output() {
            if let Output::Probe { id, whom, .. } = output {
                core.handle_probe(id, answer_of(&whom), at(millis));
                turns.entry(whom.name.clone()).or_default().push(millis);
            }
        }
    }
    assert_eq!(turns.len(), nodes.len());
    assert!(turns.values().all(|turns| turns[0] < interval / 4), "somebody waits for the first measurement: {turns:?}");
    assert!(turns.values().all(|turns| turns[1] < interval * 5 / 4), "somebody waits for the second: {turns:?}");
    // The third comes after an interval at the most, and give or take chance seven in ten after less than three quarters of one.
    assert!(turns.values().all(|turns| turns[2] < interval * 9 / 4), "somebody waits for the third: {turns:?}");
    let short = turns.values().filter(|turns| (turns[2] - turns[1]) * 4 < interval * 3).count();
    assert!(short * 2 > nodes.len(), "{short} short pauses of {}", nodes.len());
}
