//! What is embedded in the program for others to use: dashboards, alerts, a unit, and descriptions
//! of the interfaces.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file that is embedded.
#[derive(Clone, Copy, Debug)]
struct File {
    name: &'static str,
    text: Text,
}

#[derive(Clone, Copy, Debug)]
enum Text {
    /// By gzip.
    Packed(&'static [u8]),
    Made(fn() -> String),
}

macro_rules! embedded {
    ($($name:literal = $path:literal),* $(,)?) => {
        &[$(File { name: $name, text: Text::Packed(include_bytes!(concat!(env!("OUT_DIR"), "/", $path, ".gz"))) }),*]
    };
}

/// Everything, by what it is asked for as.
const ALL: &[(&str, &[File])] = &[
    (
        "dashboards",
        embedded![
            "canary-bot-mesh.json" = "charts/canary-bot/files/dashboards/mesh.json",
            "canary-bot-pair.json" = "charts/canary-bot/files/dashboards/pair.json",
            "canary-bot-node.json" = "charts/canary-bot/files/dashboards/node.json",
            "canary-bot-bots.json" = "charts/canary-bot/files/dashboards/bots.json",
        ],
    ),
    ("rules", embedded!["canary-bot-alerts.yaml" = "charts/canary-bot/files/alerts.yaml"]),
    (
        "systemd",
        embedded![
            "canary-bot.service" = "deploy/systemd/canary-bot.service",
            "config.toml" = "deploy/systemd/config.toml"
        ],
    ),
    // Made when it is asked for: it is in the program already, as what the API serves.
    ("openapi", &[File { name: "openapi.json", text: Text::Made(canary_api::openapi) }]),
    (
        "proto",
        embedded![
            "api/v1/api.proto" = "proto/api/v1/api.proto",
            "mesh/v1/mesh.proto" = "proto/mesh/v1/mesh.proto",
            "mesh/v2/mesh.proto" = "proto/mesh/v2/mesh.proto",
        ],
    ),
];

/// Why an embedded file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}; is it there already? --force replaces it")]
pub(crate) struct AssetsError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// What can be asked for.
pub(crate) fn kinds() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(kind, _)| *kind)
}

/// Writes all files of a kind into a directory, and tells where they are. What is there already
/// stays, unless `replaces`.
pub(crate) fn write(
    kind: &str,
    directory: &Path,
    replaces: bool,
) -> Result<Vec<PathBuf>, AssetsError> {
    let files = ALL.iter().find(|(known, _)| *known == kind).map_or(&[][..], |(_, files)| files);
    let mut written = Vec::new();
    for File { name, text } in files {
        let path = directory.join(name);
        let put = || {
            std::fs::create_dir_all(path.parent().unwrap_or(directory))?;
            let mut options = std::fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .truncate(replaces)
                .create(replaces)
                .create_new(!replaces)
                .open(&path)?;
            match text {
                Text::Packed(packed) => {
                    io::copy(&mut flate2::read::GzDecoder::new(*packed), &mut file).map(|_| ())
                }
                Text::Made(make) => file.write_all(make().as_bytes()),
            }
        };
        put().map_err(|source| AssetsError { path: path.clone(), source })?;
        written.push(path);
    }
    Ok(written)
}
