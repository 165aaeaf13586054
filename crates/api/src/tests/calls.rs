//! gRPC's services: the original's, reflection, health.

use super::*;

/// A call in Connect's JSON, or in gRPC.
fn call(path: &str, kind: &str, body: impl Into<Body>) -> Request<Body> {
    let request = request(path).method(Method::POST).header(header::CONTENT_TYPE, kind);
    request.body(body.into()).unwrap()
}

/// gRPC's frame around an empty message.
const EMPTY: &[u8] = &[0, 0, 0, 0, 0];

#[tokio::test]
async fn calls_tell_what_rest_tells() {
    let api = Api::new();
    for (method, path) in [("ListNodes", "/api/v1/nodes"), ("ListSamples", "/api/v1/samples")] {
        let asked = call(&format!("/api.v1.ApiService/{method}"), "application/json", "{}");
        let response = api.ask(asked).await;
        assert_eq!(response.status(), StatusCode::OK, "{method}");
        let told: Value = serde_json::from_slice(&bytes(response).await).unwrap();
        assert_eq!(told, api.get(path).await, "{method}");
    }
}

#[tokio::test]
async fn a_call_in_grpc_has_a_frame_and_a_status() {
    let api = Api::new();
    let response = api.ask(call("/api.v1.ApiService/ListNodes", "application/grpc", EMPTY)).await;
    let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap();
    assert!(kind.starts_with("application/grpc"), "{kind}");
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    let body = body.to_bytes();
    assert!(body.starts_with(&[0, 0, 0, 0]) && body.windows(3).any(|name| name == b"owl"));
}

#[tokio::test]
async fn health_needs_no_token_and_follows_the_loop() {
    let api = Api::new();
    let health = async |service: &str| {
        let body = serde_json::json!({ "service": service }).to_string();
        let mut asked = call("/grpc.health.v1.Health/Check", "application/json", body);
        asked.headers_mut().remove(header::AUTHORIZATION);
        let response = api.ask(asked).await;
        (response.status(), String::from_utf8(bytes(response).await).unwrap())
    };
    for service in ["", "api.v1.ApiService"] {
        let (status, told) = health(service).await;
        assert!(status == StatusCode::OK && told.contains("SERVING"), "{told}");
    }
    assert_eq!(health("api.v1.Odd").await.0, StatusCode::NOT_FOUND);
    api.mesh.wedge();
    let (status, told) = health("").await;
    assert!(status == StatusCode::OK && told.contains("NOT_SERVING"), "{told}");
}
