//! Where settings come from: flag before environment before file before default.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::parser::ValueSource;

use crate::flags::{FLAGS, Flag, Takes};

/// What the names of our variables begin with.
const PREFIX: &str = "MESH_";
/// Largest configuration file in bytes. A larger one is refused: it is something else.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Who set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag(&'static str),
    Variable(String),
    File(PathBuf, &'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Variable(name) => f.write_str(name),
            Self::File(path, key) => write!(f, "{key} in {}", path.display()),
        }
    }
}

/// Something wrong with the configuration, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem(pub(crate) String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text of a setting and who set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) values: Vec<String>,
    pub(crate) origin: Origin,
}

/// All settings that anybody set, as text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    given: BTreeMap<&'static str, Given>,
}

impl Sources {
    /// Collects the settings of all sources; what cannot be read is added to `problems`.
    pub(crate) fn collect(
        matches: &ArgMatches,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut sources = Self::default();
        let variables = variables(environment, problems);
        for flag in FLAGS {
            let given = of_command_line(flag, matches).or_else(|| of_environment(flag, &variables));
            if let Some(given) = given {
                sources.given.insert(flag.name, given);
            }
        }
        if let Some(path) =
            sources.given.get("config").and_then(|given| given.values.last()).map(PathBuf::from)
        {
            match read(&path) {
                Ok(text) => sources.add_text(&path, &text, problems),
                Err(what) => problems
                    .push(Problem(format!("the configuration file {} {what}", path.display()))),
            }
        }
        sources
    }

    /// The settings of one file alone.
    pub(crate) fn of_text(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Self {
        let mut sources = Self::default();
        sources.add_text(path, text, problems);
        sources
    }

    /// Forgets a setting.
    pub(crate) fn forget(&mut self, name: &str) {
        self.given.remove(name);
    }

    /// Adds the settings of a file that nobody set elsewhere.
    fn add_text(&mut self, path: &Path, text: &str, problems: &mut Vec<Problem>) {
        for (flag, values) in of_file(path, text, problems) {
            let given = Given { values, origin: Origin::File(path.to_owned(), flag.name) };
            self.given.entry(flag.name).or_insert(given);
        }
    }

    /// Who set a setting to what.
    pub(crate) fn get(&self, name: &str) -> Option<&Given> {
        self.given.get(name)
    }
}

fn of_command_line(flag: &Flag, matches: &ArgMatches) -> Option<Given> {
    if matches.value_source(flag.name) != Some(ValueSource::CommandLine) {
        return None;
    }
    let values =
        matches.get_many::<String>(flag.name)?.flat_map(|value| split(flag, value)).collect();
    Some(Given { values, origin: Origin::Flag(flag.name) })
}

/// The variables that are settings of ours. One that cannot be read, or that no setting has, is a
/// problem: taken for unset it could open what it was to close.
fn variables(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, String> {
    let known: Vec<_> = FLAGS.iter().flat_map(names_of).collect();
    let mut variables = BTreeMap::new();
    for (name, value) in environment {
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with(PREFIX) {
            continue;
        }
        let is_known = known.contains(&name);
        let Ok(value) = value.into_string() else {
            problems.push(Problem(format!(
                "{name}: its value is no UTF-8 text; nothing of it is used"
            )));
            continue;
        };
        // An empty variable is unset.
        if value.is_empty() || is_service_link(&name, &value) {
            continue;
        }
        if !is_known {
            let hint = did_you_mean(&name, FLAGS.iter().map(Flag::variable));
            problems.push(Problem(format!("{name}: no setting has this variable{hint}; unset it")));
            continue;
        }
        if value.len() > 1
            && ["\"", "'"].iter().any(|quote| value.starts_with(quote) && value.ends_with(quote))
        {
            problems.push(Problem(format!("{name}: the quotes around the value are part of it; remove them, an env file has none")));
            continue;
        }
        variables.insert(name, value);
    }
    variables
}

/// The variables of a setting. The original's chart sets MESH_DEBUG-GRPC, with the dash.
fn names_of(flag: &Flag) -> [String; 2] {
    [flag.variable(), format!("{PREFIX}{}", flag.name.to_uppercase())]
}

/// Whether Kubernetes injected a variable for a Service whose name begins with `mesh`, as in
/// MESH_PORT=tcp://… and MESH_API_SERVICE_HOST.
fn is_service_link(name: &str, value: &str) -> bool {
    let ends = ["_SERVICE_HOST", "_SERVICE_PORT"].iter().any(|end| name.ends_with(end));
    let of_port = |protocol: &str| name.contains(protocol) && name.contains("_PORT_");
    ends || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
        || ["_TCP", "_UDP", "_SCTP"].into_iter().any(of_port)
}

fn of_environment(flag: &Flag, variables: &BTreeMap<String, String>) -> Option<Given> {
    let (name, value) = names_of(flag).into_iter().find_map(|name| {
        let value = variables.get(&name)?;
        Some((name, value))
    })?;
    Some(Given { values: split(flag, value), origin: Origin::Variable(name) })
}

/// Lists are separated by commas wherever they come from, except in a file, which has lists of its
/// own.
fn split(flag: &Flag, value: &str) -> Vec<String> {
    match flag.takes {
        Takes::Many => value
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect(),
        Takes::One | Takes::Switch => vec![value.to_owned()],
    }
}

/// The settings of a file; what is wrong with it is added to `problems`, and the rest is judged as
/// well.
fn of_file(
    path: &Path,
    text: &str,
    problems: &mut Vec<Problem>,
) -> Vec<(&'static Flag, Vec<String>)> {
    let mut problem = |what: String| {
        problems.push(Problem(format!("the configuration file {} {what}", path.display())));
    };
    let table = match table(text) {
        Ok(table) => table,
        Err(what) => {
            problem(what);
            return Vec::new();
        }
    };
    let mut settings = Vec::new();
    for (key, value) in table {
        let Some(flag) = FLAGS.iter().find(|flag| flag.name == key && flag.name != "config") else {
            let names = FLAGS.iter().map(|flag| flag.name.to_owned());
            let hint = did_you_mean(&key, names.filter(|name| name != "config"));
            let line =
                line_of(text, &key).map(|line| format!(" in line {line}")).unwrap_or_default();
            problem(format!(
                "has the unknown key {key}{line}; its keys are the flags' names{hint}"
            ));
            continue;
        };
        match values(flag, &value) {
            Some(values) => settings.push((flag, values)),
            None => problem(format!("has a value of the wrong kind for {key}")),
        }
    }
    settings
}

/// The line that begins with a key, the first one being 1.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let has_it = |line: &str| {
        let line = line.trim_start().trim_start_matches('[').trim_start_matches(['"', '\'']);
        line.strip_prefix(key).is_some_and(|rest| {
            rest.trim_start_matches(['"', '\'']).trim_start().starts_with(['=', '.', ']'])
        })
    };
    text.lines().position(has_it).map(|line| line + 1)
}

/// Names what is most like `name`, if up to three letters of it are wrong, and less than half.
fn did_you_mean(name: &str, known: impl Iterator<Item = String>) -> String {
    let letters = name.strip_prefix(PREFIX).unwrap_or(name).len();
    let nearest = known.map(|known| (strsim::osa_distance(&known, name), known)).min();
    nearest
        .filter(|(wrong, _)| *wrong <= 3 && wrong * 2 < letters)
        .map_or_else(String::new, |(_, known)| format!("; did you mean {known}?"))
}

fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("has {size} bytes; it may have {FILE_BYTES_MAX}"));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

fn table(text: &str) -> Result<toml::Table, String> {
    text.parse().map_err(|error: toml::de::Error| {
        // Only where it is: the line itself may be a secret.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        if error.message().contains("duplicate key") {
            format!("has the key of line {line} twice; remove one of the two")
        } else {
            format!(
                "is no TOML in line {line}; texts stand in quotes, lists in brackets with commas"
            )
        }
    })
}

fn values(flag: &Flag, value: &toml::Value) -> Option<Vec<String>> {
    let text = |value: &toml::Value| match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(on) => Some(on.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    };
    match value {
        toml::Value::Array(items) if flag.takes == Takes::Many => items.iter().map(text).collect(),
        value => Some(vec![text(value)?]),
    }
}
