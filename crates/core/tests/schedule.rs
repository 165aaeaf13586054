//! When whom is measured.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use canary_core::{Config, Exchange, Failure, Heard, Output, ProbeReport};
use support::{answer_of, at, core, drain, let_in, record, tell};

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
    assert!(
        turns.values().all(|turns| turns[0] < interval / 4),
        "somebody waits for the first measurement: {turns:?}"
    );
    assert!(
        turns.values().all(|turns| turns[1] < interval * 5 / 4),
        "somebody waits for the second: {turns:?}"
    );
    // The third comes after an interval at the most, and give or take chance seven in ten after
    // less than three quarters of one.
    assert!(
        turns.values().all(|turns| turns[2] < interval * 9 / 4),
        "somebody waits for the third: {turns:?}"
    );
    let short = turns.values().filter(|turns| (turns[2] - turns[1]) * 4 < interval * 3).count();
    assert!(short * 2 > nodes.len(), "{short} short pauses of {}", nodes.len());
}

/// When, in milliseconds, a node is dialled the second time that a peer tells of, after its first
/// probe ended like this.
fn second_dial(report: ProbeReport) -> u64 {
    let mut core = core(Config::default());
    let (peer, owl) = (record("peer"), record("owl"));
    let_in(&mut core, &peer, at(0));
    drain(&mut core);
    let heard = Heard { record: Arc::clone(&owl), heartbeat: 1, age: Duration::ZERO, left: false };
    tell(&mut core, &peer, Exchange { records: vec![heard], ..Exchange::default() }, at(0));
    let mut dialled = 0;
    for millis in (10..20_000).step_by(10) {
        core.handle_timeout(at(millis));
        while let Some(output) = core.poll_output() {
            match output {
                Output::Probe { id, whom, .. } if whom.name == owl.name => {
                    dialled += 1;
                    if dialled == 2 {
                        return millis;
                    }
                    core.handle_probe(id, report.clone(), at(millis));
                }
                Output::Probe { id, whom, .. } => {
                    core.handle_probe(id, answer_of(&whom), at(millis));
                }
                _ => {}
            }
        }
    }
    panic!("it is not dialled again within 20 s");
}

#[test]
fn a_first_probe_that_this_host_spoiled_does_not_wait_as_long_as_one_that_failed() {
    assert!(second_dial(ProbeReport::Void) < 1_700);
    assert!(
        second_dial(ProbeReport::Failed(Failure::Refused)) > 2_000,
        "an address that failed is left alone"
    );
}
