//! Every scenario from fixed seeds, and every checker on its planted fault.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use canary_core::Config;
use canary_sim::check;
use canary_sim::scenario::{ALL, Fault, Scenario, detections};
use canary_sim::stage::{Observers, Setup, Stage};
use canary_sim::{HostId, Link, Release, table};

fn setup(nodes: usize, seed: u64) -> Setup {
    Setup { nodes, seed, ..Setup::default() }
}

fn keeps_its_promises(scenario: &Scenario, setup: Setup) {
    let stage = scenario.play(setup);
    let broken: Vec<_> = stage.findings.iter().filter(|finding| !finding.held).collect();
    assert!(broken.is_empty(), "{broken:#?}\nreplay: {}", table::replay(scenario, &stage.setup));
}

#[test]
fn every_scenario_keeps_its_promises() {
    for scenario in ALL {
        for (nodes, seed) in [(2, 1), (3, 8), (5, 2), (10, 3), (25, 4)] {
            keeps_its_promises(scenario, setup(nodes, seed));
        }
    }
}

#[test]
fn what_all_promises_stand_on_is_kept_from_more_seeds() {
    for name in ["start", "detect", "pause", "partition", "restart", "twins"] {
        let scenario = Scenario::named(name).unwrap();
        for (nodes, seed) in [(4, 9), (5, 10), (5, 11), (5, 12), (20, 13)] {
            keeps_its_promises(&scenario, setup(nodes, seed));
        }
    }
    for (name, nodes) in [("start", 40), ("detect", 40), ("churn", 40), ("start", 100)] {
        keeps_its_promises(&Scenario::named(name).unwrap(), setup(nodes, 14));
    }
}

#[test]
fn and_with_loss_and_with_observers_that_pause_or_starve() {
    for scenario in ALL {
        keeps_its_promises(scenario, Setup { loss: 0.05, ..setup(12, 5) });
        keeps_its_promises(scenario, Setup { observers: Observers::Pausing, ..setup(12, 6) });
        keeps_its_promises(scenario, Setup { observers: Observers::Starved, ..setup(12, 7) });
    }
}

/// What the hunt once found.
#[test]
fn what_was_found_stays_fixed() {
    let found = [
        // The other side of a bridge was considered dead again and again.
        ("bridge", setup(10, 1)),
        ("bridge", setup(18, 2_726_036_433)),
        // A newcomer considered a living node dead because one that had long been cut off said so.
        ("chaos", setup(10, 5)),
        // A host was cut off and stood still right after: the checker counted its pause as time
        // since the cut.
        ("chaos", setup(16, 4_276_892_266)),
        // A node restarted where another was refused, and stayed dead there until the next news of
        // its new incarnation.
        ("chaos", Setup { loss: 0.01, observers: Observers::Pausing, ..setup(15, 2_227_428_336) }),
        // A node that restarted behind a cut was not dialled for two minutes.
        ("chaos", setup(10, 9)),
        // A host that had been starved measured some pairs long after.
        ("chaos", setup(10, 2_788_950_929)),
        // A clock beyond all reason made an incarnation that nobody takes.
        ("chaos", setup(10, 17)),
        // A failure that had begun before a silence ended was taken for a broken path, by all.
        ("detect", Setup { loss: 0.05, ..setup(8, 698_482_832) }),
        ("detect", setup(31, 3_510_284_261)),
        // All measured a node in step, since all had found it again at one instant, and none of
        // them right after it stopped.
        ("detect", setup(16, 1_453_419_891)),
        // What was measured before a host stood still had the time after it, in an outage that had
        // begun in the meantime.
        ("detect", Setup { loss: 0.01, observers: Observers::Pausing, ..setup(7, 2_703_055_797) }),
        // The push of a suspicion missed a few, and nothing told them later.
        ("detect", setup(79, 2_641_100_635)),
        ("detect", Setup { loss: 0.05, observers: Observers::Starved, ..setup(74, 3_669_691_516) }),
        // Answers to digests carried no suspicion: who had been paused waited until somebody asked
        // it.
        ("detect", Setup { observers: Observers::Pausing, ..setup(76, 1_894_097_324) }),
        // What had waited for a paused host passed for news: here it hid a death, there it hid that
        // one lived.
        ("detect", Setup { loss: 0.05, observers: Observers::Pausing, ..setup(60, 1) }),
        // A probe whose second request was never answered counted as evidence from its timeout,
        // three seconds after the answer to its first.
        ("detect", Setup { loss: 0.05, ..setup(46, 676_974_119) }),
        ("detect", Setup { loss: 0.05, ..setup(56, 2_252_232_880) }),
        ("detect", Setup { loss: 0.01, ..setup(18, 2_067_735_132) }),
        ("detect", Setup { loss: 0.05, ..setup(46, 6) }),
        ("restart", Setup { loss: 0.05, ..setup(31, 691_983_568) }),
        (
            "restart",
            Setup { loss: 0.05, observers: Observers::Starved, ..setup(49, 4_006_095_772) },
        ),
        // A starved host spoiled the first probe of a pair, and each that followed at the same
        // instant of its turn.
        ("start", Setup { observers: Observers::Starved, ..setup(12, 3_137_039_477) }),
        ("start", Setup { observers: Observers::Starved, ..setup(40, 3) }),
        // Failures from before a silence, and probes on somebody's behalf answered since, looked
        // like a broken path when the node was gone.
        ("detect", Setup { loss: 0.05, observers: Observers::Pausing, ..setup(15, 19_256_707) }),
        // The checker held an observer's own pause against the mesh.
        (
            "restart",
            Setup { loss: 0.05, observers: Observers::Pausing, ..setup(34, 2_778_867_208) },
        ),
        // The checker asked the starved observer alone.
        ("pause", Setup { loss: 0.05, observers: Observers::Starved, ..setup(8, 3_093_650_988) }),
    ];
    for (name, setup) in found {
        keeps_its_promises(&Scenario::named(name).unwrap(), setup);
    }
}

/// A host that did not keep up asked about a node that it had doubted before only after ten
/// seconds, or never.
#[test]
fn in_a_small_mesh_a_node_that_was_doubted_before_dies_as_fast_as_any() {
    for (nodes, observers) in [(2, Observers::Starved), (3, Observers::Pausing)] {
        let mut rows = Vec::new();
        let cell = Setup { observers, ..setup(nodes, 1) };
        table::detector(cell, &[0.05], &[observers], 1..21, &mut rows).unwrap();
        let rows = String::from_utf8(rows).unwrap();
        let worst = |row: &str| row.split(',').nth(7).unwrap().parse::<f64>();
        for row in rows.lines().skip(1) {
            assert!(worst(row).is_ok_and(|seconds| seconds <= 8.0), "{row}");
        }
    }
}

#[test]
fn a_thousand_know_each_other_from_three_seeds() {
    let mut stage = Stage::new(setup(1000, 1));
    let known = stage.wait_known(Duration::from_secs(10));
    assert!(known.is_some(), "not known to all within 10 s");
}

/// Whether a promise whose name begins with `promise` is among the broken ones.
fn broken(stage: &Stage, promise: &str) -> bool {
    stage.findings.iter().any(|finding| finding.promise.starts_with(promise) && !finding.held)
}

fn settled(nodes: usize) -> Stage {
    let mut stage = Stage::new(setup(nodes, 1));
    stage.settle();
    assert!(stage.findings.iter().all(|finding| finding.held), "{:?}", stage.findings);
    stage
}

#[test]
fn the_checker_of_false_deaths_fails_on_a_death_that_the_script_does_not_know() {
    let mut stage = settled(6);
    stage.world.silence(HostId(3), true);
    stage.run(Duration::from_secs(10));
    stage.world.silence(HostId(3), false);
    stage.conclude();
    assert!(broken(&stage, "no living node is considered dead"));
}

#[test]
fn the_checker_of_lies_fails_on_a_latency_in_an_outage() {
    let mut stage = settled(6);
    // The script says that nothing goes from one to the other, and the world does not do it.
    stage.cut(HostId(1), HostId(2));
    stage.world.cut(HostId(1), HostId(2), false);
    stage.run(Duration::from_secs(10));
    stage.conclude();
    assert!(broken(&stage, "an outage is no latency"));
}

#[test]
fn the_checker_of_the_timeout_fails_on_a_latency_above_it() {
    let config = Config { probe_timeout: Duration::from_secs(20), ..Config::default() };
    let mut stage = Stage::with_config(setup(3, 1), config);
    stage.settle();
    stage.world.set_link(Link { delay: Duration::from_secs(2), ..Link::default() });
    stage.run(Duration::from_secs(60));
    stage.conclude();
    assert!(broken(&stage, "no latency is above"));
}

#[test]
fn the_checkers_of_an_upgrade_fail_on_what_is_lost_and_on_doubt() {
    let mut stage = settled(6);
    assert_eq!((stage.world.rows_cut_short(), check::false_suspicions(&stage.world)), (0, 0));
    // What it published so far has nothing of the next release.
    stage.world.set_release(HostId(3), Release::Next);
    assert!(stage.world.rows_cut_short() > 0);
    stage.world.silence(HostId(3), true);
    let suspected = stage.wait(Duration::from_secs(10), |world| check::false_suspicions(world) > 0);
    assert!(suspected.is_some());
}

#[test]
fn the_checkers_of_the_whole_mesh_fail_while_one_is_lacking() {
    let mut stage = settled(6);
    stage.world.silence(HostId(3), true);
    stage.run(Duration::from_secs(10));
    assert!(stage.wait_known(Duration::from_secs(5)).is_none());
    assert!(stage.wait_whole(Duration::from_secs(5)).is_none());
    assert!(check::lacks(&stage.world).contains("bot-0003"));
    stage.found("whole", None, Duration::from_secs(5));
    assert!(broken(&stage, "whole"));
}

#[test]
fn the_checker_of_detection_fails_when_nothing_is_detected() {
    let mut stage = settled(6);
    let name = stage.world.name(HostId(3)).clone();
    let observers: Vec<_> = (0..3).map(HostId).collect();
    let detected = stage
        .wait_detected(std::slice::from_ref(&name), &observers, Duration::from_secs(5))
        .remove(0);
    assert!(detected.iter().all(Option::is_none));
    let crashed = detections(&mut stage, &[(Fault::Refused, HostId(3))]).remove(0);
    assert!(crashed.quantile(1.0).is_some_and(|taken| taken < Duration::from_secs(6)));
}

/// Plays a whole scenario on bots that are configured badly or were harmed behind the script's
/// back, and looks at what it says.
fn breaks(
    scenario: &str,
    nodes: usize,
    config: Config,
    harm: impl FnOnce(&mut Stage),
    promises: &[&str],
) {
    let mut stage =
        Stage::with_config(Setup { lasting: Duration::from_secs(10), ..setup(nodes, 1) }, config);
    harm(&mut stage);
    Scenario::named(scenario).unwrap().play_on(&mut stage);
    for promise in promises {
        assert!(
            broken(&stage, promise),
            "{scenario} did not notice: {promise}; {:#?}",
            stage.findings
        );
    }
}

#[test]
fn the_checkers_of_a_start_fail_when_one_is_cut_off() {
    let harm = |stage: &mut Stage| stage.world.silence(HostId(3), true);
    breaks(
        "start",
        6,
        Config::default(),
        harm,
        &["every bot knows", "every bot holds", "nobody is wedged"],
    );
}

#[test]
fn the_checker_of_settling_fails_when_one_is_cut_off() {
    breaks(
        "detect",
        6,
        Config::default(),
        |stage| stage.world.silence(HostId(3), true),
        &["the mesh settles"],
    );
}

#[test]
fn the_checker_of_healing_fails_when_a_pair_stays_cut() {
    let harm = |stage: &mut Stage| stage.world.cut(HostId(1), HostId(2), true);
    breaks("partition", 6, Config::default(), harm, &["one mesh again"]);
}

#[test]
fn the_checker_of_a_stopped_peer_fails_on_bots_that_hardly_measure() {
    let config = Config { probe_interval: Duration::from_secs(3600), ..Config::default() };
    breaks("pause", 6, config, |_| {}, &["failures of a stopped peer"]);
}

#[test]
fn the_checkers_of_bridges_fail_on_bots_that_hardly_gossip() {
    let config = Config { gossip_interval: Duration::from_secs(120), ..Config::default() };
    breaks("bridge", 20, config, |_| {}, &["a partial partition settles"]);
}

#[test]
fn the_checker_of_measuring_on_fails_on_bots_that_hardly_measure() {
    let config = Config { probe_interval: Duration::from_secs(3600), ..Config::default() };
    breaks("bridge", 20, config, |_| {}, &["every pair is still measured"]);
}

#[test]
fn the_checkers_of_twins_fail_when_there_is_only_one() {
    breaks(
        "twins",
        6,
        Config::default(),
        |stage| stage.world.crash(HostId(1)),
        &["a newcomer with a living name", "of two that live one yields"],
    );
}

#[test]
fn the_checkers_of_gossip_fail_on_bots_that_talk_all_the_time() {
    let config = Config {
        gossip_interval: Duration::from_millis(100),
        gossip_fanout: 4,
        gossip_rate_max: 100_000_000,
        ..Config::default()
    };
    breaks("start", 200, config, |_| {}, &["gossip sent per bot", "gossip against"]);
}

#[test]
fn the_checker_of_rows_fails_on_one_that_grows_old() {
    let mut stage = settled(6);
    let before = check::oldest_row(&stage.world).unwrap();
    stage.world.silence(HostId(3), true);
    stage.run(Duration::from_secs(60));
    assert!(check::oldest_row(&stage.world).unwrap() > before + Duration::from_secs(40));
}
