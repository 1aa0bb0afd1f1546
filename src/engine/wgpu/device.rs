//! Queues of GPUs as devices of a pipeline.

use super::layout::{Layout, lay_out};
use super::{Context, Gpu, WgpuEngine};
use crate::engine::device::no_halves;
use crate::engine::{Engine, EngineDevice, EngineSetup, Precision};
use crate::error::Result;
use crate::plan::BufferBytes;

/// A queue of a GPU, through wgpu.
#[derive(Debug)]
pub struct WgpuDevice {
    name: String,
    gpu: Gpu,
    /// None before it was opened.
    limits: Option<super::AdapterLimits>,
    /// None where an engine has it.
    context: Option<Context>,
}

impl WgpuDevice {
    /// A queue of `gpu`, which is called `name`.
    pub fn new(name: String, gpu: Gpu) -> Self {
        Self { name, gpu, limits: None, context: None }
    }

    fn layout(&self, setup: &EngineSetup) -> Layout {
        let EngineSetup { split, stages, limits, rule, activations, .. } = setup;
        let of_adapter = self.limits.expect("it was opened");
        lay_out(split, stages, limits, rule, *activations, of_adapter)
    }
}

impl EngineDevice for WgpuDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn hardware(&self) -> String {
        self.gpu.adapter().unwrap_or_else(|| self.name.clone())
    }

    fn open(&mut self, activations: Precision) -> Result<()> {
        let context = Context::open(self.gpu.clone(), &self.name)?;
        if activations == Precision::F16 && !context.has_halves() {
            return Err(no_halves(&self.name));
        }
        self.limits = Some(context.limits());
        self.context = Some(context);
        Ok(())
    }

    fn buffers(&self, setup: &EngineSetup) -> Option<BufferBytes> {
        Some(self.layout(setup).bytes())
    }

    fn engine(&mut self, setup: EngineSetup) -> Result<Box<dyn Engine>> {
        let layout = self.layout(&setup);
        let context = match self.context.take() {
            Some(context) => context,
            None => Context::open(self.gpu.clone(), &self.name)?,
        };
        Ok(Box::new(WgpuEngine::new(context, setup, layout)?))
    }
}
