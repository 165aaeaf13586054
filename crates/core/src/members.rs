//! Everybody we know, ourselves included, each in a slot that stays the same for as long as the name is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::identity::{Instance, NodeName, Record};
use crate::life::{Life, Status};
use crate::limits::{HEARD_PER_INTRODUCER_MAX, MEMBERS_MAX, RETIRED_MAX};
use crate::message::{Entry, Heard};
use crate::pair::Pair;
use crate::row::{Row, Version};
use crate::tally::Refusal;
use crate::time::Time;

/// Where a member is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(u32);

/// The slot of this bot itself.
pub(crate) const ME: Slot = Slot(0);

/// Everything held of one name.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) record: Arc<Record>,
    pub(crate) life: Life,
    /// Whether it answered us at its target with its name in this life. Until then it is dialled at the low rate.
    pub(crate) proven: bool,
    /// Who named it first, while it is not proven.
    introducer: Option<Instance>,
    /// What we measured of it; survives restarts of the node, so that counters only grow.
    pub(crate) pair: Arc<Pair>,
    /// What it published.
    pub(crate) row: Option<Arc<Row>>,
    /// A newer row whose roster is still to come.
    pub(crate) pending: Option<Arc<Row>>,
    /// A version asked for, and when: not to be asked for elsewhere meanwhile.
    pub(crate) wanted: Option<(Version, Time)>,
    /// An exchange with it is under way.
    pub(crate) exchanging: bool,
    /// A scheduled probe of it is under way.
    pub(crate) probing: bool,
    /// Somebody is being asked who answers at its target.
    pub(crate) identifying: bool,
    /// When a peer last reached it while we could not.
    pub(crate) reached_by_others: Option<Time>,
    /// When its entry last changed in a way that others want to hear of soon.
    pub(crate) changed_at: Time,
}

impl Member {
    /// The version that is here or on its way.
    pub(crate) fn version_expected(&self, now: Time, patience: Duration) -> Version {
        let asked = self.wanted.filter(|(_, at)| now.since(*at) < patience).map_or(0, |(version, _)| version);
        self.version().max(asked)
    }

    /// The version that is here, readable or not.
    pub(crate) fn version(&self) -> Version {
        let version = |row: &Option<Arc<Row>>| row.as_ref().map_or(0, |row| row.version());
        version(&self.row).max(version(&self.pending))
    }

    /// The newest row that is here and readable, unless it is older than `age_max`.
    pub(crate) fn fresh_row(&self, now: Time, age_max: Duration) -> Option<&Arc<Row>> {
        self.row.as_ref().filter(|row| row.age(now) <= age_max)
    }

    pub(crate) fn is_present(&self) -> bool {
        self.life.status().is_present()
    }

    /// Whether gossip may go to it.
    pub(crate) fn is_partner(&self) -> bool {
        self.proven && self.is_present()
    }

    pub(crate) fn heard(&self, now: Time) -> Heard {
        let (heartbeat, at) = self.life.heartbeat();
        Heard { record: Arc::clone(&self.record), heartbeat, age: now.since(at), left: self.life.status() == Status::Left }
    }

    pub(crate) fn entry(&self, version: Version, now: Time) -> Entry {
        let (heartbeat, at) = self.life.heartbeat();
        Entry { instance: self.record.instance, version, heartbeat, age: now.since(at), left: self.life.status() == Status::Left }
    }
}

#[derive(Debug)]
pub(crate) struct Members {
    slots: Vec<Option<Member>>,
    free: Vec<Slot>,
    by_name: BTreeMap<NodeName, Slot>,
    by_instance: BTreeMap<Instance, Slot>,
    /// Former instances, so that old digests are answered instead of asked about; the order is the age.
    retired: BTreeMap<Instance, Slot>,
    retired_order: std::collections::VecDeque<Instance>,
    /// How many unproven members each introducer named.
    introduced: BTreeMap<Instance, usize>,
    /// Changes whenever a name comes or goes.
    pub(crate) names_changed: bool,
}

impl Members {
    pub(crate) fn new(me: Arc<Record>, now: Time) -> Self {
        let mut members = Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_name: BTreeMap::new(),
            by_instance: BTreeMap::new(),
            retired: BTreeMap::new(),
            retired_order: std::collections::VecDeque::new(),
            introduced: BTreeMap::new(),
            names_changed: true,
        };
        members.put(Slot(0), me, Life::new(1, Duration::ZERO, now), None, now);
        members
    }

    fn put(&mut self, slot: Slot, record: Arc<Record>, life: Life, introducer: Option<Instance>, now: Time) {
        if let Some(introducer) = introducer {
            *self.introduced.entry(introducer).or_default() += 1;
        }
        self.by_name.insert(record.name.clone(), slot);
        self.by_instance.insert(record.instance, slot);
        self.names_changed = true;
        let member = Member {
            record,
            life,
            proven: introducer.is_none(),
            introducer,
            pair: Arc::default(),
            row: None,
            pending: None,
            wanted: None,
            exchanging: false,
            probing: false,
            identifying: false,
            reached_by_others: None,
            changed_at: now,
        };
        let index = slot.0 as usize;
        if index == self.slots.len() {
            self.slots.push(Some(member));
        } else {
            self.slots[index] = Some(member);
        }
    }

    /// Takes a new name in. `introducer` is none when the address is proven already. The second slot is that of the member which had to go.
    pub(crate) fn insert(
        &mut self,
        record: Arc<Record>,
        life: Life,
        introducer: Option<Instance>,
        now: Time,
    ) -> Result<(Slot, Option<Member>), Refusal> {
        if let Some(introducer) = introducer
            && self.introduced.get(&introducer).is_some_and(|count| *count >= HEARD_PER_INTRODUCER_MAX)
        {
            return Err(Refusal::IntroducerFull);
        }
        let evicted = if self.by_name.len() >= MEMBERS_MAX {
            let victim = self.dispensable(introducer.is_none()).ok_or(Refusal::MembersFull)?;
            self.remove(victim)
        } else {
            None
        };
        let slot = self.free.pop().unwrap_or(Slot(self.slots.len() as u32));
        self.put(slot, record, life, introducer, now);
        Ok((slot, evicted))
    }

    /// Who goes first: left, dead, and for a proven newcomer those that nobody proved; the oldest of each. Never a living one.
    fn dispensable(&self, newcomer_proven: bool) -> Option<Slot> {
        let rank = |member: &Member| match member.life.status() {
            Status::Left => Some(0),
            Status::Dead => Some(1),
            _ if newcomer_proven && !member.proven => Some(2),
            _ => None,
        };
        self.others().filter_map(|(slot, member)| Some((rank(member)?, member.life.since(), slot))).min().map(|(_, _, slot)| slot)
    }

    /// Gives a name a new life. Its row goes with the old one.
    pub(crate) fn replace(&mut self, slot: Slot, record: Arc<Record>, life: Life, introducer: Option<Instance>, now: Time) {
        self.unlist_introduction(slot);
        let Some(member) = self.slots.get_mut(slot.0 as usize).and_then(Option::as_mut) else {
            return;
        };
        let former = member.record.instance;
        self.by_instance.remove(&former);
        self.by_instance.insert(record.instance, slot);
        member.record = record;
        member.life = life;
        member.proven = introducer.is_none();
        member.introducer = introducer;
        member.row = None;
        member.pending = None;
        member.wanted = None;
        member.exchanging = false;
        member.identifying = false;
        member.reached_by_others = None;
        member.changed_at = now;
        if let Some(introducer) = introducer {
            *self.introduced.entry(introducer).or_default() += 1;
        }
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
        let member = self.slots.get_mut(slot.0 as usize)?.take()?;
        self.by_name.remove(&member.record.name);
        self.by_instance.remove(&member.record.instance);
        self.retired.retain(|_, held| *held != slot);
        self.retired_order.retain(|instance| self.retired.contains_key(instance));
        self.free.push(slot);
        self.names_changed = true;
        Some(member)
    }

    /// Its address is proven from here on. Returns whether that is news.
    pub(crate) fn prove(&mut self, slot: Slot) -> bool {
        self.unlist_introduction(slot);
        self.get_mut(slot).is_some_and(|member| !std::mem::replace(&mut member.proven, true))
    }

    fn unlist_introduction(&mut self, slot: Slot) {
        let Some(introducer) = self.get_mut(slot).and_then(|member| member.introducer.take()) else {
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
        self.slots.get(slot.0 as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Member> {
        self.slots.get_mut(slot.0 as usize)?.as_mut()
    }

    pub(crate) fn me(&self) -> &Member {
        self.slots[0].as_ref().expect("slot 0 is this bot and is never removed")
    }

    pub(crate) fn me_mut(&mut self) -> &mut Member {
        self.slots[0].as_mut().expect("slot 0 is this bot and is never removed")
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
        self.slots.iter().enumerate().filter_map(|(index, member)| Some((Slot(index as u32), member.as_ref()?)))
    }

    /// Everybody else, by slot.
    pub(crate) fn others(&self) -> impl Iterator<Item = (Slot, &Member)> {
        self.all().filter(|(slot, _)| *slot != ME)
    }

    /// Everybody with an instance from `low` to `high`, in that order.
    pub(crate) fn in_range(&self, low: u64, high: u64) -> impl Iterator<Item = Slot> + '_ {
        self.by_instance.range(Instance(low)..=Instance(high)).map(|(_, slot)| *slot)
    }

    /// All names in order.
    pub(crate) fn by_name(&self) -> impl Iterator<Item = (&NodeName, Slot)> {
        self.by_name.iter().map(|(name, slot)| (name, *slot))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Slots of everybody else, for loops that change members.
    pub(crate) fn other_slots(&self) -> BTreeSet<Slot> {
        self.others().map(|(slot, _)| slot).collect()
    }
}
