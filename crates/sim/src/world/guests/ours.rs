//! A bot of ours that hosts guests: carries out what `canary_guests` decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use canary_core::{
    Answer, CallError, CallId, Failure, JoinAnswer, NodeName, Record, Request, Response, Snapshot,
    Status, Target,
};
use canary_guests::{
    Done, Hosting, Informed, JOIN_PATIENCE, JOIN_TIMEOUT, Joined, Joins, LOOK, Looked, Order, Sign,
    Told, Turn, Who, answers, guest_at, is_guest, news_of, rank, record, record_for,
};

use super::{Message, Own, Reply, Telling, Then, V1};
use crate::world::host::Input;
use crate::world::{HostId, World};

/// What a bot of ours needs for guests.
#[derive(Debug)]
pub(in crate::world) struct Hosts {
    hosting: Hosting,
    joins: Arc<Joins>,
    /// Callers that wait until a guest admits this bot.
    waiters: BTreeMap<u64, (Target, Waiter)>,
}

/// What is done once a guest has admitted this bot, or has not.
#[derive(Debug)]
pub(in crate::world) enum Waiter {
    /// A look at a node of this name.
    Look(NodeName),
    /// A stuck guest is asked again.
    AskAgain,
    /// The core asks who is at an address.
    Identify(CallId, Option<Arc<Record>>),
    /// The core asks to be admitted.
    Join(CallId),
    /// What a guest lacks is to be reported to it.
    Push(Arc<Record>, Informed),
}

impl World {
    /// A bot of ours starts to host guests.
    pub(in crate::world) fn begin_hosting(&mut self, id: HostId) {
        if self.hosts_guests {
            let joins = Arc::<Joins>::default();
            let hosting = Hosting::new(Arc::clone(&joins), self.config.probe_timeout, self.now);
            self.hosts[id.0].hosting = Some(Hosts { hosting, joins, waiters: BTreeMap::new() });
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

    /// The time of a caller that waits for a guest's answer is over.
    pub(super) fn waited_long_enough(&mut self, id: HostId, waiter: u64) {
        let waiting = self.hosts[id.0].hosting.as_mut().and_then(|own| own.waiters.remove(&waiter));
        if let Some((target, waiter)) = waiting {
            self.let_in(id, &target, waiter, Ok(Joined::Later));
        }
    }

    pub(super) fn snapshot_of(&self, id: HostId) -> Option<Snapshot> {
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

    pub(super) fn answered_v1(&mut self, id: HostId, then: Then, answer: Result<Reply, Failure>) {
        let now = self.now;
        if self.hosts[id.0].guest.is_some() {
            return self.answered_guest(id, then, answer);
        }
        let Some(snapshot) = self.snapshot_of(id) else { return };
        match then {
            Then::Identified(target, waiter) => self.identified(id, &target, waiter, answer),
            Then::JoinEnded(target) => match answer {
                Ok(Reply::Joined(name, nodes)) => {
                    let teller: Arc<str> = target.host().into();
                    let own = self.hosts[id.0].hosting.as_mut().expect("it asked");
                    for (name, target) in nodes {
                        let (sign, teller) = (Sign::Hearsay, Arc::clone(&teller));
                        let told = Told::Node { name, target, sign, teller };
                        own.hosting.handle_told(told, &snapshot, now);
                    }
                    self.join_ended(id, &target, Ok(Joined::As(name)));
                }
                Err(Failure::Timeout) => {
                    let (name, at) = self.me(id);
                    let then = Then::JoinChecked(target.clone());
                    self.call_v1(id, &target, Message::Ping(name, at), then);
                }
                Ok(_) => self.join_ended(id, &target, Err(failed(Failure::Protocol))),
                Err(failure) => self.join_ended(id, &target, Err(failed(failure))),
            },
            Then::JoinChecked(target) => {
                let measures =
                    guest_at(&snapshot, &target).is_some_and(|guest| snapshot.measures(guest));
                let outcome = match answer {
                    Ok(_) if measures => Err(failed(Failure::Timeout)),
                    Ok(_) => Ok(Joined::Stuck),
                    Err(failure) => Err(failed(failure)),
                };
                self.join_ended(id, &target, outcome);
            }
            Then::Found(target, waiter) => {
                let expected = match &waiter {
                    Waiter::Look(name) => Some(name.clone()),
                    Waiter::Identify(_, expected) => expected.as_ref().map(|it| it.name.clone()),
                    _ => None,
                };
                let known = guest_at(&snapshot, &target).map(|guest| guest.record.name.clone());
                let found = answer.map(|_| known.or(expected));
                self.found(id, &target, waiter, found.map_err(failed));
            }
            Then::Admitted(call, record) => {
                let joined = |_| Response::Join(JoinAnswer::Admitted(record));
                self.respond(id, call, answer.map(joined).map_err(failed));
            }
            Then::Exchanged(call, sign_of_life) => {
                let result = answer.map(|_| Response::Exchange(sign_of_life));
                self.respond(id, call, result.map_err(failed));
            }
            Then::Told(telling) => self.told(id, *telling, answer.is_ok()),
            Then::Forwarded(host) => self.done(id, Done::Forwarded(host)),
            Then::Nothing | Then::Joined | Then::Pinged(..) | Then::Measured(..) => {}
        }
    }

    fn done(&mut self, id: HostId, done: Done) {
        let (now, snapshot) = (self.now, self.snapshot_of(id));
        if let (Some(own), Some(snapshot)) = (&mut self.hosts[id.0].hosting, snapshot) {
            own.hosting.handle_done(done, &snapshot, now);
        }
    }

    /// An answer to a call of the core is there.
    fn respond(&mut self, id: HostId, call: CallId, result: Result<Response, CallError>) {
        self.schedule(self.now, id, Input::Response { call, result, from: None });
    }

    /// Somebody is at an address, or nobody.
    fn identified(
        &mut self,
        id: HostId,
        target: &Target,
        waiter: Waiter,
        answer: Result<Reply, Failure>,
    ) {
        let now = self.now;
        let joins = Arc::clone(&self.hosts[id.0].hosting.as_ref().expect("it asked").joins);
        match answer {
            Ok(Reply::Ours(record)) => {
                joins.found_ours(target, Arc::clone(&record), now);
                match waiter {
                    Waiter::Look(name) => {
                        let own = Own::Look(name, target.clone(), true);
                        self.ask_own(id, Request::Join(record), own);
                    }
                    Waiter::Identify(call, _) => {
                        self.respond(id, call, Ok(Response::Identify(record)));
                    }
                    _ => {}
                }
            }
            Ok(Reply::Unimplemented) => match joins.guest_just_now(target, now) {
                Some(name) => self.found(id, target, waiter, Ok(Some(name))),
                None => self.join(id, target, waiter),
            },
            Ok(_) => self.found(id, target, waiter, Err(failed(Failure::Protocol))),
            Err(failure) => {
                joins.missed(target, failure);
                self.found(id, target, waiter, Err(failed(failure)));
            }
        }
    }

    /// Has a guest admit this bot, if it may be asked now.
    fn join(&mut self, id: HostId, target: &Target, waiter: Waiter) {
        let (now, (name, at)) = (self.now, self.me(id));
        let Some(snapshot) = self.snapshot_of(id) else { return };
        let Some(own) = &mut self.hosts[id.0].hosting else { return };
        let turn = own.joins.turn(target, own.joins.elsewhere(&snapshot, target, now), now);
        let patience =
            if matches!(waiter, Waiter::Push(..)) { JOIN_TIMEOUT } else { JOIN_PATIENCE };
        if turn == Turn::Ask {
            let then = Then::JoinEnded(target.clone());
            self.call_v1(id, target, Message::Join(name, at), then);
        }
        match turn {
            Turn::Ask | Turn::UnderWay => {
                let host = &mut self.hosts[id.0];
                host.next_v1 += 1;
                let number = host.next_v1;
                let own = host.hosting.as_mut().expect("it was there");
                own.waiters.insert(number, (target.clone(), waiter));
                let over = Input::V1(V1::Patience(number));
                self.schedule(self.now + patience, id, over);
            }
            Turn::Stuck => self.let_in(id, target, waiter, Ok(Joined::Stuck)),
            Turn::Elsewhere => self.let_in(id, target, waiter, Ok(Joined::Later)),
        }
    }

    fn join_ended(&mut self, id: HostId, target: &Target, outcome: Result<Joined, CallError>) {
        let now = self.now;
        let Some(own) = &mut self.hosts[id.0].hosting else { return };
        own.joins.ended(target, outcome.clone(), now);
        let numbers: Vec<_> = own
            .waiters
            .iter()
            .filter(|(_, (waited_for, _))| waited_for == target)
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            let own = self.hosts[id.0].hosting.as_mut().expect("it was there");
            if let Some((_, waiter)) = own.waiters.remove(&number) {
                self.let_in(id, target, waiter, outcome.clone());
            }
        }
    }

    /// What came of asking a guest to admit this bot, for one who waits for it.
    pub(super) fn let_in(
        &mut self,
        id: HostId,
        target: &Target,
        waiter: Waiter,
        outcome: Result<Joined, CallError>,
    ) {
        let Some(snapshot) = self.snapshot_of(id) else { return };
        match (waiter, outcome) {
            (Waiter::Push(guest, mut informed), outcome) => {
                if matches!(outcome, Ok(Joined::As(_) | Joined::Unnamed)) {
                    informed.let_us_in();
                    return self.tell_guest(id, &snapshot, guest, informed);
                }
                self.done(id, Done::Pushed(guest, informed));
            }
            (Waiter::Join(call), Ok(joined)) => {
                let joined = match joined {
                    Joined::As(name) => answers::let_in(&snapshot, &name, target),
                    Joined::Stuck => JoinAnswer::Stuck,
                    Joined::Later => JoinAnswer::InTurn,
                    Joined::Unnamed => JoinAnswer::Busy,
                };
                self.respond(id, call, Ok(Response::Join(joined)));
            }
            (Waiter::Join(call), Err(error)) => self.respond(id, call, Err(error)),
            (waiter, Ok(Joined::As(name))) => self.found(id, target, waiter, Ok(Some(name))),
            (waiter, Ok(Joined::Unnamed)) => self.found(id, target, waiter, Ok(None)),
            (waiter, Ok(Joined::Stuck | Joined::Later)) => {
                let (name, at) = self.me(id);
                let then = Then::Found(target.clone(), waiter);
                self.call_v1(id, target, Message::Ping(name, at), then);
            }
            (waiter, Err(error)) => self.found(id, target, waiter, Err(error)),
        }
    }

    /// A guest of this name is at an address; none if it does not tell.
    fn found(
        &mut self,
        id: HostId,
        target: &Target,
        waiter: Waiter,
        found: Result<Option<NodeName>, CallError>,
    ) {
        let Some(snapshot) = self.snapshot_of(id) else { return };
        match (waiter, found) {
            (Waiter::Look(name), Ok(Some(other))) if other != name => {
                self.done(id, Done::Looked(name, Looked::Another(other)));
            }
            (Waiter::Look(name), Ok(_)) => {
                let joiner = record_for(&name, target, snapshot.member(&name));
                let own = Own::Look(name, target.clone(), false);
                self.ask_own(id, Request::Join(Arc::new(joiner)), own);
            }
            (Waiter::Look(name), Err(_)) => self.done(id, Done::Looked(name, Looked::Failed)),
            (Waiter::Identify(call, expected), Ok(Some(name))) => {
                let record = answers::identified(&snapshot, &name, target, expected);
                self.respond(id, call, Ok(Response::Identify(record)));
            }
            (Waiter::Identify(call, _), Ok(None)) => {
                self.respond(id, call, Err(failed(Failure::Protocol)));
            }
            (Waiter::Identify(call, _), Err(error)) => self.respond(id, call, Err(error)),
            (Waiter::AskAgain | Waiter::Join(_) | Waiter::Push(..), _) => {}
        }
    }

    /// Who a guest is to one that measures it.
    pub(in crate::world) fn guest_for(&self, id: HostId, prober: HostId) -> Arc<Record> {
        let (name, target) = self.me(id);
        let held = self.hosts[prober.0].core.as_ref().and_then(|core| core.member(&name));
        let held = held.filter(|held| is_guest(&held.record) && held.record.target == target);
        held.map_or_else(|| Arc::new(record_for(&name, &target, None)), |held| held.record)
    }

    /// Asks the own core as if a peer did.
    fn ask_own(&mut self, id: HostId, request: Request, own: Own) {
        let now = self.now_of(id);
        let host = &mut self.hosts[id.0];
        let request_id = host.next_request_id();
        host.own.insert(request_id, own);
        if let Some(core) = &mut host.core {
            core.handle_request(request_id, request, now);
        }
        self.drain(id);
    }

    pub(in crate::world) fn own_answered(&mut self, id: HostId, own: Own, response: Response) {
        let Own::Look(name, target, tried) = own else { return };
        let looked = match response {
            Response::Join(JoinAnswer::Outdated(held)) if !tried => {
                let next = Arc::new(record(&name, &target, held.next()));
                return self.ask_own(id, Request::Join(next), Own::Look(name, target, true));
            }
            Response::Join(
                JoinAnswer::Admitted(_) | JoinAnswer::Yourself | JoinAnswer::NameTaken(_),
            ) => Looked::Settled,
            _ => Looked::Failed,
        };
        self.done(id, Done::Looked(name, looked));
    }

    pub(super) fn carry_out_orders(&mut self, id: HostId) {
        while let Some(order) =
            self.hosts[id.0].hosting.as_mut().and_then(|own| own.hosting.poll_order())
        {
            match order {
                Order::Look { name, target } => {
                    let then = Then::Identified(target.clone(), Waiter::Look(name));
                    self.call_v1(id, &target, Message::Identify, then);
                }
                Order::AskAgain(target) => {
                    let then = Then::Identified(target.clone(), Waiter::AskAgain);
                    self.call_v1(id, &target, Message::Identify, then);
                }
                Order::Gossip(exchange) => {
                    self.ask_own(id, Request::Exchange(exchange), Own::Nothing);
                }
                Order::Renew(record) => self.ask_own(id, Request::Join(record), Own::Nothing),
                Order::Push { guest, discover: true, informed } => {
                    let target = guest.target.clone();
                    self.join(id, &target, Waiter::Push(guest, informed));
                }
                Order::Push { guest, discover: false, informed } => {
                    let Some(snapshot) = self.snapshot_of(id) else { return };
                    let own = self.hosts[id.0].hosting.as_ref().expect("it gave the order");
                    if own.joins.waits(&snapshot, &guest.target, self.now) {
                        self.done(id, Done::Pushed(guest, informed));
                    } else {
                        self.tell_guest(id, &snapshot, guest, informed);
                    }
                }
                Order::Forward { host, samples } => {
                    let then = Then::Forwarded(host.clone());
                    self.call_v1(id, &host, Message::Push(samples), then);
                }
                Order::Pending(pending) => {
                    let now = self.now_of(id);
                    if let Some(core) = &mut self.hosts[id.0].core {
                        core.handle_pending(pending, now);
                    }
                }
            }
        }
    }

    /// Tells a guest of members and samples that it lacks.
    fn tell_guest(
        &mut self,
        id: HostId,
        snapshot: &Snapshot,
        guest: Arc<Record>,
        mut informed: Informed,
    ) {
        let members = informed.members_to_tell(&guest, snapshot);
        let mut members: Vec<_> =
            members.iter().map(|member| (member.name.clone(), member.target.clone())).collect();
        members.reverse();
        self.go_on_telling(id, Telling { guest, informed, members, ahead: None });
    }

    fn go_on_telling(&mut self, id: HostId, mut telling: Telling) {
        let target = telling.guest.target.clone();
        let message = match telling.members.last() {
            Some((name, target)) => Message::Discover(name.clone(), target.clone()),
            None => {
                let Some(snapshot) = self.snapshot_of(id) else { return };
                telling.informed.forget_untold(&snapshot.me);
                let mut ahead = telling.informed.progress.clone();
                let rows = 0..=snapshot.members.len();
                let samples: Vec<_> = rows
                    .flat_map(|row| news_of(row, &telling.guest.name, &snapshot, &mut ahead))
                    .collect();
                telling.ahead = Some(ahead);
                Message::Push(samples)
            }
        };
        self.call_v1(id, &target, message, Then::Told(Box::new(telling)));
    }

    /// A guest answered a report, or did not.
    fn told(&mut self, id: HostId, mut telling: Telling, answered: bool) {
        if let Some(ahead) = telling.ahead.take() {
            if answered {
                telling.informed.progress = ahead;
            }
            return self.done(id, Done::Pushed(telling.guest, telling.informed));
        }
        let told = telling.members.pop().map(|(name, _)| name);
        if answered {
            telling.informed.told.extend(told);
            return self.go_on_telling(id, telling);
        }
        telling.informed.answers = false;
        self.done(id, Done::Pushed(telling.guest, telling.informed));
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
        let now = self.now;
        let Some(snapshot) = self.snapshot_of(id) else { return };
        let Some(own) = &self.hosts[id.0].hosting else {
            return self.respond(id, call, Err(failed(Failure::Protocol)));
        };
        let joins = Arc::clone(&own.joins);
        let (name, at) = self.me(id);
        let guest = whom.filter(|whom| is_guest(whom));
        match (request, guest) {
            (Request::Join(_), _) => {
                let said = match joins.at(target, now) {
                    Some(Who::Guest(name)) => {
                        snapshot.member(&name).filter(|member| is_guest(&member.record))
                    }
                    _ => None,
                };
                let known = said.or_else(|| guest_at(&snapshot, target));
                if let Some(guest) = known.filter(|guest| guest.status == Status::Alive) {
                    let then = Then::Admitted(call, Arc::clone(&guest.record));
                    return self.call_v1(id, target, Message::Ping(name, at), then);
                }
                if joins.elsewhere(&snapshot, target, now).is_none()
                    && !joins.is_turn(target, rank(&snapshot, target), now)
                {
                    let in_turn = Response::Join(JoinAnswer::InTurn);
                    return self.respond(id, call, Ok(in_turn));
                }
                self.join(id, target, Waiter::Join(call));
            }
            (Request::Identify, guest) => {
                let then = Then::Identified(target.clone(), Waiter::Identify(call, guest));
                self.call_v1(id, target, Message::Identify, then);
            }
            (Request::Exchange(asked), Some(guest)) => {
                let other = |who| matches!(who, Who::Guest(name) if name != guest.name);
                if joins.at(target, now).is_some_and(other) {
                    return self.respond(id, call, Err(failed(Failure::Identity)));
                }
                let core = self.hosts[id.0].core.as_ref();
                let heartbeat = core.and_then(|core| core.heartbeat_of(guest.instance));
                let heartbeat = heartbeat.unwrap_or_default();
                let sign = answers::sign_of_life(&guest, heartbeat, asked.from);
                let then = Then::Exchanged(call, Box::new(sign));
                self.call_v1(id, target, Message::Ping(name, at), then);
            }
            (Request::Ask(_), Some(_)) => {
                self.respond(id, call, Ok(Response::Asked(Answer::Unknown)));
            }
            (_, None) => self.respond(id, call, Err(failed(Failure::Protocol))),
        }
    }
}

fn failed(failure: Failure) -> CallError {
    CallError { failure, detail: failure.as_str().to_owned() }
}
