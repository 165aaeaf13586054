//! What the core wants done, and the reports that come back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::cell::Failure;
use crate::identity::{Incarnation, Instance, NodeName, Record, Target};
use crate::message::{Request, Response, RowNews};
use crate::row::Row;
use crate::series::{ProbeKind, Timing};

/// Numbers everything that is ordered, probes, calls and questions alike: what has a larger number
/// was ordered later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Order(u64);

impl Order {
    #[cfg(test)]
    pub(crate) fn new(number: u64) -> Self {
        Self(number)
    }
}

/// Names a probe between its order and its report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(pub(crate) Order);

/// Names a call between its order and its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub(crate) Order);

/// Names a request of a peer between its arrival and our reply; chosen by the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What the core wants done.
#[derive(Debug)]
pub enum Output {
    /// Measure this target, and report by [`Core::handle_probe`](crate::Core::handle_probe) after
    /// at most the configured probe timeout.
    Probe {
        /// Names it in the report.
        id: ProbeId,
        /// Whom to dial, at its target: there may be others.
        whom: Arc<Record>,
        /// What to measure: [`ProbeKind::MAIN`], or one that
        /// [`Core::with_kinds`](crate::Core::with_kinds) names.
        kind: ProbeKind,
    },
    /// Ask a peer, and report by [`Core::handle_response`](crate::Core::handle_response).
    Call {
        /// Names it in the report.
        id: CallId,
        /// Where to dial.
        target: Target,
        /// Who is meant, or says that it is there; none where anybody is.
        whom: Option<Arc<Record>>,
        /// What to ask.
        request: Request,
        /// Give up after so long.
        timeout: Duration,
    },
    /// Answer a peer's request.
    Reply {
        /// Which one.
        to: RequestId,
        /// The answer.
        response: Response,
    },
    /// A row has news that can be read, our own row or one that a peer sent: what a history keeps.
    /// Only after [`Core::with_published`](crate::Core::with_published).
    Published {
        /// The frame and patches that are new. Every version of a row comes once, in order; a frame
        /// stands for the versions before it.
        news: RowNews,
        /// The row with them, and with its roster.
        row: Arc<Row>,
    },
    /// At the start a living node was found to hold our name: the bot must not run.
    NameTaken(Arc<Record>),
    /// All goodbyes are said: the bot may end.
    Left,
}

/// How a probe ended.
#[derive(Clone, Debug)]
pub enum ProbeReport {
    /// Somebody answered.
    Answered {
        /// What was measured.
        timing: Timing,
        /// The name that answered.
        name: NodeName,
        /// Which incarnation of it.
        incarnation: Incarnation,
        /// Which process.
        instance: Instance,
    },
    /// It failed.
    Failed(Failure),
    /// This host was too late, out of descriptors or starved: it says nothing about the network.
    Void,
}

/// Why a call has no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// The kind.
    pub failure: Failure,
    /// What to tell a person.
    pub detail: String,
}

/// Outputs that nobody took yet, and the numbers of those that were ordered.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<Output>,
    latest: Order,
}

impl Outbox {
    /// The number of the next order.
    pub(crate) fn number(&mut self) -> Order {
        self.latest.0 += 1;
        self.latest
    }

    /// The number of the latest order.
    pub(crate) fn latest(&self) -> Order {
        self.latest
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.waiting.push_back(output);
    }

    pub(crate) fn take(&mut self) -> Option<Output> {
        self.waiting.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
