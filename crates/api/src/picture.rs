//! The matrix as readers see it: one state for every pair of known nodes, from one snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    Attempt, Failure, JitterCode, LatencyCode, MemberView, NodeName, RosterId, Row, Snapshot,
    Status, Time, Wall,
};

/// A row that is older than this is stale, unless rows of this mesh are published less often.
const SILENT_AFTER: Duration = Duration::from_secs(20);

/// All nodes that are or should be there, with what is known of their pairs.
#[derive(Debug)]
pub(crate) struct Picture {
    snapshot: Arc<Snapshot>,
    /// By name, the answering bot among them. Nodes that left are not.
    nodes: Vec<Node>,
    /// Where the names of a roster stand in `nodes`.
    places: BTreeMap<RosterId, Vec<Option<u32>>>,
    /// How old the row of a bot may be that is heard.
    fresh: Duration,
}

/// One node of a picture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    /// Its place in the snapshot; none for the answering bot.
    member: Option<usize>,
    /// Whether its row advances, so that it is known what it measures.
    pub(crate) is_visible: bool,
}

/// What is known of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// No attempt is known.
    #[default]
    Unknown,
    /// The latest attempt was answered.
    Ok,
    /// The latest attempt failed.
    Failed(Failure),
}

/// A time as it was received: what travelled as a code is decoded when somebody reads it, for a
/// matrix has a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Took {
    Exact(Duration),
    Latency(LatencyCode),
    Jitter(JitterCode),
}

impl Took {
    pub(crate) fn duration(self) -> Duration {
        match self {
            Self::Exact(duration) => duration,
            Self::Latency(code) => code.decode(),
            Self::Jitter(code) => code.decode(),
        }
    }

    pub(crate) fn code(self) -> LatencyCode {
        match self {
            Self::Latency(code) => code,
            other => LatencyCode::encode(other.duration()),
        }
    }
}

/// The latest attempt of one pair, and how the pair has been.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cell {
    pub(crate) state: State,
    /// Whether the state is too old to be called the present one.
    pub(crate) is_stale: bool,
    pub(crate) total: Option<Took>,
    pub(crate) request: Option<Took>,
    pub(crate) jitter: Option<Took>,
    /// Share of failed attempts in the window; none before the first attempt.
    pub(crate) loss: Option<f64>,
    /// Segments that the kernel sent again during the latest attempt.
    pub(crate) retransmissions: u32,
    /// When the latest attempt began, by the source's clock.
    pub(crate) attempted: Option<Wall>,
    /// How long ago that was, by the answering bot's clock.
    pub(crate) age: Option<Duration>,
}

impl Cell {
    /// Whether it counts as what a filter calls `ok`, `failed`, `unknown` or `stale`.
    pub(crate) fn word(&self) -> &'static str {
        match self.state {
            State::Unknown => "unknown",
            _ if self.is_stale => "stale",
            State::Ok => "ok",
            State::Failed(_) => "failed",
        }
    }

    /// How the latest attempt failed, if it did.
    pub(crate) fn failure(&self) -> Option<Failure> {
        match self.state {
            State::Failed(kind) => Some(kind),
            State::Unknown | State::Ok => None,
        }
    }
}

impl Picture {
    pub(crate) fn of(snapshot: Arc<Snapshot>) -> Self {
        let fresh = SILENT_AFTER.max(snapshot.publish_interval * 3);
        let is_visible = |member: &MemberView| {
            member.status.is_present()
                && member.row.as_ref().is_some_and(|row| row.age(snapshot.now.time) < fresh)
        };
        let me = &snapshot.me.name;
        let before = snapshot.members.partition_point(|member| member.record.name < *me);
        let mut nodes = Vec::with_capacity(snapshot.members.len() + 1);
        for (place, member) in snapshot.members.iter().enumerate() {
            if place == before {
                nodes.push(Node { member: None, is_visible: true });
            }
            if member.known && member.status != Status::Left {
                nodes.push(Node { member: Some(place), is_visible: is_visible(member) });
            }
        }
        if before == snapshot.members.len() {
            nodes.push(Node { member: None, is_visible: true });
        }
        let mut picture = Self { snapshot, nodes, places: BTreeMap::new(), fresh };
        picture.places = picture.place_rosters();
        picture
    }

    fn place_rosters(&self) -> BTreeMap<RosterId, Vec<Option<u32>>> {
        let mut places = BTreeMap::new();
        for roster in
            self.snapshot.members.iter().filter_map(|member| member.row.as_ref()?.roster())
        {
            let place =
                |name: &NodeName| self.place(name).and_then(|place| u32::try_from(place).ok());
            places.entry(roster.id()).or_insert_with(|| roster.names().iter().map(place).collect());
        }
        places
    }

    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What others tell of a node; none for the answering bot itself.
    pub(crate) fn member(&self, place: usize) -> Option<&MemberView> {
        self.snapshot.members.get(self.nodes.get(place)?.member?)
    }

    pub(crate) fn name(&self, place: usize) -> &NodeName {
        self.member(place).map_or(&self.snapshot.me.name, |member| &member.record.name)
    }

    /// A label of a node.
    pub(crate) fn label(&self, place: usize, key: &str) -> Option<&str> {
        let record = self.member(place).map_or(&self.snapshot.me, |member| &member.record);
        record.labels.value(key)
    }

    /// Where the node called `name` stands.
    pub(crate) fn place(&self, name: &NodeName) -> Option<usize> {
        self.nodes.binary_search_by(|node| self.name_of(*node).cmp(name)).ok()
    }

    fn name_of(&self, node: Node) -> &NodeName {
        node.member
            .and_then(|place| self.snapshot.members.get(place))
            .map_or(&self.snapshot.me.name, |member| &member.record.name)
    }

    /// What is known of the pairs from one node to all nodes, in their order; unknown for the node
    /// itself.
    pub(crate) fn row(&self, source: usize) -> Vec<Cell> {
        let mut cells = vec![Cell::default(); self.nodes.len()];
        match (self.nodes.get(source), self.member(source)) {
            (Some(_), None) => self.own_row(&mut cells),
            (Some(node), Some(member)) => {
                if let Some(row) = &member.row {
                    self.other_row(row, node.is_visible, &mut cells);
                }
            }
            (None, _) => {}
        }
        if let Some(own) = cells.get_mut(source) {
            *own = Cell::default();
        }
        cells
    }

    /// What is known of one pair.
    pub(crate) fn cell(&self, source: usize, target: usize) -> Cell {
        self.row(source).get(target).copied().unwrap_or_default()
    }

    /// How old the row of a node is; none while there is none. The answering bot's own is of this
    /// moment.
    pub(crate) fn row_age(&self, place: usize) -> Option<Duration> {
        let now = self.snapshot.now.time;
        match (self.nodes.get(place)?, self.member(place)) {
            (_, None) => Some(Duration::ZERO),
            (_, Some(member)) => member.row.as_ref().map(|row| row.age(now)),
        }
    }

    /// What this bot measured itself, exact.
    fn own_row(&self, cells: &mut [Cell]) {
        for (node, cell) in self.nodes.iter().zip(cells) {
            let Some(member) = node.member.and_then(|place| self.snapshot.members.get(place))
            else {
                continue;
            };
            *cell = self.own_cell(member);
        }
    }

    /// What this bot measured of one node.
    pub(crate) fn own_cell(&self, member: &MemberView) -> Cell {
        let series = member.pair.main();
        let Some((attempt, wall)) = series.latest() else { return Cell::default() };
        let now = self.snapshot.now.wall.unix_millis();
        let age = Duration::from_millis(now.saturating_sub(wall.unix_millis()));
        let (attempts, lost) = series.loss();
        let (state, timing) = match attempt {
            Attempt::Ok(timing) => (State::Ok, Some(timing)),
            Attempt::Failed(kind) => (State::Failed(kind), None),
        };
        Cell {
            state,
            is_stale: self.is_old(state, age, Some(member)),
            total: timing.map(|timing| Took::Exact(timing.total())),
            request: timing.and_then(|timing| timing.request).map(Took::Exact),
            jitter: series.jitter().filter(|_| timing.is_some()).map(Took::Exact),
            loss: Some(f64::from(lost) / f64::from(attempts.max(1))),
            retransmissions: timing
                .and_then(|timing| timing.kernel)
                .map_or(0, |kernel| kernel.retransmissions),
            attempted: Some(wall),
            age: Some(age),
        }
    }

    /// What another bot published.
    fn other_row(&self, row: &Row, is_visible: bool, cells: &mut [Cell]) {
        let Some(places) = row.roster().and_then(|roster| self.places.get(&roster.id())) else {
            return;
        };
        let (label, labelled_ago) =
            (row.frame().wall().unix_millis(), row.frame_age(self.snapshot.now.time));
        for (view, place) in row.cells().into_iter().zip(places) {
            let Some((place, cell)) =
                place.and_then(|place| Some((place as usize, cells.get_mut(place as usize)?)))
            else {
                continue;
            };
            let (state, total, request, jitter) = match view.cell.state {
                canary_core::State::Unknown => continue,
                canary_core::State::Failed(kind) => (State::Failed(kind), None, None, None),
                canary_core::State::Ok { total, request, jitter } => {
                    (State::Ok, Some(total), request, jitter)
                }
            };
            // Both labels are of the source's clock: only their difference counts.
            let begun = view.wall.unix_millis();
            let age = (labelled_ago + Duration::from_millis(label.saturating_sub(begun)))
                .saturating_sub(Duration::from_millis(begun.saturating_sub(label)));
            *cell = Cell {
                state,
                is_stale: !is_visible || self.is_old(state, age, self.member(place)),
                total: total.map(Took::Latency),
                request: request.map(Took::Latency),
                jitter: jitter.map(Took::Jitter),
                loss: Some(view.cell.loss_ratio()),
                retransmissions: u32::from(view.cell.retransmissions),
                attempted: Some(view.wall),
                age: Some(age),
            };
        }
    }

    /// Whether an attempt is too old to say how the pair is now. A dead node is tried seldom: a
    /// failure is what is known of it until it lives.
    fn is_old(&self, state: State, age: Duration, target: Option<&MemberView>) -> bool {
        let is_dead = target.is_some_and(|target| target.status == Status::Dead);
        let interval = target.map_or(self.snapshot.pair_interval, |target| target.interval);
        age > self.fresh + interval * 4 && !(is_dead && matches!(state, State::Failed(_)))
    }

    /// A time of this bot's loop as a label.
    pub(crate) fn wall(&self, at: Time) -> Wall {
        let now = self.snapshot.now;
        now.wall.back(now.time.since(at))
    }
}
