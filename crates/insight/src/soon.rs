//! What is not broken yet, or not in the matrix: certificates, names, targets, releases.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use canary_core::{NodeName, Release, Snapshot, Target, Wall};

use crate::incident::{Confidence, Culprit, Group, Kind, Pairs, Severity};
use crate::judge::Finding;
use crate::limits::{EXPIRY_CRITICAL, EXPIRY_WARNING, SKEW_HOLD, SOON_HOLD, STUCK_HOLD};
use crate::matrix::Matrix;
use crate::words::{Sentence, clock, count, list};

/// Everything of this sort.
pub(crate) fn findings(matrix: &Matrix, snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = certificates(matrix, snapshot);
    findings.extend(name_conflict(snapshot));
    let stuck = snapshot.stuck();
    findings.extend(originals(snapshot, &stuck));
    findings.extend(targets(snapshot, &stuck));
    findings.extend(version_skew(snapshot));
    findings
}

fn finding(
    kind: Kind,
    culprit: Culprit,
    since: Option<Wall>,
    sentence: Sentence,
    evidence: Vec<String>,
    hold: Duration,
) -> Finding {
    Finding {
        key: format!("{} {culprit}", kind.as_str()),
        cause: None,
        kind,
        severity: kind.severity(),
        confidence: Confidence::High,
        culprit,
        since,
        pairs: Pairs::default(),
        evidence,
        sentence,
        hold,
        is_tried: true,
    }
}

/// Certificates that expire within two weeks.
fn certificates(matrix: &Matrix, snapshot: &Snapshot) -> Vec<Finding> {
    let now = Duration::from_millis(snapshot.now.wall.unix_millis());
    let mut findings = Vec::new();
    for (_, node) in matrix.nodes().filter(|(_, node)| node.is_heard) {
        let Some(expires) = node.expires.map(Duration::from_secs) else { continue };
        let left = expires.saturating_sub(now);
        if left > EXPIRY_WARNING {
            continue;
        }
        let at = Wall::from_unix_millis(u64::try_from(expires.as_millis()).unwrap_or(u64::MAX));
        let from = at.back(EXPIRY_WARNING);
        let words = if expires <= now { "has expired" } else { "has been about to expire" };
        let evidence = vec![format!("it is valid until {}", clock(at, Wall::from_unix_millis(0)))];
        let sentence =
            Sentence::new(format!("the certificate of {} {words}", node.name()), "renew it");
        let culprit = Culprit::Node(node.name().clone());
        let mut finding = finding(
            Kind::CertificateExpiring,
            culprit,
            Some(if expires <= now { at } else { from }),
            sentence,
            evidence,
            SOON_HOLD,
        );
        if left <= EXPIRY_CRITICAL {
            finding.severity = Severity::Critical;
        }
        findings.push(finding);
    }
    findings
}

/// Another living node has our name.
fn name_conflict(snapshot: &Snapshot) -> Option<Finding> {
    let holder = snapshot.name_conflict()?;
    let name = &snapshot.me.name;
    let evidence = vec![format!("the other one is at {holder}")];
    let sentence = Sentence::new(
        format!("two living nodes have been called {name}"),
        "give one of them another name by --name",
    );
    Some(finding(
        Kind::NameConflict,
        Culprit::Node(name.clone()),
        None,
        sentence,
        evidence,
        SOON_HOLD,
    ))
}

/// Bots of the original whose loops are stuck: other bots of the original still list and measure
/// them, so nobody notices.
fn originals<'a>(
    snapshot: &'a Snapshot,
    stuck: &'a BTreeSet<&Target>,
) -> impl Iterator<Item = Finding> + use<'a> {
    stuck.iter().map(|target| {
        let name = snapshot
            .membership()
            .find(|member| member.record.target == **target)
            .map(|member| member.record.name.clone());
        let culprit = name.map_or_else(|| Culprit::Target(target.to_string()), Culprit::Node);
        let sentence = Sentence::new(
            format!("{culprit} answers, but its own loops have been stuck"),
            "it measures nothing and admits nobody; restart it",
        );
        let told = snapshot
            .pending()
            .filter(|(_, pending)| pending.target == **target && pending.is_stuck());
        let evidence = told.map(|(bot, pending)| {
            let calls = count(pending.unanswered as usize, "call");
            format!(
                "it answers Ping and Rtt to {bot}, and left {calls} of JoinMesh without an answer"
            )
        });
        finding(Kind::OriginalStuck, culprit, None, sentence, evidence.collect(), STUCK_HOLD)
    })
}

/// Targets that never admitted this bot.
fn targets(snapshot: &Snapshot, stuck: &BTreeSet<&Target>) -> Vec<Finding> {
    let silent = snapshot.targets.iter().filter(|(_, is_in)| !is_in);
    let finding = |(target, _): &(Target, bool)| {
        let why =
            snapshot.join_problems.iter().find(|(of, _)| of == target).map(|(_, why)| why.clone());
        let is_member = snapshot.members.iter().any(|view| view.record.target == *target);
        // A member at that address is measured: its failures are in the matrix.
        (!is_member && !stuck.contains(target)).then(|| {
            let sentence = Sentence::new(
                format!("the target {target} has not admitted this bot"),
                "look whether a bot runs there",
            );
            let culprit = Culprit::Target(target.to_string());
            finding(
                Kind::TargetUnanswered,
                culprit,
                None,
                sentence,
                why.into_iter().collect(),
                SOON_HOLD,
            )
        })
    };
    silent.filter_map(finding).collect()
}

/// Nodes of another release than most. The finding is another one as soon as any node changes its
/// release, and so the hour begins again.
fn version_skew(snapshot: &Snapshot) -> Option<Finding> {
    let others =
        snapshot.present().filter_map(|member| Some((&member.record.name, member.row.as_ref()?)));
    let own = snapshot.own_row.as_ref().map(|row| (&snapshot.me.name, row));
    let mut of: BTreeMap<&Release, Vec<&NodeName>> = BTreeMap::new();
    for (name, row) in others.chain(own) {
        if let Some(release) = row.frame().release() {
            of.entry(release).or_default().push(name);
        }
    }
    let (most, majority) = of.iter().max_by_key(|(_, nodes)| nodes.len())?;
    let all: usize = of.values().map(Vec::len).sum();
    let mut nodes: Vec<NodeName> = of
        .iter()
        .filter(|(release, _)| *release != most)
        .flat_map(|(_, nodes)| nodes)
        .map(|name| (*name).clone())
        .collect();
    nodes.sort_unstable();
    let run = if nodes.len() == 1 { "runs" } else { "run" };
    let evidence: Vec<_> = of
        .iter()
        .map(|(release, nodes)| format!("{} of release {release}", count(nodes.len(), "node")))
        .collect();
    let head = format!("the mesh has been of {} releases", of.len());
    let tail = format!(
        "{} of {all} are of {most}, and {} {run} another; finish the upgrade, or take it back",
        majority.len(),
        list(&nodes)
    );
    let culprit = match &nodes[..] {
        [] => return None,
        [name] => Culprit::Node(name.clone()),
        _ => Culprit::Nodes(Group { label: None, is_rest: false, nodes }),
    };
    let mut found =
        finding(Kind::VersionSkew, culprit, None, Sentence::new(head, tail), evidence, SKEW_HOLD);
    found.key.push_str(&format!(
        " {}",
        of.keys().map(|release| release.as_str()).collect::<Vec<_>>().join(" ")
    ));
    Some(found)
}
