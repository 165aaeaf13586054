//! Files of secrets: read whole, bounded, and never waited for where there is no file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The contents of a regular file, a little more than `most` bytes of what is longer. A pipe or a
/// device is an error: it has no contents that could be read again.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Opening a pipe without a writer would block without end.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::take(file, most + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether others on the host may read or change a file that is to be its owner's alone; the words
/// if so.
pub fn exposed(path: &Path) -> Option<&'static str> {
    let mode = path.metadata().ok()?.mode();
    if mode & 0o022 != 0 {
        return Some("others on this host may change it; chmod 600");
    }
    (mode & 0o004 != 0).then_some("others on this host may read it; chmod 600")
}
