//! What the API port was asked, counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use canary_core::Histogram;

use crate::routes::Api;

/// Route, method and code of a request; each from a small set, so that strangers cannot make
/// series.
pub(crate) type Key = (String, &'static str, u16);

/// Durations of requests until their answer began.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<BTreeMap<Key, Histogram>>);

impl Requests {
    fn observe(&self, key: Key, begun: Instant) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key)
            .or_default()
            .observe(begun.elapsed());
    }

    /// All that was counted so far.
    pub(crate) fn all(&self) -> Vec<(Key, Histogram)> {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.iter().map(|(key, histogram)| (key.clone(), *histogram)).collect()
    }
}

/// Counts a request with its answer.
pub(crate) async fn count(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route =
        request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let method = match request.method().as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        _ => "other",
    };
    let response = next.run(request).await;
    api.requests.observe((route, method, response.status().as_u16()), begun);
    response
}
