//! What was found out, for people.

use std::io::{self, Write};
use std::ops::Range;
use std::time::Duration;

use crate::judge::{self, Outcome};
use crate::scenario::{Detections, Fault, Scenario, detections};
use crate::stage::{Death, Observers, Setup, Stage};
use crate::world::{HostId, Link};

/// The command that plays the same again.
pub fn replay(scenario: &Scenario, setup: &Setup) -> String {
    let mut command = format!(
        "canary-sim --scenario {} --nodes {} --seed {}",
        scenario.name, setup.nodes, setup.seed
    );
    if setup.loss > 0.0 {
        command += &format!(" --loss {}", setup.loss * 100.0);
    }
    if setup.observers != Observers::Healthy {
        command += &format!(" --observers {}", setup.observers);
    }
    if setup.publish_interval != Setup::default().publish_interval {
        command += &format!(" --publish-interval {}ms", setup.publish_interval.as_millis());
    }
    command + &format!(" --minutes {}", setup.lasting.as_secs_f64() / 60.0)
}

/// Prints the findings of a scenario, and if `verbose` the script of a broken one; tells whether
/// all promises were kept.
pub fn print(
    scenario: &Scenario,
    stage: &Stage,
    took: Duration,
    verbose: bool,
    out: &mut impl Write,
) -> io::Result<bool> {
    let simulated = stage.world.elapsed().as_secs_f64();
    writeln!(
        out,
        "{} · {} nodes · seed {} · {simulated:.0} s simulated in {:.1} s",
        scenario.name,
        stage.setup.nodes,
        stage.setup.seed,
        took.as_secs_f64()
    )?;
    let width =
        stage.findings.iter().map(|finding| finding.promise.len()).max().unwrap_or_default();
    for finding in &stage.findings {
        let verdict = if finding.held { "held" } else { "BROKEN" };
        writeln!(
            out,
            "  {verdict:<6} {:<width$}  {}  (bound: {})",
            finding.promise, finding.figure, finding.bound
        )?;
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

/// From so many bots on one mesh plays all losses one after another, and the faults strike three
/// bots at once: a mesh for each would take days.
const TOGETHER_FROM: usize = 1000;
/// False deaths of a row that are listed one by one.
const FALSE_DEATHS_TOLD: usize = 20;
/// The losses of the detector's table.
pub const LOSSES: [f64; 4] = [0.0, 0.01, 0.05, 0.1];

/// The columns of the detector's table: times in seconds, from the fault until an observer took the
/// node for dead.
const COLUMNS: &str = "nodes,fault,loss_percent,observers,seeds,p50_s,p99_s,worst_s,false_deaths";

/// Prints rows of the detector's table for one size of mesh: every fault, with these losses and
/// kinds of observers.
pub fn detector(
    setup: Setup,
    losses: &[f64],
    kinds: &[Observers],
    seeds: Range<u64>,
    out: &mut impl Write,
) -> io::Result<bool> {
    writeln!(out, "{COLUMNS}")?;
    let seed_first = seeds.start;
    let mut held = true;
    if setup.nodes < TOGETHER_FROM {
        for &loss in losses {
            for observers in kinds {
                let mut row = Row::default();
                for seed in seeds.clone() {
                    let victim = HostId(setup.nodes - 1);
                    let mut stage =
                        watched(Setup { seed, loss, observers: *observers, ..setup }, &[victim]);
                    for fault in Fault::ALL {
                        row.add(fault, &detections(&mut stage, &[(fault, victim)])[0]);
                    }
                    stage.read();
                    row.false_deaths.extend(stage.false_deaths());
                }
                held &= row.print(&setup, loss, *observers, seeds.end - seeds.start, out)?;
            }
        }
        return Ok(held);
    }
    for observers in kinds {
        let victims = [1, 2, 3].map(|back| HostId(setup.nodes - back));
        let mut rows: Vec<_> = losses.iter().map(|loss| (*loss, Row::default())).collect();
        for seed in seeds.clone() {
            let mut stage =
                watched(Setup { seed, loss: 0.0, observers: *observers, ..setup }, &victims);
            for (loss, row) in &mut rows {
                stage.world.set_link(Link { loss: *loss, ..Link::default() });
                stage.run(Duration::from_secs(12));
                let before = stage.false_deaths().len();
                let faults: Vec<_> = Fault::ALL.into_iter().zip(victims).collect();
                for ((fault, _), found) in faults.iter().zip(detections(&mut stage, &faults)) {
                    row.add(*fault, &found);
                }
                row.false_deaths.extend(stage.false_deaths().split_off(before));
                if seeds.end - seed == 1 {
                    held &= row.print(&setup, *loss, *observers, seeds.end - seed_first, out)?;
                }
            }
        }
    }
    Ok(held)
}

/// A mesh in which all know all, and some fare badly. What is measured here is not how fast a
/// matrix fills.
fn watched(setup: Setup, victims: &[HostId]) -> Stage {
    let mut stage = Stage::new(setup);
    stage.wait_known(Duration::from_secs(60));
    stage.run(Duration::from_secs(15));
    stage.disturb_observers(victims);
    stage.run(Duration::from_secs(12));
    stage
}

/// What came out for one loss and one kind of observers.
#[derive(Default)]
struct Row {
    taken: [Detections; Fault::ALL.len()],
    false_deaths: Vec<Death>,
}

impl Row {
    fn add(&mut self, fault: Fault, taken: &Detections) {
        self.taken[fault as usize].extend(taken);
    }

    fn print(
        &self,
        setup: &Setup,
        loss: f64,
        observers: Observers,
        seeds: u64,
        out: &mut impl Write,
    ) -> io::Result<bool> {
        let mut held = self.false_deaths.is_empty();
        for (fault, taken) in Fault::ALL.into_iter().zip(&self.taken) {
            let cell = |quantile| {
                taken.quantile(quantile).map_or_else(
                    || "never".to_owned(),
                    |taken| format!("{:.1}", taken.as_secs_f64()),
                )
            };
            let (median, p99, worst) = (cell(0.5), cell(0.99), cell(1.0));
            let (nodes, fault, loss, deaths) =
                (setup.nodes, fault.as_str(), loss * 100.0, self.false_deaths.len());
            writeln!(
                out,
                "{nodes},{fault},{loss},{observers},{seeds},{median},{p99},{worst},{deaths}"
            )?;
            held &= taken.quantile(0.99).is_some_and(|taken| taken <= Duration::from_secs(6));
        }
        for death in self.false_deaths.iter().take(FALSE_DEATHS_TOLD) {
            let (name, observer, at) = (&death.name, death.observer.0, death.at.as_secs_f64());
            writeln!(out, "# {name} was taken for dead by host {observer} at {at:.2} s")?;
        }
        out.flush()?;
        Ok(held)
    }
}

/// Plays faults in a mesh of one size and prints a row for each: whether the right culprit was
/// named, alone, and when. Tells whether no play misled.
pub fn insight(
    nodes: usize,
    seeds: Range<u64>,
    labelled: bool,
    only: Option<&str>,
    verbose: bool,
    clock: impl Fn() -> Duration,
    out: &mut impl Write,
) -> io::Result<bool> {
    writeln!(
        out,
        "nodes,labels,fault,causes,plays,right,misled,p50_s,p95_s,worst_s,disagree,left_open,took_s,wrong"
    )?;
    let mut held = true;
    for fault in
        judge::ALL.iter().filter(|fault| only.map_or(!fault.is_long, |only| only == fault.name))
    {
        let begun = clock();
        let outcomes: Vec<_> = seeds
            .clone()
            .filter_map(|seed| Some((seed, judge::play(fault, nodes, seed, labelled)?)))
            .collect();
        if outcomes.is_empty() {
            continue;
        }
        let count = |is: &dyn Fn(&Outcome) -> bool| {
            outcomes.iter().filter(|(_, outcome)| is(outcome)).count()
        };
        let mut times: Vec<_> =
            outcomes.iter().flat_map(|(_, outcome)| outcome.named.iter().copied()).collect();
        times.sort_unstable();
        let at = |share: f64| {
            let place = ((times.len() as f64 * share).ceil() as usize).saturating_sub(1);
            times
                .get(place)
                .map_or_else(|| "-".to_owned(), |time| format!("{:.0}", time.as_secs_f64()))
        };
        let wrong = |(seed, outcome): &(u64, Outcome)| {
            let claims: Vec<_> = outcome
                .wrong
                .iter()
                .map(|(what, by, how)| format!("{what} (by {by}, {})", how.as_str()))
                .collect();
            let missed = outcome.expected
                - outcome.named.iter().filter(|taken| **taken <= outcome.bound).count();
            (!outcome.is_right())
                .then(|| format!("seed {seed}: {missed} missed; {}", claims.join("; ")))
        };
        let wrong: Vec<_> = outcomes.iter().filter_map(wrong).collect();
        let misled = count(&Outcome::is_misleading);
        held &= misled == 0;
        writeln!(
            out,
            "{nodes},{},\"{}\",{},{},{},{misled},{},{},{},{},{},{:.0},\"{}\"",
            if labelled { "yes" } else { "no" },
            fault.name,
            fault.causes,
            outcomes.len(),
            count(&Outcome::is_right),
            at(0.5),
            at(0.95),
            at(1.0),
            count(&|outcome| outcome.disagree),
            count(&|outcome| outcome.left_open > 0),
            (clock() - begun).as_secs_f64(),
            wrong.join(" | ")
        )?;
        for line in outcomes.iter().filter(|_| verbose).flat_map(|(_, outcome)| &outcome.log) {
            writeln!(out, "    {line}")?;
        }
        out.flush()?;
    }
    Ok(held)
}
