//! The bot as a process: starts, serves, and leaves when asked to.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use canary_net::tls::{ClientAuth, Mode};

use crate::{Bot, End, serve_api};
use canary_net::{Seldom, Token};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::Content;
use crate::error::RunError;
use crate::kubernetes;
use crate::logs;
use crate::outbound;
use crate::secrets::Secrets;
use crate::settings::{Join, Settings};
use crate::supervised;

/// How long a generated token may take to be written.
const STDOUT_PATIENCE: Duration = Duration::from_secs(2);
/// How often this host's own address is looked at.
const ADDRESS_LOOK: Duration = Duration::from_secs(5);

/// How a run ended, as the exit code tells it.
#[derive(Debug)]
pub(crate) enum Ended {
    /// As asked: 0.
    Well,
    /// Another living node has the name: 4.
    NameTaken,
}

/// Why one run of the bot ended.
enum Stop {
    Ended(Ended),
    /// This host has another address now.
    Moved(IpAddr),
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// Runs the bot until a signal, or until it ends by itself. Where nobody gave an address it follows
/// the one of this host.
pub(crate) async fn run(mut settings: Settings) -> Result<Ended, RunError> {
    raise_file_limit();
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate()).map_err(RunError::Signal)?,
        interrupt: signal(SignalKind::interrupt()).map_err(RunError::Signal)?,
    };
    toggle_debug_by_signal()?;
    for warning in &settings.warnings {
        warn!("{warning}");
    }
    if settings.api_tokens.load().map_err(RunError::Secrets)?.is_empty() {
        settings.api_tokens.given.push(new_token()?);
        warn!(
            "a token for the API was generated and ends with this process; give one by --token-file"
        );
    }
    if let Some(node) = settings.kubernetes_node.take() {
        settings.labels = tokio::select! {
            labels = kubernetes::with_labels_of(&node, settings.labels.clone()) => labels,
            _ = signals.terminate.recv() => return Ok(Ended::Well),
            _ = signals.interrupt.recv() => return Ok(Ended::Well),
        };
    }
    loop {
        match run_at(settings.clone(), &mut signals).await? {
            Stop::Ended(ended) => return Ok(ended),
            Stop::Moved(address) => settings = settings.moved_to(address),
        }
    }
}

/// Runs the bot at one address of this host.
async fn run_at(settings: Settings, signals: &mut Signals) -> Result<Stop, RunError> {
    // The program that writes certificates may signal us at once.
    let hangup = signal(SignalKind::hangup()).map_err(RunError::Signal)?;
    let (mode, client_auth) = (settings.tls.mode, settings.tls.client_auth);
    let again = settings.clone();
    let (secrets, guards, pushes) = Secrets::load(&settings)?;
    let has_mesh_token = !guards.mesh.tokens.get().is_empty();
    let address = settings.api_listen;
    let api =
        std::net::TcpListener::bind(address).map_err(|source| RunError::Api { address, source })?;
    let api_address = api.local_addr().map_err(|source| RunError::Api { address, source })?;
    let mut bot = described(&settings, guards.mesh).start().await?;
    let targets: Vec<_> = settings.seeds.iter().map(ToString::to_string).collect();
    let me = bot.snapshot().me.clone();
    info!(
        name = %me.name,
        address = %me.target,
        targets = targets.join(","),
        mesh_name = me.mesh.as_str(),
        tls = ?Words(mode),
        mesh_token = if has_mesh_token { "yes" } else { "no" },
        mesh = %bot.address(),
        api = %api_address,
        version = crate::VERSION,
        "started"
    );
    let is_closed = has_mesh_token || (mode == Mode::Mutual && client_auth == ClientAuth::Required);
    if !is_closed {
        warn!(
            "the mesh port is open to anybody who reaches it: give --mesh-token-file, or a CA, a certificate and a key (docs/security.md)"
        );
    }
    if targets.is_empty() {
        info!(address = %me.target, "no target is given: this bot waits until another one names it as a target");
    }
    if (again.found.listen || again.found.join) && again.listen.ip().is_loopback() {
        warn!(
            "no route to other hosts: listening on loopback only, and trying again; --listen-address sets the address"
        );
    }
    let stop = CancellationToken::new();
    let serving = serve_api(
        bot.reader(),
        api,
        guards.api,
        Content { pushes, ..settings.content },
        stop.clone(),
    );
    let mut serving = run_apart("api", serving).map_err(RunError::Thread)?;
    let mut watching =
        run_apart("secrets", secrets.watch(hangup, stop.clone())).map_err(RunError::Thread)?;
    let _feeding = run_apart("watchdog", supervised::feed(bot.reader(), stop.clone()))
        .map_err(RunError::Thread)?;
    supervised::ready();
    let mut moving =
        run_apart("address", own_address(again, stop.clone())).map_err(RunError::Thread)?;
    let leave = async |bot: Bot| {
        info!("leaving the mesh");
        supervised::stopping();
        bot.leave().await
    };
    let end = tokio::select! {
        _ = signals.terminate.recv() => leave(bot).await,
        _ = signals.interrupt.recv() => leave(bot).await,
        end = bot.ended() => end,
        _ = &mut serving => return Err(RunError::Died("api")),
        _ = &mut watching => return Err(RunError::Died("secrets")),
        moved = &mut moving => {
            let address = moved.ok().flatten().ok_or(RunError::Died("address"))?;
            warn!(from = %me.target, to = %address, "this host has another address: the bot starts again there");
            // Peers that are still reached learn it; the others find the new incarnation by
            // themselves.
            bot.leave().await;
            stop.cancel();
            let _ = serving.await;
            return Ok(Stop::Moved(address));
        }
    };
    stop.cancel();
    // The port has its own limit on how long it takes to close; it ends by itself if its thread
    // failed.
    let _ = serving.await;
    match end {
        End::Left => {
            info!("left the mesh");
            Ok(Stop::Ended(Ended::Well))
        }
        End::NameTaken(holder) => {
            error!(
                name = %settings.name,
                target = %holder.target,
                "the name is taken by a living node; choose another by --name, or stop that one"
            );
            Ok(Stop::Ended(Ended::NameTaken))
        }
        End::Failed => Err(RunError::Failed),
    }
}

/// The bot that settings describe, before it runs.
pub(crate) fn described(settings: &Settings, guard: canary_net::Guard) -> crate::Builder {
    let builder = Bot::builder(settings.name.clone())
        .listen(settings.listen)
        .labels(settings.labels.clone())
        .config(settings.config.clone())
        .protocol(settings.protocol)
        .guard(guard);
    let builder = match &settings.join {
        Join::Target(target) => builder.target(target.clone()),
        Join::Host(host) => builder.host(host),
    };
    settings.seeds.iter().fold(builder, |builder, seed| builder.seed(seed.clone()))
}

/// A mode as its flag spells it.
struct Words(Mode);

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Mode::None => "none",
            Mode::Edge => "edge",
            Mode::Mutual => "mutual",
        })
    }
}

/// Waits until the address of this host changes, if the operator gave none. If a given address is
/// gone, reports it.
async fn own_address(settings: Settings, stop: CancellationToken) -> Option<IpAddr> {
    let follows = (settings.found.listen || settings.found.join)
        && !outbound::any_on_loopback(&settings.seeds);
    let listens_on = settings.listen.ip();
    let announced = match &settings.join {
        Join::Host(host) if settings.found.join => host.parse().ok(),
        Join::Host(_) | Join::Target(_) => None,
    };
    let current = announced.unwrap_or(listens_on);
    let gone = Seldom::new();
    let mut tick = tokio::time::interval(ADDRESS_LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return None,
            _ = tick.tick() => {}
        }
        let is_lost = current.is_loopback() || !outbound::is_here(current);
        if follows && is_lost {
            let found = outbound::address_by_names(&settings.seeds);
            if found != current && !found.is_loopback() {
                return Some(found);
            }
        } else if is_lost
            && !outbound::is_here(current)
            && let Some(left_out) = gone.allows()
        {
            error!(address = %current, left_out, "this host no longer has the address that this bot was given; nobody reaches it there");
        }
    }
}

/// Runs a task on a thread of its own, so that nothing of it delays a measurement. The receiver
/// fails if the task does.
pub(crate) fn run_apart<T: Send + 'static>(
    name: &str,
    task: impl Future<Output = T> + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (done, ended) = oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                error!(%error, "cannot start a thread's runtime");
                return;
            }
        };
        // Nobody waits any more if the process is past that.
        let _ = done.send(runtime.block_on(task));
    })?;
    Ok(ended)
}

/// From now on SIGUSR1 raises the level of the log, or lowers it again.
pub(crate) fn toggle_debug_by_signal() -> Result<(), RunError> {
    let mut usr1 = signal(SignalKind::user_defined1()).map_err(RunError::Signal)?;
    tokio::spawn(async move {
        while usr1.recv().await.is_some() {
            logs::toggle_debug();
        }
    });
    Ok(())
}

/// Generates a token and prints it, so that the operator knows it.
pub(crate) fn new_token() -> Result<Token, RunError> {
    if is_null() {
        return Err(RunError::Unread);
    }
    let token = Token::generate().map_err(|error| RunError::Token(error.to_string()))?;
    let line = format!("token: {}", token.reveal());
    let (done, written) = std::sync::mpsc::channel();
    let writing = move || {
        // Nobody waits any more if it took too long.
        let _ = done.send(writeln!(io::stdout(), "{line}"));
    };
    std::thread::Builder::new()
        .name("stdout".to_owned())
        .spawn(writing)
        .map_err(RunError::Thread)?;
    // A stdout that nobody reads must not keep the bot from starting in silence.
    let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads it"));
    written.recv_timeout(STDOUT_PATIENCE).unwrap_or_else(late).map_err(RunError::Stdout)?;
    Ok(token)
}

/// Whether stdout goes nowhere. One that was closed at the start goes there, too.
fn is_null() -> bool {
    let null =
        std::fs::metadata("/dev/null").map(|null| std::os::unix::fs::MetadataExt::rdev(&null));
    let stdout = rustix::fs::fstat(io::stdout()).map(|stat| stat.st_rdev);
    matches!((null, stdout), (Ok(null), Ok(stdout)) if null == stdout)
}

/// A mesh of hundreds wants more descriptors than the usual soft limit of 1024; the hard limit is
/// the operator's word.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
