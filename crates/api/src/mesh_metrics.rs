//! `/metrics/mesh`: the last values of all pairs from one bot, so that one scrape shows the mesh.
//!
//! Pairs of nodes grow with the square of the mesh, and so do series. At most
//! [`Metrics::pairs_max`] pairs are written, pinned ones first, then the worst; pairs of zones are
//! always there. What was chosen is small, and the text is made piece by piece while it is read.
//!
//! [`Metrics::pairs_max`]: crate::Metrics::pairs_max

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use canary_core::{LatencyCode, NodeName};
use http::{HeaderMap, StatusCode, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode_eof;
use prometheus_client::registry::Unit;

use crate::form::Form;
use crate::metrics::{gauges, text, without_heads};
use crate::picture::{Cell, Picture};
use crate::state::Api;

/// Pairs that one piece of the answer is about: some sixty kilobytes.
const PAIRS_PER_PIECE: usize = 512;
/// Zones with series of their own. Nodes of further ones count as without a zone: what has so many
/// values is no zone.
const ZONES_MAX: usize = 64;
/// Quantiles of zones.
const QUANTILES: [(f64, &str); 2] = [(0.5, "0.5"), (0.99, "0.99")];

/// How bad a pair is, to a doubling of its latency: a finer order would exchange series with every
/// scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Ok(u32),
    Lossy,
    Failed,
    Pinned,
}

impl Rank {
    /// None for a pair of which nothing is known now.
    fn of(cell: &Cell) -> Option<Self> {
        match cell.word() {
            "failed" => Some(Self::Failed),
            "ok" if cell.loss.is_some_and(|loss| loss > 0.0) => Some(Self::Lossy),
            "ok" => Some(Self::Ok(
                cell.total
                    .map_or(0, |took| took.duration().as_micros().checked_ilog2().unwrap_or(0)),
            )),
            _ => None,
        }
    }
}

/// A pair that may be written; of equal ones the first is.
type Candidate = Reverse<(Rank, Reverse<(u32, u32)>)>;

/// What is known of the pairs between two zones.
#[derive(Clone, Debug, Default)]
struct Zones {
    ok: usize,
    failed: usize,
    /// Unknown, or too old.
    unknown: usize,
    latencies: Vec<LatencyCode>,
}

impl Zones {
    fn count(&mut self, cell: &Cell) {
        match cell.word() {
            "ok" => {
                self.ok += 1;
                self.latencies.extend(cell.total.map(crate::picture::Took::code));
            }
            "failed" => self.failed += 1,
            _ => self.unknown += 1,
        }
    }

    /// The latency that a share of the answered pairs is not above, by nearest rank; none if none
    /// was answered.
    fn quantile(&self, share: f64) -> Option<f64> {
        let rank = (share * self.latencies.len() as f64).ceil() as usize;
        self.latencies.get(rank.max(1) - 1).map(|code| code.decode().as_secs_f64())
    }
}

/// What one answer shows.
#[derive(Debug)]
struct Mesh {
    picture: Picture,
    /// Pairs by the places of their nodes, in order.
    pairs: Vec<(u32, u32)>,
    /// Pairs of which something is known and that are not among them.
    left_out: usize,
    zones: BTreeMap<(String, String), Zones>,
}

impl Mesh {
    fn of(picture: Picture, pairs_max: usize, pins: &[(NodeName, NodeName)]) -> Self {
        let nodes = picture.nodes().len();
        let mut names: Vec<_> = (0..nodes)
            .map(|place| picture.label(place, "zone").unwrap_or_default().to_owned())
            .collect();
        let mut known: Vec<_> = names.clone();
        known.sort_unstable();
        known.dedup();
        known.truncate(ZONES_MAX);
        names.iter_mut().filter(|name| known.binary_search(name).is_err()).for_each(String::clear);
        let pins: HashSet<_> = pins
            .iter()
            .filter_map(|(source, target)| Some((picture.place(source)?, picture.place(target)?)))
            .collect();
        let (mut zones, mut left_out) = (BTreeMap::<_, Zones>::new(), 0);
        // The best of the chosen is on top: it goes first.
        let mut chosen: BinaryHeap<Candidate> = BinaryHeap::new();
        for source in 0..nodes {
            for (target, cell) in
                picture.row(source).iter().enumerate().filter(|(target, _)| *target != source)
            {
                zones
                    .entry((names[source].clone(), names[target].clone()))
                    .or_default()
                    .count(cell);
                let Some(rank) = Rank::of(cell) else { continue };
                let rank = if pins.contains(&(source, target)) { Rank::Pinned } else { rank };
                chosen.push(Reverse((rank, Reverse((source as u32, target as u32)))));
                if chosen.len() > pairs_max {
                    chosen.pop();
                    left_out += 1;
                }
            }
        }
        zones
            .values_mut()
            .for_each(|zones| zones.latencies.sort_unstable_by_key(|code| code.decode()));
        let mut pairs: Vec<_> =
            chosen.into_iter().map(|Reverse((_, Reverse(pair)))| pair).collect();
        pairs.sort_unstable();
        Self { picture, pairs, left_out, zones }
    }
}

/// One family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Up,
    Total,
    Request,
    Loss,
    Age,
    ZonePairs,
    ZoneTotal,
    LeftOut,
}

const OF_PAIRS: [Family; 5] =
    [Family::Up, Family::Total, Family::Request, Family::Loss, Family::Age];
const WHOLE: [Family; 3] = [Family::ZonePairs, Family::ZoneTotal, Family::LeftOut];

#[derive(Debug)]
struct Piece(Arc<Mesh>, Family, std::ops::Range<usize>);

impl Piece {
    fn pairs(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: fn(&Cell) -> Option<f64>,
    ) -> fmt::Result {
        let picture = &self.0.picture;
        let pairs = self.0.pairs.get(self.2.clone()).unwrap_or_default();
        let series = pairs.iter().filter_map(|(source, target)| {
            let (source, target) = (*source as usize, *target as usize);
            let labels = vec![
                ("source", picture.name(source).as_str()),
                ("target", picture.name(target).as_str()),
            ];
            Some((labels, value(&picture.cell(source, target))?))
        });
        gauges(encoder, name, help, unit, series)
    }
}

impl Collector for Piece {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (mesh, encoder) = (&*self.0, &mut encoder);
        match self.1 {
            Family::Up => self.pairs(
                encoder,
                "canary_mesh_pair_up",
                "1 if the latest attempt of a pair was answered, 0 if it failed; no series if nothing is known of it now.",
                None,
                |cell| match cell.word() {
                    "ok" => Some(1.0),
                    "failed" => Some(0.0),
                    _ => None,
                },
            ),
            Family::Total => self.pairs(
                encoder,
                "canary_mesh_pair_rtt",
                "Connect, TLS and first request of the latest attempt.",
                Some(&Unit::Seconds),
                |cell| cell.total.filter(|_| cell.word() == "ok").map(|took| took.duration().as_secs_f64()),
            ),
            Family::Request => {
                self.pairs(encoder, "canary_mesh_pair_request", "A second request on the warm connection.", Some(&Unit::Seconds), |cell| {
                    cell.request.filter(|_| cell.word() == "ok").map(|took| took.duration().as_secs_f64())
                })
            }
            Family::Loss => self.pairs(
                encoder,
                "canary_mesh_pair_loss",
                "Share of failed attempts among the latest 64.",
                Some(&Unit::Other("ratio".to_owned())),
                |cell| cell.loss,
            ),
            Family::Age => {
                self.pairs(encoder, "canary_mesh_pair_age", "How long ago the latest attempt was made.", Some(&Unit::Seconds), |cell| {
                    cell.age.map(|age| age.as_secs_f64())
                })
            }
            Family::ZonePairs => {
                let series = mesh.zones.iter().flat_map(|((source, target), zones)| {
                    [("ok", zones.ok), ("failed", zones.failed), ("unknown", zones.unknown)].map(|(state, count)| {
                        (vec![("source_zone", source.as_str()), ("target_zone", target.as_str()), ("state", state)], count as f64)
                    })
                });
                gauges(encoder, "canary_mesh_zone_pairs", "Pairs between the nodes of two zones, by state.", None, series)
            }
            Family::ZoneTotal => {
                let series = mesh.zones.iter().flat_map(|((source, target), zones)| {
                    QUANTILES.into_iter().filter_map(move |(share, word)| {
                        let labels = vec![("source_zone", source.as_str()), ("target_zone", target.as_str()), ("quantile", word)];
                        Some((labels, zones.quantile(share)?))
                    })
                });
                let help = "Connect, TLS and first request of the latest attempts between the nodes of two zones.";
                gauges(encoder, "canary_mesh_zone_rtt", help, Some(&Unit::Seconds), series)
            }
            Family::LeftOut => {
                let help = "Pairs without series here: there are more than --metrics-pairs-max, and these are the best.";
                gauges(encoder, "canary_mesh_pairs_left_out", help, None, [(Vec::new(), mesh.left_out as f64)])
            }
        }
    }
}

/// The last values of all pairs. Scrape it from one bot.
pub(crate) async fn metrics(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    // Gauges alone: protobuf has nothing that text lacks.
    let form = match Form::wanted(&headers) {
        Form::Protobuf => Form::OpenMetrics,
        form => form,
    };
    let (snapshot, pairs_max, pins) =
        (api.source.snapshot(), api.metrics.pairs_max, api.pins.clone());
    let turn = Arc::clone(&api.whole_scrapes).acquire_owned().await.ok();
    // A mesh of a thousand has a million pairs: others are answered in the meantime.
    let chosen =
        tokio::task::spawn_blocking(move || Mesh::of(Picture::of(snapshot), pairs_max, &pins))
            .await;
    let Ok(mesh) = chosen.map(Arc::new) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let starts = (0..mesh.pairs.len().max(1)).step_by(PAIRS_PER_PIECE);
    let of_pairs = OF_PAIRS.into_iter().flat_map(move |family| {
        starts.clone().map(move |from| (family, from..from + PAIRS_PER_PIECE))
    });
    let pieces = of_pairs.chain(WHOLE.into_iter().map(|family| (family, 0..0)));
    let pieces = pieces.map(move |(family, range)| {
        let _turn = &turn;
        let last = range.end.min(mesh.pairs.len());
        let is_first = range.start == 0;
        let piece =
            text(Box::new(Piece(Arc::clone(&mesh), family, range.start.min(last)..last)), form)?;
        Ok::<_, fmt::Error>(Bytes::from(if is_first { piece } else { without_heads(&piece) }))
    });
    let end = (form == Form::OpenMetrics).then(|| {
        let mut end = String::new();
        encode_eof(&mut end).map(|()| Bytes::from(end))
    });
    let body = Body::from_stream(futures_util::stream::iter(pieces.chain(end)));
    ([(header::CONTENT_TYPE, form.content_type())], body).into_response()
}
