//! What a run is made from.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use canary_core::Config;

/// How the bots fare that do the observing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Observers {
    /// They run freely.
    #[default]
    Healthy,
    /// A tenth of them stops for two seconds every ten.
    Pausing,
    /// A tenth of them runs only 20 ms out of every 200.
    Starved,
}

impl Observers {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Pausing, Self::Starved];
}

impl fmt::Display for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Pausing => "pausing",
            Self::Starved => "starved",
        })
    }
}

impl FromStr for Observers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|observers| observers.to_string() == text)
            .ok_or_else(|| "choose healthy, pausing or starved".to_owned())
    }
}

/// What a run is made from; the same setup gives the same run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setup {
    /// How many bots there are at first.
    pub nodes: usize,
    /// Everything random follows from it.
    pub seed: u64,
    /// Share of packets lost, from 0 to 1.
    pub loss: f64,
    /// How the observers fare.
    pub observers: Observers,
    /// How long a phase without end lasts.
    pub lasting: Duration,
    /// How often a bot publishes its whole row.
    pub publish_interval: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            nodes: 40,
            seed: 1,
            loss: 0.0,
            observers: Observers::Healthy,
            lasting: Duration::from_secs(60),
            publish_interval: Config::default().publish_interval,
        }
    }
}
