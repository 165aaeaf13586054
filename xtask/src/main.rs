//! The project's own commands: `cargo xtask tidy`, `chart`, `ci` and `bench`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command for people")]

mod chart;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let task = std::env::args().nth(1);
    let done = match task.as_deref() {
        Some("tidy") => tidy::run(&root()),
        Some("chart") => chart::write(&root()),
        Some("ci") => ci(&root()),
        Some("bench") => {
            cargo(&root(), &["bench", "-p", "canary-insight", "--bench", "cost"])
                & cargo(&root(), &["bench", "-p", "canary-api", "--bench", "look"])
                & cargo(&root(), &["bench", "-p", "canary-bot", "--bench", "budgets", "--bench", "added_error"])
        }
        _ => {
            eprintln!(
                "usage: cargo xtask tidy | chart | ci | bench\n\n  chart write the table of values in the chart's README\n  tidy  check the arrows between crates, and bans that no lint knows\n  ci    everything that CI runs\n  bench what real bots cost, held against the budgets; exits with 1 when one is missed"
            );
            false
        }
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn ci(root: &Path) -> bool {
    const STEPS: &[&[&str]] = &[
        &["fmt", "--all", "--check"],
        &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
        &["xtask", "tidy"],
        // The README's two commands.
        &["test", "--workspace"],
        &["run", "--release", "--", "demo", "--for", "10s"],
    ];
    STEPS.iter().all(|step| cargo(root, step))
}

fn cargo(root: &Path, step: &[&str]) -> bool {
    println!("==> cargo {}", step.join(" "));
    let status = Command::new(env!("CARGO")).args(step).current_dir(root).status();
    status.is_ok_and(|status| status.success())
}
