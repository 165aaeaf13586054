//! The JSON shapes of API v2: times are RFC 3339 in UTC, no value is `null`, enumerations are
//! lower-case words.

use std::time::{Duration, UNIX_EPOCH};

use canary_core::{EventKind, Failure, NodeName, Snapshot, Wall};
use canary_insight::{Change, Culprit as Blamed, Group as Nodes, Report, Severity};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use super::Problem;
use crate::picture::{Cell, State as PairState, Took};

/// The state of the mesh.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Verdict {
    /// All of it in one sentence.
    verdict: String,
    /// Whether nothing critical is open.
    healthy: bool,
    /// The worst severity of an open incident: `warning` or `critical`; null if none is open.
    severity: Option<&'static str>,
    /// When this was found.
    as_of: String,
    /// The bot that answers.
    node: String,
    /// Whether that bot hears from nobody, though it knows others.
    isolated: bool,
    /// Nodes, by what is known of them.
    nodes: NodeCounts,
    /// Pairs of visible nodes with others, by what is known of them.
    pairs: PairCounts,
    /// Open incidents by severity.
    incidents: IncidentCounts,
}

#[derive(Debug, Serialize, ToSchema)]
struct NodeCounts {
    /// Nodes that are or should be there, the answering one included.
    known: usize,
    /// Those of them whose samples arrive, the answering one included.
    visible: usize,
}

#[derive(Debug, Serialize, ToSchema)]
struct PairCounts {
    /// The latest attempt was answered.
    ok: usize,
    /// The latest attempt failed.
    failed: usize,
    /// No result is known.
    unknown: usize,
}

#[derive(Debug, Serialize, ToSchema)]
struct IncidentCounts {
    critical: usize,
    warning: usize,
}

impl Verdict {
    pub(crate) fn of(report: &Report, snapshot: &Snapshot) -> Self {
        let count = |severity: Severity| {
            report.open.iter().filter(|incident| incident.severity == severity).count()
        };
        let (critical, warning) = (count(Severity::Critical), count(Severity::Warning));
        Self {
            verdict: report.verdict.clone(),
            healthy: critical == 0,
            severity: report
                .open
                .iter()
                .map(|incident| incident.severity)
                .max()
                .map(Severity::as_str),
            as_of: time(report.now.wall),
            node: snapshot.me.name.as_str().to_owned(),
            isolated: snapshot.isolated,
            nodes: NodeCounts { known: report.sight.nodes, visible: report.sight.visible },
            pairs: PairCounts {
                ok: report.sight.ok,
                failed: report.sight.failed,
                unknown: report.sight.unknown,
            },
            incidents: IncidentCounts { critical, warning },
        }
    }
}

/// Something that is wrong, or was.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Incident {
    /// The same at every bot that blames the same for the same, and the same again if it comes
    /// back.
    id: String,
    /// Such as `bot_down`, `partition` or `path_slow`. Later releases add kinds.
    kind: &'static str,
    /// `warning` or `critical`.
    severity: &'static str,
    /// How sure the bot is: `low`, `medium` or `high`.
    confidence: &'static str,
    /// `open` or `closed`.
    state: &'static str,
    /// When the network broke: the first attempt that failed.
    since: String,
    /// When this bot stated it.
    opened_at: String,
    /// When nothing spoke for it any more; null while it is open.
    closed_at: Option<String>,
    /// Who or what is to blame.
    culprit: Culprit,
    /// Which pairs it explains.
    pairs: ExplainedPairs,
    /// What speaks for it, each in a sentence.
    evidence: Vec<String>,
    /// All of it in one sentence.
    summary: String,
    /// How often it came back.
    reopened: u32,
}

/// Who or what is to blame.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Culprit {
    /// A node.
    Node { node: String },
    /// Several nodes.
    Nodes { group: Group },
    /// The way from one node to another, or between them.
    Path { source: String, target: String, both_ways: bool },
    /// The way from one group to another, or between them.
    Groups { from: Group, to: Group, both_ways: bool },
    /// An address to join at.
    Target { target: String },
}

/// Some nodes.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct Group {
    /// `key=value` if they are all nodes with this label, or all but a few of them; null if they
    /// have none in common.
    label: Option<String>,
    /// Whether they are all nodes that the other group is not, or all but a few of them.
    is_rest: bool,
    nodes: Vec<String>,
}

/// All pairs from some nodes to some nodes.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct ExplainedPairs {
    sources: Vec<String>,
    targets: Vec<String>,
    /// Whether the other direction is meant, too.
    both_ways: bool,
    /// How many of them are bad.
    explained: usize,
    /// How many of them are good, against the explanation.
    contradicting: usize,
}

/// How any request may be refused.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is read by the document alone")]
pub(crate) enum Refusals {
    /// A parameter has no meaning.
    #[response(status = 400, content_type = "application/problem+json")]
    Parameter(Problem),
    /// There is no token, or a wrong one.
    #[response(status = 401, content_type = "application/problem+json")]
    Token(Problem),
    /// The path does not answer with a type that the request accepts.
    #[response(status = 406, content_type = "application/problem+json")]
    Accept(Problem),
    /// There were too many failed authentications.
    #[response(status = 429, content_type = "application/problem+json")]
    Often(Problem),
}

/// Something that happened.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Event {
    /// Grows by one with each event.
    pub(crate) sequence: u64,
    /// When it was noticed, by the clock of the answering bot.
    at: String,
    /// Such as `node_died`, `path_failed`, `incident_opened` or `mark`. Later releases add kinds.
    pub(crate) kind: &'static str,
    /// The node that it happened to; null if it happened to none.
    node: Option<String>,
    /// How the attempt failed, in `path_failed`.
    failure: Option<&'static str>,
    /// The incident as it was then, in `incident_opened`, `incident_changed` and `incident_closed`.
    incident: Option<Incident>,
    /// What there is to say beyond that: the text of a mark, or a reason.
    text: Option<String>,
}

impl Event {
    /// An event of the mesh.
    pub(crate) fn of_mesh(sequence: u64, event: &canary_core::Event) -> Self {
        let base = |kind| Self { sequence, at: time(event.wall), kind, ..Self::default() };
        let node =
            |kind, name: &NodeName| Self { node: Some(name.as_str().to_owned()), ..base(kind) };
        let text = |kind, text: String| Self { text: Some(text), ..base(kind) };
        match &event.kind {
            EventKind::Joined(name) => node("node_joined", name),
            EventKind::Restarted(name) => node("node_restarted", name),
            EventKind::Suspected(name) => node("node_suspected", name),
            EventKind::Died(name) => node("node_died", name),
            EventKind::Revived(name) => node("node_revived", name),
            EventKind::Left(name) => node("node_left", name),
            EventKind::Forgotten(name) => node("node_forgotten", name),
            EventKind::PathFailed(name, failure) => {
                let text = Some("an attempt of this bot failed".to_owned());
                Self { failure: Some(failure.as_str()), text, ..node("path_failed", name) }
            }
            EventKind::PathRecovered(name) => Self {
                text: Some("an attempt of this bot succeeded".to_owned()),
                ..node("path_recovered", name)
            },
            EventKind::Stalled(lasted) => text(
                "bot_stalled",
                format!("the loop of this bot did not run for {:.1} s", lasted.as_secs_f64()),
            ),
            EventKind::Isolated => base("bot_isolated"),
            EventKind::Heard => base("bot_heard"),
            EventKind::NameConflict(target) => {
                text("name_conflict", format!("another living node has this name, at {target}"))
            }
            EventKind::NameRegained => base("name_regained"),
            EventKind::NotLetIn(why) => text("join_refused", why.clone()),
        }
    }

    /// Something that became of an incident.
    pub(crate) fn of_incident(sequence: u64, event: &canary_insight::Event) -> Self {
        let kind = match event.change {
            Change::Opened => "incident_opened",
            Change::Changed => "incident_changed",
            Change::Closed => "incident_closed",
        };
        Self {
            sequence,
            at: time(event.at),
            kind,
            incident: Some(Incident::of(&event.incident)),
            ..Self::default()
        }
    }

    /// A mark of a person.
    pub(crate) fn mark(sequence: u64, at: Wall, text: String) -> Self {
        Self { sequence, at: time(at), kind: "mark", text: Some(text), ..Self::default() }
    }
}

impl Incident {
    pub(crate) fn of(incident: &canary_insight::Incident) -> Self {
        let pairs = &incident.pairs;
        Self {
            id: incident.id.to_string(),
            kind: incident.kind.as_str(),
            severity: incident.severity.as_str(),
            confidence: incident.confidence.as_str(),
            state: if incident.is_open() { "open" } else { "closed" },
            since: time(incident.since),
            opened_at: time(incident.opened),
            closed_at: incident.closed.map(time),
            culprit: Culprit::of(&incident.culprit),
            pairs: ExplainedPairs {
                sources: names(&pairs.sources),
                targets: names(&pairs.targets),
                both_ways: pairs.both_ways,
                explained: pairs.explained,
                contradicting: pairs.contradicting,
            },
            evidence: incident.evidence.clone(),
            summary: incident.summary.clone(),
            reopened: incident.reopened,
        }
    }
}

impl Culprit {
    fn of(culprit: &Blamed) -> Self {
        match culprit {
            Blamed::Node(node) => Self::Node { node: node.as_str().to_owned() },
            Blamed::Nodes(nodes) => Self::Nodes { group: Group::of(nodes) },
            Blamed::Path { source, target, both_ways } => Self::Path {
                source: source.as_str().to_owned(),
                target: target.as_str().to_owned(),
                both_ways: *both_ways,
            },
            Blamed::Groups { from, to, both_ways } => {
                Self::Groups { from: Group::of(from), to: Group::of(to), both_ways: *both_ways }
            }
            Blamed::Target(target) => Self::Target { target: target.clone() },
        }
    }
}

impl Group {
    fn of(group: &Nodes) -> Self {
        Self { label: group.label.clone(), is_rest: group.is_rest, nodes: names(&group.nodes) }
    }
}

pub(super) fn names(names: &[NodeName]) -> Vec<String> {
    names.iter().map(|name| name.as_str().to_owned()).collect()
}

/// RFC 3339 in UTC, to a millisecond. A label past the year 9999 is a broken clock's and is shown
/// as the last.
pub(crate) fn time(at: Wall) -> String {
    const YEAR_9999_END: u64 = 253_402_300_799_999;
    humantime::format_rfc3339_millis(
        UNIX_EPOCH + Duration::from_millis(at.unix_millis().min(YEAR_9999_END)),
    )
    .to_string()
}

/// The latest attempt of a pair, and how the pair has been.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Measured {
    /// `ok`, `failed`, `unknown`, or `stale` if the latest result is too old to be the present one.
    state: &'static str,
    /// How the latest attempt failed, such as `timeout` or `refused`; null if it did not. Later
    /// releases add kinds.
    failure: Option<&'static str>,
    /// Time to connect, agree on TLS, and get the first answer; null if the latest attempt failed.
    rtt_seconds: Option<f64>,
    /// Time of a second request on the warm connection; null if it failed.
    request_seconds: Option<f64>,
    /// Smoothed difference between successive round-trip times (RFC 3550); null before the second
    /// success, and after a failure.
    jitter_seconds: Option<f64>,
    /// Share of failed attempts among the latest 64, from 0 to 1; null before the first.
    loss_ratio: Option<f64>,
    /// Segments that the kernel sent again during the latest attempt: its time contains waiting for
    /// them.
    retransmissions: u32,
    /// When the latest attempt began, by the clock of the source; null before the first.
    attempted_at: Option<String>,
    /// How long ago that was, by the clock of the answering bot.
    age_seconds: Option<f64>,
}

impl Measured {
    pub(super) fn of(cell: &Cell) -> Self {
        let seconds = |took: Option<Took>| took.map(|took| took.duration().as_secs_f64());
        Self {
            state: cell.word(),
            failure: cell.failure().map(Failure::as_str),
            rtt_seconds: seconds(cell.total),
            request_seconds: seconds(cell.request),
            jitter_seconds: seconds(cell.jitter),
            loss_ratio: cell.loss,
            retransmissions: cell.retransmissions,
            attempted_at: cell.attempted.map(time),
            age_seconds: cell.age.map(|age| age.as_secs_f64()),
        }
    }
}

/// Added to a state that is too old to be the present one.
const STALE: u8 = 0x80;

/// The state of a pair as a byte.
pub(super) fn state_code(cell: &Cell) -> u8 {
    let state = match cell.state {
        PairState::Unknown => 0,
        PairState::Ok => 1,
        PairState::Failed(kind) => 2 + kind.code(),
    };
    if cell.is_stale { state | STALE } else { state }
}
