//! The project's own commands: `cargo xtask test`, `tidy`, `chart`, `ci` and `bench`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command for people")]

mod chart;
mod documents;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let task = std::env::args().nth(1);
    let done = match task.as_deref() {
        Some("test") => test(&root()),
        Some("tidy") => tidy::run(&root()),
        Some("chart") => chart::write(&root()),
        Some("ci") => ci(&root()),
        Some("bench") if std::env::args().nth(2).as_deref() == Some("cost") => {
            let baseline = std::env::args().nth(3);
            let mut step = vec!["bench", "-p", "canary-bot", "--bench", "cost", "--"];
            step.extend(baseline.as_deref());
            cargo(&root(), &step)
        }
        Some("bench") => {
            cargo(&root(), &["bench", "-p", "canary-insight", "--bench", "cost"])
                & cargo(&root(), &["bench", "-p", "canary-api", "--bench", "look"])
                & cargo(
                    &root(),
                    &["bench", "-p", "canary-bot", "--bench", "budgets", "--bench", "added_error"],
                )
        }
        _ => {
            eprintln!(
                "usage: cargo xtask test | tidy | chart | ci | bench [cost [PATH]]\n\n  test  all tests: those of `cargo test`, the simulator, and the long ones\n  chart write the table of values in the chart's README\n  tidy  check the arrows between crates, and bans that no lint knows\n  ci    everything that CI runs\n  bench what real bots cost, held against the budgets; exits with 1 when one is missed\n        bench cost [PATH]: what a measurement costs, beside the canary-bot at PATH"
            );
            false
        }
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The README's command first: who breaks something hears of it within minutes.
fn test(root: &Path) -> bool {
    cargo(root, &["test"])
        && cargo(root, &["test", "-p", "canary-sim", "-p", "xtask"])
        && long_tests(root)
}

/// The tests that `cargo test` leaves out, each by its name in the manifest.
fn long_tests(root: &Path) -> bool {
    let manifest = std::fs::read_to_string(root.join("crates/bot/Cargo.toml")).unwrap_or_default();
    let blocks = manifest
        .split("[[test]]")
        .skip(1)
        .filter(|block| block.lines().any(|line| line.trim() == "test = false"));
    let names: Vec<_> = blocks.filter_map(|block| block.split('"').nth(1)).collect();
    let mut step = vec!["test", "--no-fail-fast"];
    names.iter().for_each(|name| step.extend(["--test", name]));
    !names.is_empty() && cargo(root, &step)
}

fn ci(root: &Path) -> bool {
    const BEFORE: &[&[&str]] = &[
        &["fmt", "--all", "--check"],
        &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
        // Those that `cargo test` leaves out are in no other selection.
        &["clippy", "--workspace", "--test", "*", "--", "-D", "warnings"],
        &["xtask", "tidy"],
    ];
    BEFORE.iter().all(|step| cargo(root, step))
        && test(root)
        && cargo(root, &["run", "--release", "--", "demo", "--for", "10s"])
}

fn cargo(root: &Path, step: &[&str]) -> bool {
    println!("==> cargo {}", step.join(" "));
    let status = Command::new(env!("CARGO")).args(step).current_dir(root).status();
    status.is_ok_and(|status| status.success())
}
