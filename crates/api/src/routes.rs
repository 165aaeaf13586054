//! Paths to handlers. What is open is listed first; everything else wants a token.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::extract::State;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderValue, StatusCode, Uri, header};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;

use crate::state::{Api, WEDGED_AFTER};
use crate::{auth, requests, rpc, v1, v2, web};

/// The lowest level that counts how often each byte comes: below it latencies do not become
/// smaller.
const GZIP: CompressionLevel = CompressionLevel::Precise(3);

pub(crate) fn router(api: Arc<Api>) -> Router {
    let has_page = api.has_page;
    let (rpc, health) = rpc::services(&api);
    let open = Router::new()
        .merge(web::router(has_page).layer(CompressionLayer::new()))
        .route("/v1/api.swagger.json", get(swagger))
        .route("/openapi.json", get(v2::serve_document))
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .route_service("/grpc.health.v1.Health/{method}", health);
    let guarded = Router::new()
        .route("/api/v1/samples", get(v1::samples))
        .route("/api/v1/nodes", get(v1::nodes))
        .merge(
            v2::router()
                .layer(DefaultBodyLimit::max(v2::BODY_BYTES_MAX))
                .layer(CompressionLayer::new().quality(GZIP)),
        )
        .route("/metrics", get(crate::metrics::metrics))
        .route("/metrics/mesh", get(crate::mesh_metrics::metrics))
        .route("/version", get(program_version))
        .route_service("/api.v1.ApiService/{method}", rpc.clone())
        .route_service("/grpc.reflection.v1.ServerReflection/{method}", rpc.clone())
        .route_service("/grpc.reflection.v1alpha.ServerReflection/{method}", rpc)
        .fallback(not_found)
        .layer(from_fn_with_state(Arc::clone(&api), auth::require_token));
    Router::new()
        .merge(open)
        .merge(guarded)
        .layer(from_fn_with_state(Arc::clone(&api), requests::count))
        .layer(map_response(harden))
        .with_state(api)
}

/// Answers are a bot's words of this moment, of the type they say, and for nobody to frame.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn swagger() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("../assets/api.swagger.json"))
        .into_response()
}

/// Alive is a bot whose loop runs: a wedged one is restarted.
async fn alive(State(api): State<Arc<Api>>) -> Response {
    let age = api.source.snapshot_age();
    if age < WEDGED_AFTER {
        "ok\n".into_response()
    } else {
        let seconds = age.as_secs();
        (StatusCode::SERVICE_UNAVAILABLE, format!("the bot's loop has not run for {seconds} s\n"))
            .into_response()
    }
}

/// Ready is a bot that answers. It never depends on peers, or a partition would take every bot out
/// of service.
async fn ready(state: State<Arc<Api>>) -> Response {
    alive(state).await
}

async fn program_version(State(api): State<Arc<Api>>) -> Response {
    Json(serde_json::json!({ "name": "canary-bot", "version": api.version })).into_response()
}

async fn not_found(uri: Uri) -> Response {
    if uri.path().starts_with(v2::PREFIX) {
        return v2::refuse(StatusCode::NOT_FOUND, "API v2 has no such path; see /docs");
    }
    // gRPC's code for what is not there, as the original's gateway answers.
    (StatusCode::NOT_FOUND, Json(serde_json::json!({ "code": 5, "message": "Not Found" })))
        .into_response()
}
