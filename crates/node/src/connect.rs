//! Connecting to one of several addresses: attempts begin one after the other and go on side by
//! side (RFC 8305), so that a dead address hides no good one and a slow path is not given up for
//! being slow.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream};

/// How long an attempt goes on alone before the next address is tried as well: the recommended
/// Connection Attempt Delay (section 5).
const HEAD_START: Duration = Duration::from_millis(250);

type Attempt = Pin<Box<dyn Future<Output = io::Result<(TcpStream, Duration)>> + Send>>;

/// The first address that answers, with how long its own attempt took; the first failure if none
/// does. The caller bounds the time.
pub(crate) async fn connect_any(addresses: &[SocketAddr]) -> io::Result<(TcpStream, Duration)> {
    if let [address] = addresses {
        return connect(*address).await;
    }
    let mut waiting = by_turns(addresses).into_iter();
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut first_failure = None;
    loop {
        match waiting.next() {
            Some(address) => attempts.push(Box::pin(connect(address))),
            None if attempts.is_empty() => {
                return Err(first_failure.unwrap_or_else(|| io::ErrorKind::NotFound.into()));
            }
            None => {}
        }
        let ended = std::future::poll_fn(|cx| {
            let ended = attempts.iter_mut().enumerate().find_map(|(index, attempt)| match attempt
                .as_mut()
                .poll(cx)
            {
                Poll::Ready(result) => Some((index, result)),
                Poll::Pending => None,
            });
            ended.map_or(Poll::Pending, Poll::Ready)
        });
        let pause = if waiting.len() == 0 { Duration::MAX } else { HEAD_START };
        match tokio::time::timeout(pause, ended).await {
            Ok((_, Ok(connected))) => return Ok(connected),
            Ok((index, Err(error))) => {
                drop(attempts.swap_remove(index));
                first_failure.get_or_insert(error);
            }
            Err(_) => {}
        }
    }
}

/// The addresses with their families by turns (section 4), each family in its order.
fn by_turns(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut one, mut other): (Vec<_>, Vec<_>) =
        addresses.iter().rev().partition(|address| address.is_ipv6() == first_is_v6);
    let mut turns = Vec::with_capacity(addresses.len());
    while !one.is_empty() || !other.is_empty() {
        turns.extend(one.pop().into_iter().chain(other.pop()).copied());
    }
    turns
}

async fn connect(address: SocketAddr) -> io::Result<(TcpStream, Duration)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    speak_first(&socket);
    let begun = Instant::now();
    let stream = socket.connect(address).await.map_err(|error| told_apart(error, address))?;
    Ok((stream, begun.elapsed()))
}

/// We speak first: the last packet of the handshake may travel with what we say. Where the system
/// does not do that, it is one packet more.
fn speak_first(socket: &TcpSocket) {
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(socket).set_tcp_quickack(false);
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

/// "Cannot assign requested address" says two things: that no port is left, and that this host has
/// no address of the family. A socket that needs no port of ours tells them apart.
fn told_apart(error: io::Error, address: SocketAddr) -> io::Error {
    if error.raw_os_error() != Some(libc::EADDRNOTAVAIL) {
        return error;
    }
    let any: SocketAddr =
        if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let has_way = UdpSocket::bind(any).and_then(|socket| socket.connect(address)).is_ok();
    if has_way { error } else { io::Error::from_raw_os_error(libc::ENETUNREACH) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn closed() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn families_take_turns() {
        let addresses: Vec<SocketAddr> =
            ["[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "192.0.2.1:1", "192.0.2.2:1"]
                .iter()
                .map(|text| text.parse().unwrap())
                .collect();
        let turns: Vec<_> = by_turns(&addresses).iter().map(ToString::to_string).collect();
        assert_eq!(
            turns,
            ["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1", "192.0.2.2:1", "[2001:db8::3]:1"]
        );
    }

    #[tokio::test]
    async fn the_last_of_many_addresses_is_reached() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        let addresses: Vec<_> = (0..9).map(|_| closed()).chain([good]).collect();
        let (stream, _) = connect_any(&addresses).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert_eq!(
            connect_any(&addresses[..9]).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }

    #[tokio::test]
    async fn a_silent_address_hides_no_good_one_and_is_not_given_up() {
        // A listener whose queue is full drops what comes: its address is silent.
        let silent =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        silent.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        silent.listen(0).unwrap();
        let address = silent.local_addr().unwrap().as_socket().unwrap();
        let mut held = Vec::new();
        let is_silent = loop {
            let stream =
                tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await;
            match stream {
                Ok(stream) => held.push(stream.unwrap()),
                Err(_) => break true,
            }
            if held.len() > 8 {
                break false;
            }
        };
        assert!(is_silent, "this host's listeners have no bounded queue");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        let begun = Instant::now();
        let (stream, took) = connect_any(&[address, good]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert!(
            took < HEAD_START && begun.elapsed() >= HEAD_START,
            "only its own attempt is counted"
        );
        drop(held);
        // The silent one alone: it is still being tried when others have failed.
        let only =
            tokio::time::timeout(Duration::from_secs(1), connect_any(&[address, closed()])).await;
        assert!(only.is_err(), "the silent address was given up");
    }
}
