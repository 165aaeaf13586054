//! Which address of this host others reach, found by asking the kernel for the route; nothing is
//! sent.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};

use canary_node::Seed;

/// The address from which this host reaches its targets, or else others in general; loopback if
/// there is no route to anybody.
pub(crate) fn address(targets: &[Seed]) -> IpAddr {
    let numeric =
        targets.iter().filter_map(|seed| Some(SocketAddr::new(host(seed).parse().ok()?, 9)));
    address_towards(numeric)
}

/// The same, with the names of targets resolved where nothing else tells. It may wait for a name
/// server.
pub(crate) fn address_by_names(targets: &[Seed]) -> IpAddr {
    let found = address(targets);
    if !found.is_loopback() {
        return found;
    }
    address_towards(
        targets.iter().flat_map(|seed| (host(seed), 9).to_socket_addrs().into_iter().flatten()),
    )
}

/// Whether a target is on this host, by a loopback address: then the mesh is meant to be there.
pub(crate) fn any_on_loopback(targets: &[Seed]) -> bool {
    targets.iter().any(|seed| {
        host(seed) == "localhost"
            || host(seed).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

fn host(seed: &Seed) -> &str {
    match seed {
        Seed::Fixed(target) | Seed::Dns(target) => target.host(),
    }
}

fn address_towards(targets: impl Iterator<Item = SocketAddr>) -> IpAddr {
    // Documentation addresses (RFC 5737, RFC 3849): no host has them, and they take the default
    // route.
    let anybody = [
        SocketAddr::from(([192, 0, 2, 1], 9)),
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9)),
    ];
    let found = targets
        .chain(anybody)
        .filter_map(source)
        .find(|address| !address.is_loopback() && !address.is_unspecified());
    found.unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

/// The address from which packets to this one are sent.
fn source(towards: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr =
        if towards.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(towards).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Whether an address is one of this host's.
pub(crate) fn is_here(address: IpAddr) -> bool {
    let bound = UdpSocket::bind((address, 0));
    address.is_unspecified()
        || !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}
