//! Families of this bot's own pairs.

use std::fmt;

use canary_core::{BUCKETS_SECONDS, Failure, NATIVE_SCHEMA, Native, Pair, Snapshot};
use prometheus_client::encoding::{
    DescriptorEncoder, NativeHistogram, NativeHistogramBuckets, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{Nodes, counters, gauges, histograms, pairs, present, rebucket};
use crate::form::Form;

/// Upper bounds of the original's buckets in seconds; all of them are bounds of ours.
const LEGACY_BUCKETS_SECONDS: [f64; 11] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Below this a duration is as good as none; nothing is as short.
const ZERO_THRESHOLD_SECONDS: f64 = 1e-9;

/// Phases in the order of [`Pair::phases`].
const PHASES: [&str; 4] = ["resolve", "connect", "tls", "first_request"];

pub(super) fn probes(
    snapshot: &Snapshot,
    nodes: &Nodes,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let results = pairs(snapshot, nodes).flat_map(|(target, pair)| {
        let failures = Failure::ALL
            .iter()
            .zip(pair.main().failures)
            .map(|(kind, count)| (kind.as_str(), count));
        std::iter::once(("success", pair.main().successes))
            .chain(failures)
            .map(move |(result, count)| (vec![("target", target), ("result", result)], count))
    });
    counters(encoder, "canary_probes", "Attempts to measure a pair, by how they ended.", results)
}

pub(super) fn successes(
    snapshot: &Snapshot,
    nodes: &Nodes,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let at = |(target, pair): (&'_ str, &'_ Pair)| {
        Some((target.to_owned(), pair.main().last_success?.unix_millis() as f64 / 1000.0))
    };
    let successes: Vec<_> = pairs(snapshot, nodes).filter_map(at).collect();
    gauges(
        encoder,
        "canary_probe_last_success_timestamp",
        "When a pair was last measured, since the epoch. No series before the first success.",
        Some(&Unit::Seconds),
        successes.iter().map(|(target, at)| (vec![("target", target.as_str())], *at)),
    )
}

/// The library has no summaries: this family is written by hand between its parts.
pub(super) fn phases(
    snapshot: &Snapshot,
    nodes: &Nodes,
    form: Form,
) -> Result<Vec<u8>, fmt::Error> {
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

fn phases_in_protobuf(
    snapshot: &Snapshot,
    nodes: &Nodes,
    name: &str,
    help: &str,
) -> Result<Vec<u8>, fmt::Error> {
    use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{
        LabelPair, Metric, MetricFamily, MetricType, Summary,
    };
    let label =
        |name: &str, value: &str| LabelPair { name: name.to_owned(), value: value.to_owned() };
    let metrics = pairs(snapshot, nodes).flat_map(|(target, pair)| {
        PHASES.iter().zip(&pair.main().phases).map(move |(phase, summary)| Metric {
            label: vec![label("target", target), label("phase", phase)],
            summary: Some(Summary {
                sample_count: summary.count,
                sample_sum: summary.sum_seconds,
                ..Summary::default()
            }),
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

/// Spans of buckets that follow each other, and the differences of their counts from one to the
/// next, as native histograms travel.
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

pub(super) fn durations(
    snapshot: &Snapshot,
    nodes: &Nodes,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
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
pub(super) fn legacy_pairs(
    snapshot: &Snapshot,
    nodes: &Nodes,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let series = present(snapshot, nodes).flat_map(|member| {
        let labels = |kind| vec![("type", kind), ("to", member.record.name.as_str())];
        [
            (labels("rtt_total"), &member.pair.main().total),
            (labels("rtt_request"), &member.pair.main().request),
        ]
    });
    histograms(
        encoder,
        "rtt",
        "Round trip times in seconds, as the original names them.",
        None,
        &LEGACY_BUCKETS_SECONDS,
        series,
    )
}
