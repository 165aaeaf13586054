//! TLS on a connection that was dialled, where the set in force says so.

use std::io;

use canary_net::tls::{Facts, Set};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// A connection, plain or not.
pub(crate) type Channel<I> = Either<I, TlsStream<I>>;

/// Why a connection is not secured: it is given up, never used in plain text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecureError {
    #[error("no certificate can be for the host {0}")]
    Name(String),
    #[error("the TLS handshake failed: {}", words(.0))]
    Handshake(#[source] io::Error),
    #[error("the peer speaks {0} and not h2")]
    Protocol(String),
}

/// What a failed handshake means for the operator of both hosts.
fn words(error: &io::Error) -> String {
    use rustls::{CertificateError, Error, InvalidMessage};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "the other does not speak TLS; is it without certificates?".to_owned()
        }
        Some(Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => "its certificate is not of a CA that this bot trusts; compare --ca-cert-path on both"
            .to_owned(),
        _ => error.to_string(),
    }
}

/// Shakes hands as a client of `host`, and verifies that it is that host.
pub(crate) async fn secure<I: AsyncRead + AsyncWrite + Unpin>(
    set: &Set,
    host: &str,
    stream: I,
) -> Result<Channel<I>, SecureError> {
    let Some(config) = &set.client else {
        return Ok(Either::Left(stream));
    };
    let host = host.trim_matches(['[', ']']);
    let name =
        ServerName::try_from(host.to_owned()).map_err(|_| SecureError::Name(host.to_owned()))?;
    let stream = TlsConnector::from(std::sync::Arc::clone(config))
        .connect(name, stream)
        .await
        .map_err(SecureError::Handshake)?;
    match stream.get_ref().1.alpn_protocol() {
        // An edge that passes TCP on may know nothing of ALPN.
        None | Some(b"h2") => Ok(Either::Right(stream)),
        Some(other) => Err(SecureError::Protocol(String::from_utf8_lossy(other).into_owned())),
    }
}

/// What was agreed on with the peer; nothing on a plain connection.
pub(crate) fn agreed<I>(stream: &Channel<I>) -> Option<canary_core::Secured> {
    let Either::Right(stream) = stream else {
        return None;
    };
    let session = stream.get_ref().1;
    let version = session.protocol_version()?.into();
    let group = session.negotiated_key_exchange_group().map_or(0, |group| group.name().into());
    let shown = Facts::of(session.peer_certificates()?.first()?).ok()?;
    Some(canary_core::Secured { version, group, expires: shown.expires_unix() })
}

/// The scheme of requests on such a connection.
pub(crate) fn scheme(set: &Set) -> &'static str {
    if set.client.is_some() { "https" } else { "http" }
}
