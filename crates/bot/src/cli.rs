//! The command line.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::ArgMatches;

use crate::ask::Server;
use crate::commands::command;
use crate::demo::Demo;
use crate::doctor::Chart;
use crate::error::RunError;
use crate::grid::Grid;
use crate::list::{Form, List};
use crate::ping::Ping;
use crate::run::Ended;
use crate::settings::Settings;
use crate::sources::{Problem, Sources};
use crate::status::Status;
use crate::{assets, demo, effective, flags, issue, logs, manual, run, top};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const UNHEALTHY: u8 = 3;
const NAME_TAKEN: u8 = 4;

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
    let is_json = manual::wants_json(&arguments);
    let matches = match command.try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return manual::answer(&error, is_json, USAGE),
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
        ExitCode::from(if error.is_usage() { USAGE } else { FAILED })
    })
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
    // A terminal may not know its size.
    Some(size.0.into()).filter(|room| *room > 0)
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
    let names = matches.get_many::<String>("command").into_iter().flatten();
    let Some(chosen) = manual::find(command(), names.map(String::as_str)) else {
        logs::say("canary-bot: there is no such command; see canary-bot --help".to_owned());
        return Ok(ExitCode::from(USAGE));
    };
    let page = manual::page(chosen).map_err(RunError::Stdout)?;
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
