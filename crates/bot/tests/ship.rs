//! What a host, a Prometheus and an Alertmanager get: the unit, the alerts, the dashboards.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::tools::{Running, program, said};
use support::{TOKEN, alone, free_ports, get, mesh, plans, settle, wait};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A folder that goes with its holder.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("canary-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts a program that says things to a file.
fn start(command: &mut Command, log: &Path) -> Running {
    let log = std::fs::File::create(log).unwrap();
    Running::saying(command, log.try_clone().unwrap().into(), log.into())
}

#[test]
fn a_supervisor_hears_that_the_bot_is_ready_that_its_loop_runs_and_that_it_leaves() {
    let _turn = alone();
    let folder = Folder::new("notify");
    let path = folder.0.join("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let hear = || {
        let mut message = [0; 256];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).trim().to_owned()
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_canary-bot"));
    let plan = plans(1).remove(0);
    command.args([
        "--name",
        "owl",
        "--listen-address",
        &plan.address.to_string(),
        "--listen-port",
        "0",
        "-p",
        "0",
        "--token",
        TOKEN,
    ]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000").stderr(Stdio::piped());
    let mut bot = plan.start_bare(command);
    let first: BTreeSet<_> = (0..6).map(|_| hear()).collect();
    assert_eq!(first, BTreeSet::from(["READY=1".to_owned(), "WATCHDOG=1".to_owned()]));
    bot.signal("TERM");
    assert!(wait(Duration::from_secs(5), || hear() == "STOPPING=1").is_some());
    assert!(bot.ended(Duration::from_secs(5)).is_some_and(|status| status.success()));
}

#[test]
fn the_unit_is_valid_and_exposes_little() {
    if program("systemd-analyze").is_none() {
        return;
    }
    let folder = Folder::new("unit");
    let unit =
        std::fs::read_to_string(format!("{ROOT}/deploy/systemd/canary-bot.service")).unwrap();
    // Where the package puts the program there is none here.
    let unit = unit.replace("/usr/bin/canary-bot", env!("CARGO_BIN_EXE_canary-bot"));
    let path = folder.write("canary-bot.service", &unit);
    let (_, said_of_it) =
        said(program("systemd-analyze").unwrap().args(["verify", "--man=no", &path]));
    assert!(!said_of_it.contains("canary-bot.service"), "{said_of_it}");
    let (done, exposure) = said(program("systemd-analyze").unwrap().args([
        "security",
        "--offline=true",
        "--threshold=20",
        &path,
    ]));
    let last =
        exposure.lines().rev().find(|line| line.contains("exposure level")).unwrap_or_default();
    eprintln!("{last}");
    assert!(done, "{exposure}");
    // The sample of the configuration works as it is, and with every line in force but for files
    // that are not there.
    let config = std::fs::read_to_string(format!("{ROOT}/deploy/systemd/config.toml")).unwrap();
    let all: String = config
        .lines()
        .map(|line| {
            line.strip_prefix("# ")
                .filter(|rest| {
                    rest.contains(" = ") && !rest.contains("-path") && !rest.contains("-file")
                })
                .unwrap_or(line)
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    for text in [&config, &all] {
        let path = folder.write("config.toml", text);
        let (done, why) = said(Command::new(env!("CARGO_BIN_EXE_canary-bot")).args([
            "run",
            "--config",
            &path,
            "--dry-run",
        ]));
        assert!(done, "{why}\n{text}");
    }
    assert!(
        all.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count() >= 4,
        "{all}"
    );
}

#[test]
fn every_alert_fires_when_it_should_and_is_silent_when_it_should_be() {
    let Some(mut promtool) = program("promtool") else { return };
    let checked = Command::new(promtool.get_program())
        .args(["check", "config", "--syntax-only"])
        .arg(format!("{ROOT}/examples/prometheus.yml"))
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let (done, why) = said(promtool.args([
        "test",
        "rules",
        &format!("{ROOT}/charts/canary-bot/ci/alerts_test.yaml"),
    ]));
    assert!(done, "{why}");
    let alerts =
        std::fs::read_to_string(format!("{ROOT}/charts/canary-bot/files/alerts.yaml")).unwrap();
    let tests =
        std::fs::read_to_string(format!("{ROOT}/charts/canary-bot/ci/alerts_test.yaml")).unwrap();
    let runbooks = std::fs::read_to_string(format!("{ROOT}/docs/runbooks.md")).unwrap();
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let firing = tests.split("- eval_time:").any(|test| {
            test.contains(&format!("alertname: {alert}\n")) && test.contains("exp_labels")
        });
        assert!(
            firing && tests.contains(&format!("alertname: {alert}, exp_alerts: []")),
            "{alert} has no test for firing, or none for silence"
        );
        assert!(runbooks.contains(&format!("## {alert}\n")), "{alert} has no runbook");
    }
}

/// A Prometheus that scrapes bots, with the alerts, and short times.
fn prometheus(
    folder: &Folder,
    bots: &[SocketAddr],
    alertmanager: Option<SocketAddr>,
    native: bool,
) -> (Running, SocketAddr) {
    let targets: Vec<_> = bots.iter().map(|bot| format!("\"{bot}\"")).collect();
    let alerts =
        std::fs::read_to_string(format!("{ROOT}/charts/canary-bot/files/alerts.yaml")).unwrap();
    let rules = folder.write("alerts.yaml", &alerts.replace("for: 30s", "for: 2s"));
    let alerting = alertmanager.map_or_else(String::new, |at| {
        format!(
            "alerting: {{ alertmanagers: [{{ static_configs: [{{ targets: [\"{at}\"] }}] }}] }}\n"
        )
    });
    let config = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [\"{rules}\"]\n{alerting}scrape_configs:\n  - job_name: canary\n    \
         authorization: {{ credentials: {TOKEN} }}\n    static_configs: [{{ targets: [{}] }}]\n",
        targets.join(", ")
    );
    let config = folder.write("prometheus.yaml", &config);
    let listen = SocketAddr::new(LOOPBACK, free_ports(LOOPBACK, 1)[0]);
    let mut command = program("prometheus").unwrap();
    command.args([
        &format!("--config.file={config}"),
        &format!("--web.listen-address={listen}"),
        "--log.level=warn",
    ]);
    command.arg(format!("--storage.tsdb.path={}", folder.0.join("data").display()));
    if native {
        command.arg("--enable-feature=native-histograms");
    }
    (start(&mut command, &folder.0.join("prometheus.log")), listen)
}

/// The result of a query; nothing if there is none.
fn query(prometheus: SocketAddr, expression: &str) -> Vec<Value> {
    let encoded: String = expression
        .bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect();
    let answer = get(prometheus, &format!("/api/v1/query?query={encoded}"))
        .ok()
        .and_then(|answer| serde_json::from_str::<Value>(&answer.body).ok());
    let answer = answer.unwrap_or_default();
    assert!(answer["status"] != "error", "{expression}: {answer}");
    answer["data"]["result"].as_array().cloned().unwrap_or_default()
}

/// Every query of every dashboard, with variables filled in.
fn dashboard_queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for board in ["mesh", "pair", "node", "bots"] {
        let text = std::fs::read_to_string(format!(
            "{ROOT}/charts/canary-bot/files/dashboards/{board}.json"
        ))
        .unwrap();
        let board: Value = serde_json::from_str(&text).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let mut expression = target["expr"].as_str().unwrap().to_owned();
                for (variable, value) in [
                    ("$__rate_interval", "10s"),
                    ("[2m]", "[4s]"),
                    ("[5m]", "[10s]"),
                    ("$job", ".*"),
                    ("$source", "bot-00"),
                    ("$target", "bot-01"),
                    ("$node", "bot-01"),
                ] {
                    expression = expression.replace(variable, value);
                }
                assert!(!expression.contains('$'), "{expression}");
                queries.push((
                    format!(
                        "{}: {}",
                        board["title"].as_str().unwrap(),
                        panel["title"].as_str().unwrap()
                    ),
                    expression,
                ));
            }
        }
    }
    queries
}

#[test]
fn every_query_of_every_dashboard_returns_data_with_classic_and_with_native_histograms() {
    let _turn = alone();
    if program("prometheus").is_none() {
        return;
    }
    let mut bots = mesh(4);
    let addresses: Vec<_> = bots.iter().map(support::Bot::api).collect();
    let folders = [Folder::new("classic"), Folder::new("native")];
    let running = [(0, false), (1, true)]
        .map(|(index, native)| prometheus(&folders[index], &addresses, None, native));
    // A real fault, so that failures and incidents have data too.
    let mut victim = bots.pop().unwrap();
    victim.kill();
    for (index, (_, address)) in running.iter().enumerate() {
        let mut empty = dashboard_queries();
        assert!(empty.len() > 30, "{}", empty.len());
        let all = wait(Duration::from_secs(60), || {
            empty.retain(|(_, expression)| query(*address, expression).is_empty());
            empty.is_empty()
        });
        eprintln!(
            "{}: all queries have data after {all:.1?}",
            if index == 0 { "classic" } else { "native" }
        );
        assert!(all.is_some(), "no data: {empty:#?}");
    }
    let native = query(running[1].1, "count(canary_probe_duration_seconds)");
    let classic = query(running[1].1, "count(canary_probe_duration_seconds_bucket)");
    assert!(!native.is_empty() && classic.is_empty(), "this Prometheus takes no native histograms");
}

#[test]
fn a_killed_bot_makes_exactly_one_page() {
    let _turn = alone();
    if program("prometheus").is_none() || program("prometheus-alertmanager").is_none() {
        return;
    }
    let folder = Folder::new("page");
    let config = folder.write(
        "alertmanager.yaml",
        "route: { receiver: nobody, group_by: [alertname, job, culprit], group_wait: 1s }\nreceivers: [{ name: nobody }]\n",
    );
    let listen = SocketAddr::new(LOOPBACK, free_ports(LOOPBACK, 1)[0]);
    let mut command = program("prometheus-alertmanager").unwrap();
    command.args([
        &format!("--config.file={config}"),
        &format!("--web.listen-address={listen}"),
        "--cluster.listen-address=",
    ]);
    command.arg(format!("--storage.path={}", folder.0.join("alerts").display()));
    let _alertmanager = start(&mut command, &folder.0.join("alertmanager.log"));
    let mut bots = mesh(4);
    settle(&bots);
    let addresses: Vec<_> = bots.iter().map(support::Bot::api).collect();
    let (_prometheus, address) = prometheus(&folder, &addresses, Some(listen), false);
    assert!(
        wait(Duration::from_secs(30), || query(address, "sum(up)")
            .first()
            .is_some_and(|sum| sum["value"][1] == "4"))
        .is_some()
    );
    let pages = || -> Vec<(String, String)> {
        let answer = get(listen, "/api/v2/alerts")
            .ok()
            .and_then(|answer| serde_json::from_str::<Vec<Value>>(&answer.body).ok());
        let word =
            |alert: &Value, key: &str| alert["labels"][key].as_str().unwrap_or_default().to_owned();
        let critical = |alert: &Value| {
            (alert["labels"]["severity"] == "critical")
                .then(|| (word(alert, "alertname"), word(alert, "culprit")))
        };
        answer.unwrap_or_default().iter().filter_map(critical).collect()
    };
    assert!(pages().is_empty(), "{:?}", pages());
    bots.pop().unwrap().kill();
    let paged = wait(Duration::from_secs(60), || !pages().is_empty());
    eprintln!("the page comes after {paged:.1?}");
    // More of them would come as the others find out.
    let more = wait(Duration::from_secs(20), || pages().len() > 1);
    assert!(paged.is_some() && more.is_none(), "{:?}", pages());
    assert_eq!(pages(), [("CanaryNodeUnreachable".to_owned(), "bot-03".to_owned())]);
}
