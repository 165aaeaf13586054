//! Whose an instance is, whose a name is, and which mesh a node belongs to: what others say takes
//! none of it.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    CallError, CallId, Config, Core, Exchange, Failure, Heard, Incarnation, Instance, JoinAnswer,
    Output, Record, Refusal, Request, RequestId, Response, Target,
};
use support::{admit, at, core, drain, orders, record, tell};

fn heard(record: &Record) -> Exchange {
    let heard = Heard {
        record: Arc::new(record.clone()),
        changed: 0,
        heartbeat: 9,
        age: Duration::ZERO,
        left: false,
    };
    Exchange { records: vec![heard], ..Exchange::default() }
}

/// A core that let `owl` and `liar` in.
fn with_owl_and_liar() -> (Core, Arc<Record>, Arc<Record>) {
    let (mut core, owl, liar) = (core(Config::default()), record("owl"), record("liar"));
    admit(&mut core, &owl, at(0));
    admit(&mut core, &liar, at(0));
    drain(&mut core);
    (core, owl, liar)
}

fn refused(core: &Core, refusal: Refusal) -> u64 {
    core.snapshot(at(0)).refusals.of(refusal)
}

fn knows(core: &Core, name: &str) -> bool {
    core.snapshot(at(0)).member(&name.parse().unwrap()).is_some()
}

/// Calls that wait to be made: their number, where they go, and what they ask.
fn calls(core: &mut Core) -> Vec<(CallId, Target, Request)> {
    let outputs = orders(core);
    let call = |output| match output {
        Output::Call { id, target, request, .. } => Some((id, target, request)),
        _ => None,
    };
    outputs.filter_map(call).collect()
}

fn identify_of(core: &mut Core, target: &Target) -> Option<CallId> {
    calls(core)
        .into_iter()
        .find(|(_, at, request)| at == target && matches!(request, Request::Identify))
        .map(|(id, ..)| id)
}

fn silent() -> Result<Response, CallError> {
    Err(CallError { failure: Failure::Timeout, detail: String::new() })
}

#[test]
fn an_instance_belongs_to_one_name() {
    let (mut core, owl, liar) = with_owl_and_liar();
    let ghost = Record { instance: owl.instance, ..(*record("ghost")).clone() };
    tell(&mut core, &liar, heard(&ghost), at(1));
    let nobody = Record { instance: Instance(0), ..(*record("nobody")).clone() };
    tell(&mut core, &liar, heard(&nobody), at(1));
    assert!(!knows(&core, "ghost") && !knows(&core, "nobody"));
    assert_eq!(refused(&core, Refusal::InstanceTaken), 2);
    assert_eq!(core.record_of(owl.instance).unwrap().name, owl.name);
    // A former instance is as good as taken.
    let next = Record { instance: Instance(77), incarnation: Incarnation(2), ..(*owl).clone() };
    core.handle_request(RequestId(5), Request::Join(Arc::new(next.clone())), at(2));
    let asked = identify_of(&mut core, &owl.target).unwrap();
    core.handle_response(asked, Ok(Response::Identify(Arc::new(next))), at(2));
    tell(&mut core, &liar, heard(&ghost), at(3));
    assert!(!knows(&core, "ghost"));
}

#[test]
fn who_answers_itself_has_its_instance_before_who_was_only_told_of() {
    let (mut core, _, liar) = with_owl_and_liar();
    let duck = record("duck");
    let ghost = Record { instance: duck.instance, ..(*record("ghost")).clone() };
    tell(&mut core, &liar, heard(&ghost), at(1));
    assert!(knows(&core, "ghost"));
    admit(&mut core, &duck, at(2));
    assert!(knows(&core, "duck") && !knows(&core, "ghost"));
    assert_eq!(core.record_of(duck.instance).unwrap().name, duck.name);
}

#[test]
fn a_joiner_whose_instance_was_taken_has_to_take_another() {
    let (mut core, ..) = with_owl_and_liar();
    let duck = record("duck");
    let thief = Arc::new(Record { instance: duck.instance, ..(*record("thief")).clone() });
    admit(&mut core, &thief, at(1));
    core.handle_request(RequestId(5), Request::Join(Arc::clone(&duck)), at(2));
    let asked = identify_of(&mut core, &duck.target).unwrap();
    core.handle_response(asked, Ok(Response::Identify(Arc::clone(&duck))), at(2));
    let answer = orders(&mut core).find_map(|output| match output {
        Output::Reply { response: Response::Join(answer), .. } => Some(answer),
        _ => None,
    });
    assert!(
        matches!(answer, Some(JoinAnswer::Outdated(incarnation)) if incarnation == duck.incarnation)
    );
}

#[test]
fn who_hears_that_its_own_instance_is_anothers_takes_a_new_one_but_not_all_the_time() {
    let (mut core, _, liar) = with_owl_and_liar();
    for round in 0..20 {
        let ghost = Record { instance: core.record().instance, ..(*record("ghost")).clone() };
        let before = core.record().instance;
        tell(&mut core, &liar, heard(&ghost), at(round * 100));
        assert!(!knows(&core, "ghost"));
        let is_new = core.record().instance != before;
        assert_eq!(is_new, round == 0 || round == 10, "round {round}");
    }
}

#[test]
fn a_living_nodes_name_is_not_taken_by_what_others_say() {
    let (mut core, owl, liar) = with_owl_and_liar();
    let twin = Record {
        target: liar.target.clone(),
        incarnation: Incarnation(2),
        instance: Instance(99),
        ..(*owl).clone()
    };
    core.handle_request(
        RequestId(9),
        Request::Exchange(Box::new(Exchange { from: Some(liar.instance), ..heard(&twin) })),
        at(1),
    );
    let asked = identify_of(&mut core, &owl.target).unwrap();
    core.handle_response(asked, Ok(Response::Identify(Arc::clone(&owl))), at(2));
    assert!(calls(&mut core).is_empty(), "the twin is not even asked");
    assert_eq!(core.record_of(owl.instance).unwrap().target, owl.target);
    assert_eq!(refused(&core, Refusal::NameTaken), 1);
    // The same by an answer of a seed that claims to be owl.
    core.handle_seeds(vec![liar.target.clone()], at(4000));
    core.handle_timeout(at(4000));
    let join = calls(&mut core)
        .into_iter()
        .find(|(_, _, request)| matches!(request, Request::Join(_)))
        .unwrap()
        .0;
    core.handle_response(
        join,
        Ok(Response::Join(JoinAnswer::Admitted(Arc::new(twin.clone())))),
        at(4001),
    );
    assert_eq!(core.record_of(owl.instance).unwrap().target, owl.target);
    // Once it does not answer any more, the one that does has the name.
    let incumbent = identify_of(&mut core, &owl.target).unwrap();
    core.handle_response(incumbent, silent(), at(4002));
    let successor = identify_of(&mut core, &twin.target).unwrap();
    core.handle_response(successor, Ok(Response::Identify(Arc::new(twin.clone()))), at(4003));
    assert_eq!(core.record_of(twin.instance).unwrap().target, twin.target);
}

#[test]
fn a_holder_that_took_a_next_incarnation_is_still_the_holder() {
    let (mut core, owl, liar) = with_owl_and_liar();
    let twin = Record {
        target: liar.target.clone(),
        incarnation: Incarnation(9),
        instance: Instance(99),
        ..(*owl).clone()
    };
    core.handle_request(
        RequestId(9),
        Request::Exchange(Box::new(Exchange { from: Some(liar.instance), ..heard(&twin) })),
        at(1),
    );
    let asked = identify_of(&mut core, &owl.target).unwrap();
    let next =
        Arc::new(Record { incarnation: Incarnation(2), instance: Instance(55), ..(*owl).clone() });
    core.handle_response(asked, Ok(Response::Identify(Arc::clone(&next))), at(2));
    assert!(identify_of(&mut core, &twin.target).is_none(), "the twin is not asked");
    assert_eq!(core.record_of(next.instance).map(|record| &record.target), Some(&owl.target));
    // One that yields its name answers with the holder: that one is asked then.
    core.handle_request(
        RequestId(9),
        Request::Exchange(Box::new(Exchange { from: Some(liar.instance), ..heard(&twin) })),
        at(4000),
    );
    let asked = identify_of(&mut core, &owl.target).unwrap();
    core.handle_response(asked, Ok(Response::Identify(Arc::new(twin.clone()))), at(4001));
    assert!(identify_of(&mut core, &twin.target).is_some());
}

/// What a core does that hears of another living holder of its own name, when its peers answer so.
fn contest(votes: [canary_core::Answer; 2]) -> Core {
    let (mut core, _, liar) = with_owl_and_liar();
    admit(&mut core, &record("duck"), at(0));
    drain(&mut core);
    let me = core.record().clone();
    let twin = Arc::new(Record {
        target: liar.target.clone(),
        incarnation: me.incarnation.next(),
        instance: Instance(99),
        ..(*me).clone()
    });
    core.handle_request(
        RequestId(9),
        Request::Exchange(Box::new(Exchange { from: Some(liar.instance), ..heard(&twin) })),
        at(1),
    );
    let asked = identify_of(&mut core, &twin.target).unwrap();
    core.handle_response(asked, Ok(Response::Identify(twin)), at(2));
    let asked: Vec<_> = calls(&mut core)
        .into_iter()
        .filter(|(_, _, request)| matches!(request, Request::IndirectProbe(_)))
        .collect();
    assert!(
        asked.len() == 2 && asked.iter().all(|(_, target, _)| *target != liar.target),
        "not the twin's own host"
    );
    for ((id, ..), vote) in asked.into_iter().zip(votes) {
        core.handle_response(id, Ok(Response::IndirectProbe(vote)), at(3));
    }
    core
}

#[test]
fn the_own_name_is_yielded_to_whom_others_hold_for_its_holder_and_to_nobody_else() {
    use canary_core::Answer::{Reached, Unknown};
    let conflict = |core: &Core| core.snapshot(at(4)).name_conflict().is_some();
    assert!(!conflict(&contest([Unknown, Unknown])), "one peer's claim persuades that peer alone");
    assert!(conflict(&contest([Reached, Unknown])) && conflict(&contest([Reached, Reached])));
}

#[test]
fn a_holder_that_has_no_time_to_answer_keeps_its_name() {
    let (mut core, owl, liar) = with_owl_and_liar();
    let twin = Arc::new(Record {
        target: liar.target.clone(),
        incarnation: Incarnation(9),
        instance: Instance(99),
        ..(*owl).clone()
    });
    core.handle_request(RequestId(9), Request::Join(Arc::clone(&twin)), at(1));
    let asked = identify_of(&mut core, &owl.target).unwrap();
    core.handle_response(asked, Ok(Response::Busy), at(2));
    let answers: Vec<_> = orders(&mut core).collect();
    assert!(
        matches!(answers[..], [Output::Reply { response: Response::Join(JoinAnswer::Busy), .. }]),
        "{answers:?}"
    );
}

#[test]
fn a_newcomer_gives_up_its_name_only_for_who_answers_by_it() {
    let seed = record("seed");
    let holder = Arc::new(Record { name: "me".parse().unwrap(), ..(*record("holder")).clone() });
    let start = || {
        let mut core = core(Config::default());
        core.handle_seeds(vec![seed.target.clone()], at(0));
        core.handle_timeout(at(0));
        let join = calls(&mut core)
            .into_iter()
            .find(|(_, _, request)| matches!(request, Request::Join(_)))
            .unwrap()
            .0;
        core.handle_response(
            join,
            Ok(Response::Join(JoinAnswer::NameTaken(Arc::clone(&holder)))),
            at(1),
        );
        let asked = identify_of(&mut core, &holder.target).unwrap();
        (core, asked)
    };
    let ends = |core: &mut Core| orders(core).any(|output| matches!(output, Output::NameTaken(_)));
    let (mut lied_to, asked) = start();
    lied_to.handle_response(asked, silent(), at(2));
    assert!(!ends(&mut lied_to));
    let (mut late, asked) = start();
    late.handle_response(asked, Ok(Response::Identify(Arc::clone(&holder))), at(2));
    assert!(ends(&mut late));
}

#[test]
fn meshes_of_two_names_never_become_one() {
    let named = Config { mesh_name: "prod".parse().unwrap(), ..Config::default() };
    let mut core = core(named);
    let ours = Arc::new(Record { mesh: "prod".parse().unwrap(), ..(*record("owl")).clone() });
    admit(&mut core, &ours, at(0));
    drain(&mut core);
    let theirs = record("stranger");
    core.handle_request(RequestId(5), Request::Join(Arc::clone(&theirs)), at(1));
    let told = core.poll_output();
    assert!(
        matches!(told, Some(Output::Reply { response: Response::Join(JoinAnswer::OtherMesh(name)), .. }) if name.as_str() == "prod")
    );
    tell(&mut core, &ours, heard(&theirs), at(2));
    assert!(!knows(&core, "stranger"));
    assert_eq!(refused(&core, Refusal::OtherMesh), 2);
}

#[test]
fn names_and_labels_have_no_characters_that_nobody_sees() {
    for c in [
        '\u{7f}',
        '\n',
        '\u{202e}',
        '\u{2066}',
        '\u{2028}',
        '\u{200b}',
        '\u{200d}',
        '\u{feff}',
        '\u{ad}',
        '\u{e0041}',
    ] {
        assert!(format!("o{c}wl").parse::<canary_core::NodeName>().is_err(), "{c:?}");
        assert!(canary_core::Labels::new([("zone".to_owned(), format!("a{c}"))]).is_err(), "{c:?}");
    }
    for name in ["owl", "Eule-7", "\u{3b1}\u{3b2}", "\u{5d0}\u{5d1}", "host one", "\u{1f426}"] {
        assert!(name.parse::<canary_core::NodeName>().is_ok(), "{name}");
    }
}
