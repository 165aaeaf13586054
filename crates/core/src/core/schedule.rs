//! Whose turn it is: every pair is measured, spread over time, within a budget, and without anybody
//! to coordinate.

use std::sync::Arc;
use std::time::Duration;

use super::Core;
use super::deadlines::{Patience, Timer};
use crate::cell::Failure;
use crate::hash::rendezvous;
use crate::identity::{NodeName, Record};
use crate::limits::{DEAD_DIAL_INTERVAL, DEAD_DIAL_INTERVAL_OTHERS, PROBE_KINDS_MAX};
use crate::liveness::Status;
use crate::load::Load;
use crate::members::{ME, Slot};
use crate::message::{Answer, Response};
use crate::orders::{ProbeId, ProbeReport};
use crate::probes::{Full, Lane, Probing, Purpose};
use crate::queue::Queue;
use crate::series::{Attempt, ProbeKind, Timing};
use crate::tally::{EventKind, Histogram, Refusal};
use crate::time::{Moment, Time};

/// First probes of new pairs start within this: bots that start together would else dial each other
/// in one instant.
const FIRST_PROBE_SPREAD: Duration = Duration::from_millis(100);
/// The turn after a regular one comes after this share of the interval at the least, and after as
/// much more than the interval at the most.
pub(super) const SHORTEST_TURN: f64 = 0.95;
/// A first probe that this host spoiled is tried again after about this share of the configured
/// interval.
const VOID_RETRY: f64 = 1.0 / 3.0;

/// Probes of a pair that this host spoiled in a row, after which it is a failure: what goes on for
/// so long has to be seen.
const VOIDS_IN_A_ROW: u32 = 5;

/// Why a pair gets a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is new, its node came back while an attempt was failing, or a question about it decided
    /// nothing.
    AtOnce,
    /// Its node was suspected or lost, and is found again.
    Back,
    /// This host spoiled a probe of it.
    Spoiled,
    /// Its turn has come: this is the one after it.
    Regular,
    /// Its address must not be dialled before this time.
    NotBefore(Time),
    /// The pair interval became shorter.
    Shorter,
}

/// Whether a pair was ever measured. The first measurement of a pair goes before the next one of
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Measured {
    Never,
    Before,
}

/// Turns that have come and wait for a place or the budget, and what is measured with a turn beside
/// the main kind.
#[derive(Debug)]
pub(super) struct Schedule {
    kinds: Vec<ProbeKind>,
    /// Whether a node has a responder for a kind.
    responds: fn(&Record, ProbeKind) -> bool,
    /// Pairs that were never measured first, then by when the turn came.
    ready: Queue<Slot, (Measured, Time)>,
    delay: Histogram,
    /// Whether this host keeps up with its probes.
    pub(super) load: Load,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            kinds: Vec::new(),
            responds: |_, _| false,
            ready: Queue::default(),
            delay: Histogram::default(),
            load: Load::default(),
        }
    }
}

impl Schedule {
    /// Measures these kinds as well.
    pub(super) fn measure(
        &mut self,
        mut kinds: Vec<ProbeKind>,
        responds: fn(&Record, ProbeKind) -> bool,
    ) {
        kinds.retain(|kind| *kind != ProbeKind::MAIN);
        kinds.sort_unstable();
        kinds.dedup();
        kinds.truncate(PROBE_KINDS_MAX);
        self.kinds = kinds;
        self.responds = responds;
    }

    /// The kinds that are measured beside the main one, in order.
    pub(super) fn kinds(&self) -> &[ProbeKind] {
        &self.kinds
    }

    /// How late turns were noticed.
    pub(super) fn delay(&self) -> Histogram {
        self.delay
    }
}

/// What a report says of the pair.
enum Outcome {
    /// It answered as itself.
    Reached(Timing),
    /// Its name answered in another incarnation.
    Renewed(Timing),
    Failed(Failure),
    Void,
}

impl Core {
    /// Gives a pair its next turn.
    pub(super) fn give_turn(&mut self, slot: Slot, why: Why, now: Moment) {
        let keeps_up = self.schedule.load.keeps_up();
        let timer = Timer::Probe(slot);
        let Some(member) = self.members.get(slot) else {
            return;
        };
        let takes_part = self.takes_part(member);
        let interval = if takes_part { self.pair_interval() } else { self.outsider_interval() };
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        match why {
            // All bots do this at one instant: a node that only so many may measure a second is
            // measured by one after the other.
            Why::AtOnce => {
                member.in_step = takes_part;
                let within = if takes_part {
                    self.schedule.load.stretched(FIRST_PROBE_SPREAD)
                } else {
                    interval
                };
                self.deadlines.timers.set_earlier(timer, now.time + within.mul_f64(self.rng.f64()));
            }
            // Measure soon: if our own path is broken we must know it, or we doubt a node that
            // others reach. A host that does not keep up waits for the usual turn if the latest
            // probe was answered recently. For a node that flaps it draws a turn from a whole
            // interval. Otherwise all bots dial a node that is short of time at once, all time out,
            // all lose it, and its next heartbeat makes all dial it at once again.
            Why::Back => {
                let flaps = member.flaps(now.time);
                member.revived_at = Some(now.time);
                let turn = member
                    .pair
                    .main()
                    .answered_latest()
                    .map(|begun| begun + interval)
                    .filter(|turn| *turn > now.time);
                let turn =
                    turn.or_else(|| flaps.then(|| now.time + interval.mul_f64(self.rng.f64())));
                match turn.filter(|_| !keeps_up) {
                    Some(turn) => self.deadlines.timers.set_earlier(timer, turn),
                    None => self.give_turn(slot, Why::AtOnce, now),
                }
            }
            // A pair that was never measured does not wait a whole interval: nothing is known of
            // it. It does not wait longer on a host that does not keep up either: after a few
            // spoiled probes that is booked, and the window bounds how many are in flight.
            Why::Spoiled => {
                if self.deadlines.timers.at(timer).is_some()
                    && member.pair.main().latest().is_none()
                {
                    let turn = now.time
                        + self.config.probe_interval.mul_f64(VOID_RETRY * (0.5 + self.rng.f64()));
                    self.deadlines.timers.set_earlier(timer, turn);
                    if !member.proven {
                        self.joining.guards.spoiled(&member.record.target, turn);
                    }
                }
            }
            // All bots' turns for one node are spread over the interval, or a fault right after
            // them would be noticed by nobody for as long. It costs half a turn: first everybody is
            // to be measured at all, and the host to keep up.
            Why::Regular => {
                let spread =
                    member.in_step && keeps_up && member.pair.main().answered_latest().is_some();
                member.in_step &= !spread;
                let draw = self.rng.f64();
                self.deadlines.timers.set(
                    timer,
                    now.time
                        + interval.mul_f64(if spread {
                            0.05 + draw
                        } else {
                            SHORTEST_TURN + 2.0 * (1.0 - SHORTEST_TURN) * draw
                        }),
                );
            }
            // Not to the same instant each time: a host that runs in slices would be too late each
            // time.
            Why::NotBefore(time) => {
                self.deadlines.timers.set(timer, time + FIRST_PROBE_SPREAD.mul_f64(self.rng.f64()));
            }
            Why::Shorter => {
                if self
                    .deadlines
                    .timers
                    .at(timer)
                    .is_some_and(|at| at > now.time + interval.mul_f64(1.1))
                {
                    let turn = interval.mul_f64(self.rng.f64());
                    self.deadlines.timers.set(timer, now.time + turn);
                }
            }
        }
    }

    /// The pair interval became shorter: pairs that wait for longer, and the own row, get a turn
    /// within it.
    pub(super) fn reschedule(&mut self, now: Moment) {
        self.publish_sooner(now);
        for slot in self.members.other_slots() {
            self.give_turn(slot, Why::Shorter, now);
        }
    }

    pub(super) fn unschedule(&mut self, slot: Slot) {
        self.deadlines.timers.cancel(Timer::Probe(slot));
        self.schedule.ready.cancel(slot);
    }

    pub(super) fn pair_due(&mut self, slot: Slot, due: Time, now: Moment) {
        let Some(member) = self.members.get(slot).filter(|member| member.is_present()) else {
            return;
        };
        let delay = now.time.since(due);
        self.schedule.delay.observe(delay);
        self.schedule.load.began_late(delay);
        let measured =
            if member.pair.main().latest().is_some() { Measured::Before } else { Measured::Never };
        if self.schedule.ready.at(slot).is_none() {
            self.schedule.ready.set(slot, (measured, due));
        }
        self.fire_ready(now);
    }

    /// Orders the probes that are due, never-measured pairs first, as far as the budget goes.
    pub(super) fn fire_ready(&mut self, now: Moment) {
        while let Some((_, slot)) = self.schedule.ready.first() {
            if self.orders.probes.under_way() >= self.schedule.load.window() {
                return;
            }
            match self.orders.probes.check(Lane::Schedule, now.time) {
                Ok(()) => {}
                Err(Full::Places) => return,
                Err(Full::Budget(wait)) => {
                    self.deadlines
                        .timers
                        .set(Timer::Budget, now.time + wait.max(Duration::from_millis(1)));
                    return;
                }
            }
            self.schedule.ready.cancel(slot);
            self.fire(slot, now);
        }
    }

    /// Orders the probe of this pair, if it may be dialled.
    fn fire(&mut self, slot: Slot, now: Moment) {
        let Some(member) = self.members.get(slot).filter(|member| member.is_present()) else {
            return;
        };
        let (is_probing, proven, target) =
            (member.probing, member.proven, member.record.target.clone());
        self.give_turn(slot, Why::Regular, now);
        if is_probing {
            return;
        }
        if !proven && let Err(not_before) = self.joining.guards.admit(&target, now.time) {
            self.refuse(Refusal::UnprovenDial);
            return self.give_turn(slot, Why::NotBefore(not_before), now);
        }
        self.orders.probes.spend(Lane::Schedule, now.time);
        let ordered = self.order_probe(slot, Purpose::Schedule, now).is_some();
        if ordered && let Some(member) = self.members.get_mut(slot) {
            member.probing = true;
            self.measure_others(slot, now);
        }
    }

    /// Orders probes of the other kinds that the node answers.
    fn measure_others(&mut self, slot: Slot, now: Moment) {
        for kind in self.schedule.kinds.clone() {
            let responds = self.members.get(slot).is_some_and(|member| {
                member.proven && (self.schedule.responds)(&member.record, kind)
            });
            if responds && self.orders.probes.admit(Lane::Measure, now.time).is_ok() {
                self.order_probe(slot, Purpose::Measure(kind), now);
            } else if responds {
                self.refuse(Refusal::MeasuresFull);
            }
        }
    }

    /// A probe of another kind has ended.
    fn measure_ended(
        &mut self,
        probing: &Probing,
        kind: ProbeKind,
        outcome: &Outcome,
        now: Moment,
    ) {
        let attempt = match outcome {
            Outcome::Reached(timing) | Outcome::Renewed(timing) => Attempt::Ok(*timing),
            Outcome::Failed(failure) => Attempt::Failed(*failure),
            Outcome::Void => return self.refuse(Refusal::ProbeVoid),
        };
        if let Some(member) = self.members.get_mut(probing.slot) {
            Arc::make_mut(&mut member.pair).book_other(kind, attempt, probing.ordered_at, now);
        }
    }

    pub(super) fn probe_ended(&mut self, id: ProbeId, report: ProbeReport, now: Moment) {
        self.deadlines.patience.cancel(Patience::SlowProbe(id));
        let Some(probing) = self.orders.probes.remove(id) else {
            return;
        };
        let Some(outcome) = self.judge(&probing, report) else {
            // Its node is forgotten: that is nothing about this host.
            if let Purpose::IndirectProbe(request) = probing.purpose {
                self.reply(request, Response::IndirectProbe(Answer::Unknown));
            }
            return self.fire_ready(now);
        };
        if let Purpose::Measure(kind) = probing.purpose {
            return self.measure_ended(&probing, kind, &outcome, now);
        }
        let under_way = self.orders.probes.under_way() + 1;
        if let Some(member) = self.members.get_mut(probing.slot)
            && probing.purpose == Purpose::Schedule
        {
            member.probing = false;
        }
        if let Outcome::Reached(timing) | Outcome::Renewed(timing) = &outcome {
            // The report may have waited for a second request that was never answered.
            self.detector.witness.handle_contact(
                (probing.begun(now) + timing.resolve + timing.total()).min(now.time),
            );
            if let Some(member) = self.members.get_mut(probing.slot) {
                Arc::make_mut(&mut member.pair).answered(probing.sent_at(timing));
            }
        }
        match &outcome {
            Outcome::Reached(timing) => {
                self.prove(probing.slot, now);
                self.reached_since(probing.slot, probing.sent_at(timing), now);
                self.overdue_answered(probing.slot, id.0);
            }
            Outcome::Renewed(_) => self.identify(probing.slot),
            Outcome::Failed(kind) if kind.is_answer() => {
                self.detector.witness.handle_contact(now.time);
            }
            Outcome::Void => {
                self.refuse(Refusal::ProbeVoid);
                self.detector.witness.handle_spoiled(now.time);
                self.give_turn(probing.slot, Why::Spoiled, now);
            }
            Outcome::Failed(_) => {}
        }
        self.schedule.load.ended(
            id,
            matches!(outcome, Outcome::Void),
            under_way,
            self.orders.outbox.latest(),
        );
        match probing.purpose {
            // A dead node is an outage that goes on: it is booked as well.
            Purpose::Schedule | Purpose::Dial => self.book(&probing, &outcome, now),
            Purpose::Evidence | Purpose::Measure(_) => {}
            Purpose::Question(number) => {
                self.question_probed(probing.slot, number, &failure_of(&outcome), now);
            }
            Purpose::IndirectProbe(request) => {
                let answer = match outcome {
                    Outcome::Reached(_) => Answer::Reached,
                    Outcome::Failed(kind) => Answer::Failed(kind),
                    Outcome::Renewed(_) => Answer::Failed(Failure::Identity),
                    Outcome::Void => Answer::Unknown,
                };
                self.reply(request, Response::IndirectProbe(answer));
            }
        }
        self.fire_ready(now);
    }

    /// What a report says; none if the node that was probed is forgotten.
    fn judge(&self, probing: &Probing, report: ProbeReport) -> Option<Outcome> {
        let member = self.members.get(probing.slot)?;
        Some(match report {
            // A probe is over at its timeout: what claims to be slower was measured by a host that
            // did not run.
            ProbeReport::Answered { timing, .. } if timing.total() > self.config.probe_timeout => {
                Outcome::Void
            }
            ProbeReport::Answered { name, .. } if name != member.record.name => {
                Outcome::Failed(Failure::Identity)
            }
            ProbeReport::Answered { instance, timing, .. }
                if instance != member.record.instance =>
            {
                Outcome::Renewed(timing)
            }
            ProbeReport::Answered { timing, .. } => Outcome::Reached(timing),
            ProbeReport::Failed(kind) => Outcome::Failed(kind),
            ProbeReport::Void => Outcome::Void,
        })
    }

    fn book(&mut self, probing: &Probing, outcome: &Outcome, now: Moment) {
        let slot = probing.slot;
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        let attempt = match outcome {
            Outcome::Reached(timing) | Outcome::Renewed(timing) => Attempt::Ok(*timing),
            Outcome::Failed(kind) => Attempt::Failed(*kind),
            Outcome::Void if probing.purpose == Purpose::Schedule => {
                member.voids += 1;
                if member.voids < VOIDS_IN_A_ROW {
                    return;
                }
                Attempt::Failed(Failure::Local)
            }
            Outcome::Void => return,
        };
        member.voids = if attempt == Attempt::Failed(Failure::Local) { member.voids } else { 0 };
        let before = member.pair.main().latest().map(|(attempt, _)| attempt);
        let urgency = Arc::make_mut(&mut member.pair).book(
            attempt,
            probing.ordered_at,
            probing.begun(now),
            now,
        );
        let (name, proven, target) =
            (member.record.name.clone(), member.proven, member.record.target.clone());
        self.path_event(name, before, attempt, now);
        self.report_path(slot, now);
        self.pair_changed(slot, urgency, now);
        // What this host cannot try says nothing of the node.
        if let Attempt::Failed(kind) = attempt
            && kind != Failure::Local
        {
            if !proven {
                self.joining.guards.failed(&target, None, now.time);
            }
            // It came back while this attempt was under way: the failure is the past's, and must
            // not be taken for a broken path.
            if self.members.get(slot).is_some_and(|member| {
                member.is_present() && member.liveness.since() > probing.begun(now)
            }) {
                self.give_turn(slot, Why::AtOnce, now);
            }
            self.doubt(slot, kind.is_refusal(), now);
            self.confirm_death(slot, probing.ordered_at, now);
        }
    }

    fn path_event(&mut self, name: NodeName, before: Option<Attempt>, after: Attempt, now: Moment) {
        match (before, after) {
            (None | Some(Attempt::Ok(_)), Attempt::Failed(kind)) => {
                self.journal.note(now, EventKind::PathFailed(name, kind));
            }
            (Some(Attempt::Failed(_)), Attempt::Ok(_)) => {
                self.journal.note(now, EventKind::PathRecovered(name));
            }
            _ => {}
        }
    }

    /// A dead member is dialled: that, and the seeds, is what heals a partition.
    pub(super) fn dial_dead(&mut self, slot: Slot, now: Moment) {
        let Some(member) =
            self.members.get(slot).filter(|member| member.liveness.status() == Status::Dead)
        else {
            return;
        };
        let (proven, target) = (member.proven, member.record.target.clone());
        let interval = self.dial_interval(slot).mul_f64(0.9 + 0.2 * self.rng.f64());
        self.deadlines.timers.set(Timer::Dial(slot), now.time + interval);
        match self.orders.probes.admit(Lane::Dial, now.time) {
            Ok(()) => {}
            Err(Full::Places) => return,
            Err(Full::Budget(wait)) => {
                // Many are dead: each waits its turn, and the living are measured until then.
                let wait = wait.max(Duration::from_millis(10)).mul_f64(1.0 + self.rng.f64());
                return self.deadlines.timers.set(Timer::Dial(slot), now.time + wait);
            }
        }
        if proven || self.joining.guards.admit(&target, now.time).is_ok() {
            self.order_probe(slot, Purpose::Dial, now);
        }
    }

    /// Two bots dial a dead member often, by rendezvous hashing of the names that are present; the
    /// others seldom.
    pub(super) fn dial_interval(&self, slot: Slot) -> Duration {
        let Some(dead) = self.members.get(slot) else {
            return DEAD_DIAL_INTERVAL_OTHERS;
        };
        let weight = |name: &NodeName| rendezvous(name, &dead.record.name);
        let mine = weight(&self.members.me().record.name);
        let ahead = self.members.all().filter(|(other, member)| {
            *other != ME && member.is_present() && weight(&member.record.name) > mine
        });
        if ahead.take(2).count() < 2 { DEAD_DIAL_INTERVAL } else { DEAD_DIAL_INTERVAL_OTHERS }
    }
}

fn failure_of(outcome: &Outcome) -> Option<Failure> {
    match outcome {
        Outcome::Failed(kind) => Some(*kind),
        Outcome::Renewed(_) => Some(Failure::Identity),
        Outcome::Reached(_) | Outcome::Void => None,
    }
}
