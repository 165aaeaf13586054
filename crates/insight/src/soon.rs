//! What is not broken yet, or not in the matrix: certificates, names, targets.

use std::time::Duration;

use canary_core::{Snapshot, Wall};

use crate::incident::{Confidence, Culprit, Kind, Pairs, Severity};
use crate::judge::Finding;
use crate::limits::{EXPIRY_CRITICAL, EXPIRY_WARNING, SOON_HOLD};
use crate::matrix::Matrix;
use crate::words::{Sentence, clock};

/// Everything of this sort.
pub(crate) fn findings(matrix: &Matrix, snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = certificates(matrix, snapshot);
    findings.extend(name_conflict(snapshot));
    findings.extend(targets(snapshot));
    findings
}

fn finding(kind: Kind, culprit: Culprit, since: Option<Wall>, sentence: Sentence, evidence: Vec<String>, hold: Duration) -> Finding {
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
        let sentence = Sentence::new(format!("the certificate of {} {words}", node.name()), "renew it");
        let culprit = Culprit::Node(node.name().clone());
        let mut finding =
            finding(Kind::CertificateExpiring, culprit, Some(if expires <= now { at } else { from }), sentence, evidence, SOON_HOLD);
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
    let sentence = Sentence::new(format!("two living nodes have been called {name}"), "give one of them another name by --name");
    Some(finding(Kind::NameConflict, Culprit::Node(name.clone()), None, sentence, evidence, SOON_HOLD))
}

/// Targets that never let this bot in.
fn targets(snapshot: &Snapshot) -> Vec<Finding> {
    let silent = snapshot.targets.iter().filter(|(_, is_in)| !is_in);
    let finding = |(target, _): &(canary_core::Target, bool)| {
        let why = snapshot.join_problems.iter().find(|(of, _)| of == target).map(|(_, why)| why.clone());
        let is_member = snapshot.members.iter().any(|view| view.record.target == *target);
        // A member at that address is measured: its failures are in the matrix.
        (!is_member).then(|| {
            let sentence = Sentence::new(format!("the target {target} has not let this bot in"), "look whether a bot runs there");
            let culprit = Culprit::Target(target.to_string());
            finding(Kind::TargetUnanswered, culprit, None, sentence, why.into_iter().collect(), SOON_HOLD)
        })
    };
    silent.filter_map(finding).collect()
}
