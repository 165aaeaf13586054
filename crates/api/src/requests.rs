//! What the API port was asked, counted.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::state::Api;

/// Counts a request with its answer.
pub(crate) async fn count(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    // The paths of a group that nobody serves are no route.
    let route = route.filter(|route| !route.contains("{*") && *route != "/api/v2/");
    let route = route.unwrap_or("other").to_owned();
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
