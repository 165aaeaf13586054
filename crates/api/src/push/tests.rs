//! What is sent, and what becomes of it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::Read as _;

use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

const ROUND: Round<'_> =
    Round { node: "owl", version: "1.2.3", start_unix_millis: 1_000, unix_millis: 61_000 };

fn family(name: &str, kind: MetricType, metric: Vec<Metric>) -> MetricFamily {
    MetricFamily { name: name.to_owned(), r#type: kind as i32, metric, ..MetricFamily::default() }
}

fn about(target: &str) -> Vec<LabelPair> {
    vec![LabelPair { name: "target".to_owned(), value: target.to_owned() }]
}

fn gauge(target: &str, value: f64) -> Metric {
    Metric { label: about(target), gauge: Some(Gauge { value }), ..Metric::default() }
}

fn histogram() -> Metric {
    let bucket = |upper_bound, cumulative_count| Bucket {
        upper_bound,
        cumulative_count,
        ..Bucket::default()
    };
    let bucket = vec![bucket(0.5, 1), bucket(1.0, 4), bucket(f64::INFINITY, 5)];
    Metric {
        label: about("fox"),
        histogram: Some(Histogram {
            sample_count: 5,
            sample_sum: 7.5,
            bucket,
            ..Histogram::default()
        }),
        ..Metric::default()
    }
}

fn families(targets: &[&str]) -> Vec<MetricFamily> {
    let up = targets.iter().map(|target| gauge(target, 0.0)).collect();
    let counter =
        Metric { counter: Some(Counter { value: 3.0, ..Counter::default() }), ..Metric::default() };
    vec![
        family("up", MetricType::Gauge, up),
        family("done_total", MetricType::Counter, vec![counter]),
        family("rtt_seconds", MetricType::Histogram, vec![histogram()]),
    ]
}

#[test]
fn a_series_that_ends_is_sent_once() {
    let mut writer = RemoteWrite::default();
    let mut send = |targets: &[&str]| writer.batches(&ROUND, std::iter::once(families(targets)));
    let first = send(&["fox", "hen"]);
    let of = |name: &str| (name.to_owned(), false);
    let names: BTreeSet<_> =
        ["up", "done_total", "rtt_seconds_bucket", "rtt_seconds_sum", "rtt_seconds_count"]
            .map(of)
            .into();
    assert_eq!((remote_write::names(&first), first[0].samples), (names.clone(), 2 + 1 + 3 + 2));
    let second = send(&["fox"]);
    let ended: BTreeSet<_> = [("up".to_owned(), true)].into();
    assert_eq!(
        (remote_write::names(&second[..1]), remote_write::names(&second[1..])),
        (names.clone(), ended)
    );
    assert_eq!(second[1].samples, 1);
    assert_eq!(remote_write::names(&send(&["fox"])), names, "it is sent once");
}

#[test]
fn a_mesh_of_many_is_sent_in_requests_of_bounded_size() {
    let names: Vec<String> = (0..4_500).map(|index| format!("node-{index}")).collect();
    let many: Vec<_> = names.iter().map(String::as_str).collect();
    let sizes = |batches: &[Batch]| batches.iter().map(|batch| batch.samples).collect::<Vec<_>>();
    let families = || {
        std::iter::once(vec![family(
            "up",
            MetricType::Gauge,
            many.iter().map(|name| gauge(name, 1.0)).collect(),
        )])
    };
    assert_eq!(sizes(&RemoteWrite::default().batches(&ROUND, families())), [2_000, 2_000, 500]);
    assert_eq!(sizes(&otlp::batches(&ROUND, families())), [2_000, 2_000, 500]);
}

#[test]
fn what_a_receiver_refuses_of_a_request_is_read() {
    // `ExportMetricsServiceResponse { partial_success: { rejected_data_points: 3, error_message:
    // "old" } }`
    assert_eq!(otlp::refused(&[10, 7, 8, 3, 18, 3, b'o', b'l', b'd']), Some((3, "old".to_owned())));
    for nothing in [&[][..], &[10, 0], &[10, 2, 8, 0], &[255, 255]] {
        assert_eq!(otlp::refused(nothing), None, "{nothing:?}");
    }
}

/// Answers each request with the next of these; tells what it got.
async fn receiver(answers: &'static [&'static str]) -> (Push, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/write?tenant=1", listener.local_addr().unwrap());
    let (told, got) = mpsc::channel(8);
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let service = |request: Request<hyper::body::Incoming>| {
                let told = told.clone();
                async move {
                    assert_eq!(
                        (
                            request.uri().path_and_query().unwrap().as_str(),
                            request.method().as_str()
                        ),
                        ("/write?tenant=1", "POST")
                    );
                    assert_eq!(request.headers()[header::AUTHORIZATION], "Basic b3dsOnNlY3JldA==");
                    told.send(request.into_body().collect().await.unwrap().to_bytes().to_vec())
                        .await
                        .unwrap();
                    let (status, words) = answer.split_once(' ').unwrap();
                    let response = http::Response::builder()
                        .status(status)
                        .header(header::RETRY_AFTER, "1")
                        .header(header::CONNECTION, "close");
                    Ok::<_, std::convert::Infallible>(
                        response.body(Full::new(Bytes::from_static(words.as_bytes()))).unwrap(),
                    )
                }
            };
            let io = hyper_util::rt::TokioIo::new(&mut stream);
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(io, hyper::service::service_fn(service))
                .await;
        }
    });
    let credentials = Live::new(Tokens::new([canary_net::Token::new("owl:secret").unwrap()]));
    let (protocol, receiver, interval) =
        (PushProtocol::Otlp, url.parse().unwrap(), Duration::from_secs(1));
    (Push { protocol, receiver, interval, credentials, tls: Live::default() }, got)
}

#[tokio::test]
async fn what_fails_in_passing_is_sent_again_and_what_is_refused_is_given_up() {
    let (push, mut got) =
        receiver(&["503 later", "429 not so fast", "400 out of order", "200 "]).await;
    let counts = Arc::new(Counts::new(push.protocol));
    let outbox = Outbox::new(Arc::clone(&counts));
    let batches = [(b"first", 2), (b"other", 3)];
    for (body, samples) in batches {
        outbox.change(|queue| queue.put(Batch { body: Bytes::from_static(body), samples }));
    }
    let seen = async {
        let mut seen = Vec::new();
        while seen.len() < 4 {
            seen.push(got.recv().await.unwrap());
        }
        while counts.sent.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        seen
    };
    let seen = tokio::select! {
        seen = seen => seen,
        () = deliver(&push, "1.2.3", &outbox) => unreachable!(),
    };
    assert_eq!(seen, [b"first", b"first", b"first", b"other"]);
    let count = |counter: &AtomicU64| counter.load(Relaxed);
    assert_eq!(
        [&counts.sent, &counts.refused, &counts.dropped, &counts.failures, &counts.waiting_bytes]
            .map(count),
        [3, 2, 0, 3, 0]
    );
    assert!(count(&counts.last_success) > 0);
}

#[test]
fn otlp_tells_buckets_apart_and_since_when() {
    let batches = otlp::batches(&ROUND, std::iter::once(families(&["fox"])));
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&*batches[0].body).read_to_end(&mut plain).unwrap();
    let text = otlp::shown(&plain);
    for part in [
        "counts: [1, 3, 1], bounds: [0.5, 1.0]",
        "start_unix_nanos: 1000000000, unix_nanos: 61000000000",
        "is_monotonic: true",
        "value: Some(0.0)",
        "text: Some(\"owl\")",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
