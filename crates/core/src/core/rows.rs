//! Rows and rosters: what an exchange brings of them, and what is sent of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Core;
use super::rumour::{FRAME_IS_NEWS, Rumour};
use crate::limits::{
    EXCHANGE_CONTENT_BYTES_MAX, RECORD_BYTES_MAX, RECORDS_PER_EXCHANGE_MAX, WANTS_MAX,
};
use crate::members::{ME, Member, Slot};
use crate::message::{Exchange, RowNews};
use crate::roster::{Roster, RosterId};
use crate::row::{Merge, Row, Version};
use crate::tally::Refusal;
use crate::time::Moment;

/// What an exchange made us want to send back.
#[derive(Debug, Default)]
pub(super) struct Reaction {
    pub(super) answer: Exchange,
    /// Rows the other lacks, with the version it has.
    pub(super) rows: BTreeMap<Slot, Version>,
    pub(super) records: BTreeSet<Slot>,
}

impl Reaction {
    pub(super) fn lacks(&mut self, slot: Slot, version: Version) {
        let held = self.rows.entry(slot).or_insert(version);
        *held = version.min(*held);
    }
}

impl Core {
    /// Rosters that rows wait for.
    pub(super) fn wanted_rosters(&self) -> Vec<RosterId> {
        let mut wanted: Vec<RosterId> = Vec::new();
        for (roster, slot) in &self.gossip.lacking {
            if wanted.len() >= WANTS_MAX {
                break;
            }
            if wanted.last() != Some(roster) && self.waits_for(*roster, *slot) {
                wanted.push(*roster);
            }
        }
        wanted
    }

    fn waits_for(&self, roster: RosterId, slot: Slot) -> bool {
        self.members.get(slot).is_some_and(|member| member.lacks(roster))
    }

    /// Fills an answer with what the other lacks: changes before refreshes, the most lagging first,
    /// as much as one message and the rate allow. The rest travels with a later one.
    pub(super) fn compose(
        &mut self,
        reaction: Reaction,
        for_records: f64,
        for_rows: f64,
        now: Moment,
    ) -> Exchange {
        let Reaction { mut answer, rows, records } = reaction;
        let mut rows: Vec<_> = rows.into_iter().collect();
        let credit = for_rows.max(0.0) as usize;
        let mut room = EXCHANGE_CONTENT_BYTES_MAX.min(credit);
        let mut record_room = RECORD_BYTES_MAX.min(for_records.max(0.0) as usize);
        answer.records = records
            .into_iter()
            .filter(|slot| self.entry(*slot, now).is_some())
            .filter_map(|slot| Some(self.members.get(slot)?.heard(now.time)))
            .take(RECORDS_PER_EXCHANGE_MAX)
            .take_while(|heard| {
                let len = heard.record.packed_len();
                let fits = len <= record_room;
                record_room = record_room.saturating_sub(len);
                fits
            })
            .collect();
        answer.rosters.retain(|roster| {
            let len = roster.packed_len();
            let fits = len <= room;
            room -= if fits { len } else { 0 };
            fits
        });
        rows.sort_by_key(|(slot, version)| {
            let lag = self
                .members
                .get(*slot)
                .map_or(0, |member| member.version().saturating_sub(*version));
            let whole = self
                .members
                .get(*slot)
                .and_then(Member::row)
                .is_none_or(|row| *version < row.frame().version());
            (whole, std::cmp::Reverse(lag))
        });
        let age_max = self.config.retain_samples / 2;
        let mut held_back = false;
        for (slot, version) in rows {
            let Some(member) = self.members.get(slot) else { continue };
            let Some(news) = member
                .fresh_row(now.time, age_max)
                .and_then(|row| RowNews::since(member.record.instance, row, version, now.time))
            else {
                continue;
            };
            let len = news.weight();
            if len > room || answer.rows.len() >= WANTS_MAX {
                held_back = true;
                continue;
            }
            room -= len;
            answer.rows.push(news);
        }
        if held_back && credit < EXCHANGE_CONTENT_BYTES_MAX {
            self.refuse(Refusal::GossipRate);
        }
        answer
    }

    pub(super) fn take_row(&mut self, news: RowNews, now: Moment) {
        let slot = match self.members.of_instance(news.source) {
            Some(ME) => return,
            Some(slot) => slot,
            None => return self.refuse(Refusal::RowUnknown),
        };
        if news.age > self.config.retain_samples / 2 {
            return self.refuse(Refusal::RowOld);
        }
        let Some(member) = self.members.get(slot) else {
            return;
        };
        let (held, is_known, bytes_before) = (member.version(), member.known, member.row_bytes());
        let readable_before = member.row().map_or(0, |row| row.version());
        // What only replaces as much is taken also while there is no room for more.
        if !self.may_hold(news.packed_len().saturating_sub(bytes_before), is_known) {
            return self.refuse(Refusal::RowsFull);
        }
        if let Some((frame, age)) = news.frame
            && frame.version() > held
        {
            let roster = self.gossip.rosters.get(&frame.roster()).cloned();
            let mut row = Row::new(frame, None, age, now.time);
            if roster.as_ref().is_some_and(|roster| row.supply(roster).is_err()) {
                return self.refuse(Refusal::RowMismatch);
            }
            let Some(member) = self.members.get_mut(slot) else { return };
            if roster.is_some() {
                member.hold(Some(Arc::new(row)), None);
            } else {
                let readable = member.row().cloned();
                if let Some(waiting) = member.pending() {
                    self.gossip.lacking.remove(&(waiting.frame().roster(), slot));
                }
                self.gossip.lacking.insert((row.frame().roster(), slot));
                member.hold(readable, Some(Arc::new(row)));
            }
        }
        let pushes_firsts = self.pushes_firsts();
        let Some(member) = self.members.get_mut(slot) else { return };
        let before = member.version();
        // As its source does: what changed its state is pushed, everything else waits for the tick.
        let is_recent = news.age < FRAME_IS_NEWS;
        let changes_state = is_recent
            && member
                .newest_row()
                .is_some_and(|row| row.changes_state(&news.patches, pushes_firsts));
        let mut is_news = false;
        for patch in &news.patches {
            match member.extend(patch, news.age, now.time) {
                Merge::Taken => is_news = changes_state,
                Merge::Known => {}
                Merge::Gap => break,
            }
        }
        let frame = member.newest_row().map_or(0, |row| row.frame().version());
        if member.wanted.is_some_and(|(version, _)| member.version() >= version) {
            member.wanted = None;
        }
        let bytes = member.row_bytes();
        self.now_holds(bytes_before, bytes, is_known);
        self.tell_published(slot, readable_before, now);
        if is_news {
            // All that came: others may lack a patch that is here already, and could not read those
            // after it.
            let came_after = news
                .patches
                .first()
                .map_or(before, |first| first.version().saturating_sub(1).max(frame));
            self.spread(Rumour::Row(news.source), before.min(came_after), now);
        }
    }

    pub(super) fn take_roster(&mut self, roster: Arc<Roster>, now: Moment) {
        let listed = self
            .gossip
            .lacking
            .range((roster.id(), ME)..)
            .take_while(|(id, _)| *id == roster.id())
            .map(|(_, slot)| *slot);
        let waiting: Vec<_> = listed.filter(|slot| self.waits_for(roster.id(), *slot)).collect();
        for slot in &waiting {
            self.gossip.lacking.remove(&(roster.id(), *slot));
        }
        if waiting.is_empty() {
            if !self.gossip.rosters.contains_key(&roster.id()) {
                self.refuse(Refusal::RosterUnwanted);
            }
            return;
        }
        let roster = roster.sharing(self.members.by_name().map(|(name, _)| name));
        let (bytes, is_new) = (roster.bytes(), !self.gossip.rosters.contains_key(&roster.id()));
        let is_known =
            waiting.iter().any(|slot| self.members.get(*slot).is_some_and(|member| member.known));
        if is_new && !self.may_hold(bytes, is_known) {
            self.refuse(Refusal::RowsFull);
            for slot in waiting {
                let Some(member) = self.members.get_mut(slot) else { continue };
                let readable = member.row().cloned();
                member.hold(readable, None);
            }
            return;
        }
        if is_new {
            self.now_holds(0, bytes, is_known);
        }
        for slot in waiting {
            let Some(member) = self.members.get_mut(slot) else { continue };
            let Some(mut row) = member.pending().cloned() else { continue };
            let fits = Arc::make_mut(&mut row).supply(&roster).is_ok();
            let readable_before = member.row().map_or(0, |row| row.version());
            let readable = if fits { Some(row) } else { member.row().cloned() };
            member.hold(readable, None);
            if fits {
                self.tell_published(slot, readable_before, now);
            } else {
                self.journal.refuse(Refusal::RowMismatch);
            }
        }
        self.gossip.rosters.insert(roster.id(), roster);
    }

    /// Lets go of rosters that no row refers to, and of rows that wait no more.
    pub(super) fn collect_rosters(&mut self) {
        let mut lacking = std::mem::take(&mut self.gossip.lacking);
        lacking.retain(|(roster, slot)| self.waits_for(*roster, *slot));
        self.gossip.lacking = lacking;
        if self.gossip.rosters.len() <= 1 {
            return;
        }
        let used = self.members.rosters(|_| true);
        let own = self.publisher.roster();
        self.gossip.rosters.retain(|id, _| *id == own || used.contains(id));
    }
}
