//! The matrix that a bot serves, as text.

use std::time::Duration;

use canary_core::{Attempt, Failure, NodeName, Snapshot, State};
use serde_json::Value;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::ask::{AskError, Server};
use crate::list::duration;
use crate::status::text;

/// What the values of a matrix are.
pub(crate) const METRICS: [&str; 4] = ["total", "request", "jitter", "loss"];

/// What is known of one pair.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    /// A node does not measure itself.
    Itself,
    Unknown,
    /// What is known is too old.
    Stale,
    Failed(String),
    /// The latest attempt was answered; the metric in its unit, if it has one.
    Ok(Option<f64>),
}

/// All pairs of the nodes that are or should be there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grid {
    pub(crate) metric: String,
    pub(crate) names: Vec<String>,
    /// A row for every name, with a cell for every name.
    pub(crate) rows: Vec<Vec<Cell>>,
}

impl Grid {
    pub(crate) async fn of(server: &Server, metric: &str) -> Result<Self, AskError> {
        let answer = server.get(&format!("/api/v2/matrix?metric={metric}")).await?;
        Self::read(&answer).ok_or_else(|| AskError::Answer(server.url.clone()))
    }

    /// From an answer of the API; none if it has another shape.
    pub(crate) fn read(answer: &Value) -> Option<Self> {
        let names: Vec<_> =
            answer["nodes"].as_array()?.iter().map(|node| text(&node["name"])).collect();
        let cell = |(state, value): (&Value, &Value)| match state.as_str() {
            Some("self") => Cell::Itself,
            Some("ok") => Cell::Ok(value.as_f64()),
            Some("stale") => Cell::Stale,
            Some("unknown") | None => Cell::Unknown,
            Some(_) => Cell::Failed(text(state)),
        };
        let row = |row: &Value| {
            let cells: Vec<_> =
                row["states"].as_array()?.iter().zip(row["values"].as_array()?).map(cell).collect();
            (cells.len() == names.len()).then_some(cells)
        };
        let rows: Vec<_> = answer["rows"].as_array()?.iter().map(row).collect::<Option<_>>()?;
        (rows.len() == names.len()).then(|| Self { metric: text(&answer["metric"]), names, rows })
    }

    /// All pairs of the nodes that are there, as one bot of this process knows them.
    pub(crate) fn known_to(snapshot: &Snapshot) -> Self {
        let present = snapshot.present().map(|member| &member.record.name);
        let mut names: Vec<_> = present.chain([&snapshot.me.name]).collect();
        names.sort_unstable();
        let rows = names.iter().map(|source| row_of(snapshot, source, &names)).collect();
        let names = names.into_iter().map(|name| name.as_str().to_owned()).collect();
        Self { metric: "total".to_owned(), names, rows }
    }

    /// Pairs that were measured with success.
    pub(crate) fn measured(&self) -> usize {
        self.rows.iter().flatten().filter(|cell| matches!(cell, Cell::Ok(_))).count()
    }

    pub(crate) fn cell(&self, source: usize, target: usize) -> &Cell {
        self.rows.get(source).and_then(|row| row.get(target)).unwrap_or(&Cell::Unknown)
    }

    /// A cell in at most seven characters.
    pub(crate) fn short(&self, cell: &Cell) -> String {
        match cell {
            Cell::Itself => "-".to_owned(),
            Cell::Unknown => "?".to_owned(),
            Cell::Stale => "~".to_owned(),
            Cell::Failed(kind) => kind.chars().take(7).collect(),
            Cell::Ok(None) => "ok".to_owned(),
            Cell::Ok(Some(loss)) if self.metric == "loss" => format!("{:.1}%", loss * 100.0),
            Cell::Ok(Some(seconds)) if *seconds < 0.1 => format!("{:.2}", seconds * 1e3),
            Cell::Ok(Some(seconds)) => format!("{:.0}", seconds * 1e3),
        }
    }

    /// A cell in words.
    pub(crate) fn long(&self, cell: &Cell) -> String {
        match cell {
            Cell::Itself => "itself".to_owned(),
            Cell::Unknown => "unknown".to_owned(),
            Cell::Stale => "stale".to_owned(),
            Cell::Failed(kind) => format!("failed ({kind})"),
            Cell::Ok(None) => "ok".to_owned(),
            Cell::Ok(Some(loss)) if self.metric == "loss" => format!("{:.1} % lost", loss * 100.0),
            Cell::Ok(Some(seconds)) => duration(*seconds),
        }
    }

    /// What the cells mean.
    pub(crate) fn legend(&self) -> &'static str {
        match self.metric.as_str() {
            "loss" => "share of failed attempts; ? unknown, ~ stale, a word: how the pair fails",
            "request" => {
                "ms of a request on a warm connection; ? unknown, ~ stale, a word: how the pair fails"
            }
            "jitter" => "ms of jitter; ? unknown, ~ stale, a word: how the pair fails",
            _ => "ms to connect and get an answer; ? unknown, ~ stale, a word: how the pair fails",
        }
    }
}

/// What is known of one row: what this bot measured itself, or what another published.
fn row_of(snapshot: &Snapshot, source: &NodeName, targets: &[&NodeName]) -> Vec<Cell> {
    let answered = |total: Duration| Cell::Ok(Some(total.as_secs_f64()));
    let failed = |kind: Failure| Cell::Failed(kind.as_str().to_owned());
    let mut cells = vec![Cell::Unknown; targets.len()];
    let mut set = |target: &NodeName, cell| {
        if let Ok(place) = targets.binary_search(&target) {
            cells[place] = cell;
        }
    };
    if *source == snapshot.me.name {
        for member in snapshot.present() {
            match member.pair.main().latest() {
                Some((Attempt::Ok(timing), _)) => {
                    set(&member.record.name, answered(timing.total()));
                }
                Some((Attempt::Failed(kind), _)) => set(&member.record.name, failed(kind)),
                None => {}
            }
        }
    }
    let row = snapshot.member(source).and_then(|member| member.row.as_ref());
    for view in row.map(|row| row.cells()).unwrap_or_default() {
        match view.cell.state {
            State::Unknown => {}
            State::Ok { total, .. } => set(view.target, answered(total.decode())),
            State::Failed(kind) => set(view.target, failed(kind)),
        }
    }
    set(source, Cell::Itself);
    cells
}

/// A name at the head of a column, at its right: of a long one the end, for hosts differ there.
/// Some signs are two columns wide.
pub(crate) fn column(name: &str, width: usize) -> String {
    let mut kept: Vec<char> = Vec::new();
    let mut taken = 0;
    let room = if name.width() > width { width - 1 } else { width };
    for sign in name.chars().rev().take_while(|sign| {
        taken += sign.width().unwrap_or(0);
        taken <= room
    }) {
        kept.push(sign);
    }
    let kept: String = kept.into_iter().rev().collect();
    let kept = if name.width() > width { format!("…{kept}") } else { kept };
    format!("{}{kept}", " ".repeat(width.saturating_sub(kept.width())))
}

/// A name at the head of a row, at its left.
pub(crate) fn row_name(name: &str, width: usize) -> String {
    let name = if name.width() > width { column(name, width) } else { name.to_owned() };
    format!("{name}{}", " ".repeat(width.saturating_sub(name.width())))
}

impl Grid {
    /// The matrix as a table. Where it is wider than `room`, as many columns stand side by side as
    /// fit, and the others below them.
    pub(crate) fn table(&self, room: Option<usize>) -> String {
        const CELL: usize = 8;
        let longest = self.names.iter().map(|name| name.width()).max().unwrap_or(0);
        let most = if room.is_some() { NAME_MAX } else { usize::MAX };
        let width = longest.min(most).max(CORNER.len());
        let all = self.names.len().max(1);
        let fitting = room.map_or(all, |room| (room.saturating_sub(width) / (CELL + 1)).max(1));
        let mut blocks = Vec::new();
        for first in (0..all).step_by(fitting) {
            let columns = first..(first + fitting).min(self.names.len());
            let heads = self.names[columns.clone()].iter();
            let heads: String = heads.map(|name| format!(" {}", column(name, CELL))).collect();
            let mut block = format!("{CORNER:<width$}{heads}\n");
            for (name, row) in self.names.iter().zip(&self.rows) {
                block += &row_name(name, width);
                for cell in &row[columns.clone()] {
                    block += &format!(" {:>CELL$}", self.short(cell));
                }
                block.push('\n');
            }
            blocks.push(block);
        }
        format!("{}{}\n", blocks.join("\n"), self.legend())
    }
}

/// A longer name would leave little room for the cells of a terminal.
const NAME_MAX: usize = 24;

/// What stands above the rows' names and beside the columns'.
const CORNER: &str = "from \\ to";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_under_their_names_however_wide_these_are() {
        for (name, head, row) in [
            ("owl", "     owl", "owl      "),
            ("東京0", "   東京0", "東京0    "),
            ("datacenter-west-0017", "…st-0017", "…est-0017"),
            ("東京東京東京", " …京東京", "…東京東京"),
        ] {
            assert_eq!((column(name, 8).as_str(), row_name(name, 9).as_str()), (head, row));
        }
    }

    #[test]
    fn columns_that_do_not_fit_a_terminal_stand_below_the_others() {
        let names: Vec<_> = ["duck", "goose", "owl"].map(str::to_owned).into();
        let rows = vec![vec![Cell::Stale; 3]; 3];
        let grid = Grid { metric: "total".to_owned(), names, rows };
        let whole = grid.table(None);
        assert_eq!(grid.table(Some(36)), whole, "it fits");
        let narrow = "\
from \\ to     duck    goose
duck             ~        ~
goose            ~        ~
owl              ~        ~

from \\ to      owl
duck             ~
goose            ~
owl              ~
";
        assert!(grid.table(Some(35)).starts_with(narrow), "{}", grid.table(Some(35)));
        assert_eq!(grid.table(Some(0)).matches("from").count(), 3, "one column at least");
    }
}
