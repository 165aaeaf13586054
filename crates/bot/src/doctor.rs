//! `canary-bot doctor`: looks at everything a bot with these settings needs, and says what to do
//! about what is missing.

mod seen;

use std::io::{self, ErrorKind, Write};
use std::net::TcpListener;
use std::time::Duration;

use canary_core::{Failure, Snapshot, Target};
use canary_net::Guard;
use canary_net::tls::{ClientAuth, Material, Mode};
use canary_node::{End, Once, Protocol, Seed, Unmeasured, probe_once};
use serde_json::json;

use self::seen::{
    Runs, Way, both_ways, joined, leave, local, offsets, own_target, remedy, resolved,
};
use crate::ask::Server;
use crate::error::RunError;
use crate::list::duration;
use crate::outbound;
use crate::run::described;
use crate::secrets::Secrets;
use crate::settings::{Join, Settings};
use crate::sources::Problem;
use crate::status::escaped;

/// How long one target may take to answer, and one name to be resolved.
const TARGET_PATIENCE: Duration = Duration::from_secs(5);
/// How long a bot may take to be admitted, and then to learn how others reach it: a few probe
/// intervals.
const JOIN_PATIENCE: Duration = Duration::from_secs(12);
/// Addresses of targets that are measured: a headless Service may have thousands.
const ADDRESSES_MAX: usize = 64;
/// Lines for pairs that fail; the rest is a number.
const LINES_MAX: usize = 8;
/// A bot with fewer descriptors cannot hold a mesh of some hundred hosts beside its clients.
const DESCRIPTORS_LOW: u64 = 4096;
/// A clock that is further from those of others dates samples wrongly.
const CLOCK_MILLIS_MAX: u64 = 5000;

/// What a finding means for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    Ok,
    /// Worth knowing; nothing to do.
    Note,
    /// It works, and should be changed.
    Warning,
    /// It does not work.
    Problem,
}

impl Weight {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// Writes findings as they come, and counts them.
#[derive(Debug)]
pub(crate) struct Chart<'a, W> {
    out: &'a mut W,
    /// One object for each finding, instead of lines for people.
    json: bool,
    warnings: usize,
    problems: usize,
    /// Targets that were found wrong already: once is enough.
    wrong: Vec<Target>,
}

impl<'a, W: Write> Chart<'a, W> {
    pub(crate) fn new(out: &'a mut W, json: bool) -> Self {
        Self { out, json, warnings: 0, problems: 0, wrong: Vec::new() }
    }

    fn add(
        &mut self,
        weight: Weight,
        check: &str,
        found: impl Into<String>,
        remedy: Option<&str>,
    ) -> io::Result<()> {
        self.warnings += usize::from(weight == Weight::Warning);
        self.problems += usize::from(weight == Weight::Problem);
        let found: String = found.into();
        if self.json {
            let finding = json!({ "check": check, "result": weight.as_str(), "finding": found, "remedy": remedy });
            writeln!(self.out, "{}", escaped(&finding.to_string()))?;
        } else {
            let visible = |text: &str| {
                text.chars().filter(|c| !canary_core::is_invisible(*c)).collect::<String>()
            };
            writeln!(self.out, "{:8} {check:14} {}", weight.as_str(), visible(&found))?;
            if let Some(remedy) = remedy {
                writeln!(self.out, "{:24}-> {}", "", visible(remedy))?;
            }
        }
        self.out.flush()
    }

    fn ok(&mut self, check: &str, found: impl Into<String>) -> io::Result<()> {
        self.add(Weight::Ok, check, found, None)
    }

    fn note(&mut self, check: &str, found: impl Into<String>) -> io::Result<()> {
        self.add(Weight::Note, check, found, None)
    }

    fn warn(&mut self, check: &str, found: impl Into<String>, remedy: &str) -> io::Result<()> {
        self.add(Weight::Warning, check, found, Some(remedy))
    }

    fn problem(&mut self, check: &str, found: impl Into<String>, remedy: &str) -> io::Result<()> {
        self.add(Weight::Problem, check, found, Some(remedy))
    }

    /// Mistakes of the configuration: nothing else can be looked at. They say themselves what to
    /// do.
    pub(crate) fn refuse(mut self, problems: &[Problem]) -> io::Result<bool> {
        for problem in problems {
            self.add(Weight::Problem, "settings", problem.to_string(), None)?;
        }
        self.conclude()
    }

    /// Looks at everything. Tells whether a bot with these settings works.
    pub(crate) async fn examine(
        mut self,
        settings: Settings,
        joins: bool,
    ) -> Result<bool, RunError> {
        self.all(settings, joins).await?;
        self.conclude().map_err(RunError::Stdout)
    }

    async fn all(&mut self, settings: Settings, joins: bool) -> Result<(), RunError> {
        let (_, guards, _) = Secrets::load(&settings)?;
        let guard = guards.mesh;
        self.about_settings(&settings, &guard).map_err(RunError::Stdout)?;
        self.about_host(&settings).await.map_err(RunError::Stdout)?;
        let runs = self.about_ports(&settings, &guard).await.map_err(RunError::Stdout)?;
        let answered = self.about_targets(&settings, &guard).await.map_err(RunError::Stdout)?;
        match runs {
            Runs::Here => self.ask_running(&settings).await.map_err(RunError::Stdout),
            Runs::Nothing if joins && answered == 0 && !settings.seeds.is_empty() => {
                let remedy = "correct the targets above; on the first host of a new mesh that is as it should be";
                self.warn("join", "not tried: no target answers", remedy).map_err(RunError::Stdout)
            }
            Runs::Nothing if joins && !settings.seeds.is_empty() => {
                self.join(settings, guard).await
            }
            Runs::Nothing | Runs::Another => {
                let why = match (runs, settings.seeds.is_empty()) {
                    (Runs::Another, _) => "not looked at: the mesh port is taken",
                    (_, true) => {
                        "not looked at: no target is given, and this bot waits until another names it as one"
                    }
                    (_, false) => "not looked at, as asked",
                };
                self.note("ways back", why).map_err(RunError::Stdout)
            }
        }
    }

    fn about_settings(&mut self, settings: &Settings, guard: &Guard) -> io::Result<()> {
        self.ok("settings", "all of them work together")?;
        for warning in &settings.warnings {
            self.add(Weight::Warning, "settings", warning, None)?;
        }
        self.ok("name", format!("{}, at {}", settings.name, own_target(settings)))?;
        let set = guard.tls.get();
        match &set.own {
            Some(own) => self.ok(
                "certificate",
                format!("{}, by {}, until {}", own.subject, own.issuer, own.dates.1),
            )?,
            None if settings.tls.mode == Mode::Edge => {
                self.note(
                    "certificate",
                    "the ports are plain: a proxy in front of them ends TLS (--tls edge)",
                )?;
            }
            None => {}
        }
        for authority in &set.authorities {
            self.ok("authority", format!("{}, until {}", authority.subject, authority.dates.1))?;
        }
        let has_token = !guard.tokens.get().is_empty();
        let needed = match (has_token, set.requires_certificates) {
            (true, true) => "a mesh token and a certificate",
            (true, false) => "a mesh token",
            (false, true) => "a certificate",
            (false, false) => "",
        };
        if needed.is_empty() {
            self.warn(
                "mesh port",
                "with these settings anybody who reaches it can join",
                "give --mesh-token-file, or a CA, a certificate and a key",
            )?;
        } else {
            self.ok("mesh port", format!("peers must present {needed}"))?;
        }
        if settings.api_tokens.load().is_ok_and(|tokens| tokens.is_empty()) {
            self.warn(
                "api token",
                "none is given: each start makes another",
                "canary-bot token new PATH, then --token-file PATH",
            )?;
        }
        let shut = [
            (has_token, "a mesh token is required (--mesh-token)"),
            (
                set.requires_certificates,
                "certificates are required (--client-auth optional admits them)",
            ),
            (!settings.config.mesh_name.as_str().is_empty(), "the mesh has a name (--mesh-name)"),
            (settings.protocol == Protocol::V2, "--mesh-protocol is v2"),
        ];
        let why: Vec<_> = shut.iter().filter(|(is_so, _)| *is_so).map(|(_, why)| *why).collect();
        match why.is_empty() {
            true => self.note("migration", "bots of the original Go program are admitted"),
            false => self.note(
                "migration",
                format!("bots of the original Go program are kept out: {}", why.join("; ")),
            ),
        }?;
        if settings.tls.mode == Mode::Mutual && settings.tls.client_auth != ClientAuth::Off {
            self.note("migration", "the original Go program ran in plain text with these TLS settings; here all ports speak TLS")?;
        }
        Ok(())
    }

    async fn about_host(&mut self, settings: &Settings) -> io::Result<()> {
        use rustix::process::{Resource, getrlimit};
        let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        match limit {
            u64::MAX => self.ok("descriptors", "no limit")?,
            DESCRIPTORS_LOW.. => self.ok("descriptors", format!("{limit} may be open"))?,
            _ => self.warn(
                "descriptors",
                format!("only {limit} may be open"),
                "raise the hard limit: ulimit -Hn, LimitNOFILE=",
            )?,
        }
        let listen = settings.listen.ip();
        if !outbound::is_here(listen) {
            self.problem(
                "address",
                format!("{listen} is no address of this host"),
                "correct --listen-address",
            )?;
        } else if listen.is_loopback() && !outbound::any_on_loopback(&settings.seeds) {
            let found = format!("the mesh port listens on {listen}: other hosts cannot reach it");
            match settings.found.listen {
                true => {
                    self.warn(
                        "address",
                        found,
                        "correct this host's route, or give --listen-address",
                    )?;
                }
                false => self.warn(
                    "address",
                    found,
                    "give another --listen-address, unless all bots are on this host",
                )?,
            }
        } else {
            self.ok("address", format!("the mesh port listens on {}", settings.listen))?;
        }
        let host = match &settings.join {
            Join::Target(target) => target.host().to_owned(),
            Join::Host(host) => host.clone(),
        };
        match resolved(&host, 0).await {
            Ok(addresses) if addresses.iter().any(|address| outbound::is_here(address.ip())) => {
                Ok(())
            }
            Ok(addresses) => {
                let list = joined(&addresses);
                self.note(
                    "address",
                    format!("others dial {host}, which is {list}: not this host itself, so something must forward it here"),
                )
            }
            Err(why) => self.problem(
                "address",
                format!("others dial {host}, which {why}"),
                "correct --join-address",
            ),
        }
    }

    async fn about_ports(&mut self, settings: &Settings, guard: &Guard) -> io::Result<Runs> {
        let mut runs = Runs::Nothing;
        for (flag, check, address) in [
            ("listen-port", "mesh port", settings.listen),
            ("api-port", "api port", settings.api_listen),
        ] {
            let Err(error) = TcpListener::bind(address) else {
                self.ok(check, format!("{address} is free"))?;
                continue;
            };
            if check == "api port" && runs == Runs::Here && error.kind() == ErrorKind::AddrInUse {
                self.ok(check, format!("{address} is served"))?;
                continue;
            }
            if error.kind() == ErrorKind::AddrInUse && check == "mesh port" {
                // The certificate is for the host at which others dial.
                let itself = match settings.tls.mode {
                    Mode::Mutual => Some(own_target(settings)),
                    Mode::None | Mode::Edge => {
                        Target::new(&local(address.ip()).to_string(), address.port()).ok()
                    }
                };
                let plain = Guard { tokens: guard.tokens.clone(), ..Guard::default() };
                let guard = if settings.tls.mode == Mode::Mutual { guard } else { &plain };
                let answer = match &itself {
                    Some(target) => Some(probe_once(target, TARGET_PATIENCE, guard).await),
                    None => None,
                };
                match answer {
                    Some(Ok(once)) if once.name == settings.name => {
                        self.ok(check, format!("{address}: {} runs here already", settings.name))?;
                        runs = Runs::Here;
                        continue;
                    }
                    Some(Ok(once)) => {
                        let found = format!("{address}: another bot, {}, has it", once.name);
                        self.problem(
                            check,
                            found,
                            "stop that one, or choose another --listen-port",
                        )?;
                        runs = Runs::Another;
                        continue;
                    }
                    Some(Err(_)) if self.is_asked_as(settings).await => {
                        let found = format!(
                            "{address}: {} runs here already, with another mesh token or TLS than given here",
                            settings.name
                        );
                        let remedy = "give this command the flags and variables of that bot; without them no target can be judged";
                        self.warn(check, found, remedy)?;
                        runs = Runs::Here;
                        continue;
                    }
                    Some(Err(_)) | None => {}
                }
            }
            runs = if check == "mesh port" || error.kind() != ErrorKind::AddrInUse {
                Runs::Another
            } else {
                runs
            };
            let remedy = match error.kind() {
                ErrorKind::AddrInUse => format!(
                    "another process has it (ss -ltnp): stop it, or choose another --{flag}"
                ),
                ErrorKind::PermissionDenied => {
                    format!("choose a --{flag} above 1023, or allow CAP_NET_BIND_SERVICE")
                }
                _ => "correct --listen-address or --api-address".to_owned(),
            };
            self.problem(check, format!("cannot listen on {address}: {error}"), &remedy)?;
        }
        Ok(runs)
    }

    /// Returns how many targets may admit this bot: those that answer, and those that may be bots
    /// of the original.
    async fn about_targets(&mut self, settings: &Settings, guard: &Guard) -> io::Result<usize> {
        let mut targets = Vec::new();
        for seed in &settings.seeds {
            let (Seed::Fixed(target) | Seed::Dns(target)) = seed;
            match (seed, resolved(target.host(), target.port()).await) {
                (_, Err(why)) => {
                    self.wrong.push(target.clone());
                    self.problem(
                        "target",
                        format!("{seed}: the name {why}"),
                        "correct it, or this host's resolver (/etc/resolv.conf)",
                    )?;
                }
                (Seed::Fixed(target), Ok(_)) => targets.push(target.clone()),
                (Seed::Dns(_), Ok(addresses)) => {
                    self.ok("dns", format!("{}: {}", target.host(), joined(&addresses)))?;
                    targets.extend(
                        addresses
                            .iter()
                            .filter_map(|at| Target::new(&at.ip().to_string(), at.port()).ok()),
                    );
                }
            }
        }
        if targets.len() > ADDRESSES_MAX {
            self.note(
                "target",
                format!("{} addresses; the first {ADDRESSES_MAX} are looked at", targets.len()),
            )?;
            targets.truncate(ADDRESSES_MAX);
        }
        let mut answers = Vec::new();
        for targets in targets.chunks(16) {
            let measured = targets.iter().cloned().map(|target| {
                let guard = guard.clone();
                tokio::spawn(async move { probe_once(&target, TARGET_PATIENCE, &guard).await })
            });
            for (target, measured) in targets.iter().zip(measured.collect::<Vec<_>>()) {
                answers.push((target.clone(), measured.await));
            }
        }
        let mut answered = 0;
        for (target, answer) in answers {
            let may_admit = |answer: &Result<Once, Unmeasured>| match answer {
                Ok(once) => once.name != settings.name,
                Err(failed) => failed.kind == Failure::Protocol,
            };
            answered += usize::from(answer.as_ref().is_ok_and(may_admit));
            match answer {
                Ok(Ok(Once { name, .. })) if name == settings.name => {
                    self.ok("target", format!("{target} is this bot"))?;
                }
                Ok(Ok(Once { name, timing, .. })) => {
                    self.ok(
                        "target",
                        format!(
                            "{target} answers as {name} in {}",
                            duration(timing.total().as_secs_f64())
                        ),
                    )?;
                }
                Ok(Err(Unmeasured { kind, .. }))
                    if kind == Failure::Refused && target == own_target(settings) =>
                {
                    self.note("target", format!("{target} is this bot, which does not run"))?;
                }
                Ok(Err(Unmeasured { kind, detail })) => {
                    self.wrong.push(target.clone());
                    self.problem(
                        "target",
                        format!("{target}: {} ({detail})", kind.as_str()),
                        remedy(kind),
                    )?;
                }
                Err(_) => self.problem(
                    "target",
                    format!("{target}: the measurement failed by a fault of its own"),
                    "please report it",
                )?,
            }
        }
        Ok(answered)
    }

    /// Whether the API of these settings answers as this bot.
    async fn is_asked_as(&self, settings: &Settings) -> bool {
        let answer = api_of(settings).get("/api/v2/mesh").await;
        answer.is_ok_and(|mesh| mesh["node"].as_str() == Some(settings.name.as_str()))
    }

    /// What the bot that runs here says of the ways to it.
    async fn ask_running(&mut self, settings: &Settings) -> io::Result<()> {
        let server = api_of(settings);
        let name = settings.name.as_str();
        let mut pairs_known = 0;
        for (check, key) in [("ways from here", "source"), ("ways back", "target")] {
            let asked = format!("/api/v2/pairs?{key}={}&limit=10000", crate::list::encoded(name));
            let pairs = match server.get(&asked).await {
                Ok(mut answer) => answer["pairs"].take(),
                Err(error) => {
                    let remedy = "give the same settings as that bot has, with its --token-file";
                    return self.warn(
                        check,
                        format!("the running bot cannot be asked: {error}"),
                        remedy,
                    );
                }
            };
            let other = if key == "source" { "target" } else { "source" };
            let told = pairs.as_array().into_iter().flatten().map(|pair| {
                let word = |key: &str| pair[key].as_str().unwrap_or("?").to_owned();
                let state = match pair["state"].as_str() {
                    Some("ok") => Way::Ok,
                    Some("failed") => {
                        Way::Failed(pair["failure"].as_str().unwrap_or("other").to_owned())
                    }
                    _ => Way::Unknown,
                };
                (word(other), state)
            });
            let told: Vec<_> = told.collect();
            pairs_known += told.len();
            self.ways(check, told)?;
        }
        let has_others = settings
            .seeds
            .iter()
            .any(|seed| !matches!(seed, Seed::Fixed(target) if *target == own_target(settings)));
        if pairs_known == 0 && has_others {
            let remedy = "its log says why, in `a target does not admit this bot why=`; docs/troubleshoot.md, \"The mesh does not form\", says what to do";
            self.problem("join", "the bot that runs here is alone, though it has targets", remedy)?;
        }
        self.clock(&server.get("/api/v2/nodes?limit=10000").await.map(offsets).unwrap_or_default())
    }

    /// Joins as the bot would, looks, and leaves.
    async fn join(&mut self, settings: Settings, guard: Guard) -> Result<(), RunError> {
        let mut bot = described(&settings, guard).start().await?;
        let mut seen = bot.watch();
        let admitted = seen.wait_for(|seen| {
            seen.targets.iter().any(|(_, is_in)| *is_in) && seen.present().next().is_some()
        });
        // A bot that ends shows nothing any more.
        let ended =
            match tokio::time::timeout(JOIN_PATIENCE, admitted).await.map(|seen| seen.is_ok()) {
                Ok(false) => Some(bot.ended().await),
                Ok(true) | Err(_) => None,
            };
        match ended {
            None => {}
            Some(End::NameTaken(holder)) => {
                let found =
                    format!("{} is the name of a living node at {}", settings.name, holder.target);
                return self
                    .problem("name", found, "choose another --name, or stop that one")
                    .map_err(RunError::Stdout);
            }
            Some(End::Left | End::Failed) => return Err(RunError::Failed),
        }
        if bot.snapshot().present().next().is_some() {
            // Until both directions of every pair are known, or for as long as that may take.
            let mut seen = bot.watch();
            let known = seen.wait_for(|seen| {
                both_ways(seen)
                    .iter()
                    .all(|(_, from, to)| *from != Way::Unknown && *to != Way::Unknown)
            });
            // What is not known by then is reported as such.
            let _ = tokio::time::timeout(JOIN_PATIENCE, known).await;
        }
        let seen = bot.snapshot();
        let told = self.about_mesh(&seen).map_err(RunError::Stdout);
        leave(bot).await;
        told
    }

    fn about_mesh(&mut self, seen: &Snapshot) -> io::Result<()> {
        for (target, why) in seen
            .join_problems
            .iter()
            .filter(|(target, _)| !self.wrong.contains(target))
            .cloned()
            .collect::<Vec<_>>()
        {
            let remedy = "look it up in docs/troubleshoot.md, \"The mesh does not form\"";
            self.problem("join", format!("{target} does not admit this bot: {why}"), remedy)?;
        }
        let nodes = seen.present().count();
        if nodes == 0 {
            let remedy = "correct the targets above; a bot alone measures nothing";
            return self.problem(
                "join",
                format!("no target admitted this bot within {} s", JOIN_PATIENCE.as_secs()),
                remedy,
            );
        }
        self.ok("join", format!("joined a mesh of {nodes} others, and left it again"))?;
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for (name, there, back) in both_ways(seen) {
            from.push((name.to_string(), there));
            to.push((name.to_string(), back));
        }
        self.ways("ways from here", from)?;
        self.ways("ways back", to)?;
        let offsets: Vec<_> = seen
            .present()
            .filter_map(|member| Some(member.row.as_ref()?.clock_offset_millis(seen.now)))
            .collect();
        self.clock(&offsets)
    }

    fn ways(&mut self, check: &str, ways: Vec<(String, Way)>) -> io::Result<()> {
        let all = ways.len();
        let mut failing: Vec<_> =
            ways.iter().filter(|(_, way)| matches!(way, Way::Failed(_))).collect();
        failing.sort();
        let good = ways.iter().filter(|(_, way)| *way == Way::Ok).count();
        let unknown = all - good - failing.len();
        if failing.is_empty() {
            return match unknown {
                0 => self.ok(check, format!("{good} of {all} work")),
                _ => self.warn(
                    check,
                    format!("{good} of {all} work; {unknown} not known"),
                    "look again in some seconds",
                ),
            };
        }
        for (name, way) in failing.iter().take(LINES_MAX) {
            let Way::Failed(kind) = way else { continue };
            let direction = if check == "ways back" {
                format!("{name} does not reach this bot")
            } else {
                format!("{name} is not reached")
            };
            let remedy = match check {
                "ways back" => "open the mesh port of this host to it, and look at --join-address",
                _ => "look at that host, its mesh port, and the way to it",
            };
            self.problem(check, format!("{direction}: {kind}"), remedy)?;
        }
        if failing.len() > LINES_MAX {
            self.note(check, format!("and {} more", failing.len() - LINES_MAX))?;
        }
        Ok(())
    }

    /// Milliseconds that the clocks of others are ahead of ours.
    fn clock(&mut self, offsets: &[i64]) -> io::Result<()> {
        let mut offsets = offsets.to_vec();
        offsets.sort_unstable();
        let Some(median) = offsets.get(offsets.len() / 2).copied() else {
            return self.note("clock", "not compared: no other node has published anything yet");
        };
        let direction = if median > 0 { "behind" } else { "ahead of" };
        // Rows are dated in eighths of a second, and travel: less than a second says nothing.
        let found = match median.unsigned_abs() {
            ..1000 => "within a second of the others'".to_owned(),
            millis => format!("{} {direction} the others'", duration(millis as f64 / 1000.0)),
        };
        if median.unsigned_abs() > CLOCK_MILLIS_MAX {
            self.warn("clock", found, "set this host's clock (NTP): its samples carry wrong times")
        } else {
            self.ok("clock", found)
        }
    }

    fn conclude(self) -> io::Result<bool> {
        let Self { out, json, warnings, problems, .. } = self;
        let counted = |number: usize, what: &str| {
            format!("{number} {what}{}", if number == 1 { "" } else { "s" })
        };
        if !json {
            writeln!(out, "\n{}, {}", counted(problems, "problem"), counted(warnings, "warning"))?;
        }
        out.flush()?;
        Ok(problems == 0)
    }
}

/// The API of a bot with these settings.
fn api_of(settings: &Settings) -> Server {
    let scheme = if settings.tls.mode == Mode::Mutual { "https" } else { "http" };
    let (host, port) = match (&settings.join, settings.tls.mode) {
        // The certificate is for the host at which others dial.
        (Join::Target(target), Mode::Mutual) => {
            (target.host().to_owned(), settings.api_listen.port())
        }
        (Join::Host(host), Mode::Mutual) => (host.clone(), settings.api_listen.port()),
        _ => (local(settings.api_listen.ip()).to_string(), settings.api_listen.port()),
    };
    let host =
        if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
    let ca = settings.tls.ca.iter().find_map(|material| match material {
        Material::File(path) => Some(path.clone()),
        Material::Inline { .. } => None,
    });
    let token = settings.api_tokens.load().ok().and_then(|tokens| tokens.into_iter().next());
    Server { url: format!("{scheme}://{host}:{port}"), token, ca }
}
