//! A stream of what changes to those who watch.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;

use super::Problem;
use super::live::{Message, Topic, WATCHERS_MAX, spell};
use super::views::{Refusals, Verdict};
use crate::state::Api;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Topics to watch, separated by commas: `verdict`, `incident`, `node`, `pair`, `mark`.
    /// Default: all.
    topics: Option<String>,
}

impl Filter {
    fn topics(&self) -> Result<Vec<Topic>, Problem> {
        let Some(topics) = &self.topics else { return Ok(Topic::ALL.to_vec()) };
        let named = |name: &str| Topic::ALL.into_iter().find(|topic| topic.as_str() == name);
        let unknown = || {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "topics must be some of verdict, incident, node, pair and mark, separated by commas",
            )
        };
        topics.split(',').map(|name| named(name).ok_or_else(unknown)).collect()
    }
}

/// A watcher that waits for the next messages.
struct Watcher {
    receiver: broadcast::Receiver<Arc<Vec<Message>>>,
    topics: Vec<Topic>,
    /// What comes before them.
    first: Option<String>,
    /// Events up to this one were among that.
    repeated: u64,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if let Some(first) = self.first.take() {
            return Some((Ok(first.into()), self));
        }
        loop {
            let text = match self.receiver.recv().await {
                Ok(messages) => {
                    let wanted = messages.iter().filter(|message| {
                        message.topic.is_none_or(|topic| self.topics.contains(&topic))
                            && message.id.is_none_or(|id| id > self.repeated)
                    });
                    wanted.map(|message| message.text.as_str()).collect()
                }
                Err(RecvError::Lagged(missed)) => {
                    spell("reload", None, &serde_json::json!({ "messages_missed": missed }))
                }
                Err(RecvError::Closed) => return None,
            };
            if !text.is_empty() {
                return Some((Ok(text.into()), self));
            }
        }
    }
}

/// What changes, as it changes (server-sent events).
///
/// Events are `verdict`, `incident`, `node`, `pair` (its state changed) and `mark`. `tick` comes
/// every 5 s. `reload` says that changes may have been left out, also once at the start: read the
/// other resources again. With `Last-Event-ID` the stream first repeats later events that are kept.
/// The first message is the verdict.
#[utoipa::path(
    get,
    path = "/api/v2/stream",
    params(Filter),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "64 others watch."),
        Refusals
    )
)]
pub(super) async fn stream(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(filter) = filter?;
    let topics = filter.topics()?;
    let full = |_| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{WATCHERS_MAX} others watch this bot; watch another one"),
        )
    };
    let place = Arc::clone(&api.live.places).try_acquire_owned().map_err(full)?;
    let receiver = api.live.messages.subscribe();
    let snapshot = api.source.snapshot();
    let mut first = String::from("retry: 2000\n");
    first.push_str(&spell(
        Topic::Verdict.as_str(),
        None,
        &Verdict::of(&api.source.report(), &snapshot),
    ));
    let last: Option<u64> =
        headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    let missed = last.map(|last| api.live.after(last)).unwrap_or_default();
    let repeated = missed.last().map_or(0, |event| event.sequence);
    for event in missed {
        let topic = Topic::of(&event);
        if topics.contains(&topic) {
            first.push_str(&spell(topic.as_str(), Some(event.sequence), &*event));
        }
    }
    if last.is_some() {
        // Changes of pairs are not kept, and older events may have been dropped.
        first.push_str(&spell("reload", None, &serde_json::json!({ "resumed": true })));
    }
    let watcher = Watcher { receiver, topics, first: Some(first), repeated, _place: place };
    let body = Body::from_stream(futures_util::stream::unfold(watcher, Watcher::next));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, body).into_response())
}
