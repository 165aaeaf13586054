//! Settings of trust: tokens, certificates, keys, and the mode of TLS that they mean.

use base64::Engine as _;
use canary_net::Token;
use canary_net::tls::{ClientAuth, Material, Materials, Mode};
use canary_node::Seed;

use super::{Join, Parser};
use crate::sources::Problem;
use crate::tokens::TokenSource;
use crate::{expiry, flags};

/// A token with fewer characters is a warning: the rate limit alone does not keep it from being
/// guessed.
const TOKEN_LENGTH_MIN: usize = 16;

impl Parser<'_> {
    pub(super) fn tokens(&mut self, name: &str, file: &str) -> TokenSource {
        // A token is a secret even when it is wrong: it is not repeated.
        let mut source = TokenSource::default();
        if let Some(given) = self.sources.get(name).cloned() {
            if given.values.is_empty() {
                self.problem(&given, "the token is empty");
            }
            for value in &given.values {
                match Token::new(value) {
                    Ok(token) => source.given.push(token),
                    Err(error) => self.problem(&given, error),
                }
            }
        }
        if let Some((given, path)) = self.given(file) {
            source.file = Some(path.into());
            if let Err(error) = source.load() {
                self.problem(&given, error);
            }
        }
        let short = |token: &Token| token.reveal().chars().count() < TOKEN_LENGTH_MIN;
        if source.load().is_ok_and(|tokens| tokens.iter().any(short)) {
            let words = format!(
                "--{name}, --{file}: a token of fewer than {TOKEN_LENGTH_MIN} characters can be guessed; make one by canary-bot token new"
            );
            self.warnings.push(words);
        }
        source
    }

    /// Where to join. A scheme has to be that of the mode: what was meant to be encrypted is never
    /// sent in plain text.
    pub(super) fn seeds(&mut self, mode: Mode) -> Vec<Seed> {
        self.each("target", "write HOST:PORT or dns:NAME:PORT", |value| {
            let (scheme, rest) = value.split_once("://").map_or((None, value), |(scheme, rest)| (Some(scheme), rest));
            match (scheme, mode) {
                (None, _) | (Some("http"), Mode::None) | (Some("https"), Mode::Edge | Mode::Mutual) => {}
                (Some("https"), Mode::None) => {
                    return Err("nothing says how to verify it; name a CA by --ca-cert-path, or use --tls edge".to_owned());
                }
                (Some("http"), _) => return Err("this bot dials TLS only; remove http://, or the TLS settings".to_owned()),
                (Some(other), _) => return Err(format!("{other} is no scheme that bots speak")),
            }
            rest.trim_end_matches('/').parse::<Seed>().map_err(|error| error.to_string())
        })
    }

    /// What is given as base64: it is not repeated, it may be a key.
    fn inline(&mut self, name: &str) -> Option<Material> {
        let (given, value) = self.given(name)?;
        let bare: String = value.split_whitespace().collect();
        match base64::engine::general_purpose::STANDARD.decode(bare) {
            Ok(pem) => Some(Material::Inline { name: given.origin.to_string(), pem }),
            Err(_) => {
                self.problem(&given, format!("it is not base64; write the PEM file through base64 -w0, or name the file by --{name}-path"));
                None
            }
        }
    }

    fn material(&mut self, path: &str, inline: &str) -> Option<Material> {
        let file = self.given(path).map(|(_, path)| Material::File(path.into()));
        let text = self.inline(inline);
        if file.is_some() && text.is_some() {
            self.problems
                .push(Problem(format!("--{path} and --{inline} are both given; give one of them")));
        }
        file.or(text)
    }

    /// The mode that is asked for, as far as it is.
    fn pinned(&mut self) -> Option<Mode> {
        self.one("tls", |value| match value {
            "none" => Ok(Mode::None),
            "edge" => Ok(Mode::Edge),
            "mutual" => Ok(Mode::Mutual),
            _ => Err(flags::choose("tls")),
        })
    }

    /// Who encrypts and who verifies what, as the flag or the certificates given say.
    pub(super) fn mode(&mut self) -> Mode {
        let before = self.problems.len();
        let pinned = self.pinned();
        // Mistakes in it are reported where certificates are read.
        self.problems.truncate(before);
        let any = |names: &[&str]| names.iter().any(|name| self.sources.get(name).is_some());
        let pair = any(&["server-cert-path", "server-cert", "server-key-path", "server-key"]);
        pinned.unwrap_or(match (any(&["ca-cert-path", "ca-cert"]), pair) {
            (_, true) => Mode::Mutual,
            (true, false) => Mode::Edge,
            (false, false) => Mode::None,
        })
    }

    /// Files of secrets that others on the host may read or change.
    pub(super) fn exposed_files(&mut self) {
        for name in [
            "token-file",
            "mesh-token-file",
            "remote-write-token-file",
            "otlp-token-file",
            "server-key-path",
        ] {
            if let Some((_, path)) = self.given(name)
                && let Some(why) = canary_net::files::exposed(path.as_ref())
            {
                self.warnings.push(format!("{path}: {why}"));
            }
        }
    }

    /// Certificates, keys and whom to trust: all of it is read now, and whatever is wrong stops the
    /// start.
    pub(super) fn tls(&mut self, mode: Mode, join: &Join) -> Materials {
        let before = self.problems.len();
        let pinned = self.pinned();
        let is_auth_given = self.sources.get("client-auth").is_some();
        let client_auth = self.choice("client-auth", |value| match value {
            "off" => Some(ClientAuth::Off),
            "optional" => Some(ClientAuth::Optional),
            "required" => Some(ClientAuth::Required),
            _ => None,
        });
        let given = self.sources.get("ca-cert-path").cloned();
        if let Some(given) = given.as_ref().filter(|given| given.values.is_empty()) {
            // An unset variable of a script must not mean plain text, nor that others are trusted
            // instead.
            self.problem(given, "no path is given; name the file, or leave the setting out");
        }
        let paths = given.map(|given| given.values).unwrap_or_default();
        let ca: Vec<_> = paths
            .into_iter()
            .map(|path| Material::File(path.into()))
            .chain(self.inline("ca-cert"))
            .collect();
        let certificate = self.material("server-cert-path", "server-cert");
        let key = self.material("server-key-path", "server-key");
        let mut say = |what: &str| self.problems.push(Problem(what.to_owned()));
        if certificate.is_some() != key.is_some() {
            say(if key.is_some() {
                "a key is given without its certificate; add --server-cert-path or --server-cert"
            } else {
                "a certificate is given without its key; add --server-key-path or --server-key"
            });
        }
        let (authority, pair) = (!ca.is_empty(), certificate.is_some() || key.is_some());
        match (pinned, authority, pair) {
            (None, false, false)
            | (None, true, false)
            | (None | Some(Mode::Mutual), true, true) => {}
            (Some(Mode::None), false, false) | (Some(Mode::Edge), _, false) => {}
            (None, false, true) => {
                say(
                    "a certificate is given and no CA: nobody could be verified; add --ca-cert-path, a self-signed certificate may be its own",
                );
            }
            (Some(Mode::None), ..) => say(
                "--tls none contradicts the certificates that are given; remove one or the other",
            ),
            (Some(Mode::Edge), _, true) => {
                say(
                    "with --tls edge the ports are plain and no certificate is presented; remove it, or use --tls mutual",
                );
            }
            (Some(Mode::Mutual), ..) => {
                let needed = [
                    (authority, "--ca-cert-path"),
                    (certificate.is_some(), "--server-cert-path"),
                    (key.is_some(), "--server-key-path"),
                ];
                let missing: Vec<_> =
                    needed.iter().filter(|(given, _)| !given).map(|(_, flag)| *flag).collect();
                say(&format!("--tls mutual lacks {}", missing.join(" and ")));
            }
        }
        if is_auth_given && mode != Mode::Mutual {
            say(
                "--client-auth says whom the mesh port's TLS asks for certificates, and only --tls mutual has TLS there; remove it, or add a CA, a certificate and a key",
            );
        }
        let host = match join {
            Join::Target(target) => target.host().to_owned(),
            Join::Host(host) => host.clone(),
        };
        let materials = Materials { mode, client_auth, ca, certificate, key, host: Some(host) };
        if self.problems.len() == before {
            match materials.load() {
                Ok(set) => self.warnings.extend(expiry::warnings(&set)),
                Err(error) => self.problems.push(Problem(format!("{error}"))),
            }
        }
        materials
    }
}
