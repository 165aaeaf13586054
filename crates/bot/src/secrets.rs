//! Tokens, certificates and keys: read from files, and again when they change.
//!
//! Certificates, the mesh's tokens and the API's tokens are read apart from each other: what is
//! wrong with one keeps no other from changing. Each reading has a thread of its own, so that a
//! file that hangs, as on a lost mount, is a file that does not work.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use canary_api::Push;
use canary_net::tls::{Facts, Materials, Set};
use canary_net::{Guard, Live, Reloads, Token, Tokens};
use tokio::signal::unix::Signal;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::run::RunError;
use crate::settings::{Destination, Settings};

/// Tokens in force at once. More is a mistake, and every one is compared with every request.
const TOKENS_MAX: usize = 64;
/// Largest token file in bytes.
const TOKEN_FILE_BYTES_MAX: u64 = 128 * 1024;
/// How often files are looked at: what is new is in force within five seconds, and a signal is
/// faster.
const LOOK: Duration = Duration::from_secs(2);
/// How long reading may take before the files count as broken.
const READ_PATIENCE: Duration = Duration::from_secs(5);
/// How long before its end a certificate is reported.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);
/// How often it is reported, before its end and after.
const EXPIRY_REPEAT: (Duration, Duration) =
    (Duration::from_secs(24 * 3600), Duration::from_secs(3600));

/// Where tokens come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenSource {
    pub(crate) given: Vec<Token>,
    pub(crate) file: Option<PathBuf>,
    /// They are presented to a server of others, whose tokens may be longer, or `USER:PASSWORD`.
    pub(crate) foreign: bool,
}

impl TokenSource {
    /// All tokens that are to be in force now; the reason, with the file's name, if they do not
    /// work.
    pub(crate) fn load(&self) -> Result<Vec<Token>, String> {
        let mut tokens = self.given.clone();
        if let Some(path) = &self.file {
            // What cannot be opened may be a token that was meant as a value; what begins with a
            // slash is a path.
            let (named, advice) = if path.is_absolute() {
                (path.display().to_string(), "")
            } else {
                ("the file of tokens".to_owned(), "; write a path, not the token")
            };
            let text = self
                .contents()
                .map_err(|error| format!("{named}: it cannot be read: {error}{advice}"))?;
            let fail = |why: String| format!("{}: {why}", path.display());
            if text.len() as u64 > TOKEN_FILE_BYTES_MAX {
                return Err(fail(format!("the file has more than {TOKEN_FILE_BYTES_MAX} bytes")));
            }
            let lines: Vec<_> =
                text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            if lines.is_empty() {
                return Err(fail("the file has no token; write one a line".to_owned()));
            }
            for line in lines {
                let token = if self.foreign { Token::of_another(line) } else { Token::new(line) };
                tokens.push(token.map_err(|error| fail(error.to_string()))?);
            }
        }
        if tokens.len() > TOKENS_MAX {
            return Err(format!(
                "there are {} tokens; at most {TOKENS_MAX} are allowed",
                tokens.len()
            ));
        }
        Ok(tokens)
    }

    /// The text of the file, a little of what is too long; nothing without a file.
    fn contents(&self) -> std::io::Result<String> {
        let Some(path) = &self.file else {
            return Ok(String::new());
        };
        let bytes = canary_net::files::read(path, TOKEN_FILE_BYTES_MAX)?;
        // The library's words would be about bytes of the secret.
        String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is no UTF-8 text"))
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.contents().map_err(|error| error.to_string()).hash(&mut hasher);
        hasher.finish()
    }
}

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
        if self.reading.is_none() && (self.in_files || asked) {
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
            error!(what = self.what, %why, "changed files of secrets do not work; what was read before stays in force. Mend the file");
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

/// What is to be said of certificates that work.
pub(crate) fn warnings(set: &Set) -> Vec<String> {
    let left_out = set.left_out.iter().map(|why| format!("a certificate is left out: {why}"));
    left_out.chain(ending(set, SystemTime::now())).collect()
}

/// Certificates that end soon.
fn ending(set: &Set, now: SystemTime) -> Vec<String> {
    let soon =
        set.own.iter().chain(&set.authorities).filter_map(|facts| Some((facts, left(facts, now)?)));
    soon.map(|(facts, left)| {
        format!("the certificate of {} ends on {}, in {}", facts.subject, facts.dates.1, days(left))
    })
    .collect()
}

/// How long a certificate is still valid, if that is not long.
fn left(facts: &Facts, now: SystemTime) -> Option<Duration> {
    facts.not_after.duration_since(now).ok().filter(|left| *left < EXPIRES_SOON)
}

fn days(left: Duration) -> String {
    let hours = left.as_secs() / 3600;
    if hours >= 48 { format!("{} days", hours / 24) } else { format!("{hours} hours") }
}

/// When it was last said that a certificate ends.
#[derive(Debug, Default)]
struct Expiry(Option<SystemTime>);

impl Expiry {
    fn tell(&mut self, set: &Set, now: SystemTime) {
        let Some(ends) = set.own.iter().chain(&set.authorities).map(|facts| facts.not_after).min()
        else {
            return;
        };
        let over = now >= ends;
        let pause = if over { EXPIRY_REPEAT.1 } else { EXPIRY_REPEAT.0 };
        let said_lately = self
            .0
            .is_some_and(|at| now >= at && now.duration_since(at).is_ok_and(|since| since < pause));
        // That it is over is said at once, whatever was said before.
        let news = over && self.0.is_some_and(|at| at < ends);
        if (said_lately && !news) || ends.duration_since(now).is_ok_and(|left| left >= EXPIRES_SOON)
        {
            return;
        }
        self.0 = Some(now);
        for warning in ending(set, now) {
            warn!("{warning}; renew it: files are read again by themselves");
        }
        for facts in set.own.iter().filter(|facts| now >= facts.not_after) {
            let (subject, date) = (&facts.subject, &facts.dates.1);
            error!(
                subject,
                date,
                "this bot's certificate has expired: no probe and no call by TLS can succeed; renew it, the file is read again"
            );
        }
        for facts in set.authorities.iter().filter(|facts| now >= facts.not_after) {
            error!(
                subject = facts.subject,
                date = facts.dates.1,
                "an authority has expired: what it signed is refused; renew both"
            );
        }
    }
}
