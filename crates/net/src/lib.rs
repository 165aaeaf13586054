//! Guards: what the mesh port and the API port share.
//!
//! * [`accept`]: one accept loop with its limits, so that a slow or greedy client harms nobody else.
//! * [`token`]: bearer tokens, compared in constant time.

pub mod accept;
mod patient;
pub mod token;

pub use accept::{Accepted, Limits, Peer, Stats};
pub use token::{Token, TokenError, Tokens};
