//! What the command line says of itself: help, mistakes in it, manual pages, completions.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Command;
use clap::builder::PossibleValuesParser;

use crate::flags;

/// Help and version are answers, everything else is a mistake, which reads as all others do. A
/// closed pipe is not reported.
pub(crate) fn answer(error: &clap::Error, usage: u8) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let _ = match text.strip_prefix("error: ") {
        Some(mistake) => write!(io::stderr(), "canary-bot: {mistake}"),
        None => write!(io::stderr(), "{text}"),
    };
    ExitCode::from(usage)
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

/// A manual page: that of the program, or of one of its commands.
///
/// # Errors
///
/// What the renderer says of its output, which is memory.
pub(crate) fn page(mut all: Command, name: Option<&str>) -> io::Result<Vec<u8>> {
    all.build();
    let chosen = name.and_then(|name| all.find_subcommand(name).cloned());
    let is_whole = chosen.is_none();
    let command = chosen.unwrap_or(all);
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    // One name of the page and the program, also where the command has commands of its own.
    let title = command.get_bin_name().unwrap_or("canary-bot").trim().replace(' ', "-");
    let page = clap_mangen::Man::new(command)
        .title(title)
        .source(format!("canary-bot {}", crate::VERSION));
    let mut out = Vec::new();
    page.render_title(&mut out)?;
    page.render_name_section(&mut out)?;
    page.render_synopsis_section(&mut out)?;
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
