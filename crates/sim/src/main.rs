//! `canary-sim`: plays scenarios on simulated meshes and says which promises were kept.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use canary_sim::hunt::hunt;
use canary_sim::scenario::{ALL, Scenario};
use canary_sim::stage::{Observers, Setup, Stage};
use canary_sim::table::{self, LOSSES, detector};
use clap::Parser;

/// Plays scenarios on simulated meshes of the real cores, and exits with 1 when a promise is
/// broken.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// How many bots start
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(2..=4000))]
    nodes: u64,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Plays this many seeds, from --seed on
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Which scenario; all of them if not given
    #[arg(long)]
    scenario: Option<String>,
    /// How long phases without end last, in simulated minutes
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// How often a bot publishes its whole row; 1h makes large meshes affordable where only members
    /// are looked at
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    publish_interval: Duration,
    /// Per cent of packets lost; none if not given, and 0, 1, 5 and 10 in turn for the detector's
    /// table
    #[arg(long)]
    loss: Option<f64>,
    /// How a tenth of the observers fares: healthy, pausing or starved; healthy if not given, and
    /// each in turn for the detector's table
    #[arg(long)]
    observers: Option<Observers>,
    /// Draws scenarios, sizes and seeds until this time is up, such as 10m
    #[arg(long, value_parser = humantime::parse_duration, conflicts_with = "scenario")]
    hunt: Option<Duration>,
    /// Prints rows of the detector's table for --nodes and --seeds
    #[arg(long, conflicts_with_all = ["scenario", "hunt"])]
    detector: bool,
    /// Breaks something in a settled mesh and judges what the bots say of it; --scenario chooses
    /// one fault
    #[arg(long, conflicts_with_all = ["hunt", "detector"])]
    insight: bool,
    /// With --insight: nodes have no labels
    #[arg(long)]
    unlabelled: bool,
    /// Prints the script of what broke
    #[arg(long)]
    script: bool,
    /// Lists the scenarios
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "canary-sim: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<bool, Box<dyn std::error::Error>> {
    let mut out = std::io::stdout();
    let begun = Instant::now();
    let clock = move || begun.elapsed();
    if args.list {
        for scenario in ALL {
            writeln!(out, "{:<16} {}", scenario.name, scenario.about)?;
        }
        return Ok(true);
    }
    let loss = args.loss.unwrap_or_default() / 100.0;
    if !(0.0..=0.5).contains(&loss) || !(0.1..=600.0).contains(&args.minutes) {
        return Err("choose --loss between 0 and 50, and --minutes between 0.1 and 600".into());
    }
    let setup = Setup {
        nodes: args.nodes as usize,
        seed: args.seed,
        loss,
        observers: args.observers.unwrap_or_default(),
        lasting: Duration::from_secs_f64(args.minutes * 60.0),
        publish_interval: args.publish_interval,
    };
    if let Some(time) = args.hunt {
        return Ok(hunt(args.seed, time, clock, &mut out)?);
    }
    let seeds = args.seed..args.seed + args.seeds;
    if args.detector {
        let kinds = args.observers.map_or_else(|| Observers::ALL.to_vec(), |only| vec![only]);
        let losses = args.loss.map_or_else(|| LOSSES.to_vec(), |_| vec![loss]);
        return Ok(detector(setup, &losses, &kinds, seeds, &mut out)?);
    }
    if args.insight {
        let only = args.scenario.as_deref();
        return Ok(table::insight(
            args.nodes as usize,
            seeds,
            !args.unlabelled,
            only,
            args.script,
            clock,
            &mut out,
        )?);
    }
    let scenarios: Vec<Scenario> = match &args.scenario {
        Some(name) => vec![
            Scenario::named(name)
                .ok_or_else(|| format!("there is no scenario {name}; --list names them"))?,
        ],
        None => ALL.to_vec(),
    };
    let mut held = true;
    for scenario in scenarios {
        for seed in seeds.clone() {
            let started = clock();
            let stage: Stage = scenario.play(Setup { seed, ..setup });
            held &= table::print(&scenario, &stage, clock() - started, args.script, &mut out)?;
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory as _;

    /// `UPDATE_GOLDEN=1` writes it again.
    #[test]
    fn the_help_reads_as_it_was_reviewed() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/help.txt");
        let help = super::Args::command().term_width(100).render_long_help().to_string();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(std::path::Path::new(file).parent().unwrap()).unwrap();
            std::fs::write(file, &help).unwrap();
        }
        assert_eq!(std::fs::read_to_string(file).unwrap_or_default(), help);
    }
}
