//! The pairs of nodes, each direction by itself.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use canary_core::{Failure, NodeName, Wall};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use super::answer::answer;
use super::paging::{self, Limit};
use super::views::{Measured, Refusals, time};
use crate::picture::{Cell, Picture};
use crate::state::Api;

/// The state of a pair.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    /// The latest attempt was answered.
    Ok,
    /// The latest attempt failed.
    Failed,
    /// No attempt is known.
    Unknown,
    /// What is known is old: its source publishes nothing, or has not measured for long.
    Stale,
}

impl Wanted {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Stale => "stale",
        }
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Only pairs from this node.
    source: Option<String>,
    /// Only pairs to this node.
    target: Option<String>,
    /// Only pairs in this state. Default: all.
    #[param(inline)]
    state: Option<Wanted>,
    /// How many entries, from 1 to 10000. Default: 1000.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 10000)]
    limit: Limit,
    /// Continues a list: the `next_page_token` of the page before.
    page_token: Option<String>,
}

/// A page of pairs, by source, then by target.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Pairs {
    pairs: Vec<Pair>,
    /// Where the next page begins; null if this is the last.
    next_page_token: Option<String>,
}

/// One direction between two nodes.
#[derive(Debug, Serialize, ToSchema)]
struct Pair {
    /// Who measures.
    source: String,
    /// Whom.
    target: String,
    #[serde(flatten)]
    measured: Measured,
}

impl Pair {
    fn of(picture: &Picture, source: usize, target: usize, cell: &Cell) -> Self {
        let name = |place| picture.name(place).as_str().to_owned();
        Self { source: name(source), target: name(target), measured: Measured::of(cell) }
    }
}

/// One pair with its other direction, and what only its source knows.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PairDetail {
    #[serde(flatten)]
    pair: Pair,
    /// The other direction, measured by the target.
    reverse: Measured,
    /// What only the source of a pair knows, asked of it now; null if it did not answer.
    detail: Option<Detail>,
    /// Age of `detail`; at most a moment. Null if the source did not answer.
    detail_age_seconds: Option<f64>,
    /// Why the source did not answer; null if it did.
    detail_problem: Option<String>,
}

/// What the source of a pair keeps since it started.
#[derive(Debug, Serialize, ToSchema)]
struct Detail {
    /// Phases of the latest attempt; null if it failed.
    phases: Option<Phases>,
    /// Since when attempts fail without a success between them; null while the latest was answered.
    failing_since: Option<String>,
    /// When an attempt last succeeded; null before the first.
    last_success_at: Option<String>,
    /// Attempts that succeeded.
    successes: u64,
    /// Attempts that failed, by kind; kinds without any are left out.
    failures: std::collections::BTreeMap<&'static str, u64>,
    /// Segments that the kernel sent under the successful attempts.
    segments: u64,
    /// Segments that the kernel sent again: packets that were lost and cost no attempt.
    retransmissions: u64,
}

/// The phases of one attempt. All but `resolve` and `request` add up to the round-trip time.
#[derive(Debug, Serialize, ToSchema)]
struct Phases {
    resolve_seconds: f64,
    connect_seconds: f64,
    /// Null on a plain connection.
    tls_seconds: Option<f64>,
    first_request_seconds: f64,
    /// The second request; null if it failed.
    request_seconds: Option<f64>,
    /// The kernel's own round-trip time, of the TCP handshake; null where it offers none.
    kernel_rtt_seconds: Option<f64>,
}

impl Detail {
    /// `now` is when the source told it.
    fn of(detail: &canary_core::Detail, now: Wall) -> Self {
        let phases = detail.latest.map(|timing| Phases {
            resolve_seconds: timing.resolve.as_secs_f64(),
            connect_seconds: timing.connect.as_secs_f64(),
            tls_seconds: timing.tls.map(|tls| tls.as_secs_f64()),
            first_request_seconds: timing.first_request.as_secs_f64(),
            request_seconds: timing.request.map(|request| request.as_secs_f64()),
            kernel_rtt_seconds: timing.kernel.map(|kernel| kernel.rtt.as_secs_f64()),
        });
        let count = |kind: Failure| {
            detail.failures.get(usize::from(kind.code())).copied().filter(|count| *count > 0)
        };
        Self {
            phases,
            failing_since: detail.failing_for.map(|lasted| time(now.back(lasted))),
            last_success_at: detail.last_success.map(time),
            successes: detail.successes,
            failures: Failure::ALL
                .into_iter()
                .filter_map(|kind| Some((kind.as_str(), count(kind)?)))
                .collect(),
            segments: detail.segments,
            retransmissions: detail.retransmissions,
        }
    }
}

/// Every pair of nodes, each direction by itself.
///
/// Nodes that left have none. A pair between two nodes that nobody has measured yet is listed as
/// `unknown`.
#[utoipa::path(get, path = "/api/v2/pairs", params(Filter), responses((status = 200, body = Pairs), Refusals))]
pub(super) async fn pairs(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(filter) = filter?;
    let after = paging::key_of::<2>(filter.page_token.as_deref())?;
    let snapshot = api.source.snapshot();
    // A mesh of a thousand nodes has a million pairs: others are answered in the meantime.
    let list =
        tokio::task::spawn_blocking(move || list(&Picture::of(snapshot), &filter, after.as_ref()));
    let pairs = list.await.map_err(|_| {
        Problem::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            "the list could not be made; please report it",
        )
    })?;
    Ok(answer(&headers, &pairs))
}

fn list(picture: &Picture, filter: &Filter, after: Option<&[String; 2]>) -> Pairs {
    let named = |name: &Option<String>, place: usize| {
        name.as_deref().is_none_or(|name| picture.name(place).as_str() == name)
    };
    let mut pairs: Vec<Pair> = Vec::new();
    for source in 0..picture.nodes().len() {
        let name = picture.name(source).as_str();
        let before = |[of, _]: &[String; 2]| name < of.as_str();
        if !named(&filter.source, source) || after.is_some_and(before) {
            continue;
        }
        let first = after.filter(|[of, _]| of == name).map(|[_, target]| target.as_str());
        for (target, cell) in picture.row(source).iter().enumerate() {
            let is_wanted = target != source
                && first.is_none_or(|first| picture.name(target).as_str() > first)
                && named(&filter.target, target)
                && filter.state.is_none_or(|state| state.as_str() == cell.word());
            if !is_wanted {
                continue;
            }
            if let Some(last) = pairs.last().filter(|_| pairs.len() >= filter.limit.0) {
                let next_page_token = Some(paging::token_after(&[&last.source, &last.target]));
                return Pairs { pairs, next_page_token };
            }
            pairs.push(Pair::of(picture, source, target, cell));
        }
    }
    Pairs { pairs, next_page_token: None }
}

/// One pair in both directions, with phases and counters.
#[utoipa::path(
    get,
    path = "/api/v2/pairs/{source}/{target}",
    params(("source" = String, Path, description = "Who measures."), ("target" = String, Path, description = "Whom.")),
    responses((status = 200, body = PairDetail), (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such pair."), Refusals)
)]
pub(super) async fn pair(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    names: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let Path((source, target)) = names?;
    let picture = Picture::of(api.source.snapshot());
    let place = |name: &str| name.parse::<NodeName>().ok().and_then(|name| picture.place(&name));
    let places = place(&source).zip(place(&target)).filter(|(source, target)| source != target);
    let (source, target) = places.ok_or_else(|| {
        Problem::not_found("there is no such pair; /api/v2/nodes lists all names")
    })?;
    let now = picture.snapshot().now;
    let told = match (picture.member(source), picture.member(target)) {
        (Some(other), _) => api.source.describe(other.clone(), picture.name(target).clone()).await,
        (None, Some(member)) => Ok((member.pair.detail(now.time), Duration::ZERO)),
        (None, None) => Err("there is no such pair".to_owned()),
    };
    let pair = Pair::of(&picture, source, target, &picture.cell(source, target));
    let reverse = Measured::of(&picture.cell(target, source));
    let (detail, detail_age_seconds, detail_problem) = match told {
        Ok((detail, age)) => {
            (Some(Detail::of(&detail, now.wall.back(age))), Some(age.as_secs_f64()), None)
        }
        Err(why) => (None, None, Some(why)),
    };
    Ok(answer(&headers, &PairDetail { pair, reverse, detail, detail_age_seconds, detail_problem }))
}
