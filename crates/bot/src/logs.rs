//! Logs: messages for people and machines, on stderr. Measuring never waits for them.
//!
//! Lines go through a bounded queue to a thread that writes them. A stderr that is closed, full or
//! not read costs lines, which are counted, and nothing else. A line that repeats very often is
//! left out and counted as well.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use canary_net::Rates;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::settings::LogSettings;

/// Lines that wait to be written. Further ones are lost and counted.
const LINES_WAITING_MAX: usize = 1024;
/// How long the end of the process waits for lines to be written.
const FLUSH_TIME: Duration = Duration::from_secs(1);
/// Lines of one place in the code: so many at once, and so many a second after that. What repeats
/// by design is logged once a minute; this is for what nobody thought of. A mesh of two thousand
/// that starts has a line for each node.
const LINES_OF_ONE_PLACE: (f64, f64) = (2000.0, 1.0);

/// Libraries that log about connections of strangers. Their lines are for developers.
const LIBRARIES: [&str; 4] = ["h2", "hyper", "hyper_util", "connectrpc"];

/// Lines that were lost because nobody read them.
static UNREAD: AtomicU64 = AtomicU64::new(0);
/// Lines that were left out because they repeated too often.
static REPEATED: AtomicU64 = AtomicU64::new(0);

/// Sets the level to debug, or back to what the settings say.
static RAISE: OnceLock<Box<dyn Fn(bool) + Send + Sync>> = OnceLock::new();
static IS_RAISED: AtomicBool = AtomicBool::new(false);

/// Logs at level debug from now on; when it does already, as the settings say.
pub(crate) fn toggle_debug() {
    let is_raised = !IS_RAISED.fetch_xor(true, Ordering::Relaxed);
    let Some(raise) = RAISE.get() else { return };
    // Said while it is raised: the level of the settings may be too high for it.
    let words = "the level of the log was changed by SIGUSR1";
    if is_raised {
        raise(true);
        tracing::info!(raised = true, "{words}");
    } else {
        tracing::info!(raised = false, "{words}");
        raise(false);
    }
}

/// Log lines that were not written, by reason.
pub(crate) fn lost() -> [(&'static str, u64); 2] {
    [("unread", UNREAD.load(Ordering::Relaxed)), ("repeated", REPEATED.load(Ordering::Relaxed))]
}

/// What the thread that writes is given.
enum Message {
    Line(Vec<u8>),
    /// Everything before this is to be written; tell when it is.
    Flush(Sender<()>),
}

/// The way to the thread that writes. Dropping it waits for what is queued, but not for long.
#[must_use = "lines are written until it is dropped"]
pub(crate) struct Logs(SyncSender<Message>);

impl Drop for Logs {
    fn drop(&mut self) {
        let (done, flushed) = channel();
        if self.0.try_send(Message::Flush(done)).is_ok() {
            // If the log is not read by then, its end is lost.
            let _ = flushed.recv_timeout(FLUSH_TIME);
        }
    }
}

/// Starts logging. Everything goes to stderr: stdout is for data.
pub(crate) fn start(settings: LogSettings) -> io::Result<Logs> {
    let (queue, lines) = sync_channel(LINES_WAITING_MAX);
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write(&lines, &mut io::stderr()))?;
    let of_libraries = if settings.libraries { LevelFilter::DEBUG } else { LevelFilter::ERROR };
    let at = move |level: Level| {
        let libraries = LIBRARIES.map(|library| (library, of_libraries));
        Targets::new().with_default(level).with_targets(libraries)
    };
    let (levels, handle) = reload::Layer::new(at(settings.level));
    let raise = move |is_raised: bool| {
        let level = if is_raised { settings.level.max(Level::DEBUG) } else { settings.level };
        // It fails only if the subscriber is gone, and then nothing is logged.
        let _ = handle.reload(at(level));
    };
    let _ = RAISE.set(Box::new(raise));
    // A failed write is counted, and not reported on the very stream that failed.
    let lines = fmt::layer()
        .with_writer(Queue(queue.clone()))
        .log_internal_errors(false)
        .with_target(false);
    let lines: Box<dyn Layer<_> + Send + Sync> = if settings.json {
        // Without the module: its key is "target", which is a word of ours.
        Box::new(lines.json().flatten_event(true).with_current_span(false).with_span_list(false))
    } else {
        Box::new(lines.with_ansi(colours(&io::stderr())))
    };
    tracing_subscriber::registry()
        .with(levels)
        .with(lines)
        .with(Repeated(Rates::new(LINES_OF_ONE_PLACE.0, LINES_OF_ONE_PLACE.1)))
        .init();
    std::panic::set_hook(Box::new(
        |panic| tracing::error!(%panic, "a part of this bot failed; please report it"),
    ));
    Ok(Logs(queue))
}

/// A mistake as a line of the JSON log.
pub(crate) fn as_json(what: &str) -> String {
    let now = humantime::format_rfc3339_micros(std::time::SystemTime::now()).to_string();
    serde_json::json!({ "timestamp": now, "level": "ERROR", "message": what }).to_string()
}

/// Writes a last line to stderr, and waits a moment for it: a reader that does not read must not
/// keep the process.
pub(crate) fn say(line: String) {
    let (done, said) = channel();
    let words = line.clone();
    let saying = std::thread::Builder::new().spawn(move || {
        let _ = writeln!(io::stderr(), "{words}");
        let _ = done.send(());
    });
    match saying {
        Ok(_) => {
            let _ = said.recv_timeout(FLUSH_TIME);
        }
        // That there is no thread may be what is to be said.
        Err(_) => {
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

fn write(lines: &Receiver<Message>, out: &mut impl Write) {
    for message in lines {
        match message {
            Message::Line(line) => {
                if out.write_all(&line).and_then(|()| out.flush()).is_err() {
                    UNREAD.fetch_add(1, Ordering::Relaxed);
                }
            }
            Message::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

/// Takes a line in one call, and never waits.
#[derive(Clone)]
struct Queue(SyncSender<Message>);

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Message::Line(line.to_vec())).is_err() {
            UNREAD.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Leaves out lines of a place in the code that logs all the time.
struct Repeated(Rates<Identifier>);

impl<S: Subscriber> Layer<S> for Repeated {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        // Who asks for more than messages to operators gets all of it.
        let allows = *event.metadata().level() > Level::INFO
            || self.0.spend(event.metadata().callsite(), Instant::now());
        REPEATED.fetch_add(u64::from(!allows), Ordering::Relaxed);
        allows
    }
}

/// Whether colours and cursor movements are welcome on a stream.
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    stream.is_terminal() && !unwanted && !dumb
}
