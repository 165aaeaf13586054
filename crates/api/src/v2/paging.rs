//! Lists in pages: a page ends after `limit` entries, and a token says where the next one begins.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::{Deserialize, Deserializer, de};

use super::Problem;

/// Entries of a page at most.
pub(crate) const LIMIT_MAX: usize = 10_000;
/// Entries of a page if the request does not say.
pub(crate) const LIMIT_DEFAULT: usize = 1_000;
/// The longest token: two names and what separates them.
const TOKEN_BYTES_MAX: usize = 2_048;

/// How many entries a page has, from 1 to [`LIMIT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) usize);

impl Default for Limit {
    fn default() -> Self {
        Self(LIMIT_DEFAULT)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let limit = usize::deserialize(deserializer)?;
        if (1..=LIMIT_MAX).contains(&limit) {
            Ok(Self(limit))
        } else {
            Err(de::Error::custom(format!("limit must be from 1 to {LIMIT_MAX}")))
        }
    }
}

/// The key of the last entry of a page as an opaque token: the next page begins after it, whatever
/// came or went since.
pub(crate) fn token_after(key: &[&str]) -> String {
    URL_SAFE_NO_PAD.encode(key.join("\0"))
}

/// The key that a token stands for, of so many parts.
pub(crate) fn key_of<const PARTS: usize>(
    token: Option<&str>,
) -> Result<Option<[String; PARTS]>, Problem> {
    let Some(token) = token else { return Ok(None) };
    let read = || {
        let bytes = URL_SAFE_NO_PAD
            .decode(Some(token).filter(|token| token.len() <= TOKEN_BYTES_MAX)?)
            .ok()?;
        let parts: Vec<_> = String::from_utf8(bytes).ok()?.split('\0').map(str::to_owned).collect();
        parts.try_into().ok()
    };
    let refused = || {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "page_token is none that this path gave; leave it out to begin again",
        )
    };
    read().map(Some).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_is_the_key_it_was_made_of() {
        let token = token_after(&["owl", "duck é"]);
        assert_eq!(
            key_of::<2>(Some(&token)).unwrap(),
            Some(["owl".to_owned(), "duck é".to_owned()])
        );
        assert_eq!(key_of::<2>(None).unwrap(), None);
        for token in ["", "!", "b3ds", &"A".repeat(4_000)] {
            assert!(key_of::<2>(Some(token)).is_err(), "{token}");
        }
    }
}
