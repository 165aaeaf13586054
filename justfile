# The door to the project's commands; `cargo xtask` is behind it.

# List what there is.
default:
    @just --list

# A mesh of five bots on this host.
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# The tests that end within minutes.
test:
    cargo test

# All tests.
test-all:
    cargo xtask test

# The part that decides, in seconds.
quick:
    cargo test -p canary-core

# Format, lints and the project's own bans.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo clippy --workspace --test '*' -- -D warnings
    cargo xtask tidy

# What CI runs.
ci:
    cargo xtask ci
