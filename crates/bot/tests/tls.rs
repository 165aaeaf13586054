//! TLS and tokens, with real bots: which peers are admitted, and what is replaced while they run.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use support::pki::{Authority, Directory, GOOD, Kind, self_signed};
use support::puppet::{Message, node};
use support::{
    Bot, Plan, alone, counted, failures, get, plans, plans_at, settle, tls_client, trust,
    trust_exactly, wait,
};

const SOON: Duration = Duration::from_secs(10);

/// Files of one bot, and the flags that name them.
fn flags(directory: &Directory, name: &str, ca: &str, own: &(String, String)) -> Vec<String> {
    let ca = directory.write(&format!("{name}-ca.pem"), ca);
    let certificate = directory.write(&format!("{name}.pem"), &own.0);
    let key = directory.write(&format!("{name}-key.pem"), &own.1);
    ["--ca-cert-path", &ca, "--server-cert-path", &certificate, "--server-key-path", &key]
        .map(str::to_owned)
        .to_vec()
}

/// Plans of a mesh in mutual mode, all certificates by one authority.
fn mutual(directory: &Directory, authority: &Authority, count: usize) -> Vec<Plan> {
    let mut plans = plans(count);
    for plan in &mut plans {
        let own = authority.issue(&plan.name, &[&plan.name, &plan.address.to_string()], GOOD);
        plan.more = flags(directory, &plan.name, &authority.pem(), &own);
        trust(SocketAddr::new(plan.address, plan.api_port), &authority.pem());
    }
    plans
}

fn start(plans: &[Plan]) -> Vec<Bot> {
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    bots
}

fn mesh_port(plan: &Plan) -> SocketAddr {
    SocketAddr::new(plan.address, plan.mesh_port)
}

/// One call over TLS and HTTP/1.1; an error if the connection is refused at any time.
fn call_tls(
    address: SocketAddr,
    client: Arc<rustls::ClientConfig>,
    method: &str,
    body: &[u8],
) -> std::io::Result<(u16, String)> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    let session = rustls::ClientConnection::new(client, address.ip().into())
        .map_err(std::io::Error::other)?;
    let mut stream = rustls::StreamOwned::new(session, stream);
    let head = format!(
        "POST /mesh.v2.MeshService/{method} HTTP/1.1\r\nHost: bot\r\nContent-Type: application/proto\r\nConnect-Protocol-Version: 1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // Some servers close without goodbye; what came before counts.
        Err(error) if answer.is_empty() => return Err(error),
        _ => {}
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok((status, answer))
}

#[test]
fn five_bots_form_a_mesh_in_mutual_mode() {
    let _turn = alone();
    let (directory, authority) = (Directory::new(), Authority::new("the authority"));
    let bots = start(&mutual(&directory, &authority, 5));
    for bot in &bots {
        assert!(
            counted(
                bot,
                "canary_probe_phase_duration_seconds_sum{target=\"bot-01\",phase=\"tls\"}"
            ) > 0.0
                || bot.name() == "bot-01"
        );
        assert!(failures(bot) < 1.0, "{} failed to measure somebody", bot.name());
    }
    // What each agreed on, and how long its certificate is good for, is published by all of all.
    let told = |bot: &Bot| {
        let agreed = counted(bot, "canary_node_tls_info{") > 4.5;
        let day = 86400.0;
        let left =
            counted(bot, "canary_node_certificate_expiry_timestamp_seconds{") / 5.0 - now_unix();
        agreed && (29.0 * day..30.1 * day).contains(&left)
    };
    assert!(
        wait(SOON * 3, || bots.iter().all(told)).is_some(),
        "{}",
        get(bots[0].api(), "/metrics").unwrap().body
    );
    let metrics = get(bots[0].api(), "/metrics").unwrap().body;
    let told = "canary_node_tls_info{node=\"bot-03\",version=\"TLSv1.3\",group=\"x25519\"}";
    assert!(metrics.contains(told), "{metrics}");
}

fn now_unix() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn five_bots_form_a_mesh_with_optional_client_certificates() {
    let _turn = alone();
    let (directory, authority) = (Directory::new(), Authority::new("the authority"));
    let mut plans = mutual(&directory, &authority, 5);
    plans
        .iter_mut()
        .for_each(|plan| plan.more.extend(["--client-auth", "optional"].map(str::to_owned)));
    let _bots = start(&plans);
    // A peer without a certificate is admitted, a peer with a wrong one is not.
    let (address, ca) = (mesh_port(&plans[0]), authority.pem());
    assert_eq!(call_tls(address, tls_client(&ca, None), "Identify", &[]).unwrap().0, 200);
    let foreign = Authority::new("another authority").issue("x", &["x"], GOOD);
    assert!(call_tls(address, tls_client(&ca, Some(&foreign)), "Identify", &[]).is_err());
}

#[test]
fn five_bots_share_one_certificate_that_signed_itself() {
    let _turn = alone();
    let directory = Directory::new();
    let mut plans = plans(5);
    let own = self_signed("all of us", &[&plans[0].address.to_string()]);
    for plan in &mut plans {
        plan.more = flags(&directory, &plan.name, &own.0, &own);
        trust_exactly(SocketAddr::new(plan.address, plan.api_port), &own.0);
    }
    start(&plans);
}

#[test]
fn who_is_joined_by_a_name_of_many_addresses_proves_that_name() {
    let _turn = alone();
    let (directory, authority) = (Directory::new(), Authority::new("the authority"));
    let mut plans = plans_at(IpAddr::from([127, 0, 0, 1]), 2);
    let seeds: Vec<_> =
        plans.iter().map(|plan| format!("dns:localhost:{}", plan.mesh_port)).collect();
    for plan in &mut plans {
        // No certificate names the address that is dialled.
        let own = authority.issue(&plan.name, &["localhost"], GOOD);
        plan.more = flags(&directory, &plan.name, &authority.pem(), &own);
        plan.more.extend(["--join-address", "localhost"].map(str::to_owned));
        plan.seeds = seeds.clone();
        trust_exactly(SocketAddr::new(plan.address, plan.api_port), &own.0);
    }
    let _bots = start(&plans);
    let mut stranger = plans_at(plans[0].address, 1).remove(0);
    let own = authority.issue("stranger", &["somebody-else"], GOOD);
    stranger.more = flags(&directory, "stranger", &authority.pem(), &own);
    stranger.more.extend(["--join-address", "somebody-else"].map(str::to_owned));
    stranger.seeds = vec![format!("dns:localhost:{}", stranger.mesh_port)];
    let mut seeker = plans[0].clone();
    seeker.name = "seeker".to_owned();
    let ports = support::free_ports(seeker.address, 2);
    (seeker.mesh_port, seeker.api_port) = (ports[0], ports[1]);
    seeker.seeds = stranger.seeds.clone();
    // At this address somebody answers whose certificate is good for another name.
    let (_stranger, seeker) = (stranger.start(), seeker.start());
    assert!(
        wait(SOON * 2, || seeker.logged().contains("not valid for name")).is_some(),
        "{}",
        seeker.logged()
    );
}

/// Ends TLS with a certificate and passes bytes on, as an edge does.
fn edge(address: IpAddr, own: &(String, String), behind: SocketAddr) -> u16 {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_slice_iter(own.0.as_bytes()).map(Result::unwrap).collect();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(own.1.as_bytes()).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind((address, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut front = acceptor.accept(stream).await?;
                    let mut back = tokio::net::TcpStream::connect(behind).await?;
                    tokio::io::copy_bidirectional(&mut front, &mut back).await.map(|_| ())
                });
            }
        });
    });
    port
}

#[test]
fn five_bots_form_a_mesh_behind_edges_with_a_token() {
    let _turn = alone();
    let (directory, authority) = (Directory::new(), Authority::new("the authority"));
    let mut plans = plans(5);
    let ca = directory.write("ca.pem", &authority.pem());
    let token = directory.write("token", "a-secret-of-the-mesh\n");
    let own = authority.issue("edge", &[&plans[0].address.to_string()], GOOD);
    let edges: Vec<_> =
        plans.iter().map(|plan| edge(plan.address, &own, mesh_port(plan))).collect();
    for (plan, port) in plans.iter_mut().zip(&edges) {
        let join = format!("{}:{port}", plan.address);
        plan.seeds =
            edges.iter().take(2).map(|port| format!("https://{}:{port}", plan.address)).collect();
        plan.more = ["--ca-cert-path", &ca, "--join-address", &join, "--mesh-token-file", &token]
            .map(str::to_owned)
            .to_vec();
    }
    let bots = start(&plans);
    // Behind the edge the port is plain, and the token guards it.
    let (status, _) = support::puppet::call(mesh_port(&plans[0]), "Identify", &[]).unwrap();
    assert_eq!(status, 401);
    assert!(counted(&bots[0], "canary_mesh_refused_total{reason=\"mesh_token\"}") >= 1.0);
}

#[test]
fn outsiders_are_refused() {
    let _turn = alone();
    let (directory, authority) = (Directory::new(), Authority::new("the authority"));
    let plans = mutual(&directory, &authority, 2);
    let bots = start(&plans);
    let (address, ca) = (mesh_port(&plans[0]), authority.pem());
    let host = plans[0].address.to_string();
    let issue = |kind| authority.issue("stranger", &["stranger", &host], kind);
    let good = issue(GOOD);
    assert_eq!(
        call_tls(address, tls_client(&ca, Some(&good)), "Identify", &[]).unwrap().0,
        200,
        "the control is refused"
    );
    let refused = [
        ("no certificate", None),
        (
            "another authority",
            Some(Authority::new("the authority").issue("stranger", &["stranger"], GOOD)),
        ),
        ("expired", Some(issue(Kind { days: (-9, -1), ..GOOD }))),
        ("not valid yet", Some(issue(Kind { days: (1, 9), ..GOOD }))),
        ("for servers only", Some(issue(Kind { client: false, ..GOOD }))),
    ];
    for (why, own) in &refused {
        let before =
            counted(&bots[0], "canary_mesh_refused_total{reason=\"mesh_handshakes_failed\"}");
        assert!(
            call_tls(address, tls_client(&ca, own.as_ref()), "Identify", &[]).is_err(),
            "{why}: admitted"
        );
        assert!(
            counted(&bots[0], "canary_mesh_refused_total{reason=\"mesh_handshakes_failed\"}")
                > before,
            "{why}: not counted"
        );
    }
    // Plain text on either port gets no answer.
    for port in [plans[0].mesh_port, plans[0].api_port] {
        let mut stream = TcpStream::connect((plans[0].address, port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: bot\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    }
    // The API asks nobody for a certificate, and everybody for a token.
    assert_eq!(get(bots[0].api(), "/api/v1/nodes").unwrap().status, 200);
    assert_eq!(support::get_with(bots[0].api(), "/api/v1/nodes", "").unwrap().status, 401);
}

#[test]
fn who_speaks_as_another_than_its_certificate_names_is_refused() {
    let _turn = alone();
    let (directory, authority) = (Directory::new(), Authority::new("the authority"));
    let plans = mutual(&directory, &authority, 2);
    let bots = start(&plans);
    let (address, ca) = (mesh_port(&plans[0]), authority.pem());
    // It has a certificate of the mesh, for itself.
    let own = authority.issue("mallory", &["mallory"], GOOD);
    let join = Message::default().message(1, &node("bot-77", "127.0.0.1:9", 1, 77)).0;
    let (status, answer) = call_tls(address, tls_client(&ca, Some(&own)), "Join", &join).unwrap();
    assert_eq!(status, 403, "{answer}");
    assert!(answer.contains("mallory") && answer.contains("bot-77"), "{answer}");
    assert!(counted(&bots[0], "canary_mesh_refused_total{reason=\"mesh_impostor\"}") >= 1.0);
    // As itself it is heard: it is not reached at its target, and learns so.
    let join = Message::default().message(1, &node("mallory", "127.0.0.1:9", 1, 78)).0;
    assert_eq!(call_tls(address, tls_client(&ca, Some(&own)), "Join", &join).unwrap().0, 200);
}

#[test]
fn a_bot_of_another_authority_stays_outside_and_says_why() {
    let _turn = alone();
    let (directory, authority) = (Directory::new(), Authority::new("the authority"));
    let mut plans = mutual(&directory, &authority, 3);
    let other = Authority::new("another authority");
    let own = other.issue("bot-02", &["bot-02", &plans[2].address.to_string()], GOOD);
    plans[2].more = flags(&directory, "foreign", &other.pem(), &own);
    trust(SocketAddr::new(plans[2].address, plans[2].api_port), &other.pem());
    let bots = start(&plans[..2]);
    let foreign = plans[2].start();
    assert!(
        wait(SOON * 3, || foreign.logged().contains("TLS handshake failed")).is_some(),
        "{}",
        foreign.logged()
    );
    assert!(counted(&foreign, "canary_mesh_targets_failing") >= 1.0);
    assert_eq!(bots[0].nodes().unwrap().len(), 1);
    assert!(foreign.nodes().unwrap().is_empty());
}

#[test]
fn a_mesh_token_that_is_wrong_or_missing_keeps_a_bot_outside_and_is_rotated_without_restart() {
    let _turn = alone();
    let directory = Directory::new();
    let mut plans = plans(3);
    let files: Vec<_> =
        (0..2).map(|number| directory.write(&format!("token-{number}"), "old-token\n")).collect();
    for (plan, file) in plans.iter_mut().zip(&files) {
        plan.more = ["--mesh-token-file", file].map(str::to_owned).to_vec();
    }
    plans[2].more = ["--mesh-token", "wrong-token"].map(str::to_owned).to_vec();
    let bots = start(&plans[..2]);
    let outsider = plans[2].start();
    assert!(
        wait(SOON * 3, || outsider.logged().contains("the mesh token is missing or wrong"))
            .is_some(),
        "{}",
        outsider.logged()
    );
    assert!(counted(&outsider, "canary_mesh_targets_failing") >= 1.0);
    assert_eq!(bots[0].nodes().unwrap().len(), 1);
    let log = outsider.logged();
    assert!(!log.contains("wrong-token") && !log.contains("old-token"), "a token is in the log");
    // Both tokens are accepted, then the new one is presented, then the old one is accepted no
    // more.
    let rotate = |text: &str, counter: f64| {
        (0..2).for_each(|number| drop(directory.write(&format!("token-{number}"), text)));
        let read = wait(SOON, || {
            bots.iter().all(|bot| counted(bot, "canary_reloads_total{result=\"done\"}") >= counter)
        });
        assert!(read.is_some(), "the files were not read again");
    };
    rotate("old-token\nnew-token\n", 1.0);
    rotate("new-token\nold-token\n", 2.0);
    rotate("new-token\n", 3.0);
    let before: Vec<_> = bots.iter().map(|bot| counted(bot, "canary_probes_total")).collect();
    assert!(
        wait(SOON * 2, || bots
            .iter()
            .zip(&before)
            .all(|(bot, before)| counted(bot, "canary_probes_total") > before + 2.0))
        .is_some()
    );
    assert!(bots.iter().all(|bot| failures(bot) < 1.0), "a probe failed by the rotation");
}

#[test]
fn a_set_is_swapped_while_it_is_used_and_one_that_does_not_work_is_not() {
    let _turn = alone();
    let (directory, authority) = (Directory::new(), Authority::new("the authority"));
    let mut plans = mutual(&directory, &authority, 3);
    plans
        .iter_mut()
        .for_each(|plan| plan.more.extend(["--probe-interval", "200ms"].map(str::to_owned)));
    let bots = start(&plans);
    let (address, ca) = (mesh_port(&plans[0]), authority.pem());
    let stranger = authority.issue("stranger", &["stranger"], GOOD);
    let presented = || presented(address, tls_client(&ca, Some(&stranger)));
    let before = presented();
    for plan in &plans {
        let own = authority.issue(&plan.name, &[&plan.name, &plan.address.to_string()], GOOD);
        // Half of a set does not work, and does no harm.
        directory.write(&format!("{}.pem", plan.name), &own.0);
        assert!(
            wait(SOON, || counted(&bots[0], "canary_reload_broken") > 0.0 || plan.name != "bot-00")
                .is_some(),
            "no metric says so"
        );
        if plan.name == "bot-00" {
            assert_eq!(presented(), before, "half a set is in force");
        }
        directory.write(&format!("{}-key.pem", plan.name), &own.1);
    }
    let taken = wait(SOON, || presented() != before).unwrap();
    assert!(taken <= Duration::from_secs(5), "{taken:?}");
    assert!(
        wait(SOON, || bots.iter().all(|bot| counted(bot, "canary_reload_broken") < 1.0)).is_some()
    );
    let probes: Vec<_> = bots.iter().map(|bot| counted(bot, "canary_probes_total")).collect();
    assert!(
        wait(SOON, || bots
            .iter()
            .zip(&probes)
            .all(|(bot, before)| counted(bot, "canary_probes_total") > before + 20.0))
        .is_some()
    );
    for bot in &bots {
        assert!(failures(bot) < 1.0, "{} failed to measure somebody", bot.name());
    }
    assert!(counted(&bots[0], "canary_tls_certificate_expiry_timestamp_seconds") > 1.7e9);
}

#[test]
fn a_set_that_does_not_work_yet_is_tried_again() {
    let _turn = alone();
    let (directory, authority) = (Directory::new(), Authority::new("the authority"));
    let plans = mutual(&directory, &authority, 2);
    let mut bots = start(&plans);
    let (address, ca) = (mesh_port(&plans[0]), authority.pem());
    let stranger = authority.issue("stranger", &["stranger"], GOOD);
    let presented = || presented(address, tls_client(&ca, Some(&stranger)));
    let before = presented();
    let own = authority.issue_ahead("bot-00", &["bot-00", &plans[0].address.to_string()], 8);
    directory.write("bot-00.pem", &own.0);
    directory.write("bot-00-key.pem", &own.1);
    assert!(
        wait(SOON, || counted(&bots[0], "canary_reload_broken") > 0.0).is_some(),
        "no metric says so"
    );
    assert_eq!(presented(), before);
    // Nothing changes any more but the time.
    assert!(wait(SOON * 2, || presented() != before).is_some(), "it is not in force");
    assert!(wait(SOON, || counted(&bots[0], "canary_reload_broken") < 1.0).is_some());
    // A reload that is asked for happens at once, whether anything changed or not.
    let done = counted(&bots[0], "canary_reloads_total{result=\"done\"}");
    bots[0].signal("HUP");
    assert!(
        wait(SOON, || counted(&bots[0], "canary_reloads_total{result=\"done\"}") > done).is_some()
    );
    assert!(bots[0].running());
}

#[test]
fn a_file_that_hangs_delays_no_measurement() {
    let _turn = alone();
    let directory = Directory::new();
    let mut plans = plans(2);
    for plan in &mut plans {
        let file = directory.write(&format!("{}-token", plan.name), "of-the-mesh\n");
        plan.more =
            ["--mesh-token-file", &file, "--probe-interval", "200ms"].map(str::to_owned).to_vec();
    }
    let bots = start(&plans);
    // A reader of it waits for a writer that never comes.
    let pipe = directory.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::rename(&pipe, directory.path("bot-00-token")).unwrap();
    let probes = counted(&bots[0], "canary_probes_total");
    // Longer than files are left alone.
    assert!(
        wait(SOON * 2, || counted(&bots[0], "canary_probes_total") > probes + 30.0).is_some(),
        "nothing is measured any more"
    );
    assert!(bots.iter().all(|bot| failures(bot) < 1.0), "a probe failed");
}

/// The certificate that a server presents now.
fn presented(address: SocketAddr, client: Arc<rustls::ClientConfig>) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut session = rustls::ClientConnection::new(client, address.ip().into()).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut stream).unwrap();
    }
    session.peer_certificates().unwrap()[0].to_vec()
}

fn dry_run(more: &[String]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_canary-bot"));
    for (variable, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MESH_"))
    {
        command.env_remove(variable);
    }
    command
        .args(["--name", "owl", "--join-address", "owl.example.net:443", "--dry-run"])
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn whatever_is_wrong_with_a_set_stops_the_start_and_is_named() {
    let (directory, authority, other) =
        (Directory::new(), Authority::new("the authority"), Authority::new("another authority"));
    let ca = authority.pem();
    let issue = |kind| authority.issue("owl", &["owl.example.net"], kind);
    let good = issue(GOOD);
    let check = |name: &str, ca: &str, own: &(String, String), expected: &[&str]| {
        let output = dry_run(&flags(&directory, name, ca, own));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = if expected.is_empty() { 0 } else { 2 };
        assert_eq!(output.status.code(), Some(code), "{name}: {said}");
        assert!(expected.iter().all(|part| said.contains(part)), "{name}: {said}");
    };
    check("good", &ca, &good, &[]);
    check("several", &format!("{}{ca}", other.pem()), &good, &[]);
    let alone = self_signed("owl", &["owl.example.net"]);
    check("self", &alone.0, &alone, &[]);
    check(
        "mismatch",
        &ca,
        &(good.0.clone(), issue(GOOD).1),
        &["mismatch-key.pem is not that of", "mismatch.pem", "CN=owl"],
    );
    check(
        "expired",
        &ca,
        &issue(Kind { days: (-9, -1), ..GOOD }),
        &["expired.pem", "CN=owl", "expired on"],
    );
    check(
        "early",
        &ca,
        &issue(Kind { days: (1, 9), ..GOOD }),
        &["early.pem", "CN=owl", "not valid before"],
    );
    check(
        "foreign",
        &other.pem(),
        &good,
        &["foreign.pem", "CN=owl", "not signed by the CA in", "foreign-ca.pem"],
    );
    check(
        "server",
        &ca,
        &issue(Kind { client: false, ..GOOD }),
        &["server.pem", "as a client", "clientAuth"],
    );
    check(
        "client",
        &ca,
        &issue(Kind { server: false, ..GOOD }),
        &["client.pem", "as a server", "serverAuth"],
    );
    check(
        "name",
        &ca,
        &authority.issue("owl", &["swan.example.net"], GOOD),
        &["name.pem", "owl.example.net", "swan.example.net"],
    );
    check("empty", "", &good, &["empty-ca.pem has no certificate"]);
    check(
        "garbage",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        &good,
        &["garbage-ca.pem"],
    );
    check(
        "keyless",
        &ca,
        &(good.0.clone(), good.0.clone()),
        &["keyless-key.pem has no private key"],
    );
    for (given, expected) in [
        (vec!["--ca-cert-path", "/nowhere/ca.pem"], "/nowhere/ca.pem"),
        (vec!["--ca-cert-path", ""], "--ca-cert-path: no path is given"),
        (vec!["--ca-cert-path", ",", "--tls", "edge"], "--ca-cert-path: no path is given"),
        (
            vec!["--config", &directory.write("empty.toml", "ca-cert-path = []\n")],
            "no path is given",
        ),
        (vec!["--ca-cert", ""], "no certificate"),
        (vec!["--server-cert-path", "/c"], "without its key"),
        (vec!["--server-key-path", "/k"], "without its certificate"),
        (vec!["--server-key", "not base64"], "it is not base64"),
        (
            vec!["--tls", "mutual"],
            "--tls mutual lacks --ca-cert-path and --server-cert-path and --server-key-path",
        ),
        (vec!["--tls", "none", "--ca-cert-path", &directory.path("good-ca.pem")], "contradicts"),
        (vec!["--client-auth", "optional"], "--client-auth"),
        (vec!["--target", "https://swan:1"], "how to verify"),
        (
            vec!["--ca-cert-path", &directory.path("good-ca.pem"), "--target", "http://swan:1"],
            "dials TLS only",
        ),
        (vec!["--proxy-address", "nobody"], "--proxy-address"),
        (vec!["--mesh-token", "two words"], "--mesh-token"),
        (vec!["--mesh-token-file", "/nowhere/token"], "/nowhere/token"),
    ] {
        let output = dry_run(&given.iter().map(|&part| part.to_owned()).collect::<Vec<_>>());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{given:?}: {said}");
        assert!(said.contains(expected), "{given:?}: {said}");
        assert!(
            !said.contains("two words") && !said.contains("not base64\""),
            "a secret is repeated: {said}"
        );
    }
    // All of it as base64, and every kind of key that openssl writes.
    let inline = |flag: &str, text: &str| [format!("--{flag}"), support::base64(text)];
    let all =
        [inline("ca-cert", &ca), inline("server-cert", &good.0), inline("server-key", &good.1)]
            .concat();
    let output = dry_run(&all);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_development_authority_and_a_token_are_made_and_work() {
    let directory = Directory::new();
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_canary-bot")).args(arguments).output().unwrap()
    };
    let place = directory.path("dev");
    assert!(
        run(&["tls", "dev", "--directory", &place, "owl,owl.example.net,127.0.0.1", "swan"])
            .status
            .success()
    );
    let at = |name: &str| directory.path(&format!("dev/{name}"));
    let own = [
        "--ca-cert-path",
        &at("ca.pem"),
        "--server-cert-path",
        &at("owl.pem"),
        "--server-key-path",
        &at("owl-key.pem"),
    ];
    let output = dry_run(&own.map(str::to_owned));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let again = run(&["tls", "dev", "--directory", &place, "owl"]);
    assert_eq!(again.status.code(), Some(1), "what is there was overwritten");
    let token = directory.path("token");
    assert!(run(&["token", "new", &token]).status.success());
    use std::os::unix::fs::PermissionsExt as _;
    for secret in [&token, &at("owl-key.pem"), &at("ca-key.pem")] {
        assert_eq!(
            std::fs::metadata(secret).unwrap().permissions().mode() & 0o777,
            0o600,
            "{secret}"
        );
    }
    assert_eq!(std::fs::read_to_string(&token).unwrap().trim().len(), 64);
    assert_eq!(run(&["token", "new", &token]).status.code(), Some(1));
}
