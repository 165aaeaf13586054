//! What a stall of our own loop, and hearing from nobody, mean for everything else.

use tracing::{info, warn};

use super::Core;
use crate::orders::Order;
use crate::tally::EventKind;
use crate::time::{Moment, Now};

impl Core {
    /// Begins to handle an input: the answer to the order with this number, or something else.
    pub(super) fn take_input(&mut self, order: Option<Order>, now: Now) -> Moment {
        let (due, latest) = (
            self.deadlines.next(&self.detector.witness).map(|(at, _)| at),
            self.orders.outbox.latest(),
        );
        let stall = self.detector.witness.handle_input(order, due, latest, now.time);
        let now = self.detector.witness.moment(now);
        if let Some(stall) = stall {
            warn!(
                ?stall,
                "this bot's own loop did not run; silence of others in that time is not held against them"
            );
            self.journal.note(now, EventKind::Stalled(stall));
        }
        now
    }

    /// Whether hearing nobody is a finding about ourselves. With one other, silence of that one
    /// *is* hearing nobody.
    pub(super) fn hears_nobody(&self) -> bool {
        self.detector.witness.hears_nobody() && self.members.present() >= 2
    }

    pub(super) fn notice_isolation(&mut self, now: Moment) {
        // Once cut off, everybody is dead after a while: that is no news of anybody.
        let goes_on = self.detector.witness.is_isolated() && self.detector.witness.hears_nobody();
        let isolated = (self.hears_nobody() || goes_on) && !self.joining.naming.yields();
        if !self.detector.witness.set_isolated(isolated) {
            return;
        }
        if isolated {
            warn!("this bot hears from nobody: its own network may be cut");
        } else {
            info!("this bot hears from others again");
        }
        self.journal.note(now, if isolated { EventKind::Isolated } else { EventKind::Heard });
    }
}
