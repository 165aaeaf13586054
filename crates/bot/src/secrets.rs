//! Tokens, certificates and keys: read from files, and again when they change.
//!
//! Certificates, the mesh's tokens and the API's tokens are read apart from each other: what is
//! wrong with one keeps no other from changing. Each reading has a thread of its own, so that a
//! file that hangs, as on a lost mount, is a file that does not work.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use canary_api::Push;
use canary_net::tls::{Materials, Set};
use canary_net::{Guard, Live, Reloads, Token, Tokens};
use tokio::signal::unix::Signal;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::error::RunError;
use crate::expiry::Expiry;
use crate::settings::{Destination, Settings};
use crate::tokens::TokenSource;

/// How often files are looked at: what is new is in force within five seconds, and a signal is
/// faster.
const LOOK: Duration = Duration::from_secs(2);
/// How long reading may take before the files count as broken.
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// What guards the mesh port, and what guards the API port.
#[derive(Clone)]
pub(crate) struct Guards {
    pub(crate) mesh: Guard,
    pub(crate) api: Guard,
}

/// What one reading found.
struct Read<T> {
    fingerprint: u64,
    /// None while nothing changed.
    loaded: Option<Result<T, String>>,
}

/// Some files that are read again, and put in force as one.
struct Watched<T> {
    /// What they are, for the log.
    what: &'static str,
    /// Whether there are any: else only a signal has them read.
    in_files: bool,
    /// Reads them, as one of these contents if they are still the same.
    read: Arc<dyn Fn(Option<u64>) -> Read<T> + Send + Sync>,
    put_in_force: Box<dyn Fn(T) + Send>,
    /// Of the contents that were read last.
    seen: u64,
    /// Why they do not work, as it was said.
    broken: Option<String>,
    /// A reading that is under way, since when.
    reading: Option<(Receiver<Read<T>>, Instant)>,
}

impl<T: Send + 'static> Watched<T> {
    fn new(
        what: &'static str,
        in_files: bool,
        seen: u64,
        fingerprint: impl Fn() -> u64 + Send + Sync + 'static,
        load: impl Fn() -> Result<T, String> + Send + Sync + 'static,
        put_in_force: impl Fn(T) + Send + 'static,
    ) -> Self {
        let read = move |seen| {
            let fingerprint = fingerprint();
            Read { fingerprint, loaded: (seen != Some(fingerprint)).then(&load) }
        };
        Self {
            what,
            in_files,
            read: Arc::new(read),
            put_in_force: Box::new(put_in_force),
            seen,
            broken: None,
            reading: None,
        }
    }

    /// Takes what was read since the last look, and begins the next reading: of everything if
    /// somebody asks for it.
    fn look(&mut self, asked: bool, reloads: &Reloads) {
        self.take(reloads);
        if self.reading.is_none() && self.in_files {
            // What does not work is tried again: it may be the time that is lacking, or a
            // descriptor.
            let seen = (!asked && self.broken.is_none()).then_some(self.seen);
            let (done, reading) = sync_channel(1);
            let read = Arc::clone(&self.read);
            let began = std::thread::Builder::new().name("read".to_owned()).spawn(move || {
                // Nobody waits any more if the bot is gone.
                let _ = done.send(read(seen));
            });
            match began {
                Ok(_) => self.reading = Some((reading, Instant::now())),
                Err(error) => self.fail(format!("no thread to read files: {error}"), reloads),
            }
        }
    }

    fn take(&mut self, reloads: &Reloads) {
        let Some((reading, since)) = &self.reading else {
            return;
        };
        match reading.try_recv() {
            Ok(read) => {
                self.reading = None;
                self.seen = read.fingerprint;
                match read.loaded {
                    Some(Ok(loaded)) => {
                        (self.put_in_force)(loaded);
                        self.broken = None;
                        reloads.done.fetch_add(1, Relaxed);
                        info!(
                            what = self.what,
                            "files of secrets were read again and are in force"
                        );
                    }
                    Some(Err(why)) => self.fail(why, reloads),
                    None => {}
                }
            }
            Err(TryRecvError::Empty) if since.elapsed() > READ_PATIENCE => {
                self.fail(
                    format!(
                        "reading hangs for more than {} s: a lost mount?",
                        READ_PATIENCE.as_secs()
                    ),
                    reloads,
                );
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                self.reading = None;
                self.fail(
                    "reading failed by a fault of this bot; please report it".to_owned(),
                    reloads,
                );
            }
        }
    }

    fn fail(&mut self, why: String, reloads: &Reloads) {
        if self.broken.as_ref() != Some(&why) {
            reloads.failed.fetch_add(1, Relaxed);
            error!(what = self.what, %why, "changed files of secrets do not work; what was read before stays in force. Correct the file");
            self.broken = Some(why);
        }
    }
}

/// Everything that is read again.
pub(crate) struct Secrets {
    tls: Watched<Set>,
    mesh: Watched<Vec<Token>>,
    api: Watched<Vec<Token>>,
    /// Of the receivers of metrics.
    receivers: Vec<Watched<Vec<Token>>>,
    push_trust: Watched<Set>,
    in_force: Live<Set>,
    reloads: Arc<Reloads>,
    expiry: Expiry,
}

impl Secrets {
    /// Reads everything for the first time and puts it in force.
    pub(crate) fn load(settings: &Settings) -> Result<(Self, Guards, Vec<Push>), RunError> {
        let (tls, mesh, api) =
            (settings.tls.clone(), settings.mesh_tokens.clone(), settings.api_tokens.clone());
        let proxies = settings.proxies.clone();
        // Taken before the first reading: what changes in between is read again.
        let seen = (tls.fingerprint(), mesh.fingerprint(), api.fingerprint());
        let guard = Guard {
            failures: Arc::default(),
            tls: Live::new(tls.load().map_err(|error| RunError::Secrets(error.to_string()))?),
            tokens: Live::new(Tokens::new(mesh.load().map_err(RunError::Secrets)?)),
            proxies: proxies.into(),
            reloads: Arc::default(),
        };
        let api_tokens = Live::new(Tokens::new(api.load().map_err(RunError::Secrets)?));
        let guards = Guards {
            api: Guard { tokens: api_tokens.clone(), ..guard.clone() },
            mesh: guard.clone(),
        };
        let swap = |tokens: Live<Tokens>| move |read: Vec<Token>| tokens.swap(Tokens::new(read));
        let watch_tokens = |what, source: TokenSource, seen, tokens| {
            let again = source.clone();
            Watched::new(
                what,
                source.file.is_some(),
                seen,
                move || source.fingerprint(),
                move || again.load(),
                swap(tokens),
            )
        };
        let watch_set = |what, materials: Materials, seen, set: Live<Set>| {
            let again = materials.clone();
            let load = move || again.load().map_err(|error| error.to_string());
            let put_in_force = move |read: Set| {
                for why in &read.left_out {
                    warn!("a certificate is left out: {why}");
                }
                set.swap(read);
            };
            Watched::new(
                what,
                materials.in_files(),
                seen,
                move || materials.fingerprint(),
                load,
                put_in_force,
            )
        };
        let trust = settings.push_trust.clone();
        let trust_seen = trust.fingerprint();
        let trusted =
            Live::new(trust.load().map_err(|error| RunError::Secrets(error.to_string()))?);
        let (mut pushes, mut receivers) = (Vec::new(), Vec::new());
        for Destination { protocol, origin, interval, credentials } in settings.destinations.clone()
        {
            let seen = credentials.fingerprint();
            let tokens = Live::new(Tokens::new(credentials.load().map_err(RunError::Secrets)?));
            receivers.push(watch_tokens(
                "tokens for a receiver of metrics",
                credentials,
                seen,
                tokens.clone(),
            ));
            pushes.push(Push {
                protocol,
                receiver: origin,
                interval,
                credentials: tokens,
                tls: trusted.clone(),
            });
        }
        let secrets = Self {
            in_force: guard.tls.clone(),
            tls: watch_set("certificates", tls, seen.0, guard.tls),
            mesh: watch_tokens("tokens of the mesh", mesh, seen.1, guard.tokens),
            api: watch_tokens("tokens of the API", api, seen.2, api_tokens),
            receivers,
            push_trust: watch_set(
                "authorities for receivers of metrics",
                trust,
                trust_seen,
                trusted,
            ),
            reloads: guard.reloads,
            expiry: Expiry::default(),
        };
        Ok((secrets, guards, pushes))
    }

    /// Looks at the files until `stop`, and at once when `hangup` comes.
    pub(crate) async fn watch(mut self, mut hangup: Signal, stop: CancellationToken) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Soon after a reading began it is done: what was asked for by a signal is in force at
        // once.
        let mut again = tokio::time::interval(LOOK / 10);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                _ = again.tick(), if self.is_reading() => {
                    self.take();
                    continue;
                }
                _ = tick.tick() => false,
                _ = hangup.recv() => true,
            };
            self.tls.look(asked, &self.reloads);
            self.push_trust.look(asked, &self.reloads);
            for tokens in [&mut self.mesh, &mut self.api].into_iter().chain(&mut self.receivers) {
                tokens.look(asked, &self.reloads);
            }
            self.take();
            self.expiry.tell(&self.in_force.get(), SystemTime::now());
        }
    }

    fn is_reading(&self) -> bool {
        let sets = [&self.tls, &self.push_trust];
        sets.iter().any(|set| set.reading.is_some())
            || self.tokens().any(|tokens| tokens.reading.is_some())
    }

    fn tokens(&self) -> impl Iterator<Item = &Watched<Vec<Token>>> {
        [&self.mesh, &self.api].into_iter().chain(&self.receivers)
    }

    fn take(&mut self) {
        self.tls.take(&self.reloads);
        self.push_trust.take(&self.reloads);
        for tokens in [&mut self.mesh, &mut self.api].into_iter().chain(&mut self.receivers) {
            tokens.take(&self.reloads);
        }
        let sets = [&self.tls, &self.push_trust];
        let broken = sets.iter().any(|set| set.broken.is_some())
            || self.tokens().any(|tokens| tokens.broken.is_some());
        self.reloads.broken.store(broken, Relaxed);
    }
}
