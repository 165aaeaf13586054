//! What can be done to hosts and to what joins them.

use canary_core::{Failure, Target};

use super::host::{Input, Starvation};
use super::{HostId, Link, World};

impl World {
    /// The process ends without a word; its port refuses from now on.
    pub fn crash(&mut self, id: HostId) {
        self.hosts[id.0].end_run();
    }

    /// The host moves to another target; connections to the old one are refused.
    pub fn move_to(&mut self, id: HostId, target: Target) {
        let host = &mut self.hosts[id.0];
        // Another host may listen there by now.
        if self.listening.get(&host.target) == Some(&id) {
            self.listening.remove(&host.target);
        }
        host.target = target;
    }

    /// The process says goodbye and ends.
    pub fn leave(&mut self, id: HostId) {
        let now = self.now_of(id);
        if let Some(core) = &mut self.hosts[id.0].core {
            core.leave(now);
        }
        self.drain(id);
    }

    /// The process stops running without ending.
    pub fn pause(&mut self, id: HostId) {
        self.hosts[id.0].paused = true;
    }

    /// The process runs again; what arrived in the meantime is there at once.
    pub fn resume(&mut self, id: HostId) {
        self.hosts[id.0].paused = false;
        self.catch_up(id);
        self.take(id, Input::Thaw);
    }

    /// The process runs only now and then, or freely again.
    pub fn starve(&mut self, id: HostId, starvation: Option<Starvation>) {
        self.hosts[id.0].starved = starvation;
        if starvation.is_none() {
            self.catch_up(id);
            self.take(id, Input::Thaw);
        }
    }

    /// The host's wall clock steps. The clock that decides does not: no host's does.
    pub fn step_wall_clock(&mut self, id: HostId, millis: i64) {
        self.hosts[id.0].wall_ahead += millis;
    }

    /// Packets from one host to another vanish, or travel again. No connection works without both
    /// directions.
    pub fn cut(&mut self, from: HostId, to: HostId, cut: bool) {
        if cut {
            self.cuts.insert((from, to))
        } else {
            self.cuts.remove(&(from, to))
        };
    }

    /// Connections from one host to another are refused, or accepted again. The other direction is
    /// another matter.
    pub fn refuse(&mut self, from: HostId, to: HostId, refuse: bool) {
        self.deny(from, to, refuse.then_some(Failure::Refused));
    }

    /// Connections from one host to another fail in this way, or no longer. The other direction is
    /// another matter.
    pub fn deny(&mut self, from: HostId, to: HostId, how: Option<Failure>) {
        match how {
            Some(how) => self.denials.insert((from, to), how),
            None => self.denials.remove(&(from, to)),
        };
    }

    /// All connections to the host fail in this way, or no longer.
    pub fn deny_inbound(&mut self, id: HostId, how: Option<Failure>) {
        self.hosts[id.0].inbound = how;
    }

    /// All connections that the host opens fail in this way, or no longer.
    pub fn deny_outbound(&mut self, id: HostId, how: Option<Failure>) {
        self.hosts[id.0].outbound = how;
    }

    /// Packets between two hosts travel like this, or like everybody's.
    pub fn set_way(&mut self, a: HostId, b: HostId, link: Option<Link>) {
        match link {
            Some(link) => self.ways.insert((a.min(b), a.max(b)), link),
            None => self.ways.remove(&(a.min(b), a.max(b))),
        };
    }

    /// Packets to and from the host travel like this, or like everybody's.
    pub fn set_way_of(&mut self, id: HostId, link: Option<Link>) {
        self.hosts[id.0].way = link;
    }

    /// Packets to and from the host vanish, or travel again.
    pub fn silence(&mut self, id: HostId, silent: bool) {
        self.hosts[id.0].silent = silent;
    }

    /// Puts a host on an island: packets travel within islands only.
    pub fn put_on_island(&mut self, id: HostId, island: u32) {
        self.hosts[id.0].island = island;
    }

    /// Changes how packets travel.
    pub fn set_link(&mut self, link: Link) {
        self.link = link;
    }
}
