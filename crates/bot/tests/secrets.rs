//! Certificates, keys, tokens and variables: wrong ones stop the start with words of ours and
//! nothing of their content, and one that goes bad later spoils no other.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};
use std::time::Duration;

use support::pki::{Authority, Directory, GOOD, Kind};
use support::{Plan, alone, get, get_with, plans, trust, wait};

const EXPIRED: Kind = Kind { days: (-30, -1), ..GOOD };

fn dry_run(arguments: &[&str], environment: &[(&str, OsString)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_canary-bot"));
    for (variable, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MESH_"))
    {
        command.env_remove(variable);
    }
    command.args(["--dry-run", "--listen-address", "127.0.0.1"]).args(arguments);
    command.envs(environment.iter().map(|(name, value)| (name, value))).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_key_is_never_printed_and_one_that_lost_its_lines_works() {
    let directory = Directory::new();
    let authority = Authority::new("the authority");
    let (certificate, key) = authority.issue("owl", &["127.0.0.1"], GOOD);
    let (ca, own) =
        (directory.write("ca.pem", &authority.pem()), directory.write("owl.pem", &certificate));
    let body: String = key.lines().filter(|line| !line.contains("-----")).collect();
    let run = |path: &str| {
        dry_run(
            &[
                "--name",
                "owl",
                "--token",
                "a-token-for-tests",
                "--ca-cert-path",
                &ca,
                "--server-cert-path",
                &own,
                "--server-key-path",
                path,
            ],
            &[],
        )
    };
    for (name, text) in [
        ("one", key.replace('\n', "")),
        ("escaped", key.replace('\n', "\\n")),
        ("spaces", key.replace('\n', " ")),
    ] {
        let output = run(&directory.write(name, &text));
        assert_eq!(output.status.code(), Some(0), "{name}: {}", said(&output));
    }
    let cut = |text: &str| text.replace("-----END", "-----BAD");
    let swapped: String = key.replace('M', "*");
    for (name, text) in [
        ("cut", cut(&key)),
        ("cut-one", cut(&key.replace('\n', ""))),
        ("cut-escaped", cut(&key.replace('\n', "\\n"))),
        ("damaged", swapped),
    ] {
        let output = run(&directory.write(name, &text));
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(said.contains(name) && !said.contains(&body[8..24]), "{said}");
        let decimals: Vec<_> = body.bytes().take(6).map(|byte| byte.to_string()).collect();
        assert!(!said.contains(&decimals.join(", ")), "{said}");
        // The same as a variable.
        let inline = OsString::from(support::base64(&text));
        let output = dry_run(
            &[
                "--name",
                "owl",
                "--token",
                "a-token-for-tests",
                "--ca-cert-path",
                &ca,
                "--server-cert-path",
                &own,
            ],
            &[("MESH_SERVER_KEY", inline)],
        );
        assert!(
            output.status.code() == Some(2) && !self::said(&output).contains(&body[8..24]),
            "{}",
            self::said(&output)
        );
    }
    let encrypted =
        key.replacen("-----\n", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n", 1);
    let output = run(&directory.write("encrypted", &encrypted));
    assert!(said(&output).contains("encrypted"), "{}", said(&output));
}

#[test]
fn one_bad_authority_in_a_bundle_spoils_no_other() {
    let directory = Directory::new();
    let (good, old) = (Authority::new("good"), Authority::new("old"));
    let expired = old.issue("an old root", &["127.0.0.1"], EXPIRED).0;
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let run = |bundle: &str| {
        dry_run(&["--name", "owl", "--token", "a-token-for-tests", "--ca-cert-path", bundle], &[])
    };
    let output = run(&directory.write("bundle.pem", &format!("{expired}{garbage}{}", good.pem())));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(
        said(&output).contains("warning") && said(&output).contains("an old root"),
        "{}",
        said(&output)
    );
    let output = run(&directory.write("none.pem", &format!("{expired}{garbage}")));
    assert!(
        output.status.code() == Some(2) && said(&output).contains("expired"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_variable_that_cannot_be_read_or_that_nothing_has_stops_the_start() {
    let bytes = OsString::from_vec(b"secret\xff".to_vec());
    for setting in [
        "MESH_TOKEN",
        "MESH_CA_CERT_PATH",
        "MESH_TLS",
        "TARGET",
        "NAME",
        "LABEL",
        "SERVER_KEY",
        "CLIENT_AUTH",
        "TOKEN_FILE",
    ] {
        let name = format!("MESH_{setting}");
        let output = dry_run(&["--name", "owl"], &[(&name, bytes.clone())]);
        let said = said(&output);
        assert!(
            output.status.code() == Some(2) && said.contains(&name) && !said.contains("secret"),
            "{said}"
        );
    }
    let text = |value: &str| OsString::from(value);
    let output = dry_run(&["--name", "owl"], &[("MESH_TARGETS", text("owl:8081"))]);
    assert!(
        output.status.code() == Some(2) && said(&output).contains("did you mean MESH_TARGET?"),
        "{}",
        said(&output)
    );
    let output = dry_run(&[], &[("MESH_NAME", text("\"owl\""))]);
    assert!(
        output.status.code() == Some(2) && said(&output).contains("quotes"),
        "{}",
        said(&output)
    );
    // What Kubernetes injects for Services is no setting.
    let injected = [
        "MESH_PORT",
        "MESH_PORT_8081_TCP",
        "MESH_PORT_8081_TCP_ADDR",
        "MESH_MESH_SERVICE_HOST",
        "MESH_API_SERVICE_PORT_HTTP",
    ];
    let injected: Vec<_> =
        injected.iter().map(|name| (*name, text("tcp://10.0.0.1:8081"))).collect();
    let output = dry_run(&["--name", "owl"], &injected);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn what_is_wrong_with_a_chain_is_said_of_the_certificate_that_it_is() {
    let directory = Directory::new();
    let authority = Authority::new("the authority");
    let (certificate, key) = authority.issue("owl", &["127.0.0.1"], GOOD);
    let ca = directory.write("ca.pem", &authority.pem());
    let key = directory.write("owl-key.pem", &key);
    let run = |text: &str| {
        let own = directory.write("owl.pem", text);
        said(&dry_run(
            &[
                "--name",
                "owl",
                "--token",
                "a-token-for-tests",
                "--ca-cert-path",
                &ca,
                "--server-cert-path",
                &own,
                "--server-key-path",
                &key,
            ],
            &[],
        ))
    };
    assert!(run(&certificate).contains("the configuration works"));
    let wrong_order = run(&format!("{}{certificate}", authority.pem()));
    assert!(wrong_order.contains("it must be the bot's own"), "{wrong_order}");
    let (nameless, _) = authority.issue("owl", &[], GOOD);
    let words = run(&nameless);
    assert!(words.contains("subjectAltName"), "{words}");
    let pipe = directory.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let output =
        dry_run(&["--name", "owl", "--token", "a-token-for-tests", "--ca-cert-path", &pipe], &[]);
    assert!(
        output.status.code() == Some(2) && said(&output).contains("no regular file"),
        "{}",
        said(&output)
    );
    // A key that others may read works, with a warning.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o666)).unwrap();
    let words = run(&certificate);
    assert!(words.contains("warning") && words.contains("chmod 600"), "{words}");
}

#[test]
fn a_token_rotates_while_a_certificate_is_broken() {
    let _turn = alone();
    let directory = Directory::new();
    let authority = Authority::new("the authority");
    let plan = plans(1).remove(0);
    let (certificate, key) = authority.issue(&plan.name, &[&plan.address.to_string()], GOOD);
    let ca = directory.write("ca.pem", &authority.pem());
    let (own, key) =
        (directory.write("own.pem", &certificate), directory.write("own-key.pem", &key));
    let token = directory.write("token", "one\n");
    let more = [
        "--ca-cert-path",
        &ca,
        "--server-cert-path",
        &own,
        "--server-key-path",
        &key,
        "--token-file",
        &token,
    ];
    let plan = Plan { more: more.map(str::to_owned).to_vec(), ..plan };
    trust(std::net::SocketAddr::new(plan.address, plan.api_port), &authority.pem());
    let bot = plan.start();
    let answers = |token: &str| {
        get_with(bot.api(), "/version", &format!("Authorization: Bearer {token}\r\n"))
            .map_or(0, |answer| answer.status)
    };
    assert!(wait(Duration::from_secs(20), || answers("one") == 200).is_some());
    let broken = |value: &str| {
        get(bot.api(), "/metrics")
            .is_ok_and(|answer| answer.body.contains(&format!("canary_reload_broken {value}")))
    };
    assert!(broken("0"));
    std::fs::remove_file(&ca).unwrap();
    assert!(Command::new("mkfifo").arg(&ca).status().unwrap().success());
    assert!(wait(Duration::from_secs(20), || broken("1")).is_some(), "{}", bot.logged());
    directory.write("token", "two\n");
    assert!(
        wait(Duration::from_secs(10), || answers("two") == 200 && answers("one") == 401).is_some(),
        "{}",
        bot.logged()
    );
    std::fs::remove_file(&ca).unwrap();
    directory.write("ca.pem", &authority.pem());
    assert!(wait(Duration::from_secs(10), || broken("0")).is_some(), "{}", bot.logged());
}

#[test]
fn a_development_authority_takes_further_hosts_and_a_wrong_name_leaves_nothing_behind() {
    let directory = Directory::new();
    let place = directory.path("tls");
    let issue = |hosts: &[&str]| {
        let run = Command::new(env!("CARGO_BIN_EXE_canary-bot"))
            .args(["tls", "dev", "--directory", &place])
            .args(hosts)
            .output();
        run.unwrap()
    };
    assert!(!issue(&["owl", "bad name"]).status.success());
    assert!(!std::path::Path::new(&place).exists(), "a wrong name left half of it behind");
    assert!(issue(&["owl,127.0.0.1"]).status.success());
    let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&place), mode(&format!("{place}/owl-key.pem"))), (0o700, 0o600));
    let added = issue(&["host-21,127.0.0.1"]);
    assert!(added.status.success(), "{}", said(&added));
    for name in ["owl", "host-21"] {
        let path = |file: &str| format!("{place}/{file}");
        let arguments = [
            "--name",
            name,
            "--token",
            "a-token-for-tests",
            "--ca-cert-path",
            &path("ca.pem"),
            "--server-cert-path",
            &path(&format!("{name}.pem")),
            "--server-key-path",
            &path(&format!("{name}-key.pem")),
        ];
        let output = dry_run(&arguments, &[]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    let token = Command::new(env!("CARGO_BIN_EXE_canary-bot"))
        .args(["token", "new", "-"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&token.stdout).trim().len(), 64);
}
