//! How much a bot adds to the round trips that it reports: against a bare socket that sends the
//! same requests to the same server in the same run. Exits with 1 when the medians differ by more
//! than the budget.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use canary_bot::{Attempt, Bot, Config, NodeName, Reader, Seed, Target};
use support::puppet::{Message, Puppet, heard};
use support::{Plan, own_address, plans, wait};
use tokio::io::AsyncReadExt as _;

/// What the median of a reported round trip may be above the bare socket's.
const ADDED_MAX: Duration = Duration::from_micros(50);
/// How often the one pair is measured, by the bot and by the bare socket.
const INTERVAL: Duration = Duration::from_millis(100);
const SAMPLES: usize = 300;
const PROBE_PATH: &str = "/mesh.v2.MeshService/Probe";

fn main() -> ExitCode {
    let server = Plan { seeds: Vec::new(), ..plans(1).remove(0) };
    let _running = server.start();
    let address: SocketAddr = server.target().parse().unwrap();
    let prepared = Prepared::new(&server.target());
    assert!(
        wait(Duration::from_secs(30), || TcpStream::connect(address).is_ok()).is_some(),
        "the server did not start"
    );
    let mut kept = true;
    for (load, others) in [("idle: 10 probes/s", 0), ("200 probes/s", 19)] {
        kept &= compare(load, others, &server, address, &prepared);
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Both sides in one run, taking turns.
fn compare(
    load: &str,
    others: usize,
    server: &Plan,
    address: SocketAddr,
    prepared: &Prepared,
) -> bool {
    let ended = Arc::new(AtomicBool::new(false));
    let (reader, running) = measurer(&server.target(), Arc::clone(&ended));
    let own = own_address();
    let puppets: Vec<_> =
        (0..others).map(|number| Puppet::start(&format!("host-{number:02}"), own, 1)).collect();
    if let Some(hub) = puppets.first() {
        let me: SocketAddr = reader.snapshot().me.target.to_string().parse().unwrap();
        assert!(wait(Duration::from_secs(10), || hub.join(me) == Some(1)).is_some());
        hub.gossip(
            me,
            &puppets.iter().fold(Message::default(), |gossip, puppet| {
                gossip.message(5, &heard(&puppet.node(), 1, 0))
            }),
        )
        .unwrap();
    }
    let name = server.name.parse::<NodeName>().unwrap();
    let measured =
        || reader.snapshot().member(&name).and_then(|member| member.pair.main().latest());
    let all = || {
        reader.snapshot().present().filter(|member| member.pair.main().latest().is_some()).count()
            > others
    };
    assert!(
        wait(Duration::from_secs(30), || all() && measured().is_some()).is_some(),
        "the pairs are not measured"
    );
    let (mut bot, mut bare) = (Phases::default(), Phases::default());
    let mut seen = None;
    let mut next = Instant::now();
    let mut rng = fastrand::Rng::with_seed(1);
    while bot.request.len() < SAMPLES {
        if let Some((Attempt::Ok(timing), at)) = measured()
            && seen.replace(at) != Some(at)
        {
            bot.connect.push(timing.connect);
            bot.request.extend(timing.request);
        }
        if Instant::now() >= next {
            prepared.measure(address, &mut bare);
            // Not in step with the bot, or one would always disturb the other.
            next += INTERVAL.mul_f64(0.8 + 0.4 * rng.f64());
        }
        wait(Duration::from_millis(10), || false);
    }
    ended.store(true, Ordering::Relaxed);
    running.join().unwrap();
    println!(
        "added error of one pair, {load}, {} samples of the bot and {} of a bare socket, µs",
        bot.request.len(),
        bare.request.len()
    );
    report("connect", &mut bot.connect, &mut bare.connect)
        & report("rtt_request", &mut bot.request, &mut bare.request)
}

#[derive(Debug, Default)]
struct Phases {
    connect: Vec<Duration>,
    request: Vec<Duration>,
}

fn report(phase: &str, bot: &mut [Duration], bare: &mut [Duration]) -> bool {
    bot.sort_unstable();
    bare.sort_unstable();
    let at = |sorted: &[Duration], share: f64| {
        sorted[((sorted.len() - 1) as f64 * share) as usize].as_nanos() as f64 / 1000.0
    };
    for (who, sorted) in [("bot", &*bot), ("bare socket", &*bare)] {
        let [p10, p50, p90, p99] = [0.1, 0.5, 0.9, 0.99].map(|share| at(sorted, share));
        println!(
            "         {phase:<12} {who:<12} p10 {p10:>6.1}  p50 {p50:>6.1}  p90 {p90:>6.1}  p99 {p99:>7.1}"
        );
    }
    let added = at(bot, 0.5) - at(bare, 0.5);
    let kept = added <= ADDED_MAX.as_micros() as f64;
    println!(
        "  {} {phase}: {added:+.1} µs at the median (at most {})",
        if kept { "held  " } else { "MISSED" },
        ADDED_MAX.as_micros()
    );
    kept
}

/// A bot on a thread and a runtime of its own, as the program runs it.
fn measurer(seed: &str, ended: Arc<AtomicBool>) -> (Reader, std::thread::JoinHandle<()>) {
    let config = Config { probe_interval: INTERVAL, probe_rate_max: 400.0, ..Config::default() };
    let builder = Bot::builder("measurer".parse().unwrap())
        .listen(SocketAddr::new(own_address(), 0))
        .seed(Seed::Fixed(seed.parse::<Target>().unwrap()))
        .config(config);
    let (reader, given) = std::sync::mpsc::channel();
    let running = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bot = builder.start().await.unwrap();
            reader.send(bot.reader()).unwrap();
            while !ended.load(Ordering::Relaxed) {
                tokio::time::sleep(INTERVAL).await;
            }
        });
    });
    (given.recv().unwrap(), running)
}

/// The bytes of two requests as the prober's HTTP/2 library writes them.
struct Prepared {
    first: Vec<u8>,
    second: Vec<u8>,
}

/// An empty SETTINGS frame with the flag ACK.
const SETTINGS_ACK: [u8; 9] = [0, 0, 0, 4, 1, 0, 0, 0, 0];
/// Frame types and flags of RFC 9113 section 6.
const HEADERS: u8 = 1;
const DATA: u8 = 0;
const END_STREAM: u8 = 1;
const PREFACE: usize = 24;

impl Prepared {
    fn new(authority: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let written = runtime.block_on(written_by_h2(authority));
        let mut ends = frames(&written[PREFACE..])
            .filter(|frame| frame.kind == DATA && frame.flags & END_STREAM != 0);
        let first = PREFACE + ends.next().unwrap().end;
        let (first, second) = written.split_at(first);

        Self { first: first.to_vec(), second: [&SETTINGS_ACK, second].concat() }
    }

    fn measure(&self, address: SocketAddr, phases: &mut Phases) {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(address).unwrap();
        phases.connect.push(begun.elapsed());
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        exchange(&mut stream, &self.first);
        phases.request.push(exchange(&mut stream, &self.second));
    }
}

/// Sends, and reads until a stream has ended.
fn exchange(stream: &mut TcpStream, request: &[u8]) -> Duration {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let begun = Instant::now();
    stream.write_all(request).unwrap();
    loop {
        let read = stream.read(&mut buffer).unwrap();
        let taken = begun.elapsed();
        assert!(read > 0, "the server closed the connection");
        answer.extend(&buffer[..read]);
        if frames(&answer).any(|frame| frame.kind == HEADERS && frame.flags & END_STREAM != 0) {
            return taken;
        }
    }
}

struct Frame {
    kind: u8,
    flags: u8,
    end: usize,
}

/// The whole frames at the beginning of `bytes`.
fn frames(bytes: &[u8]) -> impl Iterator<Item = Frame> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let head = bytes.get(at..at + 9)?;
        let end = at + 9 + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        at = end;
        (end <= bytes.len()).then_some(Frame { kind: head[3], flags: head[4], end })
    })
}

async fn written_by_h2(authority: &str) -> Vec<u8> {
    let (client, mut server) = tokio::io::duplex(64 * 1024);
    let (mut sender, connection) = h2::client::Builder::new()
        .max_header_list_size(16 * 1024)
        .enable_push(false)
        .handshake::<_, bytes::Bytes>(client)
        .await
        .unwrap();
    // A request whose answer nobody awaits would be cancelled.
    let mut open = Vec::new();
    for _ in 0..2 {
        let request = http::Request::post(format!("http://{authority}{PROBE_PATH}"))
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .header(http::header::TE, "trailers")
            .body(())
            .unwrap();
        let (response, mut body) = sender.send_request(request, false).unwrap();
        body.send_data(bytes::Bytes::from_static(&[0; 5]), true).unwrap();
        open.push((response, body));
    }
    let mut written = Vec::new();
    let complete = |written: &[u8]| {
        written.len() > PREFACE
            && frames(&written[PREFACE..])
                .filter(|frame| frame.kind == DATA && frame.flags & END_STREAM != 0)
                .count()
                == 2
    };
    let reading = async {
        while !complete(&written) {
            server.read_buf(&mut written).await.unwrap();
        }
    };
    tokio::select! {
        () = reading => {}
        _ = connection => {}
    }
    written
}
