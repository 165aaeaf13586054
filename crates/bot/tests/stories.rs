//! What the mesh promises, with real processes on loopback.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::tools::skip;
use support::{
    Bot, Plan, all_know_all, alone, calls_dead, fitting, full_matrix, mesh, names, patience, plans,
    plans_at, settle, suspects, wait, wait_at_rest,
};

const PROBE_TIMEOUT_NANOS: u64 = 3_000_000_000;
/// Latencies of others travel as codes that are exact to 0.05 %.
const CODE_ERROR: f64 = 1.0005;
/// Threads that look at the matrices of a large mesh.
const LOOKERS: usize = 8;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Starts `count` bots at one instant and measures when each knows all and when each serves every
/// pair, from the last start on.
fn start_together(count: usize, limit: Duration) -> (Vec<Bot>, Option<Duration>, Option<Duration>) {
    let plans = plans(count);
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    let started = Instant::now();
    let mut waiting: Vec<_> = bots.iter().collect();
    let known = wait(limit, || {
        waiting.retain(|bot| bot.nodes().is_none_or(|known| known.len() + 1 < count));
        waiting.is_empty()
    });
    let known = known.map(|_| started.elapsed());
    // A matrix of a hundred is megabytes of text: looking at it over and over would be the heaviest
    // load of all, and one bot after another would take minutes on a machine that is short of time.
    let has_all = |bot: &Bot| bot.measured() >= count * (count - 1);
    let full = std::thread::scope(|scope| {
        let looking = bots.chunks(count.div_ceil(LOOKERS)).map(|some| {
            scope.spawn(move || {
                let mut waiting: Vec<_> = some.iter().collect();
                wait_at_rest(limit, 2, || {
                    while waiting.last().is_some_and(|bot| has_all(bot)) {
                        waiting.pop();
                    }
                    waiting.is_empty()
                })
            })
        });
        let looking: Vec<_> = looking.collect();
        looking.into_iter().map(|one| one.join().unwrap()).collect::<Option<Vec<_>>>()
    });
    (bots, known, full.map(|_| started.elapsed()))
}

#[test]
fn forty_bots_started_at_one_instant_are_a_whole_mesh_and_survive_faults() {
    let _turn = alone();
    let (known_in, full_in) = (patience(secs(3)), patience(secs(6)));
    let in_time = |known: Option<Duration>, full: Option<Duration>| {
        known.is_some_and(|known| known <= known_in) && full.is_some_and(|full| full <= full_in)
    };
    let start = || {
        let (bots, known, full) = start_together(40, secs(60));
        eprintln!("40 bots: all know all after {known:?}, every pair at every bot after {full:?}");
        (bots, known, full)
    };
    // Forty processes share this machine with whatever else it runs: what counts is that they can,
    // in three tries.
    let (mut bots, mut known, mut full) = start();
    for _ in 0..2 {
        if !in_time(known, full) {
            drop(std::mem::take(&mut bots));
            (bots, known, full) = start();
        }
    }
    assert!(in_time(known, full), "known after {known:?}, full after {full:?}");
    // None is wedged, none is dead.
    assert!(bots.iter_mut().all(Bot::running));
    for fault in ["KILL", "STOP"] {
        fault_is_known_to_all(&mut bots, fault);
    }
}

#[test]
fn a_hundred_bots_started_at_one_instant_are_a_whole_mesh() {
    let _turn = alone();
    // Bots of two threads each share the machine. How soon is its word, and where it is slower than
    // others it carries fewer; that all come through is ours.
    let count = fitting(100);
    let (mut bots, known, full) = start_together(count, secs(240));
    eprintln!("{count} bots: all know all after {known:?}, every pair at every bot after {full:?}");
    assert!(known.is_some() && full.is_some(), "known after {known:?}, full after {full:?}");
    assert!(bots.iter_mut().all(Bot::running));
    assert!(wait(patience(secs(30)), || all_know_all(&bots)).is_some(), "nobody is lost");
}

/// Hits the last bot, waits until every other has dropped it and nobody else, and takes it out of
/// the list.
fn fault_is_known_to_all(bots: &mut Vec<Bot>, signal: &str) {
    let victim = bots.pop().unwrap();
    let living = names(bots.iter());
    victim.signal(signal);
    let limit = patience(secs(6));
    let dropped = wait(limit, || {
        bots.iter().all(|bot| {
            let known = bot.nodes().unwrap_or_default();
            let missing: Vec<_> = living
                .iter()
                .filter(|name| *name != bot.name() && !known.contains(*name))
                .collect();
            assert!(missing.is_empty(), "{} dropped living ones: {missing:?}", bot.name());
            !known.contains(victim.name())
        })
    });
    eprintln!("{} others, SIG{signal}: dropped by all after {dropped:?}", bots.len());
    assert!(
        dropped.is_some(),
        "{} others, SIG{signal}: not dropped by all within {limit:?}",
        bots.len()
    );
}

#[test]
fn a_crash_and_a_stop_are_known_to_all_in_small_meshes() {
    let _turn = alone();
    for count in [2, 3, 5] {
        for signal in ["KILL", "STOP"] {
            let mut bots = mesh(count);
            fault_is_known_to_all(&mut bots, signal);
        }
    }
}

#[test]
fn a_bot_stopped_for_a_minute_comes_back_and_nobody_serves_a_bogus_latency() {
    let _turn = alone();
    let bots = mesh(5);
    let victim = &bots[4];
    victim.signal("STOP");
    let longest = (PROBE_TIMEOUT_NANOS as f64 * CODE_ERROR) as u64;
    let honest = |bot: &Bot| {
        for sample in bot.samples() {
            assert!(
                sample.nanos.is_none_or(|nanos| nanos <= longest),
                "{} serves {sample:?}",
                bot.name()
            );
        }
    };
    let stopped = Instant::now();
    wait(secs(70), || {
        bots[..4].iter().for_each(honest);
        stopped.elapsed() >= secs(60)
    });
    victim.signal("CONT");
    let back = wait(secs(15), || {
        bots.iter().for_each(honest);
        all_know_all(&bots) && full_matrix(&bots)
    });
    eprintln!("back after {back:?}");
    assert!(back.is_some(), "not back within 15 s");
}

#[test]
fn all_but_one_killed_and_started_again_are_one_mesh() {
    let _turn = alone();
    let mut bots = mesh(6);
    // The survivor is no seed: it finds the others, or is found.
    for bot in &mut bots[..5] {
        bot.kill();
    }
    let survivor = bots.pop().unwrap();
    assert!(wait(secs(15), || survivor.nodes().is_some_and(|known| known.is_empty())).is_some());
    let mut again: Vec<_> = bots.iter().map(|bot| bot.plan.start()).collect();
    again.push(survivor);
    settle(&again);
}

#[test]
fn a_bot_restarted_at_another_port_is_in_and_its_old_address_is_forgotten() {
    let _turn = alone();
    let mut bots = mesh(4);
    let mut moved = bots.pop().unwrap();
    moved.kill();
    let mut plan = moved.plan.clone();
    let ports = support::free_ports(plan.address, 2);
    (plan.mesh_port, plan.api_port) = (ports[0], ports[1]);
    bots.push(plan.start());
    settle(&bots);
    // Nobody dials the old address any more: a listener there hears nothing for longer than a dead
    // node's turn.
    let old = std::net::TcpListener::bind((moved.plan.address, moved.plan.mesh_port)).unwrap();
    old.set_nonblocking(true).unwrap();
    let dialled = wait(secs(12), || old.accept().is_ok());
    assert!(dialled.is_none(), "the old address was dialled again after {dialled:?}");
}

#[test]
fn the_second_living_bot_of_a_name_exits_with_four_and_says_why() {
    let _turn = alone();
    let bots = mesh(3);
    let mut plan = plans(1).remove(0);
    plan.name = bots[2].name().to_owned();
    plan.seeds = vec![bots[0].plan.target()];
    let mut twin = plan.start();
    let status = twin.ended(secs(10)).expect("the twin ends");
    assert_eq!(status.code(), Some(4));
    let log = twin.log();
    assert!(log.contains("the name is taken") && log.contains(&bots[2].plan.target()), "{log}");
    assert!(all_know_all(&bots));
}

#[test]
fn another_bot_at_a_dead_ones_address_does_not_keep_the_dead_alive() {
    let _turn = alone();
    let mut bots = mesh(4);
    let mut dead = bots.pop().unwrap();
    dead.kill();
    let mut heir = dead.plan.clone();
    heir.name = "heir".to_owned();
    bots.push(heir.start());
    let dropped = wait(patience(secs(6)), || {
        bots.iter().all(|bot| bot.nodes().is_some_and(|known| !known.contains(dead.name())))
    });
    assert!(dropped.is_some(), "the dead one is kept alive");
    settle(&bots);
}

#[test]
fn a_terminated_bot_leaves_within_three_seconds_and_is_missed_by_nobody() {
    let _turn = alone();
    for signal in ["TERM", "INT"] {
        let mut plans = plans(4);
        plans.iter_mut().for_each(|plan| plan.more.push("--debug".to_owned()));
        let mut bots: Vec<_> = plans.iter().map(Plan::start).collect();
        settle(&bots);
        let mut leaving = bots.pop().unwrap();
        leaving.signal(signal);
        let status = leaving.ended(patience(secs(3))).expect("it ends in time");
        assert_eq!(status.code(), Some(0), "{}", leaving.log());
        let dropped = wait(patience(secs(2)), || {
            bots.iter().all(|bot| bot.nodes().is_some_and(|known| !known.contains(leaving.name())))
        });
        assert!(dropped.is_some(), "a goodbye is heard at once");
        let log = bots[0].log();
        assert!(log.contains("the node left") && !suspects(&log), "{log}");
        // A crash is one: these words are the right ones.
        bots.pop().unwrap().kill();
        assert!(wait(secs(30), || bots.iter().any(|bot| suspects(&bot.logged()))).is_some());
    }
}

/// Busy loops, ended when dropped.
struct Load(Vec<std::process::Child>);

impl Load {
    fn start(count: usize) -> Self {
        let busy = || {
            Command::new("sh")
                .args(["-c", "while :; do :; done"])
                .stdin(Stdio::null())
                .spawn()
                .unwrap()
        };
        Self((0..count).map(|_| busy()).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_starved_machine_kills_nobody() {
    let _turn = alone();
    let mut bots = mesh(20);
    let cores = std::thread::available_parallelism().unwrap().get();
    let load = Load::start(2 * cores);
    let begun = Instant::now();
    wait(secs(70), || {
        for bot in &bots {
            let known = bot.nodes();
            assert!(
                known.as_ref().is_none_or(|known| known.len() == 19),
                "{} knows only {known:?}",
                bot.name()
            );
        }
        begun.elapsed() >= secs(60)
    });
    drop(load);
    settle(&bots);
    for bot in &mut bots {
        let log = bot.log();
        assert!(!calls_dead(&log), "{log}");
    }
}

#[test]
fn the_own_address_among_the_targets_is_fine_and_names_are_looked_up() {
    // The original ended when its own address was in the list.
    let _turn = alone();
    let address = std::net::IpAddr::from([127, 0, 0, 1]);
    let ports = support::free_ports(address, 4);
    let plan = |index: usize, seeds: Vec<String>| Plan {
        name: format!("bot-{index}"),
        address,
        mesh_port: ports[index],
        api_port: ports[index + 2],
        seeds,
        more: Vec::new(),
    };
    let seeds = vec![format!("dns:localhost:{}", ports[0]), format!("localhost:{}", ports[1])];
    let bots: Vec<_> = (0..2).map(|index| plan(index, seeds.clone()).start()).collect();
    settle(&bots);
}

#[test]
fn a_mesh_on_ipv6_is_a_mesh() {
    let _turn = alone();
    let address = std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST);
    if std::net::TcpListener::bind((address, 0)).is_err() {
        skip("this host has no IPv6 loopback");
        return;
    }
    let bots: Vec<_> = plans_at(address, 3).iter().map(Plan::start).collect();
    settle(&bots);
}

#[test]
fn as_the_first_process_of_a_container_a_bot_still_leaves_on_sigterm() {
    let _turn = alone();
    let allowed = Command::new("unshare")
        .args(["--user", "--map-root-user", "--pid", "--fork", "true"])
        .stderr(Stdio::null())
        .status();
    if !allowed.is_ok_and(|status| status.success()) {
        skip("this host lets nobody make namespaces");
        return;
    }
    let plan = plans(1).remove(0);
    let mut command = Command::new("unshare");
    // The first process of a PID namespace gets no signal that it does not handle.
    command.args([
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--kill-child",
        "--",
        env!("CARGO_BIN_EXE_canary-bot"),
    ]);
    let mut outer = plan.start_by(command);
    assert!(wait(secs(10), || outer.nodes().is_some()).is_some(), "it starts");
    let inner =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", outer.pid())).unwrap();
    assert!(Command::new("kill").args(["-TERM", inner.trim()]).status().unwrap().success());
    let status = outer.ended(secs(3)).expect("it ends within 3 s");
    assert_eq!(status.code(), Some(0));
}
