//! What is wrong, in plain words.

use std::time::{Duration, UNIX_EPOCH};

use canary_core::{Failure, NodeName, Time, Wall};
use fixedbitset::FixedBitSet;

use crate::block::Block;
use crate::evidence::Evidence;
use crate::incident::{Culprit, Group, Kind, Pairs};
use crate::limits::NAMES_LISTED;

/// How the bad pairs of a cause look.
pub(crate) struct Look {
    /// How they fail, the most frequent first.
    pub(crate) kinds: Vec<(Failure, usize)>,
    /// When they began to.
    pub(crate) since: Option<Time>,
    pub(crate) streak: u8,
    /// Median latency against the usual one.
    pub(crate) times: f64,
}

/// A sentence that lacks only when it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sentence {
    head: String,
    detail: String,
    tail: String,
}

impl Sentence {
    pub(crate) fn new(head: impl Into<String>, tail: impl Into<String>) -> Self {
        Self { head: head.into(), detail: String::new(), tail: tail.into() }
    }

    fn with_detail(self, detail: String) -> Self {
        Self { detail, ..self }
    }

    /// The whole sentence.
    pub(crate) fn since(&self, since: Wall, now: Wall) -> String {
        let Self { head, detail, tail } = self;
        let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
        format!("{head} since {}{detail}: {tail}.", clock(since, now))
    }
}

/// A time of day, with the date if it is not of the last day, in UTC.
pub(crate) fn clock(at: Wall, now: Wall) -> String {
    let text =
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(at.unix_millis()))
            .to_string();
    let (date, time) = text.trim_end_matches('Z').split_once('T').unwrap_or(("", &text));
    let is_recent = now.unix_millis().abs_diff(at.unix_millis()) < 20 * 3600 * 1000;
    if is_recent { format!("{time} UTC") } else { format!("{date} {time} UTC") }
}

/// How much slower than usual; what is kept of it ends at 31 times.
fn times(look: &Look) -> String {
    if look.times > 31.0 {
        "more than 30 times its usual latency".to_owned()
    } else {
        format!("{:.1} times its usual latency", look.times.max(1.5))
    }
}

/// A few names, and how many more there are.
pub(crate) fn list(names: &[NodeName]) -> String {
    let shown: Vec<_> = names.iter().take(NAMES_LISTED).map(NodeName::as_str).collect();
    match names.len().saturating_sub(NAMES_LISTED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

pub(crate) fn count(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

fn group(group: &Group) -> String {
    match (&group.label, group.is_rest) {
        (Some(label), _) => format!("{label} ({})", count(group.nodes.len(), "node")),
        (None, true) => format!("the other {}", count(group.nodes.len(), "node")),
        (None, false) if group.nodes.len() == 1 => list(&group.nodes),
        (None, false) => format!("{} ({})", count(group.nodes.len(), "node"), list(&group.nodes)),
    }
}

/// How a failure is called in a sentence.
fn failure(kind: Failure) -> &'static str {
    match kind {
        Failure::Dns => "name not resolved",
        Failure::Refused => "connection refused",
        Failure::Unreachable => "network unreachable",
        Failure::Timeout => "timeout",
        Failure::Tls => "TLS handshake failed",
        Failure::Reset => "connection reset",
        Failure::Protocol => "not our protocol",
        Failure::Auth => "not admitted",
        Failure::Identity => "another node answers",
        Failure::Local => "the source could not try",
        Failure::Other => "failed",
    }
}

/// What to look at when incoming connections fail in this way.
fn inbound_advice(kind: Option<Failure>) -> &'static str {
    match kind {
        Some(Failure::Tls) => "look at its certificate",
        Some(Failure::Auth) => "look at its mesh token and its certificate authorities",
        Some(Failure::Dns) => "look at the name under which others dial it",
        Some(Failure::Protocol | Failure::Identity) => "something else answers at its address",
        _ => "look at the firewall in front of it, and at its join address",
    }
}

fn outbound_advice(kind: Option<Failure>) -> &'static str {
    match kind {
        Some(Failure::Tls) => "look at its certificate authorities and its clock",
        Some(Failure::Auth) => "look at its mesh token and its certificate",
        Some(Failure::Dns) => "look at its resolver",
        Some(Failure::Local) => "it lacks descriptors, ports or memory",
        _ => "look at its firewall for outgoing connections and its routes",
    }
}

/// The sentence of a finding, and what speaks for it.
pub(crate) fn of(
    kind: Kind,
    culprit: &Culprit,
    block: &Block,
    look: &Look,
    pairs: &Pairs,
    evidence: &Evidence<'_>,
    sources: usize,
) -> (Sentence, Vec<String>) {
    let main = look.kinds.first().map(|(kind, _)| *kind);
    let how = main.map(failure).unwrap_or_default().to_owned();
    let sentence = match culprit {
        Culprit::Node(name) => node(kind, name, main, sources, look),
        Culprit::Nodes(nodes) => {
            Sentence::new(format!("{} have failed", list(&nodes.nodes)), "look at them")
        }
        Culprit::Path { source, target, both_ways } => {
            path(kind, source, target, *both_ways, block, evidence, look)
        }
        Culprit::Groups { from, to, .. } => groups(kind, from, to, pairs, block, evidence, look),
        Culprit::Target(target) => {
            Sentence::new(format!("{target} has not answered"), "look at it")
        }
    };
    let all = pairs.explained + pairs.contradicting;
    let mut words = vec![if all == 1 {
        "the pair is bad".to_owned()
    } else {
        format!("{} of {all} pairs are bad", pairs.explained)
    }];
    if !look.kinds.is_empty() {
        let kinds: Vec<_> =
            look.kinds.iter().map(|(kind, count)| format!("{count} {}", kind.as_str())).collect();
        words.push(format!("how they fail: {}", kinds.join(", ")));
    }
    if let Culprit::Node(name) = culprit
        && let Some(node) =
            evidence.matrix.index(name).and_then(|index| evidence.matrix.node(index))
        && matches!(
            kind,
            Kind::BotDown | Kind::NodeUnreachable | Kind::InboundBroken | Kind::OutboundBroken
        )
    {
        let row =
            if node.is_heard { "its own row keeps advancing" } else { "its own row is silent" };
        words.push(format!("{row}; the mesh considers it {}", node.status.as_str()));
    }
    if look.streak > 1 && main.is_some() {
        words.push(format!("up to {} attempts in a row failed", look.streak));
    }
    (sentence.with_detail(how), words)
}

fn node(
    kind: Kind,
    name: &NodeName,
    main: Option<Failure>,
    sources: usize,
    look: &Look,
) -> Sentence {
    let everybody = if sources == 1 { "here".to_owned() } else { format!("all {sources} others") };
    let everybody =
        if sources == 1 { format!("from {everybody}") } else { format!("for {everybody}") };
    match kind {
        Kind::BotDown if main == Some(Failure::Identity) => Sentence::new(
            format!("{name} has been unreachable {everybody}"),
            "another node answers at its address: its bot is gone",
        ),
        Kind::BotDown => Sentence::new(
            format!("{name} has been unreachable {everybody}"),
            "the bot is down, the host is up",
        ),
        Kind::NodeUnreachable => Sentence::new(
            format!("{name} has been unreachable {everybody}"),
            "the host is down or cut off, or its bot hangs",
        ),
        Kind::HostCutOff => Sentence::new(
            format!("this host, {name}, has been cut off"),
            "it reaches no other node; look at its network first, nothing is known of the others",
        ),
        Kind::InboundBroken => Sentence::new(
            format!("nobody has been able to connect to {name}"),
            format!("it lives and reaches others; {}", inbound_advice(main)),
        ),
        Kind::OutboundBroken => Sentence::new(
            format!("{name} has not been able to connect to anybody"),
            format!("others reach it; {}", outbound_advice(main)),
        ),
        Kind::NodeLossy => Sentence::new(
            format!("packets to and from {name} have been lost"),
            "look at its network interface and uplink",
        ),
        Kind::ObserverUnreliable => Sentence::new(
            format!("{name} has been slow to measure"),
            "look for a starved or throttled host; its numbers are not used",
        ),
        _ => Sentence::new(
            format!("{name} has been slow for everybody, {},", times(look)),
            "look at its load, its network interface and its uplink",
        ),
    }
}

fn path(
    kind: Kind,
    source: &NodeName,
    target: &NodeName,
    both_ways: bool,
    block: &Block,
    evidence: &Evidence<'_>,
    look: &Look,
) -> Sentence {
    let way =
        if both_ways { format!("{source} and {target}") } else { format!("{source} to {target}") };
    let back = || {
        let (Some(from), Some(to)) = (block.from.ones().next(), block.to.ones().next()) else {
            return false;
        };
        evidence.works(to, look.since).is_some_and(|works| works.contains(from))
    };
    match kind {
        Kind::PathFailing if both_ways => Sentence::new(
            format!("{source} and {target} have not been able to reach each other"),
            "both reach others; look at the way between them",
        ),
        Kind::PathFailing => {
            let back = if back() {
                "the other direction works"
            } else {
                "nothing is known of the other direction"
            };
            Sentence::new(
                format!("{source} has not been able to connect to {target}"),
                format!("{back}, and both reach others"),
            )
        }
        Kind::PathLossy => Sentence::new(
            format!("packets on the way from {way} have been lost"),
            "other ways of both are fine",
        ),
        _ => Sentence::new(
            format!("the way from {way} has been slow, {},", times(look)),
            "other ways of both are fine",
        ),
    }
}

fn groups(
    kind: Kind,
    from: &Group,
    to: &Group,
    pairs: &Pairs,
    block: &Block,
    evidence: &Evidence<'_>,
    look: &Look,
) -> Sentence {
    let (one, other) = (group(from), group(to));
    match kind {
        Kind::Partition => {
            let bridges = bridges(block, evidence);
            let all = pairs.explained + pairs.contradicting;
            let tail = match bridges.len() {
                0 if pairs.contradicting == 0 => "nothing passes between them".to_owned(),
                0 => format!("{} of {all} pairs still work", pairs.contradicting),
                1 => format!("1 node still reaches both: {}", list(&bridges)),
                many => format!("{many} nodes still reach both: {}", list(&bridges)),
            };
            Sentence::new(format!("{one} and {other} have been cut from each other"), tail)
        }
        Kind::OneWay => Sentence::new(
            format!("no connection from {one} to {other} has worked"),
            "the other direction does; look at the firewall between them",
        ),
        Kind::GroupLossy => {
            let way = if block.both {
                format!("between {one} and {other}")
            } else {
                format!("from {one} to {other}")
            };
            Sentence::new(format!("packets {way} have been lost"), "look at the link between them")
        }
        _ => {
            let way = if block.both {
                format!("between {one} and {other}")
            } else {
                format!("from {one} to {other}")
            };
            Sentence::new(
                format!("the network {way} has been slow, {},", times(look)),
                "look at the link between them",
            )
        }
    }
}

/// Nodes that still reach both sides of a cut.
fn bridges(block: &Block, evidence: &Evidence<'_>) -> Vec<NodeName> {
    let began = block.began(evidence);
    let reaches = |node: usize, side: &FixedBitSet| {
        evidence.works(node, began).is_some_and(|works| !works.is_disjoint(side))
    };
    let outside = evidence
        .witnesses
        .ones()
        .filter(|node| !block.from.contains(*node) && !block.to.contains(*node));
    let both = outside.filter(|node| reaches(*node, &block.from) && reaches(*node, &block.to));
    let mut names: Vec<_> =
        both.filter_map(|node| Some(evidence.matrix.node(node)?.name().clone())).collect();
    names.sort_unstable();
    names
}
