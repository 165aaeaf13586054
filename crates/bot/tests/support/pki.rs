//! Certificates of all kinds, right and wrong ones.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};

/// A directory that goes with its holder.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("canary-bot-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        // As Kubernetes and careful people do: nobody reads half a file.
        let (path, fresh) = (self.0.join(name), self.0.join(format!(".{name}")));
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        text_of(&path)
    }

    pub fn path(&self, name: &str) -> String {
        text_of(&self.0.join(name))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn text_of(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// What a certificate is like.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub server: bool,
    pub client: bool,
    /// Days from now in which it is valid.
    pub days: (i64, i64),
}

pub const GOOD: Kind = Kind { server: true, client: true, days: (-1, 30) };

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = params(name, &[], (-1, 30));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate and its key in PEM.
    pub fn issue(&self, name: &str, hosts: &[&str], kind: Kind) -> (String, String) {
        self.sign(params(name, hosts, kind.days), kind)
    }

    /// A good one that is not valid for some seconds yet, as from an issuer whose clock is ahead.
    pub fn issue_ahead(&self, name: &str, hosts: &[&str], seconds: i64) -> (String, String) {
        let mut params = params(name, hosts, GOOD.days);
        params.not_before = time::OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
        self.sign(params, GOOD)
    }

    fn sign(&self, mut params: CertificateParams, kind: Kind) -> (String, String) {
        params
            .extended_key_usages
            .extend(kind.server.then_some(ExtendedKeyUsagePurpose::ServerAuth));
        params
            .extended_key_usages
            .extend(kind.client.then_some(ExtendedKeyUsagePurpose::ClientAuth));
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// A certificate that signed itself, and its key.
pub fn self_signed(name: &str, hosts: &[&str]) -> (String, String) {
    let mut params = params(name, hosts, (-1, 30));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn params(name: &str, hosts: &[&str], days: (i64, i64)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = hosts
        .iter()
        .map(|host| match host.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName((*host).try_into().unwrap()),
        })
        .collect();
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now + time::Duration::days(days.0);
    params.not_after = now + time::Duration::days(days.1);
    params
}
