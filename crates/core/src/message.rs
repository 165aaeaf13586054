//! What bots say to each other, as plain data. The transport turns it into bytes and back.

use std::sync::Arc;
use std::time::Duration;

use crate::cell::Failure;
use crate::digest::{Entry, Lines};
use crate::identity::{Incarnation, Instance, MeshName, Record};
use crate::roster::{Roster, RosterId};
use crate::row::{Frame, Patch, Row, Version};
use crate::time::Time;

/// A request between bots.
#[derive(Clone, Debug)]
pub enum Request {
    /// Let me in; this is who I am.
    Join(Arc<Record>),
    /// Who are you?
    Identify,
    /// Gossip.
    Exchange(Box<Exchange>),
    /// Try to reach this node and tell me.
    IndirectProbe(Instance),
}

/// The answer to a [`Request`].
#[derive(Clone, Debug)]
pub enum Response {
    /// To [`Request::Join`].
    Join(JoinAnswer),
    /// To [`Request::Identify`].
    Identify(Arc<Record>),
    /// To [`Request::Exchange`].
    Exchange(Box<Exchange>),
    /// To [`Request::Exchange`] of somebody who has to join first.
    NotAdmitted,
    /// To [`Request::Exchange`] that was meant for somebody else; this is who answers.
    NotMe(Arc<Record>),
    /// To [`Request::IndirectProbe`].
    IndirectProbe(Answer),
    /// To any request: the peer lives and has no time for it.
    Busy,
    /// To [`Request::Exchange`]: the peer lives, and its answer is of a later release.
    Unknown,
}

/// What became of a join.
#[derive(Clone, Debug)]
pub enum JoinAnswer {
    /// You are in; this is who I am.
    Admitted(Arc<Record>),
    /// You asked yourself.
    Yourself,
    /// A living node has your name.
    NameTaken(Arc<Record>),
    /// A former incarnation of your name was larger than yours; come again with a larger one.
    Outdated(Incarnation),
    /// I cannot reach you at your target, and this is why.
    Unreachable(String),
    /// I belong to the mesh of this name, and you to another.
    OtherMesh(MeshName),
    /// Come again later.
    Busy,
    /// A bot of the original answers there, and its own loops are stuck: it admits nobody. The
    /// shell found that out; it does not travel.
    Stuck,
    /// A bot of the original is there, which this bot will ask in its turn, or another one of ours
    /// asks. The shell says so; it does not travel.
    InTurn,
    /// An answer of a later release, by its number there.
    Unknown(i32),
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// I reached it.
    Reached,
    /// I did not.
    Failed(Failure),
    /// I do not know it, or have no hand free.
    Unknown,
}

/// Gossip: each side says what it has and what it lacks, and sends what the other lacks.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// Who speaks.
    pub from: Option<Instance>,
    /// Who is meant; anybody, if nobody is named.
    pub to: Option<Instance>,
    /// The range of instances of which the lines, or else the entries, are complete: absence inside
    /// it means "I have none". None in a push of news.
    pub range: Option<InstanceRange>,
    /// What is known of members' incarnations and rows.
    pub entries: Vec<Entry>,
    /// The same of members of the range, by their places in it.
    pub lines: Option<Lines>,
    /// Members as they describe themselves.
    pub records: Vec<Heard>,
    /// Rows and parts of rows.
    pub rows: Vec<RowNews>,
    /// Rosters that rows refer to.
    pub rosters: Vec<Arc<Roster>>,
    /// Members that nobody could reach.
    pub suspicions: Vec<Suspicion>,
    /// Instances whose record the other should send.
    pub wants_records: Vec<Instance>,
    /// Instances whose row the other should send, with the version that is here already.
    pub wants_rows: Vec<(Instance, Version)>,
    /// Rosters the other should send.
    pub wants_rosters: Vec<RosterId>,
    /// Parts that could not be read, and are left out: malformed, too many, or of a later release.
    /// It does not travel.
    pub unread: u32,
}

/// Instances from one to another, both included; there is no empty one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceRange {
    low: Instance,
    high: Instance,
}

impl InstanceRange {
    /// Every instance.
    pub const ALL: Self = Self { low: Instance(0), high: Instance(u64::MAX) };
    /// No node's instance: zero is none.
    pub const NOBODY: Self = Self { low: Instance(0), high: Instance(0) };

    /// From `low` to `high`; none if `high` is the smaller one.
    pub fn new(low: Instance, high: Instance) -> Option<Self> {
        (low <= high).then_some(Self { low, high })
    }

    /// The first one.
    pub fn low(self) -> Instance {
        self.low
    }

    /// The last one.
    pub fn high(self) -> Instance {
        self.high
    }

    pub(crate) fn contains(self, instance: Instance) -> bool {
        self.bounds().contains(&instance)
    }

    pub(crate) fn bounds(self) -> std::ops::RangeInclusive<Instance> {
        self.low..=self.high
    }
}

/// A member as it describes itself, with what the speaker knows of its liveness.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Its description.
    pub record: Arc<Record>,
    /// The version in which a pair of it had last changed its state by then; 0 if none did.
    pub changed: Version,
    /// Its highest heartbeat.
    pub heartbeat: u64,
    /// Time since that heartbeat was made.
    pub age: Duration,
    /// Whether it said goodbye.
    pub left: bool,
}

/// News of a row: a frame, patches, or both.
#[derive(Clone, Debug)]
pub struct RowNews {
    /// Whose row.
    pub source: Instance,
    /// A whole row with its age; none when only patches are lacking.
    pub frame: Option<(Arc<Frame>, Duration)>,
    /// Patches in ascending order of versions, all as old as the row's latest version.
    pub patches: Vec<Arc<Patch>>,
    /// Age of the latest version.
    pub age: Duration,
}

/// Nobody could reach this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// Which incarnation of which node.
    pub instance: Instance,
    /// Time since the first failure.
    pub age: Duration,
    /// Whether every attempt was refused.
    pub refused: bool,
}

impl RowNews {
    /// What somebody lacks who has `version` of the row; none if nothing.
    pub(crate) fn since(source: Instance, row: &Row, version: Version, now: Time) -> Option<Self> {
        if version >= row.version() {
            return None;
        }
        let whole = version < row.frame().version();
        let frame = whole.then(|| (Arc::clone(row.frame()), row.frame_age(now)));
        let patches = row
            .patches()
            .iter()
            .filter(|patch| whole || patch.version() > version)
            .cloned()
            .collect();
        Some(Self { source, frame, patches, age: row.age(now) })
    }

    /// What it takes of the room of one exchange: its bytes, or two for each cell, for reading it
    /// costs as much.
    pub(crate) fn weight(&self) -> usize {
        self.packed_len().max(2 * self.cells_len())
    }

    /// How many cells there are, in the frame and in the patches.
    pub fn cells_len(&self) -> usize {
        let frame = self.frame.as_ref().map_or(0, |(frame, _)| frame.cells_len());
        frame + self.patches.iter().map(|patch| patch.cells_len()).sum::<usize>()
    }

    pub(crate) fn packed_len(&self) -> usize {
        let frame = self.frame.as_ref().map_or(0, |(frame, _)| frame.packed_len());
        16 + frame + self.patches.iter().map(|patch| patch.packed_len()).sum::<usize>()
    }
}

impl Exchange {
    /// Bytes on the wire, to within a few per element.
    pub fn packed_len(&self) -> usize {
        let entries: usize = self.entries.iter().map(Entry::packed_len).sum();
        let lines = self.lines.as_ref().map_or(0, Lines::packed_len);
        let records: usize = self.records.iter().map(|heard| heard.record.packed_len() + 8).sum();
        let rows: usize = self.rows.iter().map(RowNews::packed_len).sum();
        let rosters: usize = self.rosters.iter().map(|roster| roster.packed_len() + 4).sum();
        let wants = 9 * self.wants_records.len()
            + 14 * self.wants_rows.len()
            + 18 * self.wants_rosters.len();
        48 + entries + lines + records + rows + rosters + wants + 16 * self.suspicions.len()
    }

    /// Whether it says all that its sender has in a range; otherwise it is a push of news.
    pub fn is_digest(&self) -> bool {
        self.range.is_some()
    }

    /// Whether there is anything in it that is worth sending.
    pub fn is_empty(&self) -> bool {
        self.range.is_none()
            && self.entries.is_empty()
            && self.lines.is_none()
            && self.records.is_empty()
            && self.rows.is_empty()
            && self.rosters.is_empty()
            && self.suspicions.is_empty()
            && self.wants_records.is_empty()
            && self.wants_rows.is_empty()
            && self.wants_rosters.is_empty()
    }
}
