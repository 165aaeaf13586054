//! A bot of the original, as far as it matters to ours: what it says and when, and what it dies of.

use std::collections::BTreeMap;
use std::time::Duration;

use canary_core::{Failure, NodeName, Target};
use canary_guests::Sample;

use super::{Message, Reply, Then, V1};
use crate::world::host::Input;
use crate::world::{HostId, World};

/// How often a bot of the original joins, measures, pushes and pings, and when it pings again a
/// node that did not answer.
const JOIN_INTERVAL: Duration = Duration::from_secs(3);
const MEASURE_INTERVAL: Duration = Duration::from_secs(3);
const PUSH_INTERVAL: Duration = Duration::from_secs(5);
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_AGAIN: Duration = Duration::from_secs(5);
/// After so many pings without an answer it drops a node.
const PINGS: u32 = 3;
/// A process of the original.
#[derive(Debug, Default)]
pub(in crate::world) struct Guest {
    seeds: Vec<Target>,
    /// The nodes that it holds for OK.
    pub(super) nodes: BTreeMap<NodeName, Target>,
    pub(super) samples: BTreeMap<(NodeName, NodeName, i64), Sample>,
    joined: bool,
    /// It waits for the answer of somebody whom it joins.
    joining: bool,
    /// Somebody joined it, or told it of a node, in the meantime: it wakes no more.
    joined_since: bool,
    /// Its own loops are stuck: it answers no more who joins it or tells it of a node, and
    /// everything else.
    pub(super) stuck: bool,
    /// How long it takes to answer who joins it.
    pub(super) joins_take: Duration,
    /// Samples that were pushed to it.
    pub(super) samples_pushed: usize,
    /// How often it was asked to admit a node.
    pub(super) joins: usize,
    /// Calls that are never answered.
    pub(super) held: usize,
    /// It was asked while it joined, and waits without end.
    pub(super) died: bool,
}

impl Guest {
    /// It knows nobody, and joins at the first of these that answers.
    pub(super) fn new(seeds: Vec<Target>) -> Self {
        Self { seeds, ..Self::default() }
    }

    fn runs(&self) -> bool {
        self.joined && !self.stuck && !self.died
    }

    /// Somebody is new: that ends its own joining. While it waits for an answer the end is kept,
    /// and there is room for one.
    fn discovered(&mut self) {
        if self.joining {
            self.joined_since = true;
        } else {
            self.joined = true;
        }
    }
}

/// The original.
impl World {
    pub(super) fn begin_loops(&mut self, id: HostId) {
        for (pause, next) in [
            (JOIN_INTERVAL, V1::Join),
            (MEASURE_INTERVAL, V1::Measure),
            (PUSH_INTERVAL, V1::Push),
            (PING_INTERVAL, V1::Ping),
        ] {
            let phase = pause.mul_f64(self.rng.f64());
            self.schedule(self.now + phase, id, Input::V1(next));
        }
    }

    pub(super) fn answer_of_guest(&mut self, id: HostId, message: Message) -> Option<Reply> {
        let me = self.hosts[id.0].name.clone();
        let guest = self.hosts[id.0].guest.as_mut()?;
        guest.joins += usize::from(matches!(&message, Message::Join(..)));
        if guest.stuck && matches!(&message, Message::Join(..) | Message::Discover(..)) {
            guest.held += 1;
            return None;
        }
        match message {
            Message::Identify => return Some(Reply::Unimplemented),
            Message::Join(name, target) => {
                let held = guest.nodes.get(&name).is_some_and(|held| *held != target);
                if name == me || held {
                    return Some(Reply::Joined(me, Vec::new()));
                }
                let known = guest.nodes.iter().filter(|(known, _)| **known != name);
                let known: Vec<_> =
                    known.map(|(name, target)| (name.clone(), target.clone())).collect();
                guest.discovered();
                if !known.is_empty() && guest.nodes.insert(name.clone(), target.clone()).is_none() {
                    self.tell_others(id, &(name, target));
                }
                return Some(Reply::Joined(me, known));
            }
            Message::Ping(name, target) => {
                if name != me {
                    guest.nodes.insert(name, target);
                }
            }
            Message::Discover(name, target) => {
                guest.discovered();
                if name != me && guest.nodes.insert(name.clone(), target.clone()).is_none() {
                    self.tell_others(id, &(name, target));
                }
            }
            Message::Push(samples) => {
                guest.samples_pushed += samples.len();
                samples.into_iter().for_each(|sample| keep(guest, sample));
            }
            Message::Rtt => {}
        }
        Some(Reply::Empty)
    }

    /// Some nodes that a bot of the original holds for OK, drawn.
    fn some_nodes(&mut self, id: HostId, count: usize) -> Vec<(NodeName, Target)> {
        let guest = self.hosts[id.0].guest.as_ref();
        let nodes = guest.into_iter().flat_map(|guest| &guest.nodes);
        let mut nodes: Vec<_> =
            nodes.map(|(name, target)| (name.clone(), target.clone())).collect();
        self.rng.shuffle(&mut nodes);
        nodes.truncate(count);
        nodes
    }

    fn tell_others(&mut self, id: HostId, news: &(NodeName, Target)) {
        let others = self.some_nodes(id, 3);
        for (_, target) in others.into_iter().filter(|(known, _)| *known != news.0).take(2) {
            let message = Message::Discover(news.0.clone(), news.1.clone());
            self.call_v1(id, &target, message, Then::Nothing);
        }
    }

    pub(super) fn loop_of_guest(&mut self, id: HostId, input: V1) {
        let (name, at) = self.me(id);
        let Some(guest) = &mut self.hosts[id.0].guest else { return };
        let runs = guest.runs();
        match input {
            V1::Join => {
                // It joins at the first target that answers, until somebody is known.
                if !guest.joined && !guest.stuck && !guest.joining {
                    guest.joining = true;
                    let seed = guest.seeds.first().cloned();
                    let turn = usize::from(!guest.seeds.is_empty());
                    guest.seeds.rotate_left(turn);
                    if let Some(seed) = seed {
                        self.call_v1(id, &seed, Message::Join(name, at), Then::Joined);
                    }
                }
                self.schedule(self.now + JOIN_INTERVAL, id, Input::V1(V1::Join));
            }
            V1::Measure => {
                self.schedule(self.now + MEASURE_INTERVAL, id, Input::V1(V1::Measure));
                for (name, target) in self.some_nodes(id, usize::from(runs)) {
                    let then = Then::Measured(name, self.now);
                    self.call_v1(id, &target, Message::Rtt, then);
                }
            }
            V1::Push => {
                self.schedule(self.now + PUSH_INTERVAL, id, Input::V1(V1::Push));
                let guest = self.hosts[id.0].guest.as_ref();
                let samples = guest.into_iter().flat_map(|guest| guest.samples.values());
                let samples: Vec<_> = samples.cloned().collect();
                for (_, target) in self.some_nodes(id, if runs { 2 } else { 0 }) {
                    let message = Message::Push(samples.clone());
                    self.call_v1(id, &target, message, Then::Nothing);
                }
            }
            V1::Ping => {
                self.schedule(self.now + PING_INTERVAL, id, Input::V1(V1::Ping));
                for (other, target) in self.some_nodes(id, usize::from(runs)) {
                    let (name, at) = (name.clone(), at.clone());
                    self.call_v1(id, &target, Message::Ping(name, at), Then::Pinged(other, 1));
                }
            }
            V1::PingAgain(other, attempt) => {
                if let Some(target) = guest.nodes.get(&other).cloned() {
                    let then = Then::Pinged(other, attempt);
                    self.call_v1(id, &target, Message::Ping(name, at), then);
                }
            }
            _ => {}
        }
    }

    pub(super) fn answered_guest(
        &mut self,
        id: HostId,
        then: Then,
        answer: Result<Reply, Failure>,
    ) {
        let (me, now, wall) = (self.hosts[id.0].name.clone(), self.now, self.now_of(id).wall);
        let Some(guest) = &mut self.hosts[id.0].guest else { return };
        match (then, answer) {
            (Then::Joined, answer) => {
                guest.joining = false;
                guest.joined |= guest.joined_since;
                if let Ok(Reply::Joined(_, nodes)) = answer {
                    // Two ends, and room for one: the routine that should read them waits to write.
                    guest.died |= guest.joined_since;
                    guest.joined = true;
                    guest.nodes.extend(nodes.into_iter().filter(|(name, _)| *name != me));
                }
            }
            (Then::Pinged(other, attempt), Err(_)) => {
                if attempt < PINGS {
                    let again = Input::V1(V1::PingAgain(other, attempt + 1));
                    self.schedule(now + PING_AGAIN, id, again);
                } else {
                    guest.nodes.remove(&other);
                    // Who knows nobody begins again.
                    guest.joined &= !guest.nodes.is_empty();
                }
            }
            (Then::Measured(other, begun), answer) => {
                let taken = now.since(begun);
                let latency = answer.is_ok().then_some((taken, taken));
                let fresh = Sample::measured((&me, &other), latency, wall);
                let known = |sample: &Sample| {
                    let place = (me.clone(), other.clone(), sample.key());
                    latency.is_some() || guest.samples.contains_key(&place)
                };
                let kept: Vec<_> = fresh.into_iter().filter(known).collect();
                kept.into_iter().for_each(|sample| keep(guest, sample));
            }
            _ => {}
        }
    }
}

/// Keeps the newest sample of a pair.
fn keep(guest: &mut Guest, sample: Sample) {
    let place = (sample.from().clone(), sample.to().clone(), sample.key());
    if guest.samples.get(&place).is_none_or(|held| held.unix() < sample.unix()) {
        guest.samples.insert(place, sample);
    }
}
