//! Replays what the fuzzers' corpora hold: everything that once made a parser stumble, and what
//! reaches its branches.

#![allow(clippy::unwrap_used)]

use std::path::Path;

#[test]
fn every_parser_survives_its_corpus() {
    for (name, take) in canary_bot::fuzz::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
        let files: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() > 2, "{} holds {} files", folder.display(), files.len());
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            let survived = std::panic::catch_unwind(|| take(&bytes));
            assert!(survived.is_ok(), "{} is what {name} stumbles over", file.display());
        }
    }
}
