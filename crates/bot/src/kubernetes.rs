//! In Kubernetes: where a node is, as its labels say.

use std::time::Duration;

use canary_core::Labels;
use canary_net::Token;
use serde_json::Value;
use tracing::{info, warn};

use crate::ask::{AskError, Server};
use crate::list::encoded;

/// What a service account has in every pod that mounts it.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Longest token of a service account in bytes.
const TOKEN_BYTES_MAX: u64 = 16 * 1024;
/// How long the API server is asked in all: at the start of a node its network comes late, and no
/// probe of the kubelet waits for long.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long to wait before it is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// Labels of a node that others learn, and how they are called in the mesh.
const KEYS: [(&str, &str); 2] =
    [("topology.kubernetes.io/zone", "zone"), ("topology.kubernetes.io/region", "region")];

/// These labels, and those of the node as far as they are not given. The bot starts without them if
/// they cannot be read.
pub(crate) async fn with_labels_of(node: &str, labels: Labels) -> Labels {
    let read = match api_server() {
        Ok(server) => {
            tokio::time::timeout(PATIENCE, read(&server, node)).await.unwrap_or_else(|_| {
                Err(format!("the API server did not answer within {} s", PATIENCE.as_secs()))
            })
        }
        Err(why) => Err(why),
    };
    match read {
        Ok(found) => {
            info!(node, labels = ?found, "read the labels of the Kubernetes node");
            let given = labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
            let missing = found.into_iter().filter(|(key, _)| labels.value(key).is_none());
            Labels::new(given.chain(missing).collect::<Vec<_>>()).unwrap_or(labels)
        }
        Err(why) => {
            warn!(
                node,
                why,
                "cannot read the labels of the Kubernetes node: this bot tells no zone; give --label zone=NAME instead"
            );
            labels
        }
    }
}

/// The API server as a pod finds it.
fn api_server() -> Result<Server, String> {
    let variable =
        |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set: this is no pod"));
    let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let path = format!("{ACCOUNT}/token");
    // A signed token is longer than one of ours.
    let text = canary_net::files::read(path.as_ref(), TOKEN_BYTES_MAX)
        .map_err(|error| format!("cannot read {path}: {error}"))?;
    let token = Token::of_another(String::from_utf8_lossy(&text).trim())
        .map_err(|error| format!("{path}: {error}"))?;
    Ok(Server {
        url: format!("https://{host}:{port}"),
        token: Some(token),
        ca: Some(format!("{ACCOUNT}/ca.crt").into()),
    })
}

async fn read(server: &Server, node: &str) -> Result<Vec<(String, String)>, String> {
    let path = format!("/api/v1/nodes/{}", encoded(node));
    loop {
        match server.get(&path).await {
            Ok(answer) => return Ok(places(&answer)),
            Err(AskError::Status { status, .. }) => {
                return Err(format!(
                    "the API server answered {status}; allow the service account to get nodes"
                ));
            }
            Err(AskError::Unauthorized(_)) => {
                return Err(
                    "the API server does not accept the token of the service account".to_owned()
                );
            }
            Err(error) => tracing::debug!(%error, "the API server cannot be asked yet"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn places(node: &Value) -> Vec<(String, String)> {
    let labels = &node["metadata"]["labels"];
    let told = |(key, name): &(&str, &str)| {
        Some((
            (*name).to_owned(),
            labels[*key].as_str().filter(|value| !value.is_empty())?.to_owned(),
        ))
    };
    KEYS.iter().filter_map(told).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Answers one request, and returns it.
    async fn answer(status: &str, body: &str) -> (Result<Vec<(String, String)>, String>, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 1024];
            let length = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        };
        let server = Server { url, token: Some(Token::new("of-the-account").unwrap()), ca: None };
        tokio::join!(read(&server, "node/1"), serving)
    }

    #[tokio::test]
    async fn zone_and_region_of_the_node_are_read() {
        let body = r#"{"metadata": {"labels": {"topology.kubernetes.io/zone": "eu-1a", "topology.kubernetes.io/region": "", "other": "x"}}}"#;
        let (read, asked) = answer("200 OK", body).await;
        assert_eq!(read.unwrap(), [("zone".to_owned(), "eu-1a".to_owned())]);
        assert!(
            asked.starts_with("GET /api/v1/nodes/node%2F1 HTTP/1.1\r\n")
                && asked.contains("Bearer of-the-account"),
            "{asked}"
        );
        assert!(answer("200 OK", "{}").await.0.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_forbidden_is_said_at_once() {
        let why = answer("403 Forbidden", "{}").await.0.unwrap_err();
        assert!(why.contains("allow the service account to get nodes"), "{why}");
    }
}
