//! Tokens, certificates and keys: read from files, and again when they change.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use canary_net::tls::Materials;
use canary_net::{Guard, LiveTokens, Token, Tokens};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tracing::{error, info};

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
            let mut text = String::new();
            let read = File::open(path).and_then(|file| file.take(TOKEN_FILE_BYTES_MAX + 1).read_to_string(&mut text));
            read.map_err(|error| fail(error.to_string()))?;
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
}

/// Everything that is read again, and what of it is in force.
pub(crate) struct Watched {
    pub(crate) tls: Materials,
    pub(crate) mesh: (TokenSource, LiveTokens),
    pub(crate) api: (TokenSource, LiveTokens),
    /// Whose TLS is swapped, and where it is counted.
    pub(crate) guard: Guard,
}

impl Watched {
    /// Looks at the files for ever. What does not work leaves in force what was, all of a set at once.
    pub(crate) async fn watch(self) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.fingerprint();
        loop {
            let asked = tokio::select! {
                _ = tick.tick() => false,
                _ = hangup.recv() => true,
            };
            let now = self.fingerprint();
            if now == seen && !asked {
                continue;
            }
            seen = now;
            self.reload();
        }
    }

    fn fingerprint(&self) -> (u64, [Option<Vec<u8>>; 2]) {
        let contents = |source: &TokenSource| {
            let mut bytes = Vec::new();
            File::open(source.file.as_ref()?).ok()?.take(TOKEN_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        };
        (self.tls.fingerprint(), [contents(&self.mesh.0), contents(&self.api.0)])
    }

    fn reload(&self) {
        let reloads = &self.guard.reloads;
        let loaded = self.tls.load().map_err(|error| error.to_string()).and_then(|set| Ok((set, self.mesh.0.load()?, self.api.0.load()?)));
        match loaded {
            Ok((set, mesh, api)) => {
                let expires = set.own.as_ref().map(|own| own.dates.1.clone());
                self.guard.tls.swap(set);
                self.mesh.1.swap(Tokens::new(mesh));
                // A token that was generated at the start stays: there is nothing to read it from.
                if !api.is_empty() {
                    self.api.1.swap(Tokens::new(api));
                }
                reloads.done.fetch_add(1, Relaxed);
                reloads.broken.store(false, Relaxed);
                info!(expires, "certificates and tokens were read again and are in force");
            }
            Err(why) => {
                reloads.failed.fetch_add(1, Relaxed);
                reloads.broken.store(true, Relaxed);
                error!(%why, "changed certificates or tokens do not work; the former ones stay in force. Mend the file");
            }
        }
    }
}

/// What guards both ports, from the settings; and what watches it.
pub(crate) fn guards(
    tls: Materials,
    mesh: TokenSource,
    api: TokenSource,
    api_tokens: Tokens,
    proxies: Vec<canary_net::IpNet>,
) -> Result<(Guard, Guard, Watched), String> {
    let live = canary_net::tls::Live::new(tls.load().map_err(|error| error.to_string())?);
    let mesh_tokens = LiveTokens::new(Tokens::new(mesh.load()?));
    let api_tokens = LiveTokens::new(api_tokens);
    let proxies: Arc<[_]> = proxies.into();
    let reloads = Arc::default();
    let mesh_guard = Guard { tls: live, tokens: mesh_tokens, proxies, reloads };
    let api_guard = Guard { tokens: api_tokens, ..mesh_guard.clone() };
    let watched = Watched { tls, mesh: (mesh, mesh_guard.tokens.clone()), api: (api, api_guard.tokens.clone()), guard: mesh_guard.clone() };
    Ok((mesh_guard, api_guard, watched))
}
