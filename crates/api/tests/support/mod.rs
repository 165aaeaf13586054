//! A mesh of simulated rows behind a real API port.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    missing_debug_implementations,
    missing_docs
)]

#[path = "../../../insight/tests/support/mod.rs"]
pub mod lab;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use canary_api::{Config, Content, Source, Telling, Transport};
use canary_core::{MemberView, NodeName, Snapshot};
use canary_insight::Report;
use canary_net::{Guard, Live, Token, Tokens};
use tokio_util::sync::CancellationToken;

pub const TOKEN: &str = "a-token-for-looking";

/// A mesh that somebody else changes.
pub struct Shown(pub Mutex<(Arc<Snapshot>, Arc<Report>)>);

impl Source for Shown {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.lock().unwrap().0)
    }

    fn snapshot_age(&self) -> Duration {
        Duration::ZERO
    }

    fn report(&self) -> Arc<Report> {
        Arc::clone(&self.0.lock().unwrap().1)
    }

    fn transport(&self) -> Transport {
        Transport::default()
    }

    fn describe(&self, _source: MemberView, _target: NodeName) -> Telling {
        Box::pin(async { Err("nobody runs there".to_owned()) })
    }
}

/// Serves a mesh on a thread of its own, as a bot does.
pub fn serve(shown: Arc<Shown>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let guard = Guard {
                tokens: Live::new(Tokens::new([Token::new(TOKEN).unwrap()])),
                ..Guard::default()
            };
            let config = Config { guard, content: Content::default(), version: "0" };
            canary_api::serve(listener, config, shown, CancellationToken::new()).await;
        });
    });
    address
}
