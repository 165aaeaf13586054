//! Tokens, given or in a file.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;

use canary_net::Token;

/// Tokens in force at once. More is a mistake, and every one is compared with every request.
const TOKENS_MAX: usize = 64;
/// Largest token file in bytes.
const TOKEN_FILE_BYTES_MAX: u64 = 128 * 1024;

/// Where tokens come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenSource {
    pub(crate) given: Vec<Token>,
    pub(crate) file: Option<PathBuf>,
    /// They are presented to a server of others, whose tokens may be longer, or `USER:PASSWORD`.
    pub(crate) foreign: bool,
}

impl TokenSource {
    /// All tokens that are to be in force now; the reason, with the file's name, if they do not
    /// work.
    pub(crate) fn load(&self) -> Result<Vec<Token>, String> {
        let mut tokens = self.given.clone();
        if let Some(path) = &self.file {
            // What cannot be opened may be a token that was meant as a value; what begins with a
            // slash is a path.
            let (named, advice) = if path.is_absolute() {
                (path.display().to_string(), "")
            } else {
                ("the file of tokens".to_owned(), "; write a path, not the token")
            };
            let text = self
                .contents()
                .map_err(|error| format!("{named} cannot be read: {error}{advice}"))?;
            let fail = |why: String| format!("{}: {why}", path.display());
            if text.len() as u64 > TOKEN_FILE_BYTES_MAX {
                return Err(fail(format!("the file has more than {TOKEN_FILE_BYTES_MAX} bytes")));
            }
            let lines: Vec<_> =
                text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            if lines.is_empty() {
                return Err(fail("the file has no token; write one a line".to_owned()));
            }
            for line in lines {
                let token = if self.foreign { Token::of_another(line) } else { Token::new(line) };
                tokens.push(token.map_err(|error| fail(error.to_string()))?);
            }
        }
        if tokens.len() > TOKENS_MAX {
            return Err(format!(
                "there are {} tokens; at most {TOKENS_MAX} are allowed",
                tokens.len()
            ));
        }
        Ok(tokens)
    }

    /// The text of the file, a little of what is too long; nothing without a file.
    fn contents(&self) -> std::io::Result<String> {
        let Some(path) = &self.file else {
            return Ok(String::new());
        };
        let bytes = canary_net::files::read(path, TOKEN_FILE_BYTES_MAX)?;
        // The library's words would be about bytes of the secret.
        String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is no UTF-8 text"))
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.contents().map_err(|error| error.to_string()).hash(&mut hasher);
        hasher.finish()
    }
}
