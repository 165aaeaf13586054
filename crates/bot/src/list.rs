//! What a bot knows as a table for people, as lines for scripts, or as JSON.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::ask::{AskError, Server};
use crate::status::{escaped, text};

/// How to write a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Columns under a header.
    Table,
    /// Columns separated by tabs, without a header.
    Plain,
    /// The entries as the API spells them.
    Json,
}

/// Entries as rows of text, and as they came.
#[derive(Debug)]
pub(crate) struct List {
    columns: &'static [&'static str],
    rows: Vec<Vec<String>>,
    entries: Vec<Value>,
}

/// Columns whose entries are numbers stand at the right.
const NUMBERS: [&str; 5] = ["TOTAL", "REQUEST", "JITTER", "LOSS", "AGE"];

impl List {
    /// Entries whose values are texts: what the columns are called, and which key each shows.
    pub(crate) fn of(columns: &'static [&'static str], keys: &[&str], entries: Vec<Value>) -> Self {
        let rows = entries
            .iter()
            .map(|entry| keys.iter().map(|key| text(&entry[*key])).collect())
            .collect();
        Self { columns, rows, entries }
    }

    /// All nodes, or those in a state.
    pub(crate) async fn nodes(server: &Server, state: Option<&str>) -> Result<Self, AskError> {
        let entries = all(server, "nodes", &[("state", state)]).await?;
        let row = |node: &Value| {
            let is_self = node["is_self"] == true;
            let labels = node["labels"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, label)| format!("{key}={}", label.as_str().unwrap_or_default()));
            let reached = if is_self { "this bot".to_owned() } else { reached(&node["reached"]) };
            let published = node["row_age_seconds"]
                .as_f64()
                .filter(|_| !is_self)
                .map_or_else(|| "-".to_owned(), |age| format!("{} ago", ago(age)));
            let labels = labels.collect::<Vec<_>>().join(",");
            let release = node["version"].as_str().map_or_else(|| "-".to_owned(), clean);
            [
                text(&node["name"]),
                text(&node["state"]),
                text(&node["target"]),
                reached,
                published,
                release,
                clean(&labels),
            ]
            .to_vec()
        };
        Ok(Self {
            columns: &["NAME", "STATE", "ADDRESS", "REACHED IN", "PUBLISHED", "RELEASE", "LABELS"],
            rows: entries.iter().map(row).collect(),
            entries,
        })
    }

    /// All pairs, or those that match.
    pub(crate) async fn pairs(
        server: &Server,
        filters: &[(&str, Option<&str>); 3],
    ) -> Result<Self, AskError> {
        let entries = all(server, "pairs", filters).await?;
        let row = |pair: &Value| {
            let time = |key: &str| pair[key].as_f64().map_or_else(|| "-".to_owned(), duration);
            let loss = pair["loss_ratio"]
                .as_f64()
                .map_or_else(|| "-".to_owned(), |loss| format!("{:.1} %", loss * 100.0));
            let age = pair["age_seconds"].as_f64().map_or_else(|| "-".to_owned(), ago);
            let columns = [text(&pair["source"]), text(&pair["target"]), state(pair)];
            columns
                .into_iter()
                .chain([
                    time("rtt_seconds"),
                    time("request_seconds"),
                    time("jitter_seconds"),
                    loss,
                    age,
                ])
                .collect()
        };
        let columns = &["SOURCE", "TARGET", "STATE", "TOTAL", "REQUEST", "JITTER", "LOSS", "AGE"];
        Ok(Self { columns, rows: entries.iter().map(row).collect(), entries })
    }

    /// What happened after an event, and what to ask for next.
    pub(crate) async fn events(server: &Server, after: u64) -> Result<(Self, u64), AskError> {
        let mut answer = server.get(&format!("/api/v2/events?limit=10000&after={after}")).await?;
        let next =
            answer["next_after"].as_u64().ok_or_else(|| AskError::Answer(server.url.clone()))?;
        let entries =
            taken(&mut answer["events"]).ok_or_else(|| AskError::Answer(server.url.clone()))?;
        let row = |event: &Value| {
            let what =
                [&event["node"], &event["failure"], &event["incident"]["summary"], &event["text"]];
            let what: Vec<_> = what.into_iter().filter(|part| part.is_string()).map(text).collect();
            vec![text(&event["at"]), text(&event["kind"]), what.join(": ")]
        };
        Ok((
            Self {
                columns: &["AT", "KIND", "WHAT"],
                rows: entries.iter().map(row).collect(),
                entries,
            },
            next,
        ))
    }

    pub(crate) fn write(&self, form: Form, out: &mut impl Write) -> io::Result<()> {
        match form {
            Form::Json => writeln!(out, "{}", escaped(&format!("{:#}", json!(self.entries)))),
            Form::Plain => self.rows.iter().try_for_each(|row| writeln!(out, "{}", row.join("\t"))),
            Form::Table => self.table(out),
        }
    }

    /// One line for each entry, as they come: what follows has no header, and JSON is one object a
    /// line.
    pub(crate) fn follow(&self, form: Form, out: &mut impl Write) -> io::Result<()> {
        match form {
            Form::Json => self
                .entries
                .iter()
                .try_for_each(|entry| writeln!(out, "{}", escaped(&entry.to_string())))?,
            Form::Plain => self.write(form, out)?,
            Form::Table => {
                self.rows.iter().try_for_each(|row| writeln!(out, "{}", row.join("  ")))?;
            }
        }
        out.flush()
    }

    fn table(&self, out: &mut impl Write) -> io::Result<()> {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(self.columns.iter().copied());
        table.add_rows(&self.rows);
        for (column, name) in table.column_iter_mut().zip(self.columns) {
            column.set_padding((0, 2));
            if NUMBERS.contains(name) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.lines().try_for_each(|line| writeln!(out, "{}", line.trim_end()))
    }
}

/// All pages of a list.
async fn all(
    server: &Server,
    list: &str,
    filters: &[(&str, Option<&str>)],
) -> Result<Vec<Value>, AskError> {
    let wanted: String = filters
        .iter()
        .filter_map(|(key, value)| Some(format!("&{key}={}", encoded((*value)?))))
        .collect();
    let (mut entries, mut token) = (Vec::new(), String::new());
    loop {
        let mut answer = server.get(&format!("/api/v2/{list}?limit=10000{wanted}{token}")).await?;
        entries
            .extend(taken(&mut answer[list]).ok_or_else(|| AskError::Answer(server.url.clone()))?);
        match answer["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={}", encoded(next)),
            None => return Ok(entries),
        }
    }
}

fn taken(list: &mut Value) -> Option<Vec<Value>> {
    match list.take() {
        Value::Array(entries) => Some(entries),
        _ => None,
    }
}

/// A value of a query (RFC 3986): all but unreserved characters as their bytes.
pub(crate) fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(
            |byte| {
                if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
            },
        )
        .collect()
}

fn clean(text: &str) -> String {
    text.chars().filter(|c| !canary_core::is_invisible(*c)).collect()
}

/// The state of a pair; how it failed, if it did.
fn state(pair: &Value) -> String {
    match pair["failure"].as_str().filter(|_| pair["state"] == "failed") {
        Some(failure) => format!("failed: {}", clean(failure)),
        None => text(&pair["state"]),
    }
}

fn reached(measured: &Value) -> String {
    measured["rtt_seconds"]
        .as_f64()
        .filter(|_| measured["state"] == "ok")
        .map_or_else(|| state(measured), duration)
}

/// Seconds in the unit that suits them, with three digits.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if s >= 10.0 => format!("{s:.1} s"),
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 0.1 => format!("{:.0} ms", s * 1e3),
        s if s >= 0.01 => format!("{:.1} ms", s * 1e3),
        s if s >= 0.0001 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.0} µs", s * 1e6),
    }
}

/// How long ago, in the largest unit that says enough.
fn ago(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5_400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_written_in_three_forms() {
        let entries = vec![json!({ "name": "o\u{202e}wl" })];
        let list = List {
            columns: &["NAME", "LOSS"],
            rows: vec![vec!["owl".to_owned(), "5 %".to_owned()]],
            entries,
        };
        let written = |form| {
            let mut out = Vec::new();
            list.write(form, &mut out)
                .map(|()| String::from_utf8_lossy(&out).into_owned())
                .unwrap_or_default()
        };
        assert_eq!(written(Form::Table), "NAME  LOSS\nowl    5 %\n");
        assert_eq!(written(Form::Plain), "owl\t5 %\n");
        assert!(written(Form::Json).contains("o\\u202ewl"));
    }

    #[test]
    fn durations_have_three_digits() {
        let spelled =
            [12.34, 1.234, 0.1234, 0.01234, 0.001234, 0.0001234, 0.00001234].map(duration);
        assert_eq!(
            spelled,
            ["12.3 s", "1.23 s", "123 ms", "12.3 ms", "1.23 ms", "0.12 ms", "12 µs"]
        );
    }

    #[test]
    fn values_of_a_query_are_encoded() {
        assert_eq!(encoded("a b&c=é/~"), "a%20b%26c%3D%C3%A9%2F~");
    }
}
