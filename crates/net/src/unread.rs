//! Answers that are not read: who asks and does not read loses the connection, and with it our
//! memory.
//!
//! The last piece of an answer is HTTP/2's to hold. A client that leaves it there holds one of its
//! few streams, and its connection ends when it has asked nothing for a while.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};
use tokio_util::sync::CancellationToken;

/// An answer is handed on in pieces of at most so many bytes: what HTTP/2 holds of a stream that is
/// not read is one piece.
const PIECE_BYTES: usize = 16 * 1024;
/// How often answers are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Answers under way at one port.
#[derive(Debug)]
pub(crate) struct Unread {
    started: Instant,
    open: Mutex<Vec<Weak<Progress>>>,
}

/// How far one answer was taken.
#[derive(Debug)]
struct Progress {
    /// Since when a piece of it waits to be taken, in milliseconds after the start of the port,
    /// plus one; zero while we owe the next.
    waits_since: AtomicU64,
    /// Ends its connection.
    connection: CancellationToken,
}

impl Unread {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), open: Mutex::default() })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// Never returns: ends the connection of an answer that made no progress for `patience`, and
    /// counts it.
    pub(crate) async fn watch(&self, patience: Duration, ended: &AtomicU64) {
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = self.now();
            crate::lock(&self.open).retain(|progress| {
                let Some(progress) = progress.upgrade() else {
                    return false;
                };
                let since = progress.waits_since.load(Ordering::Relaxed);
                if since > 0
                    && now.saturating_sub(since) > patience
                    && !progress.connection.is_cancelled()
                {
                    ended.fetch_add(1, Ordering::Relaxed);
                    progress.connection.cancel();
                }
                true
            });
        }
    }

    /// The same answer, watched; in pieces where HTTP/2 would hold the whole of it for who does not
    /// read. HTTP/1 has the socket's buffer for that.
    pub(crate) fn watched<B: Body>(
        self: &Arc<Self>,
        body: B,
        in_pieces: bool,
        connection: &CancellationToken,
        active: &Arc<Mutex<Option<tokio::time::Instant>>>,
    ) -> Watched<B> {
        let progress = (!body.is_end_stream()).then(|| {
            let progress = Arc::new(Progress {
                waits_since: AtomicU64::new(self.now()),
                connection: connection.clone(),
            });
            crate::lock(&self.open).push(Arc::downgrade(&progress));
            progress
        });
        let piece = if in_pieces { PIECE_BYTES } else { usize::MAX };
        Watched {
            body: Box::pin(body),
            piece,
            rest: Bytes::new(),
            progress,
            port: Arc::clone(self),
            active: Arc::clone(active),
        }
    }
}

/// An answer that notes how far it was taken.
pub(crate) struct Watched<B> {
    body: Pin<Box<B>>,
    piece: usize,
    /// What was made and not handed on.
    rest: Bytes,
    progress: Option<Arc<Progress>>,
    port: Arc<Unread>,
    /// When something last happened on the connection.
    active: Arc<Mutex<Option<tokio::time::Instant>>>,
}

impl<B: Body> Watched<B> {
    fn note(&self, waits: bool) {
        if let Some(progress) = &self.progress {
            progress.waits_since.store(if waits { self.port.now() } else { 0 }, Ordering::Relaxed);
        }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        *crate::lock(&self.active) = Some(tokio::time::Instant::now());
        let len = self.rest.len().min(self.piece);
        Frame::data(self.rest.split_to(len))
    }
}

impl<B: Body> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        // A poll for the next piece means that the one before was taken.
        self.note(false);
        let next = if self.rest.is_empty() {
            match self.body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(mut data) => {
                        self.rest = data.copy_to_bytes(data.remaining());
                        Poll::Ready(Some(Ok(self.piece())))
                    }
                    Err(frame) => match frame.into_trailers() {
                        Ok(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                        Err(_) => Poll::Ready(None),
                    },
                },
                Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        } else {
            Poll::Ready(Some(Ok(self.piece())))
        };
        if matches!(next, Poll::Ready(Some(_))) {
            self.note(true);
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}
