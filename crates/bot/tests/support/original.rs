//! A bot of the original, played by the facts about its wire and without any of our code: it says
//! what the original says when the original says it, dies of what the original dies of, and refuses
//! what the original refuses.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};

use super::puppet::Message;

/// The original's limit of one message.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
const JOIN_INTERVAL: Duration = Duration::from_secs(3);
const RTT_TOTAL: u64 = 2;
const RTT_REQUEST: u64 = 3;

/// What a bot of the original knows.
#[derive(Debug, Default)]
pub struct State {
    /// Targets of the nodes that it holds for OK, by name.
    pub nodes: BTreeMap<String, String>,
    /// Value and time by from, to and kind.
    pub samples: BTreeMap<(String, String, u64), (String, i64)>,
    joined: bool,
    /// It waits for the answer of somebody whom it joins.
    joining: bool,
    /// Somebody joined it, or told it of a node, while it joined.
    joined_since: bool,
    /// Its own loops are stuck: it answers no more who joins it or tells it of a node, and
    /// everything else.
    pub stuck: bool,
    /// How often `JoinMesh` was called, and how many calls are never answered.
    pub joins: usize,
    pub held: usize,
    /// Connections on which it was measured.
    pub probes: usize,
    /// What it died of.
    pub died: Option<String>,
    /// The longest message that it was sent, in bytes.
    pub longest: usize,
    /// Messages that were too long.
    pub refused: usize,
}

impl State {
    fn runs(&self) -> bool {
        self.joined && !self.stuck
    }
}

/// A running one; it stops with its holder.
pub struct Original {
    pub name: String,
    pub target: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// How it serves and how it dials where its mesh has TLS: it presents a certificate as a server,
/// and none as a client.
#[derive(Clone)]
pub struct Tls {
    pub server: Arc<rustls::ServerConfig>,
    pub client: Arc<rustls::ClientConfig>,
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for S {}

#[derive(Clone)]
struct Me {
    name: String,
    target: String,
    tls: Option<Tls>,
    state: Arc<Mutex<State>>,
}

/// The fields of a message: numbers and their content.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = bytes.split_first()?;
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    let mut found = Vec::new();
    while let Some(key) = varint(&mut bytes) {
        match key & 7 {
            0 => found.extend(varint(&mut bytes).map(|value| (key >> 3, Field::Number(value)))),
            2 => {
                let Some(len) = varint(&mut bytes) else { break };
                let Some((content, rest)) = bytes.split_at_checked(len as usize) else { break };
                bytes = rest;
                found.push((key >> 3, Field::Bytes(content)));
            }
            _ => break,
        }
    }
    found
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn text(message: &[u8], number: u64) -> String {
    let bytes = fields(message).into_iter().rev().find_map(|(found, field)| match field {
        Field::Bytes(bytes) if found == number => Some(bytes),
        _ => None,
    });
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

fn number(message: &[u8], wanted: u64) -> u64 {
    let found = fields(message).into_iter().rev().find_map(|(found, field)| match field {
        Field::Number(value) if found == wanted => Some(value),
        _ => None,
    });
    found.unwrap_or_default()
}

fn messages(message: &[u8], wanted: u64) -> Vec<Vec<u8>> {
    let each = fields(message).into_iter().filter_map(|(found, field)| match field {
        Field::Bytes(bytes) if found == wanted => Some(bytes.to_vec()),
        _ => None,
    });
    each.collect()
}

fn unix() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

impl Me {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self) -> Message {
        node(&self.name, &self.target)
    }

    /// The original panics on an empty field.
    fn die(&self, of: &str) {
        self.state().died.get_or_insert_with(|| of.to_owned());
    }

    fn some_nodes(&self, count: usize) -> Vec<(String, String)> {
        let mut nodes: Vec<_> = self
            .state()
            .nodes
            .iter()
            .map(|(name, target)| (name.clone(), target.clone()))
            .collect();
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
        fastrand::Rng::with_seed(u64::from(seed)).shuffle(&mut nodes);
        nodes.truncate(count);
        nodes
    }

    /// Records a node; tells whether it was new.
    fn record(&self, message: &[u8]) -> bool {
        let (name, target) = (text(message, 1), text(message, 2));
        if name.is_empty() || target.is_empty() {
            self.die("a node without a name or a target");
            return false;
        }
        name != self.name && self.state().nodes.insert(name, target).is_none()
    }

    /// Whether this call is never answered.
    fn holds(&self, method: &str) -> bool {
        let mut state = self.state();
        let joins = method == "JoinMesh";
        state.joins += usize::from(joins);
        let holds = state.stuck && (joins || method == "NodeDiscovery");
        state.held += usize::from(holds);
        holds
    }

    fn answer(&self, method: &str, body: &[u8]) -> Result<Vec<u8>, u32> {
        {
            let mut state = self.state();
            state.longest = state.longest.max(body.len());
            if body.len() > MESSAGE_BYTES_MAX {
                state.refused += 1;
                return Err(8);
            }
        }
        match method {
            "JoinMesh" => Ok(self.join_mesh(body).0),
            "Ping" => {
                self.record(body);
                Ok(Vec::new())
            }
            "NodeDiscovery" => {
                self.discovered();
                for new in messages(body, 1) {
                    if self.record(&new) {
                        self.tell_of(new);
                    }
                }
                Ok(Vec::new())
            }
            "PushSamples" => {
                for sample in messages(body, 1) {
                    let (from, to, value) = (text(&sample, 1), text(&sample, 2), text(&sample, 4));
                    if from.is_empty() || to.is_empty() || value.is_empty() {
                        self.die("a sample with an empty field");
                        break;
                    }
                    let (key, ts) = (number(&sample, 3), number(&sample, 5) as i64);
                    let mut state = self.state();
                    let held = state
                        .samples
                        .entry((from, to, key))
                        .or_insert_with(|| (String::new(), i64::MIN));
                    if ts > held.1 {
                        *held = (value, ts);
                    }
                }
                Ok(Vec::new())
            }
            "Rtt" => Ok(Vec::new()),
            _ => Err(12),
        }
    }

    /// Somebody is new: that ends its own joining. While it waits for an answer the end is kept,
    /// and there is room for one.
    fn discovered(&self) {
        let mut state = self.state();
        if state.joining {
            state.joined_since = true;
        } else {
            state.joined = true;
        }
    }

    fn join_mesh(&self, joiner: &[u8]) -> Message {
        let (name, target) = (text(joiner, 1), text(joiner, 2));
        if name.is_empty() || target.is_empty() {
            self.die("a joiner without a name or a target");
        }
        let nodes = self.state().nodes.clone();
        if name == self.name || nodes.get(&name).is_some_and(|held| *held != target) {
            return Message::default().bytes(2, self.name.as_bytes());
        }
        self.discovered();
        if nodes.keys().any(|known| *known != name) {
            self.record(joiner);
            self.tell_of(joiner.to_vec());
        }
        let known = nodes.iter().filter(|(known, _)| **known != name);
        let answer = Message::default().varint(1, 1).bytes(2, self.name.as_bytes());
        known.fold(answer, |answer, (name, target)| answer.message(3, &node(name, target)))
    }

    fn tell_of(&self, new: Vec<u8>) {
        let name = text(&new, 1);
        for (_, target) in
            self.some_nodes(3).into_iter().filter(|(known, _)| *known != name).take(2)
        {
            let news = Message::default().bytes(1, &new).message(2, &self.node());
            let me = self.clone();
            tokio::spawn(async move { me.call(&target, "NodeDiscovery", &news.0).await });
        }
    }

    /// It joins at the first target that answers, every three seconds, until somebody is known.
    async fn join(self, targets: Vec<String>) {
        loop {
            tokio::time::sleep(JOIN_INTERVAL).await;
            {
                let mut state = self.state();
                if state.joined || state.stuck {
                    continue;
                }
                state.joining = true;
            }
            let connected = self.join_at(&targets).await;
            let mut state = self.state();
            state.joining = false;
            if connected && state.joined_since {
                // Two ends, and room for one: the routine that should read them waits to write.
                state.died.get_or_insert_with(|| {
                    "it was asked while it joined, and waits without end".to_owned()
                });
            }
            state.joined = connected || state.joined_since;
        }
    }

    async fn join_at(&self, targets: &[String]) -> bool {
        for target in targets {
            let Ok((answer, _)) = self.call(target, "JoinMesh", &self.node().0).await else {
                continue;
            };
            if number(&answer, 1) == 0 {
                self.die("its name is not unique in the mesh");
                return true;
            }
            self.record(&node(&text(&answer, 2), target).0);
            messages(&answer, 3).iter().for_each(|known| {
                self.record(known);
            });
            return true;
        }
        false
    }

    async fn ping_one(self) {
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            if !self.state().runs() {
                continue;
            }
            for (name, target) in self.some_nodes(1) {
                let mut heard = false;
                for attempt in 0..3 {
                    if attempt > 0 {
                        tokio::time::sleep(Duration::from_secs(5)).await;
                    }
                    heard = self.call(&target, "Ping", &self.node().0).await.is_ok();
                    if heard {
                        break;
                    }
                }
                if !heard {
                    let mut state = self.state();
                    state.nodes.remove(&name);
                    // Who knows nobody begins again.
                    state.joined &= !state.nodes.is_empty();
                }
            }
        }
    }

    async fn push(self) {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            if !self.state().runs() {
                continue;
            }
            let samples = self.state().samples.iter().fold(
                Message::default(),
                |all, ((from, to, key), (value, ts))| {
                    let sample = Message::default()
                        .bytes(1, from.as_bytes())
                        .bytes(2, to.as_bytes())
                        .varint(3, *key);
                    all.message(1, &sample.bytes(4, value.as_bytes()).varint(5, *ts as u64))
                },
            );
            for (_, target) in self.some_nodes(2) {
                let _ = self.call(&target, "PushSamples", &samples.0).await;
            }
        }
    }

    async fn measure_one(self) {
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            if !self.state().runs() {
                continue;
            }
            for (name, target) in self.some_nodes(1) {
                let begun = Instant::now();
                let measured = self.call(&target, "Rtt", &[]).await;
                let total = begun.elapsed().as_nanos();
                let mut state = self.state();
                let mut put = |key, value: Option<u128>| {
                    let place = (self.name.clone(), name.clone(), key);
                    match value {
                        Some(value) => {
                            state.samples.insert(place, (value.to_string(), unix()));
                        }
                        None => {
                            if let Some(held) = state.samples.get_mut(&place) {
                                *held = ("NaN".to_owned(), unix());
                            }
                        }
                    }
                };
                match measured {
                    Ok((_, request)) => {
                        put(RTT_TOTAL, Some(total));
                        put(RTT_REQUEST, Some(request.as_nanos()));
                    }
                    Err(_) => {
                        put(RTT_TOTAL, None);
                        put(RTT_REQUEST, None);
                    }
                }
            }
        }
    }

    async fn call(
        &self,
        target: &str,
        method: &str,
        body: &[u8],
    ) -> std::io::Result<(Vec<u8>, Duration)> {
        call_by(self.tls.as_ref(), target, method, body).await
    }

    async fn serve(self, stream: tokio::net::TcpStream) {
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                match tokio_rustls::TlsAcceptor::from(Arc::clone(&tls.server)).accept(stream).await
                {
                    Ok(stream) => Box::new(stream),
                    Err(_) => return,
                }
            }
        };
        let Ok(mut connection) = h2::server::Builder::new()
            .initial_window_size(1 << 20)
            .handshake::<_, Bytes>(stream)
            .await
        else {
            return;
        };
        let mut measured = false;
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            if request.uri().path().ends_with("/Rtt") && !std::mem::replace(&mut measured, true) {
                self.state().probes += 1;
            }
            let me = self.clone();
            tokio::spawn(async move {
                let path = request.uri().path().to_owned();
                let mut body = request.into_body();
                let mut message = BytesMut::new();
                while let Some(Ok(chunk)) = body.data().await {
                    let _ = body.flow_control().release_capacity(chunk.len());
                    message.extend_from_slice(&chunk);
                }
                let method = path.strip_prefix("/mesh.v1.MeshService/").unwrap_or_default();
                if me.holds(method) {
                    std::future::pending::<()>().await;
                }
                let answered = me.answer(method, message.get(5..).unwrap_or_default());
                let head = http::Response::builder()
                    .header("content-type", "application/grpc")
                    .body(())
                    .unwrap();
                let Ok(mut send) = respond.send_response(head, false) else { return };
                let status = answered.as_ref().err().copied().unwrap_or_default();
                if let Ok(answer) = answered {
                    let framed =
                        [&[0][..], &u32::try_from(answer.len()).unwrap().to_be_bytes(), &answer]
                            .concat();
                    let _ = send.send_data(framed.into(), false);
                }
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", status.into());
                let _ = send.send_trailers(trailers);
            });
        }
    }
}

fn node(name: &str, target: &str) -> Message {
    Message::default().bytes(1, name.as_bytes()).bytes(2, target.as_bytes())
}

/// One call on a fresh connection in plain text; its answer, and how long the request alone took.
pub async fn call(target: &str, method: &str, body: &[u8]) -> std::io::Result<(Vec<u8>, Duration)> {
    call_by(None, target, method, body).await
}

async fn call_by(
    tls: Option<&Tls>,
    target: &str,
    method: &str,
    body: &[u8],
) -> std::io::Result<(Vec<u8>, Duration)> {
    let other = |error: h2::Error| std::io::Error::other(error);
    let calling = async {
        let stream = tokio::net::TcpStream::connect(target).await?;
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(stream),
            Some(tls) => {
                let host = stream.peer_addr()?.ip().into();
                Box::new(
                    tokio_rustls::TlsConnector::from(Arc::clone(&tls.client))
                        .connect(host, stream)
                        .await?,
                )
            }
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (sender, connection) = h2::client::handshake(stream).await.map_err(other)?;
        let driving = tokio::spawn(connection);
        let mut sender = sender.ready().await.map_err(other)?;
        let request =
            http::Request::post(format!("{scheme}://{target}/mesh.v1.MeshService/{method}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())
                .unwrap();
        let begun = Instant::now();
        let (answer, mut send) = sender.send_request(request, false).map_err(other)?;
        let framed = [&[0][..], &u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat();
        send.send_data(framed.into(), true).map_err(other)?;
        let answer = answer.await.map_err(other)?;
        let early = answer.headers().get("grpc-status").cloned();
        let mut incoming = answer.into_body();
        let mut message = Vec::new();
        while let Some(chunk) = incoming.data().await {
            let chunk = chunk.map_err(other)?;
            let _ = incoming.flow_control().release_capacity(chunk.len());
            message.extend_from_slice(&chunk);
        }
        let trailers = incoming.trailers().await.map_err(other)?;
        let status = early.or_else(|| trailers?.get("grpc-status").cloned());
        driving.abort();
        if status.is_none_or(|status| status != "0") {
            return Err(std::io::Error::other("the call failed"));
        }
        Ok((message.get(5..).unwrap_or_default().to_vec(), begun.elapsed()))
    };
    tokio::time::timeout(REQUEST_TIMEOUT, calling)
        .await
        .map_err(|_| std::io::ErrorKind::TimedOut)?
}

/// The same for who does not wait in a runtime.
pub fn call_now(target: SocketAddr, method: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(call(&target.to_string(), method, body)).map(|(answer, _)| answer)
}

/// A sample as the original sends it.
pub fn sample(from: &str, to: &str, key: u64, value: &str, ts: i64) -> Message {
    let names = Message::default().bytes(1, from.as_bytes()).bytes(2, to.as_bytes());
    names.varint(3, key).bytes(4, value.as_bytes()).varint(5, ts as u64)
}

impl Original {
    pub fn start(name: &str, target: SocketAddr, targets: &[String]) -> Self {
        Self::start_with(name, target, targets, None)
    }

    pub fn start_with(
        name: &str,
        target: SocketAddr,
        targets: &[String],
        tls: Option<Tls>,
    ) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let me = Me {
            name: name.to_owned(),
            target: target.to_string(),
            tls,
            state: Arc::clone(&state),
        };
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let targets = targets.to_vec();
        let listener = std::net::TcpListener::bind(target).unwrap();
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::spawn(me.clone().join(targets));
                tokio::spawn(me.clone().ping_one());
                tokio::spawn(me.clone().push());
                tokio::spawn(me.clone().measure_one());
                let serving = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(me.clone().serve(stream));
                    }
                };
                tokio::select! {
                    () = serving => {}
                    _ = stopped => {}
                }
            });
        });
        Self { name: name.to_owned(), target, state, stop: Some(stop), thread: Some(thread) }
    }

    /// One that joined before, and has been stuck since.
    pub fn stuck_on(name: &str, address: IpAddr) -> Self {
        let original = Self::start_on(name, address, &[]);
        original.state().stuck = true;
        original
    }

    pub fn start_on(name: &str, address: IpAddr, targets: &[String]) -> Self {
        Self::start(name, SocketAddr::new(address, super::free_ports(address, 1)[0]), targets)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names of the nodes that it holds for OK.
    pub fn nodes(&self) -> std::collections::BTreeSet<String> {
        self.state().nodes.keys().cloned().collect()
    }

    /// Pairs whose total it holds as a number.
    pub fn measured_pairs(&self) -> std::collections::BTreeSet<(String, String)> {
        let state = self.state();
        let totals = state
            .samples
            .iter()
            .filter(|((_, _, key), (value, _))| *key == RTT_TOTAL && value.parse::<u64>().is_ok());
        totals.map(|((from, to, _), _)| (from.clone(), to.clone())).collect()
    }

    /// It lives, and nobody sent it what the original dies of or refuses.
    pub fn assert_well(&self) {
        let state = self.state();
        assert_eq!(state.died, None, "{} died", self.name);
        assert_eq!(state.refused, 0, "{} was sent a message of {} bytes", self.name, state.longest);
    }

    /// Ends it as a crash does.
    pub fn stop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        self.stop();
    }
}
