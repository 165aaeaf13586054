//! OTLP 1.x metrics over HTTP: protobuf, compressed by gzip.

use std::io::Write as _;

use bytes::Bytes;
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{
    Metric as Told, MetricFamily, MetricType,
};
use prost::{Message, Oneof};

use super::Round;
use super::queue::Batch;

/// Data points of one request.
const POINTS_MAX: usize = 2_000;

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`: since the start of the bot.
const CUMULATIVE: i32 = 2;

/// `ExportMetricsServiceRequest`; the messages below are those of `opentelemetry.proto.metrics.v1`,
/// as far as they are written.
#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceMetrics {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeMetrics {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    description: String,
    #[prost(string, tag = "3")]
    unit: String,
    #[prost(oneof = "Data", tags = "5, 7, 9, 11")]
    data: Option<Data>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Data {
    #[prost(message, tag = "5")]
    Gauge(Gauge),
    #[prost(message, tag = "7")]
    Sum(Sum),
    #[prost(message, tag = "9")]
    Histogram(Histogram),
    #[prost(message, tag = "11")]
    Summary(Summary),
}

#[derive(Clone, PartialEq, Message)]
struct Gauge {
    #[prost(message, repeated, tag = "1")]
    points: Vec<Number>,
}

#[derive(Clone, PartialEq, Message)]
struct Sum {
    #[prost(message, repeated, tag = "1")]
    points: Vec<Number>,
    #[prost(int32, tag = "2")]
    temporality: i32,
    #[prost(bool, tag = "3")]
    is_monotonic: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(fixed64, tag = "2")]
    start_unix_nanos: u64,
    #[prost(fixed64, tag = "3")]
    unix_nanos: u64,
    /// A `oneof` of which only this is written: zero is written, too.
    #[prost(double, optional, tag = "4")]
    value: Option<f64>,
    #[prost(message, repeated, tag = "7")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(message, repeated, tag = "1")]
    points: Vec<Buckets>,
    #[prost(int32, tag = "2")]
    temporality: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Buckets {
    #[prost(fixed64, tag = "2")]
    start_unix_nanos: u64,
    #[prost(fixed64, tag = "3")]
    unix_nanos: u64,
    #[prost(fixed64, tag = "4")]
    count: u64,
    #[prost(double, optional, tag = "5")]
    sum: Option<f64>,
    #[prost(fixed64, repeated, tag = "6")]
    counts: Vec<u64>,
    #[prost(double, repeated, tag = "7")]
    bounds: Vec<f64>,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    points: Vec<SumAndCount>,
}

#[derive(Clone, PartialEq, Message)]
struct SumAndCount {
    #[prost(fixed64, tag = "2")]
    start_unix_nanos: u64,
    #[prost(fixed64, tag = "3")]
    unix_nanos: u64,
    #[prost(fixed64, tag = "4")]
    count: u64,
    #[prost(double, tag = "5")]
    sum: f64,
    #[prost(message, repeated, tag = "7")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    /// A `oneof`, too.
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
}

/// `ExportMetricsServiceResponse`: what a receiver did not take of a request that it took.
#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(message, optional, tag = "1")]
    partial: Option<Partial>,
}

#[derive(Clone, PartialEq, Message)]
struct Partial {
    #[prost(int64, tag = "1")]
    refused: i64,
    #[prost(string, tag = "2")]
    why: String,
}

/// How many points of a request that was taken the receiver refused all the same, and why.
pub(crate) fn refused(answer: &[u8]) -> Option<(u64, String)> {
    let Partial { refused, why } = Answer::decode(answer).ok()?.partial?;
    let refused = u64::try_from(refused).ok().filter(|refused| *refused > 0)?;
    Some((refused, why))
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(Value { text: Some(value.to_owned()) }) }
}

/// The requests of a round.
pub(crate) fn batches(
    round: &Round<'_>,
    families: impl Iterator<Item = Vec<MetricFamily>>,
) -> Vec<Batch> {
    let mut batches = Vec::new();
    let (mut metrics, mut points) = (Vec::new(), 0);
    for family in families.flatten() {
        for told in family.metric.chunks(POINTS_MAX) {
            if points > 0 && points + told.len() > POINTS_MAX {
                batches.extend(packed(round, std::mem::take(&mut metrics), points));
                points = 0;
            }
            points += told.len();
            metrics.push(metric(round, &family, told));
        }
    }
    if points > 0 {
        batches.extend(packed(round, metrics, points));
    }
    batches
}

fn packed(round: &Round<'_>, metrics: Vec<Metric>, points: usize) -> Option<Batch> {
    let attributes = vec![
        attribute("service.name", super::JOB),
        attribute("service.instance.id", round.node),
        attribute("service.version", round.version),
        attribute("host.name", round.node),
    ];
    let scope = Some(Scope { name: super::JOB.to_owned(), version: round.version.to_owned() });
    let resource = ResourceMetrics {
        resource: Some(Resource { attributes }),
        scopes: vec![ScopeMetrics { scope, metrics }],
    };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&Export { resources: vec![resource] }.encode_to_vec()).ok()?;
    Some(Batch { body: Bytes::from(gzip.finish().ok()?), samples: points as u64 })
}

fn metric(round: &Round<'_>, family: &MetricFamily, told: &[Told]) -> Metric {
    let unix_nanos = u64::try_from(round.unix_millis).unwrap_or_default() * 1_000_000;
    let start_unix_nanos = u64::try_from(round.start_unix_millis).unwrap_or_default() * 1_000_000;
    let attributes =
        |told: &Told| told.label.iter().map(|pair| attribute(&pair.name, &pair.value)).collect();
    let number = |told: &Told, start_unix_nanos, value| Number {
        start_unix_nanos,
        unix_nanos,
        value,
        attributes: attributes(told),
    };
    let data = match MetricType::try_from(family.r#type) {
        Ok(MetricType::Counter) => Data::Sum(Sum {
            points: told
                .iter()
                .map(|told| {
                    number(
                        told,
                        start_unix_nanos,
                        told.counter.as_ref().map(|counter| counter.value),
                    )
                })
                .collect(),
            temporality: CUMULATIVE,
            is_monotonic: true,
        }),
        Ok(MetricType::Histogram) => Data::Histogram(Histogram {
            points: told
                .iter()
                .filter_map(|told| {
                    let histogram = told.histogram.as_ref()?;
                    let finite =
                        histogram.bucket.iter().filter(|bucket| bucket.upper_bound.is_finite());
                    let cumulative: Vec<_> = finite
                        .clone()
                        .map(|bucket| bucket.cumulative_count)
                        .chain([histogram.sample_count])
                        .collect();
                    let before = std::iter::once(0).chain(cumulative.iter().copied());
                    Some(Buckets {
                        start_unix_nanos,
                        unix_nanos,
                        count: histogram.sample_count,
                        sum: Some(histogram.sample_sum),
                        counts: cumulative
                            .iter()
                            .zip(before)
                            .map(|(count, before)| count.saturating_sub(before))
                            .collect(),
                        bounds: finite.map(|bucket| bucket.upper_bound).collect(),
                        attributes: attributes(told),
                    })
                })
                .collect(),
            temporality: CUMULATIVE,
        }),
        Ok(MetricType::Summary) => Data::Summary(Summary {
            points: told
                .iter()
                .filter_map(|told| {
                    let (summary, attributes) = (told.summary.as_ref()?, attributes(told));
                    let (count, sum) = (summary.sample_count, summary.sample_sum);
                    Some(SumAndCount { start_unix_nanos, unix_nanos, count, sum, attributes })
                })
                .collect(),
        }),
        _ => Data::Gauge(Gauge {
            points: told
                .iter()
                .map(|told| number(told, 0, told.gauge.as_ref().map(|gauge| gauge.value)))
                .collect(),
        }),
    };
    // Units as UCUM spells them.
    let unit = match family.unit.as_str() {
        "seconds" => "s",
        "bytes" => "By",
        "ratio" => "1",
        other => other,
    };
    Metric {
        name: family.name.clone(),
        description: family.help.clone(),
        unit: unit.to_owned(),
        data: Some(data),
    }
}

/// A request in words; for tests.
#[cfg(test)]
pub(super) fn shown(request: &[u8]) -> String {
    format!("{:?}", Export::decode(request))
}
