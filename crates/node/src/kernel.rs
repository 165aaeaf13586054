//! The kernel's own measurement of a connection, where it offers one.

use canary_core::KernelTiming;
use tokio::net::TcpStream;

/// Smoothed round-trip time, segments sent and segments sent again so far; none where the system
/// does not tell.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "TCP_INFO has no safe binding")]
pub(crate) fn timing(stream: &TcpStream) -> Option<KernelTiming> {
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into a buffer of that size; the descriptor is
    // open as long as `stream` is borrowed.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return None;
    }
    // SAFETY: the struct is plain integers, for which zeroes are valid; the kernel overwrote a
    // prefix.
    let info = unsafe { info.assume_init() };
    let rtt = Duration::from_micros(u64::from(info.tcpi_rtt));
    Some(KernelTiming {
        rtt,
        retransmissions: info.tcpi_total_retrans,
        segments: info.tcpi_segs_out,
    })
}

/// None where the system does not tell.
#[cfg(not(target_os = "linux"))]
pub(crate) fn timing(_stream: &TcpStream) -> Option<KernelTiming> {
    None
}
