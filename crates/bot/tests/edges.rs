//! Meshes behind edges that others wrote: two bots that reach each other through nginx, HAProxy and
//! Caddy alone.
//!
//! A machine without the program skips its test with a word; in CI that is a failure.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::pki::{Authority, Directory, GOOD};
use support::tools::skip;
use support::{Plan, alone, free_ports, get, plans, settle, wait};

/// Ends with its holder.
struct Edge(Child);

impl Drop for Edge {
    fn drop(&mut self) {
        // It ends its own children when it is asked to.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

fn is_there(program: &str) -> bool {
    let found = Command::new(program)
        .arg(if program == "caddy" { "version" } else { "-v" })
        .output()
        .is_ok();
    if !found {
        skip(&format!("{program} is not installed"));
    }
    found
}

/// Starts two bots that know each other only by the ports of an edge, which `configure` writes for
/// (front, back) addresses.
fn form_a_mesh_behind(
    program: &str,
    arguments: impl Fn(&str) -> Vec<String>,
    configure: impl Fn(&Directory, &[(SocketAddr, SocketAddr)]) -> String,
) {
    if !is_there(program) {
        return;
    }
    let _turn = alone();
    let (directory, authority) = (Directory::new(), Authority::new("the authority"));
    let mut plans = plans(2);
    let address = plans[0].address;
    let (certificate, key) = authority.issue("edge", &[&address.to_string()], GOOD);
    directory.write("edge.pem", &certificate);
    directory.write("edge-key.pem", &key);
    directory.write("both.pem", &format!("{certificate}{key}"));
    let ca = directory.write("ca.pem", &authority.pem());
    let fronts = free_ports(address, 2);
    let routes: Vec<_> = plans
        .iter()
        .zip(&fronts)
        .map(|(plan, port)| {
            (SocketAddr::new(address, *port), SocketAddr::new(address, plan.mesh_port))
        })
        .collect();
    let file = directory.write("edge.conf", &configure(&directory, &routes));
    let home = directory.path("");
    let child = Command::new(program)
        .args(arguments(&file))
        .envs([("HOME", &home), ("XDG_DATA_HOME", &home), ("XDG_CONFIG_HOME", &home)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _edge = Edge(child);
    for (plan, (front, _)) in plans.iter_mut().zip(&routes) {
        plan.seeds = routes.iter().map(|(front, _)| front.to_string()).collect();
        plan.more = [
            "--ca-cert-path",
            &ca,
            "--join-address",
            &front.to_string(),
            "--mesh-token",
            "of-the-mesh",
        ]
        .map(str::to_owned)
        .to_vec();
    }
    let bots: Vec<_> = plans.iter().map(Plan::start).collect();
    settle(&bots);
    for bot in &bots {
        let through_tls = || {
            let text = get(bot.api(), "/metrics").map(|answer| answer.body).unwrap_or_default();
            let tls = text
                .lines()
                .find(|line| line.contains("phase=\"tls\"") && line.contains("_seconds_sum"));
            tls.and_then(|line| line.rsplit(' ').next()?.parse().ok())
                .is_some_and(|seconds: f64| seconds > 0.0)
        };
        assert!(
            wait(Duration::from_secs(10), through_tls).is_some(),
            "{} measured no TLS",
            bot.name()
        );
    }
}

#[test]
fn behind_nginx() {
    let configure = |directory: &Directory, routes: &[(SocketAddr, SocketAddr)]| {
        let servers: String = routes
            .iter()
            .map(|(front, back)| {
                format!("server {{ listen {front} ssl http2; ssl_certificate edge.pem; ssl_certificate_key edge-key.pem; location / {{ grpc_pass grpc://{back}; }} }}\n")
            })
            .collect();
        format!(
            "daemon off; pid {pid}; error_log stderr; worker_processes 1; events {{}}\nhttp {{ access_log off;\n{servers}}}\n",
            pid = directory.path("nginx.pid")
        )
    };
    form_a_mesh_behind("nginx", |file| vec!["-c".to_owned(), file.to_owned()], configure);
}

#[test]
fn behind_haproxy() {
    let configure = |directory: &Directory, routes: &[(SocketAddr, SocketAddr)]| {
        let listens: String = routes
            .iter()
            .enumerate()
            .map(|(number, (front, back))| {
                let pem = directory.path("both.pem");
                format!("listen bot{number}\n  bind {front} ssl crt {pem} alpn h2\n  server bot {back} proto h2\n")
            })
            .collect();
        format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n{listens}"
        )
    };
    form_a_mesh_behind(
        "haproxy",
        |file| ["-db", "-f", file].map(str::to_owned).to_vec(),
        configure,
    );
}

#[test]
fn behind_caddy() {
    let configure = |directory: &Directory, routes: &[(SocketAddr, SocketAddr)]| {
        let (certificate, key) = (directory.path("edge.pem"), directory.path("edge-key.pem"));
        let sites: String = routes
            .iter()
            .map(|(front, back)| {
                format!("https://{front} {{\n  bind {}\n  tls {certificate} {key}\n  reverse_proxy h2c://{back}\n}}\n", front.ip())
            })
            .collect();
        format!("{{\n  admin off\n  auto_https off\n}}\n{sites}")
    };
    form_a_mesh_behind(
        "caddy",
        |file| ["run", "--adapter", "caddyfile", "--config", file].map(str::to_owned).to_vec(),
        configure,
    );
}
