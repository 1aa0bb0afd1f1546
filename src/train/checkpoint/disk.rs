//! Writes that are still there after the power has failed, and reads that stay in their folder.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, ErrorKind, Result};

/// Bytes that are written at once.
const PIECE: usize = 1 << 20;
/// Bytes that are read at once.
const READ: usize = 1 << 16;

/// A file that is being written, and the hash of what has been.
pub(super) struct NewFile {
    file: BufWriter<File>,
    hash: Xxh3,
}

impl NewFile {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(PIECE, File::create_new(path)?);
        Ok(Self { file, hash: Xxh3::new() })
    }

    /// Waits until the disk has it. Gives the hash of its content.
    pub(super) fn finish(self) -> io::Result<u128> {
        let Self { file, hash } = self;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(hash.digest128())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Opens a file of a checkpoint. What is no file is not opened: a link may lead anywhere, and who
/// reads from a pipe waits.
///
/// # Errors
///
/// When there is none, it is no file, or it cannot be opened.
pub(super) fn open(path: &Path) -> Result<File> {
    let found = fs::symlink_metadata(path).map_err(|error| unreadable(&error))?;
    if !found.is_file() {
        return Err(Error::new(
            ErrorKind::NotUnderstood,
            "not a file of its own, but a link or such",
        )
        .hint("the file itself in its place"));
    }
    File::open(path).map_err(|error| unreadable(&error))
}

/// The content of a small file.
///
/// # Errors
///
/// Those of [`open`], and when it has more than `limit` bytes.
pub(super) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = open(path)?;
    file.take(limit + 1).read_to_end(&mut content).map_err(|error| unreadable(&error))?;
    if content.len() as u64 > limit {
        let problem = format!("it has more than {limit} bytes");
        return Err(Error::new(ErrorKind::NotUnderstood, problem));
    }
    Ok(content)
}

/// The hash of a file's content.
///
/// # Errors
///
/// Those of [`open`], and when it cannot be read.
pub(super) fn hash(path: &Path) -> Result<u128> {
    let mut file = open(path)?;
    let mut hash = Xxh3::new();
    let mut piece = vec![0; READ];
    loop {
        match file.read(&mut piece).map_err(|error| unreadable(&error))? {
            0 => return Ok(hash.digest128()),
            read => hash.update(&piece[..read]),
        }
    }
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

/// Why a file cannot be read. What is missing or ends too early was not written whole; what cannot
/// be read for another reason may be whole.
pub(super) fn unreadable(error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => ErrorKind::Data,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("cannot be read: {error}"))
}

/// Why there is no such file, as an error that names it.
pub(super) fn unwritable(path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot be written: {error}"))
        .in_file(path)
        .hint("a folder that can be written to, on a disk with free space")
}
