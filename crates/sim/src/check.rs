//! What a mesh must show. Everything here reads snapshots and what the scenario did, nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use canary_core::{Attempt, NodeName, Row, Snapshot, State, Status, Version};

use crate::world::{HostId, World};

/// Every running bot knows exactly the others that run, as alive or suspected.
pub fn all_know_all(world: &World) -> bool {
    let mut running: Vec<_> = world.running().map(|id| world.name(id)).collect();
    running.sort_unstable();
    world.running().all(|id| {
        let Some(snapshot) = world.snapshot(id) else { return false };
        let known = snapshot.membership().map(|member| &member.record.name);
        known.eq(running.iter().copied().filter(|name| *name != world.name(id)))
    })
}

/// Every running bot holds a successful sample of every pair of running bots.
pub fn full_matrix(world: &World) -> bool {
    Matrix::default().full(world)
}

/// Looks at matrices, and at each version of a row only once however many bots hold it.
#[derive(Debug, Default)]
pub struct Matrix {
    /// Packets are lost: a pair may just have failed, and is held all the same.
    lossy: bool,
    running: BTreeSet<NodeName>,
    /// Whether a row shows a success for everybody who runs, by instance and version.
    whole: BTreeMap<(u64, Version), bool>,
}

impl Matrix {
    /// Nothing was looked at yet.
    pub fn new(lossy: bool) -> Self {
        Self { lossy, ..Self::default() }
    }

    /// Whether every running bot holds a successful sample of every pair of running bots.
    pub fn full(&mut self, world: &World) -> bool {
        let running: BTreeSet<_> = world.running().map(|id| world.name(id).clone()).collect();
        if running != self.running {
            self.running = running;
            self.whole.clear();
        }
        world
            .running()
            .all(|id| world.snapshot(id).is_some_and(|snapshot| self.holds_all(&snapshot)))
    }

    fn holds_all(&mut self, snapshot: &Snapshot) -> bool {
        let others = snapshot
            .members
            .iter()
            .filter(|member| self.running.contains(&member.record.name))
            .collect::<Vec<_>>();
        others.len() + 1 == self.running.len()
            && others.iter().all(|member| match member.pair.main().latest() {
                Some((Attempt::Ok(_), _)) => true,
                Some((Attempt::Failed(_), _)) => self.lossy,
                None => false,
            })
            && others.iter().all(|member| {
                member.row.as_ref().is_some_and(|row| self.whole(member.record.instance.0, row))
            })
    }

    fn whole(&mut self, instance: u64, row: &Row) -> bool {
        let (running, lossy) = (&self.running, self.lossy);
        *self.whole.entry((instance, row.version())).or_insert_with(|| {
            let cells = row.cells();
            let held = |state| match state {
                State::Ok { .. } => true,
                State::Failed(_) => lossy,
                State::Unknown => false,
            };
            let measured =
                cells.iter().filter(|view| held(view.cell.state) && running.contains(view.target));
            measured.count() + 1 == running.len()
        })
    }
}

/// How often a running bot doubts another that runs.
pub fn false_suspicions(world: &World) -> usize {
    let running: BTreeSet<_> = world.running().map(|id| world.name(id).clone()).collect();
    let members =
        world.running().filter_map(|id| world.snapshot(id)).flat_map(|snapshot| snapshot.members);
    members
        .filter(|member| member.status == Status::Suspect && running.contains(&member.record.name))
        .count()
}

/// What keeps the mesh from being whole, for a person: the first few lacks.
pub fn lacks(world: &World) -> String {
    let running: BTreeSet<_> = world.running().map(|id| world.name(id).clone()).collect();
    let mut lacks = Vec::new();
    // The bot that lacks most comes first.
    let mut ids: Vec<_> = world.running().collect();
    ids.sort_by_key(|id| {
        std::cmp::Reverse(
            world.snapshot(*id).map_or(0, |snapshot| running.len() - snapshot.membership().count()),
        )
    });
    for id in ids {
        let Some(snapshot) = world.snapshot(id) else { continue };
        let me = world.name(id);
        if snapshot.members.is_empty() || !snapshot.join_problems.is_empty() {
            lacks.push(format!(
                "{me} is {:?}, {} members, problems {:?}",
                snapshot.standing,
                snapshot.members.len(),
                snapshot.join_problems
            ));
        }
        if snapshot.name_conflict().is_some() {
            lacks.push(format!("{me} yielded its name"));
        }
        for name in running.iter().filter(|name| *name != me) {
            let Some(member) = snapshot.member(name) else {
                lacks.push(format!("{me} does not know {name}"));
                continue;
            };
            if !member.status.is_present() {
                lacks.push(format!("{me} holds {name} for {}", member.status.as_str()));
            }
            let Some(row) = &member.row else {
                lacks.push(format!("{me} has no row of {name}"));
                continue;
            };
            let measured: BTreeSet<_> = row
                .cells()
                .iter()
                .filter(|view| matches!(view.cell.state, State::Ok { .. }))
                .map(|view| view.target.clone())
                .collect();
            if let Some(target) =
                running.iter().find(|target| *target != name && !measured.contains(*target))
            {
                let source = world
                    .running()
                    .find(|id| world.name(*id) == name)
                    .and_then(|id| world.snapshot(id));
                let own = source.as_ref().and_then(|source| source.member(target));
                let why = own.map(|own| {
                    (
                        own.status.as_str(),
                        own.proven,
                        own.pair.main().latest().map(|(_, wall)| wall),
                    )
                });
                let interval = source.as_ref().map(|source| source.pair_interval);
                lacks.push(format!(
                    "{me} has no {name} -> {target}, where it is {why:?}, measured every {interval:.1?}, now {}",
                    world.wall()
                ));
            }
        }
        lacks.extend(
            snapshot
                .membership()
                .filter(|member| !running.contains(&member.record.name))
                .map(|member| format!("{me} still lists {}", member.record.name)),
        );
    }
    let count = lacks.len();
    lacks.truncate(4);
    format!("{count} lacks: {}", lacks.join("; "))
}

/// No running bot other than itself lists `name` any more.
pub fn dropped_by_all(world: &World, name: &NodeName) -> bool {
    world.running().filter(|id| world.name(*id) != name).all(|id| {
        let status = world
            .snapshot(id)
            .and_then(|snapshot| snapshot.member(name).map(|member| member.status));
        !status.is_some_and(Status::is_present)
    })
}

/// Pairs of bots that run and can reach each other, of which the first holds the second for dead.
/// `reachable` tells which can.
pub fn false_deaths(
    world: &World,
    reachable: impl Fn(HostId, HostId) -> bool,
) -> Vec<(HostId, HostId)> {
    let ids: Vec<_> = world.running().collect();
    let mut deaths = Vec::new();
    for observer in &ids {
        let Some(snapshot) = world.snapshot(*observer) else { continue };
        for observed in
            ids.iter().filter(|observed| *observed != observer && reachable(*observer, **observed))
        {
            let status = snapshot.member(world.name(*observed)).map(|member| member.status);
            if matches!(status, Some(Status::Dead | Status::Left)) {
                deaths.push((*observer, *observed));
            }
        }
    }
    deaths
}

/// No latency anywhere is above the probe timeout.
pub fn no_bogus_latency(world: &World, probe_timeout: Duration) -> bool {
    // A code is exact to 0.05 %, so a latency at the timeout may read as slightly above it.
    let longest = probe_timeout.mul_f64(1.0005);
    world.running().filter_map(|id| world.snapshot(id)).all(|snapshot| {
        let own = snapshot.members.iter().all(|member| match member.pair.main().latest() {
            Some((Attempt::Ok(timing), _)) => timing.total() <= longest,
            Some((Attempt::Failed(_), _)) | None => true,
        });
        own && snapshot.members.iter().filter_map(|member| member.row.as_ref()).all(|row| {
            row.cells().iter().all(|view| match view.cell.state {
                State::Ok { total, .. } => total.decode() <= longest,
                State::Unknown | State::Failed(_) => true,
            })
        })
    })
}

/// The oldest row of a running node that any running bot holds; none while one is lacking.
pub fn oldest_row(world: &World) -> Option<Duration> {
    let running: BTreeSet<_> = world.running().map(|id| world.name(id)).collect();
    let mut oldest = Duration::ZERO;
    for id in world.running() {
        let snapshot = world.snapshot(id)?;
        for member in snapshot.members.iter().filter(|member| running.contains(&member.record.name))
        {
            oldest = oldest.max(member.row.as_ref()?.age(snapshot.now.time));
        }
    }
    Some(oldest)
}

/// The longest time since a running bot last began to measure one that it holds for present; none
/// while one was never measured. An address that never answered is dialled as rarely as strangers
/// are, and is left out.
pub fn longest_unmeasured(world: &World) -> Option<Duration> {
    let mut longest = Duration::ZERO;
    for snapshot in world.running().filter_map(|id| world.snapshot(id)) {
        for member in snapshot.present().filter(|member| member.proven) {
            let (_, begun) = member.pair.main().latest()?;
            longest = longest.max(Duration::from_millis(
                snapshot.now.wall.unix_millis().saturating_sub(begun.unix_millis()),
            ));
        }
    }
    Some(longest)
}

/// Probes that each running bot has ended, so that who stands still is seen.
pub fn probes_ended(world: &World) -> BTreeMap<HostId, u64> {
    let ended = |snapshot: Snapshot| {
        snapshot
            .members
            .iter()
            .map(|member| {
                member.pair.main().successes + member.pair.main().failures.iter().sum::<u64>()
            })
            .sum()
    };
    world.running().filter_map(|id| Some((id, ended(world.snapshot(id)?)))).collect()
}
