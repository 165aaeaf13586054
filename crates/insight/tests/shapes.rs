//! Matrices of a known shape, and what is said of them.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::ops::Range;

use canary_core::{Failure, MemberView, Release, Secured, Status};
use canary_insight::{Change, Culprit, Insight, Kind, Report, Severity, Sight};
use support::{Lab, name};

fn watch(lab: &mut Lab, insight: &mut Insight, seconds: usize) -> Report {
    let mut report = insight.observe(&lab.second());
    for _ in 1..seconds {
        report = insight.observe(&lab.second());
    }
    report
}

/// No connection works between these hosts, in either direction.
fn cut(lab: &mut Lab, ones: Range<usize>, others: Range<usize>) {
    let pairs = ones.flat_map(|one| others.clone().map(move |other| (one, other)));
    let both = pairs.flat_map(|(one, other)| [(one, other), (other, one)]);
    lab.failing.extend(both.map(|(source, target)| (source, target, Failure::Timeout)));
}

fn kinds(report: &Report) -> Vec<Kind> {
    report.open.iter().map(|incident| incident.kind).collect()
}

#[test]
fn a_healthy_mesh_says_so() {
    let (mut lab, mut insight) = (Lab::new(6, 2), Insight::new());
    let report = watch(&mut lab, &mut insight, 60);
    assert_eq!(report.verdict, "All 6 nodes reach each other.");
    assert!(report.events.is_empty(), "{:?}", report.events);
    assert_eq!((report.sight.ok, report.sight.failed, report.sight.unknown), (30, 0, 0));
}

#[test]
fn a_column_of_refusals_is_a_bot_that_is_down_since_the_first_of_them() {
    let (mut lab, mut insight) = (Lab::new(6, 0), Insight::new());
    watch(&mut lab, &mut insight, 5);
    lab.lose(3, Failure::Refused);
    let report = watch(&mut lab, &mut insight, 8);
    let [incident] = &report.open[..] else { panic!("{:?}", report.open) };
    assert_eq!(
        (incident.kind, &incident.culprit, incident.severity),
        (Kind::BotDown, &Culprit::Node(name(3)), Severity::Critical)
    );
    // The first attempt that failed began a quarter of a second before the sixth second.
    assert_eq!(incident.since.unix_millis(), 1_700_000_005_750);
    assert_eq!((incident.pairs.explained, incident.pairs.contradicting), (5, 0));
    assert_eq!(report.verdict, incident.summary);
    assert!(
        incident
            .summary
            .contains("host-0003 has been unreachable for all 5 others since 22:13:25 UTC"),
        "{}",
        incident.summary
    );
}

#[test]
fn a_node_that_died_before_its_pairs_were_measured_again_is_down_since_its_death() {
    let (mut lab, mut insight) = (Lab::new(6, 0), Insight::new());
    watch(&mut lab, &mut insight, 5);
    (lab.status[3], lab.changed[3]) = (Status::Dead, Some(5));
    watch(&mut lab, &mut insight, 4);
    lab.lose(3, Failure::Refused);
    let report = watch(&mut lab, &mut insight, 8);
    let [incident] = &report.open[..] else { panic!("{:?}", report.open) };
    assert_eq!(incident.since.unix_millis(), 1_700_000_005_000, "{}", incident.summary);
}

#[test]
fn a_lost_attempt_alone_is_no_incident_and_does_not_count_as_health() {
    let (mut lab, mut insight) = (Lab::new(6, 0), Insight::new());
    watch(&mut lab, &mut insight, 5);
    lab.failing.insert((1, 2, Failure::Timeout));
    let report = watch(&mut lab, &mut insight, 1);
    assert!(report.open.is_empty());
    assert_eq!(report.verdict, "1 of 30 pairs fail at this moment; the cause is not known yet.");
    lab.failing.clear();
    assert!(watch(&mut lab, &mut insight, 30).events.is_empty());
}

#[test]
fn a_block_is_a_partition_with_the_names_of_its_labels_and_bridges() {
    let (mut lab, mut insight) = (Lab::new(12, 3), Insight::new());
    watch(&mut lab, &mut insight, 5);
    // Zone 0 is hosts 0 to 3, zone 2 is 8 to 11; zone 1 reaches both.
    for (a, b) in (0..4).flat_map(|a| (8..12).map(move |b| (a, b))) {
        lab.failing.extend([(a, b, Failure::Timeout), (b, a, Failure::Timeout)]);
    }
    let report = watch(&mut lab, &mut insight, 12);
    assert_eq!(kinds(&report), [Kind::Partition]);
    assert_eq!(report.open[0].culprit.to_string(), "zone=0 <-> zone=2");
    assert!(
        report
            .verdict
            .contains("4 nodes still reach both: host-0004, host-0005, host-0006 and 1 more"),
        "{}",
        report.verdict
    );
}

#[test]
fn what_others_reach_and_reaches_nobody_is_broken_outwards_and_the_reverse_inwards() {
    let (mut lab, mut insight) = (Lab::new(8, 0), Insight::new());
    watch(&mut lab, &mut insight, 5);
    lab.failing
        .extend((0..8).filter(|target| *target != 2).map(|target| (2, target, Failure::Dns)));
    lab.failing.extend(
        (0..8)
            .filter(|source| *source != 5 && *source != 2)
            .map(|source| (source, 5, Failure::Tls)),
    );
    let report = watch(&mut lab, &mut insight, 12);
    let mut found: Vec<_> =
        report.open.iter().map(|incident| (incident.kind, incident.culprit.to_string())).collect();
    found.sort();
    assert_eq!(
        found,
        [
            (Kind::InboundBroken, "host-0005".to_owned()),
            (Kind::OutboundBroken, "host-0002".to_owned())
        ]
    );
    assert!(
        report.open.iter().any(|incident| incident.summary.contains("look at its resolver")),
        "{:?}",
        report.open
    );
    assert!(
        report.open.iter().any(|incident| incident.summary.contains("look at its certificate")),
        "{:?}",
        report.open
    );
}

#[test]
fn an_incident_is_closed_when_nothing_speaks_for_it_and_is_the_same_one_when_it_comes_back() {
    let (mut lab, mut insight) = (Lab::new(6, 0), Insight::new());
    watch(&mut lab, &mut insight, 5);
    let mut ids = Vec::new();
    for reopened in 0..2 {
        lab.lose(3, Failure::Timeout);
        let report = watch(&mut lab, &mut insight, 10);
        assert_eq!(report.open[0].reopened, reopened);
        ids.push(report.open[0].id);
        lab.failing.clear();
        lab.status[3] = Status::Alive;
        let report = watch(&mut lab, &mut insight, 30);
        assert!(report.open.is_empty(), "{:?}", report.open);
        assert_eq!(report.closed.len(), 1);
        assert!(report.closed[0].closed.is_some());
    }
    assert_eq!(ids[0], ids[1]);
    let changes: Vec<_> = watch(&mut lab, &mut insight, 1)
        .events
        .iter()
        .map(|event| (event.sequence, event.change))
        .collect();
    assert_eq!(
        changes,
        [(1, Change::Opened), (2, Change::Closed), (3, Change::Opened), (4, Change::Closed)]
    );
}

#[test]
fn a_goodbye_is_no_incident() {
    let (mut lab, mut insight) = (Lab::new(6, 0), Insight::new());
    watch(&mut lab, &mut insight, 5);
    lab.lose(3, Failure::Refused);
    lab.status[3] = Status::Left;
    let report = watch(&mut lab, &mut insight, 30);
    assert!(report.events.is_empty(), "{:?}", report.events);
    assert_eq!(report.sight.nodes, 5);
}

#[test]
fn slowness_is_measured_against_what_each_pair_is_used_to() {
    let (mut lab, mut insight) = (Lab::new(6, 0), Insight::new());
    watch(&mut lab, &mut insight, 20);
    lab.slow.extend((0..6).filter(|other| *other != 4).flat_map(|other| [(other, 4), (4, other)]));
    let report = watch(&mut lab, &mut insight, 15);
    assert_eq!(kinds(&report), [Kind::NodeSlow]);
    assert!(
        report.verdict.starts_with("host-0004 has been slow for everybody, 10."),
        "{}",
        report.verdict
    );
}

#[test]
fn a_certificate_is_reported_two_weeks_before_it_expires_and_is_critical_on_the_last_day() {
    let (mut lab, mut insight) = (Lab::new(3, 0), Insight::new());
    let in_days = |lab: &Lab, days: u64| Secured {
        version: 0x0304,
        group: 0,
        expires: lab.now().wall.unix_millis() / 1000 + days * 86_400,
    };
    for (days, severity) in
        [(20, None), (5, Some(Severity::Warning)), (0, Some(Severity::Critical))]
    {
        lab.secured = Some(in_days(&lab, days));
        let report = watch(&mut lab, &mut insight, 70);
        assert_eq!(report.open.first().map(|incident| incident.severity), severity, "{days} days");
        assert!(report.open.iter().all(|incident| incident.kind == Kind::CertificateExpiring));
    }
}

#[test]
fn incidents_are_bounded_whatever_is_broken() {
    let (mut lab, mut insight) = (Lab::new(40, 0), Insight::new());
    watch(&mut lab, &mut insight, 5);
    // A third of all pairs, without any pattern.
    let mut random = 12_345_u64;
    for (a, b) in (0..40).flat_map(|a| (0..40).map(move |b| (a, b))).filter(|(a, b)| a != b) {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if random >> 62 == 0 {
            lab.failing.insert((a, b, Failure::Timeout));
        }
    }
    let report = watch(&mut lab, &mut insight, 20);
    assert!(
        !report.open.is_empty() && report.open.len() <= canary_insight::limits::OPEN_MAX,
        "{}",
        report.open.len()
    );
}

#[test]
fn the_same_snapshots_give_the_same_report() {
    let play = || {
        let (mut lab, mut insight) = (Lab::new(12, 3), Insight::new());
        watch(&mut lab, &mut insight, 5);
        lab.lose(3, Failure::Timeout);
        lab.failing.insert((1, 2, Failure::Refused));
        format!("{:?}", watch(&mut lab, &mut insight, 30))
    };
    assert_eq!(play(), play());
}

#[test]
fn many_warnings_leave_room_for_what_is_critical() {
    let (mut lab, mut insight) = (Lab::new(80, 0), Insight::new());
    lab.secured = Some(Secured {
        version: 0x0304,
        group: 0,
        expires: lab.now().wall.unix_millis() / 1000 + 86_400 * 5,
    });
    let report = watch(&mut lab, &mut insight, 70);
    assert_eq!(report.open.len(), canary_insight::limits::OPEN_MAX);
    lab.lose(3, Failure::Refused);
    let report = watch(&mut lab, &mut insight, 10);
    assert_eq!(report.open[0].kind, Kind::BotDown, "{:?}", report.open[0]);
}

#[test]
fn what_failed_of_a_node_that_left_is_not_counted() {
    let (mut lab, mut insight) = (Lab::new(6, 0), Insight::new());
    watch(&mut lab, &mut insight, 5);
    lab.failing.insert((1, 3, Failure::Refused));
    lab.status[3] = Status::Left;
    let report = watch(&mut lab, &mut insight, 5);
    assert_eq!(
        (report.sight.failed, report.verdict.as_str()),
        (0, "All 5 nodes reach each other.")
    );
}

#[test]
fn releases_that_stay_mixed_are_reported_and_an_upgrade_that_goes_on_is_not() {
    let (mut lab, mut insight) = (Lab::new(6, 0), Insight::new());
    lab.releases = vec![Release::new("1.2.0"); 6];
    lab.releases[5] = None;
    assert!(watch(&mut lab, &mut insight, 10).open.is_empty());
    // Another node every fifty minutes: it goes on.
    for node in 1..4 {
        lab.releases[node] = Release::new("1.3.0");
        assert!(watch(&mut lab, &mut insight, 3000).open.is_empty(), "after {node} nodes");
    }
    let report = watch(&mut lab, &mut insight, 700);
    assert_eq!(kinds(&report), [Kind::VersionSkew]);
    assert_eq!(report.open[0].culprit.to_string(), "host-0000,host-0004");
    assert!(
        report.verdict.starts_with("the mesh has been of 2 releases since "),
        "{}",
        report.verdict
    );
    assert!(
        report.verdict.ends_with(": 3 of 5 are of 1.3.0, and host-0000, host-0004 run another; finish the upgrade, or take it back."),
        "{}",
        report.verdict
    );
    lab.releases[0] = Release::new("1.3.0");
    lab.releases[4] = Release::new("1.3.0");
    assert!(watch(&mut lab, &mut insight, 35).open.is_empty());
}

#[test]
fn the_last_witness_blames_the_dead_node_and_not_the_path() {
    for (failure, kind) in
        [(Failure::Refused, Kind::BotDown), (Failure::Tls, Kind::NodeUnreachable)]
    {
        let (mut lab, mut insight) = (Lab::new(2, 0), Insight::new());
        watch(&mut lab, &mut insight, 5);
        lab.lose(1, failure);
        let report = watch(&mut lab, &mut insight, 30);
        assert_eq!(kinds(&report), [kind], "{}", report.verdict);
        assert!(
            report.verdict.starts_with("host-0001 has been unreachable from here since "),
            "{}",
            report.verdict
        );
    }
}

#[test]
fn two_zones_that_are_cut_and_a_node_that_died_elsewhere_are_two_incidents() {
    for nodes in [80, 400] {
        let (mut lab, mut insight) = (Lab::new(nodes, 8), Insight::new());
        watch(&mut lab, &mut insight, 5);
        let zone = |number: usize| number * nodes / 8..(number + 1) * nodes / 8;
        for (a, b) in zone(1).flat_map(|a| zone(2).map(move |b| (a, b))) {
            lab.failing.extend([(a, b, Failure::Timeout), (b, a, Failure::Timeout)]);
        }
        let dead = zone(5).start;
        lab.status[dead] = Status::Dead;
        let others = (0..nodes).filter(|other| *other != dead);
        lab.failing.extend(others.map(|other| (other, dead, Failure::Timeout)));
        let report = watch(&mut lab, &mut insight, 12);
        let culprits: Vec<_> =
            report.open.iter().map(|incident| incident.culprit.to_string()).collect();
        assert_eq!(culprits.len(), 2, "{culprits:?}");
        assert!(culprits.contains(&"zone=1 <-> zone=2".to_owned()), "{culprits:?}");
        assert!(culprits.contains(&format!("host-{dead:04}")), "{culprits:?}");
    }
}

#[test]
fn a_zone_that_is_cut_from_two_others_is_cut_from_each() {
    let (mut lab, mut insight) = (Lab::new(80, 8), Insight::new());
    watch(&mut lab, &mut insight, 5);
    for (a, b) in (10..20).flat_map(|a| (20..40).map(move |b| (a, b))) {
        lab.failing.extend([(a, b, Failure::Timeout), (b, a, Failure::Timeout)]);
    }
    let report = watch(&mut lab, &mut insight, 12);
    let culprits: BTreeSet<_> =
        report.open.iter().map(|incident| incident.culprit.to_string()).collect();
    assert_eq!(
        culprits,
        BTreeSet::from(["zone=1 <-> zone=2", "zone=1 <-> zone=3"].map(str::to_owned))
    );
}

#[test]
fn what_is_blocked_for_a_whole_zone_is_one_incident_however_many_zones_are_blocked_from_it() {
    for (nodes, zones, inbound) in [(80, 8, true), (80, 8, false), (30, 3, true), (30, 3, false)] {
        let (mut lab, mut insight) = (Lab::new(nodes, zones), Insight::new());
        watch(&mut lab, &mut insight, 5);
        let size = nodes / zones;
        // Within the zone as well.
        for (a, b) in (size..2 * size).flat_map(|a| (0..nodes).map(move |b| (a, b))) {
            let (from, to) = if inbound { (b, a) } else { (a, b) };
            if from != to {
                lab.failing.insert((from, to, Failure::Timeout));
            }
        }
        let report = watch(&mut lab, &mut insight, 14);
        let culprits: Vec<_> =
            report.open.iter().map(|incident| incident.culprit.to_string()).collect();
        assert!(culprits.len() <= 2, "inbound: {inbound}, {nodes} nodes: {culprits:?}");
        assert!(culprits.iter().all(|culprit| culprit.contains("zone=1")), "{culprits:?}");
    }
}

#[test]
fn rows_that_tell_late_of_a_repair_blame_nobody() {
    // Nine hosts in three zones; the last zone is cut off for a while.
    let (mut lab, mut insight) = (Lab::new(9, 3), Insight::new());
    watch(&mut lab, &mut insight, 5);
    cut(&mut lab, 0..6, 6..9);
    let report = watch(&mut lab, &mut insight, 10);
    assert_eq!(kinds(&report), [Kind::Partition]);
    lab.failing.clear();
    lab.late.insert(1);
    let report = watch(&mut lab, &mut insight, 18);
    assert_eq!((report.open.len(), report.closed.len()), (0, 1), "{:?}", report.open);
    // It says so again: now it is a fault of its own.
    lab.failing.extend((6..9).map(|target| (1, target, Failure::Timeout)));
    lab.late.clear();
    let report = watch(&mut lab, &mut insight, 12);
    assert_eq!(kinds(&report), [Kind::OneWay]);
}

#[test]
fn a_fault_of_some_paths_between_two_zones_does_not_come_and_go() {
    for share in [30, 45, 70] {
        let (mut lab, mut insight) = (Lab::new(60, 3), Insight::new());
        watch(&mut lab, &mut insight, 5);
        let pairs = (0..20).flat_map(|one| (20..40).map(move |other| (one, other)));
        for (one, other) in pairs.filter(|(one, other)| (one * 37 + other * 61) % 101 < share) {
            lab.failing.insert((one, other, Failure::Timeout));
            lab.failing.insert((other, one, Failure::Timeout));
        }
        let before = watch(&mut lab, &mut insight, 30);
        let after = watch(&mut lab, &mut insight, 120);
        let ids = |report: &Report| -> BTreeSet<_> {
            report.open.iter().map(|incident| incident.id).collect()
        };
        assert!(!before.open.is_empty(), "{share} %");
        let state = |report: &Report| (ids(report), report.closed.len());
        assert_eq!(state(&before), state(&after), "{share} %");
    }
}

#[test]
fn a_node_that_joins_does_not_bring_back_what_is_over() {
    let (mut lab, mut insight) = (Lab::new(9, 3), Insight::new());
    lab.status[8] = Status::Left;
    watch(&mut lab, &mut insight, 5);
    cut(&mut lab, 0..6, 6..8);
    let report = watch(&mut lab, &mut insight, 10);
    assert_eq!(kinds(&report), [Kind::Partition]);
    lab.failing.clear();
    lab.late.insert(1);
    watch(&mut lab, &mut insight, 4);
    lab.status[8] = Status::Alive;
    let report = watch(&mut lab, &mut insight, 14);
    assert_eq!((report.open.len(), report.closed.len()), (0, 1), "{:?}", report.open);
}

#[test]
fn rows_that_do_not_come_contradict_nothing() {
    // The last zone is cut off but for its heartbeats: its rows are those of before.
    let (mut lab, mut insight) = (Lab::new(12, 3), Insight::new());
    watch(&mut lab, &mut insight, 5);
    cut(&mut lab, 0..8, 8..12);
    lab.late.extend(8..12);
    let report = watch(&mut lab, &mut insight, 18);
    assert_eq!(kinds(&report), [Kind::Partition], "{:?}", report.events);
}

#[test]
fn a_bridge_belongs_to_no_side_of_a_cut_also_where_few_rows_come() {
    // The last zone is cut from all but one host of another. Rows of the other side do not come.
    let bridge = 29;
    let sides = || ((0..40).filter(move |host| *host != bridge && *host < 30), 30..40);
    for viewer_is_inside in [false, true] {
        let (mut lab, mut insight) = (Lab::new(40, 4), Insight::new());
        watch(&mut lab, &mut insight, 5);
        // Host 0 looks: what is inside and outside swaps instead of it.
        let inside = |host: usize| if viewer_is_inside { (host + 10) % 40 } else { host };
        let (outside, within) = sides();
        let (outside, within): (Vec<_>, Vec<_>) =
            (outside.map(inside).collect(), within.map(inside).collect());
        for (a, b) in outside.iter().flat_map(|a| within.iter().map(move |b| (*a, *b))) {
            lab.failing.extend([(a, b, Failure::Timeout), (b, a, Failure::Timeout)]);
        }
        lab.late.extend(if viewer_is_inside { outside } else { within });
        let report = watch(&mut lab, &mut insight, 18);
        assert_eq!(kinds(&report), [Kind::Partition], "{:?}", report.events);
        let zone = if viewer_is_inside { 0 } else { 3 };
        assert_eq!(report.open[0].culprit.to_string(), format!("zone={zone} <-> rest"));
        let tail = format!("1 node still reaches both: host-{:04}", inside(bridge));
        assert!(report.verdict.contains(&tail), "{}", report.verdict);
    }
}

#[test]
fn pairs_of_rows_that_do_not_come_are_unknown_and_nobody_is_blamed() {
    // Ten hosts are cut from all but one, and nothing comes of what the others measured since: it
    // looks as if this host alone reached few.
    let (mut lab, mut insight) = (Lab::new(40, 0), Insight::new());
    lab.published_every = 10;
    watch(&mut lab, &mut insight, 5);
    cut(&mut lab, 0..10, 10..39);
    lab.late.extend(1..40);
    let mut sight = Sight::default();
    for _ in 0..24 {
        let report = watch(&mut lab, &mut insight, 1);
        assert_eq!(kinds(&report), [], "{:?}", report.events);
        assert_eq!(report.verdict.contains("not known yet"), report.sight.failed > 0);
        sight = report.sight;
    }
    let of_others = 39 * 39;
    let expected = Sight { nodes: 40, visible: 40, ok: 10, failed: 29, unknown: of_others };
    assert_eq!(sight, expected);
}

#[test]
fn bots_of_the_original_that_measure_seldom_keep_nobody_from_naming_a_path() {
    let (mut lab, mut insight) = (Lab::new(10, 0), Insight::new());
    lab.originals.extend(4..10);
    watch(&mut lab, &mut insight, 10);
    lab.failing.insert((1, 2, Failure::Refused));
    let report = watch(&mut lab, &mut insight, 20);
    assert_eq!(kinds(&report), [Kind::PathFailing], "{}", report.verdict);
}

#[test]
fn a_cut_between_two_zones_has_one_id_whomever_a_bot_knew_first() {
    let ids: BTreeSet<_> = [0..0, 1..5, 6..10]
        .into_iter()
        .map(|learned_later| {
            let (mut lab, mut insight) = (Lab::new(10, 2), Insight::new());
            let mut snapshot = lab.second();
            let is_late = |node: &MemberView| {
                learned_later.clone().any(|host| name(host) == node.record.name)
            };
            snapshot.members.retain(|node| !is_late(node));
            insight.observe(&snapshot);
            watch(&mut lab, &mut insight, 5);
            cut(&mut lab, 0..5, 5..10);
            let report = watch(&mut lab, &mut insight, 20);
            assert_eq!(kinds(&report), [Kind::Partition], "{}", report.verdict);
            report.open[0].id.to_string()
        })
        .collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[test]
fn what_reaches_bots_of_the_original_contradicts_a_cut_from_them() {
    // Three of twenty fail to reach two bots of the original, which all others reach.
    let (mut lab, mut insight) = (Lab::new(20, 0), Insight::new());
    lab.originals.extend([18, 19]);
    watch(&mut lab, &mut insight, 10);
    let pairs = (1..4).flat_map(|source| [(source, 18), (source, 19)]);
    lab.failing.extend(pairs.map(|(source, target)| (source, target, Failure::Timeout)));
    let report = watch(&mut lab, &mut insight, 60);
    assert_eq!(kinds(&report).len(), 1, "{:?}", report.events);
    assert_eq!(report.open[0].pairs.sources.len(), 3, "{}", report.verdict);
}

#[test]
fn two_zones_of_three_are_both_named_however_small_the_third_is() {
    // Zones of ten, ten and two.
    let (mut lab, mut insight) = (Lab::new(22, 0), Insight::new());
    lab.label(|host| (host / 10).to_string());
    watch(&mut lab, &mut insight, 5);
    cut(&mut lab, 0..10, 10..20);
    let report = watch(&mut lab, &mut insight, 20);
    assert_eq!(report.open[0].culprit.to_string(), "zone=0 <-> zone=1");
    let tail = "2 nodes still reach both: host-0020, host-0021";
    assert!(report.verdict.contains(tail), "{}", report.verdict);
}
