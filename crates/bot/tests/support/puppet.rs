//! A stranger that speaks the mesh's protocol without any of our code: it says what a test
//! wants, true or not.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

/// Protobuf by hand.
#[derive(Clone, Debug, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    pub fn raw_varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    pub fn varint(self, field: u64, value: u64) -> Self {
        self.raw_varint(field << 3).raw_varint(value)
    }

    pub fn fixed(self, field: u64, value: u64) -> Self {
        let mut message = self.raw_varint(field << 3 | 1);
        message.0.extend(value.to_le_bytes());
        message
    }

    pub fn bytes(self, field: u64, value: &[u8]) -> Self {
        let mut message = self.raw_varint(field << 3 | 2).raw_varint(value.len() as u64);
        message.0.extend(value);
        message
    }

    pub fn message(self, field: u64, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }
}

/// A node as it would describe itself.
pub fn node(name: &str, target: &str, incarnation: u64, instance: u64) -> Message {
    Message::default()
        .bytes(1, name.as_bytes())
        .bytes(2, target.as_bytes())
        .varint(4, incarnation)
        .fixed(5, instance)
}

/// A member with its heartbeat, as gossip tells of it.
pub fn heard(node: &Message, heartbeat: u64, age_ms: u64) -> Message {
    Message::default().message(1, node).varint(2, heartbeat).varint(3, age_ms)
}

/// The bytes of one entry of a digest.
pub fn entry(instance: u64, version: u64, heartbeat: u64, age: u64) -> Vec<u8> {
    let rest = Message::default().raw_varint(version).raw_varint(heartbeat).raw_varint(age << 1);
    [&instance.to_le_bytes()[..], &rest.0].concat()
}

/// The fingerprint of a roster: FNV-1a in 128 bits over the names, each followed by 0xff.
pub fn fingerprint(names: &[String]) -> u128 {
    let bytes = names.iter().flat_map(|name| name.bytes().chain([0xff]));
    bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// The bytes of a roster of these names, which are sorted.
pub fn packed_roster(names: &[String]) -> Vec<u8> {
    let mut message = Message::default().raw_varint(names.len() as u64);
    for name in names {
        message = message.raw_varint(name.len() as u64);
        message.0.extend(name.bytes());
    }
    message.0
}

/// A frame of these packed cells.
pub fn frame(version: u64, roster: &[u8], unix_ms: u64, cells: &[u8]) -> Message {
    let section = Message::default().varint(1, 5).bytes(2, cells);
    Message::default().varint(1, version).bytes(2, roster).varint(3, unix_ms).message(5, &section)
}

fn packed_runs(runs: &[(u8, usize)]) -> Vec<u8> {
    let run = |packed: Message, (tag, count): &(u8, usize)| {
        packed.raw_varint(u64::from(*tag)).raw_varint(*count as u64)
    };
    runs.iter().fold(Message::default().raw_varint(runs.len() as u64), run).0
}

/// Packed cells of which nothing is known.
pub fn unknown(cells: usize) -> Vec<u8> {
    [packed_runs(&[(0, cells)]), vec![0; 14]].concat()
}

/// Packed cells that were refused just now.
pub fn refused(cells: usize) -> Vec<u8> {
    let head =
        [packed_runs(&[(3, cells)]), vec![0, 0, 8, 0, 8, 0, 8, 0, 0, 0, 0, 0, 0, 0]].concat();
    [head, vec![0; 3 * cells]].concat()
}

/// Gossip of whole rows of these puppets over a roster: a success of half a millisecond or so, a
/// second old, for everybody but itself; another latency in every version.
pub fn rows_of(puppets: &[Puppet], names: &[String], version: u64, unix_ms: u64) -> Message {
    let roster = fingerprint(names).to_le_bytes();
    let row = |puppet: &Puppet| {
        let own = names.iter().take_while(|name| **name != puppet.name).count();
        let runs = [(1, own), (0, 1), (1, names.len().saturating_sub(own + 1))];
        let runs: Vec<_> = runs.into_iter().filter(|(_, count)| *count > 0).collect();
        let mut cells = packed_runs(&runs);
        // All bits of each figure as they are: none skipped, age, loss, retransmissions, total,
        // total minus request, jitter.
        cells.extend([0, 0, 8, 0, 8, 0, 8, 0, 16, 0, 16, 0, 8, 0]);
        for _ in 1..names.len() {
            cells.extend([8, 0, 0, version as u8, 0x1e, 0x80, 0, 90]);
        }
        Message::default()
            .fixed(1, puppet.instance)
            .message(2, &frame(version, &roster, unix_ms, &cells))
    };
    puppets.iter().fold(Message::default(), |gossip, puppet| gossip.message(6, &row(puppet)))
}

/// Calls a method with these bytes as its message, and returns the status and the answer's bytes.
pub fn call(address: SocketAddr, method: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(8)))?;
    stream.set_write_timeout(Some(Duration::from_secs(8)))?;
    let head = format!(
        "POST /mesh.v2.MeshService/{method} HTTP/1.1\r\nHost: bot\r\nContent-Type: application/proto\r\nConnect-Protocol-Version: 1\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    // Who refuses a body may close before it has come whole.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(end) = end else {
        return Err(read.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()));
    };
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    let body = &answer[end + 4..];
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { unchunk(body) } else { body.to_vec() }))
}

/// The content of a chunked body (RFC 9112 section 7.1).
fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&body[..end])
            .ok()
            .and_then(|size| usize::from_str_radix(size, 16).ok())
            .unwrap_or_default();
        let Some(chunk) = body.get(end + 2..end + 2 + size).filter(|_| size > 0) else { break };
        whole.extend(chunk);
        body = body.get(end + 4 + size..).unwrap_or_default();
    }
    whole
}

/// Answers at an address as the node that it claims to be.
pub struct Puppet {
    pub name: String,
    pub target: SocketAddr,
    pub incarnation: u64,
    pub instance: u64,
    /// Connections that came.
    pub dials: Arc<AtomicU64>,
}

impl Puppet {
    pub fn start(name: &str, address: IpAddr, incarnation: u64) -> Self {
        let listener = std::net::TcpListener::bind((address, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let target = listener.local_addr().unwrap();
        let instance = fastrand::Rng::with_seed(
            u64::from(target.port()) << 32 | u64::from(std::process::id()),
        )
        .u64(1..);
        let dials = Arc::new(AtomicU64::new(0));
        let me = node(name, &target.to_string(), incarnation, instance);
        let probe =
            Message::default().bytes(1, name.as_bytes()).varint(2, incarnation).fixed(3, instance);
        let counted = Arc::clone(&dials);
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    counted.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(answer(stream, me.clone(), probe.clone()));
                }
            });
        });
        Self { name: name.to_owned(), target, incarnation, instance, dials }
    }

    pub fn node(&self) -> Message {
        node(&self.name, &self.target.to_string(), self.incarnation, self.instance)
    }

    /// Asks to be admitted; the result's number.
    pub fn join(&self, bot: SocketAddr) -> Option<u8> {
        let (status, answer) =
            call(bot, "Join", &Message::default().message(1, &self.node()).0).ok()?;
        (status == 200 && answer.first() == Some(&8)).then(|| answer[1])
    }

    /// Sends gossip with these fields beside the speaker's.
    pub fn gossip(&self, bot: SocketAddr, more: &Message) -> io::Result<(u16, Vec<u8>)> {
        let mut gossip = Message::default().fixed(1, self.instance);
        gossip.0.extend(&more.0);
        call(bot, "Exchange", &Message::default().message(1, &gossip).0)
    }
}

async fn answer(stream: tokio::net::TcpStream, me: Message, probe: Message) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let body = match request.uri().path().rsplit('/').next() {
            Some("Probe") => probe.0.clone(),
            Some("Identify") => me.0.clone(),
            Some("Exchange") => Message::default().message(1, &Message::default()).0,
            _ => Message::default().varint(1, 3).0,
        };
        let head =
            http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let framed = [&[0][..], &u32::try_from(body.len()).unwrap().to_be_bytes(), &body].concat();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        if let Ok(mut send) = respond.send_response(head, false) {
            let _ = send.send_data(Bytes::from(framed), false);
            let _ = send.send_trailers(trailers);
        }
    }
}
