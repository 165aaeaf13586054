//! Every bound of the core, each with its reason and with what happens when it is hit.

use std::time::Duration;

/// How often something may be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Times a second.
    pub per_second: f64,
    /// Times at once, after a rest.
    pub burst: f64,
}

/// A pause that doubles with every failure in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// At most.
    pub longest: Duration,
}

/// A factor that grows while a host is overloaded, and shrinks to 1 while it is not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// Multiplied by this every second of overload.
    pub up: f64,
    /// At most.
    pub longest: f64,
    /// Multiplied by this every second without.
    pub down: f64,
    /// The same after [`OVERLOAD_CALM`] seconds without.
    pub down_fast: f64,
}

/// Longest node name in bytes: a fully qualified domain name fits. Longer names are refused where
/// they are parsed.
pub const NAME_BYTES_MAX: usize = 253;
/// Longest name of a mesh in bytes; it travels with every record.
pub const MESH_NAME_BYTES_MAX: usize = 63;
/// Longest host part of a target in bytes, by RFC 1035 section 2.3.4.
pub const HOST_BYTES_MAX: usize = 253;
/// Labels of one node; they travel with every record. More are refused where they are parsed.
pub const LABELS_MAX: usize = 16;
/// Longest label key in bytes.
pub const LABEL_KEY_BYTES_MAX: usize = 63;
/// Longest label value in bytes.
pub const LABEL_VALUE_BYTES_MAX: usize = 127;

/// Nodes known at once, dead ones included: twice the largest mesh we promise. A newcomer beyond it
/// takes the place of one that left or died, else is refused and counted; the living never go.
pub const MEMBERS_MAX: usize = 4096;
/// Nodes known on one introducer's word that have not answered yet: a seed introduces a whole mesh,
/// and its members answer at the rate of probes. Beyond it: refused and counted; the next exchange
/// brings it again.
pub const HEARD_PER_INTRODUCER_MAX: usize = 2048;
/// Nodes known in all that have not answered yet: one liar cannot take all of these places, nor all
/// liars those of nodes that answer. Beyond it: refused, counted.
pub const UNPROVEN_MAX: usize = MEMBERS_MAX / 4 * 3;
/// Nodes that never answered and are known because known members reach them, at least; in a larger
/// mesh as many as answered. Further ones stay names.
pub const VOUCHED_MIN: usize = 8;
/// Former instances of known nodes that are remembered, so that old digests are answered and not
/// asked about. The oldest go first.
pub const RETIRED_MAX: usize = 1024;
/// Targets that are asked to admit us; discovery may list a whole mesh. Further ones are ignored
/// and counted.
pub const SEEDS_MAX: usize = 4096;

/// Joins being proven at once: a mesh that starts together joins at a few seeds. Beyond it the
/// joiner is asked to come again.
pub const JOINS_PENDING_MAX: usize = 1024;
/// Probes under way at once for each purpose, be it the schedule, questions or dials of the dead:
/// three seconds of the schedule's timeouts at the default budget fit. Beyond it the schedule
/// waits, a question is not asked, and counted, and a dial is left to the next.
pub const PROBES_IN_FLIGHT_MAX: usize = 256;
/// Probes of the schedule under way at once, at first. While at least half of the bound is used it
/// grows with every probe that this host did not spoil, up to [`PROBES_IN_FLIGHT_MAX`]; it is
/// halved when it did.
pub const PROBE_WINDOW_FIRST: f64 = 16.0;
/// Exchanges under way at once that we started. Beyond it the tick is skipped and counted.
pub const EXCHANGES_IN_FLIGHT_MAX: usize = 32;
/// Questions open at once, at most: a storm of doubt is a finding about this host, and others ask
/// as well.
pub const QUESTIONS_MAX: usize = 64;
/// Questions that any mesh may have open at once, however small.
pub const QUESTIONS_MIN: usize = 4;
/// Between these two, one question for so many nodes that are there.
pub const NODES_PER_QUESTION: usize = 4;
/// Probes on behalf of others at once. Beyond it the answer is "unknown".
pub const INDIRECT_PROBES_IN_FLIGHT_MAX: usize = 64;
/// Peers asked to try a node that we doubt.
pub const INDIRECT_PROBES: usize = 3;

/// Largest body of one exchange in bytes: edges refuse long bodies. What does not fit travels with
/// the next one.
pub const EXCHANGE_BYTES_MAX: usize = 512 * 1024;
/// A release as its source spells it; what is longer is carried and not shown.
pub const RELEASE_BYTES_MAX: usize = 32;
/// Addresses of bots of the original that a row may tell of, which did not answer its source.
pub const PENDING_JOINS_MAX: usize = 64;
/// What one exchange may carry in rows and rosters, in bytes; the rest of [`EXCHANGE_BYTES_MAX`] is
/// for records, digest and framing.
pub const EXCHANGE_CONTENT_BYTES_MAX: usize = 320 * 1024;
/// What records of one exchange may take, in bytes.
pub const RECORD_BYTES_MAX: usize = 128 * 1024;
/// Records in one exchange.
pub const RECORDS_PER_EXCHANGE_MAX: usize = 512;
/// Entries of the range of one digest, at most. A larger mesh comes in equal parts, one after
/// the other, each with what changed lately.
pub const DIGEST_ENTRIES_MAX: usize = 1000;
/// Meshes of up to so many have digests of all members, larger ones of half at most. Heartbeats of
/// all advance all the time, so that half of them cost half as much. With less than half, rules
/// that ask how old the evidence of a node is would take the pauses for its silence.
pub const DIGEST_ENTRIES_MIN: usize = 256;
/// Entries accepted from a peer: a digest, what changed lately, and room for a newer version's
/// larger mesh.
pub const ENTRIES_ACCEPTED_MAX: usize = 2 * MEMBERS_MAX;
/// Rows or records asked for in one exchange.
pub const WANTS_MAX: usize = 2048;
/// Suspicions in one exchange.
pub const SUSPICIONS_MAX: usize = 256;
/// Rumours waiting to be pushed. Beyond it a new one is not pushed, and counted: the tick carries
/// it.
pub const RUMOURS_MAX: usize = 4096;
/// Legs of one exchange: digest, answer with wants, delivery with wants of rosters, and their
/// delivery.
pub const EXCHANGE_LEGS_MAX: u8 = 4;

/// Names of a roster. Equal to [`MEMBERS_MAX`]: a row has a cell for every node.
pub const ROSTER_NAMES_MAX: usize = MEMBERS_MAX;
/// Packed cells of one kind of probe in bytes: fourteen for every name of the largest roster, and
/// the tables of their figures.
pub const CELLS_BYTES_MAX: usize = 14 * ROSTER_NAMES_MAX + 4096;
/// Cells of the rows of one exchange: a few bytes can stand for very many, and all are read. Rows
/// beyond are counted and left out.
pub const EXCHANGE_CELLS_MAX: usize = 64 * ROSTER_NAMES_MAX;
/// Sections of one frame in bytes: cells of every kind of probe.
pub const FRAME_BYTES_MAX: usize = (1 + PROBE_KINDS_MAX) * CELLS_BYTES_MAX;
/// Kinds of probes beside the main one.
pub const PROBE_KINDS_MAX: usize = 4;
/// Sections of later releases that travel with one frame or patch. A row with more is not taken,
/// and counted.
pub const SECTIONS_CARRIED_MAX: usize = 8;
/// Patches on one frame. The next change is published as a new frame.
pub const PATCHES_MAX: usize = 64;
/// What rows and rosters of others may take in bytes beyond twice those of an honest mesh of the
/// known members: small meshes need little, and rosters of newcomers differ for a moment. Beyond
/// all of it a row is not taken, counted, and asked for again later.
pub const HOLDINGS_FLOOR: usize = 4 << 20;
/// Rows of members that never answered this bot may take one part in so many of that, and so many
/// bytes at most: those of a mesh of two thousand.
pub const HOLDINGS_UNKNOWN: (usize, usize) = (4, 64 << 20);
/// Events kept for readers; the oldest go first, and sequence numbers show the gap.
pub const EVENTS_MAX: usize = 256;
/// Addresses of unproven nodes that failed and are held back. The one that may be dialled soonest
/// goes first.
pub const ADDRESS_GUARDS_MAX: usize = 4096;

/// A probe or a call that is unanswered for so long raises doubt, unless the pair is known to be
/// slower.
pub const DOUBT_AFTER: Duration = Duration::from_secs(1);
/// From the first failure to death when anything was silent.
pub const DEATH_AFTER_SILENCE: Duration = Duration::from_secs(3);
/// From the first failure to death when everybody was refused: a refusal is an answer of the host.
pub const DEATH_AFTER_REFUSAL: Duration = Duration::from_millis(1500);
/// From suspicion to death, at the least, however late it arrives: time to ask the node itself, if
/// our path to it works, and to hear from others that did.
pub const LATE_SUSPICION_TIME: Duration = Duration::from_millis(500);
/// Between the first and the second repetition of a doubtful probe.
pub const REPEAT_DELAY: Duration = Duration::from_millis(200);
/// A question without an answer for so long is answered with no.
pub const QUESTION_TIME: Duration = Duration::from_millis(1300);
/// A node that others had news of while our own attempts failed is not doubted for our failures,
/// unless there was no news for so long: word of it may come by one bridge and several hops.
pub const BROKEN_PATH_EVIDENCE: Duration = Duration::from_secs(20);
/// An incarnation without evidence for so long gives way to a larger one that others tell of,
/// though nobody answers us there: before it would be doubted behind a broken path, and well after
/// evidence of a living one would have arrived.
pub const SUCCESSION_AFTER: Duration = Duration::from_secs(10);
/// A node without evidence for so long is doubted even if no probe of it failed; unmeasured links
/// may carry its heartbeat slowly.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Hearing from nobody for so long is a finding about this host.
pub const ISOLATED_AFTER: Duration = Duration::from_secs(2);
/// A loop that ran so late was stalled: the time is taken off every silence.
pub const STALL_MIN: Duration = Duration::from_millis(250);
/// What is handled within so long after a stall of [`DOUBT_AFTER`] or more may have arrived before
/// it ended: reports about others do not count, or a word from before a death would pass for one
/// from after it.
pub const CATCHING_UP: Duration = Duration::from_millis(100);

/// A node flaps if it is suspected again within this time after it was found alive again.
pub const FLAP_MEMORY: Duration = Duration::from_secs(60);
/// A host that does not keep up asks about a node that flaps at most once in this time for each
/// node of the mesh. Each question makes five probes dial the node; where all hosts are short of
/// time, they keep it from answering the next ones. In a small mesh that is no load, and a node
/// that died after all must not wait for its turn.
pub const FLAP_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
pub const FLAP_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Probes that begin later than this after their time show an overloaded host.
pub const OVERLOAD_DELAY: Duration = Duration::from_millis(100);
/// Share of void probes that shows one.
pub const OVERLOAD_VOIDS: f64 = 0.1;
/// How an overloaded host stretches its pair interval: a prober that is late measures itself, and
/// many on one host would drown each other.
pub const OVERLOAD_STRETCH: Stretch =
    Stretch { up: 1.5, longest: 16.0, down: 0.95, down_fast: 0.75 };
/// Seconds without a sign of overload after which a host is believed to keep up for good.
pub const OVERLOAD_CALM: u32 = 5;
/// Doubts that rest on our own clock alone are not raised for so long after a probe that this host
/// spoiled.
pub const SELF_DOUBT: Duration = Duration::from_secs(1);

/// A node that is known by hearsay is forgotten after so long without evidence.
pub const UNPROVEN_FORGET_AFTER: Duration = Duration::from_secs(600);
/// Failing dials of unproven nodes, over all of them; dials that prove a node are free, and a small
/// mesh is proven at once.
pub const UNPROVEN_DIALS: Rate = Rate { per_second: 5.0, burst: 50.0 };
/// Pause of one unproven address after a failed dial: a mesh of a thousand dials it no more than
/// any of its members, and who restarted behind a cut is found again soon after it.
pub const UNPROVEN_BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(20) };
/// Each dead node is dialled so often by each of two bots that rendezvous hashing names.
pub const DEAD_DIAL_INTERVAL: Duration = Duration::from_secs(5);
/// Every other bot dials each dead node too, so rarely that a thousand of them cost nothing: views
/// of who is alive may disagree.
pub const DEAD_DIAL_INTERVAL_OTHERS: Duration = Duration::from_secs(120);
/// Dials of the dead a second, as a share of the probe budget and beside it.
pub const DEAD_DIALS_SHARE: f64 = 0.25;
/// Probes on behalf of others. Beyond it the answer is "unknown".
pub const INDIRECT_PROBE_RATE: Rate = Rate { per_second: 20.0, burst: 64.0 };
/// Doubted members that are asked for their own heartbeat: one side of a partial partition may
/// doubt all of the other at once, and the nodes between them must speak for them. Beyond it the
/// schedule finds out.
pub const INQUIRIES: Rate = Rate { per_second: 50.0, burst: 512.0 };
/// A doubted member that was asked for its heartbeat is not asked again for so long, however many
/// doubt it.
pub const INQUIRY_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause of a joiner's address after a failed dial-back: who can be reached again should
/// not wait.
pub const JOINER_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Largest incarnation that is outdone: far beyond any clock.
pub const INCARNATION_MAX: u64 = 1 << 61;
/// How far beyond [`INCARNATION_MAX`] an incarnation is accepted that others report: room for the
/// next incarnations of a node that was lied about.
pub const INCARNATION_ROOM: u64 = 1 << 20;
/// The same for an incarnation that the node itself answers with.
pub const INCARNATION_ROOM_FIRST_HAND: u64 = 1 << 40;
/// First pause of the join back-off; the longest is configured.
pub const JOIN_BACKOFF_MIN: Duration = Duration::from_millis(100);
/// A target that was found to be this very bot is looked at again after so long: addresses move.
pub const SELF_SEED_INTERVAL: Duration = Duration::from_secs(60);

/// Timeout of a call that proves an address.
pub const IDENTIFY_TIMEOUT: Duration = Duration::from_millis(1500);
/// Timeout of a join: two identifications at the other side, and the way.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of one leg of an exchange.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout of a question to a peer.
pub const INDIRECT_PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a leaving bot waits for its goodbyes.
pub const LEAVE_TIME: Duration = Duration::from_secs(1);
/// Peers that get our goodbye directly; they pass it on, unless they leave at this very moment,
/// too: with half of the mesh, one goodbye in four thousand is lost.
pub const LEAVE_PEERS: usize = 12;

/// Shortest pause between two pushes of rumours.
pub const PUSH_INTERVAL: Duration = Duration::from_millis(100);
/// Peers that one push goes to.
pub const PUSH_FANOUT: usize = 3;
/// Pushes that carry one rumour. With the fan-out it reaches all but a few in a thousand; the tick
/// finds those.
pub const PUSHES_PER_RUMOUR: u8 = 2;
/// Pushes that carry a changed row: it reaches nineteen of twenty at once, and the tick brings the
/// rest, as with all that is in rows.
pub const PUSHES_PER_ROW: u8 = 1;
/// A row asked for is not asked for elsewhere for so long.
pub const WANT_PATIENCE: Duration = Duration::from_secs(2);
/// Shortest pause between two patches of the own row: first samples come in bursts.
pub const PATCH_INTERVAL: Duration = Duration::from_millis(200);
/// A change of the state of a pair that is so many versions older than the one that is offered need
/// not be told: rows that are held are newer.
pub const CHANGE_STEPS_MAX: u64 = 64;
/// Shortest pause between two patches for the sake of latencies that jumped: on a noisy host they
/// jump all the time.
pub const JUMP_INTERVAL: Duration = Duration::from_secs(2);
/// So long after its start a bot lists names in its row that did not answer yet, and publishes more
/// often: longer than it takes to measure all of them once.
pub const YOUNG: Duration = Duration::from_secs(60);
/// A young bot lists names that did not answer yet if they are no more: enough for 1,000 bots that
/// start at one instant.
pub const UNANSWERED_LISTED: usize = 1024;
/// In meshes of up to so many nodes first samples are pushed, which makes a small mesh that starts
/// whole a second sooner. Everybody passes a push on: in larger ones that would be more than the
/// gossip rate allows.
pub const FIRSTS_PUSHED_MAX: usize = 256;
/// Shortest pause for each node between two patches of first samples, and between two frames while
/// the roster grows: what a mesh that starts has to tell grows with the square of its nodes.
pub const GROWTH_PAUSE: Duration = Duration::from_millis(2);
/// Shortest pause between two frames when the roster grows.
pub const ROSTER_FRAME_INTERVAL: Duration = Duration::from_millis(400);
/// So many such pauses a new roster waits for names that keep changing.
pub const ROSTER_PAUSES_MAX: u32 = 4;
/// A node that left keeps its place in the own row for so long: most come back at once, and every
/// change of the roster is a whole row.
pub const LEFT_LISTED: Duration = Duration::from_secs(60);
/// Share of the gossip rate that answers to others may take in all: the rest is for the own row and
/// the own digests, whatever others ask.
pub const ANSWERS_RATE_SHARE: f64 = 0.5;
/// Share of the gossip rate that answers to one peer may take, after a first whole message.
pub const ASKER_RATE_SHARE: f64 = 0.125;
/// Share of the gossip rate that rows may take, which stretches the publish interval in large
/// meshes: the rest is for what changes.
pub const ROW_RATE_SHARE: f64 = 0.28;
/// The same in a bot that is young: in a mesh that starts, others wait for its row.
pub const ROW_RATE_SHARE_AT_START: f64 = 0.6;
/// Attempts over which loss is counted.
pub const LOSS_WINDOW: u32 = 64;
/// Housekeeping: retention, silence, forgotten nodes.
pub const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// What the reasons above rely on.
const _: () = {
    const fn before(a: Duration, b: Duration) -> bool {
        a.as_nanos() < b.as_nanos()
    }
    // A question is decided before the node that it is about can die of it, refused or silent.
    assert!(before(REPEAT_DELAY, QUESTION_TIME) && before(QUESTION_TIME, DEATH_AFTER_REFUSAL));
    assert!(before(DEATH_AFTER_REFUSAL, DEATH_AFTER_SILENCE) && before(DOUBT_AFTER, QUESTION_TIME));
    // A suspicion that arrives late leaves time to ask, and no more than an early one.
    assert!(
        before(INQUIRY_PAUSE, DEATH_AFTER_REFUSAL)
            && before(LATE_SUSPICION_TIME, DEATH_AFTER_REFUSAL)
    );
    // Hearing nobody is noticed before anybody dies of it.
    assert!(before(ISOLATED_AFTER, DEATH_AFTER_SILENCE));
    // A larger incarnation is accepted before its former one is doubted behind a broken path, and
    // that before anybody is doubted for its silence.
    assert!(
        before(SUCCESSION_AFTER, BROKEN_PATH_EVIDENCE) && before(BROKEN_PATH_EVIDENCE, SILENCE_MAX)
    );
    // What waited for a stalled loop is handled before the next stall can be noticed.
    assert!(before(CATCHING_UP, STALL_MIN) && before(STALL_MIN, DOUBT_AFTER));
    // Whole frames, rosters and records fit an exchange, with a digest beside them.
    assert!(
        FRAME_BYTES_MAX <= EXCHANGE_CONTENT_BYTES_MAX
            && EXCHANGE_CONTENT_BYTES_MAX + RECORD_BYTES_MAX < EXCHANGE_BYTES_MAX
    );
    assert!(PROBE_KINDS_MAX < SECTIONS_CARRIED_MAX);
    // At two bytes a cell an honest exchange has fewer.
    assert!(EXCHANGE_CONTENT_BYTES_MAX / 2 < EXCHANGE_CELLS_MAX);
    assert!(
        ROSTER_NAMES_MAX == MEMBERS_MAX
            && UNPROVEN_MAX < MEMBERS_MAX
            && HEARD_PER_INTRODUCER_MAX < UNPROVEN_MAX
    );
    // An own incarnation can be outdone by what answers itself, and that never overflows.
    assert!(
        INCARNATION_ROOM < INCARNATION_ROOM_FIRST_HAND
            && INCARNATION_ROOM_FIRST_HAND < INCARNATION_MAX
    );
    assert!(
        before(UNPROVEN_BACKOFF.first, UNPROVEN_BACKOFF.longest)
            && before(JOINER_BACKOFF_MAX, UNPROVEN_BACKOFF.longest)
    );
};
