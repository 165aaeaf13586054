#![doc = include_str!("../../../docs/embed.md")]

mod ask;
mod assets;
#[doc(hidden)]
pub mod cli;
mod commands;
mod demo;
mod doctor;
mod effective;
mod error;
mod expiry;
mod explain;
mod facade;
mod flags;
#[doc(hidden)]
pub mod fuzz;
mod grid;
mod issue;
mod kubernetes;
mod list;
mod logs;
mod manual;
mod outbound;
mod ping;
mod run;
mod secrets;
mod settings;
mod sources;
mod status;
mod supervised;
mod tokens;
mod top;

pub use canary_api::{Content, Metrics, MetricsLevel, Push, PushProtocol};
pub use canary_core::{
    Attempt, Config, Failure, Labels, MemberView, NodeName, Pair, Record, Row, Snapshot, State,
    Status, Target, Timing,
};
pub use canary_insight as insight;
pub use canary_net::{Guard, Live, Token, Tokens, origin, tls};
pub use canary_node::{Bot, Builder, End, Protocol, Reader, Seed, StartError};
pub use facade::serve_api;

/// The version of this program, as it tells it everywhere.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
