//! How a call of gRPC is refused before anybody reads it.

use http::{HeaderMap, HeaderValue, header};

/// The headers of an answer of headers alone, which gRPC and gRPC-Web both know, with gRPC's code;
/// none for a request in another protocol.
pub fn refused_call(
    asked: &HeaderMap,
    code: u32,
    message: Option<&'static str>,
) -> Option<HeaderMap> {
    let kind = asked.get(header::CONTENT_TYPE)?;
    if !kind.as_bytes().starts_with(b"application/grpc") {
        return None;
    }
    let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.clone())]);
    headers.insert("grpc-status", code.into());
    if let Some(message) = message {
        headers.insert("grpc-message", HeaderValue::from_static(message));
    }
    Some(headers)
}
