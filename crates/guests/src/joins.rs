//! When `JoinMesh` is called at an address, and what came of it.
//!
//! A guest says who it is only when it is asked to admit a node. But a stuck one never answers
//! that call, and each leaves something behind there for good. So a guest that others know is not
//! asked at all, a stuck one seldom and by one of ours, and the rows of ours tell who asks where.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use canary_core::limits::{Backoff, PENDING_JOINS_MAX};
use canary_core::{CallError, Failure, NodeName, PendingJoin, Record, Snapshot, Target, Time};

use crate::guest::guest_at;

/// Addresses that are remembered; the one that was used longest ago goes when there are more.
const SEEN_MAX: usize = 4096;
/// An answer is taken for another question for so long.
const JUST_NOW: Duration = Duration::from_secs(5);
/// After how long it is asked again who is at the address of a guest that is doubted, for addresses
/// are used again.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// How long an answer about who is there is used.
const FOUND_RECENTLY: Duration = Duration::from_secs(60);
/// How long an address is left alone after it was asked, or is to be.
const ASK_PAUSE: Duration = Duration::from_secs(15);
/// When a guest is asked again that did not answer.
const UNANSWERED: Backoff =
    Backoff { first: Duration::from_secs(60), longest: Duration::from_secs(600) };
/// When a call is given up, as the original gives up its own.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a caller waits until a guest admits it. The core waits only a little longer for an answer
/// to `Identify`.
pub(crate) const JOIN_PATIENCE: Duration = Duration::from_secs(1);
/// After so many looks in a row that nobody answered, nobody is there.
const MISSES: u8 = 2;
/// A call that is under way for so long is published: a guest that is well answers at
/// once.
const TELL_AFTER: Duration = Duration::from_millis(500);
/// How long a bot waits for others to tell it of a guest, before it asks at an address without a
/// name.
const LISTEN: Duration = Duration::from_secs(1);
/// The first bots of ours take their turns at such an address so far apart that the next one hears
/// of it before: how far, and how many.
const TURNS: (Duration, u32) = (Duration::from_secs(3), 10);
/// All others follow within so long: the bot that was given this address may be any.
const LATE_TURNS: Duration = Duration::from_secs(30);
/// How often it is looked whether one of ours took the place of a guest that nobody doubts. A guest
/// answers that question at once, with no.
const LOOK_SELDOM: Duration = Duration::from_secs(300);

/// Who answered at an address.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    /// One of ours.
    Ours(Arc<Record>),
    /// A guest of this name.
    Guest(NodeName),
}

/// What came of asking a guest to admit us.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Joined {
    /// It did, and this is its name.
    As(NodeName),
    /// It holds our name for another's, and does not tell its own.
    Unnamed,
    /// It answers other calls, and this one not.
    Stuck,
    /// That is not known yet.
    Later,
}

/// Whether this bot may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It may, and has to say what came of it by [`Joins::ended`].
    Ask,
    /// It does so already.
    UnderWay,
    /// It may not: the last call was not answered, here or from another of ours.
    Stuck,
    /// It may not: another of ours is doing so.
    Elsewhere,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    found: Option<(Who, Time)>,
    /// When the latest call began.
    began: Option<Time>,
    /// What came of it; none while it is under way.
    outcome: Option<Result<Joined, CallError>>,
    /// Calls in a row that were given up while other calls were answered.
    unanswered: u32,
    /// Looks in a row that failed otherwise.
    misses: u8,
    not_before: Time,
    /// When a look in the background was last planned.
    planned_at: Option<Time>,
    /// When the address was first wanted without a name.
    wanted_at: Option<Time>,
    /// When it is this bot's turn to ask there.
    turn: Option<Time>,
    used_at: Time,
}

/// Whether a failure says that nobody is there.
fn says_gone(failure: Failure) -> bool {
    matches!(failure, Failure::Refused | Failure::Unreachable | Failure::Dns)
}

impl Seen {
    fn is_asking(&self) -> bool {
        self.began.is_some() && self.outcome.is_none()
    }

    /// Somebody answers there who is not stuck, or nobody: nothing has to be waited for.
    fn forget(&mut self) {
        (self.unanswered, self.misses, self.not_before) = (0, 0, Time::ZERO);
        (self.wanted_at, self.turn) = (None, None);
    }

    /// What others should hear of it.
    fn pending(&self, now: Time) -> bool {
        self.unanswered > 0
            || (self.is_asking() && self.began.is_some_and(|began| now.since(began) >= TELL_AFTER))
    }
}

/// What this bot knows of addresses of guests, by what was answered there.
#[derive(Debug, Default)]
pub struct Joins(Mutex<BTreeMap<Target, Seen>>);

impl Joins {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Target, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen<T>(&self, target: &Target, now: Time, change: impl FnOnce(&mut Seen) -> T) -> T {
        let mut all = self.all();
        if all.len() >= SEEN_MAX && !all.contains_key(target) {
            let oldest = all
                .iter()
                .filter(|(_, seen)| !seen.is_asking())
                .min_by_key(|(_, seen)| seen.used_at);
            let oldest = oldest.map(|(target, _)| target.clone());
            oldest.and_then(|target| all.remove(&target));
        }
        let seen = all.entry(target.clone()).or_default();
        seen.used_at = now;
        change(seen)
    }

    /// Whether this bot may call there. `elsewhere` is what another of ours tells of that address,
    /// if this bot has to give way to it.
    pub(crate) fn turn(&self, target: &Target, elsewhere: Option<&PendingJoin>, now: Time) -> Turn {
        self.seen(target, now, |seen| {
            if seen.is_asking() {
                return Turn::UnderWay;
            }
            // Callers come here after the bot there has answered in our own protocol, with no.
            seen.misses = 0;
            if let Some(pending) = elsewhere {
                // Should it leave, the turns are drawn again.
                seen.turn = None;
                return if pending.is_stuck() { Turn::Stuck } else { Turn::Elsewhere };
            }
            if now < seen.not_before {
                return if seen.unanswered > 0 { Turn::Stuck } else { Turn::Elsewhere };
            }
            (seen.began, seen.outcome) = (Some(now), None);
            Turn::Ask
        })
    }

    /// A call has ended. Tells whether the bot there was found to be stuck, or not to be, just now.
    pub(crate) fn ended(
        &self,
        target: &Target,
        outcome: Result<Joined, CallError>,
        now: Time,
    ) -> bool {
        self.seen(target, now, |seen| {
            let given_up = seen.began.is_some_and(|began| now.since(began) >= JOIN_TIMEOUT);
            let was_stuck = seen.unanswered > 0;
            match &outcome {
                Ok(Joined::Stuck) => {
                    let pause = UNANSWERED.first * 2_u32.saturating_pow(seen.unanswered.min(16));
                    seen.unanswered = seen.unanswered.saturating_add(1);
                    seen.not_before = now + pause.min(UNANSWERED.longest);
                }
                Ok(_) => seen.forget(),
                // Where nobody is, nobody is stuck. A call that was given up may have left
                // something behind, whatever else failed; one that was answered has not.
                Err(error) if says_gone(error.failure) => seen.forget(),
                Err(error) => {
                    if error.failure == Failure::Protocol {
                        seen.unanswered = 0;
                    }
                    seen.not_before = now + if given_up { UNANSWERED.first } else { ASK_PAUSE };
                }
            }
            if let Ok(Joined::As(name)) = &outcome {
                seen.found = Some((Who::Guest(name.clone()), now));
            }
            let is_stuck = seen.unanswered > 0;
            let told = is_stuck != was_stuck && outcome.is_ok();
            seen.outcome = Some(outcome);
            told
        })
    }

    /// What came of the latest call; none while it is under way.
    pub(crate) fn outcome(&self, target: &Target) -> Option<Result<Joined, CallError>> {
        self.all().get(target)?.outcome.clone()
    }

    /// The bot there called one of ours by itself: its loops run, and it need not be left alone as
    /// long as one that is stuck.
    pub(crate) fn heard(&self, target: &Target, now: Time) {
        if let Some(seen) = self.all().get_mut(target).filter(|seen| seen.unanswered > 0) {
            // Anybody can say so: it becomes no way to have it asked all the time.
            let pause = (ASK_PAUSE * 2_u32.saturating_pow((seen.unanswered - 1).min(16)))
                .min(UNANSWERED.longest);
            seen.not_before = seen.not_before.min(seen.began.map_or(now, |began| began + pause));
        }
    }

    /// One of ours answered there just now.
    pub(crate) fn found_ours(&self, target: &Target, record: Arc<Record>, now: Time) {
        self.seen(target, now, |seen| {
            seen.found = Some((Who::Ours(record), now));
            seen.forget();
        });
    }

    /// Nobody answered there in our own protocol. One lost packet says nothing of what is there.
    pub(crate) fn missed(&self, target: &Target, failure: Failure) {
        if let Some(seen) = self.all().get_mut(target).filter(|seen| !seen.is_asking()) {
            seen.misses += 1;
            if says_gone(failure) || seen.misses >= MISSES {
                seen.forget();
            }
        }
    }

    /// When the latest call there began.
    pub(crate) fn began(&self, target: &Target) -> Option<Time> {
        self.all().get(target)?.began
    }

    /// One of ours is there, or a guest that others know.
    pub(crate) fn forget(&self, target: &Target) {
        if let Some(seen) = self.all().get_mut(target).filter(|seen| !seen.is_asking()) {
            seen.forget();
        }
    }

    /// The node that answered there recently.
    pub(crate) fn at(&self, target: &Target, now: Time) -> Option<Who> {
        let all = self.all();
        let (who, at) = all.get(target)?.found.as_ref()?;
        (now.since(*at) < FOUND_RECENTLY).then(|| who.clone())
    }

    /// The guest that answered there a moment ago.
    pub(crate) fn guest_just_now(&self, target: &Target, now: Time) -> Option<NodeName> {
        let all = self.all();
        match all.get(target)?.found.as_ref()? {
            (Who::Guest(name), at) if now.since(*at) < JUST_NOW => Some(name.clone()),
            _ => None,
        }
    }

    /// Whether it is time to look whether one of ours took the place of a guest that nobody doubts.
    pub(crate) fn look_seldom(&self, target: &Target, now: Time) -> bool {
        self.seen(target, now, |seen| {
            let due = now.since(*seen.planned_at.get_or_insert(now)) > LOOK_SELDOM;
            if due {
                seen.planned_at = Some(now);
            }
            due
        })
    }

    /// Whether it is time to look again who is there; if so, it is taken for looked at.
    pub(crate) fn look_again(&self, target: &Target, now: Time) -> bool {
        self.seen(target, now, |seen| {
            let known = seen.found.as_ref().is_some_and(|(_, at)| now.since(*at) < ASK_AGAIN);
            let due = !known && seen.planned_at.is_none_or(|at| now.since(at) > ASK_PAUSE);
            if due {
                seen.planned_at = Some(now);
            }
            due
        })
    }

    /// Whether it is this bot's turn to ask at an address without a name. `rank` is how many of all
    /// `ours` go before it, and may want to or not.
    pub(crate) fn is_turn(&self, target: &Target, (rank, ours): (usize, usize), now: Time) -> bool {
        self.seen(target, now, |seen| {
            if now < *seen.wanted_at.get_or_insert(now) + LISTEN {
                return false;
            }
            let (rank, ours) = (rank.try_into().unwrap_or(u32::MAX), ours.max(1) as f64);
            let first = TURNS.0 * rank.min(TURNS.1);
            let late = LATE_TURNS.mul_f64(f64::from(rank.saturating_sub(TURNS.1)) / ours);
            now >= *seen.turn.get_or_insert(now + first + late)
        })
    }

    /// What another bot of ours says of an address, if this bot has to leave that address to it. If
    /// two began at once, the first by name goes on.
    pub(crate) fn elsewhere<'a>(
        &self,
        snapshot: &'a Snapshot,
        target: &Target,
        now: Time,
    ) -> Option<&'a PendingJoin> {
        let own = self.is_pending(target, now);
        // A guest that measures is not stuck, whatever others say.
        if guest_at(snapshot, target).is_some_and(|guest| snapshot.measures(guest)) {
            return None;
        }
        let mut others = snapshot
            .pending()
            .filter(|(name, pending)| pending.target == *target && **name != snapshot.me.name)
            .filter(|(name, _)| !own || **name < snapshot.me.name);
        others.next().map(|(_, pending)| pending)
    }

    /// Whether a guest is known not to answer, or not to have answered yet.
    pub(crate) fn waits(&self, snapshot: &Snapshot, target: &Target, now: Time) -> bool {
        self.is_pending(target, now) || self.elsewhere(snapshot, target, now).is_some()
    }

    /// Where this bot waits for guests, for the others to hear.
    pub(crate) fn told(&self, snapshot: &Snapshot, now: Time) -> Vec<PendingJoin> {
        self.pending(|target| self.elsewhere(snapshot, target, now).is_some(), now)
    }

    /// What the others should hear: where this bot waits, or leaves a stuck guest alone for now.
    /// Addresses at which it gives way are the other's.
    fn pending(&self, gives_way: impl Fn(&Target) -> bool, now: Time) -> Vec<PendingJoin> {
        let mut pending: Vec<_> = self
            .all()
            .iter()
            .filter(|(_, seen)| seen.pending(now))
            .map(|(target, _)| target.clone())
            .collect();
        pending.retain(|target| {
            let stays = !gives_way(target);
            if !stays {
                self.seen(target, now, |seen| seen.unanswered = 0);
            }
            stays
        });
        pending.truncate(PENDING_JOINS_MAX);
        let all = self.all();
        let unanswered = |target: &Target| all.get(target).map_or(0, |seen| seen.unanswered);
        pending
            .into_iter()
            .map(|target| PendingJoin { unanswered: unanswered(&target), target })
            .collect()
    }

    /// Whether it is time to ask a stuck guest again; if so, it is taken for asked.
    pub(crate) fn is_due(&self, target: &Target, now: Time) -> bool {
        self.seen(target, now, |seen| {
            let rested = seen.planned_at.is_none_or(|at| now.since(at) >= ASK_PAUSE);
            let due = seen.unanswered > 0 && !seen.is_asking() && now >= seen.not_before && rested;
            if due {
                seen.planned_at = Some(now);
            }
            due
        })
    }

    /// Whether this bot tells of an address.
    fn is_pending(&self, target: &Target, now: Time) -> bool {
        self.all().get(target).is_some_and(|seen| seen.pending(now))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// How long what a bot publishes is on its way to the others.
    const WAY: Duration = Duration::from_secs(1);

    /// Bots of ours that share an address with a stuck guest, and hear each other's rows a moment
    /// later.
    struct Mesh {
        bots: Vec<Joins>,
        /// What each bot told, and since when.
        told: Vec<Vec<(Time, Vec<PendingJoin>)>>,
        held: BTreeMap<Target, usize>,
    }

    impl Mesh {
        fn new(bots: usize) -> Self {
            let told = vec![Vec::new(); bots];
            Self {
                bots: (0..bots).map(|_| Joins::default()).collect(),
                told,
                held: BTreeMap::new(),
            }
        }

        /// What `bot` has heard from the one that it gives way to.
        fn elsewhere(&self, bot: usize, target: &Target, now: Time) -> Option<PendingJoin> {
            let own = self.bots[bot].is_pending(target, now);
            let heard = |other: usize| {
                let latest = self.told[other].iter().rev().find(|(at, _)| *at + WAY <= now);
                latest
                    .and_then(|(_, pending)| {
                        pending.iter().find(|pending| pending.target == *target)
                    })
                    .cloned()
            };
            (0..self.bots.len())
                .filter(|other| *other != bot && (!own || *other < bot))
                .find_map(heard)
        }

        /// One look of one bot, at targets that never answer.
        fn look(&mut self, bot: usize, targets: &[Target], wants: bool, now: Time) {
            for target in targets {
                // A call is given up after three seconds.
                if self.bots[bot].all().get(target).is_some_and(|seen| {
                    seen.is_asking() && now.since(seen.began.unwrap()) >= Duration::from_secs(3)
                }) {
                    self.bots[bot].ended(target, Ok(Joined::Stuck), now);
                }
                let wants = (wants && self.bots[bot].is_turn(target, (bot, self.bots.len()), now))
                    || self.bots[bot].is_pending(target, now);
                let elsewhere = self.elsewhere(bot, target, now);
                if wants && self.bots[bot].turn(target, elsewhere.as_ref(), now) == Turn::Ask {
                    *self.held.entry(target.clone()).or_default() += 1;
                }
            }
            let pending =
                self.bots[bot].pending(|target| self.elsewhere(bot, target, now).is_some(), now);
            if self.told[bot].last().is_none_or(|(_, before)| *before != pending) {
                self.told[bot].push((now, pending));
            }
        }
    }

    fn targets() -> [Target; 2] {
        ["old-1:8081".parse().unwrap(), "old-2:8081".parse().unwrap()]
    }

    #[test]
    fn thirty_bots_leave_at_most_ten_calls_behind_at_two_stuck_ones_in_ten_minutes() {
        // Whether all of them were given these targets, or one of them, whose turn comes last.
        for wanting in [0..30, 29..30] {
            let mut mesh = Mesh::new(30);
            for look in 0..20 * 60 {
                let now = Time::ZERO + Duration::from_millis(500) * look;
                (0..30).for_each(|bot| mesh.look(bot, &targets(), wanting.contains(&bot), now));
            }
            let held: usize = mesh.held.values().sum();
            assert!((8..=10).contains(&held), "{wanting:?}: {:?}", mesh.held);
        }
    }

    #[test]
    fn a_stuck_one_is_asked_again_ever_later_and_soon_after_it_became_known() {
        let (joins, [old, _]) = (Joins::default(), targets());
        let second = |second: u64| Time::ZERO + Duration::from_secs(second);
        let mut asked = Vec::new();
        for now in 0..3600 {
            if joins.turn(&old, None, second(now)) == Turn::Ask {
                asked.push(now);
                assert_eq!(
                    joins.ended(&old, Ok(Joined::Stuck), second(now + 3)),
                    asked.len() == 1,
                    "it is said once"
                );
            }
        }
        assert_eq!(asked[..7], [0, 63, 186, 429, 912, 1515, 2118]);
        assert_eq!(joins.turn(&old, None, second(3600)), Turn::Stuck);
        joins.heard(&old, second(3600));
        assert_eq!(
            joins.turn(&old, None, second(3600)),
            Turn::Stuck,
            "anybody can say that it pings"
        );
        joins.forget(&old);
        assert_eq!(joins.turn(&old, None, second(3600)), Turn::Ask, "it measures");
        joins.ended(&old, Ok(Joined::Stuck), second(3603));
        joins.heard(&old, second(3610));
        assert_eq!(joins.turn(&old, None, second(3614)), Turn::Stuck);
        assert_eq!(
            joins.turn(&old, None, second(3615)),
            Turn::Ask,
            "it became known soon after the first call"
        );
        assert!(joins.ended(&old, Ok(Joined::As("old-1".parse().unwrap())), second(3600)));
        assert_eq!(joins.pending(|_| false, second(3600)), []);
    }

    #[test]
    fn of_two_that_wait_at_one_address_one_gives_way_and_goes_on_when_the_other_is_gone() {
        let (first, second, [old, _]) = (Joins::default(), Joins::default(), targets());
        let at = |millis: u64| Time::ZERO + Duration::from_millis(millis);
        assert_eq!(
            (first.turn(&old, None, at(0)), second.turn(&old, None, at(0))),
            (Turn::Ask, Turn::Ask)
        );
        assert_eq!(
            first.pending(|_| false, at(499)),
            [],
            "a guest that is well has answered by then"
        );
        let waits = first.pending(|_| false, at(500));
        assert_eq!(waits, [PendingJoin { target: old.clone(), unanswered: 0 }]);
        for joins in [&first, &second] {
            joins.ended(&old, Ok(Joined::Stuck), at(3000));
        }
        assert_eq!(second.pending(|_| true, at(3000)), [], "it gives way");
        assert_eq!(
            second.turn(&old, first.pending(|_| false, at(3000)).first(), at(200_000)),
            Turn::Stuck
        );
        assert_eq!(
            second.pending(|_| false, at(200_000)),
            [],
            "what the other found out since is for that one to tell"
        );
        assert_eq!(second.turn(&old, None, at(200_000)), Turn::Ask, "the other is gone");
    }
}
