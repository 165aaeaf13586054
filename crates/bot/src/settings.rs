//! From text to settings that cannot be wrong; every mistake is reported at once.

mod shown;
mod trust;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use canary_core::{Config, Kind, Labels, MeshName, NodeName, Setting, Target, Value};
use canary_net::IpNet;
use canary_net::origin::Origin;
use canary_net::tls::Materials;
use canary_node::{Protocol, Seed};

use crate::sources::{Given, Problem, Sources};
use crate::tokens::TokenSource;
use crate::{Content, PushProtocol, flags, outbound};

/// How much is logged, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogSettings {
    pub(crate) level: tracing::Level,
    pub(crate) json: bool,
    /// The RPC and HTTP libraries too.
    pub(crate) libraries: bool,
}

/// Where others reach this bot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    /// Exactly there.
    Target(Target),
    /// At this host and the port listened on.
    Host(String),
}

/// A whole configuration that works.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: NodeName,
    pub(crate) listen: SocketAddr,
    pub(crate) join: Join,
    pub(crate) api_listen: SocketAddr,
    pub(crate) seeds: Vec<Seed>,
    pub(crate) labels: Labels,
    /// The Kubernetes node whose labels are published, too.
    pub(crate) kubernetes_node: Option<String>,
    pub(crate) config: Config,
    /// Without any, one is to be generated and printed.
    pub(crate) api_tokens: TokenSource,
    /// Without any, the mesh port is open to those that TLS admits.
    pub(crate) mesh_tokens: TokenSource,
    pub(crate) tls: Materials,
    pub(crate) proxies: Vec<IpNet>,
    pub(crate) protocol: Protocol,
    pub(crate) content: Content,
    /// Where metrics are sent.
    pub(crate) destinations: Vec<Destination>,
    /// Whom to trust there; the system's authorities if empty.
    pub(crate) push_trust: Materials,
    pub(crate) log: LogSettings,
    pub(crate) dry_run: bool,
    pub(crate) found: Found,
    /// What works and is hardly meant.
    pub(crate) warnings: Vec<String>,
}

/// Where metrics are sent, and what is presented there.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) protocol: PushProtocol,
    pub(crate) origin: Origin,
    pub(crate) interval: Duration,
    pub(crate) credentials: TokenSource,
}

/// Which addresses nobody gave: they are those of the way out, and follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) listen: bool,
    pub(crate) api: bool,
    pub(crate) join: bool,
}

impl Settings {
    /// The same at another address of this host, as far as nobody gave one.
    #[must_use]
    pub(crate) fn moved_to(mut self, address: IpAddr) -> Self {
        if self.found.listen {
            self.listen.set_ip(address);
        }
        if self.found.api {
            self.api_listen.set_ip(address);
        }
        if self.found.join {
            self.join = Join::Host(address.to_string());
            self.tls.host = Some(address.to_string());
        }
        self
    }
}

/// Reads settings and keeps what is wrong with them.
struct Parser<'a> {
    sources: &'a Sources,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Settings {
    /// Parses all settings, or tells everything that is wrong with them.
    pub(crate) fn parse(sources: &Sources, problems: Vec<Problem>) -> Result<Self, Vec<Problem>> {
        let mut parser = Parser { sources, problems, warnings: Vec::new() };
        let name = parser.name();
        let listen_port = parser.port("listen-port");
        let api_port = parser.port("api-port");
        let listen_ip = parser.address("listen-address");
        let api_ip = parser.address("api-address").or(listen_ip);
        let mode = parser.mode();
        let seeds = parser.seeds(mode);
        let outbound = outbound::address(&seeds);
        let reachable = listen_ip.filter(|ip| !ip.is_unspecified());
        let join = parser.join(reachable.unwrap_or(outbound));
        let found = Found {
            listen: listen_ip.is_none(),
            api: api_ip.is_none(),
            join: reachable.is_none() && sources.get("join-address").is_none(),
        };
        let tls = parser.tls(mode, &join);
        let labels = parser.labels();
        let kubernetes_node = parser.given("kubernetes-node").map(|(_, name)| name);
        let config = parser.config();
        let api_tokens = parser.tokens("token", "token-file");
        let mesh_tokens = parser.tokens("mesh-token", "mesh-token-file");
        let proxies = parser.each(
            "proxy-address",
            "write an address, or a network such as 10.0.0.0/8",
            network,
        );
        let content = parser.content();
        let (destinations, push_trust) = parser.destinations();
        let protocol = parser.choice("mesh-protocol", |value| value.parse().ok());
        let log = parser.log();
        let token_given =
            ["mesh-token", "mesh-token-file"].iter().any(|name| sources.get(name).is_some());
        if protocol == Protocol::V1 && token_given {
            let words = "--mesh-protocol v1 is for a mesh of the original's bots, which cannot present a mesh token; remove one or the other";
            parser.problems.push(Problem(words.to_owned()));
        }
        for accepted in ["cleanup-nodes", "cleanup-samples"] {
            parser.switch(accepted);
        }
        let dry_run = parser.switch("dry-run");
        parser.repeated_flags();
        parser.exposed_files();
        let listen = SocketAddr::new(listen_ip.unwrap_or(outbound), listen_port);
        let api_listen = SocketAddr::new(api_ip.unwrap_or(outbound), api_port);
        if listen == api_listen && listen.port() != 0 {
            parser
                .problems
                .push(Problem(format!("the mesh and the API cannot both listen on {listen}; change --listen-port or --api-port")));
        }
        let Parser { problems, warnings, .. } = parser;
        match name {
            Some(name) if problems.is_empty() => Ok(Self {
                name,
                listen,
                join,
                api_listen,
                seeds,
                labels,
                kubernetes_node,
                config,
                api_tokens,
                mesh_tokens,
                tls,
                proxies,
                protocol,
                content,
                destinations,
                push_trust,
                log,
                dry_run,
                found,
                warnings,
            }),
            _ => Err(problems),
        }
    }
}

impl Parser<'_> {
    fn given(&self, name: &str) -> Option<(Given, String)> {
        let given = self.sources.get(name)?.clone();
        let value = given.values.last()?.clone();
        Some((given, value))
    }

    /// A flag with one value that is there twice is hardly meant: the last one counts.
    fn repeated_flags(&mut self) {
        for flag in flags::FLAGS.iter().filter(|flag| flag.takes == flags::Takes::One) {
            if let Some(given) = self.sources.get(flag.name)
                && given.values.len() > 1
            {
                let words = format!(
                    "{} is given {} times; the last one counts",
                    given.origin,
                    given.values.len()
                );
                self.warnings.push(words);
            }
        }
    }

    fn problem(&mut self, given: &Given, what: impl Display) {
        self.problems.push(Problem(format!("{}: {what}", given.origin)));
    }

    fn one<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let (given, value) = self.given(name)?;
        match parse(&value) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.problem(&given, format!("{value:?} does not work: {error}"));
                None
            }
        }
    }

    fn each<T, E: Display>(
        &mut self,
        name: &str,
        remedy: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let Some(given) = self.sources.get(name).cloned() else {
            return Vec::new();
        };
        let mut parsed = Vec::new();
        for value in &given.values {
            match parse(value) {
                Ok(value) => parsed.push(value),
                Err(error) => {
                    // Some errors tell what to do themselves.
                    let error = error.to_string();
                    let advice =
                        if error.contains(';') { error } else { format!("{error}; {remedy}") };
                    self.problem(&given, format!("{value:?} does not work: {advice}"));
                }
            }
        }
        parsed
    }

    fn name(&mut self) -> Option<NodeName> {
        if self.sources.get("name").is_some() {
            return self.one("name", NodeName::from_str);
        }
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        match host.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                self.problems.push(Problem(format!(
                    "--name is not given, and the host name {host:?} is none: {error}"
                )));
                None
            }
        }
    }

    /// The same for a setting that always has a value: where none is given, the table's default.
    fn value<T, E: Display>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, E>) -> T {
        self.one(name, &parse).unwrap_or_else(|| match parse(flags::default(name)) {
            Ok(default) => default,
            Err(error) => panic!("the default of --{name} does not work: {error}"),
        })
    }

    /// One of the few values that the table lists.
    fn choice<T>(&mut self, name: &str, parse: impl Fn(&str) -> Option<T>) -> T {
        self.value(name, |value| parse(value).ok_or_else(|| flags::choose(name)))
    }

    fn port(&mut self, name: &str) -> u16 {
        self.value(name, |value| value.parse::<u16>().map_err(|_| "write a number from 0 to 65535"))
    }

    /// An address to listen on; of a name's addresses an IPv4 one is preferred, as the original
    /// does.
    fn address(&mut self, name: &str) -> Option<IpAddr> {
        self.one(name, |value| {
            let bare =
                value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(value);
            if let Ok(ip) = bare.parse::<IpAddr>() {
                return Ok(ip);
            }
            if bare.parse::<SocketAddr>().is_ok() {
                return Err("write the address alone; ports have settings of their own".to_owned());
            }
            let found: Vec<_> = (bare, 0)
                .to_socket_addrs()
                .map_err(|error| {
                    format!("it is no address, and no name that this host knows ({error}); write an address of this host, or 0.0.0.0 or :: for all")
                })?
                .map(|address| address.ip())
                .collect();
            found
                .iter()
                .find(|ip| ip.is_ipv4())
                .or(found.first())
                .copied()
                .ok_or_else(|| "the name has no address".to_owned())
        })
    }

    fn join(&mut self, reachable: IpAddr) -> Join {
        let given = self.one("join-address", |value| {
            let with_port = value.parse::<Target>();
            // Without a port: the port does not matter for judging the host.
            let target = with_port.clone().or_else(|_| Target::new(value, 1));
            let target =
                target.map_err(|_| "write HOST or HOST:PORT, IPv6 addresses in brackets")?;
            if target.host().parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
                return Err(
                    "nobody can dial it; write the address at which others reach this host",
                );
            }
            Ok(with_port.map_or_else(|_| Join::Host(target.host().to_owned()), Join::Target))
        });
        given.unwrap_or_else(|| Join::Host(reachable.to_string()))
    }

    fn labels(&mut self) -> Labels {
        let pairs = self.each("label", "write KEY=VALUE", |value| {
            let (key, value) = value.split_once('=').ok_or("it has no =")?;
            Ok::<_, &str>((key.to_owned(), value.to_owned()))
        });
        let mut keys = BTreeSet::new();
        let twice: BTreeSet<_> =
            pairs.iter().map(|(key, _)| key).filter(|key| !keys.insert(*key)).cloned().collect();
        for key in twice {
            if let Some((given, _)) = self.given("label") {
                self.problem(&given, format!("{key:?} is given more than once; give it one value"));
            }
        }
        match Labels::new(pairs) {
            Ok(labels) => labels,
            Err(error) => {
                if let Some((given, _)) = self.given("label") {
                    self.problem(&given, error);
                }
                Labels::default()
            }
        }
    }

    fn config(&mut self) -> Config {
        let mesh_name = self.one("mesh-name", MeshName::from_str).unwrap_or_default();
        let mut config = Config { mesh_name, ..Config::default() };
        for Setting { name, kind, .. } in Config::SETTINGS {
            let value = match kind {
                Kind::Time => self.one(name, time).map(Value::Time),
                Kind::Number => self
                    .one(name, |value| value.parse().map_err(|_| "write a number"))
                    .map(Value::Number),
                Kind::Count => self
                    .one(name, |value| value.parse::<u64>().map_err(|_| "write a whole number"))
                    .map(|n| Value::Number(n as f64)),
            };
            value.into_iter().for_each(|value| config.set(name, value));
        }
        for error in config.problems() {
            if let Some((given, _)) = self.given(error.name()) {
                self.problem(&given, error.why());
            }
        }
        config
    }

    fn switch(&mut self, name: &str) -> bool {
        self.value(name, |value| flags::boolean(value).ok_or("write true or false"))
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address).ok_or_else(|| "it is no address and no network".to_owned())
}

/// A length of time, for settings and for arguments of commands.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    // The library's words are about letters of the text.
    humantime::parse_duration(text)
        .map_err(|_| "it is no length of time; write one such as 3s, 500ms or 24h".to_owned())
}
