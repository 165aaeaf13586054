//! The project's own commands: `cargo xtask tidy` and `cargo xtask ci`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command for people")]

mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let task = std::env::args().nth(1);
    let done = match task.as_deref() {
        Some("tidy") => tidy::run(&root()),
        Some("ci") => ci(&root()),
        _ => {
            eprintln!(
                "usage: cargo xtask tidy | ci\n\n  tidy  check the arrows between crates, and bans that no lint knows\n  ci    everything that CI runs"
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
    STEPS.iter().all(|step| {
        println!("==> cargo {}", step.join(" "));
        let status = Command::new(env!("CARGO")).args(*step).current_dir(root).status();
        status.is_ok_and(|status| status.success())
    })
}
