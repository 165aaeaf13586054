//! What changes, as it changes: a journal of events, and a stream to those who watch.
//!
//! One task looks once a second. It writes each message once for all watchers, so that many cost
//! little more than one. A watcher that does not read misses messages and then gets `reload`; until
//! then it costs nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use canary_core::{Snapshot, Version, Wall};
use canary_insight::Report;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, broadcast};

use super::views::{Event, Verdict, time};
use crate::picture::{Cell, Picture};

/// How often to look for what changed.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// Events that are kept.
const EVENTS_MAX: usize = 1_024;
/// Those who watch at once; each holds a connection.
pub(super) const WATCHERS_MAX: usize = 64;
/// Looks that a watcher may be behind before it misses some.
const BEHIND_MAX: usize = 16;
/// Pairs whose change is sent after one look. When more change at once, a reader is better off with
/// the whole matrix.
const PAIRS_MAX: usize = 256;
/// Without anything new, a sign of life comes after so many looks.
const QUIET_LOOKS: u64 = 5;
/// Marks in a minute at most: more would push out what happened by itself.
const MARKS: (usize, Duration) = (30, Duration::from_secs(60));

/// What there is to watch.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub(super) enum Topic {
    Verdict,
    Incident,
    Node,
    Pair,
    Mark,
}

impl Topic {
    pub(super) const ALL: [Self; 5] =
        [Self::Verdict, Self::Incident, Self::Node, Self::Pair, Self::Mark];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Verdict => "verdict",
            Self::Incident => "incident",
            Self::Node => "node",
            Self::Pair => "pair",
            Self::Mark => "mark",
        }
    }

    /// Of an event, by what its kind begins with.
    pub(super) fn of(event: &Event) -> Self {
        match event.kind {
            kind if kind.starts_with("incident") => Self::Incident,
            kind if kind.starts_with("path") => Self::Pair,
            "mark" => Self::Mark,
            _ => Self::Node,
        }
    }
}

/// One message of the stream (WHATWG HTML, section 9.2); none of a topic is for everybody.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) topic: Option<Topic>,
    /// The number of an event; none of what is not kept.
    pub(super) id: Option<u64>,
    pub(super) text: String,
}

impl Message {
    fn new(topic: Topic, id: Option<u64>, data: &impl Serialize) -> Self {
        Self { topic: Some(topic), id, text: spell(topic.as_str(), id, data) }
    }

    fn for_all(event: &str, data: &impl Serialize) -> Self {
        Self { topic: None, id: None, text: spell(event, None, data) }
    }
}

pub(super) fn spell(event: &str, id: Option<u64>, data: &impl Serialize) -> String {
    // JSON on one line: no text in it can end the message.
    let data = serde_json::to_string(data).expect("messages are texts and numbers");
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}event: {event}\ndata: {data}\n\n")
}

/// The journal, and who watches.
#[derive(Debug)]
pub(crate) struct Live {
    state: Mutex<Journal>,
    pub(super) messages: broadcast::Sender<Arc<Vec<Message>>>,
    pub(super) places: Arc<Semaphore>,
}

/// What happened, and how far it was read.
#[derive(Debug, Default)]
struct Journal {
    /// The sequence number of the next event; zero before the first look.
    next: u64,
    ring: VecDeque<Arc<Event>>,
    /// How far the events of the mesh, and those of incidents, were read.
    read: (u64, u64),
    verdict: String,
    looks: u64,
    marks: VecDeque<Wall>,
    /// None while nobody watches.
    sent: Option<Sent>,
}

/// The state of every pair, as it was last sent.
#[derive(Debug)]
struct Sent {
    names: Vec<canary_core::NodeName>,
    rows: Vec<SentRow>,
}

#[derive(Debug)]
struct SentRow {
    version: Option<Version>,
    is_visible: bool,
    /// A byte a pair, as in the packed form of the matrix.
    states: Box<[u8]>,
}

/// What became of a mark.
#[derive(Debug)]
pub(super) enum Marked {
    Set(Arc<Event>),
    TooMany,
}

/// A pair whose state changed.
#[derive(Serialize)]
struct PairChange<'a> {
    source: &'a str,
    target: &'a str,
    #[serde(flatten)]
    measured: super::views::Measured,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            messages: broadcast::channel(BEHIND_MAX).0,
            places: Arc::new(Semaphore::new(WATCHERS_MAX)),
        }
    }
}

impl Live {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        canary_net::lock(&self.state)
    }

    /// Reads what is new, and sends it to those who watch.
    pub(crate) fn look(&self, snapshot: &Arc<Snapshot>, report: &Report) {
        let mut journal = self.journal();
        let watched = self.messages.receiver_count() > 0;
        let messages = journal.look(snapshot, report, watched);
        if watched && !messages.is_empty() {
            // Nobody watches any more: nobody misses anything.
            let _ = self.messages.send(Arc::new(messages));
        }
    }

    /// Events with a larger sequence number, oldest first.
    pub(super) fn after(&self, sequence: u64) -> Vec<Arc<Event>> {
        let journal = self.journal();
        journal.ring.iter().filter(|event| event.sequence > sequence).cloned().collect()
    }

    /// Adds a mark of a person.
    pub(super) fn mark(&self, text: String, now: Wall) -> Marked {
        let mut journal = self.journal();
        let since = now.back(MARKS.1);
        journal.marks.retain(|at| *at > since && *at <= now);
        if journal.marks.len() >= MARKS.0 {
            return Marked::TooMany;
        }
        journal.marks.push_back(now);
        journal.begin(now);
        let event = journal.push(|sequence| Event::mark(sequence, now, text));
        let _ = self.messages.send(Arc::new(vec![Message::new(
            Topic::Mark,
            Some(event.sequence),
            &*event,
        )]));
        Marked::Set(event)
    }
}

impl Journal {
    /// Sequence numbers begin with the time, so that they grow across restarts, and fit a number of
    /// JavaScript.
    fn begin(&mut self, now: Wall) {
        if self.next == 0 {
            self.next = now.unix_millis().saturating_mul(1_000).clamp(1, 1 << 52);
        }
    }

    fn push(&mut self, event: impl FnOnce(u64) -> Event) -> Arc<Event> {
        let event = Arc::new(event(self.next));
        self.next += 1;
        if self.ring.len() >= EVENTS_MAX {
            self.ring.pop_front();
        }
        self.ring.push_back(Arc::clone(&event));
        event
    }

    fn look(&mut self, snapshot: &Arc<Snapshot>, report: &Report, watched: bool) -> Vec<Message> {
        self.begin(snapshot.now.wall);
        self.looks += 1;
        let mut messages = Vec::new();
        let (mesh_from, incidents_after) = self.read;
        for event in snapshot.events.since(mesh_from) {
            // What was dropped before it was read is a gap here, too.
            self.next += event.sequence.saturating_sub(self.read.0);
            self.read.0 = event.sequence + 1;
            let event = self.push(|sequence| Event::of_mesh(sequence, event));
            messages.push(Message::new(Topic::of(&event), Some(event.sequence), &*event));
        }
        for event in report.events.iter().filter(|event| event.sequence > incidents_after) {
            self.next += event.sequence.saturating_sub(self.read.1 + 1);
            self.read.1 = event.sequence;
            let event = self.push(|sequence| Event::of_incident(sequence, event));
            messages.push(Message::new(Topic::Incident, Some(event.sequence), &*event));
        }
        if self.verdict != report.verdict {
            self.verdict.clone_from(&report.verdict);
            messages.push(Message::new(Topic::Verdict, None, &Verdict::of(report, snapshot)));
        }
        if watched {
            self.compare(snapshot, &mut messages);
        } else {
            self.sent = None;
        }
        if self.looks.is_multiple_of(QUIET_LOOKS) {
            messages.push(Message::for_all(
                "tick",
                &serde_json::json!({ "as_of": time(snapshot.now.wall) }),
            ));
        }
        messages
    }

    /// Sends the pairs whose state changed since the last look. Rows that did not change are not
    /// read.
    fn compare(&mut self, snapshot: &Arc<Snapshot>, messages: &mut Vec<Message>) {
        let picture = Picture::of(Arc::clone(snapshot));
        let names: Vec<_> =
            (0..picture.nodes().len()).map(|place| picture.name(place).clone()).collect();
        let sent = match self.sent.take() {
            Some(sent) if sent.names == names => sent.rows,
            // Rows of other nodes cannot be compared; and before the first watcher came, nobody
            // looked.
            Some(_) | None => {
                messages.push(Message::for_all(
                    "reload",
                    &serde_json::json!({ "nodes_changed": true }),
                ));
                Vec::new()
            }
        };
        let mut sent = sent.into_iter();
        let (mut changes, mut rows) = (Vec::new(), Vec::with_capacity(names.len()));
        for (source, node) in picture.nodes().iter().enumerate() {
            let before = sent.next();
            // What the bot itself measured is not published at once: it is read each time.
            let version = picture
                .member(source)
                .map(|member| member.row.as_ref().map_or(0, |row| row.version()));
            let is_unchanged = |row: &SentRow| {
                version.is_some() && row.version == version && row.is_visible == node.is_visible
            };
            if before.as_ref().is_some_and(is_unchanged) {
                rows.extend(before);
                continue;
            }
            let cells = picture.row(source);
            let states: Box<[_]> = cells.iter().map(super::views::state_code).collect();
            if let Some(before) = before {
                let pairs = states.iter().zip(&before.states).zip(&cells).enumerate();
                changes.extend(
                    pairs
                        .filter(|(_, ((now, before), _))| now != before)
                        .map(|(target, (_, cell))| (source, target, *cell)),
                );
            }
            rows.push(SentRow { version, is_visible: node.is_visible, states });
        }
        self.sent = Some(Sent { names, rows });
        if changes.len() <= PAIRS_MAX {
            messages.extend(changes.iter().map(|change| pair_message(&picture, *change)));
        } else {
            messages.push(Message::for_all(
                "reload",
                &serde_json::json!({ "pairs_changed": changes.len() }),
            ));
        }
    }
}

fn pair_message(picture: &Picture, (source, target, cell): (usize, usize, Cell)) -> Message {
    let measured = super::views::Measured::of(&cell);
    let change = PairChange {
        source: picture.name(source).as_str(),
        target: picture.name(target).as_str(),
        measured,
    };
    Message::new(Topic::Pair, None, &change)
}
