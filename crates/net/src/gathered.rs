//! Writes that belong together, sent as one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much may be held where packets are to be few: what is longer fills packets by itself.
pub const GATHERED_BYTES: usize = 4096;

/// A stream that holds short writes until they are flushed. If something was read since the last
/// flush, the tasks that are ready run once before it sends: HTTP/2 writes its settings, their
/// acknowledgement and an answer one after the other, and each would be a packet. Nobody waits for a
/// clock, and what follows no reading is sent at once.
///
/// A flush that waits for others says that it is done, and wakes its task when they have run. So
/// this is only for users that flush whenever they are woken, as HTTP does.
#[derive(Debug)]
pub struct Gathered<S> {
    stream: S,
    /// Longer writes are not held.
    most: usize,
    held: BytesMut,
    /// Something was read since the last flush.
    has_read: bool,
    /// Whether the others have run, where they are waited for.
    others_ran: Option<Arc<AtomicBool>>,
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Around a stream without a delay of its own (`TCP_NODELAY`). At most `most` bytes are held; with
    /// none all is sent as it is written.
    pub fn new(stream: S, most: usize) -> Self {
        Self { stream, most, held: BytesMut::new(), has_read: false, others_ran: None }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether so many more bytes are held; if not, nothing is held any more.
    fn poll_room(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<bool>> {
        if self.held.len() + bytes > self.most {
            ready!(self.poll_send(cx))?;
        }
        Poll::Ready(Ok(bytes <= self.most))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.has_read = true;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !ready!(self.poll_room(cx, buf.len()))? {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        }
        self.held.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = bufs.iter().map(|buf| buf.len()).sum();
        if !ready!(self.poll_room(cx, bytes))? {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        }
        bufs.iter().for_each(|buf| self.held.extend_from_slice(buf));
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let has_read = std::mem::take(&mut self.has_read);
        if !self.held.is_empty() {
            match &self.others_ran {
                Some(ran) if ran.load(Ordering::Relaxed) => {}
                Some(_) => return Poll::Ready(Ok(())),
                None if has_read => {
                    self.others_ran = Some(after_the_others(cx.waker().clone()));
                    return Poll::Ready(Ok(()));
                }
                None => {}
            }
            ready!(self.poll_send(cx))?;
        }
        self.others_ran = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Wakes a task once those that are ready have run; whether they have.
fn after_the_others(waker: Waker) -> Arc<AtomicBool> {
    let ran = Arc::<AtomicBool>::default();
    let told = Arc::clone(&ran);
    drop(tokio::spawn(async move {
        told.store(true, Ordering::Relaxed);
        waker.wake();
    }));
    ran
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Both ends of a connection; of the second each read is what was sent at once.
    fn ends() -> (Gathered<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(1 << 20);
        (Gathered::new(near, GATHERED_BYTES), far)
    }

    /// What has arrived by now.
    fn arrived(far: &mut tokio::io::DuplexStream) -> Vec<u8> {
        let mut buf = [0; 64];
        let mut read = ReadBuf::new(&mut buf);
        let mut cx = Context::from_waker(Waker::noop());
        let _ = Pin::new(far).poll_read(&mut cx, &mut read);
        read.filled().to_vec()
    }

    #[tokio::test]
    async fn what_answers_something_is_sent_together_once_the_others_have_run() {
        let (mut near, mut far) = ends();
        far.write_all(b"?").await.unwrap();
        near.read_exact(&mut [0]).await.unwrap();
        for part in ["settings ", "acknowledged ", "answer"] {
            near.write_all(part.as_bytes()).await.unwrap();
            near.flush().await.unwrap();
        }
        assert_eq!(arrived(&mut far), b"", "others have to run first");
        tokio::task::yield_now().await;
        near.flush().await.unwrap();
        assert_eq!(arrived(&mut far), b"settings acknowledged answer");
        near.write_all(b"one more").await.unwrap();
        near.flush().await.unwrap();
        assert_eq!(arrived(&mut far), b"one more", "nothing was read: nothing else is to come");
    }

    #[tokio::test]
    async fn long_writes_keep_their_place_and_a_shutdown_sends_what_is_held() {
        let (mut near, mut far) = ends();
        let long = vec![b'x'; GATHERED_BYTES + 1];
        for part in [&b"head "[..], &long, b" tail"] {
            near.write_all(part).await.unwrap();
        }
        near.shutdown().await.unwrap();
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [&b"head "[..], &long, b" tail"].concat());
    }
}
