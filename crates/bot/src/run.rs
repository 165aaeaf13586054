//! The bot as a process: starts, serves, and leaves when asked to.

use std::io::{self, Write as _};
use std::net::SocketAddr;

use canary_net::tls::{ClientAuth, Mode};
use canary_node::Protocol;

use crate::{Bot, End, serve_api};
use canary_net::Token;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::secrets::Watched;
use crate::settings::{Join, Settings};

/// How a run ended, as the exit code tells it.
#[derive(Debug)]
pub(crate) enum Ended {
    /// As asked: 0.
    Well,
    /// Another living node has the name: 4.
    NameTaken,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("cannot listen on {address} for the API; choose another --api-address or --api-port")]
    Api {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot start")]
    Start(#[from] crate::StartError),
    #[error("{0}")]
    Secrets(String),
    #[error(transparent)]
    Issue(#[from] crate::issue::IssueError),
    #[error("cannot wait for signals")]
    Signal(#[source] io::Error),
    #[error("cannot start the threads of the bot")]
    Thread(#[source] io::Error),
    #[error("the system gives no random numbers for a token: {0}; give one by --token-file")]
    Token(String),
    #[error("cannot write to stdout")]
    Stdout(#[source] io::Error),
    #[error("the bot failed by a fault of its own; the log above says where. Please report it")]
    Failed,
}

/// Runs the bot until a signal, or until it ends by itself.
pub(crate) async fn run(settings: Settings) -> Result<Ended, RunError> {
    raise_file_limit();
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
    // Whoever writes certificates may tell us at once.
    let hangup = signal(SignalKind::hangup()).map_err(RunError::Signal)?;
    let (mutual, client_auth) = (settings.tls.mode == Mode::Mutual, settings.tls.client_auth);
    let (watched, guards) = Watched::load(settings.tls, settings.mesh_tokens, settings.api_tokens, settings.proxies, new_token)?;
    let address = settings.api_listen;
    let api = std::net::TcpListener::bind(address).map_err(|source| RunError::Api { address, source })?;
    let api_address = api.local_addr().map_err(|source| RunError::Api { address, source })?;
    if !guards.mesh.tokens.get().is_empty() && settings.protocol != Protocol::V2 {
        info!("a mesh token is set: bots of the original, which cannot present one, stay outside");
    }
    if mutual && client_auth == ClientAuth::Required && settings.protocol != Protocol::V2 {
        info!(
            "client certificates are required: bots of the original, which present none, stay outside; --client-auth optional lets them in"
        );
    }
    let mut builder = Bot::builder(settings.name.clone())
        .listen(settings.listen)
        .labels(settings.labels)
        .config(settings.config)
        .protocol(settings.protocol)
        .guard(guards.mesh);
    builder = match settings.join {
        Join::Target(target) => builder.target(target),
        Join::Host(host) => builder.host(&host),
    };
    for seed in settings.seeds {
        builder = builder.seed(seed);
    }
    let mut bot = builder.start().await?;
    info!(name = %settings.name, target = %bot.snapshot().me.target, mesh = %bot.address(), api = %api_address, version = crate::VERSION, "started");
    let stop = CancellationToken::new();
    let serving = run_apart("api", serve_api(bot.reader(), api, guards.api, settings.metrics, stop.clone())).map_err(RunError::Thread)?;
    // A file that hangs, as on a lost mount, holds nobody else.
    run_apart("secrets", watched.watch(hangup)).map_err(RunError::Thread)?;
    let end = tokio::select! {
        _ = terminate.recv() => bot.leave().await,
        _ = interrupt.recv() => bot.leave().await,
        end = bot.ended() => end,
    };
    stop.cancel();
    // The port has its own limit on how long it takes to close; it ends by itself if its thread failed.
    let _ = serving.await;
    match end {
        End::Left => {
            info!("left the mesh");
            Ok(Ended::Well)
        }
        End::NameTaken(holder) => {
            error!(
                name = %settings.name,
                target = %holder.target,
                "the name is taken by a living node; choose another by --name, or stop that one"
            );
            Ok(Ended::NameTaken)
        }
        End::Failed => Err(RunError::Failed),
    }
}

/// Runs a task on a thread of its own, so that nothing of it delays a measurement.
pub(crate) fn run_apart(name: &str, task: impl Future<Output = ()> + Send + 'static) -> io::Result<oneshot::Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (done, ended) = oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        runtime.block_on(task);
        // Nobody waits any more if the process is past that.
        let _ = done.send(());
    })?;
    Ok(ended)
}

/// A new token, which is printed: nobody could know it else.
pub(crate) fn new_token() -> Result<Token, RunError> {
    let token = Token::generate().map_err(|error| RunError::Token(error.to_string()))?;
    writeln!(io::stdout(), "token: {}", token.reveal()).map_err(RunError::Stdout)?;
    Ok(token)
}

/// A mesh of hundreds wants more descriptors than the usual soft limit of 1024; the hard limit is the operator's word.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
