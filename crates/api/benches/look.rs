//! What looking at a bot costs it, held against its budget. Exits with 1 when it is missed.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]
#![expect(clippy::disallowed_methods, reason = "a mesh changes once a second")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use canary_core::Failure;
use canary_insight::Insight;
use support::lab::Lab;
use support::{Shown, TOKEN, serve};

/// For so long those who watch are watched.
const WATCHED: Duration = Duration::from_secs(10);

fn ask(address: SocketAddr, path: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let close = if path.contains("stream") { "" } else { "Connection: close\r\n" };
    write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n{headers}{close}\r\n").unwrap();
    stream
}

/// A figure of `/proc/self/status`, in kilobytes.
fn memory(figure: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(figure)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Processor time of this process.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let ticks: u64 = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

fn check(what: &str, measured: f64, bound: f64, unit: &str) -> bool {
    let kept = measured <= bound;
    println!(
        "{}  {what}: {measured:.2} {unit} (at most {bound} {unit})",
        if kept { "ok    " } else { "MISSED" }
    );
    kept
}

fn matrix_of_a_thousand() -> bool {
    let mut lab = Lab::new(1000, 4);
    lab.ragged = true;
    let snapshot = lab.second();
    let report = Arc::new(Insight::new().observe(&snapshot));
    let address = serve(Arc::new(Shown(Mutex::new((Arc::new(snapshot), report)))));
    let mut kept = true;
    for (what, accept) in [("packed", "application/octet-stream"), ("JSON", "application/json")] {
        let headers = format!("Accept: {accept}\r\nAccept-Encoding: gzip\r\n");
        let read = |stream: &mut TcpStream| {
            let (mut total, mut buffer) = (0, vec![0; 1 << 16]);
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                total += read;
            }
            total
        };
        read(&mut ask(address, "/api/v2/matrix", &headers));
        // The peak begins again (proc(5), clear_refs).
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = memory("VmRSS");
        let begun = Instant::now();
        let bytes = read(&mut ask(address, "/api/v2/matrix", &headers));
        let taken = begun.elapsed();
        let peak = memory("VmHWM").saturating_sub(before) as f64 / 1024.0;
        if what == "packed" {
            kept &=
                check("the matrix of 1000 nodes, packed", taken.as_secs_f64() * 1e3, 200.0, "ms");
            kept &= check("its size in gzip", bytes as f64 / 1e6, 1.5, "MB");
            kept &= check("what it adds to the peak of memory", peak, 20.0, "MB");
        } else {
            println!(
                "        as {what}: {:.0} ms, {:.2} MB, {peak:.1} MB more memory",
                taken.as_secs_f64() * 1e3,
                bytes as f64 / 1e6
            );
        }
    }
    kept
}

fn twenty_watchers_of_forty() -> bool {
    let mut lab = Lab::new(40, 4);
    let mut insight = Insight::new();
    let mut step =
        || {
            // A pair breaks or heals each second.
            let seconds = lab.seconds as usize;
            lab.failing.clear();
            lab.failing.extend((0..4).map(|pair| {
                ((seconds + pair) % 40, (seconds * 7 + pair + 1) % 40, Failure::Timeout)
            }));
            let snapshot = lab.second();
            let report = Arc::new(insight.observe(&snapshot));
            (Arc::new(snapshot), report)
        };
    let shown = Arc::new(Shown(Mutex::new(step())));
    let address = serve(Arc::clone(&shown));
    let mut watch = |watchers: usize| {
        let readers: Vec<_> = (0..watchers)
            .map(|_| {
                let mut stream = ask(address, "/api/v2/stream", "");
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    stream.set_read_timeout(Some(WATCHED)).unwrap();
                    let until = Instant::now() + WATCHED;
                    let mut total = 0;
                    while Instant::now() < until {
                        total += stream.read(&mut buffer).unwrap_or(0);
                    }
                    total
                })
            })
            .collect();
        let (begun, before) = (Instant::now(), cpu());
        while begun.elapsed() < WATCHED {
            *shown.0.lock().unwrap() = step();
            std::thread::sleep(Duration::from_secs(1));
        }
        let spent = cpu() - before;
        let bytes: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        (spent.as_secs_f64() / WATCHED.as_secs_f64() * 100.0, bytes)
    };
    let (alone, _) = watch(0);
    let (watched, bytes) = watch(20);
    println!(
        "        40 nodes: {alone:.2} % of a core without watchers, {watched:.2} % with 20, which read {bytes} bytes"
    );
    check("twenty watchers of 40 nodes", (watched - alone).max(0.0), 2.0, "% of a core")
}

/// A mesh to look at in a browser: two zones of it do not reach each other, and one host is down.
fn show(nodes: usize) -> ! {
    let mut lab = Lab::new(nodes, 8);
    lab.ragged = true;
    let mut insight = Insight::new();
    let zone = nodes / 8;
    let cut = (0..zone).flat_map(|a| (zone..2 * zone).map(move |b| (a, b)));
    let mut step = |is_broken: bool| {
        if is_broken && lab.failing.is_empty() {
            cut.clone().for_each(|(a, b)| {
                lab.failing.extend([(a, b, Failure::Timeout), (b, a, Failure::Timeout)]);
            });
            lab.lose(nodes - 1, Failure::Refused);
        }
        let snapshot = lab.second();
        let report = Arc::new(insight.observe(&snapshot));
        (Arc::new(snapshot), report)
    };
    let shown = Arc::new(Shown(Mutex::new(step(false))));
    println!("http://{}/#token={TOKEN}", serve(Arc::clone(&shown)));
    let begun = Instant::now();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        *shown.0.lock().unwrap() = step(begun.elapsed() > Duration::from_secs(15));
    }
}

fn main() -> ExitCode {
    // `cargo bench -p canary-api --bench look -- --show 1000`: a mesh of so many hosts, which
    // breaks after 15 s.
    if let Some(nodes) = std::env::args().skip_while(|argument| argument != "--show").nth(1) {
        show(nodes.parse().unwrap());
    }
    // Both, whatever comes of the first.
    let kept = [matrix_of_a_thousand(), twenty_watchers_of_forty()];
    if kept == [true, true] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
