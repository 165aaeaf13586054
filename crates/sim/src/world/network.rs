//! What becomes of a probe, a call and its answer on the way.

use std::sync::Arc;
use std::time::Duration;

use canary_core::{CallError, CallId, Core, Failure, ProbeId, ProbeReport, Record, Request, RequestId, Response, Target, Time, Timing};

use super::{HostId, Input, Knock, Link, REORDERED_BY, Waiting, World};

/// What the kernel waits before it sends a lost SYN again (RFC 6298 section 2).
const SYN_RETRY: Duration = Duration::from_secs(1);
/// What it waits before it sends lost data again on a fast link.
const DATA_RETRY: Duration = Duration::from_millis(200);
/// How long a host takes to answer.
const SERVICE_TIME: Duration = Duration::from_micros(100);

impl World {
    /// Whether packets travel between two hosts, both ways.
    fn linked(&self, a: HostId, b: HostId) -> bool {
        let (here, there) = (&self.hosts[a.0], &self.hosts[b.0]);
        let cut = !self.cuts.is_empty() && (self.cuts.contains(&(a, b)) || self.cuts.contains(&(b, a)));
        !here.silent && !there.silent && here.island == there.island && !cut
    }

    /// Whether a connection is refused: nobody listens, or somebody between does not want it.
    fn refused(&self, from: HostId, to: HostId) -> bool {
        self.hosts[to.0].core.is_none() || self.refusals.contains(&(from, to))
    }

    /// One way of one packet, sent again while it is lost.
    fn travel(&mut self, link: Link, retry: Duration) -> Duration {
        let jitter = link.jitter.mul_f64(self.rng.f64());
        let mut taken = link.delay + jitter;
        let mut pause = retry;
        while self.rng.f64() < link.loss {
            taken += pause;
            pause *= 2;
        }
        if link.reorder > 0.0 && self.rng.f64() < link.reorder {
            taken += REORDERED_BY.mul_f64(self.rng.f64());
        }
        taken
    }

    pub(super) fn probe(&mut self, from: HostId, probe: ProbeId, target: &Target) {
        let timeout = self.config.probe_timeout;
        let give_up = (self.now + timeout, ProbeReport::Failed(Failure::Timeout));
        let (at, report) = match self.listening.get(target).copied() {
            Some(to) if self.linked(from, to) => {
                let link = self.link;
                let connect = self.travel(link, SYN_RETRY) + self.travel(link, SYN_RETRY);
                let there = self.travel(link, DATA_RETRY) + SERVICE_TIME;
                let back = self.travel(link, DATA_RETRY);
                if connect > timeout {
                    give_up
                } else if self.refused(from, to) {
                    (self.now + connect, ProbeReport::Failed(Failure::Refused))
                } else if !self.runs_freely(to) {
                    // Its kernel accepts; it answers when it runs, or the timeout comes first.
                    self.hosts[from.0].open_probes.insert(probe);
                    self.schedule(give_up.0, from, Input::Probe { probe, report: give_up.1 });
                    let knock = Knock { prober: from, prober_life: self.hosts[from.0].life, probe, begun: self.now, connect };
                    let arrives = self.now + connect + there;
                    return self.schedule(arrives, to, Input::Knock(knock));
                } else if connect + there + back <= timeout {
                    let request = self.travel(link, DATA_RETRY) + SERVICE_TIME + self.travel(link, DATA_RETRY);
                    let core = self.hosts[to.0].core.as_ref().map(Core::record).map(Arc::clone);
                    let Some(record) = core else { return };
                    self.answered(&record, connect, there + back, request)
                } else {
                    give_up
                }
            }
            Some(_) => give_up,
            None => {
                let link = self.link;
                (self.now + self.travel(link, SYN_RETRY) + self.travel(link, SYN_RETRY), ProbeReport::Failed(Failure::Refused))
            }
        };
        self.schedule(at, from, Input::Probe { probe, report });
    }

    /// A probe that is answered, and when its report is there.
    fn answered(&self, record: &Record, connect: Duration, first_request: Duration, request: Duration) -> (Time, ProbeReport) {
        let in_time = connect + first_request + request <= self.config.probe_timeout;
        let timing = Timing { connect, first_request, request: in_time.then_some(request), ..Timing::default() };
        let (name, incarnation, instance) = (record.name.clone(), record.incarnation, record.instance);
        let report = ProbeReport::Answered { timing, name, incarnation, instance };
        (self.now + connect + first_request + if in_time { request } else { Duration::ZERO }, report)
    }

    /// A host that did not run when it was probed does now.
    pub(super) fn answer_knock(&mut self, id: HostId, knock: Knock, record: &Record) {
        let Knock { prober, prober_life, probe, begun, connect } = knock;
        if !self.linked(id, prober) || self.hosts[prober.0].life != prober_life || !self.hosts[prober.0].open_probes.contains(&probe) {
            return;
        }
        let link = self.link;
        let back = self.travel(link, DATA_RETRY);
        let first_request = self.now.since(begun + connect) + back;
        if connect + first_request > self.config.probe_timeout {
            return;
        }
        let timing = Timing { connect, first_request, request: None, ..Timing::default() };
        let (name, incarnation, instance) = (record.name.clone(), record.incarnation, record.instance);
        let report = ProbeReport::Answered { timing, name, incarnation, instance };
        self.schedule(self.now + back, prober, Input::Probe { probe, report });
    }

    pub(super) fn call(&mut self, from: HostId, call: CallId, target: &Target, request: Request, timeout: Duration) {
        if let Request::Exchange(exchange) = &request {
            self.hosts[from.0].gossip_sent += exchange.packed_len() as u64;
        }
        self.hosts[from.0].open_calls.insert(call);
        let caller_life = self.hosts[from.0].life;
        let failed = |failure: Failure| Input::Response { call, result: Err(CallError { failure, detail: failure.as_str().to_owned() }) };
        self.schedule(self.now + timeout, from, failed(Failure::Timeout));
        match self.listening.get(target).copied() {
            Some(to) if !self.linked(from, to) => {}
            Some(to) if !self.refused(from, to) => {
                let link = self.link;
                let waiting = Waiting { caller: from, caller_life, call };
                if link.duplicate > 0.0 && self.rng.f64() < link.duplicate {
                    let again = self.now + self.travel(link, DATA_RETRY);
                    self.schedule(again, to, Input::Request { request: request.clone(), from: waiting });
                }
                let at = self.now + self.travel(link, DATA_RETRY);
                self.schedule(at, to, Input::Request { request, from: waiting });
            }
            _ => {
                let link = self.link;
                let at = self.now + self.travel(link, SYN_RETRY) + self.travel(link, SYN_RETRY);
                self.schedule(at, from, failed(Failure::Refused));
            }
        }
    }

    pub(super) fn reply(&mut self, from: HostId, to: RequestId, response: Response) {
        if let Response::Exchange(exchange) = &response {
            self.hosts[from.0].gossip_sent += exchange.packed_len() as u64;
        }
        let Some(waiting) = self.hosts[from.0].waiting.remove(&to) else { return };
        let Waiting { caller, caller_life, call } = waiting;
        if self.linked(from, caller) && self.hosts[caller.0].life == caller_life {
            let link = self.link;
            let at = self.now + SERVICE_TIME + self.travel(link, DATA_RETRY);
            self.schedule(at, caller, Input::Response { call, result: Ok(response) });
        }
    }
}
