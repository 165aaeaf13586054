//! Every setting once: the one table behind flags, `MESH_` variables and the configuration file.

use canary_core::{Config, Kind, Setting};
use clap::{Arg, ArgAction};

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// One value.
    One,
    /// Values separated by commas, or the flag repeated.
    Many,
    /// Nothing, or `=true` and its like.
    Switch,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    /// The flag without dashes; in a file the key; in capitals with `MESH_` before it, the variable.
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) takes: Takes,
    pub(crate) value_name: &'static str,
    /// Shown in the help; the value itself is set where the setting is read.
    pub(crate) default: &'static str,
    pub(crate) help: &'static str,
}

const fn one(name: &'static str, value_name: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, takes: Takes::One, value_name, default, help }
}

const fn many(name: &'static str, value_name: &'static str, default: &'static str, help: &'static str) -> Flag {
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
        let Setting { name: theirs, kind, default, help } = Config::SETTINGS[index];
        if is_same(theirs, name) {
            return one(name, if matches!(kind, Kind::Time) { "TIME" } else { "NUMBER" }, default, help);
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
            "Where to join: HOST:PORT, or dns:NAME:PORT for every address of a name. The own address may be among them",
        ),
    ),
    short('n', one("name", "NAME", "host name", "Name of this node, unique in the mesh")),
    one(
        "mesh-name",
        "NAME",
        "none",
        "Name of the mesh: bots of another name, or of none, are refused, and bots of the original stay outside",
    ),
    one(
        "listen-address",
        "ADDRESS",
        "address of the outbound interface",
        "Address that the mesh port listens on, such as 0.0.0.0, :: or localhost",
    ),
    one("listen-port", "PORT", "8081", "Port of the mesh; 0 takes a free one"),
    one("join-address", "HOST[:PORT]", "the listen address", "Where other nodes reach this one"),
    one("api-address", "ADDRESS", "the listen address", "Address that the API port listens on"),
    short('p', one("api-port", "PORT", "8080", "Port of the API; 0 takes a free one")),
    many(
        "token",
        "TOKEN",
        "generated, printed on stdout",
        "Any of these opens the API. Better kept in a file: command lines are seen by others",
    ),
    one("token-file", "PATH", "none", "File with tokens that open the API, one a line"),
    many("label", "KEY=VALUE", "none", "A fact about this node, such as zone=a"),
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
        "metrics-level",
        "LEVEL",
        "histograms",
        "What /metrics tells of each pair: off, pairs (counters and sums) or histograms; a mesh has pairs by the square of its nodes",
    ),
    one("metrics-legacy", "on|off", "on", "The original's metrics: node_count, and rtt where the level has histograms"),
    switch("cleanup-nodes", "Accepted for the original's sake: cleaning is always on"),
    switch("cleanup-samples", "Accepted for the original's sake: cleaning is always on"),
    one("log-level", "LEVEL", "info", "error: act now; warn: look soon; info: what happens in the mesh; debug, trace: for developers"),
    one("log-format", "FORMAT", "text", "text or json"),
    switch("debug", "The same as --log-level debug"),
    switch("debug-grpc", "Log what the RPC and HTTP libraries do, too"),
    one(
        "tls",
        "MODE",
        "as the certificates given say",
        "none: plain text. edge: plain ports behind an edge that ends TLS, which is verified when others are dialled. mutual: TLS with certificates \
         of both sides. A CA alone means edge; a CA, a certificate and a key mean mutual",
    ),
    one(
        "client-auth",
        "WHO",
        "required",
        "In mutual mode, whether the mesh port wants certificates: required, optional (while bots of the original remain) or off",
    ),
    many("ca-cert-path", "PATH", "none; with --tls edge the system's authorities", "PEM file with the certificates of those to trust"),
    one("ca-cert", "BASE64", "none", "The same, given as base64"),
    one(
        "server-cert-path",
        "PATH",
        "none",
        "PEM file with this bot's certificate and what leads from it to the CA; it is presented to bots and to clients",
    ),
    one("server-key-path", "PATH", "none", "PEM file with its private key"),
    one("server-cert", "BASE64", "none", "The certificate, given as base64"),
    one("server-key", "BASE64", "none", "The key, given as base64. Better kept in a file: command lines are seen by others"),
    many(
        "mesh-token",
        "TOKEN",
        "none",
        "Whoever talks on the mesh port has to present one of these; the first is presented to others. Better kept in a file",
    ),
    one("mesh-token-file", "PATH", "none", "File with such tokens, one a line"),
    one(
        "mesh-protocol",
        "PROTOCOL",
        "auto",
        "Which protocols the mesh speaks: auto (bots of the original are found out and taken in), v2 (they stay outside) or v1 (whoever is dialled is \
         taken for one of them: for a bot that is alone among them)",
    ),
    many(
        "proxy-address",
        "ADDRESS[/BITS]",
        "none",
        "Edges behind which many clients share one address: limits per address do not hold for them",
    ),
    one("config", "PATH", "none", "Configuration file in TOML: the flags' names as keys"),
    switch("dry-run", "Check the whole configuration, say what is wrong, and end"),
];

impl Flag {
    /// The variable that sets it.
    pub(crate) fn variable(&self) -> String {
        format!("MESH_{}", self.name.to_uppercase().replace('-', "_"))
    }

    /// The flag as clap knows it. Values stay text here: they are judged together with those of the other sources.
    pub(crate) fn arg(&self) -> Arg {
        let list = if self.takes == Takes::Many { "; separated by commas, or repeated" } else { "" };
        let help = format!("{}{list} [default: {}] [env: {}]", self.help, self.default, self.variable());
        let arg = Arg::new(self.name).long(self.name).value_name(self.value_name).help(help);
        let arg = match self.short {
            Some(short) => arg.short(short),
            None => arg,
        };
        match self.takes {
            Takes::One => arg.action(ArgAction::Set).overrides_with(self.name).allow_hyphen_values(true),
            Takes::Many => arg.action(ArgAction::Append).allow_hyphen_values(true),
            Takes::Switch => {
                arg.action(ArgAction::Set).overrides_with(self.name).num_args(0..=1).require_equals(true).default_missing_value("true")
            }
        }
    }
}
