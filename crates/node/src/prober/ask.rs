//! Everybody else: two requests of HTTP/2.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use bytes::{BufMut, Bytes, BytesMut};
use canary_core::{Failure, Record, Timing};
use canary_net::{GATHERED_BYTES, Gathered, Guard};

use super::dial::{Dialled, Whom, take_lap};
use super::{Answer, Ended, Progress};
use crate::failure::{Cause, Remembering};
use crate::transport::flight::EMPTY_MESSAGE;
use crate::transport::{PROBE_PATH, decode_probe_response};
use crate::v1::RTT_PATH;

/// Largest answer to a probe: a name and two numbers.
const ANSWER_BYTES_MAX: usize = 4096;

/// Measures by two requests of HTTP/2.
pub(super) async fn ask(
    whom: &Whom<'_>,
    guest: Option<&Record>,
    guard: &Guard,
    progress: &mut Progress,
) -> Result<Answer, Ended> {
    let Dialled { stream, clock, scheme, connect, tls, secured } = whom.dial(guard).await?;
    let (stream, cause) = Remembering::new(Gathered::new(stream, GATHERED_BYTES));
    let (sender, mut connection) = h2::client::Builder::new()
        .max_header_list_size(16 * 1024)
        .max_concurrent_streams(1)
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|error| told(error.into(), &cause))?;
    let asking = Asking {
        uri: format!(
            "{scheme}://{}{}",
            whom.target,
            if guest.is_some() { RTT_PATH } else { PROBE_PATH }
        ),
        token: guard.tokens.get().header(),
    };
    let requests = async {
        let (answer, sender) = request(sender, &asking).await?;
        let Some(first_request) = take_lap(&clock) else {
            return Err(Ended::Failed(
                Failure::Protocol,
                "it answered before it was asked".to_owned(),
            ));
        };
        let (name, incarnation, instance) = match guest {
            // It says nothing of itself; who it is was found out when it was admitted.
            Some(guest) if answer == EMPTY_MESSAGE.as_slice() => {
                (guest.name.clone(), guest.incarnation, guest.instance)
            }
            Some(_) => {
                return Err(Ended::Failed(
                    Failure::Protocol,
                    "the answer to a probe of a guest is not empty".to_owned(),
                ));
            }
            None => decode_probe_response(&answer)
                .map_err(|why| Ended::Failed(Failure::Protocol, why))?,
        };
        // The first answer is what proves the pair. If the second fails, its figure is absent.
        let resolve = whom.resolve;
        let timing = Timing { resolve, connect, tls, first_request, request: None, kernel: None };
        let first = Answer { name, incarnation, instance, timing, secured };
        *progress = Progress::Answered(first.clone());
        let request = request(sender, &asking).await.ok().and_then(|_| take_lap(&clock));
        Ok::<_, Ended>(Answer { timing: Timing { request, ..timing }, ..first })
    };
    let mut requests = std::pin::pin!(requests);
    // One task drives both: a hop to another one would be measured.
    let mut answer = std::future::poll_fn(|cx| {
        if let Poll::Ready(answer) = requests.as_mut().poll(cx) {
            return Poll::Ready(answer);
        }
        match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(ended) => match requests.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(answer),
                Poll::Pending => Poll::Ready(Err(match ended {
                    Err(error) => error.into(),
                    Ok(()) => Ended::Failed(
                        Failure::Reset,
                        "the connection was closed before the answer".to_owned(),
                    ),
                })),
            },
            Poll::Pending => requests.as_mut().poll(cx),
        }
    })
    .await
    .map_err(|ended| told(ended, &cause))?;
    answer.timing.kernel = canary_net::lock(&clock).kernel;
    Ok(answer)
}

/// The failure that came first on the connection. The error of HTTP/2 describes only what followed
/// from it.
fn told(ended: Ended, cause: &Cause) -> Ended {
    match (ended, cause.get()) {
        (Ended::Failed(Failure::Protocol | Failure::Reset, detail), Some(failure)) => {
            Ended::Failed(*failure, detail)
        }
        (ended, _) => ended,
    }
}

/// What both requests of a probe say.
struct Asking {
    uri: String,
    /// What admits us, where the mesh has a token.
    token: Option<http::HeaderValue>,
}

/// Sends one request and reads its whole answer.
async fn request(
    sender: h2::client::SendRequest<Bytes>,
    asking: &Asking,
) -> Result<(Bytes, h2::client::SendRequest<Bytes>), Ended> {
    let mut sender = sender.ready().await?;
    let mut request = http::Request::post(&asking.uri)
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(())
        .map_err(|error| Ended::Failed(Failure::Protocol, error.to_string()))?;
    if let Some(token) = &asking.token {
        request.headers_mut().insert(http::header::AUTHORIZATION, token.clone());
    }
    let (response, mut body) = sender.send_request(request, false)?;
    body.send_data(Bytes::from_static(&EMPTY_MESSAGE), true)?;
    let response = response.await?;
    let status = response.status();
    if !status.is_success() {
        let failure =
            if matches!(status.as_u16(), 401 | 403) { Failure::Auth } else { Failure::Protocol };
        return Err(Ended::Failed(failure, format!("it answered with HTTP status {status}")));
    }
    let early = grpc_status(response.headers());
    let mut incoming = response.into_body();
    let mut answer = BytesMut::new();
    while let Some(chunk) = incoming.data().await {
        let chunk = chunk?;
        incoming.flow_control().release_capacity(chunk.len())?;
        if answer.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Ended::Failed(Failure::Protocol, "the answer is too long".to_owned()));
        }
        answer.put(chunk);
    }
    let trailers = incoming.trailers().await?;
    match early.or_else(|| trailers.as_ref().and_then(grpc_status)).unwrap_or(0) {
        0 => Ok((answer.freeze(), sender)),
        status @ (7 | 16) => {
            Err(Ended::Failed(Failure::Auth, format!("it answered with gRPC status {status}")))
        }
        status => {
            Err(Ended::Failed(Failure::Protocol, format!("it answered with gRPC status {status}")))
        }
    }
}

fn grpc_status(headers: &http::HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
