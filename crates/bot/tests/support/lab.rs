//! Hosts in network namespaces, with links that are cut and a name server.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::tools::skip;
use super::{Bot, Plan};

/// Hosts in namespaces on one bridge, taken down when dropped.
pub struct Lab {
    pub bridge: String,
    pub hosts: Vec<String>,
    pub network: [u8; 3],
}

pub fn ip(arguments: &str) -> bool {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

impl Lab {
    /// None where the system does not let us, which is said.
    pub fn build(count: u8) -> Option<Self> {
        // Names of links have fifteen characters at most, and those of a former lab may linger for
        // a moment.
        let id = std::process::id() % 10_000 * 10 + u32::from(count);
        // 198.18.0.0/15 is for benchmarks of networks (RFC 2544): nobody else's.
        let network = [198, 18, (id % 250) as u8];
        let mut lab = Self { bridge: format!("cb{id}"), hosts: Vec::new(), network };
        let [a, b, c] = network;
        let bridge = lab.bridge.clone();
        if !ip(&format!("link add {bridge} type bridge"))
            || !ip(&format!("addr add {a}.{b}.{c}.254/24 dev {bridge}"))
        {
            skip("this needs root and iproute2 to make network namespaces");
            return None;
        }
        ip(&format!("link set {bridge} up"));
        for number in 1..=count {
            let (host, outside, inside) =
                (format!("cb{id}h{number}"), lab.link(number), format!("cb{id}i{number}"));
            lab.hosts.push(host.clone());
            let built = [
                format!("netns add {host}"),
                format!("link add {outside} type veth peer name {inside}"),
                format!("link set {inside} netns {host}"),
                format!("link set {outside} master {bridge} up"),
                format!("-n {host} addr add {a}.{b}.{c}.{number}/24 dev {inside}"),
                format!("-n {host} link set {inside} up"),
                format!("-n {host} link set lo up"),
            ];
            // Where a bridge may be made, all of it may: that one step fails is a fault of the
            // test, and no reason to skip it.
            for step in built {
                assert!(ip(&step), "ip {step} failed");
            }
        }
        Some(lab)
    }

    pub fn link(&self, number: u8) -> String {
        format!("{}o{number}", self.bridge)
    }

    pub fn address(&self, number: u8) -> IpAddr {
        let [a, b, c] = self.network;
        IpAddr::from([a, b, c, number])
    }

    pub fn start(&self, number: u8) -> Bot {
        let seeds = (1..=2).map(|seed| format!("{}:8081", self.address(seed))).collect();
        let name = format!("host-{number}");
        let plan = Plan {
            name,
            address: self.address(number),
            mesh_port: 8081,
            api_port: 8080,
            seeds,
            more: Vec::new(),
        };
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            &self.hosts[usize::from(number) - 1],
            env!("CARGO_BIN_EXE_canary-bot"),
        ]);
        plan.start_by(command)
    }

    /// Packets to and from a host vanish, or travel again.
    pub fn cut(&self, number: u8, cut: bool) {
        assert!(ip(&format!("link set {} {}", self.link(number), if cut { "down" } else { "up" })));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for (number, host) in (1..).zip(&self.hosts) {
            // A namespace goes when its last connection does; its link goes now.
            ip(&format!("link del {}", self.link(number)));
            ip(&format!("netns del {host}"));
        }
        ip(&format!("link del {}", self.bridge));
    }
}

/// Runs a command in a host's namespace.
pub fn inside(host: &str, arguments: &str) -> bool {
    let arguments = format!("netns exec {host} {arguments}");
    ip(&arguments)
}

/// A name server on the lab's own address that answers questions for addresses, until it falls
/// silent.
pub struct NameServer(Arc<AtomicBool>);

impl NameServer {
    /// `hosts` tells the numbers of the hosts that a name stands for; a name without any does not
    /// exist.
    pub fn start(lab: &Lab, hosts: fn(&str) -> Vec<u8>) -> Self {
        let [a, b, c] = lab.network;
        let socket = UdpSocket::bind(SocketAddr::from(([a, b, c, 254], 53))).unwrap();
        let silent = Arc::new(AtomicBool::new(false));
        let is_silent = Arc::clone(&silent);
        std::thread::spawn(move || {
            let mut packet = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut packet) {
                if is_silent.load(Ordering::Relaxed) {
                    continue;
                }
                let question = &packet[..len];
                // The header (RFC 1035 section 4.1.1), one question, and addresses for a question
                // of type A.
                let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
                let is_a = question[end - 4..end - 2] == [0, 1];
                let numbers = hosts(&name_of(&question[12..]));
                let count = if is_a { numbers.len() as u8 } else { 0 };
                let code = if numbers.is_empty() { 3 } else { 0 };
                let mut answer =
                    [&question[..2], &[0x84, code, 0, 1, 0, count, 0, 0, 0, 0], &question[12..end]]
                        .concat();
                for number in numbers.iter().filter(|_| is_a) {
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, a, b, c, *number]);
                }
                let _ = socket.send_to(&answer, from);
            }
        });
        Self(silent)
    }

    pub fn fall_silent(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The name in a question, with dots between its labels.
fn name_of(mut question: &[u8]) -> String {
    let mut labels = Vec::new();
    while let Some((length, rest)) = question.split_first().filter(|(length, _)| **length > 0) {
        let (label, rest) = rest.split_at(usize::from(*length));
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        question = rest;
    }
    labels.join(".")
}

/// What the programs of a namespace take for the host's resolver configuration; removed when
/// dropped.
pub struct ResolverFile(PathBuf);

impl ResolverFile {
    pub fn write(lab: &Lab, host: &str, more: &str) -> Self {
        let [a, b, c] = lab.network;
        let directory = Path::new("/etc/netns").join(host);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(
            directory.join("resolv.conf"),
            format!("nameserver {a}.{b}.{c}.254\n{more}"),
        )
        .unwrap();
        Self(directory)
    }
}

impl Drop for ResolverFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
