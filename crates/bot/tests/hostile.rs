//! Strangers and liars at a bot in a living mesh: it refuses, counts, goes on measuring, and stays
//! small.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use support::puppet::{
    Message, Puppet, call, entry, fingerprint, frame, heard, node, packed_roster, refused, unknown,
};
use support::{
    Bot, all_know_all, alone, counted, full_matrix, get, get_json, mesh, own_address, wait,
};

/// What a bot in a small mesh may grow to while it is lied to, in kB.
const RESIDENT_MAX: u64 = 120_000;

fn mesh_port(bot: &Bot) -> SocketAddr {
    bot.plan.target().parse().unwrap()
}

fn resident_kb(bot: &Bot) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", bot.pid())).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// All run, know each other, hold every pair, measure on, and are small.
fn unharmed(bots: &mut [Bot]) {
    for bot in bots.iter_mut() {
        assert!(bot.running(), "{} died", bot.name());
    }
    // The strangers may be known too: what counts is that nobody of ours is lost.
    let whole = wait(Duration::from_secs(30), || {
        bots.iter().all(|bot| {
            let pairs = bot.measured_pairs();
            let own = |name: &str| bots.iter().any(|other| other.name() == name);
            pairs.iter().filter(|(from, to)| own(from) && own(to)).count()
                == bots.len() * (bots.len() - 1)
        })
    });
    assert!(whole.is_some(), "not every pair is held any more");
    let before: Vec<_> = bots.iter().map(|bot| counted(bot, "canary_probes_total")).collect();
    let measuring = wait(Duration::from_secs(15), || {
        bots.iter()
            .zip(&before)
            .all(|(bot, before)| counted(bot, "canary_probes_total") > before + 2.0)
    });
    assert!(measuring.is_some(), "somebody stopped measuring");
    for bot in bots.iter() {
        let resident = resident_kb(bot);
        eprintln!(
            "{}: {resident} kB resident, {} refusals",
            bot.name(),
            counted(bot, "canary_mesh_refused_total")
        );
        assert!(resident < RESIDENT_MAX, "{} takes {resident} kB", bot.name());
    }
}

#[test]
fn what_is_no_message_is_refused_and_counted() {
    let _turn = alone();
    let mut bots = mesh(3);
    let bot = mesh_port(&bots[0]);
    let before = counted(&bots[0], "canary_mesh_refused_total");
    let malformed = || counted(&bots[0], "canary_mesh_refused_total{reason=\"malformed\"}");
    // The last one decodes, and is no node; the others do not even decode.
    for message in [vec![0xff; 20], vec![0x0a, 0x7f], vec![0; 2 << 20], vec![0x0a, 0x00]] {
        let counted = malformed();
        let refused = call(bot, "Join", &message);
        assert!(refused.map_or(true, |(status, _)| status >= 400));
        assert!(
            malformed() > counted,
            "a message of {} bytes was refused and not counted",
            message.len()
        );
    }
    let mut rng = fastrand::Rng::with_seed(1);
    let valid = Message::default().message(1, &node("stranger", "127.0.0.1:1", 1, 7)).0;
    for method in ["Join", "Exchange", "IndirectProbe", "Identify", "Probe", "Nonsense"] {
        for _ in 0..50 {
            let bytes: Vec<u8> = (0..rng.usize(..300)).map(|_| rng.u8(..)).collect();
            let _ = call(bot, method, &bytes);
        }
        // Cut off anywhere, and far too long.
        for cut in 0..valid.len() {
            let _ = call(bot, method, &valid[..cut]);
        }
        if let Ok((status, _)) = call(bot, method, &vec![0xff; 2 << 20]) {
            assert!(status >= 400, "{method} took two megabytes: {status}");
        }
    }
    let names = [
        String::new(),
        "n".repeat(1 << 20),
        "a\u{7f}b".to_owned(),
        "line\nbreak".to_owned(),
        " ".to_owned(),
        "n".repeat(254),
    ];
    for name in &names {
        let refused =
            call(bot, "Join", &Message::default().message(1, &node(name, "127.0.0.1:1", 1, 7)).0);
        assert!(
            refused.map_or(true, |(status, _)| status >= 400),
            "the name {:?} was taken",
            &name[..name.len().min(20)]
        );
    }
    for target in [
        "",
        "unix:/x",
        "http://a",
        "http://a:1",
        "a\u{7f}:1",
        "a:0",
        "a:65536",
        "a",
        ":1",
        "[::1:1",
        "a b:1",
        "a:1/x",
        "a:1?x",
    ] {
        let (status, answer) =
            call(bot, "Join", &Message::default().message(1, &node("stranger", target, 1, 7)).0)
                .unwrap();
        assert!(status >= 400, "the target {target:?} was taken");
        assert!(
            String::from_utf8_lossy(&answer).contains("malformed"),
            "no reason is given for {target:?}"
        );
    }
    assert!(counted(&bots[0], "canary_mesh_refused_total") > before, "nothing was counted");
    // Raw bytes on both ports, on many connections at once, some of them left open.
    let mut open = Vec::new();
    for address in [bot, bots[0].api()] {
        for _ in 0..200 {
            let Ok(mut stream) = TcpStream::connect(address) else { continue };
            let bytes: Vec<u8> = (0..rng.usize(..2000)).map(|_| rng.u8(..)).collect();
            let _ = stream.write_all(&bytes);
            open.push(stream);
        }
    }
    for path in [
        "/api/v1/samples?from=%ff%00",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/v1/samples?limit=-1",
        "//",
        "/metrics?x=\u{1f600}",
    ] {
        let _ = get(bots[0].api(), path);
    }
    let _ = get(bots[0].api(), &format!("/{}", "x".repeat(1 << 20)));
    unharmed(&mut bots);
    assert!(all_know_all(&bots) && full_matrix(&bots));
}

#[test]
fn who_was_not_admitted_is_not_believed() {
    let _turn = alone();
    let mut bots = mesh(3);
    let bot = mesh_port(&bots[0]);
    // It never joined: nothing of what it says is taken.
    let stranger = Puppet::start("stranger", own_address(), 1);
    let told = Message::default().message(5, &heard(&node("ghost", "127.0.0.1:9", 1, 99), 5, 0));
    let (status, answer) = stranger.gossip(bot, &told).unwrap();
    assert_eq!((status, answer.first()), (200, Some(&0x12)), "the answer says: join first");
    // One that claims an address at which another answers is not admitted either, nor one with a
    // living name.
    let liar = Puppet { name: "liar".to_owned(), ..Puppet::start("honest", own_address(), 1) };
    assert_eq!(liar.join(bot), Some(5), "another name answers there");
    let thief = Puppet::start(bots[1].name(), own_address(), 1 << 61);
    assert_eq!(thief.join(bot), Some(3), "the name is held by a living node");
    assert!(!bots.iter().any(|bot| bot.nodes().unwrap().contains("ghost")));
    unharmed(&mut bots);
    assert!(all_know_all(&bots));
}

#[test]
fn a_lying_member_harms_nobody_but_itself() {
    let _turn = alone();
    let mut bots = mesh(3);
    let bot = mesh_port(&bots[0]);
    let liar = Puppet::start("liar", own_address(), 1);
    let victim = Puppet::start("victim", own_address(), 1);
    assert_eq!(liar.join(bot), Some(1), "it answers at its address, so it is admitted");

    // Thousands of nodes at one address that has nothing to do with them.
    let mut instance = 1_000_000;
    for _ in 0..40 {
        let mut gossip = Message::default();
        for _ in 0..500 {
            instance += 1;
            let ghost = node(&format!("ghost-{instance}"), &victim.target.to_string(), 1, instance);
            gossip = gossip.message(5, &heard(&ghost, 1, 0));
        }
        let _ = liar.gossip(bot, &gossip);
    }
    // A million more in digests only, a whole range that is claimed to be complete.
    for _ in 0..125 {
        let entries: Vec<u8> = (0..8000)
            .flat_map(|_| {
                instance += 1;
                entry(instance, 1, 1, 0)
            })
            .collect();
        let range = Message::default().fixed(1, 0).fixed(2, u64::MAX);
        let _ = liar.gossip(bot, &Message::default().message(3, &range).bytes(4, &entries));
    }

    // Everything at its largest, in the far future, for rosters nobody has, and again, and in the
    // wrong order.
    let frame = |version, roster: &[u8]| frame(version, roster, u64::MAX, &refused(1));
    let row = |source, version, roster: &[u8]| {
        Message::default().fixed(1, source).message(2, &frame(version, roster))
    };
    let first = Message::default().message(6, &row(liar.instance, u64::MAX, &[7; 16]));
    let last = Message::default().message(6, &row(liar.instance, 1, &[8; 16]));
    let grown =
        Message::default().bytes(4, &entry(liar.instance, u64::MAX, u64::MAX, u64::MAX >> 4));
    let future = Message::default()
        .message(5, &heard(&node("future", "127.0.0.1:9", u64::MAX, 77), u64::MAX, u64::MAX));
    for gossip in [&first, &last, &grown, &future, &last, &first, &future, &grown] {
        for _ in 0..5 {
            let _ = liar.gossip(bot, gossip);
        }
    }
    // Lies about the living: that they left, died, or said more than they did.
    let (_, identity) = call(mesh_port(&bots[1]), "Identify", &[]).unwrap();
    let at = identity.windows(9).rposition(|window| window[0] == 0x29).unwrap();
    let living = u64::from_le_bytes(identity[at + 1..at + 9].try_into().unwrap());
    for _ in 0..20 {
        let suspicion = Message::default().fixed(1, living).varint(2, 2900).varint(3, 1);
        let _ = liar.gossip(bot, &Message::default().message(8, &suspicion));
        let _ = liar.gossip(bot, &Message::default().message(6, &row(living, 5, &[9; 16])));
    }
    let dials = victim.dials.load(Ordering::Relaxed);
    unharmed(&mut bots);
    let after = victim.dials.load(Ordering::Relaxed);
    eprintln!("the victim was dialled {dials} times during the lies, {after} by the end");
    assert!(after < 100, "the mesh is a cannon: {after} dials");
}

#[test]
fn a_row_that_cannot_be_read_costs_itself_alone() {
    let _turn = alone();
    let mut bots = mesh(3);
    let bot = mesh_port(&bots[0]);
    let puppet = Puppet::start("puppet", own_address(), 1);
    assert!(wait(Duration::from_secs(10), || puppet.join(bot) == Some(1)).is_some());
    let names = ["puppet".to_owned()];
    let row = |instance, cells: &[u8]| {
        Message::default()
            .fixed(1, instance)
            .message(2, &frame(1, &fingerprint(&names).to_le_bytes(), 1_700_000_000_000, cells))
    };
    // A cell that has no meaning, beside one that has.
    let mut nonsense = unknown(1);
    nonsense[1] = 0x10;
    let rows = Message::default()
        .message(6, &row(77, &nonsense))
        .message(6, &row(puppet.instance, &unknown(1)));
    let (status, _) = puppet.gossip(bot, &rows).unwrap();
    assert_eq!(status, 200);
    puppet.gossip(bot, &Message::default().bytes(7, &packed_roster(&names))).unwrap();
    let taken = || counted(&bots[0], "canary_mesh_row_age_seconds{source=\"puppet\"") > 0.0;
    assert!(wait(Duration::from_secs(5), taken).is_some(), "the row beside it was not taken");
    assert_eq!(counted(&bots[0], "canary_mesh_refused_total{reason=\"unreadable\"}"), 1.0);
    unharmed(&mut bots);
}

#[test]
fn a_flood_of_names_is_held_back() {
    let _turn = alone();
    let mut bots = mesh(3);
    let bot = mesh_port(&bots[0]);
    let nobody = own_address();
    let floods: Vec<_> = (0..16)
        .map(|flood: u64| {
            std::thread::spawn(move || {
                for number in 0..60 {
                    let joiner = node(
                        &format!("flood-{flood}-{number}"),
                        &format!("{nobody}:{}", 1000 + number),
                        1,
                        1 + flood * 1000 + number,
                    );
                    let _ = call(bot, "Join", &Message::default().message(1, &joiner).0);
                }
            })
        })
        .collect();
    floods.into_iter().for_each(|flood| flood.join().unwrap());
    unharmed(&mut bots);
    assert!(all_know_all(&bots), "somebody of the flood was admitted");
}

/// The instance of a bot, as it tells it to everybody.
fn instance_of(bot: &Bot) -> u64 {
    let (_, identity) = call(mesh_port(bot), "Identify", &[]).unwrap();
    let at = identity.windows(9).rposition(|window| window[0] == 0x29).unwrap();
    u64::from_le_bytes(identity[at + 1..at + 9].try_into().unwrap())
}

/// The age of a bot's row at another, in seconds.
fn row_age(at: &Bot, of: &Bot) -> f64 {
    counted(at, &format!("canary_mesh_row_age_seconds{{source=\"{}\"}}", of.name()))
}

#[test]
fn an_instance_and_a_name_are_not_taken_by_gossip() {
    let _turn = alone();
    let mut bots = mesh(3);
    let liar = Puppet::start("liar", own_address(), 1);
    assert_eq!(liar.join(mesh_port(&bots[0])), Some(1));
    let stolen = instance_of(&bots[1]);
    let ghost =
        Message::default().message(5, &heard(&node("ghost", "127.0.0.1:9", 1, stolen), 1, 0));
    // A twin of a living node, in a larger incarnation, that answers at the liar's address.
    let twin = Puppet::start(bots[1].name(), own_address(), 1 << 60);
    let claimed = Message::default().message(5, &heard(&twin.node(), 9, 0));
    for _ in 0..10 {
        for bot in &bots {
            let _ = liar.gossip(mesh_port(bot), &ghost);
            let _ = liar.gossip(mesh_port(bot), &claimed);
        }
        wait(Duration::from_millis(300), || false);
    }
    let refused = |reason: &str| {
        bots.iter()
            .map(|bot| counted(bot, &format!("canary_mesh_refused_total{{reason=\"{reason}\"}}")))
            .sum::<f64>()
    };
    assert!(refused("instance_taken") >= 10.0 && refused("name_taken") > 0.0);
    // Its row goes on, nobody holds the twin or the ghost for anybody, and a newcomer hears of it.
    assert!(
        wait(Duration::from_secs(30), || [0, 2]
            .iter()
            .all(|at| row_age(&bots[*at], &bots[1]) < 11.0))
        .is_some()
    );
    assert!(counted(&bots[1], "canary_mesh_name_conflict") < 0.5, "{}", bots[1].logged());
    assert!(!bots.iter().any(|bot| bot.nodes().unwrap().contains("ghost")));
    let infos = get(bots[0].api(), "/metrics").unwrap().body;
    let info = infos
        .lines()
        .find(|line| line.starts_with("canary_mesh_node_info") && line.contains(bots[1].name()))
        .unwrap();
    assert!(info.contains(&bots[1].plan.target()), "{info}");
    unharmed(&mut bots);
    let mut plan = bots[0].plan.clone();
    plan.name = "newcomer".to_owned();
    (plan.mesh_port, plan.api_port) = {
        let ports = support::free_ports(plan.address, 2);
        (ports[0], ports[1])
    };
    let newcomer = plan.start();
    assert!(
        wait(Duration::from_secs(20), || newcomer
            .nodes()
            .is_some_and(|nodes| nodes.contains(bots[1].name())))
        .is_some()
    );
}

#[test]
fn details_of_a_pair_are_asked_of_its_source_and_told_to_members_alone() {
    let _turn = alone();
    let mut bots = mesh(3);
    let pair =
        |bots: &[Bot]| get_json(bots[0].api(), "/api/v2/pairs/bot-01/bot-02").unwrap_or_default();
    let told = wait(Duration::from_secs(10), || {
        pair(&bots)["detail"]["phases"]["connect_seconds"].as_f64().is_some_and(|time| time > 0.0)
    });
    assert!(told.is_some(), "{}", pair(&bots));
    assert!(
        pair(&bots)["detail"]["successes"].as_u64() > Some(0)
            && pair(&bots)["detail_age_seconds"].as_f64() < Some(3.0),
        "{}",
        pair(&bots)
    );
    assert!(
        counted(&bots[1], "canary_mesh_messages_total{kind=\"describe\",direction=\"in\"}") > 0.0
    );

    // Who did not join learns nothing, and a member nothing that was meant for another.
    let asked = |from: u64, to: u64, target: &str| {
        let question = Message::default().fixed(1, from).bytes(2, target.as_bytes()).fixed(3, to);
        call(mesh_port(&bots[1]), "Describe", &question.0).unwrap().0
    };
    let (me, meant) = (instance_of(&bots[0]), instance_of(&bots[1]));
    assert_eq!(asked(me, meant, "bot-02"), 200);
    assert_eq!((asked(0, meant, "bot-02"), asked(me ^ 1, meant, "bot-02")), (403, 403));
    assert_eq!(
        (asked(me, me, "bot-02"), asked(me, meant, "nobody"), asked(me, meant, "")),
        (400, 404, 400)
    );

    bots[1].kill();
    let silent = wait(Duration::from_secs(10), || {
        pair(&bots)["detail_problem"]
            .as_str()
            .is_some_and(|why| why.starts_with("bot-01 could not be asked: "))
    });
    assert!(silent.is_some() && pair(&bots)["detail"].is_null(), "{}", pair(&bots));
}
