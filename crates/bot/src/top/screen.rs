//! What the screen shows, and what keys change of it. It opens no socket and reads no clock but to
//! say how old it is.

use std::collections::VecDeque;
use std::time::Instant;

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Paragraph, Sparkline, Wrap};
use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use crate::ask::AskError;
use crate::grid::{Cell, Grid, METRICS, row_name};
use crate::status::text as clean;

/// Columns of a cell, with the space before it.
const CELL: u16 = 8;
/// Columns of a name at most.
const NAME_MAX: u16 = 16;
/// Results of the selected pair that the sparkline shows at most.
const HISTORY_MAX: usize = 200;
/// Lines of incidents at most: the matrix needs the rest.
const INCIDENTS_MAX: usize = 6;

/// The height of the lowest bar, of nine: less is not drawn.
const BAR: u64 = 1_000;

const HELP: &str = "q quit  arrows move  m metric  s sort  f failing only  p pause  g/G first/last";

/// What one look at the bot brought.
#[derive(Clone, Debug, Default)]
pub(super) struct Loaded {
    verdict: String,
    severity: Option<String>,
    counts: String,
    incidents: Vec<String>,
    grid: Grid,
    /// When the bot found it.
    as_of: String,
}

impl Loaded {
    pub(super) fn new(verdict: &Value, incidents: Value, grid: Grid) -> Self {
        let (nodes, pairs) = (&verdict["nodes"], &verdict["pairs"]);
        let incident = |incident: &Value| {
            format!("{}: {}", clean(&incident["severity"]), clean(&incident["summary"]))
        };
        Self {
            verdict: clean(&verdict["verdict"]),
            severity: verdict["severity"].as_str().map(str::to_owned),
            counts: format!(
                "{} sees {} of {} nodes; pairs: {} ok, {} failed, {} unknown",
                clean(&verdict["node"]),
                nodes["visible"],
                nodes["known"],
                pairs["ok"],
                pairs["failed"],
                pairs["unknown"]
            ),
            incidents: incidents.as_array().into_iter().flatten().map(incident).collect(),
            as_of: clean(&verdict["as_of"]),
            grid,
        }
    }
}

/// What the loop has to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    /// Ask the bot at once.
    Load,
    Quit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Name,
    /// The node with the most failures first, then the slowest.
    Worst,
}

#[derive(Debug)]
pub(super) struct Screen {
    loaded: Loaded,
    loaded_at: Instant,
    /// Why the bot cannot be asked; what is shown is old then.
    failure: Option<String>,
    metric: usize,
    sort: Sort,
    failing_only: bool,
    paused: bool,
    /// Names, not places: rows move.
    cursor: Option<(String, String)>,
    history: VecDeque<Option<f64>>,
    colours: bool,
}

impl Screen {
    pub(super) fn new(loaded: Loaded, colours: bool) -> Self {
        let metric = METRICS.iter().position(|metric| *metric == loaded.grid.metric).unwrap_or(0);
        let mut screen = Self {
            loaded: Loaded::default(),
            loaded_at: Instant::now(),
            failure: None,
            metric,
            sort: Sort::Name,
            failing_only: false,
            paused: false,
            cursor: None,
            history: VecDeque::new(),
            colours,
        };
        screen.load(loaded);
        screen
    }

    pub(super) fn metric(&self) -> &'static str {
        METRICS.get(self.metric).copied().unwrap_or("total")
    }

    pub(super) fn nodes(&self) -> usize {
        self.loaded.grid.names.len()
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn load(&mut self, loaded: Loaded) {
        if loaded.grid.metric != self.loaded.grid.metric {
            self.history.clear();
        }
        // What the bot knows may stand still while it answers: then its age grows.
        if loaded.as_of.is_empty() || loaded.as_of != self.loaded.as_of {
            self.loaded_at = Instant::now();
        }
        self.loaded = loaded;
        self.failure = None;
        if let Some((source, target)) = self.selected() {
            let value = match self.loaded.grid.cell(source, target) {
                Cell::Ok(value) => *value,
                Cell::Itself | Cell::Unknown | Cell::Stale | Cell::Failed(_) => None,
            };
            self.history.push_back(value);
            while self.history.len() > HISTORY_MAX {
                self.history.pop_front();
            }
        }
    }

    pub(super) fn fail(&mut self, error: &AskError) {
        self.failure = Some(error.to_string());
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Wish::Quit;
            }
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Esc if self.cursor.is_none() => return Wish::Quit,
            KeyCode::Esc => self.select(None),
            KeyCode::Char('m') => {
                self.metric = (self.metric + 1) % METRICS.len();
                return Wish::Load;
            }
            KeyCode::Char('s') => {
                self.sort = if self.sort == Sort::Name { Sort::Worst } else { Sort::Name }
            }
            KeyCode::Char('f') => self.failing_only = !self.failing_only,
            KeyCode::Char('p') => {
                self.paused = !self.paused;
                return Wish::Load;
            }
            KeyCode::Up | KeyCode::Char('k') => self.step(-1, 0),
            KeyCode::Down | KeyCode::Char('j') => self.step(1, 0),
            KeyCode::Left | KeyCode::Char('h') => self.step(0, -1),
            KeyCode::Right | KeyCode::Char('l') => self.step(0, 1),
            KeyCode::PageUp => self.step(-10, 0),
            KeyCode::PageDown => self.step(10, 0),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN / 2, isize::MIN / 2),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX / 2, isize::MAX / 2),
            _ => {}
        }
        Wish::Nothing
    }

    fn select(&mut self, pair: Option<(String, String)>) {
        if self.cursor != pair {
            self.cursor = pair;
            self.history.clear();
        }
    }

    fn step(&mut self, down: isize, right: isize) {
        let order = self.order();
        let place = |name: Option<&String>| {
            name.and_then(|name| {
                order.iter().position(|node| self.loaded.grid.names.get(*node) == Some(name))
            })
        };
        let (row, column) = match &self.cursor {
            Some((source, target)) => (place(Some(source)), place(Some(target))),
            None => (None, None),
        };
        let moved = |at: Option<usize>, by: isize| match at {
            Some(at) => at.saturating_add_signed(by).min(order.len().saturating_sub(1)),
            None if by > 1 => order.len().saturating_sub(1),
            None => 0,
        };
        let name =
            |at: usize| order.get(at).and_then(|node| self.loaded.grid.names.get(*node)).cloned();
        let pair = name(moved(row, down)).zip(name(moved(column, right)));
        self.select(pair);
    }

    /// The selected pair, if both are still there.
    fn selected(&self) -> Option<(usize, usize)> {
        let (source, target) = self.cursor.as_ref()?;
        let place = |name: &String| self.loaded.grid.names.iter().position(|other| other == name);
        place(source).zip(place(target))
    }

    /// Nodes in the order of rows and columns.
    fn order(&self) -> Vec<usize> {
        let grid = &self.loaded.grid;
        let nodes = 0..grid.names.len();
        let fails =
            |source: usize, target: usize| matches!(grid.cell(source, target), Cell::Failed(_));
        let failures: Vec<usize> = nodes
            .clone()
            .map(|node| {
                nodes.clone().filter(|other| fails(node, *other) || fails(*other, node)).count()
            })
            .collect();
        let slowest = |node: usize| {
            let values = nodes.clone().filter_map(|other| match grid.cell(node, other) {
                Cell::Ok(value) => *value,
                Cell::Itself | Cell::Unknown | Cell::Stale | Cell::Failed(_) => None,
            });
            values.fold(0.0, f64::max)
        };
        let slowest: Vec<f64> = nodes.clone().map(slowest).collect();
        let slow = |node: usize| slowest.get(node).copied().unwrap_or(0.0);
        let count = |node: usize| failures.get(node).copied().unwrap_or(0);
        let mut order: Vec<_> =
            nodes.clone().filter(|node| !self.failing_only || count(*node) > 0).collect();
        if self.sort == Sort::Worst {
            order.sort_by(|a, b| count(*b).cmp(&count(*a)).then(slow(*b).total_cmp(&slow(*a))));
        }
        order
    }

    fn style(&self, colour: Color, modifier: Modifier) -> Style {
        let style = Style::new().add_modifier(modifier);
        if self.colours { style.fg(colour) } else { style }
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let incidents = self.loaded.incidents.iter().take(INCIDENTS_MAX);
        let mut incidents: Vec<_> = incidents.map(|line| Line::raw(line.clone())).collect();
        if self.loaded.incidents.len() > INCIDENTS_MAX {
            incidents.push(Line::raw(format!(
                "and {} more: canary-bot status",
                self.loaded.incidents.len() - INCIDENTS_MAX
            )));
        }
        let verdict = Paragraph::new(self.loaded.verdict.clone())
            .style(self.verdict_style())
            .wrap(Wrap { trim: true });
        let words = u16::try_from(self.loaded.verdict.chars().count()).unwrap_or(u16::MAX);
        let tall = (words / area.width.max(1) + 1).min(4);
        let [top, status, matrix, below, pair, help] = Layout::vertical([
            Constraint::Length(tall),
            Constraint::Length(1),
            Constraint::Min(3),
            Constraint::Length(u16::try_from(incidents.len()).unwrap_or(0)),
            Constraint::Length(if self.cursor.is_some() { 2 } else { 0 }),
            Constraint::Length(1),
        ])
        .areas(area);
        frame.render_widget(verdict, top);
        frame.render_widget(self.status(), status);
        frame.render_widget(self.matrix(matrix), matrix);
        frame.render_widget(Text::from(incidents), below);
        self.draw_pair(frame, pair);
        frame.render_widget(
            Line::styled(HELP, self.style(Color::DarkGray, Modifier::empty())),
            help,
        );
    }

    fn verdict_style(&self) -> Style {
        match self.loaded.severity.as_deref() {
            Some("critical") => self.style(Color::Red, Modifier::BOLD),
            Some(_) => self.style(Color::Yellow, Modifier::BOLD),
            None => self.style(Color::Green, Modifier::BOLD),
        }
    }

    fn status(&self) -> Line<'_> {
        let age = self.loaded_at.elapsed().as_secs();
        if let Some(failure) = &self.failure {
            return Line::styled(
                format!("BROKEN, shown is what it knew {age} s ago: {failure}"),
                self.style(Color::Red, Modifier::BOLD),
            );
        }
        let sort = if self.sort == Sort::Name { "" } else { ", worst first" };
        let filter = if self.failing_only { ", failing only" } else { "" };
        let state = if self.paused { "paused, " } else { "" };
        let shown = format!("{}{sort}{filter}; {state}{age} s ago", self.loaded.grid.metric);
        Line::raw(format!("{shown}; {}", self.loaded.counts))
    }

    fn matrix(&self, area: Rect) -> Text<'_> {
        let grid = &self.loaded.grid;
        let order = self.order();
        if order.is_empty() {
            return Text::raw(if self.failing_only {
                "no pair fails (f shows all)"
            } else {
                "no node is known"
            });
        }
        let longest = grid.names.iter().map(|name| name.width()).max().unwrap_or(0);
        let width = u16::try_from(longest).unwrap_or(NAME_MAX).clamp(9, NAME_MAX);
        let columns = usize::from((area.width.saturating_sub(width) / CELL).max(1));
        let rows = usize::from(area.height.saturating_sub(1).max(1));
        let selected = self.selected();
        let place = |node: Option<usize>| {
            node.and_then(|node| order.iter().position(|other| *other == node)).unwrap_or(0)
        };
        let (row, column) =
            (place(selected.map(|(source, _)| source)), place(selected.map(|(_, target)| target)));
        let from = |at: usize, room: usize| (at + 1).saturating_sub(room);
        let (first_row, first_column) = (from(row, rows), from(column, columns));
        let visible: Vec<_> = order.iter().skip(first_column).take(columns).copied().collect();
        let name = |node: usize| grid.names.get(node).map_or("", String::as_str);
        let (wide, cell_wide) = (usize::from(width), usize::from(CELL));
        let mut head = vec![Span::raw(format!("{:<wide$}", "from \\ to"))];
        head.extend(visible.iter().map(|target| {
            let is_cursor = selected.is_some_and(|(_, selected)| selected == *target);
            let text = format!(" {}", crate::grid::column(name(*target), cell_wide - 1));
            Span::styled(
                text,
                Style::new().add_modifier(if is_cursor { Modifier::BOLD } else { Modifier::DIM }),
            )
        }));
        let mut lines = vec![Line::from(head)];
        for source in order.iter().skip(first_row).take(rows) {
            let mut spans = vec![Span::raw(row_name(name(*source), wide))];
            spans.extend(visible.iter().map(|target| {
                let cell = grid.cell(*source, *target);
                let mut style = match cell {
                    Cell::Failed(_) => self.style(Color::Red, Modifier::BOLD),
                    Cell::Ok(Some(loss)) if grid.metric == "loss" && *loss > 0.0 => {
                        self.style(Color::Yellow, Modifier::BOLD)
                    }
                    Cell::Ok(_) => Style::new(),
                    Cell::Itself | Cell::Unknown | Cell::Stale => {
                        self.style(Color::DarkGray, Modifier::empty())
                    }
                };
                if selected == Some((*source, *target)) {
                    style = style.add_modifier(Modifier::REVERSED);
                }
                Span::styled(format!("{:>cell_wide$}", grid.short(cell)), style)
            }));
            lines.push(Line::from(spans));
        }
        Text::from(lines)
    }

    fn draw_pair(&self, frame: &mut Frame<'_>, area: Rect) {
        let (Some((source, target)), Some(names)) = (self.selected(), &self.cursor) else { return };
        let [words, chart] =
            Layout::vertical([Constraint::Length(1), Constraint::Length(1)]).areas(area);
        let grid = &self.loaded.grid;
        let (there, back) =
            (grid.long(grid.cell(source, target)), grid.long(grid.cell(target, source)));
        frame.render_widget(
            Line::raw(format!("{} -> {}: {there}; back: {back}", names.0, names.1)),
            words,
        );
        let most = self.history.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
        let skip = self.history.len().saturating_sub(usize::from(chart.width));
        // A gap is a look without a value; a value is never drawn as nothing.
        let bars: Vec<Option<u64>> = self
            .history
            .iter()
            .skip(skip)
            .map(|value| value.map(|value| BAR + (value / most * (8 * BAR) as f64) as u64))
            .collect();
        frame.render_widget(
            Sparkline::default().data(bars).max(9 * BAR).absent_value_symbol('x'),
            chart,
        );
    }
}

/// The same as text, for scripts: all rows and all columns.
pub(super) fn text(loaded: Loaded) -> String {
    let incidents: String =
        loaded.incidents.iter().map(|incident| format!("{incident}\n")).collect();
    format!("{}\n{}\n\n{}\n{}", loaded.verdict, loaded.counts, loaded.grid.table(None), incidents)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    fn loaded(failing: bool) -> Loaded {
        let states = |at: usize| {
            (0..3)
                .map(|to| {
                    if to == at {
                        "self"
                    } else if failing && to == 1 {
                        "refused"
                    } else {
                        "ok"
                    }
                })
                .collect::<Vec<_>>()
        };
        let values = |at: usize| {
            (0..3)
                .map(|to| (to != at && !(failing && to == 1)).then_some(0.0003 * (at + to) as f64))
                .collect::<Vec<_>>()
        };
        let rows: Vec<_> =
            (0..3).map(|at| json!({ "states": states(at), "values": values(at) })).collect();
        let nodes =
            [json!({ "name": "duck" }), json!({ "name": "goose" }), json!({ "name": "owl" })];
        let grid = Grid::read(&json!({ "metric": "total", "nodes": nodes, "rows": rows })).unwrap();
        let sentence = if failing {
            "goose has been unreachable for all 2 others since 10:42:03 UTC (connection refused): the bot is down, the host is up."
        } else {
            "All 3 nodes reach each other."
        };
        let verdict = json!({ "verdict": sentence, "severity": failing.then_some("critical"), "node": "owl",
            "nodes": { "known": 3, "visible": 3 - usize::from(failing) }, "pairs": { "ok": 6, "failed": 0, "unknown": 0 } });
        let incidents = if failing {
            json!([{ "severity": "critical", "summary": sentence }])
        } else {
            json!([])
        };
        Loaded::new(&verdict, incidents, grid)
    }

    fn drawn(screen: &Screen) -> String {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let line =
            |y| (0..80).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..24).map(line).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    }

    fn press(screen: &mut Screen, keys: &[KeyCode]) -> Wish {
        keys.iter().map(|key| screen.press(KeyEvent::from(*key))).last().unwrap()
    }

    #[test]
    fn it_fits_a_small_terminal() {
        let screen = Screen::new(loaded(false), false);
        let expected = "All 3 nodes reach each other.\n\
            total; 0 s ago; owl sees 3 of 3 nodes; pairs: 6 ok, 0 failed, 0 unknown\n\
            from \\ to    duck   goose     owl\n\
            duck            -    0.30    0.60\n\
            goose        0.30       -    0.90\n\
            owl          0.60    0.90       -\n";
        assert_eq!(drawn(&screen), format!("{expected}{HELP}"));
    }

    #[test]
    fn keys_select_sort_and_filter() {
        let mut screen = Screen::new(loaded(true), true);
        assert_eq!(
            press(&mut screen, &[KeyCode::Right, KeyCode::Right, KeyCode::Down]),
            Wish::Nothing
        );
        screen.load(loaded(true));
        assert!(drawn(&screen).contains("goose -> goose: itself"), "{}", drawn(&screen));
        press(&mut screen, &[KeyCode::Up]);
        screen.load(loaded(true));
        assert!(
            drawn(&screen).contains("duck -> goose: failed (refused); back: 0.30 ms\nx"),
            "{}",
            drawn(&screen)
        );
        press(&mut screen, &[KeyCode::Char('s'), KeyCode::Char('f')]);
        assert!(drawn(&screen).contains("worst first, failing only"));
        screen.load(loaded(false));
        assert!(drawn(&screen).contains("no pair fails (f shows all)"));
        assert_eq!(press(&mut screen, &[KeyCode::Char('m')]), Wish::Load);
        assert_eq!(screen.metric(), "request");
        assert_eq!(press(&mut screen, &[KeyCode::Esc, KeyCode::Esc]), Wish::Quit);
    }

    #[test]
    fn a_bot_that_does_not_answer_is_shown_as_such() {
        let mut screen = Screen::new(loaded(false), true);
        screen.fail(&AskError::Late { url: "http://owl:8080".to_owned() });
        assert!(
            drawn(&screen)
                .contains("BROKEN, shown is what it knew 0 s ago: http://owl:8080 did not answer"),
            "{}",
            drawn(&screen)
        );
        screen.load(loaded(false));
        assert!(!drawn(&screen).contains("BROKEN"));
    }
}
