//! API v2.

use super::*;

#[tokio::test]
async fn answers_have_the_reviewed_shape() {
    let api = Api::new();
    for (name, path) in [
        ("mesh.json", "/api/v2/mesh"),
        ("nodes.json", "/api/v2/nodes"),
        ("node.json", "/api/v2/nodes/duck"),
        ("pairs.json", "/api/v2/pairs?source=duck"),
        ("pair.json", "/api/v2/pairs/duck/goose"),
        ("pair-silent.json", "/api/v2/pairs/goose/duck"),
        ("matrix.json", "/api/v2/matrix"),
        ("verdict.json", "/api/v2/verdict"),
        ("incidents.json", "/api/v2/incidents"),
    ] {
        golden(name, &api.get(path).await);
    }
}

#[tokio::test]
async fn pages_together_are_the_whole_list() {
    let api = Api::new();
    for (path, list) in [
        ("/api/v2/nodes?limit=", "nodes"),
        ("/api/v2/pairs?limit=", "pairs"),
        ("/api/v2/pairs?state=stale&limit=", "pairs"),
    ] {
        let whole = api.get(&format!("{path}1000")).await;
        let (mut pages, mut token) = (Vec::new(), String::new());
        loop {
            let page = api.get(&format!("{path}1{token}")).await;
            pages.extend(page[list].as_array().unwrap().clone());
            let Some(next) = page["next_page_token"].as_str() else { break };
            token = format!("&page_token={next}");
        }
        assert_eq!(Value::from(pages), whole[list], "{path}");
    }
}

#[tokio::test]
async fn the_packed_matrix_says_what_the_other_form_says() {
    let api = Api::new();
    for metric in ["total", "request", "jitter", "loss"] {
        let json = api.get(&format!("/api/v2/matrix?metric={metric}")).await;
        let packed = request(&format!("/api/v2/matrix?metric={metric}"))
            .header(header::ACCEPT, "application/octet-stream");
        let packed = bytes(api.ask(packed.body(Body::empty()).unwrap()).await).await;
        let (magic, rest) = packed.split_at(4);
        let (length, rest) = rest.split_at(4);
        let (head, mut rows) =
            rest.split_at(u32::from_le_bytes(length.try_into().unwrap()) as usize);
        let head: Value = serde_json::from_slice(head).unwrap();
        assert_eq!(
            (magic, &head["nodes"], &head["metric"]),
            (&b"CBM1"[..], &json["nodes"], &Value::from(metric))
        );
        let nodes = json["nodes"].as_array().unwrap().len();
        for row in json["rows"].as_array().unwrap() {
            let (this, after) = rows.split_at(4 + 3 * nodes);
            rows = after;
            for target in 0..nodes {
                let (state, code) = (
                    this[4 + target],
                    u16::from_le_bytes([
                        this[4 + nodes + 2 * target],
                        this[5 + nodes + 2 * target],
                    ]),
                );
                let word = match state {
                    0x40 => "self",
                    0 => "unknown",
                    state if state & 0x80 != 0 => "stale",
                    1 => "ok",
                    3 => "refused",
                    other => panic!("{other}"),
                };
                assert_eq!(row["states"][target], word);
                if let Some(value) = row["values"][target].as_f64() {
                    let steps = f64::from(code) - 1.0;
                    let read = if metric == "loss" {
                        steps / 10_000.0
                    } else {
                        1e-9 * (steps * 27.631_021 / 16_383.0).exp()
                    };
                    assert!(
                        (read - value).abs()
                            <= value * 0.007 + 1e-4 * f64::from(u8::from(metric == "loss")),
                        "{metric}: {read} {value}"
                    );
                }
            }
        }
        assert!(rows.is_empty());
    }
}

#[tokio::test]
async fn an_answer_that_is_known_is_not_sent_again() {
    let api = Api::new();
    let first = api.ask(request("/api/v2/nodes").body(Body::empty()).unwrap()).await;
    let tag = first.headers()[header::ETAG].clone();
    let again =
        request("/api/v2/nodes").header(header::IF_NONE_MATCH, &tag).body(Body::empty()).unwrap();
    let again = api.ask(again).await;
    assert_eq!((again.status(), &again.headers()[header::ETAG]), (StatusCode::NOT_MODIFIED, &tag));
    assert!(bytes(again).await.is_empty());
    api.mesh.show(snapshot(5, REFUSED));
    let changed =
        request("/api/v2/nodes").header(header::IF_NONE_MATCH, &tag).body(Body::empty()).unwrap();
    assert_eq!(api.ask(changed).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_answer_is_compressed_for_those_who_accept_it() {
    let api = Api::new();
    for path in ["/api/v2/matrix", "/api/v1/samples", "/metrics", "/metrics/mesh", "/openapi.json"]
    {
        let plain = api.ask(request(path).body(Body::empty()).unwrap()).await;
        assert!(!plain.headers().contains_key(header::CONTENT_ENCODING), "{path}");
        let asked = request(path).header(header::ACCEPT_ENCODING, "gzip");
        let packed = api.ask(asked.body(Body::empty()).unwrap()).await;
        assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip", "{path}");
        let (plain, packed) = (bytes(plain).await, bytes(packed).await);
        assert!(packed.len() * 2 < plain.len() && packed.starts_with(&[0x1f, 0x8b]), "{path}");
    }
}

#[tokio::test]
async fn documents_are_not_sent_twice() {
    let api = Api::new();
    for path in ["/openapi.json", "/v1/api.swagger.json", "/ui/app.js"] {
        let first = api.ask(Request::get(path).body(Body::empty()).unwrap()).await;
        let tag = first.headers()[header::ETAG].to_str().unwrap();
        // A cache in between may have made it strong.
        for known in [tag, tag.trim_start_matches("W/")] {
            let again = Request::get(path).header(header::IF_NONE_MATCH, known);
            let again = api.ask(again.body(Body::empty()).unwrap()).await;
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
            assert_eq!(again.headers()[header::VARY], "accept-encoding", "{path}");
        }
    }
}

#[tokio::test]
async fn marks_stand_among_the_events_and_do_not_push_them_out() {
    let api = Api::new();
    let mark = |text: String| {
        let body = serde_json::json!({ "text": text }).to_string();
        let request = request("/api/v2/marks").header(header::CONTENT_TYPE, "application/json");
        request.method(Method::POST).body(Body::from(body)).unwrap()
    };
    for count in 0..30 {
        let response = api.ask(mark(format!("kernel on rack {count}"))).await;
        assert_eq!(response.status(), StatusCode::CREATED);
    }
    assert_eq!(api.ask(mark("one more".to_owned())).await.status(), StatusCode::TOO_MANY_REQUESTS);
    let events = api.get("/api/v2/events").await;
    let texts: Vec<_> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["text"].as_str().unwrap())
        .collect();
    assert_eq!((texts.len(), texts[0], texts[29]), (30, "kernel on rack 0", "kernel on rack 29"));
    let fifth = &events["events"][4]["sequence"];
    let later = api.get(&format!("/api/v2/events?after={fifth}&limit=2")).await;
    assert_eq!(
        (&later["events"][0], &later["next_after"]),
        (&events["events"][5], &events["events"][6]["sequence"])
    );
    // A minute later the next one is set.
    api.mesh.show(snapshot(61, REFUSED));
    assert_eq!(api.ask(mark("later".to_owned())).await.status(), StatusCode::CREATED);
}

/// Reads a stream until it has sent a message with this text.
async fn read_until(body: &mut Body, text: &str) -> String {
    use axum::body::HttpBody as _;
    let mut read = String::new();
    let reading = async {
        while !read.contains(text) {
            let frame =
                std::future::poll_fn(|context| std::pin::Pin::new(&mut *body).poll_frame(context))
                    .await
                    .unwrap()
                    .unwrap();
            read.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .unwrap_or_else(|_| panic!("no {text}"));
    read
}

#[tokio::test]
async fn a_watcher_gets_what_changes_and_nothing_twice() {
    let api = Api::new();
    let ok = State::Ok {
        total: LatencyCode::encode(Duration::from_millis(1)),
        request: None,
        jitter: None,
    };
    let watch = |path: &'static str| request(path).body(Body::empty()).unwrap();
    let mut body = api.ask(watch("/api/v2/stream")).await.into_body();
    let mut marks = api.ask(watch("/api/v2/stream?topics=mark")).await.into_body();
    let first = read_until(&mut body, "\n\n").await;
    assert!(first.starts_with("retry: 2000\nevent: verdict\ndata: {"), "{first}");
    api.look();
    api.mesh.show(snapshot(1, ok));
    api.look();
    let changed = read_until(&mut body, "event: pair").await;
    assert!(changed.contains(r#""source":"duck","target":"goose","state":"ok""#), "{changed}");
    assert_eq!(changed.matches("event: pair").count(), 1, "{changed}");
    let body = Body::from(r#"{"text":"a mark"}"#);
    let mark = request("/api/v2/marks")
        .method(Method::POST)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .unwrap();
    assert_eq!(api.ask(mark).await.status(), StatusCode::CREATED);
    let marked = read_until(&mut marks, "a mark").await;
    assert!(!marked.contains("event: pair"), "{marked}");
    // One that comes back gets what it missed.
    let after = request("/api/v2/stream").header("last-event-id", "1").body(Body::empty()).unwrap();
    read_until(&mut api.ask(after).await.into_body(), "a mark").await;
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_informed_and_the_number_of_watchers_is_bounded() {
    let api = Api::new();
    let watch = || request("/api/v2/stream").body(Body::empty()).unwrap();
    let mut stalled = api.ask(watch()).await.into_body();
    for _ in 0..200 {
        api.look();
    }
    read_until(&mut stalled, "event: reload").await;
    let mut held = vec![stalled];
    while held.len() < 64 {
        held.push(api.ask(watch()).await.into_body());
    }
    assert_eq!(api.ask(watch()).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    held.pop();
    assert_eq!(api.ask(watch()).await.status(), StatusCode::OK);
}
