//! A folder of checkpoints: opened by one run at a time, cleared of leftovers, the last few kept.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::disk::unwritable;
use super::draft::Draft;
use super::names::{finished, partial, replaced, step_of};
use super::{Checkpoint, disk};
use crate::error::{Error, ErrorKind, Result};

/// Checkpoints that are kept where nothing else is said.
const KEEP: usize = 3;

const LOCK: &str = ".lock";

/// A folder of checkpoints, the last ones of a run. While this lives, no other run has the folder.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
    /// The operating system unlocks it when the process ends, however that happens.
    _lock: Option<File>,
}

/// What there is to continue from.
#[derive(Debug)]
pub struct Newest {
    /// The newest checkpoint that is whole; none in a folder without checkpoints.
    pub checkpoint: Option<Checkpoint>,
    /// Why newer ones were passed over.
    pub skipped: Vec<Error>,
}

impl Checkpoints {
    /// Opens the folder, or makes it, and clears what interrupted writes have left in it.
    ///
    /// # Errors
    ///
    /// When it cannot be written to, or another run has it.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        make(&folder).map_err(|error| unwritable(&folder, &error))?;
        let lock = lock(&folder)?;
        clear(&folder).map_err(|error| unwritable(&folder, &error))?;
        Ok(Self { folder, keep: KEEP, _lock: lock })
    }

    /// How many checkpoints are kept, the last ones; at least one. Without this it is 3.
    pub fn keep(mut self, count: usize) -> Self {
        self.keep = count.max(1);
        self
    }

    /// Where the checkpoints are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Steps of the checkpoints in the folder, ascending, whole or not.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn steps(&self) -> Result<Vec<u64>> {
        let mut steps = Vec::new();
        for name in names(&self.folder).map_err(|error| unreadable(&self.folder, &error))? {
            steps.extend(step_of(&name, finished));
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// Reads the newest checkpoint that is whole.
    ///
    /// # Errors
    ///
    /// When there are checkpoints and none is whole, or the folder cannot be read.
    pub fn newest(&self) -> Result<Newest> {
        let mut skipped = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            match Checkpoint::read(&self.folder.join(finished(step))) {
                Ok(checkpoint) => return Ok(Newest { checkpoint: Some(checkpoint), skipped }),
                Err(error) => skipped.push(error),
            }
        }
        match skipped.first() {
            None => Ok(Newest { checkpoint: None, skipped }),
            Some(first) => {
                let count = skipped.len();
                Err(Error::data(format!("none of {count} checkpoints is whole: {first}"))
                    .in_file(&self.folder)
                    .hint("another folder, to start from the beginning"))
            }
        }
    }

    pub(super) fn draft(&self, step: u64) -> Result<Draft<'_>> {
        Draft::new(&self.folder, step)
    }

    /// Removes all but the last ones up to `step`. Later ones are not this run's.
    pub(super) fn prune(&self, step: u64) -> Result<()> {
        let steps = self.steps()?;
        let own = steps.iter().rev().filter(|&&of| of <= step);
        for &old in own.skip(self.keep) {
            // Under its name, what is half removed would be a broken checkpoint.
            let removed = disk::rename(&self.folder, &finished(old), &partial(old))
                .and_then(|()| fs::remove_dir_all(self.folder.join(partial(old))));
            removed.map_err(|error| {
                let path = self.folder.join(finished(old));
                Error::new(ErrorKind::Io, format!("cannot be removed: {error}"))
                    .in_file(path)
                    .hint("a folder that can be written to")
            })?;
        }
        Ok(())
    }
}

fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    match folder.parent() {
        Some(parent) if parent != Path::new("") => disk::sync_folder(parent),
        _ => Ok(()),
    }
}

fn lock(folder: &Path) -> Result<Option<File>> {
    let path = folder.join(LOCK);
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|error| unwritable(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            Err(Error::new(ErrorKind::Io, "another run saves its checkpoints here")
                .in_file(folder)
                .hint("another folder, or end the other run first"))
        }
        // Some network file systems have no locks.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Removes what interrupted writes left, and gives what was to be replaced its name back.
fn clear(folder: &Path) -> io::Result<()> {
    for name in names(folder)? {
        let path = folder.join(&name);
        if step_of(&name, partial).is_some() {
            fs::remove_dir_all(path)?;
        } else if let Some(step) = step_of(&name, replaced) {
            if folder.join(finished(step)).exists() {
                fs::remove_dir_all(path)?;
            } else {
                disk::rename(folder, &name, &finished(step))?;
            }
        }
    }
    Ok(())
}

/// Names of the folders in `folder`.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(names)
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot be read: {error}"))
        .in_file(path)
        .hint("a folder that can be read")
}
