//! Doubts: dozens of the real cores in one thread, from one seed, on a network that loses, delays, cuts and lies.
//!
//! A [`World`] holds hosts and the links between them. It carries out what each [`Core`] asks for and hands back what a real network would:
//! an answer, a refusal, or silence until the timeout. Time jumps from event to event. The same seed gives the same run, and
//! [`World::fingerprint`] proves it.
//!
//! Checkers in [`check`] read snapshots and the fault script, never a core's inside.

mod world;

pub mod check;
pub mod hunt;
pub mod scenario;
pub mod stage;
pub mod table;

pub use world::{HostId, Link, REORDERED_BY, Starvation, World, target_of};
