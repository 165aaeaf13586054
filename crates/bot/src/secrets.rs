//! Tokens, certificates and keys: read from files, and again when they change.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use canary_net::tls::Materials;
use canary_net::{Guard, IpNet, Live, Token, Tokens};
use tokio::signal::unix::Signal;
use tokio::time::MissedTickBehavior;
use tracing::{error, info};

use crate::run::RunError;

/// Tokens in force at once. More is a mistake, and every one is compared with every request.
const TOKENS_MAX: usize = 64;
/// Largest token file in bytes.
const TOKEN_FILE_BYTES_MAX: u64 = 128 * 1024;
/// How often files are looked at: what is new is in force within five seconds, and a signal is faster.
const LOOK: Duration = Duration::from_secs(2);

/// Where tokens come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenSource {
    pub(crate) given: Vec<Token>,
    pub(crate) file: Option<PathBuf>,
}

impl TokenSource {
    /// All tokens that are to be in force now; the reason, with the file's name, if they do not work.
    pub(crate) fn load(&self) -> Result<Vec<Token>, String> {
        let mut tokens = self.given.clone();
        if let Some(path) = &self.file {
            let fail = |why: String| format!("{}: {why}", path.display());
            let text = self.contents().map_err(|error| fail(error.to_string()))?;
            if text.len() as u64 > TOKEN_FILE_BYTES_MAX {
                return Err(fail(format!("the file has more than {TOKEN_FILE_BYTES_MAX} bytes")));
            }
            let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            if lines.is_empty() {
                return Err(fail("the file has no token; write one a line".to_owned()));
            }
            for line in lines {
                tokens.push(Token::new(line).map_err(|error| fail(error.to_string()))?);
            }
        }
        if tokens.len() > TOKENS_MAX {
            return Err(format!("there are {} tokens; at most {TOKENS_MAX} are allowed", tokens.len()));
        }
        Ok(tokens)
    }

    /// The text of the file, a little of what is too long; nothing without a file.
    fn contents(&self) -> std::io::Result<String> {
        let mut text = String::new();
        if let Some(path) = &self.file {
            File::open(path)?.take(TOKEN_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
        }
        Ok(text)
    }
}

/// Everything that is read again, and what of it is in force.
pub(crate) struct Watched {
    tls: Materials,
    mesh: TokenSource,
    api: TokenSource,
    guards: Guards,
    /// Of the contents that were read last.
    seen: u64,
    /// Why they do not work, as it was said.
    broken: Option<String>,
}

/// What guards the mesh port, and what guards the API port.
#[derive(Clone)]
pub(crate) struct Guards {
    pub(crate) mesh: Guard,
    pub(crate) api: Guard,
}

impl Watched {
    /// Reads everything for the first time and puts it in force; where no token of the API is given, `generate` makes one.
    pub(crate) fn load(
        tls: Materials,
        mesh: TokenSource,
        api: TokenSource,
        proxies: Vec<IpNet>,
        generate: impl FnOnce() -> Result<Token, RunError>,
    ) -> Result<(Self, Guards), RunError> {
        // Taken before the first reading: what changes in between is read again.
        let seen = fingerprint(&tls, [&mesh, &api]);
        let mut api_tokens = api.load().map_err(RunError::Secrets)?;
        if api_tokens.is_empty() {
            api_tokens.push(generate()?);
        }
        let in_force = Guard {
            failures: Arc::default(),
            tls: Live::new(tls.load().map_err(|error| RunError::Secrets(error.to_string()))?),
            tokens: Live::new(Tokens::new(mesh.load().map_err(RunError::Secrets)?)),
            proxies: proxies.into(),
            reloads: Arc::default(),
        };
        let guards = Guards { api: Guard { tokens: Live::new(Tokens::new(api_tokens)), ..in_force.clone() }, mesh: in_force };
        Ok((Self { tls, mesh, api, guards: guards.clone(), seen, broken: None }, guards))
    }

    /// Looks at the files for ever, and at once when `hangup` comes. What does not work leaves in force what was, all of a set at once, and is
    /// tried again: it may be the time that is lacking, or a descriptor.
    pub(crate) async fn watch(mut self, mut hangup: Signal) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                _ = tick.tick() => false,
                _ = hangup.recv() => true,
            };
            let now = fingerprint(&self.tls, [&self.mesh, &self.api]);
            if std::mem::replace(&mut self.seen, now) != now || asked || self.broken.is_some() {
                self.reload();
            }
        }
    }

    fn reload(&mut self) {
        let loaded = self.tls.load().map_err(|error| error.to_string()).and_then(|set| Ok((set, self.mesh.load()?, self.api.load()?)));
        let reloads = &self.guards.mesh.reloads;
        match loaded {
            Ok((set, mesh, api)) => {
                let expires = set.own.as_ref().map(|own| own.dates.1.clone());
                self.guards.mesh.tls.swap(set);
                self.guards.mesh.tokens.swap(Tokens::new(mesh));
                // A token that was generated at the start stays: there is nothing to read it from.
                if !api.is_empty() {
                    self.guards.api.tokens.swap(Tokens::new(api));
                }
                self.broken = None;
                reloads.done.fetch_add(1, Relaxed);
                reloads.broken.store(false, Relaxed);
                info!(expires, "certificates and tokens were read again and are in force");
            }
            Err(why) if self.broken.as_ref() == Some(&why) => {}
            Err(why) => {
                reloads.failed.fetch_add(1, Relaxed);
                reloads.broken.store(true, Relaxed);
                error!(%why, "changed certificates or tokens do not work; the former ones stay in force. Mend the file");
                self.broken = Some(why);
            }
        }
    }
}

/// Changes when any of the contents does.
fn fingerprint(tls: &Materials, tokens: [&TokenSource; 2]) -> u64 {
    let mut hasher = DefaultHasher::new();
    tls.fingerprint().hash(&mut hasher);
    for source in tokens {
        source.contents().map_err(|error| error.to_string()).hash(&mut hasher);
    }
    hasher.finish()
}
