//! The order of a row's cells: a sorted list of names, known by its content.
//!
//! Bots that know the same nodes have the same roster, so that in a settled mesh there is one, and
//! a row costs its cells alone.

use std::fmt;
use std::sync::Arc;

use crate::cell::{PackError, Reader, put_varint};
use crate::identity::NodeName;
use crate::limits::ROSTER_NAMES_MAX;

/// What a name in a roster takes beside its letters.
const NAME_OVERHEAD: usize = 48;

/// The fingerprint of a roster's content (128-bit FNV-1a).
///
/// It guards against accident, not against malice: a member that gossips rows can lie about them
/// without a collision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RosterId(pub u128);

impl fmt::Display for RosterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Names in ascending order.
#[derive(Debug, PartialEq, Eq)]
pub struct Roster {
    id: RosterId,
    names: Box<[NodeName]>,
    /// Bytes of memory that it takes.
    bytes: usize,
}

impl Roster {
    /// The roster of `names`, which are sorted here.
    pub fn new(names: impl IntoIterator<Item = NodeName>) -> Arc<Self> {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        Arc::new(Self { id: fingerprint(&names), bytes: bytes_of(&names), names: names.into() })
    }

    /// The same with the letters of names that are held elsewhere anyway, which come in order: many
    /// rosters of one mesh cost little more than one.
    pub(crate) fn sharing<'a>(&self, held: impl Iterator<Item = &'a NodeName>) -> Arc<Self> {
        let mut held = held.peekable();
        let mut shared = 0;
        let share = |name: &NodeName| {
            while held.next_if(|held| *held < name).is_some() {}
            let held = held.next_if(|held| *held == name);
            shared +=
                held.map_or(0, |held| held.as_str().len() + NAME_OVERHEAD - size_of::<NodeName>());
            held.unwrap_or(name).clone()
        };
        let names: Box<[_]> = self.names.iter().map(share).collect();
        Arc::new(Self { id: self.id, names, bytes: self.bytes.saturating_sub(shared) })
    }

    /// Its fingerprint.
    pub fn id(&self) -> RosterId {
        self.id
    }

    /// The names in the order of the cells.
    pub fn names(&self) -> &[NodeName] {
        &self.names
    }

    /// The position of `name`.
    pub fn position(&self, name: &NodeName) -> Option<usize> {
        self.names.binary_search(name).ok()
    }

    /// The packed form: the count, then length and bytes of each name.
    pub fn pack(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.packed_len());
        put_varint(&mut out, self.names.len() as u64);
        for name in &self.names {
            put_varint(&mut out, name.as_str().len() as u64);
            out.extend_from_slice(name.as_str().as_bytes());
        }
        out
    }

    pub(crate) fn packed_len(&self) -> usize {
        4 + self.names.iter().map(|name| name.as_str().len() + 2).sum::<usize>()
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reads the packed form.
    pub fn unpack(bytes: &[u8]) -> Result<Arc<Self>, PackError> {
        let mut reader = Reader(bytes);
        let count = usize::try_from(reader.varint()?).map_err(|_| PackError::Range)?;
        if count > ROSTER_NAMES_MAX {
            return Err(PackError::Long);
        }
        let mut names: Vec<NodeName> = Vec::with_capacity(count.min(bytes.len()));
        for _ in 0..count {
            let len = usize::try_from(reader.varint()?).map_err(|_| PackError::Range)?;
            let text = std::str::from_utf8(reader.take(len)?).map_err(|_| PackError::Tag)?;
            let name = text.parse().map_err(|_| PackError::Range)?;
            if names.last().is_some_and(|last| *last >= name) {
                return Err(PackError::Order);
            }
            names.push(name);
        }
        if !reader.0.is_empty() {
            return Err(PackError::Count);
        }
        Ok(Arc::new(Self { id: fingerprint(&names), bytes: bytes_of(&names), names: names.into() }))
    }
}

fn bytes_of(names: &[NodeName]) -> usize {
    64 + names.iter().map(|name| name.as_str().len() + NAME_OVERHEAD).sum::<usize>()
}

fn fingerprint(names: &[NodeName]) -> RosterId {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut hash = BASIS;
    // 0xff never occurs in UTF-8, so it separates names without ambiguity.
    for byte in names.iter().flat_map(|name| name.as_str().bytes().chain([0xff])) {
        hash = (hash ^ u128::from(byte)).wrapping_mul(PRIME);
    }
    RosterId(hash)
}
