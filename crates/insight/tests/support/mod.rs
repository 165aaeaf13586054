//! Matrices made by hand, second by second, as one bot sees them.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    Cell, Events, Failure, Frame, Histogram, Incarnation, Instance, Labels, LatencyCode,
    MemberView, MeshName, NodeName, Now, Pair, Record, Refusals, Release, Roster, Row, Secured,
    Snapshot, Standing, State, Status, Target, Time, Wall,
};

/// A mesh of hosts of which some pairs are broken.
pub struct Lab {
    pub nodes: usize,
    pub seconds: u64,
    /// Pairs that fail, with their kind.
    pub failing: BTreeSet<(usize, usize, Failure)>,
    /// Pairs that are ten times slower than the others.
    pub slow: BTreeSet<(usize, usize)>,
    pub status: Vec<Status>,
    /// The second in which the status of a host became what it is; long ago if none.
    pub changed: Vec<Option<u64>>,
    pub secured: Option<Secured>,
    /// The release of each host; none if it tells none.
    pub releases: Vec<Option<Release>>,
    /// Whether every pair has a latency of its own, from 0.2 to 80 ms, with noise of 5 %: nothing
    /// of it repeats.
    pub ragged: bool,
    labels: Vec<Labels>,
    rows: Vec<Option<Arc<Row>>>,
    roster: Arc<Roster>,
    pair: Arc<Pair>,
    /// Rows are published once in so many seconds, in turn.
    pub published_every: u64,
    /// Hosts whose latest rows have not arrived.
    pub late: BTreeSet<usize>,
    /// Hosts with a bot of the original: it measures once in half a minute.
    pub originals: BTreeSet<usize>,
}

pub fn name(index: usize) -> NodeName {
    format!("host-{index:04}").parse().unwrap()
}

/// A share from 0 to 1 that looks random (SplitMix64).
fn share(of: u64) -> f64 {
    let mut mixed = of.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

fn ragged(source: usize, target: usize, seconds: u64) -> u64 {
    let pair = (source * 10_007 + target) as u64;
    let base = 200.0 * 400.0_f64.powf(share(pair));
    (base * (0.95 + 0.1 * share(pair ^ seconds << 40))) as u64
}

impl Lab {
    pub fn new(nodes: usize, zones: usize) -> Self {
        let zone = |index: usize| {
            (zones > 0).then(|| ("zone".to_owned(), (index * zones / nodes).to_string()))
        };
        Self {
            nodes,
            seconds: 0,
            failing: BTreeSet::new(),
            slow: BTreeSet::new(),
            status: vec![Status::Alive; nodes],
            changed: vec![None; nodes],
            secured: None,
            releases: vec![None; nodes],
            ragged: false,
            labels: (0..nodes).map(|index| Labels::new(zone(index)).unwrap()).collect(),
            rows: vec![None; nodes],
            roster: Roster::new((0..nodes).map(name)),
            pair: Arc::default(),
            published_every: 1,
            late: BTreeSet::new(),
            originals: BTreeSet::new(),
        }
    }

    /// Gives each host a zone.
    pub fn label(&mut self, zone: impl Fn(usize) -> String) {
        let labels = |host| Labels::new([("zone".to_owned(), zone(host))]).unwrap();
        self.labels = (0..self.nodes).map(labels).collect();
    }

    pub fn now(&self) -> Now {
        let time = Time::ZERO + Duration::from_secs(400 * 24 * 3600 + self.seconds);
        Now { time, wall: Wall::from_unix_millis(1_700_000_000_000 + self.seconds * 1000) }
    }

    fn record(&self, index: usize) -> Arc<Record> {
        Arc::new(Record {
            mesh: MeshName::default(),
            name: name(index),
            target: Target::new(&format!("host-{index}"), 8081).unwrap(),
            labels: self.labels[index].clone(),
            incarnation: Incarnation(1),
            instance: Instance(index as u64 + 1),
        })
    }

    fn publish(&mut self, source: usize) {
        let cell = |target: usize| {
            let failure = Failure::ALL
                .into_iter()
                .find(|kind| self.failing.contains(&(source, target, *kind)));
            // Latencies differ from pair to pair and a little from time to time.
            let noise = (source * 7 + target * 13 + self.seconds as usize) % 5;
            let base = 2_000 + 100 * noise as u64;
            let base = if self.ragged { ragged(source, target, self.seconds) } else { base };
            let micros = if self.slow.contains(&(source, target)) { base * 10 } else { base };
            let state = match failure {
                _ if source == target => State::Unknown,
                Some(kind) => State::Failed(kind),
                None => State::Ok {
                    total: LatencyCode::encode(Duration::from_micros(micros)),
                    request: None,
                    jitter: None,
                },
            };
            let age_ticks = if self.originals.contains(&source) { 240 } else { 2 };
            Cell { state, age_ticks, loss: 0, retransmissions: 0 }
        };
        let cells: Vec<_> = (0..self.nodes).map(cell).collect();
        let frame = Frame::new(self.seconds, self.roster.id(), self.now().wall, &cells)
            .with_secured(self.secured)
            .with_release(self.releases[source].clone());
        let row = Row::new(
            Arc::new(frame),
            Some(Arc::clone(&self.roster)),
            Duration::ZERO,
            self.now().time,
        );
        self.rows[source] = Some(Arc::new(row));
    }

    /// Its source may have found another result since.
    fn row_holds_at(&self, index: usize) -> Time {
        let now = self.now().time;
        self.rows[index].as_ref().map_or(Time::ZERO, |row| now.back(row.age(now)))
    }

    /// A second passes; returns what host 0 sees then.
    pub fn second(&mut self) -> Snapshot {
        self.seconds += 1;
        for source in 0..self.nodes {
            let is_turn = self.rows[source].is_none()
                || (source as u64 + self.seconds).is_multiple_of(self.published_every);
            if self.status[source].is_present() && is_turn && !self.late.contains(&source) {
                self.publish(source);
            }
        }
        let now = self.now();
        let view = |index: usize| MemberView {
            record: self.record(index),
            status: self.status[index],
            since: now.time.back(Duration::from_secs(
                self.changed[index].map_or(3600, |second| self.seconds - second),
            )),
            evidence_at: now.time,
            proven: true,
            known: true,
            pair: Arc::clone(&self.pair),
            interval: Duration::from_secs(3),
            takes_part: !self.originals.contains(&index),
            row_holds_at: self.row_holds_at(index),
            row_holds: !self.late.contains(&index),
            version: self.rows[index].as_ref().map_or(0, |row| row.version()),
            row: self.rows[index].clone(),
        };
        Snapshot {
            now,
            me: self.record(0),
            own_row: self.rows[0].clone(),
            members: (1..self.nodes).map(view).collect(),
            standing: Standing::Member,
            isolated: false,
            targets: Vec::new(),
            unproven: 0,
            join_problems: Vec::new(),
            pair_interval: Duration::from_secs(1),
            publish_interval: Duration::from_secs(self.published_every),
            refusals: Refusals::default(),
            schedule_delay: Histogram::default(),
            stalled: Duration::ZERO,
            events: Events::default(),
        }
    }

    /// Nobody reaches a host, and it says nothing.
    pub fn lose(&mut self, host: usize, kind: Failure) {
        self.failing.extend(
            (0..self.nodes).filter(|source| *source != host).map(|source| (source, host, kind)),
        );
        self.status[host] = Status::Dead;
        self.changed[host].get_or_insert(self.seconds + 1);
    }
}
