//! One function for each kind of foreign bytes that a bot meets. They must end, and must not panic;
//! what they assert are promises of the parsers. The fuzzers in `fuzz/` call them, and the tests
//! with what is in `fuzz/corpus/`.

use std::path::Path;
use std::str::FromStr;

use canary_core::{Config, Labels, NodeName, Target};
use canary_net::tls::{ClientAuth, Material, Materials, Mode};
use canary_net::token::Verdict;
use canary_net::{Token, Tokens};
use canary_node::Seed;

pub use canary_api::fuzz::accept;
pub use canary_node::fuzz::{flight, mesh_message};

use crate::settings::Settings;
use crate::sources::Sources;

/// Takes foreign bytes.
pub type Take = fn(&[u8]);

/// What is fuzzed: the name of a corpus, and what takes its bytes.
pub const TARGETS: &[(&str, Take)] = &[
    ("mesh_message", mesh_message),
    ("target", target),
    ("configuration", configuration),
    ("pem", pem),
    ("authorization", authorization),
    ("accept", accept),
    ("flight", flight),
];

/// Where others dial: what is taken is spelled so that it is taken again.
pub fn target(bytes: &[u8]) {
    fn again<T: FromStr + ToString + PartialEq + std::fmt::Debug>(text: &str) {
        if let Ok(parsed) = text.parse::<T>() {
            assert_eq!(parsed.to_string().parse().ok(), Some(parsed));
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    again::<Target>(text);
    again::<Seed>(text);
    again::<NodeName>(text);
    if let Some((key, value)) = text.split_once('=') {
        let _ = Labels::new([(key.to_owned(), value.to_owned())]);
    }
}

/// A configuration file: whatever is in it, it works or is refused with words.
pub fn configuration(bytes: &[u8]) {
    /// Settings that name a file, or a host that is looked up at once: the fuzzer must not read the
    /// machine it runs on.
    const OUTSIDE: [&str; 9] = [
        "ca-cert-path",
        "server-cert-path",
        "server-key-path",
        "token-file",
        "mesh-token-file",
        "config",
        "listen-address",
        "api-address",
        "tls",
    ];
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut problems = Vec::new();
    let mut sources = Sources::of_text(Path::new("fuzz.toml"), text, &mut problems);
    OUTSIDE.iter().for_each(|name| sources.forget(name));
    match Settings::parse(&sources, problems) {
        Ok(settings) => assert_eq!(
            Config::problems(&settings.config),
            [],
            "a configuration that cannot work was taken"
        ),
        Err(problems) => assert!(!problems.is_empty(), "it was refused without a word"),
    }
}

/// Certificates and keys.
pub fn pem(bytes: &[u8]) {
    let inline =
        |name: &str, pem: &[u8]| Material::Inline { name: name.to_owned(), pem: pem.to_vec() };
    let end = bytes.windows(2).position(|window| window == [0, 0]).unwrap_or(bytes.len());
    let (certificate, key) = (&bytes[..end], bytes.get(end + 2..).unwrap_or_default());
    let edge =
        Materials { mode: Mode::Edge, ca: vec![inline("ca", certificate)], ..Materials::default() };
    let _ = edge.load().map_err(|error| error.to_string());
    let mutual = Materials {
        mode: Mode::Mutual,
        client_auth: ClientAuth::Required,
        ca: vec![inline("ca", certificate)],
        certificate: Some(inline("certificate", certificate)),
        key: Some(inline("key", key)),
        host: Some("localhost".to_owned()),
    };
    if let Ok(set) = mutual.load() {
        assert!(
            set.mesh.is_some() && set.api.is_some() && set.client.is_some(),
            "a part of mutual TLS is plain"
        );
    }
}

/// The header of a request to the API or the mesh.
pub fn authorization(bytes: &[u8]) {
    const SECRET: &str = "a-token-that-nobody-guesses-0123456789";
    let Ok(header) = http::HeaderValue::from_bytes(bytes) else { return };
    let Ok(token) = Token::new(SECRET) else { return };
    let verdict = Tokens::new([token]).judge(Some(&header));
    let carries = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
    assert!(verdict != Verdict::Valid || carries, "admitted without the token");
    assert_ne!(
        Tokens::default().judge(Some(&header)),
        Verdict::Valid,
        "admitted where no token is valid"
    );
}
