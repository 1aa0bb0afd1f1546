//! Writes that are still there after the power has failed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::error::{Error, ErrorKind};

/// Writes a new file, and waits until the disk has it.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Renames within a folder, and waits until the disk knows it.
pub(super) fn rename(folder: &Path, from: &str, to: &str) -> io::Result<()> {
    fs::rename(folder.join(from), folder.join(to))?;
    sync_folder(folder)
}

/// Waits until the disk knows which files a folder has.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    // Windows opens no folder as a file, and keeps names in a journal.
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder)?.sync_all() {
        // Some network file systems do not know this for folders.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        done => done,
    }
}

/// Why there is no such file, as an error that names it.
pub(super) fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot be written: {error}"))
        .in_file(path)
        .hint("a folder that can be written to, on a disk with free space")
}
