//! Families of the mesh as this bot sees it.

use std::collections::BTreeMap;
use std::fmt;

use canary_core::{BUCKETS_SECONDS, Record, Snapshot, Status};
use canary_insight::{Incident, Kind, Report, Severity};
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{Nodes, Scrape, counters, gauges, histograms, known, present};
use crate::Messages;

/// Where every node is, and what it says of itself.
pub(super) fn node_infos(
    snapshot: &Snapshot,
    nodes: &Nodes,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "canary_mesh_node_info",
        "Every other node: its address and its labels.",
        None,
        MetricType::Gauge,
    )?;
    for member in known(snapshot, nodes) {
        let described = described(&member.record);
        let labels: Vec<_> =
            described.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        family.encode_family(&labels.as_slice())?.encode_gauge(&1.0)?;
    }
    Ok(())
}

/// A node's name, address and labels as labels of a series. Two keys may become one name; a series
/// has each name once.
pub(super) fn described(record: &Record) -> Vec<(String, String)> {
    let mut labels = vec![
        ("node".to_owned(), record.name.as_str().to_owned()),
        ("address".to_owned(), record.target.to_string()),
    ];
    for (key, value) in record.labels.iter() {
        let key = label_name(key);
        if !labels.iter().any(|(taken, _)| *taken == key) {
            labels.push((key, value.to_owned()));
        }
    }
    labels
}

/// What is wrong: a series for every kind, so that an alert on it has a past, and one for every
/// open incident.
pub(super) fn incidents(report: &Report, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut counts: BTreeMap<(Kind, Severity), f64> =
        Kind::all().map(|kind| ((kind, kind.severity()), 0.0)).collect();
    for incident in &report.open {
        *counts.entry((incident.kind, incident.severity)).or_default() += 1.0;
    }
    let counts = counts.iter().map(|((kind, severity), count)| {
        (vec![("kind", kind.as_str()), ("severity", severity.as_str())], *count)
    });
    gauges(
        encoder,
        "canary_incidents",
        "Open incidents: what is wrong with the mesh, as far as this bot knows.",
        None,
        counts,
    )?;
    let infos: Vec<_> = report
        .open
        .iter()
        .map(|incident| (incident, incident.id.to_string(), culprit(incident)))
        .collect();
    let infos = infos.iter().map(|(incident, id, culprit)| {
        let (kind, severity) = (incident.kind.as_str(), incident.severity.as_str());
        (
            vec![
                ("id", id.as_str()),
                ("kind", kind),
                ("severity", severity),
                ("culprit", culprit.as_str()),
            ],
            1.0,
        )
    });
    gauges(
        encoder,
        "canary_incident_info",
        "Every open incident, and who or what is to blame. No series while none is open.",
        None,
        infos,
    )
}

/// The culprit as a label's value: a group without a name may have a thousand members.
fn culprit(incident: &Incident) -> String {
    const BYTES_MAX: usize = 256;
    let text = incident.culprit.to_string();
    if text.len() <= BYTES_MAX {
        return text;
    }
    let cut = (0..=BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}…", &text[..cut])
}

/// How far every node's clock is from ours, by when it says that it published its row, and how long
/// ago that was.
pub(super) fn clock_offsets(
    snapshot: &Snapshot,
    nodes: &Nodes,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let offsets = present(snapshot, nodes).filter_map(|member| {
        let offset = member.row.as_ref()?.clock_offset_millis(snapshot.now) as f64 / 1000.0;
        Some((vec![("node", member.record.name.as_str())], offset))
    });
    gauges(
        encoder,
        "canary_mesh_node_clock_offset",
        "How far a node's clock is ahead of this host's: its samples are dated by it.",
        Some(&Unit::Seconds),
        offsets,
    )
}

pub(super) fn row_ages(
    snapshot: &Snapshot,
    nodes: &Nodes,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let ages = present(snapshot, nodes)
        .filter_map(|member| Some((member, member.row.as_ref()?)))
        .map(|(member, row)| {
            (
                vec![("source", member.record.name.as_str())],
                row.age(snapshot.now.time).as_secs_f64(),
            )
        });
    gauges(
        encoder,
        "canary_mesh_row_age",
        "Time since a node last published what it measured, as far as this bot heard. No series before the first.",
        Some(&Unit::Seconds),
        ages,
    )
}

pub(super) fn mesh(scrape: &Scrape, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let snapshot = &scrape.snapshot;
    let in_state =
        |state: Status| snapshot.nodes().filter(|member| member.status == state).count() as f64;
    let states = [Status::Alive, Status::Suspect, Status::Dead, Status::Left];
    let members = states.map(|state| (vec![("state", state.as_str())], in_state(state)));
    gauges(encoder, "canary_mesh_members", "Other known nodes, by state.", None, members)?;
    let unproven = snapshot.unproven as f64;
    gauges(
        encoder,
        "canary_mesh_unproven_names",
        "Names that others reported and that never answered this bot in their present incarnation: they are in no list.",
        None,
        [(vec![], unproven)],
    )?;
    let targets: Vec<_> =
        snapshot.targets.iter().map(|(target, up)| (target.to_string(), *up)).collect();
    let up = targets
        .iter()
        .map(|(target, up)| (vec![("target", target.as_str())], f64::from(u8::from(*up))));
    gauges(
        encoder,
        "canary_mesh_target_up",
        "1 while a target to join at admitted this bot when it was last asked.",
        None,
        up,
    )?;
    let failing = snapshot.join_problems.len() as f64;
    gauges(
        encoder,
        "canary_mesh_targets_failing",
        "Targets that do not admit this bot.",
        None,
        [(vec![], failing)],
    )?;
    let labels =
        |messages: &Messages| vec![("kind", messages.kind), ("direction", messages.direction)];
    let messages =
        scrape.transport.messages.iter().map(|messages| (labels(messages), messages.count));
    counters(encoder, "canary_mesh_messages", "Messages between bots.", messages)?;
    let bytes = scrape.transport.messages.iter().map(|messages| (labels(messages), messages.bytes));
    counters(
        encoder,
        "canary_mesh_bytes",
        "Bytes of the messages between bots, without the framing of HTTP/2.",
        bytes,
    )?;
    let refused = snapshot.refusals.iter().map(|(refusal, count)| (refusal.as_str(), count));
    let of_ports = scrape.transport.refused.iter().chain(&scrape.refused_connections);
    let refused = refused.chain(of_ports.map(|(reason, count)| (reason.as_str(), *count)));
    let refused = refused.map(|(reason, count)| (vec![("reason", reason)], count));
    counters(
        encoder,
        "canary_mesh_refused",
        "What was refused or left out because of a limit, by reason; docs/security.md explains them.",
        refused,
    )?;
    secured(snapshot, encoder)?;
    let interval =
        |name, help, interval: std::time::Duration, encoder: &mut DescriptorEncoder<'_>| {
            gauges(encoder, name, help, Some(&Unit::Seconds), [(vec![], interval.as_secs_f64())])
        };
    interval(
        "canary_probe_interval",
        "How often each pair is measured within the budget.",
        snapshot.pair_interval,
        encoder,
    )?;
    interval(
        "canary_mesh_publish_interval",
        "How often this bot publishes all its pairs.",
        snapshot.publish_interval,
        encoder,
    )?;
    let flag = |value: bool| f64::from(u8::from(value));
    gauges(
        encoder,
        "canary_mesh_isolated",
        "1 while this bot knows others and hears from none: its own network may be cut.",
        None,
        [(vec![], flag(snapshot.isolated))],
    )?;
    gauges(
        encoder,
        "canary_mesh_name_conflict",
        "1 while another living node has this bot's name, and this bot publishes nothing.",
        None,
        [(vec![], flag(snapshot.name_conflict().is_some()))],
    )?;
    histograms(
        encoder,
        "canary_probe_schedule_delay",
        "How late probes began: how far to trust the numbers of this host.",
        Some(&Unit::Seconds),
        &BUCKETS_SECONDS,
        [(vec![], &snapshot.schedule_delay)],
    )
}

/// How the connections of every node are secured, as its row tells.
fn secured(snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let others = snapshot.present().map(|member| (&member.record.name, member.row.as_ref()));
    let rows = std::iter::once((&snapshot.me.name, snapshot.own_row.as_ref())).chain(others);
    let told: Vec<_> =
        rows.filter_map(|(name, row)| Some((name.as_str(), row?.frame().secured()?))).collect();
    let names: Vec<_> =
        told.iter().map(|(_, secured)| (secured.version_name(), secured.group_name())).collect();
    let infos = told.iter().zip(&names).map(|((node, _), (version, group))| {
        (vec![("node", *node), ("version", version.as_ref()), ("group", group.as_ref())], 1.0)
    });
    gauges(
        encoder,
        "canary_node_tls_info",
        "What each node agreed on at its latest TLS handshake with a peer.",
        None,
        infos,
    )?;
    let expiries =
        told.iter().map(|(node, secured)| (vec![("node", *node)], secured.expires as f64));
    gauges(
        encoder,
        "canary_node_certificate_expiry_timestamp",
        "When the certificate of each node expires; of a node without one, the first to expire of those that proxies presented to it recently.",
        Some(&Unit::Seconds),
        expiries,
    )
}

/// A node's label as a metric's label: other characters become underscores, and a digit does not
/// come first.
fn label_name(key: &str) -> String {
    let name: String =
        key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.starts_with("__") {
        format!("label_{name}")
    } else {
        name
    }
}
