//! One measurement: its own connection, every phase beside its system calls.
//!
//! A bot of ours is asked by flights of bytes and answers by flights ([`crate::transport::flight`]),
//! everybody else by HTTP/2; each twice on one connection: the first request includes the set-up of
//! whatever has to be set up, the second is the warm connection's. Clocks are read right before the
//! system call that sends and right after the one that received the last of the answer, so that what
//! our own code takes in between is not measured.

mod ask;
mod dial;
mod fly;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use canary_core::{
    Failure, Incarnation, Instance, NodeName, ProbeReport, Record, Secured, Target, Timing,
};
use canary_net::{Guard, Seldom};

use crate::clock::StallWatch;
use crate::failure::{Blame, blame};
use crate::resolve::{LookupError, Resolver};
use crate::secure::SecureError;
use ask::ask;
use dial::Whom;
use fly::fly;

/// Lateness of our own loop within a probe beyond which the probe says more about us than about the
/// network.
const LATE_MAX: Duration = Duration::from_millis(100);
/// How many probes in a row HTTP/2 asks who answered a flight with something else: six minutes at the
/// usual interval.
const STRANGE_PROBES: u32 = 128;
/// How many of them are remembered: more than a mesh has members.
const STRANGERS_MAX: usize = 8192;

/// How a probe ended, with a word for the person who reads debug logs.
#[derive(Debug)]
pub(crate) enum Ended {
    Failed(Failure, String),
    Void(String),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        match blame(&error) {
            Blame::Network(failure) => Self::Failed(failure, error.to_string()),
            Blame::Ourselves => Self::Void(error.to_string()),
        }
    }
}

impl From<h2::Error> for Ended {
    fn from(error: h2::Error) -> Self {
        let (reset, detail) = (error.is_reset(), error.to_string());
        if let Some(io) = error.into_io() {
            return io.into();
        }
        Self::Failed(if reset { Failure::Reset } else { Failure::Protocol }, detail)
    }
}

impl From<LookupError> for Ended {
    fn from(error: LookupError) -> Self {
        if error.is_own_fault() {
            Self::Void(error.to_string())
        } else {
            Self::Failed(Failure::Dns, error.to_string())
        }
    }
}

impl From<SecureError> for Ended {
    fn from(error: SecureError) -> Self {
        Self::Failed(Failure::Tls, error.to_string())
    }
}

/// Who answered, and when.
#[derive(Clone, Debug)]
struct Answer {
    name: NodeName,
    incarnation: Incarnation,
    instance: Instance,
    timing: Timing,
    secured: Option<Secured>,
}

/// What came of a probe.
#[derive(Debug)]
pub(crate) struct Probed {
    pub(crate) report: ProbeReport,
    /// What was agreed on, if TLS was.
    pub(crate) secured: Option<Secured>,
}

impl From<ProbeReport> for Probed {
    fn from(report: ProbeReport) -> Self {
        Self { report, secured: None }
    }
}

/// Measures for one bot, and remembers how to ask whom.
#[derive(Debug)]
pub(crate) struct Prober {
    pub(crate) timeout: Duration,
    pub(crate) resolver: Resolver,
    pub(crate) guard: Guard,
    pub(crate) stalls: Arc<StallWatch>,
    pub(crate) strangers: Strangers,
}

impl Prober {
    /// Measures `whom` once: as a guest, or as one of ours.
    pub(crate) async fn probe(&self, whom: &Record, guest: bool) -> Probed {
        let (target, guest) = (&whom.target, guest.then_some(whom));
        let watched = self.stalls.begin();
        let begun = Instant::now();
        let mut progress = Progress::Resolving;
        let ended =
            tokio::time::timeout(self.timeout, self.measure(target, guest, &mut progress)).await;
        let late = watched.late();
        // A stop of this process shows as lateness, or as a timeout that was noticed long after it
        // was due.
        if late > LATE_MAX || begun.elapsed() > self.timeout + LATE_MAX {
            tracing::debug!(%target, ?late, "a probe is void: this host did not run");
            return ProbeReport::Void.into();
        }
        match ended {
            Ok(Ok(answer)) => answer.report(),
            Ok(Err(Ended::Failed(failure, detail))) => {
                tracing::debug!(%target, kind = failure.as_str(), detail, "a probe failed");
                ProbeReport::Failed(failure).into()
            }
            Ok(Err(Ended::Void(detail))) => {
                static VOIDS: Seldom = Seldom::new();
                if let Some(left_out) = VOIDS.allows() {
                    tracing::warn!(%target, detail, left_out, "a probe is void: this host lacks something");
                }
                ProbeReport::Void.into()
            }
            Err(_) => match progress {
                // A name that is not resolved in time is a failure of names, not of the path.
                Progress::Resolving => ProbeReport::Failed(Failure::Dns).into(),
                Progress::Dialling => ProbeReport::Failed(Failure::Timeout).into(),
                Progress::Flying => {
                    self.strangers.note_silent(target);
                    ProbeReport::Failed(Failure::Timeout).into()
                }
                // It answered, and we left too little time to ask again: that is no failure of it.
                Progress::Again(spent) if spent > self.timeout / 2 => ProbeReport::Void.into(),
                Progress::Again(_) => ProbeReport::Failed(Failure::Timeout).into(),
                // The pair is proven; an absent second figure means that the second request was
                // not answered in time.
                Progress::Answered(answer) => answer.report(),
            },
        }
    }

    async fn measure(
        &self,
        target: &Target,
        guest: Option<&Record>,
        progress: &mut Progress,
    ) -> Result<Answer, Ended> {
        let whom = Whom::find(target, self.timeout, &self.resolver).await?;
        *progress = Progress::Dialling;
        if guest.is_none() && self.strangers.may_fly(target) {
            let begun = Instant::now();
            match fly(&whom, &self.guard, progress).await {
                Ok(Some(answer)) => {
                    // A proxy may take one flight and not the other.
                    match answer.timing.request {
                        Some(_) => self.strangers.forget(target),
                        None => self.strangers.note(target),
                    }
                    return Ok(answer);
                }
                Ok(None) => {
                    tracing::debug!(%target, "it does not answer as a bot of ours: HTTP/2 asks it");
                    self.strangers.note(target);
                    *progress = Progress::Again(begun.elapsed());
                }
                Err(ended) => {
                    if matches!(progress, Progress::Flying) {
                        self.strangers.note_silent(target);
                    }
                    return Err(ended);
                }
            }
        }
        ask(&whom, guest, &self.guard, progress).await
    }
}

/// Targets that did not answer a flight by one: proxies, and bots of other releases. HTTP/2 alone
/// asks them for so many probes.
#[derive(Debug, Default)]
pub(crate) struct Strangers(Mutex<HashMap<Target, Strange>>);

#[derive(Debug, Default)]
struct Strange {
    /// Probes until the next flight.
    left: u32,
    /// Flights in a row that were not answered at all.
    silent: u32,
}

impl Strangers {
    fn may_fly(&self, target: &Target) -> bool {
        let mut all = canary_net::lock(&self.0);
        let Some(strange) = all.get_mut(target) else { return true };
        let may = strange.left == 0;
        strange.left = strange.left.saturating_sub(1);
        may
    }

    /// Something else answered.
    fn note(&self, target: &Target) {
        self.change(target, |strange| strange.left = STRANGE_PROBES);
    }

    /// Nothing did. That is what an outage looks like, and also a filter that does not like flights:
    /// each time, HTTP/2 asks twice as often.
    fn note_silent(&self, target: &Target) {
        self.change(target, |strange| {
            strange.left = 1_u32.checked_shl(strange.silent).unwrap_or(STRANGE_PROBES);
            strange.left = strange.left.min(STRANGE_PROBES);
            strange.silent += 1;
        });
    }

    fn forget(&self, target: &Target) {
        canary_net::lock(&self.0).remove(target);
    }

    fn change(&self, target: &Target, change: impl FnOnce(&mut Strange)) {
        let mut all = canary_net::lock(&self.0);
        if all.len() >= STRANGERS_MAX {
            all.clear();
        }
        change(all.entry(target.clone()).or_default());
    }
}

/// A single measurement outside of any mesh, and who answered.
#[derive(Clone, Debug)]
pub struct Once {
    /// How the node that answered calls itself.
    pub name: NodeName,
    /// What was measured.
    pub timing: Timing,
    /// What was agreed on, if TLS was.
    pub secured: Option<Secured>,
}

/// Why a single measurement gave no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmeasured {
    /// What failed; [`Failure::Local`] if this host could not try.
    pub kind: Failure,
    /// In words.
    pub detail: String,
}

/// Measures `target` once, for at most `timeout`, as a bot with this guard would.
///
/// # Errors
///
/// The kind of failure that a bot would publish, with the words of the system.
pub async fn probe_once(
    target: &Target,
    timeout: Duration,
    guard: &Guard,
) -> Result<Once, Unmeasured> {
    // The target is named by the operator: it may be this host.
    let resolver = Resolver::new(target, std::net::Ipv4Addr::LOCALHOST.into());
    let mut progress = Progress::Resolving;
    let measuring = async {
        let whom = Whom::find(target, timeout, &resolver).await?;
        progress = Progress::Dialling;
        ask(&whom, None, guard, &mut progress).await
    };
    let ended = tokio::time::timeout(timeout, measuring).await;
    let answer = match (ended, progress) {
        (Ok(Ok(answer)), _) | (Err(_), Progress::Answered(answer)) => answer,
        (Ok(Err(Ended::Failed(kind, detail))), _) => return Err(Unmeasured { kind, detail }),
        (Ok(Err(Ended::Void(detail))), _) => {
            return Err(Unmeasured { kind: Failure::Local, detail });
        }
        (Err(_), Progress::Resolving) => {
            return Err(Unmeasured {
                kind: Failure::Dns,
                detail: "the name was not resolved in time".to_owned(),
            });
        }
        (Err(_), _) => {
            return Err(Unmeasured {
                kind: Failure::Timeout,
                detail: format!("no answer within {timeout:?}"),
            });
        }
    };
    Ok(Once { name: answer.name, timing: answer.timing, secured: answer.secured })
}

/// How far a probe came.
#[derive(Debug)]
enum Progress {
    Resolving,
    Dialling,
    /// A flight was sent.
    Flying,
    /// It was not answered by one, which took so long, and HTTP/2 asks.
    Again(Duration),
    /// The first request was answered.
    Answered(Answer),
}

impl Answer {
    fn report(self) -> Probed {
        let Self { name, incarnation, instance, timing, secured } = self;
        Probed { report: ProbeReport::Answered { timing, name, incarnation, instance }, secured }
    }
}
