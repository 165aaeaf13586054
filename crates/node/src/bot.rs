//! What an embedder sees: a builder, and a handle to a running bot.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use canary_core::{
    Config, ConfigError, Core, Labels, MemberView, NodeName, Release, Snapshot, Target, TargetError,
};
use canary_net::Guard;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::clock::{self, StallWatch};
use crate::describe::{DescribeError, Described, Describer};
use crate::discovery::{Seed, discover};
use crate::driver::{Driver, NodeStats, Parts};
use crate::parts::{Command, End, Identity};
use crate::prober::{Prober, Strangers};
use crate::resolve::Resolver;
use crate::traffic::Traffic;
use crate::transport::{Arrived, Links, MeshService, serve};
use crate::v1::{self, Bridge, Protocol};

/// Requests of peers that wait for the driver. A driver that is so far behind turns further ones
/// away, counted.
const ARRIVALS_WAITING_MAX: usize = 1024;
/// Commands that wait for the driver: discovery's and the handle's, never more than a few.
const COMMANDS_WAITING_MAX: usize = 16;

/// Why a bot did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot work.
    #[error("the configuration cannot work: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Config(Vec<ConfigError>),
    /// The mesh port cannot be listened on.
    #[error("cannot listen on {address}; choose another address or port for the mesh")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The address listened on cannot be dialled by others.
    #[error("others cannot dial {address}; give the address at which they reach this bot")]
    Target {
        /// The address listened on.
        address: SocketAddr,
        /// Why it is no target.
        #[source]
        source: TargetError,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

/// Describes a bot before it runs.
#[derive(Clone, Debug)]
pub struct Builder {
    name: NodeName,
    listen: SocketAddr,
    target: Option<Target>,
    host: Option<String>,
    labels: Labels,
    seeds: Vec<Seed>,
    config: Config,
    guard: Guard,
    protocol: Protocol,
}

impl Builder {
    /// The address and port that the mesh port listens on; port 0 takes a free one. Default:
    /// `127.0.0.1:0`.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Where others dial this bot. Default: the address listened on.
    #[must_use]
    pub fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// The host at which others dial this bot, together with the port listened on.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// Facts about this node that travel with it.
    #[must_use]
    pub fn labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }

    /// One more place to join at. The bot's own address may be among them.
    #[must_use]
    pub fn seed(mut self, seed: Seed) -> Self {
        self.seeds.push(seed);
        self
    }

    /// Intervals, rates and retention.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// TLS in both directions, the tokens of the mesh, of which the first is presented to others,
    /// and edges that share one address. Default: plain text, no token.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// Which protocols are spoken to others. Default: ours, and the original's with who knows
    /// nothing else.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Listens and starts. The bot runs on the present tokio runtime until it leaves or its handle
    /// is dropped.
    pub async fn start(self) -> Result<Bot, StartError> {
        let problems = self.config.problems();
        if !problems.is_empty() {
            return Err(StartError::Config(problems));
        }
        let listen_error = |source| StartError::Listen { address: self.listen, source };
        let listener = TcpListener::bind(self.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let core = self.core(address)?;
        Ok(self.assemble(listener, address, core))
    }

    /// Connects the parts of a bot, and starts its tasks.
    fn assemble(self, listener: TcpListener, address: SocketAddr, core: Core) -> Bot {
        let resolver = Resolver::new(&core.record().target, address.ip());
        // What the parts tell each other.
        let (me, me_seen) = watch::channel(Identity::of(&core));
        let (snapshots, snapshot) = watch::channel(Arc::new(core.snapshot(clock::now())));
        let (arrivals_in, arrivals) = mpsc::channel(ARRIVALS_WAITING_MAX);
        let (commands_in, commands) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (traffic, port) = (Arc::<Traffic>::default(), Arc::<canary_net::Stats>::default());
        let stalls = Arc::new(StallWatch::new());
        let stop = CancellationToken::new();

        let links = Arc::new(Links::new(
            resolver.clone(),
            self.guard.clone(),
            Arc::clone(&traffic),
            snapshot.clone(),
        ));
        let service = MeshService::new(
            me_seen,
            snapshot.clone(),
            arrivals_in.clone(),
            Arc::clone(&traffic),
            Arc::clone(&self.guard.proxies),
        );
        let bridge = self.bridge(&links, &snapshot, arrivals_in, commands_in.clone());
        let original = bridge.as_ref().map(Bridge::host);
        let guests = bridge.as_ref().map(|bridge| bridge.service(Arc::clone(&self.guard.proxies)));

        // Without any of these the bot is none.
        let mut tasks = JoinSet::new();
        let (guard, counted) = (self.guard.clone(), Arc::clone(&port));
        let serving = serve(listener, Arc::clone(&service), guests, guard, counted, stop.clone());
        tasks.spawn(named("mesh port", serving));
        let watching = Arc::clone(&stalls);
        tasks.spawn(named("stall watch", async move { watching.watch().await }));
        let finding = find_targets(self.seeds, resolver.clone(), commands_in.clone());
        tasks.spawn(named("discovery", finding));
        if let Some(bridge) = bridge {
            tasks.spawn(named("bridge to bots of the original", bridge.run()));
        }

        let stats =
            NodeStats { traffic, port, service: Arc::clone(&service), links: Arc::clone(&links) };
        let describer = Describer::new(Arc::clone(&links), tokio::runtime::Handle::current());
        let driver = Driver::new(Parts {
            core,
            prober: Arc::new(Prober {
                timeout: self.config.probe_timeout,
                resolver,
                guard: self.guard,
                stalls,
                strangers: Strangers::default(),
            }),
            links,
            original,
            commands,
            arrivals,
            snapshots,
            me,
            tasks,
        });
        let driving = tokio::spawn(drive(driver, stop.clone()));
        Bot {
            address,
            snapshot,
            commands: commands_in,
            stats,
            describer,
            driving,
            _stop: stop.drop_guard(),
        }
    }

    /// What speaks with bots of the original, if this bot does.
    fn bridge(
        &self,
        links: &Arc<Links>,
        snapshot: &watch::Receiver<Arc<Snapshot>>,
        driver: mpsc::Sender<Arrived>,
        commands: mpsc::Sender<Command>,
    ) -> Option<Bridge> {
        let (told, told_out) = mpsc::channel(v1::bridge::TOLD_WAITING_MAX);
        self.speaks_to_the_original().then(|| {
            let network = v1::Network {
                links: Arc::clone(links),
                snapshot: snapshot.clone(),
                told,
                driver,
                commands,
                probe_timeout: self.config.probe_timeout,
            };
            Bridge::new(network, told_out, self.protocol == Protocol::Auto)
        })
    }

    /// The core of a bot that listens on `address`.
    fn core(&self, address: SocketAddr) -> Result<Core, StartError> {
        let target = match &self.target {
            Some(target) => target.clone(),
            None if self.host.is_none() && address.ip().is_unspecified() => {
                return Err(StartError::Target { address, source: TargetError::Host });
            }
            None => {
                let host = self.host.clone().unwrap_or_else(|| address.ip().to_string());
                Target::new(&host, address.port())
                    .map_err(|source| StartError::Target { address, source })?
            }
        };
        let seed = getrandom::u64().map_err(StartError::Random)?;
        let (config, name, labels) = (self.config.clone(), self.name.clone(), self.labels.clone());
        let core = Core::new(config, name, target, labels, seed, clock::now())
            .with_gossipers(|record| !v1::is_guest(record));
        Ok(match Release::new(env!("CARGO_PKG_VERSION")) {
            Some(release) => core.with_release(release),
            None => core,
        })
    }

    /// Whether bots of the original can be in this mesh: they have no mesh token, present no
    /// certificate, and know of no name of a mesh.
    fn speaks_to_the_original(&self) -> bool {
        self.protocol != Protocol::V2
            && self.guard.tokens.get().is_empty()
            && !self.guard.tls.get().requires_certificates
            && self.config.mesh_name.as_str().is_empty()
    }
}

/// Tells the driver of targets as they are found. Never ends.
async fn find_targets(seeds: Vec<Seed>, resolver: Resolver, commands: mpsc::Sender<Command>) {
    let discovery = discover(seeds, resolver, async move |targets| {
        // A driver that is gone needs no targets.
        let _ = commands.send(Command::Seeds(targets)).await;
    });
    discovery.await;
    // Fixed targets never change.
    std::future::pending::<()>().await;
}

/// Drives until the end, or until `stop`; then everything else of the bot stops, too.
async fn drive(driver: Driver, stop: CancellationToken) -> End {
    let end = tokio::select! {
        end = driver.drive() => end,
        () = stop.cancelled() => End::Left,
    };
    stop.cancel();
    end
}

/// The task, and what to call it when it ended though it should not.
async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

/// Reads a running bot. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    stats: NodeStats,
    describer: Describer,
}

impl Reader {
    /// What the bot knows now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// How long ago the bot last showed what it knows. Above a few seconds it is wedged.
    pub fn snapshot_age(&self) -> Duration {
        clock::now().time.since(self.snapshot.borrow().now.time)
    }

    /// What the source of a pair alone knows of it: asked of that node over the mesh, unless it was
    /// a moment ago. The answer for a pair of this bot itself is in the snapshot.
    ///
    /// # Errors
    ///
    /// If the source is a bot of the original, did not answer, or too many are being asked.
    pub async fn describe(
        &self,
        source: &MemberView,
        target: &NodeName,
    ) -> Result<Described, DescribeError> {
        let me = self.snapshot.borrow().me.instance;
        self.describer.describe(me, source, target).await
    }

    /// Counters of the transport.
    pub fn stats(&self) -> &NodeStats {
        &self.stats
    }
}

/// A running bot. Dropping the handle stops it without a goodbye; others find out as they would of
/// a crash.
#[derive(Debug)]
pub struct Bot {
    address: SocketAddr,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    commands: mpsc::Sender<Command>,
    stats: NodeStats,
    describer: Describer,
    driving: JoinHandle<End>,
    _stop: DropGuard,
}

impl Bot {
    /// Begins to describe a bot of this name, which must be unique in its mesh.
    pub fn builder(name: NodeName) -> Builder {
        Builder {
            name,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            target: None,
            host: None,
            labels: Labels::default(),
            seeds: Vec::new(),
            config: Config::default(),
            guard: Guard::default(),
            protocol: Protocol::default(),
        }
    }

    /// The address that the mesh port listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the bot knows now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Every later snapshot: clone it, and await its changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// Waits for a snapshot of which `done` is true; none if the bot ended before.
    pub async fn wait_for(&self, mut done: impl FnMut(&Snapshot) -> bool) -> Option<Arc<Snapshot>> {
        let mut snapshot = self.snapshot.clone();
        snapshot
            .wait_for(|snapshot| done(snapshot))
            .await
            .ok()
            .map(|snapshot| Arc::clone(&snapshot))
    }

    /// What others in this process may read of the bot while its handle is elsewhere.
    pub fn reader(&self) -> Reader {
        Reader {
            snapshot: self.snapshot.clone(),
            stats: self.stats.clone(),
            describer: self.describer.clone(),
        }
    }

    /// Waits until the bot ends by itself.
    pub async fn ended(&mut self) -> End {
        (&mut self.driving).await.unwrap_or(End::Failed)
    }

    /// Says goodbye to the mesh and stops; within about a second.
    pub async fn leave(mut self) -> End {
        // A driver that is gone has ended already.
        let _ = self.commands.send(Command::Leave).await;
        self.ended().await
    }
}
