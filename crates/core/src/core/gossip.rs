//! Push-pull of what the other lacks, on the tick.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Core;
use super::calls::{Calling, Counted, Leg, SentExchange};
use super::deadlines::{Patience, Timer};
use super::holdings::Holdings;
use super::learn::Source;
use super::rows::Reaction;
use super::rumour::{CREDIT_MIN, Rumour, Waiting};
use crate::bucket::Bucket;
use crate::cell::Failure;
use crate::config::Config;
use crate::digest::{Entry, Lines};
use crate::identity::{Instance, Record};
use crate::limits::{
    ANSWERS_RATE_SHARE, ASKER_RATE_SHARE, DIGEST_ENTRIES_MAX, DIGEST_ENTRIES_MIN,
    ENTRIES_ACCEPTED_MAX, EXCHANGE_CONTENT_BYTES_MAX, EXCHANGE_TIMEOUT, EXCHANGES_IN_FLIGHT_MAX,
    PUSH_INTERVAL, RECORDS_PER_EXCHANGE_MAX, Rate, SUSPICIONS_MAX, UNPROVEN_FORGET_AFTER,
    WANT_PATIENCE, WANTS_MAX,
};
use crate::liveness::{Change, Status};
use crate::members::{ME, Member, Slot};
use crate::message::{Exchange, Heard, InstanceRange, Request, Response, Suspicion};
use crate::orders::{CallError, CallId, RequestId};
use crate::roster::{Roster, RosterId};
use crate::row::Version;
use crate::tally::Refusal;
use crate::time::{Moment, Time};

/// Entries that changed within this travel in every digest of a large mesh.
const CHANGED_LATELY: Duration = Duration::from_secs(10);

/// The state of gossip.
#[derive(Debug)]
pub(super) struct Gossip {
    /// Who takes part, by [`Core::with_gossipers`].
    takes_part: fn(&Record) -> bool,
    pub(super) rate: Bucket,
    /// What rows in answers may take of it.
    answers: Bucket,
    /// What is ours of it, however much others ask.
    own: Bucket,
    /// Whose turn it is: everybody once, in random order, then again.
    partners: VecDeque<Slot>,
    pub(super) rumours: BTreeMap<Rumour, Waiting>,
    pub(super) pushed_at: Time,
    pub(super) rosters: BTreeMap<RosterId, Arc<Roster>>,
    /// Rosters that are not here, with the members whose rows wait for them. Some may wait no more.
    pub(super) lacking: BTreeSet<(RosterId, Slot)>,
    /// How much memory others' rows take.
    pub(super) holdings: Holdings,
    /// Where the next digest of a large mesh begins.
    cursor: Instance,
}

impl Gossip {
    pub(super) fn new(config: &Config, now: Time) -> Self {
        let rate = config.gossip_rate_max as f64;
        let burst = (rate * 2.0).max(2.0 * EXCHANGE_CONTENT_BYTES_MAX as f64);
        let share = |share: f64| Rate { per_second: rate * share, burst: burst * share };
        Self {
            takes_part: |_| true,
            rate: Bucket::new(share(1.0), now),
            answers: Bucket::new(share(ANSWERS_RATE_SHARE), now),
            own: Bucket::new(share(1.0 - ANSWERS_RATE_SHARE), now),
            partners: VecDeque::new(),
            rumours: BTreeMap::new(),
            pushed_at: Time::ZERO,
            rosters: BTreeMap::new(),
            lacking: BTreeSet::new(),
            holdings: Holdings::default(),
            cursor: InstanceRange::ALL.low(),
        }
    }

    /// Only these nodes take part.
    pub(super) fn only(&mut self, takes_part: fn(&Record) -> bool) {
        self.takes_part = takes_part;
    }
}

impl Core {
    /// Whether it takes part in gossip, and can be asked about others.
    pub(super) fn takes_part(&self, member: &Member) -> bool {
        (self.gossip.takes_part)(&member.record)
    }

    /// The own heartbeat advances.
    pub(super) fn beat(&mut self, now: Moment) {
        let changed = self.publisher.changed_in;
        let liveness = &mut self.members.me_mut().liveness;
        let (heartbeat, _) = liveness.heartbeat();
        liveness.hear(heartbeat + 1, changed, Duration::ZERO, now);
    }

    pub(super) fn tick(&mut self, now: Moment) {
        let pause = self
            .config
            .gossip_interval
            .div_f64(self.config.gossip_fanout as f64)
            .mul_f64(0.9 + 0.2 * self.rng.f64());
        self.deadlines.timers.set(Timer::Tick, now.time + pause);
        self.beat(now);
        if self.joining.naming.yields() {
            return;
        }
        if self.orders.calls.in_flight(Counted::Digest) >= EXCHANGES_IN_FLIGHT_MAX {
            self.refuse(Refusal::ExchangesFull);
            return;
        }
        if self.own_credit(now) < CREDIT_MIN {
            self.refuse(Refusal::GossipRate);
            return;
        }
        let Some(partner) = self.next_partner() else { return };
        self.begin_exchange(partner, now);
        // Who takes no part knows no news: however many they are, those who do are asked as often.
        if !self.members.get(partner).is_some_and(|member| self.takes_part(member)) {
            let gossipers = self.gossipers();
            if !gossipers.is_empty() {
                let chosen = self.rng.usize(..gossipers.len());
                self.begin_exchange(gossipers[chosen], now);
            }
        }
    }

    /// Partners that hear gossip and tell it on.
    pub(super) fn gossipers(&self) -> Vec<Slot> {
        self.members.partners(|member| self.takes_part(member))
    }

    fn next_partner(&mut self) -> Option<Slot> {
        for refill in [false, true] {
            if refill {
                let mut partners = self.members.partners(|_| true);
                self.rng.shuffle(&mut partners);
                self.gossip.partners = partners.into();
            }
            while let Some(slot) = self.gossip.partners.pop_front() {
                if self
                    .members
                    .get(slot)
                    .is_some_and(|member| slot != ME && member.is_partner() && !member.exchanging)
                {
                    return Some(slot);
                }
            }
        }
        None
    }

    /// Somebody new to exchange with.
    pub(super) fn partner_found(&mut self, slot: Slot, now: Moment) {
        let place = self.rng.usize(..=self.gossip.partners.len());
        self.gossip.partners.insert(place, slot);
        if !self.gossip.rumours.is_empty() {
            self.push_after(self.schedule.load.stretched(PUSH_INTERVAL), now);
        }
    }

    pub(super) fn begin_exchange(&mut self, slot: Slot, now: Moment) {
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        if std::mem::replace(&mut member.exchanging, true) {
            return;
        }
        // A digest for a node that takes no part is followed at once by one for a node that does:
        // if both used up a range, each kind of node would always get the same half.
        let takes_part = (self.gossip.takes_part)(&member.record);
        let exchange = Exchange {
            suspicions: self.doubts(now),
            wants_rosters: self.wanted_rosters(),
            ..self.digest(takes_part, now)
        };
        self.send_exchange(slot, exchange, Leg::Digest, now);
    }

    pub(super) fn send_exchange(
        &mut self,
        slot: Slot,
        mut exchange: Exchange,
        leg: Leg,
        now: Moment,
    ) {
        let from = self.record().instance;
        let Some(member) = self.members.get(slot) else {
            return;
        };
        let (instance, whom) = (member.record.instance, Arc::clone(&member.record));
        let doubt_after = member.pair.doubt_after(self.config.probe_timeout);
        exchange.from = Some(from);
        exchange.to = Some(instance);
        let bytes = exchange.packed_len() as f64;
        self.gossip.rate.charge(bytes, now.time);
        self.gossip.own.charge(bytes, now.time);
        let calling = Calling::Exchange(SentExchange {
            instance,
            leg,
            range: exchange.range,
            sent_at: now.time,
        });
        let id = self.call(&whom, calling, Request::Exchange(Box::new(exchange)), EXCHANGE_TIMEOUT);
        self.deadlines.patience.set(Patience::SlowCall(id), now.attentive + doubt_after);
    }

    /// What we have: of all members, or in a larger mesh of a rotating range, as lines, and of those
    /// others that changed recently. The next digest is of the next range, if this one `goes_on`.
    fn digest(&mut self, goes_on: bool, now: Moment) -> Exchange {
        let members = self.members.len();
        if members <= DIGEST_ENTRIES_MIN {
            return self.digest_of(InstanceRange::ALL, Vec::new(), now);
        }
        // Up to the first one left out. The next digest goes on there, or starts again.
        let entries_max = members.div_ceil(members.div_ceil(DIGEST_ENTRIES_MAX).max(2));
        let low = self.gossip.cursor;
        let rest = InstanceRange::new(low, InstanceRange::ALL.high()).unwrap_or(InstanceRange::ALL);
        let left_out = self.members.in_range(rest).nth(entries_max);
        let left_out =
            left_out.and_then(|slot| self.members.get(slot)).map(|member| member.record.instance);
        if goes_on {
            self.gossip.cursor = left_out.unwrap_or(InstanceRange::ALL.low());
        }
        let range = left_out
            .and_then(|left_out| InstanceRange::new(low, Instance(left_out.0.saturating_sub(1))))
            .unwrap_or(rest);
        let mut lately: Vec<_> = self
            .members
            .others()
            .filter(|(_, member)| {
                !range.contains(member.record.instance)
                    && now.time.since(member.changed_at) < CHANGED_LATELY
            })
            .map(|(slot, member)| (Reverse(member.changed_at), slot))
            .collect();
        lately.sort_unstable();
        let lately = lately
            .into_iter()
            .map(|(_, slot)| slot)
            .take(entries_max)
            .chain((!range.contains(self.record().instance)).then_some(ME));
        let entries = lately.filter_map(|slot| self.entry(slot, now)).collect();
        self.digest_of(range, entries, now)
    }

    /// All that we have of a range, as lines, and some entries of others.
    fn digest_of(&self, range: InstanceRange, entries: Vec<Entry>, now: Moment) -> Exchange {
        let lines = Some(Lines::of_all(&self.entries_in(range, now)));
        Exchange { range: Some(range), entries, lines, ..Exchange::default() }
    }

    /// All that we have of a range, in order of instances, without the long dead: bots that started
    /// after their death do not know them.
    fn entries_in(&self, range: InstanceRange, now: Moment) -> Vec<Entry> {
        let is_worth =
            |slot: &Slot| self.members.get(*slot).is_some_and(|member| worth_telling(member, now));
        let slots = self.members.in_range(range).filter(is_worth);
        // Made for every exchange: growing took a tenth of its time.
        let mut entries = Vec::with_capacity(self.members.len());
        entries.extend(slots.filter_map(|slot| self.entry(slot, now)));
        entries
    }

    /// Members that were suspected or lost recently, for peers that missed the push of the
    /// suspicion.
    fn doubts(&self, now: Moment) -> Vec<Suspicion> {
        let lately = self
            .members
            .others()
            .filter(|(_, member)| now.time.since(member.changed_at) < CHANGED_LATELY);
        let doubted = lately.filter(|(_, member)| {
            matches!(member.liveness.status(), Status::Suspect | Status::Dead)
        });
        doubted.filter_map(|(_, member)| member.suspicion(now.time)).take(SUSPICIONS_MAX).collect()
    }

    /// The digest's line for a member; none for who is past half its retention.
    pub(super) fn entry(&self, slot: Slot, now: Moment) -> Option<Entry> {
        let member = self.members.get(slot)?;
        if slot != ME && member.liveness.silence(now) > self.config.retain_nodes / 2 {
            return None;
        }
        Some(
            member.entry(
                member.version_younger_than(self.config.retain_samples / 2, now.time),
                now.time,
            ),
        )
    }

    pub(super) fn handle_exchange(&mut self, id: RequestId, exchange: Exchange, now: Moment) {
        let me = self.record();
        if exchange.to.is_some_and(|to| to != me.instance) {
            let me = Arc::clone(me);
            self.refuse(Refusal::NotMe);
            return self.reply(id, Response::NotMe(me));
        }
        let from = exchange
            .from
            .and_then(|instance| self.members.of_instance(instance))
            .filter(|slot| *slot != ME);
        let admitted = from.filter(|slot| {
            self.members.get(*slot).is_some_and(|member| member.liveness.status() != Status::Left)
        });
        let Some(from) = admitted else {
            self.refuse(Refusal::NotAdmitted);
            return self.reply(id, Response::NotAdmitted);
        };
        let pushed = !exchange.is_digest();
        let range = exchange.range;
        let reaction = self.absorb(from, exchange, range, pushed, now);
        let asker = self.asker_of(from);
        let credit = self.asker_credit(asker, now);
        // Without credit there is nothing but our own heartbeat, which a doubter has to hear.
        let mut answer = Exchange::default();
        if credit > 0.0 {
            let for_rows = credit
                .min(self.gossip.rate.level(now.time))
                .min(self.gossip.answers.level(now.time));
            answer = self.compose(reaction, credit, for_rows, now);
            if !pushed {
                answer.suspicions = self.doubts(now);
            }
        } else {
            self.refuse(Refusal::GossipRate);
        }
        // The peer may be asked about us: our own heartbeat refutes a suspicion.
        let mut own = self.members.me().entry(0, now.time);
        if answer.is_digest() {
            // In a complete digest version 0 would mean that we have no row.
            own.version = self.members.me().version();
        }
        if !answer.entries.iter().any(|entry| entry.instance == own.instance) {
            answer.entries.push(own);
        }
        let bytes = answer.packed_len() as f64;
        self.gossip.rate.charge(bytes, now.time);
        self.gossip.answers.charge(bytes, now.time);
        if let Some(asker) = self.members.get_mut(asker).and_then(|member| member.asker.as_mut()) {
            asker.charge(bytes, now.time);
        }
        self.reply(id, Response::Exchange(Box::new(answer)));
    }

    /// On whose account an answer goes: those that never answered us share one.
    fn asker_of(&self, from: Slot) -> Slot {
        if self.members.get(from).is_some_and(|member| member.proven) { from } else { ME }
    }

    /// How many bytes an answer to this peer may have. So nobody can ask for so much that others
    /// have to wait. Records are held back by it alone: a newcomer has to learn of all members.
    fn asker_credit(&mut self, asker: Slot, now: Moment) -> f64 {
        let per_second = self.config.gossip_rate_max as f64 * ASKER_RATE_SHARE;
        let rate = Rate { per_second, burst: EXCHANGE_CONTENT_BYTES_MAX as f64 };
        let Some(member) = self.members.get_mut(asker) else {
            return 0.0;
        };
        member.asker.get_or_insert_with(|| Bucket::new(rate, now.time)).level(now.time)
    }

    /// How many bytes we may send of ourselves: what is left of the whole rate, or of our own share
    /// of it.
    pub(super) fn own_credit(&mut self, now: Moment) -> f64 {
        self.gossip.rate.level(now.time).max(self.gossip.own.level(now.time))
    }

    pub(super) fn exchange_answered(
        &mut self,
        id: CallId,
        sent: SentExchange,
        result: Result<Response, CallError>,
        now: Moment,
    ) {
        let SentExchange { instance, leg, range, sent_at } = sent;
        let Some(slot) = self.members.of_instance(instance) else {
            return;
        };
        if let Some(member) = self.members.get_mut(slot) {
            member.exchanging = false;
        }
        match result {
            Ok(Response::Exchange(mut answer)) => {
                self.prove(slot, now);
                self.reached_since(slot, sent_at, now);
                self.overdue_answered(slot, id.0);
                // Its own heartbeat is as old as the answer may be.
                for own in answer.entries.iter_mut().filter(|entry| entry.instance == instance) {
                    own.age = own.age.saturating_add(now.time.since(sent_at));
                }
                let reaction = self.absorb(slot, *answer, range, false, now);
                let credit = self.own_credit(now);
                let next = self.compose(reaction, credit, credit, now);
                if leg == Leg::Inquiry {
                    self.spread_liveness(slot, now);
                }
                if let Some(leg) = leg.next()
                    && !next.is_empty()
                {
                    self.send_exchange(slot, next, leg, now);
                }
            }
            Ok(Response::NotAdmitted) => {
                self.reached_since(slot, sent_at, now);
                self.join_at_member(slot);
            }
            Ok(Response::NotMe(record)) => {
                let held = self
                    .members
                    .get(slot)
                    .map(|member| (member.record.name.clone(), member.record.target.clone()));
                if held == Some((record.name.clone(), record.target.clone())) {
                    self.learn(
                        Heard {
                            record,
                            changed: 0,
                            heartbeat: 0,
                            age: Duration::ZERO,
                            left: false,
                        },
                        Source::Answered,
                        now,
                    );
                } else {
                    self.doubt(slot, Failure::Identity.is_refusal(), now);
                }
            }
            // It has no time for gossip, or speaks of what a later release knows, and lives.
            Ok(Response::Busy | Response::Unknown) => self.reached_since(slot, sent_at, now),
            Ok(_) => self.doubt(slot, false, now),
            Err(error) => self.doubt(slot, error.failure.is_refusal(), now),
        }
    }

    /// Takes in what a peer says, and collects what it lacks. Its lines are about `range`. To a digest
    /// that is behind, the answer brings the newer heartbeat: only a suspicion that is `pushed` has
    /// to be refuted to everybody.
    fn absorb(
        &mut self,
        from: Slot,
        mut exchange: Exchange,
        range: Option<InstanceRange>,
        pushed: bool,
        now: Moment,
    ) -> Reaction {
        let mut reaction = Reaction::default();
        self.journal.refuse_many(Refusal::Unreadable, exchange.unread.into());
        let introducer = self.members.get(from).map(|member| member.record.instance);
        for heard in exchange.records.into_iter().take(RECORDS_PER_EXCHANGE_MAX) {
            if let Some(introducer) = introducer {
                self.learn(heard, Source::Told(introducer), now);
            }
        }
        let is_digest = exchange.range.is_some();
        let mut list = Vec::new();
        if let (Some(lines), Some(range)) = (exchange.lines.take(), range) {
            list = self.entries_in(range, now);
            match lines.named(&list) {
                Some(named) => exchange.entries.extend(named),
                // It knows other members than we do: the answer is all that we have, by name.
                None => {
                    let entries = std::mem::take(&mut list);
                    let range = exchange.range.take();
                    if range.is_some() {
                        reaction.answer = Exchange { range, entries, ..Exchange::default() };
                    }
                }
            }
        }
        // A digest is in order already; a liar's costs no more than being sorted.
        let mut entries = exchange.entries;
        entries.truncate(ENTRIES_ACCEPTED_MAX);
        entries.sort_unstable_by_key(|entry| entry.instance);
        for (entry, slot) in self.members.resolve(&entries) {
            self.compare(entry, slot, is_digest, &mut reaction, now);
        }
        if is_digest && !list.is_empty() {
            // Our own is as old as the answer will be when it arrives, and is dated there.
            let me = self.record().instance;
            reaction.answer.lines = Lines::drawn(&list, &mut reaction.answer.entries, me);
        }
        if let Some(range) = exchange.range {
            let told = |slot: &Slot| {
                self.members.get(*slot).is_some_and(|member| worth_telling(member, now))
            };
            let lacking = self.members.missing_in(&entries, range).into_iter().filter(told);
            for slot in lacking.filter(|slot| self.entry(*slot, now).is_some()) {
                reaction.records.insert(slot);
                reaction.lacks(slot, 0);
            }
        }
        for roster in exchange.rosters {
            self.take_roster(roster, now);
        }
        for news in exchange.rows.into_iter().take(WANTS_MAX) {
            self.take_row(news, now);
        }
        for suspicion in exchange.suspicions.into_iter().take(SUSPICIONS_MAX) {
            self.hear_suspicion(suspicion, pushed, now);
        }
        for instance in exchange.wants_records.into_iter().take(WANTS_MAX) {
            reaction.records.extend(
                self.members.of_instance(instance).or_else(|| self.members.formerly(instance)),
            );
        }
        for (instance, version) in exchange.wants_rows.into_iter().take(WANTS_MAX) {
            if let Some(slot) = self.members.of_instance(instance) {
                reaction.lacks(slot, version);
            }
        }
        let wanted = exchange
            .wants_rosters
            .iter()
            .take(WANTS_MAX)
            .filter_map(|id| self.gossip.rosters.get(id));
        reaction.answer.rosters.extend(wanted.cloned());
        reaction.answer.wants_rosters = self.wanted_rosters();
        reaction
    }

    fn compare(
        &mut self,
        entry: &Entry,
        slot: Option<Slot>,
        digest: bool,
        reaction: &mut Reaction,
        now: Moment,
    ) {
        let Some(slot) = slot else {
            match self.members.formerly(entry.instance) {
                Some(slot) => {
                    reaction.records.insert(slot);
                }
                None if entry.age <= UNPROVEN_FORGET_AFTER
                    && reaction.answer.wants_records.len() < WANTS_MAX =>
                {
                    reaction.answer.wants_records.push(entry.instance);
                }
                None => {}
            }
            return;
        };
        if slot == ME && self.joining.naming.yields() {
            // The name is another's for now; a larger incarnation is taken when it is ours again.
            return;
        }
        if slot == ME {
            let (heartbeat, _) = self.members.me().liveness.heartbeat();
            if entry.left
                || entry.heartbeat > heartbeat
                || entry.version > self.members.me().version()
            {
                // A peer took our silence, or a lie, for a goodbye, or reports of us what we never
                // said. Our own heartbeats would count as old from now on. Only a new incarnation
                // ends that.
                let incarnation = self.record().incarnation;
                self.reincarnate(incarnation, now);
                return;
            }
        } else if entry.left {
            if let Some(member) = self.members.get_mut(slot) {
                let change = member.liveness.leave(now);
                self.apply_change(slot, change, now);
            }
        } else {
            self.hear(slot, (entry.heartbeat, entry.changed), entry.age, now);
        }
        let Some(mine) = self.entry(slot, now) else {
            return;
        };
        let changed = self.members.get(slot).map_or(0, |member| member.liveness.changed());
        if digest && (mine.heartbeat > entry.heartbeat || (mine.left && !entry.left)) {
            reaction.answer.entries.push(Entry { version: 0, changed, ..mine });
        }
        if !digest && entry.version == 0 {
            return;
        }
        let expected = self
            .members
            .get(slot)
            .map_or(0, |member| member.version_expected(now.time, WANT_PATIENCE));
        let has_room = self.members.get(slot).is_some_and(|member| self.may_hold(0, member.known));
        if entry.version > expected
            && slot != ME
            && has_room
            && reaction.answer.wants_rows.len() < WANTS_MAX
        {
            let held = self.members.get(slot).map_or(0, Member::version);
            reaction.answer.wants_rows.push((entry.instance, held));
            if let Some(member) = self.members.get_mut(slot) {
                member.wanted = Some((entry.version, now.time));
            }
        } else if digest && entry.version < self.members.get(slot).map_or(0, Member::version) {
            reaction.lacks(slot, entry.version);
        }
    }

    /// A peer reported a heartbeat, and the version in which a pair of the member changed before.
    pub(super) fn hear(
        &mut self,
        slot: Slot,
        (heartbeat, changed): (u64, Version),
        age: Duration,
        now: Moment,
    ) {
        if self.detector.witness.input_is_stale(now.time) {
            // Its age is unknown by now. It comes again, with a correct age.
            return;
        }
        let Some(member) = self.members.get_mut(slot).filter(|_| slot != ME) else {
            return;
        };
        let change = member.liveness.hear(heartbeat, changed, age, now);
        if change != Change::None {
            self.apply_change(slot, change, now);
        }
        self.settle_question(slot);
    }
}

/// Whether somebody who does not know a member would take it: the long dead are not learned by
/// hearsay.
fn worth_telling(member: &Member, now: Moment) -> bool {
    member.is_present() || member.liveness.silence(now) <= UNPROVEN_FORGET_AFTER
}
