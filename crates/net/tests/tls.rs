//! Whom a set trusts, by real handshakes in memory.

#![allow(clippy::unwrap_used)]

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;

use canary_net::tls::{ClientAuth, Material, Materials, Mode, Set};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A certificate that signed itself, and who could sign others with its key.
struct Host {
    pem: String,
    key: KeyPair,
    params: CertificateParams,
}

fn host(name: &str, is_ca: IsCa) -> Host {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = is_ca;
    let key = KeyPair::generate().unwrap();
    Host { pem: params.self_signed(&key).unwrap().pem(), key, params }
}

impl Host {
    fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn inline(pem: &str) -> Material {
    Material::Inline { name: "inline".to_owned(), pem: pem.as_bytes().to_vec() }
}

fn set(
    ca: &str,
    certificate: &str,
    key: &str,
    host: Option<&str>,
) -> Result<Set, canary_net::tls::TlsError> {
    let materials = Materials {
        mode: Mode::Mutual,
        client_auth: ClientAuth::Required,
        ca: vec![inline(ca)],
        certificate: Some(inline(certificate)),
        key: Some(inline(key)),
        host: host.map(str::to_owned),
    };
    materials.load()
}

/// Shakes hands in memory: an error of either side.
fn shake(client: &Set, server: &Set, name: &str) -> Result<(), rustls::Error> {
    let config = Arc::clone(client.client.as_ref().unwrap());
    let mut client = rustls::ClientConnection::new(config, name.to_owned().try_into().unwrap())?;
    let mut server = rustls::ServerConnection::new(Arc::clone(server.mesh.as_ref().unwrap()))?;
    for _ in 0..8 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut Cursor::new(&bytes)).unwrap();
        server.process_new_packets()?;
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut Cursor::new(&bytes)).unwrap();
        client.process_new_packets()?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

#[test]
fn hosts_that_list_each_others_certificates_trust_each_other_and_nobody_whom_they_signed() {
    let (a, b) = (host("a.example", IsCa::NoCa), host("b.example", IsCa::NoCa));
    let bundle = format!("{}{}", a.pem, b.pem);
    let own =
        |host: &Host, name| set(&bundle, &host.pem, &host.key.serialize_pem(), Some(name)).unwrap();
    let (at_a, at_b) = (own(&a, "a.example"), own(&b, "b.example"));
    shake(&at_a, &at_b, "b.example").unwrap();
    shake(&at_b, &at_a, "a.example").unwrap();
    assert!(shake(&at_b, &at_a, "c.example").is_err(), "the name is not looked at");
    // The key of b signs a certificate for a.
    let (certificate, key) = b.sign("a.example");
    let forged = set(&format!("{bundle}{certificate}"), &certificate, &key, None).unwrap();
    assert!(
        shake(&forged, &at_b, "b.example").is_err(),
        "b takes a client whom it signed itself for another"
    );
    assert!(shake(&forged, &at_a, "a.example").is_err(), "a takes a client whom b signed");
    assert!(
        shake(&at_b, &forged, "a.example").is_err(),
        "b takes a server whom it signed itself for another"
    );
}

#[test]
fn an_authority_is_one_by_its_own_words() {
    let authority = host("authority", IsCa::Ca(BasicConstraints::Unconstrained));
    let issue = |name: &str| {
        let (certificate, key) = authority.sign(name);
        set(&authority.pem, &certificate, &key, Some(name)).unwrap()
    };
    shake(&issue("a.example"), &issue("b.example"), "b.example").unwrap();
}

#[test]
fn mutual_mode_without_all_its_parts_is_an_error_and_never_plain_text() {
    let host = host("a.example", IsCa::NoCa);
    let whole = Materials {
        mode: Mode::Mutual,
        ca: vec![inline(&host.pem)],
        certificate: Some(inline(&host.pem)),
        key: Some(inline(&host.key.serialize_pem())),
        ..Materials::default()
    };
    assert!(whole.load().unwrap().mesh.is_some());
    for lacking in [
        Materials { ca: Vec::new(), ..whole.clone() },
        Materials { certificate: None, ..whole.clone() },
        Materials { key: None, ..whole.clone() },
        Materials { key: Some(Material::File(PathBuf::from("/nowhere"))), ..whole },
    ] {
        assert!(lacking.load().is_err(), "{lacking:?}");
    }
}

#[test]
fn a_configured_certificate_is_used_for_what_it_says_alone() {
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    for (usages, refused_as) in [
        (vec![ServerAuth], Some("client")),
        (vec![ClientAuth], Some("server")),
        (vec![ServerAuth, ClientAuth], None),
    ] {
        let mut params = CertificateParams::new(vec!["swan".to_owned()]).unwrap();
        params.extended_key_usages = usages;
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let refused = set(&pem, &pem, &key.serialize_pem(), Some("swan"))
            .err()
            .map(|error| error.to_string());
        match refused_as {
            Some(purpose) => {
                assert!(refused.as_ref().is_some_and(|why| why.contains(&format!("may not be used as a {purpose}"))), "{refused:?}");
            }
            None => assert_eq!(refused, None),
        }
    }
}
