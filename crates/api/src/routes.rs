//! Paths to handlers. What is open is listed first; everything else wants a token.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use axum::{Extension, Json, Router};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;

use crate::refusals::{Dialect, Refusal};
use crate::state::{Api, WEDGED_AFTER};
use crate::tagged::{JSON, tagged};
use crate::web::Listed;
use crate::{auth, mesh_metrics, metrics, requests, rpc, v1, v2, web};

/// The lowest level that counts how often each byte comes: below it latencies do not become
/// smaller.
const GZIP: CompressionLevel = CompressionLevel::Precise(3);

/// A path with its handler, and the words by which `/` and `/docs` list it.
struct Endpoint {
    path: &'static str,
    about: &'static str,
    handler: MethodRouter<Arc<Api>>,
}

fn endpoint(path: &'static str, about: &'static str, handler: MethodRouter<Arc<Api>>) -> Endpoint {
    Endpoint { path, about, handler }
}

/// What needs no token.
fn open() -> Vec<Endpoint> {
    vec![
        endpoint("/", "The page, for browsers", get(web::index)),
        endpoint("/docs", "The documentation of the API", get(web::docs)),
        endpoint("/openapi.json", "API v2 as OpenAPI 3.1", get(v2::serve_document)),
        endpoint("/v1/api.swagger.json", "The API of the original as OpenAPI 2", get(swagger)),
        endpoint("/livez", "Whether the loop of this bot runs", get(alive)),
        endpoint("/readyz", "Whether this bot answers; never depends on others", get(ready)),
    ]
}

/// What needs a token, by the dialect of its refusals. API v2 has a list of its own, of which its
/// document is made; reflection lists the calls.
fn guarded() -> Vec<(Dialect, Endpoint)> {
    let original = |path, about, handler| (Dialect::Original, endpoint(path, about, handler));
    let text = |path, about, handler| (Dialect::Text, endpoint(path, about, handler));
    vec![
        original(
            "/api/v1/samples",
            "The latest sample of every pair, as the original spells it",
            get(v1::samples),
        ),
        original(
            "/api/v1/nodes",
            "The names of all present nodes, as the original spells them",
            get(v1::nodes),
        ),
        text("/metrics", "This bot's own pairs and health, for Prometheus", get(metrics::metrics)),
        text(
            "/metrics/mesh",
            "The last values of all pairs, for a Prometheus that scrapes one bot alone",
            get(mesh_metrics::metrics),
        ),
        original("/version", "The version of the program", get(program_version)),
    ]
}

pub(crate) fn router(api: Arc<Api>) -> Router {
    let (calls, health) = rpc::services(&api);
    let behind_token = |dialect, routes: Router<Arc<Api>>| {
        routes.layer(from_fn_with_state((Arc::clone(&api), dialect), auth::require_token))
    };
    let mut listed = Vec::new();
    let mut pages = web::router(api.has_page);
    for Endpoint { path, about, handler } in open() {
        listed.push(Listed { path, about, is_open: true });
        pages = pages.route(path, handler);
    }
    let calls = Router::new()
        .route_service("/api.v1.ApiService/{method}", calls.clone())
        .route_service("/grpc.reflection.v1.ServerReflection/{method}", calls.clone())
        .route_service("/grpc.reflection.v1alpha.ServerReflection/{method}", calls);
    let packed = CompressionLayer::new().quality(GZIP);
    let second = v2::router()
        .method_not_allowed_fallback(no_such_method(Dialect::Problem))
        .route("/api/v2/", any(no_such_path_of_v2))
        .route("/api/v2/{*path}", any(no_such_path_of_v2))
        .layer(DefaultBodyLimit::max(v2::BODY_BYTES_MAX))
        .layer(packed.clone());
    let mut router = Router::new()
        .route_service("/grpc.health.v1.Health/{method}", health)
        .merge(behind_token(Dialect::Call, calls))
        .merge(behind_token(Dialect::Problem, second))
        .merge(behind_token(Dialect::Original, Router::new().fallback(no_such_path)));
    for (dialect, Endpoint { path, about, handler }) in guarded() {
        listed.push(Listed { path, about, is_open: false });
        let route = Router::new().route(path, handler).layer(packed.clone());
        let route = route.method_not_allowed_fallback(no_such_method(dialect));
        router = router.merge(behind_token(dialect, route));
    }
    let pages = pages.layer(Extension::<Arc<[Listed]>>(listed.into()));
    router
        .merge(pages.method_not_allowed_fallback(no_such_method(Dialect::Text)).layer(packed))
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

async fn swagger(headers: HeaderMap) -> Response {
    tagged(&headers, JSON, include_str!("../assets/api.swagger.json"))
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

async fn no_such_path(headers: HeaderMap) -> Response {
    Refusal::NoSuchPath.answer(Dialect::Original, &headers)
}

/// Answers a method that its path does not know.
fn no_such_method(
    dialect: Dialect,
) -> impl Fn(HeaderMap) -> std::future::Ready<Response> + Clone + Send + Sync + 'static {
    move |headers| std::future::ready(Refusal::NoSuchMethod.answer(dialect, &headers))
}

async fn no_such_path_of_v2(headers: HeaderMap) -> Response {
    Refusal::NoSuchPath.answer(Dialect::Problem, &headers)
}
