//! Everything that commands print for people, against reviewed text: a server answers with the
//! reviewed answers of the API.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

/// An answer of the API as its own tests reviewed it.
fn reviewed(name: &str) -> String {
    std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/tests/golden").join(name),
    )
    .unwrap()
}

/// A mesh in trouble, as `/api/v2/incidents` tells it.
const SENTENCE: &str = "goose has been unreachable for all 2 others since 22:13:05 UTC (connection refused): the bot is down, the host is up.";
const INCIDENTS: &str = r#"{ "incidents": [{
    "id": "42db1d5849efdf34", "kind": "bot_down", "severity": "critical", "confidence": "high", "state": "open",
    "since": "2023-11-14T22:13:05.750Z", "opened_at": "2023-11-14T22:13:12.000Z", "closed_at": null, "reopened": 0,
    "culprit": { "type": "node", "node": "goose" },
    "pairs": { "sources": ["owl", "duck"], "targets": ["goose"], "both_ways": false, "explained": 2, "contradicting": 0 },
    "evidence": ["2 of 2 pairs are bad", "how they fail: 2 refused", "its own row is silent; the mesh considers it dead"],
    "summary": "goose has been unreachable for all 2 others since 22:13:05 UTC (connection refused): the bot is down, the host is up."
}] }"#;

const EVENTS: &str = r#"{ "events": [
    { "sequence": 1, "at": "2023-11-14T22:13:00.000Z", "kind": "node_joined", "node": "goose", "failure": null, "incident": null, "text": null },
    { "sequence": 2, "at": "2023-11-14T22:13:05.750Z", "kind": "path_failed", "node": "goose", "failure": "refused", "incident": null, "text": "an attempt of this bot failed" },
    { "sequence": 3, "at": "2023-11-14T22:13:06.000Z", "kind": "mark", "node": null, "failure": null, "incident": null, "text": "kernel 6.12 on \u202erack 7" }
], "next_after": 3 }"#;

/// Answers for as long as the test runs.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let verdict = reviewed("verdict.json")
        .replace("\"healthy\": true", "\"healthy\": false")
        .replace("\"severity\": null", "\"severity\": \"critical\"")
        .replace("\"critical\": 0", "\"critical\": 1")
        .replace("\"failed\": 1,\n    \"ok\": 2", "\"failed\": 2,\n    \"ok\": 1")
        .replace("1 of 6 pairs fail at this moment; the cause is not known yet.", SENTENCE);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines =
                BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let path =
                lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
            lines.find(String::is_empty);
            let body = match path.split('?').next().unwrap() {
                "/api/v2/nodes" => reviewed("nodes.json"),
                "/api/v2/pairs" => reviewed("pairs.json"),
                "/api/v2/matrix" => reviewed("matrix.json"),
                "/api/v2/verdict" => verdict.clone(),
                "/api/v2/incidents" => INCIDENTS.to_owned(),
                "/api/v2/events" => EVENTS.to_owned(),
                "/livez" => "ok\n".to_owned(),
                other => panic!("{other} is asked"),
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ =
                stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        }
    });
    url
}

#[test]
fn what_commands_print_reads_as_it_was_reviewed() {
    let url = serve();
    for (name, arguments, code) in [
        ("status", &["status"][..], 3),
        ("status-json", &["status", "--json"], 3),
        ("nodes", &["nodes"], 0),
        ("nodes-plain", &["nodes", "--plain"], 0),
        ("pairs", &["pairs"], 0),
        ("pairs-plain", &["pairs", "--plain"], 0),
        ("matrix", &["matrix"], 0),
        ("events", &["events"], 0),
        ("events-plain", &["events", "--plain"], 0),
        ("top", &["top", "--once"], 0),
        ("check", &["check"], 0),
        ("check-json", &["check", "--json"], 0),
        ("top-json", &["top", "--json"], 0),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_canary-bot"))
            .args(arguments)
            .args(["--server", &url])
            .output()
            .unwrap();
        let (text, errors) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert_eq!(output.status.code(), Some(code), "{name}: {text}{errors}");
        // What a terminal would obey, or nobody would see, is never printed.
        assert!(!text.contains(['\x1b', '\u{202e}']), "{name}: {text:?}");
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(format!("screen-{name}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let before = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            text == before,
            "{name} differs from the reviewed text; UPDATE_GOLDEN=1 writes it again. It is now:\n{text}"
        );
    }
}
