//! What a history receives: every version of every row that can be read, once and in order.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    Cell, Config, Core, Entry, Exchange, Frame, Heard, Instance, Output, Patch, Record, Roster,
    RowNews, Version, Wall,
};
use support::{admit, answer_of, at, core, nothing_new, orders, record, say};

/// The news that the core told since: whose, the version of the frame if there is one, those of the
/// patches, and that of the row with them.
fn told(core: &mut Core) -> Vec<(Instance, Option<Version>, Vec<Version>, Version)> {
    let outputs = orders(core);
    let news = outputs.filter_map(|output| match output {
        Output::Published { news, row } => {
            assert!(row.roster().is_some(), "a row that cannot be read was published");
            let patches = news.patches.iter().map(|patch| patch.version()).collect();
            Some((
                news.source,
                news.frame.map(|(frame, _)| frame.version()),
                patches,
                row.version(),
            ))
        }
        _ => None,
    });
    news.collect()
}

fn gossip(source: &Record, frame: Option<Frame>, patches: &[Version]) -> Exchange {
    let patches = patches
        .iter()
        .map(|version| Arc::new(Patch::new(*version, Wall::from_unix_millis(1 << 40), &[])))
        .collect();
    let frame = frame.map(|frame| (Arc::new(frame), Duration::ZERO));
    Exchange {
        rows: vec![RowNews { source: source.instance, frame, patches, age: Duration::ZERO }],
        ..Exchange::default()
    }
}

#[test]
fn every_version_that_can_be_read_is_published_once() {
    let mut core = core(Config::default()).with_published();
    let owl = record("owl");
    admit(&mut core, &owl, at(0));
    told(&mut core);
    let roster = Roster::new(["me", "owl"].map(|name| name.parse().unwrap()));
    let frame = |version| {
        Frame::new(
            version,
            roster.id(),
            Wall::from_unix_millis(1 << 40),
            &[Cell::default(), Cell::default()],
        )
    };

    say(&mut core, &owl, gossip(&owl, Some(frame(3)), &[4]), at(1));
    assert_eq!(told(&mut core), [], "its roster is not here yet");
    say(
        &mut core,
        &owl,
        Exchange { rosters: vec![Arc::clone(&roster)], ..Exchange::default() },
        at(2),
    );
    assert_eq!(told(&mut core), [(owl.instance, Some(3), vec![4], 4)]);
    say(&mut core, &owl, gossip(&owl, Some(frame(3)), &[4]), at(3));
    assert_eq!(told(&mut core), [], "the same again is no news");
    say(&mut core, &owl, gossip(&owl, None, &[4, 5, 6]), at(4));
    assert_eq!(told(&mut core), [(owl.instance, None, vec![5, 6], 6)]);
    say(&mut core, &owl, gossip(&owl, None, &[8]), at(5));
    assert_eq!(told(&mut core), [], "the patch before it is lacking");
    say(&mut core, &owl, gossip(&owl, Some(frame(9)), &[]), at(6));
    assert_eq!(told(&mut core), [(owl.instance, Some(9), vec![], 9)]);
}

#[test]
fn the_own_row_is_published_like_those_of_others() {
    let mut core = core(Config::default()).with_published();
    let (owl, me) = (record("owl"), core.record().instance);
    admit(&mut core, &owl, at(0));
    let mut versions = Vec::new();
    let mut now = 0;
    while versions.len() < 5 {
        now += 50;
        assert!(now < 120_000, "{versions:?}");
        core.handle_timeout(at(now));
        let mut outputs: Vec<_> = orders(&mut core).collect();
        while !outputs.is_empty() {
            for output in std::mem::take(&mut outputs) {
                match output {
                    Output::Probe { id, whom, .. } => {
                        core.handle_probe(id, answer_of(&whom), at(now));
                    }
                    Output::Call {
                        id, request: canary_core::Request::Exchange(exchange), ..
                    } => {
                        core.handle_response(id, Ok(nothing_new(&exchange)), at(now));
                    }
                    Output::Published { news, row } => {
                        assert_eq!(news.source, me);
                        let newest = news
                            .frame
                            .iter()
                            .map(|(frame, _)| frame.version())
                            .chain(news.patches.iter().map(|patch| patch.version()));
                        versions.extend(newest);
                        assert_eq!(versions.last(), Some(&row.version()));
                    }
                    _ => {}
                }
            }
            outputs.extend(orders(&mut core));
        }
    }
    assert_eq!(versions, [1, 2, 3, 4, 5]);
}

#[test]
fn nothing_is_published_unless_it_is_wanted() {
    let mut core = core(Config::default());
    let owl = record("owl");
    admit(&mut core, &owl, at(0));
    core.handle_timeout(at(10_000));
    assert_eq!(told(&mut core), []);
}

#[test]
fn a_row_holds_until_its_source_tells_of_a_change_that_is_not_here() {
    let mut core = core(Config::default());
    let owl = record("owl");
    admit(&mut core, &owl, at(0));
    let roster = Roster::new(["me", "owl"].map(|name| name.parse().unwrap()));
    let wall = Wall::from_unix_millis(1 << 40);
    let frame = Frame::new(3, roster.id(), wall, &[Cell::default(), Cell::default()]);
    let with_roster = Exchange { rosters: vec![Arc::clone(&roster)], ..Exchange::default() };
    say(&mut core, &owl, gossip(&owl, Some(frame), &[]), at(1_000));
    say(&mut core, &owl, with_roster, at(1_000));
    let beat = |heartbeat, changed| Exchange {
        entries: vec![Entry {
            instance: owl.instance,
            version: 0,
            changed,
            heartbeat,
            age: Duration::ZERO,
            left: false,
        }],
        ..Exchange::default()
    };
    let mut now = 1_000;
    let mut holds_at = |exchange: Exchange, millis: u64| {
        while now < millis {
            now += 100;
            core.handle_timeout(at(now));
            support::drain(&mut core);
        }
        say(&mut core, &owl, exchange, at(now));
        core.member(&owl.name).unwrap().row_holds_at
    };
    // No pair changed yet, or the row has the latest change: it holds until the heartbeat.
    assert_eq!(holds_at(beat(10, 0), 2_000), at(2_000).time);
    assert_eq!(holds_at(beat(11, 3), 3_000), at(3_000).time);
    // The latest change has not arrived: the row holds until it was published.
    assert_eq!(holds_at(beat(12, 4), 4_000), at(1_000).time);
    // It comes late, and holds up to the heartbeat that told of it.
    let mut late = gossip(&owl, None, &[4]);
    late.rows[0].age = Duration::from_millis(1_500);
    assert_eq!(holds_at(late, 5_000), at(4_000).time);
    // However old it is, as long as nothing changes.
    assert_eq!(holds_at(beat(13, 4), 400_000), at(400_000).time);
}

#[test]
fn a_row_of_a_member_that_is_new_here_holds_no_longer_than_others() {
    let mut core = core(Config::default());
    let (owl, duck) = (record("owl"), record("duck"));
    admit(&mut core, &owl, at(0));
    let (age, left) = (Duration::ZERO, false);
    let heard = Heard { record: Arc::clone(&duck), changed: 4, heartbeat: 9, age, left };
    say(&mut core, &owl, Exchange { records: vec![heard], ..Exchange::default() }, at(10));
    let roster = Roster::new(["duck", "owl"].map(|name| name.parse().unwrap()));
    let wall = Wall::from_unix_millis(1 << 40);
    let frame = Frame::new(3, roster.id(), wall, &[Cell::default(), Cell::default()]);
    say(&mut core, &owl, gossip(&duck, Some(frame), &[]), at(20));
    let with_roster = Exchange { rosters: vec![roster], ..Exchange::default() };
    say(&mut core, &owl, with_roster, at(30));
    let view = core.member(&duck.name).unwrap();
    assert!(view.row.is_some() && !view.row_holds, "it changed in version 4: {view:?}");
}
