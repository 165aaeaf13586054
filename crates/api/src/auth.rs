//! Who may read.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use canary_net::token::Verdict;
use http::{HeaderValue, StatusCode, header};

use crate::state::Api;
use crate::{rpc, v2};

/// gRPC's code for a caller without a valid token.
const UNAUTHENTICATED: u32 = 16;
/// gRPC's code for a caller who failed too often.
const RESOURCE_EXHAUSTED: u32 = 8;

/// Lets requests with a valid token pass; answers the others as the original does.
pub(crate) async fn require_token(
    State(api): State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Response {
    let message = match api.guard.tokens.get().judge(request.headers().get(header::AUTHORIZATION)) {
        Verdict::Valid => return next.run(request).await,
        Verdict::Missing => "no token provided",
        Verdict::Invalid => "auth failed",
    };
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    let (message, status, code) =
        match address.is_none_or(|address| api.guard.failures.note(address)) {
            true => (message, StatusCode::UNAUTHORIZED, UNAUTHENTICATED),
            false => (
                "too many failed authentications; come again later",
                StatusCode::TOO_MANY_REQUESTS,
                RESOURCE_EXHAUSTED,
            ),
        };
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    if let Some(kind) = kind.filter(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        // An answer of headers alone, which gRPC and gRPC-Web both know.
        let mut response = ().into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response.headers_mut().insert("grpc-status", code.into());
        response.headers_mut().insert("grpc-message", HeaderValue::from_static(message));
        return response;
    }
    let mut response = if request.uri().path().starts_with("/metrics") {
        (
            status,
            if code == UNAUTHENTICATED {
                "Unauthorized\n"
            } else {
                "Too many failed authentications\n"
            },
        )
            .into_response()
    } else if request.uri().path().starts_with(v2::PREFIX) {
        let what = if code == UNAUTHENTICATED {
            "give a token of this bot as `Authorization: Bearer TOKEN`"
        } else {
            message
        };
        v2::refuse(status, what)
    } else if rpc::is_path(request.uri().path()) {
        // As Connect spells it.
        let body = axum::Json(
            serde_json::json!({ "code": if code == UNAUTHENTICATED { "unauthenticated" } else { "resource_exhausted" }, "message": message }),
        );
        (status, body).into_response()
    } else {
        let body = axum::Json(serde_json::json!({ "code": code, "message": message }));
        (status, body).into_response()
    };
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        return response;
    }
    let challenge = match message {
        "no token provided" => HeaderValue::from_static(
            "Bearer realm=\"canary-bot\", error_description=\"no token provided\"",
        ),
        _ => HeaderValue::from_static(
            "Bearer realm=\"canary-bot\", error=\"invalid_token\", error_description=\"auth failed\"",
        ),
    };
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}
