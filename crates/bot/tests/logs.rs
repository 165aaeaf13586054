//! The log never touches measuring: a stderr that is closed, full or not read costs lines and
//! nothing else. And what operators read in it.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::fs::File;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use support::pki::Directory;
use support::{
    Bot, Plan, TOKEN, alone, counted, get_with, mesh, patience, plans, settle, suspects, wait,
};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Starts two bots with these logs, has a third join and die, and tells that both measure on, obey,
/// and rotate a token.
fn endure(what: &str, stderr: impl Fn() -> Stdio, after_start: impl FnOnce()) {
    let directory = Directory::new();
    let file = directory.write("token", &format!("{TOKEN}\n"));
    let mut plans = plans(3);
    for plan in &mut plans {
        plan.more = ["--token-file", &file, "--log-level", "debug"].map(str::to_owned).to_vec();
    }
    let mut bots: Vec<_> = plans[..2].iter().map(|plan| plan.start_with(stderr())).collect();
    settle(&bots);
    after_start();
    let mut third = plans[2].start();
    let all = [&bots[0], &bots[1], &third];
    assert!(
        wait(secs(20), || all.iter().all(|bot| bot.measured_pairs().len() == 6)).is_some(),
        "{what}: the third is not measured"
    );
    third.kill();
    assert!(
        wait(secs(20), || bots.iter().all(|bot| bot.nodes().is_some_and(|nodes| nodes.len() == 1)))
            .is_some(),
        "{what}"
    );
    let before: Vec<_> = bots.iter().map(|bot| counted(bot, "canary_probes_total")).collect();
    let measuring = || {
        bots.iter()
            .zip(&before)
            .all(|(bot, before)| counted(bot, "canary_probes_total") >= before + 3.0)
    };
    assert!(wait(secs(20), measuring).is_some(), "{what}: nothing is measured any more");
    // Lines of a stalled reader wait in the queue; those of one that is gone are lost.
    let lost = counted(&bots[0], "canary_log_lines_lost_total{reason=\"unread\"}");
    assert!(lost > 0.0 || what == "a stalled pipe", "{what}: no lost line is counted");
    for token in ["another", "and-one-more"] {
        directory.write("token", token);
        let taken = || {
            bots.iter().all(|bot| {
                get_with(bot.api(), "/version", &format!("Authorization: Bearer {token}\r\n"))
                    .is_ok_and(|answer| answer.status == 200)
            })
        };
        assert!(wait(secs(15), taken).is_some(), "{what}: the token {token} is not in force");
    }
    for bot in &mut bots {
        bot.signal("TERM");
        let ended = bot.ended(secs(5));
        assert_eq!(ended.and_then(|status| status.code()), Some(0), "{what}");
    }
}

#[test]
fn a_log_on_a_full_disk_stops_nothing() {
    let _turn = alone();
    endure("a full disk", || File::options().write(true).open("/dev/full").unwrap().into(), || {});
}

#[test]
fn a_log_whose_reader_is_gone_stops_nothing() {
    let _turn = alone();
    let (reader, writer) = std::io::pipe().unwrap();
    endure("a closed pipe", || writer.try_clone().unwrap().into(), move || drop(reader));
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let _turn = alone();
    let (reader, mut writer) = std::io::pipe().unwrap();
    // A few hundred bytes of the pipe are left.
    writer.write_all(&[b'.'; 65_000]).unwrap();
    endure("a stalled pipe", || writer.try_clone().unwrap().into(), || {});
    drop(reader);
}

#[test]
fn a_death_is_one_warning_with_the_address_and_a_return_one_line() {
    let _turn = alone();
    let mut bots = mesh(3);
    let mut gone = bots.pop().unwrap();
    gone.kill();
    let lines = |bot: &Bot, words: &str| {
        bot.logged()
            .lines()
            .filter(|line| line.contains(words))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for bot in &bots {
        assert!(
            wait(secs(20), || !lines(bot, "a node is dead").is_empty()).is_some(),
            "{}",
            bot.logged()
        );
        let told = lines(bot, "a node is dead");
        assert!(
            told.len() == 1 && told[0].contains("WARN") && told[0].contains(&gone.plan.target()),
            "{told:?}"
        );
        assert!(told[0].contains("refused") && told[0].contains("silent_for"), "{told:?}");
    }
    let back = gone.plan.start();
    for bot in &bots {
        assert!(
            wait(secs(20), || !lines(bot, "a node restarted").is_empty()).is_some(),
            "{}",
            bot.logged()
        );
    }
    drop(back);
}

#[test]
fn the_log_says_how_open_a_bot_is_and_that_it_is_alone() {
    let _turn = alone();
    let plan = Plan { seeds: Vec::new(), ..plans(1).remove(0) };
    let bot = plan.start();
    let has = |words: &str| bot.logged().contains(words);
    assert!(wait(secs(10), || has("started")).is_some());
    for words in [
        "tls=none",
        "mesh_token=\"no\"",
        &format!("address={}", plan.target()),
        "the mesh port is open",
        "no target is given",
    ] {
        assert!(wait(secs(5), || has(words)).is_some(), "{words} is missing in {}", bot.logged());
    }
    assert!(wait(secs(30), || has("this bot is alone")).is_some(), "{}", bot.logged());
}

#[test]
fn the_refusing_side_says_why() {
    let _turn = alone();
    let directory = Directory::new();
    let token = directory.write("mesh", "of-the-mesh\n");
    let other = directory.write("other", "of-another\n");
    let mut plans = plans(3);
    plans[0].more =
        vec!["--mesh-token-file".to_owned(), token, "--mesh-name".to_owned(), "prod".to_owned()];
    plans[1].more = vec!["--mesh-token-file".to_owned(), other];
    plans[2].more = vec![
        "--mesh-token".to_owned(),
        "of-the-mesh".to_owned(),
        "--mesh-name".to_owned(),
        "test".to_owned(),
    ];
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    for words in [
        "refused a peer: its mesh token is missing or wrong",
        "a node of another mesh asks to join",
    ] {
        assert!(
            wait(secs(20), || bots[0].logged().contains(words)).is_some(),
            "{words}: {}",
            bots[0].logged()
        );
    }
    assert!(
        wait(secs(30), || bots[2].logged().contains("it belongs to the mesh")).is_some(),
        "{}",
        bots[2].logged()
    );
    assert!(bots.iter().all(|bot| bot.nodes().is_some_and(|nodes| nodes.is_empty())));
    let repeated = bots[0].logged().matches("its mesh token is missing").count();
    assert!(repeated <= 2, "{repeated} lines of one kind");
}

#[test]
fn a_generated_token_that_nobody_can_read_ends_the_start_with_a_word() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let (unread, mut stalled) = std::io::pipe().unwrap();
    stalled.write_all(&[b'.'; 65_536]).unwrap();
    for (what, stdout) in [("full", full()), ("stalled", stalled.into())] {
        let mut bot = std::process::Command::new(env!("CARGO_BIN_EXE_canary-bot"));
        bot.args([
            "--name",
            "owl",
            "--listen-address",
            "127.0.0.1",
            "--listen-port",
            "0",
            "--api-port",
            "0",
        ]);
        let mut child =
            bot.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        let mut ended = None;
        wait(secs(10), || {
            ended = child.try_wait().unwrap();
            ended.is_some()
        });
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            ended.and_then(|status| status.code()) == Some(1)
                && said.contains("cannot write to stdout"),
            "{what}: {ended:?} {said}"
        );
    }
    drop(unread);
}

#[test]
fn the_level_is_raised_and_restored_while_the_bot_runs() {
    let _turn = alone();
    let mut bots = mesh(3);
    let soon = patience(Duration::from_secs(10));
    let (mut first, mut second) = (bots.pop().unwrap(), bots.pop().unwrap());
    let bot = bots.pop().unwrap();
    // What becomes of a node that crashed is a line of its own at level debug.
    bot.signal("USR1");
    assert!(wait(soon, || bot.logged().contains("raised=true")).is_some(), "{}", bot.logged());
    first.kill();
    assert!(wait(soon, || suspects(&bot.logged())).is_some(), "{}", bot.logged());
    bot.signal("USR1");
    assert!(wait(soon, || bot.logged().contains("raised=false")).is_some(), "{}", bot.logged());
    second.kill();
    let dead = format!("a node is dead node={}", second.name());
    assert!(wait(soon, || bot.logged().contains(&dead)).is_some(), "{}", bot.logged());
    let log = bot.logged();
    let after = log.split_once("raised=false").unwrap().1;
    assert!(!after.contains("DEBUG") && !suspects(after), "{after}");
}
