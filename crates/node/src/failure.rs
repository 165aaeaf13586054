//! What the system's errors mean: the network's failures, and our own.

use std::io;

use canary_core::Failure;

/// What an error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The network or the other host.
    Network(Failure),
    /// This host: out of descriptors, memory or ports. Nothing is learned of the network.
    Ourselves,
}

/// Whose fault an error of a socket is.
pub(crate) fn blame(error: &io::Error) -> Blame {
    if let Some(code) = error.raw_os_error()
        && matches!(code, libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL | libc::EAGAIN)
    {
        return Blame::Ourselves;
    }
    if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>) {
        return Blame::Network(Failure::Tls);
    }
    Blame::Network(match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => Failure::Unreachable,
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
