//! Everybody we know, ourselves included, each in a slot that stays the same for as long as the
//! name is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::bucket::Bucket;
use crate::digest::{Entry, earliest_change};
use crate::identity::{Instance, NodeName, Record, Target};
use crate::limits::{
    BROKEN_PATH_EVIDENCE, DOUBT_AFTER, FLAP_MEMORY, HEARD_PER_INTRODUCER_MAX, LEFT_LISTED,
    MEMBERS_MAX, RETIRED_MAX, UNPROVEN_MAX,
};
use crate::liveness::{Liveness, Status};
use crate::message::{Heard, InstanceRange, Suspicion};
use crate::pair::Pair;
use crate::roster::RosterId;
use crate::row::{Merge, Patch, Row, Version};
use crate::sorted::Sorted;
use crate::tally::Refusal;
use crate::time::{Moment, Time};

/// Where a member is held. A place that goes to another name has another slot from then on: what
/// still has the former one finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    index: u32,
    /// How often the place was given away.
    generation: u32,
}

impl Slot {
    pub(crate) fn index(self) -> usize {
        self.index as usize
    }
}

/// The slot of this bot itself.
pub(crate) const ME: Slot = Slot { index: 0, generation: 0 };

/// Everything held of one name.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) record: Arc<Record>,
    pub(crate) liveness: Liveness,
    /// Whether it answered us at its target with its name in this incarnation. Until then it is
    /// dialled at the low rate.
    pub(crate) proven: bool,
    /// Whether it did so in any incarnation, or others vouch for it. Otherwise it is only a
    /// reported name: no interval counts it, and no list shows it.
    pub(crate) known: bool,
    /// Whether it is known because others reach it.
    pub(crate) vouched: bool,
    /// Who named it first, while it is not proven.
    introducer: Option<Instance>,
    /// What we measured of it; survives restarts of the node, so that counters only grow.
    pub(crate) pair: Arc<Pair>,
    /// What it published.
    row: Option<Arc<Row>>,
    /// A newer row whose roster is still to come.
    pending: Option<Arc<Row>>,
    /// The version of the newer of both, and when it was published: digests read it of everybody,
    /// all the time.
    newest: (Version, Time),
    /// A version that was requested, and when: until it arrives it is not requested elsewhere.
    pub(crate) wanted: Option<(Version, Time)>,
    /// An exchange with it is under way.
    pub(crate) exchanging: bool,
    /// A scheduled probe of it is under way.
    pub(crate) probing: bool,
    /// What answers to it may still take of the gossip rate; none before it asks for the first
    /// time.
    pub(crate) asker: Option<Bucket>,
    /// Scheduled probes of it that this host spoiled in a row.
    pub(crate) voids: u32,
    /// Its turn came out of order, by something that many bots saw at one instant: they would go on
    /// in step.
    pub(crate) in_step: bool,
    /// Somebody is being asked who answers at its target.
    pub(crate) identifying: bool,
    /// When it was last asked for its heartbeat because somebody else doubted it.
    pub(crate) inquired_at: Time,
    /// When we last asked others about it.
    pub(crate) questioned_at: Time,
    /// When it was last found alive after it was suspected or lost.
    pub(crate) revived_at: Option<Time>,
    /// When it died or left, until it is back.
    pub(crate) lost_at: Option<Time>,
    /// Since when the failing pair to it was failing, once that was logged.
    pub(crate) path_reported: Option<Time>,
    /// When its entry last changed in a way that others want to hear of soon.
    pub(crate) changed_at: Time,
}

impl Member {
    /// The version that is here or on its way.
    pub(crate) fn version_expected(&self, now: Time, patience: Duration) -> Version {
        let asked = self
            .wanted
            .filter(|(_, at)| now.since(*at) < patience)
            .map_or(0, |(version, _)| version);
        self.version().max(asked)
    }

    /// True if the incarnation is implausible (a lie inflated it) and a node that answers to this
    /// name at `target` may replace it.
    pub(crate) fn gives_way_at(&self, target: &Target) -> bool {
        self.record.incarnation.is_inflated()
            && (!self.is_partner() || self.record.target == *target)
    }

    /// The version that is here, readable or not.
    pub(crate) fn version(&self) -> Version {
        self.newest.0
    }

    /// The same, but none if it was published longer ago than `age_max`.
    pub(crate) fn version_younger_than(&self, age_max: Duration, now: Time) -> Version {
        if now.since(self.newest.1) > age_max { 0 } else { self.newest.0 }
    }

    /// What it published and can be read.
    pub(crate) fn row(&self) -> Option<&Arc<Row>> {
        self.row.as_ref()
    }

    /// Bytes of memory that its rows take.
    pub(crate) fn row_bytes(&self) -> usize {
        self.row.iter().chain(&self.pending).map(|row| row.bytes()).sum()
    }

    /// What it published and cannot be read yet.
    pub(crate) fn pending(&self) -> Option<&Arc<Row>> {
        self.pending.as_ref()
    }

    /// Whether a row of it waits for this roster.
    pub(crate) fn lacks(&self, roster: RosterId) -> bool {
        self.pending.as_ref().is_some_and(|row| row.frame().roster() == roster)
    }

    /// Holds these rows in place of those before.
    pub(crate) fn hold(&mut self, row: Option<Arc<Row>>, pending: Option<Arc<Row>>) {
        self.row = row;
        self.pending = pending;
        let newest = self.pending.iter().chain(&self.row).max_by_key(|row| row.version());
        self.newest = newest.map_or((0, Time::ZERO), |row| (row.version(), row.changed_at()));
    }

    /// The row of the largest version, whether it can be read yet or not.
    pub(crate) fn newest_row(&self) -> Option<&Arc<Row>> {
        self.pending.as_ref().or(self.row.as_ref())
    }

    /// Extends the newest row by a patch that was published `age` ago.
    pub(crate) fn extend(&mut self, patch: &Arc<Patch>, age: Duration, now: Time) -> Merge {
        if patch.version() <= self.newest.0 {
            return Merge::Known;
        }
        let Some(row) = self.pending.as_mut().or(self.row.as_mut()) else {
            return Merge::Gap;
        };
        let merge = Arc::make_mut(row).extend(patch, age, now);
        self.newest = (row.version(), row.changed_at());
        merge
    }

    pub(crate) fn drop_rows_older_than(&mut self, age_max: Duration, now: Time) {
        if self.newest.0 == 0 {
            return;
        }
        let old = |row: &Option<Arc<Row>>| row.as_ref().is_some_and(|row| row.age(now) > age_max);
        if old(&self.row) || old(&self.pending) {
            let keep = |row: &Option<Arc<Row>>| row.clone().filter(|row| row.age(now) <= age_max);
            self.hold(keep(&self.row), keep(&self.pending));
        }
    }

    /// The newest row that is here and readable, unless it is older than `age_max`.
    pub(crate) fn fresh_row(&self, now: Time, age_max: Duration) -> Option<&Arc<Row>> {
        self.row.as_ref().filter(|row| row.age(now) <= age_max)
    }

    /// Whether it said goodbye so long ago that it will hardly be back.
    pub(crate) fn left_long_ago(&self, now: Time) -> bool {
        self.liveness.status() == Status::Left && now.since(self.liveness.since()) > LEFT_LISTED
    }

    pub(crate) fn is_present(&self) -> bool {
        self.liveness.status().is_present()
    }

    /// Whether gossip may go to it.
    pub(crate) fn is_partner(&self) -> bool {
        self.proven && self.is_present()
    }

    /// Whether it was found alive again only recently, after it was suspected or lost.
    pub(crate) fn flaps(&self, now: Time) -> bool {
        self.revived_at.is_some_and(|at| now.since(at) < FLAP_MEMORY)
    }

    /// Whether it is our way to it that is broken: while our attempts have been failing, others had
    /// news of it.
    pub(crate) fn is_behind_a_broken_path(&self, now: Moment) -> bool {
        let evidence_at = self.liveness.evidence_at();
        let failing = self.pair.failed_again()
            && self.pair.failing_since().is_some_and(|since| evidence_at > since + DOUBT_AFTER);
        failing && self.liveness.silence(now) < BROKEN_PATH_EVIDENCE
    }

    pub(crate) fn heard(&self, now: Time) -> Heard {
        let (heartbeat, at) = self.liveness.heartbeat();
        Heard {
            record: Arc::clone(&self.record),
            changed: self.liveness.changed(),
            heartbeat,
            age: now.since(at),
            left: self.liveness.status() == Status::Left,
        }
    }

    /// Whether its source had published no other state of a pair than the row that can be read when
    /// its highest heartbeat was made, and until when that row tells how every pair is.
    pub(crate) fn row_holds(&self) -> (bool, Time) {
        let Some(row) = &self.row else { return (false, Time::ZERO) };
        let (_, beat_at) = self.liveness.heartbeat();
        let holds = row.version() >= self.liveness.changed();
        (holds, if holds { beat_at.max(row.changed_at()) } else { row.changed_at() })
    }

    pub(crate) fn entry(&self, version: Version, now: Time) -> Entry {
        let (heartbeat, at) = self.liveness.heartbeat();
        Entry {
            instance: self.record.instance,
            version,
            changed: self.liveness.changed().max(earliest_change(version)),
            heartbeat,
            age: now.since(at),
            left: self.liveness.status() == Status::Left,
        }
    }

    /// What made it suspect or dead, if it is and others should hear of it.
    pub(crate) fn suspicion(&self, now: Time) -> Option<Suspicion> {
        let doubt = self.liveness.doubt().filter(|doubt| !doubt.unheard)?;
        Some(Suspicion {
            instance: self.record.instance,
            age: now.since(doubt.first_failure),
            refused: doubt.refused,
        })
    }
}

/// A place for a member.
#[derive(Debug, Default)]
struct Place {
    generation: u32,
    member: Option<Member>,
}

/// Which members give way first to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Left,
    NeverAnswered,
    Dead,
}

#[derive(Debug)]
pub(crate) struct Members {
    places: Vec<Place>,
    free: Vec<Slot>,
    by_name: Sorted<NodeName, Slot>,
    by_instance: Sorted<Instance, Slot>,
    /// Former instances, so that old digests are answered instead of asked about; the order is the
    /// age.
    retired: BTreeMap<Instance, Slot>,
    retired_order: std::collections::VecDeque<Instance>,
    /// How many unproven members each introducer named.
    introduced: BTreeMap<Instance, usize>,
    /// How many others are alive or suspected.
    present: usize,
    /// How many of them answered us once.
    present_known: usize,
    /// How many others never answered in their present incarnation.
    unproven: usize,
}

impl Members {
    pub(crate) fn new(me: Arc<Record>, now: Moment) -> Self {
        let mut members = Self {
            places: Vec::new(),
            free: Vec::new(),
            by_name: Sorted::default(),
            by_instance: Sorted::default(),
            retired: BTreeMap::new(),
            retired_order: std::collections::VecDeque::new(),
            introduced: BTreeMap::new(),
            present: 0,
            present_known: 0,
            unproven: 0,
        };
        members.put(ME, me, Liveness::new(1, Duration::ZERO, now), None, now.time);
        members
    }

    fn put(
        &mut self,
        slot: Slot,
        record: Arc<Record>,
        liveness: Liveness,
        introducer: Option<Instance>,
        now: Time,
    ) {
        if let Some(introducer) = introducer {
            *self.introduced.entry(introducer).or_default() += 1;
        }
        self.by_name.insert(record.name.clone(), slot);
        self.by_instance.insert(record.instance, slot);
        let member = Member {
            record,
            liveness,
            proven: introducer.is_none(),
            known: introducer.is_none(),
            vouched: false,
            introducer,
            pair: Arc::default(),
            row: None,
            pending: None,
            newest: (0, Time::ZERO),
            wanted: None,
            exchanging: false,
            probing: false,
            asker: None,
            voids: 0,
            in_step: false,
            identifying: false,
            inquired_at: Time::ZERO,
            questioned_at: Time::ZERO,
            revived_at: None,
            lost_at: None,
            path_reported: None,
            changed_at: now,
        };
        if slot.index() == self.places.len() {
            self.places.push(Place::default());
        }
        self.places[slot.index()].member = Some(member);
        self.count_again(slot, [0; 3]);
    }

    /// What a member adds to the counts: present, present and known, unproven.
    fn counts(&self, slot: Slot) -> [usize; 3] {
        let member = self.get(slot).filter(|_| slot != ME);
        member.map_or([0; 3], |member| {
            let present = member.is_present();
            [present, present && member.known, !member.proven].map(usize::from)
        })
    }

    /// The member in this slot changed, came or went; it counted so much before.
    fn count_again(&mut self, slot: Slot, before: [usize; 3]) {
        let after = self.counts(slot);
        let totals = [&mut self.present, &mut self.present_known, &mut self.unproven];
        for ((total, before), after) in totals.into_iter().zip(before).zip(after) {
            *total = *total + after - before;
        }
    }

    /// Takes a new name in. `introducer` is none when the address is proven already. With it comes
    /// the member that had to go, if any.
    pub(crate) fn insert(
        &mut self,
        record: Arc<Record>,
        liveness: Liveness,
        introducer: Option<Instance>,
        now: Time,
    ) -> Result<(Slot, Option<(Slot, Member)>), Refusal> {
        if let Some(introducer) = introducer
            && self
                .introduced
                .get(&introducer)
                .is_some_and(|count| *count >= HEARD_PER_INTRODUCER_MAX)
        {
            return Err(Refusal::IntroducerFull);
        }
        if introducer.is_some() && self.unproven >= UNPROVEN_MAX {
            return Err(Refusal::UnprovenFull);
        }
        let evicted = if self.by_name.len() >= MEMBERS_MAX {
            let victim = self.dispensable(introducer.is_none()).ok_or(Refusal::MembersFull)?;
            self.remove(victim).map(|member| (victim, member))
        } else {
            None
        };
        let slot =
            self.free.pop().unwrap_or(Slot { index: self.places.len() as u32, generation: 0 });
        self.put(slot, record, liveness, introducer, now);
        Ok((slot, evicted))
    }

    /// Who gives way first: who left, then what never answered, then the dead; the oldest of each.
    /// Hearsay takes the place of the first alone, and of what never answered and is dead. The
    /// living never go.
    fn dispensable(&self, newcomer_proven: bool) -> Option<Slot> {
        let rank = |member: &Member| match member.liveness.status() {
            Status::Left => Some(Rank::Left),
            _ if !member.known && (newcomer_proven || !member.is_present()) => {
                Some(Rank::NeverAnswered)
            }
            Status::Dead if newcomer_proven => Some(Rank::Dead),
            _ => None,
        };
        self.others()
            .filter_map(|(slot, member)| Some((rank(member)?, member.liveness.since(), slot)))
            .min()
            .map(|(_, _, slot)| slot)
    }

    /// Gives a name a new incarnation. Its row goes with the old one.
    pub(crate) fn replace(
        &mut self,
        slot: Slot,
        record: Arc<Record>,
        liveness: Liveness,
        introducer: Option<Instance>,
        now: Time,
    ) {
        self.unlist_introduction(slot);
        let before = self.counts(slot);
        let Some(former) = self.get(slot).map(|member| member.record.instance) else {
            return;
        };
        self.unlist_instance(former, slot);
        self.by_instance.insert(record.instance, slot);
        let Some(member) = self.get_mut(slot) else {
            return;
        };
        member.record = record;
        member.liveness = liveness;
        member.proven = introducer.is_none();
        member.known |= introducer.is_none();
        member.introducer = introducer;
        member.hold(None, None);
        member.wanted = None;
        member.exchanging = false;
        member.identifying = false;
        member.lost_at = None;
        member.changed_at = now;
        if let Some(introducer) = introducer {
            *self.introduced.entry(introducer).or_default() += 1;
        }
        self.count_again(slot, before);
        self.retire(former, slot);
    }

    fn retire(&mut self, former: Instance, slot: Slot) {
        if self.retired.insert(former, slot).is_none() {
            self.retired_order.push_back(former);
        }
        while self.retired_order.len() > RETIRED_MAX {
            if let Some(oldest) = self.retired_order.pop_front() {
                self.retired.remove(&oldest);
            }
        }
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Member> {
        self.unlist_introduction(slot);
        let before = self.counts(slot);
        let place = self
            .places
            .get_mut(slot.index())
            .filter(|place| place.generation == slot.generation)?;
        let member = place.member.take()?;
        place.generation += 1;
        let generation = place.generation;
        self.by_name.remove(&member.record.name);
        self.unlist_instance(member.record.instance, slot);
        self.retired.retain(|_, held| *held != slot);
        self.retired_order.retain(|instance| self.retired.contains_key(instance));
        self.free.push(Slot { generation, ..slot });
        self.count_again(slot, before);
        Some(member)
    }

    fn unlist_instance(&mut self, instance: Instance, slot: Slot) {
        if self.by_instance.get(&instance) == Some(&slot) {
            self.by_instance.remove(&instance);
        }
    }

    /// The slot of another name that holds this instance, or held it in a former incarnation.
    pub(crate) fn holder_elsewhere(&self, record: &Record) -> Option<Slot> {
        let holder =
            self.of_instance(record.instance).or_else(|| self.formerly(record.instance))?;
        self.get(holder).is_some_and(|member| member.record.name != record.name).then_some(holder)
    }

    /// The slot of a record's name. A record that is held is found by its number, which is faster
    /// than by its name.
    pub(crate) fn holder_of(&self, record: &Record) -> Option<Slot> {
        let of_instance = self
            .of_instance(record.instance)
            .filter(|slot| self.get(*slot).is_some_and(|member| member.record.name == record.name));
        of_instance.or_else(|| self.named(&record.name))
    }

    /// Its address is proven from here on. Returns whether that is news.
    pub(crate) fn prove(&mut self, slot: Slot) -> bool {
        self.unlist_introduction(slot);
        let before = self.counts(slot);
        let Some(member) = self.get_mut(slot) else {
            return false;
        };
        member.known = true;
        member.vouched = false;
        let is_news = !std::mem::replace(&mut member.proven, true);
        self.count_again(slot, before);
        is_news
    }

    /// It lives, as others say that reach it.
    pub(crate) fn vouch(&mut self, slot: Slot) {
        let before = self.counts(slot);
        if let Some(member) = self.get_mut(slot) {
            member.known = true;
            member.vouched = true;
        }
        self.count_again(slot, before);
    }

    fn unlist_introduction(&mut self, slot: Slot) {
        let Some(introducer) = self.get_mut(slot).and_then(|member| member.introducer.take())
        else {
            return;
        };
        if let Some(count) = self.introduced.get_mut(&introducer) {
            *count -= 1;
            if *count == 0 {
                self.introduced.remove(&introducer);
            }
        }
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Member> {
        self.places
            .get(slot.index())
            .filter(|place| place.generation == slot.generation)?
            .member
            .as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Member> {
        self.places
            .get_mut(slot.index())
            .filter(|place| place.generation == slot.generation)?
            .member
            .as_mut()
    }

    pub(crate) fn me(&self) -> &Member {
        self.places[0].member.as_ref().expect("slot 0 is this bot and is never removed")
    }

    pub(crate) fn me_mut(&mut self) -> &mut Member {
        self.places[0].member.as_mut().expect("slot 0 is this bot and is never removed")
    }

    pub(crate) fn named(&self, name: &NodeName) -> Option<Slot> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn of_instance(&self, instance: Instance) -> Option<Slot> {
        self.by_instance.get(&instance).copied()
    }

    /// The member that once was `instance`.
    pub(crate) fn formerly(&self, instance: Instance) -> Option<Slot> {
        self.retired.get(&instance).copied()
    }

    /// Everybody, ourselves included, by slot.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Slot, &Member)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            let slot = Slot { index: index as u32, generation: place.generation };
            Some((slot, place.member.as_ref()?))
        })
    }

    /// Everybody else, by slot.
    pub(crate) fn others(&self) -> impl Iterator<Item = (Slot, &Member)> {
        self.all().filter(|(slot, _)| *slot != ME)
    }

    /// Everybody with an instance in `range`, in that order.
    pub(crate) fn in_range(&self, range: InstanceRange) -> impl Iterator<Item = Slot> + '_ {
        self.by_instance.range(range.bounds()).iter().map(|(_, slot)| *slot)
    }

    /// All names in order.
    pub(crate) fn by_name(&self) -> impl Iterator<Item = (&NodeName, Slot)> {
        self.by_name.entries().iter().map(|(name, slot)| (name, *slot))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The slots of everybody else, for loops that change members.
    pub(crate) fn other_slots(&self) -> Vec<Slot> {
        self.others().map(|(slot, _)| slot).collect()
    }

    /// Rosters that rows of the fitting others refer to.
    pub(crate) fn rosters(&self, fit: impl Fn(&Member) -> bool) -> BTreeSet<RosterId> {
        let mut rosters: Vec<_> = self
            .others()
            .filter(|(_, member)| fit(member))
            .flat_map(|(_, member)| [member.row(), member.pending()])
            .flatten()
            .map(|row| row.frame().roster())
            .collect();
        // Nearly all are the same.
        rosters.dedup();
        rosters.into_iter().collect()
    }

    /// The fitting members that gossip may go to: those we reach, or all present ones if we reach
    /// none.
    pub(crate) fn partners(&self, fit: impl Fn(&Member) -> bool) -> Vec<Slot> {
        let partners = || self.others().filter(|(_, member)| member.is_partner() && fit(member));
        let reached: Vec<_> = partners()
            .filter(|(_, member)| member.pair.failing_since().is_none())
            .map(|(slot, _)| slot)
            .collect();
        if reached.is_empty() { partners().map(|(slot, _)| slot).collect() } else { reached }
    }

    /// How many others are alive or suspected.
    pub(crate) fn present(&self) -> usize {
        self.present
    }

    /// How many of them answered us once: what others only tell of costs nobody a turn.
    pub(crate) fn present_known(&self) -> usize {
        self.present_known
    }

    /// How many others did not answer us in their present incarnation.
    pub(crate) fn unproven(&self) -> usize {
        self.unproven
    }

    /// Somebody's status changed.
    pub(crate) fn recount(&mut self) {
        self.present = self.others().filter(|(_, member)| member.is_present()).count();
        self.present_known =
            self.others().filter(|(_, member)| member.is_present() && member.known).count();
    }

    /// Each of `entries`, which are in order of instances, with who it is: one walk through both
    /// instead of a search for each.
    pub(crate) fn resolve<'a>(&self, entries: &'a [Entry]) -> Vec<(&'a Entry, Option<Slot>)> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Vec::new();
        };
        if entries.len() * 8 < self.by_instance.len() {
            return entries.iter().map(|entry| (entry, self.of_instance(entry.instance))).collect();
        }
        let mut held = self.by_instance.range(first.instance..=last.instance).iter().peekable();
        let slot_of = |entry: &'a Entry| {
            while held.next_if(|(instance, _)| *instance < entry.instance).is_some() {}
            let slot = held
                .peek()
                .filter(|(instance, _)| *instance == entry.instance)
                .map(|(_, slot)| *slot);
            (entry, slot)
        };
        entries.iter().map(slot_of).collect()
    }

    /// Members with an instance in `range` that are not among `entries`, which are in order of
    /// instances.
    pub(crate) fn missing_in(&self, entries: &[Entry], range: InstanceRange) -> Vec<Slot> {
        let mut listed = entries.iter().map(|entry| entry.instance).peekable();
        let held = self.by_instance.range(range.bounds()).iter();
        let missing = held.filter(|(instance, _)| {
            while listed.next_if(|listed| listed < instance).is_some() {}
            listed.peek() != Some(instance)
        });
        missing.map(|(_, slot)| *slot).collect()
    }
}
