//! Certificates that end: said before, and when they have.

use std::time::{Duration, SystemTime};

use canary_net::tls::{Facts, Set};
use tracing::{error, warn};

/// How long before its end a certificate is reported.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);
/// How often it is reported, before its end and after.
const EXPIRY_REPEAT: (Duration, Duration) =
    (Duration::from_secs(24 * 3600), Duration::from_secs(3600));

/// What is to be said of certificates that work.
pub(crate) fn warnings(set: &Set) -> Vec<String> {
    let left_out = set.left_out.iter().map(|why| format!("a certificate is left out: {why}"));
    left_out.chain(ending(set, SystemTime::now())).collect()
}

/// Certificates that end soon.
fn ending(set: &Set, now: SystemTime) -> Vec<String> {
    let soon =
        set.own.iter().chain(&set.authorities).filter_map(|facts| Some((facts, left(facts, now)?)));
    soon.map(|(facts, left)| {
        format!("the certificate of {} ends on {}, in {}", facts.subject, facts.dates.1, days(left))
    })
    .collect()
}

/// How long a certificate is still valid, if that is not long.
fn left(facts: &Facts, now: SystemTime) -> Option<Duration> {
    facts.not_after.duration_since(now).ok().filter(|left| *left < EXPIRES_SOON)
}

fn days(left: Duration) -> String {
    let hours = left.as_secs() / 3600;
    if hours >= 48 { format!("{} days", hours / 24) } else { format!("{hours} hours") }
}

/// When it was last said that a certificate ends.
#[derive(Debug, Default)]
pub(crate) struct Expiry(Option<SystemTime>);

impl Expiry {
    pub(crate) fn tell(&mut self, set: &Set, now: SystemTime) {
        let Some(ends) = set.own.iter().chain(&set.authorities).map(|facts| facts.not_after).min()
        else {
            return;
        };
        let over = now >= ends;
        let pause = if over { EXPIRY_REPEAT.1 } else { EXPIRY_REPEAT.0 };
        let said_lately = self
            .0
            .is_some_and(|at| now >= at && now.duration_since(at).is_ok_and(|since| since < pause));
        // That it is over is said at once, whatever was said before.
        let news = over && self.0.is_some_and(|at| at < ends);
        if (said_lately && !news) || ends.duration_since(now).is_ok_and(|left| left >= EXPIRES_SOON)
        {
            return;
        }
        self.0 = Some(now);
        for warning in ending(set, now) {
            warn!("{warning}; renew it: files are read again by themselves");
        }
        for facts in set.own.iter().filter(|facts| now >= facts.not_after) {
            let (subject, date) = (&facts.subject, &facts.dates.1);
            error!(
                subject,
                date,
                "this bot's certificate has expired: no probe and no call by TLS can succeed; renew it, the file is read again"
            );
        }
        for facts in set.authorities.iter().filter(|facts| now >= facts.not_after) {
            error!(
                subject = facts.subject,
                date = facts.dates.1,
                "an authority has expired: what it signed is refused; renew both"
            );
        }
    }
}
