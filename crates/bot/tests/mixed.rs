//! Meshes of ours and of the original's bots, which are played by the facts about their wire.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::mixed::{PATIENCE, becomes_whole, whole};
use support::original::Original;
use support::{Bot, Plan, alone, own_address, plans_at, settle, wait};

#[test]
fn ours_join_theirs() {
    let _turn = alone();
    let address = own_address();
    let first = Original::start_on("old-0", address, &[]);
    let second = Original::start_on("old-1", address, &[first.target.to_string()]);
    let seeds = vec![first.target.to_string()];
    let plans: Vec<_> = plans_at(address, 2)
        .into_iter()
        .map(|plan| Plan { seeds: seeds.clone(), ..plan })
        .collect();
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    becomes_whole(&bots, &[first, second]);
}

#[test]
fn theirs_join_ours() {
    let _turn = alone();
    let plans = plans_at(own_address(), 2);
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let targets = [plans[0].target()];
    let originals =
        ["old-0", "old-1"].map(|name| Original::start_on(name, plans[0].address, &targets));
    becomes_whole(&bots, &originals);
}

#[test]
fn both_start_at_once() {
    let _turn = alone();
    let plans = plans_at(own_address(), 3);
    let ports = support::free_ports(plans[0].address, 3);
    let old: Vec<_> = ports.iter().map(|port| format!("{}:{port}", plans[0].address)).collect();
    // Everybody knows one of the other kind.
    let bots: Vec<_> = plans
        .iter()
        .map(|plan| Plan { seeds: vec![old[0].clone(), plans[0].target()], ..plan.clone() }.start())
        .collect();
    let originals: Vec<_> = old
        .iter()
        .enumerate()
        .map(|(number, target)| {
            Original::start(&format!("old-{number}"), target.parse().unwrap(), &[plans[1].target()])
        })
        .collect();
    becomes_whole(&bots, &originals);
}

#[test]
fn a_guest_that_is_gone_is_lost_and_one_of_ours_takes_its_place() {
    let _turn = alone();
    let plans = plans_at(own_address(), 2);
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let mut original = Original::start_on("swan", plans[0].address, &[plans[0].target()]);
    let lists = |bot: &Bot, name: &str| bot.nodes().is_some_and(|nodes| nodes.contains(name));
    assert!(wait(Duration::from_secs(30), || bots.iter().all(|bot| lists(bot, "swan"))).is_some());
    original.assert_well();
    original.stop();
    let lost = wait(Duration::from_secs(15), || bots.iter().all(|bot| !lists(bot, "swan")));
    eprintln!("lost after {lost:.1?}");
    assert!(lost.is_some(), "a guest that is gone is listed on");
    // One of ours, of the same name and at the same target.
    let heir = Plan {
        name: "swan".to_owned(),
        mesh_port: original.target.port(),
        ..plans_at(plans[0].address, 1).remove(0)
    };
    let heir = Plan { seeds: vec![plans[0].target()], ..heir }.start();
    let bots: Vec<_> = bots.into_iter().chain([heir]).collect();
    settle(&bots);
}

/// Seconds since the pair of this bot that was measured longest ago was.
fn longest_gap(bot: &Bot) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let text = support::get(bot.api(), "/metrics").map(|answer| answer.body).unwrap_or_default();
    let lines = text
        .lines()
        .filter(|line| line.starts_with("canary_probe_last_success_timestamp_seconds{"));
    lines
        .filter_map(|line| Some(now - line.rsplit(' ').next()?.parse::<f64>().ok()?))
        .fold(0.0, f64::max)
}

/// Three and three; one after the other the old are replaced, while every pair stays measured at
/// the first of ours.
#[test]
fn the_old_are_replaced_one_by_one_and_every_pair_stays_measured() {
    let _turn = alone();
    let plans = plans_at(own_address(), 3);
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let targets = [plans[0].target(), plans[1].target()];
    let mut originals: Vec<_> = (0..3)
        .map(|number| Original::start_on(&format!("old-{number}"), plans[0].address, &targets))
        .collect();
    becomes_whole(&bots, &originals);
    let mut bots = bots;
    while let Some(mut leaving) = originals.pop() {
        leaving.assert_well();
        leaving.stop();
        let heir = Plan {
            name: leaving.name.clone(),
            mesh_port: leaving.target.port(),
            ..plans_at(plans[0].address, 1).remove(0)
        };
        bots.push(Plan { seeds: vec![plans[0].target()], ..heir }.start());
        // Ours measure every pair every three seconds, whatever is at the other end.
        let (begun, mut worst) = (Instant::now(), 0.0_f64);
        let watched = wait(Duration::from_secs(60), || {
            worst = bots.iter().map(longest_gap).fold(worst, f64::max);
            let settled = bots.iter().all(|bot| bot.nodes().is_some_and(|nodes| nodes.len() == 5))
                && bots[0].measured_pairs().len() == 30;
            settled && begun.elapsed() > Duration::from_secs(12)
        });
        assert!(watched.is_some(), "{:?}: {:?}", bots[0].nodes(), bots[0].measured_pairs());
        eprintln!(
            "replaced {}: no pair of ours went unmeasured for more than {worst:.1} s",
            leaving.name
        );
        assert!(worst < 6.0, "a pair was not measured for {worst:.1} s");
        originals.iter().for_each(Original::assert_well);
    }
    assert!(wait(PATIENCE, || whole(&bots, &[])).is_some());
}

#[test]
fn samples_of_250_hosts_reach_a_guest_in_pages_that_it_takes() {
    use support::puppet::{Message, Puppet, heard};
    let _turn = alone();
    let plan = Plan { seeds: Vec::new(), ..plans_at(own_address(), 1).remove(0) };
    let bot = plan.start();
    let mesh: std::net::SocketAddr = plan.target().parse().unwrap();
    assert!(wait(Duration::from_secs(10), || bot.nodes().is_some()).is_some());
    let puppets: Vec<_> = (1..250)
        .map(|number| Puppet::start(&format!("host-{number:04}"), plan.address, 1))
        .collect();
    let hub = &puppets[0];
    assert!(wait(Duration::from_secs(30), || hub.join(mesh) == Some(1)).is_some());
    let records = puppets[1..]
        .iter()
        .fold(Message::default(), |gossip, puppet| gossip.message(5, &heard(&puppet.node(), 1, 0)));
    hub.gossip(mesh, &records).unwrap();
    assert!(
        wait(Duration::from_secs(60), || bot.nodes().is_some_and(|nodes| nodes.len() == 249))
            .is_some()
    );
    let mut names: Vec<_> =
        puppets.iter().map(|puppet| puppet.name.clone()).chain([plan.name.clone()]).collect();
    names.sort();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    for some in puppets.chunks(20) {
        hub.gossip(mesh, &support::puppet::rows_of(some, &names, 1, now)).unwrap();
    }
    hub.gossip(mesh, &Message::default().bytes(7, &support::puppet::packed_roster(&names)))
        .unwrap();
    assert!(
        wait(Duration::from_secs(30), || bot.measured() > 249 * 248).is_some(),
        "{} pairs",
        bot.measured()
    );
    // Two of the 250 hosts care for each guest; by its name this one falls to the only host that is
    // a real bot.
    let original = Original::start_on("old-0", plan.address, &[plan.target()]);
    let told = wait(Duration::from_secs(90), || original.state().samples.len() >= 2 * 249 * 248);
    original.assert_well();
    let count = original.state().samples.len();
    let longest = original.state().longest;
    eprintln!("{count} samples after {told:.1?}, in messages of at most {longest} bytes");
    assert!(told.is_some(), "{count} samples");
    assert!(longest <= 512 * 1024 + 64, "{longest} bytes");
    assert!(original.nodes().len() >= 200, "{} nodes", original.nodes().len());
}

#[test]
fn hostile_content_of_the_originals_kind_harms_nobody() {
    use support::original::{call_now, sample};
    use support::puppet::Message;
    let _turn = alone();
    let plans = plans_at(own_address(), 2);
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let original = Original::start_on("old", plans[0].address, &[plans[0].target()]);
    assert!(
        wait(Duration::from_secs(30), || bots
            .iter()
            .all(|bot| bot.nodes().is_some_and(|nodes| nodes.len() == 2)))
        .is_some()
    );
    let target: std::net::SocketAddr = plans[0].target().parse().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let node = |name: &[u8], target: &[u8]| Message::default().bytes(1, name).bytes(2, target);
    let long = "x".repeat(1 << 20);
    for (name, at) in [
        ("", ""),
        ("", "a:1"),
        ("a", ""),
        ("a", "unix:/x"),
        ("a", "a\u{7f}:1"),
        ("a\n", "a:1"),
        (long.as_str(), "a:1"),
        ("a", long.as_str()),
        ("bot-00", "elsewhere:1"),
    ] {
        let node = node(name.as_bytes(), at.as_bytes());
        for method in ["JoinMesh", "Ping"] {
            let _ = call_now(target, method, &node.0);
        }
        let _ = call_now(
            target,
            "NodeDiscovery",
            &Message::default().message(1, &node).message(2, &node).0,
        );
    }
    // A guest that claims the address of one of ours does not make that one's probes its own.
    for _ in 0..20 {
        let _ = call_now(target, "JoinMesh", &node(b"pretender", plans[1].target().as_bytes()).0);
    }
    let push = |samples: &[Message]| {
        let all = samples.iter().fold(Message::default(), |all, sample| all.message(1, sample));
        let _ = call_now(target, "PushSamples", &all.0);
    };
    push(&[
        sample("", "", 2, "", 0),
        sample("old", "", 2, "1", now),
        sample("old", "bot-00", 2, "", now),
        sample("old", "bot-00", 2, "-1", now),
        sample("old", "bot-00", 2, "1e9", now),
        sample("old", "bot-00", 99, "1", now),
        // A lie about the future would hide all that follows.
        sample("old", "bot-00", 2, "7777777", now + 3600),
        sample("old", "bot-00", 2, "7777777", i64::MAX),
        sample("old", "bot-00", 2, "7777777", -1),
        // A row of ours is its own.
        sample("bot-01", "bot-00", 2, "7777777", now + 30),
        // Of a stranger nothing is kept.
        sample("nobody", "bot-00", 2, "7777777", now),
    ]);
    // An outage told as a latency is a failure.
    push(&[
        sample("old", "bot-01", 2, "248000000000", now + 20),
        sample("old", "bot-01", 3, "248000000000", now + 20),
    ]);
    // Five megabytes, and bytes that are no message.
    let _ = call_now(target, "PushSamples", &vec![10; 5 << 20]);
    let _ = call_now(target, "PushSamples", &[0xff; 100]);
    let nan = || {
        bots.iter().all(|bot| {
            bot.samples().iter().any(|sample| {
                sample.from == "old" && sample.to == "bot-01" && sample.nanos.is_none()
            })
        })
    };
    assert!(wait(Duration::from_secs(20), nan).is_some(), "{:?}", bots[0].samples());
    for bot in &bots {
        let samples = bot.samples();
        assert!(
            samples.iter().all(|sample| sample.nanos != Some(7_777_777)
                && sample.nanos.is_none_or(|nanos| nanos < 3_000_000_000)),
            "{samples:?}"
        );
        assert!(
            samples.iter().all(|sample| sample.from != "nobody" && sample.to != "nobody"),
            "{samples:?}"
        );
        assert_eq!(bot.nodes().unwrap().len(), 2, "{:?}", bot.nodes());
    }
    original.assert_well();
    let metrics = support::get(bots[0].api(), "/metrics").unwrap().body;
    assert!(
        metrics.contains("canary_probes_total{target=\"bot-01\",result=\"identity\"} 0\n"),
        "{metrics}"
    );
    assert!(!metrics.contains("pretender"), "{metrics}");
    // And what the original tells later counts again.
    let counts = || {
        bots.iter().all(|bot| {
            bot.samples().iter().any(|sample| {
                sample.from == "old" && sample.to == "bot-00" && sample.nanos.is_some()
            })
        })
    };
    assert!(wait(Duration::from_secs(40), counts).is_some(), "{:?}", bots[0].samples());
}

#[test]
fn a_mesh_token_keeps_the_originals_outside_and_it_is_said_when_one_comes() {
    let _turn = alone();
    let mut plans = plans_at(own_address(), 2);
    plans
        .iter_mut()
        .for_each(|plan| plan.more.extend(["--mesh-token", "of-the-mesh"].map(str::to_owned)));
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    assert!(!bots[0].logged().contains("original"), "nobody has met one yet: {}", bots[0].logged());
    let original = Original::start_on("old", plans[0].address, &[plans[0].target()]);
    let refused = || {
        support::get(bots[0].api(), "/metrics").unwrap().body.lines().any(|line| {
            line.starts_with("canary_mesh_refused_total{reason=\"mesh_token\"}")
                && !line.ends_with(" 0")
        })
    };
    assert!(wait(Duration::from_secs(20), refused).is_some());
    assert!(
        bots[0]
            .logged()
            .contains("a bot of the original stays outside: it cannot present a mesh token"),
        "{}",
        bots[0].logged()
    );
    assert!(original.nodes().is_empty() && bots.iter().all(|bot| bot.nodes().unwrap().len() == 1));
    original.assert_well();
}

/// The bots of the guide's commands, with free ports in the place of its.
#[test]
fn the_commands_of_the_guide_run() {
    let _turn = alone();
    let guide = include_str!("../../../docs/migrate.md").replace("\\\n", " ");
    let commands: Vec<_> = guide.lines().filter(|line| line.starts_with("canary-bot ")).collect();
    assert_eq!(commands.len(), 2);
    let ports = support::free_ports("127.0.0.1".parse().unwrap(), 4);
    let mut bots: Vec<_> = commands
        .iter()
        .map(|command| {
            let given = (0..4).fold((*command).to_owned(), |line, index| {
                line.replace(&format!("808{index}"), &format!("@{index}@"))
            });
            let given = (0..4).fold(given, |line, index| {
                line.replace(&format!("@{index}@"), &ports[index].to_string())
            });
            let mut bot = std::process::Command::new(env!("CARGO_BIN_EXE_canary-bot"));
            bot.args(given.split_whitespace().skip(1))
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::null());
            bot.spawn().unwrap()
        })
        .collect();
    let tokens: Vec<_> = bots
        .iter_mut()
        .map(|bot| {
            let mut line = String::new();
            std::io::BufRead::read_line(
                &mut std::io::BufReader::new(bot.stdout.take().unwrap()),
                &mut line,
            )
            .unwrap();
            line.trim().strip_prefix("token: ").unwrap().to_owned()
        })
        .collect();
    let serves = |port: u16, token: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        let answer = support::get_with(([127, 0, 0, 1], port).into(), "/api/v1/samples", &header);
        answer.is_ok_and(|answer| {
            ["eagle", "duck"]
                .iter()
                .all(|from| answer.body.contains(&format!(r#""from":"{from}""#)))
        })
    };
    let whole = wait(Duration::from_secs(20), || {
        serves(ports[1], &tokens[0]) && serves(ports[3], &tokens[1])
    });
    for bot in &mut bots {
        let _ = bot.kill();
        let _ = bot.wait();
    }
    assert!(whole.is_some());
}

/// The original heals nothing: who gave up somebody never asks again, and who restarts knows
/// nobody. Ours do it for them.
#[test]
fn who_was_given_up_or_forgot_everybody_is_brought_back() {
    let _turn = alone();
    let address = own_address();
    let mut originals =
        vec![Original::start_on("old-0", address, &[]), Original::start_on("old-1", address, &[])];
    // Ours know them, and they know nobody.
    let seeds: Vec<_> = originals.iter().map(|original| original.target.to_string()).collect();
    let plans: Vec<_> = plans_at(address, 2)
        .into_iter()
        .map(|plan| Plan { seeds: [seeds.clone(), plan.seeds.clone()].concat(), ..plan })
        .collect();
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    becomes_whole(&bots, &originals);
    originals[0].state().nodes.remove("old-1");
    let again = wait(Duration::from_secs(45), || originals[0].nodes().contains("old-1"));
    assert!(again.is_some(), "who was given up by one was not brought back to it");
    assert!(
        bots.iter().all(|bot| bot.nodes().is_some_and(|nodes| nodes.contains("old-1"))),
        "one of the original gave it up, and so did ours"
    );
    let target = originals[1].target;
    originals[1].stop();
    assert!(
        wait(Duration::from_secs(15), || bots
            .iter()
            .all(|bot| bot.nodes().is_some_and(|nodes| !nodes.contains("old-1"))))
        .is_some()
    );
    originals[1] = Original::start("old-1", target, &[]);
    becomes_whole(&bots, &originals);
}

/// The original's first two command lines, with names that resolve here and a port for each API.
#[test]
fn the_originals_command_lines_with_certificates_run() {
    use support::pki::{Authority, Directory, GOOD};
    let _turn = alone();
    let (directory, authority) = (Directory::new(), Authority::new("the authority"));
    let ca = directory.write("ca.pem", &authority.pem());
    let mut plans = plans_at("127.0.0.1".parse().unwrap(), 2);
    let targets = ["localhost"; 2]
        .iter()
        .zip(&plans)
        .map(|(host, plan)| format!("{host}:{}", plan.mesh_port))
        .collect::<Vec<_>>();
    for (index, plan) in plans.iter_mut().enumerate() {
        let own = authority.issue(&plan.name, &["localhost", "127.0.0.1"], GOOD);
        let certificate = directory.write(&format!("{}.pem", plan.name), &own.0);
        // A path for the certificate, and base64 for the key.
        let key = support::base64(&own.1);
        plan.seeds = vec![targets[1 - index].clone()];
        let flags = [
            "--ca-cert-path",
            &ca,
            "--server-cert-path",
            &certificate,
            "--server-key",
            &key,
            "--join-address",
            &targets[index],
        ];
        plan.more = flags.map(str::to_owned).to_vec();
        support::trust(std::net::SocketAddr::new(plan.address, plan.api_port), &authority.pem());
    }
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    // Who presents no certificate, as bots of the original, is refused, and what admits it is said.
    let stream = std::net::TcpStream::connect((plans[0].address, plans[0].mesh_port)).unwrap();
    let session = rustls::ClientConnection::new(
        support::tls_client(&authority.pem(), None),
        plans[0].address.into(),
    )
    .unwrap();
    let _ = std::io::Read::read(&mut rustls::StreamOwned::new(session, stream), &mut [0]);
    let told = || bots[0].logged().contains("--client-auth optional");
    assert!(
        wait(Duration::from_secs(10), told).is_some(),
        "the one exception is not told: {}",
        bots[0].logged()
    );
}

#[test]
fn what_is_spoken_can_be_pinned() {
    let _turn = alone();
    let pinned = |protocol: &str| {
        let plan = plans_at(own_address(), 1).remove(0);
        let plan = Plan {
            seeds: Vec::new(),
            more: ["--mesh-protocol", protocol].map(str::to_owned).to_vec(),
            ..plan
        };
        let bot = plan.start();
        assert!(wait(Duration::from_secs(10), || bot.nodes().is_some()).is_some());
        (Original::start_on("old", plan.address, &[plan.target()]), bot)
    };
    let ((outside, ours), (inside, theirs)) = (pinned("v2"), pinned("v1"));
    becomes_whole(std::slice::from_ref(&theirs), std::slice::from_ref(&inside));
    assert!(outside.nodes().is_empty() && ours.nodes().is_some_and(|nodes| nodes.is_empty()));
    outside.assert_well();
}

/// The one exception that a user of the original makes: bots of it present no certificate as
/// clients.
#[test]
fn in_mutual_mode_the_originals_are_admitted_while_client_certificates_are_optional() {
    use support::original::Tls;
    use support::pki::{Authority, Directory, GOOD, Kind};
    let _turn = alone();
    let (directory, authority) = (Directory::new(), Authority::new("the authority"));
    let address = own_address();
    let mut plans = plans_at(address, 2);
    let ca = directory.write("ca.pem", &authority.pem());
    for plan in &mut plans {
        let own = authority.issue(&plan.name, &[&address.to_string()], GOOD);
        let certificate = directory.write(&format!("{}.pem", plan.name), &own.0);
        let key = directory.write(&format!("{}-key.pem", plan.name), &own.1);
        let flags = [
            "--ca-cert-path",
            &ca,
            "--server-cert-path",
            &certificate,
            "--server-key-path",
            &key,
            "--client-auth",
            "optional",
        ];
        plan.more = flags.map(str::to_owned).to_vec();
        support::trust(std::net::SocketAddr::new(address, plan.api_port), &authority.pem());
    }
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let own = authority.issue("old-0", &[&address.to_string()], Kind { client: false, ..GOOD });
    let mut client = (*support::tls_client(&authority.pem(), None)).clone();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let tls = Tls { server: support::tls_server(&own), client: client.into() };
    let target = std::net::SocketAddr::new(address, support::free_ports(address, 1)[0]);
    let original = Original::start_with("old-0", target, &[plans[0].target()], Some(tls));
    becomes_whole(&bots, std::slice::from_ref(&original));
}

/// Its hosts may know a guest by different targets: it is one node all the same, and stays one.
#[test]
fn a_guest_that_is_known_by_two_targets_is_one_node() {
    let _turn = alone();
    let mut plans = plans_at("127.0.0.1".parse().unwrap(), 2);
    let original = Original::start_on("old-0", plans[0].address, &[]);
    let port = original.target.port();
    plans[0].seeds = vec![format!("127.0.0.1:{port}"), plans[1].target()];
    plans[1].seeds = vec![format!("localhost:{port}"), plans[0].target()];
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    becomes_whole(&bots, std::slice::from_ref(&original));
    let begun = Instant::now();
    let flapped = wait(Duration::from_secs(20), || {
        bots.iter().any(|bot| bot.nodes().is_none_or(|nodes| nodes.len() != 2))
    });
    assert!(
        flapped.is_none(),
        "after {:?}: {:?}",
        begun.elapsed(),
        bots.iter().map(Bot::nodes).collect::<Vec<_>>()
    );
    assert!(whole(&bots, std::slice::from_ref(&original)));
}
