//! Verifiers of peers: the library's, and beside them certificates that were configured as such.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::certificate::Facts;

/// Accepts a peer's certificate that is itself one of the configured ones, if its name and dates
/// are right; everything else is left to `chains`.
///
/// A self-signed certificate that a user names as its own CA is no valid end of a chain for the
/// library, and is what many small meshes have.
#[derive(Debug)]
pub(super) struct Configured<V: ?Sized> {
    /// None when nobody is configured who may sign others.
    pub(super) chains: Option<Arc<V>>,
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    /// Whether a client has to present a certificate.
    pub(super) mandatory: bool,
}

impl<V: ?Sized> Configured<V> {
    fn is_configured(
        &self,
        certificate: &CertificateDer<'_>,
        now: UnixTime,
        fits: impl Fn(&Facts) -> bool,
    ) -> Result<bool, Error> {
        if !self.certificates.iter().any(|configured| configured == certificate) {
            return Ok(false);
        }
        let facts = Facts::of(certificate).map_err(|_| CertificateError::BadEncoding)?;
        facts.valid_at(now)?;
        if !fits(&facts) {
            return Err(CertificateError::InvalidPurpose.into());
        }
        Ok(true)
    }

    fn chains(&self) -> Result<&V, Error> {
        self.chains.as_deref().ok_or_else(|| CertificateError::UnknownIssuer.into())
    }
}

/// Whose signatures count is the same for clients and servers.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls12_signature(
                message,
                certificate,
                signature,
                &self.algorithms,
            )
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls13_signature(
                message,
                certificate,
                signature,
                &self.algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

impl<V: ServerCertVerifier + ?Sized> ServerCertVerifier for Configured<V> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.is_configured(end_entity, now, |facts| facts.purposes.0)? {
            rustls::client::verify_server_name(
                &ParsedCertificate::try_from(end_entity)?,
                server_name,
            )?;
            return Ok(ServerCertVerified::assertion());
        }
        self.chains()?.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    signatures!();
}

impl<V: ClientCertVerifier + ?Sized> ClientCertVerifier for Configured<V> {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.as_ref().map_or(&[], |chains| chains.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.is_configured(end_entity, now, |facts| facts.purposes.1)? {
            return Ok(ClientCertVerified::assertion());
        }
        self.chains()?.verify_client_cert(end_entity, intermediates, now)
    }

    signatures!();
}
