//! A bot of ours that hosts guests: the code of `canary_guests`, on simulated calls.

use std::sync::Arc;
use std::task::Poll;

use canary_core::{CallId, Failure, NodeName, Record, Request, Response, Snapshot, Target};
use canary_guests::{Host, Hosting, Joins, LOOK, Sign, Told, is_guest, record_for};

use super::desk::{Came, Desk, Ended, Task, Wish, failed};
use super::{Message, Reply, Then, V1};
use crate::world::host::Input;
use crate::world::{HostId, World};

/// What a bot of ours does for guests.
#[derive(Debug)]
pub(in crate::world) struct Hosts {
    hosting: Hosting,
    host: Host<Desk>,
    desk: Desk,
    /// What runs; with the call of the core that it is for, if it is for one.
    tasks: Vec<(Option<CallId>, Task)>,
}

impl Hosts {
    /// Begins with what was ordered, and goes on with all as far as it can.
    fn go_on(&mut self) -> Vec<Ended> {
        while let Some(order) = self.hosting.poll_order() {
            let host = self.host.clone();
            let carried_out = async move { Ended::Order(host.carry_out(order).await) };
            self.tasks.push((None, Task::new(carried_out)));
        }
        let mut ended = Vec::new();
        self.tasks.retain_mut(|(_, task)| match task.go_on() {
            Poll::Ready(outcome) => {
                ended.push(outcome);
                false
            }
            Poll::Pending => true,
        });
        ended
    }
}

impl World {
    /// A bot of ours starts to host guests.
    pub(in crate::world) fn begin_hosting(&mut self, id: HostId) {
        if self.hosts_guests
            && let Some(snapshot) = self.snapshot_of(id)
        {
            let joins = Arc::<Joins>::default();
            let desk = Desk::new(snapshot, self.now);
            let host = Host::new(desk.clone(), Arc::clone(&joins), true);
            let hosting = Hosting::new(joins, self.config.probe_timeout, self.now);
            self.hosts[id.0].hosting = Some(Hosts { hosting, host, desk, tasks: Vec::new() });
            self.schedule(self.now + LOOK, id, Input::V1(V1::Look));
        }
    }

    pub(super) fn look_at_guests(&mut self, id: HostId) {
        self.schedule(self.now + LOOK, id, Input::V1(V1::Look));
        let (now, snapshot) = (self.now, self.snapshot_of(id));
        if let (Some(own), Some(snapshot)) = (&mut self.hosts[id.0].hosting, snapshot) {
            own.hosting.handle_timeout(&snapshot, now);
        }
    }

    fn snapshot_of(&self, id: HostId) -> Option<Snapshot> {
        self.hosts[id.0].core.as_ref().map(|core| core.snapshot(self.now_of(id)))
    }

    pub(super) fn me(&self, id: HostId) -> (NodeName, Target) {
        (self.hosts[id.0].name.clone(), self.hosts[id.0].target.clone())
    }

    pub(super) fn answer_v1(
        &mut self,
        id: HostId,
        message: Message,
        from: HostId,
    ) -> Option<Reply> {
        if self.hosts[id.0].guest.is_some() {
            return self.answer_of_guest(id, message);
        }
        let (snapshot, now) = (self.snapshot_of(id)?, self.now);
        let teller: Arc<str> = self.hosts[from.0].name.as_str().into();
        let own = self.hosts[id.0].hosting.as_mut()?;
        let mut hear_of = |(name, target), sign| {
            let teller = Arc::clone(&teller);
            own.hosting.handle_told(Told::Node { name, target, sign, teller }, &snapshot, now);
        };
        match message {
            Message::Identify => return Some(Reply::Ours(Arc::clone(&snapshot.me))),
            Message::Join(name, target) => {
                let held = snapshot.member(&name).filter(|held| {
                    held.status.is_present()
                        && held.record.target != target
                        && !is_guest(&held.record)
                });
                if held.is_some() || name == snapshot.me.name {
                    return Some(Reply::NotUnique);
                }
                let others = snapshot.present().filter(|member| member.record.name != name);
                let others =
                    others.map(|other| (other.record.name.clone(), other.record.target.clone()));
                let me = (snapshot.me.name.clone(), snapshot.me.target.clone());
                let known = std::iter::once(me).chain(others).collect();
                hear_of((name, target), Sign::Joins);
                return Some(Reply::Joined(snapshot.me.name.clone(), known));
            }
            Message::Ping(name, target) => hear_of((name, target), Sign::Pings),
            Message::Discover(name, target) => hear_of((name, target), Sign::Hearsay),
            Message::Push(samples) => {
                let known = samples.into_iter().filter_map(|sample| sample.of(&snapshot));
                own.hosting.handle_told(Told::Samples(known.collect()), &snapshot, now);
            }
            Message::Rtt => {}
        }
        Some(Reply::Empty)
    }

    /// Something that a task waited for has come.
    pub(super) fn came(&mut self, id: HostId, number: u64, came: Came) {
        let desk = self.hosts[id.0].hosting.as_ref().map(|own| own.desk.clone());
        if desk.is_some_and(|desk| desk.deliver(number, came)) {
            self.go_on(id);
        }
    }

    /// Runs the tasks of a bot until all of them wait.
    pub(super) fn go_on(&mut self, id: HostId) {
        while let Some(snapshot) = self.snapshot_of(id) {
            let now = self.now;
            let Some(own) = &mut self.hosts[id.0].hosting else { return };
            own.desk.set(snapshot, now);
            let (ended, wishes) = (own.go_on(), own.desk.take_wishes());
            if ended.is_empty() && wishes.is_empty() {
                return;
            }
            for ended in ended {
                self.ended(id, ended);
            }
            for wish in wishes {
                self.fulfil(id, wish);
            }
        }
    }

    fn ended(&mut self, id: HostId, ended: Ended) {
        let (now, snapshot) = (self.now, self.snapshot_of(id));
        match ended {
            Ended::Order(Some(done)) => {
                if let (Some(own), Some(snapshot)) = (&mut self.hosts[id.0].hosting, snapshot) {
                    own.hosting.handle_done(done, &snapshot, now);
                }
            }
            Ended::Call(call, result) => {
                self.schedule(now, id, Input::Response { call, result, from: None });
            }
            Ended::Alone | Ended::Order(None) => {}
        }
    }

    fn fulfil(&mut self, id: HostId, wish: Wish) {
        let now = self.now;
        match wish {
            Wish::Call(number, target, message) => {
                self.call_v1(id, &target, message, Then::Awaited(number));
            }
            Wish::AskCore(number, request) => {
                let at = self.now_of(id);
                let host = &mut self.hosts[id.0];
                let request_id = host.next_request_id();
                host.own.insert(request_id, number);
                if let Some(core) = &mut host.core {
                    core.handle_request(request_id, request, at);
                }
                self.drain(id);
            }
            Wish::Sleep(number, pause) => {
                let over = V1::Over { number, listening: None };
                self.schedule(now + pause, id, Input::V1(over));
            }
            Wish::Settle(number, target, pause) => {
                let run = self.listening.get(&target).map(|host| self.hosts[host.0].run);
                let over = V1::Over { number, listening: Some((target, run)) };
                self.schedule(now + pause, id, Input::V1(over));
            }
            Wish::Tell(told) => {
                let snapshot = self.snapshot_of(id);
                if let (Some(own), Some(snapshot)) = (&mut self.hosts[id.0].hosting, snapshot) {
                    own.hosting.handle_told(told, &snapshot, now);
                }
            }
            Wish::Publish(pending) => {
                let at = self.now_of(id);
                if let Some(core) = &mut self.hosts[id.0].core {
                    core.handle_pending(pending, at);
                }
                self.drain(id);
            }
            Wish::Spawn(task) => {
                if let Some(own) = &mut self.hosts[id.0].hosting {
                    own.tasks.push((None, task));
                }
            }
        }
    }

    /// Plays a guest's part of `mesh.v2` for a call of the core.
    pub(in crate::world) fn speak(
        &mut self,
        id: HostId,
        call: CallId,
        target: &Target,
        whom: Option<Arc<Record>>,
        request: Request,
    ) {
        let host = &mut self.hosts[id.0];
        let Some(own) = &mut host.hosting else {
            let result = Err(failed(Failure::Protocol));
            return self.schedule(self.now, id, Input::Response { call, result, from: None });
        };
        let heartbeat = |whom: &Record| {
            let core = host.core.as_ref();
            core.and_then(|core| core.heartbeat_of(whom.instance)).unwrap_or_default()
        };
        let whom = whom.map(|whom| (Arc::clone(&whom), heartbeat(&whom)));
        let (speaker, target) = (own.host.clone(), target.clone());
        let spoken = async move { Ended::Call(call, speaker.speak(whom, &target, request).await) };
        own.tasks.push((Some(call), Task::new(spoken)));
        self.go_on(id);
    }

    /// A call of the core has ended, by its answer or by its timeout: nobody waits for it any more.
    pub(in crate::world) fn call_ended(&mut self, id: HostId, call: CallId) {
        let host = &mut self.hosts[id.0];
        if let Some(own) = &mut host.hosting {
            own.tasks.retain(|(whose, _)| *whose != Some(call));
            host.open_v1.retain(|_, then| match then {
                Then::Awaited(number) => own.desk.is_awaited(*number),
                _ => true,
            });
        }
    }

    /// The own core answered a task.
    pub(in crate::world) fn own_answered(&mut self, id: HostId, number: u64, response: Response) {
        self.came(id, number, Came::Response(response));
    }

    /// Who a guest is to one that measures it.
    pub(in crate::world) fn guest_for(&self, id: HostId, prober: HostId) -> Arc<Record> {
        let (name, target) = self.me(id);
        let held = self.hosts[prober.0].core.as_ref().and_then(|core| core.member(&name));
        let held = held.filter(|held| is_guest(&held.record) && held.record.target == target);
        held.map_or_else(|| Arc::new(record_for(&name, &target, None)), |held| held.record)
    }
}
