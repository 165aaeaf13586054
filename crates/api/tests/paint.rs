//! How soon somebody who opens the page sees something useful, in a real browser, at 40 and at
//! 1,000 hosts.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use canary_insight::Insight;
use support::lab::Lab;
use support::{Shown, TOKEN, serve};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/paint.mjs");

/// Hosts, and how many milliseconds there may be until the verdict and the matrix are there.
const BOUNDS: [(usize, u64); 2] = [(40, 1000), (1000, 2000)];

/// A browser and what drives it. Where they are missing that is said; in CI it is a failure.
fn browser() -> Option<(PathBuf, PathBuf)> {
    let tools = std::env::var_os("CANARY_TEST_TOOLS")
        .map(PathBuf::from)
        .filter(|folder| folder.join("node_modules/playwright-core").is_dir());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let chromium = std::env::split_paths(&path)
        .map(|folder| folder.join("chromium"))
        .find(|file| file.is_file());
    let found = tools.zip(chromium);
    if found.is_none() {
        assert!(
            std::env::var_os("CANARY_TEST_STRICT").is_none(),
            "skipped, and CANARY_TEST_STRICT is set: there is no browser"
        );
        println!(
            "skipped: this needs chromium, and playwright-core in the folder that CANARY_TEST_TOOLS names"
        );
    }
    found
}

#[test]
fn the_page_shows_the_verdict_and_the_matrix_soon() {
    let Some((tools, chromium)) = browser() else { return };
    for (hosts, bound) in BOUNDS {
        let mut lab = Lab::new(hosts, 8);
        lab.ragged = true;
        let snapshot = lab.second();
        let report = Arc::new(Insight::new().observe(&snapshot));
        let address = serve(Arc::new(Shown(Mutex::new((Arc::new(snapshot), report)))));
        let output = Command::new("node")
            .arg(SCRIPT)
            .args([&tools, &chromium])
            .arg(format!("http://{address}/#token={TOKEN}"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        println!("{hosts} hosts: {text}");
        // The first look is the browser's own start; the best of the others says what the page
        // costs.
        let best = text
            .lines()
            .skip(1)
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .min()
            .unwrap();
        assert!(best <= bound, "{hosts} hosts: {best} ms, and {bound} ms are allowed\n{text}");
    }
}
