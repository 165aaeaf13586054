//! Rows as they travel: immutable frames, patches that extend them, and the row that a reader sees.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use crate::cell::{Cell, PackError, TAG_OK, TAG_UNKNOWN, tag_of};
use crate::columns::{Cells, States, put_cells};
use crate::identity::NodeName;
use crate::limits::{
    CELLS_BYTES_MAX, FRAME_BYTES_MAX, PATCHES_MAX, ROSTER_NAMES_MAX, SECTIONS_CARRIED_MAX,
};
use crate::pending::PendingJoin;
use crate::release::Release;
use crate::roster::{Roster, RosterId};
use crate::secured::Secured;
use crate::series::ProbeKind;
use crate::time::{Now, Time, Wall};

/// Orders the changes of a row within one incarnation of its source; the first is 1.
pub type Version = u64;

/// Kinds of the sections of frames and patches. A later release adds kinds; nothing else of a frame
/// ever changes its meaning.
mod section {
    /// How the connections of the source are secured.
    pub(super) const SECURED: u32 = 2;
    /// Which release the source runs.
    pub(super) const RELEASE: u32 = 3;
    /// Where the source waits for bots of the original to admit it.
    pub(super) const PENDING: u32 = 4;
    /// In a frame a cell for every name of the roster, in a patch new cells of some.
    pub(super) const COLUMNS: u32 = 5;
    /// This plus the number of a kind of probe, which is 1 to 255: its cells, like [`COLUMNS`].
    pub(super) const SERIES: u32 = 16;
}

/// Sections that are not read on the way: series of other kinds than the main one, and what this
/// release does not know. They travel on as they came, so that a bot in between takes nothing from
/// those that know them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Carried(Box<[(u32, Box<[u8]>)]>);

impl Carried {
    fn len(&self) -> usize {
        self.0.iter().map(|(_, packed)| packed.len() + 8).sum()
    }

    fn sections(&self) -> impl Iterator<Item = (u32, Cow<'_, [u8]>)> {
        self.0.iter().map(|(kind, packed)| (*kind, Cow::Borrowed(&**packed)))
    }
}

/// Sections in ascending order of their kinds, whether this release reads them or carries them.
fn in_order<'a>(
    read: impl Iterator<Item = (u32, Cow<'a, [u8]>)>,
    carried: &'a Carried,
) -> impl Iterator<Item = (u32, Cow<'a, [u8]>)> {
    let mut all: Vec<_> = read.chain(carried.sections()).collect();
    all.sort_unstable_by_key(|(kind, _)| *kind);
    all.into_iter()
}

/// The sections of a frame or of a patch as they arrived, apart by whether this release reads them.
struct Sections<'a> {
    cells: Option<&'a [u8]>,
    secured: Option<Secured>,
    release: Option<Release>,
    pending: Vec<PendingJoin>,
    carried: Carried,
}

impl<'a> Sections<'a> {
    fn read(
        sections: impl IntoIterator<Item = (u32, &'a [u8])>,
        in_frame: bool,
    ) -> Result<Self, PackError> {
        let mut read = Self {
            cells: None,
            secured: None,
            release: None,
            pending: Vec::new(),
            carried: Carried::default(),
        };
        let (mut carried, mut bytes, mut last) = (Vec::new(), 0, 0);
        for (kind, packed) in sections {
            if kind <= last {
                return Err(PackError::Order);
            }
            last = kind;
            bytes += packed.len();
            if bytes > FRAME_BYTES_MAX {
                return Err(PackError::Long);
            }
            // What is not spelled as today travels on as it came.
            let is_read = match kind {
                section::RELEASE if in_frame => {
                    read.release = Release::unpack(packed);
                    read.release.is_some()
                }
                section::PENDING if in_frame => {
                    read.pending = PendingJoin::unpack(packed).unwrap_or_default();
                    !read.pending.is_empty()
                }
                _ => false,
            };
            match kind {
                _ if is_read => {}
                section::COLUMNS => read.cells = Some(packed),
                section::SECURED if in_frame => read.secured = Some(Secured::unpack(packed)?),
                _ if carried.len() < SECTIONS_CARRIED_MAX => carried.push((kind, packed.into())),
                _ => return Err(PackError::Count),
            }
        }
        read.carried = Carried(carried.into());
        Ok(read)
    }
}

/// One immutable version of a whole row: a cell for every name of its roster, and what else the
/// source tells with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    version: Version,
    roster: RosterId,
    wall: Wall,
    /// How many cells there are; none if the source sent cells in a form of a later release only.
    count: Option<u32>,
    packed: Box<[u8]>,
    secured: Option<Secured>,
    release: Option<Release>,
    pending: Box<[PendingJoin]>,
    carried: Carried,
}

impl Frame {
    /// Packs `cells`, one for every name of the roster in its order.
    pub fn new(version: Version, roster: RosterId, wall: Wall, cells: &[Cell]) -> Self {
        let (count, packed) = (Some(cells.len() as u32), pack_all(cells));
        let carried = Carried::default();
        Self {
            version,
            roster,
            wall,
            count,
            packed,
            secured: None,
            release: None,
            pending: Box::default(),
            carried,
        }
    }

    /// Accepts a travelled frame after reading once all of it that this release knows. Its
    /// sections, each with its kind, come in ascending order.
    pub fn from_sections<'a>(
        version: Version,
        roster: RosterId,
        wall: Wall,
        sections: impl IntoIterator<Item = (u32, &'a [u8])>,
    ) -> Result<Self, PackError> {
        let Sections { cells, secured, release, pending, carried } =
            Sections::read(sections, true)?;
        let count = cells.map(count_cells).transpose()?;
        let (packed, pending) = (cells.unwrap_or_default().into(), pending.into());
        Ok(Self { version, roster, wall, count, packed, secured, release, pending, carried })
    }

    /// The sections as they travel, in ascending order of their kinds.
    pub fn sections(&self) -> impl Iterator<Item = (u32, Cow<'_, [u8]>)> {
        let cells = self.count.map(|_| (section::COLUMNS, Cow::Borrowed(&*self.packed)));
        let secured = self.secured.map(|secured| (section::SECURED, Cow::Owned(secured.pack())));
        let release = self
            .release
            .as_ref()
            .map(|release| (section::RELEASE, Cow::Borrowed(release.as_str().as_bytes())));
        let pending = (!self.pending.is_empty())
            .then(|| (section::PENDING, Cow::Owned(PendingJoin::pack(&self.pending))));
        let read = cells.into_iter().chain(secured).chain(release).chain(pending);
        in_order(read, &self.carried)
    }

    /// The same frame, which tells which release its source runs.
    #[must_use]
    pub fn with_release(self, release: Option<Release>) -> Self {
        Self { release, ..self }
    }

    /// The same frame, which tells where its source waits for bots of the original to admit it.
    #[must_use]
    pub fn with_pending(self, pending: Vec<PendingJoin>) -> Self {
        Self { pending: pending.into(), ..self }
    }

    /// The same frame, which tells how the connections of its source are secured.
    #[must_use]
    pub fn with_secured(self, secured: Option<Secured>) -> Self {
        Self { secured, ..self }
    }

    /// The same frame, which tells as well what probes of these other kinds found out: a cell for
    /// every name of the roster, kinds in ascending order.
    #[must_use]
    pub fn with_series(self, series: impl IntoIterator<Item = (ProbeKind, Vec<Cell>)>) -> Self {
        let pack = |(kind, cells): (ProbeKind, Vec<Cell>)| (section_of(kind), pack_all(&cells));
        Self { carried: Carried(series.into_iter().map(pack).collect()), ..self }
    }

    /// The other kinds of probes that it has cells of.
    pub fn kinds(&self) -> impl Iterator<Item = ProbeKind> + '_ {
        let numbers = self
            .carried
            .0
            .iter()
            .filter_map(|(kind, _)| u8::try_from(kind.checked_sub(section::SERIES)?).ok());
        numbers.map(ProbeKind::new).filter(|kind| *kind != ProbeKind::MAIN)
    }

    /// The cells of another kind; none if there are none that can be read.
    fn series(&self, kind: ProbeKind) -> Option<Vec<Cell>> {
        let (_, packed) =
            self.carried.0.iter().find(|(section, _)| *section == section_of(kind))?;
        Cells::of(packed).ok()?.map(|cell| Ok(cell?.1)).collect::<Result<_, PackError>>().ok()
    }

    /// How the connections of its source are secured; none if they are not.
    pub fn secured(&self) -> Option<Secured> {
        self.secured
    }

    /// Which release its source runs; none if it does not tell.
    pub fn release(&self) -> Option<&Release> {
        self.release.as_ref()
    }

    /// Where its source waits for bots of the original to admit it.
    pub fn pending(&self) -> &[PendingJoin] {
        &self.pending
    }

    /// Which change of the row this is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The order of the cells.
    pub fn roster(&self) -> RosterId {
        self.roster
    }

    /// When the source published it, by its own clock.
    pub fn wall(&self) -> Wall {
        self.wall
    }

    fn cells(&self) -> impl Iterator<Item = Cell> + '_ {
        // Proven by `from_sections`, which read the same bytes, and by `new`, which wrote them.
        let read = "a frame's bytes were read when it was made";
        let cells = self.count.map(|_| Cells::of(&self.packed).expect(read));
        cells.into_iter().flatten().map(move |cell| cell.expect(read).1)
    }

    /// The tags of the states of all cells.
    fn states(&self) -> Option<States<'_>> {
        self.count.and_then(|_| States::of(&self.packed).ok())
    }

    /// How many cells there are.
    pub fn cells_len(&self) -> usize {
        self.count.unwrap_or(0) as usize
    }

    pub(crate) fn packed_len(&self) -> usize {
        self.packed.len()
            + 44
            + if self.secured.is_some() { 16 } else { 0 }
            + self.release.as_ref().map_or(0, |release| release.as_str().len() + 16)
            + self.pending.iter().map(|pending| pending.target.host().len() + 16).sum::<usize>()
            + self.carried.len()
    }
}

fn section_of(kind: ProbeKind) -> u32 {
    section::SERIES + u32::from(kind.number())
}

fn pack_all(cells: &[Cell]) -> Box<[u8]> {
    let mut packed = Vec::new();
    put_cells(&mut packed, cells.iter().map(|cell| (0, cell)));
    packed.into()
}

fn count_cells(packed: &[u8]) -> Result<u32, PackError> {
    Cells::of(packed)?.try_fold(0, |count, cell| match cell? {
        (0, _) => Ok(count + 1),
        _ => Err(PackError::Order),
    })
}

/// The cells that changed since the version before.
#[derive(Debug, PartialEq, Eq)]
pub struct Patch {
    version: Version,
    wall: Wall,
    count: usize,
    packed: Box<[u8]>,
    carried: Carried,
}

impl Patch {
    /// Packs `changes`: positions in ascending order, with their new cells.
    pub fn new(version: Version, wall: Wall, changes: &[(u32, Cell)]) -> Self {
        let mut packed = Vec::new();
        if !changes.is_empty() {
            let nexts = iter::once(0).chain(changes.iter().map(|(position, _)| position + 1));
            let cells = changes.iter().zip(nexts);
            put_cells(&mut packed, cells.map(|((position, cell), next)| (position - next, cell)));
        }
        let (count, packed) = (changes.len(), packed.into());
        Self { version, wall, count, packed, carried: Carried::default() }
    }

    /// Accepts a travelled patch after reading once all of it that this release knows; see
    /// [`Frame::from_sections`].
    pub fn from_sections<'a>(
        version: Version,
        wall: Wall,
        sections: impl IntoIterator<Item = (u32, &'a [u8])>,
    ) -> Result<Self, PackError> {
        let Sections { cells, carried, .. } = Sections::read(sections, false)?;
        let (mut next, mut count) = (0_u64, 0);
        for cell in cells.map(Cells::of).transpose()?.into_iter().flatten() {
            next += u64::from(cell?.0) + 1;
            count += 1;
            if next > ROSTER_NAMES_MAX as u64 {
                return Err(PackError::Range);
            }
        }
        Ok(Self { version, wall, count, packed: cells.unwrap_or_default().into(), carried })
    }

    /// The sections as they travel, in ascending order of their kinds.
    pub fn sections(&self) -> impl Iterator<Item = (u32, Cow<'_, [u8]>)> {
        let cells =
            (!self.packed.is_empty()).then_some((section::COLUMNS, Cow::Borrowed(&*self.packed)));
        in_order(cells.into_iter(), &self.carried)
    }

    /// Which change of the row this is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// When the source published it, by its own clock.
    pub fn wall(&self) -> Wall {
        self.wall
    }

    /// How many cells there are.
    pub fn cells_len(&self) -> usize {
        self.count
    }

    fn changes(&self) -> impl Iterator<Item = (usize, Cell)> + '_ {
        // Proven by `from_sections`, which read the same bytes, and by `new`, which wrote them.
        let read = "a patch's bytes were read when it was made";
        let cells = (self.count > 0).then(|| Cells::of(&self.packed).expect(read));
        cells.into_iter().flatten().scan(0, move |next, cell| {
            let (skipped, cell) = cell.expect(read);
            let position = *next + skipped as usize;
            *next = position + 1;
            Some((position, cell))
        })
    }

    pub(crate) fn packed_len(&self) -> usize {
        self.packed.len() + 28 + self.carried.len()
    }
}

/// A row as it is held and shown: a frame, and the patches that extend it.
#[derive(Clone, Debug)]
pub struct Row {
    frame: Arc<Frame>,
    patches: Vec<Arc<Patch>>,
    /// None until somebody sends it: such a row has no readable cells yet.
    roster: Option<Arc<Roster>>,
    /// When the frame was published, on our clock.
    framed_at: Time,
    /// When the latest version was published, on our clock.
    changed_at: Time,
}

/// What became of something that was to be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// It was news.
    Taken,
    /// It was known, or older than what is known.
    Known,
    /// It extends a version that is not here.
    Gap,
}

/// One cell as a reader sees it.
#[derive(Clone, Debug)]
pub struct CellView<'a> {
    /// Whom the pair leads to.
    pub target: &'a NodeName,
    /// What is published of it.
    pub cell: Cell,
    /// When the latest attempt was made, by the source's clock; meaningless while unknown.
    pub wall: Wall,
}

/// A cell that is new since an earlier version of its row.
#[derive(Clone, Copy, Debug)]
pub struct CellNews {
    /// The place in the roster.
    pub place: usize,
    /// What is published there.
    pub cell: Cell,
    /// When its latest attempt began, on our clock, exact to an eighth of a second and to the age
    /// of the row.
    pub attempted: Time,
    /// Whether it came by a patch: because it changed, and not because the whole row was published.
    pub is_patch: bool,
}

impl Row {
    /// A row of one frame that is `age` old.
    pub fn new(frame: Arc<Frame>, roster: Option<Arc<Roster>>, age: Duration, now: Time) -> Self {
        let at = now.back(age);
        Self { frame, patches: Vec::new(), roster, framed_at: at, changed_at: at }
    }

    /// The version it is at.
    pub fn version(&self) -> Version {
        self.patches.last().map_or(self.frame.version, |patch| patch.version)
    }

    /// Time since the latest version was published.
    pub fn age(&self, now: Time) -> Duration {
        now.since(self.changed_at)
    }

    /// Time since the frame was published.
    pub fn frame_age(&self, now: Time) -> Duration {
        now.since(self.framed_at)
    }

    /// Milliseconds by which the source's clock is ahead of ours: from when it says that it
    /// published the frame, and how long ago that was.
    pub fn clock_offset_millis(&self, now: Now) -> i64 {
        let expected = now.wall.back(self.frame_age(now.time)).unix_millis();
        let millis = |wall: u64| i64::try_from(wall).unwrap_or(i64::MAX);
        millis(self.frame.wall.unix_millis()).saturating_sub(millis(expected))
    }

    pub(crate) fn changed_at(&self) -> Time {
        self.changed_at
    }

    /// The frame.
    pub fn frame(&self) -> &Arc<Frame> {
        &self.frame
    }

    /// The patches, oldest first.
    pub fn patches(&self) -> &[Arc<Patch>] {
        &self.patches
    }

    /// The roster, once it is known.
    pub fn roster(&self) -> Option<&Arc<Roster>> {
        self.roster.as_ref()
    }

    /// Bytes of memory that it takes, without its roster: packed bytes, and about what holds them.
    pub(crate) fn bytes(&self) -> usize {
        let patches = self.patches.iter().map(|patch| patch.packed_len() + 64);
        self.frame.packed_len() + 128 + patches.sum::<usize>()
    }

    /// Gives the row its roster; refused when the cells do not match it.
    pub fn supply(&mut self, roster: &Arc<Roster>) -> Result<(), PackError> {
        if self.frame.count.is_some_and(|count| count as usize != roster.names().len()) {
            return Err(PackError::Count);
        }
        self.roster = Some(Arc::clone(roster));
        Ok(())
    }

    /// Extends the row by a patch that was published `age` ago. Patches that together exceed a
    /// frame, in bytes or in cells, are a gap: a frame has to follow.
    pub fn extend(&mut self, patch: &Arc<Patch>, age: Duration, now: Time) -> Merge {
        if patch.version <= self.version() {
            return Merge::Known;
        }
        let all = || self.patches.iter().chain([patch]);
        let full = self.patches.len() >= PATCHES_MAX
            || all().map(|patch| patch.packed_len()).sum::<usize>() > CELLS_BYTES_MAX
            || all().map(|patch| patch.cells_len()).sum::<usize>() > ROSTER_NAMES_MAX;
        if self.version().checked_add(1) != Some(patch.version) || full {
            return Merge::Gap;
        }
        self.patches.push(Arc::clone(patch));
        self.changed_at = self.changed_at.max(now.back(age));
        Merge::Taken
    }

    /// Those of some patches that [`Self::extend`] would take, one after the other.
    fn following<'a>(&self, patches: &'a [Arc<Patch>]) -> impl Iterator<Item = &'a Arc<Patch>> {
        let held: usize = self.patches.iter().map(|patch| patch.cells_len()).sum();
        let news = patches.iter().filter(|patch| patch.version > self.version());
        news.zip(1..).scan(held, |cells, (patch, step)| {
            *cells += patch.cells_len();
            let follows = self.version().checked_add(step) == Some(patch.version);
            (follows && *cells <= ROSTER_NAMES_MAX).then_some(patch)
        })
    }

    /// Whether patches that extend this row tell of a pair that it failed, recovered, or fails in
    /// another way, or if `firsts` that it was answered for the first time. Its cost is about that
    /// of reading the row once.
    pub(crate) fn changes_state(&self, patches: &[Arc<Patch>], firsts: bool) -> bool {
        let changes = || self.following(patches).flat_map(|patch| patch.changes());
        let mut states: BTreeMap<usize, u8> =
            changes().map(|(position, _)| (position, TAG_UNKNOWN)).collect();
        if let Some(mut of_frame) = self.frame.states() {
            for (position, state) in &mut states {
                *state = of_frame.at(*position).unwrap_or(TAG_UNKNOWN);
            }
        }
        for (position, cell) in self.patches.iter().flat_map(|patch| patch.changes()) {
            if let Some(state) = states.get_mut(&position) {
                *state = tag_of(cell.state);
            }
        }
        changes().any(|(position, cell)| {
            let after = tag_of(cell.state);
            match states.insert(position, after) {
                Some(TAG_UNKNOWN) if after == TAG_OK => firsts,
                before => before != Some(after),
            }
        })
    }

    /// The latest cell of one target; none if the row has none, or cannot be read yet. Its cost is
    /// linear in the row, and allocates nothing.
    pub fn cell_of(&self, target: &NodeName) -> Option<Cell> {
        let position = self.roster.as_ref()?.position(target)?;
        let patched = self
            .patches
            .iter()
            .rev()
            .find_map(|patch| patch.changes().find(|(at, _)| *at == position));
        patched.map(|(_, cell)| cell).or_else(|| self.frame.cells().nth(position))
    }

    /// What the latest frame tells of another kind of probe: every cell with its target; nothing if
    /// it tells nothing that can be read.
    pub fn series(&self, kind: ProbeKind) -> Vec<CellView<'_>> {
        let (Some(roster), Some(cells)) = (&self.roster, self.frame.series(kind)) else {
            return Vec::new();
        };
        if cells.len() != roster.names().len() {
            return Vec::new();
        }
        let view = |(target, cell): (_, Cell)| CellView {
            target,
            cell,
            wall: self.frame.wall.back(cell.age()),
        };
        roster.names().iter().zip(cells).map(view).collect()
    }

    /// The cells of the frame and of the patches that are newer than version `since`, oldest first;
    /// a place may come more than once.
    pub fn news(&self, since: Version) -> impl Iterator<Item = CellNews> + '_ {
        let frame = self.frame.cells().enumerate().filter(move |_| self.frame.version > since).map(
            |(place, cell)| CellNews {
                place,
                cell,
                attempted: self.framed_at.back(cell.age()),
                is_patch: false,
            },
        );
        let patches = self.patches.iter().filter(move |patch| patch.version > since);
        let patches = patches.flat_map(|patch| {
            let after = patch.wall.unix_millis().saturating_sub(self.frame.wall.unix_millis());
            // The source's clock may have stepped in between: a label decides nothing.
            let at = (self.framed_at + Duration::from_millis(after)).min(self.changed_at);
            patch.changes().map(move |(place, cell)| CellNews {
                place,
                cell,
                attempted: at.back(cell.age()),
                is_patch: true,
            })
        });
        frame.chain(patches)
    }

    /// Every cell with its target, patches applied; nothing until the roster is known. It decodes,
    /// so its cost is linear in the row.
    pub fn cells(&self) -> Vec<CellView<'_>> {
        let Some(roster) = &self.roster else {
            return Vec::new();
        };
        let label = |wall: Wall, cell: Cell| wall.back(cell.age());
        let mut cells: Vec<_> = roster
            .names()
            .iter()
            .zip(self.frame.cells())
            .map(|(target, cell)| CellView { target, cell, wall: label(self.frame.wall, cell) })
            .collect();
        for patch in &self.patches {
            for (position, cell) in patch.changes() {
                // A position past the roster is a liar's: there is no name to show it under.
                if let Some(view) = cells.get_mut(position) {
                    view.cell = cell;
                    view.wall = label(patch.wall, cell);
                }
            }
        }
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::{Failure, State};
    use crate::code::LatencyCode;

    fn ok(millis: u64) -> Cell {
        let total = LatencyCode::encode(Duration::from_millis(millis));
        Cell { state: State::Ok { total, request: None, jitter: None }, ..Cell::default() }
    }

    fn failed(kind: Failure) -> Cell {
        Cell { state: State::Failed(kind), ..Cell::default() }
    }

    fn patch(version: Version, changes: &[(u32, Cell)]) -> Arc<Patch> {
        Arc::new(Patch::new(version, Wall::from_unix_millis(0), changes))
    }

    #[test]
    fn a_change_of_state_is_news_and_another_latency_is_none() {
        let roster = Roster::new(
            ["a", "b", "c"].iter().filter_map(|name| name.parse().ok()).collect::<Vec<NodeName>>(),
        );
        let cells = [ok(1), failed(Failure::Refused), Cell::default()];
        let frame = Frame::new(1, roster.id(), Wall::from_unix_millis(0), &cells);
        let mut row = Row::new(Arc::new(frame), None, Duration::ZERO, Time::ZERO);
        let timeout = failed(Failure::Timeout);
        let is_news = |row: &Row, changes: &[(u32, Cell)]| {
            row.changes_state(&[patch(row.version() + 1, changes)], false)
        };
        assert!(!is_news(&row, &[(0, ok(900)), (1, failed(Failure::Refused))]));
        for change in
            [(0, failed(Failure::Timeout)), (1, ok(1)), (1, failed(Failure::Timeout)), (2, timeout)]
        {
            assert!(is_news(&row, &[change]), "{change:?}");
        }
        let first = [patch(2, &[(2, ok(1))])];
        assert!(row.changes_state(&first, true) && !row.changes_state(&first, false));
        assert!(is_news(&row, &[(1, timeout), (2, ok(1))]));
        // What is here already says nothing new, whatever it says; patches on the row are part of
        // it.
        assert!(!row.changes_state(&[patch(1, &[(0, failed(Failure::Timeout))])], true));
        let failing = patch(2, &[(0, failed(Failure::Timeout))]);
        assert_eq!(row.extend(&failing, Duration::ZERO, Time::ZERO), Merge::Taken);
        assert!(!is_news(&row, &[(0, failed(Failure::Timeout))]) && is_news(&row, &[(0, ok(1))]));
        // What leaves a gap is not taken, whatever it says.
        assert!(!row.changes_state(&[patch(4, &[(0, ok(1))])], true));
        // There and back again is two changes.
        assert!(row.changes_state(
            &[patch(3, &[(0, ok(1))]), patch(4, &[(0, failed(Failure::Timeout))])],
            false
        ));
    }
}
