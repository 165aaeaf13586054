//! What real bots cost, held against the budgets. Exits with 1 when one is missed.
//!
//! One real bot holds a full matrix of hosts that are played by puppets: they answer its probes,
//! and one of them gossips everybody's rows. And forty real bots are left at rest, without TLS and
//! with it. `cargo bench -p canary-bot --bench budgets -- forty` does this alone.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use support::pki::{Authority, Directory, GOOD};
use support::puppet::{Message, Puppet, heard, packed_roster, rows_of};
use support::{Bot, Plan, full_matrix, get, own_address, plans, trust, wait};

const SECOND: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let mut kept = true;
    if std::env::args().any(|argument| argument == "forty") {
        return if forty_at_rest() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    // Nothing was promised for 2,000 hosts but that they work: four times the cells of 1,000.
    for (hosts, resident_max_mb) in [(200, 40.0), (1000, 100.0), (2000, 400.0)] {
        kept &= full_matrix_of(hosts, resident_max_mb);
    }
    probes_per_core();
    kept &= forty_at_rest();
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn check(what: &str, figure: f64, limit: f64, unit: &str) -> bool {
    let kept = figure <= limit;
    println!(
        "  {} {what}: {figure:.1} {unit} (at most {limit:.0})",
        if kept { "held  " } else { "MISSED" }
    );
    kept
}

/// A line of `/proc/PID/status` in megabytes.
fn status_mb(bot: &Bot, key: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", bot.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn rest(duration: Duration) {
    wait(duration, || false);
}

/// Plays `hosts - 1` hosts to one real bot until it holds every pair, and looks at what that costs.
fn full_matrix_of(hosts: usize, resident_max_mb: f64) -> bool {
    let plan = Plan { seeds: Vec::new(), ..plans(1).remove(0) };
    let bot = plan.start();
    let mesh: SocketAddr = plan.target().parse().unwrap();
    let address = own_address();
    let puppets: Vec<_> =
        (1..hosts).map(|number| Puppet::start(&format!("host-{number:04}"), address, 1)).collect();
    let hub = &puppets[0];
    assert!(
        wait(30 * SECOND, || hub.join(mesh) == Some(1)).is_some(),
        "the first puppet was not admitted"
    );
    for some in puppets[1..].chunks(400) {
        let records = some.iter().fold(Message::default(), |gossip, puppet| {
            gossip.message(5, &heard(&puppet.node(), 1, 0))
        });
        hub.gossip(mesh, &records).unwrap();
    }
    let mut names: Vec<_> =
        puppets.iter().map(|puppet| puppet.name.clone()).chain([plan.name.clone()]).collect();
    names.sort();
    let publish = |some: &[Puppet], version: u64| {
        hub.gossip(mesh, &rows_of(some, &names, version, 1_700_000_000_000)).unwrap();
    };
    puppets.chunks(20).for_each(|some| publish(some, 1));
    hub.gossip(mesh, &Message::default().bytes(7, &packed_roster(&names))).unwrap();
    // The matrix itself is long: its rows are counted first.
    let series =
        |text: &str, name: &str| text.lines().filter(|line| line.starts_with(name)).count();
    let whole = wait(180 * SECOND, || {
        let text = get(bot.api(), "/metrics").unwrap().body;
        series(&text, "canary_mesh_row_age_seconds{")
            .min(series(&text, "canary_probe_last_success_timestamp_seconds{"))
            >= hosts - 1
    });
    assert!(whole.is_some(), "the matrix did not become full");
    println!("one bot with a full matrix of {hosts} hosts, {} samples of pairs", bot.measured());
    let served = |path: &str| {
        let begun = Instant::now();
        let bytes = get(bot.api(), path).unwrap().body.len();
        println!(
            "         {path}: {:.2} s for {:.1} MB",
            begun.elapsed().as_secs_f64(),
            bytes as f64 / 1e6
        );
    };
    let before = (bot.cpu(), Instant::now());
    // Every host publishes its row once in as many seconds as its pairs need, as in a real mesh.
    let interval = SECOND.mul_f64((hosts as f64 / 50.0).max(10.0));
    let chunk = 20.min(hosts / 20);
    let pause = interval.mul_f64(chunk as f64 / hosts as f64);
    let mut turns = puppets.chunks(chunk).cycle();
    let mut version = 1;
    while before.1.elapsed() < 20 * SECOND {
        version += 1;
        publish(turns.next().unwrap(), version);
        rest(pause);
    }
    println!(
        "         CPU: {:.1} % of a core, with a row of each host every {interval:.0?}",
        (bot.cpu() - before.0) / before.1.elapsed().as_secs_f64() * 100.0
    );
    served("/api/v1/samples");
    served("/metrics");
    check("resident memory", status_mb(&bot, "VmRSS:"), resident_max_mb, "MB")
        & check(
            "its peak, serving included",
            status_mb(&bot, "VmHWM:"),
            1.5 * resident_max_mb,
            "MB",
        )
}

/// How many probes a second of CPU pays for: a hundred hosts, each as often as is allowed.
fn probes_per_core() {
    let mut plan = Plan { seeds: Vec::new(), ..plans(1).remove(0) };
    plan.more =
        ["--probe-interval", "100ms", "--probe-rate-max", "10000", "--metrics-level", "pairs"]
            .map(str::to_owned)
            .to_vec();
    let bot = plan.start();
    let mesh: SocketAddr = plan.target().parse().unwrap();
    let address = own_address();
    let puppets: Vec<_> =
        (0..100).map(|number| Puppet::start(&format!("host-{number:02}"), address, 1)).collect();
    assert!(wait(30 * SECOND, || puppets[0].join(mesh) == Some(1)).is_some());
    let records = puppets
        .iter()
        .fold(Message::default(), |gossip, puppet| gossip.message(5, &heard(&puppet.node(), 1, 0)));
    puppets[0].gossip(mesh, &records).unwrap();
    let all = wait(60 * SECOND, || bot.metric("canary_probes_total", "success") >= 10_000.0);
    assert!(all.is_some(), "the hundred are not measured");
    let before = (bot.metric("canary_probes_total", "success"), bot.cpu(), Instant::now());
    rest(10 * SECOND);
    let probes = bot.metric("canary_probes_total", "success") - before.0;
    let used = bot.cpu() - before.1;
    println!("one bot that probes {:.0} times a second", probes / before.2.elapsed().as_secs_f64());
    println!("         {:.0} probes for a second of CPU", probes / used);
}

/// Forty bots in plain text, and after them forty in mutual mode.
fn forty_at_rest() -> bool {
    let plain = at_rest("forty bots at rest", &plans(40));
    let (directory, authority) = (Directory::new(), Authority::new("the authority"));
    let ca = directory.write("ca.pem", &authority.pem());
    let mut secured = plans(40);
    for plan in &mut secured {
        let own = authority.issue(&plan.name, &[&plan.name, &plan.address.to_string()], GOOD);
        let certificate = directory.write(&format!("{}.pem", plan.name), &own.0);
        let key = directory.write(&format!("{}-key.pem", plan.name), &own.1);
        plan.more =
            ["--ca-cert-path", &ca, "--server-cert-path", &certificate, "--server-key-path", &key]
                .map(str::to_owned)
                .to_vec();
        trust(SocketAddr::new(plan.address, plan.api_port), &authority.pem());
    }
    let secured = at_rest("forty bots in mutual mode at rest", &secured);
    println!(
        "TLS costs {:.1} times the CPU and {:.1} times the memory",
        secured.1 / plain.1,
        secured.2 / plain.2
    );
    plain.0 & secured.0
}

/// Whether the mesh keeps its bounds; the CPU of each bot in per cent of a core; its memory in MB.
fn at_rest(title: &str, plans: &[Plan]) -> (bool, f64, f64) {
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    assert!(wait(60 * SECOND, || full_matrix(&bots)).is_some(), "forty bots did not settle");
    rest(10 * SECOND);
    let sent = |bot: &Bot| bot.metric("canary_mesh_bytes_total", "out");
    let total = |figure: &dyn Fn(&Bot) -> f64| bots.iter().map(figure).sum::<f64>();
    let (cpu_before, sent_before, begun) = (total(&Bot::cpu), total(&sent), Instant::now());
    rest(20 * SECOND);
    let seconds = begun.elapsed().as_secs_f64();
    let cores = (total(&Bot::cpu) - cpu_before) / seconds;
    let (cpu, resident) = (cores / 40.0 * 100.0, total(&|bot| status_mb(bot, "VmRSS:")) / 40.0);
    println!("{title}");
    // With TLS each probe is a full handshake on both sides: two signatures, and two chains that
    // are verified.
    let cpu_max = if plans[0].more.is_empty() { 2.0 } else { 4.0 };
    let kept = check("CPU of each", cpu, cpu_max, "% of a core")
        & check("resident memory of each", resident, 40.0, "MB")
        & check(
            "messages that each sends",
            (total(&sent) - sent_before) / seconds / 40.0 / 1000.0,
            50.0,
            "kB/s",
        );
    (kept, cpu, resident)
}
