//! Logs: messages for people and machines, on stderr.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::settings::LogSettings;

/// Starts logging. Everything goes to stderr: stdout is for data.
pub(crate) fn start(settings: LogSettings) {
    let libraries = if settings.libraries { "debug" } else { "warn" };
    let filter = format!("{},h2={libraries},hyper={libraries},hyper_util={libraries},connectrpc={libraries}", settings.level);
    let logs = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_writer(io::stderr);
    if settings.json {
        // Without the module: its key is "target", which is a word of ours.
        logs.json().flatten_event(true).with_target(false).with_current_span(false).with_span_list(false).init();
    } else {
        logs.with_ansi(colours(&io::stderr())).with_target(false).init();
    }
}

/// Whether colours and cursor movements are welcome on a stream.
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    stream.is_terminal() && !unwanted && !dumb
}
