//! The API asked in-process: a mesh made by hand, the real router, no socket.
#![allow(clippy::unwrap_used)]

mod calls;
mod metrics;
mod refusals;
mod v1;
mod v2;
mod web;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use canary_core::{
    Attempt, Cell, Detail, Events, Failure, Frame, Histogram, Incarnation, Instance, JitterCode,
    Labels, LatencyCode, MemberView, MeshName, NodeName, Now, Pair, Record, Refusals, Release,
    Roster, Row, Snapshot, Standing, State, Status, Target, Time, Timing, Wall,
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
struct Mesh {
    told: Mutex<(Arc<Snapshot>, Arc<Report>, Insight)>,
    is_wedged: AtomicBool,
}

impl Source for Mesh {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.told.lock().unwrap().0)
    }

    fn snapshot_age(&self) -> Duration {
        if self.is_wedged.load(Ordering::Relaxed) {
            Duration::from_secs(60)
        } else {
            Duration::ZERO
        }
    }

    fn report(&self) -> Arc<Report> {
        Arc::clone(&self.told.lock().unwrap().1)
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
        let told = Mutex::new((Arc::new(snapshot), report, insight));
        Arc::new(Self { told, is_wedged: AtomicBool::new(false) })
    }

    /// From now on the bot's loop does not run.
    fn wedge(&self) {
        self.is_wedged.store(true, Ordering::Relaxed);
    }

    fn show(&self, snapshot: Snapshot) {
        let mut held = self.told.lock().unwrap();
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
        row_holds_at: now.time,
        row_holds: true,
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
    for member in &mut members {
        // What the owl measured itself; the last one it never reached.
        let ok = |connect| {
            Attempt::Ok(Timing {
                connect: Duration::from_micros(connect),
                first_request: Duration::from_micros(700),
                request: Some(Duration::from_micros(250)),
                ..Timing::default()
            })
        };
        let attempts = match member.record.name.as_str() {
            "duck" => vec![ok(300), Attempt::Failed(Failure::Timeout), ok(500)],
            "goose" => vec![Attempt::Failed(Failure::Refused)],
            _ => continue,
        };
        member.pair = Arc::new(Pair::measured(attempts.into_iter().map(|attempt| (attempt, now))));
    }
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

/// Compares with a file of `tests/golden`; `UPDATE_GOLDEN=1` writes it again.
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
        "{name}; UPDATE_GOLDEN=1 writes it again"
    );
}
