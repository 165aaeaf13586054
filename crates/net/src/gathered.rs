//! Writes that belong together, sent as one.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
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
/// this is only for users that flush whenever they are woken, as HTTP does once it has read the
/// first bytes. Little is gained on a runtime of many threads: there the others may run elsewhere.
#[derive(Debug)]
pub struct Gathered<S> {
    stream: S,
    /// Longer writes are not held.
    most: usize,
    held: BytesMut,
    /// Something was read since the last flush.
    has_read: bool,
    /// Where the others are waited for.
    others: Option<Arc<Others>>,
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Around a stream without a delay of its own (`TCP_NODELAY`). At most `most` bytes are held; with
    /// none all is sent as it is written.
    pub fn new(stream: S, most: usize) -> Self {
        Self { stream, most, held: BytesMut::new(), has_read: false, others: None }
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
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.has_read = true;
        if read.is_err() || buf.filled().len() == before {
            // At its end a connection may be dropped without another flush.
            if let Poll::Ready(Ok(())) = self.poll_send(cx) {
                let _ = Pin::new(&mut self.stream).poll_flush(cx);
            }
        }
        Poll::Ready(read)
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
            match &self.others {
                Some(others) if others.have_run.load(Ordering::Acquire) => {}
                Some(others) => {
                    crate::lock(&others.waker).clone_from(cx.waker());
                    return Poll::Ready(Ok(()));
                }
                None if has_read => {
                    self.others = Some(Others::wait(cx.waker().clone()));
                    return Poll::Ready(Ok(()));
                }
                None => {}
            }
            ready!(self.poll_send(cx))?;
        }
        self.others = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The tasks that were ready when something was held.
#[derive(Debug)]
struct Others {
    have_run: AtomicBool,
    /// Of the task that flushed last.
    waker: Mutex<Waker>,
}

impl Others {
    /// Wakes a task once they have run: a new task is the last in the queue.
    fn wait(waker: Waker) -> Arc<Self> {
        let others = Arc::new(Self { have_run: AtomicBool::new(false), waker: Mutex::new(waker) });
        let told = Arc::clone(&others);
        drop(tokio::spawn(async move {
            told.have_run.store(true, Ordering::Release);
            crate::lock(&told.waker).wake_by_ref();
        }));
        others
    }
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
    async fn a_task_that_flushes_only_when_it_is_woken_sends_all() {
        let (mut near, mut far) = ends();
        far.write_all(b"?").await.unwrap();
        let answering = tokio::spawn(async move {
            near.read_exact(&mut [0]).await.unwrap();
            near.write_all(b"answer").await.unwrap();
            let mut buf = [0; 1];
            std::future::poll_fn(move |cx| {
                let _ = Pin::new(&mut near).poll_flush(cx);
                Pin::new(&mut near).poll_read(cx, &mut ReadBuf::new(&mut buf))
            })
            .await
        });
        let mut buf = [0; 6];
        far.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"answer");
        drop(far);
        answering.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_is_held_is_sent_when_the_other_side_ends() {
        let (mut near, mut far) = ends();
        far.write_all(b"?").await.unwrap();
        near.read_exact(&mut [0]).await.unwrap();
        near.write_all(b"answer").await.unwrap();
        near.flush().await.unwrap();
        far.shutdown().await.unwrap();
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
        drop(near);
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"answer");
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
