//! Watches what one bot knows, and says once what is wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use canary_insight::{Change, Event, Insight, Report, limits};
use canary_node::Reader;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Of so many seconds one is spent on explaining, at most: a host that is short of time must not
/// lose more of it to finding out why.
const SHARE: u32 = 100;
/// The longest pause between two observations.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is wrong with the mesh of one bot. Clones read the same.
#[derive(Clone, Debug)]
pub(crate) struct Explained(watch::Receiver<Arc<Report>>);

impl Explained {
    /// The latest report.
    pub(crate) fn report(&self) -> Arc<Report> {
        Arc::clone(&self.0.borrow())
    }
}

/// Explains what the bot behind `reader` knows, in a task of its own, until `stop`. A task that
/// ends before that failed: what it said is old.
pub(crate) fn explain(reader: Reader, stop: CancellationToken) -> (Explained, JoinHandle<()>) {
    let mut insight = Insight::new();
    let first = insight.observe(&reader.snapshot());
    let (reports, explained) = watch::channel(Arc::new(first));
    let task = tokio::spawn(async move {
        let mut said = 0;
        let mut pause = limits::OBSERVE_INTERVAL;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let begun = Instant::now();
            let report = insight.observe(&reader.snapshot());
            for event in report.events.iter().filter(|event| event.sequence > said) {
                say(event);
            }
            pause = (begun.elapsed() * SHARE).clamp(limits::OBSERVE_INTERVAL, PAUSE_MAX);
            said = report.events.last().map_or(said, |event| event.sequence);
            reports.send_replace(Arc::new(report));
        }
    });
    (Explained(explained), task)
}

/// One line for an incident, however many pairs it breaks.
fn say(event: &Event) {
    let incident = &event.incident;
    let (id, kind, culprit, severity) =
        (incident.id, incident.kind.as_str(), &incident.culprit, incident.severity.as_str());
    let (confidence, pairs) = (incident.confidence.as_str(), incident.pairs.explained);
    match event.change {
        Change::Opened | Change::Changed => {
            let evidence = incident.evidence.join("; ");
            warn!(%id, kind, %culprit, severity, confidence, pairs, evidence, "incident: {}", incident.summary);
        }
        Change::Closed => info!(%id, kind, %culprit, "incident over: {}", incident.summary),
    }
}
