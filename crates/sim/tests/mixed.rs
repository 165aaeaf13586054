//! Meshes of our bots and bots of the original, from fixed seeds: what hosts do for guests.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use canary_core::{Config, NodeName, Status};
use canary_sim::{HostId, Link, World};

/// A mesh of `ours` bots, of which the first ten are given to the guests to join at, and guests.
fn mesh(seed: u64, ours: usize, guests: usize) -> (World, Vec<HostId>, Vec<HostId>) {
    let mut world = World::new(seed, Config::default(), Link::default()).with_guests();
    let ours: Vec<_> =
        (0..ours).map(|number| world.add(&format!("ours-{number:02}"), &[HostId(0)])).collect();
    let seeds = &ours[..ours.len().min(10)];
    let guests: Vec<_> =
        (0..guests).map(|number| world.add_guest(&format!("old-{number}"), seeds)).collect();
    (world, ours, guests)
}

fn names(world: &World, ids: &[HostId]) -> BTreeSet<NodeName> {
    ids.iter().map(|id| world.name(*id).clone()).collect()
}

/// Whether each of `observers` knows exactly these others.
fn known_to(world: &World, observers: &[HostId], all: &BTreeSet<NodeName>) -> bool {
    observers.iter().all(|id| {
        world.snapshot(*id).is_some_and(|snapshot| {
            let known: BTreeSet<_> =
                snapshot.present().map(|member| member.record.name.clone()).collect();
            let others = all.iter().filter(|name| *name != world.name(*id));
            known.iter().eq(others)
        })
    })
}

/// The same, once each of ours knows all; with the names of all.
fn known_mesh(
    seed: u64,
    ours: usize,
    guests: usize,
) -> (World, Vec<HostId>, Vec<HostId>, BTreeSet<NodeName>) {
    let (mut world, ours, guests) = mesh(seed, ours, guests);
    let all = names(&world, &[ours.clone(), guests.clone()].concat());
    let known = world.run_until(Duration::from_secs(30), |world| known_to(world, &ours, &all));
    assert!(known.is_some(), "seed {seed}: ours do not know all");
    (world, ours, guests, all)
}

/// Whether each of `observers` holds a measured pair from each guest to every other node.
fn rows_of_guests(world: &World, observers: &[HostId], guests: &[HostId], nodes: usize) -> bool {
    observers.iter().all(|id| {
        let snapshot = world.snapshot(*id).unwrap();
        guests.iter().all(|guest| {
            let row = snapshot.member(world.name(*guest)).and_then(|member| member.row.as_ref());
            row.is_some_and(|row| {
                let measured = row
                    .cells()
                    .iter()
                    .filter(|view| view.cell.state != canary_core::State::Unknown)
                    .count();
                measured >= nodes - 1
            })
        })
    })
}

fn nobody_died(world: &World, guests: &[HostId]) {
    for guest in guests {
        assert!(!world.guest_died(*guest), "{} was asked while it joined", world.name(*guest));
    }
}

#[test]
fn all_know_all_and_everybody_holds_every_pair() {
    for seed in 1..=3 {
        let (mut world, ours, guests) = mesh(seed, 12, 4);
        let all = names(&world, &[ours.clone(), guests.clone()].concat());
        let known = world.run_until(Duration::from_secs(30), |world| known_to(world, &ours, &all));
        assert!(known.is_some(), "seed {seed}: ours do not know all");
        // A guest measures one node in three seconds.
        let whole = world.run_until(Duration::from_secs(400), |world| {
            rows_of_guests(world, &ours, &guests, all.len())
        });
        assert!(whole.is_some(), "seed {seed}: rows of guests are not whole");
        let told = world.run_until(Duration::from_secs(60), |world| {
            guests
                .iter()
                .all(|guest| world.samples_of_guest(*guest).len() == all.len() * (all.len() - 1))
        });
        assert!(told.is_some(), "seed {seed}: a guest lacks pairs");
        for guest in &guests {
            let known: BTreeSet<_> = world.known_to_guest(*guest).into_iter().collect();
            assert_eq!(
                known.len(),
                all.len() - 1,
                "seed {seed}: {} knows {known:?}",
                world.name(*guest)
            );
            let pairs = world.samples_of_guest(*guest).len();
            assert!(
                pairs >= all.len() * (all.len() - 1),
                "seed {seed}: a guest holds {pairs} pairs"
            );
        }
        nobody_died(&world, &guests);
    }
}

#[test]
fn a_dead_guest_is_dead_to_all_and_alive_again_when_it_is_back() {
    let (mut world, ours, guests, _) = known_mesh(4, 10, 3);
    world.run(Duration::from_secs(60));
    let name = world.name(guests[1]).clone();
    let status = |world: &World, id: HostId| {
        world.snapshot(id).unwrap().member(&name).map(|member| member.status)
    };
    for gone in [false, true] {
        if gone {
            world.crash(guests[1]);
        } else {
            world.pause(guests[1]);
        }
        let dead = world.run_until(Duration::from_secs(15), |world| {
            ours.iter().all(|id| status(world, *id) == Some(Status::Dead))
        });
        assert!(dead.is_some(), "gone {gone}: somebody holds it for alive");
        world.run(Duration::from_secs(30));
        if gone {
            world.start_guest(guests[1], &ours[..3]);
        } else {
            world.resume(guests[1]);
        }
        let back = world.run_until(Duration::from_secs(30), |world| {
            ours.iter().all(|id| status(world, *id) == Some(Status::Alive))
        });
        assert!(back.is_some(), "gone {gone}: somebody holds it for dead");
    }
    nobody_died(&world, &guests);
}

#[test]
fn when_a_host_dies_another_tells_what_its_guests_measure() {
    let (mut world, ours, guests, _) = known_mesh(5, 6, 3);
    world.run(Duration::from_secs(60));
    // Of six hosts four go: each guest loses at least one of its two.
    for id in &ours[2..] {
        world.crash(*id);
    }
    world.run(Duration::from_secs(30));
    let version = |world: &World, observer: HostId, guest: HostId| {
        let snapshot = world.snapshot(observer).unwrap();
        snapshot.member(world.name(guest)).map_or(0, |member| member.version)
    };
    for observer in &ours[..2] {
        for guest in &guests {
            let before = version(&world, *observer, *guest);
            let told = world.run_until(Duration::from_secs(30), |world| {
                version(world, *observer, *guest) > before
            });
            assert!(
                told.is_some(),
                "{} tells nothing of {}",
                world.name(*observer),
                world.name(*guest)
            );
        }
    }
    nobody_died(&world, &guests);
}

#[test]
fn a_stuck_guest_is_known_to_all_and_asked_by_few() {
    for seed in 6..=8 {
        let (mut world, ours, guests, all) = known_mesh(seed, 30, 2);
        world.run(Duration::from_secs(30));
        guests.iter().for_each(|guest| world.wedge_guest(*guest));
        world.run(Duration::from_secs(600));
        let held: Vec<_> = guests.iter().map(|guest| world.held_by_guest(*guest)).collect();
        assert!(held.iter().all(|held| *held <= 10), "seed {seed}: {held:?} calls are held");
        for id in &ours {
            let snapshot = world.snapshot(*id).unwrap();
            let stuck: Vec<_> = snapshot.stuck().into_iter().cloned().collect();
            let expected: Vec<_> =
                guests.iter().map(|guest| world.target(*guest).clone()).collect();
            assert_eq!(stuck, expected, "seed {seed}: as {} sees it", world.name(*id));
            assert!(known_to(&world, &[*id], &all), "seed {seed}");
        }
    }
}

#[test]
fn a_rolling_upgrade_from_the_original_loses_nobody() {
    let (mut world, ours, guests, all) = known_mesh(9, 4, 6);
    world.run(Duration::from_secs(40));
    let mut now_ours = ours.clone();
    for guest in &guests {
        nobody_died(&world, &[*guest]);
        world.crash(*guest);
        world.run(Duration::from_secs(2));
        world.start(*guest, &ours[..2]);
        now_ours.push(*guest);
        let known =
            world.run_until(Duration::from_secs(60), |world| known_to(world, &now_ours, &all));
        assert!(known.is_some(), "after the upgrade of {}", world.name(*guest));
    }
}

#[test]
fn a_guest_that_is_slow_to_let_others_in_gets_all_samples_and_is_seldom_asked() {
    let (mut world, ours, guests) = mesh(11, 8, 2);
    for guest in &guests {
        world.slow_guest(*guest, Duration::from_millis(1500));
    }
    let all = names(&world, &[ours.clone(), guests.clone()].concat());
    world.run_until(Duration::from_secs(60), |world| known_to(world, &ours, &all)).unwrap();
    world.run(Duration::from_secs(120));
    let before: Vec<_> = guests.iter().map(|guest| world.joins_at_guest(*guest)).collect();
    let newest = |world: &World, guest: HostId| {
        world
            .samples_of_guest(guest)
            .into_iter()
            .filter(|((from, _), _)| ours.iter().any(|id| world.name(*id) == from))
            .map(|(_, at)| at)
            .min()
            .unwrap()
    };
    world.run(Duration::from_secs(300));
    let now = world.wall().unix_millis() / 1000;
    for (guest, before) in guests.iter().zip(before) {
        assert_eq!(world.known_to_guest(*guest).len(), all.len() - 1);
        let age = now - newest(&world, *guest);
        assert!(age <= 40, "its oldest sample of ours is {age} s old");
        let asked = world.joins_at_guest(*guest) - before;
        assert!(asked <= 30, "it was asked {asked} times in 300 s");
    }
}

#[test]
fn a_guest_that_answers_too_late_who_joins_it_gets_each_sample_once() {
    let (mut world, ours, guests) = mesh(18, 8, 1);
    world.slow_guest(guests[0], Duration::from_secs(4));
    let all = names(&world, &[ours.clone(), guests.clone()].concat());
    world.run_until(Duration::from_secs(60), |world| known_to(world, &ours, &all)).unwrap();
    world.run(Duration::from_secs(180));
    let before = world.samples_sent_to_guest(guests[0]);
    world.run(Duration::from_secs(300));
    let sent = world.samples_sent_to_guest(guests[0]) - before;
    // Two hosts send two samples of each pair as often as its row is published, every ten seconds,
    // and a little more often of their own.
    let pairs = all.len() * (all.len() - 1);
    let most = 2 * 2 * pairs * 300 / 9;
    assert!(sent > pairs && sent <= most, "{sent} samples of {pairs} pairs, {most} at most");
}

#[test]
fn a_guest_that_restarts_at_once_is_left_alone_while_it_joins() {
    for seed in 12..=17 {
        let (mut world, ours, guests) = mesh(seed, 6, 2);
        // A target that does not answer makes its joining last.
        let nowhere = world.add_guest("nowhere", &[]);
        world.silence(nowhere, true);
        let all = names(&world, &[ours.clone(), guests.clone()].concat());
        world.run_until(Duration::from_secs(30), |world| known_to(world, &ours, &all)).unwrap();
        for pause in [0, 700, 1400, 2900] {
            world.run(Duration::from_secs(45));
            world.crash(guests[0]);
            world.run(Duration::from_millis(pause));
            world.start_guest(guests[0], &[nowhere, ours[0]]);
            world.run(Duration::from_secs(20));
            nobody_died(&world, &guests);
            let known = world.run_until(Duration::from_secs(40), |world| {
                known_to(world, &ours, &all)
                    && world.known_to_guest(guests[0]).len() + 1 >= all.len()
            });
            assert!(known.is_some(), "seed {seed}, {pause} ms");
        }
    }
}

#[test]
fn equal_seeds_give_equal_runs() {
    let fingerprint = || {
        let (mut world, ..) = mesh(10, 6, 3);
        world.run(Duration::from_secs(60));
        world.fingerprint()
    };
    assert_eq!(fingerprint(), fingerprint());
}
