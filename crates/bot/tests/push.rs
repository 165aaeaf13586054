//! Metrics that are sent: to a real Prometheus, a real VictoriaMetrics, and a receiver that reads
//! OTLP by its authors' own classes.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::pki::{Authority, Directory, GOOD};
use support::tools::{Running, otlp, program};
use support::{
    Bot, Plan, alone, base64, counted, free_ports, get_with, own_address, plans, settle, wait,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A mesh of two that sends every second.
fn sending(more: &[&str]) -> Vec<Bot> {
    let mut plans = plans(2);
    for plan in &mut plans {
        plan.more
            .extend(more.iter().chain(&["--push-interval", "1s"]).map(|arg| (*arg).to_owned()));
    }
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    bots
}

fn free_address() -> SocketAddr {
    let address = own_address();
    SocketAddr::new(address, free_ports(address, 1)[0])
}

/// What a server with Prometheus' API answers now, as the number of series.
fn series(server: SocketAddr, headers: &str, query: &str) -> Option<usize> {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let answer = get_with(server, &format!("/api/v1/query?query={encoded}"), headers).ok()?;
    let answer: Value = serde_json::from_str(&answer.body).ok()?;
    Some(answer["data"]["result"].as_array()?.len())
}

fn has(server: SocketAddr, headers: &str, query: &str, count: usize) {
    let found = wait(PATIENCE, || series(server, headers, query) == Some(count));
    assert!(found.is_some(), "{query}: {:?} series, not {count}", series(server, headers, query));
}

#[test]
fn prometheus_takes_what_is_sent_also_what_waited_for_it_and_hears_when_a_series_ends() {
    let _turn = alone();
    let Some(mut prometheus) = program("prometheus") else { return };
    let (directory, server) = (Directory::new(), free_address());
    let config = directory.write("prometheus.yml", "global: {}\n");
    prometheus.args([format!("--config.file={config}"), format!("--web.listen-address={server}")]);
    prometheus.args([
        format!("--storage.tsdb.path={}", directory.path("data")),
        "--web.enable-remote-write-receiver".to_owned(),
    ]);
    let mut bots = sending(&[
        "--remote-write-url",
        &format!("http://{server}/api/v1/write"),
        "--label",
        "instance=mine",
        "--label",
        "empty=",
    ]);
    // Nobody is there yet: what is sent waits, and every failure is counted.
    let waits =
        |bot: &Bot| counted(bot, "canary_push_waiting_bytes{protocol=\"remote_write\"}") > 0.0;
    assert!(wait(PATIENCE, || bots.iter().all(waits)).is_some());
    assert!(counted(&bots[0], "canary_push_failures_total{protocol=\"remote_write\"}") > 0.0);
    let _prometheus = Running::start(&mut prometheus);
    has(server, "", "canary_probes_total{result=\"success\"} > 0", 2);
    // Of every family a sample, under the names that a scrape would give them.
    for (query, count) in [
        ("canary_probe_duration_seconds_bucket{le=\"+Inf\",probe=\"total\",job=\"canary-bot\"}", 2),
        ("rtt_bucket{le=\"1.0\",type=\"rtt_total\"}", 2),
        ("canary_probe_phase_duration_seconds_count{phase=\"connect\"}", 2),
        ("process_resident_memory_bytes > 1e6", 2),
        ("count by (instance) (canary_mesh_node_up)", 2),
        (
            "count by (instance) (canary_node_info{exported_instance=\"mine\",job=\"canary-bot\"})",
            2,
        ),
    ] {
        has(server, "", query, count);
    }
    // What waited is there with the time at which it was measured.
    let nothing_waits =
        |bot: &Bot| counted(bot, "canary_push_waiting_bytes{protocol=\"remote_write\"}") == 0.0;
    assert!(wait(PATIENCE, || nothing_waits(&bots[0])).is_some());
    let of = |result: &str| {
        counted(
            &bots[0],
            &format!("canary_push_samples_total{{protocol=\"remote_write\",result=\"{result}\"}}"),
        )
    };
    assert!(
        wait(PATIENCE, || of("sent") > 1_000.0).is_some()
            && of("refused") == 0.0
            && of("dropped") == 0.0,
        "{} {} {}",
        of("sent"),
        of("refused"),
        of("dropped")
    );
    // A node that leaves is shown no longer, not only after Prometheus' five minutes.
    let gone = bots.pop().unwrap();
    has(server, "", &format!("canary_mesh_node_up{{node=\"{}\"}}", gone.name()), 1);
    gone.signal("TERM");
    has(server, "", &format!("canary_mesh_node_up{{node=\"{}\"}}", gone.name()), 0);
    has(server, "", &format!("canary_node_info{{node=\"{}\"}}", gone.name()), 0);
    has(server, "", &format!("canary_node_info{{node=\"{}\"}}", bots[0].name()), 1);
}

#[test]
fn victoria_metrics_takes_what_is_sent_by_who_has_its_password() {
    let _turn = alone();
    let Some(mut victoria) = program("victoria-metrics") else { return };
    let (directory, server) = (Directory::new(), free_address());
    victoria.args([
        format!("-httpListenAddr={server}"),
        format!("-storageDataPath={}", directory.path("data")),
    ]);
    victoria.args([
        "-httpAuth.username=owl",
        "-httpAuth.password=hush-9",
        "-search.latencyOffset=0s",
    ]);
    let _victoria = Running::start(&mut victoria);
    let file = directory.write("password", "owl:wrong\n");
    let bots = sending(&[
        "--remote-write-url",
        &format!("http://{server}/api/v1/write"),
        "--remote-write-token-file",
        &file,
    ]);
    // What is refused is counted and given up; a corrected file is read by itself.
    let refused = |bot: &Bot| {
        counted(bot, "canary_push_samples_total{protocol=\"remote_write\",result=\"refused\"}")
            > 0.0
    };
    assert!(wait(PATIENCE, || bots.iter().all(refused)).is_some());
    assert!(bots[0].logged().contains("401"), "{}", bots[0].logged());
    directory.write("password", "owl:hush-9\n");
    let password = format!("Authorization: Basic {}\r\n", base64("owl:hush-9"));
    has(server, &password, "canary_probes_total{result=\"success\"} > 0", 2);
    has(server, &password, "canary_mesh_node_up == 1", 2);
    assert!(!bots.iter().any(|bot| bot.logged().contains("hush-9")), "{}", bots[0].logged());
}

/// Reads requests by the classes that the authors of OTLP publish, over TLS, and prints each
/// metric.
const RECEIVER: &str = r#"
import gzip, http.server, ssl, sys
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse
from google.protobuf.unknown_fields import UnknownFieldSet

def strict(message):
    assert len(UnknownFieldSet(message)) == 0, message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for one in value if hasattr(value, "add") else [value]:
                strict(one)

class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        assert self.path == "/v1/metrics" and self.headers["Content-Type"] == "application/x-protobuf", self.path
        assert self.headers["Authorization"] == "Bearer a-secret", self.headers
        body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
        request = ExportMetricsServiceRequest.FromString(body)
        strict(request)
        for resource in request.resource_metrics:
            of = {a.key: a.value.string_value for a in resource.resource.attributes}
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                kind = metric.WhichOneof("data")
                points = getattr(metric, kind).data_points
                for point in points:
                    assert point.time_unix_nano > 1.7e18 and point.start_time_unix_nano <= point.time_unix_nano, point
                    if kind == "histogram":
                        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1 and sum(point.bucket_counts) == point.count, point
                    elif kind in ("gauge", "sum"):
                        assert point.WhichOneof("value") == "as_double", point
                print(of["service.name"], of["service.instance.id"], kind, metric.name, metric.unit or "-", len(points), flush=True)
        answer = ExportMetricsServiceResponse()
        answer.partial_success.rejected_data_points = 1
        answer.partial_success.error_message = "one is too old"
        answer = answer.SerializeToString()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

host, port, certificate = sys.argv[1:]
server = http.server.ThreadingHTTPServer((host, int(port)), Receiver)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

#[test]
fn otlp_is_what_its_authors_read_over_tls() {
    let _turn = alone();
    let Some(mut python) = otlp() else { return };
    let (directory, server, authority) =
        (Directory::new(), free_address(), Authority::new("receivers"));
    let (certificate, key) = authority.issue("receiver", &[&server.ip().to_string()], GOOD);
    let pair = directory.write("receiver.pem", &format!("{certificate}{key}"));
    let (ca, token) =
        (directory.write("ca.pem", &authority.pem()), directory.write("token", "a-secret\n"));
    let (said, wrong) = (directory.path("said"), directory.path("wrong"));
    let open = |path: &str| Stdio::from(std::fs::File::create(path).unwrap());
    let script = directory.write("receiver.py", RECEIVER);
    python.args([&script, &server.ip().to_string(), &server.port().to_string(), &pair]);
    let _receiver = Running::saying(&mut python, open(&said), open(&wrong));
    let url = format!("https://{server}/v1/metrics");
    let bots =
        sending(&["--otlp-url", &url, "--otlp-token-file", &token, "--push-ca-cert-path", &ca]);
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let lines = |bot: &Bot| {
        [
            format!("canary-bot {} sum canary_probes_total - ", bot.name()),
            format!("canary-bot {} histogram canary_probe_duration_seconds s 2", bot.name()),
            format!("canary-bot {} summary canary_probe_phase_duration_seconds s 4", bot.name()),
            format!("canary-bot {} gauge canary_mesh_node_up - 1", bot.name()),
            format!("canary-bot {} gauge process_resident_memory_bytes By 1", bot.name()),
        ]
    };
    let whole = wait(PATIENCE, || {
        let said = read(&said);
        bots.iter().all(|bot| lines(bot).iter().all(|line| said.contains(line)))
    });
    assert!(whole.is_some(), "{}\n{}\n{}", read(&said), read(&wrong), bots[0].logged());
    let of = |result: &str| {
        counted(
            &bots[0],
            &format!("canary_push_samples_total{{protocol=\"otlp\",result=\"{result}\"}}"),
        )
    };
    assert!(
        wait(PATIENCE, || of("sent") > 100.0 && of("refused") >= 1.0).is_some(),
        "{} {}",
        of("sent"),
        of("refused")
    );
    assert!(
        bots[0].logged().contains("one is too old") && !read(&wrong).contains("Error"),
        "{}\n{}",
        bots[0].logged(),
        read(&wrong)
    );
}

#[test]
fn settings_that_cannot_work_are_refused_and_repeat_no_secret() {
    let directory = Directory::new();
    let token = directory.write("token", "a-secret\n");
    for (args, words) in [
        (&["--remote-write-url", "http://a:99999/write"][..], "write http://HOST:PORT"),
        (
            &["--remote-write-url", "http://owl:a-secret@a/write"],
            "give them by --remote-write-token-file",
        ),
        (
            &["--otlp-url", "collector:4318/?key=a-secret"],
            "write http://HOST:PORT or https://HOST:PORT",
        ),
        (&["--otlp-token-file", &token], "nothing is sent anywhere without --otlp-url"),
        (&["--otlp-url", "http://a", "--push-interval", "10ms"], "choose from 1s to 1h"),
        (&["--otlp-url", "http://a", "--push-ca-cert-path", &token], "nothing is sent to https"),
        (&["--otlp-url", "https://a", "--push-ca-cert-path", &token], "has no certificate"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_canary-bot"));
        let output =
            command.args(["run", "--dry-run", "--name", "owl"]).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(2) && said.contains(words) && !said.contains("a-secret"),
            "{args:?}: {said}"
        );
    }
}
