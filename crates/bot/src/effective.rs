//! `canary-bot config`: a file to begin with, and what a bot would run with.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::flags::{FLAGS, Flag, Takes, with_headings};
use crate::list::List;
use crate::sources::{Given, Sources};

/// Settings whose values are secrets.
const SECRETS: [&str; 5] = ["token", "mesh-token", "server-key", "server-cert", "ca-cert"];
/// What stands in place of a secret.
const HIDDEN: &str = "(hidden)";

/// A configuration file with every setting, each as a comment.
pub(crate) fn sample() -> String {
    let mut text =
        "# Settings of canary-bot: give this file by --config. A flag goes before a variable, and a variable before this file.\n\
                    # Remove the # before what you change.\n"
            .to_owned();
    let mut last = "";
    for (heading, flag) in
        with_headings().filter(|(_, flag)| !matches!(flag.name, "config" | "dry-run"))
    {
        if heading != last {
            let _ = write!(text, "\n# {heading}\n");
            last = heading;
        }
        let example = example(flag);
        let range =
            flag.range.map(|(min, max)| format!(", from {min} to {max}")).unwrap_or_default();
        let default =
            if is_default(flag) { String::new() } else { format!(" Default: {}.", flag.default) };
        let _ = write!(
            text,
            "\n# {}{range}.{default}\n#{} = {example}\n",
            flag.help.trim_end_matches('.'),
            flag.name
        );
    }
    text
}

/// Whether the default of a setting is a value, and no words about one.
fn is_default(flag: &Flag) -> bool {
    !matches!(flag.takes, Takes::Many) && !flag.default.contains(' ') && flag.default != "none"
}

fn example(flag: &Flag) -> String {
    match (flag.takes, is_default(flag)) {
        (Takes::Many, _) => format!("[\"{}\"]", flag.value_name),
        (Takes::Switch, _) => flag.default.to_owned(),
        (Takes::One, true) if flag.default.parse::<f64>().is_ok() => flag.default.to_owned(),
        (Takes::One, true) => format!("\"{}\"", flag.default),
        (Takes::One, false) => format!("\"{}\"", flag.value_name),
    }
}

/// Every setting with its value and who set it.
pub(crate) fn list(sources: &Sources) -> List {
    let entry = |flag: &Flag| {
        let given = sources.get(flag.name);
        let value = given.map_or_else(|| flag.default.to_owned(), |given| shown(flag, given));
        let origin = given.map_or_else(|| "default".to_owned(), |given| given.origin.to_string());
        json!({ "setting": flag.name, "value": value, "from": origin })
    };
    let entries: Vec<Value> = FLAGS.iter().map(entry).collect();
    List::of(&["SETTING", "VALUE", "FROM"], &["setting", "value", "from"], entries)
}

fn shown(flag: &Flag, given: &Given) -> String {
    if SECRETS.contains(&flag.name) {
        return HIDDEN.to_owned();
    }
    // Of a flag that is repeated the last one counts.
    let from = if flag.takes == Takes::Many { 0 } else { given.values.len().saturating_sub(1) };
    let values = given.values.iter().skip(from).map(|value| without_password(value));
    values.collect::<Vec<_>>().join(",")
}

/// A URL without what may be a secret in it: user and password, query and fragment. Any other text
/// as it is.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (rest, more) = match rest.find(['?', '#']) {
        Some(end) => (&rest[..end], HIDDEN),
        None => (rest, ""),
    };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{HIDDEN}@{host}{more}"),
        None => format!("{scheme}://{rest}{more}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_default_of_the_sample_is_a_value_that_the_file_may_have() {
        let values = |line: &str| {
            line.strip_prefix('#').filter(|line| !line.starts_with(' ')).map(str::to_owned)
        };
        let text: String = sample().lines().filter_map(values).map(|line| line + "\n").collect();
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table.len() + 2, FLAGS.len());
        for (name, value) in table {
            let flag = FLAGS.iter().find(|flag| flag.name == name).unwrap();
            assert_eq!(value.is_array(), flag.takes == Takes::Many, "{name}");
        }
    }

    #[test]
    fn nobody_sees_a_password() {
        assert_eq!(
            without_password("https://me:secret@host:1/push"),
            "https://(hidden)@host:1/push"
        );
        assert_eq!(without_password("https://me:p/w@r@host/push"), "https://(hidden)@host/push");
        assert_eq!(without_password("https://host/push?key=secret#x"), "https://host/push(hidden)");
        assert_eq!(without_password("https://host/push"), "https://host/push");
        assert_eq!(without_password("owl:8081"), "owl:8081");
    }
}
