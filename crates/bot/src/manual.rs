//! What the command line says of itself: help, mistakes in it, manual pages, completions.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Command;
use clap::builder::PossibleValuesParser;

use crate::{flags, logs};

/// Help and version are answers, everything else is a mistake, which reads as all others do: one
/// line, as JSON where the log `is_json`. A closed pipe is not reported.
pub(crate) fn answer(error: &clap::Error, is_json: bool, usage: u8) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let _ = match text.strip_prefix("error: ").map(in_one_line) {
        Some(mistake) if is_json => writeln!(io::stderr(), "{}", logs::as_json(&mistake)),
        Some(mistake) => writeln!(io::stderr(), "canary-bot: {mistake}"),
        // A command without its own command: its help.
        None => write!(io::stderr(), "{text}"),
    };
    ExitCode::from(usage)
}

/// A mistake of the command line as clap spells it, without the usage: what is wrong, and what to
/// do.
fn in_one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage: "));
    let mut said = String::new();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with("For more information")) {
        let line = line.strip_prefix("tip: ").unwrap_or(line);
        let line = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')).unwrap_or(line);
        said.push_str(match said.chars().last() {
            None => "",
            Some(':') => " ",
            Some(_) => "; ",
        });
        said.push_str(line);
    }
    if said.contains(';') { said } else { format!("{said}; see --help") }
}

/// Whether the log is to be JSON, as far as the command line and the environment say.
pub(crate) fn wants_json(arguments: &[OsString]) -> bool {
    let given = arguments.iter().enumerate().rev().find_map(|(place, argument)| {
        match argument.to_str()?.strip_prefix("--log-format")? {
            "" => Some(arguments.get(place + 1)?.clone()),
            value => Some(value.strip_prefix('=')?.into()),
        }
    });
    let format = given.or_else(|| std::env::var_os("MESH_LOG_FORMAT"));
    format.is_some_and(|format| format == "json")
}

/// What `-h` shows: the settings that a first start takes.
pub(crate) fn short_help(command: Command) -> String {
    let is_first = |id: &str| flags::FIRST.contains(&id);
    let mut command = command
        .mut_args(|arg| if is_first(arg.get_id().as_str()) { arg } else { arg.hide(true) })
        .after_help(
            "canary-bot --help shows all settings, canary-bot COMMAND --help those of a command.",
        );
    command.render_help().to_string()
}

/// A completion script; values are completed where a setting has few, files where it takes a path.
pub(crate) fn completion(shell: clap_complete::Shell, command: Command) -> Vec<u8> {
    let mut command = with_values(command);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "canary-bot", &mut script);
    script
}

fn with_values(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        if !arg.get_action().takes_values() {
            return arg;
        }
        let is_path =
            arg.get_value_names().is_some_and(|names| names.iter().any(|name| *name == "PATH"));
        match flags::choices(arg.get_id().as_str()) {
            [] if is_path => arg.value_hint(clap::ValueHint::AnyPath),
            [] if arg.get_possible_values().is_empty() => arg.value_hint(clap::ValueHint::Other),
            [] => arg,
            choices => arg.value_parser(PossibleValuesParser::new(choices)),
        }
    });
    command.mut_subcommands(with_values)
}

const EXAMPLES: &str = "\
.SH EXAMPLES
.TP
canary\\-bot demo
A whole mesh in one process, with a link for the browser.
.TP
canary\\-bot \\-\\-name eagle \\-\\-target bird\\-owl:8081 \\-\\-target bird\\-hawk:8081
A bot that joins at two others.
.TP
canary\\-bot status \\-\\-server http://bird\\-owl:8080 \\-\\-token\\-file /etc/canary\\-bot/api\\-token
What is wrong with the mesh.
";

const AROUND: &str = "\
.SH FILES
.TP
/etc/canary\\-bot/config.toml
Where the systemd unit has the settings (\\-\\-config).
.TP
/etc/canary\\-bot/api\\-token
Where it has the token of the API (\\-\\-token\\-file).
.SH SIGNALS
.TP
SIGTERM, SIGINT
Leave the mesh and end.
.TP
SIGHUP
Read certificates and tokens again.
.TP
SIGUSR1
Log at level debug from now on; once more: as before.
.SH SEE ALSO
https://github.com/canary\\-bot/canary\\-bot
";

/// The program, or one of its commands, by the names that lead to it; none if there is no such.
pub(crate) fn find<'a>(mut all: Command, names: impl Iterator<Item = &'a str>) -> Option<Command> {
    all.build();
    names.into_iter().try_fold(all, |command, name| command.find_subcommand(name).cloned())
}

/// A manual page: that of the program, or of one of its commands.
///
/// # Errors
///
/// What the renderer says of its output, which is memory.
pub(crate) fn page(command: Command) -> io::Result<Vec<u8>> {
    let is_whole = command.get_name() == "canary-bot";
    // There is no page about help.
    let command = command.mut_subcommands(|inner| {
        let is_help = inner.get_name() == "help";
        inner.hide(is_help)
    });
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    // One name of the page and the program, also where the command has commands of its own.
    let title = command.get_bin_name().unwrap_or("canary-bot").trim().replace(' ', "-");
    // As in the help: the renderer would list every setting.
    let usage = command.clone().render_usage().to_string();
    let lines: Vec<_> =
        usage.trim_start_matches("Usage: ").lines().map(|line| escaped(line.trim())).collect();
    let page = clap_mangen::Man::new(command)
        .title(title)
        .source(format!("canary-bot {}", crate::VERSION));
    let mut out = Vec::new();
    page.render_title(&mut out)?;
    page.render_name_section(&mut out)?;
    writeln!(out, ".SH SYNOPSIS\n{}", lines.join("\n.br\n"))?;
    page.render_description_section(&mut out)?;
    page.render_options_section(&mut out)?;
    page.render_subcommands_section(&mut out)?;
    if is_whole {
        out.extend_from_slice(EXAMPLES.as_bytes());
    }
    out.extend_from_slice(of_after_help(&after).as_bytes());
    if is_whole {
        out.extend_from_slice(AROUND.as_bytes());
    }
    Ok(with_one_preamble(&out))
}

/// What stands below the options in the help, without the examples: notes, and the exit codes.
fn of_after_help(after: &str) -> String {
    let lines =
        after.lines().filter(|line| !line.starts_with("Examples:") && !line.starts_with(' '));
    let (codes, notes): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with("Exit codes: "));
    let mut text = String::new();
    let notes: Vec<_> = notes.into_iter().filter(|line| !line.is_empty()).collect();
    if !notes.is_empty() {
        text.push_str(".SH NOTES\n");
        notes.iter().for_each(|line| text.push_str(&format!("{}\n", escaped(line))));
    }
    for line in codes {
        // What follows the first sentence is no code.
        let line = line.trim_start_matches("Exit codes: ");
        let (codes, rest) = line.split_once(". ").unwrap_or((line.trim_end_matches('.'), ""));
        text.push_str(".SH \"EXIT STATUS\"\n");
        let mut is_first = true;
        for part in codes.split(", ") {
            match part.split_once(' ') {
                Some((number, meaning)) if number.parse::<u8>().is_ok() => {
                    let end = if std::mem::take(&mut is_first) { "" } else { "\n" };
                    text.push_str(&format!("{end}.TP\n{number}\n{}", escaped(meaning)));
                }
                // A comma within a meaning.
                _ => text.push_str(&format!(", {}", escaped(part))),
            }
        }
        text.push('\n');
        if !rest.is_empty() {
            text.push_str(&format!(".PP\n{}\n", escaped(rest)));
        }
    }
    text
}

/// A line as roff takes it for text.
fn escaped(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// Each section was rendered with definitions of its own: the first ones are enough.
fn with_one_preamble(page: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(page);
    let (mut kept, mut seen) = (String::new(), Vec::new());
    for line in text.lines() {
        if line.starts_with(".ie ") || line.starts_with(".el ") {
            if seen.contains(&line) {
                continue;
            }
            seen.push(line);
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept.into_bytes()
}
