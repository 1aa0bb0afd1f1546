//! Burn's devices.

use burn::tensor::Device;

use super::BurnEngine;
use crate::engine::{Engine, EngineDevice, EngineSetup};
use crate::error::Result;

/// A device of Burn; the `cpu` of lists is its Flex device, on one thread.
#[derive(Debug)]
pub struct BurnDevice {
    name: String,
    device: Device,
}

impl BurnDevice {
    /// `device`, which is called `name`.
    pub fn new(name: String, device: Device) -> Self {
        Self { name, device }
    }
}

impl EngineDevice for BurnDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn hardware(&self) -> String {
        format!("{:?}", self.device)
    }

    fn is_in_host_memory(&self) -> bool {
        self.device == Device::flex()
    }

    fn engine(&mut self, setup: EngineSetup) -> Result<Box<dyn Engine>> {
        Ok(Box::new(BurnEngine::new(self.device.clone(), setup)))
    }
}
