//! Real packets between real hosts: network namespaces on a bridge, and links that are cut.
//!
//! It needs root and iproute2. Elsewhere it says so and passes.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::process::{Command, Stdio};
use std::time::Duration;

use support::lab::{Lab, NameServer, ResolverFile, inside, ip};
use support::original::Original;
use support::tools::skip;
use support::{Bot, Plan, alone, calls_dead, counted, names, patience, settle, wait};

fn only_missing(bots: &[Bot], missing: &str) -> bool {
    let present = names(bots);
    bots.iter().all(|bot| {
        let known = bot.nodes().unwrap_or_default();
        let lost: Vec<_> =
            present.iter().filter(|name| *name != bot.name() && !known.contains(*name)).collect();
        assert!(lost.is_empty(), "{} dropped living ones: {lost:?}", bot.name());
        !known.contains(missing)
    })
}

/// All hosts share one table of neighbours, and each wants an entry for every other.
fn neighbours_fit(count: u8) -> bool {
    let most =
        std::fs::read_to_string("/proc/sys/net/ipv4/neigh/default/gc_thresh3").unwrap_or_default();
    most.trim()
        .parse::<u32>()
        .is_ok_and(|most| most > 2 * u32::from(count) * u32::from(count) || count < 10)
}

#[test]
fn a_host_whose_packets_are_dropped_is_known_to_all_and_comes_back() {
    let _turn = alone();
    for count in [2, 3, 5, 40] {
        if !neighbours_fit(count) {
            skip(&format!(
                "the kernel's neighbour table is too small for {count} hosts; raise net.ipv4.neigh.default.gc_thresh3"
            ));
            continue;
        }
        let Some(lab) = Lab::build(count) else { return };
        let mut bots: Vec<_> = (1..=count).map(|number| lab.start(number)).collect();
        settle(&bots);
        let victim = bots.pop().unwrap();
        lab.cut(count, true);
        let limit = patience(Duration::from_secs(6));
        let dropped = wait(limit, || only_missing(&bots, victim.name()));
        eprintln!("{count} hosts: the cut one is dropped by all after {dropped:?}");
        assert!(dropped.is_some(), "{count} hosts: not dropped by all within {limit:?}");
        lab.cut(count, false);
        bots.push(victim);
        settle(&bots);
    }
}

/// What the test's own program does in another namespace: it is a bot of the original, until it is
/// killed.
fn play_the_original(given: &str) {
    let (target, seed) = given.split_once(' ').unwrap();
    let original = Original::start("old", target.parse().unwrap(), &[seed.to_owned()]);
    loop {
        original.assert_well();
        wait(Duration::from_secs(3600), || original.state().died.is_some());
    }
}

/// A process that is killed with its holder.
struct Played(std::process::Child);

impl Drop for Played {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_mixed_mesh_heals_after_a_partition() {
    if let Ok(given) = std::env::var("CANARY_PLAY_ORIGINAL") {
        return play_the_original(&given);
    }
    let _turn = alone();
    let Some(lab) = Lab::build(3) else { return };
    let bots: Vec<_> = (1..=2).map(|number| lab.start(number)).collect();
    settle(&bots);
    let mut play = Command::new("ip");
    play.args(["netns", "exec", &lab.hosts[2]]).arg(std::env::current_exe().unwrap());
    play.args(["a_mixed_mesh_heals_after_a_partition", "--exact"]);
    play.env("CANARY_PLAY_ORIGINAL", format!("{}:8081 {}:8081", lab.address(3), lab.address(1)));
    let _original = Played(
        play.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap(),
    );
    let listed = |bot: &Bot| bot.nodes().is_some_and(|nodes| nodes.contains("old"));
    // Both ways between both kinds, by numbers that everybody serves.
    let whole = || bots.iter().all(|bot| listed(bot) && bot.measured_pairs().len() == 6);
    assert!(wait(Duration::from_secs(60), whole).is_some(), "{:?}", bots[0].measured_pairs());
    lab.cut(3, true);
    let dropped = wait(Duration::from_secs(8), || bots.iter().all(|bot| !listed(bot)));
    eprintln!("the cut original is dropped by all after {dropped:.1?}");
    assert!(dropped.is_some(), "not dropped by all within 8 s");
    // Long enough for the original to give ours up as well: ten seconds until it asks, and three
    // tries five seconds apart.
    wait(Duration::from_secs(45), || false);
    lab.cut(3, false);
    let healed = wait(Duration::from_secs(45), whole);
    eprintln!("healed after {healed:.1?}");
    assert!(healed.is_some(), "{:?}: {:?}", bots[0].nodes(), bots[0].measured_pairs());
}

#[test]
fn one_broken_path_is_logged_by_kind_with_how_many_others_reach_the_node() {
    let _turn = alone();
    let Some(lab) = Lab::build(4) else { return };
    let bots: Vec<_> = (1..=4).map(|number| lab.start(number)).collect();
    settle(&bots);
    // As Calico leaves them; the kernel answers with EINVAL.
    assert!(ip(&format!("-n {} route add blackhole {}", lab.hosts[0], lab.address(4))));
    let told = |words: &str| {
        bots[0].logged().lines().any(|line| line.contains(words) && line.contains("host-4"))
    };
    assert!(
        wait(Duration::from_secs(20), || told("this bot cannot reach a node")).is_some(),
        "{}",
        bots[0].logged()
    );
    let log = bots[0].logged();
    let line = log.lines().find(|line| line.contains("this bot cannot reach a node")).unwrap();
    assert!(
        line.contains("WARN")
            && line.contains("unreachable")
            && line.contains("reached_by=2 others=2"),
        "{line}"
    );
    assert!(
        counted(&bots[0], "canary_probes_total{target=\"host-4\",result=\"unreachable\"}") > 0.0
    );
    assert!(ip(&format!("-n {} route del blackhole {}", lab.hosts[0], lab.address(4))));
    assert!(
        wait(Duration::from_secs(20), || told("this bot reaches a node again")).is_some(),
        "{}",
        bots[0].logged()
    );
    assert!(
        bots.iter().all(|bot| !calls_dead(&bot.logged())),
        "the node was reached by others all the time"
    );
}

#[test]
fn a_bot_follows_its_hosts_address_and_waits_for_the_first_one() {
    let _turn = alone();
    let Some(lab) = Lab::build(3) else { return };
    let bots: Vec<_> = (1..=2).map(|number| lab.start(number)).collect();
    settle(&bots);
    // The third host starts before its network is up, and nobody gave its bot an address.
    let (host, device) = (&lab.hosts[2], format!("{}i3", lab.bridge));
    assert!(ip(&format!("-n {host} addr flush dev {device}")));
    let mut command = Command::new("ip");
    command.args([
        "netns",
        "exec",
        host,
        env!("CARGO_BIN_EXE_canary-bot"),
        "--name",
        "host-3",
        "--token",
        support::TOKEN,
    ]);
    command
        .args(["--target", &format!("{}:8081", lab.address(1))])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _third = Played(command.spawn().unwrap());
    let [a, b, c] = lab.network;
    let reached_at = |last: u8| {
        let info = format!("address=\"{a}.{b}.{c}.{last}:8081\"");
        bots.iter().all(|bot| {
            let text =
                support::get(bot.api(), "/metrics").map(|answer| answer.body).unwrap_or_default();
            let known = text.lines().any(|line| {
                line.starts_with("canary_mesh_node_info")
                    && line.contains("host-3")
                    && line.contains(&info)
            });
            known
                && text
                    .lines()
                    .any(|line| line.starts_with("canary_mesh_node_up{node=\"host-3\"} 1"))
        })
    };
    for (last, former) in [(3, None), (33, Some(3))] {
        if let Some(former) = former {
            assert!(ip(&format!("-n {host} addr del {a}.{b}.{c}.{former}/24 dev {device}")));
        }
        assert!(ip(&format!("-n {host} addr add {a}.{b}.{c}.{last}/24 dev {device}")));
        assert!(
            wait(Duration::from_secs(40), || reached_at(last)).is_some(),
            "not reached at {last}: {:?}",
            bots[0].nodes()
        );
    }
}

#[test]
fn lost_packets_are_counted_where_no_probe_fails() {
    let _turn = alone();
    let Some(lab) = Lab::build(2) else { return };
    if !inside(
        &lab.hosts[1],
        "iptables -A INPUT -p tcp --dport 8081 -m statistic --mode random --probability 0.1 -j DROP",
    ) {
        skip("this needs iptables with the statistic match");
        return;
    }
    let bots: Vec<_> = (1..=2).map(|number| lab.start(number)).collect();
    let again = || counted(&bots[0], "canary_probe_retransmissions_total{target=\"host-2\"}");
    assert!(
        wait(Duration::from_secs(120), || again() > 0.0).is_some(),
        "one packet of ten is lost, and none is counted"
    );
    assert!(counted(&bots[0], "canary_probe_segments_total{target=\"host-2\"}") > again());
}

#[test]
fn where_ipv6_is_off_a_pair_to_an_ipv6_address_fails_and_is_seen() {
    let _turn = alone();
    let Some(lab) = Lab::build(3) else { return };
    for (number, host) in (1..).zip(&lab.hosts) {
        let step = match number {
            1 => inside(host, "sysctl -q -w net.ipv6.conf.all.disable_ipv6=1"),
            _ => ip(&format!(
                "-n {host} addr add fd77::{number}/64 dev {}i{number} nodad",
                lab.bridge
            )),
        };
        assert!(step, "host {number}");
    }
    let mut bots = vec![lab.start(1), lab.start(3)];
    settle(&bots);
    // It listens on both families, and others know it by the newer one.
    let plan = Plan {
        name: "host-2".to_owned(),
        address: lab.address(2),
        mesh_port: 8081,
        api_port: 8080,
        seeds: vec![format!("{}:8081", lab.address(3))],
        more: ["--listen-address", "::", "--join-address", "[fd77::2]:8081"]
            .map(str::to_owned)
            .to_vec(),
    };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.hosts[1], env!("CARGO_BIN_EXE_canary-bot")]);
    bots.push(plan.start_by(command));
    let failed =
        || counted(&bots[0], "canary_probes_total{target=\"host-2\",result=\"unreachable\"}") > 0.0;
    assert!(wait(Duration::from_secs(90), failed).is_some(), "{}", bots[0].logged());
    let lost = || {
        bots[1].samples().iter().any(|sample| {
            sample.from == "host-1" && sample.to == "host-2" && sample.nanos.is_none()
        })
    };
    assert!(
        wait(Duration::from_secs(30), lost).is_some(),
        "the failed pair is in no sample of another bot"
    );
    assert!(
        bots[0].logged().contains("which others reach and this bot does not"),
        "{}",
        bots[0].logged()
    );
}

#[test]
fn a_name_server_that_falls_silent_stops_no_measuring() {
    let _turn = alone();
    let Some(lab) = Lab::build(3) else { return };
    fn number(name: &str) -> Option<u8> {
        name.strip_prefix("host-")?.strip_suffix(".mesh.test")?.parse().ok()
    }
    let server = NameServer::start(&lab, |name| number(name).into_iter().collect());
    let _files: Vec<_> = lab.hosts.iter().map(|host| ResolverFile::write(&lab, host, "")).collect();
    let start = |number: u8| {
        let seeds = (1..=2).map(|seed| format!("host-{seed}.mesh.test:8081")).collect();
        let more = vec!["--join-address".to_owned(), format!("host-{number}.mesh.test:8081")];
        let plan = Plan {
            name: format!("host-{number}"),
            address: lab.address(number),
            mesh_port: 8081,
            api_port: 8080,
            seeds,
            more,
        };
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            &lab.hosts[usize::from(number) - 1],
            env!("CARGO_BIN_EXE_canary-bot"),
        ]);
        plan.start_by(command)
    };
    let bots: Vec<_> = (1..=3).map(start).collect();
    settle(&bots);
    server.fall_silent();
    let measured = |bot: &Bot| {
        counted(bot, "canary_probes_total{target=\"host-1\",result=\"success\"}")
            + counted(bot, "canary_probes_total{target=\"host-2\",result=\"success\"}")
    };
    let before: Vec<_> = bots.iter().map(measured).collect();
    let on_time = wait(Duration::from_secs(45), || {
        bots.iter().zip(&before).all(|(bot, before)| measured(bot) >= before + 10.0)
    });
    eprintln!("ten more measurements of each after {on_time:.1?}");
    assert!(on_time.is_some(), "{:?}", bots.iter().map(measured).collect::<Vec<_>>());
    for bot in &bots {
        let failed = counted(bot, "canary_probes_total{target=\"host-1\",result=\"dns\"}");
        assert!(
            failed < 0.5 && bot.nodes().is_some_and(|nodes| nodes.len() == 2),
            "{failed} probes failed, {:?}",
            bot.nodes()
        );
        assert!(counted(bot, "canary_mesh_refused_total{reason=\"lookup_stale\"}") > 0.0);
    }
}

/// One way to break a host of the lab, and what is to be said of it.
struct Breakage {
    kind: &'static str,
    /// Another host than the time before: what comes back is watched for longer before it is called
    /// over.
    host: u8,
    act: fn(&Lab, &mut Bot, u8),
    repair: fn(&Lab, &mut Bot, u8),
}

/// Drops or accepts new connections: into a host, or out of it.
fn firewall(lab: &Lab, host: u8, change: &str, chain: &str) {
    let rule =
        format!("iptables {change} {chain} -p tcp --dport 8081 --tcp-flags SYN,ACK SYN -j DROP");
    assert!(inside(&lab.hosts[usize::from(host) - 1], &rule), "{rule}");
}

const BREAKAGES: &[Breakage] = &[
    Breakage {
        kind: "inbound_broken",
        host: 5,
        act: |lab, _, host| firewall(lab, host, "-A", "INPUT"),
        repair: |lab, _, host| firewall(lab, host, "-D", "INPUT"),
    },
    Breakage {
        kind: "outbound_broken",
        host: 4,
        act: |lab, _, host| firewall(lab, host, "-A", "OUTPUT"),
        repair: |lab, _, host| firewall(lab, host, "-D", "OUTPUT"),
    },
    Breakage {
        kind: "node_unreachable",
        host: 3,
        act: |lab, _, host| lab.cut(host, true),
        repair: |lab, _, host| lab.cut(host, false),
    },
    Breakage {
        kind: "node_unreachable",
        host: 5,
        act: |_, bot, _| bot.signal("STOP"),
        repair: |_, bot, _| bot.signal("CONT"),
    },
    Breakage {
        kind: "bot_down",
        host: 4,
        act: |_, bot, _| bot.kill(),
        repair: |lab, bot, host| *bot = lab.start(host),
    },
];

#[test]
fn five_faults_are_named_with_their_culprit_by_a_bot_that_is_not_it() {
    let _turn = alone();
    let Some(lab) = Lab::build(5) else { return };
    let mut bots: Vec<_> = (1..=5).map(|number| lab.start(number)).collect();
    settle(&bots);
    let open = |bot: &Bot| {
        let incidents =
            support::get_json(bot.api(), "/api/v2/incidents?state=open").unwrap_or_default();
        incidents["incidents"].as_array().cloned().unwrap_or_default()
    };
    for Breakage { kind, host, act, repair } in BREAKAGES {
        let mut victim = bots.remove(usize::from(*host) - 1);
        act(&lab, &mut victim, *host);
        let is_right = |incident: &serde_json::Value| {
            incident["culprit"]["node"] == victim.name()
                && incident["kind"] == *kind
                && incident["severity"] == "critical"
        };
        let named = wait(Duration::from_secs(25), || {
            bots.iter().all(|bot| open(bot).first().is_some_and(is_right))
        });
        assert!(named.is_some(), "{kind}: {:?}", open(&bots[0]));
        let incident = open(&bots[0]).remove(0);
        assert!(
            bots.iter().all(|bot| open(bot).len() == 1),
            "one fault is one incident: {:?}",
            open(&bots[1])
        );
        assert!(
            bots.iter().all(|bot| open(bot)[0]["id"] == incident["id"]),
            "all of one side give it one id"
        );
        let (code, said) = status(&lab, &bots[0]);
        assert_eq!(code, Some(3), "{said}");
        assert!(said.starts_with(incident["summary"].as_str().unwrap()), "{said}");
        assert!(
            bots[0].logged().lines().any(|line| line.contains("incident: ") && line.contains(kind)),
            "{}",
            bots[0].logged()
        );
        assert_eq!(
            counted(
                &bots[0],
                &format!("canary_incidents{{kind=\"{kind}\",severity=\"critical\"}}")
            ),
            1.0
        );
        repair(&lab, &mut victim, *host);
        bots.insert(usize::from(*host) - 1, victim);
        let closed = wait(Duration::from_secs(60), || bots.iter().all(|bot| open(bot).is_empty()));
        assert!(closed.is_some(), "{kind}: {:?}", open(&bots[0]));
    }
    assert_eq!(status(&lab, &bots[0]).0, Some(0));
}

/// What `canary-bot status` says on the host of a bot.
fn status(lab: &Lab, bot: &Bot) -> (Option<i32>, String) {
    let token = std::env::temp_dir().join(format!("canary-status-{}", std::process::id()));
    std::fs::write(&token, support::TOKEN).unwrap();
    let server = format!("http://{}", bot.api());
    let mut command = Command::new("ip");
    command.args([
        "netns",
        "exec",
        &lab.hosts[0],
        env!("CARGO_BIN_EXE_canary-bot"),
        "status",
        "--server",
        &server,
        "--token-file",
    ]);
    let output = command.arg(&token).output().unwrap();
    std::fs::remove_file(token).unwrap();
    let (out, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), format!("{out}{error}"))
}
