//! An HTTP server as its URL names it, and how it is dialled.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Addresses of a name that are tried, and how long each may take.
const ADDRESSES_MAX: usize = 8;
const ADDRESS_PATIENCE: Duration = Duration::from_secs(3);

/// `http://HOST[:PORT][/PATH]`, or the same with `https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    uri: Uri,
    is_secure: bool,
    host: String,
    port: u16,
}

/// Why a text is no [`Origin`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// It is no URL of the form.
    #[error("write http://HOST:PORT or https://HOST:PORT, with a path where there is one")]
    Form,
    /// It holds a secret.
    #[error("a URL is no place for a user or a password")]
    UserInfo,
}

/// Why nobody could be reached.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum DialError {
    #[error("cannot connect to {origin}")]
    Connect { origin: String, source: io::Error },
    #[error("no secure channel to {origin}")]
    Tls { origin: String, source: io::Error },
    #[error("{origin} does not speak HTTP")]
    Http { origin: String, source: hyper::Error },
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let uri: Uri = text.parse().map_err(|_| OriginError::Form)?;
        let authority = uri.authority().ok_or(OriginError::Form)?;
        if authority.as_str().contains('@') {
            return Err(OriginError::UserInfo);
        }
        let is_secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(OriginError::Form),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || ServerName::try_from(host.as_str()).is_err() {
            return Err(OriginError::Form);
        }
        // What is no port must not be taken for none.
        let rest = authority.as_str().strip_prefix(authority.host()).ok_or(OriginError::Form)?;
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or(OriginError::Form)?,
            None if rest.is_empty() => {
                if is_secure {
                    443
                } else {
                    80
                }
            }
            None => return Err(OriginError::Form),
        };
        Ok(Self { is_secure, host, port, uri })
    }
}

impl fmt::Display for Origin {
    /// Without its query: there may be a key in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.uri.path())
    }
}

impl Origin {
    /// Whether it is `https`.
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// For the `Host` header.
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// The path with the query, as a request names it.
    pub fn path(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }

    /// A new connection for requests by HTTP/1.1, with TLS as `tls` says for `https`. The caller
    /// bounds the time.
    ///
    /// # Errors
    ///
    /// If nobody answers there, or not as the URL says.
    pub async fn dial(
        &self,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<SendRequest<Full<Bytes>>, DialError> {
        let stream = self
            .connect()
            .await
            .map_err(|source| DialError::Connect { origin: self.to_string(), source })?;
        if !self.is_secure {
            return self.speak(stream).await;
        }
        let fail = |source| DialError::Tls { origin: self.to_string(), source };
        let no_config = || fail(io::Error::other("nothing says whom to trust"));
        let mut config = ClientConfig::clone(&*tls.ok_or_else(no_config)?);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(self.host.clone())
            .map_err(|error| fail(io::Error::other(error)))?;
        let stream =
            TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(fail)?;
        self.speak(stream).await
    }

    /// Tries one address after the other, each for a while: a dead one hides no good one.
    async fn connect(&self) -> io::Result<TcpStream> {
        let mut problem = io::Error::other("the name has no address");
        for address in
            tokio::net::lookup_host((self.host.as_str(), self.port)).await?.take(ADDRESSES_MAX)
        {
            match tokio::time::timeout(ADDRESS_PATIENCE, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => problem = error,
                Err(_) => problem = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(problem)
    }

    async fn speak(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<SendRequest<Full<Bytes>>, DialError> {
        let fail = |source| DialError::Http { origin: self.to_string(), source };
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(fail)?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        for (text, host, port, path) in [
            ("http://a", "a", 80, "/"),
            ("https://a.b/", "a.b", 443, "/"),
            ("http://[::1]:9090/api/v1/write?x=1", "::1", 9090, "/api/v1/write?x=1"),
        ] {
            let origin: Origin = text.parse().unwrap();
            assert_eq!((&*origin.host, origin.port, origin.path()), (host, port, path), "{text}");
            assert!(!origin.to_string().contains('?'), "{origin}");
        }
        for text in [
            "http://a:99999/w",
            "http://a:0",
            "http://a:/w",
            "http://[::1]x",
            "",
            "a",
            "a:9090",
            "/write",
            "ftp://a",
            "http://",
            "http://:80",
            "http://a b",
            "http://a_b:x",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(OriginError::Form), "{text}");
        }
        assert_eq!("http://user:secret@a".parse::<Origin>(), Err(OriginError::UserInfo));
    }
}
