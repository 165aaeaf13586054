//! Whether anybody is heard at all: hearing nobody is a finding about ourselves.

use tracing::{info, warn};

use crate::core::Core;
use crate::limits::ISOLATED_AFTER;
use crate::tally::EventKind;
use crate::time::{Now, Time};

impl Core {
    /// Somebody was heard at `at`: our own network worked.
    pub(crate) fn contact(&mut self, at: Time) {
        if at.since(self.contact_at) > ISOLATED_AFTER {
            self.contact_again_at = at;
        }
        self.contact_at = self.contact_at.max(at);
    }

    /// Whether nobody was heard for so long that it says more about us than about them.
    pub(crate) fn hears_nobody(&self, now: Now) -> bool {
        now.time.since(self.contact_at) > ISOLATED_AFTER && self.members.present() >= 2
    }

    pub(crate) fn notice_isolation(&mut self, now: Now) {
        // Once cut off, everybody is dead after a while: that is no news of anybody.
        let silent = now.time.since(self.contact_at) > ISOLATED_AFTER;
        let isolated = (self.hears_nobody(now) || (self.isolated && silent)) && !self.yields();
        if isolated == self.isolated {
            return;
        }
        self.isolated = isolated;
        if isolated {
            warn!("this bot hears from nobody: its own network may be cut");
        } else {
            info!("this bot hears from others again");
        }
        self.events.push(now.wall, if isolated { EventKind::Isolated } else { EventKind::Heard });
    }
}
