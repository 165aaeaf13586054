//! What a measurement costs, and the mesh without any: forty real bots in plain text on one
//! machine, beside those of another program in the same run.
//!
//! `cargo bench -p canary-bot --bench cost -- [PATH]`, where PATH is a canary-bot to compare with.
//! Packets and bytes are those of the whole network namespace, so nothing else should use it.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Bot, full_matrix, plans, wait};

const BOTS: usize = 40;
const SECOND: Duration = Duration::from_secs(1);
/// How long a mesh is left alone once it is whole, before it is looked at.
const SETTLE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_secs(20);

/// What all bots of a mesh did together.
#[derive(Clone, Copy, Debug)]
struct Done {
    probes: f64,
    exchanges: f64,
}

impl Done {
    fn by(bots: &[Bot]) -> Self {
        let sum = |name, value| bots.iter().map(|bot| bot.metric(name, value)).sum();
        Self {
            probes: sum("canary_probes_total", "success"),
            exchanges: sum("canary_mesh_messages_total", "exchange"),
        }
    }
}

/// What that took.
#[derive(Clone, Copy, Debug)]
struct Used {
    /// Seconds of CPU.
    cpu: f64,
    packets: f64,
    bytes: f64,
}

impl Used {
    fn by(bots: &[Bot]) -> Self {
        let (bytes, packets) = sent_on_loopback();
        Self { cpu: bots.iter().map(Bot::cpu).sum(), packets, bytes }
    }
}

fn main() {
    let baseline = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let own = PathBuf::from(env!("CARGO_BIN_EXE_canary-bot"));
    let programs: Vec<_> = baseline.map(PathBuf::from).into_iter().chain([own]).collect();
    for (title, interval) in
        [("every pair each 3 s", "3s"), ("the mesh alone: every pair each 30 s", "30s")]
    {
        println!("{title}");
        // Two rounds by turns: a machine is not as fast in every minute.
        for program in programs.iter().chain(&programs) {
            look(program, interval);
        }
    }
}

/// Starts forty bots, looks at them for some time, and prints what they used.
fn look(program: &Path, interval: &str) {
    let mut plans = plans(BOTS);
    for plan in &mut plans {
        plan.more = ["--probe-interval", interval].map(str::to_owned).to_vec();
    }
    let bots: Vec<_> = plans.iter().map(|plan| plan.start_by(Command::new(program))).collect();
    assert!(wait(90 * SECOND, || full_matrix(&bots)).is_some(), "forty bots did not settle");
    wait(SETTLE, || false);
    // Asking the bots what they did costs something: that is left out of the time looked at.
    let done = Done::by(&bots);
    let (used, begun) = (Used::by(&bots), Instant::now());
    wait(LOOK, || false);
    let (used_after, seconds) = (Used::by(&bots), begun.elapsed().as_secs_f64());
    let done_after = Done::by(&bots);
    let calls = system_calls(&bots);
    let (cpu, packets) = (used_after.cpu - used.cpu, used_after.packets - used.packets);
    let bytes = used_after.bytes - used.bytes;
    let (probes, exchanges) =
        (done_after.probes - done.probes, done_after.exchanges - done.exchanges);
    let each = |figure: f64| figure / seconds / BOTS as f64;
    println!("  {}", program.display());
    println!(
        "    a bot: {:.2} % of a core, {:.2} kB/s, {:.1} exchanges/s, {} system calls/s",
        each(cpu) * 100.0,
        each(bytes) / 1000.0,
        each(exchanges),
        shown(calls.map(|calls| calls / BOTS as f64)),
    );
    println!(
        "    a measurement, mesh included ({:.0}/s): {:.2} ms of CPU, {:.1} packets, {:.0} bytes, {} system calls",
        probes / seconds,
        cpu / probes * 1000.0,
        packets / probes,
        bytes / probes,
        shown(calls.map(|calls| calls * seconds / probes)),
    );
}

fn shown(figure: Option<f64>) -> String {
    figure.map_or("unknown".to_owned(), |figure| format!("{figure:.0}"))
}

/// Bytes and packets that loopback carried, headers included.
fn sent_on_loopback() -> (f64, f64) {
    let devices = std::fs::read_to_string("/proc/net/dev").unwrap();
    let line = devices.lines().find(|line| line.trim().starts_with("lo:")).unwrap();
    let fields: Vec<f64> =
        line.split(':').nth(1).unwrap().split_whitespace().map(|at| at.parse().unwrap()).collect();
    (fields[8], fields[9])
}

/// System calls a second of all bots together, where `perf` may count them.
fn system_calls(bots: &[Bot]) -> Option<f64> {
    const SECONDS: f64 = 5.0;
    let pids: Vec<_> = bots.iter().map(|bot| bot.pid().to_string()).collect();
    let counted = Command::new("perf")
        .args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", &pids.join(",")])
        .args(["--", "sleep", &SECONDS.to_string()])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let said = String::from_utf8(counted.stderr).ok()?;
    let line = said.lines().find(|line| line.contains("sys_enter"))?;
    Some(line.split(',').next()?.parse::<f64>().ok()? / SECONDS)
}
