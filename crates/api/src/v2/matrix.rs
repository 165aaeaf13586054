//! The whole matrix in one answer: JSON, or packed for large meshes.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use super::answer::{PACKED, is_named};
use super::views::{Refusals, state_code, time};
use crate::picture::{Cell, Picture, Took};
use crate::state::Api;

/// What the packed form begins with; the last byte is its version.
const MAGIC: &[u8; 4] = b"CBM1";
/// The state of a node's pair with itself.
const SELF: u8 = 0x40;
/// The lowest bits of a latency are noise, which does not compress: values of the packed form are
/// within 0.7 %.
const KEPT_BITS: u16 = !7;
/// What stands for the bits that are left out: their middle.
const MIDDLE: u16 = 4;
/// An age that is not known.
const NO_AGE: u32 = u32::MAX;

/// What the values are.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Metric {
    /// Time to connect, agree on TLS, and get the first answer.
    #[default]
    Total,
    /// Time of a second request on the warm connection.
    Request,
    /// Smoothed difference between successive round-trip times.
    Jitter,
    /// Share of failed attempts.
    Loss,
}

impl Metric {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Request => "request",
            Self::Jitter => "jitter",
            Self::Loss => "loss",
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::Total | Self::Request | Self::Jitter => "seconds",
            Self::Loss => "ratio",
        }
    }

    /// The value of a pair; none where there is none.
    fn of(self, cell: &Cell) -> Option<f64> {
        match self {
            Self::Loss => cell.loss,
            other => other.took(cell).map(|took| took.duration().as_secs_f64()),
        }
    }

    fn took(self, cell: &Cell) -> Option<Took> {
        match self {
            Self::Total => cell.total,
            Self::Request => cell.request,
            Self::Jitter => cell.jitter,
            Self::Loss => None,
        }
    }

    /// The value as it is packed: 0 for none; a ratio in ten-thousandths and one; a latency by its
    /// code.
    fn code(self, cell: &Cell) -> u16 {
        match self {
            Self::Loss => cell.loss.map_or(0, |loss| (loss * 10_000.0).round() as u16 + 1),
            other => other.took(cell).map_or(0, |took| (took.code().get() & KEPT_BITS) | MIDDLE),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// What the values are. Default: total.
    #[serde(default)]
    #[param(inline, required = false)]
    metric: Metric,
}

/// The matrix of all nodes that are or should be there.
#[derive(Serialize, ToSchema)]
pub(super) struct Matrix {
    #[serde(flatten)]
    head: Head,
    /// A row for every node, in the order of `nodes`.
    rows: Vec<Row>,
}

/// What holds for the whole matrix.
#[derive(Debug, Serialize, ToSchema)]
struct Head {
    /// The bot that answers.
    node: String,
    /// When it knew this.
    as_of: String,
    /// `total`, `request`, `jitter` or `loss`.
    metric: &'static str,
    /// The unit of the values: `seconds` or `ratio`.
    unit: &'static str,
    /// Rows and columns, in this order.
    nodes: Vec<Column>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Column {
    name: String,
    /// `alive`, `suspect` or `dead`.
    state: &'static str,
    /// Whether what it publishes arrives.
    visible: bool,
    labels: std::collections::BTreeMap<String, String>,
}

/// What one node measures of all others.
#[derive(Debug, Serialize, ToSchema)]
struct Row {
    source: String,
    /// How long ago the source published it; null if it has not.
    age_seconds: Option<f64>,
    /// One for every node: `ok`, `unknown`, `stale`, `self`, or how the latest attempt failed, such
    /// as `timeout`.
    states: Vec<&'static str>,
    /// One for every node: the metric in its unit; null where the state is not `ok`.
    values: Vec<Option<f64>>,
}

impl Head {
    fn of(picture: &Picture, metric: Metric) -> Self {
        let snapshot = picture.snapshot();
        let column = |place: usize| {
            let member = picture.member(place);
            let record = member.map_or(&snapshot.me, |member| &member.record);
            Column {
                name: record.name.as_str().to_owned(),
                state: member.map_or("alive", |member| member.status.as_str()),
                visible: picture.nodes().get(place).is_some_and(|node| node.is_visible),
                labels: record
                    .labels
                    .iter()
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
            }
        };
        Self {
            node: snapshot.me.name.as_str().to_owned(),
            as_of: time(snapshot.now.wall),
            metric: metric.as_str(),
            unit: metric.unit(),
            nodes: (0..picture.nodes().len()).map(column).collect(),
        }
    }

    fn json(&self) -> String {
        serde_json::to_string(self).expect("a head is texts")
    }
}

impl Row {
    fn of(picture: &Picture, source: usize, metric: Metric) -> Self {
        let cells = picture.row(source);
        let state = |(target, cell): (usize, &Cell)| match cell.failure() {
            _ if target == source => "self",
            Some(kind) if !cell.is_stale => kind.as_str(),
            _ => cell.word(),
        };
        // An old value that looks new would be a lie. The share of failed attempts is known of a
        // failed pair, too.
        let value = |cell: &Cell| metric.of(cell).filter(|_| !cell.is_stale);
        Self {
            source: picture.name(source).as_str().to_owned(),
            age_seconds: picture.row_age(source).map(|age| age.as_secs_f64()),
            states: cells.iter().enumerate().map(state).collect(),
            values: cells.iter().map(value).collect(),
        }
    }
}

/// The matrix of all nodes in one answer.
///
/// With `Accept: application/octet-stream` it comes packed, for meshes of many nodes. Numbers are
/// little-endian:
///
/// * the bytes `CBM1`, a 32-bit length, and so many bytes of JSON: all of the JSON form but its
///   rows;
/// * then a row for each node: its age in milliseconds (32 bits; 0xffffffff if there is no row), a
///   byte of state for each node, and 16 bits of value for each node.
///
/// A state is 0 (unknown), 1 (ok), 2 + the number of the failure (0 dns, 1 refused, 2 unreachable,
/// 3 timeout, 4 tls, 5 reset, 6 protocol, 7 auth, 8 identity, 9 local, 13 other), or 0x40 (the node
/// itself); 0x80 is added if it is too old to be the present one. A value is 0 for none. Otherwise
/// a latency is `1 ns · exp((value − 1) · 27.631021 / 16383)`, within 0.7 %, and a ratio is
/// `(value − 1) / 10000`.
#[utoipa::path(
    get,
    path = "/api/v2/matrix",
    params(Filter),
    responses(
        (status = 200, content((Matrix = "application/json"), (Vec<u8> = "application/octet-stream"))),
        Refusals
    )
)]
pub(super) async fn matrix(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Filter { metric }) = filter?;
    let is_packed = is_named(&headers, PACKED);
    let picture = Picture::of(api.source.snapshot());
    let body =
        if is_packed { stream(packed(picture, metric)) } else { stream(json(picture, metric)) };
    let kind = if is_packed { PACKED } else { "application/json" };
    Ok(([(header::CONTENT_TYPE, kind), (header::VARY, "Accept")], body).into_response())
}

/// An answer that is made row by row while it is read: a large one is never in memory as a whole.
fn stream(parts: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    Body::from_stream(futures_util::stream::iter(parts.map(Ok::<_, std::convert::Infallible>)))
}

fn json(picture: Picture, metric: Metric) -> impl Iterator<Item = Bytes> + Send {
    let head = Head::of(&picture, metric).json();
    let opening = format!("{},\"rows\":[", head.strip_suffix('}').unwrap_or_default());
    let rows = (0..picture.nodes().len()).map(move |source| {
        let row = serde_json::to_string(&Row::of(&picture, source, metric))
            .expect("a row is texts and numbers");
        Bytes::from(if source == 0 { row } else { format!(",{row}") })
    });
    std::iter::once(Bytes::from(opening)).chain(rows).chain([Bytes::from_static(b"]}")])
}

fn packed(picture: Picture, metric: Metric) -> impl Iterator<Item = Bytes> + Send {
    let head = Head::of(&picture, metric).json();
    let mut opening = Vec::with_capacity(head.len() + 8);
    opening.extend(MAGIC);
    opening.extend(u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes());
    opening.extend(head.as_bytes());
    let rows = (0..picture.nodes().len()).map(move |source| packed_row(&picture, source, metric));
    std::iter::once(Bytes::from(opening)).chain(rows)
}

fn packed_row(picture: &Picture, source: usize, metric: Metric) -> Bytes {
    let cells = picture.row(source);
    let mut row = Vec::with_capacity(4 + 3 * cells.len());
    let age = picture
        .row_age(source)
        .map_or(NO_AGE, |age| u32::try_from(age.as_millis()).unwrap_or(NO_AGE - 1));
    row.extend(age.to_le_bytes());
    row.extend(
        cells
            .iter()
            .enumerate()
            .map(|(target, cell)| if target == source { SELF } else { state_code(cell) }),
    );
    cells.iter().for_each(|cell| row.extend(metric.code(cell).to_le_bytes()));
    row.into()
}
