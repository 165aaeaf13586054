//! The connection to be measured on, with clocks beside its system calls.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use canary_core::{KernelTiming, Secured, Target};
use canary_net::Guard;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Ended;
use crate::connect::connect_any;
use crate::failure::{Blame, blame_connect};
use crate::kernel;
use crate::resolve::Resolver;
use crate::secure;

/// The target of a probe, and its addresses.
#[derive(Debug)]
pub(super) struct Whom<'a> {
    pub(super) target: &'a Target,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) resolve: Duration,
}

impl<'a> Whom<'a> {
    pub(super) async fn find(
        target: &'a Target,
        timeout: Duration,
        resolver: &Resolver,
    ) -> Result<Self, Ended> {
        let begun = Instant::now();
        let addresses = resolver.resolve(target, timeout).await?;
        let is_address = target.host().parse::<std::net::IpAddr>().is_ok();
        let resolve = if is_address { Duration::ZERO } else { begun.elapsed() };
        Ok(Self { target, addresses, resolve })
    }

    pub(super) async fn dial(&self, guard: &Guard) -> Result<Dialled, Ended> {
        let (stream, connect) =
            connect_any(&self.addresses).await.map_err(|error| match blame_connect(&error) {
                Blame::Network(failure) => Ended::Failed(failure, error.to_string()),
                Blame::Ourselves => Ended::Void(error.to_string()),
            })?;
        let stamps = Stamps { kernel: kernel::timing(&stream), ..Stamps::default() };
        let clock = Arc::new(Mutex::new(stamps));
        let stamped = Stamped { stream, waiting: BytesMut::new(), clock: Arc::clone(&clock) };
        // The set may be swapped at any time: one probe uses one set.
        let set = guard.tls.get();
        let begun = Instant::now();
        let stream = secure::secure(&set, self.target.host(), stamped).await?;
        let tls = set.client.is_some().then(|| begun.elapsed());
        let secured = secure::agreed(&stream);
        // The handshake's messages are not the request's.
        take_lap(&clock);
        Ok(Dialled { stream, clock, scheme: secure::scheme(&set), connect, tls, secured })
    }
}

/// A connection to be measured on.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) stream: secure::Channel<Stamped>,
    pub(super) clock: Arc<Mutex<Stamps>>,
    pub(super) scheme: &'static str,
    pub(super) connect: Duration,
    pub(super) tls: Option<Duration>,
    pub(super) secured: Option<Secured>,
}

/// When the request was sent and when the last of its answer was read.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    pub(super) sent: Option<Instant>,
    pub(super) received: Option<Instant>,
    pub(super) kernel: Option<KernelTiming>,
}

/// The time from the send to the last read, and a fresh start for the next request. None if nothing
/// was read after the send: what a peer sent before is no answer.
pub(super) fn take_lap(clock: &Mutex<Stamps>) -> Option<Duration> {
    let mut stamps = canary_net::lock(clock);
    let (sent, received) = (stamps.sent.take(), stamps.received.take());
    received?.checked_duration_since(sent?)
}

/// A socket that reads the clock beside its system calls, and sends what belongs together in one of
/// them.
#[derive(Debug)]
pub(super) struct Stamped {
    stream: TcpStream,
    /// Written, but not flushed yet.
    waiting: BytesMut,
    clock: Arc<Mutex<Stamps>>,
}

impl Stamped {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let before = Instant::now();
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(sent);
            canary_net::lock(&self.clock).sent.get_or_insert(before);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stamped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            let at = Instant::now();
            let kernel = kernel::timing(&self.stream);
            let mut stamps = canary_net::lock(&self.clock);
            stamps.received = Some(at);
            // Later on the round-trip time contains the other bot's time to answer.
            let rtt = stamps.kernel.map(|first| first.rtt).filter(|rtt| !rtt.is_zero());
            let kernel = kernel.map(|now| KernelTiming { rtt: rtt.unwrap_or(now.rtt), ..now });
            stamps.kernel = kernel.or(stamps.kernel);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.waiting.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
