//! What a bot of a later release would say, as far as one of this release can tell.
//!
//! The cores of all hosts are of this release. On its way, what a host of the next release
//! publishes of itself is put into the form of that release: a section of a kind that is unknown
//! here, kinds of failures and figures of cells that are unknown here, or a row that cannot be read
//! at all.

use std::sync::Arc;

use canary_core::{Exchange, Frame, Instance, Patch};

/// The release of a host's bot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Release {
    /// This one.
    #[default]
    This,
    /// One that adds to what rows tell.
    Next,
    /// One whose rows this release cannot read at all.
    Unreadable,
}

/// The kind of section that this release reads, and one that it does not know.
const COLUMNS: u32 = 5;
pub(super) const FUTURE: u32 = 77;
/// A failure by its code in a tag, and the code of a kind that is not known here.
const REFUSED: u8 = 3;
const FUTURE_FAILURE: u8 = 14;

impl Release {
    /// What arrives at `other` of what the host with `me` says.
    pub(super) fn translated(self, mut exchange: Exchange, me: Instance, other: Self) -> Exchange {
        match self {
            Self::This => {}
            Self::Next => {
                for news in exchange.rows.iter_mut().filter(|news| news.source == me) {
                    news.frame = news.frame.take().map(|(frame, age)| (next_frame(&frame), age));
                    news.patches = news.patches.iter().map(|patch| next_patch(patch)).collect();
                }
            }
            Self::Unreadable if other == self => {}
            Self::Unreadable => {
                let before = exchange.rows.len();
                exchange.rows.retain(|news| news.source != me);
                exchange.unread += (before - exchange.rows.len()) as u32;
            }
        }
        exchange
    }
}

fn next_frame(frame: &Frame) -> Arc<Frame> {
    let sections = next_sections(frame.sections());
    let sections = sections.iter().map(|(kind, packed)| (*kind, &**packed));
    let next = Frame::from_sections(frame.version(), frame.roster(), frame.wall(), sections);
    Arc::new(next.expect("a frame of the next release is read by this one"))
}

fn next_patch(patch: &Patch) -> Arc<Patch> {
    let sections = next_sections(patch.sections());
    let sections = sections.iter().map(|(kind, packed)| (*kind, &**packed));
    Arc::new(
        Patch::from_sections(patch.version(), patch.wall(), sections)
            .expect("a patch of the next release is read by this one"),
    )
}

fn next_sections<'a>(
    sections: impl Iterator<Item = (u32, std::borrow::Cow<'a, [u8]>)>,
) -> Vec<(u32, Vec<u8>)> {
    let next = |kind, packed: &[u8]| {
        if kind == COLUMNS { next_columns(packed.to_vec()) } else { packed.to_vec() }
    };
    let mut next: Vec<_> = sections.map(|(kind, packed)| (kind, next(kind, &packed))).collect();
    next.push((FUTURE, b"what the next release adds".to_vec()));
    next
}

/// The same cells with one more figure, and refusals of a kind that is not known here. It follows
/// the protocol's description, not the code of the core.
fn next_columns(mut packed: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    let varint = |packed: &[u8], at: &mut usize| {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = packed[*at];
            *at += 1;
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    };
    for _ in 0..varint(&packed, &mut at) {
        if packed[at] == REFUSED {
            packed[at] = FUTURE_FAILURE;
        }
        at += 1;
        varint(&packed, &mut at);
    }
    packed.push(42);
    packed
}
