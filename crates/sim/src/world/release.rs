//! What a bot of a later release would say, as far as one of this release can tell.
//!
//! The cores of all hosts are of this release. On its way, what a host of the next release
//! publishes of itself is put into the form of that release: a section of a kind that is unknown
//! here, kinds of failures and figures in cells that are unknown here, or a row that cannot be read
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
const CELLS: u32 = 1;
pub(super) const FUTURE: u32 = 77;
/// A failure by its code in a tag, and the code of a kind that is not known here.
const REFUSED: u8 = 3;
const FUTURE_FAILURE: u8 = 14;
/// A figure that is not known here follows the cell.
const FUTURE_FLAG: u8 = 0x40;

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
    let sections = next_sections(frame.sections(), false);
    let sections = sections.iter().map(|(kind, packed)| (*kind, &**packed));
    let next = Frame::from_sections(frame.version(), frame.roster(), frame.wall(), sections);
    Arc::new(next.expect("a frame of the next release is read by this one"))
}

fn next_patch(patch: &Patch) -> Arc<Patch> {
    let sections = next_sections(patch.sections(), true);
    let sections = sections.iter().map(|(kind, packed)| (*kind, &**packed));
    Arc::new(
        Patch::from_sections(patch.version(), patch.wall(), sections)
            .expect("a patch of the next release is read by this one"),
    )
}

fn next_sections<'a>(
    sections: impl Iterator<Item = (u32, std::borrow::Cow<'a, [u8]>)>,
    with_positions: bool,
) -> Vec<(u32, Vec<u8>)> {
    let mut next: Vec<_> = sections
        .map(|(kind, packed)| {
            (
                kind,
                if kind == CELLS {
                    next_cells(&packed, with_positions)
                } else {
                    packed.into_owned()
                },
            )
        })
        .collect();
    next.push((FUTURE, b"what the next release adds".to_vec()));
    next
}

/// The same cells, each with one more figure, and refusals of a kind that is not known here. It
/// follows the protocol's description, not the code of the core.
fn next_cells(mut packed: &[u8], with_positions: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * packed.len());
    let mut copy = |out: &mut Vec<u8>, len: usize| {
        let (head, rest) = packed.split_at(len);
        out.extend_from_slice(head);
        packed = rest;
        (head.last().copied().unwrap_or_default(), !rest.is_empty())
    };
    loop {
        if with_positions {
            while copy(&mut out, 1).0 >= 0x80 {}
        }
        let (tag, mut more) = copy(&mut out, 1);
        if tag != 0 {
            let place = out.len() - 1;
            out[place] |= FUTURE_FLAG;
            match tag & 0x0f {
                1 => {
                    copy(&mut out, 5);
                }
                REFUSED => out[place] += FUTURE_FAILURE - REFUSED,
                _ => {}
            }
            while {
                let (byte, rest) = copy(&mut out, 1);
                more = rest;
                byte >= 0x80
            } {}
            let figures = (tag >> 4).count_ones() as usize;
            if figures > 0 {
                (_, more) = copy(&mut out, figures);
            }
            out.push(42);
        }
        if !more {
            return out;
        }
    }
}
