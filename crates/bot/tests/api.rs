//! The API port, asked by a client that is not ours to trust.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use support::{Bot, Plan, TOKEN, alone, get, get_json, get_with, mesh, plans, settle, wait};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn metrics_tell_as_much_of_each_pair_as_they_are_asked_to() {
    let _turn = alone();
    let mut plans = plans(3);
    plans[0].more = vec![
        "--metrics-level".to_owned(),
        "off".to_owned(),
        "--metrics-legacy".to_owned(),
        "off".to_owned(),
    ];
    plans[1].more = vec!["--metrics-level".to_owned(), "pairs".to_owned()];
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let has = |bot: &Bot, name: &str| {
        get(bot.api(), "/metrics").unwrap().body.lines().any(|line| line.starts_with(name))
    };
    for (name, off, pairs, histograms) in [
        ("canary_mesh_members", true, true, true),
        ("canary_probes_total", false, true, true),
        ("canary_probe_phase_duration_seconds_sum", false, true, true),
        ("canary_probe_duration_seconds_bucket", false, false, true),
        ("rtt_bucket", false, false, true),
        ("node_count", false, true, true),
    ] {
        assert_eq!(
            [has(&bots[0], name), has(&bots[1], name), has(&bots[2], name)],
            [off, pairs, histograms],
            "{name}"
        );
    }
}

#[test]
fn the_originals_answers_are_spelled_as_the_original_spells_them() {
    let _turn = alone();
    let bots = mesh(3);
    let nodes = get_json(bots[1].api(), "/api/v1/nodes").unwrap();
    assert_eq!(
        nodes,
        serde_json::json!({ "nodes": ["bot-01", "bot-00", "bot-02"] }),
        "the bot itself comes first"
    );
    let samples = bots[1].samples();
    assert_eq!(samples.len(), 3 * 2 * 2);
    for sample in &samples {
        let ts = sample.ts.as_bytes();
        assert!(
            sample.ts.ends_with(" +0000 UTC")
                && ts[4] == b'-'
                && ts[10] == b' '
                && ts[13] == b':'
                && ts.len() == 29,
            "{}",
            sample.ts
        );
        assert!(sample.nanos.is_some_and(|nanos| nanos > 1_000), "{sample:?}");
    }
    let kinds: BTreeSet<_> = samples.iter().map(|sample| sample.kind.as_str()).collect();
    assert_eq!(kinds, BTreeSet::from(["rtt_request", "rtt_total"]));
    // An answer without samples leaves the list out, as proto3 JSON does.
    let mut lonely = plans(1).remove(0);
    lonely.seeds.clear();
    let lonely = lonely.start();
    assert!(wait(secs(5), || lonely.nodes().is_some()).is_some());
    assert_eq!(get(lonely.api(), "/api/v1/samples").unwrap().body, "{}");
}

#[test]
fn a_failed_pair_is_nan_and_counted() {
    let _turn = alone();
    // Probes that give up soon: their failures are there before the node is considered dead.
    let mut plans = plans(3);
    for plan in &mut plans {
        plan.more =
            ["--probe-timeout", "200ms", "--probe-interval", "300ms"].map(str::to_owned).to_vec();
    }
    let mut bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let victim = bots.pop().unwrap();
    victim.signal("STOP");
    let mut counted = None;
    let failed = wait(secs(3), || {
        counted = metric(
            &bots[0],
            "canary_probes_total",
            &[("target", victim.name()), ("result", "timeout")],
        )
        .or(counted);
        let failed = |sample: &support::Sample| {
            sample.from == bots[1].name() && sample.to == victim.name() && sample.nanos.is_none()
        };
        bots[0].samples().iter().any(failed) && counted.is_some_and(|count| count >= 1.0)
    });
    assert!(failed.is_some(), "every bot serves that the pair failed; counted {counted:?}");
    // Once the node is dead its samples are gone; its series stay and go on counting, for alerts
    // rest on them.
    let dead = wait(secs(30), || {
        metric(&bots[0], "canary_mesh_members", &[("state", "dead")]) == Some(1.0)
    });
    assert!(dead.is_some());
    assert_eq!(metric(&bots[0], "canary_mesh_node_up", &[("node", victim.name())]), Some(0.0));
    let timeouts = || {
        metric(&bots[0], "canary_probes_total", &[("target", victim.name()), ("result", "timeout")])
    };
    let at_death = timeouts().expect("its series are there");
    assert!(
        wait(secs(60), || timeouts().is_some_and(|count| count > at_death)).is_some(),
        "the outage goes on"
    );
    assert_eq!(
        metric(&bots[0], "rtt_count", &[("to", victim.name())]),
        None,
        "the original's series vanish with the node"
    );
    assert!(
        bots[0]
            .samples()
            .iter()
            .all(|sample| sample.to != victim.name() && sample.from != victim.name())
    );
}

#[test]
fn a_healthy_mesh_has_a_verdict_and_no_incidents_at_every_bot_and_status_says_so() {
    let _turn = alone();
    let bots = mesh(3);
    for bot in &bots {
        let verdict = || get_json(bot.api(), "/api/v2/verdict").unwrap_or_default();
        assert!(
            wait(secs(5), || verdict()["verdict"] == "All 3 nodes reach each other.").is_some(),
            "{}",
            verdict()
        );
        let verdict = verdict();
        assert_eq!(
            (&verdict["healthy"], &verdict["severity"], &verdict["node"]),
            (&true.into(), &serde_json::Value::Null, &bot.name().into())
        );
        assert_eq!(verdict["pairs"], serde_json::json!({ "ok": 6, "failed": 0, "unknown": 0 }));
        assert_eq!(verdict["nodes"], serde_json::json!({ "known": 3, "visible": 3 }));
        assert_eq!(
            get_json(bot.api(), "/api/v2/incidents").unwrap(),
            serde_json::json!({ "incidents": [] })
        );
        assert!(
            metric(bot, "canary_incidents", &[("kind", "bot_down"), ("severity", "critical")])
                .is_some_and(|open| open == 0.0)
        );
    }
    for query in ["?state=broken", "?since=yesterday"] {
        let answer = get(bots[0].api(), &format!("/api/v2/incidents{query}")).unwrap();
        assert!(
            answer.status == 400 && answer.headers.contains("application/problem+json"),
            "{query}: {}",
            answer.body
        );
    }
    let status = |token: &str| {
        let path = std::env::temp_dir().join(format!("canary-api-status-{}", std::process::id()));
        std::fs::write(&path, token).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_canary-bot"));
        command
            .args(["status", "--server", &format!("http://{}", bots[0].api()), "--token-file"])
            .arg(&path);
        let output = command.output().unwrap();
        std::fs::remove_file(path).unwrap();
        (
            output.status.code(),
            format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
        )
    };
    let (code, said) = status(TOKEN);
    assert!(
        code == Some(0)
            && said.starts_with("All 3 nodes reach each other.\n")
            && said.ends_with("incidents  none\n"),
        "{said}"
    );
    let (code, said) = status("another-token");
    assert!(
        code == Some(1)
            && said.contains("give it by --token-file")
            && !said.contains("another-token"),
        "{said}"
    );
}

#[test]
fn everything_but_the_health_paths_wants_a_token() {
    let _turn = alone();
    let bot = lone_bot();
    for path in ["/api/v2/verdict", "/api/v2/stream", "/api/v2/no/such/path"] {
        let answer = get_with(bot.api(), path, "Authorization: Bearer nonsense\r\n").unwrap();
        assert!(
            answer.status == 401 && answer.headers.contains("application/problem+json"),
            "{path}: {answer:?}"
        );
        assert!(answer.headers.contains("www-authenticate: bearer"), "{}", answer.headers);
    }
    for path in ["/api/v1/samples", "/api/v1/nodes", "/version", "/no/such/path"] {
        let answer = get_with(bot.api(), path, "").unwrap();
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (401, r#"{"code":16,"message":"no token provided"}"#),
            "{path}"
        );
        assert!(answer.headers.contains("www-authenticate: bearer"), "{}", answer.headers);
        let answer = get_with(bot.api(), path, "Authorization: Bearer nonsense\r\n").unwrap();
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (401, r#"{"code":16,"message":"auth failed"}"#),
            "{path}"
        );
    }
    let answer = get_with(bot.api(), "/metrics", "").unwrap();
    assert_eq!((answer.status, answer.body.trim()), (401, "Unauthorized"));
    for path in ["/", "/openapi.json", "/livez", "/readyz"] {
        assert_eq!(get_with(bot.api(), path, "").unwrap().status, 200, "{path}");
    }
    assert_eq!(get(bot.api(), "/no/such/path").unwrap().status, 404);
    assert_eq!(get_json(bot.api(), "/version").unwrap()["version"], env!("CARGO_PKG_VERSION"));
}

fn lone_bot() -> Bot {
    let bot = plans(1).remove(0).start();
    assert!(
        wait(secs(5), || get_with(bot.api(), "/readyz", "")
            .is_ok_and(|answer| answer.status == 200))
        .is_some()
    );
    bot
}

/// The value of one series of `/metrics`.
fn metric(bot: &Bot, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let text = get(bot.api(), "/metrics").ok()?.body;
    let wanted: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    let line = text.lines().find(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| {
            rest.starts_with(['{', ' ']) && wanted.iter().all(|label| rest.contains(label.as_str()))
        })
    })?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn metrics_hold_the_whole_table_and_the_originals_two_families() {
    let _turn = alone();
    let bots = mesh(3);
    let answer = get(bots[0].api(), "/metrics").unwrap();
    assert!(
        answer.headers.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{}",
        answer.headers
    );
    assert!(answer.body.ends_with("# EOF\n"));
    let explained = include_str!("../../../docs/security.md");
    let refused = "canary_mesh_refused_total{reason=\"";
    let reasons =
        answer.body.lines().filter_map(|line| line.strip_prefix(refused)?.split('"').next());
    let unexplained: Vec<_> =
        reasons.filter(|reason| !explained.contains(&format!("`{reason}`"))).collect();
    assert!(unexplained.is_empty(), "docs/security.md does not explain {unexplained:?}");
    assert!(answer.body.contains(&format!("{refused}mesh_idle")), "no reason was looked at");
    for (family, kind) in [
        ("canary_probe_duration_seconds", "histogram"),
        ("canary_probe_phase_duration_seconds", "summary"),
        ("canary_probes", "counter"),
        ("canary_probe_last_success_timestamp_seconds", "gauge"),
        ("canary_probe_schedule_delay_seconds", "histogram"),
        ("canary_mesh_members", "gauge"),
        ("canary_mesh_messages", "counter"),
        ("canary_mesh_bytes", "counter"),
        ("canary_mesh_refused", "counter"),
        ("canary_mesh_row_age_seconds", "gauge"),
        ("canary_api_requests", "counter"),
        ("canary_api_request_duration_seconds", "histogram"),
        ("canary_build_info", "gauge"),
        ("canary_node_info", "gauge"),
        ("process_cpu_seconds", "counter"),
        ("process_resident_memory_bytes", "gauge"),
        ("rtt", "histogram"),
        ("node_count", "gauge"),
    ] {
        assert!(answer.body.contains(&format!("# TYPE {family} {kind}\n")), "{family} {kind}");
        assert!(answer.body.contains(&format!("# HELP {family} ")), "{family}");
    }
    let families: Vec<_> =
        answer.body.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert_eq!(families.len(), families.iter().collect::<BTreeSet<_>>().len(), "each family once");
    assert_eq!(metric(&bots[0], "node_count", &[]), Some(2.0));
    for bound in [
        "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf",
    ] {
        assert!(
            metric(
                &bots[0],
                "rtt_bucket",
                &[("type", "rtt_total"), ("to", "bot-01"), ("le", bound)]
            )
            .is_some(),
            "{bound}"
        );
    }
    // Counters exist before anything was counted.
    assert_eq!(
        metric(&bots[0], "canary_probes_total", &[("target", "bot-02"), ("result", "identity")]),
        Some(0.0)
    );
    assert!(
        metric(&bots[0], "canary_probes_total", &[("target", "bot-02"), ("result", "success")])
            .is_some_and(|count| count >= 1.0)
    );
}

/// Whether the other side closed the connection: silence is not that.
fn closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn slow_and_greedy_clients_harm_nobody() {
    let _turn = alone();
    let bots = mesh(3);
    // Connections that say nothing, that never end their headers, and that never read what they
    // asked for.
    let mut greedy = Vec::new();
    for kind in 0..300 {
        let Ok(mut stream) = TcpStream::connect(bots[0].api()) else { continue };
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let _ = match kind % 3 {
            0 => Ok(()),
            1 => stream.write_all(b"GET /api/v1/samples HTTP/1.1\r\nHost: bot\r\nX-Slow: "),
            _ => stream.write_all(
                format!(
                    "GET /metrics HTTP/1.1\r\nHost: bot\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
                )
                .repeat(200)
                .as_bytes(),
            ),
        };
        greedy.push(stream);
    }
    // One address may hold no more than its share: the rest was closed. Others are served, here by
    // way of the other loopback.
    let closed = greedy.iter_mut().filter_map(|stream| closed(stream).then_some(())).count();
    assert!(closed >= 300 - 128, "{closed} were closed");
    drop(greedy.split_off(100));
    assert!(wait(secs(5), || bots[0].nodes().is_some_and(|known| known.len() == 2)).is_some());
    let probes =
        || metric(&bots[0], "canary_probes_total", &[("target", "bot-01"), ("result", "success")]);
    let before = probes().unwrap();
    assert!(
        wait(secs(10), || probes().is_some_and(|count| count >= before + 2.0)).is_some(),
        "it goes on measuring"
    );
    let long = format!("X-Long: {}\r\n", "a".repeat(100_000));
    assert!(get_with(bots[0].api(), "/livez", &long).map_or(true, |answer| answer.status == 431));
    assert_eq!(bots[0].nodes().map(|known| known.len()), Some(2));
}

#[test]
fn a_name_without_addresses_is_a_target_that_does_not_admit() {
    let _turn = alone();
    let plan = Plan { seeds: vec!["dns:no.invalid:80".to_owned()], ..plans(1).remove(0) };
    let bot = plan.start();
    let failing = || {
        get(bot.api(), "/metrics")
            .is_ok_and(|answer| answer.body.contains("canary_mesh_targets_failing 1"))
    };
    assert!(wait(Duration::from_secs(20), failing).is_some());
    assert!(
        wait(Duration::from_secs(20), || bot.logged().contains("no.invalid")).is_some(),
        "{}",
        bot.logged()
    );
}

#[test]
fn no_token_is_in_a_log_whatever_is_logged() {
    let _turn = alone();
    let mut plans = plans(2);
    for plan in &mut plans {
        plan.more =
            ["--mesh-token", "of-the-mesh-and-nobodys", "--debug-grpc", "--log-level", "trace"]
                .map(str::to_owned)
                .to_vec();
    }
    let mut bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    assert_eq!(get(bots[0].api(), "/api/v1/samples").unwrap().status, 200);
    for bot in &mut bots {
        let log = bot.log();
        assert!(log.contains("frame=Headers"), "the libraries log nothing: {log}");
        assert!(!log.contains(TOKEN) && !log.contains("of-the-mesh-and-nobodys"), "{log}");
    }
}
