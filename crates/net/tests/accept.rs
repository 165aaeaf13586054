//! What strangers may hold of a port.

#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use canary_net::Reply;
use canary_net::accept::{Door, Limits, Stats, serve};
use http_body_util::Empty;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const IDLE: Duration = Duration::from_millis(300);

fn limits() -> Limits {
    Limits {
        gathered_bytes: canary_net::GATHERED_BYTES,
        connections: 16,
        connections_per_address: 16,
        header_bytes: 16 * 1024,
        headers: 64,
        streams: 16,
        header_time: IDLE,
        idle_time: IDLE,
        pings: true,
        write_patience: Duration::from_secs(5),
        window_bytes: 64 * 1024,
        drain_time: Duration::ZERO,
        handshakes: 16,
        handshakes_per_address: 16,
        handshake_time: Duration::from_secs(5),
        proxies: Arc::default(),
    }
}

/// An HTTP/2 client that answers pings, as its library does by itself; ends with the connection.
async fn ask(address: std::net::SocketAddr, times: usize) -> Result<(), h2::Error> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await?;
    let asking = async move {
        let mut pace = tokio::time::interval(IDLE / 2);
        for _ in 0..times {
            pace.tick().await;
            let request = http::Request::get("http://bot/").body(()).unwrap();
            sender = sender.ready().await?;
            let (response, _) = sender.send_request(request, true)?;
            response.await?;
        }
        // Held, and nothing more is asked.
        std::future::pending::<Result<(), h2::Error>>().await
    };
    tokio::select! {
        ended = connection => ended,
        failed = asking => failed,
    }
}

#[tokio::test]
async fn a_connection_that_asks_nothing_more_is_closed_and_one_that_asks_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stats, stop) = (Arc::new(Stats::default()), CancellationToken::new());
    let service =
        |_| async { Ok::<_, Infallible>(http::Response::new(Empty::<bytes::Bytes>::new())) };
    let serving = tokio::spawn(serve(
        listener,
        Door::Plain,
        limits(),
        Arc::clone(&stats),
        stop.clone(),
        None,
        service,
    ));
    // Eleven requests take five times as long as one may be silent.
    let begun = tokio::time::Instant::now();
    let ended = tokio::time::timeout(Duration::from_secs(10), ask(address, 11)).await;
    assert!(ended.is_ok(), "an idle connection is kept");
    assert!(begun.elapsed() >= IDLE * 5, "a connection that is used was closed: {ended:?}");
    assert_eq!(stats.idle.load(Ordering::Relaxed), 1);
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_not_read_ends_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stats, stop) =
        (listener.local_addr().unwrap(), Arc::new(Stats::default()), CancellationToken::new());
    let limits =
        Limits { write_patience: IDLE, header_time: IDLE * 5, idle_time: IDLE * 5, ..limits() };
    let answer = |_| async {
        Ok::<_, Infallible>(hyper::Response::new(http_body_util::Full::new(
            bytes::Bytes::from_static(b"some words"),
        )))
    };
    let serving = tokio::spawn(serve(
        listener,
        Door::Plain,
        limits,
        Arc::clone(&stats),
        stop.clone(),
        None,
        answer,
    ));
    for window in [0, 1] {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        let (mut sender, connection) =
            builder.initial_window_size(window).handshake::<_, bytes::Bytes>(stream).await.unwrap();
        let driving = tokio::spawn(connection);
        let request = http::Request::get("http://bot/").body(()).unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        let held = answer.await.unwrap();
        // The client is there, and answers pings: it takes nothing of the answer.
        assert!(
            tokio::time::timeout(Duration::from_secs(20), driving).await.is_ok(),
            "window {window}: the connection stays"
        );
        drop(held);
    }
    // The last piece of an answer is HTTP/2's to hold: that connection ends for asking nothing
    // more, and is not waited for.
    assert_eq!((stats.unread.load(Ordering::Relaxed), stats.idle.load(Ordering::Relaxed)), (1, 1));
    stop.cancel();
    serving.await.unwrap();
}

/// Sends each of these once what came before was answered; all that came back until the other side
/// closed.
async fn said(address: std::net::SocketAddr, parts: &[&str]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answers = Vec::new();
    for part in parts {
        stream.write_all(part.as_bytes()).await.unwrap();
        stream.read_buf(&mut answers).await.unwrap();
    }
    let rest = stream.read_to_end(&mut answers);
    tokio::time::timeout(Duration::from_secs(20), rest).await.unwrap().unwrap();
    String::from_utf8(answers).unwrap()
}

#[tokio::test]
async fn what_is_known_in_advance_is_answered_at_once_and_the_rest_by_http() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stats, stop) =
        (listener.local_addr().unwrap(), Arc::new(Stats::default()), CancellationToken::new());
    let shortcut = |read: &[u8], answered: usize| {
        let reply = |text: &str, is_last| Some(Reply { bytes: text.into(), is_last });
        match (read, answered) {
            (b"first", 0) => reply("one", false),
            (b"second", 1) => reply("two", true),
            (b"only", 0) => reply("one and all", true),
            _ => None,
        }
    };
    let service = |_| async {
        Ok::<_, Infallible>(http::Response::new(http_body_util::Full::<bytes::Bytes>::from("http")))
    };
    let (door, stopped) = (Door::Plain, stop.clone());
    let counted = Arc::clone(&stats);
    let serving = tokio::spawn(serve(
        listener,
        door,
        limits(),
        counted,
        stopped,
        Some(Arc::new(shortcut)),
        service,
    ));
    let idle = || stats.idle.load(Ordering::Relaxed);
    assert_eq!(said(address, &["first", "second"]).await, "onetwo");
    assert_eq!(said(address, &["only"]).await, "one and all");
    assert_eq!(idle(), 0, "these ended by themselves");
    let answer = said(address, &["GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"]).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("http"), "{answer}");
    assert_eq!(said(address, &["second\r\n\r\n"]).await.find("two"), None);
    let before = idle();
    assert_eq!(said(address, &[]).await, "");
    assert_eq!(said(address, &["first"]).await, "one");
    assert_eq!(idle() - before, 2, "who says nothing more has the time of a header");
    stop.cancel();
    serving.await.unwrap();
}
