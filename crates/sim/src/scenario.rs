//! The scenarios: what is done to a mesh, and which promises it must keep.

mod chaos;
mod detection;

use std::time::Duration;

use canary_core::{Attempt, Config, Status, Target};

use self::chaos::{chaos, peace};
use self::detection::{detect, detected_bound};
use crate::check;
use crate::stage::{Setup, Stage};
use crate::world::{HostId, Link, Release, Starvation, World};

pub use self::detection::{Detections, Fault, detections};

/// From a fault until all others know: the p99 of DESIGN's budget.
const DETECTED_P99: Duration = Duration::from_secs(6);
/// After a fault of any length is over, until there is one whole mesh again.
const HEALED: Duration = Duration::from_secs(30);
/// Bytes of a packed cell.
const CELL_BYTES: usize = 4;

/// One of the scenarios.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// How it is called on the command line.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// The fewest bots it makes sense with.
    pub nodes_min: usize,
    play: fn(&mut Stage),
}

/// All scenarios.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "join",
        about: "all start at one instant and find each other",
        nodes_min: 2,
        play: join,
    },
    Scenario {
        name: "start",
        about: "all start at one instant, and rest",
        nodes_min: 2,
        play: start,
    },
    Scenario {
        name: "detect",
        about: "crash, silence and pause of one bot after another",
        nodes_min: 2,
        play: detect,
    },
    Scenario { name: "partition", about: "two sides for 300 s", nodes_min: 2, play: partition },
    Scenario {
        name: "bridge",
        about: "two sides that a third still reaches, both",
        nodes_min: 3,
        play: bridge,
    },
    Scenario {
        name: "cut-off",
        about: "one host is cut off for 20 to 60 s, and back",
        nodes_min: 3,
        play: cut_off,
    },
    Scenario { name: "pause", about: "one stands still for 60 s", nodes_min: 2, play: pause },
    Scenario {
        name: "cut-one-way",
        about: "packets of one direction vanish",
        nodes_min: 3,
        play: cut_one_way,
    },
    Scenario {
        name: "refuse-one-way",
        about: "connections of one direction are refused",
        nodes_min: 3,
        play: refuse_one_way,
    },
    Scenario {
        name: "restart",
        about: "restarts in place, elsewhere, and another at the old address",
        nodes_min: 4,
        play: restart,
    },
    Scenario {
        name: "clocks",
        about: "wall clocks step, hosts are suspended",
        nodes_min: 3,
        play: clocks,
    },
    Scenario {
        name: "starved",
        about: "one gets to run 20 ms out of 200",
        nodes_min: 3,
        play: starved,
    },
    Scenario {
        name: "twins",
        about: "islands with one living name on both sides",
        nodes_min: 4,
        play: twins,
    },
    Scenario {
        name: "churn",
        about: "bots come, crash, restart and leave",
        nodes_min: 4,
        play: churn,
    },
    Scenario {
        name: "noisy",
        about: "packets are lost, doubled and reordered",
        nodes_min: 2,
        play: noisy,
    },
    Scenario {
        name: "upgrade",
        about: "one after another becomes a later release, and back",
        nodes_min: 3,
        play: upgrade,
    },
    Scenario {
        name: "chaos",
        about: "faults of all kinds, drawn from the seed, then peace",
        nodes_min: 3,
        play: chaos,
    },
];

impl Scenario {
    /// The scenario called `name`.
    pub fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|scenario| scenario.name == name).copied()
    }

    /// Plays it and returns the stage with its findings.
    pub fn play(&self, setup: Setup) -> Stage {
        let mut stage = Stage::new(Setup { nodes: setup.nodes.max(self.nodes_min), ..setup });
        self.play_on(&mut stage);
        stage
    }

    /// Plays it on a stage that was prepared.
    pub fn play_on(&self, stage: &mut Stage) {
        (self.play)(stage);
        stage.conclude();
    }
}

/// Meshes of up to so many nodes are read as a whole at every step, where that matters.
const READ_ALL_THE_TIME_MAX: usize = 50;

/// What knowing everybody and every pair may take from a common start.
fn start_bounds(stage: &Stage) -> (Duration, Duration) {
    let nodes = stage.setup.nodes;
    let known = Duration::from_secs(if nodes <= 40 { 3 } else { 10 });
    // A lost packet of a first measurement costs a pair its turn.
    let turns = if stage.setup.loss > 0.0 { 6 } else { 2 };
    let whole = if nodes <= 40 && stage.setup.loss == 0.0 {
        Duration::from_secs(6)
    } else {
        // Everybody has to be sent the whole matrix, at twice the ideal bytes and no faster than
        // the rate limit.
        let sent =
            (2 * nodes * nodes * CELL_BYTES) as f64 / Config::default().gossip_rate_max as f64;
        Duration::from_secs(10) + stage.pair_interval() * turns + Duration::from_secs_f64(sent)
    };
    (known, whole)
}

fn join(stage: &mut Stage) {
    let (known_bound, _) = start_bounds(stage);
    let known = stage.wait_known(known_bound * 3);
    stage.found("every bot knows every bot", known, known_bound);
}

fn start(stage: &mut Stage) {
    let (known_bound, whole_bound) = start_bounds(stage);
    stage.disturb_observers(&[]);
    let known = stage.wait_known(known_bound * 3);
    stage.found("every bot knows every bot", known, known_bound);
    let begun = stage.world.elapsed();
    let whole = stage.wait_whole(whole_bound * 3).map(|taken| taken + begun);
    stage.found("every bot holds every pair", whole, whole_bound);
    stage.run(Duration::from_secs(10) + stage.pair_interval());
    rest(stage);
}

/// What a mesh costs and shows while nothing happens.
fn rest(stage: &mut Stage) {
    let nodes = stage.world.len();
    let ids: Vec<_> = stage.world.running().collect();
    let before: Vec<_> = ids.iter().map(|id| stage.world.gossip_bytes_of(*id)).collect();
    let seconds = stage.setup.lasting.as_secs().max(1);
    let mut busiest = 0;
    for _ in 0..seconds {
        let sent = stage.world.gossip_bytes();
        stage.run(Duration::from_secs(1));
        busiest = busiest.max(stage.world.gossip_bytes() - sent);
    }
    let rate = |(id, before): (&HostId, &u64)| {
        (stage.world.gossip_bytes_of(*id) - before) as f64 / seconds as f64 / 1000.0
    };
    let rates: Vec<_> = ids.iter().zip(&before).map(rate).collect();
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    let highest = rates.iter().copied().fold(0.0, f64::max);
    // Who is short of time publishes less often, and says so.
    let publish = ids
        .iter()
        .filter_map(|id| stage.world.snapshot(*id))
        .map(|snapshot| snapshot.publish_interval)
        .max()
        .unwrap_or_default();
    let ideal = (nodes * nodes * CELL_BYTES) as f64 / publish.as_secs_f64() / 1000.0;
    // The mean of fewer turns says nothing.
    if nodes >= 100 && publish * 3 <= Duration::from_secs(seconds) {
        let times = busiest as f64 / nodes as f64 / 1000.0 / mean;
        stage.found_number("gossip in the busiest second against the mean", times, 2.0, "times");
    }
    if nodes == 200 {
        stage.found_number("gossip sent per bot at 200", mean, 25.0, "kB/s");
    }
    if nodes >= 200 {
        stage.found_number(
            "gossip against pairs x packed cell / publish interval",
            mean,
            2.0 * ideal,
            "kB/s",
        );
    }
    stage.found_number(
        "gossip of the busiest bot against the rate limit",
        highest,
        Config::default().gossip_rate_max as f64 / 1000.0,
        "kB/s",
    );
    let oldest = check::oldest_row(&stage.world);
    stage.found("age of the oldest row anywhere", oldest, publish * 2 + Duration::from_secs(5));
}

fn whole_again(stage: &mut Stage) {
    whole_again_while(stage, |_| {});
}

/// The same; `look` sees every step on the way.
fn whole_again_while(stage: &mut Stage, look: impl FnMut(&World)) {
    let bound = HEALED.max(
        Duration::from_secs(10)
            + stage.pair_interval() * if stage.setup.loss > 0.0 { 6 } else { 2 },
    );
    let mut healed = stage.wait_whole_while(bound, look);
    if healed.is_none() {
        let lacks = check::lacks(&stage.world);
        stage.found_that("nothing is lacking in time", false, lacks);
        healed = stage.wait_whole(bound * 3).map(|more| more + bound);
    }
    stage.found("one mesh again, with every row", healed, bound);
}

fn partition(stage: &mut Stage) {
    stage.settle();
    let nodes = stage.world.len();
    let mut all: Vec<_> = (0..nodes).map(HostId).collect();
    stage.rng.shuffle(&mut all);
    let size = 1 + stage.rng.usize(..nodes.div_ceil(2));
    let island = all[..size.min(nodes - 1)].to_vec();
    stage.part(&island);
    stage.run(Duration::from_secs(300));
    let across = |a: HostId, b: HostId| island.contains(&a) == island.contains(&b);
    let within = check::false_deaths(&stage.world, across).len();
    stage.found_that(
        "nobody is dead to its own side",
        within == 0,
        format!("{within} deaths on a side of {}", island.len()),
    );
    stage.unite();
    whole_again(stage);
}

fn bridge(stage: &mut Stage) {
    stage.settle();
    let nodes = stage.world.len();
    let bridges = 1 + stage.rng.usize(..(nodes / 10).max(1));
    let sides: Vec<_> = (bridges..nodes).map(HostId).collect();
    let (left, right) = sides.split_at(sides.len() / 2);
    let (left, right) = (left.to_vec(), right.to_vec());
    left.iter().for_each(|a| right.iter().for_each(|b| stage.cut(*a, *b)));
    // Until word has come round by the bridges some may be considered dead: how many is reported,
    // that it ends is promised.
    stage.excuse_all();
    let before = stage.deaths();
    let mut longest = Some(Duration::ZERO);
    for _ in 0..18 {
        stage.run(Duration::from_secs(5));
        longest =
            longest.and_then(|longest| Some(longest.max(check::longest_unmeasured(&stage.world)?)));
    }
    // A turn during an attempt, which takes until its timeout, is left to the next, and turns are
    // jittered. But the doubts that half of the mesh raises take no turn of the schedule.
    stage.found(
        "every pair is still measured",
        longest,
        stage.pair_interval() * 3 + Config::default().probe_timeout,
    );
    let in_between = stage.deaths() - before;
    stage.found_that(
        "how many are considered dead in between is reported",
        true,
        format!("{in_between} deaths among {} pairs", nodes * (nodes - 1)),
    );
    let still_from = stage.world.elapsed() - Duration::from_secs(40);
    let settled = stage.last_status_change() <= still_from;
    stage.found_that(
        "a partial partition settles",
        settled,
        format!(
            "last change of a status at {:.1} s of {:.1} s",
            stage.last_status_change().as_secs_f64(),
            stage.world.elapsed().as_secs_f64()
        ),
    );
    let deaths = check::false_deaths(&stage.world, |_, _| true).len();
    stage.found_that(
        "who is reached by a bridge is alive to all",
        deaths == 0,
        format!("{deaths} deaths with {bridges} bridges"),
    );
    left.iter().for_each(|a| right.iter().for_each(|b| stage.repair(*a, *b)));
    whole_again(stage);
}

/// A host that was cut off comes back and holds all others for dead: nobody may believe it. Looks
/// at members alone, so it needs no whole matrix.
fn cut_off(stage: &mut Stage) {
    let known = stage.wait_known(HEALED);
    stage.found("every bot knows every bot", known, HEALED);
    stage.run(Duration::from_secs(20));
    let victim = HostId(stage.rng.usize(..stage.world.len()));
    let name = stage.world.name(victim).clone();
    let observers: Vec<_> = stage.world.running().filter(|id| *id != victim).collect();
    let off = Duration::from_secs(20 + stage.rng.u64(..40));
    let begun = stage.world.elapsed();
    stage.silence(victim);
    let known = stage.wait_detected(&[name], &observers, Duration::from_secs(20)).remove(0);
    let p99 = Detections(known).quantile(0.99);
    stage.found("the loss of it is known to all others, p99", p99, detected_bound(stage));
    let rest = (begun + off).saturating_sub(stage.world.elapsed());
    stage.run(rest);
    stage.unsilence(victim);
    let back = stage.wait_known(HEALED);
    stage.found("one mesh again", back, HEALED);
}

/// A rolling upgrade, and back. With an even seed rows of the later release are read by this one in
/// part, with an odd one not at all.
fn upgrade(stage: &mut Stage) {
    stage.settle();
    let later =
        if stage.setup.seed.is_multiple_of(2) { Release::Next } else { Release::Unreadable };
    let nodes = stage.world.len();
    // All of a large mesh would take minutes, and show nothing new.
    let upgraded: Vec<_> =
        (0..nodes).map(HostId).filter(|id| id.0 % nodes.div_ceil(12) == 0).collect();
    for release in [later, Release::This] {
        for (index, id) in upgraded.iter().enumerate() {
            stage.leave(*id);
            stage.run(Duration::from_secs(2));
            stage.world.set_release(*id, release);
            stage.start(*id);
            stage.run(Duration::from_secs(3));
            if index * 2 == upgraded.len() || index + 1 == upgraded.len() {
                stage.wait_known(HEALED);
                // Longer than any aftermath of a restart: what is suspected now is suspected for
                // what it says.
                stage.run(Duration::from_secs(40));
                let suspected = check::false_suspicions(&stage.world);
                // A packet that was lost raises a doubt of its own.
                let held = suspected == 0 || stage.setup.loss > 0.0;
                stage.found_that(
                    "nobody is doubted for what it says",
                    held,
                    format!("{suspected} suspicions"),
                );
                let cut_short = stage.world.rows_cut_short();
                stage.found_that(
                    "what a later release adds travels on",
                    cut_short == 0,
                    format!("{cut_short} rows without it"),
                );
            }
        }
    }
    whole_again(stage);
}

fn pause(stage: &mut Stage) {
    stage.settle();
    let victim = HostId(stage.rng.usize(..stage.world.len()));
    let name = stage.world.name(victim).clone();
    stage.pause(victim);
    stage.run(Duration::from_secs(60));
    let failures = |snapshot: canary_core::Snapshot| {
        snapshot.member(&name).map_or(0, |member| member.pair.main().failures.iter().sum::<u64>())
    };
    // A starved observer measures too seldom to be sure of one before it knows the peer for dead,
    // and so does whose probe was half answered.
    let observers =
        stage.world.running().filter(|id| *id != victim && stage.world.runs_freely(*id));
    let counted: Vec<_> =
        observers.filter_map(|id| stage.world.snapshot(id)).map(failures).collect();
    let (some, all) = (counted.iter().filter(|failures| **failures > 0).count(), counted.len());
    let most = some * 2 > all || all == 0;
    stage.found_that(
        "failures of a stopped peer are counted by most who run",
        most,
        format!("by {some} of {all}"),
    );
    stage.resume(victim);
    // A probe that spans the pause must not be booked, not even until the next one.
    let (mut looks, mut bogus) = (0, 0);
    whole_again_while(stage, |world| {
        if world.len() <= READ_ALL_THE_TIME_MAX {
            looks += 1;
            let timeout = Config::default().probe_timeout;
            bogus += usize::from(!check::no_bogus_latency(world, timeout));
        }
    });
    let seen = format!("{bogus} of {looks} looks");
    stage.found_that("no latency is that of the pause", bogus == 0, seen);
}

/// How an observer's own pair to another stands.
fn pair_ok(stage: &Stage, from: HostId, to: HostId) -> Option<bool> {
    let snapshot = stage.world.snapshot(from)?;
    let (latest, _) = snapshot.member(stage.world.name(to))?.pair.main().latest()?;
    Some(matches!(latest, Attempt::Ok(_)))
}

fn two_of(stage: &mut Stage) -> (HostId, HostId) {
    let nodes = stage.world.len();
    let a = stage.rng.usize(..nodes);
    let b = (a + 1 + stage.rng.usize(..nodes - 1)) % nodes;
    (HostId(a), HostId(b))
}

fn cut_one_way(stage: &mut Stage) {
    stage.settle();
    let (a, b) = two_of(stage);
    stage.cut(a, b);
    stage.run(Duration::from_secs(10) + stage.pair_interval() * 2);
    let both = pair_ok(stage, a, b) == Some(false) && pair_ok(stage, b, a) == Some(false);
    stage.found_that(
        "packets cut one way fail both pairs",
        both,
        format!("{:?} {:?}", pair_ok(stage, a, b), pair_ok(stage, b, a)),
    );
    let deaths = check::false_deaths(&stage.world, |_, _| true).len();
    stage.found_that(
        "who is reached by others is alive to all",
        deaths == 0,
        format!("{deaths} deaths"),
    );
    stage.repair(a, b);
    whole_again(stage);
}

fn refuse_one_way(stage: &mut Stage) {
    stage.settle();
    let (a, b) = two_of(stage);
    stage.refuse(a, b);
    stage.run(Duration::from_secs(10) + stage.pair_interval() * 2);
    let (there, back) = (pair_ok(stage, a, b), pair_ok(stage, b, a));
    stage.found_that(
        "connections refused one way fail one pair",
        there == Some(false),
        format!("{there:?}"),
    );
    stage.found_that(
        "and leave the other",
        stage.setup.loss > 0.0 || back == Some(true),
        format!("{back:?}"),
    );
    let deaths = check::false_deaths(&stage.world, |_, _| true).len();
    stage.found_that(
        "who is reached by others is alive to all",
        deaths == 0,
        format!("{deaths} deaths"),
    );
    stage.repair(a, b);
    whole_again(stage);
}

fn restart(stage: &mut Stage) {
    stage.settle();
    let last = HostId(stage.world.len() - 1);
    let name = stage.world.name(last).clone();
    let gone = Duration::from_secs(stage.rng.u64(..20));
    stage.crash(last);
    stage.run(gone);
    stage.start(last);
    let back = stage.wait_whole(HEALED);
    stage.found("a restart in place is back", back, HEALED);
    // The same name at another target: the old address is let go.
    stage.crash(last);
    let elsewhere = Target::new("elsewhere", 9000).expect("a valid target");
    stage.move_to(last, elsewhere.clone());
    stage.start(last);
    let moved = stage.wait(HEALED, |world| {
        world.running().filter(|id| *id != last).all(|id| {
            let snapshot = world.snapshot(id);
            snapshot.is_some_and(|snapshot| {
                snapshot.member(&name).is_some_and(|member| {
                    member.record.target == elsewhere && member.status == Status::Alive
                })
            })
        })
    });
    stage.found("a restart elsewhere is followed", moved, HEALED);
    let measured = stage.wait_whole(HEALED);
    stage.found("and measured there", measured, HEALED);
    // Another bot at the dead one's address must not keep it alive.
    let dead = HostId(stage.world.len() - 2);
    let name = stage.world.name(dead).clone();
    let address = stage.world.target(dead).clone();
    stage.run(Duration::from_secs(5));
    stage.crash(dead);
    stage.move_to(dead, Target::new("nowhere", 1).expect("a valid target"));
    let seeds = stage.seeds(dead);
    let heir = stage.world.add_at("heir", address, &seeds);
    let observers: Vec<_> = stage.world.running().filter(|id| *id != heir).collect();
    let dropped = Detections(
        stage
            .wait_detected(std::slice::from_ref(&name), &observers, Duration::from_secs(20))
            .remove(0),
    );
    stage.found(
        "a dead one is dropped though another has its address, p99",
        dropped.quantile(0.99),
        detected_bound(stage),
    );
    let heir_name = stage.world.name(heir).clone();
    let known = stage.wait(HEALED, |world| {
        world.running().filter(|id| *id != heir).all(|id| {
            world.snapshot(id).is_some_and(|snapshot| {
                snapshot.member(&heir_name).is_some_and(|member| member.status == Status::Alive)
            })
        })
    });
    stage.found("the heir of the address is known to all", known, HEALED);
    stage.run(Duration::from_secs(60));
    let still = check::dropped_by_all(&stage.world, &name);
    stage.found_that("the dead do not come back", still, "60 s later");
}

fn clocks(stage: &mut Stage) {
    stage.settle();
    for hours in [1, -2, 24] {
        let id = HostId(stage.rng.usize(..stage.world.len()));
        stage.world.step_wall_clock(id, hours * 3_600_000);
        stage.run(Duration::from_secs(15));
    }
    let deaths = check::false_deaths(&stage.world, |_, _| true).len();
    stage.found_that("a stepped wall clock kills nobody", deaths == 0, format!("{deaths} deaths"));
    let suspended = HostId(stage.rng.usize(..stage.world.len()));
    stage.pause(suspended);
    stage.run(Duration::from_secs(600));
    stage.resume(suspended);
    stage.run(Duration::from_millis(100));
    let deaths = check::false_deaths(&stage.world, |observer, _| observer == suspended).len();
    stage.found_that(
        "who was suspended holds nobody for dead",
        deaths == 0,
        format!("{deaths} deaths"),
    );
    whole_again(stage);
}

fn starved(stage: &mut Stage) {
    stage.settle();
    let id = HostId(stage.rng.usize(..stage.world.len()));
    let starvation = Starvation {
        run: Duration::from_millis(20),
        every: Duration::from_millis(100 + stage.rng.u64(..400)),
    };
    stage.world.starve(id, Some(starvation));
    stage.run(Duration::from_secs(60));
    stage.world.starve(id, None);
    whole_again(stage);
}

fn twins(stage: &mut Stage) {
    stage.settle();
    let nodes = stage.world.len();
    let twin = HostId(1);
    let name = stage.world.name(twin).as_str().to_owned();
    stage.ambiguous.insert(stage.world.name(twin).clone());
    // A newcomer with a living name is refused.
    let refused = stage.world.add(&name, &[HostId(0)]);
    stage.run(Duration::from_secs(6));
    let ended = stage.world.refused_name(refused);
    stage.found_that("a newcomer with a living name is refused", ended, "within 6 s");
    // On an island it is the only one of its name there.
    let island: Vec<_> = (2..nodes).map(HostId).take(nodes / 2).collect();
    stage.part(&island);
    stage.run(Duration::from_secs(30));
    let other = stage.world.add_on(&name, &[island[0]], 1);
    stage.run(Duration::from_secs(30));
    stage.unite();
    let yielded = |world: &World, id| {
        world.snapshot(id).is_some_and(|snapshot| snapshot.name_conflict().is_some())
    };
    let settled =
        stage.wait(Duration::from_secs(60), |world| yielded(world, twin) != yielded(world, other));
    stage.found("of two that live one yields", settled, Duration::from_secs(60));
    stage.run(Duration::from_secs(30));
    let one = yielded(&stage.world, twin) != yielded(&stage.world, other);
    stage.found_that("and it stays so", one, "30 s later");
    // Which of the two is meant by the name is what this is about: deaths of it say nothing.
    stage.crash(other);
    stage.crash(twin);
    stage.run(Duration::from_secs(5));
}

fn churn(stage: &mut Stage) {
    stage.settle();
    let end = stage.world.elapsed() + stage.setup.lasting * 2;
    while stage.world.elapsed() < end {
        let id = HostId(1 + stage.rng.usize(..stage.world.len() - 1));
        let runs = stage.world.running().any(|running| running == id);
        match (runs, stage.rng.u32(..4)) {
            (true, 0) => stage.crash(id),
            (true, 1) => stage.leave(id),
            (true, _) => {
                stage.crash(id);
                let gone = Duration::from_millis(stage.rng.u64(..3000));
                stage.run(gone);
                stage.start(id);
            }
            (false, _) => stage.start(id),
        }
        let pause = Duration::from_millis(stage.rng.u64(..5000));
        stage.run(pause);
    }
    peace(stage);
}

fn noisy(stage: &mut Stage) {
    stage.settle();
    let loss = stage.setup.loss.max(0.05);
    stage.world.set_link(Link {
        loss,
        duplicate: 0.1,
        reorder: 0.1,
        jitter: Duration::from_millis(20),
        ..Link::default()
    });
    let lasting = stage.setup.lasting;
    stage.run(lasting);
    let deaths = check::false_deaths(&stage.world, |_, _| true).len();
    stage.found_that("a noisy network kills nobody", deaths == 0, format!("{deaths} deaths"));
    stage.world.set_link(Link { loss: stage.setup.loss, ..Link::default() });
    whole_again(stage);
}
