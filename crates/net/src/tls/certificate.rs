//! What a certificate says, for people and for who may speak as whom.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

/// Names of one certificate that are looked at: far more than any host has.
const NAMES_MAX: usize = 256;

/// What is reported of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// When it begins to be valid.
    pub not_before: SystemTime,
    /// When it ceases to be valid.
    pub not_after: SystemTime,
    /// The same two moments for people, in UTC.
    pub dates: (String, String),
    /// The hosts that it names.
    pub names: PeerNames,
    /// Whether it says that it may sign others.
    pub is_authority: bool,
    /// Whether it may be a server's, and a client's.
    pub purposes: (bool, bool),
}

/// The hosts that the certificate of a peer names; in the extensions of every request of a peer
/// that presented one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNames(Arc<[String]>);

impl PeerNames {
    /// Whether it names this host or this node, with a wildcard for one label as in RFC 6125
    /// section 6.4.3.
    pub fn cover(&self, name: &str) -> bool {
        let bare = name.trim_matches(['[', ']']);
        self.0.iter().any(|known| {
            known.eq_ignore_ascii_case(bare)
                || known.strip_prefix("*.").is_some_and(|parent| {
                    bare.parse::<IpAddr>().is_err()
                        && bare.split_once('.').is_some_and(|(label, rest)| {
                            !label.is_empty() && rest.eq_ignore_ascii_case(parent)
                        })
                })
        })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Facts {
    /// Reads a certificate; the reason if it is none.
    pub fn of(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let validity = certificate.validity();
        Ok(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            not_before: moment(validity.not_before),
            not_after: moment(validity.not_after),
            dates: (validity.not_before.to_string(), validity.not_after.to_string()),
            names: names(&certificate),
            is_authority: is_authority(&certificate),
            purposes: purposes(&certificate),
        })
    }

    /// When it expires, in Unix seconds; 0 for one that expired before there were any.
    pub fn expires_unix(&self) -> u64 {
        self.not_after.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// Whether it is valid at this moment.
    pub fn valid_at(&self, now: UnixTime) -> Result<(), rustls::CertificateError> {
        let now = UNIX_EPOCH + Duration::from_secs(now.as_secs());
        if now < self.not_before {
            return Err(rustls::CertificateError::NotValidYet);
        }
        if now > self.not_after {
            return Err(rustls::CertificateError::Expired);
        }
        Ok(())
    }
}

fn moment(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

/// RFC 5280 sections 4.2.1.3 and 4.2.1.9. What cannot be read, or says nothing, is none.
fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    let signs = certificate
        .key_usage()
        .is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
    signs
        && certificate
            .basic_constraints()
            .is_ok_and(|constraints| constraints.is_some_and(|constraints| constraints.value.ca))
}

/// RFC 5280 section 4.2.1.12: who says nothing may be both; what cannot be read is neither.
fn purposes(certificate: &X509Certificate<'_>) -> (bool, bool) {
    match certificate.extended_key_usage() {
        Ok(None) => (true, true),
        Ok(Some(usage)) => {
            (usage.value.any || usage.value.server_auth, usage.value.any || usage.value.client_auth)
        }
        Err(_) => (false, false),
    }
}

fn names(certificate: &X509Certificate<'_>) -> PeerNames {
    // A certificate with two such extensions, or one that cannot be read, names nobody.
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return PeerNames::default();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(v4) => Some(IpAddr::from(v4).to_string()),
            Err(_) => Some(IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
        },
        _ => None,
    };
    PeerNames(extension.value.general_names.iter().filter_map(name).take(NAMES_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_one_label() {
        let names = PeerNames(
            ["*.example.net", "swan", "192.0.2.7", "2001:db8::1"].map(str::to_owned).into(),
        );
        for covered in ["a.example.net", "A.Example.NET", "SWAN", "192.0.2.7", "[2001:db8::1]"] {
            assert!(names.cover(covered), "{covered}");
        }
        for foreign in [
            "example.net",
            "a.b.example.net",
            ".example.net",
            "swan.example.org",
            "192.0.2.8",
            "",
            "goose",
        ] {
            assert!(!names.cover(foreign), "{foreign}");
        }
    }
}
