//! Prometheus remote write 1.0, which every receiver understands: protobuf in Snappy's block
//! format.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{
    Metric, MetricFamily,
};
use prost::Message;

use super::queue::Batch;
use super::{Round, bound};

/// Samples of one request: as many as Prometheus itself sends at once.
const SAMPLES_MAX: usize = 2_000;

/// The value that says: this series has ended (`value.StaleNaN` of Prometheus). Without it a
/// receiver would show the last value for minutes.
const ENDED: u64 = 0x7ff0_0000_0000_0002;

/// `prometheus.WriteRequest`.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    series: Vec<TimeSeries>,
}

/// `prometheus.TimeSeries`: its labels in the order of their names.
#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    unix_millis: i64,
}

/// Makes requests, and remembers which series it told of, to tell when one ends.
#[derive(Debug, Default)]
pub(crate) struct RemoteWrite {
    /// Fingerprints of the series of the round before.
    before: HashSet<u64>,
    /// What that round sent: the labels of a series that ended are found there.
    sent: Vec<Bytes>,
}

impl RemoteWrite {
    /// The requests of a round.
    pub(crate) fn batches(
        &mut self,
        round: &Round<'_>,
        families: impl Iterator<Item = Vec<MetricFamily>>,
    ) -> Vec<Batch> {
        let mut writing =
            Writing { round, batches: Vec::new(), series: Vec::new(), seen: HashSet::new() };
        for family in families.flatten() {
            for metric in &family.metric {
                writing.metric(&family.name, metric);
            }
        }
        writing.close();
        let told = writing.batches.len();
        if self.before.iter().any(|series| !writing.seen.contains(series)) {
            for series in self.sent.iter().filter_map(read).flat_map(|request| request.series) {
                if !is_ended(&series) && !writing.seen.contains(&fingerprint(&series.labels)) {
                    writing.put(series.labels, f64::from_bits(ENDED));
                }
            }
            writing.close();
        }
        self.sent = writing.batches.iter().take(told).map(|batch| batch.body.clone()).collect();
        self.before = writing.seen;
        writing.batches
    }
}

impl RemoteWrite {
    /// The requests that end every series, for a bot that leaves.
    pub(crate) fn farewell(&mut self, round: &Round<'_>) -> Vec<Batch> {
        self.batches(round, std::iter::empty())
    }
}

/// One round while it is written.
struct Writing<'a> {
    round: &'a Round<'a>,
    batches: Vec<Batch>,
    series: Vec<TimeSeries>,
    seen: HashSet<u64>,
}

impl Writing<'_> {
    /// Each series of a metric under its name in text.
    fn metric(&mut self, name: &str, metric: &Metric) {
        let mut one = |suffix: &str, le: Option<f64>, value: f64| {
            let labels = self.labels(&format!("{name}{suffix}"), metric, le);
            self.seen.insert(fingerprint(&labels));
            self.put(labels, value);
        };
        if let Some(counter) = &metric.counter {
            one("", None, counter.value);
        }
        if let Some(gauge) = &metric.gauge {
            one("", None, gauge.value);
        }
        if let Some(untyped) = &metric.untyped {
            one("", None, untyped.value);
        }
        if let Some(summary) = &metric.summary {
            one("_sum", None, summary.sample_sum);
            one("_count", None, summary.sample_count as f64);
        }
        if let Some(histogram) = &metric.histogram {
            for bucket in histogram.bucket.iter().filter(|bucket| bucket.upper_bound.is_finite()) {
                one("_bucket", Some(bucket.upper_bound), bucket.cumulative_count as f64);
            }
            one("_bucket", Some(f64::INFINITY), histogram.sample_count as f64);
            one("_sum", None, histogram.sample_sum);
            one("_count", None, histogram.sample_count as f64);
        }
    }

    fn labels(&self, name: &str, metric: &Metric, le: Option<f64>) -> Vec<Label> {
        let label =
            |name: &str, value: &str| Label { name: name.to_owned(), value: value.to_owned() };
        // What a scrape would set, and how it would rename what stands in the way. A label without
        // a value is none.
        let own = [("__name__", name), ("job", super::JOB), ("instance", self.round.node)];
        let mut labels: Vec<_> = own.iter().map(|(name, value)| label(name, value)).collect();
        labels.extend(le.map(|le| label("le", &bound(le))));
        for pair in metric.label.iter().filter(|pair| !pair.value.is_empty()) {
            let mut name = pair.name.clone();
            while labels.iter().any(|label| label.name == name) {
                name.insert_str(0, "exported_");
            }
            labels.push(label(&name, &pair.value));
        }
        labels.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        labels
    }

    fn put(&mut self, labels: Vec<Label>, value: f64) {
        let samples = vec![Sample { value, unix_millis: self.round.unix_millis }];
        self.series.push(TimeSeries { labels, samples });
        if self.series.len() >= SAMPLES_MAX {
            self.close();
        }
    }

    fn close(&mut self) {
        if self.series.is_empty() {
            return;
        }
        let samples = self.series.len() as u64;
        let request = WriteRequest { series: std::mem::take(&mut self.series) };
        let packed = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec());
        self.batches.extend(packed.map(|body| Batch { body: body.into(), samples }));
    }
}

fn fingerprint(labels: &[Label]) -> u64 {
    let mut hasher = DefaultHasher::new();
    labels.hash(&mut hasher);
    hasher.finish()
}

fn is_ended(series: &TimeSeries) -> bool {
    series.samples.iter().any(|sample| sample.value.to_bits() == ENDED)
}

fn read(body: &Bytes) -> Option<WriteRequest> {
    WriteRequest::decode(&*snap::raw::Decoder::new().decompress_vec(body).ok()?).ok()
}

/// Names of families that a round told of; for tests.
#[cfg(test)]
pub(crate) fn names(batches: &[Batch]) -> std::collections::BTreeSet<(String, bool)> {
    let series = batches
        .iter()
        .flat_map(|batch| read(&batch.body).map(|request| request.series).unwrap_or_default());
    let name = |series: &TimeSeries| {
        series.labels.iter().find(|label| label.name == "__name__").map(|label| label.value.clone())
    };
    series.filter_map(|series| Some((name(&series)?, is_ended(&series)))).collect()
}
