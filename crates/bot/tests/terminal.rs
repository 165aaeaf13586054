//! What a bot says on a terminal: lists, and the live matrix in a real one.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::{Command, Output};
use std::time::Duration;

use support::tools::{program, said};
use support::{
    Bot, Plan, TOKEN, alone, free_ports, mesh, own_address, patience, plans, settle, wait,
};

/// A file with the token, as people have one.
struct Token(String);

impl Token {
    fn new() -> Self {
        let path = std::env::temp_dir()
            .join(format!("canary-terminal-{}", std::process::id()))
            .to_str()
            .unwrap()
            .to_owned();
        std::fs::write(&path, TOKEN).unwrap();
        Self(path)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn ask(bot: &Bot, token: &Token, arguments: &[&str]) -> (Option<i32>, String) {
    let server = format!("http://{}", bot.api());
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_canary-bot"))
        .args(arguments)
        .env("CANARY_SERVER", server)
        .env("CANARY_TOKEN_FILE", &token.0)
        .output()
        .unwrap();
    (
        status.code(),
        format!("{}{}", String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap()),
    )
}

/// The README's first look, with free ports in the place of its: it prints what the README says.
#[test]
fn the_first_look_of_the_readme_runs() {
    let _turn = alone();
    let readme = include_str!("../../../README.md");
    let block = |begin: &str| {
        let (_, rest) = readme.split_once(begin).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    let address = own_address();
    let ports = free_ports(address, 4);
    let mut script = block("```sh\n(umask").replace("./target/release/canary-bot", "\"$BOT\"");
    for index in 0..4 {
        script = script.replace(&format!("808{index}"), &format!("<port {index}>"));
    }
    for (index, port) in ports.iter().enumerate() {
        script = script.replace(&format!("<port {index}>"), &port.to_string());
    }
    let rest = patience(Duration::from_secs(4)).as_secs_f64();
    let script = script
        .replace("127.0.0.1", &address.to_string())
        .replace("sleep 4", &format!("sleep {rest}"));
    let script = format!("set -m; (umask{script}");
    let folder = std::env::temp_dir().join(format!("canary-readme-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(&folder);
    command.env("BOT", env!("CARGO_BIN_EXE_canary-bot"));
    command.env("CANARY_SERVER", format!("http://{address}:{}", ports[0]));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MESH_") {
            command.env_remove(name);
        }
    }
    let output = command.output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(printed, block("It prints:\n\n```text\n"), "{script}\n{log}");
}

#[test]
fn every_command_shows_the_mesh() {
    let _turn = alone();
    let token = Token::new();
    let mut bots = mesh(3);
    let lines = |arguments: &[&str]| {
        let (code, text) = ask(&bots[0], &token, arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {text}");
        assert!(!text.contains('\x1b'), "no colour without a terminal: {text:?}");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let nodes = lines(&["nodes"]);
    assert!(nodes[0].starts_with("NAME    STATE  ADDRESS") && nodes.len() == 4, "{nodes:?}");
    assert!(nodes[1].starts_with("bot-00  alive") && nodes[1].contains("this bot"), "{nodes:?}");
    let pairs = lines(&["pairs", "--source", "bot-01", "--plain"]);
    assert!(
        pairs.len() == 2
            && pairs[0].starts_with("bot-01\tbot-00\tok\t")
            && pairs[0].split('\t').count() == 8,
        "{pairs:?}"
    );
    assert_eq!(lines(&["pairs", "--state", "failed", "--json"]), ["[]"]);
    let matrix = lines(&["matrix", "--metric", "loss"]);
    assert!(
        matrix.len() == 5
            && matrix[2].ends_with("0.0%")
            && matrix[4].starts_with("share of failed attempts"),
        "{matrix:?}"
    );
    let verdict = || lines(&["top", "--once"])[0].clone();
    assert!(
        wait(Duration::from_secs(10), || verdict() == "All 3 nodes reach each other.").is_some(),
        "{}",
        verdict()
    );
    assert!(lines(&["events", "--plain"]).iter().any(|line| line.ends_with("node_joined\tbot-02")));
    assert_eq!(lines(&["check"]), ["ok"]);
    bots[0].kill();
    let (code, text) = ask(&bots[0], &token, &["check"]);
    assert!(code == Some(3) && text.contains("cannot connect"), "{text}");
    let (code, text) = ask(&bots[0], &token, &["nodes"]);
    assert!(code == Some(1) && text.contains("does a bot run there"), "{text}");
}

#[test]
fn the_doctor_asks_a_running_bot_and_joins_where_none_runs() {
    let _turn = alone();
    let token = Token::new();
    let bots = mesh(2);
    let plan = &bots[1].plan;
    let doctor = |name: &str, mesh_port: u16, api_port: u16| {
        let address = plan.address.to_string();
        let (mesh_port, api_port, target) =
            (mesh_port.to_string(), api_port.to_string(), bots[0].plan.target());
        let settings = [
            "--listen-address",
            &address,
            "--listen-port",
            &mesh_port,
            "-p",
            &api_port,
            "-t",
            &target,
            "--token-file",
            &token.0,
        ];
        let output = Command::new(env!("CARGO_BIN_EXE_canary-bot"))
            .args(["doctor", "-n", name])
            .args(settings)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = doctor(&plan.name, plan.mesh_port, plan.api_port);
    assert_eq!(code, Some(0), "{text}");
    for expected in [
        ": bot-01 runs here already",
        "answers as bot-00 in ",
        "ways from here 1 of 1 work",
        "ways back      1 of 1 work",
        "0 problems",
    ] {
        assert!(text.contains(expected), "{expected} is missing in:\n{text}");
    }
    let free = free_ports(plan.address, 2);
    let (code, text) = doctor("newcomer", free[0], free[1]);
    assert_eq!(code, Some(0), "{text}");
    for expected in [
        "joined a mesh of 2 others, and left it again",
        "ways back      2 of 2 work",
        "clock          within a second",
    ] {
        assert!(text.contains(expected), "{expected} is missing in:\n{text}");
    }
    let (code, text) = doctor("newcomer", plan.mesh_port, free[1]);
    assert!(code == Some(3) && text.contains("another bot, bot-01, has it"), "{text}");
    let (code, text) = doctor(&plan.name, free[0], free[1]);
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.contains(&format!(
            "problem  name           bot-01 is the name of a living node at {}",
            plan.target()
        )),
        "{text}"
    );
}

#[test]
fn the_doctor_does_not_call_a_bot_well_that_nobody_admits() {
    let _turn = alone();
    let token = Token::new();
    let mut plans = plans(2);
    for (plan, mesh) in plans.iter_mut().zip(["one", "other"]) {
        plan.more = ["--mesh-name", mesh].map(str::to_owned).to_vec();
        plan.seeds.truncate(1);
    }
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    assert!(
        wait(Duration::from_secs(10), || bots.iter().all(|bot| bot.nodes().is_some())).is_some()
    );
    let (plan, address) = (&plans[1], plans[1].address.to_string());
    let (mesh_port, api_port) = (plan.mesh_port.to_string(), plan.api_port.to_string());
    let settings = [
        "--listen-address",
        &address,
        "--listen-port",
        &mesh_port,
        "-p",
        &api_port,
        "-t",
        &plan.seeds[0],
    ];
    let mut command = Command::new(env!("CARGO_BIN_EXE_canary-bot"));
    let command = command
        .args(["doctor", "-n", &plan.name, "--mesh-name", "other", "--token-file", &token.0])
        .args(settings);
    let (done, text) = said(command);
    assert!(
        !done && text.contains("problem  join           the bot that runs here is alone"),
        "{text}"
    );
}

/// A service gets its mesh token from elsewhere than the command does: the doctor still knows the
/// bot for what it is.
#[test]
fn the_doctor_knows_a_running_bot_whose_mesh_token_it_was_not_given() {
    let _turn = alone();
    let token = Token::new();
    let mut plans = plans(2);
    for plan in &mut plans {
        plan.more = vec!["--mesh-token".to_owned(), "a-mesh-token".to_owned()];
    }
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let (plan, address) = (&plans[1], plans[1].address.to_string());
    let (mesh_port, api_port) = (plan.mesh_port.to_string(), plan.api_port.to_string());
    let mut command = Command::new(env!("CARGO_BIN_EXE_canary-bot"));
    command.args(["doctor", "-n", &plan.name, "--listen-address", &address]);
    command.args(["--listen-port", &mesh_port, "-p", &api_port]);
    command.args(["-t", &plan.seeds[0], "--token-file", &token.0]);
    let (_, text) = said(&mut command);
    for expected in
        ["bot-01 runs here already, with another mesh token", "ways back      1 of 1 work"]
    {
        assert!(text.contains(expected), "{expected} is missing in:\n{text}");
    }
    assert!(!text.contains("another process has it"), "{text}");
}

#[test]
fn a_probe_shows_phases_and_how_it_fails() {
    let _turn = alone();
    let token = Token::new();
    let mut bots = mesh(2);
    let target = bots[1].plan.target();
    let (code, text) = ask(&bots[0], &token, &["probe", &target, "-c", "2", "-i", "50ms"]);
    let lines: Vec<_> = text.lines().collect();
    assert!(code == Some(0) && lines.len() == 3, "{text}");
    assert!(
        lines[0].starts_with(&format!("bot-01 at {target}: seq=1 total="))
            && lines[0].contains("(connect "),
        "{text}"
    );
    assert!(
        lines[2].starts_with(&format!("{target}: 2 attempts, 0 failed (0 %); total min ")),
        "{text}"
    );
    bots[1].kill();
    let (code, text) = ask(&bots[0], &token, &["probe", &target, "-c", "1", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(
        code == Some(1) && said["failure"] == "refused" && said["rtt_seconds"].is_null(),
        "{text}"
    );
}

/// A terminal of 80 columns and 24 lines, which ends with the test.
struct Terminal(String);

impl Terminal {
    fn start(command: &str) -> Self {
        let socket = format!("canary-{}", std::process::id());
        let (done, text) =
            Self::tmux(&socket, &["new-session", "-d", "-x", "80", "-y", "24", command]);
        assert!(done, "{text}");
        Self(socket)
    }

    fn tmux(socket: &str, arguments: &[&str]) -> (bool, String) {
        said(Command::new("tmux").args(["-L", socket, "-f", "/dev/null"]).args(arguments))
    }

    fn press(&self, keys: &[&str]) {
        let (done, text) = Self::tmux(&self.0, &[&["send-keys"], keys].concat());
        assert!(done, "{text}");
    }

    fn screen(&self) -> String {
        Self::tmux(&self.0, &["capture-pane", "-p"]).1
    }

    fn shows(&self, words: &str) {
        assert!(
            wait(Duration::from_secs(30), || self.screen().contains(words)).is_some(),
            "no {words:?} in\n{}",
            self.screen()
        );
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Self::tmux(&self.0, &["kill-server"]);
    }
}

#[test]
fn top_is_live_and_follows_its_keys() {
    let _turn = alone();
    if program("tmux").is_none() {
        return;
    }
    let token = Token::new();
    let mut bots = mesh(3);
    let binary = env!("CARGO_BIN_EXE_canary-bot");
    // What comes after it shows that the terminal was given back.
    let command = format!(
        "{binary} top --server http://{} --token-file {}; echo it has ended; cat",
        bots[0].api(),
        token.0
    );
    let terminal = Terminal::start(&command);
    terminal.shows("All 3 nodes reach each other.");
    terminal.press(&["Right", "Right", "Down"]);
    terminal.shows("bot-01 -> bot-01: itself");
    terminal.press(&["Up"]);
    terminal.shows("bot-00 -> bot-01: ");
    terminal.press(&["m", "m", "m"]);
    terminal.shows("0.0 % lost");
    terminal.press(&["m"]);
    bots[1].kill();
    terminal.shows("bot-01 has been unreachable");
    terminal.shows("bot-00 -> bot-01: failed (refused)");
    terminal.press(&["f", "s"]);
    terminal.shows("worst first, failing only");
    bots[0].kill();
    terminal.shows("BROKEN, shown is what it knew");
    terminal.press(&["q"]);
    terminal.shows("it has ended");
}
