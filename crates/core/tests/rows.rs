//! Laws of rows: what is packed comes out as it went in.

#![allow(clippy::unwrap_used)]

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use canary_core::limits::ROSTER_NAMES_MAX;
use canary_core::{
    Cell, Failure, Frame, JitterCode, LatencyCode, Merge, PackError, Patch, Roster, Row, State,
    Time, Wall,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const NOW: Time = Time::from_micros(1 << 50);

fn sections<'a>(sections: impl Iterator<Item = (u32, Cow<'a, [u8]>)>) -> Vec<(u32, Vec<u8>)> {
    sections.map(|(kind, packed)| (kind, packed.into_owned())).collect()
}

fn borrowed(sections: &[(u32, Vec<u8>)]) -> impl Iterator<Item = (u32, &[u8])> {
    sections.iter().map(|(kind, packed)| (*kind, &**packed))
}

/// The same frame, as it arrives at another bot.
fn travelled(frame: &Frame) -> Frame {
    Frame::from_sections(
        frame.version(),
        frame.roster(),
        frame.wall(),
        borrowed(&sections(frame.sections())),
    )
    .unwrap()
}

proptest! {
    // One seed, so that a run is the same everywhere; PROPTEST_RNG_SEED draws others.
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn cells_come_out_as_they_went_in(cells in prop::collection::vec(cell(), 0..60)) {
        let roster = Roster::new((0..cells.len()).map(|index| format!("node-{index:03}").parse().unwrap()));
        let frame = Frame::new(1, roster.id(), Wall::from_unix_millis(1 << 40), &cells);
        let frame = travelled(&frame);
        let mut row = Row::new(Arc::new(frame), None, Duration::ZERO, NOW);
        prop_assert!(row.cells().is_empty());
        row.supply(&roster).unwrap();
        let back: Vec<_> = row.cells().iter().map(|view| view.cell).collect();
        prop_assert_eq!(back, cells);
    }

    #[test]
    fn a_row_of_any_shape_comes_out_as_it_went_in(seed in any::<u64>()) {
        let cells = skewed(seed);
        let roster = Roster::new((0..cells.len()).map(|index| format!("node-{index:04}").parse().unwrap()));
        let frame = travelled(&Frame::new(1, roster.id(), Wall::from_unix_millis(1 << 40), &cells));
        let row = Row::new(Arc::new(frame), Some(roster), Duration::ZERO, NOW);
        let back: Vec<_> = row.cells().iter().map(|view| view.cell).collect();
        prop_assert_eq!(back, cells);
    }

    #[test]
    fn a_patch_changes_its_cells_and_no_others(cells in prop::collection::vec(cell(), 1..60), changed in prop::collection::vec(prop::option::of(cell()), 60)) {
        let changes: Vec<_> = (0..).zip(changed).take(cells.len()).filter_map(|(place, cell)| Some((place, cell?))).collect();
        let roster = Roster::new((0..cells.len()).map(|index| format!("node-{index:03}").parse().unwrap()));
        let frame = Frame::new(4, roster.id(), Wall::from_unix_millis(1 << 40), &cells);
        let mut row = Row::new(Arc::new(frame), None, Duration::ZERO, NOW);
        row.supply(&roster).unwrap();
        let patch = Patch::new(5, Wall::from_unix_millis(1 << 40), &changes);
        let patch = Arc::new(Patch::from_sections(5, patch.wall(), borrowed(&sections(patch.sections()))).unwrap());
        let later = Arc::new(Patch::new(7, patch.wall(), &[]));
        prop_assert_eq!(row.extend(&later, Duration::ZERO, NOW), Merge::Gap);
        prop_assert_eq!(row.extend(&patch, Duration::ZERO, NOW), Merge::Taken);
        prop_assert_eq!(row.extend(&patch, Duration::ZERO, NOW), Merge::Known);
        let mut expected = cells;
        for (place, change) in changes {
            expected[place as usize] = change;
        }
        let back: Vec<_> = row.cells().iter().map(|view| view.cell).collect();
        prop_assert_eq!(back, expected);
    }
}

/// The columns of one failed cell just now, with this many places skipped before it.
fn one_skipping(skipped: u16) -> Vec<u8> {
    let [low, high] = skipped.to_le_bytes();
    [&[1, 3, 1, 16, 0][..], &[0; 12], &[low, high]].concat()
}

#[test]
fn a_place_beyond_every_roster_is_refused_and_a_frame_leaves_no_place_out() {
    let at = Wall::from_unix_millis(1 << 40);
    let patch =
        |packed: &[u8]| Patch::from_sections(2, at, [(5, packed)]).map(|patch| patch.cells_len());
    assert_eq!(patch(&one_skipping(0)), Ok(1));
    assert_eq!(patch(&one_skipping(ROSTER_NAMES_MAX as u16 - 1)), Ok(1));
    assert_eq!(patch(&one_skipping(ROSTER_NAMES_MAX as u16)), Err(PackError::Range));
    let whole = one_skipping(1);
    for cut in 0..whole.len() {
        assert!(patch(&whole[..cut]).is_err(), "{cut} of {} bytes", whole.len());
    }
    let frame = |packed: &[u8]| Frame::from_sections(1, Roster::new([]).id(), at, [(5, packed)]);
    assert!(frame(&one_skipping(0)).is_ok());
    assert_eq!(frame(&whole), Err(PackError::Order));
}

#[test]
fn patches_that_together_have_more_cells_than_a_roster_are_a_gap() {
    let at = Wall::from_unix_millis(1 << 40);
    let frame = Frame::new(1, Roster::new([]).id(), at, &[]);
    let mut row = Row::new(Arc::new(frame), None, Duration::ZERO, NOW);
    let failed = Cell { state: State::Failed(Failure::Timeout), ..Cell::default() };
    let all: Vec<_> = (0..ROSTER_NAMES_MAX as u32).map(|place| (place, failed)).collect();
    let patch = |version, changes: &[(u32, Cell)]| Arc::new(Patch::new(version, at, changes));
    assert_eq!(row.extend(&patch(2, &all[1..]), Duration::ZERO, NOW), Merge::Taken);
    assert_eq!(row.extend(&patch(3, &all[..2]), Duration::ZERO, NOW), Merge::Gap);
    assert_eq!(row.extend(&patch(3, &all[..1]), Duration::ZERO, NOW), Merge::Taken);
}

#[test]
fn a_latency_of_more_than_a_thousand_seconds_is_none() {
    assert_eq!(LatencyCode::encode(Duration::MAX).decode(), Duration::from_secs(1000));
    assert!(LatencyCode::from_raw(LatencyCode::encode(Duration::MAX).get() + 1).is_none());
}

/// Up to 4,096 cells of which most figures are alike and some are anything: tables and ranks of
/// every length.
fn skewed(seed: u64) -> Vec<Cell> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let width = rng.u32(1..=16);
    let outliers = rng.f64().powi(3);
    let mut figure = |bits: u32| {
        let is_outlier = rng.f64() < outliers;
        let bits = if is_outlier { bits } else { width.min(bits) / 2 };
        (rng.u64(..) & ((1 << bits) - 1)) as u32
    };
    let mut cells = Vec::new();
    for index in 0..1 + figure(11) + figure(11) {
        let total = LatencyCode::from_raw(figure(14).max(1) as u16).unwrap();
        let state = match figure(8) {
            200.. if index % 2 == 0 => State::Unknown,
            200.. => State::Failed(Failure::ALL[index as usize % Failure::ALL.len()]),
            _ => State::Ok {
                total,
                request: LatencyCode::from_raw(figure(14) as u16),
                jitter: JitterCode::from_raw(figure(8) as u8),
            },
        };
        let (age_ticks, loss, retransmissions) = (figure(32), figure(8) as u8, figure(8) as u8);
        cells.push(match state {
            State::Unknown => Cell::default(),
            state => Cell { state, age_ticks, loss, retransmissions },
        });
    }
    cells
}

fn cell() -> impl Strategy<Value = Cell> {
    let ok =
        (1..=1_u16 << 14, 0..=1_u16 << 14, any::<u8>()).prop_map(|(total, request, jitter)| {
            State::Ok {
                total: LatencyCode::from_raw(total).unwrap(),
                request: LatencyCode::from_raw(request),
                jitter: JitterCode::from_raw(jitter),
            }
        });
    let state = prop_oneof![
        Just(State::Unknown),
        ok,
        prop::sample::select(Failure::ALL.to_vec()).prop_map(State::Failed)
    ];
    (state, any::<u32>(), any::<u8>()).prop_map(|(state, age_ticks, loss)| match state {
        State::Unknown => Cell::default(),
        state => Cell { state, age_ticks, loss, retransmissions: 0 },
    })
}
