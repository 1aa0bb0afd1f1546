//! Checkpoints: all that a run continues from, in files that other programs can read.
//!
//! ```text
//! FOLDER/step-00000050/
//!     weights.safetensors      parameters, by their path in the module
//!     optimizer.safetensors    what the optimizer remembers of each, by path and name
//!     plan.txt                 the plan that was followed
//!     manifest.json            step, seed, settings, and what the caller noted
//!     checksums.xxh128         of these four, as xxh128sum prints and checks them
//! ```
//!
//! A folder of that name is whole: it was written under another one, made durable and renamed.

mod checksums;
mod disk;
mod draft;
mod folder;
mod manifest;
mod names;
mod order;
mod resume;
mod tensors;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use folder::{Checkpoints, Newest};

use crate::error::{Error, ErrorKind, Result};
use checksums::Checksums;
use manifest::Manifest;
use names::{finished, step_of};
use tensors::SavedTensors;

const WEIGHTS: &str = "weights.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const PLAN: &str = "plan.txt";
const MANIFEST: &str = "manifest.json";
const CHECKSUMS: &str = "checksums.xxh128";

/// What is covered by the checksums.
const FILES: [&str; 4] = [WEIGHTS, OPTIMIZER, PLAN, MANIFEST];

/// Bytes of the largest list of checksums, and of the largest manifest, that are read.
const LARGEST_CHECKSUMS: u64 = 1 << 16;
const LARGEST_MANIFEST: u64 = 1 << 26;

/// A checkpoint that was read and can be continued from.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    manifest: Manifest,
    weights: SavedTensors,
    optimizer: SavedTensors,
}

impl Checkpoint {
    /// Reads the checkpoint in folder `path`. Its tensors stay in their files until a trainer
    /// resumes it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Data`] when it is broken: a file is missing, or its content is not what was
    /// written. [`ErrorKind::NotUnderstood`] when it is what was written, but of a form that this
    /// version does not know. [`ErrorKind::NotFinite`] when one of its numbers is not finite.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_whole(path).map_err(shortened)
    }

    fn read_whole(path: &Path) -> Result<Self> {
        let at = |name: &str| path.join(name);
        let sums = disk::read_small(&at(CHECKSUMS), LARGEST_CHECKSUMS);
        let sums = sums.and_then(|text| Checksums::parse(&text));
        let sums = sums.map_err(|error| error.in_file(at(CHECKSUMS)))?;
        sums.check(path)?;
        let manifest = Self::manifest(path)?;
        if let Some(missing) = FILES.iter().find(|name| !sums.has(name)) {
            let problem = format!("it has no {missing}, and {} wrote it", manifest.writer());
            return Err(Error::new(ErrorKind::NotUnderstood, problem)
                .in_file(path)
                .hint("that version, or another folder"));
        }
        let tensors = |name: &str| {
            let opened = SavedTensors::open(&at(name)).map_err(|error| {
                let problem = format!("{}; {} wrote it", error.problem, manifest.writer());
                Error { problem, ..error }.hint("that version, or another folder")
            });
            opened.map_err(|error| error.in_file(at(name)))
        };
        let (weights, optimizer) = (tensors(WEIGHTS)?, tensors(OPTIMIZER)?);
        for (name, of) in [(WEIGHTS, &weights), (OPTIMIZER, &optimizer)] {
            of.check_finite().map_err(|error| error.in_file(at(name)))?;
        }
        Ok(Self { path: path.to_owned(), manifest, weights, optimizer })
    }

    /// The small numbers of the checkpoint in folder `path`.
    fn manifest(path: &Path) -> Result<Manifest> {
        let file = path.join(MANIFEST);
        let text = disk::read_small(&file, LARGEST_MANIFEST);
        let manifest = text.and_then(|text| Manifest::parse(&text));
        let manifest = manifest.map_err(|error| error.in_file(&file))?;
        let name = path.file_name().and_then(|name| name.to_str());
        match name.and_then(|name| step_of(name, finished)) {
            Some(step) if step != manifest.step => {
                let problem =
                    format!("a checkpoint of step {} in a folder of {step}", manifest.step);
                Err(Error::new(ErrorKind::NotUnderstood, problem)
                    .in_file(file)
                    .hint(format!("its own name, {}", finished(manifest.step))))
            }
            _ => Ok(manifest),
        }
    }

    /// The folder that it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Steps that had been done.
    pub fn step(&self) -> u64 {
        self.manifest.step
    }

    /// What the caller noted when it was saved.
    ///
    /// # Errors
    ///
    /// When it is not a `T`.
    pub fn note<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.manifest.note).map_err(|error| {
            let writer = self.manifest.writer();
            let problem = format!("its note is not this program's: {error}; {writer} wrote it");
            Error::new(ErrorKind::NotUnderstood, short(&problem))
                .in_file(self.path.join(MANIFEST))
                .hint("the program and the version that saved it, or another folder")
        })
    }
}

/// The error with texts that can be read: what it quotes of a file may be as long as the file.
fn shortened(error: Error) -> Error {
    Error { problem: short(&error.problem), hint: short(&error.hint), ..error }
}

/// The text, or its beginning and its end.
fn short(text: &str) -> String {
    const BEGINNING: usize = 300;
    const END: usize = 100;
    let mut places = text.char_indices().map(|(at, _)| at);
    let (Some(beginning), Some(end)) =
        (places.nth(BEGINNING), text.char_indices().map(|(at, _)| at).rev().nth(END - 1))
    else {
        return text.to_owned();
    };
    match end > beginning {
        true => format!("{} ... {}", &text[..beginning], &text[end..]),
        false => text.to_owned(),
    }
}
