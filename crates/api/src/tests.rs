//! The API asked in-process: a mesh made by hand, the real router, no socket.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use canary_core::{
    Cell, Detail, Events, Failure, Frame, Histogram, Incarnation, Instance, JitterCode, Labels,
    LatencyCode, MemberView, MeshName, NodeName, Now, Pair, Record, Refusals, Release, Roster, Row,
    Snapshot, Standing, State, Status, Target, Time, Timing, Wall,
};
use canary_insight::{Insight, Report};
use canary_net::{Guard, Live, Stats, Token, Tokens};
use http::{Method, Request, Response, StatusCode, header};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::v2::live::Live as Journal;
use crate::{Config, Content, Messages, Push, PushProtocol, Source, Telling, Transport, routes};

const TOKEN: &str = "a-token-for-tests";
/// Names in the order of the mesh; the first answers. The last one is for pages that take names for
/// markup.
const NAMES: [&str; 4] = ["owl", "duck", "goose", "<img src=x onerror=alert(1)>"];

/// A mesh that tests can change.
struct Mesh(Mutex<(Arc<Snapshot>, Arc<Report>, Insight)>);

impl Source for Mesh {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.lock().unwrap().0)
    }

    fn snapshot_age(&self) -> Duration {
        Duration::ZERO
    }

    fn report(&self) -> Arc<Report> {
        Arc::clone(&self.0.lock().unwrap().1)
    }

    fn transport(&self) -> Transport {
        let messages = Messages { kind: "probe", direction: "out", count: 7, bytes: 700 };
        let log_lost = vec![("unread", 0)];
        Transport { messages: vec![messages], log_lost, ..Transport::default() }
    }

    /// All but the goose answer.
    fn describe(&self, source: MemberView, _target: NodeName) -> Telling {
        let timing = Timing {
            connect: Duration::from_micros(300),
            first_request: Duration::from_micros(700),
            ..Timing::default()
        };
        let told = Detail { latest: Some(timing), successes: 17, ..Detail::default() };
        let is_silent = source.record.name.as_str() == "goose";
        Box::pin(async move {
            if is_silent {
                Err("goose could not be asked: no answer within 2 s".to_owned())
            } else {
                Ok((told, Duration::from_secs(1)))
            }
        })
    }
}

impl Mesh {
    fn new(snapshot: Snapshot) -> Arc<Self> {
        let mut insight = Insight::new();
        let report = Arc::new(insight.observe(&snapshot));
        Arc::new(Self(Mutex::new((Arc::new(snapshot), report, insight))))
    }

    fn show(&self, snapshot: Snapshot) {
        let mut held = self.0.lock().unwrap();
        held.1 = Arc::new(held.2.observe(&snapshot));
        held.0 = Arc::new(snapshot);
    }
}

fn record(name: &str) -> Arc<Record> {
    let zone = if name.len() == 4 { "east" } else { "west" };
    Arc::new(Record {
        mesh: MeshName::default(),
        name: name.parse().unwrap(),
        target: Target::new("192.0.2.1", 8081).unwrap(),
        labels: Labels::new([("zone".to_owned(), zone.to_owned())]).unwrap(),
        incarnation: Incarnation(7),
        instance: Instance(3),
    })
}

/// What others publish at a second: duck reaches all but goose, which is dead; the row of the last
/// is old.
fn snapshot(second: u64, duck_to_goose: State) -> Snapshot {
    let now = Now {
        time: Time::ZERO + Duration::from_secs(1_000 + second),
        wall: Wall::from_unix_millis(1_700_000_000_000 + second * 1_000),
    };
    let roster = Roster::new(NAMES.iter().map(|name| name.parse().unwrap()));
    let ok = |micros: u64| State::Ok {
        total: LatencyCode::encode(Duration::from_micros(micros)),
        request: Some(LatencyCode::encode(Duration::from_micros(micros / 4))),
        jitter: Some(JitterCode::encode(Duration::from_micros(micros / 10))),
    };
    let row = |source: &str, age: Duration| {
        let cell = |(place, target): (usize, &NodeName)| match (source, target.as_str()) {
            (source, target) if source == target => Cell::default(),
            ("duck", "goose") => {
                Cell { state: duck_to_goose, age_ticks: 8, loss: 51, retransmissions: 0 }
            }
            _ => Cell {
                state: ok(400 * (place as u64 + 1)),
                age_ticks: 8,
                loss: 0,
                retransmissions: 1,
            },
        };
        let cells: Vec<_> = roster.names().iter().enumerate().map(cell).collect();
        let frame = Frame::new(second + 1, roster.id(), now.wall.back(age), &cells)
            .with_release(Release::new("1.2.3"));
        Arc::new(Row::new(Arc::new(frame), Some(Arc::clone(&roster)), age, now.time))
    };
    let member = |name: &str, status, row: Option<Arc<Row>>| MemberView {
        record: record(name),
        status,
        since: now.time.back(Duration::from_secs(60)),
        evidence_at: now.time.back(Duration::from_secs(2)),
        proven: true,
        known: true,
        pair: Arc::new(Pair::default()),
        interval: Duration::from_secs(3),
        takes_part: true,
        version: row.as_ref().map_or(0, |row| row.version()),
        row,
    };
    let mut members = vec![
        member("duck", Status::Alive, Some(row("duck", Duration::from_secs(1)))),
        member("goose", Status::Dead, Some(row("goose", Duration::from_secs(90)))),
        member("heron", Status::Left, None),
        member(NAMES[3], Status::Alive, Some(row(NAMES[3], Duration::from_secs(300)))),
    ];
    members.sort_by(|a, b| a.record.name.cmp(&b.record.name));
    Snapshot {
        now,
        me: record("owl"),
        own_row: None,
        members,
        standing: Standing::Member,
        isolated: false,
        targets: vec![(Target::new("seed.example", 8081).unwrap(), false)],
        unproven: 1,
        join_problems: vec![(Target::new("seed.example", 8081).unwrap(), "no answer".to_owned())],
        pair_interval: Duration::from_secs(3),
        publish_interval: Duration::from_secs(2),
        refusals: Refusals::default(),
        schedule_delay: Histogram::default(),
        stalled: Duration::ZERO,
        events: Events::default(),
    }
}

const REFUSED: State = State::Failed(Failure::Refused);

struct Api {
    mesh: Arc<Mesh>,
    journal: Arc<Journal>,
    router: Router,
}

impl Api {
    fn new() -> Self {
        Self::showing(Content::default())
    }

    fn showing(content: Content) -> Self {
        let mesh = Mesh::new(snapshot(0, REFUSED));
        let guard = Guard {
            tokens: Live::new(Tokens::new([Token::new(TOKEN).unwrap()])),
            ..Guard::default()
        };
        let config = Config { guard, content, version: "1.2.3" };
        let journal = Arc::new(Journal::default());
        let api = crate::state::Api::new(
            config,
            Arc::clone(&mesh) as Arc<dyn Source>,
            Arc::clone(&journal),
            Arc::new(Stats::default()),
        );
        let router = routes::router(Arc::new(api));
        Self { mesh, journal, router }
    }

    fn look(&self) {
        self.journal.look(&self.mesh.snapshot(), &self.mesh.report());
    }

    async fn ask(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.ask(request(path).body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        serde_json::from_slice(&bytes(response).await).unwrap()
    }
}

fn request(path: &str) -> http::request::Builder {
    Request::get(path).header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
}

async fn bytes(response: Response<Body>) -> Vec<u8> {
    axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()
}

/// Compares with a file of `tests/golden`; `UPDATE_GOLDEN=1` writes it anew.
fn golden(name: &str, value: &Value) {
    golden_text(name, format!("{value:#}\n"));
}

fn golden_text(name: &str, text: String) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &text).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&file).unwrap_or_default(),
        text,
        "{name}; UPDATE_GOLDEN=1 writes it anew"
    );
}

#[tokio::test]
async fn answers_have_the_reviewed_shape() {
    let api = Api::new();
    for (name, path) in [
        ("mesh.json", "/api/v2/mesh"),
        ("nodes.json", "/api/v2/nodes"),
        ("node.json", "/api/v2/nodes/duck"),
        ("pairs.json", "/api/v2/pairs?source=duck"),
        ("pair.json", "/api/v2/pairs/duck/goose"),
        ("pair-silent.json", "/api/v2/pairs/goose/duck"),
        ("matrix.json", "/api/v2/matrix"),
        ("verdict.json", "/api/v2/verdict"),
        ("incidents.json", "/api/v2/incidents"),
    ] {
        golden(name, &api.get(path).await);
    }
}

#[tokio::test]
async fn metrics_of_the_mesh_show_all_pairs_or_the_worst_and_zones_always() {
    let ask = async |api: &Api| {
        String::from_utf8(
            bytes(api.ask(request("/metrics/mesh").body(Body::empty()).unwrap()).await).await,
        )
        .unwrap()
    };
    let whole = ask(&Api::new()).await;
    golden_text("metrics-mesh.txt", whole.clone());
    let with = |pairs_max| Content {
        metrics: crate::Metrics { pairs_max, ..crate::Metrics::default() },
        ..Content::default()
    };
    let of_pairs = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with("canary_mesh_pair_"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let zones = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with("canary_mesh_zone_"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let worst = ask(&Api::showing(with(1))).await;
    let ups: Vec<_> = of_pairs(&worst)
        .into_iter()
        .filter(|line| line.starts_with("canary_mesh_pair_up"))
        .collect();
    assert_eq!(ups, ["canary_mesh_pair_up{source=\"duck\",target=\"goose\"} 0.0"]);
    assert_eq!(zones(&worst), zones(&whole));
    let pins = vec![("duck".parse().unwrap(), "owl".parse().unwrap())];
    let pinned = ask(&Api::showing(Content { pins, ..with(1) })).await;
    let lines = of_pairs(&pinned);
    assert!(
        !lines.is_empty()
            && lines.iter().all(|line| line.contains("{source=\"duck\",target=\"owl\"}")),
        "{lines:?}"
    );
    let none = ask(&Api::showing(with(0))).await;
    assert!(
        of_pairs(&none).is_empty() && zones(&none) == zones(&whole) && none.ends_with("# EOF\n")
    );
}

/// The reference of metrics, from what is served: each family with its type, labels and help.
#[tokio::test]
async fn the_reference_of_metrics_is_what_is_served() {
    let (protocol, interval) = (PushProtocol::Otlp, Duration::from_secs(15));
    let receiver = "http://collector:4318/v1/metrics".parse().unwrap();
    let push =
        Push { protocol, receiver, interval, credentials: Live::default(), tls: Live::default() };
    let api = Api::showing(Content { pushes: vec![push], ..Content::default() });
    let mut text = String::from(
        "# Metrics\n\nMade from what a bot serves, by a test of `canary-api` with `UPDATE_GOLDEN=1`. What the series mean in practice, and which questions they\n\
         answer: [operate.md](operate.md). Labels are those of a small mesh; labels of nodes are added to `canary_mesh_node_info` and `canary_node_info`.\n",
    );
    for (path, about) in [
        (
            "/metrics",
            "of this bot: its own pairs, the mesh as it sees it, and itself. Scrape every bot.",
        ),
        ("/metrics/mesh", "the last values of all pairs. Scrape one bot."),
    ] {
        let served = String::from_utf8(
            bytes(api.ask(request(path).body(Body::empty()).unwrap()).await).await,
        )
        .unwrap();
        text.push_str(&format!(
            "\n## `{path}`: {about}\n\n| family | type | labels | what |\n|---|---|---|---|\n"
        ));
        for line in served.lines() {
            let Some((family, help)) =
                line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '))
            else {
                continue;
            };
            let kind = served
                .lines()
                .find_map(|line| line.strip_prefix(&format!("# TYPE {family} ")))
                .unwrap();
            let series = served.lines().filter(|line| {
                line.starts_with(family) && line[family.len()..].starts_with(['{', '_'])
            });
            let labels: std::collections::BTreeSet<_> = series
                .filter_map(|line| line.split_once('{')?.1.rsplit_once('}'))
                .flat_map(|(labels, _)| {
                    labels.split(',').filter_map(|label| Some(label.split_once("=\"")?.0))
                })
                .filter(|label| !["le", "zone", "quantile"].contains(label))
                .collect();
            let labels: Vec<_> = labels.into_iter().map(|label| format!("`{label}`")).collect();
            text.push_str(&format!(
                "| `{family}{}` | {kind} | {} | {help} |\n",
                if kind == "counter" { "_total" } else { "" },
                labels.join(", ")
            ));
        }
    }
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&file).unwrap_or_default(),
        text,
        "docs/metrics.md; UPDATE_GOLDEN=1 writes it anew"
    );
}

#[tokio::test]
async fn pages_together_are_the_whole_list() {
    let api = Api::new();
    for (path, list) in [
        ("/api/v2/nodes?limit=", "nodes"),
        ("/api/v2/pairs?limit=", "pairs"),
        ("/api/v2/pairs?state=stale&limit=", "pairs"),
    ] {
        let whole = api.get(&format!("{path}1000")).await;
        let (mut pages, mut token) = (Vec::new(), String::new());
        loop {
            let page = api.get(&format!("{path}1{token}")).await;
            pages.extend(page[list].as_array().unwrap().clone());
            let Some(next) = page["next_page_token"].as_str() else { break };
            token = format!("&page_token={next}");
        }
        assert_eq!(Value::from(pages), whole[list], "{path}");
    }
}

#[tokio::test]
async fn the_packed_matrix_says_what_the_other_form_says() {
    let api = Api::new();
    for metric in ["total", "request", "jitter", "loss"] {
        let json = api.get(&format!("/api/v2/matrix?metric={metric}")).await;
        let packed = request(&format!("/api/v2/matrix?metric={metric}"))
            .header(header::ACCEPT, "application/octet-stream");
        let packed = bytes(api.ask(packed.body(Body::empty()).unwrap()).await).await;
        let (magic, rest) = packed.split_at(4);
        let (length, rest) = rest.split_at(4);
        let (head, mut rows) =
            rest.split_at(u32::from_le_bytes(length.try_into().unwrap()) as usize);
        let head: Value = serde_json::from_slice(head).unwrap();
        assert_eq!(
            (magic, &head["nodes"], &head["metric"]),
            (&b"CBM1"[..], &json["nodes"], &Value::from(metric))
        );
        let nodes = json["nodes"].as_array().unwrap().len();
        for row in json["rows"].as_array().unwrap() {
            let (this, after) = rows.split_at(4 + 3 * nodes);
            rows = after;
            for target in 0..nodes {
                let (state, code) = (
                    this[4 + target],
                    u16::from_le_bytes([
                        this[4 + nodes + 2 * target],
                        this[5 + nodes + 2 * target],
                    ]),
                );
                let word = match state {
                    0x40 => "self",
                    0 => "unknown",
                    state if state & 0x80 != 0 => "stale",
                    1 => "ok",
                    3 => "refused",
                    other => panic!("{other}"),
                };
                assert_eq!(row["states"][target], word);
                if let Some(value) = row["values"][target].as_f64() {
                    let steps = f64::from(code) - 1.0;
                    let read = if metric == "loss" {
                        steps / 10_000.0
                    } else {
                        1e-9 * (steps * 27.631_021 / 65_534.0).exp()
                    };
                    assert!(
                        (read - value).abs()
                            <= value * 0.007 + 1e-4 * f64::from(u8::from(metric == "loss")),
                        "{metric}: {read} {value}"
                    );
                }
            }
        }
        assert!(rows.is_empty());
    }
}

#[tokio::test]
async fn what_has_no_meaning_is_refused_with_a_problem() {
    let api = Api::new();
    let plain = |path: &str| request(path).body(Body::empty()).unwrap();
    let accept = |path: &str, accept: &str| {
        request(path).header(header::ACCEPT, accept).body(Body::empty()).unwrap()
    };
    let mut posted = plain("/api/v2/nodes");
    *posted.method_mut() = Method::POST;
    let mark = |text: &str| {
        let body = serde_json::json!({ "text": text }).to_string();
        let mut request = request("/api/v2/marks")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .unwrap();
        *request.method_mut() = Method::POST;
        request
    };
    for (asked, status) in [
        (plain("/api/v2/nodes?limit=0"), 400),
        (plain("/api/v2/nodes?limit=10001"), 400),
        (plain("/api/v2/nodes?limit=x"), 400),
        (plain("/api/v2/nodes?state=odd"), 400),
        (plain("/api/v2/nodes?colour=red"), 400),
        (plain("/api/v2/nodes?page_token=%21"), 400),
        (plain("/api/v2/pairs?page_token=b3ds"), 400),
        (plain("/api/v2/matrix?metric=odd"), 400),
        (plain("/api/v2/events?after=-1"), 400),
        (plain("/api/v2/events?after=9007199254740992"), 400),
        (plain("/api/v2/stream?topics=verdict,odd"), 400),
        (plain("/api/v2/pairs/%ff/owl"), 400),
        (Request::get("/api/v2/nodes").body(Body::empty()).unwrap(), 401),
        (Request::get("/api/v2/odd").body(Body::empty()).unwrap(), 401),
        (plain("/api/v2/odd"), 404),
        (plain("/api/v2/nodes/odd"), 404),
        (plain("/api/v2/pairs/owl/odd"), 404),
        (plain("/api/v2/pairs/owl/owl"), 404),
        (posted, 405),
        (accept("/api/v2/nodes", "text/html"), 406),
        (accept("/api/v2/stream", "application/json"), 406),
        (mark(""), 422),
        (mark(&"x".repeat(201)), 422),
        (mark("two\nlines"), 422),
        (mark(&"x".repeat(100_000)), 413),
    ] {
        let what =
            format!("{} {} {:?}", asked.method(), asked.uri(), asked.headers().get(header::ACCEPT));
        let response = api.ask(asked).await;
        assert_eq!(response.status().as_u16(), status, "{what}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json", "{what}");
        assert_eq!(
            response.headers().contains_key(header::WWW_AUTHENTICATE),
            status == 401,
            "{what}"
        );
        assert_eq!(response.headers().contains_key(header::ALLOW), status == 405, "{what}");
        let problem: Value = serde_json::from_slice(&bytes(response).await).unwrap();
        assert_eq!(problem["status"], status, "{what}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{what}");
    }
}

#[tokio::test]
async fn an_answer_that_is_known_is_not_sent_again() {
    let api = Api::new();
    let first = api.ask(request("/api/v2/nodes").body(Body::empty()).unwrap()).await;
    let tag = first.headers()[header::ETAG].clone();
    let again =
        request("/api/v2/nodes").header(header::IF_NONE_MATCH, &tag).body(Body::empty()).unwrap();
    let again = api.ask(again).await;
    assert_eq!((again.status(), &again.headers()[header::ETAG]), (StatusCode::NOT_MODIFIED, &tag));
    assert!(bytes(again).await.is_empty());
    api.mesh.show(snapshot(5, REFUSED));
    let changed =
        request("/api/v2/nodes").header(header::IF_NONE_MATCH, &tag).body(Body::empty()).unwrap();
    assert_eq!(api.ask(changed).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_answer_is_compressed_for_those_who_accept_it() {
    let api = Api::new();
    let plain = api.ask(request("/api/v2/matrix").body(Body::empty()).unwrap()).await;
    assert!(!plain.headers().contains_key(header::CONTENT_ENCODING));
    let packed = api
        .ask(
            request("/api/v2/matrix")
                .header(header::ACCEPT_ENCODING, "gzip")
                .body(Body::empty())
                .unwrap(),
        )
        .await;
    assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip");
    let (plain, packed) = (bytes(plain).await, bytes(packed).await);
    assert!(packed.len() * 2 < plain.len() && packed.starts_with(&[0x1f, 0x8b]));
}

#[tokio::test]
async fn marks_stand_among_the_events_and_do_not_push_them_out() {
    let api = Api::new();
    let mark = |text: String| {
        let body = serde_json::json!({ "text": text }).to_string();
        let request = request("/api/v2/marks").header(header::CONTENT_TYPE, "application/json");
        request.method(Method::POST).body(Body::from(body)).unwrap()
    };
    for count in 0..30 {
        let response = api.ask(mark(format!("kernel on rack {count}"))).await;
        assert_eq!(response.status(), StatusCode::CREATED);
    }
    assert_eq!(api.ask(mark("one more".to_owned())).await.status(), StatusCode::TOO_MANY_REQUESTS);
    let events = api.get("/api/v2/events").await;
    let texts: Vec<_> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["text"].as_str().unwrap())
        .collect();
    assert_eq!((texts.len(), texts[0], texts[29]), (30, "kernel on rack 0", "kernel on rack 29"));
    let fifth = &events["events"][4]["sequence"];
    let later = api.get(&format!("/api/v2/events?after={fifth}&limit=2")).await;
    assert_eq!(
        (&later["events"][0], &later["next_after"]),
        (&events["events"][5], &events["events"][6]["sequence"])
    );
    // A minute later the next one is set.
    api.mesh.show(snapshot(61, REFUSED));
    assert_eq!(api.ask(mark("later".to_owned())).await.status(), StatusCode::CREATED);
}

/// Reads a stream until it has sent a message with this text.
async fn read_until(body: &mut Body, text: &str) -> String {
    use axum::body::HttpBody as _;
    let mut read = String::new();
    let reading = async {
        while !read.contains(text) {
            let frame =
                std::future::poll_fn(|context| std::pin::Pin::new(&mut *body).poll_frame(context))
                    .await
                    .unwrap()
                    .unwrap();
            read.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .unwrap_or_else(|_| panic!("no {text}"));
    read
}

#[tokio::test]
async fn a_watcher_gets_what_changes_and_nothing_twice() {
    let api = Api::new();
    let ok = State::Ok {
        total: LatencyCode::encode(Duration::from_millis(1)),
        request: None,
        jitter: None,
    };
    let watch = |path: &'static str| request(path).body(Body::empty()).unwrap();
    let mut body = api.ask(watch("/api/v2/stream")).await.into_body();
    let mut marks = api.ask(watch("/api/v2/stream?topics=mark")).await.into_body();
    let first = read_until(&mut body, "\n\n").await;
    assert!(first.starts_with("retry: 2000\nevent: verdict\ndata: {"), "{first}");
    api.look();
    api.mesh.show(snapshot(1, ok));
    api.look();
    let changed = read_until(&mut body, "event: pair").await;
    assert!(changed.contains(r#""source":"duck","target":"goose","state":"ok""#), "{changed}");
    assert_eq!(changed.matches("event: pair").count(), 1, "{changed}");
    let body = Body::from(r#"{"text":"a mark"}"#);
    let mark = request("/api/v2/marks")
        .method(Method::POST)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .unwrap();
    assert_eq!(api.ask(mark).await.status(), StatusCode::CREATED);
    let marked = read_until(&mut marks, "a mark").await;
    assert!(!marked.contains("event: pair"), "{marked}");
    // One that comes back gets what it missed.
    let after = request("/api/v2/stream").header("last-event-id", "1").body(Body::empty()).unwrap();
    read_until(&mut api.ask(after).await.into_body(), "a mark").await;
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_informed_and_the_number_of_watchers_is_bounded() {
    let api = Api::new();
    let watch = || request("/api/v2/stream").body(Body::empty()).unwrap();
    let mut stalled = api.ask(watch()).await.into_body();
    for _ in 0..200 {
        api.look();
    }
    read_until(&mut stalled, "event: reload").await;
    let mut held = vec![stalled];
    while held.len() < 64 {
        held.push(api.ask(watch()).await.into_body());
    }
    assert_eq!(api.ask(watch()).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    held.pop();
    assert_eq!(api.ask(watch()).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_page_is_for_browsers_and_can_be_left_out() {
    let html =
        || Request::get("/").header(header::ACCEPT, "text/html").body(Body::empty()).unwrap();
    let api = Api::new();
    let page = api.ask(html()).await;
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let page = String::from_utf8(bytes(page).await).unwrap();
    assert!(page.starts_with("<!doctype html>"));
    // All that it names is there, and together it is small.
    let mut size = 0;
    let parts = page.split('"').filter(|part| part.starts_with("ui/")).map(str::to_owned);
    let imported = ["ui/data.js", "ui/grid.js", "ui/chart.js", "ui/words.js"].map(str::to_owned);
    for part in parts.chain(imported) {
        let part = api
            .ask(
                Request::get(format!("/{part}"))
                    .header(header::ACCEPT_ENCODING, "gzip")
                    .body(Body::empty())
                    .unwrap(),
            )
            .await;
        assert_eq!(part.status(), StatusCode::OK);
        size += bytes(part).await.len();
    }
    assert!(size < 150_000, "{size}");
    let words = Request::get("/").header(header::ACCEPT, "*/*").body(Body::empty()).unwrap();
    assert!(bytes(api.ask(words).await).await.starts_with(b"canary-bot measures"));
    let docs = bytes(api.ask(Request::get("/docs").body(Body::empty()).unwrap()).await).await;
    assert!(String::from_utf8(docs).unwrap().contains("/api/v2/matrix"));

    let bare = Api::showing(Content { page: false, ..Content::default() });
    assert!(bytes(bare.ask(html()).await).await.starts_with(b"canary-bot measures"));
    assert_ne!(
        bare.ask(Request::get("/ui/app.js").body(Body::empty()).unwrap()).await.status(),
        StatusCode::OK
    );
}
