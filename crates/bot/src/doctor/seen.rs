//! What the examination reads: addresses, the ways between nodes, clocks, and what to do about a
//! failure.

use std::net::{IpAddr, SocketAddr};

use canary_core::{Failure, NodeName, Snapshot, State, Target};
use canary_node::Bot;
use serde_json::Value;

use super::{LINES_MAX, TARGET_PATIENCE};
use crate::settings::{Join, Settings};

/// What has the mesh port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runs {
    Nothing,
    /// The bot that is described.
    Here,
    Another,
}

/// One direction of a pair.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Unknown,
    Ok,
    Failed(String),
}

impl From<Option<State>> for Way {
    fn from(state: Option<State>) -> Self {
        match state {
            Some(State::Ok { .. }) => Self::Ok,
            Some(State::Failed(kind)) => Self::Failed(kind.as_str().to_owned()),
            Some(State::Unknown) | None => Self::Unknown,
        }
    }
}

/// Every present node with the way to it, and the way back.
pub(super) fn both_ways(seen: &Snapshot) -> Vec<(NodeName, Way, Way)> {
    let from = |name: &NodeName| {
        seen.own_row.as_ref().and_then(|row| row.cell_of(name)).map(|cell| cell.state)
    };
    seen.present()
        .map(|member| {
            let name = &member.record.name;
            let to = member
                .row
                .as_ref()
                .and_then(|row| row.cell_of(&seen.me.name))
                .map(|cell| cell.state);
            (name.clone(), from(name).into(), to.into())
        })
        .collect()
}

pub(super) async fn leave(bot: Bot) {
    // Others find out by themselves if it does not get to say goodbye.
    let _ = tokio::time::timeout(TARGET_PATIENCE, bot.leave()).await;
}

pub(super) fn own_target(settings: &Settings) -> Target {
    match &settings.join {
        Join::Target(target) => target.clone(),
        Join::Host(host) => Target::new(host, settings.listen.port().max(1))
            .expect("the host others dial was parsed as that of a target"),
    }
}

/// Where a port of this host that listens on `address` is dialled from here.
pub(super) fn local(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        other => other,
    }
}

/// The addresses of a name, or what is wrong with it as the rest of a sentence.
pub(super) async fn resolved(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let bare = host.trim_matches(['[', ']']).to_owned();
    let found = tokio::time::timeout(TARGET_PATIENCE, tokio::net::lookup_host((bare, port))).await;
    let found: Vec<_> = match found {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => return Err(format!("cannot be resolved: {error}")),
        Err(_) => return Err(format!("was not resolved within {} s", TARGET_PATIENCE.as_secs())),
    };
    if found.is_empty() { Err("has no address".to_owned()) } else { Ok(found) }
}

pub(super) fn joined(addresses: &[SocketAddr]) -> String {
    let mut list: Vec<_> =
        addresses.iter().take(LINES_MAX).map(|address| address.ip().to_string()).collect();
    if addresses.len() > LINES_MAX {
        list.push(format!("{} more", addresses.len() - LINES_MAX));
    }
    list.join(", ")
}

/// How far the clocks of other nodes are ahead, as a bot tells it.
pub(super) fn offsets(mut answer: Value) -> Vec<i64> {
    let nodes = answer["nodes"].take();
    let offset = |node: &Value| Some((node["clock_offset_seconds"].as_f64()? * 1000.0) as i64);
    nodes
        .as_array()
        .into_iter()
        .flatten()
        .filter(|node| node["is_self"] != true)
        .filter_map(offset)
        .collect()
}

pub(super) fn remedy(kind: Failure) -> &'static str {
    match kind {
        Failure::Dns => "correct the name, or this host's resolver (/etc/resolv.conf)",
        Failure::Refused => {
            "the host is up and nothing listens there: start that bot, or correct the port"
        }
        Failure::Unreachable => {
            "there is no route, or a firewall refuses: look at the routes of this host and the firewalls on the way"
        }
        Failure::Timeout => {
            "the host is down, or a firewall drops what is sent: open its mesh port to this host"
        }
        Failure::Tls => {
            "the CA, the certificate and the TLS mode of both sides must fit: compare the `started` lines of both"
        }
        Failure::Reset => {
            "something cuts the connection: a proxy or a firewall on the way, or the limits of that bot"
        }
        Failure::Protocol => {
            "give its mesh port, not its API port; a bot of the original answers so, too, and is found out when joining"
        }
        Failure::Auth => {
            "give the mesh token of that mesh by --mesh-token-file; or is that an API port? Give the mesh port, 8081 by default"
        }
        Failure::Identity => "another bot answers there: correct the target",
        Failure::Local | Failure::Other => "this host lacks descriptors, ports or memory",
    }
}
