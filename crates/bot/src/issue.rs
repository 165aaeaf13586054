//! Makes what guards a mesh: a certificate authority with certificates for development, and tokens.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use canary_net::Token;
use canary_net::tls::{CertificateDer, Facts, PemObject as _};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// The name of the authority.
const AUTHORITY: &str = "canary development CA";
/// Days that certificates of `tls dev` are valid: long enough to develop, short enough to be no
/// solution.
const DAYS: i64 = 90;
/// Hours that they are valid before they are made: clocks of hosts disagree.
const BACK_HOURS: i64 = 1;

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssueError {
    #[error("{path} is there already; remove it first, or choose another place")]
    Exists { path: PathBuf },
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the authority in {path} was not made by this command; use its own tools, or choose another place"
    )]
    Authority { path: PathBuf },
    #[error("{name:?} is no name that a certificate can carry; write host names and addresses")]
    Name { name: String },
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// A new authority in `directory` (`ca.pem`, `ca-key.pem`), and for each name a certificate and a
/// key (`NAME.pem`, `NAME-key.pem`) for use as server and as client. A name may be followed by
/// others of the same host, after commas.
///
/// An authority that is there already is used again: hosts are added to it. Nothing is written
/// before everything could be made.
pub(crate) fn tls_dev(directory: &Path, hosts: &[String]) -> Result<Vec<PathBuf>, IssueError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    let (ca, ca_key) = (directory.join("ca.pem"), directory.join("ca-key.pem"));
    let mut files = Vec::new();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    date(&mut params);
    let key = if ca.exists() && ca_key.exists() {
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|source| IssueError::Read { path: path.to_owned(), source })
        };
        let unusable = || IssueError::Authority { path: ca.clone() };
        let certificate =
            CertificateDer::from_pem_slice(read(&ca)?.as_bytes()).map_err(|_| unusable())?;
        if Facts::of(&certificate).map_err(|_| unusable())?.subject != format!("CN={AUTHORITY}") {
            return Err(unusable());
        }
        KeyPair::from_pem(&read(&ca_key)?).map_err(|_| unusable())?
    } else {
        let key = KeyPair::generate()?;
        files.push((ca.clone(), params.self_signed(&key)?.pem(), 0o644));
        files.push((ca_key, key.serialize_pem(), 0o600));
        key
    };
    let authority = Issuer::new(params, key);
    for host in hosts {
        let names: Vec<_> =
            host.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let first = *names.first().ok_or_else(|| IssueError::Name { name: host.clone() })?;
        if first.contains(['/', '\\']) || first.starts_with('.') {
            return Err(IssueError::Name { name: first.to_owned() });
        }
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, first);
        for name in &names {
            let bare = name.trim_matches(['[', ']']);
            params.subject_alt_names.push(match bare.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) if !is_host(bare) => return Err(IssueError::Name { name: bare.to_owned() }),
                Err(_) => SanType::DnsName(
                    bare.try_into().map_err(|_| IssueError::Name { name: bare.to_owned() })?,
                ),
            });
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        date(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        let file = first.trim_matches(['[', ']']).replace([':', '*'], "_");
        files.push((directory.join(format!("{file}.pem")), certificate.pem(), 0o644));
        files.push((directory.join(format!("{file}-key.pem")), key.serialize_pem(), 0o600));
    }
    if let Some((path, ..)) = files.iter().find(|(path, ..)| path.exists()) {
        return Err(IssueError::Exists { path: path.clone() });
    }
    builder
        .create(directory)
        .map_err(|source| IssueError::Write { path: directory.to_owned(), source })?;
    files.into_iter().map(|(path, text, mode)| write(path, text.as_bytes(), mode)).collect()
}

/// Whether a certificate can name a host so: labels of letters, digits, dashes and underscores, the
/// first perhaps a wildcard.
fn is_host(name: &str) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    name.strip_prefix("*.")
        .unwrap_or(name)
        .split('.')
        .all(|label| !label.is_empty() && label.chars().all(valid))
}

fn date(params: &mut CertificateParams) {
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::hours(BACK_HOURS);
    params.not_after = now + time::Duration::days(DAYS);
}

/// A new random token in a new file that nobody else may read.
///
/// A dash stands for stdout, as it does elsewhere.
pub(crate) fn token_new(path: &Path) -> Result<PathBuf, IssueError> {
    let token = Token::generate().map_err(|error| IssueError::Random(error.to_string()))?;
    if path.as_os_str() == "-" {
        let path = path.to_owned();
        return writeln!(io::stdout(), "{}", token.reveal())
            .map(|()| path.clone())
            .map_err(|source| IssueError::Write { path, source });
    }
    write(path.to_owned(), format!("{}\n", token.reveal()).as_bytes(), 0o600)
}

/// Writes a file that was not there: what guards a mesh is not overwritten by accident.
fn write(path: PathBuf, contents: &[u8], mode: u32) -> Result<PathBuf, IssueError> {
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
    match opened.and_then(|mut file| file.write_all(contents)) {
        Ok(()) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(IssueError::Exists { path })
        }
        Err(source) => Err(IssueError::Write { path, source }),
    }
}
