//! `/metrics`: what this bot measured and how it fares, in OpenMetrics text.
//!
//! Every family is written from the snapshot when it is asked for; there is no second copy of any
//! counter. The answer is made piece by piece while it is read: a family of every pair is written
//! for a few nodes at a time, so that a reader that is slow, or stops, holds little.

mod of_bot;
mod of_mesh;
mod of_pair;

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use canary_core::{BUCKETS_SECONDS, Histogram, MemberView, Pair, Snapshot, Status};
use canary_insight::Report;
use canary_net::Guard;
use http::{HeaderMap, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_protobuf::encode_to_vec;
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::MetricFamily;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::form::Form;
use crate::process::Process;
use crate::push::counts::Counts;
use crate::state::Api;
use crate::state::Key;
use crate::{Metrics, MetricsLevel, Transport};

/// Everything that one scrape shows.
#[derive(Debug)]
struct Scrape {
    snapshot: Arc<Snapshot>,
    report: Arc<Report>,
    transport: Transport,
    requests: Vec<(Key, Histogram)>,
    refused_connections: Vec<(String, u64)>,
    guard: Guard,
    process: Process,
    metrics: Metrics,
    version: &'static str,
    pushes: Arc<[Arc<Counts>]>,
}

impl Scrape {
    fn new(api: &Api) -> Self {
        Self {
            snapshot: api.source.snapshot(),
            report: api.source.report(),
            transport: api.source.transport(),
            requests: api.requests.all(),
            refused_connections: api
                .port
                .by_reason()
                .into_iter()
                .map(|(reason, count)| (format!("api_{reason}"), count))
                .chain([("auth_limited".to_owned(), api.guard.failures.limited())])
                .collect(),
            guard: api.guard.clone(),
            process: Process::read(),
            metrics: api.metrics,
            version: api.version,
            pushes: api.pushes.clone(),
        }
    }

    /// Everything, piece by piece. A family of nodes is written for some of them at a time, or for
    /// all at once if it has to stand there whole.
    fn pieces(
        self: Arc<Self>,
        form: Form,
        whole: bool,
    ) -> impl Iterator<Item = Result<Vec<u8>, fmt::Error>> + Send + 'static {
        let nodes = self.snapshot.members.len();
        let pieces = PARTS.iter().flat_map(move |(range, write)| {
            let (last, step) = match range {
                Range::Nodes(step) if !whole => (nodes.max(1), *step),
                Range::Nodes(_) | Range::Whole => (1, nodes.max(1)),
            };
            (0..last).step_by(step).map(move |from| (from..from.saturating_add(step), write))
        });
        pieces.map(move |(nodes, write)| {
            let is_first = nodes.start == 0;
            let piece = write(&self, &nodes, form)?;
            Ok(if is_first || form == Form::Protobuf { piece } else { without_heads(&piece) })
        })
    }
}

pub(crate) async fn metrics(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let form = Form::wanted(&headers);
    // A family stands in protobuf once, and is written whole: few are made at once.
    let whole = form == Form::Protobuf;
    let turn = if whole { Arc::clone(&api.whole_scrapes).acquire_owned().await.ok() } else { None };
    let pieces = Arc::new(Scrape::new(&api)).pieces(form, whole).map(move |piece| {
        let _turn = &turn;
        piece.map(Bytes::from)
    });
    let pieces = pieces.filter(|piece| !piece.as_ref().is_ok_and(Bytes::is_empty));
    (
        [(header::CONTENT_TYPE, form.content_type())],
        Body::from_stream(futures_util::stream::iter(pieces)),
    )
        .into_response()
}

/// The same for those who get it without asking: families of some nodes at a time, made when they
/// are taken.
pub(crate) fn families(api: &Api) -> impl Iterator<Item = Vec<MetricFamily>> + Send + use<> {
    Arc::new(Scrape::new(api)).pieces(Form::Protobuf, false).map(|piece| {
        let piece = piece.unwrap_or_default();
        let mut rest = &*piece;
        std::iter::from_fn(|| prost::Message::decode_length_delimited(&mut rest).ok()).collect()
    })
}

/// Lines of series alone: what describes a family stands before its first piece.
pub(crate) fn without_heads(piece: &[u8]) -> Vec<u8> {
    let lines =
        piece.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"# "));
    lines.flatten().copied().collect()
}

/// What a part is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    /// Everything at once.
    Whole,
    /// So many nodes at a time: a piece has at most about sixty kilobytes.
    Nodes(usize),
}

type Nodes = std::ops::Range<usize>;

/// Writes families, as far as they are about these nodes.
type Write = fn(&Arc<Scrape>, &Nodes, Form) -> Result<Vec<u8>, fmt::Error>;

/// What is written one after the other. A part that is written for some nodes at a time has one
/// family.
const PARTS: &[(Range, Write)] = &[
    (Range::Nodes(64), |scrape, nodes, form| of_pairs(scrape, Part::Probes, nodes, form)),
    (Range::Nodes(512), |scrape, nodes, form| of_pairs(scrape, Part::Successes, nodes, form)),
    (Range::Nodes(512), |scrape, nodes, form| of_pairs(scrape, Part::Segments, nodes, form)),
    (Range::Nodes(512), |scrape, nodes, form| of_pairs(scrape, Part::Retransmissions, nodes, form)),
    (Range::Nodes(64), |scrape, nodes, form| {
        if scrape.metrics.level >= MetricsLevel::Pairs {
            of_pair::phases(&scrape.snapshot, nodes, form)
        } else {
            Ok(Vec::new())
        }
    }),
    (Range::Nodes(16), |scrape, nodes, form| {
        let wanted = scrape.metrics.level >= MetricsLevel::Histograms;
        if wanted { collected(scrape, Part::Durations, nodes, form) } else { Ok(Vec::new()) }
    }),
    (Range::Nodes(16), |scrape, nodes, form| {
        let wanted = scrape.metrics.legacy && scrape.metrics.level >= MetricsLevel::Histograms;
        if wanted { collected(scrape, Part::LegacyPairs, nodes, form) } else { Ok(Vec::new()) }
    }),
    (Range::Whole, |scrape, nodes, form| {
        if scrape.metrics.legacy {
            collected(scrape, Part::Legacy, nodes, form)
        } else {
            Ok(Vec::new())
        }
    }),
    (Range::Nodes(512), |scrape, nodes, form| collected(scrape, Part::NodeUp, nodes, form)),
    (Range::Nodes(64), |scrape, nodes, form| collected(scrape, Part::NodeInfo, nodes, form)),
    (Range::Nodes(512), |scrape, nodes, form| collected(scrape, Part::ClockOffset, nodes, form)),
    (Range::Nodes(512), |scrape, nodes, form| collected(scrape, Part::RowAge, nodes, form)),
    (Range::Whole, |scrape, nodes, form| collected(scrape, Part::Mesh, nodes, form)),
    (Range::Whole, |scrape, nodes, form| collected(scrape, Part::Incidents, nodes, form)),
    (Range::Whole, |scrape, nodes, form| collected(scrape, Part::Bot, nodes, form)),
    (Range::Whole, |_, _, form| {
        let mut end = String::new();
        if form == Form::OpenMetrics {
            encode_eof(&mut end)?;
        }
        Ok(end.into_bytes())
    }),
];

fn of_pairs(
    scrape: &Arc<Scrape>,
    part: Part,
    nodes: &Nodes,
    form: Form,
) -> Result<Vec<u8>, fmt::Error> {
    if scrape.metrics.level >= MetricsLevel::Pairs {
        collected(scrape, part, nodes, form)
    } else {
        Ok(Vec::new())
    }
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Probes,
    Successes,
    Segments,
    Retransmissions,
    Durations,
    LegacyPairs,
    Legacy,
    NodeUp,
    NodeInfo,
    ClockOffset,
    RowAge,
    Mesh,
    Incidents,
    Bot,
}

#[derive(Debug)]
struct PartOf(Arc<Scrape>, Part, Nodes);

impl Collector for PartOf {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (scrape, nodes, encoder) = (&*self.0, &self.2, &mut encoder);
        let snapshot = &*scrape.snapshot;
        match self.1 {
            Part::Probes => of_pair::probes(snapshot, nodes, encoder),
            Part::Successes => of_pair::successes(snapshot, nodes, encoder),
            Part::Segments => {
                let sent = pairs(snapshot, nodes)
                    .map(|(target, pair)| (vec![("target", target)], pair.main().segments));
                counters(
                    encoder,
                    "canary_probe_segments",
                    "Segments that the kernel sent under successful probes.",
                    sent,
                )
            }
            Part::Retransmissions => {
                let sent_again = pairs(snapshot, nodes)
                    .map(|(target, pair)| (vec![("target", target)], pair.main().retransmissions));
                let help = "Segments that the kernel sent again under successful probes: packets were lost, and their latencies contain it.";
                counters(encoder, "canary_probe_retransmissions", help, sent_again)
            }
            Part::Durations => of_pair::durations(snapshot, nodes, encoder),
            Part::LegacyPairs => of_pair::legacy_pairs(snapshot, nodes, encoder),
            Part::Legacy => {
                let count = snapshot.present().count() as f64;
                gauges(
                    encoder,
                    "node_count",
                    "Nodes that this bot knows to be there, without itself.",
                    None,
                    [(vec![], count)],
                )
            }
            Part::NodeUp => {
                let up = known(snapshot, nodes).map(|member| {
                    (
                        vec![("node", member.record.name.as_str())],
                        f64::from(u8::from(member.status.is_present())),
                    )
                });
                gauges(
                    encoder,
                    "canary_mesh_node_up",
                    "1 while a node is alive or suspected, 0 while it is dead.",
                    None,
                    up,
                )
            }
            Part::NodeInfo => of_mesh::node_infos(snapshot, nodes, encoder),
            Part::ClockOffset => of_mesh::clock_offsets(snapshot, nodes, encoder),
            Part::RowAge => of_mesh::row_ages(snapshot, nodes, encoder),
            Part::Mesh => of_mesh::mesh(scrape, encoder),
            Part::Incidents => of_mesh::incidents(&scrape.report, encoder),
            Part::Bot => of_bot::bot(scrape, encoder),
        }
    }
}

fn collected(
    scrape: &Arc<Scrape>,
    part: Part,
    nodes: &Nodes,
    form: Form,
) -> Result<Vec<u8>, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(PartOf(Arc::clone(scrape), part, nodes.clone())));
    if form == Form::Protobuf {
        return encode_to_vec(&registry).map_err(|_| fmt::Error);
    }
    written(&registry, form)
}

/// Families as text.
pub(crate) fn text(families: Box<dyn Collector>, form: Form) -> Result<Vec<u8>, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(families);
    written(&registry, form)
}

fn written(registry: &Registry, form: Form) -> Result<Vec<u8>, fmt::Error> {
    let mut text = String::new();
    encode_registry(&mut text, registry)?;
    Ok(form.write(text).into_bytes())
}

type Labels<'a> = Vec<(&'a str, &'a str)>;

/// `name` is without `_total`, which the encoder appends.
fn counters<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Labels<'a>, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in series {
        family
            .encode_family(&labels.as_slice())?
            .encode_counter::<NoLabelSet, _, f64>(&value, None)?;
    }
    Ok(())
}

/// `name` is without the unit, which the encoder appends.
pub(crate) fn gauges<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    series: impl IntoIterator<Item = (Labels<'a>, f64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for (labels, value) in series {
        if labels.is_empty() {
            // A series without labels has no braces.
            family.encode_gauge(&value)?;
        } else {
            family.encode_family(&labels.as_slice())?.encode_gauge(&value)?;
        }
    }
    Ok(())
}

fn histograms<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    bounds: &[f64],
    series: impl IntoIterator<Item = (Labels<'a>, &'a Histogram)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
    for (labels, histogram) in series {
        let buckets = rebucket(histogram, bounds);
        let (sum, count) = (histogram.sum_seconds, histogram.count());
        if labels.is_empty() {
            family.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        } else {
            family
                .encode_family(&labels.as_slice())?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
    }
    Ok(())
}

/// Counts per bucket of `bounds`, a subset of our own bounds, and of what is above.
fn rebucket(histogram: &Histogram, bounds: &[f64]) -> Vec<(f64, u64)> {
    let mut buckets: Vec<_> =
        bounds.iter().map(|bound| (*bound, 0)).chain([(f64::INFINITY, 0)]).collect();
    for (index, count) in histogram.buckets.iter().enumerate() {
        let bound = BUCKETS_SECONDS.get(index).copied().unwrap_or(f64::INFINITY);
        if let Some((_, sum)) = buckets.iter_mut().find(|(upper, _)| *upper >= bound) {
            *sum += count;
        }
    }
    buckets
}

/// Of these nodes those that answered once and did not leave: a node's series exist until it says
/// goodbye or is forgotten, for a dead one's are what an alert is made of.
fn known<'a>(
    snapshot: &'a Snapshot,
    nodes: &Nodes,
) -> impl Iterator<Item = &'a MemberView> + use<'a> {
    let members = snapshot
        .members
        .get(nodes.start..nodes.end.min(snapshot.members.len()))
        .unwrap_or_default();
    members.iter().filter(|member| member.known && member.status != Status::Left)
}

/// Of these nodes those that are there. The original's series vanish with the node.
fn present<'a>(
    snapshot: &'a Snapshot,
    nodes: &Nodes,
) -> impl Iterator<Item = &'a MemberView> + use<'a> {
    known(snapshot, nodes).filter(|member| member.status.is_present())
}

fn pairs<'a>(
    snapshot: &'a Snapshot,
    nodes: &Nodes,
) -> impl Iterator<Item = (&'a str, &'a Pair)> + use<'a> {
    known(snapshot, nodes).map(|member| (member.record.name.as_str(), &*member.pair))
}
