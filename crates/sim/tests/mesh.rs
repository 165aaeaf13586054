//! What no scenario plays, each from fixed seeds.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use canary_core::{Config, Status};
use canary_sim::check::{
    all_know_all, dropped_by_all, false_deaths, full_matrix, no_bogus_latency,
};
use canary_sim::{HostId, Link, World};

const SEEDS: std::ops::Range<u64> = 0..5;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A mesh of `count` bots that start at one instant and join at the first three.
fn start(seed: u64, count: usize, link: Link) -> World {
    let mut world = World::new(seed, Config::default(), link);
    let seeds: Vec<_> = (0..count.min(3)).map(HostId).collect();
    for index in 0..count {
        // Hosts that do not exist yet cannot be named by id: their targets follow from the number.
        let known: Vec<_> = seeds.iter().copied().filter(|id| id.0 < index).collect();
        world.add(&format!("bot-{index}"), &known);
    }
    world
}

fn settle(world: &mut World) {
    world
        .run_until(secs(30), |world| all_know_all(world) && full_matrix(world))
        .expect("a healthy mesh settles");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = start(seed, 20, Link { loss: 0.05, ..Link::default() });
        world.run(secs(5));
        world.crash(HostId(7));
        world.run(secs(10));
        world.fingerprint()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn five_percent_loss_and_pauses_of_two_seconds_kill_nobody() {
    for seed in SEEDS {
        let mut world = start(seed, 20, Link { loss: 0.05, ..Link::default() });
        settle(&mut world);
        for round in 0..20 {
            let paused = HostId((round * 7 + seed as usize) % 20);
            world.pause(paused);
            world.run(secs(2));
            world.resume(paused);
            world.run(secs(1));
            let deaths = false_deaths(&world, |_, _| true);
            assert!(deaths.is_empty(), "seed {seed}, round {round}: {deaths:?}");
        }
    }
}

#[test]
fn all_but_one_restarted_are_one_mesh_again() {
    for seed in SEEDS {
        let mut world = start(seed, 10, Link::default());
        settle(&mut world);
        // The survivor is no seed: it must find the others, or be found.
        for index in 0..9 {
            world.crash(HostId(index));
        }
        world.run(secs(20));
        for index in 0..9 {
            world.start(HostId(index), &[HostId(0), HostId(1), HostId(2)]);
        }
        let healed = world.run_until(secs(30), |world| all_know_all(world) && full_matrix(world));
        assert!(healed.is_some(), "seed {seed}: not one mesh within 30 s");
    }
}

#[test]
fn a_goodbye_is_no_alarm() {
    for seed in SEEDS {
        let mut world = start(seed, 10, Link::default());
        settle(&mut world);
        let name = world.name(HostId(9)).clone();
        world.leave(HostId(9));
        let left = world.run_until(secs(3), |world| {
            world.running().all(|id| {
                world
                    .snapshot(id)
                    .unwrap()
                    .member(&name)
                    .is_some_and(|member| member.status == Status::Left)
            })
        });
        assert!(left.is_some(), "seed {seed}");
    }
}

#[test]
fn a_settled_mesh_of_forty_gossips_little() {
    let mut world = start(3, 40, Link::default());
    settle(&mut world);
    world.run(secs(10));
    let before = world.gossip_bytes();
    world.run(secs(60));
    let per_bot_and_second = (world.gossip_bytes() - before) / 60 / 40;
    // Forty rows of forty cells of eight bytes in ten seconds, and two digests a second with their
    // answers.
    assert!(per_bot_and_second < 8_000, "{per_bot_and_second} bytes a second");
}

#[test]
fn every_checker_fails_on_its_planted_fault() {
    let mut world = start(1, 5, Link::default());
    assert!(
        !all_know_all(&world) && !full_matrix(&world),
        "bots that have just started know nothing"
    );
    settle(&mut world);
    assert!(all_know_all(&world) && full_matrix(&world));
    assert!(
        !no_bogus_latency(&world, Duration::ZERO),
        "every latency is above a timeout of nothing"
    );
    let name = world.name(HostId(4)).clone();
    assert!(!dropped_by_all(&world, &name), "a living one is dropped by nobody");
    // A partition that the checker does not know looks like false deaths, and takes pairs and
    // nodes away.
    world.put_on_island(HostId(4), 1);
    world.run(secs(20));
    assert!(!false_deaths(&world, |_, _| true).is_empty());
    assert!(!all_know_all(&world));
    // A newcomer that nobody can reach leaves the matrix with holes.
    world.put_on_island(HostId(4), 0);
    settle(&mut world);
    let newcomer = world.add("newcomer", &[]);
    world.silence(newcomer, true);
    world.run(secs(10));
    assert!(!full_matrix(&world));
}

#[test]
fn many_dead_do_not_keep_the_living_from_being_measured() {
    let config = Config { probe_rate_max: 5.0, ..Config::default() };
    let mut world = World::new(1, config, Link::default());
    for index in 0..40 {
        let known: Vec<_> = (0..index.min(3)).map(HostId).collect();
        world.add(&format!("bot-{index}"), &known);
    }
    world.run_until(secs(60), full_matrix).expect("a healthy mesh settles");
    (2..40).for_each(|index| world.crash(HostId(index)));
    world.run(secs(120));
    let measured = |world: &World| {
        let snapshot = world.snapshot(HostId(0)).unwrap();
        snapshot.member(world.name(HostId(1))).unwrap().pair.main().successes
    };
    let before = measured(&world);
    world.run(secs(30));
    assert!(measured(&world) >= before + 5, "the living pair is measured every few seconds");
}
