//! The liveness of one member: what evidence and doubt make of it. A plain state machine, tested as
//! a truth table.

use std::time::Duration;

use crate::limits::{DEATH_AFTER_REFUSAL, DEATH_AFTER_SILENCE, LATE_SUSPICION_TIME};
use crate::row::Version;
use crate::time::{Attentive, Moment, Time};

/// What we hold of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// There is evidence that it lives.
    Alive,
    /// Somebody's attempts failed, and there is no newer evidence yet.
    Suspect,
    /// There was no newer evidence in time.
    Dead,
    /// It said goodbye.
    Left,
}

impl Status {
    /// Whether the member counts as being there: alive, or doubted and not yet lost.
    pub const fn is_present(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }

    /// The lower-case name, as in metrics and APIs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Left => "left",
        }
    }
}

/// The state of one incarnation of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Liveness {
    status: Status,
    /// When the status began.
    since: Time,
    /// The highest heartbeat heard.
    heartbeat: u64,
    /// When that heartbeat was made, as far as its age tells.
    beat_at: Time,
    /// The version in which a pair of it had last changed its state by then.
    changed: Version,
    /// When the latest evidence of any kind happened.
    evidence_at: Time,
    /// The same on our attentive clock.
    heard: Attentive,
    /// When the status began, on our attentive clock.
    entered: Attentive,
    /// The doubt that made it suspect or dead. Kept in death: only newer evidence revives.
    doubt: Option<Doubt>,
}

/// Attempts that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// When the first of them failed.
    pub first_failure: Time,
    /// The same on our attentive clock.
    pub patient_since: Attentive,
    /// Whether every one of them was refused: nothing was silent.
    pub refused: bool,
    /// Whether we heard from nobody since then: our own network may have failed, so the suspicion
    /// is not shared.
    pub unheard: bool,
}

impl Doubt {
    /// A doubt that others share, of an attempt that failed at `first_failure`.
    pub fn shared(first_failure: Time, refused: bool, now: Moment) -> Self {
        let patient_since = now.attentive_at(first_failure);
        Self { first_failure, patient_since, refused, unheard: false }
    }

    /// From the first failure to death.
    pub fn patience(&self) -> Duration {
        if self.refused { DEATH_AFTER_REFUSAL } else { DEATH_AFTER_SILENCE }
    }
}

/// What an input changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that others would notice.
    None,
    /// It is suspect now.
    Suspected,
    /// It is dead now.
    Died,
    /// It is alive again.
    Revived,
    /// It has left.
    Left,
    /// The doubt was answered by newer evidence that we had already.
    Refuted,
}

impl Liveness {
    /// That of an incarnation with a first heartbeat made `age` ago.
    pub fn new(heartbeat: u64, age: Duration, now: Moment) -> Self {
        let at = now.time.back(age);
        Self {
            status: Status::Alive,
            since: now.time,
            heartbeat,
            beat_at: at,
            changed: 0,
            evidence_at: at,
            heard: now.attentive_at(at),
            entered: now.attentive,
            doubt: None,
        }
    }

    /// What we hold of it.
    pub fn status(&self) -> Status {
        self.status
    }

    /// When the status began.
    pub fn since(&self) -> Time {
        self.since
    }

    /// The highest heartbeat heard, and when it was made.
    pub fn heartbeat(&self) -> (u64, Time) {
        (self.heartbeat, self.beat_at)
    }

    /// The version in which a pair of it had last changed its state when its highest heartbeat was
    /// made; 0 if none did.
    pub fn changed(&self) -> Version {
        self.changed
    }

    /// When the latest evidence happened.
    pub fn evidence_at(&self) -> Time {
        self.evidence_at
    }

    /// How long there has been no evidence. Of one that is there by the attentive clock: what we
    /// could not hear is not its silence.
    pub fn silence(&self, now: Moment) -> Duration {
        if self.status.is_present() { self.unheard(now) } else { now.time.since(self.evidence_at) }
    }

    /// How long there has been no evidence, by the attentive clock.
    pub fn unheard(&self, now: Moment) -> Duration {
        now.attentive.since(self.heard)
    }

    /// What made it suspect or dead.
    pub fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    /// When a suspect dies without newer evidence. A bot that learns of a suspicion late missed the
    /// refutation too, if there was one. So there is always time left to ask.
    pub fn deadline(&self) -> Option<Attentive> {
        let doubt = self.doubt.filter(|_| self.status == Status::Suspect)?;
        Some((doubt.patient_since + doubt.patience()).max(self.entered + LATE_SUSPICION_TIME))
    }

    /// A heartbeat was heard, made `age` ago; `changed` came with it. Only an advance is evidence,
    /// or two peers would keep a dead one alive by echo.
    pub fn hear(&mut self, heartbeat: u64, changed: Version, age: Duration, now: Moment) -> Change {
        if heartbeat == self.heartbeat {
            self.changed = self.changed.max(changed);
        }
        if heartbeat <= self.heartbeat {
            return Change::None;
        }
        (self.heartbeat, self.changed) = (heartbeat, changed);
        // It was made after those before it, however old it is said to be.
        self.beat_at = self.beat_at.max(now.time.back(age));
        self.evidence(self.beat_at, now)
    }

    /// An attempt with it succeeded at `at`.
    pub fn evidence(&mut self, at: Time, now: Moment) -> Change {
        if at > self.evidence_at {
            self.evidence_at = at;
            self.heard = self.heard.max(now.attentive_at(at));
        }
        if self.status == Status::Left
            || self.doubt.is_some_and(|doubt| self.evidence_at <= doubt.first_failure)
        {
            return Change::None;
        }
        self.doubt = None;
        if self.status == Status::Alive {
            return Change::None;
        }
        self.enter(Status::Alive, now);
        Change::Revived
    }

    /// Somebody's attempts failed and nobody could reach it.
    pub fn suspect(&mut self, doubt: Doubt, now: Moment) -> Change {
        match self.status {
            Status::Dead | Status::Left => Change::None,
            _ if self.evidence_at > doubt.first_failure => Change::Refuted,
            Status::Suspect => {
                if doubt.unheard {
                    return Change::None;
                }
                if self.doubt.is_some_and(|held| held.unheard) {
                    self.doubt = Some(doubt);
                    self.enter(Status::Suspect, now);
                    return Change::Suspected;
                }
                if let Some(held) = &mut self.doubt {
                    held.first_failure = held.first_failure.min(doubt.first_failure);
                    held.patient_since = held.patient_since.min(doubt.patient_since);
                    held.refused &= doubt.refused;
                }
                Change::None
            }
            Status::Alive => {
                self.doubt = Some(doubt);
                self.enter(Status::Suspect, now);
                Change::Suspected
            }
        }
    }

    /// The deadline of a suspect has come.
    pub fn expire(&mut self, now: Moment) -> Change {
        if self.deadline().is_none_or(|deadline| deadline > now.attentive) {
            return Change::None;
        }
        self.enter(Status::Dead, now);
        Change::Died
    }

    /// It said goodbye; only a new incarnation comes back from that.
    pub fn leave(&mut self, now: Moment) -> Change {
        if self.status == Status::Left {
            return Change::None;
        }
        self.enter(Status::Left, now);
        Change::Left
    }

    /// An attempt failed that was begun after others were heard again: its death is no finding
    /// about ourselves any more. Tells whether it was one.
    pub fn confirm(&mut self) -> bool {
        let unheard =
            self.doubt.as_mut().filter(|doubt| doubt.unheard && self.status == Status::Dead);
        unheard.map(|doubt| doubt.unheard = false).is_some()
    }

    fn enter(&mut self, status: Status, now: Moment) {
        self.status = status;
        self.since = now.time;
        self.entered = now.attentive;
    }
}
