//! What explaining costs, held against its budget. Exits with 1 when it is missed.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use canary_core::Failure;
use canary_insight::Insight;
use support::Lab;

/// Seconds that are watched.
const WATCHED: u32 = 30;

fn main() -> ExitCode {
    let mut kept = true;
    for (nodes, published_every, bound_ms) in [(200, 10, 2.0), (1000, 20, 20.0)] {
        let mut lab = Lab::new(nodes, 4);
        lab.published_every = published_every;
        let mut insight = Insight::new();
        cost(&mut lab, &mut insight);
        kept &= check(nodes, "a healthy mesh", cost(&mut lab, &mut insight), bound_ms);
        lab.lose(7, Failure::Timeout);
        kept &= check(nodes, "one node is down", cost(&mut lab, &mut insight), bound_ms);
        let (side, others) = (nodes / 4, nodes);
        for (a, b) in (0..side).flat_map(|a| (side..others).map(move |b| (a, b))) {
            lab.failing.extend([(a, b, Failure::Timeout), (b, a, Failure::Timeout)]);
        }
        let broken = cost(&mut lab, &mut insight);
        println!(
            "        {nodes} nodes, a quarter is cut off: {:.2} ms of CPU a second",
            broken.as_secs_f64() * 1e3
        );
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Time for one observation, once a second.
fn cost(lab: &mut Lab, insight: &mut Insight) -> Duration {
    let mut taken = Duration::ZERO;
    for _ in 0..WATCHED {
        let snapshot = lab.second();
        let begun = Instant::now();
        std::hint::black_box(insight.observe(&snapshot));
        taken += begun.elapsed();
    }
    taken / WATCHED
}

fn check(nodes: usize, what: &str, cost: Duration, bound_ms: f64) -> bool {
    let ms = cost.as_secs_f64() * 1e3;
    let kept = ms <= bound_ms;
    println!(
        "  {} {nodes} nodes, {what}: {ms:.2} ms of CPU a second (at most {bound_ms:.0})",
        if kept { "held  " } else { "MISSED" }
    );
    kept
}
