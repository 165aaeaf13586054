//! Every bound and every figure of the model, with its reason.

use std::time::Duration;

/// How often to observe: faster shows nothing new, for rows change every few seconds.
pub const OBSERVE_INTERVAL: Duration = Duration::from_secs(1);

/// Open incidents at most. A mesh with more causes than this has one cause that the model does not
/// know.
pub const OPEN_MAX: usize = 64;
/// Closed incidents that are kept, newest first.
pub const CLOSED_MAX: usize = 128;
/// How long a closed incident is kept.
pub const CLOSED_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Events that are kept; a reader that is further behind misses some, and sees so by their sequence
/// numbers.
pub const EVENTS_MAX: usize = 256;

/// Pairs whose usual latency is remembered, at 6 bytes each: 1,200 nodes. In a larger mesh failures
/// are explained, slowness and loss are not.
pub const QUALITY_PAIRS_MAX: usize = 1_200 * 1_200;

/// Causes that one observation finds at most.
pub(crate) const CAUSES_MAX: usize = 48;
/// Candidates of one shape that are weighed in one round: those with the most unexplained failures.
pub(crate) const CANDIDATES_MAX: usize = 16;
/// Nodes that are found to reach both sides of a cut, at most.
pub(crate) const BRIDGES_MAX: usize = 32;
/// Groups on the larger side of a block that are named each for itself.
pub(crate) const PARTS_MAX: usize = 3;
/// Bad pairs up to which the side of a block is tried node by node: it is only of use where bad
/// pairs are few and scattered.
pub(crate) const REFINED_PAIRS_MAX: usize = 4_000;
/// Values of a label beyond which it names nodes rather than groups.
pub(crate) const GROUPS_MAX: usize = 64;
/// Groups in all; further keys, by their names, make none.
pub(crate) const ALL_GROUPS_MAX: usize = 256;

/// Part of its price that a cause has still to pay that is stated already: two causes that explain
/// alike must not alternate.
pub(crate) const INCUMBENT_PRICE: f64 = 0.25;

/// A row that is older than this is silent, unless rows of this mesh are published less often.
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(20);

/// Nodes that vanish together by more than this did not vanish by one cause.
pub(crate) const TOGETHER: Duration = Duration::from_secs(6);

/// Samples after which a pair's usual latency is known.
pub(crate) const WARM: u8 = 8;
/// A pair is slow from 1.5 times its usual latency on (in quarters of a step of the latency code,
/// 0.042 % each), and by at least [`SLOW_MIN`].
pub(crate) const SLOW_STEPS: u16 = 962;
/// Less than this is noise of the hosts.
pub(crate) const SLOW_MIN: Duration = Duration::from_millis(5);

/// A source publishes at once that a pair works again, and others know it after this time. So if a
/// failure stands longer, the next attempt failed, too.
pub(crate) const NEWS_TRAVEL: Duration = Duration::from_secs(2);
/// How much longer a block waits for the last few rows.
pub(crate) const NEWS_LATE: Duration = Duration::from_secs(5);
/// After this time a cause is stated even if rows are still missing, with low confidence.
pub(crate) const NEWS_WITHIN: Duration = Duration::from_secs(120);
/// How long an attempt to measure a pair takes at most, by default.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(3);
/// Within this time after a failure it is tried again, twice.
pub(crate) const REPEATED_WITHIN: Duration = Duration::from_millis(2500);

/// A cause is stated once it has explained the matrix for this long: by then all rows that the
/// fault changes have arrived.
pub(crate) const HOLD: Duration = Duration::from_secs(4);
/// The same for a block of one direction: the rows from the other side arrive later where few nodes
/// still reach both.
pub(crate) const HOLD_ONE_WAY: Duration = Duration::from_secs(8);
/// A cause that blames other nodes from second to second is stated after so many times as long.
pub(crate) const UNSETTLED_HOLDS: u32 = 3;
/// One good pair for so many bad ones does not put a node's fault in doubt.
pub(crate) const CONTRADICTED: usize = 10;
/// A cause that is not the best for so long was never one.
pub(crate) const GAP: Duration = Duration::from_secs(3);
/// The same for slowness and loss, which come and go.
pub(crate) const HOLD_QUALITY: Duration = Duration::from_secs(8);
/// The same for slowness and loss between groups without a name: which nodes are on which side is
/// seen only after every row came more than once.
pub(crate) const HOLD_SCATTERED: Duration = Duration::from_secs(20);
/// An incident is closed once nothing has spoken for it for this long.
pub(crate) const CLOSE_AFTER: Duration = Duration::from_secs(10);
/// The same for slowness and loss.
pub(crate) const CLOSE_QUALITY_AFTER: Duration = Duration::from_secs(30);
/// An incident that opens again so soon after it was closed is the same one.
pub(crate) const REOPENED_WITHIN: Duration = Duration::from_secs(600);
/// The longest time without evidence before an incident that keeps coming back is closed.
pub(crate) const CLOSE_AFTER_MAX: Duration = Duration::from_secs(120);

/// How long it is remembered that a cause is over: by then, in a mesh of up to 1,000, every pair was
/// measured again and published.
pub(crate) const OVER_KEPT: Duration = Duration::from_secs(180);
/// Causes that are remembered at most, the latest: all that one observation can find.
pub(crate) const OVER_MAX: usize = CAUSES_MAX;

/// Remaining validity from which an expiring certificate is reported, and from which it is
/// critical.
pub(crate) const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);
pub(crate) const EXPIRY_CRITICAL: Duration = Duration::from_secs(24 * 3600);
/// How long a bot of the original must be taken for stuck before it is an incident: one that was
/// only slow has admitted somebody by then.
pub(crate) const STUCK_HOLD: Duration = Duration::from_secs(10);
/// How long a target may not answer, or a name be taken, before it is an incident.
pub(crate) const SOON_HOLD: Duration = Duration::from_secs(60);

/// How long a mesh may be of several releases without any node changing its own: a rolling upgrade
/// that goes on is none.
pub(crate) const SKEW_HOLD: Duration = Duration::from_secs(3600);

/// Names that a sentence lists before it counts the rest.
pub(crate) const NAMES_LISTED: usize = 3;
