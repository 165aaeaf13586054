//! Requests that are known in advance, answered without HTTP.
//!
//! What a connection sends first is looked at: a whole request that is known is answered in one
//! write. Everything else is read once more, by HTTP.

use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::patient::Patient;

/// The answer to what a client sent, if that is a whole request which is known in advance; none for
/// what HTTP has to read. The number says how many requests were answered on that connection before.
pub type Shortcut = Arc<dyn Fn(&[u8], usize) -> Option<Reply> + Send + Sync>;

/// An answer that is known in advance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The client asks nothing more: the connection ends with this answer.
    pub is_last: bool,
}

/// How much a [`Shortcut`] sees: longer requests are for HTTP.
pub const SHORTCUT_BYTES_MAX: usize = 2048;

/// What a connection had sent when it was accepted.
#[derive(Debug)]
pub(crate) enum Seen {
    Nothing,
    /// A request that was answered at once.
    Answered,
    /// Something else.
    Other(Bytes),
    /// It ended.
    End,
}

/// Has the system acknowledge a request with its answer, on connections that a listener accepts. Not
/// for answers that take time to make, as in a handshake: the peer's kernel would count that time as
/// the network's.
pub(crate) fn acknowledge_with_answers(listener: &TcpListener) {
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(listener).set_tcp_quickack(false);
    #[cfg(not(target_os = "linux"))]
    let _ = listener;
}

impl Seen {
    /// Looks at a connection that was just accepted. Often the request is there by then: no task and
    /// no turn of the runtime stands between it and its answer.
    pub(crate) fn at(stream: &TcpStream, shortcut: &Shortcut) -> Self {
        let mut socket = &*SockRef::from(stream);
        let mut buffer = [0; SHORTCUT_BYTES_MAX];
        let read = match socket.read(&mut buffer) {
            Ok(0) => return Self::End,
            Ok(read) => &buffer[..read],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Self::Nothing,
            Err(_) => return Self::End,
        };
        match shortcut(read, 0) {
            // It has room: nothing was sent before.
            Some(Reply { bytes, is_last: false }) => match socket.write(&bytes) {
                Ok(sent) if sent == bytes.len() => Self::Answered,
                _ => Self::End,
            },
            Some(reply) => {
                let _ = send_last(stream, &reply.bytes);
                Self::End
            }
            None => Self::Other(Bytes::copy_from_slice(read)),
        }
    }
}

/// Answers a connection as long as it takes the shortcut; gives what is left for HTTP. All of it may
/// take as long as `patience`; where it takes longer, `idle` counts it.
pub(crate) async fn begin<I: AsyncRead + SendLast + Unpin>(
    mut stream: I,
    peer: SocketAddr,
    seen: Seen,
    shortcut: Option<&Shortcut>,
    patience: Duration,
    idle: &AtomicU64,
    stop: &CancellationToken,
) -> Option<Begun<I>> {
    let opened = Instant::now();
    let begun = |stream, read| Some(Begun { stream, read, opened });
    let (mut answered, shortcut) = match (seen, shortcut) {
        (Seen::End, _) => return None,
        (Seen::Other(read), _) => return begun(stream, read),
        (_, None) => return begun(stream, Bytes::new()),
        (Seen::Answered, Some(shortcut)) => (1, shortcut),
        (Seen::Nothing, Some(shortcut)) => (0, shortcut),
    };
    let until = opened + patience;
    loop {
        let reading = async {
            let read = read_some(&mut stream).await?;
            let Some(reply) = shortcut(&read, answered) else { return Ok(Next::Other(read)) };
            if reply.is_last {
                stream.send_last(&reply.bytes).await?;
                return Ok(Next::End);
            }
            stream.write_all(&reply.bytes).await?;
            stream.flush().await?;
            Ok::<_, io::Error>(Next::Answered)
        };
        let read = tokio::select! {
            read = timeout_at(until, reading) => read,
            () = stop.cancelled() => return None,
        };
        match read {
            Ok(Ok(Next::Answered)) => answered += 1,
            Ok(Ok(Next::Other(read))) if answered == 0 => return begun(stream, read),
            Ok(Ok(Next::Other(_) | Next::End)) => return None,
            Ok(Err(error)) => {
                debug!(%peer, %error, "a connection ended");
                return None;
            }
            Err(_) => {
                idle.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        }
    }
}

enum Next {
    Answered,
    Other(Bytes),
    End,
}

/// A stream that can send the last bytes before it is closed.
pub(crate) trait SendLast: AsyncWrite + Unpin {
    fn send_last(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send;
}

impl SendLast for Patient {
    async fn send_last(&mut self, bytes: &[u8]) -> io::Result<()> {
        send_last(self.stream(), bytes)
    }
}

impl SendLast for TlsStream<Patient> {
    async fn send_last(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes).await?;
        self.flush().await
    }
}

/// Sends bytes that travel together with the end of the connection, which has to be dropped then. So
/// few always have room.
fn send_last(stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    let flags = rustix::net::SendFlags::MORE;
    #[cfg(not(target_os = "linux"))]
    let flags = rustix::net::SendFlags::empty();
    rustix::net::send(stream, bytes, flags)?;
    Ok(())
}

/// What comes next; nothing at the end. A connection that waits holds no buffer.
async fn read_some<I: AsyncRead + Unpin>(stream: &mut I) -> io::Result<Bytes> {
    std::future::poll_fn(|cx| {
        let mut buffer = [MaybeUninit::uninit(); SHORTCUT_BYTES_MAX];
        let mut buffer = ReadBuf::uninit(&mut buffer);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    })
    .await
}

/// A connection of which something was read already, and is read once more.
#[derive(Debug)]
pub(crate) struct Begun<I> {
    stream: I,
    read: Bytes,
    opened: Instant,
}

impl<I> Begun<I> {
    /// When the connection was there.
    pub(crate) fn opened(&self) -> Instant {
        self.opened
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Begun<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let some = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..some]);
        self.read.advance(some);
        if self.read.is_empty() {
            // What is empty still holds what it was cut from.
            self.read = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Begun<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
