//! How fast the simulator runs: `cargo run --release -p canary-sim --example speed -- NODES
//! SECONDS`. The start is simulated first, and timed apart. Equal fingerprints say that two builds
//! did the same.

use std::time::{Duration, Instant};

use canary_sim::stage::{Setup, Stage};

#[expect(clippy::print_stdout, reason = "the result")]
fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| {
        argument.parse::<u64>().expect("give two numbers: nodes and simulated seconds")
    });
    let (nodes, seconds) = (arguments.next().unwrap_or(1000), arguments.next().unwrap_or(10));
    let setup = Setup { nodes: nodes as usize, ..Setup::default() };
    let mut stage = Stage::new(setup);
    for (phase, duration) in
        [("start", Duration::from_secs(20)), ("rest", Duration::from_secs(seconds))]
    {
        let begun = Instant::now();
        stage.run(duration);
        let taken = begun.elapsed().as_secs_f64() / duration.as_secs_f64();
        println!(
            "{phase}: {taken:.2} s for each simulated second of {nodes} bots; fingerprint {:016x}",
            stage.world.fingerprint()
        );
    }
}
