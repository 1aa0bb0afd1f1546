//! What is known of a model before it is placed: its blocks, what they cost, and proof that they
//! compute its loss.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::Device;
use burn_dispatch::DispatchTensor;

use super::build_phase::{BuildPhase, Phases};
use super::inputs;
use super::stages::setups;
use crate::batch::Batch;
use crate::capture::{
    Captured, CapturedRun, Rounding, captured, eager_run, read, rounding, verify,
};
use crate::differentiate::differentiate;
use crate::engine::{
    BurnEngine, Compute, EngineSetup, MicrobatchLoss, Outcome, Parcel, Precision, StageSetup,
    StepInputs, UpdateRule, floats, values_of,
};
use crate::error::{Result, of_panic, quietly};
use crate::graph::{
    Binary, DType, Elementwise, Graph, Leaf, NodeId, Op, Parameter, ParameterId, Scalar, State,
    prune,
};
use crate::loss::IntoLoss;
use crate::plan::{Action, DeviceId, MicrobatchId, Placement, StageId, StashLimits, Work};
use crate::split::{Split, split};
use crate::train::{Optimizer, Sgd};

/// A model that was captured and split, and does what the module does.
pub(super) struct VerifiedModel {
    /// As it was captured.
    pub graph: Graph,
    pub split: Arc<Split>,
    /// Initial values of all parameters, by [`ParameterId`].
    pub values: Vec<DispatchTensor>,
    /// One microbatch, the example.
    pub inputs: StepInputs,
    /// Whether it does in an evaluation what the module does in inference.
    pub infers: bool,
    pub runner: BlockRunner,
}

/// Captures `model` on `example`, splits it for steps of `microbatches`, and compares the loss and
/// the gradients of its blocks with the module's own.
pub(super) fn verified_model<M, B, L, R>(
    model: &M,
    loss_of: &L,
    example: &B,
    microbatches: u32,
    seed: u64,
    phases: &mut Phases,
) -> Result<VerifiedModel>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> R,
    R: IntoLoss,
{
    let inputs = inputs::microbatches(example.clone(), &inputs::shapes(example), 1)?;
    phases.begin(BuildPhase::Capture);
    let Captured { graph, draws, infers, running } = captured(model, loss_of, example)?;
    let scale = scale(&graph, microbatches);
    let values = read(model);
    let split = split_for(&graph, microbatches)?;
    phases.begin(BuildPhase::Verify);
    let eager = eager_run(model, loss_of, example, &draws, &running)?;
    let mut runner = BlockRunner::new(&split, &values, &inputs, seed)?;
    let paths: Vec<&str> = graph.parameters.iter().map(|of| of.path.as_str()).collect();
    let compared = |runner: &mut BlockRunner| -> Result<()> {
        let (loss, _) = runner.run()?;
        let loss = loss.expect("the block that computes the loss has run");
        let gradient = |at| runner.gradient(ParameterId(at as u32), scale);
        let parameter = |at| runner.parameter(ParameterId(at as u32));
        let run = CapturedRun { loss, gradient: &gradient, parameter: &parameter };
        // What rounding explains is computed where it is asked for.
        if verify(&paths, &run, &eager, &Rounding::default()).is_err() {
            let rounding = rounding(model, loss_of, example, &draws, &running, &eager)?;
            verify(&paths, &run, &eager, &rounding)?;
        }
        Ok(())
    };
    match with_drawn(&graph, &eager.drawn)? {
        Some((graph, drawn)) => {
            runner.run()?;
            let split = Arc::new(split_of(graph, scale)?);
            let one: Vec<DispatchTensor> = inputs[0].iter().cloned().chain(drawn).collect();
            compared(&mut BlockRunner::new(&split, &values, &Arc::new(vec![one]), seed)?)?;
        }
        None => compared(&mut runner)?,
    }
    Ok(VerifiedModel { graph, split, values, inputs, infers, runner })
}

/// What a microbatch's loss counts in a step of so many.
fn scale(graph: &Graph, microbatches: u32) -> f64 {
    if graph.weighted { 1.0 } else { 1.0 / f64::from(microbatches) }
}

/// A captured model, split for steps of so many microbatches: the splits for two numbers are the
/// same but for one factor of the loss.
pub(super) fn split_for(graph: &Graph, microbatches: u32) -> Result<Arc<Split>> {
    Ok(Arc::new(split_of(graph.clone(), scale(graph, microbatches))?))
}

fn split_of(graph: Graph, scale: f64) -> Result<Split> {
    split(differentiate(graph, scale)?)
}

/// The graph with the numbers that were `drawn`, by draw, as further inputs in place of draws of
/// its own, and those inputs; none if it draws nothing.
fn with_drawn(
    graph: &Graph,
    drawn: &[DispatchTensor],
) -> Result<Option<(Graph, Vec<DispatchTensor>)>> {
    let steps = in_steps(graph);
    let mut given = Graph::default();
    let mut inputs = Vec::new();
    let mut at: Vec<NodeId> = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let node = &graph[id];
        if !node.op.is_leaf() && !steps[id.index()] {
            at.push(NodeId(u32::MAX));
            continue;
        }
        let operands: Vec<NodeId> = node.inputs.iter().map(|input| at[input.index()]).collect();
        let mut input = |draw: u32, given: &mut Graph| {
            let drawn = drawn.get(draw as usize).cloned();
            inputs.push(drawn.expect("every draw of a step was drawn"));
            given.push_input(node.shape.clone(), DType::F32)
        };
        at.push(match &node.op {
            Op::Leaf(Leaf::Input(_)) => given.push_input(node.shape.clone(), node.dtype),
            Op::Leaf(Leaf::Parameter(id)) => {
                let Parameter { path, trained, .. } = &graph.parameters[id.index()];
                given.push_parameter(path.clone(), node.shape.clone(), *trained)
            }
            Op::Leaf(Leaf::Constant(id)) => {
                given.push_constant(graph.constants[id.0 as usize].clone())
            }
            Op::Elementwise(Elementwise::Mode) => operands[0],
            &Op::Elementwise(Elementwise::Random { draw, .. }) => input(draw, &mut given),
            &Op::Elementwise(Elementwise::Dropout { draw, probability }) => {
                let mask = input(draw, &mut given);
                let kept = given.push(Binary::Multiply, &[operands[0], mask])?;
                let scale = Elementwise::Scalar(Scalar::Multiply, 1.0 / (1.0 - probability));
                given.push(scale, &[kept])?
            }
            op => given.push(op.clone(), &operands)?,
        });
    }
    given.boundaries = graph.boundaries.iter().map(|id| at[id.index()]).collect();
    let states = graph.states.iter();
    given.states =
        states.map(|state| State { update: at[state.update.index()], ..*state }).collect();
    given.weighted = graph.weighted;
    given.loss = graph.loss.map(|id| at[id.index()]);
    Ok((!inputs.is_empty()).then_some((prune(&given), inputs)))
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
    values: &[DispatchTensor],
    stages: Vec<StageSetup>,
    seed: u64,
) -> EngineSetup {
    let blocks = split.blocks.len();
    EngineSetup {
        split: split.clone(),
        values: values_of(&stages, values),
        stages,
        limits: StashLimits {
            segments: vec![1; blocks],
            backward: vec![1; blocks],
            in_turn: vec![true; blocks],
            devices: vec![1],
        },
        activations: Precision::F32,
        microbatches: 1,
        seed,
        rule: plain_sgd(),
    }
}

/// The rule of devices that update nothing.
fn plain_sgd() -> UpdateRule {
    Optimizer::from(Sgd::default()).into()
}

/// Which nodes the loss and the states of a step depend on.
fn in_steps(graph: &Graph) -> Vec<bool> {
    let mut steps = vec![false; graph.nodes.len()];
    let updates = graph.states.iter().map(|state| &state.update);
    graph.loss.iter().chain(updates).for_each(|root| steps[root.index()] = true);
    for id in graph.ids().rev().collect::<Vec<_>>() {
        if !steps[id.index()] {
            continue;
        }
        let inputs = &graph[id].inputs;
        let read = match graph[id].op {
            Op::Elementwise(Elementwise::Mode) => &inputs[..1],
            _ => inputs,
        };
        read.iter().for_each(|input| steps[input.index()] = true);
    }
    steps
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
    /// Of every block.
    modules: Vec<String>,
    last_run: Duration,
}

impl BlockRunner {
    fn new(
        split: &Arc<Split>,
        values: &[DispatchTensor],
        inputs: &StepInputs,
        seed: u64,
    ) -> Result<Self> {
        let setup = setup(split, values, single_blocks(split), seed);
        let mut engine = BurnEngine::new(Device::flex(), setup);
        engine.begin_step(0, inputs)?;
        let blocks = split.blocks.len();
        let modules = (0..blocks).map(|block| split.modules(block)).collect();
        Ok(Self { engine, blocks, modules, last_run: Duration::ZERO })
    }

    /// The gradient of a parameter, summed over the runs so far and divided by `scale`; none if it
    /// has none.
    pub(super) fn gradient(&self, parameter: ParameterId, scale: f64) -> Option<Vec<f32>> {
        let scaled = floats(self.engine.gradient(parameter)?).into_iter();
        Some(scaled.map(|x| (f64::from(x) / scale) as f32).collect())
    }

    /// The value of a parameter; none if the blocks do not use it.
    fn parameter(&self, parameter: ParameterId) -> Option<Vec<f32>> {
        self.engine.parameter(parameter).map(floats)
    }

    /// What the last run of all blocks took.
    pub(super) fn last_run(&self) -> Duration {
        self.last_run
    }

    /// What arrives at every block for F and for B.
    pub(super) fn arrivals(&mut self) -> Result<Vec<Arrived>> {
        self.run().map(|(_, arrivals)| arrivals)
    }

    /// Runs one microbatch through all blocks; gives its loss and what arrived at every block.
    fn run(&mut self) -> Result<(Option<MicrobatchLoss>, Vec<Arrived>)> {
        let start = Instant::now();
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
        self.last_run = start.elapsed();
        Ok((loss, arrivals))
    }

    fn act(&mut self, block: usize, work: Work, parcel: Parcel) -> Result<Outcome> {
        let action = Action::new(StageId(block as u32), work, MicrobatchId(0));
        let outcome = quietly(AssertUnwindSafe(|| self.engine.start(action, parcel)))
            .unwrap_or_else(|panic| Err(of_panic(&*panic).in_action(action)));
        let outcome = outcome.map_err(|error| error.in_module(&self.modules[block]))?;
        let mut outcome = outcome.expect("a CPU device computes at once");
        // A step would say the same of a stage; here it is known which modules it is in.
        let fault = outcome.fault.take().map(|fault| {
            fault.in_module(&self.modules[block]).hint("other initial weights, or other inputs")
        });
        fault.map_or(Ok(outcome), Err)
    }
}
