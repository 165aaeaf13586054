//! `canary-bot`: the one binary.

fn main() -> std::process::ExitCode {
    canary_bot::cli::main()
}
