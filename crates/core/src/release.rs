//! Which release a node runs: what travels with its row.

use std::fmt;

use crate::limits::RELEASE_BYTES_MAX;

/// The version of the software of a node, such as `1.4.0-rc.2`: 1 to [`RELEASE_BYTES_MAX`] letters,
/// digits, dots, hyphens and plus signs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release(Box<str>);

impl Release {
    /// None if it is not spelled as a version is.
    pub fn new(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-+".contains(&byte);
        let fits = (1..=RELEASE_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain);
        fits.then(|| Self(text.into()))
    }

    /// As it is spelled.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn unpack(bytes: &[u8]) -> Option<Self> {
        Self::new(std::str::from_utf8(bytes).ok()?)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
