//! The devices of a run: opened before the plan is made, loaded after it was found to fit.

use std::sync::Arc;

use burn::tensor::Device;
use burn_dispatch::DispatchTensor;

use crate::engine::wgpu::{Context, Layout, WgpuEngine, lay_out};
use crate::engine::{
    BurnEngine, DeviceKind, Engine, EngineSetup, NamedDevice, Precision, StageSetup, UpdateRule,
};
use crate::error::{Error, Result};
use crate::plan::{DeviceId, Placement, StashLimits};
use crate::split::Split;

/// A device that was opened and holds nothing yet.
pub(super) enum Opened {
    Burn(Device),
    Wgpu(Context),
}

/// A device, its stages, and where they will be if that is known beforehand.
pub(super) struct Prepared {
    opened: Opened,
    stages: Vec<StageSetup>,
    layout: Option<Layout>,
}

/// What all engines are made from.
pub(super) struct Common {
    pub split: Arc<Split>,
    pub values: Arc<Vec<DispatchTensor>>,
    pub microbatches: u32,
    pub seed: u64,
    pub rule: UpdateRule,
}

/// Opens the devices, each of which has to store activations like this.
pub(super) fn open(devices: Vec<NamedDevice>, activations: Precision) -> Result<Vec<Opened>> {
    let halves = activations == Precision::F16;
    let open = |NamedDevice { name, kind }| {
        Ok(match kind {
            DeviceKind::Burn(_) if halves => return Err(no_halves(&name)),
            DeviceKind::Burn(device) => Opened::Burn(device),
            DeviceKind::Wgpu(gpu) => {
                let context = Context::open(gpu, &name)?;
                if halves && !context.has_halves() {
                    return Err(no_halves(&name));
                }
                Opened::Wgpu(context)
            }
        })
    };
    devices.into_iter().map(open).collect()
}

fn no_halves(device: &str) -> Error {
    Error::config(format!("{device} stores no activations as f16"))
        .hint("--activations f32, or only GPUs that zerobubble devices lists with f16")
}

/// Lays out the buffers of every device that makes them beforehand, for as many microbatches at
/// once as `limits` allow.
pub(super) fn layouts(
    devices: &[Opened],
    setups: &[StageSetup],
    placement: &Placement,
    limits: &StashLimits,
    split: &Split,
    rule: &UpdateRule,
    activations: Precision,
) -> Vec<Option<Layout>> {
    let layout = |(device, opened): (u32, &Opened)| match opened {
        Opened::Burn(_) => None,
        Opened::Wgpu(context) => {
            let stages = stages_of(DeviceId(device), setups, placement);
            Some(lay_out(split, &stages, limits, rule, activations, context.limits()))
        }
    };
    (0..).zip(devices).map(layout).collect()
}

/// Gives every device its stages and where they will be.
pub(super) fn prepare(
    opened: Vec<Opened>,
    layouts: Vec<Option<Layout>>,
    setups: &[StageSetup],
    placement: &Placement,
) -> Vec<Prepared> {
    let devices = (0u32..).map(DeviceId).zip(opened).zip(layouts);
    devices
        .map(|((device, opened), layout)| {
            let stages = stages_of(device, setups, placement);
            Prepared { opened, stages, layout }
        })
        .collect()
}

fn stages_of(device: DeviceId, setups: &[StageSetup], placement: &Placement) -> Vec<StageSetup> {
    let here = |of: &&StageSetup| placement.device(of.stage) == device;
    setups.iter().filter(here).cloned().collect()
}

impl Prepared {
    /// Loads the device.
    pub(super) fn engine(self, common: &Common) -> Result<Box<dyn Engine>> {
        let setup = EngineSetup {
            split: common.split.clone(),
            stages: self.stages,
            values: common.values.clone(),
            microbatches: common.microbatches,
            seed: common.seed,
            rule: common.rule,
        };
        Ok(match (self.opened, self.layout) {
            (Opened::Wgpu(context), Some(layout)) => {
                Box::new(WgpuEngine::new(context, setup, layout)?)
            }
            (Opened::Burn(device), _) => Box::new(BurnEngine::new(device, setup)),
            (Opened::Wgpu(_), None) => unreachable!("a wgpu device was laid out"),
        })
    }
}
