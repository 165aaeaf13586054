//! Real bots as real processes on loopback, and a plain HTTP client to ask them.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "each test file uses a part of it"
)]

pub mod lab;
pub mod mixed;
pub mod original;
pub mod pki;
pub mod puppet;
pub mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

pub const TOKEN: &str = "a-token-for-tests";

/// How often a state that a test waits for is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How many thousandths of the reference's time this machine takes; see [`patience`].
static SLOWNESS: AtomicU32 = AtomicU32::new(1000);

/// Stories load the whole machine: one at a time. How fast the machine is just then is measured
/// before each.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let slowness = slowness();
    if slowness > 1.25 {
        eprintln!("this machine takes {slowness:.1} times as long as the one that limits are for");
    }
    SLOWNESS.store((slowness * 1000.0) as u32, Ordering::Relaxed);
    turn
}

/// How many times as long this machine takes as the one that limits were written for: at least
/// once, and never so long that a limit says nothing. It is measured by programs that are not ours,
/// started together and counting, so that bots that cost more gain no time; the best of three
/// counts, for the first ones may be read from the disk.
fn slowness() -> f64 {
    const STARTED: u32 = 16;
    const REFERENCE: Duration = Duration::from_millis(85);
    const SLOWEST: f64 = 4.0;
    let count = |_| {
        let script = "i=0; while [ $i -lt 10000 ]; do i=$((i+1)); done";
        Command::new("sh").args(["-c", script]).spawn().unwrap()
    };
    let measured = (0..3).map(|_| {
        let begun = Instant::now();
        let started: Vec<_> = (0..STARTED).map(count).collect();
        started.into_iter().for_each(|mut shell| assert!(shell.wait().unwrap().success()));
        begun.elapsed()
    });
    let best = measured.min().unwrap();
    (best.as_secs_f64() / REFERENCE.as_secs_f64()).clamp(1.0, SLOWEST)
}

/// As many bots as this machine carries where the reference carries `count`; never fewer than
/// forty.
pub fn fitting(count: usize) -> usize {
    (count * 1000 / SLOWNESS.load(Ordering::Relaxed) as usize).max(40)
}

/// A limit for what costs the whole machine, such as the start of a mesh: one that is slower than
/// the reference, or shares its cores with others, has in proportion longer. The simulator holds
/// the same times on any machine.
pub fn patience(limit: Duration) -> Duration {
    limit * SLOWNESS.load(Ordering::Relaxed) / 1000
}

/// A loopback address that nobody else uses, so that ports on it are ours alone.
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number =
        std::process::id().wrapping_mul(64).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))
            % 0x00fe_0000;
    Ipv4Addr::from(0x7f01_0000 + number).into()
}

/// Ports that are free on an address: taken all at once, so that they differ.
pub fn free_ports(address: IpAddr, count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind((address, 0)).unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// What one bot is started with.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    pub address: IpAddr,
    pub mesh_port: u16,
    pub api_port: u16,
    pub seeds: Vec<String>,
    pub more: Vec<String>,
}

impl Plan {
    pub fn target(&self) -> String {
        SocketAddr::new(self.address, self.mesh_port).to_string()
    }

    pub fn start(&self) -> Bot {
        self.start_by(Command::new(env!("CARGO_BIN_EXE_canary-bot")))
    }

    /// Starts by way of another program, such as one that changes the network namespace first.
    pub fn start_by(&self, command: Command) -> Bot {
        self.start_as(command, Stdio::piped())
    }

    /// Starts with another stderr than one that is read.
    pub fn start_with(&self, stderr: Stdio) -> Bot {
        self.start_as(Command::new(env!("CARGO_BIN_EXE_canary-bot")), stderr)
    }

    /// Starts under limits of its own, as `ulimit` spells them.
    pub fn start_limited(&self, limits: &str) -> Bot {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            &format!("{limits}; exec \"$0\" \"$@\""),
            env!("CARGO_BIN_EXE_canary-bot"),
        ]);
        self.start_by(command)
    }

    fn start_as(&self, mut command: Command, stderr: Stdio) -> Bot {
        command
            .args([
                "--name",
                &self.name,
                "--listen-address",
                &self.address.to_string(),
                "--token",
                TOKEN,
            ])
            .args([
                "--listen-port",
                &self.mesh_port.to_string(),
                "--api-port",
                &self.api_port.to_string(),
            ]);
        for seed in &self.seeds {
            command.args(["--target", seed]);
        }
        command.args(&self.more).stderr(stderr);
        for (variable, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MESH_"))
        {
            command.env_remove(variable);
        }
        self.start_bare(command)
    }

    /// Starts a command that says everything itself; the plan tells where it will be.
    pub fn start_bare(&self, mut command: Command) -> Bot {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        // Kept for the failing test's reader, and drained so that no bot ever waits for us.
        let log = Arc::new(Mutex::new(Vec::new()));
        let reading = child.stderr.take().map(|mut stderr| {
            let written = Arc::clone(&log);
            std::thread::spawn(move || {
                let mut some = [0; 4096];
                while let Ok(read) = stderr.read(&mut some)
                    && read > 0
                {
                    written.lock().unwrap_or_else(PoisonError::into_inner).extend(&some[..read]);
                }
            })
        });
        Bot { plan: self.clone(), child, log, reading }
    }
}

/// Whether a log calls a node dead; `logs.rs` holds the bot to these words.
pub fn calls_dead(log: &str) -> bool {
    log.contains("a node is dead") || log.contains("nodes are dead at once")
}

/// Whether a log, written with `--debug`, says that a node was suspected.
pub fn suspects(log: &str) -> bool {
    log.contains("nobody could reach the node; it is suspected")
}

/// A mesh's plans: all bots know the first three.
pub fn plans(count: usize) -> Vec<Plan> {
    plans_at(own_address(), count)
}

/// The same on a given address.
pub fn plans_at(address: IpAddr, count: usize) -> Vec<Plan> {
    let ports = free_ports(address, 2 * count);
    let seeds: Vec<_> = ports
        .iter()
        .take(count.min(3))
        .map(|port| SocketAddr::new(address, *port).to_string())
        .collect();
    (0..count)
        .map(|index| Plan {
            name: format!("bot-{index:02}"),
            address,
            mesh_port: ports[index],
            api_port: ports[count + index],
            seeds: seeds.clone(),
            more: Vec::new(),
        })
        .collect()
}

/// A running bot; killed when dropped.
pub struct Bot {
    pub plan: Plan,
    child: Child,
    log: Arc<Mutex<Vec<u8>>>,
    reading: Option<std::thread::JoinHandle<()>>,
}

impl Bot {
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// CPU time that it has used, in seconds.
    pub fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        // Fields 14 and 15 of proc(5), in ticks of a hundredth of a second.
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    /// The sum of a metric over the series that have this label value.
    pub fn metric(&self, name: &str, value: &str) -> f64 {
        let text = get(self.api(), "/metrics").unwrap().body;
        let value = format!("=\"{value}\"");
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(&value));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([&format!("-{signal}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the process to end, at most `limit`.
    pub fn ended(&mut self, limit: Duration) -> Option<ExitStatus> {
        let mut status = None;
        wait(limit, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status
    }

    /// What it wrote to stderr so far.
    pub fn logged(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().unwrap_or_else(PoisonError::into_inner))
            .into_owned()
    }

    /// All that it wrote to stderr; ends it first.
    pub fn log(&mut self) -> String {
        self.kill();
        if let Some(reading) = self.reading.take() {
            let _ = reading.join();
        }
        self.logged()
    }

    pub fn api(&self) -> SocketAddr {
        SocketAddr::from((self.plan.address, self.plan.api_port))
    }

    /// Names of the other nodes that this bot serves; none while it does not answer.
    pub fn nodes(&self) -> Option<BTreeSet<String>> {
        let json = get_json(self.api(), "/api/v1/nodes")?;
        let names = json.get("nodes")?.as_array()?.iter().filter_map(Value::as_str);
        Some(names.filter(|name| *name != self.plan.name).map(str::to_owned).collect())
    }

    /// The samples that this bot serves.
    pub fn samples(&self) -> Vec<Sample> {
        let json = get_json(self.api(), "/api/v1/samples").unwrap_or_default();
        let samples = json.get("samples").and_then(Value::as_array).cloned().unwrap_or_default();
        samples.iter().map(Sample::of).collect()
    }

    /// How many pairs this bot serves a number for, counted in the text: a matrix of a hundred is
    /// megabytes of it.
    pub fn measured(&self) -> usize {
        let text = get(self.api(), "/api/v1/samples").map(|answer| answer.body).unwrap_or_default();
        let values = text.split(r#""type":"rtt_total","value":""#).skip(1);
        values.filter(|value| value.starts_with(|c: char| c.is_ascii_digit())).count()
    }

    /// Pairs whose total this bot serves as a number.
    pub fn measured_pairs(&self) -> BTreeSet<(String, String)> {
        let totals = self
            .samples()
            .into_iter()
            .filter(|sample| sample.kind == "rtt_total" && sample.nanos.is_some());
        totals.map(|sample| (sample.from, sample.to)).collect()
    }
}

impl Drop for Bot {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(30).collect();
            eprintln!("--- the end of what {} logged", self.plan.name);
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}

#[derive(Clone, Debug)]
pub struct Sample {
    pub from: String,
    pub to: String,
    pub kind: String,
    /// None for `NaN`.
    pub nanos: Option<u64>,
    pub ts: String,
}

impl Sample {
    fn of(json: &Value) -> Self {
        let text = |key: &str| json.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let value = text("value");
        assert!(value == "NaN" || value.parse::<u64>().is_ok(), "{value}");
        Self {
            from: text("from"),
            to: text("to"),
            kind: text("type"),
            nanos: value.parse().ok(),
            ts: text("ts"),
        }
    }
}

/// An answer's status, headers and body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: String,
}

/// Asks with the token of the tests.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    get_with(address, path, &format!("Authorization: Bearer {TOKEN}\r\n"))
}

/// Whom to trust where an API speaks TLS: a CA in PEM by address.
fn trusted() -> MutexGuard<'static, BTreeMap<SocketAddr, Arc<rustls::ClientConfig>>> {
    static TRUSTED: Mutex<BTreeMap<SocketAddr, Arc<rustls::ClientConfig>>> =
        Mutex::new(BTreeMap::new());
    TRUSTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client that trusts these authorities and presents a certificate, if it has one.
pub fn tls_client(ca: &str, own: Option<&(String, String)>) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = builder.with_root_certificates(roots);
    Arc::new(match own {
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
                .map(Result::unwrap)
                .collect();
            builder
                .with_client_auth_cert(
                    chain,
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap()
        }
        None => builder.with_no_client_auth(),
    })
}

/// A server that presents this certificate, speaks HTTP/2, and asks clients for none.
pub fn tls_server(own: &(String, String)) -> Arc<rustls::ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(own.0.as_bytes()).map(Result::unwrap).collect();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = builder.with_no_client_auth();
    let mut config = builder
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(own.1.as_bytes()).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.into()
}

/// From now on the API at this address is asked by TLS.
pub fn trust(address: SocketAddr, ca: &str) {
    trusted().insert(address, tls_client(ca, None));
}

/// From now on the API at this address is asked by TLS, and has to present this very certificate.
pub fn trust_exactly(address: SocketAddr, certificate: &str) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let expected = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let verifier = Exactly(expected, provider.signature_verification_algorithms);
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    trusted().insert(address, Arc::new(config));
}

#[derive(Debug)]
struct Exactly(CertificateDer<'static>, rustls::crypto::WebPkiSupportedAlgorithms);

impl rustls::client::danger::ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        if *end_entity != self.0 {
            return Err(rustls::CertificateError::UnknownIssuer.into());
        }
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.1)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.1)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.1.supported_schemes()
    }
}

/// Asks with these headers.
pub fn get_with(address: SocketAddr, path: &str, headers: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // HTTP/1.0: the answer ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: bot\r\n{headers}\r\n");
    let mut answer = Vec::new();
    let tls = trusted().get(&address).cloned();
    match tls {
        Some(config) => {
            let session = rustls::ClientConnection::new(config, address.ip().into())
                .map_err(io::Error::other)?;
            let mut stream = rustls::StreamOwned::new(session, stream);
            stream.write_all(request.as_bytes())?;
            stream.read_to_end(&mut answer)?;
        }
        None => {
            stream.write_all(request.as_bytes())?;
            stream.read_to_end(&mut answer)?;
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer { status, headers: head.to_lowercase(), body: body.to_owned() })
}

pub fn get_json(address: SocketAddr, path: &str) -> Option<Value> {
    let answer = get(address, path).ok().filter(|answer| answer.status == 200)?;
    serde_json::from_str(&answer.body).ok()
}

/// The sum of the series of `/metrics` that begin with `series`.
pub fn counted(bot: &Bot, series: &str) -> f64 {
    let text = get(bot.api(), "/metrics").map(|answer| answer.body).unwrap_or_default();
    let values = text
        .lines()
        .filter(|line| line.starts_with(series))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

/// Failures of probes, of all kinds and targets.
pub fn failures(bot: &Bot) -> f64 {
    let text = get(bot.api(), "/metrics").map(|answer| answer.body).unwrap_or_default();
    let lines = text.lines().filter(|line| {
        line.starts_with("canary_probes_total") && !line.contains("result=\"success\"")
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Waits until `done`, at most `limit`; tells how long it took.
pub fn wait(limit: Duration, done: impl FnMut() -> bool) -> Option<Duration> {
    wait_at_rest(limit, 0, done)
}

/// The same, resting after each look for so many times as long as it took: for what is a load to
/// look at.
pub fn wait_at_rest(
    limit: Duration,
    rest: u32,
    mut done: impl FnMut() -> bool,
) -> Option<Duration> {
    let begun = Instant::now();
    loop {
        let looked = Instant::now();
        if done() {
            return Some(begun.elapsed());
        }
        if begun.elapsed() >= limit {
            return None;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the pause between two looks at a state that is waited for"
        )]
        std::thread::sleep(LOOK.max(looked.elapsed() * rest));
    }
}

pub fn names<'a>(bots: impl IntoIterator<Item = &'a Bot>) -> BTreeSet<String> {
    bots.into_iter().map(|bot| bot.name().to_owned()).collect()
}

/// Whether every bot serves exactly the others.
pub fn all_know_all(bots: &[Bot]) -> bool {
    let all = names(bots);
    bots.iter().all(|bot| {
        bot.nodes().is_some_and(|known| known.len() + 1 == all.len() && known.is_subset(&all))
    })
}

/// Whether every bot serves a number for every pair of `bots`.
pub fn full_matrix(bots: &[Bot]) -> bool {
    bots.iter().all(|bot| bot.measured_pairs().len() == bots.len() * (bots.len() - 1))
}

/// RFC 4648 section 4.
pub fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Waits until the mesh is whole.
pub fn settle(bots: &[Bot]) {
    let settled =
        wait(patience(Duration::from_secs(30)), || all_know_all(bots) && full_matrix(bots));
    assert!(settled.is_some(), "the mesh of {} did not become whole", bots.len());
}

/// Starts a mesh and waits until it is whole.
pub fn mesh(count: usize) -> Vec<Bot> {
    let bots: Vec<_> = plans(count).iter().map(Plan::start).collect();
    settle(&bots);
    bots
}
