//! Digests: what is known of many members, in few bytes.
//!
//! An entry tells who it is about. Two bots that know the same members need no names: they have the
//! same list of those of a range, and a line for each place is enough.

use std::time::Duration;

use crate::cell::{PackError, Reader, put_varint, varint_len};
use crate::hash::stable_hash;
use crate::identity::Instance;
use crate::limits::{CHANGE_STEPS_MAX, ENTRIES_ACCEPTED_MAX, EXCHANGE_BYTES_MAX};
use crate::row::Version;

/// What a digest says of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which incarnation of which node.
    pub instance: Instance,
    /// Version of its row that is offered; 0 for none.
    pub version: Version,
    /// The version in which a pair of it had last changed its state when its highest heartbeat was
    /// made, or a later one, [`CHANGE_STEPS_MAX`] before the version
    /// that is offered; 0 if none did.
    pub changed: Version,
    /// Its highest heartbeat.
    pub heartbeat: u64,
    /// Time since that heartbeat was made.
    pub age: Duration,
    /// Whether it said goodbye.
    pub left: bool,
}

/// An entry without its instance: what it says of the member with that place in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// As in [`Entry`].
    pub version: Version,
    /// As in [`Entry`].
    pub changed: Version,
    /// As in [`Entry`].
    pub heartbeat: u64,
    /// As in [`Entry`].
    pub age: Duration,
    /// As in [`Entry`].
    pub left: bool,
}

/// What is said of the members of a range to a peer that has the same list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    /// A digest of the instances of the list.
    list: u64,
    /// How long that is.
    len: u32,
    /// Lines with their places, in ascending order.
    lines: Vec<(u32, Line)>,
}

/// The unit of travelling ages: fine enough to order what happens within a second.
const AGE_UNIT: Duration = Duration::from_millis(8);

fn age_units(age: Duration) -> u64 {
    u64::try_from(age.as_millis() / AGE_UNIT.as_millis()).unwrap_or(u64::MAX >> 4)
}

/// Flags in the lowest bits of an entry's age.
const LEFT: u64 = 1;
/// A varint follows: from the version that is offered to the one that told of a change, as a zigzag.
/// Otherwise it is [`CHANGE_STEPS_MAX`] before, or there was none.
const CHANGED: u64 = 2;

/// The earliest version of a change that goes with a version that is offered.
pub(crate) fn earliest_change(version: Version) -> Version {
    version.saturating_sub(CHANGE_STEPS_MAX)
}

/// Packs the entries of a digest: 8 bytes of instance and three or four small numbers each.
pub fn pack_entries(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 * entries.len());
    for entry in entries {
        out.extend(entry.instance.0.to_le_bytes());
        entry.line().put(&mut out);
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
        entries.push(Line::take(&mut reader)?.of(instance));
    }
    Ok(entries)
}

impl Entry {
    /// What it says, without of whom.
    pub fn line(&self) -> Line {
        let Self { version, changed, heartbeat, age, left, .. } = *self;
        Line { version, changed, heartbeat, age, left }
    }

    pub(crate) fn packed_len(&self) -> usize {
        8 + self.line().packed_len()
    }
}

impl Line {
    /// What it says of a member.
    pub fn of(self, instance: Instance) -> Entry {
        let Self { version, changed, heartbeat, age, left } = self;
        Entry { instance, version, changed, heartbeat, age, left }
    }

    /// From the version that is offered to the one that told of a change, as a zigzag; none if it is
    /// the earliest one.
    fn step(&self) -> Option<u64> {
        let step = self.changed.wrapping_sub(self.version) as i64;
        (self.changed != earliest_change(self.version)).then_some((step << 1 ^ step >> 63) as u64)
    }

    fn age_and_flags(&self) -> u64 {
        let changed = if self.step().is_some() { CHANGED } else { 0 };
        age_units(self.age) << 2 | changed | if self.left { LEFT } else { 0 }
    }

    fn packed_len(&self) -> usize {
        varint_len(self.version)
            + varint_len(self.heartbeat)
            + varint_len(self.age_and_flags())
            + self.step().map_or(0, varint_len)
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.version);
        put_varint(out, self.heartbeat);
        put_varint(out, self.age_and_flags());
        if let Some(step) = self.step() {
            put_varint(out, step);
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, PackError> {
        let version = reader.varint()?;
        let heartbeat = reader.varint()?;
        let age = reader.varint()?;
        let step = if age & CHANGED != 0 { Some(reader.varint()?) } else { None };
        let millis = (age >> 2).saturating_mul(AGE_UNIT.as_millis() as u64);
        Ok(Self {
            version,
            changed: step.map_or(earliest_change(version), |step| {
                version.wrapping_add(step >> 1 ^ (step & 1).wrapping_neg())
            }),
            heartbeat,
            age: Duration::from_millis(millis),
            left: age & LEFT != 0,
        })
    }
}

impl Lines {
    /// The lines of all members of a list, which is in order of instances.
    pub fn of_all(list: &[Entry]) -> Self {
        let lines = list.iter().zip(0..).map(|(entry, place)| (place, entry.line())).collect();
        Self { lines, ..Self::of_none(list) }
    }

    /// No line yet for a list.
    fn of_none(list: &[Entry]) -> Self {
        let instances = list.iter().flat_map(|entry| entry.instance.0.to_le_bytes());
        Self { list: stable_hash(instances), len: list.len() as u32, lines: Vec::new() }
    }

    /// Takes those of `entries`, in order of instances, that are in the list, but for one; none if
    /// none is.
    pub(crate) fn drawn(list: &[Entry], entries: &mut Vec<Entry>, but: Instance) -> Option<Self> {
        let mut drawn = Self::of_none(list);
        let mut places = list.iter().zip(0..).peekable();
        entries.retain(|entry| {
            while places.next_if(|(listed, _)| listed.instance < entry.instance).is_some() {}
            let place = places
                .next_if(|(listed, _)| listed.instance == entry.instance && entry.instance != but);
            drawn.lines.extend(place.map(|(_, place)| (place, entry.line())));
            place.is_none()
        });
        (!drawn.lines.is_empty()).then_some(drawn)
    }

    /// With the names that a list of our own has at these places; none if theirs is another one.
    pub(crate) fn named(&self, list: &[Entry]) -> Option<Vec<Entry>> {
        let own = Self::of_none(list);
        if (own.list, own.len) != (self.list, self.len) {
            return None;
        }
        let named =
            |(place, line): &(u32, Line)| Some(line.of(list.get(*place as usize)?.instance));
        self.lines.iter().map(named).collect()
    }

    pub(crate) fn packed_len(&self) -> usize {
        let lines = self.lines.iter().map(|(_, line)| line.packed_len()).sum::<usize>();
        12 + lines + if self.is_of_all() { 0 } else { self.lines.len() }
    }

    /// How many lines there are.
    pub fn count(&self) -> usize {
        self.lines.len()
    }

    fn is_of_all(&self) -> bool {
        self.lines.len() == self.len as usize
    }

    /// The bytes that travel: the digest of the list, its length, and the lines; where they are not
    /// all, each after how many places were left out before it.
    pub fn pack(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 * self.lines.len() + 12);
        out.extend(self.list.to_le_bytes());
        put_varint(&mut out, u64::from(self.len) << 1 | u64::from(self.is_of_all()));
        let mut next = 0;
        for (place, line) in &self.lines {
            if !self.is_of_all() {
                put_varint(&mut out, u64::from(place - next));
            }
            next = place + 1;
            line.put(&mut out);
        }
        out
    }

    /// Reads such bytes.
    pub fn unpack(bytes: &[u8]) -> Result<Self, PackError> {
        if bytes.len() > EXCHANGE_BYTES_MAX {
            return Err(PackError::Long);
        }
        let mut reader = Reader(bytes);
        let list = reader.take(8)?.try_into().map_err(|_| PackError::Short)?;
        let header = reader.varint()?;
        let (len, is_of_all) = (header >> 1, header & 1 == 1);
        if len > ENTRIES_ACCEPTED_MAX as u64 {
            return Err(PackError::Count);
        }
        let mut read = Self { list: u64::from_le_bytes(list), len: len as u32, lines: Vec::new() };
        let mut next = 0;
        while !reader.0.is_empty() {
            let gap = if is_of_all { 0 } else { reader.varint()? };
            let place = gap.checked_add(next).filter(|place| *place < len);
            let place = place.ok_or(PackError::Range)?;
            read.lines.push((place as u32, Line::take(&mut reader)?));
            next = place + 1;
        }
        // What is not of all must not look so, or it would be written otherwise than it was read.
        if is_of_all != read.is_of_all() { Err(PackError::Count) } else { Ok(read) }
    }
}
