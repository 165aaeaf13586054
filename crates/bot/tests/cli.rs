//! The command line: answers, mistakes, and where settings come from.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};

fn canary_bot(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    command(arguments, environment).output().unwrap()
}

fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_canary-bot"));
    for (variable, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MESH_"))
    {
        command.env_remove(variable);
    }
    command.args(arguments).envs(environment.iter().copied());
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Holds a text that people read against the one that was reviewed. `UPDATE_GOLDEN=1` writes it
/// again.
fn assert_golden(name: &str, text: &str) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    let reviewed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        text == reviewed,
        "{name} differs from the reviewed text; if that is meant, run again with UPDATE_GOLDEN=1. It is now:\n{text}"
    );
}

#[test]
fn every_mistake_is_reported_at_once_with_its_origin_and_exit_code_two() {
    let file = std::env::temp_dir().join(format!("canary-bot-{}.toml", std::process::id()));
    std::fs::write(
        &file,
        "probe-timeout = \"never\"\nprobe-interval = \"5s\"\nprobe_interval = 1\n",
    )
    .unwrap();
    let path = file.to_str().unwrap();
    let arguments = [
        "--target",
        "no-port,unix:/x",
        "--listen-port",
        "70000",
        "--name",
        "a\u{7f}b",
        "--config",
        path,
        "--label",
        "zone",
    ];
    let output = canary_bot(&arguments, &[("MESH_API_PORT", "http"), ("MESH_GOSSIP_FANOUT", "99")]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let errors = stderr(&output);
    for expected in [
        "--target: \"no-port\"",
        "--target: \"unix:/x\"",
        "--listen-port",
        "--name",
        "MESH_API_PORT",
        "probe-timeout in",
        "unknown key probe_interval",
        "MESH_GOSSIP_FANOUT: 99 is out of range; choose from 1 to 16",
        "--label: \"zone\"",
    ] {
        assert!(errors.contains(expected), "{expected} is missing in:\n{errors}");
    }
}

#[test]
fn tls_settings_stop_the_start_and_nothing_falls_back_to_plaintext() {
    // Every TLS mistake of the original failed open.
    for setting in [
        "--ca-cert-path=/ca",
        "--ca-cert=QQ==",
        "--server-cert-path=/c",
        "--server-key-path=/k",
        "--server-cert=QQ==",
        "--server-key=QQ==",
        "--tls=mutual",
        "--tls=yes",
    ] {
        let output = canary_bot(&["--name", "owl", setting], &[]);
        assert_eq!(output.status.code(), Some(2), "{setting}: {}", stderr(&output));
    }
    let output = canary_bot(&["--name", "owl", "--tls", "none", "--dry-run"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_flag_overrides_the_environment_which_overrides_the_file() {
    let file = std::env::temp_dir().join(format!("canary-bot-order-{}.toml", std::process::id()));
    std::fs::write(&file, "name = \"\"\nlisten-port = \"file\"\napi-port = \"file\"\n").unwrap();
    let path = file.to_str().unwrap();
    // What counts is shown by which mistake is reported.
    let output = canary_bot(
        &["--name", "owl", "--config", path],
        &[("MESH_LISTEN_PORT", "environment"), ("MESH_NAME", "a\u{7f}")],
    );
    std::fs::remove_file(&file).unwrap();
    let errors = stderr(&output);
    assert!(
        errors.contains("MESH_LISTEN_PORT: \"environment\"") && errors.contains("api-port in"),
        "{errors}"
    );
    assert!(!errors.contains("name"), "{errors}");
}

#[test]
fn an_unknown_key_of_the_file_is_named() {
    let file = std::env::temp_dir().join(format!("canary-bot-key-{}.toml", std::process::id()));
    std::fs::write(&file, "nmae = \"owl\"\n").unwrap();
    let output = canary_bot(&["--config", file.to_str().unwrap()], &[]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("unknown key nmae"), "{}", stderr(&output));
}

#[test]
fn the_environment_of_the_original_and_of_kubernetes_starts_the_bot() {
    let environment = [
        ("MESH_NAME", "owl"),
        ("MESH_TARGET", "duck:8081, goose:8081"),
        ("MESH_JOIN_ADDRESS", "owl.example"),
        ("MESH_DEBUG-GRPC", "false"),
        ("MESH_DEBUG", "f"),
        ("MESH_CLEANUP_NODES", "TRUE"),
        ("MESH_CA_CERT_PATH", ""),
        ("MESH_TOKEN", ""),
        ("MESH_PORT", "tcp://10.0.0.1:8081"),
        ("MESH_API_PORT", "tcp://10.0.0.1:8080"),
        ("MESH_SERVICE_HOST", "10.0.0.1"),
    ];
    let output = canary_bot(&["--dry-run"], &environment);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn bare_flags_and_the_run_command_take_the_same_settings_with_the_originals_short_forms() {
    for first in [&[][..], &["run"][..]] {
        let arguments = [
            first,
            &[
                "-n",
                "owl",
                "-t",
                "duck:8081",
                "-t",
                "[::1]:8081",
                "-p",
                "0",
                "--cleanup-nodes",
                "--debug=1",
                "--dry-run",
            ],
        ]
        .concat();
        let output = canary_bot(&arguments, &[]);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn what_cannot_work_together_is_a_mistake() {
    for arguments in [
        &["--listen-address", "127.0.0.1", "--listen-port", "22222", "--api-port", "22222"][..],
        &["--join-address", "0.0.0.0"],
        &["--join-address", "[::]:8081"],
        &["--token", ""],
        &["--mesh-protocol", "v1", "--mesh-token", "of-the-mesh"],
        &["--mesh-protocol", "v3"],
    ] {
        let output = canary_bot(&[&["--name", "owl", "--dry-run"], arguments].concat(), &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_bot_does_not_start_with_a_generated_token_that_nobody_could_read() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_canary-bot"));
    command.args(["--name", "owl", "--listen-address", "127.0.0.1", "--listen-port", "0"]);
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("give one by --token-file"), "{}", stderr(&output));
}

#[test]
fn every_value_that_is_completed_is_taken_and_another_is_refused_with_those() {
    let script = String::from_utf8(canary_bot(&["completion", "bash"], &[]).stdout).unwrap();
    let lines: Vec<_> = script.lines().map(str::trim).collect();
    let completed: BTreeMap<_, _> = lines
        .windows(2)
        .filter_map(|pair| {
            let flag = pair[0].strip_suffix(')').filter(|flag| flag.starts_with("--"))?;
            let values = pair[1].split_once("compgen -W \"")?.1.split('"').next()?;
            Some((flag, values.split(' ').collect::<Vec<_>>()))
        })
        .collect();
    assert!(completed.contains_key("--tls") && completed.len() >= 8, "{completed:?}");
    // These are of other commands.
    let foreign = ["--fault", "--metric", "--state"];
    for (flag, values) in completed.iter().filter(|(flag, _)| !foreign.contains(flag)) {
        let tried = |value: &str| stderr(&canary_bot(&["run", "--dry-run", flag, value], &[]));
        for value in values {
            assert!(!tried(value).contains("does not work"), "{flag} {value}: {}", tried(value));
        }
        let (last, others) = values.split_last().unwrap();
        let choose = format!("choose {} or {last}", others.join(", "));
        assert!(tried("neither").contains(&choose), "{flag}: {}", tried("neither"));
    }
}

#[test]
fn a_token_is_not_repeated_when_it_is_wrong() {
    let output = canary_bot(&["--name", "owl", "--token", "se cret"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!stderr(&output).contains("cret"), "{}", stderr(&output));
}

#[test]
fn help_reads_as_it_was_reviewed() {
    for (name, arguments) in [
        ("help.txt", &["--help"][..]),
        ("help-short.txt", &["-h"]),
        ("help-demo.txt", &["demo", "--help"]),
        ("help-tls.txt", &["tls", "--help"]),
        ("help-token.txt", &["token", "--help"]),
        ("help-completion.txt", &["completion", "--help"]),
        ("help-man.txt", &["man", "--help"]),
        ("help-tls-dev.txt", &["tls", "dev", "--help"]),
        ("help-status.txt", &["status", "--help"]),
        ("help-nodes.txt", &["nodes", "--help"]),
        ("help-pairs.txt", &["pairs", "--help"]),
        ("help-matrix.txt", &["matrix", "--help"]),
        ("help-events.txt", &["events", "--help"]),
        ("help-top.txt", &["top", "--help"]),
        ("help-check.txt", &["check", "--help"]),
        ("help-probe.txt", &["probe", "--help"]),
        ("help-doctor.txt", &["doctor", "--help"]),
        ("help-assets.txt", &["assets", "--help"]),
        ("help-config.txt", &["config", "--help"]),
        ("config-init.txt", &["config", "init"]),
        (
            "config-show.txt",
            &[
                "config",
                "show",
                "--name",
                "owl",
                "--target",
                "duck:8081,goose:8081",
                "--token",
                "secret",
            ],
        ),
    ] {
        let help = canary_bot(arguments, &[]);
        assert!(help.status.success());
        assert_golden(name, &stdout(&help));
    }
}

#[test]
fn a_configuration_is_checked_and_shown_with_who_set_what() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let example = format!("{root}/examples/canary-bot.toml");
    let checked = canary_bot(&["config", "check", "--config", &example], &[]);
    assert_eq!(
        (checked.status.code(), stderr(&checked).contains("the configuration works")),
        (Some(0), true),
        "{}",
        stderr(&checked)
    );
    let wrong = canary_bot(
        &["config", "check", "--config", &example, "--probe-interval", "1y", "--listen-port", "x"],
        &[],
    );
    assert_eq!(
        (wrong.status.code(), stderr(&wrong).lines().count()),
        (Some(2), 2),
        "{}",
        stderr(&wrong)
    );
    let shown = canary_bot(
        &["config", "show", "--plain", "--config", &example, "--name", "owl"],
        &[("MESH_API_PORT", "8181")],
    );
    let lines = stdout(&shown);
    for line in [
        "name\towl\t--name",
        "api-port\t8181\tMESH_API_PORT",
        "probe-interval\t3s\tdefault",
        "label\tzone=a\tlabel in ",
    ] {
        assert!(lines.lines().any(|shown| shown.starts_with(line)), "{line:?} is not in {lines}");
    }
}

#[test]
fn completion_man_help_and_version_are_answers() {
    for shell in ["bash", "zsh", "fish"] {
        let output = canary_bot(&["completion", shell], &[]);
        assert!(output.status.success() && stdout(&output).contains("gossip-fanout"), "{shell}");
    }
    let page = canary_bot(&["man"], &[]);
    assert!(page.status.success() && stdout(&page).contains(".TH canary-bot"));
    assert!(stdout(&canary_bot(&["man", "demo"], &[])).contains("\\-\\-bots"));
    assert_eq!(canary_bot(&["man", "nothing"], &[]).status.code(), Some(2));
    let nested = stdout(&canary_bot(&["man", "tls", "dev"], &[]));
    assert!(nested.contains(".TH canary-bot-tls-dev 1") && nested.contains("directory"));
    let help = canary_bot(&["--help"], &[]);
    assert!(help.status.success() && stdout(&help).contains("MESH_JOIN_ADDRESS"));
    let version = canary_bot(&["--version"], &[]);
    assert_eq!(stdout(&version).trim(), format!("canary-bot {}", env!("CARGO_PKG_VERSION")));
    assert_eq!(canary_bot(&["--no-such-flag"], &[]).status.code(), Some(2));
}

/// Commands that cannot work, run in a directory that has only the files named here. Nothing
/// listens on port 1, and somebody on `{taken}`.
const MISTAKES: &[&str] = &[
    "--target no-port",
    "--name",
    "--nam owl",
    "--name owl --label zone --probe-interval never --listen-port 70000",
    "--name owl --label zone=a,zone=b",
    "--name owl --token a-token-for-tests --listen-address 127.0.0.1 --listen-port {taken} --api-port 0",
    "--name owl --token a-token-for-tests --listen-address 127.0.0.1 --listen-port 0 --api-port {taken}",
    "--name owl --listen-address 127.0.0.1 --listen-port 1024 --api-port 1024",
    "--name owl --token a-token-for-tests --api-address 127.0.0.1 --api-port 0 --listen-address 192.0.2.1",
    "--name owl --debug maybe",
    "--debug true --name",
    "--name owl --server-cert cert.pem",
    "--name owl --server-cert cert.pem --server-key nothing.pem",
    "--name owl --ca-cert letter.pem",
    "--name owl --token-file nothing",
    "--config nothing.toml --dry-run",
    "--config unknown.toml --dry-run",
    "--config broken.toml --dry-run",
    "config show --config unknown.toml",
    "config check --config broken.toml",
    "demo --bots 1",
    "demo --fault flood",
    "demo --for soon",
    "status --server http://127.0.0.1:1",
    "status --server goose:8080",
    "status --server ftp://goose",
    "nodes --server http://127.0.0.1:1 --json",
    "matrix --server http://127.0.0.1:1",
    "events --server http://127.0.0.1:1",
    "top --server http://127.0.0.1:1",
    "check --server http://127.0.0.1:1",
    "probe",
    "probe 127.0.0.1:1 --count 1",
    "probe no-port",
    "doctor --target no-port --listen-port 70000",
    "matrix --metric odd",
    "tls dev --out letter.pem --host goose",
    "tls dev owl --directory",
    "tls dev goose!",
    "token",
    "status --token-file nothing",
    "assets nothing",
    "frobnicate",
];

#[test]
fn mistakes_read_as_they_were_reviewed() {
    let folder = std::env::temp_dir().join(format!("canary-bot-mistakes-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (file, text) in [
        ("cert.pem", ""),
        ("letter.pem", "Dear goose\n"),
        ("unknown.toml", "nam = \"owl\"\ntargets = [\"duck:8081\"]\n"),
        ("broken.toml", "name = \"owl\nlisten-port = 1\n"),
    ] {
        std::fs::write(folder.join(file), text).unwrap();
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut said = String::new();
    for line in MISTAKES {
        let asked = line.replace("{taken}", &port);
        let arguments: Vec<_> = asked.split(' ').collect();
        let output = command(&arguments, &[]).current_dir(&folder).output().unwrap();
        let answer = (stdout(&output) + &stderr(&output)).replace(&port, "{taken}");
        said += &format!("$ canary-bot {line}\n{answer}");
        said += &format!("exit {}\n\n", output.status.code().unwrap());
        assert_ne!(output.status.code(), Some(0), "{line}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert_golden("mistakes.txt", &said);
}

#[test]
fn mistakes_are_json_where_the_log_is() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, code, expected) in [
        (&["--listen-port", "x", "--label", "zone"][..], 2, ["--listen-port: ", "--label: "]),
        (&["--nmae", "owl"], 2, ["--nmae", "--name"]),
        (
            &["--token", "a-token-for-tests", "--listen-address", "127.0.0.1", "--api-port", &port],
            1,
            ["cannot listen on", "Address already in use"],
        ),
    ] {
        let arguments = [&["--name", "owl", "--log-format", "json"], arguments].concat();
        let output = canary_bot(&arguments, &[]);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        let said = stderr(&output);
        let errors: Vec<serde_json::Value> =
            said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for part in expected {
            let has_it = |error: &serde_json::Value| {
                error["level"] == "ERROR" && error["message"].as_str().unwrap().contains(part)
            };
            assert!(errors.iter().any(has_it), "{part}: {said}");
        }
    }
}

#[test]
fn what_works_and_is_hardly_meant_is_a_warning() {
    let arguments = ["config", "check", "--name", "owl", "--name", "swan", "--token", "short"];
    let output = canary_bot(&arguments, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        stderr(&output),
        "canary-bot: warning: --token, --token-file: a token of fewer than 16 characters can be guessed; make one by canary-bot token new\n\
         canary-bot: warning: --name is given 2 times; the last one counts\n\
         canary-bot: the configuration works\n"
    );
    let shown = canary_bot(&["config", "show", "--plain", "--name", "owl", "--name", "swan"], &[]);
    assert!(stdout(&shown).contains("name\tswan\t--name"), "{}", stdout(&shown));
}

#[test]
fn completions_know_the_values_of_settings_and_the_manual_has_its_sections() {
    let script = stdout(&canary_bot(&["completion", "bash"], &[]));
    assert!(script.contains("none edge mutual"), "{script}");
    assert_golden(
        "man.txt",
        &stdout(&canary_bot(&["man"], &[])).replace(env!("CARGO_PKG_VERSION"), "VERSION"),
    );
    assert_golden(
        "man-tls.txt",
        &stdout(&canary_bot(&["man", "tls"], &[])).replace(env!("CARGO_PKG_VERSION"), "VERSION"),
    );
}

/// A text without what differs from run to run: figures, and how wide columns are.
fn without_figures(text: &str) -> String {
    let mut plain = String::new();
    for letter in text.chars() {
        let before = plain.chars().next_back();
        match letter {
            '0'..='9' | '.' if before == Some('0') => {}
            '0'..='9' => plain.push('0'),
            ' ' if before == Some(' ') => {}
            letter => plain.push(letter),
        }
    }
    plain
}

#[test]
fn a_demonstration_ends_with_a_whole_matrix_and_says_so() {
    let output = canary_bot(&["demo", "--bots", "3", "--for", "5s"], &[]);
    let shown = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{shown}{}", stderr(&output));
    for expected in [
        "open this in a browser:",
        "/#token=",
        "curl -H",
        "6 of 6 pairs",
        "the matrix is whole at every bot",
    ] {
        assert!(shown.contains(expected), "{shown}");
    }
    // Where no terminal is, nothing moves a cursor.
    assert!(!shown.contains('\x1b'), "{shown}");
    // The lines in between differ from run to run.
    let (begin, rest) = shown.split_once("Ctrl-C ends it\n").unwrap();
    let end = &rest[rest.find("\nfrom").unwrap()..];
    let token = begin.split("#token=").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    let begin = begin.replace(token, "TOKEN");
    assert_golden("demo.txt", &without_figures(&format!("{begin}Ctrl-C ends it\n{end}")));
}

#[test]
fn a_file_that_is_no_toml_is_named_with_its_line_and_not_repeated() {
    let file = std::env::temp_dir().join(format!("canary-bot-secret-{}.toml", std::process::id()));
    for broken in [
        "mesh-token = s3cret",
        "server-key = \"s3cret",
        "token = ['s3cret' 's3cret']",
        "s3cret",
        "token = \"\\s3cret\"",
    ] {
        std::fs::write(&file, format!("name = \"owl\"\n{broken}\n")).unwrap();
        let output = canary_bot(&["--config", file.to_str().unwrap(), "--dry-run"], &[]);
        assert_eq!(output.status.code(), Some(2), "{broken}");
        let said = stderr(&output);
        assert!(said.contains("line 2") && !said.contains("s3cret"), "{said}");
    }
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn the_doctor_names_each_problem_with_its_remedy() {
    let bad = canary_bot(&["doctor", "--target", "no-port", "--listen-port", "70000"], &[]);
    assert_eq!(bad.status.code(), Some(3), "{}", stderr(&bad));
    assert!(
        stdout(&bad).contains("problem  settings")
            && stdout(&bad).contains("2 problems, 0 warnings"),
        "{}",
        stdout(&bad)
    );

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let closed =
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let arguments = [
        "doctor",
        "-n",
        "owl",
        "-t",
        &closed,
        "--listen-address",
        "127.0.0.1",
        "--listen-port",
        "0",
        "-p",
        &port,
        "--no-join",
    ];
    let looked = canary_bot(&arguments, &[]);
    let found = stdout(&looked);
    assert_eq!(looked.status.code(), Some(3), "{found}{}", stderr(&looked));
    for expected in [
        format!("problem  api port       cannot listen on 127.0.0.1:{port}"),
        "-> another process has it (ss -ltnp)".to_owned(),
        format!("problem  target         {closed}: refused"),
        "-> the host is up and nothing listens there".to_owned(),
        "note     ways back      not looked at, as asked".to_owned(),
        "2 problems, 2 warnings".to_owned(),
    ] {
        assert!(found.contains(&expected), "{expected} is missing in:\n{found}");
    }
}

#[test]
fn embedded_files_are_written_once_and_replaced_only_by_force() {
    let directory = std::env::temp_dir().join(format!("canary-assets-{}", std::process::id()));
    let path = directory.to_str().unwrap();
    for (kind, files) in
        [("dashboards", 4), ("rules", 1), ("systemd", 2), ("openapi", 1), ("proto", 3)]
    {
        let written = canary_bot(&["assets", kind, path], &[]);
        assert_eq!(stdout(&written).lines().count(), files, "{kind}: {}", stderr(&written));
        for file in stdout(&written).lines() {
            assert!(std::fs::metadata(file).unwrap().len() > 300, "{file}");
        }
    }
    let again = canary_bot(&["assets", "rules", path], &[]);
    assert!(
        again.status.code() == Some(1) && stderr(&again).contains("--force replaces it"),
        "{}",
        stderr(&again)
    );
    assert!(canary_bot(&["assets", "rules", path, "--force"], &[]).status.success());
    assert_eq!(canary_bot(&["assets", "everything", path], &[]).status.code(), Some(2));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_health_check_asks_the_port_that_the_variables_of_the_bot_name() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let checked = canary_bot(&["check"], &[("MESH_API_PORT", &closed)]);
    assert_eq!(checked.status.code(), Some(3));
    assert!(
        stdout(&checked).contains(&format!("http://127.0.0.1:{closed}")),
        "{}",
        stdout(&checked)
    );
    let given =
        canary_bot(&["check", "--server", "http://127.0.0.1:1"], &[("MESH_API_PORT", &closed)]);
    assert!(stdout(&given).contains("http://127.0.0.1:1:"), "{}", stdout(&given));
}
