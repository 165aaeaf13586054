//! What the system's errors mean: the network's failures, and our own.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use canary_core::Failure;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What an error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The network or the other host.
    Network(Failure),
    /// This host: out of descriptors, memory or ports. Nothing is learned of the network.
    Ourselves,
}

/// Whose fault it is that a connection was not made. What this host says of a route without being
/// asked for one is the network's: filters and routing tables answer with many codes.
pub(crate) fn blame_connect(error: &io::Error) -> Blame {
    match blame(error) {
        Blame::Network(Failure::Protocol) => Blame::Network(Failure::Unreachable),
        blame => blame,
    }
}

/// Whose fault an error of a connection is.
pub(crate) fn blame(error: &io::Error) -> Blame {
    if let Some(code) = error.raw_os_error()
        && matches!(
            code,
            libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EADDRNOTAVAIL
                | libc::EAGAIN
        )
    {
        return Blame::Ourselves;
    }
    if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>) {
        return Blame::Network(Failure::Tls);
    }
    Blame::Network(match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown => Failure::Unreachable,
        // What a filter answers with "prohibited" arrives as a lack of permission.
        io::ErrorKind::PermissionDenied => Failure::Unreachable,
        io::ErrorKind::TimedOut => Failure::Timeout,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::NotConnected
        | io::ErrorKind::WriteZero => Failure::Reset,
        _ => match error.raw_os_error() {
            Some(libc::EHOSTDOWN | libc::ENONET | libc::EPROTO) => Failure::Unreachable,
            _ => Failure::Protocol,
        },
    })
}

/// The first failure of a connection. The libraries above it keep its words alone.
pub(crate) type Cause = Arc<OnceLock<Failure>>;

/// A connection that remembers its first failure: an alert of TLS 1.3 comes with the first answer,
/// where HTTP/2 reads it.
#[derive(Debug)]
pub(crate) struct Remembering<I> {
    inner: I,
    cause: Cause,
}

impl<I> Remembering<I> {
    pub(crate) fn new(inner: I) -> (Self, Cause) {
        let cause = Cause::default();
        (Self { inner, cause: Arc::clone(&cause) }, cause)
    }

    fn note<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result
            && let Blame::Network(failure) = blame(error)
        {
            let _ = self.cause.set(failure);
        }
        result
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Remembering<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.note(result)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Remembering<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.note(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::AlertDescription;

    #[test]
    fn every_error_of_connect_has_its_meaning() {
        const NETWORK: fn(Failure) -> Blame = Blame::Network;
        // connect(2), ip(7) and tcp(7), and what routes and filters make of it.
        let table = [
            (libc::ECONNREFUSED, NETWORK(Failure::Refused)),
            (libc::ETIMEDOUT, NETWORK(Failure::Timeout)),
            (libc::ECONNRESET, NETWORK(Failure::Reset)),
            (libc::ECONNABORTED, NETWORK(Failure::Reset)),
            (libc::EPIPE, NETWORK(Failure::Reset)),
            (libc::ENOTCONN, NETWORK(Failure::Reset)),
            (libc::EHOSTUNREACH, NETWORK(Failure::Unreachable)),
            (libc::ENETUNREACH, NETWORK(Failure::Unreachable)),
            (libc::ENETDOWN, NETWORK(Failure::Unreachable)),
            (libc::EHOSTDOWN, NETWORK(Failure::Unreachable)),
            (libc::ENONET, NETWORK(Failure::Unreachable)),
            (libc::EPROTO, NETWORK(Failure::Unreachable)),
            // iptables REJECT: admin-prohibited, net-prohibited, proto-unreachable.
            (libc::EACCES, NETWORK(Failure::Unreachable)),
            (libc::EPERM, NETWORK(Failure::Unreachable)),
            (libc::ENOPROTOOPT, NETWORK(Failure::Unreachable)),
            // A route of type blackhole.
            (libc::EINVAL, NETWORK(Failure::Unreachable)),
            (libc::EOPNOTSUPP, NETWORK(Failure::Unreachable)),
            // IPv6 is not compiled in, or switched off.
            (libc::EAFNOSUPPORT, NETWORK(Failure::Unreachable)),
            (libc::EPROTONOSUPPORT, NETWORK(Failure::Unreachable)),
            (libc::ENODEV, NETWORK(Failure::Unreachable)),
            (libc::EADDRINUSE, NETWORK(Failure::Unreachable)),
            (libc::EADDRNOTAVAIL, Blame::Ourselves),
            (libc::EAGAIN, Blame::Ourselves),
            (libc::EMFILE, Blame::Ourselves),
            (libc::ENFILE, Blame::Ourselves),
            (libc::ENOBUFS, Blame::Ourselves),
            (libc::ENOMEM, Blame::Ourselves),
        ];
        for (code, expected) in table {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!(blame_connect(&error), expected, "{error}");
        }
        // Whatever else there is: it is about the way there.
        for code in 1..134 {
            let blame = blame_connect(&io::Error::from_raw_os_error(code));
            assert!(
                blame != Blame::Network(Failure::Protocol),
                "{}",
                io::Error::from_raw_os_error(code)
            );
        }
    }

    #[test]
    fn every_alert_is_a_failure_of_tls() {
        for code in 0..=u8::MAX {
            let alert = rustls::Error::AlertReceived(AlertDescription::from(code));
            let error = io::Error::new(io::ErrorKind::InvalidData, alert);
            assert_eq!(blame(&error), Blame::Network(Failure::Tls));
            let (remembering, cause) = Remembering::new(());
            let _ = remembering.note::<()>(Poll::Ready(Err(error)));
            assert_eq!(cause.get(), Some(&Failure::Tls), "it is known after a library lost it");
        }
    }
}
