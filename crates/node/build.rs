//! Generates the mesh protocol from `proto/`, in Rust alone: no system protoc.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    const FILES: [&str; 2] = ["mesh/v1/mesh.proto", "mesh/v2/mesh.proto"];
    let proto = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new([&proto])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let descriptors = out.join("mesh.fds.bin");
    fs::write(&descriptors, compiler.encode_file_descriptor_set())?;
    connectrpc_build::Config::new()
        .files(&FILES)
        .descriptor_set(&descriptors)
        .include_file("_connectrpc.rs")
        .compile()?;
    println!("cargo:rerun-if-changed={}", proto.display());
    println!("cargo:rerun-if-changed=build.rs");
    Ok(())
}
