//! What becomes of a probe, a call and its answer on the way.

use std::time::Duration;

use canary_core::{CallError, CallId, Exchange, Failure, ProbeId, ProbeReport, Record, Request, RequestId, Response, Target, Timing};

use super::host::{Input, Knock, Waiting};
use super::{HostId, Link, REORDERED_BY, Release, World};

/// What the kernel waits before it sends a lost SYN again (RFC 6298 section 2).
const SYN_RETRY: Duration = Duration::from_secs(1);
/// What it waits before it sends lost data again on a fast link.
const DATA_RETRY: Duration = Duration::from_millis(200);
/// How long a host takes to answer.
const SERVICE_TIME: Duration = Duration::from_micros(100);

impl World {
    /// Whether packets travel between two hosts, both ways.
    pub(super) fn linked(&self, a: HostId, b: HostId) -> bool {
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
        let link = self.link;
        let connect = self.travel(link, SYN_RETRY) + self.travel(link, SYN_RETRY);
        let fail = |failure: Failure| Input::Probe { probe, report: ProbeReport::Failed(failure), from: None };
        self.hosts[from.0].open_probes.insert(probe, None);
        self.schedule(self.now + timeout, from, fail(Failure::Timeout));
        match self.listening.get(target).copied() {
            Some(to) if !self.linked(from, to) || connect > timeout => {}
            Some(to) if !self.refused(from, to) => {
                let prober_life = self.hosts[from.0].life;
                let sent = self.now + connect;
                let knock = Knock { prober: from, prober_life, probe, sent, connect, first_request: None };
                let there = self.travel(link, DATA_RETRY);
                self.schedule(sent + there, to, Input::Knock(knock));
            }
            _ => self.schedule(self.now + connect, from, fail(Failure::Refused)),
        }
    }

    /// A request of a probe is answered. The second follows the first on the same connection.
    pub(super) fn answer_knock(&mut self, id: HostId, knock: Knock, record: &Record) {
        let Knock { prober, prober_life, probe, sent, connect, first_request } = knock;
        if self.hosts[prober.0].life != prober_life || !self.hosts[prober.0].open_probes.contains_key(&probe) {
            return;
        }
        let link = self.link;
        let answered = self.now + SERVICE_TIME + self.travel(link, DATA_RETRY);
        let taken = answered.since(sent);
        let (name, incarnation, instance) = (record.name.clone(), record.incarnation, record.instance);
        let answer = |first_request: Duration, request: Option<Duration>| {
            let timing = Timing { connect, first_request, request, ..Timing::default() };
            ProbeReport::Answered { timing, name, incarnation, instance }
        };
        match first_request {
            Some(first) => self.schedule(answered, prober, Input::Probe { probe, report: answer(first, Some(taken)), from: Some(id) }),
            None if connect + taken <= self.config.probe_timeout => {
                self.hosts[prober.0].open_probes.insert(probe, Some(answer(taken, None)));
                let there = self.travel(link, DATA_RETRY);
                self.schedule(answered + there, id, Input::Knock(Knock { sent: answered, first_request: Some(taken), ..knock }));
            }
            None => {}
        }
    }

    /// The process that a probe was for is gone: its kernel resets the connection.
    pub(super) fn reset_knock(&mut self, knock: Knock) {
        let Knock { prober, prober_life, probe, first_request, .. } = knock;
        let failure = if first_request.is_some() { Failure::Reset } else { Failure::Refused };
        let at = self.now + self.travel(self.link, DATA_RETRY);
        self.schedule_for(at, prober, prober_life, Input::Probe { probe, report: ProbeReport::Failed(failure), from: None });
    }

    /// An exchange as it arrives, by the releases of both ends.
    fn translated(&self, from: HostId, to: HostId, exchange: Box<Exchange>) -> Box<Exchange> {
        let speaker = &self.hosts[from.0];
        match (speaker.release, &speaker.core) {
            (Release::This, _) | (_, None) => exchange,
            (release, Some(core)) => Box::new(release.translated(*exchange, core.record().instance, self.hosts[to.0].release)),
        }
    }

    pub(super) fn call(&mut self, from: HostId, call: CallId, target: &Target, request: Request, timeout: Duration) {
        let request = match request {
            Request::Exchange(exchange) => {
                self.hosts[from.0].gossip_sent += exchange.packed_len() as u64;
                match self.listening.get(target).copied() {
                    Some(to) => Request::Exchange(self.translated(from, to, exchange)),
                    None => Request::Exchange(exchange),
                }
            }
            request => request,
        };
        self.hosts[from.0].open_calls.insert(call);
        let caller_life = self.hosts[from.0].life;
        let failed = |failure: Failure| Input::Response {
            call,
            result: Err(CallError { failure, detail: failure.as_str().to_owned() }),
            from: None,
        };
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
        let Some(waiting) = self.hosts[from.0].waiting.remove(&to) else { return };
        let Waiting { caller, caller_life, call } = waiting;
        let response = match response {
            Response::Exchange(exchange) => {
                self.hosts[from.0].gossip_sent += exchange.packed_len() as u64;
                Response::Exchange(self.translated(from, caller, exchange))
            }
            response => response,
        };
        if self.linked(from, caller) && self.hosts[caller.0].life == caller_life {
            let link = self.link;
            let at = self.now + SERVICE_TIME + self.travel(link, DATA_RETRY);
            self.schedule(at, caller, Input::Response { call, result: Ok(response), from: Some(from) });
        }
    }
}
