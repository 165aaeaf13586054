//! What is refused, in every dialect.

use super::*;

#[tokio::test]
async fn what_has_no_meaning_is_refused_with_a_problem() {
    let api = Api::new();
    let plain = |path: &str| request(path).body(Body::empty()).unwrap();
    let accept = |path: &str, accept: &str| {
        request(path).header(header::ACCEPT, accept).body(Body::empty()).unwrap()
    };
    let mut posted = plain("/api/v2/nodes");
    *posted.method_mut() = Method::POST;
    let mark = |text: &str| {
        let body = serde_json::json!({ "text": text }).to_string();
        let mut request = request("/api/v2/marks")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .unwrap();
        *request.method_mut() = Method::POST;
        request
    };
    for (asked, status) in [
        (plain("/api/v2/nodes?limit=0"), 400),
        (plain("/api/v2/nodes?limit=10001"), 400),
        (plain("/api/v2/nodes?limit=x"), 400),
        (plain("/api/v2/nodes?state=odd"), 400),
        (plain("/api/v2/nodes?colour=red"), 400),
        (plain("/api/v2/nodes?page_token=%21"), 400),
        (plain("/api/v2/pairs?page_token=b3ds"), 400),
        (plain("/api/v2/matrix?metric=odd"), 400),
        (plain("/api/v2/events?after=-1"), 400),
        (plain("/api/v2/events?after=9007199254740992"), 400),
        (plain("/api/v2/stream?topics=verdict,odd"), 400),
        (plain("/api/v2/pairs/%ff/owl"), 400),
        (Request::get("/api/v2/nodes").body(Body::empty()).unwrap(), 401),
        (Request::get("/api/v2/odd").body(Body::empty()).unwrap(), 401),
        (plain("/api/v2/odd"), 404),
        (plain("/api/v2/nodes/odd"), 404),
        (plain("/api/v2/pairs/owl/odd"), 404),
        (plain("/api/v2/pairs/owl/owl"), 404),
        (posted, 405),
        (accept("/api/v2/nodes", "text/html"), 406),
        (accept("/api/v2/stream", "application/json"), 406),
        (mark(""), 422),
        (mark(&"x".repeat(201)), 422),
        (mark("two\nlines"), 422),
        (mark(&"x".repeat(100_000)), 413),
    ] {
        let what =
            format!("{} {} {:?}", asked.method(), asked.uri(), asked.headers().get(header::ACCEPT));
        let response = api.ask(asked).await;
        assert_eq!(response.status().as_u16(), status, "{what}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json", "{what}");
        assert_eq!(
            response.headers().contains_key(header::WWW_AUTHENTICATE),
            status == 401,
            "{what}"
        );
        assert_eq!(response.headers().contains_key(header::ALLOW), status == 405, "{what}");
        let problem: Value = serde_json::from_slice(&bytes(response).await).unwrap();
        assert_eq!(problem["status"], status, "{what}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{what}");
    }
}

/// Each group of routes refuses in the dialect of its clients; `refusals.txt` is all of it.
#[tokio::test]
async fn every_group_refuses_in_its_own_dialect() {
    let groups = [
        ("/api/v1/samples", ""),
        ("/version", ""),
        ("/no/such/path", ""),
        ("/no.such.Service/Method", "application/grpc"),
        ("/metrics", ""),
        ("/metrics/mesh", ""),
        ("/api/v2/verdict", ""),
        ("/api/v2/no/such/path", ""),
        ("/api/v2/", ""),
        ("/api.v1.ApiService/ListNodes", "application/json"),
        ("/api.v1.ApiService/ListNodes", "application/grpc"),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "application/grpc-web"),
    ];
    let address = std::net::SocketAddr::from(([192, 0, 2, 9], 5));
    let mut text = String::new();
    for (path, kind) in groups {
        text.push_str(&format!("# {path} {kind}\n"));
        let api = Api::new();
        let send = async |method: Method, authorization: Option<&str>| {
            let mut asked = Request::get(path).body(Body::empty()).unwrap();
            *asked.method_mut() = method;
            asked.extensions_mut().insert(axum::extract::ConnectInfo(address));
            for (name, value) in [
                (header::AUTHORIZATION, authorization),
                (header::CONTENT_TYPE, Some(kind).filter(|kind| !kind.is_empty())),
            ] {
                if let Some(value) = value {
                    asked.headers_mut().insert(name, value.parse().unwrap());
                }
            }
            let response = api.ask(asked).await;
            let mut lines = format!("{}\n", response.status());
            for name in [
                "content-type",
                "allow",
                "www-authenticate",
                "retry-after",
                "grpc-status",
                "grpc-message",
            ] {
                if let Some(value) = response.headers().get(name) {
                    lines.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
                }
            }
            (
                response.status(),
                lines + String::from_utf8(bytes(response).await).unwrap().trim_end(),
            )
        };
        let ask = async |authorization| send(Method::GET, authorization).await;
        text.push_str(&format!("## without a token\n{}\n", ask(None).await.1));
        text.push_str(&format!("## with a wrong one\n{}\n", ask(Some("Bearer odd")).await.1));
        let mut refused = ask(Some("Bearer odd")).await;
        for _ in 0..10_000 {
            if refused.1.contains("too many failed") || refused.0 == StatusCode::TOO_MANY_REQUESTS {
                break;
            }
            refused = ask(Some("Bearer odd")).await;
        }
        text.push_str(&format!("## after many\n{}\n", refused.1));
        if kind.is_empty() {
            let token = format!("Bearer {TOKEN}");
            let (status, said) = send(Method::DELETE, Some(&token)).await;
            if status == StatusCode::METHOD_NOT_ALLOWED {
                text.push_str(&format!("## with another method\n{said}\n"));
            }
        }
        if path.contains("/no") || path.ends_with('/') {
            let token = format!("Bearer {TOKEN}");
            text.push_str(&format!("## with a right one\n{}\n", ask(Some(&token)).await.1));
        }
        text.push('\n');
    }
    golden_text("refusals.txt", text);
}
