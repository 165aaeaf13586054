//! Where a node waits to be admitted by a bot of the original: what travels with its row, so that
//! others need not ask there as well.

use crate::cell::{Reader, put_varint};
use crate::identity::Target;
use crate::limits::{HOST_BYTES_MAX, PENDING_JOINS_MAX};

/// An address at which a bot of the original lives that has not answered when it was asked to let
/// the source of the row in. Each such call leaves something behind there, so one node asks at a
/// time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingJoin {
    /// Where it was asked.
    pub target: Target,
    /// How many calls in a row were given up while it answered others; 0 while the first is under
    /// way.
    pub unanswered: u32,
}

impl PendingJoin {
    /// Whether the bot there is stuck: it answered other calls while this one was given up.
    pub fn is_stuck(&self) -> bool {
        self.unanswered > 0
    }

    /// As they travel, each with the length of its target as text, that text, and the count. Those
    /// beyond [`PENDING_JOINS_MAX`] are left out.
    pub(crate) fn pack(all: &[Self]) -> Vec<u8> {
        let mut out = Vec::new();
        for Self { target, unanswered } in all.iter().take(PENDING_JOINS_MAX) {
            let text = target.to_string();
            put_varint(&mut out, text.len() as u64);
            out.extend(text.as_bytes());
            put_varint(&mut out, u64::from(*unanswered));
        }
        out
    }

    /// None if it is not spelled as today.
    pub(crate) fn unpack(bytes: &[u8]) -> Option<Vec<Self>> {
        let mut reader = Reader(bytes);
        let mut all = Vec::new();
        while !reader.0.is_empty() {
            // A port, and brackets around an address.
            let len = usize::try_from(reader.varint().ok()?)
                .ok()
                .filter(|len| *len <= HOST_BYTES_MAX + 8)?;
            let (text, rest) = reader.0.split_at_checked(len)?;
            reader.0 = rest;
            let target = std::str::from_utf8(text).ok()?.parse().ok()?;
            let unanswered = u32::try_from(reader.varint().ok()?).ok()?;
            if all.len() >= PENDING_JOINS_MAX {
                return None;
            }
            all.push(Self { target, unanswered });
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_read_again_and_nothing_else() {
        let at = |host: &str, unanswered| PendingJoin {
            target: Target::new(host, 8081).unwrap(),
            unanswered,
        };
        let all = vec![at("old-1.example", 0), at("fd00::1", 3), at("10.0.0.1", u32::MAX)];
        let packed = PendingJoin::pack(&all);
        assert_eq!(PendingJoin::unpack(&packed), Some(all));
        assert_eq!(PendingJoin::unpack(&[]), Some(Vec::new()));
        let last = packed.len() - 5;
        assert!(
            (1..last).filter(|end| PendingJoin::unpack(&packed[..*end]).is_some()).count() <= 2,
            "only whole entries are read"
        );
        let many = vec![at("old", 1); PENDING_JOINS_MAX + 1];
        assert_eq!(
            PendingJoin::unpack(&PendingJoin::pack(&many)).map(|read| read.len()),
            Some(PENDING_JOINS_MAX)
        );
        assert_eq!(
            PendingJoin::unpack(&[PendingJoin::pack(&many), packed].concat()),
            None,
            "too many"
        );
    }
}
