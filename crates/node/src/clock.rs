//! The host's clocks, and whether this process got to run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use canary_core::{Now, Time, Wall};
use tokio::sync::Notify;

/// Keeps the clock's origin further back than any retention, as the core asks.
const ORIGIN: Duration = Duration::from_secs(2 * 366 * 24 * 3600);

/// Both clocks now: the one that counts suspend, and the wall's.
pub(crate) fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        time: Time::from_micros((ORIGIN + since_boot()).as_micros() as u64),
        wall: Wall::from_unix_millis(wall.as_millis() as u64),
    }
}

#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        u64::try_from(at.tv_sec).unwrap_or_default(),
        u32::try_from(at.tv_nsec).unwrap_or_default(),
    )
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(
        u64::try_from(at.tv_sec).unwrap_or_default(),
        u32::try_from(at.tv_nsec).unwrap_or_default(),
    )
}

/// How often the watch looks.
const WATCH_TICK: Duration = Duration::from_millis(50);
/// Lateness of a timer below this is what timers are like on a busy host. It is not added up, or
/// long probes would be void before short ones.
const WATCH_SLACK: Duration = Duration::from_millis(50);

/// Adds up the time in which this process's loop was late, so that a measurement across it is not
/// taken for the network's. It looks only while something is measured, on the thread that measures.
#[derive(Debug)]
pub(crate) struct StallWatch {
    late_micros: AtomicU64,
    ticked_at: AtomicU64,
    /// How many measurements are under way.
    measuring: AtomicU64,
    began: Notify,
}

impl StallWatch {
    pub(crate) fn new() -> Self {
        Self {
            late_micros: AtomicU64::new(0),
            ticked_at: AtomicU64::new(now().time.micros()),
            measuring: AtomicU64::new(0),
            began: Notify::new(),
        }
    }

    /// Never returns.
    pub(crate) async fn watch(&self) {
        loop {
            if self.measuring.load(Ordering::Relaxed) == 0 {
                self.began.notified().await;
            }
            tokio::time::sleep(WATCH_TICK).await;
            let at = now().time.micros();
            let late = lateness(self.ticked_at.swap(at, Ordering::Relaxed), at);
            self.late_micros.fetch_add(late, Ordering::Relaxed);
        }
    }

    /// A measurement begins; it ends when the returned value is dropped.
    pub(crate) fn begin(&self) -> Watched<'_> {
        if self.measuring.fetch_add(1, Ordering::Relaxed) == 0 {
            // Before that nobody looked. A measurement that ends before the first look has only the
            // slack.
            let before = now().time.micros().saturating_sub(WATCH_TICK.as_micros() as u64);
            self.ticked_at.store(before, Ordering::Relaxed);
            self.began.notify_one();
        }
        Watched { watch: self, before: self.late() }
    }

    /// All lateness so far, up to this very moment: after a stop the watch itself may not have run
    /// yet.
    fn late(&self) -> Duration {
        let current = lateness(self.ticked_at.load(Ordering::Relaxed), now().time.micros());
        Duration::from_micros(self.late_micros.load(Ordering::Relaxed) + current)
    }
}

/// A measurement that is under way.
#[derive(Debug)]
pub(crate) struct Watched<'a> {
    watch: &'a StallWatch,
    before: Duration,
}

impl Watched<'_> {
    /// How late the loop was since it began.
    pub(crate) fn late(&self) -> Duration {
        self.watch.late().saturating_sub(self.before)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.watch.measuring.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lateness(from: u64, to: u64) -> u64 {
    to.saturating_sub(from).saturating_sub((WATCH_TICK + WATCH_SLACK).as_micros() as u64)
}
