//! Looks for what nobody thought of.

use std::io::{self, Write};
use std::time::Duration;

use fastrand::Rng;

use crate::scenario::ALL;
use crate::stage::{Observers, Setup};
use crate::table;

/// Plays scenarios drawn from `seed` until `time` is up by `clock`, which tells the time since it
/// began; prints only what broke, and a summary. Tells whether nothing did.
pub fn hunt(
    seed: u64,
    time: Duration,
    clock: impl Fn() -> Duration,
    out: &mut impl Write,
) -> io::Result<bool> {
    let mut rng = Rng::with_seed(seed);
    let (mut played, mut broken) = (0u64, 0u64);
    while clock() < time {
        // Chaos finds more than the scripts do, so it gets a third of the time.
        let scenario =
            if rng.u32(..3) == 0 { ALL[ALL.len() - 1] } else { ALL[rng.usize(..ALL.len())] };
        let setup = Setup {
            nodes: scenario.nodes_min.max(if rng.u32(..8) == 0 {
                rng.usize(30..80)
            } else {
                rng.usize(2..20)
            }),
            seed: rng.u64(..1 << 32),
            loss: [0.0, 0.0, 0.01, 0.05][rng.usize(..4)],
            observers: Observers::ALL[rng.usize(..3)],
            ..Setup::default()
        };
        let started = clock();
        let stage = scenario.play(setup);
        played += 1;
        if stage.findings.iter().any(|finding| !finding.held) {
            broken += 1;
            table::print(&scenario, &stage, clock() - started, false, out)?;
            out.flush()?;
        }
    }
    writeln!(
        out,
        "hunted for {:.0} s from seed {seed}: {played} scenarios played, {broken} with a broken promise",
        clock().as_secs_f64()
    )?;
    Ok(broken == 0)
}
