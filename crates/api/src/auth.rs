//! Who may read.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use canary_net::token::Verdict;
use http::{HeaderValue, StatusCode, header};

use crate::routes::Api;
use crate::rpc;

/// gRPC's code for a caller without a valid token.
const UNAUTHENTICATED: u32 = 16;

/// Lets requests with a valid token pass; answers the others as the original does.
pub(crate) async fn require_token(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let message = match api.guard.tokens.get().judge(request.headers().get(header::AUTHORIZATION)) {
        Verdict::Valid => return next.run(request).await,
        Verdict::Missing => "no token provided",
        Verdict::Invalid => "auth failed",
    };
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    if let Some(kind) = kind.filter(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        // An answer of headers alone, which gRPC and gRPC-Web both know.
        let mut response = ().into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response.headers_mut().insert("grpc-status", UNAUTHENTICATED.into());
        response.headers_mut().insert("grpc-message", HeaderValue::from_static(message));
        return response;
    }
    let mut response = if request.uri().path() == "/metrics" {
        (StatusCode::UNAUTHORIZED, "Unauthorized\n").into_response()
    } else if rpc::is_path(request.uri().path()) {
        // As Connect spells it.
        let body = axum::Json(serde_json::json!({ "code": "unauthenticated", "message": message }));
        (StatusCode::UNAUTHORIZED, body).into_response()
    } else {
        let body = axum::Json(serde_json::json!({ "code": UNAUTHENTICATED, "message": message }));
        (StatusCode::UNAUTHORIZED, body).into_response()
    };
    let challenge = match message {
        "no token provided" => HeaderValue::from_static("Bearer realm=\"canary-bot\", error_description=\"no token provided\""),
        _ => HeaderValue::from_static("Bearer realm=\"canary-bot\", error=\"invalid_token\", error_description=\"auth failed\""),
    };
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}
