//! A folder of checkpoints: opened by one run at a time, cleared of leftovers, the last few kept.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::disk::unwritable;
use super::draft::Draft;
use super::names::{finished, partial, replaced, step_of};
use super::{CHECKSUMS, Checkpoint, FILES, disk};
use crate::error::{Error, ErrorKind, Result};

/// Checkpoints that are kept where nothing else is said.
const KEEP: usize = 3;

const LOCK: &str = ".lock";

/// A folder of checkpoints, the last ones of a run. While this lives, no other run has the folder.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
    /// Steps of those that were passed over: they are not among the ones that are kept.
    unusable: Mutex<BTreeSet<u64>>,
    /// The operating system unlocks it when the process ends, however that happens.
    _lock: Option<File>,
}

/// What there is to continue from.
#[derive(Debug)]
pub struct Newest {
    /// The newest checkpoint that is whole and finite; none in a folder without checkpoints.
    pub checkpoint: Option<Checkpoint>,
    /// Why newer ones were passed over: [`ErrorKind::Data`] for what is broken,
    /// [`ErrorKind::NotFinite`] for what no run can go on with.
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
        let unusable = Mutex::default();
        Ok(Self { folder, keep: KEEP, unusable, _lock: lock })
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

    /// Reads the newest checkpoint that is whole and whose numbers are finite.
    ///
    /// # Errors
    ///
    /// When a newer one is whole and of a form that this version does not know, when there are
    /// checkpoints and a run can continue from none of them, or when the folder cannot be read.
    pub fn newest(&self) -> Result<Newest> {
        let mut skipped = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            match Checkpoint::read(&self.folder.join(finished(step))) {
                Ok(checkpoint) => return Ok(Newest { checkpoint: Some(checkpoint), skipped }),
                Err(error) if matches!(error.kind, ErrorKind::Data | ErrorKind::NotFinite) => {
                    self.unusable().insert(step);
                    skipped.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        match skipped.first() {
            None => Ok(Newest { checkpoint: None, skipped }),
            Some(first) => {
                let count = skipped.len();
                Err(Error::data(format!("none of {count} checkpoints can be used: {first}"))
                    .in_file(&self.folder)
                    .hint("another folder, to start from the beginning"))
            }
        }
    }

    /// Begins a checkpoint, in place of one of the same step if there is any.
    ///
    /// # Errors
    ///
    /// When what is there is not of this version, or the folder cannot be written to.
    pub(super) fn draft(&self, step: u64) -> Result<Draft<'_>> {
        let there = self.folder.join(finished(step));
        if there.exists() && !self.is_own(step) {
            return Err(Error::data("a checkpoint of another version, or none, has this name")
                .in_file(there)
                .hint("another folder for checkpoints"));
        }
        Draft::new(&self.folder, step)
    }

    /// A checkpoint of this step was saved, and is whole.
    pub(super) fn saved(&self, step: u64) {
        self.unusable().remove(&step);
    }

    /// Removes all but the last ones up to `step`. Later ones are not this run's, and what this
    /// version does not know is nobody's to remove.
    pub(super) fn prune(&self, step: u64) -> Result<()> {
        let steps = self.steps()?;
        let unusable = self.unusable().clone();
        let own = || steps.iter().rev().copied().filter(|&of| of <= step && self.is_own(of));
        let usable = own().filter(|of| !unusable.contains(of));
        let Some(oldest) = usable.take(self.keep).last() else { return Ok(()) };
        for old in own().filter(|&of| of < oldest) {
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

    /// Whether the folder of a step is this version's, whole or not: it has a manifest that this
    /// version reads, or no manifest and no file that a checkpoint does not have.
    fn is_own(&self, step: u64) -> bool {
        let path = self.folder.join(finished(step));
        match Checkpoint::manifest(&path) {
            Ok(_) => true,
            Err(error) if error.kind == ErrorKind::Data => {
                names_of_files(&path).is_ok_and(|names| {
                    let of_checkpoint =
                        |name: &String| FILES.contains(&&**name) || name == CHECKSUMS;
                    names.iter().all(of_checkpoint)
                })
            }
            // A manifest that was not written whole is no manifest of another version.
            Err(_) => {
                matches!(Checkpoint::read(&path), Err(error) if error.kind == ErrorKind::Data)
            }
        }
    }

    fn unusable(&self) -> std::sync::MutexGuard<'_, BTreeSet<u64>> {
        self.unusable.lock().unwrap_or_else(PoisonError::into_inner)
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
    // To open a link would open, or make, a file anywhere.
    if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
        return Err(Error::new(ErrorKind::Io, "not a file of its own, but a link or such")
            .in_file(path)
            .hint("to remove it"));
    }
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
    entries(folder, fs::FileType::is_dir)
}

/// Names of all that is in `folder` besides folders.
fn names_of_files(folder: &Path) -> io::Result<Vec<String>> {
    entries(folder, |of| !of.is_dir())
}

fn entries(folder: &Path, taken: impl Fn(&fs::FileType) -> bool) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if taken(&entry.file_type()?) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot be read: {error}"))
        .in_file(path)
        .hint("a folder that can be read")
}
