//! `/metrics`: what this bot measured and how it fares, in OpenMetrics text.
//!
//! Every family is written from the snapshot when it is asked for; there is no second copy of any counter. The answer is made piece by piece
//! while it is read: a family of every pair is written for a few nodes at a time, so that a reader that is slow, or stops, holds little.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use canary_core::{BUCKETS_SECONDS, Failure, Histogram, MemberView, NATIVE_SCHEMA, Native, Pair, Record, Snapshot, Status};
use canary_insight::{Incident, Kind, Report, Severity};
use http::{HeaderMap, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_protobuf::encode_to_vec;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, NativeHistogram, NativeHistogramBuckets, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use canary_net::Guard;

use crate::form::Form;
use crate::process::Process;
use crate::requests::Key;
use crate::routes::Api;
use crate::{Messages, Metrics, MetricsLevel, Transport};

/// Upper bounds of the original's buckets in seconds; all of them are bounds of ours.
const LEGACY_BUCKETS_SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Below this a duration is as good as none; nothing is as short.
const ZERO_THRESHOLD_SECONDS: f64 = 1e-9;

/// Phases in the order of [`Pair::phases`].
const PHASES: [&str; 4] = ["resolve", "connect", "tls", "first_request"];

/// Everything that one scrape shows.
#[derive(Debug)]
struct Scrape {
    snapshot: Arc<Snapshot>,
    report: Arc<Report>,
    transport: Transport,
    requests: Vec<(Key, Histogram)>,
    refused_connections: [(&'static str, u64); 9],
    guard: Guard,
    process: Process,
    metrics: Metrics,
    version: &'static str,
}

pub(crate) async fn metrics(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    let scrape = Arc::new(Scrape {
        snapshot: api.source.snapshot(),
        report: api.source.report(),
        transport: api.source.transport(),
        requests: api.requests.all(),
        refused_connections: [
            ("api_connections_full", count(&api.port.full)),
            ("api_address_full", count(&api.port.address_full)),
            ("api_handshakes_full", count(&api.port.handshakes_full)),
            ("api_handshakes_failed", count(&api.port.handshakes_failed)),
            ("api_handshakes_late", count(&api.port.handshakes_late)),
            ("api_idle", count(&api.port.idle)),
            ("api_unread", count(&api.port.unread)),
            ("api_accept_failed", count(&api.port.failed)),
            ("auth_limited", api.guard.failures.limited()),
        ],
        guard: api.guard.clone(),
        process: Process::read(),
        metrics: api.metrics,
        version: api.version,
    });
    let form = Form::wanted(&headers);
    let nodes = scrape.snapshot.members.len();
    // A family stands in protobuf once, and is written whole.
    let pieces = PARTS.iter().flat_map(move |(range, write)| {
        let (last, step) = match range {
            Range::Nodes(step) if form != Form::Protobuf => (nodes.max(1), *step),
            Range::Nodes(_) | Range::Whole => (1, nodes.max(1)),
        };
        (0..last).step_by(step).map(move |from| (from..from.saturating_add(step), write))
    });
    // Families in protobuf are whole: few are made at once.
    let turn = if form == Form::Protobuf { Arc::clone(&api.whole_scrapes).acquire_owned().await.ok() } else { None };
    let pieces = pieces.map(move |(nodes, write)| {
        let _turn = &turn;
        let is_first = nodes.start == 0;
        let piece = write(&scrape, &nodes, form)?;
        Ok::<_, fmt::Error>(Bytes::from(if is_first || form == Form::Protobuf { piece } else { without_heads(&piece) }))
    });
    let pieces = pieces.filter(|piece| !piece.as_ref().is_ok_and(Bytes::is_empty));
    ([(header::CONTENT_TYPE, form.content_type())], Body::from_stream(futures_util::stream::iter(pieces))).into_response()
}

/// Lines of series alone: what describes a family stands before its first piece.
pub(crate) fn without_heads(piece: &[u8]) -> Vec<u8> {
    let lines = piece.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"# "));
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

/// What is written one after the other. A part that is written for some nodes at a time has one family.
const PARTS: &[(Range, Write)] = &[
    (Range::Nodes(64), |scrape, nodes, form| of_pairs(scrape, Part::Probes, nodes, form)),
    (Range::Nodes(512), |scrape, nodes, form| of_pairs(scrape, Part::Successes, nodes, form)),
    (Range::Nodes(512), |scrape, nodes, form| of_pairs(scrape, Part::Segments, nodes, form)),
    (Range::Nodes(512), |scrape, nodes, form| of_pairs(scrape, Part::Retransmissions, nodes, form)),
    (
        Range::Nodes(64),
        |scrape, nodes, form| {
            if scrape.metrics.level >= MetricsLevel::Pairs { phases(&scrape.snapshot, nodes, form) } else { Ok(Vec::new()) }
        },
    ),
    (Range::Nodes(16), |scrape, nodes, form| {
        let wanted = scrape.metrics.level >= MetricsLevel::Histograms;
        if wanted { collected(scrape, Part::Durations, nodes, form) } else { Ok(Vec::new()) }
    }),
    (Range::Nodes(16), |scrape, nodes, form| {
        let wanted = scrape.metrics.legacy && scrape.metrics.level >= MetricsLevel::Histograms;
        if wanted { collected(scrape, Part::LegacyPairs, nodes, form) } else { Ok(Vec::new()) }
    }),
    (Range::Whole, |scrape, nodes, form| if scrape.metrics.legacy { collected(scrape, Part::Legacy, nodes, form) } else { Ok(Vec::new()) }),
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

fn of_pairs(scrape: &Arc<Scrape>, part: Part, nodes: &Nodes, form: Form) -> Result<Vec<u8>, fmt::Error> {
    if scrape.metrics.level >= MetricsLevel::Pairs { collected(scrape, part, nodes, form) } else { Ok(Vec::new()) }
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
            Part::Probes => probes(snapshot, nodes, encoder),
            Part::Successes => successes(snapshot, nodes, encoder),
            Part::Segments => {
                let sent = pairs(snapshot, nodes).map(|(target, pair)| (vec![("target", target)], pair.main().segments));
                counters(encoder, "canary_probe_segments", "Segments that the kernel sent under successful probes.", sent)
            }
            Part::Retransmissions => {
                let sent_again = pairs(snapshot, nodes).map(|(target, pair)| (vec![("target", target)], pair.main().retransmissions));
                let help =
                    "Segments that the kernel sent again under successful probes: packets were lost, and their latencies contain it.";
                counters(encoder, "canary_probe_retransmissions", help, sent_again)
            }
            Part::Durations => durations(snapshot, nodes, encoder),
            Part::LegacyPairs => legacy_pairs(snapshot, nodes, encoder),
            Part::Legacy => {
                let count = snapshot.present().count() as f64;
                gauges(encoder, "node_count", "Nodes that this bot knows to be there, without itself.", None, [(vec![], count)])
            }
            Part::NodeUp => {
                let up = known(snapshot, nodes)
                    .map(|member| (vec![("node", member.record.name.as_str())], f64::from(u8::from(member.status.is_present()))));
                gauges(encoder, "canary_mesh_node_up", "1 while a node is alive or suspected, 0 while it is dead.", None, up)
            }
            Part::NodeInfo => node_infos(snapshot, nodes, encoder),
            Part::ClockOffset => clock_offsets(snapshot, nodes, encoder),
            Part::RowAge => row_ages(snapshot, nodes, encoder),
            Part::Mesh => mesh(scrape, encoder),
            Part::Incidents => incidents(&scrape.report, encoder),
            Part::Bot => bot(scrape, encoder),
        }
    }
}

fn collected(scrape: &Arc<Scrape>, part: Part, nodes: &Nodes, form: Form) -> Result<Vec<u8>, fmt::Error> {
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
        family.encode_family(&labels.as_slice())?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
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
            family.encode_family(&labels.as_slice())?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
    }
    Ok(())
}

/// Counts per bucket of `bounds`, a subset of our own bounds, and of what is above.
fn rebucket(histogram: &Histogram, bounds: &[f64]) -> Vec<(f64, u64)> {
    let mut buckets: Vec<_> = bounds.iter().map(|bound| (*bound, 0)).chain([(f64::INFINITY, 0)]).collect();
    for (index, count) in histogram.buckets.iter().enumerate() {
        let bound = BUCKETS_SECONDS.get(index).copied().unwrap_or(f64::INFINITY);
        if let Some((_, sum)) = buckets.iter_mut().find(|(upper, _)| *upper >= bound) {
            *sum += count;
        }
    }
    buckets
}

/// Of these nodes those that answered once and did not leave: a node's series exist until it says goodbye or is forgotten, for a dead one's are what
/// an alert is made of.
fn known<'a>(snapshot: &'a Snapshot, nodes: &Nodes) -> impl Iterator<Item = &'a MemberView> + use<'a> {
    let members = snapshot.members.get(nodes.start..nodes.end.min(snapshot.members.len())).unwrap_or_default();
    members.iter().filter(|member| member.known && member.status != Status::Left)
}

/// Of these nodes those that are there. The original's series vanish with the node.
fn present<'a>(snapshot: &'a Snapshot, nodes: &Nodes) -> impl Iterator<Item = &'a MemberView> + use<'a> {
    known(snapshot, nodes).filter(|member| member.status.is_present())
}

fn pairs<'a>(snapshot: &'a Snapshot, nodes: &Nodes) -> impl Iterator<Item = (&'a str, &'a Pair)> + use<'a> {
    known(snapshot, nodes).map(|member| (member.record.name.as_str(), &*member.pair))
}

fn probes(snapshot: &Snapshot, nodes: &Nodes, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let results = pairs(snapshot, nodes).flat_map(|(target, pair)| {
        let failures = Failure::ALL.iter().zip(pair.main().failures).map(|(kind, count)| (kind.as_str(), count));
        std::iter::once(("success", pair.main().successes))
            .chain(failures)
            .map(move |(result, count)| (vec![("target", target), ("result", result)], count))
    });
    counters(encoder, "canary_probes", "Attempts to measure a pair, by how they ended.", results)
}

fn successes(snapshot: &Snapshot, nodes: &Nodes, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let at = |(target, pair): (&'_ str, &'_ Pair)| Some((target.to_owned(), pair.main().last_success?.unix_millis() as f64 / 1000.0));
    let successes: Vec<_> = pairs(snapshot, nodes).filter_map(at).collect();
    gauges(
        encoder,
        "canary_probe_last_success_timestamp",
        "When a pair was last measured, since the epoch. No series before the first success.",
        Some(&Unit::Seconds),
        successes.iter().map(|(target, at)| (vec![("target", target.as_str())], *at)),
    )
}

/// Where every node is, and what it says of itself.
fn node_infos(snapshot: &Snapshot, nodes: &Nodes, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family =
        encoder.encode_descriptor("canary_mesh_node_info", "Every other node: its address and its labels.", None, MetricType::Gauge)?;
    for member in known(snapshot, nodes) {
        let described = described(&member.record);
        let labels: Vec<_> = described.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        family.encode_family(&labels.as_slice())?.encode_gauge(&1.0)?;
    }
    Ok(())
}

/// A node's name, address and labels as labels of a series. Two keys may become one name; a series has each name once.
fn described(record: &Record) -> Vec<(String, String)> {
    let mut labels = vec![("node".to_owned(), record.name.as_str().to_owned()), ("address".to_owned(), record.target.to_string())];
    for (key, value) in record.labels.iter() {
        let key = label_name(key);
        if !labels.iter().any(|(taken, _)| *taken == key) {
            labels.push((key, value.to_owned()));
        }
    }
    labels
}

/// What is wrong: a series for every kind, so that an alert on it has a past, and one for every open incident.
fn incidents(report: &Report, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut counts: BTreeMap<(Kind, Severity), f64> = Kind::all().map(|kind| ((kind, kind.severity()), 0.0)).collect();
    for incident in &report.open {
        *counts.entry((incident.kind, incident.severity)).or_default() += 1.0;
    }
    let counts = counts.iter().map(|((kind, severity), count)| (vec![("kind", kind.as_str()), ("severity", severity.as_str())], *count));
    gauges(encoder, "canary_incidents", "Open incidents: what is wrong with the mesh, as far as this bot knows.", None, counts)?;
    let infos: Vec<_> = report.open.iter().map(|incident| (incident, incident.id.to_string(), culprit(incident))).collect();
    let infos = infos.iter().map(|(incident, id, culprit)| {
        let (kind, severity) = (incident.kind.as_str(), incident.severity.as_str());
        (vec![("id", id.as_str()), ("kind", kind), ("severity", severity), ("culprit", culprit.as_str())], 1.0)
    });
    gauges(encoder, "canary_incident_info", "Every open incident, and who or what is to blame. No series while none is open.", None, infos)
}

/// The culprit as a label's value: a group without a name may have a thousand members.
fn culprit(incident: &Incident) -> String {
    const BYTES_MAX: usize = 256;
    let text = incident.culprit.to_string();
    if text.len() <= BYTES_MAX {
        return text;
    }
    let cut = (0..=BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}…", &text[..cut])
}

/// How far every node's clock is from ours, by when it says that it published its row, and how long ago that was.
fn clock_offsets(snapshot: &Snapshot, nodes: &Nodes, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let offsets = present(snapshot, nodes).filter_map(|member| {
        let offset = member.row.as_ref()?.clock_offset_millis(snapshot.now) as f64 / 1000.0;
        Some((vec![("node", member.record.name.as_str())], offset))
    });
    gauges(
        encoder,
        "canary_mesh_node_clock_offset",
        "How far a node's clock is ahead of this host's: its samples are dated by it.",
        Some(&Unit::Seconds),
        offsets,
    )
}

fn row_ages(snapshot: &Snapshot, nodes: &Nodes, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let ages = present(snapshot, nodes)
        .filter_map(|member| Some((member, member.row.as_ref()?)))
        .map(|(member, row)| (vec![("source", member.record.name.as_str())], row.age(snapshot.now.time).as_secs_f64()));
    gauges(
        encoder,
        "canary_mesh_row_age",
        "Time since a node last published what it measured, as far as this bot heard. No series before the first.",
        Some(&Unit::Seconds),
        ages,
    )
}

/// The library has no summaries: this family is written by hand between its parts.
fn phases(snapshot: &Snapshot, nodes: &Nodes, form: Form) -> Result<Vec<u8>, fmt::Error> {
    use fmt::Write as _;
    const NAME: &str = "canary_probe_phase_duration_seconds";
    const HELP: &str = "Phases of successful probes; they add up to the total, after resolve.";
    if form == Form::Protobuf {
        return phases_in_protobuf(snapshot, nodes, NAME, HELP);
    }
    let mut text = format!("# HELP {NAME} {HELP}\n# TYPE {NAME} summary\n# UNIT {NAME} seconds\n");
    for (target, pair) in pairs(snapshot, nodes) {
        let target = escape(target);
        for (phase, summary) in PHASES.iter().zip(&pair.main().phases) {
            let labels = format!("{{target=\"{target}\",phase=\"{phase}\"}}");
            writeln!(text, "{NAME}_sum{labels} {:?}", summary.sum_seconds)?;
            writeln!(text, "{NAME}_count{labels} {}", summary.count)?;
        }
    }
    Ok(form.write(text).into_bytes())
}

fn phases_in_protobuf(snapshot: &Snapshot, nodes: &Nodes, name: &str, help: &str) -> Result<Vec<u8>, fmt::Error> {
    use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{LabelPair, Metric, MetricFamily, MetricType, Summary};
    let label = |name: &str, value: &str| LabelPair { name: name.to_owned(), value: value.to_owned() };
    let metrics = pairs(snapshot, nodes).flat_map(|(target, pair)| {
        PHASES.iter().zip(&pair.main().phases).map(move |(phase, summary)| Metric {
            label: vec![label("target", target), label("phase", phase)],
            summary: Some(Summary { sample_count: summary.count, sample_sum: summary.sum_seconds, ..Summary::default() }),
            ..Metric::default()
        })
    });
    let family = MetricFamily {
        name: name.to_owned(),
        help: help.to_owned(),
        r#type: MetricType::Summary as i32,
        metric: metrics.collect(),
        unit: "seconds".to_owned(),
    };
    let mut bytes = Vec::new();
    prost::Message::encode_length_delimited(&family, &mut bytes).map_err(|_| fmt::Error)?;
    Ok(bytes)
}

/// Spans of buckets that follow each other, and the differences of their counts from one to the next, as native histograms travel.
fn spans(native: &Native) -> (Vec<(i32, u32)>, Vec<i64>) {
    let (mut spans, mut deltas) = (Vec::<(i32, u32)>::new(), Vec::new());
    let (mut next, mut before) = (0, 0);
    for (index, count) in native.buckets() {
        match spans.last_mut() {
            Some((_, length)) if *index == next => *length += 1,
            // The first offset is the first bucket itself, the others are gaps.
            _ => spans.push((index - next, 1)),
        }
        next = index + 1;
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        deltas.push(count - before);
        before = count;
    }
    (spans, deltas)
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn durations(snapshot: &Snapshot, nodes: &Nodes, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let series = pairs(snapshot, nodes).flat_map(|(target, pair)| {
        let labels = |probe| vec![("target", target), ("probe", probe)];
        [
            (labels("total"), &pair.main().total, &pair.main().native_total),
            (labels("request"), &pair.main().request, &pair.main().native_request),
        ]
    });
    let mut family = encoder.encode_descriptor(
        "canary_probe_duration",
        "Round trips of successful probes: total is connect, TLS and first request; request is a second one on the warm connection.",
        Some(&Unit::Seconds),
        MetricType::Histogram,
    )?;
    for (labels, histogram, native) in series {
        let (spans, deltas) = spans(native);
        let native = NativeHistogram {
            schema: NATIVE_SCHEMA,
            zero_threshold: ZERO_THRESHOLD_SECONDS,
            zero_count: 0,
            negative: NativeHistogramBuckets { spans: &[], deltas: &[] },
            positive: NativeHistogramBuckets { spans: &spans, deltas: &deltas },
            created: None,
        };
        // Text has no native form; its encoder takes the classic buckets alone.
        family.encode_family(&labels.as_slice())?.encode_histogram_with_native::<NoLabelSet>(
            histogram.sum_seconds,
            histogram.count(),
            &rebucket(histogram, &BUCKETS_SECONDS),
            None,
            native,
        )?;
    }
    Ok(())
}

/// The original's histogram, so that its dashboards go on working.
fn legacy_pairs(snapshot: &Snapshot, nodes: &Nodes, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let series = present(snapshot, nodes).flat_map(|member| {
        let labels = |kind| vec![("type", kind), ("to", member.record.name.as_str())];
        [(labels("rtt_total"), &member.pair.main().total), (labels("rtt_request"), &member.pair.main().request)]
    });
    histograms(encoder, "rtt", "Round trip times in seconds, as the original names them.", None, &LEGACY_BUCKETS_SECONDS, series)
}

fn mesh(scrape: &Scrape, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let snapshot = &scrape.snapshot;
    let in_state = |state: Status| snapshot.nodes().filter(|member| member.status == state).count() as f64;
    let states = [Status::Alive, Status::Suspect, Status::Dead, Status::Left];
    let members = states.map(|state| (vec![("state", state.as_str())], in_state(state)));
    gauges(encoder, "canary_mesh_members", "Other nodes that this bot knows, by what it holds of them.", None, members)?;
    let unproven = snapshot.unproven as f64;
    gauges(
        encoder,
        "canary_mesh_unproven_names",
        "Names that others tell of and that never answered this bot in their present life: they are in no list.",
        None,
        [(vec![], unproven)],
    )?;
    let targets: Vec<_> = snapshot.targets.iter().map(|(target, up)| (target.to_string(), *up)).collect();
    let up = targets.iter().map(|(target, up)| (vec![("target", target.as_str())], f64::from(u8::from(*up))));
    gauges(encoder, "canary_mesh_target_up", "1 while a target to join at let this bot in when it was last asked.", None, up)?;
    let failing = snapshot.join_problems.len() as f64;
    gauges(encoder, "canary_mesh_targets_failing", "Targets that do not let this bot in.", None, [(vec![], failing)])?;
    let labels = |messages: &Messages| vec![("kind", messages.kind), ("direction", messages.direction)];
    let messages = scrape.transport.messages.iter().map(|messages| (labels(messages), messages.count));
    counters(encoder, "canary_mesh_messages", "Messages between bots.", messages)?;
    let bytes = scrape.transport.messages.iter().map(|messages| (labels(messages), messages.bytes));
    counters(encoder, "canary_mesh_bytes", "Bytes of the messages between bots, without the framing of HTTP/2.", bytes)?;
    let refused = snapshot.refusals.iter().map(|(refusal, count)| (refusal.as_str(), count));
    let refused = refused.chain(scrape.transport.refused.iter().copied()).chain(scrape.refused_connections);
    let refused = refused.map(|(reason, count)| (vec![("reason", reason)], count));
    counters(encoder, "canary_mesh_refused", "What a bound of this bot refused or left out, by bound.", refused)?;
    secured(snapshot, encoder)?;
    let interval = |name, help, interval: std::time::Duration, encoder: &mut DescriptorEncoder<'_>| {
        gauges(encoder, name, help, Some(&Unit::Seconds), [(vec![], interval.as_secs_f64())])
    };
    interval("canary_probe_interval", "How often each pair is measured within the budget.", snapshot.pair_interval, encoder)?;
    interval("canary_mesh_publish_interval", "How often this bot publishes all its pairs.", snapshot.publish_interval, encoder)?;
    let flag = |value: bool| f64::from(u8::from(value));
    gauges(
        encoder,
        "canary_mesh_isolated",
        "1 while this bot knows others and hears from none: its own network may be cut.",
        None,
        [(vec![], flag(snapshot.isolated))],
    )?;
    gauges(
        encoder,
        "canary_mesh_name_conflict",
        "1 while another living node has this bot's name, and this bot publishes nothing.",
        None,
        [(vec![], flag(snapshot.name_conflict().is_some()))],
    )?;
    histograms(
        encoder,
        "canary_probe_schedule_delay",
        "How late probes began: how far to trust the numbers of this host.",
        Some(&Unit::Seconds),
        &BUCKETS_SECONDS,
        [(vec![], &snapshot.schedule_delay)],
    )
}

/// How the connections of every node are secured, as its row tells.
fn secured(snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let others = snapshot.present().map(|member| (&member.record.name, member.row.as_ref()));
    let rows = std::iter::once((&snapshot.me.name, snapshot.own_row.as_ref())).chain(others);
    let told: Vec<_> = rows.filter_map(|(name, row)| Some((name.as_str(), row?.frame().secured()?))).collect();
    let names: Vec<_> = told.iter().map(|(_, secured)| (secured.version_name(), secured.group_name())).collect();
    let infos = told
        .iter()
        .zip(&names)
        .map(|((node, _), (version, group))| (vec![("node", *node), ("version", version.as_ref()), ("group", group.as_ref())], 1.0));
    gauges(encoder, "canary_node_tls_info", "What each node agreed on at its latest TLS handshake with a peer.", None, infos)?;
    let expiries = told.iter().map(|(node, secured)| (vec![("node", *node)], secured.expires as f64));
    gauges(
        encoder,
        "canary_node_certificate_expiry_timestamp",
        "When the certificate of each node expires; of a node without one, the first to expire of those that proxies presented to it recently.",
        Some(&Unit::Seconds),
        expiries,
    )
}

fn bot(scrape: &Scrape, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    guarding(&scrape.guard, encoder)?;
    let codes: Vec<String> = scrape.requests.iter().map(|((_, _, code), _)| code.to_string()).collect();
    let requests = || {
        scrape.requests.iter().zip(&codes).map(|(((route, method, _), histogram), code)| {
            (vec![("route", route.as_str()), ("method", *method), ("code", code.as_str())], histogram)
        })
    };
    counters(
        encoder,
        "canary_api_requests",
        "Requests to the API port.",
        requests().map(|(labels, histogram)| (labels, histogram.count())),
    )?;
    histograms(
        encoder,
        "canary_api_request_duration",
        "Time until the answer of the API began.",
        Some(&Unit::Seconds),
        &BUCKETS_SECONDS,
        requests(),
    )?;
    let info = [(vec![("version", scrape.version)], 1.0)];
    gauges(encoder, "canary_build_info", "The program that runs.", None, info)?;
    let described = described(&scrape.snapshot.me);
    let labels = described.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    gauges(encoder, "canary_node_info", "This node as it describes itself.", None, [(labels, 1.0)])?;
    if !scrape.transport.log_lost.is_empty() {
        let lost = scrape.transport.log_lost.iter().map(|(reason, count)| (vec![("reason", *reason)], *count));
        let help = "Log lines that were not written: nobody read them in time, or they repeated too often.";
        counters(encoder, "canary_log_lines_lost", help, lost)?;
    }
    process(&scrape.process, encoder)
}

/// A node's label as a metric's label: other characters become underscores, and a digit does not come first.
fn label_name(key: &str) -> String {
    let name: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.starts_with("__") { format!("label_{name}") } else { name }
}

fn process(process: &Process, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    if let Some(seconds) = process.cpu_seconds {
        let mut family =
            encoder.encode_descriptor("process_cpu", "Processor time that the process used.", Some(&Unit::Seconds), MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, _, f64>(&seconds, None)?;
    }
    let figures = [
        ("process_resident_memory", "Memory that the process holds.", Some(Unit::Bytes), process.resident_bytes),
        ("process_virtual_memory", "Address space of the process.", Some(Unit::Bytes), process.virtual_bytes),
        ("process_open_fds", "Open descriptors of the process.", None, process.open_fds),
        ("process_max_fds", "Descriptors that the process may open.", None, process.max_fds),
        ("process_start_time", "When the process began, since the epoch.", Some(Unit::Seconds), process.start_time_seconds),
        ("process_threads", "Threads of the process.", None, process.threads),
    ];
    for (name, help, unit, figure) in figures {
        gauges(encoder, name, help, unit.as_ref(), figure.map(|figure| (vec![], figure)))?;
    }
    Ok(())
}

/// Certificates, and what became of reading changed files again.
fn guarding(guard: &Guard, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    use std::sync::atomic::Ordering::Relaxed;
    let reloads = [("done", &guard.reloads.done), ("failed", &guard.reloads.failed)];
    let reloads = reloads.map(|(result, count)| (vec![("result", result)], count.load(Relaxed)));
    counters(encoder, "canary_reloads", "Times that changed certificates or tokens were read again.", reloads)?;
    let broken = f64::from(u8::from(guard.reloads.broken.load(Relaxed)));
    gauges(
        encoder,
        "canary_reload_broken",
        "1 while the files do not work and the former contents are in force.",
        None,
        [(vec![], broken)],
    )?;
    let set = guard.tls.get();
    let expiry = set.own.iter().filter_map(|own| Some((vec![], own.not_after.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())));
    gauges(encoder, "canary_tls_certificate_expiry_timestamp", "When the certificate of this bot expires.", Some(&Unit::Seconds), expiry)
}
