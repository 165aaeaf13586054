//! The bridge to bots of the original, which speak `mesh.v1` alone: everything in this crate that
//! knows of them is in here.
//!
//! What a host does for guests, and in which order it calls them, is in `canary_guests`. Here the
//! [`network`] carries its calls, the [`bridge`] gives it what guests tell and the time, and
//! [`server`] is what guests call. So the rules of the mesh hold for guests unchanged, and know
//! nothing of them.

pub(crate) mod bridge;
pub(crate) mod foreign;
mod heard;
mod network;
mod samples;
mod server;

pub(crate) use bridge::Bridge;
pub(crate) use canary_guests::is_guest;
pub(crate) use network::{Host, Network};
pub(crate) use server::{GuestService, PUSH_PATH, SHORT_BYTES_MAX};

use std::str::FromStr;

/// Which protocols a bot speaks to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Ours, and the original's with who knows nothing else.
    #[default]
    Auto,
    /// The original's alone: every peer is treated as one of them.
    V1,
    /// Ours alone: bots of the original stay outside.
    V2,
}

impl FromStr for Protocol {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "v1" => Ok(Self::V1),
            "v2" => Ok(Self::V2),
            _ => Err("choose auto, v1 or v2"),
        }
    }
}

/// The method that a probe of a guest calls.
pub(crate) const RTT_PATH: &str = "/mesh.v1.MeshService/Rtt";
/// Largest message of a guest in bytes: the original's own limit.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
