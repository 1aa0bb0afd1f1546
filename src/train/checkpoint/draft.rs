//! A checkpoint that is being written.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::checksums::Checksums;
use super::disk::{NewFile, unwritable};
use super::names::{finished, partial, replaced};
use super::{CHECKSUMS, disk};
use crate::error::Result;

/// A folder with files, not yet under its name. It goes when it is dropped unfinished.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    folder: &'a Path,
    step: u64,
    checksums: Checksums,
    open: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(folder: &'a Path, step: u64) -> Result<Self> {
        let path = folder.join(partial(step));
        fs::create_dir(&path).map_err(|error| unwritable(&path, &error))?;
        Ok(Self { folder, step, checksums: Checksums::default(), open: true })
    }

    /// Writes a file.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.path(name);
        let unwritable = |error: io::Error| unwritable(&path, &error);
        self.add_by(name, |file| file.write_all(content).map_err(unwritable))
    }

    /// Writes a file as `content` does.
    pub(super) fn add_by(
        &mut self,
        name: &str,
        content: impl FnOnce(&mut NewFile) -> Result<()>,
    ) -> Result<()> {
        let path = self.path(name);
        let mut file = NewFile::create(&path).map_err(|error| unwritable(&path, &error))?;
        content(&mut file).map_err(|error| error.in_file(&path))?;
        let hash = file.finish().map_err(|error| unwritable(&path, &error))?;
        self.checksums.add(name, hash);
        Ok(())
    }

    /// Gives the checkpoint its name, in place of one that has it.
    pub(super) fn finish(mut self) -> Result<PathBuf> {
        self.add(CHECKSUMS, self.checksums.text().as_bytes())?;
        let path = self.folder.join(finished(self.step));
        self.put_in_place().map_err(|error| unwritable(&path, &error))?;
        self.open = false;
        Ok(path)
    }

    fn put_in_place(&self) -> io::Result<()> {
        let (folder, step) = (self.folder, self.step);
        let (partial, finished, replaced) = (partial(step), finished(step), replaced(step));
        disk::sync_folder(&folder.join(&partial))?;
        if !folder.join(&finished).exists() {
            return disk::rename(folder, &partial, &finished);
        }
        // No system renames onto a folder with files. If this ends between the two renames, the
        // folder's next opening gives the old one its name back.
        disk::rename(folder, &finished, &replaced)?;
        disk::rename(folder, &partial, &finished)?;
        fs::remove_dir_all(folder.join(&replaced))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(partial(self.step)).join(name)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if self.open {
            // Whatever stays is cleared when the folder is opened again.
            let _ = fs::remove_dir_all(self.folder.join(partial(self.step)));
        }
    }
}
