//! What a supervisor like systemd hears of the bot (sd_notify): that it is ready, that its loop
//! runs, and that it leaves. Elsewhere it is silent.

use std::time::Duration;

use canary_node::Reader;
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

/// A loop that showed nothing for so long hangs: it shows something every second.
const HANGS: Duration = Duration::from_secs(5);

/// The bot listens on both ports.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The bot says goodbye.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Feeds the watchdog, if there is one, while the loop of the bot runs. A bot that hangs is not
/// fed, and started again by its supervisor.
pub(crate) async fn feed(reader: Reader, stop: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return stop.cancelled().await;
    };
    // Three chances within the limit.
    let mut turn = tokio::time::interval((limit / 3).max(Duration::from_millis(10)));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turn.tick() => {}
        }
        if reader.snapshot_age() < HANGS {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "cannot tell the supervisor");
    }
}
