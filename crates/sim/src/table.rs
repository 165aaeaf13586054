//! What was found out, for people.

use std::io::{self, Write};
use std::ops::Range;
use std::time::Duration;

use crate::scenario::{Detections, Fault, Scenario, detections};
use crate::stage::{Observers, Setup, Stage};
use crate::world::HostId;

/// The command that plays the same again.
pub fn replay(scenario: &Scenario, setup: &Setup) -> String {
    let mut command = format!("canary-sim --scenario {} --nodes {} --seed {}", scenario.name, setup.nodes, setup.seed);
    if setup.loss > 0.0 {
        command += &format!(" --loss {}", setup.loss * 100.0);
    }
    if setup.observers != Observers::Healthy {
        command += &format!(" --observers {}", setup.observers);
    }
    command + &format!(" --minutes {}", setup.lasting.as_secs_f64() / 60.0)
}

/// Prints the findings of a scenario, and if `verbose` the script of a broken one; tells whether all promises were kept.
pub fn print(scenario: &Scenario, stage: &Stage, took: Duration, verbose: bool, out: &mut impl Write) -> io::Result<bool> {
    let simulated = stage.world.elapsed().as_secs_f64();
    writeln!(
        out,
        "{} · {} nodes · seed {} · {simulated:.0} s simulated in {:.1} s",
        scenario.name,
        stage.setup.nodes,
        stage.setup.seed,
        took.as_secs_f64()
    )?;
    let width = stage.findings.iter().map(|finding| finding.promise.len()).max().unwrap_or_default();
    for finding in &stage.findings {
        let verdict = if finding.held { "held" } else { "BROKEN" };
        writeln!(out, "  {verdict:<6} {:<width$}  {}  (bound: {})", finding.promise, finding.figure, finding.bound)?;
    }
    let held = stage.findings.iter().all(|finding| finding.held);
    if !held {
        writeln!(out, "  replay: {}", replay(scenario, &stage.setup))?;
        if verbose {
            for (at, what) in stage.script() {
                writeln!(out, "    {:8.2} s  {what}", at.as_secs_f64())?;
            }
        }
    }
    Ok(held)
}

/// Prints rows of the detector's table for one size of mesh: every fault and loss, with every kind of observers.
pub fn detector(setup: Setup, seeds: Range<u64>, out: &mut impl Write) -> io::Result<bool> {
    let mut held = true;
    for loss in [0.0, 0.01, 0.05, 0.1] {
        for observers in Observers::ALL {
            let mut figures: Vec<_> = Fault::ALL.iter().map(|fault| (*fault, Detections::default())).collect();
            let mut false_deaths = 0;
            for seed in seeds.clone() {
                let mut stage = Stage::new(Setup { seed, loss, observers, ..setup });
                // All know all; what is measured here is not how fast a matrix fills.
                stage.wait_known(Duration::from_secs(60));
                stage.run(Duration::from_secs(15));
                let victim = HostId(setup.nodes - 1);
                stage.disturb_observers(&[victim]);
                stage.run(Duration::from_secs(12));
                for (fault, all) in &mut figures {
                    all.extend(&detections(&mut stage, *fault, victim));
                }
                stage.read();
                false_deaths += stage.false_deaths().len();
            }
            for (fault, all) in &figures {
                let cell =
                    |quantile| all.quantile(quantile).map_or_else(|| "never".to_owned(), |taken| format!("{:.1}", taken.as_secs_f64()));
                let (median, p99, worst) = (cell(0.5), cell(0.99), cell(1.0));
                writeln!(
                    out,
                    "| {} | {} | {} % | {observers} | {median} | {p99} | {worst} | {false_deaths} |",
                    setup.nodes,
                    fault.as_str(),
                    loss * 100.0
                )?;
                held &= all.quantile(0.99).is_some_and(|taken| taken <= Duration::from_secs(6));
            }
            held &= false_deaths == 0;
            out.flush()?;
        }
    }
    Ok(held)
}
