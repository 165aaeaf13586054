//! Makes what guards a mesh: a certificate authority with certificates for development, and tokens.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use canary_net::Token;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

/// Days that certificates of `tls dev` are valid: long enough to develop, short enough to be no solution.
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
    #[error("{name:?} is no name that a certificate can carry")]
    Name { name: String },
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// A new authority in `directory` (`ca.pem`, `ca-key.pem`), and for each name a certificate and a key (`NAME.pem`, `NAME-key.pem`) for use as
/// server and as client. A name may be followed by others of the same host, after commas.
pub(crate) fn tls_dev(directory: &Path, hosts: &[String]) -> Result<Vec<PathBuf>, IssueError> {
    std::fs::create_dir_all(directory).map_err(|source| IssueError::Write { path: directory.to_owned(), source })?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "canary development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    date(&mut params);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let mut written = vec![
        write(directory.join("ca.pem"), authority.pem().as_bytes(), 0o644)?,
        write(directory.join("ca-key.pem"), authority.key().serialize_pem().as_bytes(), 0o600)?,
    ];
    for host in hosts {
        let names: Vec<_> = host.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
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
                Err(_) => SanType::DnsName(bare.try_into().map_err(|_| IssueError::Name { name: bare.to_owned() })?),
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        date(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        let file = first.trim_matches(['[', ']']).replace([':', '*'], "_");
        written.push(write(directory.join(format!("{file}.pem")), certificate.pem().as_bytes(), 0o644)?);
        written.push(write(directory.join(format!("{file}-key.pem")), key.serialize_pem().as_bytes(), 0o600)?);
    }
    Ok(written)
}

fn date(params: &mut CertificateParams) {
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::hours(BACK_HOURS);
    params.not_after = now + time::Duration::days(DAYS);
}

/// A new random token in a new file that nobody else may read.
pub(crate) fn token_new(path: &Path) -> Result<PathBuf, IssueError> {
    let token = Token::generate().map_err(|error| IssueError::Random(error.to_string()))?;
    write(path.to_owned(), format!("{}\n", token.reveal()).as_bytes(), 0o600)
}

/// Writes a file that was not there: what guards a mesh is not overwritten by accident.
fn write(path: PathBuf, contents: &[u8], mode: u32) -> Result<PathBuf, IssueError> {
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
    match opened.and_then(|mut file| file.write_all(contents)) {
        Ok(()) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(IssueError::Exists { path }),
        Err(source) => Err(IssueError::Write { path, source }),
    }
}
