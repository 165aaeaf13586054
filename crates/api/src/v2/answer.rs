//! What all answers of API v2 have in common: their form, their fingerprint, and how a request is
//! refused.

use axum::extract::Request;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::tagged::{JSON, tagged};

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The type of the packed form.
pub(crate) const PACKED: &str = "application/octet-stream";

/// A request to API v2 has at most so large a body: a mark.
pub(crate) const BODY_BYTES_MAX: usize = 4 * 1024;

/// Why a request was refused (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// What the status means.
    title: &'static str,
    /// The status of the answer.
    status: u16,
    /// What to do differently.
    detail: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            title: status.canonical_reason().unwrap_or("refused"),
            status: status.as_u16(),
            detail: detail.into(),
        }
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).expect("a problem is a number and texts");
        (status, [(header::CONTENT_TYPE, PROBLEM)], body).into_response()
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        let text = rejection.body_text();
        let why = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
        Self::new(
            StatusCode::BAD_REQUEST,
            format!("the query does not work: {why}; /docs lists the parameters"),
        )
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let status = rejection.status();
        let detail = match status {
            StatusCode::PAYLOAD_TOO_LARGE => {
                format!("the body may hold at most {BODY_BYTES_MAX} bytes")
            }
            _ => rejection.body_text(),
        };
        Self::new(status, detail)
    }
}

/// The same with the words of the caller: a status, and what to do.
pub(crate) fn refuse(status: StatusCode, detail: impl Into<String>) -> Response {
    Problem::new(status, detail).into_response()
}

/// JSON, or 304 for a client that has it already.
pub(crate) fn answer(headers: &HeaderMap, view: &impl Serialize) -> Response {
    let body = serde_json::to_vec(view).expect("views are structures of texts and numbers");
    tagged(headers, JSON, body)
}

/// Whether an `Accept` header names this very type.
pub(crate) fn is_named(headers: &HeaderMap, kind: &str) -> bool {
    let named = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let is_it = |range: &str| {
        range.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(kind))
    };
    named.filter(|range| is_it(range)).any(|range| {
        let only =
            HeaderMap::from_iter(HeaderValue::from_str(range).map(|value| (header::ACCEPT, value)));
        is_acceptable(&only, &[kind])
    })
}

/// Whether an `Accept` header (RFC 9110 section 12.5.1) allows one of these types. One that is
/// missing allows everything.
pub(crate) fn is_acceptable(headers: &HeaderMap, types: &[&str]) -> bool {
    let mut ranges = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .peekable();
    if ranges.peek().is_none() {
        return true;
    }
    ranges.any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused = parts
            .filter_map(|part| part.split_once('='))
            .any(|(key, value)| key.eq_ignore_ascii_case("q") && value.parse() == Ok(0.0));
        let allows = |offered: &str| {
            kind == "*/*"
                || kind == offered
                || kind
                    .strip_suffix("/*")
                    .is_some_and(|family| offered.starts_with(&format!("{family}/")))
        };
        !refused && types.iter().any(|offered| allows(offered))
    })
}

/// Refuses a client that wants a type that a path does not have.
pub(crate) async fn negotiate(request: Request, next: Next) -> Response {
    let types: &[&str] = match request.uri().path() {
        "/api/v2/matrix" => &["application/json", PACKED],
        "/api/v2/stream" => &["text/event-stream"],
        _ => &["application/json", "application/problem+json"],
    };
    if is_acceptable(request.headers(), types) {
        return next.run(request).await;
    }
    refuse(StatusCode::NOT_ACCEPTABLE, format!("this path answers with {}", types.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_named_or_it_is_not() {
        let named = |accept: &'static str| {
            is_named(
                &HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]),
                "a/b",
            )
        };
        assert!(named("A/b") && named("text/html, a/b;q=0.5"));
        assert!(!named("*/*") && !named("a/*") && !named("text/html, a/b;q=0"));
    }

    #[test]
    fn a_client_gets_what_it_accepts_or_a_refusal() {
        let accepts = |accept: &'static str| {
            let headers =
                HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            is_acceptable(&headers, &["application/json"])
        };
        assert!(is_acceptable(&HeaderMap::new(), &["application/json"]));
        for accept in [
            "*/*",
            "application/*",
            "application/json",
            "text/html, application/JSON;q=0.1",
            "text/html,*/*;q=0.8",
        ] {
            assert!(accepts(accept), "{accept}");
        }
        for accept in ["text/html", "application/json;q=0", "image/*", "", "application"] {
            assert!(!accepts(accept), "{accept}");
        }
    }
}
