//! TLS: what a bot presents and whom it trusts, read as one whole and swapped as one.
//!
//! Everything fails closed: whatever is wrong with a file is an error that names it, and nothing
//! falls back to plain text.

mod certificate;
mod pem;
mod verify;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore, ServerConfig};

pub use certificate::{Facts, PeerNames};
pub use rustls::pki_types::CertificateDer;
pub use rustls::pki_types::pem::PemObject;
use verify::Configured;

/// Largest file of certificates or keys in bytes: a bundle of a few hundred authorities fits.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Certificates of one chain or bundle.
const CERTIFICATES_MAX: usize = 1024;

/// Who encrypts and who verifies what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Plain text everywhere.
    #[default]
    None,
    /// The ports are plain, behind an edge that ends TLS; the bot dials TLS and verifies the edge.
    Edge,
    /// The mesh is TLS on both sides, with certificates of both; the API is TLS.
    Mutual,
}

/// Whether the mesh port wants a certificate of its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// It does not ask for one.
    Off,
    /// A peer without one is admitted; a peer with an invalid one is not.
    Optional,
    /// A peer without a valid one is not admitted.
    #[default]
    Required,
}

/// Where certificates or a key come from.
#[derive(Clone, PartialEq, Eq)]
pub enum Material {
    /// A PEM file, read again when it changes.
    File(PathBuf),
    /// PEM that was given as a setting.
    Inline {
        /// The setting.
        name: String,
        /// Its text.
        pem: Vec<u8>,
    },
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::fmt::Display for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // What was meant as a value may be a key.
            Self::File(path)
                if path.to_string_lossy().contains(['\n', '\r'])
                    || path.to_string_lossy().contains("-----") =>
            {
                f.write_str("(a text that is no path)")
            }
            Self::File(path) => path.display().fmt(f),
            Self::Inline { name, .. } => f.write_str(name),
        }
    }
}

impl Material {
    fn read(&self) -> Result<Vec<u8>, TlsError> {
        let path = match self {
            Self::Inline { pem, .. } => return Ok(pem.clone()),
            Self::File(path) => path,
        };
        let bytes = crate::files::read(path, FILE_BYTES_MAX)
            .map_err(|source| TlsError::Read { file: self.to_string(), source })?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(TlsError::Long { file: self.to_string() });
        }
        Ok(bytes)
    }
}

/// Why certificates and keys do not work. Each names the file, and what to do is in the words.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum TlsError {
    #[error("cannot read {file}: {source}")]
    Read { file: String, source: io::Error },
    #[error("{file} is longer than {FILE_BYTES_MAX} bytes")]
    Long { file: String },
    #[error(
        "{file} has no certificate; it must have one or more in PEM, between BEGIN CERTIFICATE and END CERTIFICATE"
    )]
    NoCertificate { file: String },
    #[error("{file} has more than {CERTIFICATES_MAX} certificates")]
    ManyCertificates { file: String },
    #[error(
        "{file} has no private key; it must have one in PEM (PKCS#8, PKCS#1 or SEC1), not encrypted"
    )]
    NoKey { file: String },
    #[error("{file} cannot be read as PEM: {why}")]
    Pem { file: String, why: &'static str },
    #[error("a certificate in {file} is damaged, or no X.509 certificate")]
    Certificate { file: String },
    #[error(
        "the key in {key} does not work: it is damaged, or of a kind that is not supported; RSA of 2048 bits or more, ECDSA on P-256, P-384 or P-521, and Ed25519 work"
    )]
    Key { key: String },
    #[error("the TLS library has no protocol version or algorithm to offer")]
    Library,
    #[error(
        "the first certificate in {file} is a CA's ({subject}); it must be the bot's own, and those that lead to the CA follow it"
    )]
    Order { file: String, subject: String },
    #[error(
        "the CA in {ca} that signed the certificate in {file} ({subject}) does not say that it is one; issue it again with basicConstraints CA:TRUE"
    )]
    NoAuthority { file: String, subject: String, ca: String },
    #[error("the key in {key} is not that of the certificate in {certificate} ({subject})")]
    Mismatch { key: String, certificate: String, subject: String },
    #[error("the certificate in {file} ({subject}) expired on {date}")]
    Expired { file: String, subject: String, date: String },
    #[error("the certificate in {file} ({subject}) is not valid before {date}")]
    NotYet { file: String, subject: String, date: String },
    #[error(
        "the certificate in {file} ({subject}) is not signed by the CA in {ca}; other bots would refuse it"
    )]
    Foreign { file: String, subject: String, ca: String },
    #[error(
        "the certificate in {file} ({subject}) may not be used as a {purpose}, and a bot is both; issue one with the extended key usages serverAuth and clientAuth"
    )]
    Purpose { file: String, subject: String, purpose: &'static str },
    #[error(
        "the certificate in {file} ({subject}) is not for {host}, where others dial this bot; it names {names}"
    )]
    Name { file: String, subject: String, host: String, names: String },
    #[error("the certificate in {file} ({subject}) does not work as a {purpose}: {why}")]
    Other { file: String, subject: String, purpose: &'static str, why: &'static str },
    #[error("mutual TLS needs a CA, a certificate and its key")]
    Incomplete,
    #[error("the system has no trusted authorities; install them (ca-certificates), or name a CA")]
    NoSystemRoots,
}

/// Where everything comes from, and what it is for.
#[derive(Clone, Debug, Default)]
pub struct Materials {
    /// Who encrypts and who verifies what.
    pub mode: Mode,
    /// Whether the mesh port wants certificates.
    pub client_auth: ClientAuth,
    /// Whom to trust; the system's authorities if empty.
    pub ca: Vec<Material>,
    /// The own chain, the own certificate first.
    pub certificate: Option<Material>,
    /// Its key.
    pub key: Option<Material>,
    /// The host at which others dial this bot: the own certificate has to be for it.
    pub host: Option<String>,
}

/// One whole that belongs together; the default is plain text.
#[derive(Debug, Default)]
pub struct Set {
    /// What the mesh port speaks; plain text if none.
    pub mesh: Option<Arc<ServerConfig>>,
    /// What the API port speaks; plain text if none.
    pub api: Option<Arc<ServerConfig>>,
    /// How to dial; plain text if none.
    pub client: Option<Arc<ClientConfig>>,
    /// The own certificate.
    pub own: Option<Facts>,
    /// Whether the mesh port admits nobody without a certificate.
    pub requires_certificates: bool,
    /// The authorities of the configured bundles: whom they are of, and when they expire.
    pub authorities: Vec<Facts>,
    /// Certificates of the bundles that are of no use, with the reason: the set works without them.
    pub left_out: Vec<String>,
}

impl Materials {
    /// Whether any of it is in a file: what was given as a setting never changes.
    pub fn in_files(&self) -> bool {
        self.ca
            .iter()
            .chain(&self.certificate)
            .chain(&self.key)
            .any(|material| matches!(material, Material::File(_)))
    }

    /// Changes when the contents of any file do, or when one can be read no more.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for material in self.ca.iter().chain(&self.certificate).chain(&self.key) {
            material.read().map_err(|error| error.to_string()).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Reads everything once more. Whatever is wrong is an error, and nothing of the set is used.
    pub fn load(&self) -> Result<Set, TlsError> {
        if self.mode == Mode::None {
            return Ok(Set::default());
        }
        let whole = !self.ca.is_empty() && self.certificate.is_some() && self.key.is_some();
        if self.mode == Mode::Mutual && !whole {
            return Err(TlsError::Incomplete);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let trusted = self.trusted()?;
        let chains = match &trusted.authorities {
            Some(roots) => {
                let builder = WebPkiServerVerifier::builder_with_provider(
                    Arc::clone(roots),
                    Arc::clone(&provider),
                );
                Some(builder.build().map_err(|_| TlsError::NoSystemRoots)?)
            }
            None => None,
        };
        let algorithms = provider.signature_verification_algorithms;
        let certificates = trusted.certificates.clone();
        let servers: Arc<dyn ServerCertVerifier> =
            Arc::new(Configured { chains, certificates, algorithms, mandatory: false });
        let clients = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|_| TlsError::Library)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&servers));
        let (Mode::Mutual, Some(certificate), Some(key)) =
            (self.mode, &self.certificate, &self.key)
        else {
            let client = Some(Arc::new(dialling(clients.with_no_client_auth())));
            let Trusted { facts: authorities, left_out, .. } = trusted;
            return Ok(Set { client, authorities, left_out, ..Set::default() });
        };
        let own = Own::read(certificate, key)?;
        let verifier = self.client_verifier(&trusted, &provider)?;
        own.check(self, &trusted, &servers, verifier.as_ref())?;
        let serving = |verifier: Option<Arc<dyn ClientCertVerifier>>, alpn: &[&[u8]]| {
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(|_| TlsError::Library)?;
            let builder = match verifier {
                Some(verifier) => builder.with_client_cert_verifier(verifier),
                None => builder.with_no_client_auth(),
            };
            let mut config = builder
                .with_single_cert(own.chain.clone(), own.key.clone_key())
                .map_err(|error| own.explain(error))?;
            config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
            // Every handshake is a full one: that is what is measured, and a swapped authority is
            // asked at once.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            Ok(Arc::new(config))
        };
        let asked = (self.client_auth != ClientAuth::Off).then_some(verifier);
        let mesh = Some(serving(asked, &[b"h2", b"http/1.1"])?);
        let api = Some(serving(None, &[b"h2", b"http/1.1"])?);
        let client = clients
            .with_client_auth_cert(own.chain.clone(), own.key.clone_key())
            .map_err(|error| own.explain(error))?;
        let Trusted { facts: authorities, left_out, .. } = trusted;
        let requires_certificates = self.client_auth == ClientAuth::Required;
        let (client, own) = (Some(Arc::new(dialling(client))), Some(own.facts));
        Ok(Set { mesh, api, client, own, requires_certificates, authorities, left_out })
    }

    fn trusted(&self) -> Result<Trusted, TlsError> {
        let mut roots = RootCertStore::empty();
        if self.ca.is_empty() {
            let (added, _) =
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let authorities =
                (added > 0).then(|| Arc::new(roots)).ok_or(TlsError::NoSystemRoots)?;
            return Ok(Trusted { authorities: Some(authorities), ..Trusted::default() });
        }
        // One expired or damaged certificate in a bundle is of no use, and no reason to do without
        // the others.
        let mut trusted = Trusted::default();
        let mut first_problem = None;
        for material in &self.ca {
            let pem = material.read()?;
            let pem = pem::lines(&pem);
            let mut found = 0;
            for certificate in CertificateDer::pem_slice_iter(&pem).take(CERTIFICATES_MAX + 1) {
                found += 1;
                let usable = certificate
                    .map_err(|error| TlsError::Pem {
                        file: material.to_string(),
                        why: pem::why(&error, &pem),
                    })
                    .and_then(|certificate| trust(certificate, material, &mut roots));
                match usable {
                    Ok((certificate, facts)) => {
                        trusted.certificates.push(certificate);
                        trusted.facts.push(facts);
                    }
                    Err(problem) => {
                        trusted.left_out.push(problem.to_string());
                        first_problem.get_or_insert(problem);
                    }
                }
            }
            match found {
                0 => return Err(TlsError::NoCertificate { file: material.to_string() }),
                1..=CERTIFICATES_MAX => {}
                _ => return Err(TlsError::ManyCertificates { file: material.to_string() }),
            }
        }
        if let Some(problem) = first_problem.filter(|_| trusted.certificates.is_empty()) {
            return Err(problem);
        }
        trusted.authorities = (!roots.is_empty()).then(|| Arc::new(roots));
        Ok(trusted)
    }

    fn client_verifier(
        &self,
        trusted: &Trusted,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let chains = match &trusted.authorities {
            Some(roots) => {
                let builder = WebPkiClientVerifier::builder_with_provider(
                    Arc::clone(roots),
                    Arc::clone(provider),
                );
                Some(builder.build().map_err(|_| TlsError::NoSystemRoots)?)
            }
            None => None,
        };
        let (certificates, algorithms) =
            (trusted.certificates.clone(), provider.signature_verification_algorithms);
        Ok(Arc::new(Configured {
            chains,
            certificates,
            algorithms,
            mandatory: self.client_auth == ClientAuth::Required,
        }))
    }

    fn ca_names(&self) -> String {
        let names: Vec<_> = self.ca.iter().map(ToString::to_string).collect();
        if names.is_empty() { "the system".to_owned() } else { names.join(", ") }
    }
}

/// A certificate that may be trusted now.
fn trust(
    certificate: CertificateDer<'static>,
    material: &Material,
    roots: &mut RootCertStore,
) -> Result<(CertificateDer<'static>, Facts), TlsError> {
    let damaged = || TlsError::Certificate { file: material.to_string() };
    let facts = Facts::of(&certificate).map_err(|_| damaged())?;
    in_time(&facts, material)?;
    // The library takes whatever it is given for an authority: one host's own certificate must not
    // speak for others.
    if facts.is_authority {
        roots.add(certificate.clone()).map_err(|_| damaged())?;
    }
    Ok((certificate, facts))
}

/// Whom a set trusts.
#[derive(Default)]
struct Trusted {
    /// The configured certificates: each for itself.
    certificates: Vec<CertificateDer<'static>>,
    /// Those of them, or of the system's, that may sign others; none if nobody may.
    authorities: Option<Arc<RootCertStore>>,
    /// What the configured certificates say.
    facts: Vec<Facts>,
    /// Why others of the bundles are of no use.
    left_out: Vec<String>,
}

/// No resumption and no early data: what is dialled is measured.
fn dialling(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

fn certificates(material: &Material) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = material.read()?;
    let pem = pem::lines(&pem);
    let file = material.to_string();
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .take(CERTIFICATES_MAX + 1)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Pem { file: file.clone(), why: pem::why(&error, &pem) })?;
    match found.len() {
        0 => Err(TlsError::NoCertificate { file }),
        1..=CERTIFICATES_MAX => Ok(found),
        _ => Err(TlsError::ManyCertificates { file }),
    }
}

fn in_time(facts: &Facts, material: &Material) -> Result<(), TlsError> {
    let (file, subject) = (material.to_string(), facts.subject.clone());
    let now = SystemTime::now();
    if now > facts.not_after {
        return Err(TlsError::Expired { file, subject, date: facts.dates.1.clone() });
    }
    if now < facts.not_before {
        return Err(TlsError::NotYet { file, subject, date: facts.dates.0.clone() });
    }
    Ok(())
}

/// The own certificate and its key.
struct Own {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    facts: Facts,
    file: String,
    key_file: String,
}

impl Own {
    fn read(certificate: &Material, key: &Material) -> Result<Self, TlsError> {
        let chain = certificates(certificate)?;
        let (file, key_file) = (certificate.to_string(), key.to_string());
        let first = chain.first().ok_or_else(|| TlsError::NoCertificate { file: file.clone() })?;
        let facts = Facts::of(first).map_err(|_| TlsError::Certificate { file: file.clone() })?;
        let is_leaf = |certificate: &CertificateDer<'_>| {
            Facts::of(certificate).is_ok_and(|facts| !facts.is_authority)
        };
        if facts.is_authority && chain.iter().any(is_leaf) {
            return Err(TlsError::Order { file, subject: facts.subject });
        }
        in_time(&facts, certificate)?;
        let pem = key.read()?;
        let pem = pem::lines(&pem);
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => {
                match pem.windows(9).any(|window| window == b"ENCRYPTED") {
                    true => TlsError::Pem { file: key_file.clone(), why: pem::why(&error, &pem) },
                    false => TlsError::NoKey { file: key_file.clone() },
                }
            }
            error => TlsError::Pem { file: key_file.clone(), why: pem::why(&error, &pem) },
        })?;
        Ok(Self { chain, key, facts, file, key_file })
    }

    /// Looks at it as others will: from both sides.
    fn check(
        &self,
        materials: &Materials,
        trusted: &Trusted,
        servers: &Arc<dyn ServerCertVerifier>,
        clients: &dyn ClientCertVerifier,
    ) -> Result<(), TlsError> {
        let Some((own, intermediates)) = self.chain.split_first() else {
            return Err(TlsError::NoCertificate { file: self.file.clone() });
        };
        let now = UnixTime::now();
        clients
            .verify_client_cert(own, intermediates, now)
            .map_err(|error| self.judged(&error, "client", materials, trusted))?;
        let Some(host) = &materials.host else {
            return Ok(());
        };
        let name =
            ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|_| {
                TlsError::Name {
                    file: self.file.clone(),
                    subject: self.facts.subject.clone(),
                    host: host.clone(),
                    names: self.names(host),
                }
            })?;
        servers
            .verify_server_cert(own, intermediates, &name, &[], now)
            .map_err(|error| self.judged(&error, "server", materials, trusted))?;
        Ok(())
    }

    fn names(&self, host: &str) -> String {
        let names: Vec<_> = self.facts.names.iter().collect();
        if names.is_empty() {
            return "nothing but perhaps a common name (CN), which nobody reads; issue one with subjectAltName".to_owned();
        }
        let kind = if self.facts.names.cover(host) {
            ", but as the other kind of name: addresses belong to IP:, hosts to DNS:"
        } else {
            ""
        };
        format!("{}{kind}", names.join(", "))
    }

    /// Of the certificates in the file the one that is not valid now.
    fn out_of_time(&self) -> Option<Facts> {
        let facts = self.chain.iter().filter_map(|certificate| Facts::of(certificate).ok());
        facts.into_iter().find(|facts| facts.valid_at(UnixTime::now()).is_err())
    }

    fn judged(
        &self,
        error: &Error,
        purpose: &'static str,
        materials: &Materials,
        trusted: &Trusted,
    ) -> TlsError {
        let (file, subject) = (self.file.clone(), self.facts.subject.clone());
        let Error::InvalidCertificate(kind) = error else {
            return TlsError::Other { file, subject, purpose, why: "other bots would refuse it" };
        };
        match kind {
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                TlsError::Purpose { file, subject, purpose }
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature
                if trusted
                    .facts
                    .iter()
                    .any(|facts| !facts.is_authority && facts.subject == self.facts.issuer) =>
            {
                TlsError::NoAuthority { file, subject, ca: materials.ca_names() }
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                TlsError::Foreign { file, subject, ca: materials.ca_names() }
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                let host = materials.host.clone().unwrap_or_default();
                TlsError::Name { file, subject, names: self.names(&host), host }
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                let expired = self.out_of_time().unwrap_or_else(|| self.facts.clone());
                TlsError::Expired { file, subject: expired.subject, date: expired.dates.1 }
            }
            _ => TlsError::Other { file, subject, purpose, why: refused_for(kind) },
        }
    }

    fn explain(&self, error: Error) -> TlsError {
        match error {
            Error::InconsistentKeys(_) => TlsError::Mismatch {
                key: self.key_file.clone(),
                certificate: self.file.clone(),
                subject: self.facts.subject.clone(),
            },
            _ => TlsError::Key { key: self.key_file.clone() },
        }
    }
}

/// Why a certificate is refused, in words. The library names the reason in the variant of an error
/// of another library alone.
fn refused_for(kind: &CertificateError) -> &'static str {
    const REASONS: &[(&str, &str)] = &[
        ("CaUsedAsEndEntity", "it is a CA's; a bot needs one with basicConstraints CA:FALSE"),
        ("EndEntityUsedAsCa", "a certificate on the way to the CA lacks basicConstraints CA:TRUE"),
        ("PathLenConstraintViolated", "a CA on the way allows fewer certificates below it"),
        ("NameConstraintViolation", "the CA may not sign for the names in it (name constraints)"),
        (
            "UnsupportedSignatureAlgorithm",
            "it is signed by an algorithm that is too weak or unknown, such as SHA-1; issue it with SHA-256",
        ),
        ("UnsupportedCertVersion", "it is not of X.509 version 3"),
        ("UnsupportedCriticalExtension", "it has a critical extension that is unknown"),
        ("MaximumPathDepthExceeded", "too many certificates lead to the CA"),
    ];
    let text = format!("{kind:?}");
    REASONS
        .iter()
        .find(|(name, _)| text.contains(name))
        .map_or("other bots would refuse it", |(_, why)| why)
}
