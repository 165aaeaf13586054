//! The page, the documentation, and the health paths.

use super::*;

#[tokio::test]
async fn the_page_is_for_browsers_and_can_be_left_out() {
    let html =
        || Request::get("/").header(header::ACCEPT, "text/html").body(Body::empty()).unwrap();
    let api = Api::new();
    let page = api.ask(html()).await;
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let page = String::from_utf8(bytes(page).await).unwrap();
    assert!(page.starts_with("<!doctype html>"));
    // All that it names is there, and together it is small.
    let mut size = 0;
    let parts = page.split('"').filter(|part| part.starts_with("ui/")).map(str::to_owned);
    let imported = ["ui/data.js", "ui/grid.js", "ui/chart.js", "ui/words.js"].map(str::to_owned);
    for part in parts.chain(imported) {
        let part = api
            .ask(
                Request::get(format!("/{part}"))
                    .header(header::ACCEPT_ENCODING, "gzip")
                    .body(Body::empty())
                    .unwrap(),
            )
            .await;
        assert_eq!(part.status(), StatusCode::OK);
        size += bytes(part).await.len();
    }
    assert!(size < 150_000, "{size}");
    let words = Request::get("/").header(header::ACCEPT, "*/*").body(Body::empty()).unwrap();
    assert!(bytes(api.ask(words).await).await.starts_with(b"canary-bot measures"));
    let docs = bytes(api.ask(Request::get("/docs").body(Body::empty()).unwrap()).await).await;
    assert!(String::from_utf8(docs).unwrap().contains("/api/v2/matrix"));

    let bare = Api::showing(Content { page: false, ..Content::default() });
    assert!(bytes(bare.ask(html()).await).await.starts_with(b"canary-bot measures"));
    assert_ne!(
        bare.ask(Request::get("/ui/app.js").body(Body::empty()).unwrap()).await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn the_lists_for_readers_name_every_endpoint() {
    let api = Api::new();
    let open = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    let words = String::from_utf8(bytes(api.ask(open("/")).await).await).unwrap();
    for (_, path, _) in crate::v2::index() {
        assert!(words.contains(&path), "{path} is missing in\n{words}");
    }
    assert!(words.lines().all(|line| line.chars().count() <= 120), "{words}");
    golden_text("words.txt", words);
    // Under its own path and the original's, with links that lead to the same root.
    let docs =
        async |path: &str| String::from_utf8(bytes(api.ask(open(path)).await).await).unwrap();
    let (ours, originals) = (docs("/docs").await, docs("/v1/").await);
    assert!(ours.contains("href=\"openapi.json\"") && ours.contains("GET /metrics/mesh"), "{ours}");
    assert_eq!(ours, originals.replace("=\"../", "=\""));
}

#[tokio::test]
async fn a_bot_is_alive_while_its_loop_runs() {
    let api = Api::new();
    for path in ["/livez", "/readyz"] {
        let ask = async || api.ask(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(bytes(ask().await).await, b"ok\n");
    }
    api.mesh.wedge();
    for path in ["/livez", "/readyz"] {
        let response = api.ask(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(bytes(response).await, b"the bot's loop has not run for 60 s\n");
    }
}
