//! Bots of the original, and what ours do for them by the rules of `canary_guests`: messages of
//! `mesh.v1` travel as everything else does.

mod desk;
mod original;
mod ours;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use canary_core::{Failure, NodeName, Record, Target, Time};
use canary_guests::{JOIN_TIMEOUT, Sample};

use desk::Came;
pub(super) use original::Guest;
pub(super) use ours::Hosts;

use super::host::Input;
use super::{HostId, World};

/// A message of `mesh.v1`, or the question of ours whether it is one of ours.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Identify,
    Join(NodeName, Target),
    Ping(NodeName, Target),
    /// There is a node.
    Discover(NodeName, Target),
    Push(Vec<Sample>),
    Rtt,
}

#[derive(Clone, Debug)]
pub(super) enum Reply {
    Empty,
    Ours(Arc<Record>),
    /// It does not speak our protocol.
    Unimplemented,
    /// Its name, and whom it knows.
    Joined(NodeName, Vec<(NodeName, Target)>),
    NotUnique,
}

/// What the caller does with an answer.
#[derive(Debug)]
pub(super) enum Then {
    Nothing,
    /// The original's own calls.
    Joined,
    Pinged(NodeName, u32),
    Measured(NodeName, Time),
    /// A task of ours waits for it by this number.
    Awaited(u64),
}

#[derive(Debug)]
pub(super) enum V1 {
    /// Ours look at their guests.
    Look,
    /// A loop of the original.
    Join,
    Measure,
    Push,
    Ping,
    PingAgain(NodeName, u32),
    Call {
        message: Message,
        from: HostId,
        from_run: u64,
        number: u64,
    },
    Answer {
        number: u64,
        answer: Result<Reply, Failure>,
        from: Option<HostId>,
    },
    /// The time of a task that waits by this number is over. If it minds, that tells which process
    /// listened at an address.
    Over {
        number: u64,
        listening: Option<(Target, Option<u64>)>,
    },
}

impl V1 {
    pub(super) fn sender(&self) -> Option<HostId> {
        match self {
            Self::Call { from, .. } => Some(*from),
            Self::Answer { from, .. } => *from,
            _ => None,
        }
    }
}

/// For tests and scenarios.
impl World {
    /// The same world, in which bots of ours that start from now on host guests.
    #[must_use]
    pub fn with_guests(mut self) -> Self {
        self.hosts_guests = true;
        self
    }

    /// Adds a host with a bot of the original that joins at `seeds`.
    pub fn add_guest(&mut self, name: &str, seeds: &[HostId]) -> HostId {
        let id = self.place(name, super::target_of(HostId(self.hosts.len())));
        self.start_guest(id, seeds);
        id
    }

    /// Starts a process of the original on a host that has none.
    pub fn start_guest(&mut self, id: HostId, seeds: &[HostId]) {
        let seeds = seeds.iter().map(|seed| self.hosts[seed.0].target.clone()).collect();
        let host = &mut self.hosts[id.0];
        host.begin_run();
        host.guest = Some(Guest::new(seeds));
        let target = host.target.clone();
        self.listening.insert(target, id);
        self.begin_loops(id);
    }

    /// The loops of a bot of the original are stuck from now on.
    pub fn wedge_guest(&mut self, id: HostId) {
        if let Some(guest) = &mut self.hosts[id.0].guest {
            guest.stuck = true;
        }
    }

    /// All hosts with a running bot of the original.
    pub fn guests(&self) -> impl Iterator<Item = HostId> + '_ {
        let hosts = self.hosts.iter().enumerate();
        hosts.filter(|(_, host)| host.guest.is_some()).map(|(index, _)| HostId(index))
    }

    /// Whether a bot of the original was asked while it joined: it wakes no more.
    pub fn guest_died(&self, id: HostId) -> bool {
        self.hosts[id.0].guest.as_ref().is_some_and(|guest| guest.died)
    }

    /// How long a bot of the original takes from now on to answer who joins it.
    pub fn slow_guest(&mut self, id: HostId, joins_take: Duration) {
        if let Some(guest) = &mut self.hosts[id.0].guest {
            guest.joins_take = joins_take;
        }
    }

    /// Samples that were pushed to a bot of the original, however often each.
    pub fn samples_sent_to_guest(&self, id: HostId) -> usize {
        self.hosts[id.0].guest.as_ref().map_or(0, |guest| guest.samples_pushed)
    }

    /// How often a bot of the original was asked to admit a node.
    pub fn joins_at_guest(&self, id: HostId) -> usize {
        self.hosts[id.0].guest.as_ref().map_or(0, |guest| guest.joins)
    }

    /// Calls that a bot of the original never answers.
    pub fn held_by_guest(&self, id: HostId) -> usize {
        self.hosts[id.0].guest.as_ref().map_or(0, |guest| guest.held)
    }

    /// Whom a bot of the original knows.
    pub fn known_to_guest(&self, id: HostId) -> Vec<NodeName> {
        let guest = self.hosts[id.0].guest.as_ref();
        guest.map_or_else(Vec::new, |guest| guest.nodes.keys().cloned().collect())
    }

    /// The pairs of which a bot of the original holds a sample, and when it was measured.
    pub fn samples_of_guest(&self, id: HostId) -> BTreeMap<(NodeName, NodeName), u64> {
        let guest = self.hosts[id.0].guest.as_ref();
        let samples = guest.into_iter().flat_map(|guest| guest.samples.values());
        samples
            .map(|sample| ((sample.from().clone(), sample.to().clone()), sample.unix()))
            .collect()
    }
}

/// The way between.
impl World {
    fn call_v1(&mut self, from: HostId, target: &Target, message: Message, then: Then) {
        let host = &mut self.hosts[from.0];
        host.next_v1 += 1;
        let (number, from_run) = (host.next_v1, host.run);
        host.open_v1.insert(number, then);
        let failed = |failure| Input::V1(V1::Answer { number, answer: Err(failure), from: None });
        // A host of ours ends its calls itself, but for this one, which a socket would end.
        let is_ours = matches!(host.open_v1[&number], Then::Awaited(_));
        if !is_ours || matches!(message, Message::Push(_)) {
            self.schedule(self.now + JOIN_TIMEOUT, from, failed(Failure::Timeout));
        }
        let to = self.listening.get(target).copied();
        if to.is_some_and(|to| !self.linked(from, to)) {
            return;
        }
        let denied = to.map_or(Some(Failure::Refused), |to| self.denied(from, to));
        match (to, denied) {
            (Some(to), None) => {
                let at = self.now + self.way_once(from, to);
                let call = V1::Call { message, from, from_run, number };
                self.schedule(at, to, Input::V1(call));
            }
            (_, Some(Failure::Timeout)) => {}
            (_, failure) => {
                let at = self.now + self.link.delay * 2;
                self.schedule(at, from, failed(failure.unwrap_or(Failure::Refused)));
            }
        }
    }

    pub(super) fn take_v1(&mut self, id: HostId, input: V1) {
        match input {
            V1::Call { message, from, from_run, number } => {
                let joins = matches!(&message, Message::Join(..));
                let slow = self.hosts[id.0].guest.as_ref().map(|guest| guest.joins_take);
                if let Some(reply) = self.answer_v1(id, message, from)
                    && self.linked(id, from)
                {
                    let taken = slow.filter(|_| joins).unwrap_or_default();
                    let at = self.now + taken + self.way_once(id, from);
                    let answer = V1::Answer { number, answer: Ok(reply), from: Some(id) };
                    self.schedule_for(at, from, from_run, Input::V1(answer));
                }
            }
            V1::Answer { number, answer, .. } => match self.hosts[id.0].open_v1.remove(&number) {
                Some(Then::Awaited(number)) => self.came(id, number, Came::Answer(answer)),
                Some(then) => self.answered_guest(id, then, answer),
                None => {}
            },
            V1::Over { number, listening } => {
                let same = listening.is_none_or(|(target, run)| {
                    run.is_some()
                        && run == self.listening.get(&target).map(|host| self.hosts[host.0].run)
                });
                self.came(id, number, Came::Over(same));
            }
            V1::Look => self.look_at_guests(id),
            V1::Join | V1::Measure | V1::Push | V1::Ping | V1::PingAgain(..) => {
                self.loop_of_guest(id, input);
            }
        }
        self.go_on(id);
        if self.hosts[id.0].core.is_some() {
            self.drain(id);
        }
    }
}
