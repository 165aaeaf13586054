//! When whom is measured.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use canary_core::{Config, Exchange, Failure, Heard, Output, ProbeReport};
use support::{Deed, admit, answer_of, at, core, drain, play, record, tell};

#[test]
fn nodes_that_came_at_one_instant_do_not_stay_in_step() {
    let config = Config { probe_rate_max: 1000.0, ..Config::default() };
    let interval = config.probe_interval.as_millis() as u64;
    let mut core = core(config);
    let nodes: Vec<_> = (0..60).map(|index| record(&format!("node-{index:02}"))).collect();
    nodes.iter().for_each(|node| admit(&mut core, node, at(0)));
    let mut turns = BTreeMap::<_, Vec<u64>>::new();
    play(&mut core, 20, 3 * interval, |output, now| match output {
        Output::Probe { whom, .. } => {
            turns.entry(whom.name.clone()).or_default().push(now);
            Deed::Probe(answer_of(whom))
        }
        _ => Deed::Nothing,
    });
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
    admit(&mut core, &peer, at(0));
    drain(&mut core);
    let heard = Heard {
        record: Arc::clone(&owl),
        changed: 0,
        heartbeat: 1,
        age: Duration::ZERO,
        left: false,
    };
    tell(&mut core, &peer, Exchange { records: vec![heard], ..Exchange::default() }, at(0));
    let mut dialled = Vec::new();
    play(&mut core, 20, 20_000, |output, now| match output {
        Output::Probe { whom, .. } if whom.name == owl.name => {
            dialled.push(now);
            Deed::Probe(report.clone())
        }
        Output::Probe { whom, .. } => Deed::Probe(answer_of(whom)),
        _ => Deed::Nothing,
    });
    dialled[1]
}

#[test]
fn a_first_probe_that_this_host_spoiled_does_not_wait_as_long_as_one_that_failed() {
    assert!(second_dial(ProbeReport::Void) < 1_700);
    assert!(
        second_dial(ProbeReport::Failed(Failure::Refused)) > 2_000,
        "an address that failed is left alone"
    );
}
