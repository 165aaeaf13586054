//! A mesh in mutual mode as clients see it that others wrote: openssl, curl, grpcio and buf; and as
//! tcpdump sees it on the wire.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::pki::{Authority, Directory, GOOD, Kind};
use support::tools::{buf, program, python, said, skip};
use support::{Bot, Plan, TOKEN, alone, own_address, plans, plans_at, settle, trust, wait};

const SOON: Duration = Duration::from_secs(10);

/// Two bots in mutual mode, and the files of an outsider whose certificates are of many kinds.
struct Stage {
    directory: Directory,
    plans: Vec<Plan>,
    bots: Vec<Bot>,
}

impl Stage {
    fn new() -> Self {
        let (directory, authority) = (Directory::new(), Authority::new("the authority"));
        let other = Authority::new("the authority");
        let ca = directory.write("ca.pem", &authority.pem());
        directory.write("other-ca.pem", &other.pem());
        let address = own_address();
        let mut plans = plans_at(address, 2);
        let write = |name: &str, (certificate, key): &(String, String)| {
            let certificate = directory.write(&format!("{name}.pem"), certificate);
            let key = directory.write(&format!("{name}-key.pem"), key);
            ["--ca-cert-path", &ca, "--server-cert-path", &certificate, "--server-key-path", &key]
                .map(str::to_owned)
                .to_vec()
        };
        for plan in &mut plans {
            plan.more =
                write(&plan.name, &authority.issue(&plan.name, &[&address.to_string()], GOOD));
            trust(SocketAddr::new(address, plan.api_port), &authority.pem());
        }
        let kinds = [
            ("good", GOOD),
            ("expired", Kind { days: (-9, -1), ..GOOD }),
            ("early", Kind { days: (1, 9), ..GOOD }),
            ("server-only", Kind { client: false, ..GOOD }),
        ];
        for (name, kind) in kinds {
            write(name, &authority.issue(name, &[&address.to_string()], kind));
        }
        write("foreign", &other.issue("foreign", &[&address.to_string()], GOOD));
        let bots: Vec<_> = plans.iter().map(Plan::start).collect();
        settle(&bots);
        Self { directory, plans, bots }
    }

    fn file(&self, name: &str) -> String {
        self.directory.path(name)
    }

    fn mesh(&self) -> SocketAddr {
        SocketAddr::new(self.plans[0].address, self.plans[0].mesh_port)
    }

    fn api(&self) -> SocketAddr {
        self.bots[0].api()
    }
}

#[test]
fn openssl_is_admitted_with_a_good_certificate_alone() {
    let _turn = alone();
    if program("openssl").is_none() {
        return;
    }
    let stage = Stage::new();
    let dial = |own: Option<&str>, ca: &str, more: &[&str]| {
        let mut command = program("openssl").unwrap();
        command.args([
            "s_client",
            "-connect",
            &stage.mesh().to_string(),
            "-CAfile",
            &stage.file(ca),
            "-verify_return_error",
            "-alpn",
            "h2",
        ]);
        if let Some(own) = own {
            command.args([
                "-cert",
                &stage.file(&format!("{own}.pem")),
                "-key",
                &stage.file(&format!("{own}-key.pem")),
            ]);
        }
        // It reads until the peer closes: a refusal comes after its own part of the handshake.
        command.args(more).arg("-ign_eof").env("SSL_CERT_DIR", "/nonexistent");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A line that HTTP/2 does not begin with: a client that is admitted gets a frame that says
        // so, and the connection ends.
        std::io::Write::write_all(
            &mut child.stdin.take().unwrap(),
            b"GET / HTTP/1.1\r\n\r\n\r\n\r\n",
        )
        .unwrap();
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let text = dial(Some("good"), "ca.pem", &[version]);
        assert!(
            text.contains("Verify return code: 0 (ok)")
                && text.contains("ALPN protocol: h2")
                && !text.contains("alert"),
            "{text}"
        );
        let alert = |own: Option<&str>, expected: &[&str]| {
            let text = dial(own, "ca.pem", &[version]);
            assert!(expected.iter().any(|alert| text.contains(alert)), "{version} {own:?}: {text}");
        };
        alert(
            None,
            &["alert certificate required", "alert handshake failure", "certificate required"],
        );
        alert(Some("expired"), &["alert certificate expired"]);
        alert(Some("early"), &["alert certificate expired", "alert bad certificate"]);
        alert(Some("server-only"), &["alert unsupported certificate", "alert bad certificate"]);
        alert(
            Some("foreign"),
            &["alert unknown ca", "alert decrypt error", "alert bad certificate"],
        );
        assert!(
            dial(Some("good"), "other-ca.pem", &[version]).contains("verify error"),
            "openssl trusts everybody"
        );
        let wrong_name =
            dial(Some("good"), "ca.pem", &[version, "-verify_hostname", "another.example"]);
        assert!(wrong_name.contains("ostname mismatch"), "{wrong_name}");
    }
    for old in ["-tls1", "-tls1_1"] {
        let text = dial(Some("good"), "ca.pem", &[old, "-cipher", "DEFAULT@SECLEVEL=0"]);
        assert!(
            ["alert protocol version", "alert handshake failure", "no protocols available"]
                .iter()
                .any(|said| text.contains(said)),
            "{old}: {text}"
        );
    }
}

#[test]
fn curl_needs_the_token_and_the_authority_and_no_certificate_for_the_api() {
    let _turn = alone();
    if program("curl").is_none() {
        return;
    }
    let stage = Stage::new();
    let ask = |url: String, more: &[&str]| {
        said(
            program("curl")
                .unwrap()
                .args([
                    "-sS",
                    "--max-time",
                    "5",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code} %{http_version}",
                ])
                .arg(url)
                .args(more),
        )
    };
    let (ca, api, mesh) = (stage.file("ca.pem"), stage.api(), stage.mesh());
    let token = format!("Authorization: Bearer {TOKEN}");
    let nodes = format!("https://{api}/api/v1/nodes");
    assert_eq!(ask(nodes.clone(), &["--cacert", &ca, "-H", &token]).1, "200 2");
    assert_eq!(ask(nodes.clone(), &["--cacert", &ca, "-H", &token, "--http1.1"]).1, "200 1.1");
    assert_eq!(ask(nodes.clone(), &["--cacert", &ca]).1, "401 2");
    let (done, text) = ask(nodes, &["--cacert", &stage.file("other-ca.pem"), "-H", &token]);
    assert!(!done && text.starts_with("000"), "{text}");
    // Plain text is not answered on either port, and the mesh port wants a certificate.
    for url in
        [format!("http://{api}/livez"), format!("http://{mesh}/"), format!("https://{mesh}/")]
    {
        let (done, text) = ask(url.clone(), &["--cacert", &ca]);
        assert!(!done && text.starts_with("000"), "{url}: {text}");
    }
}

#[test]
fn grpcio_and_buf_call_the_mesh_with_a_good_certificate_alone() {
    let _turn = alone();
    if python().is_none() || buf().is_none() {
        return;
    }
    let stage = Stage::new();
    let script = stage.directory.write(
        "call.py",
        r#"
import sys, grpc
target, ca, certificate, key = sys.argv[1:]
read = lambda path: open(path, "rb").read()
own = {} if certificate == "-" else dict(private_key=read(key), certificate_chain=read(certificate))
channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(root_certificates=read(ca), **own))
call = channel.unary_unary("/mesh.v2.MeshService/Identify")
try:
    print(call(b"", timeout=5))
except grpc.RpcError as error:
    print(error.code(), error.details())
    sys.exit(1)
"#,
    );
    let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");
    let ask = |own: Option<&str>, ca: &str| {
        let files = own
            .map(|own| (stage.file(&format!("{own}.pem")), stage.file(&format!("{own}-key.pem"))));
        let (certificate, key) = files.clone().unwrap_or(("-".to_owned(), "-".to_owned()));
        let by_grpcio = said(python().unwrap().args([
            &script,
            &stage.mesh().to_string(),
            &stage.file(ca),
            &certificate,
            &key,
        ]));
        let mut command = buf().unwrap();
        command.args([
            "curl",
            "--schema",
            proto,
            "--protocol",
            "grpc",
            "--cacert",
            &stage.file(ca),
            "--data",
            "{}",
        ]);
        if let Some((certificate, key)) = &files {
            command.args(["--cert", certificate, "--key", key]);
        }
        let by_buf =
            said(command.arg(format!("https://{}/mesh.v2.MeshService/Identify", stage.mesh())));
        [("grpcio", by_grpcio), ("buf", by_buf)]
    };
    for (client, (done, text)) in ask(Some("good"), "ca.pem") {
        assert!(done && text.contains("bot-00"), "{client}: {text}");
    }
    let refused = [
        (None, "ca.pem"),
        (Some("expired"), "ca.pem"),
        (Some("server-only"), "ca.pem"),
        (Some("foreign"), "ca.pem"),
        (Some("good"), "other-ca.pem"),
    ];
    for (own, ca) in refused {
        for (client, (done, text)) in ask(own, ca) {
            assert!(
                !done && !text.contains("bot-00"),
                "{client} is admitted with {own:?} and {ca}: {text}"
            );
        }
    }
}

/// What travels to and from the ports of an address while `live` is done.
fn captured(directory: &Directory, address: IpAddr, live: impl FnOnce()) -> Vec<u8> {
    let file = directory.path("capture.pcap");
    let mut capture = Command::new("tcpdump");
    capture.args([
        "-i",
        "lo",
        "-U",
        "--immediate-mode",
        "-w",
        &file,
        "-s",
        "0",
        "-B",
        "16384",
        "host",
        &address.to_string(),
    ]);
    let mut capture =
        capture.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(
        wait(SOON, || std::fs::metadata(&file).is_ok_and(|file| file.len() >= 24)).is_some(),
        "tcpdump does not begin"
    );
    live();
    let _ = Command::new("kill").arg(capture.id().to_string()).status();
    let _ = capture.wait();
    std::fs::read(&file).unwrap()
}

#[test]
fn nothing_is_plain_on_the_wire() {
    let _turn = alone();
    if program("tcpdump").is_none() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        skip("tcpdump needs root");
        return;
    }
    // What no secured connection shows: how HTTP/2 and a probe begin, and names inside messages.
    let plain = |bytes: &[u8]| {
        ["PRI * HTTP/2.0", "application/grpc", "bot-01", TOKEN]
            .map(|text| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    let mesh = |bots: &[Bot]| {
        settle(bots);
        assert_eq!(support::get(bots[0].api(), "/api/v1/nodes").unwrap().status, 200);
    };
    let directory = Directory::new();
    let open = plans(2);
    let bytes = captured(&directory, open[0].address, || {
        mesh(&open.iter().map(Plan::start).collect::<Vec<_>>());
    });
    assert_eq!(plain(&bytes), [true; 4], "the control: all of it is seen");
    let authority = Authority::new("the authority");
    let mut closed = plans(2);
    let ca = directory.write("ca.pem", &authority.pem());
    for plan in &mut closed {
        let own = authority.issue("a bot", &[&plan.address.to_string()], GOOD);
        let certificate = directory.write(&format!("{}.pem", plan.name), &own.0);
        let key = directory.write(&format!("{}-key.pem", plan.name), &own.1);
        plan.more =
            ["--ca-cert-path", &ca, "--server-cert-path", &certificate, "--server-key-path", &key]
                .map(str::to_owned)
                .to_vec();
        trust(SocketAddr::new(plan.address, plan.api_port), &authority.pem());
    }
    let bytes = captured(&directory, closed[0].address, || {
        let mut bots: Vec<_> = closed.iter().map(Plan::start).collect();
        mesh(&bots);
        // Nor when the other side is gone, or somebody plain has taken its place.
        bots[1].kill();
        let answered =
            std::net::TcpListener::bind((closed[1].address, closed[1].mesh_port)).unwrap();
        let (mut dialled, _) = answered.accept().unwrap();
        let mut begun = [0; 5];
        std::io::Read::read_exact(&mut dialled, &mut begun).unwrap();
        assert_eq!(begun[..2], [0x16, 0x03], "it does not begin with a handshake of TLS");
        std::io::Write::write_all(&mut dialled, b"\0\0\0\x04\0\0\0\0\0").unwrap();
    });
    assert!(bytes.len() > 20_000, "hardly anything was captured: {} bytes", bytes.len());
    assert_eq!(plain(&bytes), [false; 4]);
}
