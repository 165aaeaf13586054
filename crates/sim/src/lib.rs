//! Doubts: thousands of the real cores in one thread, from one seed, on a network that loses,
//! delays, cuts and lies.
//!
//! A [`World`] holds hosts and the links between them. It carries out what each [`Core`] asks for
//! and hands back what a real network would: an answer, a refusal, or silence until the timeout.
//! Time jumps from event to event. The same seed gives the same run, and [`World::fingerprint`]
//! proves it.
//!
//! A [`scenario`] does things to a mesh on a [`stage`], which keeps the script of its faults and
//! what was found out. Checkers in [`check`] read snapshots and that script, never a core's inside.
//! The program `canary-sim` plays scenarios and prints what they found; [`hunt`] draws them.

mod setup;
mod world;

pub mod check;
pub mod hunt;
pub mod judge;
pub mod scenario;
pub mod stage;
pub mod table;

pub use world::{HostId, Link, REORDERED_BY, Release, Starvation, World, target_of};
