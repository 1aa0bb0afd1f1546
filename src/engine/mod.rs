//! Engines play the [`Program`]s of a device's stages.

mod burn;
mod device;
mod devices;
pub(crate) mod kernels;
mod null;
mod observe;
mod optimizer;
mod precision;
mod shadow;
mod update;
mod waiting;
pub mod wgpu;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::burn::{BurnDevice, BurnEngine, reference, tolerance};
pub use crate::loss::MicrobatchLoss;
pub use burn_dispatch::DispatchTensor;
pub use device::EngineDevice;
pub use devices::devices;
pub use null::NullEngine;
pub use observe::{Observer, Shown};
pub use optimizer::{AdamW, Decayed, Momentum, Optimizer, Sgd};
pub use precision::Precision;
pub(crate) use shadow::shadowed;
pub use update::{Clipping, PartialSums, Update, UpdateRule};
pub use waiting::WaitingEngine;

use crate::compile::{Accumulator, Program};
use crate::error::{Error, Result};
use crate::graph::ParameterId;
use crate::plan::{Action, StageId, StashLimits};
use crate::split::Split;

/// Actions that a device may have under way: one that it computes and one that comes right after.
pub const IN_FLIGHT: usize = 2;

/// A device, used by one thread: it computes the actions of its stages, and owns parameters.
///
/// Values that pass between engines are Burn tensors on any device; an engine that does not
/// compute on Burn's devices hands over tensors of Burn's host device, Flex.
pub trait Engine: Compute {
    /// The half that owns parameters: itself, or an engine within.
    fn owner(&mut self) -> &mut dyn OwnParameters;
}

/// The computing half of an [`Engine`]. What is not overridden is that of a device that computes at
/// once, so an engine around another one forwards every method.
pub trait Compute: Send {
    /// Takes the inputs of a step, by microbatch and [`InputId`](crate::graph::InputId), and clears
    /// all gradients. Every device gets a handle to all inputs, and moves to itself only those that
    /// its stages read.
    ///
    /// # Errors
    ///
    /// When the device has failed.
    fn begin_step(&mut self, step: u64, inputs: &StepInputs) -> Result<()>;

    /// Takes the inputs of an evaluation, of any number of microbatches. Until the next step there
    /// is F only, in which every op gives what it gives in an evaluation. It replaces no state and
    /// leaves nothing behind.
    ///
    /// # Errors
    ///
    /// When the device has failed.
    fn begin_evaluation(&mut self, inputs: &StepInputs) -> Result<()> {
        self.begin_step(0, inputs)
    }

    /// Starts `action` on what the neighbouring stage sent, if it sends. At most [`IN_FLIGHT`] are
    /// under way at once; they end in the order in which they were started. A device that
    /// computes at once gives the outcome. One that does not may be given the next stage's action
    /// before this one has ended, if it holds that stage too: then nothing arrives, and it keeps
    /// for itself what passes between the two.
    ///
    /// # Errors
    ///
    /// When the device has failed, or the inputs are none that the model can take.
    fn start(&mut self, action: Action, arrived: Parcel) -> Result<Option<Outcome>>;

    /// The outcome of the oldest action under way; none if it takes longer than `timeout`. A device
    /// that computes at once is not asked.
    ///
    /// # Errors
    ///
    /// When the device has failed.
    fn finish(&mut self, timeout: Duration) -> Result<Option<Outcome>> {
        let _ = timeout;
        Err(Error::run("the engine started an action, and does not say when it has ended")
            .hint("an engine that overrides `Compute::finish`, or gives the outcome in `start`"))
    }

    /// Shows `observer` everything that actions compute from now on, as soon as it is computed; all
    /// of an action before [`start`](Self::start) returns. What is computed stays the same bits.
    ///
    /// # Errors
    ///
    /// When the device cannot, as where this is not overridden.
    fn observe(&mut self, observer: Observer) -> Result<()> {
        drop(observer);
        Err(Error::config("the engine does not show what it computes, so it has no shadow")
            .hint("an engine that overrides `Compute::observe`, or no shadow"))
    }

    /// Waits until everything that was started has ended, so that it can be timed.
    ///
    /// # Errors
    ///
    /// When the device has failed.
    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    /// Most bytes held at once since the engine was made.
    fn peak_bytes(&self) -> u64 {
        0
    }
}

/// The owning half of an [`Engine`]: parameters, their gradients and the optimizer's state. What is
/// not overridden is that of a device without parameters.
///
/// At the end of a step devices that share a parameter reduce its partial sums at the owner, which
/// updates it and broadcasts the new value.
pub trait OwnParameters {
    /// Partial sums of gradients that it sends to other devices and awaits from them.
    fn partial_sums(&mut self) -> PartialSums {
        PartialSums::default()
    }

    /// Takes the partial sums of parameters that another device updates, at the end of a step.
    ///
    /// # Errors
    ///
    /// When the device has failed.
    fn take_partial_sums(&mut self) -> Result<Vec<(Accumulator, DispatchTensor)>> {
        Ok(Vec::new())
    }

    /// Adds the partial sums that other devices sent to the gradients of the parameters that it
    /// owns, which are then those of the step.
    ///
    /// # Errors
    ///
    /// When the device has failed.
    fn reduce(&mut self, sums: &[(Accumulator, DispatchTensor)]) -> Result<()> {
        let _ = sums;
        Ok(())
    }

    /// The square of the norm of the gradient of every parameter that it owns. Each is a sum in one
    /// order, wherever the parameter is.
    ///
    /// # Errors
    ///
    /// When the device has failed.
    fn squared_norms(&mut self) -> Result<Vec<(ParameterId, f64)>> {
        Ok(Vec::new())
    }

    /// Updates the parameters that it owns with their gradients, and gives those that other devices
    /// use too.
    ///
    /// # Errors
    ///
    /// When the device has failed.
    fn update(&mut self, update: &Update) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        let _ = update;
        Ok(Vec::new())
    }

    /// Undoes a provisional update, to the bit.
    ///
    /// # Errors
    ///
    /// When the device has failed.
    fn undo(&mut self) -> Result<()> {
        Ok(())
    }

    /// Takes new values of parameters that another device updates.
    ///
    /// # Errors
    ///
    /// When the device has failed.
    fn set_parameters(&mut self, values: &[(ParameterId, DispatchTensor)]) -> Result<()> {
        let _ = values;
        Ok(())
    }

    /// Values of those of some different parameters that are on this device. Devices that share one
    /// have the same. They do not change when the device goes on, and may be in its own memory:
    /// then the next update makes new ones of its own.
    ///
    /// # Errors
    ///
    /// When the device has failed.
    fn parameters(&mut self, of: &[ParameterId]) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        let _ = of;
        Ok(Vec::new())
    }

    /// Those of some different parameters that this device owns, with what the optimizer remembers
    /// of them.
    ///
    /// # Errors
    ///
    /// When the device has failed.
    fn state(&mut self, of: &[ParameterId]) -> Result<Vec<(ParameterId, ParameterState)>> {
        let _ = of;
        Ok(Vec::new())
    }

    /// Continues from a state of all parameters. Comes between two steps.
    ///
    /// # Errors
    ///
    /// When the device has failed.
    fn restore(&mut self, state: &[(ParameterId, ParameterState)]) -> Result<()> {
        let _ = state;
        Ok(())
    }
}

/// A parameter, and what the optimizer remembers of it.
#[derive(Debug, Clone)]
pub struct ParameterState {
    /// The parameter's value.
    pub value: DispatchTensor,
    /// The optimizer's tensors of the same shape; none for a parameter that is not trained.
    pub moments: Vec<DispatchTensor>,
    /// Updates so far.
    pub updates: u64,
}

/// Inputs of a step, by microbatch and input.
pub type StepInputs = Arc<Vec<Vec<DispatchTensor>>>;

/// Activations or gradients on their way from one stage to the next, in the program's order.
pub type Parcel = Vec<DispatchTensor>;

/// What an action yields besides its stash.
#[derive(Debug, Default)]
pub struct Outcome {
    /// For the neighbouring stage, where the action sends.
    pub parcel: Parcel,
    /// Loss of the microbatch, from the last stage's F.
    pub loss: Option<MicrobatchLoss>,
    /// A loss that is not finite, or an activation that is NaN. The action went on with it.
    pub fault: Option<Error>,
    /// How long the device itself says that it took.
    pub seconds: Option<f64>,
    /// When the device itself says that it ended: its thread may learn of it later.
    pub ended: Option<Instant>,
    /// When parcels were moved between the host and the device.
    pub transfers: Vec<(Instant, Instant)>,
}

/// Data of any rank and kind as a tensor of Burn's host device.
pub(crate) fn host_tensor(data: burn_backend::TensorData) -> DispatchTensor {
    use burn_backend::ops::{BoolTensorOps, FloatTensorOps, IntTensorOps};
    use burn_dispatch::{Dispatch, DispatchDevice};

    let device = DispatchDevice::Flex(burn_flex::FlexDevice);
    let dtype = data.dtype();
    if dtype.is_float() {
        <Dispatch as FloatTensorOps<Dispatch>>::float_from_data(data, &device)
    } else if dtype.is_bool() {
        <Dispatch as BoolTensorOps<Dispatch>>::bool_from_data(data, &device)
    } else {
        <Dispatch as IntTensorOps<Dispatch>>::int_from_data(data, &device)
    }
}

/// A tensor's numbers.
pub(crate) fn floats(tensor: DispatchTensor) -> Vec<f32> {
    let data = ::burn::tensor::Tensor::<1>::from_dispatch(tensor).into_data();
    data.try_to_vec().unwrap_or_else(|_| data.iter().collect())
}

/// Everything an engine is made from: a device's stages and what they start with.
#[derive(Debug, Clone)]
pub struct EngineSetup {
    /// The split model.
    pub split: Arc<Split>,
    /// The stages of the device.
    pub stages: Vec<StageSetup>,
    /// How many microbatches are on the stages at once, at most.
    pub limits: StashLimits,
    /// How activations are stored between kernels.
    pub activations: Precision,
    /// Initial values of the parameters of its stages. An engine takes each out as it loads it, so
    /// that no model is in memory twice.
    pub values: HashMap<ParameterId, DispatchTensor>,
    /// Microbatches of a step.
    pub microbatches: u32,
    /// Seed of dropout.
    pub seed: u64,
    /// How parameters are updated.
    pub rule: UpdateRule,
}

/// Those of all `values` that `stages` use.
pub(crate) fn values_of(
    stages: &[StageSetup],
    values: &[DispatchTensor],
) -> HashMap<ParameterId, DispatchTensor> {
    let used = stages.iter().flat_map(|stage| &stage.program.parameters);
    used.map(|&id| (id, values[id.index()].clone())).collect()
}

/// One stage of a device.
#[derive(Debug, Clone)]
pub struct StageSetup {
    /// Which stage.
    pub stage: StageId,
    /// The blocks that it is made of.
    pub blocks: std::ops::Range<usize>,
    /// What it computes.
    pub program: Program,
    /// Parameters that this stage updates: those that no earlier stage uses.
    pub owned: Vec<ParameterId>,
    /// Owned parameters that other devices use too.
    pub shared: Vec<ParameterId>,
}
