//! What a reader sees: incidents, and what becomes of them.

use std::fmt;

use canary_core::{NodeName, Wall, stable_hash};

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The host answers that nothing listens.
    BotDown,
    /// Nobody reaches the node, and it says nothing.
    NodeUnreachable,
    /// This host reaches nobody.
    HostCutOff,
    /// Nobody reaches the node, and yet it lives and reaches others.
    InboundBroken,
    /// The node reaches nobody, and yet others reach it.
    OutboundBroken,
    /// Two groups of nodes do not reach each other.
    Partition,
    /// One group of nodes does not reach another, which reaches it.
    OneWay,
    /// One node does not reach one other.
    PathFailing,
    /// Packets to and from a node are lost.
    NodeLossy,
    /// Packets between two groups of nodes are lost.
    GroupLossy,
    /// Packets between two nodes are lost.
    PathLossy,
    /// A node is slower than usual for everybody.
    NodeSlow,
    /// Two groups of nodes are slower to each other than usual.
    GroupSlow,
    /// Two nodes are slower to each other than usual.
    PathSlow,
    /// The host has no time to measure: what it says is old.
    ObserverUnreliable,
    /// A certificate expires soon, or has expired.
    CertificateExpiring,
    /// Another living node has this bot's name.
    NameConflict,
    /// A target never answered.
    TargetUnanswered,
    /// Nodes run another release than most, and nobody goes on with the upgrade.
    VersionSkew,
    /// A bot of the original answers, and its own loops are stuck.
    OriginalStuck,
}

/// What a kind is called, and how bad it is: one entry a kind.
struct Entry(Kind, &'static str, Severity);

const KINDS: [Entry; 20] = [
    Entry(Kind::BotDown, "bot_down", Severity::Critical),
    Entry(Kind::NodeUnreachable, "node_unreachable", Severity::Critical),
    Entry(Kind::HostCutOff, "host_cut_off", Severity::Critical),
    Entry(Kind::InboundBroken, "inbound_broken", Severity::Critical),
    Entry(Kind::OutboundBroken, "outbound_broken", Severity::Critical),
    Entry(Kind::Partition, "partition", Severity::Critical),
    Entry(Kind::OneWay, "one_way", Severity::Critical),
    Entry(Kind::PathFailing, "path_failing", Severity::Warning),
    Entry(Kind::NodeLossy, "node_lossy", Severity::Warning),
    Entry(Kind::GroupLossy, "group_lossy", Severity::Warning),
    Entry(Kind::PathLossy, "path_lossy", Severity::Warning),
    Entry(Kind::NodeSlow, "node_slow", Severity::Warning),
    Entry(Kind::GroupSlow, "group_slow", Severity::Warning),
    Entry(Kind::PathSlow, "path_slow", Severity::Warning),
    Entry(Kind::ObserverUnreliable, "observer_unreliable", Severity::Warning),
    Entry(Kind::CertificateExpiring, "certificate_expiring", Severity::Warning),
    Entry(Kind::NameConflict, "name_conflict", Severity::Warning),
    Entry(Kind::TargetUnanswered, "target_unanswered", Severity::Warning),
    Entry(Kind::VersionSkew, "version_skew", Severity::Warning),
    Entry(Kind::OriginalStuck, "original_stuck", Severity::Warning),
];

impl Kind {
    /// All kinds.
    pub fn all() -> impl Iterator<Item = Self> {
        KINDS.iter().map(|Entry(kind, ..)| *kind)
    }

    fn entry(self) -> &'static Entry {
        KINDS.iter().find(|Entry(kind, ..)| *kind == self).expect("every kind has an entry")
    }

    /// The lower-case name, as in metrics and APIs.
    pub fn as_str(self) -> &'static str {
        self.entry().1
    }

    /// How bad it is; an expired certificate is worse than this says.
    pub fn severity(self) -> Severity {
        self.entry().2
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Look soon.
    Warning,
    /// Act now.
    Critical,
}

impl Severity {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Warning, Self::Critical];

    /// The lower-case name, as in metrics and APIs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// How sure the model is, from how much better the cause explains the matrix than the next best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// Another cause explains about as well.
    Low,
    /// It explains better than any other.
    Medium,
    /// No other comes near.
    High,
}

impl Confidence {
    /// The lower-case name, as in APIs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// Who or what is to blame.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Culprit {
    /// A node.
    Node(NodeName),
    /// Several nodes.
    Nodes(Group),
    /// The way from one node to another, or between them.
    Path {
        /// Who measures.
        source: NodeName,
        /// Whom.
        target: NodeName,
        /// Whether the other direction is meant, too; names are in order then.
        both_ways: bool,
    },
    /// The way from one group to another, or between them.
    Groups {
        /// From whom.
        from: Group,
        /// To whom.
        to: Group,
        /// Whether the other direction is meant, too.
        both_ways: bool,
    },
    /// An address to join at, as it was given.
    Target(String),
}

/// Some nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// `key=value` if they are all nodes with this label, or all but a few of them.
    pub label: Option<String>,
    /// Whether they are all nodes that the other group is not, or all but a few of them.
    pub is_rest: bool,
    /// The nodes, in order.
    pub nodes: Vec<NodeName>,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.label, self.is_rest) {
            (Some(label), _) => f.write_str(label),
            (None, true) => f.write_str("rest"),
            (None, false) => {
                let names: Vec<_> = self.nodes.iter().map(NodeName::as_str).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = |both: bool| if both { "<->" } else { "->" };
        match self {
            Self::Node(name) => write!(f, "{name}"),
            Self::Nodes(group) => write!(f, "{group}"),
            Self::Path { source, target, both_ways } => {
                write!(f, "{source} {} {target}", arrow(*both_ways))
            }
            Self::Groups { from, to, both_ways } => write!(f, "{from} {} {to}", arrow(*both_ways)),
            Self::Target(target) => f.write_str(target),
        }
    }
}

/// Which pairs an incident explains: all from some nodes to some nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// From these,
    pub sources: Vec<NodeName>,
    /// to these,
    pub targets: Vec<NodeName>,
    /// or the other way as well.
    pub both_ways: bool,
    /// How many of them are bad.
    pub explained: usize,
    /// How many of them are good, against the explanation.
    pub contradicting: usize,
}

/// Something that is wrong, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Two bots that blame the same for the same give it the same id, and so it is the same one if
    /// it comes back.
    pub id: Id,
    /// What kind of thing is wrong.
    pub kind: Kind,
    /// Who or what is to blame.
    pub culprit: Culprit,
    /// When the network broke: the first attempt that failed, not when this bot noticed.
    pub since: Wall,
    /// When this bot stated it.
    pub opened: Wall,
    /// When nothing spoke for it any more; none while it is open.
    pub closed: Option<Wall>,
    /// How bad it is.
    pub severity: Severity,
    /// How sure the model is.
    pub confidence: Confidence,
    /// Which pairs it explains.
    pub pairs: Pairs,
    /// What speaks for it, each in a sentence.
    pub evidence: Vec<String>,
    /// All of it in one sentence.
    pub summary: String,
    /// How often it came back.
    pub reopened: u32,
}

impl Incident {
    /// Whether it lasts.
    pub fn is_open(&self) -> bool {
        self.closed.is_none()
    }
}

/// The fingerprint of what is to blame, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64);

impl Id {
    /// Of a text that names both.
    pub(crate) fn of(text: &str) -> Self {
        Self(stable_hash(text.bytes()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What became of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was opened, or came back.
    Opened,
    /// Its kind or severity changed.
    Changed,
    /// It was closed.
    Closed,
}

impl Change {
    /// The lower-case name, as in APIs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Changed => "changed",
            Self::Closed => "closed",
        }
    }
}

/// One thing that happened to an incident.
#[derive(Clone, Debug)]
pub struct Event {
    /// Counts up from 1 in one process.
    pub sequence: u64,
    /// When.
    pub at: Wall,
    /// What.
    pub change: Change,
    /// The incident as it was then.
    pub incident: std::sync::Arc<Incident>,
}
