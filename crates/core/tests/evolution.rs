//! What a later release says: this one takes what it knows of it, carries on the rest, and doubts
//! nobody for it.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    Config, Core, Entry, Exchange, Failure, Frame, JoinAnswer, Output, Patch, Record, Refusal,
    Release, Request, RequestId, Response, Roster, RowNews, State, Status, Wall,
};
use support::{Deed, admit, at, core, drain, orders, play, record, tell};

/// Kinds of the sections of frames and patches, and one that no release knows yet.
const SECURED: u32 = 2;
const RELEASE: u32 = 3;
const PENDING: u32 = 4;
const COLUMNS: u32 = 5;
const FUTURE: u32 = 77;

/// What is on the wire in a patch of one cell, the third: a failure of this kind, just now, with
/// something of a later release.
fn third_failed(kind: u8) -> Vec<u8> {
    // How many are skipped has two bits and no table; six figures have neither.
    [&[1, 2 + kind, 1, 2, 0][..], &[0; 12], &[2, 99]].concat()
}

/// A row as it is on the wire in a frame: failures of these kinds, just now, with something of a
/// later release.
fn all_failed(kinds: &[u8]) -> Vec<u8> {
    let runs = kinds.iter().flat_map(|kind| [2 + kind, 1]);
    // Seven figures of no bits, and no table.
    std::iter::once(kinds.len() as u8).chain(runs).chain([0; 14]).chain([99]).collect()
}

fn roster() -> Arc<Roster> {
    Roster::new(["me", "owl", "wren"].map(|name| name.parse().unwrap()))
}

fn frame(version: u64, sections: &[(u32, &[u8])]) -> Arc<Frame> {
    let sections = sections.iter().copied();
    Arc::new(
        Frame::from_sections(version, roster().id(), Wall::from_unix_millis(1 << 40), sections)
            .unwrap(),
    )
}

fn gossip(source: &Record, frame: Arc<Frame>, patches: Vec<Arc<Patch>>) -> Exchange {
    let news = RowNews {
        source: source.instance,
        frame: Some((frame, Duration::ZERO)),
        patches,
        age: Duration::ZERO,
    };
    Exchange { rows: vec![news], ..Exchange::default() }
}

/// A core that admitted `owl` and `wren`, and holds this row of `owl`.
fn with_row(frame: Arc<Frame>, patches: Vec<Arc<Patch>>) -> (Core, Arc<Record>, Arc<Record>) {
    let (mut core, owl, wren) = (core(Config::default()), record("owl"), record("wren"));
    admit(&mut core, &owl, at(0));
    admit(&mut core, &wren, at(0));
    drain(&mut core);
    tell(&mut core, &owl, gossip(&owl, frame, patches), at(1));
    tell(&mut core, &owl, Exchange { rosters: vec![roster()], ..Exchange::default() }, at(1));
    drain(&mut core);
    (core, owl, wren)
}

fn states(core: &Core, of: &Record) -> Vec<State> {
    let snapshot = core.snapshot(at(2));
    let member = snapshot.member(&of.name).unwrap();
    member.row.as_ref().unwrap().cells().iter().map(|view| view.cell.state).collect()
}

/// What `asker` is sent of `of` when it has nothing of its row.
fn passed_on(core: &mut Core, asker: &Record, of: &Record) -> RowNews {
    let wants = Exchange {
        from: Some(asker.instance),
        wants_rows: vec![(of.instance, 0)],
        ..Exchange::default()
    };
    core.handle_request(RequestId(9), Request::Exchange(Box::new(wants)), at(2));
    let outputs = orders(core);
    let answers = outputs.filter_map(|output| match output {
        Output::Reply { response: Response::Exchange(answer), .. } => Some(*answer),
        _ => None,
    });
    answers.flat_map(|answer| answer.rows).find(|news| news.source == of.instance).unwrap()
}

#[test]
fn a_failure_of_a_later_release_reads_as_other() {
    let cells = all_failed(&[0, 1, 12]);
    let (core, owl, _) = with_row(frame(1, &[(COLUMNS, &cells)]), Vec::new());
    let expected = [Failure::Dns, Failure::Refused, Failure::Other].map(State::Failed);
    assert_eq!(states(&core, &owl), expected);
    assert_eq!(core.snapshot(at(2)).refusals.of(Refusal::Unreadable), 0);
}

#[test]
fn sections_of_a_later_release_travel_on_as_they_came() {
    let cells = all_failed(&[0, 1, 12]);
    let sections: [(u32, &[u8]); 2] = [(COLUMNS, &cells), (FUTURE, b"told by owl")];
    let change = third_failed(11);
    // In a patch this release reads cells alone: what it knows of frames travels on there like
    // anything else.
    let patched: [(u32, &[u8]); 3] = [(SECURED, b"?"), (COLUMNS, &change), (FUTURE, b"and more")];
    let patch =
        Arc::new(Patch::from_sections(2, Wall::from_unix_millis(1 << 40), patched).unwrap());
    let (mut core, owl, wren) = with_row(frame(1, &sections), vec![patch]);
    let news = passed_on(&mut core, &wren, &owl);
    let (frame, _) = news.frame.unwrap();
    assert_eq!(
        frame.sections().map(|(kind, packed)| (kind, packed.into_owned())).collect::<Vec<_>>(),
        [(COLUMNS, cells.clone()), (FUTURE, b"told by owl".to_vec())]
    );
    assert_eq!(
        news.patches[0]
            .sections()
            .map(|(kind, packed)| (kind, packed.into_owned()))
            .collect::<Vec<_>>(),
        [(SECURED, b"?".to_vec()), (COLUMNS, change.clone()), (FUTURE, b"and more".to_vec())]
    );
}

#[test]
fn a_release_is_shown_as_far_as_it_is_spelled_as_one_and_travels_on_in_any_case() {
    let long = [b'9'; 33];
    for (spelled, shown) in [
        (&b"1.4.0-rc.2+x"[..], Some("1.4.0-rc.2+x")),
        (b"", None),
        (b"1.0\x1b[31m", None),
        (&long, None),
    ] {
        let cells = all_failed(&[0]);
        let frame = frame(1, &[(RELEASE, spelled), (COLUMNS, &cells), (FUTURE, b"told by owl")]);
        assert_eq!(frame.release().map(Release::as_str), shown);
        let (kinds, packed): (Vec<_>, Vec<_>) =
            frame.sections().map(|(kind, packed)| (kind, packed.into_owned())).unzip();
        assert_eq!((kinds, &packed[0][..]), (vec![RELEASE, COLUMNS, FUTURE], spelled));
    }
}

#[test]
fn where_a_node_waits_is_read_as_far_as_it_is_spelled_as_today_and_travels_on_in_order() {
    let cells = all_failed(&[0]);
    // A target without a port, and a release with a space: neither is read, and both travel on,
    // among what is read.
    for (release, pending) in [
        (&b"1.2"[..], &b"\x03old\x01"[..]),
        (b"1 2", b"\x08old:8081\x01"),
        (b"1 2", b"\x03old\x01"),
    ] {
        let sections: [(u32, &[u8]); 4] =
            [(RELEASE, release), (PENDING, pending), (COLUMNS, &cells), (FUTURE, b"?")];
        let frame = frame(1, &sections);
        assert_eq!(frame.pending().len(), usize::from(pending.contains(&b':')));
        let travelling: Vec<_> =
            frame.sections().map(|(kind, packed)| (kind, packed.into_owned())).collect();
        assert_eq!(travelling, sections.map(|(kind, packed)| (kind, packed.to_vec())));
    }
}

#[test]
fn a_row_in_a_form_of_a_later_release_is_carried_and_shows_nothing() {
    let (mut core, owl, wren) =
        with_row(frame(5, &[(FUTURE, b"cells in another form")]), Vec::new());
    assert_eq!(states(&core, &owl), [], "unknown is not shown as anything else");
    assert_eq!(core.snapshot(at(2)).refusals.of(Refusal::RowMismatch), 0);
    assert_eq!(passed_on(&mut core, &wren, &owl).frame.unwrap().0.version(), 5);
    // It is held, so nobody is asked for it again.
    let heard = Entry {
        instance: owl.instance,
        version: 5,
        changed: 0,
        heartbeat: 3,
        age: Duration::ZERO,
        left: false,
    };
    let digest = Exchange {
        from: Some(wren.instance),
        range: Some(canary_core::InstanceRange::ALL),
        entries: vec![heard],
        ..Exchange::default()
    };
    core.handle_request(RequestId(10), Request::Exchange(Box::new(digest)), at(3));
    let asked_again = orders(&mut core).any(|output| {
        matches!(output, Output::Reply { response: Response::Exchange(answer), .. } if answer.wants_rows.iter().any(|(source, _)| *source == owl.instance))
    });
    assert!(!asked_again);
}

#[test]
fn what_could_not_be_read_of_a_message_is_counted_and_the_rest_is_taken() {
    let (mut core, owl, _) = with_row(frame(1, &[(COLUMNS, &all_failed(&[9, 9, 9]))]), Vec::new());
    let cells = all_failed(&[1, 1, 1]);
    tell(
        &mut core,
        &owl,
        Exchange { unread: 3, ..gossip(&owl, frame(2, &[(COLUMNS, &cells)]), Vec::new()) },
        at(2),
    );
    assert_eq!(states(&core, &owl), [State::Failed(Failure::Refused); 3]);
    assert_eq!(core.snapshot(at(2)).refusals.of(Refusal::Unreadable), 3);
}

#[test]
fn an_answer_of_a_later_release_raises_no_doubt() {
    let (mut core, owl) = (core(Config::default()), record("owl"));
    admit(&mut core, &owl, at(0));
    let mut answered = 0;
    play(&mut core, 1000, 20_000, |output, _| match output {
        Output::Call { request: Request::Exchange(_), .. } => {
            answered += 1;
            Deed::Call(Ok(Response::Unknown)).after(1)
        }
        _ => Deed::Nothing,
    });
    assert!(answered > 10, "{answered} exchanges");
    let snapshot = core.snapshot(at(20_000));
    assert_eq!(
        snapshot.member(&owl.name).unwrap().status,
        Status::Alive,
        "its probes are still open, and it answers"
    );
}

#[test]
fn a_join_that_is_answered_by_a_later_release_is_tried_again_and_says_why() {
    let mut core = core(Config::default());
    core.handle_seeds(vec!["owl:8081".parse().unwrap()], at(0));
    let mut asked = 0;
    play(&mut core, 0, 10_000, |output, _| match output {
        Output::Call { request: Request::Join(_), .. } => {
            asked += 1;
            Deed::Call(Ok(Response::Join(JoinAnswer::Unknown(9))))
        }
        _ => Deed::Nothing,
    });
    assert!(asked > 1, "asked {asked} times");
    let problems = core.snapshot(at(10_000)).join_problems;
    assert!(problems[0].1.contains("number 9"), "{problems:?}");
}
