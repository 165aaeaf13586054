//! One checker for each promise. They read snapshots and what the scenario did, nothing else.

use std::collections::BTreeSet;

use canary_core::{Attempt, NodeName, State, Status};

use crate::world::{HostId, World};

/// Every running bot knows exactly the others that run, as alive or suspected.
pub fn all_know_all(world: &World) -> bool {
    let running: BTreeSet<_> = world.running().map(|id| world.name(id).clone()).collect();
    world.running().all(|id| {
        let known: BTreeSet<_> = present(world, id).into_iter().chain([world.name(id).clone()]).collect();
        known == running
    })
}

/// Every running bot holds a successful sample of every pair of running bots.
pub fn full_matrix(world: &World) -> bool {
    let running: BTreeSet<_> = world.running().map(|id| world.name(id).clone()).collect();
    world.running().all(|id| {
        let Some(snapshot) = world.snapshot(id) else { return false };
        let rows = snapshot.members.iter().map(|member| (&member.record.name, member.row.as_ref()));
        let mut pairs = 0;
        for (source, row) in rows {
            let Some(row) = row.filter(|_| running.contains(source)) else { continue };
            let cells = row.cells();
            let measured = cells.iter().filter(|view| matches!(view.cell.state, State::Ok { .. }) && running.contains(view.target));
            pairs += measured.count();
        }
        let own = snapshot
            .members
            .iter()
            .filter(|member| running.contains(&member.record.name))
            .filter(|member| matches!(member.pair.latest(), Some((Attempt::Ok(_), _))))
            .count();
        pairs + own == running.len() * (running.len() - 1)
    })
}

/// No running bot other than itself lists `name` any more.
pub fn dropped_by_all(world: &World, name: &NodeName) -> bool {
    world.running().filter(|id| world.name(*id) != name).all(|id| !present(world, id).contains(name))
}

/// Pairs of bots that run and can reach each other, of which the first holds the second for dead. `reachable` tells which can.
pub fn false_deaths(world: &World, reachable: impl Fn(HostId, HostId) -> bool) -> Vec<(HostId, HostId)> {
    let ids: Vec<_> = world.running().collect();
    let mut deaths = Vec::new();
    for observer in &ids {
        let Some(snapshot) = world.snapshot(*observer) else { continue };
        for observed in ids.iter().filter(|observed| *observed != observer && reachable(*observer, **observed)) {
            let status = snapshot.member(world.name(*observed)).map(|member| member.status);
            if matches!(status, Some(Status::Dead | Status::Left)) {
                deaths.push((*observer, *observed));
            }
        }
    }
    deaths
}

/// No latency anywhere is above the probe timeout.
pub fn no_bogus_latency(world: &World, probe_timeout: std::time::Duration) -> bool {
    // A code is exact to 0.05 %, so a latency at the timeout may read as slightly above it.
    let longest = probe_timeout.mul_f64(1.0005);
    world.running().filter_map(|id| world.snapshot(id)).all(|snapshot| {
        snapshot.members.iter().filter_map(|member| member.row.as_ref()).all(|row| {
            row.cells().iter().all(|view| match view.cell.state {
                State::Ok { total, .. } => total.decode() <= longest,
                State::Unknown | State::Failed(_) => true,
            })
        })
    })
}

fn present(world: &World, id: HostId) -> BTreeSet<NodeName> {
    let snapshot = world.snapshot(id);
    snapshot.iter().flat_map(canary_core::Snapshot::present).map(|member| member.record.name.clone()).collect()
}
