//! All known nodes, those that are gone too until they are forgotten.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use canary_core::{MemberView, NodeName, Record, Row, Status, Target, Wall};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use super::answer::answer;
use super::paging::{self, Limit};
use super::views::{Measured, Refusals, time};
use crate::picture::{self, Picture};
use crate::state::Api;

/// The state of a node.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    /// There is evidence that it lives.
    Alive,
    /// Attempts failed, and nothing newer is known yet.
    Suspect,
    /// There was no sign of life in time.
    Dead,
    /// It said goodbye.
    Left,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Only nodes in this state. Default: all.
    #[param(inline)]
    state: Option<Wanted>,
    /// How many entries, from 1 to 10000. Default: 1000.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 10000)]
    limit: Limit,
    /// Continues a list: the `next_page_token` of the page before.
    page_token: Option<String>,
}

/// A page of nodes, by name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    /// Where the next page begins; null if this is the last.
    next_page_token: Option<String>,
}

/// One node.
#[derive(Debug, Serialize, ToSchema)]
struct Node {
    name: String,
    /// Whether it is the bot that answers.
    is_self: bool,
    /// `alive`, `suspect`, `dead` or `left`.
    state: &'static str,
    /// Since when; null for the bot that answers.
    since: Option<String>,
    /// Where other nodes reach it.
    target: String,
    labels: std::collections::BTreeMap<String, String>,
    /// The release that it runs; null for a bot of the original, and before it published anything.
    version: Option<String>,
    /// The incarnation of the node: larger after every restart.
    incarnation: u64,
    /// When there was evidence that it lives; null for the bot that answers.
    last_evidence_at: Option<String>,
    /// How long ago it published what it measured; null before the first time.
    row_age_seconds: Option<f64>,
    /// How far its clock is ahead of this host's, as far as what it published tells; null for the
    /// bot that answers, and before the first time.
    clock_offset_seconds: Option<f64>,
    /// Whether what it publishes arrives: if not, what it measures is unknown.
    visible: bool,
    /// Whether it is a bot of the original that answers while its own loops are stuck: it measures
    /// nothing and admits nobody until it is restarted.
    stuck: bool,
    /// When its certificate expires, or the first of those it was shown; null without TLS.
    certificate_expires_at: Option<String>,
    /// How the answering bot reaches it; null for that bot itself.
    reached: Option<Measured>,
}

/// One node with how it reaches others, and how others reach it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NodeDetail {
    #[serde(flatten)]
    node: Node,
    /// Pairs from this node to others, by their state.
    outbound: Counts,
    /// Pairs from others to this node, by their state.
    inbound: Counts,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct Counts {
    ok: usize,
    failed: usize,
    unknown: usize,
    stale: usize,
}

impl Counts {
    fn count(&mut self, cell: &picture::Cell) {
        match cell.word() {
            "ok" => self.ok += 1,
            "failed" => self.failed += 1,
            "stale" => self.stale += 1,
            _ => self.unknown += 1,
        }
    }
}

impl Node {
    fn me(picture: &Picture) -> Self {
        let snapshot = picture.snapshot();
        Self {
            is_self: true,
            state: Status::Alive.as_str(),
            row_age_seconds: Some(0.0),
            visible: true,
            version: release(snapshot.own_row.as_deref()),
            certificate_expires_at: expiry(snapshot.own_row.as_deref()),
            ..Self::from(&*snapshot.me)
        }
    }

    fn other(picture: &Picture, member: &MemberView, stuck: &BTreeSet<&Target>) -> Self {
        let now = picture.snapshot().now;
        let place = picture.place(&member.record.name);
        let is_visible =
            place.and_then(|place| picture.nodes().get(place)).is_some_and(|node| node.is_visible);
        Self {
            state: member.status.as_str(),
            since: Some(time(picture.wall(member.since))),
            last_evidence_at: Some(time(picture.wall(member.evidence_at))),
            row_age_seconds: member.row.as_ref().map(|row| row.age(now.time).as_secs_f64()),
            clock_offset_seconds: member
                .row
                .as_ref()
                .map(|row| row.clock_offset_millis(now) as f64 / 1000.0),
            visible: is_visible,
            stuck: member.status.is_present() && stuck.contains(&member.record.target),
            version: release(member.row.as_deref()),
            certificate_expires_at: expiry(member.row.as_deref()),
            reached: Some(Measured::of(&picture.own_cell(member))),
            ..Self::from(&*member.record)
        }
    }
}

impl From<&Record> for Node {
    fn from(record: &Record) -> Self {
        Self {
            name: record.name.as_str().to_owned(),
            is_self: false,
            state: Status::Alive.as_str(),
            since: None,
            target: record.target.to_string(),
            labels: record
                .labels
                .iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            version: None,
            incarnation: record.incarnation.0,
            last_evidence_at: None,
            row_age_seconds: None,
            clock_offset_seconds: None,
            visible: false,
            stuck: false,
            certificate_expires_at: None,
            reached: None,
        }
    }
}

fn release(row: Option<&Row>) -> Option<String> {
    Some(row?.frame().release()?.to_string())
}

fn expiry(row: Option<&Row>) -> Option<String> {
    let expires = Duration::from_secs(row?.frame().secured()?.expires);
    Some(time(Wall::from_unix_millis(u64::try_from(expires.as_millis()).unwrap_or(u64::MAX))))
}

/// All known nodes: those that are dead or left too, until they are forgotten.
#[utoipa::path(get, path = "/api/v2/nodes", params(Filter), responses((status = 200, body = Nodes), Refusals))]
pub(super) async fn nodes(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Filter { state, limit: Limit(limit), page_token }) = filter?;
    let after = paging::key_of::<1>(page_token.as_deref())?.map(|[name]| name);
    let picture = Picture::of(api.source.snapshot());
    let snapshot = picture.snapshot();
    let mut known: Vec<(&NodeName, Option<&MemberView>)> =
        snapshot.nodes().map(|member| (&member.record.name, Some(member))).collect();
    known.push((&snapshot.me.name, None));
    known.sort_unstable_by_key(|(name, _)| *name);
    let is_wanted = |member: Option<&MemberView>| {
        let status = member.map_or(Status::Alive, |member| member.status);
        state.is_none_or(|state| {
            matches!(
                (state, status),
                (Wanted::Alive, Status::Alive)
                    | (Wanted::Suspect, Status::Suspect)
                    | (Wanted::Dead, Status::Dead)
                    | (Wanted::Left, Status::Left)
            )
        })
    };
    let mut wanted = known
        .into_iter()
        .filter(|(name, member)| {
            after.as_deref().is_none_or(|after| name.as_str() > after) && is_wanted(*member)
        })
        .peekable();
    let stuck = snapshot.stuck();
    let mut page = Vec::new();
    while let Some((_, member)) = wanted.next_if(|_| page.len() < limit) {
        page.push(
            member
                .map_or_else(|| Node::me(&picture), |member| Node::other(&picture, member, &stuck)),
        );
    }
    let next_page_token =
        wanted.peek().and_then(|_| page.last()).map(|last| paging::token_after(&[&last.name]));
    Ok(answer(&headers, &Nodes { nodes: page, next_page_token }))
}

/// One node, with the counts of its pairs in both directions.
#[utoipa::path(
    get,
    path = "/api/v2/nodes/{name}",
    params(("name" = String, Path, description = "The name of the node.")),
    responses((status = 200, body = NodeDetail), (status = 404, body = Problem, content_type = "application/problem+json", description = "No node has this name."), Refusals)
)]
pub(super) async fn node(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(name) = name?;
    let picture = Picture::of(api.source.snapshot());
    let unknown = || Problem::not_found("no node has this name; /api/v2/nodes lists all");
    let name: NodeName = name.parse().map_err(|_| unknown())?;
    let node = if name == picture.snapshot().me.name {
        Node::me(&picture)
    } else {
        let member =
            picture.snapshot().member(&name).filter(|member| member.known).ok_or_else(unknown)?;
        Node::other(&picture, member, &picture.snapshot().stuck())
    };
    // It reads every row of the mesh: others are answered in the meantime.
    let counting = tokio::task::spawn_blocking(move || {
        let (mut outbound, mut inbound) = (Counts::default(), Counts::default());
        if let Some(place) = picture.place(&name) {
            for (other, cell) in
                picture.row(place).iter().enumerate().filter(|(other, _)| *other != place)
            {
                outbound.count(cell);
                inbound.count(&picture.cell(other, place));
            }
        }
        (outbound, inbound)
    });
    let failed = |_| {
        Problem::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            "the pairs could not be counted; please report it",
        )
    };
    let (outbound, inbound) = counting.await.map_err(failed)?;
    Ok(answer(&headers, &NodeDetail { node, outbound, inbound }))
}
