//! What an operator may set: one table, from which the fields, their defaults, their ranges and
//! their help follow.

use std::time::Duration;

use crate::identity::MeshName;

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A time, such as `3s`.
    Time,
    /// A number, such as `50` or `0.5`.
    Number,
    /// A whole number.
    Count,
}

/// A setting of the core, as a command line describes it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name, in lower case with dashes.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its default, as it would be written.
    pub default: &'static str,
    /// The least and the most that it may be, as they would be written.
    pub range: (&'static str, &'static str),
    /// What it does, in one line.
    pub help: &'static str,
}

/// Why a [`Config`] cannot work.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A duration is outside its range.
    #[error("{name}: {}", self.why())]
    Duration {
        /// The setting.
        name: &'static str,
        /// What was given.
        value: Duration,
        /// The least that works, as the table of settings spells it.
        min: &'static str,
        /// The most that makes sense.
        max: &'static str,
    },
    /// A number is outside its range.
    #[error("{name}: {}", self.why())]
    Number {
        /// The setting.
        name: &'static str,
        /// What was given.
        value: f64,
        /// The least that works.
        min: f64,
        /// The most that makes sense.
        max: f64,
    },
}

impl ConfigError {
    /// The setting that is outside its range.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Duration { name, .. } | Self::Number { name, .. } => name,
        }
    }

    /// What is wrong and what to do, without the name.
    pub fn why(&self) -> String {
        match self {
            Self::Duration { value, min, max, .. } => {
                format!("{} is out of range; choose from {min} to {max}", spelled(*value))
            }
            Self::Number { value, min, max, .. } => {
                format!("{value} is out of range; choose from {min} to {max}")
            }
        }
    }
}

/// A value of a setting, of its [`Kind`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Of a time.
    Time(Duration),
    /// Of a number or of a whole number.
    Number(f64),
}

/// A number in the table.
const fn number(text: &str) -> f64 {
    let (bytes, mut at, mut value, mut unit) = (text.as_bytes(), 0, 0.0, 1.0);
    let mut is_fraction = false;
    while at < bytes.len() {
        match bytes[at] {
            digit @ b'0'..=b'9' => {
                value = value * 10.0 + (digit - b'0') as f64;
                unit *= if is_fraction { 10.0 } else { 1.0 };
            }
            b'.' => is_fraction = true,
            b'_' => {}
            _ => panic!("a number of the table of settings has digits and a point"),
        }
        at += 1;
    }
    value / unit
}

/// A time in the table: a whole number, and `ms`, `s` or `h`.
const fn time(text: &str) -> Duration {
    let (bytes, mut at, mut value) = (text.as_bytes(), 0, 0);
    while bytes[at].is_ascii_digit() {
        value = value * 10 + (bytes[at] - b'0') as u64;
        at += 1;
    }
    match (bytes.len() - at, bytes[at]) {
        (2, b'm') => Duration::from_millis(value),
        (1, b's') => Duration::from_secs(value),
        (1, b'h') => Duration::from_secs(value * 3600),
        _ => panic!("a time of the table of settings is in ms, s or h"),
    }
}

/// A time as an operator would write it.
fn spelled(value: Duration) -> String {
    if value.subsec_nanos() == 0 { format!("{}s", value.as_secs()) } else { format!("{value:?}") }
}

fn in_time(
    name: &'static str,
    value: Duration,
    min: &'static str,
    max: &'static str,
) -> Option<ConfigError> {
    (!(time(min)..=time(max)).contains(&value)).then_some(ConfigError::Duration {
        name,
        value,
        min,
        max,
    })
}

fn in_number(name: &'static str, value: f64, min: &str, max: &str) -> Option<ConfigError> {
    let (min, max) = (number(min), number(max));
    (!(min..=max).contains(&value)).then_some(ConfigError::Number { name, value, min, max })
}

/// What differs between the kinds of settings.
macro_rules! by_kind {
    (type Time) => {
        Duration
    };
    (type Number) => {
        f64
    };
    (type Count) => {
        u64
    };
    (read Time $text:literal) => {
        time($text)
    };
    (read Number $text:literal) => {
        number($text)
    };
    (read Count $text:literal) => {
        number($text) as u64
    };
    (check Time $name:literal $value:expr, $min:literal $max:literal) => {
        in_time($name, $value, $min, $max)
    };
    (check Number $name:literal $value:expr, $min:literal $max:literal) => {
        in_number($name, $value, $min, $max)
    };
    (check Count $name:literal $value:expr, $min:literal $max:literal) => {
        in_number($name, $value as f64, $min, $max)
    };
    (set Time $field:expr, $value:expr) => {
        if let Value::Time(value) = $value {
            $field = value
        }
    };
    (set Number $field:expr, $value:expr) => {
        if let Value::Number(value) = $value {
            $field = value
        }
    };
    (set Count $field:expr, $value:expr) => {
        if let Value::Number(value) = $value {
            $field = value as u64
        }
    };
}

macro_rules! settings {
    ($($(#[$doc:meta])* $field:ident: $kind:ident, $name:literal = $default:literal in $min:literal..=$max:literal, $help:literal;)*) => {
        /// Intervals, rates and retention of one bot. The defaults suit 3 to 2,000 hosts.
        #[derive(Clone, Debug)]
        pub struct Config {
            /// The mesh that this bot belongs to: it never joins a bot of another.
            pub mesh_name: MeshName,
            $($(#[$doc])* pub $field: by_kind!(type $kind),)*
        }

        impl Default for Config {
            fn default() -> Self {
                Self { mesh_name: MeshName::default(), $($field: by_kind!(read $kind $default),)* }
            }
        }

        impl Config {
            /// All settings but the name of the mesh, in the order of a help text.
            pub const SETTINGS: &[Setting] =
                &[$(Setting { name: $name, kind: Kind::$kind, default: $default, range: ($min, $max), help: $help },)*];

            /// Sets the setting with this name; a value of another kind, or for another name,
            /// changes nothing.
            pub fn set(&mut self, name: &str, value: Value) {
                match name {
                    $($name => by_kind!(set $kind self.$field, value),)*
                    _ => {}
                }
            }

            /// Everything that is wrong with it, all at once; empty when nothing is.
            pub fn problems(&self) -> Vec<ConfigError> {
                [$(by_kind!(check $kind $name self.$field, $min $max),)*].into_iter().flatten().collect()
            }
        }
    };
}

settings! {
    /// How often each pair is measured while the budget allows it. Shorter finds faults sooner and
    /// costs probes.
    probe_interval: Time, "probe-interval" = "3s" in "100ms"..="24h", "How often to measure each pair, while the rate limit allows it";
    /// No probe outlives this, and no reported latency is above it.
    probe_timeout: Time, "probe-timeout" = "3s" in "100ms"..="60s", "When an unanswered probe has failed";
    /// Probes per second of this bot, at most. It bounds the cost in a large mesh by stretching the
    /// pair interval, which is shown.
    probe_rate_max: Number, "probe-rate-max" = "50" in "0.1"..="10000", "Most probes per second. With more pairs each is measured less often";
    /// Probes per second of one node that takes no part in gossip, from all bots together: each of
    /// them costs such a node far more than one of ours.
    original_rate_max: Number, "original-rate-max" = "5" in "0.1"..="10000", "Most probes per second of one bot of the original, by all bots together";
    /// Every interval this bot exchanges digests with `gossip_fanout` others.
    gossip_interval: Time, "gossip-interval" = "1s" in "100ms"..="60s", "How often to exchange digests";
    /// Exchanges per gossip interval.
    gossip_fanout: Count, "gossip-fanout" = "2" in "1"..="16", "With how many nodes to exchange digests in each interval";
    /// Bytes per second that gossip may send. It stretches the publish interval, which is shown.
    gossip_rate_max: Count, "gossip-rate-max" = "256000" in "10000"..="1000000000", "Most bytes per second that gossip sends";
    /// How often the whole own row is published; changes of state travel at once.
    publish_interval: Time, "publish-interval" = "10s" in "1s"..="24h", "How often to publish all own samples; changes of state are published at once";
    /// Longest pause between two attempts to join at a target.
    join_interval: Time, "join-interval" = "3s" in "100ms"..="600s", "Longest pause between two attempts to join at a target";
    /// How long a dead or departed node is remembered, and asked for.
    retain_nodes: Time, "retain-nodes" = "24h" in "60s"..="8784h", "How long to remember and dial a dead node; lists do not show it";
    /// How long a row is kept without news of it.
    retain_samples: Time, "retain-samples" = "24h" in "60s"..="8784h", "How long to keep the samples of a node after its last update. Samples of dead nodes are not listed";
}
