//! Hosts: what bots of ours do for bots of the original.
//!
//! # The model
//!
//! To the mesh a bot of the original is a member like any other, a *guest*. It does not speak our
//! protocol, so two of our bots, its *hosts*, play its part: they admit it, publish its row for
//! it, and tell it what it lacks. Every bot chooses the same two ([`sponsors`]) and makes the same
//! record of a guest ([`record_for`]), so nobody has to coordinate.
//!
//! A [`Hosting`] decides what one bot does for guests, as a plain struct. It opens no socket and
//! reads no clock. Its driver
//!
//! 1. gives it what guests tell ([`Hosting::handle_told`]), what came of its orders
//!    ([`Hosting::handle_done`]), and twice a second the time ([`Hosting::handle_timeout`]), each
//!    with a snapshot of what the bot knows;
//! 2. drains [`Hosting::poll_order`] and has a [`Host`] carry the orders out.
//!
//! A [`Host`] makes the calls that an order takes, and those of the core to a guest, one after the
//! other. A [`Network`] carries them: sockets in a bot, events in the simulator. [`Joins`] remembers
//! where a guest was asked to admit a bot of ours.

mod answers;
mod guest;
mod host;
mod hosting;
mod joins;
mod samples;

pub use guest::{guest_at, is_guest, rank, record, record_for, sponsors};
pub use host::{Admission, Host, Network, PAGE_SAMPLES_MAX, PATIENCE, Unanswered};
pub use hosting::{Done, Hosting, Informed, LOOK, Looked, Order, Sign, Told, gossip_of};
pub use joins::{JOIN_TIMEOUT, Joins};
pub use samples::{Measured, Progress, Sample, news_of, roster};
