//! From text to settings that cannot be wrong; every mistake is reported at once.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::{Content, Metrics, MetricsLevel, PushProtocol};
use base64::Engine as _;
use canary_core::{Config, Kind, Labels, MeshName, NodeName, Setting, Target, Value};
use canary_net::origin::{Origin, OriginError};
use canary_net::tls::{ClientAuth, Material, Materials, Mode};
use canary_net::{IpNet, Token};
use canary_node::{Protocol, Seed};

use crate::expiry;
use crate::sources::{Given, Problem, Sources};
use crate::tokens::TokenSource;
use crate::{flags, outbound};

/// How often metrics are sent, unless told otherwise.
const PUSH_INTERVAL: Duration = Duration::from_secs(15);

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
    /// The Kubernetes node whose labels are to be told, too.
    pub(crate) kubernetes_node: Option<String>,
    pub(crate) config: Config,
    /// Without any, one is to be generated and printed.
    pub(crate) api_tokens: TokenSource,
    /// Without any, the mesh port is open to whom TLS lets in.
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
        let listen_port = parser.port("listen-port", 8081);
        let api_port = parser.port("api-port", 8080);
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
        let protocol = parser.one("mesh-protocol", str::parse).unwrap_or_default();
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

    fn port(&mut self, name: &str, default: u16) -> u16 {
        self.one(name, |value| value.parse::<u16>().map_err(|_| "write a number from 0 to 65535"))
            .unwrap_or(default)
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
                .map_err(|error| error.to_string())?
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
                self.problem(&given, error);
            }
        }
        config
    }

    fn tokens(&mut self, name: &str, file: &str) -> TokenSource {
        // A token is a secret even when it is wrong: it is not repeated.
        let mut source = TokenSource::default();
        if let Some(given) = self.sources.get(name).cloned() {
            if given.values.is_empty() {
                self.problem(&given, "the token is empty");
            }
            for value in &given.values {
                match Token::new(value) {
                    Ok(token) => source.given.push(token),
                    Err(error) => self.problem(&given, error),
                }
            }
        }
        if let Some((given, path)) = self.given(file) {
            source.file = Some(path.into());
            if let Err(error) = source.load() {
                self.problem(&given, error);
            }
        }
        source
    }

    /// Where to join. A scheme has to be that of the mode: what was meant to be encrypted is never
    /// sent in plain text.
    fn seeds(&mut self, mode: Mode) -> Vec<Seed> {
        self.each("target", "write HOST:PORT or dns:NAME:PORT", |value| {
            let (scheme, rest) = value.split_once("://").map_or((None, value), |(scheme, rest)| (Some(scheme), rest));
            match (scheme, mode) {
                (None, _) | (Some("http"), Mode::None) | (Some("https"), Mode::Edge | Mode::Mutual) => {}
                (Some("https"), Mode::None) => {
                    return Err("nothing says how to verify it; name a CA by --ca-cert-path, or use --tls edge".to_owned());
                }
                (Some("http"), _) => return Err("this bot dials TLS only; remove http://, or the TLS settings".to_owned()),
                (Some(other), _) => return Err(format!("{other} is no scheme that bots speak")),
            }
            rest.trim_end_matches('/').parse::<Seed>().map_err(|error| error.to_string())
        })
    }

    /// What is given as base64: it is not repeated, it may be a key.
    fn inline(&mut self, name: &str) -> Option<Material> {
        let (given, value) = self.given(name)?;
        let bare: String = value.split_whitespace().collect();
        match base64::engine::general_purpose::STANDARD.decode(bare) {
            Ok(pem) => Some(Material::Inline { name: given.origin.to_string(), pem }),
            Err(_) => {
                self.problem(&given, format!("it is not base64; write the PEM file through base64 -w0, or name the file by --{name}-path"));
                None
            }
        }
    }

    fn material(&mut self, path: &str, inline: &str) -> Option<Material> {
        let file = self.given(path).map(|(_, path)| Material::File(path.into()));
        let text = self.inline(inline);
        if file.is_some() && text.is_some() {
            self.problems
                .push(Problem(format!("--{path} and --{inline} are both given; give one of them")));
        }
        file.or(text)
    }

    /// The mode that is asked for, as far as it is.
    fn pinned(&mut self) -> Option<Mode> {
        self.one("tls", |value| match value {
            "none" => Ok(Mode::None),
            "edge" => Ok(Mode::Edge),
            "mutual" => Ok(Mode::Mutual),
            _ => Err("choose none, edge or mutual"),
        })
    }

    /// Who encrypts and who verifies what, as the flag or the certificates given say.
    fn mode(&mut self) -> Mode {
        let before = self.problems.len();
        let pinned = self.pinned();
        // Mistakes in it are reported where certificates are read.
        self.problems.truncate(before);
        let any = |names: &[&str]| names.iter().any(|name| self.sources.get(name).is_some());
        let pair = any(&["server-cert-path", "server-cert", "server-key-path", "server-key"]);
        pinned.unwrap_or(match (any(&["ca-cert-path", "ca-cert"]), pair) {
            (_, true) => Mode::Mutual,
            (true, false) => Mode::Edge,
            (false, false) => Mode::None,
        })
    }

    /// Files of secrets that others on the host may read or change.
    fn exposed_files(&mut self) {
        for name in [
            "token-file",
            "mesh-token-file",
            "remote-write-token-file",
            "otlp-token-file",
            "server-key-path",
        ] {
            if let Some((_, path)) = self.given(name)
                && let Some(why) = canary_net::files::exposed(path.as_ref())
            {
                self.warnings.push(format!("{path}: {why}"));
            }
        }
    }

    /// Certificates, keys and whom to trust: all of it is read now, and whatever is wrong stops the
    /// start.
    fn tls(&mut self, mode: Mode, join: &Join) -> Materials {
        let before = self.problems.len();
        let pinned = self.pinned();
        let client_auth = self.one("client-auth", |value| match value {
            "off" => Ok(ClientAuth::Off),
            "optional" => Ok(ClientAuth::Optional),
            "required" => Ok(ClientAuth::Required),
            _ => Err("choose required, optional or off"),
        });
        let given = self.sources.get("ca-cert-path").cloned();
        if let Some(given) = given.as_ref().filter(|given| given.values.is_empty()) {
            // An unset variable of a script must not mean plain text, nor that others are trusted
            // instead.
            self.problem(given, "no path is given; name the file, or leave the setting out");
        }
        let paths = given.map(|given| given.values).unwrap_or_default();
        let ca: Vec<_> = paths
            .into_iter()
            .map(|path| Material::File(path.into()))
            .chain(self.inline("ca-cert"))
            .collect();
        let certificate = self.material("server-cert-path", "server-cert");
        let key = self.material("server-key-path", "server-key");
        let mut say = |what: &str| self.problems.push(Problem(what.to_owned()));
        if certificate.is_some() != key.is_some() {
            say(if key.is_some() {
                "a key is given without its certificate; add --server-cert-path or --server-cert"
            } else {
                "a certificate is given without its key; add --server-key-path or --server-key"
            });
        }
        let (authority, pair) = (!ca.is_empty(), certificate.is_some() || key.is_some());
        match (pinned, authority, pair) {
            (None, false, false)
            | (None, true, false)
            | (None | Some(Mode::Mutual), true, true) => {}
            (Some(Mode::None), false, false) | (Some(Mode::Edge), _, false) => {}
            (None, false, true) => {
                say(
                    "a certificate is given and no CA: nobody could be verified; add --ca-cert-path, a self-signed certificate may be its own",
                );
            }
            (Some(Mode::None), ..) => say(
                "--tls none contradicts the certificates that are given; remove one or the other",
            ),
            (Some(Mode::Edge), _, true) => {
                say(
                    "with --tls edge the ports are plain and no certificate is presented; remove it, or use --tls mutual",
                );
            }
            (Some(Mode::Mutual), ..) => {
                let needed = [
                    (authority, "--ca-cert-path"),
                    (certificate.is_some(), "--server-cert-path"),
                    (key.is_some(), "--server-key-path"),
                ];
                let missing: Vec<_> =
                    needed.iter().filter(|(given, _)| !given).map(|(_, flag)| *flag).collect();
                say(&format!("--tls mutual lacks {}", missing.join(" and ")));
            }
        }
        if client_auth.is_some() && mode != Mode::Mutual {
            say(
                "--client-auth says whom the mesh port's TLS asks for certificates, and only --tls mutual has TLS there; remove it, or add a CA, a certificate and a key",
            );
        }
        let host = match join {
            Join::Target(target) => target.host().to_owned(),
            Join::Host(host) => host.clone(),
        };
        let materials = Materials {
            mode,
            client_auth: client_auth.unwrap_or_default(),
            ca,
            certificate,
            key,
            host: Some(host),
        };
        if self.problems.len() == before {
            match materials.load() {
                Ok(set) => self.warnings.extend(expiry::warnings(&set)),
                Err(error) => self.problems.push(Problem(format!("{error}"))),
            }
        }
        materials
    }

    fn content(&mut self) -> Content {
        let level = self.one("metrics-level", |value| match value {
            "off" => Ok(MetricsLevel::Off),
            "pairs" => Ok(MetricsLevel::Pairs),
            "histograms" => Ok(MetricsLevel::Histograms),
            _ => Err("choose off, pairs or histograms"),
        });
        let legacy = self.one("metrics-legacy", |value| match value {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err("choose on or off"),
        });
        let page = self.one("ui", |value| match value {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err("choose on or off"),
        });
        let pairs_max = self.one("metrics-pairs-max", |value| {
            value.parse::<u32>().map_err(|_| "write a whole number")
        });
        let pairs_max = pairs_max.map_or(Metrics::default().pairs_max, |most| most as usize);
        let metrics =
            Metrics { level: level.unwrap_or_default(), legacy: legacy.unwrap_or(true), pairs_max };
        let pins =
            self.each("metrics-pin", "write SOURCE/TARGET, the names of two nodes", |value| {
                let (source, target) =
                    value.split_once('/').ok_or_else(|| "it has no /".to_owned())?;
                let name = |text: &str| text.parse::<NodeName>().map_err(|error| error.to_string());
                Ok::<_, String>((name(source)?, name(target)?))
            });
        Content { metrics, page: page.unwrap_or(true), pins, pushes: Vec::new() }
    }

    /// Where metrics are sent, and whom to trust there.
    fn destinations(&mut self) -> (Vec<Destination>, Materials) {
        const INTERVALS: RangeInclusive<Duration> =
            Duration::from_secs(1)..=Duration::from_secs(3600);
        let interval = self.one("push-interval", |value| match time(value) {
            Ok(interval) if INTERVALS.contains(&interval) => Ok(interval),
            Ok(_) => Err("choose from 1s to 1h".to_owned()),
            Err(error) => Err(error),
        });
        let interval = interval.unwrap_or(PUSH_INTERVAL);
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

    fn log(&mut self) -> LogSettings {
        let level = self.one("log-level", |value| {
            value.parse().map_err(|_| "choose error, warn, info, debug or trace")
        });
        let json = self.one("log-format", |value| match value {
            "text" => Ok(false),
            "json" => Ok(true),
            _ => Err("choose text or json"),
        });
        let debug = self.switch("debug");
        let libraries = self.switch("debug-grpc");
        let default = if debug || libraries { tracing::Level::DEBUG } else { tracing::Level::INFO };
        LogSettings { level: level.unwrap_or(default), json: json.unwrap_or(false), libraries }
    }

    fn switch(&mut self, name: &str) -> bool {
        self.one(name, |value| flags::boolean(value).ok_or("write true or false")).unwrap_or(false)
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
