//! Watches what one bot knows, and says once what is wrong.

use std::sync::Arc;

use canary_insight::{Change, Event, Insight, Report, limits};
use canary_node::Reader;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What is wrong with the mesh of one bot. Clones read the same.
#[derive(Clone, Debug)]
pub(crate) struct Explained(watch::Receiver<Arc<Report>>);

impl Explained {
    /// The latest report.
    pub(crate) fn report(&self) -> Arc<Report> {
        Arc::clone(&self.0.borrow())
    }
}

/// Explains what the bot behind `reader` knows, in a task of its own, until `stop`. A task that ends before that failed: what it said is old.
pub(crate) fn explain(reader: Reader, stop: CancellationToken) -> (Explained, JoinHandle<()>) {
    let mut insight = Insight::new();
    let first = insight.observe(&reader.snapshot());
    let (reports, explained) = watch::channel(Arc::new(first));
    let task = tokio::spawn(async move {
        let mut tick = tokio::time::interval(limits::OBSERVE_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = 0;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let report = insight.observe(&reader.snapshot());
            for event in report.events.iter().filter(|event| event.sequence > said) {
                say(event);
            }
            said = report.events.last().map_or(said, |event| event.sequence);
            reports.send_replace(Arc::new(report));
        }
    });
    (Explained(explained), task)
}

/// One line for an incident, however many pairs it breaks.
fn say(event: &Event) {
    let incident = &event.incident;
    let (id, kind, culprit, severity) = (incident.id, incident.kind.as_str(), &incident.culprit, incident.severity.as_str());
    let (confidence, pairs) = (incident.confidence.as_str(), incident.pairs.explained);
    match event.change {
        Change::Opened | Change::Changed => {
            let evidence = incident.evidence.join("; ");
            warn!(%id, kind, %culprit, severity, confidence, pairs, evidence, "incident: {}", incident.summary);
        }
        Change::Closed => info!(%id, kind, %culprit, "incident over: {}", incident.summary),
    }
}
