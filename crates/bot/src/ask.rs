//! Asks a running bot by its API: what the commands for people stand on.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use canary_net::Token;
use canary_net::origin::{DialError, Origin, OriginError};
use canary_net::tls::{Materials, Mode, TlsError};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};

/// An answer takes at most so long, and so many bytes.
const PATIENCE: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Which bot to ask, and how.
#[derive(Debug)]
pub(crate) struct Server {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub(crate) url: String,
    pub(crate) token: Option<Token>,
    /// Whom to trust with `https`; the system's authorities if not given.
    pub(crate) ca: Option<PathBuf>,
}

/// Why a bot could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("{0} is no address of a bot's API; write http://HOST:PORT or https://HOST:PORT")]
    Url(String),
    #[error(
        "the address of the API holds a user or a password; leave them out, and give a token by --token-file"
    )]
    UserInfo,
    #[error("cannot read a token from {path}: {why}; name a file whose first line is one")]
    Token { path: String, why: String },
    #[error("cannot connect to {url}: {why}; does a bot run there, and is that its API port?")]
    Connect { url: String, why: io::Error },
    #[error("no secure channel to {url}")]
    Tls {
        url: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Trust(#[from] TlsError),
    #[error("{url} did not answer within {} s", PATIENCE.as_secs())]
    Late { url: String },
    #[error("{url} broke off or does not speak HTTP")]
    Broken {
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{0} wants a token, or another one; give it by --token-file")]
    Unauthorized(String),
    #[error("{url} answered {status}; is it a bot of this release?")]
    Status { url: String, status: StatusCode },
    #[error("the answer of {0} cannot be read; is it a bot of this release?")]
    Answer(String),
}

impl Server {
    /// The first token of a file.
    pub(crate) fn token_from(path: &str) -> Result<Token, AskError> {
        let fail = |why: String| AskError::Token { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        let first = text
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .ok_or_else(|| fail("it has none".to_owned()))?;
        Token::new(first).map_err(|error| fail(error.to_string()))
    }

    /// Whether the bot's own loop runs, and it answers. It never depends on other bots, and needs
    /// no token.
    pub(crate) async fn is_alive(&self) -> Result<bool, AskError> {
        let late = |_| AskError::Late { url: self.url.clone() };
        match tokio::time::timeout(PATIENCE, self.fetch("/livez")).await.map_err(late)? {
            Ok(_) => Ok(true),
            Err(AskError::Status { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The answer to a GET of `path`, as JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<serde_json::Value, AskError> {
        let url = || self.url.clone();
        let answer = tokio::time::timeout(PATIENCE, self.fetch(path))
            .await
            .map_err(|_| AskError::Late { url: url() })??;
        serde_json::from_slice(&answer).map_err(|_| AskError::Answer(url()))
    }

    async fn fetch(&self, path: &str) -> Result<Bytes, AskError> {
        let origin: Origin = self.url.parse().map_err(|error| match error {
            OriginError::UserInfo => AskError::UserInfo,
            OriginError::Form => AskError::Url(self.url.clone()),
        })?;
        let tls = if origin.is_secure() {
            let ca = self.ca.iter().cloned().map(canary_net::tls::Material::File).collect();
            Materials { mode: Mode::Edge, ca, ..Materials::default() }.load()?.client
        } else {
            None
        };
        let broken = |source: Box<dyn std::error::Error + Send + Sync>| AskError::Broken {
            url: self.url.clone(),
            source,
        };
        let dialled = origin.dial(tls).await.map_err(|error| match error {
            DialError::Connect { source, .. } => {
                AskError::Connect { url: self.url.clone(), why: source }
            }
            DialError::Tls { source, .. } => AskError::Tls { url: self.url.clone(), source },
            DialError::Http { source, .. } => broken(source.into()),
        });
        let mut request = Request::get(path).header(header::HOST, origin.authority());
        if let Some(token) = &self.token {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
                .map_err(|error| broken(error.into()))?;
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(Full::default()).map_err(|error| broken(error.into()))?;
        let response =
            dialled?.send_request(request).await.map_err(|error| broken(error.into()))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(AskError::Unauthorized(self.url.clone())),
            status => return Err(AskError::Status { url: self.url.clone(), status }),
        }
        Ok(Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(broken)?
            .to_bytes())
    }
}
