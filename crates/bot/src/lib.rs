#![doc = include_str!("../../../README.md")]

mod facade;

pub use canary_api::{Metrics, MetricsLevel};
pub use canary_core::{Attempt, Config, Failure, Labels, MemberView, NodeName, Pair, Record, Row, Snapshot, State, Status, Target, Timing};
pub use canary_net::{Guard, Live, Token, Tokens, tls};
pub use canary_node::{Bot, Builder, End, Reader, Seed, StartError};
pub use facade::serve_api;

/// The version of this program, as it tells it everywhere.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
