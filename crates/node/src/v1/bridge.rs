//! Gives [`Hosting`] what guests tell and the time, and has its orders carried out.

use std::sync::Arc;

use canary_guests::{Done, Hosting, Joins, LOOK};
use canary_net::IpNet;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::heard::Heard;
use super::network::{Host, Network};
use super::server::GuestService;
use crate::clock;

/// What waits for the bridge. A push counts as one, and holds its place until it is done.
pub(crate) const TOLD_WAITING_MAX: usize = 4096;

/// The task that cares for guests.
#[derive(Debug)]
pub(crate) struct Bridge {
    network: Network,
    host: Host,
    told: mpsc::Receiver<Heard>,
    hosting: Hosting,
}

impl Bridge {
    /// `told` is the other end of where `network` tells. Peers are asked in our own protocol first
    /// if this bot `speaks_ours`.
    pub(crate) fn new(network: Network, told: mpsc::Receiver<Heard>, speaks_ours: bool) -> Self {
        let joins = Arc::<Joins>::default();
        let host = Host::new(network.clone(), Arc::clone(&joins), speaks_ours);
        let hosting = Hosting::new(joins, network.probe_timeout, clock::now().time);
        Self { network, host, told, hosting }
    }

    /// What asks guests for the core.
    pub(crate) fn host(&self) -> Host {
        self.host.clone()
    }

    /// What guests call.
    pub(crate) fn service(&self, proxies: Arc<[IpNet]>) -> Arc<GuestService> {
        GuestService::new(self.network.clone(), proxies)
    }

    /// Runs until the bot ends.
    pub(crate) async fn run(mut self) {
        let mut tasks = JoinSet::new();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some((told, _place)) = self.told.recv() => {
                    self.hosting.handle_told(told, &self.network.snapshot(), clock::now().time);
                }
                Some(done) = tasks.join_next() => if let Ok(Some(done)) = done {
                    self.done(done);
                },
                _ = look.tick() => {
                    self.hosting.handle_timeout(&self.network.snapshot(), clock::now().time);
                }
            }
            while let Some(order) = self.hosting.poll_order() {
                let in_turn = order.is_in_turn();
                let host = self.host.clone();
                let carried_out = async move { host.carry_out(order).await };
                if in_turn {
                    if let Some(done) = carried_out.await {
                        self.done(done);
                    }
                } else {
                    tasks.spawn(carried_out);
                }
            }
        }
    }

    fn done(&mut self, done: Done) {
        self.hosting.handle_done(done, &self.network.snapshot(), clock::now().time);
    }
}
