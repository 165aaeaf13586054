//! Calls in flight: what each is for, how many there are of a kind, and who was found where a node
//! was expected.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::identity::{Instance, Record, Target};
use crate::limits::EXCHANGE_LEGS_MAX;
use crate::members::Slot;
use crate::message::{InstanceRange, Response};
use crate::orders::{CallError, CallId, Order, RequestId};
use crate::time::Time;

/// Which message of an exchange it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leg {
    /// The digest that begins it.
    Digest,
    /// What the answer to an earlier message made us send, with its number.
    Follow(u8),
    /// Rumours, without a digest.
    Push,
    /// It asks a suspect for its own heartbeat: nothing follows, and the heartbeat is spread.
    Inquiry,
}

impl Leg {
    /// The message after it; none once the exchange has as many as it may have.
    pub(super) fn next(self) -> Option<Self> {
        let number = match self {
            Self::Digest => 1,
            Self::Push => 2,
            Self::Follow(number) => number,
            Self::Inquiry => return None,
        };
        (number < EXCHANGE_LEGS_MAX).then_some(Self::Follow(number + 1))
    }
}

/// A message of gossip on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentExchange {
    pub(super) instance: Instance,
    pub(super) leg: Leg,
    /// The range that lines of the answer are about; none if this is no digest.
    pub(super) range: Option<InstanceRange>,
    pub(super) sent_at: Time,
}

/// Which of two nodes with one name is asked whether it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Succession {
    /// The known one. It comes first: hearsay does not take a living node's name.
    Incumbent,
    /// The one that peers report.
    Successor,
}

/// What a call is for.
#[derive(Clone, Debug)]
pub(super) enum Calling {
    /// Joins at a seed, or at a member that does not know us.
    Join { seed: Option<Target> },
    /// Does the holder of a name still live that a joiner claims?
    Incumbent { request: RequestId, joiner: Arc<Record> },
    /// Is a joiner reached at its target?
    DialBack { request: RequestId, joiner: Arc<Record> },
    /// Gossip that we began.
    Exchange(SentExchange),
    /// A peer is asked to try a node, for the question with this number.
    IndirectProbe { about: Instance, question: Order, sent_at: Time },
    /// Who answers at this member's target?
    Identify { slot: Slot },
    /// Does a member live on in a larger incarnation that a peer reported?
    Succession { slot: Slot, successor: Arc<Record>, asked: Succession },
    /// Does the other holder of our own name live?
    Contest { claimant: Arc<Record> },
    /// Does a peer hold the other holder of our own name for alive?
    Vote { about: Instance },
    /// At the start a peer said that this one has our name. Does it?
    Holder { seed: Option<Target>, holder: Arc<Record> },
    /// Goodbye.
    Leave,
}

/// Kinds of calls of which only so many may be in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// Exchanges that we began with a digest.
    Digest,
    /// Joiners that are being looked at.
    Joiner,
    /// Looks at another holder of our name.
    Contest,
    /// Goodbyes.
    Leave,
}

impl Calling {
    fn counted(&self) -> Option<Counted> {
        match self {
            Self::Exchange(SentExchange { leg: Leg::Digest, .. }) => Some(Counted::Digest),
            Self::Incumbent { .. } | Self::DialBack { .. } => Some(Counted::Joiner),
            Self::Contest { .. } => Some(Counted::Contest),
            Self::Leave => Some(Counted::Leave),
            _ => None,
        }
    }
}

/// Calls in flight.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: BTreeMap<CallId, Calling>,
    counts: [usize; 4],
}

impl Calls {
    pub(super) fn insert(&mut self, id: CallId, calling: Calling) {
        if let Some(kind) = calling.counted() {
            self.counts[kind as usize] += 1;
        }
        self.open.insert(id, calling);
    }

    pub(super) fn remove(&mut self, id: CallId) -> Option<Calling> {
        let calling = self.open.remove(&id)?;
        if let Some(kind) = calling.counted() {
            self.counts[kind as usize] -= 1;
        }
        Some(calling)
    }

    pub(super) fn get(&self, id: CallId) -> Option<&Calling> {
        self.open.get(&id)
    }

    /// How many calls of a kind are in flight.
    pub(super) fn in_flight(&self, kind: Counted) -> usize {
        self.counts[kind as usize]
    }
}

/// Who was found where a node was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The node itself, in the incarnation that was expected.
    Same(Arc<Record>),
    /// Its name, in another incarnation.
    OtherIncarnation(Arc<Record>),
    /// Another name.
    OtherName(Arc<Record>),
    /// Somebody who lives, and has no time to say who it is.
    Busy,
    /// A peer whose answer does not fit the request.
    Stranger,
    /// Nobody.
    Nobody(CallError),
}

impl Found {
    /// Judges the answer to [`Request::Identify`](crate::message::Request::Identify) where
    /// `expected` should be.
    pub(super) fn instead_of(expected: &Record, result: Result<Response, CallError>) -> Self {
        match result {
            Ok(Response::Identify(record)) if record.name != expected.name => {
                Self::OtherName(record)
            }
            Ok(Response::Identify(record)) if record.succession() == expected.succession() => {
                Self::Same(record)
            }
            Ok(Response::Identify(record)) => Self::OtherIncarnation(record),
            Ok(Response::Busy) => Self::Busy,
            Ok(_) => Self::Stranger,
            Err(error) => Self::Nobody(error),
        }
    }

    /// The record of a node of the expected name, in any incarnation.
    pub(super) fn of_that_name(self) -> Option<Arc<Record>> {
        match self {
            Self::Same(record) | Self::OtherIncarnation(record) => Some(record),
            Self::OtherName(_) | Self::Busy | Self::Stranger | Self::Nobody(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::Failure;
    use crate::identity::{Incarnation, Labels, MeshName};

    #[test]
    fn the_truth_table_of_who_was_found() {
        let record = |name: &str, incarnation, instance| {
            Arc::new(Record {
                mesh: MeshName::default(),
                name: name.parse().unwrap(),
                target: Target::new("10.0.0.1", 8081).unwrap(),
                labels: Labels::default(),
                incarnation: Incarnation(incarnation),
                instance: Instance(instance),
            })
        };
        let expected = record("eagle", 5, 7);
        let answered = |record: &Arc<Record>| Ok(Response::Identify(Arc::clone(record)));
        let (restarted, same_time, other) =
            (record("eagle", 6, 8), record("eagle", 5, 9), record("goose", 5, 7));
        let error = CallError { failure: Failure::Timeout, detail: "no answer".to_owned() };
        let table = [
            (answered(&expected), Found::Same(Arc::clone(&expected)), true),
            (answered(&restarted), Found::OtherIncarnation(Arc::clone(&restarted)), true),
            (answered(&same_time), Found::OtherIncarnation(Arc::clone(&same_time)), true),
            (answered(&other), Found::OtherName(Arc::clone(&other)), false),
            (Ok(Response::Busy), Found::Busy, false),
            (Ok(Response::NotAdmitted), Found::Stranger, false),
            (Err(error.clone()), Found::Nobody(error), false),
        ];
        for (result, found, has_the_name) in table {
            let judged = Found::instead_of(&expected, result);
            assert_eq!(judged, found);
            assert_eq!(judged.of_that_name().is_some(), has_the_name);
        }
    }
}
