//! What a client of the API may send, for fuzzers and the tests that replay what they found.

use http::{HeaderMap, header};

use crate::form::Form;

/// The header by which a scraper chooses how metrics are spelled, and metrics to spell.
pub fn accept(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let mut headers = HeaderMap::new();
    if let Ok(accept) = http::HeaderValue::from_bytes(&bytes[..end]) {
        headers.insert(header::ACCEPT, accept);
    }
    let form = Form::wanted(&headers);
    assert!(!form.content_type().is_empty());
    if let Ok(text) = std::str::from_utf8(bytes.get(end + 1..).unwrap_or_default()) {
        let lines = |text: &str| text.lines().count();
        assert!(lines(&form.write(text.to_owned())) <= lines(text), "lines were made up");
    }
}
