//! The JSON shapes of API v2: times are RFC 3339 in UTC, no value is `null`, enumerations are lower-case words.

use std::time::{Duration, UNIX_EPOCH};

use canary_core::{NodeName, Snapshot, Wall};
use canary_insight::{Culprit as Blamed, Group as Nodes, Report, Severity};
use serde::Serialize;
use utoipa::ToSchema;

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
        let count = |severity: Severity| report.open.iter().filter(|incident| incident.severity == severity).count();
        let (critical, warning) = (count(Severity::Critical), count(Severity::Warning));
        Self {
            verdict: report.verdict.clone(),
            healthy: critical == 0,
            severity: report.open.iter().map(|incident| incident.severity).max().map(Severity::as_str),
            as_of: time(report.now.wall),
            node: snapshot.me.name.as_str().to_owned(),
            isolated: snapshot.isolated,
            nodes: NodeCounts { known: report.sight.nodes, visible: report.sight.visible },
            pairs: PairCounts { ok: report.sight.ok, failed: report.sight.failed, unknown: report.sight.unknown },
            incidents: IncidentCounts { critical, warning },
        }
    }
}

/// Incidents, open ones first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Incidents {
    pub(crate) incidents: Vec<Incident>,
}

/// Something that is wrong, or was.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Incident {
    /// The same at every bot that blames the same for the same, and the same again if it comes back.
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
    pairs: Pairs,
    /// What speaks for it, each in a sentence.
    evidence: Vec<String>,
    /// All of it in one sentence.
    summary: String,
    /// How often it came back.
    reopened: u32,
}

/// Who or what is to blame.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Culprit {
    /// A node.
    Node { node: String },
    /// The way from one node to another, or between them.
    Path { source: String, target: String, both_ways: bool },
    /// The way from one group to another, or between them.
    Groups { from: Group, to: Group, both_ways: bool },
    /// An address to join at.
    Target { target: String },
}

/// Some nodes.
#[derive(Debug, Serialize, ToSchema)]
struct Group {
    /// `key=value` if they are all nodes with this label, or all but a few of them; null if they have none in common.
    label: Option<String>,
    /// Whether they are all nodes that the other group is not.
    is_rest: bool,
    nodes: Vec<String>,
}

/// All pairs from some nodes to some nodes.
#[derive(Debug, Serialize, ToSchema)]
struct Pairs {
    sources: Vec<String>,
    targets: Vec<String>,
    /// Whether the other direction is meant, too.
    both_ways: bool,
    /// How many of them are bad.
    explained: usize,
    /// How many of them are good, against the explanation.
    contradicting: usize,
}

/// Why a request was refused (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    pub(crate) title: String,
    pub(crate) status: u16,
    pub(crate) detail: String,
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
            pairs: Pairs {
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
            Blamed::Path { source, target, both_ways } => {
                Self::Path { source: source.as_str().to_owned(), target: target.as_str().to_owned(), both_ways: *both_ways }
            }
            Blamed::Groups { from, to, both_ways } => Self::Groups { from: Group::of(from), to: Group::of(to), both_ways: *both_ways },
            Blamed::Target(target) => Self::Target { target: target.clone() },
        }
    }
}

impl Group {
    fn of(group: &Nodes) -> Self {
        Self { label: group.label.clone(), is_rest: group.is_rest, nodes: names(&group.nodes) }
    }
}

fn names(names: &[NodeName]) -> Vec<String> {
    names.iter().map(|name| name.as_str().to_owned()).collect()
}

fn time(at: Wall) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at.unix_millis())).to_string()
}
