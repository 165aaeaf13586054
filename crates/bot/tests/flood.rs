//! Floods from loopback against bots in mutual mode: the others are served, pairs are measured on,
//! and what was taken is given back.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use support::original::Original;
use support::pki::{Authority, Directory, GOOD};
use support::puppet::{Message, node};
use support::{Bot, Plan, alone, counted, failures, get, plans, settle, tls_client, trust, wait};

const SOON: Duration = Duration::from_secs(10);
/// What a flood may make of a bot of about 15 MB.
const RESIDENT_KB_MAX: u64 = 128 * 1024;

/// Two bots in mutual mode that are measured by each other every 500 ms.
fn mesh(directory: &Directory) -> Vec<Bot> {
    let authority = Authority::new("the authority");
    let ca = directory.write("ca.pem", &authority.pem());
    let mut plans = plans(2);
    for plan in &mut plans {
        let own = authority.issue(&plan.name, &[&plan.address.to_string()], GOOD);
        let certificate = directory.write(&format!("{}.pem", plan.name), &own.0);
        let key = directory.write(&format!("{}-key.pem", plan.name), &own.1);
        let more = [
            "--ca-cert-path",
            &ca,
            "--server-cert-path",
            &certificate,
            "--server-key-path",
            &key,
            "--probe-interval",
            "500ms",
            "--log-level",
            "warn",
        ];
        plan.more = more.map(str::to_owned).to_vec();
        trust(SocketAddr::new(plan.address, plan.api_port), &authority.pem());
    }
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    bots
}

fn of_process(bot: &Bot, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", bot.pid())).unwrap();
    status
        .lines()
        .find(|line| line.starts_with(key))
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

fn descriptors(bot: &Bot) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", bot.pid())).unwrap().count()
}

/// Looks at both bots while `flood` holds what it took, and after it gave it back.
fn endure<T>(bots: &[Bot], what: &str, flood: impl FnOnce() -> T) {
    let (probes, failed) = (counted(&bots[1], "canary_probes_total"), failures(&bots[1]));
    let before = (of_process(&bots[0], "VmRSS:"), descriptors(&bots[0]));
    let begun = Instant::now();
    let held = flood();
    // Both measure on within their interval, and the API answers others.
    assert!(
        wait(SOON, || counted(&bots[1], "canary_probes_total") >= probes + 6.0).is_some(),
        "{what}: nothing is measured"
    );
    let asked = Instant::now();
    assert_eq!(get(bots[1].api(), "/api/v1/nodes").unwrap().status, 200);
    let during = (of_process(&bots[0], "VmRSS:"), descriptors(&bots[0]));
    assert!((failures(&bots[1]) - failed).abs() < 0.5, "{what}: a probe of the flooded bot failed");
    drop(held);
    assert!(during.0 < RESIDENT_KB_MAX, "{what}: {} kB resident", during.0);
    let given_back = wait(Duration::from_secs(30), || descriptors(&bots[0]) <= before.1 + 16);
    assert!(
        given_back.is_some(),
        "{what}: {} descriptors, {} before",
        descriptors(&bots[0]),
        before.1
    );
    eprintln!(
        "{what}: {:.1} s, resident {} to {} kB, descriptors {} to {}, an answer of the other in {:.0} ms, given back after {:.1} s",
        begun.elapsed().as_secs_f64(),
        before.0,
        during.0,
        before.1,
        during.1,
        asked.elapsed().as_secs_f64() * 1000.0,
        given_back.unwrap().as_secs_f64()
    );
}

/// A connection to `to` from one of many loopback addresses.
fn connect_from(number: usize, to: SocketAddr) -> Option<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).ok()?;
    let from = Ipv4Addr::new(127, 200, (number / 250) as u8, (number % 250) as u8 + 1);
    socket.bind(&SocketAddr::from((from, 0)).into()).ok()?;
    socket.connect_timeout(&to.into(), Duration::from_secs(2)).ok()?;
    Some(socket.into())
}

#[test]
fn floods_harm_nobody_else() {
    let _turn = alone();
    raise_file_limit();
    let directory = Directory::new();
    let bots = mesh(&directory);
    let mesh_port = SocketAddr::new(bots[0].plan.address, bots[0].plan.mesh_port);
    // From one address, and from a hundred: they say nothing, and a handshake has five seconds.
    endure(&bots, "5,000 half-open connections of one address", || {
        (0..5000).filter_map(|_| connect_from(0, mesh_port)).collect::<Vec<_>>()
    });
    endure(&bots, "5,000 half-open connections of a hundred addresses", || {
        (0..5000).filter_map(|number| connect_from(number % 100, mesh_port)).collect::<Vec<_>>()
    });
    let ca = std::fs::read_to_string(directory.path("ca.pem")).unwrap();
    let api = bots[0].api();
    let session = || {
        let stream = TcpStream::connect(api).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        rustls::StreamOwned::new(
            rustls::ClientConnection::new(tls_client(&ca, None), api.ip().into()).unwrap(),
            stream,
        )
    };
    endure(&bots, "50 slow headers and 50 slow bodies", || {
        let begin = |text: &str| {
            let mut stream = session();
            stream.write_all(text.as_bytes()).ok()?;
            Some(stream)
        };
        let headers = (0..50).filter_map(|_| begin("GET /metrics HTTP/1.1\r\nHost: b"));
        headers
            .chain((0..50).filter_map(|_| {
                begin("POST /x HTTP/1.1\r\nHost: bot\r\nContent-Length: 1000000\r\n\r\nx")
            }))
            .collect::<Vec<_>>()
    });
    endure(&bots, "100,000 wrong tokens", || {
        let mut stream = session();
        let request =
            "GET /api/v1/nodes HTTP/1.1\r\nHost: bot\r\nAuthorization: Bearer wrong\r\n\r\n"
                .repeat(50);
        let mut buffer = vec![0; 1 << 16];
        for _ in 0..2000 {
            stream.write_all(request.as_bytes()).unwrap();
            let mut answers = 0;
            while answers < 50 {
                let read = stream.read(&mut buffer).unwrap();
                assert!(read > 0, "the connection was closed");
                answers += buffer[..read].windows(8).filter(|window| window == b"HTTP/1.1").count();
            }
        }
    });
    assert!(counted(&bots[0], "canary_mesh_refused_total{reason=\"mesh_handshakes_full\"}") > 0.0);
    assert!(counted(&bots[0], "canary_mesh_refused_total{reason=\"auth_limited\"}") > 90_000.0);
    endure(&bots, "100,000 stream resets on the API port", || {
        reset_streams(api, tls_client(&ca, None), 100_000);
    });
    let member = |file: &str| std::fs::read_to_string(directory.path(file)).unwrap();
    let own = (
        member(&format!("{}.pem", bots[1].name())),
        member(&format!("{}-key.pem", bots[1].name())),
    );
    let client = || tls_client(&ca, Some(&own));
    endure(&bots, "100,000 stream resets on the mesh port, by a member", || {
        reset_streams(mesh_port, client(), 100_000);
    });
    endure(&bots, "10,000 joins with hostile targets, by a member", || {
        let hostile = [
            "unix:/x",
            "http://a",
            "a\x7f:1",
            "127.0.0.1:1",
            "",
            "169.254.169.254:80",
            ":0",
            "[::1",
        ];
        let mut stream = rustls::StreamOwned::new(
            rustls::ClientConnection::new(client(), mesh_port.ip().into()).unwrap(),
            TcpStream::connect(mesh_port).unwrap(),
        );
        stream.sock.set_read_timeout(Some(SOON)).unwrap();
        let mut buffer = vec![0; 1 << 16];
        for round in 0..200_u64 {
            let joins = (0..50).map(|index| {
                let number = round * 50 + index;
                let joiner = node(&format!("victim-{number}"), hostile[number as usize % hostile.len()], 1, number + 1);
                let body = Message::default().message(1, &joiner).0;
                let head = format!(
                    "POST /mesh.v2.MeshService/Join HTTP/1.1\r\nHost: bot\r\nContent-Type: application/proto\r\nConnect-Protocol-Version: 1\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                [head.into_bytes(), body].concat()
            });
            stream.write_all(&joins.flatten().collect::<Vec<_>>()).unwrap();
            let mut answers = 0;
            while answers < 50 {
                let read = stream.read(&mut buffer).unwrap();
                assert!(read > 0, "the connection was closed");
                answers += buffer[..read].windows(8).filter(|window| window == b"HTTP/1.1").count();
            }
        }
    });
    assert_eq!(bots[0].nodes().unwrap().len(), 1, "a hostile joiner was admitted");
}

/// A push of nearly four megabytes by a guest's protocol: as many samples as fit, of one pair, or
/// of nodes that nobody knows.
fn longest_push(round: usize) -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut samples = Message::default();
    for number in 0.. {
        let to = if round == 0 {
            "bot-01".to_owned()
        } else {
            format!("{:x}", round * 1_000_000 + number)
        };
        let sample = Message::default().bytes(1, b"swan").bytes(2, to.as_bytes());
        samples = samples.message(1, &sample.varint(3, 2).bytes(4, b"1").varint(5, now));
        if samples.0.len() > 4 * 1024 * 1024 - 64 {
            break;
        }
    }
    let head = format!(
        "POST /mesh.v1.MeshService/PushSamples HTTP/1.1\r\nHost: bot\r\nContent-Type: application/proto\r\nConnect-Protocol-Version: 1\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        samples.0.len()
    );
    [head.into_bytes(), samples.0].concat()
}

#[test]
fn pushes_of_strangers_take_bounded_memory() {
    let _turn = alone();
    let plans: Vec<_> = plans(2)
        .into_iter()
        .map(|plan| Plan { more: vec!["--probe-interval".to_owned(), "500ms".to_owned()], ..plan })
        .collect();
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let mesh_port = SocketAddr::new(plans[0].address, plans[0].mesh_port);
    let swan = Original::start_on("swan", plans[0].address, &[plans[0].target()]);
    let listed = || bots.iter().all(|bot| bot.nodes().is_some_and(|nodes| nodes.contains("swan")));
    assert!(wait(Duration::from_secs(30), listed).is_some());
    let pushes: Vec<_> = (0..4).map(longest_push).collect();
    endure(&bots, "400 pushes of 4 MB of forty addresses", || {
        std::thread::scope(|scope| {
            for number in 0..40 {
                let pushes = &pushes;
                scope.spawn(move || {
                    for push in pushes.iter().cycle().take(10) {
                        let Some(mut stream) = connect_from(number, mesh_port) else { continue };
                        stream.set_read_timeout(Some(SOON)).unwrap();
                        stream.set_write_timeout(Some(SOON)).unwrap();
                        // Who has no place for it may close before it has come whole.
                        let _ = stream.write_all(push);
                        let _ = stream.read_to_end(&mut Vec::new());
                    }
                });
            }
        });
    });
    endure(&bots, "64 pushes of sixteen addresses that stop half-way", || {
        let begin = |number: usize| {
            let mut stream = connect_from(number % 16, mesh_port)?;
            stream.set_write_timeout(Some(Duration::from_millis(200))).ok()?;
            let _ = stream.write_all(&pushes[0][..3 * 1024 * 1024]);
            Some(stream)
        };
        (0..64).filter_map(begin).collect::<Vec<_>>()
    });
    let peak = of_process(&bots[0], "VmHWM:");
    eprintln!("{peak} kB at the peak");
    assert!(peak < RESIDENT_KB_MAX, "{peak} kB at the peak");
    swan.assert_well();
    // What the guest itself tells comes through again.
    let bot = &bots[0];
    let told = || bot.measured_pairs().iter().filter(|(from, _)| from == "swan").count() == 2;
    assert!(wait(Duration::from_secs(60), told).is_some(), "the guest's own samples are lost");
}

/// Opens streams and resets each at once, on as many connections as it takes.
fn reset_streams(to: SocketAddr, client: std::sync::Arc<rustls::ClientConfig>, count: usize) {
    let mut client = (*client).clone();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(client));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut done = 0;
    let mut connections = 0;
    while done < count {
        connections += 1;
        assert!(connections < count / 10, "hardly a stream is opened");
        runtime.block_on(async {
            let Ok(stream) = tokio::net::TcpStream::connect(to).await else { return };
            let Ok(stream) = connector.connect(to.ip().into(), stream).await else { return };
            let Ok((mut sender, connection)) = h2::client::handshake(stream).await else { return };
            let driving = tokio::spawn(connection);
            while done < count {
                let Ok(ready) = sender.ready().await else { break };
                sender = ready;
                let request = http::Request::post("https://bot/mesh.v2.MeshService/Identify")
                    .body(())
                    .unwrap();
                let Ok((_, mut body)) = sender.send_request(request, false) else { break };
                // Once its headers are on their way: what was never sent would be reset in secret.
                tokio::task::yield_now().await;
                body.send_reset(h2::Reason::CANCEL);
                done += 1;
            }
            driving.abort();
        });
    }
    eprintln!("{count} resets on {connections} connections");
}

fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}
