//! A member's liveness as a truth table: every status, every input, what becomes of it.

use std::time::Duration;

use canary_core::liveness::{Change, Doubt, Liveness, Status};
use canary_core::{Attentive, Moment, Time, Wall};

const fn time(seconds: u64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

const fn attentive(seconds: u64) -> Attentive {
    Attentive::starting_at(time(seconds))
}

/// A moment of a bot whose loop always ran.
fn at(seconds: u64) -> Moment {
    at_micros(seconds * 1_000_000)
}

fn at_micros(micros: u64) -> Moment {
    let time = Time::from_micros(micros);
    Moment { time, wall: Wall::default(), attentive: Attentive::starting_at(time) }
}

const NONE: Duration = Duration::ZERO;

/// A doubt whose first failure was at 100 s.
const SILENT: Doubt = Doubt {
    first_failure: time(100),
    patient_since: attentive(100),
    refused: false,
    unheard: false,
};
const REFUSED: Doubt = Doubt { refused: true, ..SILENT };

fn alive() -> Liveness {
    Liveness::new(7, NONE, at(90))
}

fn suspect() -> Liveness {
    let mut liveness = alive();
    assert_eq!(liveness.suspect(SILENT, at(101)), Change::Suspected);
    liveness
}

fn dead() -> Liveness {
    let mut liveness = suspect();
    assert_eq!(liveness.expire(at(103)), Change::Died);
    liveness
}

fn left() -> Liveness {
    let mut liveness = alive();
    assert_eq!(liveness.leave(at(101)), Change::Left);
    liveness
}

type Input = fn(&mut Liveness) -> Change;

/// An input, and what it makes of alive, suspect, dead and left.
type Line = (&'static str, Input, [(Change, Status); 4]);

/// Inputs after the first failure at 100 s of the doubt.
const TABLE: &[Line] = {
    use Change as C;
    use Status::{Alive, Dead, Left, Suspect};
    &[
        (
            "a heartbeat that was known",
            |liveness| liveness.hear(7, 0, Duration::ZERO, at(104)),
            [(C::None, Alive), (C::None, Suspect), (C::None, Dead), (C::None, Left)],
        ),
        (
            "a new heartbeat made before the first failure",
            |liveness| liveness.hear(8, 0, Duration::from_secs(5), at(104)),
            [(C::None, Alive), (C::None, Suspect), (C::None, Dead), (C::None, Left)],
        ),
        (
            "a new heartbeat made in the instant of the first failure",
            |liveness| liveness.hear(8, 0, Duration::from_secs(4), at(104)),
            [(C::None, Alive), (C::None, Suspect), (C::None, Dead), (C::None, Left)],
        ),
        (
            "a new heartbeat made after the first failure",
            |liveness| liveness.hear(8, 0, Duration::from_secs(1), at(104)),
            [(C::None, Alive), (C::Revived, Alive), (C::Revived, Alive), (C::None, Left)],
        ),
        (
            "an attempt that succeeded after the first failure",
            |liveness| liveness.evidence(time(104), at(104)),
            [(C::None, Alive), (C::Revived, Alive), (C::Revived, Alive), (C::None, Left)],
        ),
        (
            "a suspicion with newer failures than evidence",
            |liveness| liveness.suspect(SILENT, at(102)),
            [(C::Suspected, Suspect), (C::None, Suspect), (C::None, Dead), (C::None, Left)],
        ),
        (
            "a suspicion with older failures than evidence",
            |liveness| liveness.suspect(Doubt::shared(time(80), true, at(102)), at(102)),
            [(C::Refuted, Alive), (C::Refuted, Suspect), (C::None, Dead), (C::None, Left)],
        ),
        (
            "the deadline, a moment early",
            |liveness| liveness.expire(at_micros(102_999_999)),
            [(C::None, Alive), (C::None, Suspect), (C::None, Dead), (C::None, Left)],
        ),
        (
            "the deadline",
            |liveness| liveness.expire(at(103)),
            [(C::None, Alive), (C::Died, Dead), (C::None, Dead), (C::None, Left)],
        ),
        (
            "a goodbye",
            |liveness| liveness.leave(at(104)),
            [(C::Left, Left), (C::Left, Left), (C::Left, Left), (C::None, Left)],
        ),
    ]
};

#[test]
fn every_input_makes_of_every_status_what_the_table_says() {
    for (input, act, expected) in TABLE {
        for (mut liveness, expected) in
            [alive(), suspect(), dead(), left()].into_iter().zip(expected)
        {
            let before = liveness.status();
            let change = act(&mut liveness);
            assert_eq!((change, liveness.status()), *expected, "{input} on {before:?}");
        }
    }
}

#[test]
fn a_larger_heartbeat_was_made_later_however_old_it_is_said_to_be() {
    let mut liveness = alive();
    liveness.hear(8, 0, NONE, at(95));
    liveness.hear(9, 0, Duration::from_secs(10), at(100));
    assert_eq!(liveness.heartbeat(), (9, time(95)));
    assert_eq!(liveness.evidence_at(), time(95));
}

#[test]
fn refusals_by_everybody_need_half_the_time() {
    let mut liveness = alive();
    liveness.suspect(REFUSED, at(100));
    assert_eq!(liveness.deadline(), Some(at_micros(101_500_000).attentive));
    // One silent attempt among them, and it is no longer everybody.
    liveness.suspect(SILENT, at(100));
    assert_eq!(liveness.deadline(), Some(attentive(103)));
}

#[test]
fn who_hears_of_a_doubt_late_has_time_left_to_ask() {
    let mut liveness = alive();
    liveness.suspect(SILENT, at(110));
    assert_eq!(liveness.deadline(), Some(at_micros(110_500_000).attentive));
    assert_eq!(liveness.doubt(), Some(SILENT), "it is passed on as old as it is");
}

#[test]
fn what_others_hold_against_it_takes_the_place_of_a_doubt_that_is_not_told() {
    let unheard = Doubt { unheard: true, ..SILENT };
    let theirs = Doubt::shared(time(102), true, at(102));
    let mut liveness = alive();
    assert_eq!(liveness.suspect(unheard, at(102)), Change::Suspected);
    assert_eq!(
        liveness.deadline(),
        Some(attentive(103)),
        "it is for us alone, and kills as any other"
    );
    assert_eq!(liveness.suspect(theirs, at(103)), Change::Suspected);
    assert_eq!(liveness.doubt(), Some(theirs));
    assert_eq!(
        liveness.since(),
        time(103),
        "it leaves as much time to ask as if it were the first"
    );
    assert_eq!(liveness.suspect(unheard, at(102)), Change::None);
    assert_eq!(liveness.doubt(), Some(theirs));
}

#[test]
fn a_death_that_was_not_told_is_confirmed_once() {
    let unheard = Doubt { unheard: true, ..SILENT };
    let mut liveness = alive();
    liveness.suspect(unheard, at(102));
    assert!(!liveness.confirm(), "a suspect is asked about");
    liveness.expire(at(103));
    assert!(liveness.confirm());
    assert_eq!(liveness.doubt(), Some(SILENT));
    for mut liveness in [liveness, alive(), suspect(), dead(), left()] {
        assert!(!liveness.confirm());
    }
}

#[test]
fn time_in_which_we_did_not_run_is_not_their_silence() {
    // The loop did not run for five seconds.
    let now = |seconds| Moment { attentive: attentive(seconds - 5), ..at(seconds) };
    let mut liveness = suspect();
    assert_eq!(liveness.expire(now(107)), Change::None);
    assert_eq!(liveness.silence(now(110)), Duration::from_secs(15));
    assert_eq!(liveness.evidence_at(), time(90), "what others hold against it stands as it is");
    assert_eq!(liveness.clone().expire(now(108)), Change::Died);
    assert_eq!(liveness.evidence(time(105), now(110)), Change::Revived);
    assert_eq!(liveness.silence(now(110)), Duration::from_secs(5));
}
