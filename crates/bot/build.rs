//! Packs the files that `canary-bot assets` writes: together they are text of eighty kilobytes.

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;

/// Folders of the repository whose files are packed.
const FOLDERS: [&str; 6] = [
    "charts/canary-bot/files",
    "charts/canary-bot/files/dashboards",
    "deploy/systemd",
    "proto/api/v1",
    "proto/mesh/v1",
    "proto/mesh/v2",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../..");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for folder in FOLDERS {
        println!("cargo:rerun-if-changed={}", root.join(folder).display());
        fs::create_dir_all(out.join(folder))?;
        for entry in fs::read_dir(root.join(folder))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                let mut packed = GzEncoder::new(Vec::new(), Compression::best());
                packed.write_all(&fs::read(entry.path())?)?;
                let name = format!("{}.gz", entry.file_name().to_string_lossy());
                fs::write(out.join(folder).join(name), packed.finish()?)?;
            }
        }
    }
    Ok(())
}
