//! Every setting once: the one table behind flags, `MESH_` variables and the configuration file.

use std::ffi::OsString;

use canary_core::{Config, Kind, Setting};
use clap::{Arg, ArgAction, Command};

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// One value.
    One,
    /// Values separated by commas, or the flag repeated.
    Many,
    /// Nothing, or `true` and its like.
    Switch,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    /// The flag without dashes; in a file the key; in capitals with `MESH_` before it, the
    /// variable.
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) takes: Takes,
    pub(crate) value_name: &'static str,
    /// Its value where none is given, or words where that follows from something else.
    pub(crate) default: &'static str,
    /// The least and the most that it may be, if it has a range.
    pub(crate) range: Option<(&'static str, &'static str)>,
    pub(crate) help: &'static str,
}

const fn one(
    name: &'static str,
    value_name: &'static str,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, short: None, takes: Takes::One, value_name, default, range: None, help }
}

const fn many(
    name: &'static str,
    value_name: &'static str,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag { takes: Takes::Many, ..one(name, value_name, default, help) }
}

const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag { takes: Takes::Switch, ..one(name, "BOOL", "false", help) }
}

const fn short(short: char, flag: Flag) -> Flag {
    Flag { short: Some(short), ..flag }
}

/// A setting that the core describes.
const fn of_core(name: &'static str) -> Flag {
    let mut index = 0;
    while index < Config::SETTINGS.len() {
        let Setting { name: theirs, kind, default, range, help } = Config::SETTINGS[index];
        if is_same(theirs, name) {
            let value_name = if matches!(kind, Kind::Time) { "TIME" } else { "NUMBER" };
            return Flag { range: Some(range), ..one(name, value_name, default, help) };
        }
        index += 1;
    }
    panic!("the core has no such setting")
}

const fn is_same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut same = a.len() == b.len();
    let mut index = 0;
    while same && index < a.len() {
        same = a[index] == b[index];
        index += 1;
    }
    same
}

/// All settings, in the order of the help.
pub(crate) const FLAGS: &[Flag] = &[
    short(
        't',
        many(
            "target",
            "HOST:PORT",
            "none",
            "Where to join: HOST:PORT, or dns:NAME:PORT for every address of a name. May include this node's own address",
        ),
    ),
    short('n', one("name", "NAME", "host name", "Name of this node; unique in the mesh")),
    one(
        "mesh-name",
        "NAME",
        "none",
        "Name of the mesh. Bots with another name, or without one, are refused; so are bots of the original",
    ),
    one(
        "listen-address",
        "ADDRESS",
        "address of the outbound interface",
        "Address that the mesh port listens on, such as 0.0.0.0, :: or localhost",
    ),
    one("listen-port", "PORT", "8081", "Port of the mesh; 0 picks a free one"),
    one("join-address", "HOST[:PORT]", "the listen address", "Where other nodes reach this one"),
    many("label", "KEY=VALUE", "none", "Label of this node, such as zone=a"),
    one(
        "kubernetes-node",
        "NAME",
        "none",
        "Name of the Kubernetes node that this bot runs on: its zone and region become labels, if the service account may read it",
    ),
    one("api-address", "ADDRESS", "the listen address", "Address that the API port listens on"),
    short('p', one("api-port", "PORT", "8080", "Port of the API; 0 picks a free one")),
    many(
        "token",
        "TOKEN",
        "generated, printed on stdout",
        "Bearer token for the API. Prefer --token-file: other users can read a command line",
    ),
    one("token-file", "PATH", "none", "File with bearer tokens for the API, one per line"),
    one(
        "metrics-level",
        "LEVEL",
        "histograms",
        "What /metrics reports for each pair: off, pairs (counters and sums) or histograms. The number of pairs grows with the square of the nodes",
    ),
    one(
        "metrics-pairs-max",
        "NUMBER",
        "10000",
        "How many pairs /metrics/mesh reports at most, the worst first; pairs of zones are always there",
    ),
    many(
        "metrics-pin",
        "SOURCE/TARGET",
        "none",
        "Pair that /metrics/mesh reports before any other",
    ),
    one("ui", "on|off", "on", "Serve the page for browsers at / of the API port"),
    one(
        "remote-write-url",
        "URL",
        "none",
        "Where metrics are sent by Prometheus remote write, such as https://prometheus/api/v1/write",
    ),
    one(
        "remote-write-token-file",
        "PATH",
        "none",
        "File with the credentials for --remote-write-url: a bearer token, or USER:PASSWORD",
    ),
    one(
        "otlp-url",
        "URL",
        "none",
        "Where metrics are sent by OTLP over HTTP, such as http://collector:4318/v1/metrics",
    ),
    one(
        "otlp-token-file",
        "PATH",
        "none",
        "File with the credentials for --otlp-url: a bearer token, or USER:PASSWORD",
    ),
    one("push-interval", "TIME", "15s", "How often metrics are sent"),
    many(
        "push-ca-cert-path",
        "PATH",
        "the system's authorities",
        "PEM file with the certificate authorities to trust where metrics are sent to https",
    ),
    one(
        "tls",
        "MODE",
        "as the certificates given say",
        "none: plain text. edge: plain ports behind a proxy that ends TLS; other nodes are dialled with TLS. mutual: TLS with certificates on \
         both sides. A CA alone means edge; a CA, a certificate and a key mean mutual",
    ),
    one(
        "client-auth",
        "WHO",
        "required",
        "In mutual mode, whether peers must present a certificate: required, optional (while bots of the original remain) or off",
    ),
    many(
        "ca-cert-path",
        "PATH",
        "none; with --tls edge the system's authorities",
        "PEM file with the certificate authorities to trust",
    ),
    one("ca-cert", "BASE64", "none", "The authorities to trust, as base64 of the PEM text"),
    one(
        "server-cert-path",
        "PATH",
        "none",
        "PEM file with this bot's certificate and its chain, presented to bots and to API clients",
    ),
    one(
        "server-key-path",
        "PATH",
        "none",
        "PEM file with the private key of this bot's certificate",
    ),
    one(
        "server-cert",
        "BASE64",
        "none",
        "This bot's certificate and its chain, as base64 of the PEM text",
    ),
    one(
        "server-key",
        "BASE64",
        "none",
        "The private key, as base64 of the PEM text. Prefer --server-key-path: other users can read a command line",
    ),
    many(
        "mesh-token",
        "TOKEN",
        "none",
        "Token that peers must present on the mesh port; the first one is presented to other bots. Prefer --mesh-token-file",
    ),
    one("mesh-token-file", "PATH", "none", "File with mesh tokens, one per line"),
    many(
        "proxy-address",
        "ADDRESS[/BITS]",
        "none",
        "Edges behind which many clients share one address: limits per address do not hold for them",
    ),
    of_core("probe-interval"),
    of_core("probe-timeout"),
    of_core("probe-rate-max"),
    of_core("gossip-interval"),
    of_core("gossip-fanout"),
    of_core("gossip-rate-max"),
    of_core("publish-interval"),
    of_core("join-interval"),
    of_core("retain-nodes"),
    of_core("retain-samples"),
    one(
        "log-level",
        "LEVEL",
        "info",
        "error: act now; warn: look soon; info: what happens in the mesh; debug, trace: for developers",
    ),
    one("log-format", "FORMAT", "text", "text or json"),
    switch("debug", "Same as --log-level debug"),
    switch("debug-grpc", "Also log what the RPC and HTTP libraries do"),
    one("config", "PATH", "none", "Configuration file in TOML: the flags' names as keys"),
    switch("dry-run", "Check the whole configuration, say what is wrong, and end"),
    one(
        "mesh-protocol",
        "PROTOCOL",
        "auto",
        "Which protocols the mesh speaks: auto (detect bots of the original and admit them), v2 (keep them out) or v1 (speak only the \
         original's protocol: for a single new bot in a mesh of the original)",
    ),
    of_core("original-rate-max"),
    one(
        "metrics-legacy",
        "on|off",
        "on",
        "Serve the original's metrics too: node_count, and rtt where the level has histograms",
    ),
    switch("cleanup-nodes", "Accepted for compatibility with the original; cleaning is always on"),
    switch(
        "cleanup-samples",
        "Accepted for compatibility with the original; cleaning is always on",
    ),
];

/// Headings of the help: each stands before the flag with this name, and holds up to the next
/// heading.
const HEADINGS: &[(&str, &str)] = &[
    ("target", "Mesh"),
    ("api-address", "API"),
    ("remote-write-url", "Metrics that are sent"),
    ("tls", "Security"),
    ("probe-interval", "Timing and limits"),
    ("log-level", "Log"),
    ("config", "Configuration"),
    ("mesh-protocol", "Compatibility with the original, the older Go program of this name"),
];

/// What a first start takes: `-h` shows these alone.
pub(crate) const FIRST: &[&str] = &[
    "target",
    "name",
    "listen-address",
    "listen-port",
    "join-address",
    "label",
    "api-port",
    "token-file",
    "config",
    "dry-run",
];

/// The values of a setting that has few; none of any other.
pub(crate) fn choices(name: &str) -> &'static [&'static str] {
    match name {
        "tls" => &["none", "edge", "mutual"],
        "client-auth" => &["required", "optional", "off"],
        "metrics-level" => &["off", "pairs", "histograms"],
        "ui" | "metrics-legacy" => &["on", "off"],
        "log-level" => &["error", "warn", "info", "debug", "trace"],
        "log-format" => &["text", "json"],
        "mesh-protocol" => &["auto", "v1", "v2"],
        _ => &[],
    }
}

/// What to do about a value that is none of a setting's choices.
pub(crate) fn choose(name: &str) -> String {
    match choices(name) {
        [others @ .., last] if !others.is_empty() => {
            format!("choose {} or {last}", others.join(", "))
        }
        _ => unreachable!("the table lists no choices of --{name}"),
    }
}

/// All settings with their headings, in the order of the help.
pub(crate) fn with_headings() -> impl Iterator<Item = (&'static str, &'static Flag)> {
    let mut heading = "";
    FLAGS.iter().map(move |flag| {
        heading = HEADINGS
            .iter()
            .find(|(first, _)| *first == flag.name)
            .map_or(heading, |(_, heading)| heading);
        (heading, flag)
    })
}

/// The default of the setting with this name.
pub(crate) fn default(name: &str) -> &'static str {
    FLAGS.iter().find(|flag| flag.name == name).map_or("", |flag| flag.default)
}

impl Flag {
    /// The variable that sets it.
    pub(crate) fn variable(&self) -> String {
        format!("MESH_{}", self.name.to_uppercase().replace('-', "_"))
    }

    /// The flag as clap knows it. Values stay text here: they are judged together with those of the
    /// other sources.
    pub(crate) fn arg(&self) -> Arg {
        let list =
            if self.takes == Takes::Many { "; separated by commas, or repeated" } else { "" };
        let (help, default, variable) = (self.help, self.default, self.variable());
        let range =
            self.range.map(|(min, max)| format!(" [from {min} to {max}]")).unwrap_or_default();
        let help = format!("{help}{list}{range} [default: {default}] [env: {variable}]");
        let arg = Arg::new(self.name).long(self.name).value_name(self.value_name).help(help);
        let arg = match self.short {
            Some(short) => arg.short(short),
            None => arg,
        };
        match self.takes {
            Takes::One | Takes::Many => arg.action(ArgAction::Append).allow_hyphen_values(true),
            Takes::Switch => arg
                .action(ArgAction::Set)
                .overrides_with(self.name)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
        }
    }
}

/// The arguments, in which a switch and a value after it (`--debug true`) are one (`--debug=true`),
/// as with flags that take a value.
///
/// # Errors
///
/// What to write instead, if something else follows a switch.
pub(crate) fn joined(
    command: &Command,
    arguments: impl Iterator<Item = OsString>,
) -> Result<Vec<OsString>, String> {
    let mut joined: Vec<OsString> = Vec::new();
    for argument in arguments {
        let switch = joined.last().and_then(|last| last.to_str()).filter(|last| is_switch(last));
        let value = argument.to_str().filter(|value| !value.starts_with('-'));
        match (switch, value) {
            (Some(switch), Some(value)) if boolean(value).is_some() => {
                let one = format!("{switch}={value}");
                joined.pop();
                joined.push(one.into());
            }
            (Some(switch), Some(value))
                if !command.get_subcommands().any(|known| known.get_name() == value) =>
            {
                return Err(format!(
                    "canary-bot: {switch}: {value:?} does not work: write true or false, as in {switch}=false"
                ));
            }
            _ => joined.push(argument),
        }
    }
    Ok(joined)
}

fn is_switch(argument: &str) -> bool {
    argument.strip_prefix("--").is_some_and(|name| {
        FLAGS.iter().any(|flag| flag.name == name && matches!(flag.takes, Takes::Switch))
    })
}

/// A boolean in any of the spellings that Go accepts.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
