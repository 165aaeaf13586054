//! Settings of what is shown and sent: metrics, the page, and the log.

use std::ops::RangeInclusive;
use std::time::Duration;

use canary_net::origin::{Origin, OriginError};
use canary_net::tls::{Material, Materials, Mode};

use super::{Destination, LogSettings, Parser, time};
use crate::expiry;
use crate::sources::Problem;
use crate::tokens::TokenSource;
use crate::{Content, Metrics, MetricsLevel, PushProtocol};
use canary_core::NodeName;

impl Parser<'_> {
    pub(super) fn content(&mut self) -> Content {
        let level = self.choice("metrics-level", |value| match value {
            "off" => Some(MetricsLevel::Off),
            "pairs" => Some(MetricsLevel::Pairs),
            "histograms" => Some(MetricsLevel::Histograms),
            _ => None,
        });
        let legacy = self.choice("metrics-legacy", on_or_off);
        let page = self.choice("ui", on_or_off);
        let pairs_max = self.value("metrics-pairs-max", |value| {
            value.parse::<u32>().map_err(|_| "write a whole number")
        });
        let metrics = Metrics { level, legacy, pairs_max: pairs_max as usize };
        let pins =
            self.each("metrics-pin", "write SOURCE/TARGET, the names of two nodes", |value| {
                let (source, target) =
                    value.split_once('/').ok_or_else(|| "it has no /".to_owned())?;
                let name = |text: &str| text.parse::<NodeName>().map_err(|error| error.to_string());
                Ok::<_, String>((name(source)?, name(target)?))
            });
        Content { metrics, page, pins, pushes: Vec::new() }
    }

    /// Where metrics are sent, and whom to trust there.
    pub(super) fn destinations(&mut self) -> (Vec<Destination>, Materials) {
        const INTERVALS: RangeInclusive<Duration> =
            Duration::from_secs(1)..=Duration::from_secs(3600);
        let interval = self.value("push-interval", |value| match time(value) {
            Ok(interval) if INTERVALS.contains(&interval) => Ok(interval),
            Ok(_) => Err("choose from 1s to 1h".to_owned()),
            Err(error) => Err(error),
        });
        let mut destinations = Vec::new();
        for (protocol, url, file) in [
            (PushProtocol::RemoteWrite, "remote-write-url", "remote-write-token-file"),
            (PushProtocol::Otlp, "otlp-url", "otlp-token-file"),
        ] {
            let mut credentials = TokenSource {
                file: self.given(file).map(|(_, path)| path.into()),
                foreign: true,
                ..TokenSource::default()
            };
            if let Some((given, _)) = self.given(file) {
                if self.sources.get(url).is_none() {
                    self.problem(&given, format!("nothing is sent anywhere without --{url}"));
                }
                if let Err(error) = credentials.load() {
                    self.problem(&given, error);
                    credentials = TokenSource::default();
                }
            }
            // A query may hold a key: the value is not repeated.
            let Some((given, value)) = self.given(url) else { continue };
            match value.parse::<Origin>() {
                Ok(origin) => {
                    if credentials.file.is_some() && !origin.is_secure() {
                        self.warnings.push(format!(
                            "--{file}: the secret goes to {origin} in plain text; use https"
                        ));
                    }
                    destinations.push(Destination { protocol, origin, interval, credentials });
                }
                Err(error @ OriginError::UserInfo) => {
                    self.problem(&given, format!("{error}; give them by --{file}"));
                }
                Err(error) => self.problem(&given, format!("it does not work: {error}")),
            }
        }
        let paths = self.sources.get("push-ca-cert-path").cloned();
        let ca = paths
            .iter()
            .flat_map(|given| &given.values)
            .map(|path| Material::File(path.into()))
            .collect();
        let trust = Materials { mode: Mode::Edge, ca, ..Materials::default() };
        let is_needed = destinations.iter().any(|receiver| receiver.origin.is_secure());
        match (paths, is_needed) {
            (Some(given), _) if given.values.is_empty() => {
                self.problem(&given, "no path is given; name the file, or leave the setting out");
            }
            (Some(given), false) => {
                self.problem(&given, "nothing is sent to https; remove it, or write https");
            }
            (_, false) => return (destinations, Materials::default()),
            (_, true) => match trust.load() {
                Ok(set) => self.warnings.extend(expiry::warnings(&set)),
                Err(error) => self.problems.push(Problem(error.to_string())),
            },
        }
        (destinations, trust)
    }

    pub(super) fn log(&mut self) -> LogSettings {
        let is_level_given = self.sources.get("log-level").is_some();
        let level = self.choice("log-level", |value| value.parse().ok());
        let json = self.choice("log-format", |value| match value {
            "text" => Some(false),
            "json" => Some(true),
            _ => None,
        });
        let debug = self.switch("debug");
        let libraries = self.switch("debug-grpc");
        let is_raised = !is_level_given && (debug || libraries);
        let level = if is_raised { tracing::Level::DEBUG } else { level };
        LogSettings { level, json, libraries }
    }
}

fn on_or_off(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}
