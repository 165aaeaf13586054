//! Answers that a client need not fetch twice (RFC 9110 section 13.1.2).

use std::hash::{DefaultHasher, Hasher};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

/// The type of most answers.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A body with its fingerprint as the `ETag`, or 304 for a client that has it already. Asked again
/// each time: another moment, or another release, may have another answer.
pub(crate) fn tagged(asked: &HeaderMap, kind: HeaderValue, body: impl Into<Bytes>) -> Response {
    let body = body.into();
    let mut hasher = DefaultHasher::new();
    hasher.write(&body);
    let tag = format!("\"{:016x}\"", hasher.finish());
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = known
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .map(|known| known.strip_prefix("W/").unwrap_or(known))
        .any(|known| known == "*" || known == tag);
    // Weak, for the same answer may be compressed.
    let tag = format!("W/{tag}");
    let common = [
        (header::ETAG, HeaderValue::try_from(tag).expect("hexadecimal digits between quotes")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
        (header::CONTENT_TYPE, kind),
    ];
    if is_known {
        (StatusCode::NOT_MODIFIED, common).into_response()
    } else {
        (common, Body::from(body)).into_response()
    }
}
