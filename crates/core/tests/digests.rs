//! Digests by lines: two bots that know the same members need no names.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use canary_core::{Config, Core, Entry, Exchange, InstanceRange, Lines, Output, Record, Response};
use support::{admit, at, core, drain, orders, record, say};

/// What a digest says of a node whose heartbeat was made now.
fn entry(of: &Record, heartbeat: u64) -> Entry {
    let (version, changed, left) = (0, 0, false);
    Entry { instance: of.instance, version, changed, heartbeat, age: Duration::ZERO, left }
}

/// A digest of all by lines; nodes that no list has come by name.
fn digest(list: &[Entry], by_name: &[Entry]) -> Exchange {
    let mut list = list.to_vec();
    list.sort_unstable_by_key(|entry| entry.instance);
    Exchange {
        range: Some(InstanceRange::ALL),
        lines: Some(Lines::of_all(&list)),
        entries: by_name.to_vec(),
        ..Exchange::default()
    }
}

fn answer(core: &mut Core, peer: &Record, exchange: Exchange, now: u64) -> Exchange {
    drain(core);
    say(core, peer, exchange, at(now));
    let answers = orders(core).filter_map(|output| match output {
        Output::Reply { response: Response::Exchange(answer), .. } => Some(*answer),
        _ => None,
    });
    answers.last().unwrap()
}

fn heartbeat(core: &Core, of: &Record) -> u64 {
    core.heartbeat_of(of.instance).unwrap()
}

/// A core that knows two others.
fn three() -> (Core, Arc<Record>, Arc<Record>, Arc<Record>) {
    let mut core = core(Config::default());
    let (owl, duck) = (record("owl"), record("duck"));
    for node in [&owl, &duck] {
        admit(&mut core, node, at(0));
    }
    let me = Arc::clone(core.record());
    (core, me, owl, duck)
}

#[test]
fn who_knows_the_same_is_answered_by_lines() {
    let (mut core, me, owl, duck) = three();
    let mine = heartbeat(&core, &me);
    let list = [entry(&me, mine), entry(&owl, 7), entry(&duck, 9)];
    let said = answer(&mut core, &owl, digest(&list, &[]), 1);
    assert_eq!((heartbeat(&core, &owl), heartbeat(&core, &duck)), (7, 9));
    assert!(said.range.is_none() && said.lines.is_none(), "nothing is newer here: {said:?}");

    // Of one there is newer news here: a line is enough, and our own comes by name.
    let list = [entry(&me, mine), entry(&owl, 8), entry(&duck, 3)];
    let said = answer(&mut core, &owl, digest(&list, &[]), 2);
    assert_eq!((heartbeat(&core, &owl), heartbeat(&core, &duck)), (8, 9));
    assert_eq!(said.lines.unwrap().count(), 1);
    assert!(said.range.is_none());
    let named: Vec<_> = said.entries.iter().map(|entry| entry.instance).collect();
    assert_eq!(named, [me.instance]);
}

#[test]
fn who_knows_others_is_answered_by_names_and_no_line_is_booked() {
    let (mut core, me, owl, duck) = three();
    let mine = heartbeat(&core, &me);
    let stranger = record("stranger");
    let known = [heartbeat(&core, &owl), heartbeat(&core, &duck)];
    for list in [
        vec![entry(&me, mine), entry(&owl, 70), entry(&duck, 90), entry(&stranger, 1)],
        vec![entry(&me, mine), entry(&owl, 70)],
        vec![entry(&me, mine), entry(&owl, 70), entry(&stranger, 90)],
        vec![],
    ] {
        let said = answer(&mut core, &owl, digest(&list, &[]), 1);
        assert_eq!([heartbeat(&core, &owl), heartbeat(&core, &duck)], known, "{list:?}");
        assert_eq!(said.range, Some(InstanceRange::ALL));
        assert!(said.lines.is_none());
        assert_eq!(said.entries.len(), 3, "{:?}", said.entries);
    }
    // What comes by name beside such lines is taken all the same.
    answer(&mut core, &owl, digest(&[], &[entry(&duck, 90)]), 2);
    assert_eq!(heartbeat(&core, &duck), 90);
}

#[test]
fn who_never_knew_the_long_gone_has_the_same_list() {
    let (mut core, me, owl, duck) = three();
    let mut list = vec![entry(&me, 0), entry(&owl, 0)];
    let gone = Entry { left: true, ..entry(&duck, 2) };
    answer(&mut core, &owl, digest(&list, &[gone]), 1);
    let mut heard = 100;
    for second in 1..700 {
        core.handle_timeout(at(1000 * second));
        heard += 1;
        let beat = Exchange { entries: vec![entry(&owl, heard)], ..Exchange::default() };
        answer(&mut core, &owl, beat, 1000 * second);
    }
    assert!(core.heartbeat_of(duck.instance).is_some(), "it is kept for a day");
    list[0].heartbeat = heartbeat(&core, &me);
    list[1].heartbeat = heard + 1;
    let said = answer(&mut core, &owl, digest(&list, &[]), 699_001);
    assert_eq!(heartbeat(&core, &owl), heard + 1, "{said:?}");
    assert!(said.range.is_none(), "{said:?}");
}
