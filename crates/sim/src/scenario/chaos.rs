//! Random faults one after the other, and peace after them.

use std::time::Duration;

use super::{two_of, whole_again};
use crate::stage::Stage;
use crate::world::{HostId, Link, Starvation};

pub(super) fn chaos(stage: &mut Stage) {
    stage.settle();
    let mut cuts: Vec<(HostId, HostId)> = Vec::new();
    let end = stage.world.elapsed() + stage.setup.lasting * 2;
    while stage.world.elapsed() < end {
        let (a, b) = two_of(stage);
        let running: Vec<_> = stage.world.running().collect();
        let runs = running.contains(&a);
        match stage.rng.u32(..12) {
            _ if !runs => stage.start(a),
            0 => stage.crash(a),
            1 => stage.leave(a),
            2 => {
                stage.pause(a);
                let pause = Duration::from_millis(stage.rng.u64(..40_000));
                stage.run(pause);
                stage.resume(a);
            }
            3 => stage.silence(a),
            4 => stage.unsilence(a),
            5 => {
                let size = 1 + stage.rng.usize(..running.len().div_ceil(2));
                let island: Vec<_> = running.iter().copied().take(size).collect();
                stage.part(&island);
                let parted = Duration::from_secs(stage.rng.u64(..60));
                stage.run(parted);
                stage.unite();
            }
            6 => {
                stage.cut(a, b);
                cuts.push((a, b));
            }
            7 => {
                stage.refuse(a, b);
                cuts.push((a, b));
            }
            8 => {
                let starvation = Starvation {
                    run: Duration::from_millis(20),
                    every: Duration::from_millis(200),
                };
                stage.write(format!("starve {}", a.0));
                stage.world.starve(a, Some(starvation));
            }
            9 => {
                let step = 1000 * (stage.rng.i64(0..20_000) - 10_000);
                stage.world.step_wall_clock(a, step);
            }
            10 => {
                let loss = stage.rng.f64() * 0.1;
                let delay = Duration::from_micros(stage.rng.u64(100..80_000));
                stage.write(format!("link {loss:.3} {delay:?}"));
                stage.world.set_link(Link {
                    loss,
                    delay,
                    jitter: delay / 2,
                    duplicate: 0.05,
                    reorder: 0.05,
                });
            }
            _ => {
                if let Some((a, b)) = cuts.pop() {
                    stage.repair(a, b);
                }
            }
        }
        // A cut pair may be all that joins two sides in a small mesh, and cuts add up: then death
        // is no lie.
        if cuts.len() >= 2 || stage.undisturbed() < 4 {
            stage.excuse_all();
        }
        let pause = Duration::from_millis(stage.rng.u64(..8000));
        stage.run(pause);
    }
    cuts.into_iter().for_each(|(a, b)| stage.repair(a, b));
    peace(stage);
}

/// All faults end, everybody runs: one whole mesh, and quiet.
pub(super) fn peace(stage: &mut Stage) {
    let link = Link { loss: stage.setup.loss, ..Link::default() };
    stage.world.set_link(link);
    for id in (0..stage.world.len()).map(HostId) {
        stage.unsilence(id);
        stage.world.starve(id, None);
        if !stage.world.running().any(|running| running == id) {
            stage.start(id);
        }
    }
    whole_again(stage);
    stage.run(Duration::from_secs(40));
    let still_from = stage.world.elapsed() - Duration::from_secs(15);
    let last = stage.last_status_change();
    stage.found_that(
        "peace is quiet",
        last <= still_from,
        format!(
            "last change of a status {:.1} s ago",
            (stage.world.elapsed() - last).as_secs_f64()
        ),
    );
    let whole = stage.wait_whole(
        Duration::from_secs(5) + stage.pair_interval() * if stage.setup.loss > 0.0 { 3 } else { 1 },
    );
    stage.found_that("and stays whole", whole.is_some(), "at the end");
}
