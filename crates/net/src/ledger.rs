//! How much clients hold at once, in all and of one address: connections, calls, and bytes of
//! messages that are under way in or out.

use std::collections::HashMap;
use std::error::Error;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use ipnet::IpNet;

/// What clients hold, with a bound on all of it and on what one address holds.
#[derive(Debug)]
pub struct Ledger {
    all: usize,
    per_address: usize,
    proxies: Arc<[IpNet]>,
    held: Mutex<Sums>,
}

#[derive(Debug, Default)]
struct Sums {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// What is held together, such as the bytes of one message; given back when it is dropped.
#[derive(Debug)]
pub struct Charge {
    ledger: Arc<Ledger>,
    client: IpAddr,
    is_proxy: bool,
    amount: usize,
}

/// Which bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// That on all.
    All,
    /// That on one address.
    Address,
}

impl Ledger {
    /// So much in all, and so much of one address that is not one of `proxies`.
    pub fn new(all: usize, per_address: usize, proxies: Arc<[IpNet]>) -> Arc<Self> {
        Arc::new(Self { all, per_address, proxies, held: Mutex::default() })
    }

    /// A charge of `address` that holds nothing yet.
    pub fn open(self: &Arc<Self>, address: IpAddr) -> Charge {
        let is_proxy = self.proxies.iter().any(|proxy| proxy.contains(&address.to_canonical()));
        Charge { ledger: Arc::clone(self), client: client(address), is_proxy, amount: 0 }
    }

    /// A charge of one.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Result<Charge, Full> {
        let mut charge = self.open(address);
        charge.add(1)?;
        Ok(charge)
    }
}

impl Charge {
    /// Adds so much, if there is room; which bound is reached if there is none.
    pub fn add(&mut self, amount: usize) -> Result<(), Full> {
        let ledger = &self.ledger;
        let mut held = crate::lock(&ledger.held);
        let of_client = held.by_address.get(&self.client).copied().unwrap_or_default();
        if held.all + amount > ledger.all {
            return Err(Full::All);
        }
        if of_client + amount > ledger.per_address && !self.is_proxy {
            return Err(Full::Address);
        }
        held.all += amount;
        *held.by_address.entry(self.client).or_default() += amount;
        self.amount += amount;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut held = crate::lock(&self.ledger.held);
        held.all -= self.amount;
        if let Some(of_client) = held.by_address.get_mut(&self.client) {
            *of_client -= self.amount;
            if *of_client == 0 {
                held.by_address.remove(&self.client);
            }
        }
    }
}

/// Whom an address stands for: one IPv6 host has a whole network of 64 bits for itself, and an IPv4
/// client of an IPv6 socket is the same client.
pub(crate) fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        v4 => v4,
    }
}

/// Why a request's body was not taken whole.
#[derive(Debug, thiserror::Error)]
pub enum MeterError {
    /// It is longer than its method allows.
    #[error("the message is longer than {0} bytes")]
    Long(usize),
    /// Too many bytes are under way.
    #[error("too many bytes are under way; come again later")]
    NoRoom,
    /// The connection failed.
    #[error("the message was cut short")]
    Cut(#[source] Box<dyn Error + Send + Sync>),
}

/// Why a body was refused, for the code that answers the request: the reader of the body cannot
/// say.
#[derive(Clone, Debug, Default)]
pub struct Refused(Arc<OnceLock<Refusal>>);

/// Why a body was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is longer than its method allows.
    Long,
    /// Too many bytes are under way.
    NoRoom,
}

impl Refused {
    /// The reason; none if it was not refused.
    pub fn get(&self) -> Option<Refusal> {
        self.0.get().copied()
    }
}

/// A request's body that is charged as it comes.
#[derive(Debug)]
pub struct Metered<B> {
    body: B,
    most: usize,
    charge: Option<Arc<Mutex<Charge>>>,
    refused: Refused,
    come: usize,
}

impl<B> Metered<B> {
    /// Charges `body`, which may have at most so many bytes. What it was charged is held as long as
    /// `charge` is.
    pub fn new(body: B, most: usize, charge: Option<Arc<Mutex<Charge>>>, refused: Refused) -> Self {
        Self { body, most, charge, refused, come: 0 }
    }
}

impl<B> Body for Metered<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = MeterError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, MeterError>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(MeterError::Cut(error.into())))),
            None => return Poll::Ready(None),
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.come += bytes;
        if self.come > self.most {
            let _ = self.refused.0.set(Refusal::Long);
            return Poll::Ready(Some(Err(MeterError::Long(self.most))));
        }
        let charge = self.charge.as_ref().map(|charge| crate::lock(charge));
        let charged = charge.map_or(Ok(()), |mut charge| charge.add(bytes));
        Poll::Ready(Some(match charged {
            Ok(()) => Ok(frame),
            Err(_) => {
                let _ = self.refused.0.set(Refusal::NoRoom);
                Err(MeterError::NoRoom)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body that is charged until it is handed on.
#[derive(Debug)]
pub struct Held<B> {
    body: B,
    _charge: Option<Charge>,
}

impl<B> Held<B> {
    /// Keeps `charge` as long as `body` is there.
    pub fn new(body: B, charge: Option<Charge>) -> Self {
        Self { body, _charge: charge }
    }
}

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_are_bounded_in_all_and_of_one_address_and_are_given_back() {
        let ledger = Ledger::new(100, 60, Arc::from([IpNet::from(IpAddr::from([192, 0, 2, 9]))]));
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let (mut one, mut same, mut other) =
            (ledger.open(address(1)), ledger.open(address(1)), ledger.open(address(2)));
        assert_eq!((one.add(50), same.add(11), same.add(10)), (Ok(()), Err(Full::Address), Ok(())));
        assert_eq!((other.add(41), other.add(40)), (Err(Full::All), Ok(())));
        drop((one, same));
        let mut proxy = ledger.open(address(9));
        assert_eq!(
            (proxy.add(60), other.add(1)),
            (Ok(()), Err(Full::All)),
            "many share a proxy's address"
        );
        drop((proxy, other));
        assert_eq!(ledger.open(address(3)).add(60), Ok(()));
    }

    #[test]
    fn one_host_is_one_client_by_whatever_address_it_comes() {
        let same = |a: &str, b: &str| client(a.parse().unwrap()) == client(b.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(!same("::ffff:192.0.2.1", "::ffff:192.0.2.2"));
    }
}
