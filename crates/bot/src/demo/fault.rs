//! What a demonstration breaks, so that one sees what is said of it.

use std::net::SocketAddr;
use std::time::Duration;

use canary_core::Config;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What each direction of a slow way takes longer.
const SLOWER_BY: Duration = Duration::from_millis(40);

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fault {
    /// A bot is killed.
    Kill,
    /// A bot hangs: its port accepts, and nothing answers.
    Pause,
    /// Nothing gets in to a bot any more, while it reaches others.
    Cut,
    /// Packets to and from a bot take longer.
    Slow,
}

impl Fault {
    /// How long after the start it is broken: once the matrix is whole. That something is slow
    /// shows only against what every bot has learned as usual.
    pub(crate) const fn after(self) -> Duration {
        match self {
            Self::Kill | Self::Pause | Self::Cut => Duration::from_secs(8),
            Self::Slow => Duration::from_secs(20),
        }
    }

    /// What is done, as a verb.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Cut => "cut off the way in to",
            Self::Slow => "slow down the way to",
        }
    }
}

/// How packets travel to a bot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    Cut,
    Slow,
}

/// Settings under which a demonstration has something to show within seconds.
pub(crate) fn config() -> Config {
    Config {
        probe_interval: Duration::from_secs(1),
        publish_interval: Duration::from_secs(1),
        ..Config::default()
    }
}

/// Passes on what arrives, in the way that is wanted, for as long as somebody may change that.
pub(crate) async fn relay(listener: TcpListener, to: SocketAddr, way: watch::Receiver<Way>) {
    while way.has_changed().is_ok() {
        let Ok((outside, _)) = listener.accept().await else { return };
        let way = way.clone();
        tokio::spawn(async move {
            let Ok(inside) = TcpStream::connect(to).await else { return };
            // As without a relay: small segments do not wait for each other.
            let _ = (outside.set_nodelay(true), inside.set_nodelay(true));
            let ((outside_read, outside_write), (inside_read, inside_write)) =
                (outside.into_split(), inside.into_split());
            tokio::join!(
                carry(outside_read, inside_write, way.clone()),
                carry(inside_read, outside_write, way)
            );
        });
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: watch::Receiver<Way>,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let now = *way.borrow();
        match now {
            Way::Open => {}
            Way::Slow => tokio::time::sleep(SLOWER_BY).await,
            // Nothing passes; what waits for it gives up and ends.
            Way::Cut => continue,
        }
        if to.write_all(bytes.get(..count).unwrap_or_default()).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
