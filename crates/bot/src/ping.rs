//! `canary-bot probe`: measures targets as a bot would, without being one.

use std::io::{self, Write};
use std::time::Duration;

use canary_core::{Target, Timing};
use canary_net::Guard;
use canary_node::{Once, Unmeasured, probe_once};
use serde_json::{Value, json};

use crate::list::duration;
use crate::status::escaped;

/// What to measure, and how often.
#[derive(Debug)]
pub(crate) struct Ping {
    pub(crate) targets: Vec<Target>,
    /// Without end, if not given.
    pub(crate) count: Option<u64>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) json: bool,
}

/// What came of the measurements of one target.
#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    totals: Vec<Duration>,
}

impl Ping {
    /// Measures until the count is reached or `stop` ends. Tells whether every target answered at
    /// least once.
    pub(crate) async fn run(
        &self,
        guard: &Guard,
        stop: impl Future<Output = ()>,
        out: &mut impl Write,
    ) -> io::Result<bool> {
        let mut tallies: Vec<Tally> = self.targets.iter().map(|_| Tally::default()).collect();
        tokio::pin!(stop);
        let mut turn = tokio::time::interval(self.interval);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sequence = 0;
        'turns: while self.count.is_none_or(|count| sequence < count) {
            tokio::select! {
                () = &mut stop => break,
                _ = turn.tick() => {}
            }
            sequence += 1;
            for (target, tally) in self.targets.iter().zip(&mut tallies) {
                let measured = tokio::select! {
                    () = &mut stop => break 'turns,
                    measured = probe_once(target, self.timeout, guard) => measured,
                };
                tally.sent += 1;
                tally.totals.extend(measured.as_ref().ok().map(|once| once.timing.total()));
                let line = if self.json {
                    spelled(target, sequence, &measured)
                } else {
                    said(target, sequence, &measured)
                };
                writeln!(out, "{line}")?;
            }
            out.flush()?;
        }
        for (target, tally) in self.targets.iter().zip(&tallies).filter(|_| !self.json) {
            writeln!(out, "{}", summary(target, tally))?;
        }
        out.flush()?;
        Ok(tallies.iter().all(|tally| !tally.totals.is_empty()))
    }
}

fn seconds(time: Duration) -> String {
    duration(time.as_secs_f64())
}

fn said(target: &Target, sequence: u64, measured: &Result<Once, Unmeasured>) -> String {
    let Once { name, timing, secured } = match measured {
        Ok(once) => once,
        Err(Unmeasured { kind, detail }) => {
            return format!("{target}: seq={sequence} failed: {} ({detail})", kind.as_str());
        }
    };
    let Timing { resolve, connect, tls, first_request, request, kernel } = timing;
    let mut phases = vec![format!("connect {}", seconds(*connect))];
    phases.extend(tls.map(|tls| format!("tls {}", seconds(tls))));
    phases.push(format!("first request {}", seconds(*first_request)));
    let mut line = format!(
        "{name} at {target}: seq={sequence} total={} ({})",
        seconds(timing.total()),
        phases.join(", ")
    );
    line.push_str(&request.map_or_else(
        || " request=none".to_owned(),
        |request| format!(" request={}", seconds(request)),
    ));
    if !resolve.is_zero() {
        line.push_str(&format!(" resolve={}", seconds(*resolve)));
    }
    if let Some(kernel) = kernel {
        line.push_str(&format!(" kernel={}", seconds(kernel.rtt)));
        if kernel.retransmissions > 0 {
            line.push_str(&format!(" sent_again={}", kernel.retransmissions));
        }
    }
    if let Some(secured) = secured {
        line.push_str(&format!(" {} {}", secured.version_name(), secured.group_name()));
    }
    line
}

fn spelled(target: &Target, sequence: u64, measured: &Result<Once, Unmeasured>) -> String {
    let seconds = |time: Duration| time.as_secs_f64();
    let value: Value = match measured {
        Ok(Once { name, timing, .. }) => json!({
            "target": target.to_string(), "sequence": sequence, "state": "ok", "node": name.as_str(), "rtt_seconds": seconds(timing.total()),
            "resolve_seconds": seconds(timing.resolve), "connect_seconds": seconds(timing.connect), "tls_seconds": timing.tls.map(seconds),
            "first_request_seconds": seconds(timing.first_request), "request_seconds": timing.request.map(seconds),
            "kernel_rtt_seconds": timing.kernel.map(|kernel| seconds(kernel.rtt)),
            "retransmissions": timing.kernel.map(|kernel| kernel.retransmissions),
        }),
        Err(Unmeasured { kind, detail }) => json!({
            "target": target.to_string(), "sequence": sequence, "state": "failed", "failure": kind.as_str(), "detail": detail,
        }),
    };
    escaped(&value.to_string())
}

fn summary(target: &Target, Tally { sent, totals }: &Tally) -> String {
    let failed = sent - totals.len() as u64;
    let share = 100.0 * failed as f64 / (*sent).max(1) as f64;
    let attempts = if *sent == 1 { "attempt" } else { "attempts" };
    let mut line = format!("{target}: {sent} {attempts}, {failed} failed ({share:.0} %)");
    if let (Some(least), Some(most)) = (totals.iter().min(), totals.iter().max()) {
        let mean =
            totals.iter().sum::<Duration>() / u32::try_from(totals.len()).unwrap_or(u32::MAX);
        line.push_str(&format!(
            "; total min {}, mean {}, max {}",
            seconds(*least),
            seconds(mean),
            seconds(*most)
        ));
    }
    line
}
