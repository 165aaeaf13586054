//! Everything that happened, by sequence number, and marks that people set beside it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use canary_core::is_invisible;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use super::answer::answer;
use super::live::Marked;
use super::paging::Limit;
use super::views::{Event, Refusals};
use crate::state::Api;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Only events with a larger sequence number. Default: all that are kept.
    #[serde(default)]
    #[param(required = false, maximum = 9007199254740991i64)]
    after: u64,
    /// How many entries, from 1 to 10000. Default: 1000.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 10000)]
    limit: Limit,
}

/// The largest sequence number that JavaScript counts to.
const AFTER_MAX: u64 = (1 << 53) - 1;

/// Events, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Events {
    events: Vec<Event>,
    /// What to ask for next: the sequence number of the last event here, or of the request if there
    /// is none.
    next_after: u64,
}

/// Everything that happened to nodes, paths and incidents, oldest first.
///
/// The latest 1024 events are kept. Sequence numbers grow by one, and across restarts of the bot by
/// more: a gap shows that events are missing. Paths are those of the answering bot; other pairs are
/// in incidents.
#[utoipa::path(get, path = "/api/v2/events", params(Filter), responses((status = 200, body = Events), Refusals))]
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Filter { after, limit: Limit(limit) }) = filter?;
    if after > AFTER_MAX {
        return Err(Problem::new(StatusCode::BAD_REQUEST, format!("after is at most {AFTER_MAX}")));
    }
    let events: Vec<Event> =
        api.live.after(after).iter().take(limit).map(|event| Event::clone(event)).collect();
    let next_after = events.last().map_or(after, |event| event.sequence);
    Ok(answer(&headers, &Events { events, next_after }))
}

/// Characters of a mark at most: it is a label beside a graph, not a report.
const MARK_CHARS_MAX: usize = 200;

/// Something that people did to the network.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMark {
    /// What was done, such as "kernel 6.12 on rack 7": 1 to 200 characters on one line.
    #[schema(min_length = 1, max_length = 200)]
    text: String,
}

/// Sets a mark: an event with a text, to compare before and after.
///
/// The answering bot alone keeps it. At most 30 are set in a minute.
#[utoipa::path(
    post,
    path = "/api/v2/marks",
    request_body = NewMark,
    responses(
        (status = 201, body = Event),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "The body is too large."),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "The body is no JSON."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "The body is none that this path understands."),
        Refusals
    )
)]
pub(super) async fn mark(
    State(api): State<Arc<Api>>,
    body: Result<Json<NewMark>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(NewMark { text }) = body?;
    let length = text.chars().count();
    if !(1..=MARK_CHARS_MAX).contains(&length) || text.chars().any(is_invisible) {
        let detail = format!("text must have 1 to {MARK_CHARS_MAX} characters that can be seen");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    match api.live.mark(text, api.source.snapshot().now.wall) {
        Marked::Set(event) => Ok((StatusCode::CREATED, Json(Event::clone(&event))).into_response()),
        Marked::TooMany => Err(Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "30 marks were set within a minute; set the next one later",
        )),
    }
}
