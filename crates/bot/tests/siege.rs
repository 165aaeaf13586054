//! What strangers and members can make a bot hold, tried against one that may have 256 MB of memory
//! and 1,024 descriptors: it lives, the other's probes stay on time, what it took is given back,
//! and everything is counted.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use support::puppet::{
    Message, Puppet, call, fingerprint, frame, heard, node, packed_roster, refused,
};
use support::{Bot, Plan, TOKEN, alone, counted, failures, get, own_address, plans, settle, wait};

const LIMITS: &str = "ulimit -n 1024; ulimit -d 262144";
const SOON: Duration = Duration::from_secs(15);
/// The longest deadline that an attack can run into is that of answers of the API, 20 s.
const HELD_FOR: Duration = Duration::from_secs(60);

fn resident_kb(bot: &Bot) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", bot.pid())).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// The bot under siege, its mate, and where the first one's mesh port is.
struct Siege {
    bots: Vec<Bot>,
    port: SocketAddr,
}

impl Siege {
    fn begin() -> Self {
        let mut plans = plans(2);
        for plan in &mut plans {
            plan.more = ["--probe-interval", "500ms"].map(str::to_owned).to_vec();
        }
        let bots = vec![plans[0].start_limited(LIMITS), plans[1].start()];
        settle(&bots);
        let port = plans[0].target().parse().unwrap();
        Self { bots, port }
    }

    /// Lets `attack` run until it is counted under `reason`, and looks at what became of both bots
    /// during it and after it.
    fn endure<T>(
        &mut self,
        what: &str,
        reason: &str,
        attack: impl FnOnce(SocketAddr, SocketAddr) -> T,
    ) {
        let (port, api) = (self.port, self.bots[0].api());
        let series = format!("canary_mesh_refused_total{{reason=\"{reason}\"}}");
        let (probes, failed) =
            (counted(&self.bots[1], "canary_probes_total"), failures(&self.bots[1]));
        let refused = counted(&self.bots[0], &series);
        let begun = Instant::now();
        let held = attack(port, api);
        let counts = wait(HELD_FOR, || counted(&self.bots[0], &series) > refused);
        let on_time = wait(SOON, || counted(&self.bots[1], "canary_probes_total") >= probes + 6.0);
        assert!(self.bots[0].running(), "{what}: it died: {}", self.bots[0].logged());
        assert!(on_time.is_some(), "{what}: nothing is measured");
        let during = resident_kb(&self.bots[0]);
        drop(held);
        let back = wait(Duration::from_secs(60), || {
            resident_kb(&self.bots[0]) < 110_000
                && get(api, "/livez").is_ok_and(|answer| answer.status == 200)
        });
        let after = resident_kb(&self.bots[0]);
        let failed = failures(&self.bots[1]) - failed;
        eprintln!(
            "{what}: {:.1} s, {during} kB during, {after} kB after, {failed} probes failed",
            begun.elapsed().as_secs_f64()
        );
        assert!(back.is_some(), "{what}: {after} kB are not given back");
        assert!(failed < 0.5, "{what}: {failed} probes of it failed");
        assert!(counts.is_some(), "{what}: nothing is counted as {reason}");
    }
}

/// A connection to `to` from one of many loopback addresses.
async fn connect_from(number: u8, to: SocketAddr) -> Option<tokio::net::TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4().ok()?;
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 201, 0, number + 1), 0))).ok()?;
    tokio::time::timeout(Duration::from_secs(2), socket.connect(to)).await.ok()?.ok()
}

/// Runs an attack beside the test, for as long as what is returned is there.
fn beside(attack: impl Future<Output = ()> + Send + 'static) -> tokio::runtime::Runtime {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.spawn(attack);
    runtime
}

/// Opens connections and on each of them requests of which `chunk` is sent again and again, and
/// never the end.
async fn half_uploads(to: SocketAddr, connections: u8, streams: usize, bytes: usize) {
    let mut held = Vec::new();
    for number in 0..connections {
        let Some(stream) = connect_from(number % 20, to).await else { continue };
        let Ok((sender, connection)) =
            h2::client::Builder::new().handshake::<_, Bytes>(stream).await
        else {
            continue;
        };
        tokio::spawn(connection);
        for _ in 0..streams {
            let Ok(mut sender) = sender.clone().ready().await else { break };
            let request = http::Request::post("http://bot/mesh.v2.MeshService/Exchange")
                .header("content-type", "application/grpc");
            let Ok((answer, mut body)) = sender.send_request(request.body(()).unwrap(), false)
            else {
                break;
            };
            let length = u32::try_from(bytes).unwrap().to_be_bytes();
            let _ = body
                .send_data(Bytes::from([&[0][..], &length, &vec![0; bytes - 10]].concat()), false);
            held.push((answer, body, sender));
        }
    }
    std::future::pending::<()>().await;
}

#[test]
fn half_uploads_take_bounded_memory() {
    let _turn = alone();
    let mut siege = Siege::begin();
    siege.endure(
        "40 connections with 16 half messages of 570 kB each",
        "mesh_overdrawn",
        |port, _| beside(half_uploads(port, 40, 16, 570_000)),
    );
    siege.endure("again", "malformed", |port, _| beside(half_uploads(port, 40, 16, 570_000)));
}

#[test]
fn rows_of_ghosts_take_bounded_memory() {
    let _turn = alone();
    let mut siege = Siege::begin();
    siege.endure("800 ghosts with a roster of 4,000 names each", "rows_full", |port, _| {
        let liar = Puppet::start("liar", own_address(), 1);
        assert_eq!(liar.join(port), Some(1));
        let nowhere = own_address();
        for number in 0..800_u64 {
            let ghost =
                node(&format!("ghost-{number}"), &format!("{nowhere}:9"), 1, 1 << 40 | number);
            let names: Vec<_> = (0..4000).map(|index| format!("{number:03x}{index:03x}")).collect();
            let frame = frame(1, &fingerprint(&names).to_le_bytes(), 1, &refused(4000));
            let row = Message::default().fixed(1, 1 << 40 | number).message(2, &frame);
            let told = Message::default().message(5, &heard(&ghost, 1, 0)).message(6, &row);
            let _ = liar.gossip(port, &told);
            let _ = liar.gossip(port, &Message::default().bytes(7, &packed_roster(&names)));
        }
        liar
    });
    let nodes = siege.bots[0].nodes().unwrap();
    assert!(
        !nodes.iter().any(|name| name.starts_with("ghost")),
        "names that never answered are listed"
    );
    assert!(
        (counted(&siege.bots[0], "canary_probe_interval_seconds") - 0.5).abs() < 0.01,
        "they stretch the interval"
    );
}

/// Asks `path` on many streams of many connections, and reads nothing: the window is none or one
/// byte.
async fn unread(to: SocketAddr, connections: u8, streams: usize, path: &'static str, window: u32) {
    let mut held = Vec::new();
    for number in 0..connections {
        let Some(stream) = connect_from(number % 4, to).await else { continue };
        let mut builder = h2::client::Builder::new();
        let Ok((sender, connection)) =
            builder.initial_window_size(window).handshake::<_, Bytes>(stream).await
        else {
            continue;
        };
        tokio::spawn(connection);
        for _ in 0..streams {
            let Ok(mut sender) = sender.clone().ready().await else { break };
            let request = http::Request::get(format!("http://bot{path}"))
                .header("authorization", format!("Bearer {TOKEN}"));
            let Ok((answer, _)) = sender.send_request(request.body(()).unwrap(), true) else {
                break;
            };
            held.push((answer, sender));
        }
    }
    std::future::pending::<()>().await;
}

#[test]
fn answers_that_are_not_read_end_their_connections() {
    let _turn = alone();
    let mut siege = Siege::begin();
    for (what, path, window) in [
        ("100 connections that read no /livez", "/livez", 0),
        ("100 connections that read no /metrics", "/metrics", 1),
    ] {
        siege.endure(what, "api_unread", |_, api| {
            let attack = beside(unread(api, 100, 16, path, window));
            // The port is shut to some of them, and open to others again after twenty seconds.
            assert!(
                wait(Duration::from_secs(60), || get(api, "/livez")
                    .is_ok_and(|answer| answer.status == 200))
                .is_some(),
                "{what}"
            );
            attack
        });
    }
}

#[test]
fn idle_connections_of_one_address_leave_descriptors_for_all_else() {
    let _turn = alone();
    let mut siege = Siege::begin();
    siege.endure("1,100 idle connections", "mesh_address_full", |port, api| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let held = runtime.block_on(async {
            let mut held = Vec::new();
            for _ in 0..1100 {
                held.extend(connect_from(99, port).await);
            }
            held
        });
        assert_eq!(get(api, "/livez").unwrap().status, 200, "the API has no descriptor");
        (held, runtime)
    });
    let warnings = siege.bots[0].logged().matches("cannot accept").count();
    assert!(warnings <= 2, "{warnings} lines of one kind");
}

#[test]
fn a_flood_of_joins_keeps_no_newcomer_of_another_address_out() {
    let _turn = alone();
    let mut siege = Siege::begin();
    siege.endure("joins of one address, 100 a second", "joins_limited", |port, _| {
        let nobody = own_address();
        beside(async move {
            for number in 0_u64.. {
                tokio::task::spawn_blocking(move || {
                    let joiner =
                        node(&format!("flood-{number}"), &format!("{nobody}:9"), 1, number + 1);
                    let _ = call(port, "Join", &Message::default().message(1, &joiner).0);
                });
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    });
}

#[test]
fn what_is_compressed_is_refused_on_the_mesh_port() {
    let _turn = alone();
    let siege = Siege::begin();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |path: &str, header: Option<(&str, &str)>| {
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(siege.port).await.unwrap();
            let (sender, connection) =
                h2::client::Builder::new().handshake::<_, Bytes>(stream).await.unwrap();
            tokio::spawn(connection);
            let mut request = http::Request::post(format!("http://bot{path}"))
                .header("content-type", "application/grpc");
            if let Some((name, value)) = header {
                request = request.header(name, value);
            }
            let mut sender = sender.ready().await.unwrap();
            let (answer, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
            body.send_data(Bytes::from_static(&[0, 0, 0, 0, 0]), true).unwrap();
            let answer = answer.await.unwrap();
            let early = answer.headers().get("grpc-status").cloned();
            let mut incoming = answer.into_body();
            while incoming.data().await.is_some() {}
            let late = incoming
                .trailers()
                .await
                .unwrap()
                .and_then(|trailers| trailers.get("grpc-status").cloned());
            early.or(late).map(|code| code.to_str().unwrap().to_owned())
        })
    };
    assert_eq!(ask("/mesh.v2.MeshService/Identify", None).as_deref(), Some("0"));
    for coding in ["gzip", "zstd", "br"] {
        assert_eq!(
            ask("/mesh.v2.MeshService/Identify", Some(("grpc-encoding", coding))).as_deref(),
            Some("12"),
            "{coding}"
        );
    }
    assert_eq!(ask("/grpc.health.v1.Health/Check", None).as_deref(), Some("0"));
    assert_eq!(
        ask("/grpc.health.v1.Health/Watch", None).as_deref(),
        Some("12"),
        "a watch never ends"
    );
}

/// What a plan's bot answers to a joiner whose target is elsewhere.
fn told(port: SocketAddr, target: &str) -> String {
    let joiner = node("scanner", target, 1, 77);
    let (_, answer) = call(port, "Join", &Message::default().message(1, &joiner).0).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn the_answer_to_a_joiner_tells_nothing_of_other_hosts() {
    let _turn = alone();
    let siege = Siege::begin();
    let nobody = own_address();
    let (closed, unknown) =
        (told(siege.port, &format!("{nobody}:9")), told(siege.port, "no-such-name.invalid:80"));
    let silent = std::net::TcpListener::bind((nobody, 0)).unwrap();
    let open = told(siege.port, &silent.local_addr().unwrap().to_string());
    for answer in [&closed, &unknown, &open] {
        assert!(answer.contains("no connection"), "{answer:?}");
    }
    // A bot that is reached elsewhere dials no loopback for others: on this mesh, which lives on
    // loopback, it does.
    let plan: &Plan = &siege.bots[0].plan;
    assert!(plan.address.is_loopback());
}
