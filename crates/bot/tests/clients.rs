//! The original's clients against a bot of ours: REST, gRPC, gRPC-Web, Connect and Prometheus, by
//! programs that others wrote.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::process::{Command, Stdio};
use std::time::Duration;

use support::pki::{Authority, Directory, GOOD};
use support::tools::{Running, buf, node, program, python, said, schemathesis};
use support::{
    Bot, Plan, TOKEN, alone, free_ports, get, get_with, mesh, own_address, plans, settle, trust,
    wait,
};

const PROTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");

fn all_names(text: &str, bots: &[Bot]) -> bool {
    bots.iter().all(|bot| text.contains(bot.name()))
}

#[test]
fn buf_speaks_grpc_grpc_web_and_connect_by_reflection_and_with_the_token_alone() {
    let _turn = alone();
    if buf().is_none() {
        return;
    }
    let bots = mesh(3);
    let api = bots[0].api();
    let call = |protocol: &str, token: Option<&str>, method: &str, more: &[&str]| {
        let mut command = buf().unwrap();
        command
            .args(["curl", "--http2-prior-knowledge", "--protocol", protocol, "--data", "{}"])
            .args(more);
        if let Some(token) = token {
            let header = format!("Authorization: Bearer {token}");
            command.args(["-H", &header]);
            if more.is_empty() {
                command.args(["--reflect-header", &header]);
            }
        }
        said(command.arg(format!("http://{api}/{method}")))
    };
    for protocol in ["grpc", "grpcweb", "connect"] {
        for more in [&["--schema", PROTO][..], &[]] {
            let (done, text) = call(protocol, Some(TOKEN), "api.v1.ApiService/ListNodes", more);
            assert!(done && all_names(&text, &bots), "{protocol}: {text}");
            let (done, text) = call(protocol, Some(TOKEN), "api.v1.ApiService/ListSamples", more);
            assert!(
                done && text.contains("rtt_total")
                    && text.contains("rtt_request")
                    && all_names(&text, &bots),
                "{protocol}: {text}"
            );
        }
        for (token, words) in [(None, "no token provided"), (Some("wrong"), "auth failed")] {
            let (done, text) =
                call(protocol, token, "api.v1.ApiService/ListNodes", &["--schema", PROTO]);
            assert!(
                !done && text.contains("unauthenticated") && text.contains(words),
                "{protocol}: {text}"
            );
        }
    }
    let (done, text) = said(
        buf()
            .unwrap()
            .args(["curl", "--http2-prior-knowledge", "--protocol", "grpc", "--list-services"])
            .args([
                "--reflect-header",
                &format!("Authorization: Bearer {TOKEN}"),
                &format!("http://{api}"),
            ]),
    );
    assert!(done && text.contains("api.v1.ApiService"), "{text}");
}

#[test]
fn grpcio_calls_the_api_and_asks_for_its_health_over_tls() {
    let _turn = alone();
    if python().is_none() {
        return;
    }
    let (directory, authority) = (Directory::new(), Authority::new("the authority"));
    let ca = directory.write("ca.pem", &authority.pem());
    let mut plans = plans(2);
    for plan in &mut plans {
        let own = authority.issue(&plan.name, &[&plan.address.to_string()], GOOD);
        let certificate = directory.write(&format!("{}.pem", plan.name), &own.0);
        let key = directory.write(&format!("{}-key.pem", plan.name), &own.1);
        plan.more =
            ["--ca-cert-path", &ca, "--server-cert-path", &certificate, "--server-key-path", &key]
                .map(str::to_owned)
                .to_vec();
        trust(std::net::SocketAddr::new(plan.address, plan.api_port), &authority.pem());
    }
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let script = directory.write(
        "call.py",
        r#"
import sys, grpc
target, ca, token, method = sys.argv[1:]
channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(root_certificates=open(ca, "rb").read()))
metadata = [("authorization", "Bearer " + token)] if token else []
try:
    print(channel.unary_unary(method)(b"", metadata=metadata, timeout=5))
except grpc.RpcError as error:
    print(error.code(), error.details())
    sys.exit(1)
"#,
    );
    let call = |token: &str, method: &str| {
        said(python().unwrap().args([&script, &bots[0].api().to_string(), &ca, token, method]))
    };
    let (done, text) = call(TOKEN, "/api.v1.ApiService/ListNodes");
    assert!(done && all_names(&text, &bots), "{text}");
    let (done, text) = call(TOKEN, "/api.v1.ApiService/ListSamples");
    assert!(done && text.contains("rtt_request"), "{text}");
    assert_eq!(
        call("", "/api.v1.ApiService/ListNodes"),
        (false, "StatusCode.UNAUTHENTICATED no token provided\n".to_owned())
    );
    assert_eq!(
        call("wrong", "/api.v1.ApiService/ListNodes"),
        (false, "StatusCode.UNAUTHENTICATED auth failed\n".to_owned())
    );
    assert!(call(TOKEN, "/api.v1.ApiService/Nothing").1.contains("UNIMPLEMENTED"));
    // SERVING, without a token.
    assert_eq!(call("", "/grpc.health.v1.Health/Check"), (true, "b'\\x08\\x01'\n".to_owned()));
}

#[test]
fn connect_for_node_calls_the_api_by_all_three_protocols() {
    let _turn = alone();
    let (Some(mut node), Some(mut buf)) = (node(), buf()) else { return };
    let bots = mesh(2);
    let directory = Directory::new();
    let descriptors = directory.path("api.binpb");
    let (done, text) = said(buf.args(["build", PROTO, "-o", &descriptors]));
    assert!(done, "{text}");
    let script = directory.write(
        "call.mjs",
        r#"
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
const require = createRequire(process.env.CANARY_TEST_TOOLS + "/");
const { createFileRegistry, fromBinary } = require("@bufbuild/protobuf");
const { FileDescriptorSetSchema } = require("@bufbuild/protobuf/wkt");
const { createClient } = require("@connectrpc/connect");
const { createConnectTransport, createGrpcTransport, createGrpcWebTransport } = require("@connectrpc/connect-node");
const [descriptors, baseUrl, token] = process.argv.slice(2);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const service = registry.getService("api.v1.ApiService");
const bearer = (next) => (request) => { request.header.set("Authorization", "Bearer " + token); return next(request); };
const options = { baseUrl, httpVersion: "2", interceptors: [bearer] };
for (const [name, transport] of [
  ["connect", createConnectTransport(options)],
  ["connect, binary", createConnectTransport({ ...options, useBinaryFormat: true })],
  ["connect, HTTP/1.1", createConnectTransport({ ...options, httpVersion: "1.1" })],
  ["grpc", createGrpcTransport(options)],
  ["grpc-web", createGrpcWebTransport(options)],
]) {
  const client = createClient(service, transport);
  try {
    const { nodes } = await client.listNodes({});
    const { samples } = await client.listSamples({});
    console.log(name, nodes.join(), samples.length, samples.every((s) => s.from && s.to && s.type && s.value && s.ts));
  } catch (error) {
    console.log(name, error.code, error.rawMessage);
  }
}
process.exit(0);
"#,
    );
    let url = format!("http://{}", bots[0].api());
    let (done, text) = said(node.args([&script, &descriptors, &url, TOKEN]));
    assert!(done, "{text}");
    for name in ["connect", "connect, binary", "connect, HTTP/1.1", "grpc", "grpc-web"] {
        assert!(text.contains(&format!("{name} bot-00,bot-01 4 true\n")), "{name}: {text}");
    }
    let (_, text) =
        said(support::tools::node().unwrap().args([&script, &descriptors, &url, "wrong"]));
    assert_eq!(text.matches("16 auth failed").count(), 5, "{text}");
}

#[test]
fn curl_reads_the_documentation_and_calls_connect_by_post_alone() {
    let _turn = alone();
    if program("curl").is_none() {
        return;
    }
    let bots = mesh(2);
    let api = bots[0].api();
    let ask = |path: &str, more: &[&str]| {
        said(
            program("curl")
                .unwrap()
                .args(["-sS", "--max-time", "5", "-w", " %{http_code} %{content_type}"])
                .args(more)
                .arg(format!("http://{api}{path}")),
        )
        .1
    };
    assert!(ask("/", &["-H", "Accept: text/html"]).ends_with("200 text/html; charset=utf-8"));
    assert!(ask("/v1/", &[]).contains(" 200 "));
    let page = ask("/", &["-H", "Accept: text/html"]);
    assert!(
        !page.contains("src=\"http") && !page.contains("href=\"http"),
        "the page needs the internet: {page}"
    );
    let swagger = ask("/v1/api.swagger.json", &[]);
    assert!(swagger.ends_with("200 application/json"), "{swagger}");
    let token = format!("Authorization: Bearer {TOKEN}");
    let post = ["-H", &token, "-H", "Content-Type: application/json", "-d", "{}"];
    let nodes = r#"{"nodes":["bot-00","bot-01"]}"#;
    assert_eq!(ask("/api.v1.ApiService/ListNodes", &post), format!("{nodes} 200 application/json"));
    assert_eq!(ask("/api/v1/nodes", &["-H", &token]), format!("{nodes} 200 application/json"));
    assert!(
        ask("/api.v1.ApiService/ListNodes?encoding=json&message=%7B%7D", &["-H", &token])
            .contains(" 405 ")
    );
    let refused = ask("/api.v1.ApiService/ListNodes", &post[2..]);
    assert_eq!(
        refused,
        r#"{"code":"unauthenticated","message":"no token provided"} 401 application/json"#
    );
    let refused = ask("/api/v1/nodes", &["-H", "Authorization: Bearer wrong"]);
    assert_eq!(refused, r#"{"code":16,"message":"auth failed"} 401 application/json"#);
    assert!(ask("/metrics", &[]).starts_with("Unauthorized\n 401"));
}

#[test]
fn metrics_are_what_promtool_and_the_strict_parser_take() {
    let _turn = alone();
    let bots = mesh(2);
    let as_form = |accept: &str| {
        get_with(
            bots[0].api(),
            "/metrics",
            &format!("Authorization: Bearer {TOKEN}\r\nAccept: {accept}\r\n"),
        )
        .unwrap()
        .body
    };
    let directory = Directory::new();
    if let Some(mut promtool) = program("promtool") {
        let file = directory.write("text", &as_form("text/plain;version=0.0.4"));
        let mut child = promtool
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &std::fs::read(&file).unwrap())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        // Its one wish is about names that are the original's, and so stay.
        let wishes: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with("node_count ") && !line.starts_with("rtt "))
            .collect();
        assert!(wishes.is_empty(), "{text}");
    }
    if let Some(mut python) = python() {
        let file =
            directory.write("openmetrics", &as_form("application/openmetrics-text;version=1.0.0"));
        let script = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\nprint(len(list(parse(open(sys.argv[1]).read()))))";
        let (done, text) = said(python.args(["-c", script, &file]));
        assert!(done && text.trim().parse::<u32>().is_ok_and(|families| families > 20), "{text}");
    }
}

/// A Prometheus that scrapes these bots every second.
struct Prometheus {
    _process: Running,
    _directory: Directory,
    listen: String,
}

impl Prometheus {
    fn start(bots: &[Bot], more: &[&str]) -> Option<Self> {
        let (mut prometheus, _) = (program("prometheus")?, program("promtool")?);
        let directory = Directory::new();
        let targets: Vec<_> = bots.iter().map(|bot| format!("'{}'", bot.api())).collect();
        let config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: canary\n  authorization: {{credentials: {TOKEN}}}\n  static_configs:\n  - targets: [{}]\n",
            targets.join(", ")
        );
        let config = directory.write("prometheus.yml", &config);
        let address = own_address();
        let listen = format!("{address}:{}", free_ports(address, 1)[0]);
        let storage = directory.path("data");
        prometheus
            .args([
                &format!("--config.file={config}"),
                &format!("--storage.tsdb.path={storage}"),
                &format!("--web.listen-address={listen}"),
            ])
            .args(more);
        Some(Self { _process: Running::start(&mut prometheus), _directory: directory, listen })
    }

    fn query(&self, expression: &str) -> Option<String> {
        let (done, text) = said(Command::new("promtool").args([
            "query",
            "instant",
            &format!("http://{}", self.listen),
            expression,
        ]));
        done.then_some(text.trim().to_owned())
            .filter(|text| !text.is_empty() && !text.contains("NaN"))
    }

    fn answered(&self, expression: &str) -> String {
        let answer = wait(Duration::from_secs(60), || self.query(expression).is_some())
            .and_then(|_| self.query(expression));
        answer.unwrap_or_else(|| panic!("no answer to {expression}"))
    }
}

#[test]
fn prometheus_stores_native_histograms_and_the_originals_buckets_beside_them() {
    let _turn = alone();
    let bots = mesh(2);
    let Some(prometheus) = Prometheus::start(&bots, &["--enable-feature=native-histograms"]) else {
        return;
    };
    // Without `_bucket`: only a native histogram answers.
    let native = prometheus.answered(
        "histogram_quantile(0.9, sum(rate(canary_probe_duration_seconds{probe=\"total\"}[1m])))",
    );
    let seconds: f64 =
        native.split("=>").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!((1e-5..0.1).contains(&seconds), "{native}");
    let counted = prometheus
        .answered("sum(histogram_count(canary_probe_duration_seconds{probe=\"request\"}))");
    assert!(counted.contains("=> ") && !counted.contains("=> 0 "), "{counted}");
    prometheus.answered("histogram_quantile(0.95, sum(rate(rtt_bucket[1m])) by (le))");
    prometheus.answered("sum by (phase) (canary_probe_phase_duration_seconds_sum)");
    prometheus.answered("sum by (result) (rate(canary_probes_total[1m]))");
}

#[test]
fn prometheus_scrapes_with_the_token_and_answers_the_originals_dashboard() {
    let _turn = alone();
    let bots = mesh(3);
    let Some(prometheus) = Prometheus::start(&bots, &[]) else { return };
    let (query, answered) = (
        |expression: &str| prometheus.query(expression),
        |expression: &str| prometheus.answered(expression),
    );
    assert!(
        answered("histogram_quantile(0.95, sum(rate(rtt_bucket[1m])) by (le))")
            .starts_with("{} => 0.00")
    );
    assert!(answered("sum by (type) (rtt_count)").contains("rtt_total"));
    assert!(answered("node_count").contains("=> 2 "));
    assert!(answered("sum(up)").contains("=> 3 "));
    assert!(answered("sum by (result) (rate(canary_probes_total[1m]))").contains("success"));
    // Series of one that left vanish; those of one that died stay for the alert, but for the
    // original's.
    let text = get(bots[0].api(), "/metrics").unwrap().body;
    assert!(
        text.contains("rtt_bucket{type=\"rtt_total\",to=\"bot-02\"")
            || text.contains("to=\"bot-02\""),
        "{text}"
    );
    bots[2].signal("TERM");
    let gone = || !get(bots[0].api(), "/metrics").unwrap().body.contains("to=\"bot-02\"");
    assert!(wait(Duration::from_secs(10), gone).is_some());
    assert!(
        wait(Duration::from_secs(30), || query("sum(node_count) by (instance)")
            .is_some_and(|text| text.contains("=> 1 ")))
        .is_some()
    );
}

#[test]
fn the_originals_packages_are_what_they_were() {
    let frozen = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/original");
    let Some(_) = buf() else { return };
    let breaking = |input: &str| {
        let rules = r#"{"version":"v2","breaking":{"use":["FILE","WIRE_JSON"]}}"#;
        said(buf().unwrap().args([
            "breaking",
            input,
            "--against",
            frozen,
            "--config",
            rules,
            "--against-config",
            r#"{"version":"v2"}"#,
        ]))
    };
    let (kept, text) = breaking(PROTO);
    assert!(kept, "{text}");
    // And it would be noticed.
    let directory = Directory::new();
    for (file, change) in [
        ("api/v1/api.proto", ("string value = 4;", "string value = 6;")),
        ("mesh/v1/mesh.proto", ("int64 ts = 5;", "int32 ts = 5;")),
    ] {
        let text = std::fs::read_to_string(format!("{frozen}/{file}")).unwrap();
        let changed = text.replace(change.0, change.1);
        assert_ne!(text, changed);
        std::fs::create_dir_all(directory.0.join(file).parent().unwrap()).unwrap();
        std::fs::write(directory.0.join(file), changed).unwrap();
        assert!(!breaking(&directory.path("")).0, "{file}: nobody notices {change:?}");
    }
}

#[test]
fn the_mesh_port_tells_what_it_serves_and_how_it_fares() {
    let _turn = alone();
    let (Some(mut list), Some(mut check), Some(mut rtt)) = (buf(), buf(), buf()) else { return };
    let bots = mesh(2);
    let mesh = format!("http://{}", bots[0].plan.target());
    let (done, text) = said(list.args([
        "curl",
        "--http2-prior-knowledge",
        "--protocol",
        "grpc",
        "--list-services",
        &mesh,
    ]));
    for service in ["mesh.v1.MeshService", "mesh.v2.MeshService", "grpc.health.v1.Health"] {
        assert!(
            done && text.contains(service) || service.starts_with("grpc."),
            "{service}: {text}"
        );
    }
    let health = r#"syntax="proto3"; package grpc.health.v1; service Health { rpc Check(Request) returns (Response); } message Request { string service = 1; } message Response { int32 status = 1; }"#;
    let directory = Directory::new();
    let file = directory.write("health.proto", health);
    let call = [
        "curl",
        "--http2-prior-knowledge",
        "--protocol",
        "grpc",
        "--schema",
        &file,
        "--data",
        r#"{"service":"mesh.v1.MeshService"}"#,
    ];
    let (done, text) = said(check.args(call).arg(format!("{mesh}/grpc.health.v1.Health/Check")));
    assert!(done && text.contains("\"status\": 1") || text.contains("\"status\":1"), "{text}");
    let (done, text) = said(
        rtt.args(["curl", "--http2-prior-knowledge", "--protocol", "grpc", "--data", "{}"])
            .arg(format!("{mesh}/mesh.v1.MeshService/Rtt")),
    );
    assert!(done, "{text}");
}

/// An opaque token is none that a document can describe, nor is a character that cannot be seen:
/// that such a request is refused is no fault, so the check that every request which the document
/// allows is accepted stays off.
#[test]
fn schemathesis_finds_no_fault_in_api_v2() {
    let _turn = alone();
    let Some(mut schemathesis) = schemathesis() else { return };
    let bots = mesh(3);
    let url = format!("http://{}", bots[0].api());
    let directory = Directory::new();
    let refusals = "checks.negative_data_rejection.expected-statuses = [\"400\", \"401\", \"404\", \"405\", \"406\", \"413\", \"415\", \"422\"]\n";
    schemathesis.args(["--config-file", &directory.write("schemathesis.toml", refusals)]);
    schemathesis.args([
        "run",
        &format!("{url}/openapi.json"),
        "--url",
        &url,
        "-H",
        &format!("Authorization: Bearer {TOKEN}"),
    ]);
    // The stream has no end; it has tests of its own.
    schemathesis.args([
        "--exclude-path-regex",
        "stream",
        "--exclude-checks",
        "positive_data_acceptance",
        "--max-examples",
        "25",
        "--seed",
        "1",
        "--no-color",
    ]);
    let (done, text) = said(schemathesis.current_dir(std::env::temp_dir()));
    assert!(done, "{text}");
}
