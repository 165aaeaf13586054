//! Bearer tokens: never printed, compared in constant time.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use subtle::{Choice, ConstantTimeEq};

/// Longest accepted token in bytes; a longer header is refused without being compared.
pub const TOKEN_BYTES_MAX: usize = 1024;
/// Letters and digits of a generated token, as the original's.
const GENERATED_LEN: usize = 64;

/// A secret that opens the API. Its text is shown by [`Token::reveal`] alone.
#[derive(Clone)]
pub struct Token(Arc<str>);

/// Why a text is no [`Token`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It has no characters.
    #[error("a token is empty")]
    Empty,
    /// It is too long.
    #[error("a token is longer than {TOKEN_BYTES_MAX} bytes")]
    Long,
    /// A header cannot carry it.
    #[error("a token has white space or other characters that no header can carry")]
    Characters,
}

impl Token {
    /// Accepts what an `Authorization` header can carry.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Long);
        }
        Self::carried(text)
    }

    /// What a server of others wants: a bearer token as long as a header may be, or `USER:PASSWORD`
    /// in any letters.
    ///
    /// # Errors
    ///
    /// If it is empty, or no header can carry it.
    pub fn of_another(text: &str) -> Result<Self, TokenError> {
        if text.contains(':') && !text.contains(char::is_control) {
            return Ok(Self(text.into()));
        }
        Self::carried(text)
    }

    fn carried(text: &str) -> Result<Self, TokenError> {
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if !text.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(TokenError::Characters);
        }
        Ok(Self(text.into()))
    }

    /// A random one of 64 letters and digits from the system's generator.
    pub fn generate() -> Result<Self, getrandom::Error> {
        const ALPHABET: &[u8; 62] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut text = String::with_capacity(GENERATED_LEN);
        while text.len() < GENERATED_LEN {
            let mut bytes = [0; GENERATED_LEN];
            getrandom::fill(&mut bytes)?;
            // Bytes past the last whole alphabet would make the first letters likelier.
            let letters = bytes
                .iter()
                .filter(|byte| **byte < 248)
                .map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
            text.extend(letters.take(GENERATED_LEN - text.len()));
        }
        Ok(Self(text.into()))
    }

    /// The secret itself, for the one place that hands it to a person.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The tokens that are valid now; one is enough.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Vec<Token>);

/// What a request's `Authorization` header is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It carries a valid token.
    Valid,
    /// There is none.
    Missing,
    /// It carries none of the valid tokens.
    Invalid,
}

impl Tokens {
    /// These and no others.
    pub fn new(tokens: impl IntoIterator<Item = Token>) -> Self {
        Self(tokens.into_iter().collect())
    }

    /// Whether there are none: nothing is guarded by them, or nobody is admitted; that is for their
    /// holder to say.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The header that carries the first of them, for who asks others.
    pub fn header(&self) -> Option<http::HeaderValue> {
        let mut header =
            http::HeaderValue::try_from(format!("Bearer {}", self.0.first()?.0)).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    /// The first of them as `USER:PASSWORD` (RFC 7617), if it is one: no bearer token has a colon
    /// (RFC 6750 section 2.1).
    pub fn basic(&self) -> Option<http::HeaderValue> {
        let text = &self.0.first()?.0;
        text.contains(':').then_some(())?;
        let mut header = http::HeaderValue::try_from(format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(&**text)
        ))
        .ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    /// Judges an `Authorization` header (RFC 6750 section 2.1). Every valid token is compared, so
    /// that time tells nothing.
    pub fn judge(&self, header: Option<&http::HeaderValue>) -> Verdict {
        let Some(header) = header else {
            return Verdict::Missing;
        };
        let Some((scheme, given)) = split_scheme(header.as_bytes()) else {
            return Verdict::Invalid;
        };
        if !scheme.eq_ignore_ascii_case(b"bearer") || given.len() > TOKEN_BYTES_MAX {
            return Verdict::Invalid;
        }
        let given = padded(given);
        let matches = self
            .0
            .iter()
            .fold(Choice::from(0), |found, token| found | padded(token.0.as_bytes()).ct_eq(&given));
        if bool::from(matches) { Verdict::Valid } else { Verdict::Invalid }
    }
}

/// A token with its length, always of one size: the time of a comparison tells neither content nor
/// length.
fn padded(token: &[u8]) -> [u8; TOKEN_BYTES_MAX + 2] {
    let mut padded = [0; TOKEN_BYTES_MAX + 2];
    for (to, from) in padded.iter_mut().zip(token) {
        *to = *from;
    }
    padded[TOKEN_BYTES_MAX..].copy_from_slice(&(token.len() as u16).to_le_bytes());
    padded
}

fn split_scheme(header: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = header.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = header.split_at(space);
    Some((scheme, rest.trim_ascii()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn judge(tokens: &Tokens, header: &str) -> Verdict {
        tokens.judge(Some(&header.parse().unwrap()))
    }

    #[test]
    fn one_of_several_tokens_is_enough_and_nothing_near_it() {
        let tokens =
            Tokens::new([Token::new("Bearer-of-news").unwrap(), Token::new("second").unwrap()]);
        assert_eq!(tokens.judge(None), Verdict::Missing);
        for valid in ["Bearer second", "bearer second", "Bearer Bearer-of-news", "Bearer  second"] {
            assert_eq!(judge(&tokens, valid), Verdict::Valid, "{valid}");
        }
        // The original accepted any prefix, and tokens with "Bearer" in them broke.
        for invalid in [
            "second",
            "Bearer",
            "Bearer ",
            "Bearer secon",
            "Bearer seconds",
            "Basic second",
            "xBearer second",
            "Bearer second second",
        ] {
            assert_eq!(judge(&tokens, invalid), Verdict::Invalid, "{invalid}");
        }
        assert_eq!(judge(&Tokens::default(), "Bearer "), Verdict::Invalid);
    }

    #[test]
    fn a_token_is_never_shown_by_accident() {
        let token = Token::new("hush").unwrap();
        assert!(!format!("{token:?} {:?}", Tokens::new([token.clone()])).contains("hush"));
        assert_eq!(token.reveal(), "hush");
    }

    #[test]
    fn generated_tokens_are_letters_and_digits_and_differ() {
        let (one, other) = (Token::generate().unwrap(), Token::generate().unwrap());
        assert_eq!(one.reveal().len(), 64);
        assert!(one.reveal().bytes().all(|c| c.is_ascii_alphanumeric()));
        assert_ne!(one.reveal(), other.reveal());
    }

    #[test]
    fn what_no_header_can_carry_is_no_token() {
        assert_eq!(Token::new("").unwrap_err(), TokenError::Empty);
        assert_eq!(Token::new("a b").unwrap_err(), TokenError::Characters);
        assert_eq!(Token::new("a\n").unwrap_err(), TokenError::Characters);
        assert_eq!(Token::new(&"a".repeat(1025)).unwrap_err(), TokenError::Long);
    }
}
