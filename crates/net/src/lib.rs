//! Guards: what the mesh port and the API port share.
//!
//! * [`accept`]: one accept loop with its limits, so that a slow or greedy client harms nobody
//!   else.
//! * [`Gathered`]: writes that belong together, sent as one.
//! * [`Live`]: what may be changed while it is used.
//! * [`origin`]: an HTTP server as its URL names it.
//! * [`tls`]: what a bot presents and whom it trusts, swapped as one.
//! * [`token`]: bearer tokens, compared in constant time.

pub mod accept;
mod calls;
mod failures;
pub mod files;
mod gathered;
mod ledger;
mod live;
pub mod origin;
mod patient;
mod rates;
mod seldom;
mod shortcut;
pub mod tls;
pub mod token;
mod unread;

pub use accept::{Accepted, Door, Limits, Peer, Stats};
pub use calls::refused_call;
pub use failures::Failures;
pub use gathered::{GATHERED_BYTES, Gathered};
pub use ledger::{Charge, Full, Held, Ledger, MeterError, Metered, Refusal, Refused};
pub use live::Live;
pub use rates::Rates;
pub use seldom::Seldom;
pub use shortcut::{Reply, SHORTCUT_BYTES_MAX, Shortcut};
pub use token::{Token, TokenError, Tokens};

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use ipnet::IpNet;

/// What guards one port, and what its owner presents to others. Clones share what can be swapped.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Certificates, keys and authorities.
    pub tls: Live<tls::Set>,
    /// Tokens that are accepted.
    pub tokens: Live<Tokens>,
    /// Edges behind which many clients share one address.
    pub proxies: Arc<[IpNet]>,
    /// Failed authentications, by client.
    pub failures: Arc<Failures>,
    /// What became of reading changed files again.
    pub reloads: Arc<Reloads>,
}

/// Locks what no panic can leave half done: every change under such a lock is one step.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error with the whole chain of its causes.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        line.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    line
}

/// What became of reading changed files again.
#[derive(Debug, Default)]
pub struct Reloads {
    /// Times that new contents were put in force.
    pub done: AtomicU64,
    /// Times that new contents did not work, and the old ones stayed.
    pub failed: AtomicU64,
    /// The files are not what is in force: their contents do not work.
    pub broken: AtomicBool,
}
