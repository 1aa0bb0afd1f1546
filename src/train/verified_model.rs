//! What is known of a model before it is placed: its blocks, what they cost, and proof that they
//! compute its loss.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_dispatch::DispatchTensor;

use super::inputs;
use super::stages::setups;
use crate::batch::Batch;
use crate::capture::{EagerLoss, capture, eager_loss, norm, read, verify_gradient, verify_loss};
use crate::differentiate::differentiate;
use crate::engine::{
    BurnEngine, Compute, EngineSetup, Outcome, Parcel, Precision, StageSetup, StepInputs,
    UpdateRule, host_tensor,
};
use crate::error::{Error, Result, panic_message};
use crate::graph::ParameterId;
use crate::plan::{Action, DeviceId, MicrobatchId, Placement, StageId, StashLimits, Work};
use crate::split::{Split, split};
use crate::train::{Optimizer, Sgd};

/// A model that was captured and split, and does what the module does.
pub(super) struct VerifiedModel {
    pub split: Arc<Split>,
    /// Initial values of all parameters, by [`ParameterId`].
    pub values: Arc<Vec<DispatchTensor>>,
    /// One microbatch, the example.
    pub inputs: StepInputs,
    pub runner: BlockRunner,
}

/// Captures `model` on `example`, splits it for steps of `microbatches`, and compares the loss and
/// the gradients of its blocks with the module's own.
pub(super) fn verified_model<M, B, L>(
    model: &M,
    loss: &L,
    example: &B,
    microbatches: u32,
    seed: u64,
) -> Result<VerifiedModel>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> Tensor<1>,
{
    let inputs = inputs::microbatches(example.clone(), &inputs::shapes(example), 1)?;
    let scale = 1.0 / f64::from(microbatches);
    let graph = capture(model, loss, example)?;
    let split = Arc::new(split(differentiate(graph, scale)?)?);
    let values = Arc::new(read(model).into_iter().map(host_tensor).collect());
    let eager = eager_loss(model, loss, example, seed)?;
    let mut runner = BlockRunner::new(&split, &values, &inputs, seed)?;
    runner.verify(&split, scale, &eager)?;
    Ok(VerifiedModel { split, values, inputs, runner })
}

/// Every block as a stage of its own, all on one device.
pub(super) fn single_blocks(split: &Split) -> Vec<StageSetup> {
    let blocks = split.blocks.len();
    let stage_blocks: Vec<_> = (0..blocks).map(|block| block..block + 1).collect();
    let placement = Placement { stages: vec![DeviceId(0); blocks] };
    setups(split, &stage_blocks, &placement, &plain_sgd(), &[])
}

/// A device with these stages, for one microbatch.
pub(super) fn setup(
    split: &Arc<Split>,
    values: &Arc<Vec<DispatchTensor>>,
    stages: Vec<StageSetup>,
    seed: u64,
) -> EngineSetup {
    let one = vec![1; split.blocks.len()];
    EngineSetup {
        split: split.clone(),
        stages,
        limits: StashLimits { segments: one.clone(), backward: one, devices: vec![1] },
        activations: Precision::F32,
        values: values.clone(),
        microbatches: 1,
        seed,
        rule: plain_sgd(),
    }
}

/// The rule of devices that update nothing.
fn plain_sgd() -> UpdateRule {
    Optimizer::from(Sgd::default()).into()
}

/// What the neighbours of a block send to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Arrived {
    pub activations: Parcel,
    /// Of the block's output.
    pub gradients: Parcel,
}

/// One device that holds every block as a stage of its own.
pub(super) struct BlockRunner {
    engine: BurnEngine,
    blocks: usize,
}

impl BlockRunner {
    fn new(
        split: &Arc<Split>,
        values: &Arc<Vec<DispatchTensor>>,
        inputs: &StepInputs,
        seed: u64,
    ) -> Result<Self> {
        let setup = setup(split, values, single_blocks(split), seed);
        let mut engine = BurnEngine::new(Device::flex(), setup);
        engine.begin_step(0, inputs)?;
        Ok(Self { engine, blocks: split.blocks.len() })
    }

    /// Compares the blocks' loss and gradients with the module's own. Gradients are those of
    /// `scale` times the loss.
    fn verify(&mut self, split: &Split, scale: f64, eager: &EagerLoss) -> Result<()> {
        let (loss, _) = self.run()?;
        let loss = loss.expect("the block that computes the loss has run");
        verify_loss(f64::from(loss), eager)?;
        let sizes = eager.gradients.iter().flatten().map(|of| norm(of.iter().copied()));
        let largest = sizes.fold(0.0, f64::max);
        let captured: HashMap<ParameterId, DispatchTensor> =
            self.engine.gradients().into_iter().collect();
        let parameters = &split.joint.graph.parameters;
        for (position, (parameter, eager)) in parameters.iter().zip(&eager.gradients).enumerate() {
            let of = captured.get(&ParameterId(position as u32)).cloned();
            let of: Vec<f32> = of.map_or_else(Vec::new, |gradient| {
                let data = Tensor::<1>::from_dispatch(gradient).into_data();
                data.iter::<f32>().map(|x| (f64::from(x) / scale) as f32).collect()
            });
            let zeros = vec![0.0; eager.as_ref().map_or(0, Vec::len)];
            let of = if of.is_empty() { &zeros } else { &of };
            verify_gradient(&parameter.path, of, eager.as_deref(), largest)?;
        }
        Ok(())
    }

    /// Gradients summed over the runs so far, of the parameters that have one.
    pub(super) fn gradients(&self) -> Vec<(ParameterId, DispatchTensor)> {
        self.engine.gradients()
    }

    /// What arrives at every block for F and for B.
    pub(super) fn arrivals(&mut self) -> Result<Vec<Arrived>> {
        self.run().map(|(_, arrivals)| arrivals)
    }

    /// Runs one microbatch through all blocks; gives its loss and what arrived at every block.
    fn run(&mut self) -> Result<(Option<f32>, Vec<Arrived>)> {
        let mut arrivals = vec![Arrived::default(); self.blocks];
        let mut loss = None;
        let mut parcel = Parcel::new();
        for (block, arrived) in arrivals.iter_mut().enumerate() {
            arrived.activations = parcel.clone();
            let outcome = self.act(block, Work::F, parcel)?;
            (parcel, loss) = (outcome.parcel, outcome.loss.or(loss));
        }
        parcel = Parcel::new();
        for (block, arrived) in arrivals.iter_mut().enumerate().rev() {
            arrived.gradients = parcel.clone();
            parcel = self.act(block, Work::B, parcel)?.parcel;
            self.act(block, Work::W, Parcel::new())?;
        }
        Ok((loss, arrivals))
    }

    fn act(&mut self, block: usize, work: Work, parcel: Parcel) -> Result<Outcome> {
        let action = Action::new(StageId(block as u32), work, MicrobatchId(0));
        let outcome = catch_unwind(AssertUnwindSafe(|| self.engine.start(action, parcel)))
            .unwrap_or_else(|panic| Err(Error::run(panic_message(&*panic)).in_action(action)))?;
        let mut outcome = outcome.expect("a CPU device computes at once");
        outcome.fault.take().map_or(Ok(outcome), Err)
    }
}
