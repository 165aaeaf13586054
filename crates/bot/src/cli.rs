//! The command line.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};

use crate::ask::Server;
use crate::demo::{BOTS_MAX, Demo};
use crate::doctor::Chart;
use crate::error::RunError;
use crate::grid::{Grid, METRICS};
use crate::list::{Form, List};
use crate::ping::Ping;
use crate::run::Ended;
use crate::settings::Settings;
use crate::sources::{Problem, Sources};
use crate::status::Status;
use crate::{assets, demo, effective, flags, issue, logs, manual, run, settings, top};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const UNHEALTHY: u8 = 3;
const NAME_TAKEN: u8 = 4;

const EXIT_CODES: &str = "Examples:\n  \
     canary-bot demo\n  \
     canary-bot --name eagle --target bird-owl:8081 --target bird-hawk:8081\n  \
     canary-bot status --server http://bird-owl:8080 --token-file /etc/canary-bot/api-token\n\n\
     Exit codes: 0 ok, 1 failed, 2 usage or configuration, 4 the name is taken by a living node.\n\
     Settings: flag before environment before configuration file before default. An empty variable is unset.";

/// Runs the command that this process was started with.
pub fn main() -> ExitCode {
    let command = command();
    let arguments = match flags::joined(&command, std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(mistake) => {
            let _ = writeln!(io::stderr(), "{mistake}");
            return ExitCode::from(USAGE);
        }
    };
    if arguments.len() == 2 && arguments[1] == "-h" {
        let _ = io::stdout().write_all(manual::short_help(command).as_bytes());
        return ExitCode::SUCCESS;
    }
    let matches = match command.try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return manual::answer(&error, USAGE),
    };
    let result = match matches.subcommand() {
        Some(("demo", matches)) => run_demo(matches),
        Some(("status", matches)) => status(matches),
        Some(("nodes", matches)) => nodes(matches),
        Some(("pairs", matches)) => pairs(matches),
        Some(("matrix", matches)) => matrix(matches),
        Some(("events", matches)) => events(matches),
        Some(("top", matches)) => show_top(matches),
        Some(("check", matches)) => check(matches),
        Some(("probe", matches)) => probe(matches),
        Some(("doctor", matches)) => doctor(matches),
        Some(("config", matches)) => config(matches),
        Some(("tls", matches)) => match matches.subcommand() {
            Some((_, matches)) => tls_dev(matches),
            None => Ok(ExitCode::from(USAGE)),
        },
        Some(("token", matches)) => match matches.subcommand() {
            Some((_, matches)) => token_new(matches),
            None => Ok(ExitCode::from(USAGE)),
        },
        Some(("assets", matches)) => assets(matches),
        Some(("completion", matches)) => completion(matches),
        Some(("man", matches)) => man(matches),
        Some(("run", matches)) => run_bot(matches),
        _ => run_bot(&matches),
    };
    result.unwrap_or_else(|error| {
        // The reader closed the pipe: it has seen enough.
        if !matches!(&error, RunError::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            report(&error);
        }
        ExitCode::from(FAILED)
    })
}

fn command() -> Command {
    let settings =
        || flags::with_headings().map(|(heading, flag)| flag.arg().help_heading(heading));
    Command::new("canary-bot")
        .version(crate::VERSION)
        .about("Measures the network between the hosts of a distributed system by a communicating mesh")
        .after_help(EXIT_CODES)
        .args(settings())
        .args_conflicts_with_subcommands(true)
        .max_term_width(110)
        .subcommand(Command::new("run").about("Run the bot (the default)").args(settings()).after_help(EXIT_CODES))
        .subcommand(
            Command::new("demo")
                .about("Run a whole mesh in this process on loopback, and show it")
                .arg(
                    Arg::new("bots")
                        .long("bots")
                        .value_name("NUMBER")
                        .help(format!("How many bots, from 2 to {BOTS_MAX}"))
                        .default_value("5")
                        .value_parser(value_parser!(u64).range(2..=BOTS_MAX as u64)),
                )
                .arg(
                    Arg::new("for")
                        .long("for")
                        .value_name("TIME")
                        .help("End after this time, such as 10s: with 0 if the matrix was whole, with 1 if not")
                        .value_parser(settings::time),
                )
                .arg(
                    Arg::new("fault")
                        .long("fault")
                        .value_name("FAULT")
                        .help("Break something after some seconds, and show what is said of it")
                        .value_parser(clap::builder::EnumValueParser::<demo::Fault>::new()),
                ),
        )
        .subcommand(
            Command::new("status")
                .about("Ask a bot what is wrong with its mesh: the verdict, the counts, and every open incident")
                .args(server_args())
                .arg(Arg::new("json").long("json").action(clap::ArgAction::SetTrue).help("Write JSON"))
                .after_help("Exit codes: 0 nothing critical is open, 1 the bot could not be asked, 2 usage, 3 something critical is open."),
        )
        .subcommands(asking())
        .subcommand(probing())
        .subcommand(
            Command::new("doctor")
                .about("Check what the bot needs on this host: settings, addresses, ports, targets, and the ways back")
                .args(settings())
                .args([
                    switch("no-join", "Do not join the mesh for some seconds, which tells whether others reach this host"),
                    switch("json", "Write a JSON object for each finding"),
                ])
                .after_help(
                    "Takes the settings of the bot, from the same flags, variables and files. Where that bot runs already it is asked; else the mesh \
                     is joined under its name and left again.\n\
                     Exit codes: 0 no problem, 1 it could not be looked at, 2 usage, 3 a problem was found.",
                ),
        )
        .subcommand(
            Command::new("config")
                .about("Write, check or show the configuration of a bot")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(Command::new("init").about("Write a configuration file with every setting as a comment to stdout"))
                .subcommand(
                    Command::new("check")
                        .about("Check the whole configuration, say everything that is wrong, and end; as --dry-run")
                        .args(settings())
                        .after_help("Exit codes: 0 it works, 2 it does not."),
                )
                .subcommand(
                    Command::new("show")
                        .about("Show every setting with its value and who set it; secrets are hidden")
                        .args(settings())
                        .args(form_args())
                        .after_help("Exit codes: 0 ok, 2 something cannot be read."),
                ),
        )
        .subcommand(
            Command::new("tls").about("Make certificates to try TLS with").subcommand_required(true).arg_required_else_help(true).subcommand(
                Command::new("dev")
                    .about("Make a certificate authority for development, and a certificate for each host")
                    .arg(
                        Arg::new("host")
                            .required(true)
                            .num_args(1..)
                            .value_name("NAME[,NAME]")
                            .help("Names and addresses at which a host is dialled; the first names the files"),
                    )
                    .arg(Arg::new("directory").long("directory").value_name("PATH").default_value("tls").help("Where to write")),
            ),
        )
        .subcommand(
            Command::new("token").about("Make tokens").subcommand_required(true).arg_required_else_help(true).subcommand(
                Command::new("new")
                    .about("Write a random token to a new file that only its owner can read")
                    .arg(Arg::new("path").required(true).value_name("PATH").help("The file; none may be there yet")),
            ),
        )
        .subcommand(
            Command::new("assets")
                .about("Write files that come with the program: dashboards, alerts, a systemd unit, the interfaces")
                .arg(Arg::new("kind").required(true).value_name("KIND").help("What to write").value_parser(
                    clap::builder::PossibleValuesParser::new(assets::kinds().collect::<Vec<_>>()),
                ))
                .arg(Arg::new("directory").value_name("PATH").default_value(".").help("Where to write it"))
                .arg(switch("force", "Replace files that are there already")),
        )
        .subcommand(
            Command::new("completion")
                .about("Write a completion script for a shell")
                .arg(Arg::new("shell").required(true).value_parser(value_parser!(clap_complete::Shell))),
        )
        .subcommand(Command::new("man").about("Write the manual page, or that of a command").arg(Arg::new("command").value_parser([
            "run",
            "demo",
            "status",
            "nodes",
            "pairs",
            "matrix",
            "events",
            "top",
            "check",
            "probe",
            "doctor",
            "config",
            "tls",
            "token",
            "assets",
            "completion",
            "man",
        ])))
}

/// The commands that ask a bot, besides `status`.
fn asking() -> [Command; 6] {
    let command = |name: &'static str, about: &'static str| {
        Command::new(name).about(about).args(server_args())
    };
    let one_of = |name: &'static str, help: &'static str, values: &'static [&'static str]| {
        Arg::new(name)
            .long(name)
            .value_name(name.to_uppercase())
            .help(help)
            .value_parser(clap::builder::PossibleValuesParser::new(values))
    };
    let named = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("NAME").help(help)
    };
    let metric = || one_of("metric", "What to show", &METRICS).default_value("total");
    [
        command("nodes", "List all nodes that a bot knows, dead ones too").args(form_args()).arg(
            one_of("state", "Only nodes in this state", &["alive", "suspect", "dead", "left"]),
        ),
        command("pairs", "List the pairs of all nodes, each direction by itself")
            .args(form_args())
            .arg(named("source", "Only pairs from this node"))
            .arg(named("target", "Only pairs to this node"))
            .arg(one_of(
                "state",
                "Only pairs in this state",
                &["ok", "failed", "unknown", "stale"],
            )),
        command("matrix", "Print the matrix: rows measure columns")
            .arg(metric())
            .arg(switch("json", "Write JSON")),
        command("events", "List what happened: nodes, paths, incidents and marks")
            .args(form_args())
            .arg(switch("follow", "Go on, with each event as it happens").short('f')),
        command("top", "Show the matrix, the verdict and the incidents live")
            .arg(metric())
            .arg(switch("once", "Print it once, and end"))
            .arg(switch("json", "Write it once as JSON, and end")),
        command(
            "check",
            "Check that a bot works, for health checks of containers; other bots do not matter",
        )
        .arg(switch("json", "Write JSON"))
        .after_help("Exit codes: 0 it works, 2 usage, 3 it does not, or cannot be asked."),
    ]
}

fn probing() -> Command {
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("PATH").help(help)
    };
    let time = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("TIME")
            .default_value(default)
            .value_parser(settings::time)
            .help(help)
    };
    let target =
        |text: &str| text.parse::<canary_core::Target>().map_err(|error| error.to_string());
    Command::new("probe")
        .about("Measure the round trip to the mesh ports of bots, like ping. Joins no mesh")
        .arg(Arg::new("target").required(true).num_args(1..).value_name("HOST:PORT").value_parser(target).help("Mesh ports of bots"))
        .arg(
            Arg::new("count")
                .short('c')
                .long("count")
                .value_name("NUMBER")
                .value_parser(value_parser!(u64).range(1..))
                .help("End after so many [default: none]"),
        )
        .arg(time("interval", "1s", "Time between two attempts").short('i'))
        .arg(time("timeout", "3s", "How long to wait for an answer"))
        .arg(path("ca-cert-path", "PEM file with the authorities to trust: dials by TLS"))
        .arg(path("server-cert-path", "PEM file with the certificate to present").requires("server-key-path").requires("ca-cert-path"))
        .arg(path("server-key-path", "PEM file with its key").requires("server-cert-path"))
        .arg(path("mesh-token-file", "File whose first line is a token of the mesh"))
        .arg(switch("json", "Write a JSON object for each attempt"))
        .after_help("Exit codes: 0 every target answered at least once, 1 one did not, 2 usage. Ctrl-C ends it with the summary.")
}

fn probe(matches: &ArgMatches) -> Result<ExitCode, RunError> {
    use canary_net::tls::{Material, Materials, Mode};
    let file = |name: &str| matches.get_one::<String>(name).map(|path| Material::File(path.into()));
    let (ca, certificate) = (file("ca-cert-path"), file("server-cert-path"));
    let mode = match (&ca, &certificate) {
        (_, Some(_)) => Mode::Mutual,
        (Some(_), None) => Mode::Edge,
        (None, None) => Mode::None,
    };
    let materials = Materials {
        mode,
        ca: ca.into_iter().collect(),
        certificate,
        key: file("server-key-path"),
        ..Materials::default()
    };
    let token = matches
        .get_one::<String>("mesh-token-file")
        .map(|path| Server::token_from(path))
        .transpose()?;
    let guard = canary_net::Guard {
        tls: canary_net::Live::new(materials.load().map_err(crate::ask::AskError::from)?),
        tokens: canary_net::Live::new(canary_net::Tokens::new(token)),
        ..canary_net::Guard::default()
    };
    let ping = Ping {
        targets: matches.get_many("target").into_iter().flatten().cloned().collect(),
        count: matches.get_one("count").copied(),
        // A pause of nothing would be a flood.
        interval: matches
            .get_one::<std::time::Duration>("interval")
            .copied()
            .unwrap_or_default()
            .max(std::time::Duration::from_millis(10)),
        timeout: matches.get_one("timeout").copied().unwrap_or_default(),
        json: matches.get_flag("json"),
    };
    let interrupted = async { drop(tokio::signal::ctrl_c().await) };
    let answered = drive(async {
        ping.run(&guard, interrupted, &mut io::stdout().lock()).await.map_err(RunError::Stdout)
    })?;
    Ok(if answered { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(clap::ArgAction::SetTrue).help(help)
}

fn form_args() -> [Arg; 2] {
    [
        switch("json", "Write JSON").conflicts_with("plain"),
        switch("plain", "Write lines with tabs between columns, without a header"),
    ]
}

fn form(matches: &ArgMatches) -> Form {
    match (matches.get_flag("json"), matches.get_flag("plain")) {
        (true, _) => Form::Json,
        (_, true) => Form::Plain,
        _ => Form::Table,
    }
}

/// Writes a list to stdout.
fn put(list: &List, form: Form) -> Result<ExitCode, RunError> {
    let mut out = io::stdout().lock();
    list.write(form, &mut out).and_then(|()| out.flush()).map_err(RunError::Stdout)?;
    Ok(ExitCode::SUCCESS)
}

fn chosen<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

fn nodes(matches: &ArgMatches) -> Result<ExitCode, RunError> {
    let server = server(matches)?;
    let list = drive(async { Ok(List::nodes(&server, chosen(matches, "state")).await?) })?;
    put(&list, form(matches))
}

fn pairs(matches: &ArgMatches) -> Result<ExitCode, RunError> {
    let server = server(matches)?;
    let filters = ["source", "target", "state"].map(|key| (key, chosen(matches, key)));
    let list = drive(async { Ok(List::pairs(&server, &filters).await?) })?;
    put(&list, form(matches))
}

/// How many columns the terminal has, if stdout is one.
fn room() -> Option<usize> {
    let is_terminal = io::IsTerminal::is_terminal(&io::stdout());
    let size = is_terminal.then(ratatui::crossterm::terminal::size)?.ok()?;
    Some(size.0.into())
}

fn matrix(matches: &ArgMatches) -> Result<ExitCode, RunError> {
    let server = server(matches)?;
    let metric = chosen(matches, "metric").unwrap_or("total");
    let text = drive(async {
        Ok(match matches.get_flag("json") {
            true => {
                format!(
                    "{}\n",
                    crate::status::escaped(&format!(
                        "{:#}",
                        server.get(&format!("/api/v2/matrix?metric={metric}")).await?
                    ))
                )
            }
            false => Grid::of(&server, metric).await?.table(room()),
        })
    })?;
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(RunError::Stdout)?;
    Ok(ExitCode::SUCCESS)
}

/// How often `events --follow` asks.
const FOLLOW: std::time::Duration = std::time::Duration::from_secs(1);

fn events(matches: &ArgMatches) -> Result<ExitCode, RunError> {
    let server = server(matches)?;
    let form = form(matches);
    if !matches.get_flag("follow") {
        return put(&drive(async { Ok(List::events(&server, 0).await?.0) })?, form);
    }
    drive(async {
        let (list, mut after) = List::events(&server, 0).await?;
        list.follow(form, &mut io::stdout().lock()).map_err(RunError::Stdout)?;
        let mut is_broken = false;
        loop {
            // A bot that restarts is waited for: its numbers go on from where they were.
            match List::events(&server, after).await {
                Ok((list, next)) => {
                    list.follow(form, &mut io::stdout().lock()).map_err(RunError::Stdout)?;
                    (after, is_broken) = (next, false);
                }
                Err(error) if !is_broken => {
                    is_broken = true;
                    logs::say(format!(
                        "canary-bot: {}; trying again",
                        canary_net::with_causes(&error)
                    ));
                }
                Err(_) => {}
            }
            tokio::time::sleep(FOLLOW).await;
        }
    })
}

fn show_top(matches: &ArgMatches) -> Result<ExitCode, RunError> {
    let server = server(matches)?;
    let metric = chosen(matches, "metric").unwrap_or("total");
    let is_terminal = io::IsTerminal::is_terminal(&io::stdout());
    drive(async {
        if matches.get_flag("json") {
            return top::once_json(&server, metric).await;
        }
        if matches.get_flag("once") || !is_terminal {
            return top::once(&server, metric).await;
        }
        top::run(server, metric, logs::colours(&io::stdout())).await
    })?;
    Ok(ExitCode::SUCCESS)
}

fn check(matches: &ArgMatches) -> Result<ExitCode, RunError> {
    let mut server = server(matches)?;
    // In a container it has the variables of the bot: the port is where they say.
    if matches.value_source("server") == Some(clap::parser::ValueSource::DefaultValue)
        && let Some(port) =
            std::env::var("MESH_API_PORT").ok().filter(|port| port.parse::<u16>().is_ok())
    {
        server.url = format!("http://127.0.0.1:{port}");
    }
    let (code, said) = match drive(async { Ok(server.is_alive().await?) }) {
        Ok(true) => (0, "ok".to_owned()),
        Ok(false) => (UNHEALTHY, format!("the loop of the bot at {} does not run", server.url)),
        Err(error) => (UNHEALTHY, canary_net::with_causes(&error)),
    };
    let said = match matches.get_flag("json") {
        true => crate::status::escaped(
            &serde_json::json!({ "healthy": code == 0, "detail": said }).to_string(),
        ),
        false => said,
    };
    writeln!(io::stdout(), "{said}").map_err(RunError::Stdout)?;
    Ok(ExitCode::from(code))
}

fn refuse(problems: &[Problem]) -> ExitCode {
    let lines: Vec<_> = problems.iter().map(|problem| format!("canary-bot: {problem}")).collect();
    logs::say(lines.join("\n"));
    ExitCode::from(USAGE)
}

fn config(matches: &ArgMatches) -> Result<ExitCode, RunError> {
    let mut out = io::stdout().lock();
    match matches.subcommand() {
        Some(("init", _)) => out
            .write_all(effective::sample().as_bytes())
            .and_then(|()| out.flush())
            .map_err(RunError::Stdout)?,
        Some(("show", matches)) => {
            let mut problems = Vec::new();
            let sources = Sources::collect(matches, std::env::vars_os(), &mut problems);
            if !problems.is_empty() {
                return Ok(refuse(&problems));
            }
            effective::list(&sources)
                .write(form(matches), &mut out)
                .and_then(|()| out.flush())
                .map_err(RunError::Stdout)?;
        }
        Some((_, matches)) => return start(matches, true),
        None => return Ok(ExitCode::from(USAGE)),
    }
    Ok(ExitCode::SUCCESS)
}

fn run_bot(matches: &ArgMatches) -> Result<ExitCode, RunError> {
    start(matches, false)
}

/// Runs a bot, or checks only whether it could.
fn start(matches: &ArgMatches, checks: bool) -> Result<ExitCode, RunError> {
    let mut problems = Vec::new();
    let sources = Sources::collect(matches, std::env::vars_os(), &mut problems);
    let settings = match Settings::parse(&sources, problems) {
        Ok(settings) => settings,
        // Who collects the log as JSON reads why there is none.
        Err(problems) if !checks && logs_json(&sources) => {
            let lines: Vec<_> =
                problems.iter().map(|problem| logs::as_json(&problem.to_string())).collect();
            logs::say(lines.join("\n"));
            return Ok(ExitCode::from(USAGE));
        }
        Err(problems) => return Ok(refuse(&problems)),
    };
    if checks || settings.dry_run {
        let warnings =
            settings.warnings.iter().map(|warning| format!("canary-bot: warning: {warning}"));
        let lines: Vec<_> =
            warnings.chain(["canary-bot: the configuration works".to_owned()]).collect();
        logs::say(lines.join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let json = settings.log.json;
    let ended = {
        let _logs = logs::start(settings.log).map_err(RunError::Thread)?;
        drive(run::run(settings))
    };
    match ended {
        Ok(Ended::Well) => Ok(ExitCode::SUCCESS),
        Ok(Ended::NameTaken) => Ok(ExitCode::from(NAME_TAKEN)),
        Err(error) if json => {
            logs::say(logs::as_json(&canary_net::with_causes(&error)));
            Ok(ExitCode::from(FAILED))
        }
        Err(error) => Err(error),
    }
}

/// Whether the log is asked for as JSON, in settings of which others may be wrong.
fn logs_json(sources: &Sources) -> bool {
    let given = sources.get("log-format").and_then(|given| given.values.last());
    given.is_some_and(|format| format == "json")
}

fn doctor(matches: &ArgMatches) -> Result<ExitCode, RunError> {
    let mut problems = Vec::new();
    let sources = Sources::collect(matches, std::env::vars_os(), &mut problems);
    let mut out = io::stdout().lock();
    let chart = Chart::new(&mut out, matches.get_flag("json"));
    let is_well = match Settings::parse(&sources, problems) {
        Ok(settings) => drive(chart.examine(settings, !matches.get_flag("no-join")))?,
        Err(problems) => chart.refuse(&problems).map_err(RunError::Stdout)?,
    };
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(UNHEALTHY) })
}

fn run_demo(matches: &ArgMatches) -> Result<ExitCode, RunError> {
    let bots = matches.get_one::<u64>("bots").copied().unwrap_or(5) as usize;
    let duration = matches.get_one("for").copied();
    let fault = matches.get_one("fault").copied();
    let whole = drive(demo::run(Demo { bots, duration, fault }))?;
    Ok(if whole || duration.is_none() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Which bot a command asks, and how.
fn server_args() -> [Arg; 3] {
    [
        Arg::new("server")
            .long("server")
            .value_name("URL")
            .env("CANARY_SERVER")
            .default_value("http://127.0.0.1:8080")
            .help("API of the bot to ask"),
        Arg::new("token-file")
            .long("token-file")
            .value_name("PATH")
            .env("CANARY_TOKEN_FILE")
            .help("File whose first line is a token for that API"),
        Arg::new("ca-cert-path")
            .long("ca-cert-path")
            .value_name("PATH")
            .env("CANARY_CA_CERT_PATH")
            .help("PEM file with the authorities to trust with https [default: the system's]"),
    ]
}

fn server(matches: &ArgMatches) -> Result<Server, RunError> {
    let value = |name: &str| matches.get_one::<String>(name).filter(|value| !value.is_empty());
    let token = value("token-file").map(|path| Server::token_from(path)).transpose()?;
    Ok(Server {
        url: value("server").cloned().unwrap_or_default().trim_end_matches('/').to_owned(),
        token,
        ca: value("ca-cert-path").map(Into::into),
    })
}

fn status(matches: &ArgMatches) -> Result<ExitCode, RunError> {
    let server = server(matches)?;
    let status = drive(async { Ok(Status::of(&server).await?) })?;
    let code = if status.is_healthy() { ExitCode::SUCCESS } else { ExitCode::from(UNHEALTHY) };
    let mut out = io::stdout().lock();
    let written =
        if matches.get_flag("json") { status.write_json(&mut out) } else { status.write(&mut out) };
    written.and_then(|()| out.flush()).map_err(RunError::Stdout)?;
    Ok(code)
}

fn tls_dev(matches: &ArgMatches) -> Result<ExitCode, RunError> {
    let hosts: Vec<String> = matches.get_many("host").into_iter().flatten().cloned().collect();
    let directory = matches.get_one::<String>("directory").map_or("tls", String::as_str);
    for path in issue::tls_dev(directory.as_ref(), &hosts)? {
        writeln!(io::stdout(), "{}", path.display()).map_err(RunError::Stdout)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn token_new(matches: &ArgMatches) -> Result<ExitCode, RunError> {
    let path = matches.get_one::<String>("path").map_or("", String::as_str);
    issue::token_new(path.as_ref())?;
    Ok(ExitCode::SUCCESS)
}

fn assets(matches: &ArgMatches) -> Result<ExitCode, RunError> {
    let directory = chosen(matches, "directory").unwrap_or(".");
    for path in assets::write(
        chosen(matches, "kind").unwrap_or_default(),
        directory.as_ref(),
        matches.get_flag("force"),
    )? {
        writeln!(io::stdout(), "{}", path.display()).map_err(RunError::Stdout)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn completion(matches: &ArgMatches) -> Result<ExitCode, RunError> {
    if let Some(shell) = matches.get_one::<clap_complete::Shell>("shell") {
        let script = manual::completion(*shell, command());
        io::stdout().write_all(&script).map_err(RunError::Stdout)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn man(matches: &ArgMatches) -> Result<ExitCode, RunError> {
    let name = matches.get_one::<String>("command").map(String::as_str);
    let page = manual::page(command(), name).map_err(RunError::Stdout)?;
    io::stdout().write_all(&page).map_err(RunError::Stdout)?;
    Ok(ExitCode::SUCCESS)
}

/// One thread measures and gossips: no measurement waits for another thread to be woken. The API
/// has a thread of its own.
fn drive<T>(task: impl Future<Output = Result<T, RunError>>) -> Result<T, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Thread)?;
    let ended = runtime.block_on(task);
    // A look-up that hangs in the system's resolver does not keep the process.
    runtime.shutdown_background();
    ended
}

/// The whole chain of causes, once, at the edge.
fn report(error: &RunError) {
    logs::say(format!("canary-bot: {}", canary_net::with_causes(error)));
}
