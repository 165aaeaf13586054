//! A bot of ours: two flights each way. The first wakes the other host, which may take longer than
//! the network does.

use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use canary_core::{Incarnation, Instance, NodeName, Timing};
use canary_net::Guard;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};

use super::dial::{Dialled, Whom, take_lap};
use super::{Answer, Ended, Progress};
use crate::transport::decode_probe_response;
use crate::transport::flight::{self, Question};

/// Room for the answer to a flight: some 150 bytes and a name.
const ANSWER_EXPECTED: usize = 256;

/// Who answered, and how long that took.
type Lap = ((NodeName, Incarnation, Instance), Duration);

/// Measures by flights; none if something else came than what is known in advance.
pub(super) async fn fly(
    whom: &Whom<'_>,
    guard: &Guard,
    progress: &mut Progress,
) -> Result<Option<Answer>, Ended> {
    let token = guard.tokens.get().header();
    let mut dialled = whom.dial(guard).await?;
    let authority = whom.target.to_string();
    let question = Question {
        https: dialled.tls.is_some(),
        authority: &authority,
        token: token.as_ref().map(http::HeaderValue::as_bytes),
    };
    *progress = Progress::Flying;
    if has_spoken(&mut dialled).await? {
        return Ok(None);
    }
    let Some(((name, incarnation, instance), first_request)) =
        exchange(&mut dialled, &question, 0).await?
    else {
        return Ok(None);
    };
    let timing = Timing {
        resolve: whom.resolve,
        connect: dialled.connect,
        tls: dialled.tls,
        first_request,
        request: None,
        kernel: None,
    };
    let mut answer = Answer { name, incarnation, instance, timing, secured: dialled.secured };
    // The first answer is what proves the pair. If the second fails, its figure is absent.
    *progress = Progress::Answered(answer.clone());
    let second = exchange(&mut dialled, &question, flight::LAST_TURN).await;
    answer.timing.request = second.ok().flatten().map(|(_, took)| took);
    answer.timing.kernel = canary_net::lock(&dialled.clock).kernel;
    Ok(Some(answer))
}

/// Asks once and reads the answer; none if it is another than what is known in advance.
async fn exchange(
    dialled: &mut Dialled,
    question: &Question<'_>,
    turn: usize,
) -> io::Result<Option<Lap>> {
    let Some(question) = question.write(turn) else {
        return Ok(None);
    };
    // What came for TLS after its handshake is no answer.
    take_lap(&dialled.clock);
    dialled.stream.write_all(&question).await?;
    dialled.stream.flush().await?;
    let mut read = Vec::with_capacity(ANSWER_EXPECTED);
    loop {
        match dialled.stream.read_buf(&mut read).await {
            Ok(1..) => {}
            Ok(0) if read.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if read.is_empty() => return Err(error),
            // It said something: why it ended is for HTTP/2 to find out.
            Ok(0) | Err(_) => return Ok(None),
        }
        match flight::read_answer(&read, turn) {
            flight::Answer::Part => {}
            flight::Answer::Another => return Ok(None),
            flight::Answer::Whole(body) => {
                return Ok(decode_probe_response(body).ok().zip(take_lap(&dialled.clock)));
            }
        }
    }
}

/// Whether something came that was not asked for.
async fn has_spoken(dialled: &mut Dialled) -> io::Result<bool> {
    std::future::poll_fn(|cx| {
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        Poll::Ready(match Pin::new(&mut dialled.stream).poll_read(cx, &mut byte) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) if byte.filled().is_empty() => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Poll::Ready(Ok(())) => Ok(true),
        })
    })
    .await
}
