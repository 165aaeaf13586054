//! Does: the asynchronous shell that drives a [`canary_core::Core`] on real sockets.
//!
//! One task owns the core. Around it stand the accept loop of the mesh port, the probers, warm
//! connections to peers, and discovery; they meet the driver through channels, and readers through
//! a watched [`Snapshot`](canary_core::Snapshot).
//!
//! An embedder builds a [`Bot`] and gets a handle: a snapshot, changes to await, and a way to
//! leave. Several can run in one process. Nothing in here exits, prints, or sets anything global.

mod bot;
mod clock;
mod connect;
mod describe;
mod discovery;
mod driver;
mod failure;
#[doc(hidden)]
pub mod fuzz;
mod kernel;
mod parts;
mod prober;
mod resolve;
mod secure;
mod traffic;
mod transport;
mod v1;

pub use bot::{Bot, Builder, Reader, StartError};
pub use describe::{DescribeError, Described};
pub use discovery::Seed;
pub use driver::NodeStats;
pub use parts::End;
pub use prober::{Once, Unmeasured, probe_once};
pub use traffic::{Direction, Kind, Traffic};
pub use v1::Protocol;
