//! `mesh.v2` on the wire: the only module that knows its protobuf types and the RPC library.

mod client;
mod detail;
pub(crate) mod flight;
pub(crate) mod foreign;
mod port;
mod server;
mod wire;

pub(crate) use client::{Link, Links};
pub(crate) use port::serve;
pub(crate) use server::{Arrived, Impostor, MeshService, Refused};
pub(crate) use wire::decode_probe_response;

/// The method that a probe calls.
pub(crate) const PROBE_PATH: &str = "/mesh.v2.MeshService/Probe";

/// Largest message on the mesh port in bytes: an exchange, and room for its framing.
pub(crate) const MESSAGE_BYTES_MAX: usize = canary_core::limits::EXCHANGE_BYTES_MAX + 64 * 1024;

/// The original's messages and service.
pub(crate) mod original {
    pub(crate) use super::pb::mesh::v1::*;
}

/// Everything that is served here, for reflection.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mesh.fds.bin"));

/// Generated from `proto/`.
#[allow(
    missing_debug_implementations,
    unreachable_pub,
    elided_lifetimes_in_paths,
    clippy::pedantic,
    reason = "generated code: which of these it trips changes with its generator"
)]
mod pb {
    connectrpc::include_generated!();
    pub use mesh::v2::__buffa::oneof::exchange_response::Result as ExchangeResult;
    pub use mesh::v2::*;
}
