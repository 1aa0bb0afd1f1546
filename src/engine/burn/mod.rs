//! The engine on any Burn device: a stage's commands on tensors of Burn's dispatch layer, with
//! this crate's kernels where the device is Flex.

mod device;
mod evaluate;
mod flex;
mod fold;
mod memory;
mod optimizer;
mod pool;
mod states;
mod tolerance;
mod update;

use std::collections::HashMap;

use burn::tensor::{Device, TensorData};
use burn_backend::TensorMetadata;
use burn_backend::ops::FloatTensorOps;
use burn_dispatch::{Dispatch, DispatchTensor};

use super::{
    Compute, EngineSetup, MicrobatchLoss, Observer, Outcome, Parcel, Shown, StageSetup, StepInputs,
    floats, host_tensor,
};
use crate::batch::move_to;
use crate::compile::{Accumulator, Program, Task};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, InputId, Leaf, Node, NodeId, Op, ParameterId};
use crate::plan::{Action, MicrobatchId, StageId, Work};
use crate::random::RunKey;
pub use device::BurnDevice;
pub(super) use evaluate::evaluate;
use fold::fold;
use memory::Meter;
use optimizer::State;
use pool::BufferPool;
use states::States;
pub use tolerance::tolerance;
pub(super) use tolerance::{roundings, same_order};

/// Plays stages on one Burn device.
#[derive(Debug)]
pub struct BurnEngine {
    device: Device,
    setup: EngineSetup,
    stages: HashMap<StageId, Stage>,
    parameters: HashMap<ParameterId, DispatchTensor>,
    constants: HashMap<NodeId, DispatchTensor>,
    optimizer: HashMap<ParameterId, State>,
    accumulators: HashMap<Accumulator, DispatchTensor>,
    inputs: Vec<Vec<DispatchTensor>>,
    step: u64,
    /// Whether it evaluates, and does not train.
    evaluates: bool,
    states: States,
    observer: Option<Observer>,
    meter: Meter,
    pool: BufferPool,
}

/// What a stage holds between actions, by microbatch.
#[derive(Debug)]
struct Stage {
    position: usize,
    stash: Vec<HashMap<NodeId, DispatchTensor>>,
}

impl BurnEngine {
    /// Loads the stages of `setup` on `device`.
    pub fn new(device: Device, setup: EngineSetup) -> Self {
        let mut engine = Self {
            stages: HashMap::new(),
            parameters: HashMap::new(),
            constants: HashMap::new(),
            optimizer: HashMap::new(),
            accumulators: HashMap::new(),
            inputs: Vec::new(),
            step: 0,
            evaluates: false,
            states: States::default(),
            observer: None,
            meter: Meter::default(),
            pool: BufferPool::default(),
            device,
            setup,
        };
        engine.load();
        engine
    }

    fn load(&mut self) {
        let graph = &self.setup.split.joint.graph;
        for (position, StageSetup { stage, program, owned, .. }) in
            self.setup.stages.iter().enumerate()
        {
            let stash = vec![HashMap::new(); self.setup.microbatches as usize];
            self.stages.insert(*stage, Stage { position, stash });
            for &parameter in &program.parameters {
                // Another stage of the device may have taken it before.
                if let Some(value) = self.setup.values.remove(&parameter) {
                    let value = move_to(copy(&value, &self.pool), &self.device);
                    self.parameters.insert(parameter, value);
                }
            }
            for &accumulator in &program.accumulators {
                let zeros = zeros_like(&self.parameters[&accumulator.parameter], &self.pool);
                self.accumulators.insert(accumulator, zeros);
            }
            for parameter in owned {
                let state = State::new(&self.setup.rule, &self.parameters[parameter], &self.pool);
                self.optimizer.insert(*parameter, state);
            }
            for (id, value) in fold(graph, program, &self.pool) {
                self.constants.insert(id, move_to(value, &self.device));
            }
        }
        let fixed = self
            .parameters
            .values()
            .chain(self.accumulators.values())
            .chain(self.constants.values())
            .chain(self.optimizer.values().flat_map(State::tensors));
        fixed.for_each(|tensor| self.meter.hold(tensor));
        self.keep_states();
    }

    /// The value of a parameter that its stages use.
    pub(crate) fn parameter(&self, parameter: ParameterId) -> Option<DispatchTensor> {
        self.parameters.get(&parameter).cloned()
    }

    /// The gradient of a parameter summed so far; its uses are added in block order. None if it has
    /// none.
    pub(crate) fn gradient(&self, parameter: ParameterId) -> Option<DispatchTensor> {
        let of = self.accumulators.iter().filter(|(of, _)| of.parameter == parameter);
        let mut sums: Vec<_> = of.collect();
        sums.sort_unstable_by_key(|(accumulator, _)| **accumulator);
        let mut sums = sums.into_iter().map(|(_, sum)| sum);
        let mut gradient = copy(sums.next()?, &self.pool);
        sums.for_each(|sum| add(sum.clone(), &mut gradient));
        Some(gradient)
    }

    /// Plays the commands of one work of a microbatch.
    fn play(&mut self, work: Work, microbatch: MicrobatchId, program: &Program, stash: &mut Stash) {
        let split = self.setup.split.clone();
        let graph = &split.joint.graph;
        let key = RunKey {
            seed: self.setup.seed,
            step: self.step,
            microbatch: microbatch.0,
            evaluates: self.evaluates,
        };
        for command in &program.commands[work] {
            match command.task {
                Task::Compute { node: id, in_place } => {
                    let mut operands = self.operands(graph, id, stash, in_place, microbatch);
                    let node = &graph[id];
                    let value = flex::evaluate(node, &mut operands, in_place, key, &self.pool)
                        .unwrap_or_else(|| evaluate::evaluate(node, operands, key));
                    // What an op computes is dense, except where it only views its operand.
                    let owned = !node.op.is_movement() || split.copied[id.index()];
                    let value = if owned { dense(value, &self.pool) } else { value };
                    self.meter.hold(&value);
                    self.show(|pool| Shown::Values(vec![(id, copy(&value, pool))]));
                    stash.insert(id, value);
                }
                Task::Accumulate { node: id, accumulator } => {
                    let operands = self.operands(graph, id, stash, None, microbatch);
                    let sum = program.accumulators[accumulator];
                    let sum = self.accumulators.get_mut(&sum).expect("accumulators are loaded");
                    if !flex::accumulate(&graph[id], &operands, sum, key) {
                        add(evaluate::evaluate(&graph[id], operands, key), sum);
                    }
                }
                Task::Add { node, accumulator } => {
                    let value = self.operand(graph, node, stash, microbatch);
                    let sum = program.accumulators[accumulator];
                    let sum = self.accumulators.get_mut(&sum).expect("accumulators are loaded");
                    add(value, sum);
                }
            }
            for id in &command.free {
                if let Some(value) = stash.remove(id) {
                    self.meter.release(&value);
                }
            }
        }
    }

    /// Shows a part to whoever observes.
    fn show(&mut self, part: impl FnOnce(&BufferPool) -> Shown) {
        if let Some(observer) = &mut self.observer {
            observer.show(part(&self.pool));
        }
    }

    /// Shows the sums of a stage's gradients.
    fn show_sums(&mut self, program: &Program) {
        let Some(observer) = &mut self.observer else { return };
        let sum = |of: &Accumulator| (*of, copy(&self.accumulators[of], &self.pool));
        observer.show(Shown::Sums(program.accumulators.iter().map(sum).collect()));
    }

    /// Moves those inputs of a step or an evaluation to the device that its stages read.
    fn take_inputs(&mut self, inputs: &StepInputs) {
        self.inputs.iter().flatten().for_each(|input| self.meter.take_back(input));
        let stages = &self.setup.stages;
        let is_read = |input| stages.iter().any(|stage| stage.program.inputs.contains(&input));
        let taken = |(input, tensor): (u32, &DispatchTensor)| match is_read(InputId(input)) {
            true => move_to(tensor.clone(), &self.device),
            false => tensor.clone(),
        };
        let of_microbatch = |tensors: &Vec<DispatchTensor>| (0..).zip(tensors).map(taken).collect();
        self.inputs = inputs.iter().map(of_microbatch).collect();
        self.inputs.iter().flatten().for_each(|input| self.meter.lend(input));
    }

    /// Takes the values of a microbatch; an evaluation begins with none.
    fn stash(&mut self, action: Action) -> Stash {
        if self.evaluates {
            return Stash::new();
        }
        let stage = self.stages.get_mut(&action.stage).expect("the plan gave this stage here");
        std::mem::take(&mut stage.stash[action.microbatch.index()])
    }

    /// Keeps the values of a microbatch for its next action; an evaluation has none.
    fn keep(&mut self, action: Action, stash: Stash) {
        if self.evaluates {
            stash.values().for_each(|value| self.meter.release(value));
            return;
        }
        let stage = self.stages.get_mut(&action.stage).expect("the stage was there before");
        stage.stash[action.microbatch.index()] = stash;
    }

    /// Operands of `id`; the one to be overwritten leaves the stash.
    fn operands(
        &mut self,
        graph: &Graph,
        id: NodeId,
        stash: &mut Stash,
        in_place: Option<usize>,
        microbatch: MicrobatchId,
    ) -> Vec<DispatchTensor> {
        let inputs = graph[id].inputs.iter().enumerate();
        inputs
            .map(|(position, &input)| {
                if in_place == Some(position) {
                    let value = stash.remove(&input).expect("an operand in place is a local value");
                    self.meter.release(&value);
                    value
                } else {
                    self.operand(graph, input, stash, microbatch)
                }
            })
            .collect()
    }

    fn operand(
        &self,
        graph: &Graph,
        id: NodeId,
        stash: &Stash,
        microbatch: MicrobatchId,
    ) -> DispatchTensor {
        match graph[id].op {
            Op::Leaf(Leaf::Input(input)) => {
                self.inputs[microbatch.index()][input.0 as usize].clone()
            }
            Op::Leaf(Leaf::Parameter(parameter)) => self.parameters[&parameter].clone(),
            _ => stash.get(&id).or_else(|| self.constants.get(&id)).cloned().unwrap_or_else(|| {
                panic!("{id} {} is read before it is there", graph[id]);
            }),
        }
    }

    /// Takes the values to hand over; those that the stage still needs are kept as well.
    fn take(&mut self, ids: &[NodeId], stash: &mut Stash, kept: &[NodeId]) -> Parcel {
        ids.iter()
            .map(|id| {
                let value = stash[id].clone();
                if !kept.contains(id) {
                    stash.remove(id);
                    self.meter.release(&value);
                }
                value
            })
            .collect()
    }
}

type Stash = HashMap<NodeId, DispatchTensor>;

impl Compute for BurnEngine {
    fn begin_step(&mut self, step: u64, inputs: &StepInputs) -> Result<()> {
        (self.step, self.evaluates) = (step, false);
        self.keep_states();
        for sum in self.accumulators.values_mut() {
            clear(sum, &self.pool);
        }
        self.take_inputs(inputs);
        Ok(())
    }

    fn begin_evaluation(&mut self, inputs: &StepInputs) -> Result<()> {
        self.evaluates = true;
        self.take_inputs(inputs);
        Ok(())
    }

    fn start(&mut self, action: Action, arrived: Parcel) -> Result<Option<Outcome>> {
        let position = self.stages[&action.stage].position;
        let mut stash = self.stash(action);
        // The program is lent to `play` while the rest of the engine is changed.
        let setup = std::mem::take(&mut self.setup.stages);
        let program = &setup[position].program;
        let (expected, sent): (&[NodeId], &[NodeId]) = match action.work {
            Work::F => (&program.activations_in, &program.activations_out),
            Work::B => (&program.gradients_in, &program.gradients_out),
            Work::W => (&[], &[]),
        };
        assert_eq!(arrived.len(), expected.len(), "{action} got another stage's parcel");
        for (&id, value) in expected.iter().zip(arrived) {
            let value = move_to(value, &self.device);
            self.meter.hold(&value);
            self.show(|pool| Shown::Values(vec![(id, copy(&value, pool))]));
            stash.insert(id, value);
        }
        let mut parcel = Parcel::new();
        for &work in action.works() {
            self.play(work, action.microbatch, program, &mut stash);
            if work == Work::W {
                self.show_sums(program);
            }
            // W may be the last to read what B sends.
            if work == action.work {
                parcel = self.take(sent, &mut stash, &program.kept);
            }
        }
        let outputs: Vec<NodeId> =
            program.loss.filter(|_| action.work == Work::F).into_iter().collect();
        let loss = self.take(&outputs, &mut stash, &program.kept).pop();
        if action.work == Work::F {
            let updates: Vec<NodeId> = program.states.iter().map(|state| state.update).collect();
            let values = self.take(&updates, &mut stash, &program.kept);
            if !self.evaluates {
                let of = program.states.iter().zip(&values);
                of.for_each(|(state, value)| self.set_state(state.parameter, value));
            }
        }
        let ended = action.computes(Work::W);
        assert!(!ended || stash.is_empty(), "{action} leaves values behind");
        self.setup.stages = setup;
        self.keep(action, stash);
        let loss = loss.as_ref().map(microbatch_loss);
        let fault = match loss {
            Some(loss) if !loss.is_finite() => Some(format!("the loss is {loss}")),
            _ if action.work == Work::F && has_nan(&parcel) => Some("an activation is NaN".into()),
            _ => None,
        };
        let fault = fault.map(|problem| not_finite(problem, action));
        Ok(Some(Outcome { parcel, loss, fault, ..Outcome::default() }))
    }

    fn observe(&mut self, observer: Observer) -> Result<()> {
        self.observer = Some(observer);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.device.sync().map_err(|error| Error::run(error.to_string()))
    }

    fn peak_bytes(&self) -> u64 {
        self.meter.peak
    }
}

/// What `node` is, from its operands, as Burn itself computes it on their device: what every
/// kernel is compared with. Random numbers are those of seed 0, step 0, microbatch 0.
pub fn reference(node: &Node, operands: Vec<DispatchTensor>) -> DispatchTensor {
    let key = RunKey::default();
    evaluate::evaluate(node, operands, key)
}

/// Values of the constants that `program` reads, on the host.
pub(super) fn constants(graph: &Graph, program: &Program) -> Vec<(NodeId, DispatchTensor)> {
    fold(graph, program, &BufferPool::default())
}

/// A value that no later write reaches.
/// A copy for somebody else, in memory of its own: it comes and goes, and a pool only grows.
fn on_host(tensor: &DispatchTensor) -> DispatchTensor {
    host_tensor(TensorData::new(floats(tensor.clone()), tensor.shape()))
}

fn copy(tensor: &DispatchTensor, pool: &BufferPool) -> DispatchTensor {
    flex::dense_copy(tensor, pool).unwrap_or_else(|| tensor.clone())
}

fn dense(value: DispatchTensor, pool: &BufferPool) -> DispatchTensor {
    if flex::is_dense(&value) { value } else { copy(&value, pool) }
}

fn zeros_like(tensor: &DispatchTensor, pool: &BufferPool) -> DispatchTensor {
    type D = Dispatch;
    flex::zeros_like(tensor, pool).unwrap_or_else(|| {
        let dtype = burn_backend::FloatDType::F32;
        <D as FloatTensorOps<D>>::float_zeros(tensor.shape(), &tensor.device(), dtype)
    })
}

fn clear(sum: &mut DispatchTensor, pool: &BufferPool) {
    match flex::slice_mut(sum) {
        Some(elements) => elements.fill(0.0),
        None => *sum = zeros_like(sum, pool),
    }
}

/// Adds `value`, whose elements are the sum's in order, to `sum`.
fn add(value: DispatchTensor, sum: &mut DispatchTensor) {
    if !flex::add(&value, sum) {
        type D = Dispatch;
        let value = <D as FloatTensorOps<D>>::float_reshape(value, sum.shape());
        *sum = <D as FloatTensorOps<D>>::float_add(sum.clone(), value);
    }
}

/// The first stage whose output has a NaN is where a NaN loss comes from. An infinity may be meant:
/// a mask is made of them.
fn has_nan(parcel: &Parcel) -> bool {
    parcel.iter().filter_map(flex::slice).any(flex::any_nan)
}

fn not_finite(problem: String, action: Action) -> Error {
    Error::new(ErrorKind::NotFinite, problem)
        .in_action(action)
        .hint("a smaller learning rate, or inputs without NaN")
}

fn microbatch_loss(loss: &DispatchTensor) -> MicrobatchLoss {
    let data = burn::tensor::Tensor::<1>::from_dispatch(loss.clone()).into_data();
    MicrobatchLoss::of(&data.iter::<f32>().collect::<Vec<_>>())
}
