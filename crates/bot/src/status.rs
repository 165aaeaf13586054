//! `canary-bot status`: the verdict first, then the counts, then the incidents.

use std::io::{self, Write};

use serde_json::Value;

use crate::ask::{AskError, Server};

/// What a bot says of its mesh.
#[derive(Debug)]
pub(crate) struct Status {
    verdict: Value,
    incidents: Value,
}

impl Status {
    /// Asks for it.
    pub(crate) async fn of(server: &Server) -> Result<Self, AskError> {
        let verdict = server.get("/api/v2/verdict").await?;
        let mut incidents = server.get("/api/v2/incidents?state=open").await?;
        let incidents = incidents.get_mut("incidents").map(Value::take).unwrap_or_default();
        if !verdict["verdict"].is_string() || !incidents.is_array() {
            return Err(AskError::Answer(server.url.clone()));
        }
        Ok(Self { verdict, incidents })
    }

    /// Whether nothing critical is open.
    pub(crate) fn is_healthy(&self) -> bool {
        self.verdict["healthy"] == true
    }

    /// For programs.
    pub(crate) fn write_json(self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", escaped(&format!("{:#}", self.into_json())))
    }

    /// The verdict with the open incidents: an object.
    pub(crate) fn into_json(mut self) -> Value {
        self.verdict["open_incidents"] = self.incidents;
        self.verdict
    }

    /// For people.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { verdict, incidents } = self;
        writeln!(out, "{}\n", text(&verdict["verdict"]))?;
        let (nodes, pairs) = (&verdict["nodes"], &verdict["pairs"]);
        let number = |value: &Value| {
            value.as_u64().map_or_else(|| "?".to_owned(), |number| number.to_string())
        };
        let (known, visible) = (number(&nodes["known"]), number(&nodes["visible"]));
        writeln!(
            out,
            "nodes      {known} known, {visible} visible from {}",
            text(&verdict["node"])
        )?;
        let [ok, failed, unknown] = ["ok", "failed", "unknown"].map(|state| number(&pairs[state]));
        writeln!(out, "pairs      {ok} ok, {failed} failed, {unknown} unknown")?;
        let incidents = incidents.as_array().map_or(&[][..], Vec::as_slice);
        if incidents.is_empty() {
            return writeln!(out, "incidents  none");
        }
        writeln!(out, "incidents  {}", incidents.len())?;
        for incident in incidents {
            let (severity, kind, confidence) = (
                text(&incident["severity"]),
                text(&incident["kind"]),
                text(&incident["confidence"]),
            );
            writeln!(
                out,
                "\n{severity}: {kind} ({confidence} confidence, {})",
                text(&incident["id"])
            )?;
            writeln!(out, "  {}", text(&incident["summary"]))?;
            for evidence in incident["evidence"].as_array().into_iter().flatten() {
                writeln!(out, "  - {}", text(evidence))?;
            }
        }
        Ok(())
    }
}

/// JSON whose strings show invisible characters as escapes.
pub(crate) fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && canary_core::is_invisible(c) {
            let mut units = [0; 2];
            c.encode_utf16(&mut units)
                .iter()
                .for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
        } else {
            text.push(c);
        }
    }
    text
}

/// A text of another bot, without what could disturb a terminal.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or("?").chars().filter(|c| !canary_core::is_invisible(*c)).collect()
}
