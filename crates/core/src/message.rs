//! What bots say to each other, as plain data. The transport turns it into bytes and back.

use std::sync::Arc;
use std::time::Duration;

use crate::cell::{Failure, PackError, Reader, put_varint, varint_len};
use crate::identity::{Incarnation, Instance, MeshName, Record};
use crate::limits::{ENTRIES_ACCEPTED_MAX, EXCHANGE_BYTES_MAX};
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
    /// The range of instances of which the entries are complete: absence inside it means "I have
    /// none". None in a push of news.
    pub range: Option<InstanceRange>,
    /// What is known of members' incarnations and rows.
    pub entries: Vec<Entry>,
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

/// One line of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which incarnation of which node.
    pub instance: Instance,
    /// Version of its row that is offered; 0 for none.
    pub version: Version,
    /// The version in which a pair of it last changed its state, if it published that within
    /// [`QUIET_AFTER`](crate::limits::QUIET_AFTER) before its highest heartbeat.
    pub changed: Option<Version>,
    /// Its highest heartbeat.
    pub heartbeat: u64,
    /// Time since that heartbeat was made.
    pub age: Duration,
    /// Whether it said goodbye.
    pub left: bool,
}

/// A member as it describes itself, with what the speaker knows of its liveness.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Its description.
    pub record: Arc<Record>,
    /// The version in which a pair of it last changed its state, as in [`Entry`].
    pub changed: Option<Version>,
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

/// The unit of travelling ages: fine enough to order what happens within a second.
const AGE_UNIT: Duration = Duration::from_millis(8);

fn age_units(age: Duration) -> u64 {
    u64::try_from(age.as_millis() / AGE_UNIT.as_millis()).unwrap_or(u64::MAX >> 4)
}

/// Flags in the lowest bits of an entry's age.
const LEFT: u64 = 1;
/// A varint follows: from the version that is offered to the one that told of a change, as a zigzag.
const CHANGED: u64 = 2;

/// Packs the entries of a digest: 8 bytes of instance and three or four small numbers each.
pub fn pack_entries(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 * entries.len());
    for entry in entries {
        out.extend(entry.instance.0.to_le_bytes());
        put_varint(&mut out, entry.version);
        put_varint(&mut out, entry.heartbeat);
        put_varint(&mut out, entry.age_and_flags());
        if let Some(step) = entry.step() {
            put_varint(&mut out, step);
        }
    }
    out
}

/// Reads the entries of a digest.
pub fn unpack_entries(bytes: &[u8]) -> Result<Vec<Entry>, PackError> {
    if bytes.len() > EXCHANGE_BYTES_MAX {
        return Err(PackError::Long);
    }
    let mut reader = Reader(bytes);
    let mut entries = Vec::with_capacity((bytes.len() / 11).min(ENTRIES_ACCEPTED_MAX));
    while !reader.0.is_empty() {
        if entries.len() >= ENTRIES_ACCEPTED_MAX {
            return Err(PackError::Count);
        }
        let instance = reader.take(8)?;
        let instance =
            Instance(u64::from_le_bytes(instance.try_into().map_err(|_| PackError::Short)?));
        let version = reader.varint()?;
        let heartbeat = reader.varint()?;
        let age = reader.varint()?;
        let millis = (age >> 2).saturating_mul(AGE_UNIT.as_millis() as u64);
        let step = if age & CHANGED != 0 { Some(reader.varint()?) } else { None };
        entries.push(Entry {
            instance,
            version,
            changed: step.map(|step| version.wrapping_add(step >> 1 ^ (step & 1).wrapping_neg())),
            heartbeat,
            age: Duration::from_millis(millis),
            left: age & LEFT != 0,
        });
    }
    Ok(entries)
}

impl Entry {
    /// From the version that is offered to the one that told of a change, as a zigzag.
    fn step(&self) -> Option<u64> {
        let step = self.changed?.wrapping_sub(self.version) as i64;
        Some((step << 1 ^ step >> 63) as u64)
    }

    fn age_and_flags(&self) -> u64 {
        let changed = if self.changed.is_some() { CHANGED } else { 0 };
        age_units(self.age) << 2 | changed | if self.left { LEFT } else { 0 }
    }

    fn packed_len(&self) -> usize {
        8 + varint_len(self.version)
            + varint_len(self.heartbeat)
            + varint_len(self.age_and_flags())
            + self.step().map_or(0, varint_len)
    }
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
        let cells = self.frame.as_ref().map_or(0, |(frame, _)| frame.cells_len());
        self.packed_len().max(2 * cells)
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
        let records: usize = self.records.iter().map(|heard| heard.record.packed_len() + 8).sum();
        let rows: usize = self.rows.iter().map(RowNews::packed_len).sum();
        let rosters: usize = self.rosters.iter().map(|roster| roster.packed_len() + 4).sum();
        let wants = 9 * self.wants_records.len()
            + 14 * self.wants_rows.len()
            + 18 * self.wants_rosters.len();
        48 + entries + records + rows + rosters + wants + 16 * self.suspicions.len()
    }

    /// Whether it says all that its sender has in a range; otherwise it is a push of news.
    pub fn is_digest(&self) -> bool {
        self.range.is_some()
    }

    /// Whether there is anything in it that is worth sending.
    pub fn is_empty(&self) -> bool {
        self.range.is_none()
            && self.entries.is_empty()
            && self.records.is_empty()
            && self.rows.is_empty()
            && self.rosters.is_empty()
            && self.suspicions.is_empty()
            && self.wants_records.is_empty()
            && self.wants_rows.is_empty()
            && self.wants_rosters.is_empty()
    }
}
