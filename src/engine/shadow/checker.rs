//! Computes again what an engine shows, and compares.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use burn_dispatch::DispatchTensor;

use super::held::Held;
use super::interval::{Difference, Interval, floats, on_host};
use super::stage::{Stage, module};
use super::{Message, Parameters};
use crate::engine::burn::constants;
use crate::engine::wgpu::{Element, Elements};
use crate::engine::{EngineSetup, Parcel, Precision, Shown, StepInputs};
use crate::error::{Error, Result};
use crate::graph::{Graph, Leaf, NodeId, Op};
use crate::loss::MicrobatchLoss;
use crate::plan::{Action, MicrobatchId, StageId, Work};
use crate::random::RunKey;
use crate::split::{Role, Split};

/// What the engine has and does, as the reference has it.
pub(super) struct Checker {
    device: String,
    pub(super) setup: EngineSetup,
    /// What is stored as halves.
    elements: Elements,
    stages: HashMap<StageId, Stage>,
    constants: HashMap<NodeId, DispatchTensor>,
    pub(super) held: Held,
    inputs: StepInputs,
    step: u64,
    pub(super) evaluates: bool,
    playing: Option<Playing>,
    /// What actions that have been played give, until they end.
    played: VecDeque<(Action, Given)>,
    /// What a stage gave to the next one of the same device, which may not be told of it.
    handed: HashMap<(StageId, MicrobatchId), Vec<DispatchTensor>>,
}

/// The action that is played.
struct Playing {
    action: Action,
    arrived: HashMap<NodeId, DispatchTensor>,
    /// Values of the microbatch as the engine has them.
    values: HashMap<NodeId, DispatchTensor>,
}

/// What an action gives.
struct Given {
    parcel: Vec<(NodeId, Interval)>,
    loss: Option<(NodeId, Interval)>,
}

/// Values that the reference computed on the way to others, because the engine does not store them.
type Unstored = BTreeMap<NodeId, Interval>;

impl Checker {
    pub fn new(setup: EngineSetup, device: String) -> Self {
        let split = setup.split.clone();
        let stages = setup.stages.iter();
        let stages = stages.map(|of| (of.stage, Stage::new(&split, of.clone()))).collect();
        let graph = &split.joint.graph;
        let constants = setup.stages.iter().flat_map(|of| constants(graph, &of.program)).collect();
        Self {
            device,
            elements: Elements::new(&split, setup.activations),
            stages,
            constants,
            held: Held::new(&setup),
            inputs: StepInputs::default(),
            step: 0,
            evaluates: false,
            playing: None,
            played: VecDeque::new(),
            handed: HashMap::new(),
            setup,
        }
    }

    pub fn take(&mut self, message: Message) -> Result<()> {
        match message {
            Message::BeginStep(step, inputs) => {
                (self.step, self.evaluates) = (step, false);
                self.held.begin_step();
                self.begin(&inputs);
            }
            Message::BeginEvaluation(inputs) => {
                self.evaluates = true;
                self.begin(&inputs);
            }
            Message::Start(action, arrived) => self.start(action, arrived),
            Message::Shown(Shown::Values(values)) => return self.values(values),
            Message::Shown(Shown::Sums(sums)) => return self.sums(sums),
            Message::Played => self.end_play(),
            Message::Ended(action, parcel, loss) => return self.ended(action, parcel, loss),
            Message::Sent(sums) => return self.sent(&sums),
            Message::Reduced(sums) => self.held.reduce(&sums),
            Message::Norms(norms) => return self.norms(&norms),
            Message::Updated { update, mut state, shared } => {
                state.sort_unstable_by_key(|(id, _)| *id);
                self.updated(&update, &state)?;
                return self.shared(&shared);
            }
            Message::Undone(state) => return self.undone(&state),
            Message::Set(values) => self.held.set(&values),
            Message::Restored(state) => self.held.restore(&state),
            Message::Verdict => {}
        }
        Ok(())
    }

    /// The error of a checker that panicked.
    pub fn stopped(&self, message: &str) -> Error {
        let error =
            Error::run(format!("{}: the shadow's reference stopped: {message}", self.device));
        match &self.playing {
            Some(playing) => error.in_action(playing.action),
            None => error,
        }
    }

    fn begin(&mut self, inputs: &StepInputs) {
        let own = |tensors: &Vec<DispatchTensor>| tensors.iter().map(on_host).collect();
        self.inputs = inputs.iter().map(own).collect::<Vec<_>>().into();
        self.handed.clear();
        self.stages.values_mut().for_each(|stage| stage.stash.clear());
    }

    fn start(&mut self, action: Action, arrived: Parcel) {
        let Action { stage, work, microbatch, .. } = action;
        let neighbour = match work {
            Work::F => stage.0.checked_sub(1).map(StageId),
            _ => Some(StageId(stage.0 + 1)),
        };
        let handed = neighbour.and_then(|stage| self.handed.remove(&(stage, microbatch)));
        let of = self.stages.get_mut(&stage).expect("the plan gave this stage here");
        let mut values = of.stash.remove(&microbatch).unwrap_or_default();
        let received = of.received(work);
        let arrived: Vec<DispatchTensor> = match handed {
            Some(handed) if arrived.len() != received.len() => handed,
            _ => arrived.iter().map(on_host).collect(),
        };
        assert_eq!(arrived.len(), received.len(), "{action} got another stage's parcel");
        let arrived: HashMap<NodeId, DispatchTensor> =
            received.iter().copied().zip(arrived).collect();
        values.extend(arrived.iter().map(|(&id, value)| (id, value.clone())));
        self.playing = Some(Playing { action, arrived, values });
    }

    /// Compares what one kernel computed, from what was there before it.
    fn values(&mut self, shown: Vec<(NodeId, DispatchTensor)>) -> Result<()> {
        let split = self.setup.split.clone();
        let graph = &split.joint.graph;
        let mut unstored = Unstored::new();
        let mut stored = Vec::with_capacity(shown.len());
        for (id, found) in shown {
            let found = on_host(&found);
            let playing = self.playing.as_ref().expect("an engine shows values of an action");
            let difference = match playing.arrived.get(&id) {
                Some(sent) => Interval::exact(sent.clone()).difference(&found, false),
                None => {
                    let expected = self.expected(graph, id, &mut unstored);
                    let halves = self.elements.of(id) == Element::F16;
                    if expected.difference(&found, halves).is_some() {
                        let operands = self.operands(graph, id, &unstored);
                        expected.difference_of(&graph[id], &operands, &found, halves)
                    } else {
                        None
                    }
                }
            };
            if let Some(difference) = difference {
                let what = match playing.arrived.contains_key(&id) {
                    true => " as it arrived".to_owned(),
                    false => fused_with(graph, id, &unstored),
                };
                return Err(self.wrong_node(id, &what, &difference));
            }
            stored.push((id, found));
        }
        let playing = self.playing.as_mut().expect("an engine shows values of an action");
        playing.values.extend(stored);
        Ok(())
    }

    /// What the reference makes of a node, from what the engine stores.
    pub(super) fn expected(&self, graph: &Graph, id: NodeId, unstored: &mut Unstored) -> Interval {
        let mut open = vec![id];
        let mut needed = HashSet::new();
        while let Some(next) = open.pop() {
            let computed = unstored.contains_key(&next);
            if !computed && needed.insert(next) {
                let inputs = graph[next].inputs.iter().copied();
                open.extend(inputs.filter(|input| self.stored(graph, *input).is_none()));
            }
        }
        let mut needed: Vec<NodeId> = needed.into_iter().collect();
        needed.sort_unstable();
        for node in needed {
            let operands = self.operands(graph, node, unstored);
            let value = Interval::evaluate(&graph[node], &operands, self.key());
            unstored.insert(node, value);
        }
        unstored[&id].clone()
    }

    /// Operands as a kernel has them.
    fn operands(&self, graph: &Graph, id: NodeId, unstored: &Unstored) -> Vec<Interval> {
        let operand = |&input: &NodeId| match self.stored(graph, input) {
            Some(value) => Interval::exact(value),
            None => unstored[&input].clone().unstored(&graph[input]),
        };
        graph[id].inputs.iter().map(operand).collect()
    }

    /// A value that the engine has stored.
    pub(super) fn stored(&self, graph: &Graph, id: NodeId) -> Option<DispatchTensor> {
        let playing = self.playing.as_ref().expect("values are read in an action");
        match graph[id].op {
            Op::Leaf(Leaf::Input(input)) => {
                let of = &self.inputs[playing.action.microbatch.index()];
                Some(of[input.0 as usize].clone())
            }
            Op::Leaf(Leaf::Parameter(parameter)) => Some(self.held.values[&parameter].clone()),
            _ if self.setup.split.roles[id.index()] == Role::Constant => {
                Some(self.constants[&id].clone())
            }
            _ => playing.values.get(&id).cloned(),
        }
    }

    fn key(&self) -> RunKey {
        let playing = self.playing.as_ref().expect("values are computed in an action");
        RunKey {
            seed: self.setup.seed,
            step: self.step,
            microbatch: playing.action.microbatch.0,
            evaluates: self.evaluates,
        }
    }

    pub(super) fn action(&self) -> Action {
        self.playing.as_ref().expect("an action is played").action
    }

    pub(super) fn stage(&self) -> &Stage {
        &self.stages[&self.action().stage]
    }

    /// Keeps what later actions read.
    fn end_play(&mut self) {
        let split = self.setup.split.clone();
        let graph = &split.joint.graph;
        let (action, stage) = (self.action(), self.stage());
        let last = *action.works().last().expect("an action does something");
        let program = &stage.setup.program;
        let sent = stage.sent(action.work).to_vec();
        let loss = program.loss.filter(|_| action.work == Work::F);
        let replaces = action.work == Work::F && !self.evaluates;
        let states = if replaces { program.states.clone() } else { Vec::new() };
        let kept = if self.evaluates { Vec::new() } else { stage.kept(last).to_vec() };
        let mut unstored = Unstored::new();
        let mut get = |id: NodeId| match self.stored(graph, id) {
            Some(value) => (id, Interval::exact(value)),
            None => (id, self.expected(graph, id, &mut unstored)),
        };
        let parcel: Vec<(NodeId, Interval)> = sent.into_iter().map(&mut get).collect();
        let loss = loss.map(&mut get);
        let stash = kept.into_iter().map(&mut get).map(|(id, of)| (id, of.middle)).collect();
        let states: Vec<_> =
            states.into_iter().map(|of| (of.parameter, get(of.update).1.middle)).collect();
        self.held.replace(states);
        let Action { stage, microbatch, .. } = action;
        let next = match action.work {
            Work::F => Some(StageId(stage.0 + 1)),
            _ => stage.0.checked_sub(1).map(StageId),
        };
        if !parcel.is_empty() && next.is_some_and(|next| self.stages.contains_key(&next)) {
            let values = parcel.iter().map(|(_, value)| value.middle.clone()).collect();
            self.handed.insert((stage, microbatch), values);
        }
        if last != Work::W && !self.evaluates {
            let of = self.stages.get_mut(&stage).expect("it was there before");
            of.stash.insert(microbatch, stash);
        }
        self.played.push_back((action, Given { parcel, loss }));
        self.playing = None;
    }

    /// Compares what an action gave with what it had computed.
    fn ended(
        &mut self,
        action: Action,
        parcel: Parcel,
        loss: Option<MicrobatchLoss>,
    ) -> Result<()> {
        let (played, given) = self.played.pop_front().expect("what ends was played");
        assert_eq!(played, action, "actions end in the order in which they were played");
        for ((id, expected), found) in given.parcel.iter().zip(&parcel) {
            let halves = self.elements.of(*id) == Element::F16;
            if let Some(difference) = expected.difference(&on_host(found), halves) {
                return Err(self
                    .wrong_node(*id, " as it was sent", &difference)
                    .in_action(action)
                    .in_stage(action.stage));
            }
        }
        let (Some((id, expected)), Some(loss)) = (given.loss, loss) else { return Ok(()) };
        let found = std::iter::once(loss.value).chain(loss.weight).map(f64::from);
        let found = floats(found, &expected.middle);
        match expected.difference(&found, false) {
            Some(difference) => {
                let error = self.wrong_node(id, " as it was reported", &difference);
                Err(error.in_action(action).in_stage(action.stage))
            }
            None => Ok(()),
        }
    }

    /// The error about a node's value.
    pub(super) fn wrong_node(&self, id: NodeId, what: &str, difference: &Difference) -> Error {
        let split: &Split = &self.setup.split;
        let node = &split.joint.graph[id];
        let problem = format!("{id}{what}: {}", self.wrong(&node.shape.0, difference));
        let error = self.shadow_error(problem).in_module(module(split, id));
        let error = error.in_op(node.to_string());
        match &self.playing {
            Some(Playing { action, .. }) => error.in_stage(action.stage).in_action(*action),
            None => error,
        }
    }

    /// What is wrong with an element.
    pub(super) fn wrong(&self, shape: &[usize], difference: &Difference) -> String {
        let Difference { at, found, expected, tolerance } = *difference;
        let bound = match tolerance {
            Some(tolerance) => format!("at most {tolerance:e} apart is rounding"),
            None => "it has to be exact".to_owned(),
        };
        let index = index(shape, at);
        let (found, expected) = (found as f32, expected as f32);
        format!(
            "element {index:?} is {found:?} on {}, {expected:?} by the reference; {bound}",
            self.device
        )
    }

    pub(super) fn shadow_error(&self, problem: String) -> Error {
        let halves = match self.setup.activations {
            Precision::F16 => " with halves",
            Precision::F32 => "",
        };
        Error::run(problem).hint(format!(
            "the same run again: if it is not the same, the device's memory or driver; else \
             another device, and a report of this model{halves}"
        ))
    }

    /// Compares copies of parameters with what they are copies of.
    fn shared(&self, values: &Parameters) -> Result<()> {
        for (parameter, found) in values {
            let expected = Interval::exact(self.held.values[parameter].clone());
            if let Some(difference) = expected.difference(&on_host(found), false) {
                return Err(self.wrong_parameter(*parameter, " as it was sent", &difference));
            }
        }
        Ok(())
    }
}

/// What the kernel that computes a node computes on the way and does not store.
fn fused_with(graph: &Graph, id: NodeId, unstored: &Unstored) -> String {
    let is_computed = |of: &&NodeId| **of != id && !graph[**of].op.is_movement();
    let others = unstored.keys().filter(is_computed).map(|of| format!("{of} {}", graph[*of].op));
    let others: Vec<String> = others.collect();
    match others.is_empty() {
        true => String::new(),
        false => format!(", of one kernel with {}", others.join(", ")),
    }
}

/// The index of an element in row-major order.
fn index(shape: &[usize], mut at: usize) -> Vec<usize> {
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|size| {
            let of = at % size;
            at /= size;
            of
        })
        .collect();
    index.reverse();
    index
}
