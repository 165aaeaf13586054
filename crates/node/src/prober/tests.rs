//! Flights against a real mesh port, and what stands in their way.

#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use canary_core::Labels;
use canary_net::Token;
use canary_net::tls::{ClientAuth, Material, Materials, Mode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::transport::flight::{self, Question};
use crate::{Bot, Kind};

const NAME: &str = "answers";
const PATIENCE: Duration = Duration::from_secs(10);

async fn bot(guard: Guard) -> Bot {
    Bot::builder(NAME.parse().unwrap()).guard(guard).start().await.unwrap()
}

fn guard(token: &str) -> Guard {
    let guard = Guard::default();
    guard.tokens.swap(canary_net::Tokens::new([Token::new(token).unwrap()]));
    guard
}

fn prober(guard: Guard, timeout: Duration) -> Prober {
    let me: Target = "127.0.0.1:1".parse().unwrap();
    let stalls = Arc::new(StallWatch::new());
    let watching = Arc::clone(&stalls);
    tokio::spawn(async move { watching.watch().await });
    Prober {
        timeout,
        resolver: Resolver::new(&me, Ipv4Addr::LOCALHOST.into()),
        guard,
        stalls,
        strangers: Strangers::default(),
    }
}

/// A member at this address.
fn whom(address: SocketAddr) -> Record {
    Record {
        mesh: canary_core::MeshName::default(),
        name: NAME.parse().unwrap(),
        target: address.to_string().parse().unwrap(),
        labels: Labels::default(),
        incarnation: Incarnation(1),
        instance: Instance(1),
    }
}

/// What came of a probe; once more where this host was too late for it.
async fn reported(prober: &Prober, whom: &Record) -> ProbeReport {
    loop {
        let report = prober.probe(whom, false).await.report;
        if !matches!(report, ProbeReport::Void) {
            return report;
        }
        canary_net::lock(&prober.strangers.0).clear();
    }
}

/// The measurement, if the bot itself answered.
async fn answered(prober: &Prober, whom: &Record) -> Option<Timing> {
    match reported(prober, whom).await {
        ProbeReport::Answered { timing, name, .. } if name.as_str() == NAME => Some(timing),
        _ => None,
    }
}

/// Measures, and whether it flew: HTTP/2 was not needed.
async fn flew(prober: &Prober, whom: &Record) -> bool {
    let timing = answered(prober, whom).await.unwrap();
    assert!(timing.request.is_some() && timing.request != Some(timing.first_request));
    assert!(timing.kernel.is_some() || cfg!(not(target_os = "linux")));
    canary_net::lock(&prober.strangers.0).is_empty()
}

/// Of a mesh in mutual TLS, by one certificate for all.
fn mutual() -> Guard {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let inline = |pem: &str| Material::Inline { name: "test".to_owned(), pem: pem.into() };
    let materials = Materials {
        mode: Mode::Mutual,
        client_auth: ClientAuth::Required,
        ca: vec![inline(&pem)],
        certificate: Some(inline(&pem)),
        key: Some(inline(&key.serialize_pem())),
        host: Some("127.0.0.1".to_owned()),
    };
    let guard = Guard::default();
    guard.tls.swap(materials.load().unwrap());
    guard
}

/// Sends this and no more, and reads until the other side closes.
async fn sent(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    // Where the other side closed at once, there is nothing to end any more.
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    // So is what it says where it did not like what it read.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("the connection is closed");
    answer
}

/// What differs from `flight` by its end or by one byte.
fn damaged(flight: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let cut = (1..flight.len()).map(|end| flight[..end].to_vec());
    let flipped = (0..flight.len()).map(|at| {
        let mut other = flight.to_vec();
        other[at] ^= 1 << (at % 8);
        other
    });
    cut.chain(flipped)
}

/// Stands before a bot: what it does with the first bytes of a connection is up to the test, all
/// else it passes on. Counts connections.
async fn before<F>(bot: SocketAddr, first: F) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Fn(usize, &mut Vec<u8>) -> Option<Vec<u8>> + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let (counted, first) = (Arc::clone(&count), Arc::new(first));
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            let first = Arc::clone(&first);
            tokio::spawn(async move {
                let mut read = Vec::with_capacity(4096);
                near.read_buf(&mut read).await.unwrap();
                if let Some(answer) = first(number, &mut read) {
                    let _ = near.write_all(&answer).await;
                    return;
                }
                let mut far = TcpStream::connect(bot).await.unwrap();
                far.write_all(&read).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (address, count)
}

#[tokio::test]
async fn a_flight_is_answered_by_one_and_what_deviates_by_http2_or_not_at_all() {
    let bot = bot(Guard::default()).await;
    let (whom, prober) = (whom(bot.address()), prober(Guard::default(), PATIENCE));
    assert!(flew(&prober, &whom).await);

    let target = whom.target.to_string();
    let question = Question { https: false, authority: &target, token: None };
    let (question, again) = (question.write(0).unwrap(), question.write(1).unwrap());
    let is_flight =
        |answer: &[u8]| matches!(flight::read_answer(answer, 0), flight::Answer::Whole(_));
    assert!(is_flight(&sent(bot.address(), &question).await));
    for other in damaged(&question) {
        let answer = sent(bot.address(), &other).await;
        assert_eq!(is_flight(&answer), Question::read(&other, 0).is_some(), "{other:?}");
    }
    for more in [&b"\0"[..], &again] {
        let answer = sent(bot.address(), &[&question, more].concat()).await;
        assert!(!is_flight(&answer), "HTTP/2 answers what is longer than a flight");
    }
    let answer = sent(bot.address(), &again).await;
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "no connection begins with a second flight");
    assert!(flew(&prober, &whom).await, "it lives on");
}

#[tokio::test]
async fn a_second_flight_is_answered_and_what_is_none_ends_the_connection() {
    let bot = bot(Guard::default()).await;
    let question = Question { https: false, authority: "x:1", token: None };
    let exchanged = async |more: Vec<u8>| {
        let mut stream = TcpStream::connect(bot.address()).await.unwrap();
        let mut read = Vec::new();
        stream.write_all(&question.write(0).unwrap()).await.unwrap();
        while flight::read_answer(&read, 0) == flight::Answer::Part {
            stream.read_buf(&mut read).await.unwrap();
        }
        read.clear();
        stream.write_all(&more).await.unwrap();
        let _ = stream.shutdown().await;
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut read)).await.unwrap();
        read
    };
    let again = question.write(1).unwrap();
    let answer = exchanged(again.clone()).await;
    assert!(matches!(flight::read_answer(&answer, 1), flight::Answer::Whole(_)));
    for other in damaged(&again) {
        let is_question = Question::read(&other, 1).is_some();
        assert_eq!(exchanged(other).await.is_empty(), !is_question);
    }
}

#[tokio::test]
async fn flights_go_over_tls_too() {
    let guard = mutual();
    let bot = bot(guard.clone()).await;
    let (whom, prober) = (whom(bot.address()), prober(guard, PATIENCE));
    for _ in 0..3 {
        assert!(flew(&prober, &whom).await);
    }
    assert!(answered(&prober, &whom).await.unwrap().tls.is_some());
}

#[tokio::test]
async fn a_refusal_by_tls_is_a_failure_without_another_attempt() {
    let bot = bot(mutual()).await;
    let (address, connections) = before(bot.address(), |_, _| None).await;
    let prober = prober(mutual(), PATIENCE);
    let report = reported(&prober, &whom(address)).await;
    assert!(matches!(report, ProbeReport::Failed(Failure::Tls)), "{report:?}");
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_flight_needs_the_token_of_the_mesh() {
    let bot = bot(guard("right")).await;
    let whom = whom(bot.address());
    assert!(flew(&prober(guard("right"), PATIENCE), &whom).await);
    for stranger in [guard("wrong"), Guard::default()] {
        let report = reported(&prober(stranger, PATIENCE), &whom).await;
        assert!(matches!(report, ProbeReport::Failed(Failure::Auth)), "{report:?}");
    }
    let counts = bot.reader().stats().by_reason();
    let tokenless = counts.iter().find(|(reason, _)| reason == "mesh_token").unwrap().1;
    // What no flight answers, HTTP/2 refuses and counts: the flight, and who asks again by HTTP/2.
    assert!(tokenless >= 4, "{tokenless}");
}

#[tokio::test]
async fn flights_are_counted_as_probes() {
    let bot = bot(Guard::default()).await;
    let reader = bot.reader();
    let sent = || reader.stats().traffic.messages(Kind::Probe, crate::Direction::Out);
    let (before, whom) = (sent(), whom(bot.address()));
    let prober = prober(Guard::default(), PATIENCE);
    for _ in 0..3 {
        prober.probe(&whom, false).await;
    }
    assert_eq!(sent() - before, 2 * 3);
}

/// As a release that knows no flights.
#[tokio::test]
async fn who_does_not_know_flights_is_asked_by_http2_at_once_and_for_a_while() {
    let bot = bot(Guard::default()).await;
    let (address, connections) = before(bot.address(), |_, first| {
        // Another value of the mark.
        if let Some(mark) = first.windows(2).position(|pair| pair == [0xf0, 0xcb]) {
            first[mark + 5] ^= 1;
        }
        None
    })
    .await;
    let (whom, prober) = (whom(address), prober(Guard::default(), PATIENCE));
    assert!(!flew(&prober, &whom).await);
    assert!(connections.swap(0, Ordering::Relaxed) >= 2, "a flight, and HTTP/2 at once");
    let report = prober.probe(&whom, false).await.report;
    assert!(matches!(report, ProbeReport::Answered { .. } | ProbeReport::Void), "{report:?}");
    assert_eq!(connections.load(Ordering::Relaxed), 1, "HTTP/2 alone");
    let left = (1..=STRANGE_PROBES).find(|_| prober.strangers.may_fly(&whom.target));
    assert_eq!(left, Some(STRANGE_PROBES), "it may have learned by now");
}

#[tokio::test]
async fn a_damaged_answer_is_no_measurement() {
    let bot = bot(Guard::default()).await;
    let question = Question { https: false, authority: "x:1", token: None };
    let answer = sent(bot.address(), &question.write(0).unwrap()).await;
    let flight::Answer::Whole(body) = flight::read_answer(&answer, 0) else { unreachable!() };
    let at = answer.windows(body.len()).position(|part| part == body).unwrap();
    let message = at + 5..at + body.len();
    // Who it says it is stands in the message, and is for the core to judge.
    let others: Vec<_> = damaged(&answer)
        .filter(|other| {
            other.len() < answer.len() || message.clone().all(|at| other[at] == answer[at])
        })
        .collect();
    let count = others.len();
    let (address, connections) = before(bot.address(), move |number, _| {
        (number % 2 == 0).then(|| others[number / 2].clone())
    })
    .await;
    let (whom, prober) = (whom(address), prober(Guard::default(), PATIENCE));
    while connections.load(Ordering::Relaxed) < 2 * count {
        canary_net::lock(&prober.strangers.0).clear();
        let before = connections.load(Ordering::Relaxed);
        let report = prober.probe(&whom, false).await.report;
        assert!(matches!(report, ProbeReport::Answered { .. } | ProbeReport::Void), "{report:?}");
        assert_eq!(connections.load(Ordering::Relaxed), before + 2, "HTTP/2 asks at once");
    }
}

#[tokio::test]
async fn a_reset_is_a_failure_and_http2_asks_the_next_time_and_then_for_longer() {
    let bot = bot(Guard::default()).await;
    // A filter that does not like flights.
    let (address, connections) = before(bot.address(), |_, first| {
        let is_flight = first.windows(2).any(|pair| pair == [0xf0, 0xcb]);
        is_flight.then(Vec::new)
    })
    .await;
    let (whom, prober) = (whom(address), prober(Guard::default(), PATIENCE));
    for asked_by_http2 in [1, 2, 4] {
        let report = prober.probe(&whom, false).await.report;
        assert!(!matches!(report, ProbeReport::Answered { .. }), "{report:?}");
        assert_eq!(
            connections.swap(0, Ordering::Relaxed),
            1,
            "it is not hidden by another attempt"
        );
        for _ in 0..asked_by_http2 {
            let report = prober.probe(&whom, false).await.report;
            assert!(matches!(report, ProbeReport::Answered { .. } | ProbeReport::Void));
        }
        connections.store(0, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let whom = whom(silent.local_addr().unwrap());
    let prober = prober(Guard::default(), Duration::from_millis(300));
    let report = reported(&prober, &whom).await;
    assert!(matches!(report, ProbeReport::Failed(Failure::Timeout)), "{report:?}");
    assert!(!prober.strangers.may_fly(&whom.target), "HTTP/2 asks the next time");
    assert!(prober.strangers.may_fly(&whom.target));
}

#[tokio::test]
async fn silence_behind_a_proxy_that_answers_is_a_timeout() {
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, _) = before(hangs.local_addr().unwrap(), |_, first| {
        // SETTINGS of others.
        first.windows(2).any(|pair| pair == [0xf0, 0xcb]).then(|| vec![0, 0, 0, 4, 0, 0, 0, 0, 0])
    })
    .await;
    let (whom, prober) = (whom(address), prober(Guard::default(), Duration::from_millis(300)));
    let report = reported(&prober, &whom).await;
    assert!(matches!(report, ProbeReport::Failed(Failure::Timeout)), "{report:?}");
}
