//! What a device is before it has stages.

use std::fmt;

use super::{Engine, EngineSetup, Precision};
use crate::error::{Error, Result};
use crate::plan::BufferBytes;

/// A device that stages can be put on: how it is called, opened, and made an engine.
///
/// A device around another one forwards every method, those with a default too.
///
/// [`devices`](super::devices) gives those of this crate;
/// [`custom_devices`](crate::train::TrainerBuilder::custom_devices) takes any.
pub trait EngineDevice: fmt::Debug + Send {
    /// Its name in errors and reports, such as `cpu:0`.
    fn name(&self) -> &str;

    /// What computes. Devices of the same hardware, such as the queues of one adapter, are taken to
    /// be equally fast: one of them is measured.
    fn hardware(&self) -> String {
        self.name().to_owned()
    }

    /// Opens it. Comes once, before a plan is made; what was opened stays so.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or does not store activations like this. Where this is not
    /// overridden, it stores f32 only.
    fn open(&mut self, activations: Precision) -> Result<()> {
        match activations {
            Precision::F32 => Ok(()),
            Precision::F16 => Err(no_halves(self.name())),
        }
    }

    /// What the engine of `setup` makes before the first step, to the byte; none where it takes
    /// memory as it needs it.
    fn buffers(&self, setup: &EngineSetup) -> Option<BufferBytes> {
        let _ = setup;
        None
    }

    /// Whether its memory is the host's own, which all such devices and the program share.
    fn is_in_host_memory(&self) -> bool {
        false
    }

    /// An engine with the stages of `setup`. Comes more than once where blocks are measured, each
    /// time after the last engine was dropped.
    ///
    /// # Errors
    ///
    /// When the device has too little memory, or does not run these stages.
    fn engine(&mut self, setup: EngineSetup) -> Result<Box<dyn Engine>>;
}

pub(super) fn no_halves(device: &str) -> Error {
    Error::config(format!("{device} stores no activations as f16"))
        .hint("`activations(f32)`, or only GPUs that are listed with f16")
}
