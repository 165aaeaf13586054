//! `/metrics`: what this bot measured and how it fares, in OpenMetrics text.
//!
//! Every family is written from the snapshot when it is asked for; there is no second copy of any counter. The answer is made family by
//! family while it is read.

use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use canary_core::{BUCKETS_SECONDS, Failure, Histogram, NATIVE_SCHEMA, Native, Pair, Snapshot, Status};
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
    transport: Transport,
    requests: Vec<(Key, Histogram)>,
    refused_connections: [(&'static str, u64); 8],
    guard: Guard,
    process: Process,
    metrics: Metrics,
    version: &'static str,
}

pub(crate) async fn metrics(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    let scrape = Arc::new(Scrape {
        snapshot: api.source.snapshot(),
        transport: api.source.transport(),
        requests: api.requests.all(),
        refused_connections: [
            ("api_connections_full", count(&api.port.full)),
            ("api_address_full", count(&api.port.address_full)),
            ("api_handshakes_full", count(&api.port.handshakes_full)),
            ("api_handshakes_failed", count(&api.port.handshakes_failed)),
            ("api_handshakes_late", count(&api.port.handshakes_late)),
            ("api_idle", count(&api.port.idle)),
            ("api_accept_failed", count(&api.port.failed)),
            ("auth_limited", api.guard.failures.limited()),
        ],
        guard: api.guard.clone(),
        process: Process::read(),
        metrics: api.metrics,
        version: api.version,
    });
    let form = Form::wanted(&headers);
    let parts = PARTS.iter().map(move |part| part(&scrape, form).map(Bytes::from));
    ([(header::CONTENT_TYPE, form.content_type())], Body::from_stream(futures_util::stream::iter(parts))).into_response()
}

/// Writes whole families.
type Write = fn(&Arc<Scrape>, Form) -> Result<Vec<u8>, fmt::Error>;

/// What is written one after the other.
const PARTS: &[Write] = &[
    |scrape, form| if scrape.metrics.level >= MetricsLevel::Pairs { collected(scrape, Part::Probes, form) } else { Ok(Vec::new()) },
    |scrape, form| if scrape.metrics.level >= MetricsLevel::Pairs { phases(&scrape.snapshot, form) } else { Ok(Vec::new()) },
    |scrape, form| if scrape.metrics.level >= MetricsLevel::Histograms { collected(scrape, Part::Durations, form) } else { Ok(Vec::new()) },
    |scrape, form| if scrape.metrics.legacy { collected(scrape, Part::Legacy, form) } else { Ok(Vec::new()) },
    |scrape, form| collected(scrape, Part::Mesh, form),
    |scrape, form| collected(scrape, Part::Bot, form),
    |_, form| {
        let mut end = String::new();
        if form == Form::OpenMetrics {
            encode_eof(&mut end)?;
        }
        Ok(end.into_bytes())
    },
];

#[derive(Clone, Copy, Debug)]
enum Part {
    Probes,
    Durations,
    Legacy,
    Mesh,
    Bot,
}

#[derive(Debug)]
struct PartOf(Arc<Scrape>, Part);

impl Collector for PartOf {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (scrape, encoder) = (&*self.0, &mut encoder);
        match self.1 {
            Part::Probes => probes(scrape, encoder),
            Part::Durations => durations(&scrape.snapshot, encoder),
            Part::Legacy => legacy(&scrape.snapshot, scrape.metrics.level, encoder),
            Part::Mesh => mesh(scrape, encoder),
            Part::Bot => bot(scrape, encoder),
        }
    }
}

fn collected(scrape: &Arc<Scrape>, part: Part, form: Form) -> Result<Vec<u8>, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(PartOf(Arc::clone(scrape), part)));
    if form == Form::Protobuf {
        return encode_to_vec(&registry).map_err(|_| fmt::Error);
    }
    let mut text = String::new();
    encode_registry(&mut text, &registry)?;
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
fn gauges<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    series: impl IntoIterator<Item = (Labels<'a>, f64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for (labels, value) in series {
        family.encode_family(&labels.as_slice())?.encode_gauge(&value)?;
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
        family.encode_family(&labels.as_slice())?.encode_histogram::<NoLabelSet>(
            histogram.sum_seconds,
            histogram.count(),
            &buckets,
            None,
        )?;
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

/// A target's series exist until the node says goodbye or is forgotten: a dead one's are what an alert is made of.
fn pairs(snapshot: &Snapshot) -> impl Iterator<Item = (&str, &Pair)> {
    let known = snapshot.members.iter().filter(|member| member.status != Status::Left);
    known.map(|member| (member.record.name.as_str(), &*member.pair))
}

/// The original's series vanish with the node.
fn present_pairs(snapshot: &Snapshot) -> impl Iterator<Item = (&str, &Pair)> {
    snapshot.present().map(|member| (member.record.name.as_str(), &*member.pair))
}

fn probes(scrape: &Scrape, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let snapshot = &scrape.snapshot;
    let results = pairs(snapshot).flat_map(|(target, pair)| {
        let failures = Failure::ALL.iter().map(|kind| (kind.as_str(), pair.failures[*kind as usize]));
        std::iter::once(("success", pair.successes))
            .chain(failures)
            .map(move |(result, count)| (vec![("target", target), ("result", result)], count))
    });
    counters(encoder, "canary_probes", "Attempts to measure a pair, by how they ended.", results)?;
    let successes =
        pairs(snapshot).filter_map(|(target, pair)| Some((vec![("target", target)], pair.last_success?.unix_millis() as f64 / 1000.0)));
    gauges(
        encoder,
        "canary_probe_last_success_timestamp",
        "When a pair was last measured, since the epoch. No series before the first success.",
        Some(&Unit::Seconds),
        successes,
    )
}

/// The library has no summaries: this family is written by hand between its parts.
fn phases(snapshot: &Snapshot, form: Form) -> Result<Vec<u8>, fmt::Error> {
    use fmt::Write as _;
    const NAME: &str = "canary_probe_phase_duration_seconds";
    const HELP: &str = "Phases of successful probes; they add up to the total, after resolve.";
    if form == Form::Protobuf {
        return phases_in_protobuf(snapshot, NAME, HELP);
    }
    let mut text = format!("# HELP {NAME} {HELP}\n# TYPE {NAME} summary\n# UNIT {NAME} seconds\n");
    for (target, pair) in pairs(snapshot) {
        let target = escape(target);
        for (phase, summary) in PHASES.iter().zip(&pair.phases) {
            let labels = format!("{{target=\"{target}\",phase=\"{phase}\"}}");
            writeln!(text, "{NAME}_sum{labels} {:?}", summary.sum_seconds)?;
            writeln!(text, "{NAME}_count{labels} {}", summary.count)?;
        }
    }
    Ok(form.write(text).into_bytes())
}

fn phases_in_protobuf(snapshot: &Snapshot, name: &str, help: &str) -> Result<Vec<u8>, fmt::Error> {
    use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{LabelPair, Metric, MetricFamily, MetricType, Summary};
    let label = |name: &str, value: &str| LabelPair { name: name.to_owned(), value: value.to_owned() };
    let metrics = pairs(snapshot).flat_map(|(target, pair)| {
        PHASES.iter().zip(&pair.phases).map(move |(phase, summary)| Metric {
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

fn durations(snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let series = pairs(snapshot).flat_map(|(target, pair)| {
        let labels = |probe| vec![("target", target), ("probe", probe)];
        [(labels("total"), &pair.total, &pair.native_total), (labels("request"), &pair.request, &pair.native_request)]
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

/// The original's two families, so that its dashboards go on working.
fn legacy(snapshot: &Snapshot, level: MetricsLevel, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let series = present_pairs(snapshot).flat_map(|(target, pair)| {
        let labels = |kind| vec![("type", kind), ("to", target)];
        [(labels("rtt_total"), &pair.total), (labels("rtt_request"), &pair.request)]
    });
    if level >= MetricsLevel::Histograms {
        histograms(encoder, "rtt", "Round trip times in seconds, as the original names them.", None, &LEGACY_BUCKETS_SECONDS, series)?;
    }
    let nodes = snapshot.present().count() as f64;
    gauges(encoder, "node_count", "Nodes that this bot knows to be there, without itself.", None, [(vec![], nodes)])
}

fn mesh(scrape: &Scrape, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let snapshot = &scrape.snapshot;
    let in_state = |state: Status| snapshot.members.iter().filter(|member| member.status == state).count() as f64;
    let states = [Status::Alive, Status::Suspect, Status::Dead, Status::Left];
    let members = states.map(|state| (vec![("state", state.as_str())], in_state(state)));
    gauges(encoder, "canary_mesh_members", "Other nodes that this bot knows, by what it holds of them.", None, members)?;
    let known = snapshot.members.iter().filter(|member| member.status != Status::Left);
    let up = known.map(|member| (vec![("node", member.record.name.as_str())], f64::from(u8::from(member.status.is_present()))));
    gauges(encoder, "canary_mesh_node_up", "1 while a node is alive or suspected, 0 while it is dead.", None, up)?;
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
    let ages = snapshot
        .present()
        .filter_map(|member| Some((member, member.row.as_ref()?)))
        .map(|(member, row)| (vec![("source", member.record.name.as_str())], row.age(snapshot.now.time).as_secs_f64()));
    gauges(
        encoder,
        "canary_mesh_row_age",
        "Time since a node last published what it measured, as far as this bot heard. No series before the first.",
        Some(&Unit::Seconds),
        ages,
    )?;
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
        "When the certificate of each node expires, or of the edges that it met of late the first.",
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
    let me = &scrape.snapshot.me;
    let target = me.target.to_string();
    let keys: Vec<(String, &str)> = me.labels.iter().map(|(key, value)| (label_name(key), value)).collect();
    let mut labels = vec![("node", me.name.as_str()), ("address", target.as_str())];
    for (key, value) in &keys {
        // Two keys may become one name; a series has each name once.
        if !labels.iter().any(|(taken, _)| taken == key) {
            labels.push((key, value));
        }
    }
    gauges(encoder, "canary_node_info", "This node as it describes itself.", None, [(labels, 1.0)])?;
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
        let none: &[(&str, &str)] = &[];
        family.encode_family(&none)?.encode_counter::<NoLabelSet, _, f64>(&seconds, None)?;
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
