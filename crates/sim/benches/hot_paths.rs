//! The hot paths of a bot in a mesh of a thousand hosts.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    Cell, Config, Core, Entry, Exchange, Failure, Frame, Heard, Incarnation, Instance, JitterCode,
    Labels, LatencyCode, NodeName, Now, Output, Record, Request, RequestId, Response, Roster, Row,
    RowNews, State, Target, Time, Wall, pack_entries, unpack_entries,
};
use criterion::{Criterion, criterion_group, criterion_main};

const HOSTS: u64 = 1000;
const ROWS_PER_EXCHANGE: usize = 20;

fn now() -> Now {
    Now { time: Time::from_micros(1 << 50), wall: Wall::from_unix_millis(1_700_000_000_000) }
}

fn record(number: u64) -> Arc<Record> {
    let name = format!("host-{number:04}.example.net");
    Arc::new(Record {
        mesh: canary_core::MeshName::default(),
        target: Target::new(&name, 8081).unwrap(),
        name: name.parse().unwrap(),
        labels: Labels::default(),
        incarnation: Incarnation(1),
        // Spread like random ones.
        instance: Instance((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
    })
}

fn cells(version: u64) -> Vec<Cell> {
    let state = |number: u64| match (number + version) % 50 {
        0 => State::Failed(Failure::Timeout),
        _ => State::Ok {
            total: LatencyCode::encode(Duration::from_micros(200 + number * 7 + version)),
            request: Some(LatencyCode::encode(Duration::from_micros(90 + number * 3))),
            jitter: Some(JitterCode::encode(Duration::from_micros(number))),
        },
    };
    (0..HOSTS)
        .map(|number| Cell {
            state: state(number),
            age_ticks: (number % 80) as u32,
            loss: 0,
            retransmissions: 0,
        })
        .collect()
}

fn roster() -> Arc<Roster> {
    Roster::new((0..HOSTS).map(|number| record(number).name.clone()))
}

fn frame(version: u64, roster: &Roster) -> Arc<Frame> {
    Arc::new(Frame::new(version, roster.id(), Wall::from_unix_millis(version), &cells(version)))
}

fn news(version: u64, roster: &Roster, numbers: impl Iterator<Item = u64>) -> Vec<RowNews> {
    let frame = frame(version, roster);
    let row = |number| RowNews {
        source: record(number).instance,
        frame: Some((Arc::clone(&frame), Duration::ZERO)),
        patches: Vec::new(),
        age: Duration::ZERO,
    };
    numbers.map(row).collect()
}

/// A bot that was let into the mesh and holds everybody's row.
fn member_of_all(roster: &Arc<Roster>) -> (Core, Arc<Record>) {
    let peer = record(0);
    let me: NodeName = "me".parse().unwrap();
    let mut core = Core::new(
        Config::default(),
        me,
        Target::new("me", 8081).unwrap(),
        Labels::default(),
        1,
        now(),
    );
    core.handle_request(RequestId(1), Request::Join(Arc::clone(&peer)), now());
    let mut dialled = None;
    while let Some(output) = core.poll_output() {
        if let Output::Call { id, request: Request::Identify, .. } = output {
            dialled = Some(id);
        }
    }
    core.handle_response(dialled.unwrap(), Ok(Response::Identify(Arc::clone(&peer))), now());
    let heard = |number| Heard {
        record: record(number),
        changed: 0,
        heartbeat: 1,
        age: Duration::ZERO,
        left: false,
    };
    for from in (0..HOSTS).step_by(250) {
        let records = (from..from + 250).map(heard).collect();
        tell(&mut core, &peer, Exchange { records, ..Exchange::default() });
    }
    tell(&mut core, &peer, Exchange { rows: news(1, roster, 0..HOSTS), ..Exchange::default() });
    tell(&mut core, &peer, Exchange { rosters: vec![Arc::clone(roster)], ..Exchange::default() });
    assert_eq!(
        core.snapshot(now()).members.iter().filter(|member| member.row.is_some()).count() as u64,
        HOSTS
    );
    (core, peer)
}

/// Hands in what the peer says, and takes the answer.
fn tell(core: &mut Core, peer: &Record, exchange: Exchange) -> Option<Exchange> {
    let exchange = Exchange { from: Some(peer.instance), ..exchange };
    core.handle_request(RequestId(2), Request::Exchange(Box::new(exchange)), now());
    let mut answer = None;
    while let Some(output) = core.poll_output() {
        if let Output::Reply { response: Response::Exchange(said), .. } = output {
            answer = Some(*said);
        }
    }
    answer
}

fn digest(heartbeat: u64) -> Vec<Entry> {
    let entry = |number| Entry {
        instance: record(number).instance,
        version: 1,
        changed: 0,
        heartbeat,
        age: Duration::from_millis(800),
        left: false,
    };
    (0..HOSTS).map(entry).collect()
}

fn frames(criterion: &mut Criterion) {
    let roster = roster();
    let cells = cells(1);
    criterion.bench_function("frame encode, 1,000 cells", |bench| {
        bench.iter(|| Frame::new(1, roster.id(), Wall::from_unix_millis(1), black_box(&cells)));
    });
    let frame = frame(1, &roster);
    criterion.bench_function("frame accept, 1,000 cells", |bench| {
        let sections: Vec<_> = frame.sections().collect();
        bench.iter(|| {
            let borrowed = sections.iter().map(|(kind, packed)| (*kind, &**packed));
            Frame::from_sections(1, roster.id(), Wall::from_unix_millis(1), black_box(borrowed))
                .unwrap()
        });
    });
    let row = Row::new(frame, Some(Arc::clone(&roster)), Duration::ZERO, now().time);
    criterion.bench_function("frame decode, 1,000 cells", |bench| {
        bench.iter(|| black_box(&row).cells().len());
    });
}

fn digests(criterion: &mut Criterion) {
    let entries = digest(1);
    let packed = pack_entries(&entries);
    criterion.bench_function("digest pack, 1,000 entries", |bench| {
        bench.iter(|| pack_entries(black_box(&entries)));
    });
    criterion.bench_function("digest unpack, 1,000 entries", |bench| {
        bench.iter(|| unpack_entries(black_box(&packed)).unwrap());
    });
    let (mut core, peer) = member_of_all(&roster());
    let mut heartbeat = 1;
    criterion.bench_function("digest take in and answer, 1,000 entries", |bench| {
        bench.iter(|| {
            heartbeat += 1;
            tell(
                &mut core,
                &peer,
                Exchange {
                    range: Some(canary_core::InstanceRange::ALL),
                    entries: digest(heartbeat),
                    ..Exchange::default()
                },
            )
        });
    });
}

fn merge(criterion: &mut Criterion) {
    let roster = roster();
    let (mut core, peer) = member_of_all(&roster);
    let mut version = 1;
    criterion.bench_function("merge of 20 rows of 1,000 cells", |bench| {
        bench.iter_batched(
            || {
                version += 1;
                news(version, &roster, (0..HOSTS).step_by(HOSTS as usize / ROWS_PER_EXCHANGE))
            },
            |rows| tell(&mut core, &peer, Exchange { rows, ..Exchange::default() }),
            criterion::BatchSize::SmallInput,
        );
    });
    let held = core
        .snapshot(now())
        .members
        .iter()
        .filter_map(|member| member.row.as_ref())
        .map(|row| row.version())
        .max();
    assert_eq!(held, Some(version), "the rows were not taken");
    criterion.bench_function("snapshot, 1,000 members with rows", |bench| {
        bench.iter(|| core.snapshot(now()).members.len());
    });
}

criterion_group!(benches, frames, digests, merge);
criterion_main!(benches);
