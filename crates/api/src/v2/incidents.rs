//! The verdict and the incidents.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use super::answer::answer;
use super::views::{Incident, Verdict};
use crate::state::Api;

/// Which incidents.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    /// Those that last.
    Open,
    /// Those that are over, kept for a day.
    Closed,
    /// Both.
    #[default]
    All,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Which incidents. Default: all.
    #[serde(default)]
    #[param(inline, required = false)]
    state: Wanted,
}

/// Incidents, open ones first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Incidents {
    incidents: Vec<Incident>,
}

/// The state of the mesh in one sentence, with the counts behind it.
#[utoipa::path(
    get,
    path = "/api/v2/verdict",
    responses((status = 200, body = Verdict), super::views::Refusals)
)]
pub(super) async fn verdict(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let snapshot = api.source.snapshot();
    answer(&headers, &Verdict::of(&api.source.report(), &snapshot))
}

/// Every incident with its culprit.
///
/// Open incidents come first, the worst of them first; then those that are over, newest first. At
/// most 64 are open, and 128 closed ones are kept.
#[utoipa::path(
    get,
    path = "/api/v2/incidents",
    params(Filter),
    responses((status = 200, body = Incidents), super::views::Refusals)
)]
pub(super) async fn incidents(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Filter { state }) = filter?;
    let report = api.source.report();
    let (open, closed) = match state {
        Wanted::Open => (report.open.as_slice(), &[][..]),
        Wanted::Closed => (&[][..], report.closed.as_slice()),
        Wanted::All => (report.open.as_slice(), report.closed.as_slice()),
    };
    let incidents = open.iter().chain(closed).map(|incident| Incident::of(incident)).collect();
    Ok(answer(&headers, &Incidents { incidents }))
}
