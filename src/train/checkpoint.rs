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
mod resume;
mod tensors;

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use folder::{Checkpoints, Newest};

use crate::error::{Error, ErrorKind, Result};
use checksums::Checksums;
use manifest::Manifest;
use tensors::Tensors;

const WEIGHTS: &str = "weights.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const PLAN: &str = "plan.txt";
const MANIFEST: &str = "manifest.json";
const CHECKSUMS: &str = "checksums.xxh128";

/// What is covered by the checksums.
const FILES: [&str; 4] = [WEIGHTS, OPTIMIZER, PLAN, MANIFEST];

/// A checkpoint that was read and found whole.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    manifest: Manifest,
    weights: Tensors,
    optimizer: Tensors,
}

impl Checkpoint {
    /// Reads the checkpoint in folder `path`.
    ///
    /// # Errors
    ///
    /// When a file is missing, or its content is not what was written.
    pub fn read(path: &Path) -> Result<Self> {
        let read = |name: &str| {
            let file = path.join(name);
            fs::read(&file).map_err(|error| {
                Error::new(ErrorKind::Io, format!("cannot be read: {error}")).in_file(file)
            })
        };
        let sums = Checksums::parse(&read(CHECKSUMS)?);
        let sums = sums.map_err(|error| error.in_file(path.join(CHECKSUMS)))?;
        let whole = |name: &str| {
            let bytes = read(name)?;
            sums.check(name, &bytes).map_err(|error| error.in_file(path.join(name)))?;
            Ok(bytes)
        };
        let [weights, optimizer, plan, manifest] = FILES.map(whole);
        plan?;
        let tensors = |bytes: Result<Vec<u8>>, name: &str| {
            Tensors::parse(&bytes?).map_err(|error| error.in_file(path.join(name)))
        };
        let manifest = Manifest::parse(&manifest?);
        Ok(Self {
            weights: tensors(weights, WEIGHTS)?,
            optimizer: tensors(optimizer, OPTIMIZER)?,
            manifest: manifest.map_err(|error| error.in_file(path.join(MANIFEST)))?,
            path: path.to_owned(),
        })
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
            Error::data(format!("its note is not this program's: {error}"))
                .in_file(self.path.join(MANIFEST))
                .hint("the program that saved it, or another folder")
        })
    }
}
