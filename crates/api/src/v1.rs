//! The original's REST answers, frozen: names, order, types and spelling are its own.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use canary_core::{Attempt, MemberView, NodeName, Row, Snapshot, Wall};
use http::header;
use serde::Serialize;

use crate::state::Api;

/// One sample as the original spells it; every value is a string.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Sample<'a> {
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) r#type: &'static str,
    /// Nanoseconds, or `NaN` after a failure.
    pub(crate) value: String,
    pub(crate) ts: String,
}

/// Names of all nodes that are there, this bot first.
pub(crate) async fn nodes(State(api): State<Arc<Api>>) -> Response {
    #[derive(Serialize)]
    struct Nodes<'a> {
        nodes: Vec<&'a str>,
    }
    let snapshot = api.source.snapshot();
    Json(Nodes { nodes: present_names(&snapshot).collect() }).into_response()
}

/// This bot, and the others that are there.
pub(crate) fn present_names(snapshot: &Snapshot) -> impl Iterator<Item = &str> {
    std::iter::once(snapshot.me.name.as_str())
        .chain(snapshot.present().map(|member| member.record.name.as_str()))
}

/// Every sample of every pair of nodes that are there. The answer is made while it is read, some
/// pairs of a row at a time, so that a reader that is slow, or stops, holds little of a large mesh.
pub(crate) async fn samples(State(api): State<Arc<Api>>) -> Response {
    let rows = Rows { snapshot: api.source.snapshot(), next: 0, pair: 0, written: false };
    let chunks = futures_util::stream::iter(rows.map(Ok::<_, std::convert::Infallible>));
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(chunks)).into_response()
}

/// Pairs that are written at once: about sixty kilobytes.
const PAIRS_AT_ONCE: usize = 256;

/// Writes `{"samples":[…]}` some pairs at a time, or `{}` if there are none, as proto3 JSON leaves
/// out what is empty.
struct Rows {
    snapshot: Arc<Snapshot>,
    /// 0 for our own row, then the members by name, then the end.
    next: usize,
    /// How many pairs of that row are written.
    pair: usize,
    written: bool,
}

impl Iterator for Rows {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let snapshot = Arc::clone(&self.snapshot);
            let index = self.next;
            if index > snapshot.members.len() + 1 {
                return None;
            }
            if index > snapshot.members.len() {
                self.next += 1;
                return Some(Bytes::from_static(if self.written { b"]}" } else { b"{}" }));
            }
            let (samples, is_last) =
                samples_of(&snapshot, index, self.pair..self.pair + PAIRS_AT_ONCE);
            (self.next, self.pair) =
                if is_last { (index + 1, 0) } else { (index, self.pair + PAIRS_AT_ONCE) };
            if !samples.is_empty() {
                return Some(self.write(&samples));
            }
        }
    }
}

impl Rows {
    fn write(&mut self, samples: &[Sample<'_>]) -> Bytes {
        let mut text = String::with_capacity(120 * samples.len());
        for sample in samples {
            text.push_str(if std::mem::replace(&mut self.written, true) {
                ","
            } else {
                "{\"samples\":["
            });
            // Strings and a fixed set of keys always have a JSON form.
            text.push_str(&serde_json::to_string(sample).expect("a sample is strings alone"));
        }
        text.into()
    }
}

/// Two samples of each of these pairs of a row, as far as they are of nodes that are there, and
/// whether the row ends with them. Row 0 is our own, the others follow by name; a row of whom is
/// not there is empty.
pub(crate) fn samples_of(
    snapshot: &Snapshot,
    row: usize,
    pairs: Range<usize>,
) -> (Vec<Sample<'_>>, bool) {
    match row.checked_sub(1) {
        None => own_samples(snapshot, pairs),
        Some(index) => match snapshot.members.get(index) {
            Some(member) if member.is_listed() => row_samples(snapshot, member, pairs),
            Some(_) | None => (Vec::new(), true),
        },
    }
}

/// What we measured ourselves, exact.
fn own_samples(snapshot: &Snapshot, pairs: Range<usize>) -> (Vec<Sample<'_>>, bool) {
    let from = &snapshot.me.name;
    let of = |member: &MemberView| {
        member.pair.main().latest().map(|(attempt, wall)| (Measured::from(attempt), wall))
    };
    let end = pairs.end.min(snapshot.members.len());
    let members = snapshot.members.get(pairs.start..end).unwrap_or_default();
    let samples = members
        .iter()
        .filter(|member| member.is_listed())
        .filter_map(|member| Some((member, of(member)?)))
        .flat_map(|(member, (measured, wall))| pair(from, &member.record.name, measured, wall))
        .collect();
    (samples, end == snapshot.members.len())
}

/// What another bot published.
fn row_samples<'a>(
    snapshot: &'a Snapshot,
    source: &'a MemberView,
    pairs: Range<usize>,
) -> (Vec<Sample<'a>>, bool) {
    let is_there = |name: &NodeName| {
        *name == snapshot.me.name || snapshot.member(name).is_some_and(MemberView::is_listed)
    };
    let cells = source.row.as_deref().map(Row::cells).unwrap_or_default();
    let is_last = pairs.end >= cells.len();
    let samples = cells
        .into_iter()
        .skip(pairs.start)
        .take(pairs.len())
        .filter(|view| is_there(view.target))
        .filter_map(|view| Some((view.target, Measured::of(view.cell.state)?, view.wall)))
        .flat_map(|(target, measured, wall)| pair(&source.record.name, target, measured, wall))
        .collect();
    (samples, is_last)
}

/// Total and request of one attempt; none where it gave no number.
#[derive(Clone, Copy)]
struct Measured {
    total: Option<Duration>,
    request: Option<Duration>,
}

impl From<Attempt> for Measured {
    fn from(attempt: Attempt) -> Self {
        match attempt {
            Attempt::Ok(timing) => Self { total: Some(timing.total()), request: timing.request },
            Attempt::Failed(_) => Self { total: None, request: None },
        }
    }
}

impl Measured {
    /// None for a pair that nobody measured yet: unknown is not a failure.
    fn of(state: canary_core::State) -> Option<Self> {
        match state {
            canary_core::State::Unknown => None,
            canary_core::State::Failed(_) => Some(Self { total: None, request: None }),
            canary_core::State::Ok { total, request, .. } => Some(Self {
                total: Some(total.decode()),
                request: request.map(canary_core::LatencyCode::decode),
            }),
        }
    }
}

fn pair<'a>(
    from: &'a NodeName,
    to: &'a NodeName,
    measured: Measured,
    wall: Wall,
) -> [Sample<'a>; 2] {
    let ts = timestamp(wall);
    let sample = |r#type, value: Option<Duration>, ts| Sample {
        from: from.as_str(),
        to: to.as_str(),
        r#type,
        value: value.map_or_else(|| "NaN".to_owned(), |value| value.as_nanos().to_string()),
        ts,
    };
    [sample("rtt_total", measured.total, ts.clone()), sample("rtt_request", measured.request, ts)]
}

/// Whole seconds as Go's `time.Time.String()` prints them in UTC. A label past the year 9999 is a
/// broken clock's and is shown as the last.
fn timestamp(wall: Wall) -> String {
    const YEAR_9999_END: u64 = 253_402_300_799;
    let seconds = (wall.unix_millis() / 1000).min(YEAR_9999_END);
    let rfc3339 =
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
    let mut text = String::with_capacity(32);
    let (date, time) = rfc3339.trim_end_matches('Z').split_once('T').unwrap_or((&rfc3339, ""));
    // Writing to a string cannot fail.
    let _ = write!(text, "{date} {time} +0000 UTC");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_spelled_as_go_spells_them() {
        assert_eq!(
            timestamp(Wall::from_unix_millis(1_697_457_600_999)),
            "2023-10-16 12:00:00 +0000 UTC"
        );
        assert_eq!(timestamp(Wall::from_unix_millis(u64::MAX)), "9999-12-31 23:59:59 +0000 UTC");
    }

    #[test]
    fn a_failed_attempt_is_nan_and_never_a_latency() {
        let (from, to) = ("owl".parse().expect("valid"), "duck".parse().expect("valid"));
        let samples = pair(
            &from,
            &to,
            Attempt::Failed(canary_core::Failure::Timeout).into(),
            Wall::from_unix_millis(0),
        );
        assert!(samples.iter().all(|sample| sample.value == "NaN"));
        let json = serde_json::to_string(&samples[0]).expect("strings");
        assert_eq!(
            json,
            r#"{"from":"owl","to":"duck","type":"rtt_total","value":"NaN","ts":"1970-01-01 00:00:00 +0000 UTC"}"#
        );
    }
}
