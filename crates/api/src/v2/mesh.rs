//! The mesh as a whole, as the answering bot sees it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use canary_core::{Snapshot, Status};
use http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::answer;
use super::views::{Refusals, Verdict, time};
use crate::state::Api;

/// The mesh, and the bot that answers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Mesh {
    /// The bot that answers.
    node: String,
    /// The version of its program.
    version: &'static str,
    /// The name of the mesh; empty if it has none.
    mesh: String,
    /// When the bot knew what this says.
    as_of: String,
    /// What is wrong, and the counts behind it.
    verdict: Verdict,
    /// Nodes by state, the answering bot included.
    nodes: States,
    /// How often each pair is measured.
    pair_interval_seconds: f64,
    /// How often a bot publishes what it measured.
    publish_interval_seconds: f64,
    /// For how long in all the bot's own loop did not run since it started: its host was short of
    /// time.
    stalled_seconds: f64,
    /// Where a living node is reached that has this bot's name; null if none has.
    name_conflict: Option<String>,
    /// Names that others reported and that never answered: they are in no list.
    unproven_names: usize,
    /// Addresses to join at.
    targets: Vec<JoinTarget>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct States {
    /// There is evidence that they live.
    alive: usize,
    /// Attempts failed, and nothing newer is known yet.
    suspect: usize,
    /// There was no sign of life in time.
    dead: usize,
    /// They said goodbye.
    left: usize,
}

#[derive(Debug, Serialize, ToSchema)]
struct JoinTarget {
    target: String,
    /// Whether it admitted this bot when it was last asked.
    joined: bool,
    /// Why it did not; null if it did, or was not asked yet.
    problem: Option<String>,
}

impl Mesh {
    fn of(api: &Api, snapshot: &Snapshot) -> Self {
        let mut nodes = States { alive: 1, ..States::default() };
        for member in snapshot.nodes() {
            match member.status {
                Status::Alive => nodes.alive += 1,
                Status::Suspect => nodes.suspect += 1,
                Status::Dead => nodes.dead += 1,
                Status::Left => nodes.left += 1,
            }
        }
        let problem = |target| {
            snapshot.join_problems.iter().find(|(of, _)| of == target).map(|(_, why)| why.clone())
        };
        let targets = snapshot.targets.iter().map(|(target, joined)| JoinTarget {
            target: target.to_string(),
            joined: *joined,
            problem: problem(target),
        });
        Self {
            node: snapshot.me.name.as_str().to_owned(),
            version: api.version,
            mesh: snapshot.me.mesh.as_str().to_owned(),
            as_of: time(snapshot.now.wall),
            verdict: Verdict::of(&api.source.report(), snapshot),
            nodes,
            pair_interval_seconds: snapshot.pair_interval.as_secs_f64(),
            publish_interval_seconds: snapshot.publish_interval.as_secs_f64(),
            stalled_seconds: snapshot.stalled.as_secs_f64(),
            name_conflict: snapshot.name_conflict().map(ToString::to_string),
            unproven_names: snapshot.unproven,
            targets: targets.collect(),
        }
    }
}

/// The mesh and the answering bot: counts, intervals, targets, the verdict.
#[utoipa::path(get, path = "/api/v2/mesh", responses((status = 200, body = Mesh), Refusals))]
pub(super) async fn mesh(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let snapshot = api.source.snapshot();
    answer(&headers, &Mesh::of(&api, &snapshot))
}
