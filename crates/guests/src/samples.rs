//! Samples as guests tell them: read, kept by their own time, and turned into rows of ours and
//! back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    Attempt, Cell, Failure, Frame, LatencyCode, NodeName, Roster, Row, Snapshot, State, Version,
    Wall,
};

use crate::guest::is_guest;

/// The original's kinds of samples.
const RTT_TOTAL: i64 = 2;
const RTT_REQUEST: i64 = 3;
/// A sample from further ahead than this is a lie, or a clock beyond use: it would hide all that
/// follows.
const AHEAD_MAX: Duration = Duration::from_secs(60);
/// A sample older than this is no news: the original's own age limit.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long a sample is passed on to who cares for its guest. The guest itself tells all of it to
/// everybody, sooner or later.
const FRESH: Duration = Duration::from_secs(300);
/// Ticks of a row's ages are an eighth of a second.
const TICKS_PER_SECOND: u64 = 8;

/// One number of a pair, or a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    /// None after a failure.
    latency: Option<Duration>,
    /// When, by the clock of who measured.
    unix: u64,
}

/// What a guest measured of one pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pair {
    total: Option<Told>,
    request: Option<Told>,
}

/// A sample that can be believed as far as it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    from: NodeName,
    to: NodeName,
    kind: i64,
    told: Told,
}

impl Sample {
    /// Reads what a guest wrote: who measured whom, the original's number of what was measured,
    /// nanoseconds or `NaN`, and Unix seconds. None if it is of no use any more. A value above
    /// `timeout`, which no probe outlives, is an outage that it took for a latency.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub fn read(
        (from, to): (&str, &str),
        (key, value, ts): (i64, &str, i64),
        timeout: Duration,
        now: Wall,
    ) -> Result<Option<Self>, &'static str> {
        let name = |text: &str| text.parse::<NodeName>().map_err(|_| "a sample has no valid name");
        let (from, to) = (name(from)?, name(to)?);
        if !matches!(key, RTT_TOTAL | RTT_REQUEST) {
            return Err("a sample is of an unknown kind");
        }
        let unix = u64::try_from(ts).map_err(|_| "a sample has no sane time")?;
        let seconds = now.unix_millis() / 1000;
        if unix > seconds + AHEAD_MAX.as_secs() {
            return Err("a sample has no sane time");
        }
        if unix + AGE_MAX.as_secs() < seconds {
            // The original keeps those of hosts that are long gone, and tells them with every push.
            return Ok(None);
        }
        let latency = match value {
            "NaN" => None,
            digits => {
                let nanos =
                    digits.parse().map_err(|_| "a sample's value is no number of nanoseconds")?;
                Some(Duration::from_nanos(nanos)).filter(|latency| *latency <= timeout)
            }
        };
        Ok(Some(Self { from, to, kind: key, told: Told { latency, unix } }))
    }

    fn new(
        (from, to): (&NodeName, &NodeName),
        kind: i64,
        latency: Option<Duration>,
        wall: Wall,
    ) -> Self {
        let told = Told { latency, unix: wall.unix_millis() / 1000 };
        Self { from: from.clone(), to: to.clone(), kind, told }
    }

    /// A measurement as a guest makes it: the whole time and that of the request alone, or a
    /// failure.
    pub fn measured(
        (from, to): (&NodeName, &NodeName),
        latency: Option<(Duration, Duration)>,
        wall: Wall,
    ) -> [Self; 2] {
        [
            Self::new((from, to), RTT_TOTAL, latency.map(|(total, _)| total), wall),
            Self::new((from, to), RTT_REQUEST, latency.map(|(_, request)| request), wall),
        ]
    }

    /// Who measured.
    pub fn from(&self) -> &NodeName {
        &self.from
    }

    /// Whom.
    pub fn to(&self) -> &NodeName {
        &self.to
    }

    /// The original's number of what was measured.
    pub fn key(&self) -> i64 {
        self.kind
    }

    /// Nanoseconds, or `NaN` after a failure.
    pub fn value(&self) -> String {
        self.told.latency.map_or_else(|| "NaN".to_owned(), |latency| latency.as_nanos().to_string())
    }

    /// When it was measured, in Unix seconds by the clock of who measured.
    pub fn unix(&self) -> u64 {
        self.told.unix
    }

    /// Whether it was measured recently.
    pub fn is_fresh(&self, now: Wall) -> bool {
        self.told.unix >= fresh_since(now)
    }

    /// The same, with names shared with the snapshot; none unless a guest measured it, of a known
    /// node: our bots publish their own rows, and nothing is kept of strangers.
    pub fn of(self, snapshot: &Snapshot) -> Option<Self> {
        let from = snapshot
            .member(&self.from)
            .filter(|member| member.status.is_present() && is_guest(&member.record))?;
        let to = if self.to == snapshot.me.name {
            &snapshot.me
        } else {
            &snapshot.member(&self.to)?.record
        };
        Some(Self { from: from.record.name.clone(), to: to.name.clone(), ..self })
    }
}

/// What guests measured, the newest of each pair.
#[derive(Debug, Default)]
pub struct Measured(BTreeMap<NodeName, BTreeMap<NodeName, Pair>>);

impl Measured {
    /// Keeps a sample if it is newer than what is there; tells whether it was.
    pub fn take(&mut self, sample: &Sample) -> bool {
        let pair =
            self.0.entry(sample.from.clone()).or_default().entry(sample.to.clone()).or_default();
        let held = if sample.kind == RTT_TOTAL { &mut pair.total } else { &mut pair.request };
        if held.is_some_and(|held| held.unix >= sample.told.unix) {
            return false;
        }
        *held = Some(sample.told);
        true
    }

    /// Keeps what another host published for a guest, where that is newer, and not from a time to
    /// come.
    pub fn take_row(&mut self, from: &NodeName, row: &Row, timeout: Duration, now: Wall) {
        let latest = now.unix_millis().saturating_add(AHEAD_MAX.as_millis() as u64);
        for view in row.cells().into_iter().filter(|view| view.wall.unix_millis() <= latest) {
            let (total, request) = match view.cell.state {
                State::Unknown => continue,
                State::Failed(_) => (None, None),
                State::Ok { total, .. } if total.decode() > timeout => (None, None),
                State::Ok { total, request, .. } => {
                    (Some(total.decode()), request.map(LatencyCode::decode))
                }
            };
            let unix = view.wall.unix_millis() / 1000;
            for (kind, latency) in [(RTT_TOTAL, total), (RTT_REQUEST, request)] {
                self.take(&Sample {
                    from: from.clone(),
                    to: view.target.clone(),
                    kind,
                    told: Told { latency, unix },
                });
            }
        }
    }

    /// When the latest of a guest was measured, in Unix seconds by its own clock.
    pub fn newest(&self, from: &NodeName) -> Option<u64> {
        self.0.get(from)?.values().filter_map(|pair| Some(pair.total?.unix)).max()
    }

    /// How many pairs there are.
    pub(crate) fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// Forgets what was measured before a time.
    pub fn forget_before(&mut self, unix: u64) {
        self.0.values_mut().for_each(|pairs| {
            pairs.retain(|_, pair| {
                [pair.total, pair.request].into_iter().flatten().any(|told| told.unix >= unix)
            });
        });
        self.0.retain(|_, pairs| !pairs.is_empty());
    }

    /// Drops the rows of nodes that are no guests any more, and pairs with unknown nodes.
    pub fn retain(
        &mut self,
        is_guest: impl Fn(&NodeName) -> bool,
        is_known: impl Fn(&NodeName) -> bool,
    ) {
        self.0.retain(|from, _| is_guest(from));
        self.0.values_mut().for_each(|pairs| pairs.retain(|to, _| is_known(to)));
    }

    /// The row of a guest over `roster`, as it would publish it itself.
    pub fn frame(&self, from: &NodeName, version: Version, roster: &Roster) -> Frame {
        // Whole seconds of its own clock are what a guest knows: the newest is the label, and so
        // none of them changes.
        let pairs = self.0.get(from);
        let label = pairs
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter_map(|pair| Some(pair.total?.unix))
            .max()
            .unwrap_or_default();
        let cell = |name: &NodeName| {
            pairs.and_then(|pairs| pairs.get(name)).map(|pair| pair.cell(label)).unwrap_or_default()
        };
        let cells: Vec<_> = roster.names().iter().map(cell).collect();
        Frame::new(version, roster.id(), Wall::from_unix_millis(label * 1000), &cells)
    }
}

impl Pair {
    fn cell(&self, label: u64) -> Cell {
        let Some(total) = self.total else {
            return Cell::default();
        };
        let state = match total.latency {
            None => State::Failed(Failure::Timeout),
            Some(latency) => {
                // A request with another second belongs to another probe.
                let request = self
                    .request
                    .filter(|request| request.unix.abs_diff(total.unix) <= 1)
                    .and_then(|request| request.latency);
                State::Ok {
                    total: LatencyCode::encode(latency),
                    request: request.map(LatencyCode::encode),
                    jitter: None,
                }
            }
        };
        let ticks = label.saturating_sub(total.unix) * TICKS_PER_SECOND;
        Cell {
            state,
            age_ticks: u32::try_from(ticks).unwrap_or(u32::MAX),
            loss: 0,
            retransmissions: 0,
        }
    }
}

/// Whether a second is so far ahead that it is a lie.
pub(crate) fn is_ahead(unix: u64, now: Wall) -> bool {
    unix > now.unix_millis() / 1000 + AHEAD_MAX.as_secs()
}

/// What was measured before this second is not passed on any more: it was when it was new.
pub(crate) fn fresh_since(now: Wall) -> u64 {
    (now.unix_millis() / 1000).saturating_sub(FRESH.as_secs())
}

/// How far a guest has each row: up to which measurement, and which version was looked at last.
pub type Progress = BTreeMap<NodeName, (u64, Version)>;

/// Hosts hear the samples of guests out of order, by several ways.
const GUESTS_ORDER: Duration = Duration::from_secs(15);

/// What changed in one row since `progress`, which is moved on: row 0 is our own, the others follow
/// by name. A whole matrix at once could be hundreds of megabytes.
pub fn news_of(
    row: usize,
    guest: &NodeName,
    snapshot: &Snapshot,
    progress: &mut Progress,
) -> Vec<Sample> {
    let mut news = Vec::new();
    let is_there = |name: &NodeName| {
        *name == snapshot.me.name
            || snapshot.member(name).is_some_and(|member| member.status.is_present())
    };
    let mut tell = |from: &NodeName,
                    to: &NodeName,
                    total: Option<Duration>,
                    request: Option<Duration>,
                    wall: Wall| {
        news.push(Sample::new((from, to), RTT_TOTAL, total, wall));
        // A failed probe has neither; a second request that failed alone has no number either.
        news.push(Sample::new((from, to), RTT_REQUEST, request, wall));
    };
    let Some(index) = row.checked_sub(1) else {
        let (told, _) = progress.get(&snapshot.me.name).copied().unwrap_or_default();
        let mut newest = told;
        for member in snapshot.present() {
            let Some((attempt, wall)) =
                member.pair.main().latest().filter(|(_, wall)| wall.unix_millis() > told)
            else {
                continue;
            };
            newest = newest.max(wall.unix_millis());
            match attempt {
                Attempt::Ok(timing) => tell(
                    &snapshot.me.name,
                    &member.record.name,
                    Some(timing.total()),
                    timing.request,
                    wall,
                ),
                Attempt::Failed(_) => {
                    tell(&snapshot.me.name, &member.record.name, None, None, wall);
                }
            }
        }
        progress.insert(snapshot.me.name.clone(), (newest, 0));
        return news;
    };
    let there = snapshot
        .members
        .get(index)
        .filter(|member| member.status.is_present() && member.record.name != *guest);
    let Some((member, row)) = there.and_then(|member| Some((member, member.row.as_ref()?))) else {
        return news;
    };
    let from = &member.record.name;
    let (told, looked_at) = progress.get(from).copied().unwrap_or_default();
    if looked_at == row.version() {
        return news;
    }
    let order = if is_guest(&member.record) { GUESTS_ORDER.as_millis() as u64 } else { 0 };
    // A guest would hold what comes from a time to come against all that follows.
    let latest = snapshot.now.wall.unix_millis().saturating_add(AHEAD_MAX.as_millis() as u64);
    let is_news = |wall: Wall| {
        wall.unix_millis().saturating_add(order) > told && wall.unix_millis() <= latest
    };
    for view in row.cells().iter().filter(|view| is_there(view.target) && is_news(view.wall)) {
        match view.cell.state {
            State::Unknown => {}
            State::Failed(_) => tell(from, view.target, None, None, view.wall),
            State::Ok { total, request, .. } => {
                tell(
                    from,
                    view.target,
                    Some(total.decode()),
                    request.map(LatencyCode::decode),
                    view.wall,
                );
            }
        }
    }
    // A patch leaves out what was measured without a change: that comes with the next frame.
    progress.insert(from.clone(), (row.frame().wall().unix_millis(), row.version()));
    news
}

/// The roster of all that are there, as everybody makes it.
pub fn roster(snapshot: &Snapshot) -> Arc<Roster> {
    let others = snapshot.members.iter().map(|member| member.record.name.clone());
    Roster::new(others.chain([snapshot.me.name.clone()]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use canary_core::Time;

    const TIMEOUT: Duration = Duration::from_secs(3);
    const NOW: u64 = 1_700_000_000;

    fn told(key: i64, value: &str, ts: i64) -> Result<Option<Sample>, &'static str> {
        let now = Wall::from_unix_millis(NOW * 1000);
        Sample::read(("old", "owl"), (key, value, ts), TIMEOUT, now)
    }

    fn state(measured: &Measured) -> State {
        let (old, owl) = ("old".parse::<NodeName>().unwrap(), "owl".parse::<NodeName>().unwrap());
        let roster = Roster::new([old.clone(), owl]);
        let frame = measured.frame(&old, 1, &roster);
        let mut row = Row::new(Arc::new(frame), None, Duration::ZERO, Time::ZERO);
        row.supply(&roster).unwrap();
        let cells = row.cells();
        cells.iter().find(|view| view.target.as_str() == "owl").unwrap().cell.state
    }

    #[test]
    fn what_a_guest_tells_is_believed_as_far_as_it_goes() {
        let now = NOW as i64;
        assert!(told(RTT_TOTAL, "1234567", now).unwrap().is_some());
        // In the original a time in the future hid all that followed.
        assert!(
            told(RTT_TOTAL, "1", now + 61).is_err()
                && told(RTT_TOTAL, "1", i64::MAX).is_err()
                && told(RTT_TOTAL, "1", -1).is_err()
        );
        assert_eq!(told(RTT_TOTAL, "1", now - 25 * 3600), Ok(None));
        for value in ["", "-1", "1.5", "1e9", "nan", "99999999999999999999"] {
            assert!(told(RTT_TOTAL, value, now).is_err(), "{value:?}");
        }
        assert!(told(1, "1", now).is_err() && told(99, "1", now).is_err());
        // In the original an outage was published as a latency.
        assert_eq!(told(RTT_TOTAL, "248000000000", now).unwrap().unwrap().told.latency, None);
        assert_eq!(told(RTT_TOTAL, "NaN", now).unwrap().unwrap().told.latency, None);
    }

    #[test]
    fn samples_are_ordered_by_their_own_time_and_make_a_row() {
        let now = NOW as i64;
        let take = |measured: &mut Measured, key, value: &str, ts| {
            measured.take(&told(key, value, ts).unwrap().unwrap())
        };
        let mut measured = Measured::default();
        assert_eq!(state(&measured), State::Unknown);
        assert!(take(&mut measured, RTT_TOTAL, "2000000", now - 5));
        assert!(!take(&mut measured, RTT_TOTAL, "9000000", now - 5), "the same second again");
        assert!(!take(&mut measured, RTT_TOTAL, "9000000", now - 9), "an older one");
        assert!(take(&mut measured, RTT_REQUEST, "1000000", now - 5));
        let State::Ok { total, request, .. } = state(&measured) else {
            panic!("{:?}", state(&measured))
        };
        let near = |code: LatencyCode, millis: f64| {
            (code.decode().as_secs_f64() * 1000.0 / millis - 1.0).abs() < 0.001
        };
        assert!(near(total, 2.0) && near(request.unwrap(), 1.0));
        assert!(take(&mut measured, RTT_TOTAL, "NaN", now));
        assert_eq!(state(&measured), State::Failed(Failure::Timeout), "a failure is no latency");
    }
}
