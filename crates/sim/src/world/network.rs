//! What becomes of a probe, a call and its answer on the way.

use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    CallError, CallId, Exchange, Failure, KernelTiming, ProbeId, ProbeReport, Record, Request,
    RequestId, Response, Target, Timing,
};

use super::host::{Input, Knock, Waiting};
use super::{HostId, Link, REORDERED_BY, Release, World};

/// What the kernel waits before it sends a lost SYN again (RFC 6298 section 2).
const SYN_RETRY: Duration = Duration::from_secs(1);
/// What it waits before it sends lost data again on a fast link.
const DATA_RETRY: Duration = Duration::from_millis(200);
/// Segments of a prober's connection that loses none.
const SEGMENTS: u32 = 6;
/// How long a host takes to answer.
const SERVICE_TIME: Duration = Duration::from_micros(100);

impl World {
    /// Whether packets travel between two hosts, both ways.
    pub(super) fn linked(&self, a: HostId, b: HostId) -> bool {
        let (here, there) = (&self.hosts[a.0], &self.hosts[b.0]);
        let cut =
            !self.cuts.is_empty() && (self.cuts.contains(&(a, b)) || self.cuts.contains(&(b, a)));
        !here.silent && !there.silent && here.island == there.island && !cut
    }

    /// How a connection fails, if it does: nobody listens, or somebody between does not want it.
    pub(super) fn denied(&self, from: HostId, to: HostId) -> Option<Failure> {
        let (here, there) = (&self.hosts[from.0], &self.hosts[to.0]);
        let dead = || (!there.runs()).then_some(Failure::Refused);
        here.outbound
            .or_else(dead)
            .or(there.inbound)
            .or_else(|| self.denials.get(&(from, to)).copied())
    }

    /// How packets travel between two hosts.
    fn way(&self, a: HostId, b: HostId) -> Link {
        let of_pair = || self.ways.get(&(a.min(b), a.max(b))).copied();
        self.hosts[a.0].way.or(self.hosts[b.0].way).or_else(of_pair).unwrap_or(self.link)
    }

    /// One way of a message between two hosts.
    pub(super) fn way_once(&mut self, from: HostId, to: HostId) -> Duration {
        let link = self.way(from, to);
        SERVICE_TIME + self.travel(link, DATA_RETRY)
    }

    /// One way of one packet, sent again while it is lost.
    fn travel(&mut self, link: Link, retry: Duration) -> Duration {
        self.carry(link, retry).0
    }

    /// The same, with how often it was sent again.
    fn carry(&mut self, link: Link, retry: Duration) -> (Duration, u32) {
        let jitter = link.jitter.mul_f64(self.rng.f64());
        let mut taken = link.delay + jitter;
        let mut pause = retry;
        let mut again = 0;
        while self.rng.f64() < link.loss {
            again += 1;
            taken += pause;
            pause *= 2;
        }
        if link.reorder > 0.0 && self.rng.f64() < link.reorder {
            taken += REORDERED_BY.mul_f64(self.rng.f64());
        }
        (taken, again)
    }

    pub(super) fn probe(&mut self, from: HostId, probe: ProbeId, target: &Target) {
        let timeout = self.config.probe_timeout;
        let to = self.listening.get(target).copied();
        let link = to.map_or(self.link, |to| self.way(from, to));
        let ((there, again), (back, once_more)) =
            (self.carry(link, SYN_RETRY), self.carry(link, SYN_RETRY));
        let connect = there + back;
        let fail = |failure: Failure| Input::Probe {
            probe,
            report: ProbeReport::Failed(failure),
            from: None,
        };
        self.hosts[from.0].open_probes.insert(probe, None);
        self.schedule(self.now + timeout, from, fail(Failure::Timeout));
        let Some(to) = to else {
            return self.schedule(self.now + connect, from, fail(Failure::Refused));
        };
        if !self.linked(from, to) || connect > timeout {
            return;
        }
        match self.denied(from, to) {
            Some(Failure::Timeout) => {}
            Some(failure) => self.schedule(self.now + connect, from, fail(failure)),
            None => {
                let prober_run = self.hosts[from.0].run;
                let sent = self.now + connect;
                let (there, lost) = self.carry(link, DATA_RETRY);
                let retransmissions = again + once_more + lost;
                let knock = Knock {
                    prober: from,
                    prober_run,
                    probe,
                    sent,
                    connect,
                    retransmissions,
                    first_request: None,
                };
                self.schedule(sent + there, to, Input::Knock(knock));
            }
        }
    }

    /// A request of a probe is answered. The second follows the first on the same connection.
    pub(super) fn answer_knock(&mut self, id: HostId, knock: Knock, record: &Record) {
        let Knock { prober, prober_run, probe, sent, connect, retransmissions, first_request } =
            knock;
        if self.hosts[prober.0].run != prober_run
            || !self.hosts[prober.0].open_probes.contains_key(&probe)
        {
            return;
        }
        let link = self.way(prober, id);
        let answered = self.now + SERVICE_TIME + self.travel(link, DATA_RETRY);
        let taken = answered.since(sent);
        let (name, incarnation, instance) =
            (record.name.clone(), record.incarnation, record.instance);
        let kernel = KernelTiming {
            rtt: link.delay * 2,
            retransmissions,
            segments: SEGMENTS + retransmissions,
        };
        let answer = |first_request: Duration, request: Option<Duration>| {
            let timing = Timing {
                connect,
                first_request,
                request,
                kernel: Some(kernel),
                ..Timing::default()
            };
            ProbeReport::Answered { timing, name, incarnation, instance }
        };
        match first_request {
            Some(first) => self.schedule(
                answered,
                prober,
                Input::Probe { probe, report: answer(first, Some(taken)), from: Some(id) },
            ),
            None if connect + taken <= self.config.probe_timeout => {
                self.hosts[prober.0].open_probes.insert(probe, Some(answer(taken, None)));
                let (there, lost) = self.carry(link, DATA_RETRY);
                let next = Knock {
                    sent: answered,
                    first_request: Some(taken),
                    retransmissions: retransmissions + lost,
                    ..knock
                };
                self.schedule(answered + there, id, Input::Knock(next));
            }
            None => {}
        }
    }

    /// The process that a probe was for is gone: its kernel resets the connection.
    pub(super) fn reset_knock(&mut self, knock: Knock) {
        let Knock { prober, prober_run, probe, first_request, .. } = knock;
        let failure = if first_request.is_some() { Failure::Reset } else { Failure::Refused };
        let at = self.now + self.travel(self.link, DATA_RETRY);
        self.schedule_for(
            at,
            prober,
            prober_run,
            Input::Probe { probe, report: ProbeReport::Failed(failure), from: None },
        );
    }

    /// An exchange as it arrives, by the releases of both ends.
    fn translated(&self, from: HostId, to: HostId, exchange: Box<Exchange>) -> Box<Exchange> {
        let speaker = &self.hosts[from.0];
        match (speaker.release, &speaker.core) {
            (Release::This, _) | (_, None) => exchange,
            (release, Some(core)) => Box::new(release.translated(
                *exchange,
                core.record().instance,
                self.hosts[to.0].release,
            )),
        }
    }

    pub(super) fn call(
        &mut self,
        from: HostId,
        call: CallId,
        (target, whom): (&Target, Option<Arc<Record>>),
        request: Request,
        timeout: Duration,
    ) {
        let to = self.listening.get(target).copied();
        let guest = to.filter(|to| self.hosts[to.0].guest.is_some());
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
        let caller_run = self.hosts[from.0].run;
        let failed = |failure: Failure| Input::Response {
            call,
            result: Err(CallError { failure, detail: failure.as_str().to_owned() }),
            from: None,
        };
        self.schedule(self.now + timeout, from, failed(Failure::Timeout));
        if guest.is_some() {
            return self.speak(from, call, target, whom, request);
        }
        let link = to.map_or(self.link, |to| self.way(from, to));
        if to.is_some_and(|to| !self.linked(from, to)) {
            return;
        }
        match (to, to.map_or(Some(Failure::Refused), |to| self.denied(from, to))) {
            (Some(to), None) => {
                let waiting = Waiting { caller: from, caller_run, call };
                if link.duplicate > 0.0 && self.rng.f64() < link.duplicate {
                    let again = self.now + self.travel(link, DATA_RETRY);
                    self.schedule(
                        again,
                        to,
                        Input::Request { request: request.clone(), from: waiting },
                    );
                }
                let at = self.now + self.travel(link, DATA_RETRY);
                self.schedule(at, to, Input::Request { request, from: waiting });
            }
            (_, Some(Failure::Timeout)) => {}
            (_, failure) => {
                let at = self.now + self.travel(link, SYN_RETRY) + self.travel(link, SYN_RETRY);
                self.schedule(at, from, failed(failure.unwrap_or(Failure::Refused)));
            }
        }
    }

    pub(super) fn reply(&mut self, from: HostId, to: RequestId, response: Response) {
        if let Some(own) = self.hosts[from.0].own.remove(&to) {
            return self.own_answered(from, own, response);
        }
        let Some(waiting) = self.hosts[from.0].waiting.remove(&to) else { return };
        let Waiting { caller, caller_run, call } = waiting;
        let response = match response {
            Response::Exchange(exchange) => {
                self.hosts[from.0].gossip_sent += exchange.packed_len() as u64;
                Response::Exchange(self.translated(from, caller, exchange))
            }
            response => response,
        };
        if self.linked(from, caller) && self.hosts[caller.0].run == caller_run {
            let link = self.way(from, caller);
            let at = self.now + SERVICE_TIME + self.travel(link, DATA_RETRY);
            self.schedule(
                at,
                caller,
                Input::Response { call, result: Ok(response), from: Some(from) },
            );
        }
    }
}
