//! What others may say and do about bots of the original, and what comes of it.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use support::mixed::becomes_whole;
use support::original::Original;
use support::{Plan, alone, own_address, plans_at, settle, suspects, wait};

/// The instance that all hosts give a guest: 64-bit FNV-1a over what it tells, with a final mix,
/// and a mark at its end.
fn guest_instance(name: &str, target: &str, incarnation: u64) -> u64 {
    let incarnation = incarnation.to_le_bytes();
    let parts = [b"mesh.v1".as_slice(), name.as_bytes(), target.as_bytes(), &incarnation];
    let bytes = parts.into_iter().flat_map(|part| part.iter().copied().chain([0xff]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) & !0xffff | 0xca11
}

#[test]
fn a_record_at_the_address_of_another_makes_no_probe_fail() {
    use support::puppet::{Message, Puppet, heard, node};
    let _turn = alone();
    let plans = plans_at(own_address(), 2);
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let original = Original::start_on("old", plans[0].address, &[plans[0].target()]);
    assert!(
        wait(Duration::from_secs(30), || bots
            .iter()
            .all(|bot| bot.nodes().is_some_and(|nodes| nodes.contains("old"))))
        .is_some()
    );
    let liar = Puppet::start("liar", plans[0].address, 1);
    let mesh: std::net::SocketAddr = plans[0].target().parse().unwrap();
    assert!(wait(Duration::from_secs(10), || liar.join(mesh) == Some(1)).is_some());
    // A guest where one of ours is, and one of ours where a guest is.
    let ghost =
        node("ghost", &plans[1].target(), 1, guest_instance("ghost", &plans[1].target(), 1));
    let shade = node("shade", &original.target.to_string(), 1, 7);
    let lies = [ghost, shade]
        .iter()
        .fold(Message::default(), |gossip, record| gossip.message(5, &heard(record, 1, 0)));
    let failed = || {
        let text = support::get(bots[0].api(), "/metrics").unwrap().body;
        let of_the_living = |line: &&str| {
            ["bot-01", "old"].iter().any(|name| line.contains(&format!("target=\"{name}\"")))
        };
        let failures = text
            .lines()
            .filter(|line| line.starts_with("canary_probes_total{") && !line.contains("success"))
            .filter(of_the_living);
        failures.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    let successes = || {
        let text = support::get(bots[0].api(), "/metrics").unwrap().body;
        let line = text
            .lines()
            .find(|line| {
                line.starts_with("canary_probes_total{target=\"bot-01\",result=\"success\"}")
            })
            .unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let before = successes();
    assert!(
        wait(Duration::from_secs(30), || {
            liar.gossip(mesh, &lies).unwrap();
            failed() > 0.5 || successes() >= before + 4.0
        })
        .is_some()
    );
    assert!(failed() < 0.5, "{}", support::get(bots[0].api(), "/metrics").unwrap().body);
    assert!(bots.iter().all(|bot| bot.nodes().is_some_and(|nodes| nodes.contains("old"))));
    original.assert_well();
}

/// Behind a Service a guest announces another address than the one it is known by: it is not told
/// that its name is taken, which would end it.
#[test]
fn a_guest_that_is_known_by_another_address_may_restart() {
    let _turn = alone();
    let plan = Plan { seeds: Vec::new(), ..plans_at("127.0.0.1".parse().unwrap(), 1).remove(0) };
    let mut original = Original::start_on("old-0", plan.address, &[]);
    let bots =
        [Plan { seeds: vec![format!("localhost:{}", original.target.port())], ..plan }.start()];
    becomes_whole(&bots, std::slice::from_ref(&original));
    let target = original.target;
    original.stop();
    // At once, while it is still held to be there, and again once it is not.
    for _ in 0..2 {
        let again = Original::start("old-0", target, &[bots[0].plan.target()]);
        becomes_whole(&bots, std::slice::from_ref(&again));
        drop(again);
        assert!(
            wait(Duration::from_secs(15), || bots[0].nodes().is_some_and(|nodes| nodes.is_empty()))
                .is_some()
        );
    }
}

/// A bot of ours refutes a lie about its incarnation by beginning a new one. A guest cannot, so our
/// bots do it for the guest.
#[test]
fn lies_about_a_guests_incarnation_are_overcome() {
    use support::puppet::{Message, Puppet, frame, packed_roster, unknown};
    let _turn = alone();
    let plans = plans_at(own_address(), 2);
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let original = Original::start_on("old", plans[0].address, &[plans[0].target()]);
    let originals = std::slice::from_ref(&original);
    becomes_whole(&bots, originals);
    let liar = Puppet::start("liar", plans[0].address, 1);
    let mesh: std::net::SocketAddr = plans[0].target().parse().unwrap();
    assert!(wait(Duration::from_secs(10), || liar.join(mesh) == Some(1)).is_some());
    let instance = |incarnation| guest_instance("old", &original.target.to_string(), incarnation);
    let entry = |of: u64, version, heartbeat, left: u64| {
        let rest = Message::default().raw_varint(version).raw_varint(heartbeat).raw_varint(left);
        Message::default().bytes(4, &[&of.to_le_bytes()[..], &rest.0].concat())
    };
    let there = || bots.iter().all(|bot| bot.nodes().is_some_and(|nodes| nodes.contains("old")));
    let measured = || {
        bots.iter().all(|bot| {
            let pairs = bot.measured_pairs();
            [("old", "bot-00"), ("old", "bot-01"), ("bot-00", "old"), ("bot-01", "old")]
                .iter()
                .all(|(from, to)| pairs.contains(&((*from).to_owned(), (*to).to_owned())))
        })
    };
    // A goodbye; a heartbeat and a version that nothing can follow.
    liar.gossip(mesh, &entry(instance(1), 0, 1 << 30, 1)).unwrap();
    assert!(wait(Duration::from_secs(10), || !there()).is_some(), "the lie was not heard");
    assert!(
        wait(Duration::from_secs(60), || there() && measured()).is_some(),
        "it did not come back from the goodbye"
    );
    liar.gossip(mesh, &entry(instance(2), 0, u64::MAX, 0)).unwrap();
    let names = ["bot-00", "bot-01", "old"].map(str::to_owned);
    let unanswerable =
        frame(u64::MAX, &support::puppet::fingerprint(&names).to_le_bytes(), 1, &unknown(3));
    for incarnation in 2..5 {
        liar.gossip(
            mesh,
            &Message::default().message(
                6,
                &Message::default().fixed(1, instance(incarnation)).message(2, &unanswerable),
            ),
        )
        .unwrap();
    }
    liar.gossip(mesh, &Message::default().bytes(7, &packed_roster(&names))).unwrap();
    assert!(wait(Duration::from_secs(10), || !measured()).is_some(), "the lie was not heard");
    assert!(
        wait(Duration::from_secs(60), || there() && measured()).is_some(),
        "its row did not come back"
    );
    // A version that nothing can follow in a row that nobody can read.
    let unreadable = frame(u64::MAX - 1, &[7; 16], 1, &unknown(3));
    for incarnation in 2..8 {
        liar.gossip(
            mesh,
            &Message::default().message(
                6,
                &Message::default().fixed(1, instance(incarnation)).message(2, &unreadable),
            ),
        )
        .unwrap();
    }
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let told = now();
    // It measures one of three every three seconds.
    let told_again = || {
        bots.iter().all(|bot| {
            let times = bot
                .samples()
                .into_iter()
                .filter(|sample| sample.from == "old")
                .map(|sample| seconds_of_day(&sample.ts));
            times
                .max()
                .is_some_and(|latest| (latest + 86_400 - (told + 5) % 86_400) % 86_400 < 43_200)
        })
    };
    assert!(wait(Duration::from_secs(60), told_again).is_some(), "its row is frozen");
    original.assert_well();
}

/// The time of day in `2006-01-02 15:04:05 +0000 UTC`.
fn seconds_of_day(ts: &str) -> u64 {
    let clock = ts.split(' ').nth(1).unwrap_or_default().split(':');
    clock.fold(0, |sum, part| sum * 60 + part.parse::<u64>().unwrap())
}

#[test]
fn a_guest_that_admits_nobody_any_more_is_not_doubted() {
    let _turn = alone();
    let mut plans = plans_at(own_address(), 2);
    plans.iter_mut().for_each(|plan| plan.more.push("--debug".to_owned()));
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    let original = Original::start_on("old", plans[0].address, &[plans[0].target()]);
    becomes_whole(&bots, std::slice::from_ref(&original));
    original.state().stuck = true;
    // Longer than an answer about who is at an address is used.
    let doubted = wait(Duration::from_secs(70), || bots.iter().any(|bot| suspects(&bot.logged())));
    assert!(doubted.is_none(), "doubted after {doubted:?}");
    assert!(
        bots.iter().all(|bot| bot.nodes().is_some_and(|nodes| nodes.contains("old"))),
        "it is lost"
    );
    original.assert_well();
}
