//! Decides: everything a canary bot knows of its mesh, and what to do next, without doing any of
//! it.
//!
//! # The model
//!
//! A [`Core`] is one bot's state as a plain struct. It opens no socket, reads no clock and spawns
//! nothing. Its driver gives it inputs and the time, and carries out what it asks for:
//!
//! 1. give an input: [`Core::handle_request`], [`Core::handle_response`], [`Core::handle_probe`],
//!    [`Core::handle_seeds`], [`Core::handle_pending`], [`Core::handle_timeout`] or
//!    [`Core::leave`], each with [`Now`], or [`Core::handle_secured`], which needs no time;
//! 2. drain [`Core::poll_output`] and do what it says, reporting each probe and each call when it
//!    ends;
//! 3. sleep until [`Core::poll_timeout`], or until the next input.
//!
//! The same inputs at the same times give the same outputs, whatever the machine: randomness comes
//! from a seed given at the start. So a mesh of a thousand cores runs in one thread, faster than
//! real time, and every run can be repeated.
//!
//! # What it decides
//!
//! * **Who is there.** A [`Record`] tells a node's name, target and incarnation. Joiners are
//!   believed once they answered at their target; members live while there is evidence, are doubted
//!   when an attempt fails, and die when nobody finds newer evidence in time ([`liveness`]).
//! * **Whose turn it is.** Every pair is measured at the [`Core::pair_interval`], within a budget
//!   of probes per second. What a probe finds is booked in a [`Pair`].
//! * **What everybody knows.** Each bot publishes one [`Row`]: the cells of its own pairs, written
//!   by nobody else. Rows travel as immutable [`Frame`]s and [`Patch`]es by push-pull gossip,
//!   positional over a [`Roster`], a few bytes a cell.
//! * **What readers see.** A [`Snapshot`] shares rows and pairs instead of copying them.
//!
//! Everything that a peer can make grow has a bound in [`limits`], and a counter in [`Refusals`]
//! for what was refused.

mod bucket;
mod cell;
mod code;
mod columns;
mod config;
mod core;
mod digest;
mod hash;
mod identity;
pub mod limits;
pub mod liveness;
mod load;
mod members;
mod message;
mod orders;
mod pair;
mod pending;
mod probes;
mod queue;
mod release;
mod roster;
mod row;
mod secured;
mod series;
mod sorted;
mod tally;
mod time;
mod witness;

pub use cell::{Cell, Failure, PackError, State};
pub use code::{JitterCode, LatencyCode};
pub use config::{Config, ConfigError, Kind, Setting, Value};
pub use core::{Core, MemberView, Snapshot, Standing};
pub use digest::{Entry, Line, Lines, pack_entries, unpack_entries};
pub use hash::{rendezvous, stable_hash};
pub use identity::{
    Incarnation, Instance, LabelError, Labels, MeshName, MeshNameError, NameError, NodeName,
    Record, Target, TargetError, is_invisible,
};
pub use liveness::Status;
pub use message::{
    Answer, Exchange, Heard, InstanceRange, JoinAnswer, Request, Response, RowNews, Suspicion,
};
pub use orders::{CallError, CallId, Output, ProbeId, ProbeReport, RequestId};
pub use pair::{Detail, Pair};
pub use pending::PendingJoin;
pub use release::Release;
pub use roster::{Roster, RosterId};
pub use row::{CellNews, CellView, Frame, Merge, Patch, Row, Version};
pub use secured::Secured;
pub use series::{Attempt, KernelTiming, ProbeKind, Series, Timing};
pub use tally::{
    BUCKETS_SECONDS, Event, EventKind, Events, Histogram, NATIVE_SCHEMA, Native, Refusal, Refusals,
    Summary,
};
pub use time::{Attentive, Moment, Now, Time, Wall};
