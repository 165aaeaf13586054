//! What the transport sent and received, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A measurement.
    Probe,
    /// Who are you?
    Identify,
    /// Let me in.
    Join,
    /// Gossip.
    Exchange,
    /// Try this node.
    IndirectProbe,
    /// What do you know of this pair?
    Describe,
}

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a peer to us.
    In,
    /// From us to a peer.
    Out,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Probe,
        Self::Identify,
        Self::Join,
        Self::Exchange,
        Self::IndirectProbe,
        Self::Describe,
    ];

    /// The lower-case name, as in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Identify => "identify",
            Self::Join => "join",
            Self::Exchange => "exchange",
            Self::IndirectProbe => "indirect_probe",
            Self::Describe => "describe",
        }
    }
}

impl Direction {
    /// Both directions.
    pub const ALL: [Self; 2] = [Self::In, Self::Out];

    /// The lower-case name, as in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// Messages and their bytes, by kind and direction. Bytes are those of the messages, without
/// HTTP/2's framing.
#[derive(Debug, Default)]
pub struct Traffic {
    messages: [[AtomicU64; 2]; Kind::ALL.len()],
    bytes: [[AtomicU64; 2]; Kind::ALL.len()],
}

impl Traffic {
    pub(crate) fn count(&self, kind: Kind, direction: Direction, bytes: usize) {
        self.messages[kind as usize][direction as usize].fetch_add(1, Ordering::Relaxed);
        self.bytes[kind as usize][direction as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Messages of a kind so far.
    pub fn messages(&self, kind: Kind, direction: Direction) -> u64 {
        self.messages[kind as usize][direction as usize].load(Ordering::Relaxed)
    }

    /// Bytes of the messages of a kind so far.
    pub fn bytes(&self, kind: Kind, direction: Direction) -> u64 {
        self.bytes[kind as usize][direction as usize].load(Ordering::Relaxed)
    }
}
