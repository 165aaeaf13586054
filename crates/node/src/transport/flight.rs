//! A probe as flights of bytes that both sides know in advance.
//!
//! What a prober sends is plain HTTP/2 (RFC 9113, HPACK without its tables: RFC 7541), which any
//! server answers. Its SETTINGS carry [`MARK`]: a client that sends it asks nothing else on the
//! connection, and knows the answer's bytes. SETTINGS go from hop to hop, so no proxy passes it on. A flight is
//! read by being written again: whatever deviates by a byte is none.
//!
//! A connection carries two, one after the other: the second is without preface and SETTINGS, and
//! finds the other host awake. `turn` counts them from zero.

use http::uri::Authority;

use super::PROBE_PATH;

/// A parameter from the range for experiments (RFC 7540 section 11.3), and its value: the version of
/// the flights.
const MARK: [u8; 6] = [0xf0, 0xcb, 0, 0, 0, 1];
/// No pushes (section 6.5.2).
const ENABLE_PUSH_OFF: [u8; 6] = [0, 2, 0, 0, 0, 0];
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types and flags of frames (section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const FRAME_HEAD: usize = 9;

/// Whole fields of HPACK's static table (RFC 7541 appendix A).
const METHOD_POST: u8 = 0x83;
const SCHEME_HTTP: u8 = 0x86;
const SCHEME_HTTPS: u8 = 0x87;
const STATUS_200: u8 = 0x88;
/// Names of that table before a value that no table takes in (section 6.2.2).
const AUTHORITY: &[u8] = &[0x01];
const PATH: &[u8] = &[0x04];
const CONTENT_TYPE: &[u8] = &[0x0f, 31 - 15];
/// The same for a value that no table may take in (section 6.2.3).
const AUTHORIZATION: &[u8] = &[0x1f, 23 - 15];
/// A name in letters.
const NAMED: u8 = 0;

const GRPC: &[u8] = b"application/grpc";
/// A gRPC message that is not compressed and has no bytes.
pub(crate) const EMPTY_MESSAGE: [u8; 5] = [0; 5];

/// Longest flight in bytes: longer ones are for HTTP/2.
const FLIGHT_BYTES_MAX: usize = canary_net::SHORTCUT_BYTES_MAX;
/// Room for most: names and tokens are short.
const FLIGHT_EXPECTED: usize = 320;

/// The turn after which nothing more is asked.
pub(crate) const LAST_TURN: usize = 1;

/// What a prober asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question<'a> {
    /// The connection is secured.
    pub(crate) https: bool,
    /// Host and port of the peer.
    pub(crate) authority: &'a str,
    /// The value of `Authorization`, where the mesh has a token.
    pub(crate) token: Option<&'a [u8]>,
}

impl<'a> Question<'a> {
    /// The flight; none if it would be too long, or there were too many.
    pub(crate) fn write(&self, turn: usize) -> Option<Vec<u8>> {
        let stream = stream(turn)?;
        let mut fields = vec![METHOD_POST, if self.https { SCHEME_HTTPS } else { SCHEME_HTTP }];
        field(&mut fields, PATH, PROBE_PATH.as_bytes());
        field(&mut fields, AUTHORITY, self.authority.as_bytes());
        field(&mut fields, CONTENT_TYPE, GRPC);
        named(&mut fields, b"te", b"trailers");
        if let Some(token) = self.token {
            field(&mut fields, AUTHORIZATION, token);
        }
        let mut flight = Vec::with_capacity(FLIGHT_EXPECTED);
        if turn == 0 {
            flight.extend(PREFACE);
            frame(&mut flight, SETTINGS, 0, 0, &[ENABLE_PUSH_OFF, MARK].concat());
        }
        frame(&mut flight, HEADERS, END_HEADERS, stream, &fields);
        frame(&mut flight, DATA, END_STREAM, stream, &EMPTY_MESSAGE);
        (flight.len() <= FLIGHT_BYTES_MAX).then_some(flight)
    }

    /// Reads a whole flight and nothing else.
    pub(crate) fn read(flight: &'a [u8], turn: usize) -> Option<Self> {
        let begin = if turn == 0 { PREFACE.len() + FRAME_HEAD + 12 } else { 0 };
        let (_, rest) = flight.split_at_checked(begin + FRAME_HEAD)?;
        let (https, rest) = match rest {
            [METHOD_POST, SCHEME_HTTP, rest @ ..] => (false, rest),
            [METHOD_POST, SCHEME_HTTPS, rest @ ..] => (true, rest),
            _ => return None,
        };
        let (_, rest) = value(rest, PATH)?;
        let (authority, rest) = value(rest, AUTHORITY)?;
        let (_, rest) = value(rest, CONTENT_TYPE)?;
        let (_, rest) = value(rest.get(NAMED_TE..)?, &[])?;
        let question = Self {
            https,
            authority: std::str::from_utf8(authority).ok()?,
            token: value(rest, AUTHORIZATION).map(|(token, _)| token),
        };
        let is_whole = question.write(turn)? == flight
            && question.authority.parse::<Authority>().is_ok()
            && question
                .token
                .is_none_or(|token| token.iter().all(|byte| matches!(byte, b' '..=b'~')));
        is_whole.then_some(question)
    }
}

/// Bytes of the name `te` before its value.
const NAMED_TE: usize = 4;

/// What was read of an answer so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer<'a> {
    /// The body as gRPC sends it: a prefix of five bytes and the message.
    Whole(&'a [u8]),
    /// There may be more to come.
    Part,
    /// It is another answer: HTTP/2 has to read it.
    Another,
}

/// Everything of an answer before the frame with its message.
fn answer_head(turn: usize) -> Option<Vec<u8>> {
    let stream = stream(turn)?;
    let mut head = Vec::with_capacity(FLIGHT_EXPECTED);
    if turn == 0 {
        frame(&mut head, SETTINGS, 0, 0, &MARK);
        frame(&mut head, SETTINGS, ACK, 0, &[]);
    }
    let mut fields = vec![STATUS_200];
    field(&mut fields, CONTENT_TYPE, GRPC);
    frame(&mut head, HEADERS, END_HEADERS, stream, &fields);
    Some(head)
}

/// The flight that answers a [`Question`] with this body; none if it would be too long, or there were
/// too many.
pub(crate) fn write_answer(body: &[u8], turn: usize) -> Option<Vec<u8>> {
    let mut flight = answer_head(turn)?;
    frame(&mut flight, DATA, 0, stream(turn)?, body);
    let mut trailers = Vec::new();
    named(&mut trailers, b"grpc-status", b"0");
    frame(&mut flight, HEADERS, END_HEADERS | END_STREAM, stream(turn)?, &trailers);
    (flight.len() <= FLIGHT_BYTES_MAX).then_some(flight)
}

/// Reads what has come of an answer.
pub(crate) fn read_answer(flight: &[u8], turn: usize) -> Answer<'_> {
    let Some(head) = answer_head(turn) else { return Answer::Another };
    let Some((begin, rest)) = flight.split_at_checked(head.len() + FRAME_HEAD) else {
        let known = flight.len().min(head.len());
        return if flight[..known] == head[..known] { Answer::Part } else { Answer::Another };
    };
    let length = &begin[head.len()..];
    let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
    if length > FLIGHT_BYTES_MAX || !begin.starts_with(&head) {
        return Answer::Another;
    }
    let Some(body) = rest.get(..length) else { return Answer::Part };
    match write_answer(body, turn) {
        Some(whole) if whole == flight => Answer::Whole(body),
        Some(whole) if whole.starts_with(flight) => Answer::Part,
        _ => Answer::Another,
    }
}

/// The stream of a request: those of clients have odd numbers (section 5.1.1).
fn stream(turn: usize) -> Option<u8> {
    (turn <= LAST_TURN).then_some(2 * turn as u8 + 1)
}

fn frame(flight: &mut Vec<u8>, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    flight.extend([length[1], length[2], length[3], kind, flags, 0, 0, 0, stream]);
    flight.extend(payload);
}

fn field(fields: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    fields.extend(name);
    text(fields, value);
}

fn named(fields: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    fields.push(NAMED);
    text(fields, name);
    text(fields, value);
}

/// A string as it is (RFC 7541 section 5.2): its length in a prefix of seven bits, and its bytes.
fn text(fields: &mut Vec<u8>, text: &[u8]) {
    match u8::try_from(text.len()) {
        Ok(length @ ..127) => fields.push(length),
        _ => {
            fields.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                fields.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            fields.push(rest as u8);
        }
    }
    fields.extend(text);
}

/// The string after a name, and what follows it.
fn value<'a>(fields: &'a [u8], name: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (&first, mut rest) = fields.strip_prefix(name)?.split_first()?;
    let mut length = usize::from(first);
    if length >= 127 {
        let mut shift = 0;
        loop {
            let (&byte, after) = rest.split_first()?;
            length += usize::from(byte & 127).checked_shl(shift)?;
            (rest, shift) = (after, shift + 7);
            if byte < 128 {
                break;
            }
            if shift > 14 {
                return None;
            }
        }
    }
    rest.split_at_checked(length)
}

/// Reads foreign bytes: what is taken is what would be written.
pub(crate) fn foreign(bytes: &[u8]) {
    for turn in 0..=LAST_TURN {
        if let Some(question) = Question::read(bytes, turn) {
            assert_eq!(question.write(turn).as_deref(), Some(bytes));
        }
        if let Answer::Whole(body) = read_answer(bytes, turn) {
            assert_eq!(write_answer(body, turn).as_deref(), Some(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::BytesMut;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const BODY: &[u8] = b"\0\0\0\0\x0bone message";

    fn questions() -> Vec<Question<'static>> {
        static LONG: [u8; 1031] = [b'x'; 1031];
        [None, Some(&b"Bearer short"[..]), Some(&LONG[..127]), Some(&LONG)]
            .into_iter()
            .flat_map(|token| {
                ["host.example:8081", "[2001:db8::1]:1"].map(|authority| Question {
                    https: token.is_some(),
                    authority,
                    token,
                })
            })
            .collect()
    }

    /// What differs from `flight` by one byte, at each place.
    fn flipped(flight: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        (0..flight.len()).flat_map(move |at| {
            [1, 0x20, 0x80, 0xff].map(|bits| {
                let mut other = flight.to_vec();
                other[at] ^= bits;
                other
            })
        })
    }

    #[test]
    fn what_is_written_is_read() {
        for turn in 0..=LAST_TURN {
            for question in questions() {
                assert_eq!(Question::read(&question.write(turn).unwrap(), turn), Some(question));
            }
            let answer = write_answer(BODY, turn).unwrap();
            assert_eq!(read_answer(&answer, turn), Answer::Whole(BODY));
        }
        assert_eq!(questions()[0].write(LAST_TURN + 1), None);
        assert_eq!(write_answer(BODY, LAST_TURN + 1), None);
    }

    /// The bytes on the wire, written by another hand: other releases send and read them.
    #[test]
    fn flights_stay_what_they_are() {
        macro_rules! corpus {
            ($name:literal) => {
                include_bytes!(concat!("../../../../fuzz/corpus/flight/", $name))
            };
        }
        let question = |token| Question { https: false, authority: "host.example:8081", token };
        assert_eq!(Question::read(corpus!("question"), 0), Some(question(None)));
        assert_eq!(
            Question::read(corpus!("question-with-token"), 0),
            Some(question(Some(b"Bearer secret")))
        );
        assert_eq!(Question::read(corpus!("second-question"), 1), Some(question(None)));
        for (answer, turn) in [(&corpus!("answer")[..], 0), (corpus!("second-answer"), 1)] {
            let Answer::Whole(body) = read_answer(answer, turn) else { unreachable!() };
            let (name, ..) = crate::transport::decode_probe_response(body).unwrap();
            assert_eq!(name.as_str(), "owl");
        }
    }

    #[test]
    fn a_question_that_is_cut_short_or_longer_or_flipped_is_none() {
        for (question, turn) in questions().into_iter().flat_map(|one| [(one, 0), (one, 1)]) {
            let flight = question.write(turn).unwrap();
            assert_eq!(Question::read(&flight, 1 - turn), None, "at another turn");
            for end in 0..flight.len() {
                assert_eq!(Question::read(&flight[..end], turn), None);
            }
            assert_eq!(Question::read(&[&flight[..], b"\0"].concat(), turn), None);
            for other in flipped(&flight) {
                // A flipped byte may make another scheme, another host, or another token.
                if let Some(read) = Question::read(&other, turn) {
                    assert_ne!(read, question);
                    assert_eq!(read.write(turn).unwrap(), other);
                    assert_eq!(read.authority.len(), question.authority.len());
                    assert_eq!(read.token.map(<[u8]>::len), question.token.map(<[u8]>::len));
                }
            }
        }
    }

    #[test]
    fn an_answer_that_is_cut_short_is_a_part_and_a_flipped_one_is_not_taken_for_it() {
        for turn in [0, 1] {
            let flight = write_answer(BODY, turn).unwrap();
            assert_eq!(read_answer(&flight, 1 - turn), Answer::Another, "at another turn");
            for end in 0..flight.len() {
                assert_eq!(read_answer(&flight[..end], turn), Answer::Part, "{end}");
            }
            assert_eq!(read_answer(&[&flight[..], b"\0"].concat(), turn), Answer::Another);
            let mut other_bodies = 0;
            for other in flipped(&flight) {
                match read_answer(&other, turn) {
                    // Of the message itself HTTP/2 knows nothing either.
                    Answer::Whole(body) => {
                        assert_eq!(write_answer(body, turn).unwrap(), other);
                        assert!(body.len() == BODY.len() && body != BODY);
                        other_bodies += 1;
                    }
                    // A longer length: more would have to come.
                    Answer::Part | Answer::Another => {}
                }
            }
            assert_eq!(other_bodies, 4 * BODY.len());
        }
    }

    #[test]
    fn what_is_too_long_is_not_written() {
        let authority = "x".repeat(FLIGHT_BYTES_MAX);
        assert_eq!(Question { https: false, authority: &authority, token: None }.write(0), None);
        assert_eq!(write_answer(&[0; FLIGHT_BYTES_MAX], 0), None);
    }

    /// A server that others wrote takes the question for what it is.
    #[tokio::test]
    async fn a_question_is_plain_http2() {
        for question in questions() {
            let (mut near, far) = tokio::io::duplex(1 << 16);
            near.write_all(&question.write(0).unwrap()).await.unwrap();
            near.write_all(&question.write(1).unwrap()).await.unwrap();
            let mut server = h2::server::handshake(far).await.unwrap();
            for _ in [0, 1] {
                let (request, mut respond) = server.accept().await.unwrap().unwrap();
                let (head, mut body) = request.into_parts();
                assert_eq!(head.method, http::Method::POST);
                assert_eq!(head.uri.path(), PROBE_PATH);
                assert_eq!(head.uri.authority().unwrap(), question.authority);
                assert_eq!(
                    head.uri.scheme_str(),
                    Some(if question.https { "https" } else { "http" })
                );
                assert_eq!(head.headers["content-type"], "application/grpc");
                assert_eq!(head.headers["te"], "trailers");
                assert_eq!(
                    head.headers.get("authorization").map(http::HeaderValue::as_bytes),
                    question.token
                );
                assert_eq!(body.data().await.unwrap().unwrap(), &EMPTY_MESSAGE[..]);
                assert!(body.data().await.is_none(), "the request ends with its message");
                respond.send_response(http::Response::new(()), true).unwrap();
            }
        }
    }

    /// A client that others wrote takes the answer for what it is.
    #[tokio::test]
    async fn an_answer_is_plain_http2() {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let (mut sender, connection) = h2::client::handshake(near).await.unwrap();
        let driving = tokio::spawn(connection);
        for turn in [0, 1] {
            sender = sender.ready().await.unwrap();
            let request = http::Request::post("http://host:1/").body(()).unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            // The request is on its way before it is answered.
            let mut asked = BytesMut::new();
            while !asked
                .windows(5)
                .any(|part| part == [END_HEADERS | END_STREAM, 0, 0, 0, stream(turn).unwrap()])
            {
                far.read_buf(&mut asked).await.unwrap();
            }
            far.write_all(&write_answer(BODY, turn).unwrap()).await.unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-type"], "application/grpc");
            let mut body = response.into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), BODY);
            let trailers = body.trailers().await.unwrap().unwrap();
            assert_eq!(trailers["grpc-status"], "0");
        }
        drop(sender);
        driving.abort();
    }
}
