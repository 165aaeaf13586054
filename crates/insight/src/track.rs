//! From findings to incidents: stated once they last, closed once nothing speaks for them, and the
//! same again if they come back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use canary_core::{Now, Time, Wall};

use crate::cause::Cause;
use crate::evidence::Layer;
use crate::incident::{Change, Event, Id, Incident, Kind, Severity};
use crate::judge::{Finding, wall};
use crate::limits::{
    CLOSE_AFTER, CLOSE_AFTER_MAX, CLOSE_QUALITY_AFTER, CLOSED_KEPT, CLOSED_MAX, EVENTS_MAX, GAP,
    HOLD, HOLD_QUALITY, OPEN_MAX, REOPENED_WITHIN, UNSETTLED_HOLDS,
};

/// What is tracked, by the key of its findings.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    tracked: BTreeMap<String, Tracked>,
    closed: VecDeque<(Time, String, Arc<Incident>)>,
    events: VecDeque<Event>,
    sequence: u64,
}

#[derive(Debug)]
struct Tracked {
    /// When it was first found, and last.
    found_at: Time,
    seen_at: Time,
    /// Since when it has blamed the same nodes.
    same_since: Time,
    finding: Finding,
    /// None until it is stated.
    incident: Option<Arc<Incident>>,
    reopened: u32,
    since: Wall,
    /// Another kind than the one that is stated, and since when it has been found.
    other_kind: Option<(Kind, Time)>,
}

impl Tracker {
    /// Causes that are stated in one layer.
    pub(crate) fn incumbents(&self, layer: Layer) -> BTreeSet<Cause> {
        let stated = self.tracked.values().filter(|tracked| tracked.incident.is_some());
        let causes = stated.filter_map(|tracked| tracked.finding.cause.as_ref());
        causes.filter(|(of, _)| *of == layer).map(|(_, cause)| cause.clone()).collect()
    }

    /// Takes in what is wrong now. `is_explained` tells whether what a finding blamed is still
    /// broken, by another cause.
    pub(crate) fn update(
        &mut self,
        mut findings: Vec<Finding>,
        now: Now,
        is_explained: impl Fn(&Finding) -> bool,
    ) {
        // Where there is no room for all, it is for the worst.
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let keys: BTreeSet<String> = findings.iter().map(|finding| finding.key.clone()).collect();
        for finding in findings {
            self.see(finding, now);
        }
        let unseen: Vec<String> =
            self.tracked.keys().filter(|key| !keys.contains(*key)).cloned().collect();
        for key in unseen {
            let Some(tracked) = self.tracked.get(&key) else { continue };
            let is_over = now.time.since(tracked.seen_at) >= patience(tracked);
            if is_over || is_explained(&tracked.finding) {
                self.close(&key, now);
            }
        }
        self.closed.retain(|(at, ..)| now.time.since(*at) < CLOSED_KEPT);
    }

    fn see(&mut self, finding: Finding, now: Now) {
        let key = finding.key.clone();
        if !self.tracked.contains_key(&key) {
            if self.tracked.len() >= OPEN_MAX && !self.make_room(finding.severity, now) {
                return;
            }
            let before = self
                .closed
                .iter()
                .find(|(at, closed, _)| *closed == key && now.time.since(*at) < REOPENED_WITHIN);
            let reopened = before.map_or(0, |(.., incident)| incident.reopened + 1);
            let since = finding.since.unwrap_or_else(|| wall(now.time, now));
            self.tracked.insert(
                key.clone(),
                Tracked {
                    found_at: now.time,
                    seen_at: now.time,
                    same_since: now.time,
                    finding: finding.clone(),
                    incident: None,
                    reopened,
                    since,
                    other_kind: None,
                },
            );
        }
        let Some(tracked) = self.tracked.get_mut(&key) else { return };
        tracked.seen_at = now.time;
        // Rows that arrive later may tell of an earlier failure; one that is repaired does not move
        // the beginning.
        tracked.since = finding.since.map_or(tracked.since, |since| since.min(tracked.since));
        if tracked.finding.culprit != finding.culprit {
            tracked.same_since = now.time;
        }
        let has_lasted = now.time.since(tracked.same_since) >= finding.hold
            || now.time.since(tracked.found_at) >= finding.hold * UNSETTLED_HOLDS;
        let is_stated = tracked.incident.is_some() || (has_lasted && finding.is_tried);
        if tracked.incident.as_ref().is_some_and(|incident| incident.kind != finding.kind) {
            let (_, from) = tracked
                .other_kind
                .filter(|(kind, _)| *kind == finding.kind)
                .unwrap_or((finding.kind, now.time));
            tracked.other_kind = Some((finding.kind, from));
            // Rows of before are seen together with rows of after: what lasts is another kind of
            // thing.
            if now.time.since(from) < finding.hold.max(HOLD) * 2 {
                return;
            }
        }
        tracked.other_kind = None;
        tracked.finding = finding;
        if !is_stated {
            return;
        }
        let incident = Arc::new(state(tracked, now));
        let change = match &tracked.incident {
            None => Some(Change::Opened),
            Some(before)
                if before.kind != incident.kind || before.severity != incident.severity =>
            {
                Some(Change::Changed)
            }
            Some(_) => None,
        };
        tracked.incident = Some(Arc::clone(&incident));
        if change == Some(Change::Opened) {
            self.closed.retain(|(_, closed, _)| *closed != key);
        }
        if let Some(change) = change {
            self.happened(change, incident, now);
        }
    }

    /// Gives up what is not stated yet, or else what is less severe; tells whether there was any.
    fn make_room(&mut self, severity: Severity, now: Now) -> bool {
        let weaker = self.tracked.iter().filter(|(_, tracked)| tracked.finding.severity < severity);
        let Some(key) = weaker
            .min_by_key(|(_, tracked)| tracked.incident.is_some())
            .map(|(key, _)| key.clone())
        else {
            return false;
        };
        self.close(&key, now);
        true
    }

    fn close(&mut self, key: &str, now: Now) {
        let Some(tracked) = self.tracked.remove(key) else { return };
        let Some(incident) = tracked.incident else { return };
        let incident = Arc::new(Incident {
            closed: Some(wall(tracked.seen_at, now)),
            ..Incident::clone(&incident)
        });
        self.closed.push_front((now.time, key.to_owned(), Arc::clone(&incident)));
        self.closed.truncate(CLOSED_MAX);
        self.happened(Change::Closed, incident, now);
    }

    fn happened(&mut self, change: Change, incident: Arc<Incident>, now: Now) {
        self.sequence += 1;
        self.events.push_back(Event { sequence: self.sequence, at: now.wall, change, incident });
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }

    /// Open incidents: the worst first, and of those the largest.
    pub(crate) fn open(&self) -> Vec<Arc<Incident>> {
        let mut open: Vec<_> =
            self.tracked.values().filter_map(|tracked| tracked.incident.clone()).collect();
        open.sort_by(|a, b| {
            let rank = |incident: &Incident| (incident.severity, incident.pairs.explained);
            rank(b).cmp(&rank(a)).then(a.since.cmp(&b.since)).then(a.id.cmp(&b.id))
        });
        open
    }

    /// Closed incidents, newest first.
    pub(crate) fn closed(&self) -> Vec<Arc<Incident>> {
        self.closed.iter().map(|(.., incident)| Arc::clone(incident)).collect()
    }

    /// The latest events, oldest first.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.iter().cloned().collect()
    }
}

/// How long nothing may speak for it before it is closed: longer each time it comes back.
fn patience(tracked: &Tracked) -> Duration {
    if tracked.incident.is_none() {
        return GAP;
    }
    let first = if tracked.finding.hold >= HOLD_QUALITY && tracked.finding.since.is_none() {
        CLOSE_QUALITY_AFTER
    } else {
        CLOSE_AFTER
    };
    (first * 2u32.saturating_pow(tracked.reopened.min(8))).min(CLOSE_AFTER_MAX)
}

fn state(tracked: &Tracked, now: Now) -> Incident {
    let Finding { key, kind, severity, confidence, culprit, pairs, evidence, sentence, .. } =
        tracked.finding.clone();
    let opened = tracked.incident.as_ref().map_or(now.wall, |incident| incident.opened);
    // How sure the model was when it had the choice: what is stated is no longer weighed against
    // others.
    let confidence = tracked.incident.as_ref().map_or(confidence, |incident| incident.confidence);
    let mut evidence = evidence;
    if tracked.reopened > 0 {
        evidence.push(format!("it came back {} times", tracked.reopened));
    }
    Incident {
        id: Id::of(&key),
        kind,
        culprit,
        since: tracked.since,
        opened,
        closed: None,
        severity,
        confidence,
        pairs,
        evidence,
        summary: sentence.since(tracked.since, now.wall),
        reopened: tracked.reopened,
    }
}
