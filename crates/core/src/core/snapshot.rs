//! What every reader reads: an immutable view of everything, made of shared parts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Core;
use super::names::Standing;
use crate::identity::{NodeName, Record, Target};
use crate::liveness::Status;
use crate::members::{ME, Member};
use crate::pair::Pair;
use crate::pending::PendingJoin;
use crate::row::{Row, Version};
use crate::tally::{Events, Histogram, Refusals};
use crate::time::{Now, Time};

/// A bot of the original that measures publishes something within this.
const MEASURES_WITHIN: Duration = Duration::from_secs(30);

/// Everything a bot knows at one instant. Rows and pairs are shared, so that it costs a few
/// pointers a member, never the matrix.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was made.
    pub now: Now,
    /// Who this bot is.
    pub me: Arc<Record>,
    /// What this bot published, and others see of it.
    pub own_row: Option<Arc<Row>>,
    /// All other members, by name; [`Snapshot::nodes`] leaves out those that never answered.
    pub members: Vec<MemberView>,
    /// Where this bot stands with its own name.
    pub standing: Standing,
    /// Whether this bot hears from nobody though it knows others.
    pub isolated: bool,
    /// Targets to join at, with whether each admitted this bot when it was last asked.
    pub targets: Vec<(Target, bool)>,
    /// Names that others tell of and that never answered this bot: they are in no list.
    pub unproven: usize,
    /// Targets that did not admit this bot, and why.
    pub join_problems: Vec<(Target, String)>,
    /// How often each pair is measured.
    pub pair_interval: Duration,
    /// How often the own row is published.
    pub publish_interval: Duration,
    /// What was refused, by reason.
    pub refusals: Refusals,
    /// How late the schedule ran.
    pub schedule_delay: Histogram,
    /// Time in which this bot's loop did not run.
    pub stalled: Duration,
    /// The latest events.
    pub events: Events,
}

/// One other node.
#[derive(Clone, Debug)]
pub struct MemberView {
    /// How it describes itself.
    pub record: Arc<Record>,
    /// What is held of it.
    pub status: Status,
    /// When the status began.
    pub since: Time,
    /// When the latest evidence that it lives happened.
    pub evidence_at: Time,
    /// Whether it ever answered this bot in its present incarnation.
    pub proven: bool,
    /// Whether it ever answered this bot in any incarnation, or others reach it. If not it is a
    /// name that others tell of.
    pub known: bool,
    /// What this bot measured of it, exact.
    pub pair: Arc<Pair>,
    /// How often this bot measures it.
    pub interval: Duration,
    /// Whether it takes part in gossip. A bot of the original does not: it measures by timings of
    /// its own.
    pub takes_part: bool,
    /// What it published; none before the first row is readable.
    pub row: Option<Arc<Row>>,
    /// Until when that row is right about the state of every pair: its source published no other
    /// state before.
    pub row_holds_at: Time,
    /// Whether it was still right when the source made its highest heartbeat.
    pub row_holds: bool,
    /// The largest version of its rows that was received, readable or not.
    pub version: Version,
}

impl MemberView {
    /// Whether lists show it: it is known, and alive or suspected.
    pub fn is_listed(&self) -> bool {
        self.known && self.status.is_present()
    }
}

impl Snapshot {
    /// The node called `name`.
    pub fn member(&self, name: &NodeName) -> Option<&MemberView> {
        let index = self.members.binary_search_by(|member| member.record.name.cmp(name)).ok()?;
        self.members.get(index)
    }

    /// All other nodes that are known, by name: what series show.
    pub fn nodes(&self) -> impl Iterator<Item = &MemberView> {
        self.members.iter().filter(|member| member.known)
    }

    /// Those of them that are alive or suspected.
    pub fn present(&self) -> impl Iterator<Item = &MemberView> {
        self.members.iter().filter(|member| member.is_listed())
    }

    /// All others that are alive or suspected, including those known by hearsay: the membership, on
    /// which all bots agree.
    pub fn membership(&self) -> impl Iterator<Item = &MemberView> {
        self.members.iter().filter(|member| member.status.is_present())
    }

    /// Bots of ours that are there and wait for bots of the original to admit them, this one
    /// included: who waits, and where.
    pub fn pending(&self) -> impl Iterator<Item = (&NodeName, &PendingJoin)> {
        let others = self
            .present()
            .filter(|member| member.takes_part)
            .filter_map(|member| Some((&member.record.name, member.row.as_ref()?)));
        let own = self.own_row.as_ref().map(|row| (&self.me.name, row));
        others.chain(own).flat_map(|(name, row)| {
            row.frame().pending().iter().map(move |pending| (name, pending))
        })
    }

    /// Whether a node that takes no part in gossip published anything recently: its loops
    /// run, whatever others say.
    pub fn measures(&self, member: &MemberView) -> bool {
        member.row.as_ref().is_some_and(|row| row.age(self.now.time) < MEASURES_WITHIN)
    }

    /// Addresses at which a bot of the original answers while its own loops are stuck: it measures
    /// nothing and admits nobody.
    pub fn stuck(&self) -> BTreeSet<&Target> {
        let mut stuck: BTreeSet<_> = self
            .pending()
            .filter(|(_, pending)| pending.is_stuck())
            .map(|(_, pending)| &pending.target)
            .collect();
        if stuck.is_empty() {
            return stuck;
        }
        stuck.remove(&self.me.target);
        // Ours are none of them. What died there, and when, is for the bot that asks to judge.
        let refutes = |member: &&MemberView| member.takes_part || self.measures(member);
        for member in self.membership().filter(refutes) {
            stuck.remove(&member.record.target);
        }
        stuck
    }

    /// Whether another living node holds our name, and where.
    pub fn name_conflict(&self) -> Option<&Target> {
        match &self.standing {
            Standing::Yielded(holder) => Some(&holder.target),
            Standing::Starting | Standing::Member => None,
        }
    }
}

impl Core {
    /// One other node, as in a snapshot.
    pub fn member(&self, name: &NodeName) -> Option<MemberView> {
        let slot = self.members.named(name).filter(|slot| *slot != ME)?;
        let member = self.members.get(slot)?;
        let seldom = !self.takes_part(member);
        let interval = if seldom { self.outsider_interval() } else { self.pair_interval() };
        Some(self.member_view(member, interval))
    }

    fn member_view(&self, member: &Member, interval: Duration) -> MemberView {
        let (row_holds, row_holds_at) = member.row_holds();
        MemberView {
            record: Arc::clone(&member.record),
            status: member.liveness.status(),
            since: member.liveness.since(),
            evidence_at: member.liveness.evidence_at(),
            proven: member.proven,
            known: member.known,
            pair: Arc::clone(&member.pair),
            interval,
            takes_part: self.takes_part(member),
            row: member.row().cloned(),
            version: member.version(),
            row_holds_at,
            row_holds,
        }
    }

    pub(super) fn view(&self, now: Now) -> Snapshot {
        let (regular, mut seldom) = (self.pair_interval(), None);
        let view = |(_, slot)| {
            let member = self.members.get(slot).filter(|_| slot != ME)?;
            let interval = if self.takes_part(member) {
                regular
            } else {
                *seldom.get_or_insert_with(|| self.outsider_interval())
            };
            Some(self.member_view(member, interval))
        };
        Snapshot {
            now,
            me: Arc::clone(self.record()),
            own_row: self.members.me().row().cloned(),
            members: self.members.by_name().filter_map(view).collect(),
            standing: self.joining.naming.standing().clone(),
            isolated: self.detector.witness.is_isolated(),
            targets: self.targets(),
            unproven: self.members.unproven(),
            join_problems: self.join_problems(),
            pair_interval: self.pair_interval(),
            publish_interval: self.publish_interval(now.time),
            refusals: self.journal.refusals(),
            schedule_delay: self.schedule.delay(),
            stalled: self.detector.witness.stalled(),
            events: self.journal.events().clone(),
        }
    }
}
