//! What an operator may set.

use std::time::Duration;

use crate::identity::{MeshName, Record};

/// Intervals, rates and retention of one bot. The defaults suit 3 to 2,000 hosts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The mesh that this bot belongs to: it never joins a bot of another.
    pub mesh_name: MeshName,
    /// How often each pair is measured while the budget allows it. Shorter finds faults sooner and costs probes.
    pub probe_interval: Duration,
    /// No probe outlives this, and no reported latency is above it.
    pub probe_timeout: Duration,
    /// Probes per second of this bot, at most. It bounds the cost in a large mesh by stretching the pair interval, which is shown.
    pub probe_rate_max: f64,
    /// Every interval this bot exchanges digests with `gossip_fanout` others.
    pub gossip_interval: Duration,
    /// Exchanges per gossip interval.
    pub gossip_fanout: usize,
    /// Bytes per second that gossip may send. It stretches the publish interval, which is shown.
    pub gossip_rate_max: u64,
    /// How often the whole own row is published; changes of state travel at once.
    pub publish_interval: Duration,
    /// Longest pause between two attempts to join at a target.
    pub join_interval: Duration,
    /// How long a dead or departed node is remembered, and asked for.
    pub retain_nodes: Duration,
    /// How long a row is kept without news of it.
    pub retain_samples: Duration,
    /// Who takes part in gossip and can be asked about others; the rest are members that are only measured and asked for their own life. All do.
    pub takes_part: fn(&Record) -> bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mesh_name: MeshName::default(),
            probe_interval: Duration::from_secs(3),
            probe_timeout: Duration::from_secs(3),
            probe_rate_max: 50.0,
            gossip_interval: Duration::from_secs(1),
            gossip_fanout: 2,
            gossip_rate_max: 256_000,
            publish_interval: Duration::from_secs(10),
            join_interval: Duration::from_secs(3),
            retain_nodes: Duration::from_secs(24 * 3600),
            retain_samples: Duration::from_secs(24 * 3600),
            takes_part: |_| true,
        }
    }
}

/// Why a [`Config`] cannot work.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A duration is outside its range.
    #[error("{name} is {value:?}; choose between {min:?} and {max:?}")]
    Duration {
        /// The setting.
        name: &'static str,
        /// What was given.
        value: Duration,
        /// The least that works.
        min: Duration,
        /// The most that makes sense.
        max: Duration,
    },
    /// A number is outside its range.
    #[error("{name} is {value}; choose between {min} and {max}")]
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

impl Config {
    /// Everything that is wrong with it, all at once; empty when nothing is.
    pub fn problems(&self) -> Vec<ConfigError> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let durations = [
            ("probe-interval", self.probe_interval, Duration::from_millis(100), DAY),
            ("probe-timeout", self.probe_timeout, Duration::from_millis(100), Duration::from_secs(60)),
            ("gossip-interval", self.gossip_interval, Duration::from_millis(100), Duration::from_secs(60)),
            ("publish-interval", self.publish_interval, Duration::from_secs(1), DAY),
            ("join-interval", self.join_interval, Duration::from_millis(100), Duration::from_secs(600)),
            ("retain-nodes", self.retain_nodes, Duration::from_secs(60), 366 * DAY),
            ("retain-samples", self.retain_samples, Duration::from_secs(60), 366 * DAY),
        ];
        let numbers = [
            ("probe-rate-max", self.probe_rate_max, 0.1, 10_000.0),
            ("gossip-fanout", self.gossip_fanout as f64, 1.0, 16.0),
            ("gossip-rate-max", self.gossip_rate_max as f64, 10_000.0, 1e9),
        ];
        let durations = durations
            .into_iter()
            .filter(|(_, value, min, max)| !(min..=max).contains(&value))
            .map(|(name, value, min, max)| ConfigError::Duration { name, value, min, max });
        let numbers = numbers
            .into_iter()
            .filter(|(_, value, min, max)| !(min..=max).contains(&value))
            .map(|(name, value, min, max)| ConfigError::Number { name, value, min, max });
        durations.chain(numbers).collect()
    }
}
