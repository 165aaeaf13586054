//! A whole mesh in one process on loopback: the first thing a newcomer runs.

mod fault;

use std::io::{self, IsTerminal as _, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use canary_core::{NodeName, Target};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::RunError;
use crate::explain::{Explained, explain};
use crate::grid::Grid;
use crate::{Bot, Content, Guard, Labels, Live, Seed, Snapshot, Token, Tokens, facade, logs};
pub(crate) use fault::Fault;
use fault::Way;

/// Bots of a demonstration at most: more do not fit a terminal.
pub(crate) const BOTS_MAX: usize = 20;

const NAMES: [&str; BOTS_MAX] = [
    "owl", "duck", "goose", "swan", "eagle", "heron", "robin", "wren", "finch", "crane", "raven",
    "stork", "kite", "lark", "swift", "tern", "dove", "gull", "hawk", "ibis",
];

/// The bot that a fault hits, by its place: not the first one, for that one shows the verdict.
const VICTIM: usize = 1;

/// How often the picture is drawn again.
const REDRAW: Duration = Duration::from_millis(250);

/// What a demonstration shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demo {
    /// How many bots.
    pub(crate) bots: usize,
    /// For how long; until stopped, if not given.
    pub(crate) duration: Option<Duration>,
    /// What is broken after a while.
    pub(crate) fault: Option<Fault>,
}

/// One bot of a demonstration.
struct Shown {
    bot: Bot,
    url: String,
    explained: Explained,
    /// Ends its API.
    stop: CancellationToken,
}

/// Runs the demonstration. Tells whether every bot served the whole matrix at its end.
pub(crate) async fn run(demo: Demo) -> Result<bool, RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
    crate::run::toggle_debug_by_signal()?;
    let token = Token::generate().map_err(|error| RunError::Token(error.to_string()))?;
    let begun = Instant::now();
    let (way, ways) = watch::channel(Way::Open);
    let mut bots: Vec<Shown> = Vec::new();
    let mut hanging = None;
    for (place, name) in NAMES.iter().take(demo.bots).enumerate() {
        let is_victim = place == VICTIM;
        let earlier: Vec<_> = bots.iter().take(3).map(|shown| shown.bot.address()).collect();
        match demo.fault.filter(|_| is_victim) {
            Some(Fault::Pause) => hanging = Some(Hanging::start(name, earlier, token.clone())?),
            fault => {
                let ways = fault
                    .filter(|fault| matches!(fault, Fault::Cut | Fault::Slow))
                    .map(|_| ways.clone());
                bots.push(start(name, &earlier, &token, demo.fault, ways).await?);
            }
        }
    }
    let mut screen = Screen::new(io::stdout());
    screen.introduce(&bots, hanging.is_some(), demo.fault, &token).map_err(RunError::Stdout)?;
    let deadline = demo.duration.map(|duration| begun + duration);
    let mut breaks_at = demo.fault.map(|fault| (begun + fault.after(), fault));
    let mut tick = tokio::time::interval(REDRAW);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = tick.tick() => {}
        }
        if let Some((_, fault)) = breaks_at.take_if(|(at, _)| Instant::now() >= *at) {
            screen
                .say(&format!(
                    "{:6.2} s  now: {} {}",
                    begun.elapsed().as_secs_f64(),
                    fault.as_str(),
                    NAMES[VICTIM]
                ))
                .map_err(RunError::Stdout)?;
            match fault {
                Fault::Kill if bots.len() > VICTIM => {
                    let Shown { bot, stop, .. } = bots.remove(VICTIM);
                    stop.cancel();
                    drop(bot);
                }
                Fault::Kill => {}
                Fault::Pause => hanging.iter_mut().for_each(Hanging::hang),
                Fault::Cut => drop(way.send(Way::Cut)),
                Fault::Slow => drop(way.send(Way::Slow)),
            }
        }
        screen
            .show(&bots, hanging.iter().filter(|hanging| hanging.runs).count(), begun.elapsed())
            .map_err(RunError::Stdout)?;
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
    }
    let whole = screen
        .conclude(&bots, hanging.iter().filter(|hanging| hanging.runs).count())
        .map_err(RunError::Stdout)?;
    let mut leaving = tokio::task::JoinSet::new();
    for Shown { bot, stop, .. } in bots {
        stop.cancel();
        leaving.spawn(bot.leave());
    }
    leaving.join_all().await;
    Ok(whole)
}

async fn start(
    name: &str,
    earlier: &[SocketAddr],
    token: &Token,
    fault: Option<Fault>,
    ways: Option<watch::Receiver<Way>>,
) -> Result<Shown, RunError> {
    let target = |address: SocketAddr| {
        Target::new(&address.ip().to_string(), address.port())
            .expect("an address listened on is a target")
    };
    let name: NodeName = name.parse().expect("the names of a demonstration are valid");
    // Two zones, so that the page has something to group by.
    let zone = if NAMES
        .iter()
        .position(|known| *known == name.as_str())
        .is_some_and(|place| place % 2 == 0)
    {
        "north"
    } else {
        "south"
    };
    let labels = Labels::new([("zone".to_owned(), zone.to_owned())])
        .expect("the labels of a demonstration are valid");
    let mut builder = Bot::builder(name).labels(labels);
    if fault.is_some() {
        builder = builder.config(fault::config());
    }
    for seed in earlier {
        builder = builder.seed(Seed::Fixed(target(*seed)));
    }
    let api_error = |source| RunError::Api { address: ([127, 0, 0, 1], 0).into(), source };
    let bot = match ways {
        None => builder.start().await?,
        Some(ways) => {
            // Others reach it through a relay, which can be cut.
            let relay = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(api_error)?;
            let bot =
                builder.target(target(relay.local_addr().map_err(api_error)?)).start().await?;
            tokio::spawn(fault::relay(relay, bot.address(), ways));
            bot
        }
    };
    let guard = Guard { tokens: Live::new(Tokens::new([token.clone()])), ..Guard::default() };
    let api = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(api_error)?;
    let url = format!("http://{}", api.local_addr().map_err(api_error)?);
    let stop = CancellationToken::new();
    let (explained, _) = explain(bot.reader(), stop.clone());
    tokio::spawn(facade::serve(
        bot.reader(),
        explained.clone(),
        api,
        guard,
        Content::default(),
        stop.clone(),
    ));
    Ok(Shown { bot, url, explained, stop })
}

/// A bot on a thread of its own, which can be made to stand still.
struct Hanging {
    hang: std::sync::mpsc::Sender<()>,
    runs: bool,
}

impl Hanging {
    fn start(name: &'static str, earlier: Vec<SocketAddr>, token: Token) -> Result<Self, RunError> {
        let (hang, asked) = std::sync::mpsc::channel::<()>();
        let body = move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build()
            else {
                return;
            };
            runtime.block_on(async {
                let Ok(_shown) = start(name, &earlier, &token, Some(Fault::Pause), None).await
                else {
                    return;
                };
                let mut tick = tokio::time::interval(REDRAW);
                while asked.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    tick.tick().await;
                }
                // From here on nothing of it runs, until the demonstration ends and drops the other
                // end.
                let _ = asked.recv();
            });
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(RunError::Thread)?;
        Ok(Self { hang, runs: true })
    }

    fn hang(&mut self) {
        self.runs = false;
        // It is gone if it did not start; then there is nothing to hang.
        let _ = self.hang.send(());
    }
}

/// Draws on a terminal, and writes lines anywhere else.
struct Screen<W> {
    out: W,
    terminal: bool,
    /// Lines drawn last, to be drawn over.
    drawn: usize,
    /// What was last written in lines.
    said: Option<(usize, usize)>,
    /// The whole matrix was written.
    pictured: bool,
    verdict: String,
}

impl Screen<io::Stdout> {
    fn new(out: io::Stdout) -> Self {
        let terminal = out.is_terminal() && logs::colours(&out);
        Self { out, terminal, drawn: 0, said: None, pictured: false, verdict: String::new() }
    }
}

impl<W: Write> Screen<W> {
    fn introduce(
        &mut self,
        bots: &[Shown],
        one_hangs: bool,
        fault: Option<Fault>,
        token: &Token,
    ) -> io::Result<()> {
        writeln!(
            self.out,
            "{} bots on this host; each serves what all of them measure:",
            bots.len() + usize::from(one_hangs)
        )?;
        for Shown { bot, url, .. } in bots {
            writeln!(self.out, "  {:<8} {url}", bot.snapshot().me.name.as_str())?;
        }
        // The first one: a fault hits another.
        let url = bots.first().map(|shown| shown.url.as_str()).unwrap_or_default();
        writeln!(
            self.out,
            "\nopen this in a browser:\n  {url}/#token={0}\n\nor try:\n  TOKEN={0}",
            token.reveal()
        )?;
        for path in ["/api/v2/verdict", "/api/v2/pairs", "/metrics"] {
            writeln!(self.out, "  curl -H \"Authorization: Bearer $TOKEN\" {url}{path}")?;
        }
        if let Some(fault) = fault {
            writeln!(
                self.out,
                "\nafter {} s: {} {}",
                fault.after().as_secs(),
                fault.as_str(),
                NAMES[VICTIM]
            )?;
        }
        writeln!(self.out, "\nCtrl-C ends it\n")
    }

    /// A line that stays.
    fn say(&mut self, line: &str) -> io::Result<()> {
        if self.drawn > 0 {
            write!(self.out, "\x1b[{}A\x1b[J", std::mem::take(&mut self.drawn))?;
        }
        writeln!(self.out, "{line}")
    }

    fn show(&mut self, bots: &[Shown], others: usize, elapsed: Duration) -> io::Result<()> {
        let snapshots: Vec<_> = bots.iter().map(|shown| shown.bot.snapshot()).collect();
        let (least, pairs) = progress(&snapshots, others);
        let verdict =
            bots.first().map(|shown| shown.explained.report().verdict.clone()).unwrap_or_default();
        let seconds = elapsed.as_secs_f64();
        let line = format!("{seconds:6.2} s  {least} of {pairs} pairs are known to every bot");
        let grid = snapshots.first().map(|snapshot| Grid::known_to(snapshot)).unwrap_or_default();
        if self.terminal {
            let size = ratatui::crossterm::terminal::size();
            // A terminal may not know its size.
            let known = size.ok().filter(|(wide, high)| *wide > 0 && *high > 0);
            let (wide, high) = known.map_or((80, 24), |(wide, high)| (wide.into(), high.into()));
            let picture = fitted(&line, &grid.table(Some(wide)), &verdict, high);
            if self.drawn > 0 {
                write!(self.out, "\x1b[{}A", self.drawn)?;
            }
            self.drawn = picture.matches('\n').count();
            // Line by line: terminals keep a whole screen that is cleared among what scrolled away.
            // Without wrapping: a line is a line, however narrow the terminal.
            let lines = picture.replace('\n', "\x1b[K\n");
            write!(self.out, "\x1b[?7l{lines}\x1b[J\x1b[?7h")?;
        } else {
            if self.said != Some((least, pairs)) {
                writeln!(self.out, "{line}")?;
                self.said = Some((least, pairs));
                if least == pairs && !std::mem::replace(&mut self.pictured, true) {
                    writeln!(self.out, "\n{}", grid.table(None))?;
                }
            }
            if self.verdict != verdict {
                writeln!(self.out, "{seconds:6.2} s  {verdict}")?;
                self.verdict = verdict;
            }
        }
        self.out.flush()
    }

    fn conclude(&mut self, bots: &[Shown], others: usize) -> io::Result<bool> {
        let snapshots: Vec<_> = bots.iter().map(|shown| shown.bot.snapshot()).collect();
        let (least, pairs) = progress(&snapshots, others);
        let whole = least == pairs;
        if let Some(snapshot) =
            snapshots.first().filter(|_| !(self.terminal || self.pictured && whole))
        {
            writeln!(self.out, "\n{}", Grid::known_to(snapshot).table(None))?;
        }
        writeln!(
            self.out,
            "{}",
            if whole {
                "the matrix is whole at every bot"
            } else {
                "the matrix is not whole at every bot"
            }
        )?;
        // What is broken is still broken.
        for shown in bots.iter().take(1).filter(|shown| !shown.explained.report().open.is_empty()) {
            writeln!(
                self.out,
                "{} says: {}",
                shown.bot.snapshot().me.name,
                shown.explained.report().verdict
            )?;
        }
        Ok(whole)
    }
}

/// What is drawn on a terminal with so many lines: more would scroll away, and could not be drawn
/// over.
fn fitted(line: &str, table: &str, verdict: &str, high: usize) -> String {
    let rows = table.lines().count();
    // The line, the verdict, two empty lines, and the one below, where the cursor stands.
    let room = high.saturating_sub(5).max(1);
    if rows <= room {
        return format!("{line}\n\n{table}\n{verdict}\n");
    }
    let shown: String = table.split_inclusive('\n').take(room - 1).collect();
    let left = rows + 1 - room;
    format!("{line}\n\n{shown}… {left} more lines: enlarge the terminal\n\n{verdict}\n")
}

/// Pairs that the bot knows which knows the fewest, and how many there are, with so many bots
/// beside those that are seen.
fn progress(snapshots: &[std::sync::Arc<Snapshot>], others: usize) -> (usize, usize) {
    let bots = snapshots.len() + others;
    let known = |snapshot: &Snapshot| {
        let grid = Grid::known_to(snapshot);
        if grid.names.len() > bots { 0 } else { grid.measured() }
    };
    (
        snapshots.iter().map(|snapshot| known(snapshot)).min().unwrap_or(0),
        bots * bots.saturating_sub(1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_fewer_lines_than_the_terminal() {
        let table: String = (0..30).map(|row| format!("row {row}\n")).collect();
        for high in [2, 6, 10, 24, 34, 35, 36, 80] {
            let picture = fitted("0.25 s", &table, "all is well", high);
            let lines = picture.lines().count();
            assert!(lines < high.max(7), "{lines} lines of {high}:\n{picture}");
            let left = picture
                .lines()
                .find_map(|line| line.strip_prefix("… ")?.split(' ').next()?.parse::<usize>().ok());
            let shown = picture.matches("row ").count();
            assert_eq!(shown + left.unwrap_or(0), 30, "{picture}");
        }
    }
}
