//! The packed form of the cells of a row, or of a patch: half of what they take one by one, because
//! the cells of one row resemble each other.
//!
//! States come first, as runs. Then the figures of all cells follow as one stream of bits. Every
//! figure has a [`Column`], which says how it is coded: its low bits as they are, for they are noise,
//! and the rest as a rank in a table of those that occur, the most frequent first, in a Rice code. A
//! figure that is the same everywhere takes no bits.
//!
//! A later release appends what it adds: what follows the stream is not read.

use std::collections::BTreeMap;

use crate::cell::{
    Cell, PackError, Reader, State, TAG_OK, TAG_UNKNOWN, failed_of, put_varint, tag_of,
};
use crate::code::{JitterCode, LatencyCode};
use crate::limits::ROSTER_NAMES_MAX;

/// Figures of a cell. All but the first are only of one that was attempted, and the last three of
/// one that was answered.
const FIGURES: usize = 7;
/// Bits of the largest figure.
const WIDTH_MAX: u32 = 32;
/// A Rice code has at most this many low bits.
const RICE_MAX: u32 = 3;
/// The last tag that a later release may use.
const TAG_LAST: u8 = 15;
/// Different upper parts in one table.
const TABLE_MAX: usize = 255;

/// The figures of a cell, without its state.
fn figures(skipped: u32, cell: &Cell) -> [u32; FIGURES] {
    let (total, request, jitter) = match cell.state {
        State::Ok { total, request, jitter } => {
            (total.get(), request.map_or(0, LatencyCode::get), jitter.map_or(0, JitterCode::get))
        }
        _ => (0, 0, 0),
    };
    // A request is a part of the total, so that their ratio varies less than either.
    let ratio = total.wrapping_sub(request);
    let (loss, retransmissions) = (cell.loss.into(), cell.retransmissions.into());
    [skipped, cell.age_ticks, loss, retransmissions, total.into(), ratio.into(), jitter.into()]
}

/// How many figures a cell of this state has.
fn figures_of(tag: u8) -> usize {
    match tag {
        TAG_UNKNOWN => 1,
        TAG_OK => FIGURES,
        _ => FIGURES - 3,
    }
}

/// Appends the packed form of cells, each with how many places are skipped before it: none in a
/// whole row.
pub(crate) fn put_cells<'a>(
    out: &mut Vec<u8>,
    cells: impl Iterator<Item = (u32, &'a Cell)> + Clone,
) {
    let mut runs: Vec<(u8, u64)> = Vec::new();
    for tag in cells.clone().map(|(_, cell)| tag_of(cell.state)) {
        match runs.last_mut() {
            Some((last, count)) if *last == tag => *count += 1,
            _ => runs.push((tag, 1)),
        }
    }
    put_varint(out, runs.len() as u64);
    for (tag, count) in runs {
        out.push(tag);
        put_varint(out, count);
    }
    let cells =
        cells.map(|(skipped, cell)| (figures_of(tag_of(cell.state)), figures(skipped, cell)));
    let plans: [Plan; FIGURES] = std::array::from_fn(|figure| {
        let values = cells.clone().filter(|(count, _)| figure < *count);
        Plan::of(values.map(|(_, figures)| figures[figure]).collect())
    });
    plans.iter().for_each(|plan| plan.put(out));
    let mut bits = BitWriter { out, held: 0, count: 0 };
    for (count, figures) in cells {
        for (plan, value) in plans.iter().zip(figures).take(count) {
            plan.write(&mut bits, value);
        }
    }
    bits.finish();
}

/// Packed cells, one after the other, each with how many places are skipped before it.
#[derive(Clone, Debug)]
pub(crate) struct Cells<'a> {
    states: States<'a>,
    columns: [Column<'a>; FIGURES],
    bits: BitReader<'a>,
}

impl<'a> Cells<'a> {
    pub(crate) fn of(packed: &'a [u8]) -> Result<Self, PackError> {
        let mut reader = Reader(packed);
        let states = States::take(&mut reader)?;
        let mut columns = [Column::default(); FIGURES];
        for column in &mut columns {
            *column = Column::take(&mut reader)?;
        }
        Ok(Self { states, columns, bits: BitReader { bytes: reader.0, held: 0, count: 0 } })
    }

    fn cell(&mut self, tag: u8) -> Result<(u32, Cell), PackError> {
        let mut figures = [0; FIGURES];
        let count = figures_of(tag);
        // In registers while a cell is read.
        let mut bits = self.bits;
        for (figure, column) in figures.iter_mut().zip(&self.columns).take(count) {
            *figure = column.read(&mut bits)?;
        }
        self.bits = bits;
        let [skipped, age_ticks, loss, retransmissions, total, ratio, jitter] = figures;
        let byte = |value: u32| u8::try_from(value).map_err(|_| PackError::Range);
        let code = |value: u32| u16::try_from(value).map_err(|_| PackError::Range);
        let state = if tag == TAG_OK {
            State::Ok {
                total: LatencyCode::from_raw(code(total)?).ok_or(PackError::Range)?,
                request: LatencyCode::from_raw(code(total)?.wrapping_sub(code(ratio)?)),
                jitter: JitterCode::from_raw(byte(jitter)?),
            }
        } else {
            failed_of(tag)
        };
        let (loss, retransmissions) = (byte(loss)?, byte(retransmissions)?);
        Ok((skipped, Cell { state, age_ticks, loss, retransmissions }))
    }
}

impl Iterator for Cells<'_> {
    type Item = Result<(u32, Cell), PackError>;

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.states.next()?;
        Some(self.cell(tag))
    }
}

/// The tags of the states of a packed row, in order.
#[derive(Clone, Debug)]
pub(crate) struct States<'a> {
    /// Runs that have not begun.
    runs: Reader<'a>,
    tag: u8,
    left: u64,
    /// Where the run ends that [`Self::at`] came to.
    end: u64,
}

impl<'a> States<'a> {
    /// Those of a packed row.
    pub(crate) fn of(packed: &'a [u8]) -> Result<Self, PackError> {
        Self::take(&mut Reader(packed))
    }

    fn take(reader: &mut Reader<'a>) -> Result<Self, PackError> {
        let count = reader.varint()?;
        let packed = reader.0;
        let mut cells = 0_u64;
        for _ in 0..count {
            if reader.byte()? > TAG_LAST {
                return Err(PackError::Tag);
            }
            let run = reader.varint()?;
            cells = cells.saturating_add(run);
            if run == 0 || cells > ROSTER_NAMES_MAX as u64 {
                return Err(PackError::Count);
            }
        }
        let runs = Reader(&packed[..packed.len() - reader.0.len()]);
        Ok(Self { runs, tag: TAG_UNKNOWN, left: 0, end: 0 })
    }

    /// The one at a position. Positions are asked for in ascending order: all of them together cost
    /// one walk over the runs.
    pub(crate) fn at(&mut self, position: usize) -> Option<u8> {
        while self.end <= position as u64 {
            if !self.begin_run() {
                return None;
            }
            self.end += self.left;
        }
        // Kinds of later releases are one.
        Some(if self.tag > TAG_OK { tag_of(failed_of(self.tag)) } else { self.tag })
    }

    fn begin_run(&mut self) -> bool {
        let run = self.runs.byte().and_then(|tag| Ok((tag, self.runs.varint()?)));
        run.is_ok_and(|run| {
            (self.tag, self.left) = run;
            true
        })
    }
}

impl Iterator for States<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if self.left == 0 && !self.begin_run() {
            return None;
        }
        self.left -= 1;
        Some(self.tag)
    }
}

/// How one figure is coded.
#[derive(Clone, Copy, Debug, Default)]
struct Column<'a> {
    /// How many bits travel as they are.
    low: u32,
    /// The low bits of a rank.
    rice: u32,
    /// The upper parts by rank, two bytes each; none if all are zero.
    table: &'a [u8],
}

impl<'a> Column<'a> {
    fn take(reader: &mut Reader<'a>) -> Result<Self, PackError> {
        let head = reader.byte()?;
        let (low, rice) = (u32::from(head & 0x3f), u32::from(head >> 6));
        if low > WIDTH_MAX {
            return Err(PackError::Range);
        }
        let entries = usize::from(reader.byte()?);
        Ok(Self { low, rice, table: reader.take(2 * entries)? })
    }

    #[inline]
    fn read(&self, bits: &mut BitReader<'_>) -> Result<u32, PackError> {
        if self.table.is_empty() && self.low == 0 {
            return Ok(0);
        }
        bits.fill();
        if self.table.is_empty() {
            return bits.read(self.low);
        }
        let (uppers, _) = self.table.as_chunks();
        let rank = if uppers.len() > 1 { bits.rank(self.rice, uppers.len())? } else { 0 };
        let upper = uppers.get(rank).ok_or(PackError::Range)?;
        let value = u64::from(u16::from_le_bytes(*upper)) << self.low;
        u32::try_from(value | u64::from(bits.read(self.low)?)).map_err(|_| PackError::Range)
    }
}

/// The cheapest way to code the values of one figure.
#[derive(Debug, Default)]
struct Plan {
    low: u32,
    rice: u32,
    /// Upper parts, the most frequent first.
    table: Vec<u16>,
    ranks: BTreeMap<u16, usize>,
}

impl Plan {
    fn of(mut values: Vec<u32>) -> Self {
        values.sort_unstable();
        let width = values.last().map_or(0, |largest| 32 - largest.leading_zeros());
        let mut best = (usize::MAX, Self::default());
        for low in width.saturating_sub(u16::BITS)..=width {
            // Counts of the upper parts, which come in order.
            let mut counts: Vec<(usize, u16)> = Vec::new();
            for upper in values.iter().map(|value| (u64::from(*value) >> low) as u16) {
                match counts.last_mut() {
                    Some((count, last)) if *last == upper => *count += 1,
                    _ => counts.push((1, upper)),
                }
            }
            if counts.len() > TABLE_MAX {
                continue;
            }
            counts.sort_unstable_by_key(|(count, upper)| (std::cmp::Reverse(*count), *upper));
            let table: Vec<u16> = match &counts[..] {
                [(_, 0)] => Vec::new(),
                counts => counts.iter().map(|(_, upper)| *upper).collect(),
            };
            for rice in 0..=RICE_MAX {
                let ranks = counts.iter().enumerate();
                let coded = ranks.map(|(rank, (count, _))| count * rank_bits(rank, rice)).sum();
                let coded: usize = if table.len() > 1 { coded } else { 0 };
                let bits = values.len() * low as usize + coded + 16 * table.len();
                if bits < best.0 {
                    let table = table.clone();
                    best = (bits, Self { low, rice, table, ranks: BTreeMap::new() });
                }
            }
        }
        let mut plan = best.1;
        plan.ranks = plan.table.iter().enumerate().map(|(rank, upper)| (*upper, rank)).collect();
        plan
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.push((self.low | self.rice << 6) as u8);
        out.push(self.table.len() as u8);
        out.extend(self.table.iter().flat_map(|upper| upper.to_le_bytes()));
    }

    fn write(&self, bits: &mut BitWriter<'_>, value: u32) {
        if self.table.len() > 1 {
            let upper = (u64::from(value) >> self.low) as u16;
            let rank = self.ranks.get(&upper).copied().unwrap_or_default();
            // Ones, a zero, and the low bits of the rank.
            (0..rank >> self.rice).for_each(|_| bits.write(1, 1));
            bits.write(0, 1);
            bits.write(rank as u32, self.rice);
        }
        bits.write(value, self.low);
    }
}

fn rank_bits(rank: usize, rice: u32) -> usize {
    (rank >> rice) + 1 + rice as usize
}

/// Bits, the lowest of each byte first.
struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    held: u64,
    count: u32,
}

impl BitWriter<'_> {
    /// The low `width` bits of a value, at most 32.
    fn write(&mut self, value: u32, width: u32) {
        let value = u64::from(value) & ((1 << width) - 1);
        self.held |= value << self.count;
        self.count += width;
        while self.count >= 8 {
            self.out.push(self.held as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    fn finish(self) {
        if self.count > 0 {
            self.out.push(self.held as u8);
        }
    }
}

/// Reads what [`BitWriter`] wrote, eight bytes at a time.
#[derive(Clone, Copy, Debug)]
struct BitReader<'a> {
    bytes: &'a [u8],
    /// The next bits, the first one lowest. Above `count` there are none, or the next ones already.
    held: u64,
    count: u32,
}

impl BitReader<'_> {
    /// Holds at least 56 bits, or all that are left.
    #[inline]
    fn fill(&mut self) {
        if let Some(next) = self.bytes.first_chunk() {
            self.held |= u64::from_le_bytes(*next) << self.count;
            let taken = (63 - self.count) / 8;
            self.bytes = &self.bytes[taken as usize..];
            self.count += 8 * taken;
            return;
        }
        while let (Some((next, rest)), true) = (self.bytes.split_first(), self.count < 56) {
            self.held |= u64::from(*next) << self.count;
            (self.bytes, self.count) = (rest, self.count + 8);
        }
    }

    fn skip(&mut self, width: u32) {
        (self.held, self.count) = (self.held >> width, self.count - width);
    }

    /// The next bits, of those that are held.
    #[inline]
    fn read(&mut self, width: u32) -> Result<u32, PackError> {
        if self.count < width {
            return Err(PackError::Short);
        }
        let value = self.held & ((1 << width) - 1);
        self.skip(width);
        Ok(value as u32)
    }

    #[inline]
    fn rank(&mut self, rice: u32, entries: usize) -> Result<usize, PackError> {
        let mut upper = 0;
        while self.held.trailing_ones() >= self.count {
            upper += self.count as usize;
            if self.count == 0 || upper > entries {
                return Err(PackError::Short);
            }
            self.skip(self.count);
            self.fill();
        }
        let ones = self.held.trailing_ones();
        self.skip(ones + 1);
        self.fill();
        let rank = (upper + ones as usize) << rice | self.read(rice)? as usize;
        self.fill();
        Ok(rank)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cell::Failure;

    fn whole(cells: &[Cell]) -> impl Iterator<Item = (u32, &Cell)> + Clone {
        cells.iter().map(|cell| (0, cell))
    }

    fn read(packed: &[u8]) -> Result<Vec<Cell>, PackError> {
        Cells::of(packed)?.map(|cell| Ok(cell?.1)).collect()
    }

    /// A row of a mesh in two zones: each pair with a latency of its own, and noise.
    fn row(cells: usize) -> Vec<Cell> {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut noise = move |share: f64| 1.0 + share * (rng.f64() + rng.f64() - 1.0);
        let cell = |index: usize| {
            let base = if index.is_multiple_of(3) { 12_000.0 } else { 300.0 } * noise(0.4);
            let total =
                LatencyCode::encode(Duration::from_micros((base * 2.5 * noise(0.1)) as u64));
            let request = LatencyCode::encode(Duration::from_micros((base * noise(0.1)) as u64));
            let jitter =
                JitterCode::encode(Duration::from_micros((base * 0.1 * noise(0.5)) as u64));
            let state = match index {
                7 => State::Unknown,
                20 => State::Failed(Failure::Timeout),
                _ => State::Ok { total, request: Some(request), jitter: Some(jitter) },
            };
            let age_ticks = (16.0 * noise(1.0)) as u32;
            match state {
                State::Unknown => Cell::default(),
                state => Cell { state, age_ticks, ..Cell::default() },
            }
        };
        (0..cells).map(cell).collect()
    }

    #[test]
    fn cells_take_about_four_bytes_each() {
        for (cells, bytes_max) in [(3, 32), (40, 200), (200, 850), (1_000, 4_000)] {
            let mut packed = Vec::new();
            put_cells(&mut packed, whole(&row(cells)));
            assert!(packed.len() <= bytes_max, "{cells} cells: {} bytes", packed.len());
        }
    }

    #[test]
    fn a_row_that_was_cut_short_is_refused() {
        let cells = row(50);
        let mut packed = Vec::new();
        put_cells(&mut packed, whole(&cells));
        assert_eq!(read(&packed), Ok(cells.clone()));
        for len in 0..packed.len() {
            assert!(read(&packed[..len]).is_err(), "{len} of {} bytes", packed.len());
        }
        // What a later release adds.
        packed.extend([1, 2, 3]);
        assert_eq!(read(&packed), Ok(cells));
    }

    #[test]
    fn long_ranks_at_every_place_are_read_and_too_long_ones_refused() {
        // One failed cell whose loss has a table of 200 entries: ones to the end of the bytes.
        let table = [&[0, 200][..], &[0; 400]].concat();
        let packed = [&[1, 3, 1, 0, 0, 0, 1, 0, 0][..], &table, &[0; 8], &[0xff; 8]].concat();
        assert!(read(&packed).is_err());
        // Ages that are equal, and as many different ones as a table holds.
        for outliers in 1..255 {
            let age = |index: u32| if index < outliers { index * 70_000 } else { 9 };
            let state = State::Failed(Failure::Refused);
            let cell = |index| Cell { state, age_ticks: age(index), ..Cell::default() };
            let cells: Vec<_> = (0..3_000).map(cell).collect();
            let mut packed = Vec::new();
            put_cells(&mut packed, whole(&cells));
            assert_eq!(read(&packed), Ok(cells), "{outliers} outliers");
        }
    }

    #[test]
    fn the_state_at_a_position_is_that_of_the_cell() {
        let cells = row(50);
        let mut packed = Vec::new();
        put_cells(&mut packed, whole(&cells));
        let mut states = States::of(&packed).unwrap();
        for (position, cell) in cells.iter().enumerate().filter(|(position, _)| position % 3 > 0) {
            assert_eq!(states.at(position), Some(tag_of(cell.state)), "{position}");
        }
        assert_eq!(states.at(50), None);
    }
}
