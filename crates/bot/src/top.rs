//! `canary-bot top`: the matrix, the verdict and the incidents, live on a terminal.

mod screen;

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::ask::{AskError, Server};
use crate::error::RunError;
use crate::grid::Grid;
use crate::status::Status;
use screen::{Loaded, Screen, Wish};

/// How often to ask the bot: a large matrix costs it more.
fn refresh(nodes: usize) -> Duration {
    Duration::from_secs(match nodes {
        0..=150 => 2,
        151..=400 => 5,
        _ => 15,
    })
}

/// How often the age of what is shown is drawn again.
const REDRAW: Duration = Duration::from_millis(500);

async fn load(server: &Server, metric: &str) -> Result<Loaded, AskError> {
    let verdict = server.get("/api/v2/verdict").await?;
    let mut incidents = server.get("/api/v2/incidents?state=open").await?;
    let grid = Grid::of(server, metric).await?;
    Ok(Loaded::new(&verdict, incidents["incidents"].take(), grid))
}

/// Prints what the screen would show, and ends.
pub(crate) async fn once(server: &Server, metric: &str) -> Result<(), RunError> {
    let loaded = load(server, metric).await?;
    let mut out = io::stdout().lock();
    write!(out, "{}", screen::text(loaded)).and_then(|()| out.flush()).map_err(RunError::Stdout)
}

/// The same for programs: the verdict with the open incidents, as `status --json` has them, and the
/// matrix.
pub(crate) async fn once_json(server: &Server, metric: &str) -> Result<(), RunError> {
    let mut all = Status::of(server).await?.into_json();
    all["matrix"] = server.get(&format!("/api/v2/matrix?metric={metric}")).await?;
    let text = crate::status::escaped(&format!("{all:#}"));
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(RunError::Stdout)
}

/// Shows it until the user quits.
pub(crate) async fn run(server: Server, metric: &str, colours: bool) -> Result<(), RunError> {
    let server = Arc::new(server);
    // Before the screen is taken: a wrong token is said in words.
    let mut screen = Screen::new(load(&server, metric).await?, colours);
    let mut terminal = ratatui::try_init().map_err(RunError::Stdout)?;
    let shown = show(&server, &mut screen, &mut terminal).await;
    let restored = ratatui::try_restore();
    shown.and(restored).map_err(RunError::Stdout)
}

async fn show(
    server: &Arc<Server>,
    screen: &mut Screen,
    terminal: &mut ratatui::DefaultTerminal,
) -> io::Result<()> {
    let (sender, mut events) = mpsc::channel(64);
    // Reading blocks. The thread ends with the process, or with the terminal.
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    })?;
    let mut redraw = tokio::time::interval(REDRAW);
    let mut asked_at = Instant::now();
    // A key wants it, paused or not.
    let mut wanted = false;
    let (mut terminate, mut hang_up) =
        (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let mut asking: Option<tokio::task::JoinHandle<Result<Loaded, AskError>>> = None;
    loop {
        terminal.draw(|frame| screen.draw(frame))?;
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::Key(key)) => match screen.press(key) {
                    Wish::Quit => return Ok(()),
                    Wish::Load => wanted = true,
                    Wish::Nothing => {}
                },
                Some(_) => {}
                None => return Ok(()),
            },
            _ = terminate.recv() => return Ok(()),
            _ = hang_up.recv() => return Ok(()),
            _ = redraw.tick() => {}
            loaded = async { match &mut asking { Some(asking) => asking.await, None => std::future::pending().await } } => {
                asking = None;
                match loaded {
                    Ok(Ok(loaded)) => screen.load(loaded),
                    Ok(Err(error)) => screen.fail(&error),
                    Err(_) => {}
                }
            }
        }
        if asking.is_none()
            && (wanted || (!screen.is_paused() && asked_at.elapsed() >= refresh(screen.nodes())))
        {
            wanted = false;
            asked_at = Instant::now();
            let (server, metric) = (Arc::clone(server), screen.metric());
            asking = Some(tokio::spawn(async move { load(&server, metric).await }));
        }
    }
}
