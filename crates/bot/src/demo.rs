//! A whole mesh in one process on loopback: the first thing a newcomer runs.

use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use crate::{Bot, Guard, Live, Metrics, Seed, Snapshot, Token, Tokens, serve_api};
use canary_core::{NodeName, Target};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::logs;
use crate::matrix::Matrix;
use crate::run::RunError;

/// Bots of a demonstration at most: more do not fit a terminal.
pub(crate) const BOTS_MAX: usize = 20;

const NAMES: [&str; BOTS_MAX] = [
    "owl", "duck", "goose", "swan", "eagle", "heron", "robin", "wren", "finch", "crane", "raven", "stork", "kite", "lark", "swift", "tern",
    "dove", "gull", "hawk", "ibis",
];

/// How often the picture is drawn anew.
const REDRAW: Duration = Duration::from_millis(250);

/// What a demonstration shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demo {
    /// How many bots.
    pub(crate) bots: usize,
    /// For how long; until stopped, if not given.
    pub(crate) duration: Option<Duration>,
}

/// Runs the demonstration. Tells whether every bot served the whole matrix at its end.
pub(crate) async fn run(demo: Demo) -> Result<bool, RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
    let token = Token::generate().map_err(|error| RunError::Token(error.to_string()))?;
    let stop = CancellationToken::new();
    let begun = Instant::now();
    let mut bots = Vec::new();
    let mut urls = Vec::new();
    for name in NAMES.iter().take(demo.bots) {
        let (bot, url) = start(name, &bots, &token, &stop).await?;
        bots.push(bot);
        urls.push(url);
    }
    let mut screen = Screen::new(io::stdout());
    screen.introduce(&bots, &urls, &token).map_err(RunError::Stdout)?;
    let deadline = demo.duration.map(|duration| begun + duration);
    let mut tick = tokio::time::interval(REDRAW);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = tick.tick() => {
                let snapshots: Vec<_> = bots.iter().map(Bot::snapshot).collect();
                screen.show(&snapshots, begun.elapsed()).map_err(RunError::Stdout)?;
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    break;
                }
            }
        }
    }
    let snapshots: Vec<_> = bots.iter().map(Bot::snapshot).collect();
    let whole = screen.conclude(&snapshots).map_err(RunError::Stdout)?;
    stop.cancel();
    let mut leaving = tokio::task::JoinSet::new();
    for bot in bots {
        leaving.spawn(bot.leave());
    }
    leaving.join_all().await;
    Ok(whole)
}

async fn start(name: &str, earlier: &[Bot], token: &Token, stop: &CancellationToken) -> Result<(Bot, String), RunError> {
    let name: NodeName = name.parse().expect("the names of a demonstration are valid");
    let mut builder = Bot::builder(name);
    for seed in earlier.iter().take(3) {
        let address = seed.address();
        let target = Target::new(&address.ip().to_string(), address.port()).expect("an address listened on is a target");
        builder = builder.seed(Seed::Fixed(target));
    }
    let bot = builder.start().await?;
    let guard = Guard { tokens: Live::new(Tokens::new([token.clone()])), ..Guard::default() };
    let api_error = |source| RunError::Api { address: ([127, 0, 0, 1], 0).into(), source };
    let api = std::net::TcpListener::bind("127.0.0.1:0").map_err(api_error)?;
    let url = format!("http://{}", api.local_addr().map_err(api_error)?);
    tokio::spawn(serve_api(bot.reader(), api, guard, Metrics::default(), stop.clone()));
    Ok((bot, url))
}

/// Draws on a terminal, and writes lines anywhere else.
struct Screen<W> {
    out: W,
    terminal: bool,
    /// Lines drawn last, to be drawn over.
    drawn: usize,
    /// What was last written in lines.
    said: Option<(usize, usize)>,
}

impl Screen<io::Stdout> {
    fn new(out: io::Stdout) -> Self {
        let terminal = out.is_terminal() && logs::colours(&out);
        Self { out, terminal, drawn: 0, said: None }
    }
}

impl<W: Write> Screen<W> {
    fn introduce(&mut self, bots: &[Bot], urls: &[String], token: &Token) -> io::Result<()> {
        writeln!(self.out, "{} bots on this host; each serves what all of them measure:", bots.len())?;
        for (bot, url) in bots.iter().zip(urls) {
            writeln!(self.out, "  {:<8} {url}", bot.snapshot().me.name.as_str())?;
        }
        let url = urls.last().map(String::as_str).unwrap_or_default();
        writeln!(self.out, "\ntoken: {}\n\ntry:", token.reveal())?;
        for path in ["/api/v1/nodes", "/api/v1/samples", "/metrics"] {
            writeln!(self.out, "  curl -H 'Authorization: Bearer {}' {url}{path}", token.reveal())?;
        }
        writeln!(self.out)
    }

    fn show(&mut self, snapshots: &[std::sync::Arc<Snapshot>], elapsed: Duration) -> io::Result<()> {
        let (least, pairs) = progress(snapshots);
        let seconds = elapsed.as_secs_f64();
        let line = format!("{seconds:6.2} s  {least} of {pairs} pairs are known to every bot");
        if self.terminal {
            let matrix = snapshots.first().map(|snapshot| Matrix::of(snapshot).to_string()).unwrap_or_default();
            let picture = format!("{line}\n\n{matrix}");
            if self.drawn > 0 {
                write!(self.out, "\x1b[{}A\x1b[J", self.drawn)?;
            }
            self.drawn = picture.matches('\n').count();
            // Without wrapping: a line is a line, however narrow the terminal.
            write!(self.out, "\x1b[?7l{picture}\x1b[?7h")?;
        } else if self.said != Some((least, pairs)) {
            writeln!(self.out, "{line}")?;
            self.said = Some((least, pairs));
        }
        self.out.flush()
    }

    fn conclude(&mut self, snapshots: &[std::sync::Arc<Snapshot>]) -> io::Result<bool> {
        let (least, pairs) = progress(snapshots);
        if let Some(snapshot) = snapshots.first().filter(|_| !self.terminal) {
            writeln!(self.out, "\n{}", Matrix::of(snapshot))?;
        }
        let whole = least == pairs;
        writeln!(self.out, "{}", if whole { "the matrix is whole at every bot" } else { "the matrix is not whole at every bot" })?;
        Ok(whole)
    }
}

/// Pairs that the bot knows which knows the fewest, and how many there are.
fn progress(snapshots: &[std::sync::Arc<Snapshot>]) -> (usize, usize) {
    let pairs = snapshots.len() * snapshots.len().saturating_sub(1);
    let known = |snapshot: &Snapshot| {
        let matrix = Matrix::of(snapshot);
        if matrix.nodes() > snapshots.len() { 0 } else { matrix.measured() }
    };
    (snapshots.iter().map(|snapshot| known(snapshot)).min().unwrap_or(0), pairs)
}
