//! The own row: when it is published whole, and what travels at once as a patch.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Core;
use super::deadlines::Timer;
use crate::cell::{Cell, TICK};
use crate::identity::NodeName;
use crate::limits::{
    FIRSTS_PUSHED_MAX, GROWTH_PAUSE, JUMP_INTERVAL, PATCH_INTERVAL, PATCHES_MAX,
    ROSTER_FRAME_INTERVAL, ROSTER_PAUSES_MAX, ROW_RATE_SHARE, ROW_RATE_SHARE_AT_START,
    UNANSWERED_LISTED, YOUNG,
};
use crate::members::{ME, Slot};
use crate::message::RowNews;
use crate::orders::Output;
use crate::pair::Urgency;
use crate::pending::PendingJoin;
use crate::release::Release;
use crate::roster::{Roster, RosterId};
use crate::row::{Frame, Merge, Patch, Row, Version};
use crate::secured::Secured;
use crate::series::ProbeKind;
use crate::time::{Moment, Time, Wall};

/// Typical bytes of a packed cell, until the own frame tells better.
const CELL_BYTES: usize = 4;

/// What is published and what waits to be.
#[derive(Debug)]
pub(super) struct Publisher {
    version: Version,
    roster: Arc<Roster>,
    /// Which member has which place in the roster, by the index of its slot.
    places: Vec<Option<(Slot, u32)>>,
    /// Until when a new roster also lists names that had no time to answer yet, and rows may take
    /// more of the gossip rate.
    young_until: Time,
    /// Whether the present roster lists them.
    lists_all: bool,
    /// Members came or went since the roster was made, or something else of a frame changed that
    /// others must hear of soon.
    roster_stale: bool,
    /// When they first and last did since the roster was made.
    roster_stale_since: Time,
    roster_stale_at: Time,
    /// The next frame makes another roster, whenever it is due.
    roster_shrank: bool,
    /// Pairs that changed in a way others must hear of at once.
    changed: BTreeSet<Slot>,
    /// A pair changed its state, from unknown or from another.
    change_is_state: bool,
    /// One changed its state in a way that is pushed to others at once. A latency that jumped waits
    /// for the tick: on a noisy host they jump all the time, and every push is passed on by
    /// everybody.
    change_is_news: bool,
    /// A patch left out pairs that changed, because the roster does not list them: the next frame has
    /// them.
    change_is_unlisted: bool,
    /// The latest version that was pushed, or that others ask for: a frame, or first samples in a
    /// large mesh.
    told: Version,
    /// The latest version that told of a pair that changed its state; 0 if none did.
    pub(super) changed_in: Version,
    /// Some changed pairs are not in the roster yet. They are first published by the next frame,
    /// which is due soon.
    frame_is_news: bool,
    secured: Option<Secured>,
    release: Option<Release>,
    pending: Vec<PendingJoin>,
    /// Whether [`Output::Published`] is wanted.
    tells: bool,
    framed_at: Time,
    /// When the next frame is due in its turn.
    frame_due: Time,
    published_at: Time,
}

impl Publisher {
    pub(super) fn new(now: Time) -> Self {
        Self {
            version: 0,
            roster: Roster::new([]),
            places: Vec::new(),
            young_until: now + YOUNG,
            lists_all: false,
            roster_stale: true,
            roster_stale_since: now,
            roster_stale_at: now,
            roster_shrank: false,
            changed: BTreeSet::new(),
            change_is_state: false,
            change_is_news: false,
            change_is_unlisted: false,
            told: 0,
            changed_in: 0,
            frame_is_news: false,
            secured: None,
            release: None,
            pending: Vec::new(),
            tells: false,
            framed_at: now,
            frame_due: now,
            published_at: now,
        }
    }

    /// The driver wants to hear of news.
    pub(super) fn tell(&mut self) {
        self.tells = true;
    }

    pub(super) fn set_secured(&mut self, secured: Secured) {
        self.secured = Some(secured);
    }

    pub(super) fn set_release(&mut self, release: Release) {
        self.release = Some(release);
    }

    /// A new incarnation publishes from the first version on.
    pub(super) fn restart(&mut self) {
        (self.version, self.told, self.changed_in) = (0, 0, 0);
        self.roster_shrank = true;
    }

    /// The position of a member in the own row; none before the first frame after it became known.
    pub(super) fn place(&self, slot: Slot) -> Option<u32> {
        let (held, place) = (*self.places.get(slot.index())?)?;
        (held == slot).then_some(place)
    }

    /// Whether a member has a place in the own row, or is to have one in the next frame.
    pub(super) fn will_list(&self, slot: Slot) -> bool {
        self.place(slot).is_some() || self.roster_stale
    }

    /// Somebody left for good: the next frame does without.
    pub(super) fn roster_shrank(&mut self) {
        self.roster_shrank = true;
    }

    pub(super) fn roster(&self) -> RosterId {
        self.roster.id()
    }
}

impl Core {
    /// How often the whole own row is published: the configured interval, the pair interval, or
    /// what the gossip rate allows.
    pub fn publish_interval(&self, now: Time) -> Duration {
        let is_young = now < self.publisher.young_until;
        let share = if is_young { ROW_RATE_SHARE_AT_START } else { ROW_RATE_SHARE };
        let rows = self.members.present_known() + 1;
        let row_bytes =
            self.members.me().row().map_or(CELL_BYTES * rows, |row| row.frame().packed_len());
        let allowed = (rows * row_bytes) as f64 / (self.config.gossip_rate_max as f64 * share);
        self.config.publish_interval.max(self.pair_interval()).max(Duration::from_secs_f64(allowed))
    }

    /// The name list has changed: rows need a new roster, soon but not for every one of a thousand
    /// newcomers.
    pub(super) fn roster_changed(&mut self, now: Moment) {
        if !self.publisher.roster_stale {
            self.publisher.roster_stale_since = now.time;
        }
        self.publisher.roster_stale = true;
        self.publisher.roster_stale_at = now.time;
        let due = self.roster_due();
        self.deadlines.timers.set_earlier(Timer::Publish, due.max(now.time));
    }

    /// When a roster that is stale is made again: a pause after the frame before, and once the names
    /// have not changed for a while, or keep changing. A mesh that starts would otherwise send each
    /// bot a roster of nearly every other.
    fn roster_due(&self) -> Time {
        let quiet = self.growth_pause();
        let pause = ROSTER_FRAME_INTERVAL.max(quiet);
        let Publisher { framed_at, roster_stale_since, roster_stale_at, .. } = self.publisher;
        let quiet_at =
            (roster_stale_at + quiet).min(roster_stale_since + pause * ROSTER_PAUSES_MAX);
        quiet_at.max(framed_at + pause)
    }

    /// Publishes in the own row which bots of the original do not admit this bot. Others learn it
    /// soon and need not ask there as well.
    pub(super) fn tell_pending(&mut self, pending: Vec<PendingJoin>, now: Moment) {
        self.publisher.pending = pending;
        self.publisher.frame_is_news = true;
        self.roster_changed(now);
    }

    /// The publish interval has shrunk.
    pub(super) fn publish_sooner(&mut self, now: Moment) {
        let due = self.publisher.framed_at + self.publish_interval(now.time);
        self.publisher.frame_due = self.publisher.frame_due.min(due);
        self.deadlines.timers.set_earlier(Timer::Publish, due.max(now.time));
    }

    /// A pair was measured.
    pub(super) fn pair_changed(&mut self, slot: Slot, urgency: Urgency, now: Moment) {
        let pause = match urgency {
            Urgency::State => PATCH_INTERVAL,
            // At a pace that everybody can be told at: they are as many as all pairs.
            Urgency::First => PATCH_INTERVAL.max(self.growth_pause()),
            Urgency::Jump => JUMP_INTERVAL,
            Urgency::None => return,
        };
        self.publisher.changed.insert(slot);
        self.publisher.change_is_state |= urgency != Urgency::Jump;
        self.publisher.change_is_news |=
            urgency == Urgency::State || urgency == Urgency::First && self.pushes_firsts();
        self.deadlines
            .timers
            .set_earlier(Timer::Publish, now.time.max(self.publisher.published_at + pause));
    }

    /// How many names did not answer yet, of those that are there.
    fn unanswered(&self) -> usize {
        self.members.present() - self.members.present_known()
    }

    /// Whether a new roster lists names that did not answer yet. Bots that start together know all
    /// names long before they have measured all of them; in the meantime each would have a roster
    /// of its own, and those are more bytes than the rows.
    pub(super) fn lists_all(&self, now: Moment) -> bool {
        now.time < self.publisher.young_until && self.unanswered() <= UNANSWERED_LISTED
    }

    /// How many nodes the mesh seems to have. A peer that sends names which never answer can make
    /// it seem larger by [`UNANSWERED_LISTED`] at most: first samples then come a few seconds late.
    fn likely_nodes(&self) -> usize {
        1 + self.members.present_known() + self.unanswered().min(UNANSWERED_LISTED)
    }

    /// The pause for a mesh of this size while it grows.
    fn growth_pause(&self) -> Duration {
        GROWTH_PAUSE * self.likely_nodes() as u32
    }

    /// Whether it is pushed that a pair was answered for the first time.
    pub(super) fn pushes_firsts(&self) -> bool {
        self.likely_nodes() <= FIRSTS_PUSHED_MAX
    }

    pub(super) fn publish(&mut self, now: Moment) {
        if self.joining.naming.yields() {
            let due = now.time + self.publish_interval(now.time);
            self.deadlines.timers.set(Timer::Publish, due);
            return;
        }
        let row = self.members.me().row();
        let roster_due = self.roster_due();
        let in_turn = row.is_some() && now.time >= self.publisher.frame_due;
        let whole = row.is_some_and(|row| row.patches().len() >= PATCHES_MAX)
            || in_turn
            || self.publisher.roster_stale && now.time >= roster_due;
        if whole {
            self.publish_frame(in_turn, now);
        } else if !self.publisher.changed.is_empty() {
            self.publish_patch(now);
        }
        let mut next = self.publisher.frame_due;
        if self.publisher.roster_stale {
            next = next.min(self.roster_due());
        }
        self.deadlines.timers.set(Timer::Publish, next.max(now.time + PATCH_INTERVAL));
    }

    /// The label of a row published now: whole ticks of our own clock, so that a sample keeps its
    /// label from row to row.
    fn label(now: Moment) -> (Time, Wall) {
        let into_tick = Duration::from_micros(now.time.micros() % TICK.as_micros() as u64);
        (now.time, now.wall.back(into_tick))
    }

    fn publish_frame(&mut self, in_turn: bool, now: Moment) {
        let all = self.lists_all(now);
        let is_stale = self.publisher.roster_stale || self.publisher.roster_shrank;
        if is_stale || self.publisher.lists_all != all {
            let listed = |slot| {
                self.members.get(slot).is_some_and(|member| {
                    (member.known || all && member.is_present()) && !member.left_long_ago(now.time)
                })
            };
            let (names, slots): (Vec<_>, Vec<_>) = self
                .members
                .by_name()
                .filter(|(_, slot)| listed(*slot))
                .map(|(name, slot)| (name.clone(), slot))
                .unzip();
            self.publisher.places.clear();
            self.publisher
                .places
                .resize(slots.iter().map(|slot| slot.index() + 1).max().unwrap_or_default(), None);
            for (place, slot) in slots.into_iter().enumerate() {
                self.publisher.places[slot.index()] = Some((slot, place as u32));
            }
            if *names != *self.publisher.roster.names() {
                let roster = Roster::new(names);
                // A roster that a peer sent is the same by content: one copy is enough.
                self.publisher.roster =
                    Arc::clone(self.gossip.rosters.entry(roster.id()).or_insert(roster));
            }
            (self.publisher.roster_stale, self.publisher.roster_shrank) = (false, false);
            self.publisher.lists_all = all;
        }
        let (label, wall) = Self::label(now);
        let cells = self.own_cells(ProbeKind::MAIN, label);
        let others: Vec<_> = self
            .schedule
            .kinds()
            .iter()
            .map(|kind| (*kind, self.own_cells(*kind, label)))
            .collect();
        self.publisher.version += 1;
        let frame = Frame::new(self.publisher.version, self.publisher.roster.id(), wall, &cells)
            .with_secured(self.publisher.secured)
            .with_release(self.publisher.release.clone())
            .with_pending(self.publisher.pending.clone())
            .with_series(others);
        let row = Row::new(
            Arc::new(frame),
            Some(Arc::clone(&self.publisher.roster)),
            Duration::ZERO,
            now.time,
        );
        self.members.me_mut().hold(Some(Arc::new(row)), None);
        self.tell_published(ME, self.publisher.version - 1, now);
        // Rosters of all grow when somebody joins, and rows of all in step would take the whole
        // gossip rate at once: the turn after it is drawn.
        let turn = if in_turn { 1.0 } else { 0.5 + self.rng.f64() };
        let interval = self.publish_interval(now.time);
        self.publisher.frame_due = now.time + interval.mul_f64(turn);
        self.publisher.framed_at = now.time;
        self.publisher.published_at = now.time;
        self.publisher.changed.clear();
        let [is_state, is_unlisted] =
            [&mut self.publisher.change_is_state, &mut self.publisher.change_is_unlisted]
                .map(std::mem::take);
        if is_state || is_unlisted {
            self.publisher.changed_in = self.publisher.version;
        }
        let is_news = [&mut self.publisher.frame_is_news, &mut self.publisher.change_is_news]
            .map(std::mem::take);
        if is_news.contains(&true) {
            self.spread_own_row(self.publisher.version - 1, now);
        }
        self.publisher.told = self.publisher.version;
    }

    /// What we measured, in the order of the roster.
    fn own_cells(&self, kind: ProbeKind, label: Time) -> Vec<Cell> {
        // Both lists of names are in order: one walk through both instead of a search for each
        // name.
        let mut members = self.members.by_name().peekable();
        let cell_of = |name: &NodeName| {
            while members.next_if(|(other, _)| *other < name).is_some() {}
            let slot = members
                .next_if(|(other, _)| *other == name)
                .map(|(_, slot)| slot)
                .filter(|slot| *slot != ME);
            slot.and_then(|slot| self.members.get(slot))
                .map(|member| member.pair.cell(kind, label))
                .unwrap_or_default()
        };
        self.publisher.roster.names().iter().map(cell_of).collect()
    }

    /// Reports, if that is wanted, what is new in the readable row of a member since version
    /// `before`.
    pub(super) fn tell_published(&mut self, slot: Slot, before: Version, now: Moment) {
        if !self.publisher.tells {
            return;
        }
        let held =
            self.members.get(slot).and_then(|member| Some((member.record.instance, member.row()?)));
        let news = held.and_then(|(source, row)| {
            Some((RowNews::since(source, row, before, now.time)?, Arc::clone(row)))
        });
        if let Some((news, row)) = news {
            self.orders.outbox.push(Output::Published { news, row });
        }
    }

    fn publish_patch(&mut self, now: Moment) {
        let (label, wall) = Self::label(now);
        let (mut changes, mut is_unlisted) = (Vec::new(), false);
        let [is_state, is_news] =
            [&mut self.publisher.change_is_state, &mut self.publisher.change_is_news]
                .map(std::mem::take);
        for slot in std::mem::take(&mut self.publisher.changed) {
            let Some(member) = self.members.get(slot) else { continue };
            match self.publisher.place(slot) {
                Some(place) => changes.push((place, member.pair.cell(ProbeKind::MAIN, label))),
                // A name that answers nobody here is not listed in the next roster either.
                None => is_unlisted |= member.known || self.publisher.lists_all,
            }
        }
        if is_unlisted && !self.publisher.roster_stale {
            self.roster_changed(now);
        }
        self.publisher.frame_is_news |= is_news && is_unlisted;
        self.publisher.change_is_unlisted |= is_state && is_unlisted;
        if changes.is_empty() {
            return;
        }
        changes.sort_unstable_by_key(|(position, _)| *position);
        let patch = Arc::new(Patch::new(self.publisher.version + 1, wall, &changes));
        if self.members.me_mut().extend(&patch, Duration::ZERO, now.time) != Merge::Taken {
            self.publisher.change_is_state |= is_state;
            self.publisher.change_is_news |= is_news;
            return self.publish_frame(false, now);
        }
        self.publisher.version += 1;
        self.tell_published(ME, self.publisher.version - 1, now);
        self.publisher.published_at = now.time;
        if is_state {
            self.publisher.changed_in = self.publisher.version;
        }
        if is_state && !is_news {
            self.publisher.told = self.publisher.version;
        }
        if is_news {
            // With the patches that were not pushed: others can read this one only after them.
            self.spread_own_row(self.publisher.told, now);
            self.publisher.told = self.publisher.version;
        }
    }
}
