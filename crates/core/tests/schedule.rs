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
            if let Output::Probe { id, whom } = output {
                core.handle_probe(id, answer_of(&whom), at(millis));
                turns.entry(whom.name.clone()).or_default().push(millis);
            }
        }
    }
    assert_eq!(turns.len(), nodes.len());
    assert!(turns.values().all(|turns| turns[0] < interval / 4), "somebody waits for the first measurement: {turns:?}");
    assert!(turns.values().all(|turns| turns[1] < interval * 5 / 4), "somebody waits for the second: {turns:?}");
    // The third comes after half to one and a half intervals: give or take chance three in ten after less than four fifths, and as many after more than six.
    assert!(turns.values().all(|turns| turns[2] < interval * 11 / 4), "somebody waits for the third: {turns:?}");
    let pauses = turns.values().map(|turns| turns[2] - turns[1]);
    let (short, long) =
        (pauses.clone().filter(|pause| pause * 5 < interval * 4).count(), pauses.filter(|pause| pause * 5 > interval * 6).count());
    assert!(short > nodes.len() / 8 && long > nodes.len() / 8, "{short} short and {long} long pauses of {}", nodes.len());
}
