//! The bridge to bots of the original, which speak `mesh.v1` alone: everything in this crate that
//! knows of them is in here.
//!
//! What a host does for guests is decided in `canary_guests`. Here [`speak`] answers the calls that
//! the core orders for a guest after asking the guest itself by `mesh.v1`, the [`bridge`] carries
//! out what is to be done for guests, and [`server`] is what guests call. So the rules of the mesh
//! hold for guests unchanged, and know nothing of them.

pub(crate) mod bridge;
pub(crate) mod foreign;
mod heard;
mod samples;
mod server;
mod speak;
mod tell;

pub(crate) use bridge::Bridge;
pub(crate) use canary_guests::is_guest;
pub(crate) use server::{GuestService, PUSH_PATH, SHORT_BYTES_MAX};
pub(crate) use speak::{Context, speak};

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
