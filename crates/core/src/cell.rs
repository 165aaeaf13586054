//! The published state of one pair, and its packed form.

use std::time::Duration;

use crate::code::{JitterCode, LatencyCode};

/// Why a probe failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// The name could not be resolved.
    Dns,
    /// The host answered that nothing listens.
    Refused,
    /// The network answered that there is no way.
    Unreachable,
    /// Nothing answered in time.
    Timeout,
    /// No secure channel could be agreed on.
    Tls,
    /// The connection was cut.
    Reset,
    /// What answered does not speak our protocol.
    Protocol,
    /// What answered does not admit us.
    Auth,
    /// Another node answered.
    Identity,
    /// The source itself could not try, many times in a row: it lacks descriptors, ports, memory or
    /// time.
    Local,
    /// A kind that a later release of the source knows and this one does not.
    Other,
}

impl Failure {
    /// All kinds that a probe of this release can end with, in the order of their codes.
    pub const ALL: [Self; 10] = [
        Self::Dns,
        Self::Refused,
        Self::Unreachable,
        Self::Timeout,
        Self::Tls,
        Self::Reset,
        Self::Protocol,
        Self::Auth,
        Self::Identity,
        Self::Local,
    ];

    /// Whether it is an answer of the other host: our own network works then.
    pub(crate) fn is_answer(self) -> bool {
        matches!(self, Self::Refused | Self::Identity | Self::Protocol | Self::Auth | Self::Tls)
    }

    /// Whether it says at once that the node is not there: nothing listens, or somebody else does.
    pub(crate) fn is_refusal(self) -> bool {
        matches!(self, Self::Refused | Self::Identity)
    }

    /// The code on the wire. A later release adds kinds from 10 on, up to 12.
    pub const fn code(self) -> u8 {
        match self {
            Self::Dns => 0,
            Self::Refused => 1,
            Self::Unreachable => 2,
            Self::Timeout => 3,
            Self::Tls => 4,
            Self::Reset => 5,
            Self::Protocol => 6,
            Self::Auth => 7,
            Self::Identity => 8,
            Self::Local => 9,
            Self::Other => 13,
        }
    }

    /// The kind with this code; [`Failure::Other`] for a code that this release does not know.
    pub const fn from_code(code: u32) -> Self {
        match code {
            0 => Self::Dns,
            1 => Self::Refused,
            2 => Self::Unreachable,
            3 => Self::Timeout,
            4 => Self::Tls,
            5 => Self::Reset,
            6 => Self::Protocol,
            7 => Self::Auth,
            8 => Self::Identity,
            9 => Self::Local,
            _ => Self::Other,
        }
    }

    /// The lower-case name, as in metrics and APIs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Auth => "auth",
            Self::Identity => "identity",
            Self::Local => "local",
            Self::Other => "other",
        }
    }
}

/// Ages inside a row are counted in ticks of an eighth of a second.
pub(crate) const TICK: Duration = Duration::from_millis(125);

/// What is published of a pair: its latest attempt, and how it has been lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// How the latest attempt ended.
    pub state: State,
    /// Ticks of 125 ms from the attempt to the row's label; zero while nothing was attempted.
    pub age_ticks: u32,
    /// Share of failed attempts in the window, in 255ths, rounded up: a loss is never shown as
    /// none.
    pub loss: u8,
    /// Segments that the kernel sent again during the latest attempt: its latency contains waiting
    /// for them. 255 stands for more, too.
    pub retransmissions: u8,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Never attempted: unknown is not zero.
    #[default]
    Unknown,
    /// It was answered.
    Ok {
        /// Connect, TLS and first request.
        total: LatencyCode,
        /// A second request on the warm connection; none if that one failed.
        request: Option<LatencyCode>,
        /// Smoothed difference between successive totals; none before the second success.
        jitter: Option<JitterCode>,
    },
    /// It failed.
    Failed(Failure),
}

impl Cell {
    /// Time from the attempt to the row's label.
    pub fn age(&self) -> Duration {
        TICK * self.age_ticks
    }

    /// Share of failed attempts in the window, from 0 to 1.
    pub fn loss_ratio(&self) -> f64 {
        f64::from(self.loss) / 255.0
    }
}

/// Why packed bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// They end inside a value.
    #[error("the packed bytes end inside a value")]
    Short,
    /// A tag or a flag has no meaning.
    #[error("the packed bytes have an unknown tag")]
    Tag,
    /// A number does not fit.
    #[error("the packed bytes have a number out of range")]
    Range,
    /// There are more or fewer values than announced.
    #[error("the packed bytes hold another number of values than announced")]
    Count,
    /// There are more bytes than allowed.
    #[error("the packed bytes are more than allowed")]
    Long,
    /// Positions or names are not in ascending order.
    #[error("the packed bytes are not in ascending order")]
    Order,
}

/// Appends `value` as a LEB128 varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that [`put_varint`] takes for `value`.
pub(crate) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Reads from the front of packed bytes.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn byte(&mut self) -> Result<u8, PackError> {
        let (first, rest) = self.0.split_first().ok_or(PackError::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], PackError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(PackError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, PackError> {
        Ok(u16::from_le_bytes([self.byte()?, self.byte()?]))
    }

    pub(crate) fn varint(&mut self) -> Result<u64, PackError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(PackError::Range);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(PackError::Range)
    }
}

pub(crate) const TAG_UNKNOWN: u8 = 0;
pub(crate) const TAG_OK: u8 = 1;
const TAG_FAILED: u8 = 2;

/// The tag of a state.
pub(crate) fn tag_of(state: State) -> u8 {
    match state {
        State::Unknown => TAG_UNKNOWN,
        State::Ok { .. } => TAG_OK,
        State::Failed(kind) => TAG_FAILED + kind.code(),
    }
}

/// How an attempt with this tag failed; unknown for a tag that is of no failure.
pub(crate) fn failed_of(tag: u8) -> State {
    tag.checked_sub(TAG_FAILED)
        .map_or(State::Unknown, |code| State::Failed(Failure::from_code(code.into())))
}
