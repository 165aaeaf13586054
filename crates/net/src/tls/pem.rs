//! PEM as it comes out of files, variables and vaults, and what is wrong with it in our own words:
//! a library's text may quote a key.

use std::borrow::Cow;

use rustls::pki_types::pem::Error;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// The same PEM with markers on lines of their own: variables and vaults often lose the ends of
/// lines, or write them as `\n`. A byte-order mark is left out.
pub(super) fn lines(bytes: &[u8]) -> Cow<'_, [u8]> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Cow::Borrowed(bytes);
    };
    let whole = |line: &str| {
        line.starts_with(DASHES) && line.ends_with(DASHES) && line.matches(DASHES).count() == 2
    };
    if text
        .lines()
        .map(str::trim)
        .filter(|line| line.contains(BEGIN) || line.contains(END))
        .all(whole)
    {
        return Cow::Borrowed(bytes);
    }
    let text = text.replace("\\r", "").replace("\\n", "\n");
    let mut repaired = String::with_capacity(text.len() + 64);
    let mut rest = text.as_str();
    while let Some((label, body, after)) = section(rest) {
        let body: String = body.split_whitespace().collect();
        repaired.extend([BEGIN, label, DASHES, "\n", &body, "\n", END, label, DASHES, "\n"]);
        rest = after;
    }
    Cow::Owned(repaired.into_bytes())
}

/// The first section of a text: its label, what is between its markers, and what follows it.
fn section(text: &str) -> Option<(&str, &str, &str)> {
    let (_, text) = text.split_once(BEGIN)?;
    let (label, text) = text.split_once(DASHES)?;
    let (body, text) = text.split_once(END)?;
    let (_, after) = text.split_once(DASHES)?;
    Some((label, body, after))
}

/// What is wrong with PEM. Nothing of its content is in the words.
pub(super) fn why(error: &Error, bytes: &[u8]) -> &'static str {
    let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    if has(b"ENCRYPTED") {
        return "the key is encrypted; write it without a passphrase (openssl pkey -in FILE -out FILE)";
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return "the file is UTF-16; write it as ASCII";
    }
    match error {
        Error::MissingSectionEnd { .. } => {
            "an END line is missing: the text is cut off, or its lines are gone"
        }
        Error::IllegalSectionStart { .. } => {
            "a BEGIN line is damaged; BEGIN and END stand on lines of their own"
        }
        Error::Base64Decode(_) => "the text between BEGIN and END is no base64",
        Error::NoItemsFound => "there is nothing of that kind in it",
        Error::SectionTooLarge => "a section is too long",
        _ => "the text cannot be read",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PEM: &str = "-----BEGIN PRIVATE KEY-----\nTUlH\nSEVM\n-----END PRIVATE KEY-----\n";

    fn repaired(text: &str) -> String {
        String::from_utf8(lines(text.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn pem_that_lost_its_lines_gets_them_back() {
        let body = |text: &str| text.split_whitespace().collect::<String>();
        for lost in [
            PEM.replace('\n', ""),
            PEM.replace('\n', " "),
            PEM.replace('\n', "\\n"),
            PEM.replace('\n', "\\r\\n"),
        ] {
            let text = repaired(&lost);
            assert_eq!(body(&text), body(PEM), "{lost}");
            assert!(
                text.starts_with("-----BEGIN PRIVATE KEY-----\n")
                    && text.ends_with("\n-----END PRIVATE KEY-----\n")
            );
        }
        assert_eq!(repaired(&format!("\u{feff}{PEM}")), PEM);
        assert_eq!(
            repaired(&format!("subject=x\r\n{}", PEM.replace('\n', "\r\n"))),
            format!("subject=x\r\n{}", PEM.replace('\n', "\r\n"))
        );
        assert_eq!(
            repaired("-----BEGIN PRIVATE KEY-----TUlH"),
            "",
            "what has no end stays unreadable"
        );
    }
}
