//! Whether this host keeps up, and how much less a bot does at once while it does not.

use std::time::Duration;

use crate::limits::{
    OVERLOAD_CALM, OVERLOAD_DELAY, OVERLOAD_STRETCH, OVERLOAD_VOIDS, PROBE_WINDOW_FIRST,
    PROBES_IN_FLIGHT_MAX, Stretch,
};
use crate::orders::{Order, ProbeId};

/// Whether this host keeps up with its probes.
#[derive(Debug)]
pub(crate) struct Load {
    /// What the pair interval is stretched by; 1 while the host keeps up.
    stretch: f64,
    /// Looks in a row that found no overload.
    calm: u32,
    /// Since the last look: the latest that a probe began, probes that ended, and those of them
    /// that this host spoiled.
    delay_max: Duration,
    ended: u32,
    voids: u32,
    window: Window,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            stretch: 1.0,
            calm: 0,
            delay_max: Duration::ZERO,
            ended: 0,
            voids: 0,
            window: Window::default(),
        }
    }
}

/// How many probes of the schedule may be under way at once, by how those before them ended: as
/// congestion windows do, it grows while they are not spoiled, and is halved when they are. What
/// waits for each other cannot drown a host, however many share it.
#[derive(Clone, Copy, Debug)]
struct Window {
    size: f64,
    /// From here on it grows by one for a whole window of probes, below by one for each.
    slowly_from: f64,
    /// Probes up to this number were under way when it was halved: that they are spoiled as well is
    /// no news.
    halved_at: Order,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            size: PROBE_WINDOW_FIRST,
            slowly_from: PROBES_IN_FLIGHT_MAX as f64,
            halved_at: Order::default(),
        }
    }
}

impl Window {
    fn grow(&mut self) {
        let step = if self.size < self.slowly_from { 1.0 } else { 1.0 / self.size };
        self.size = (self.size + step).min(PROBES_IN_FLIGHT_MAX as f64);
    }

    /// The probe with number `order` was spoiled; the latest ordered has number `latest`.
    fn shrink(&mut self, order: Order, latest: Order) {
        if order > self.halved_at {
            self.size = (self.size / 2.0).max(1.0);
            self.slowly_from = self.size;
            self.halved_at = latest;
        }
    }
}

impl Load {
    /// Looks once a second; tells whether the host keeps up better than before.
    pub(crate) fn look(&mut self) -> bool {
        let before = self.stretch;
        let Stretch { up, longest, down, down_fast } = OVERLOAD_STRETCH;
        let spoiled = f64::from(self.voids) > OVERLOAD_VOIDS * f64::from(self.ended);
        let overloaded = spoiled || self.delay_max > OVERLOAD_DELAY;
        self.calm = if overloaded { 0 } else { self.calm.saturating_add(1) };
        let factor = match self.calm {
            0 => up,
            1..=OVERLOAD_CALM => down,
            _ => down_fast,
        };
        self.stretch = (self.stretch * factor).clamp(1.0, longest);
        *self =
            Self { stretch: self.stretch, calm: self.calm, window: self.window, ..Self::default() };
        self.stretch < before
    }

    /// A pause that a host which does not keep up makes longer.
    pub(crate) fn stretched(&self, pause: Duration) -> Duration {
        pause.mul_f64(self.stretch)
    }

    /// Whether nothing is stretched.
    pub(crate) fn keeps_up(&self) -> bool {
        self.stretch <= 1.0
    }

    /// How many probes of the schedule may be under way at once.
    pub(crate) fn window(&self) -> usize {
        self.window.size as usize
    }

    /// A turn was noticed `delay` after it was due.
    pub(crate) fn began_late(&mut self, delay: Duration) {
        self.delay_max = self.delay_max.max(delay);
    }

    /// A probe ended while so many of the schedule were under way; the latest ordered has number
    /// `latest`.
    pub(crate) fn ended(&mut self, id: ProbeId, spoiled: bool, under_way: usize, latest: Order) {
        self.ended += 1;
        if spoiled {
            self.voids += 1;
            self.window.shrink(id.0, latest);
        } else if 2 * under_way >= self.window() {
            // What was not used shows nothing.
            self.window.grow();
        }
    }
}
