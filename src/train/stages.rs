//! The stages of a model, and their costs.

use std::fmt;
use std::ops::Range;

use crate::compile::{Program, compile, compile_recomputing};
use crate::engine::{StageSetup, UpdateRule};
use crate::graph::{NodeId, ParameterId};
use crate::plan::{BoundaryCost, Costs, DeviceId, PerWork, Placement, StageCost, StageId, Work};
use crate::split::{Block, BlockId, Split};
use crate::train::profile::BlockTimes;

/// How a model was cut. Prints one line per stage, and one about values that a forward pass keeps,
/// such as those of batch norm.
#[derive(Debug, Clone)]
pub struct Stages {
    /// The blocks of every stage; the index is the [`StageId`].
    pub stage_blocks: Vec<Range<usize>>,
    lines: Vec<String>,
    recomputed: Vec<StageId>,
}

impl Stages {
    /// The stages whose B recomputes F, ascending.
    pub fn recomputed(&self) -> &[StageId] {
        &self.recomputed
    }
}

impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

/// The stages made of `stage_blocks`, with every trained parameter owned by the first stage that
/// has a gradient of it. Those that are `recomputed` recompute F before B.
pub(super) fn setups(
    split: &Split,
    stage_blocks: &[Range<usize>],
    placement: &Placement,
    rule: &UpdateRule,
    recomputed: &[StageId],
) -> Vec<StageSetup> {
    let program = |(stage, blocks): (u32, &Range<usize>)| {
        let recomputes = recomputed.contains(&StageId(stage));
        let compile = if recomputes { compile_recomputing } else { compile };
        compile(split, blocks.clone())
    };
    let programs: Vec<Program> = (0..).zip(stage_blocks).map(program).collect();
    let users = |parameter: ParameterId| {
        let programs = &programs;
        (0..programs.len()).filter(move |&stage| programs[stage].parameters.contains(&parameter))
    };
    // A stage that only compares a parameter, say, uses it but has no gradient of it.
    let first_gradient = |parameter: ParameterId| {
        programs.iter().position(|program| {
            program.accumulators.iter().any(|accumulator| accumulator.parameter == parameter)
        })
    };
    let device = |stage: usize| placement.device(StageId(stage as u32));
    let owned = |stage: usize| -> Vec<ParameterId> {
        let own = |&parameter: &ParameterId| first_gradient(parameter) == Some(stage);
        programs[stage].parameters.iter().copied().filter(own).collect()
    };
    let shared = |stage: usize, owned: &[ParameterId]| -> Vec<ParameterId> {
        let elsewhere =
            |&parameter: &ParameterId| users(parameter).any(|user| device(user) != device(stage));
        owned.iter().copied().filter(elsewhere).collect()
    };
    (0..programs.len())
        .map(|stage| {
            let owned = owned(stage);
            let shared = shared(stage, &owned);
            let before: Vec<&Program> = (0..stage)
                .filter(|&other| device(other) == device(stage))
                .map(|other| &programs[other])
                .collect();
            let fixed = fixed_bytes(split, &programs[stage], &before, &owned, rule);
            let mut program = programs[stage].clone();
            program.bytes.fixed = fixed;
            StageSetup {
                stage: StageId(stage as u32),
                blocks: stage_blocks[stage].clone(),
                program,
                owned,
                shared,
            }
        })
        .collect()
}

/// Parameters, their gradients, what is kept beside them, states before a step and constants. A
/// device holds one copy of what several of its stages use: it counts with the first of them.
fn fixed_bytes(
    split: &Split,
    program: &Program,
    before: &[&Program],
    owned: &[ParameterId],
    rule: &UpdateRule,
) -> u64 {
    let graph = &split.joint.graph;
    let bytes = |parameter: ParameterId| graph[graph.parameters[parameter.index()].node].bytes();
    let held = |id: &&ParameterId| before.iter().any(|stage| stage.parameters.contains(id));
    let folded = |id: &&NodeId| before.iter().any(|stage| stage.constants.contains(id));
    let parameters: u64 =
        program.parameters.iter().filter(|id| !held(id)).map(|&parameter| bytes(parameter)).sum();
    let gradients: u64 = program.accumulators.iter().map(|sum| bytes(sum.parameter)).sum();
    let state: u64 = owned.iter().map(|&parameter| rule.kept_tensors() * bytes(parameter)).sum();
    let constants: u64 =
        program.constants.iter().filter(|id| !folded(id)).map(|&id| graph[id].bytes()).sum();
    let before: u64 = program.states.iter().map(|state| bytes(state.parameter)).sum();
    parameters + gradients + state + before + constants
}

/// Bytes that every block needs at least, wherever it is: a parameter and its state count at the
/// first block that uses it, gradients at every block. Whether a plan fits is known exactly later.
pub(super) fn least_bytes(split: &Split, rule: &UpdateRule) -> Vec<u64> {
    let graph = &split.joint.graph;
    let mut seen = vec![false; graph.parameters.len()];
    let block = |block: &Block| -> u64 {
        let bytes = |parameter: &ParameterId| {
            let own = graph[graph.parameters[parameter.index()].node].bytes();
            let trained = graph.parameters[parameter.index()].trained;
            let state = if trained { rule.kept_tensors() } else { 0 };
            let first = !std::mem::replace(&mut seen[parameter.index()], true);
            own * (u64::from(trained) + if first { 1 + state } else { 0 })
        };
        block.parameters.iter().map(bytes).sum()
    };
    split.blocks.iter().map(block).collect()
}

/// Bytes of all trained parameters, and of what a step moves of those that several devices use: a
/// gradient sum for each of its uses elsewhere, and the new value for each other device.
pub(super) fn parameter_bytes(
    split: &Split,
    setups: &[StageSetup],
    placement: &Placement,
) -> (u64, u64) {
    let graph = &split.joint.graph;
    let bytes = |parameter: ParameterId| graph[graph.parameters[parameter.index()].node].bytes();
    let (mut all, mut shared) = (0, 0);
    for setup in setups {
        all += setup.owned.iter().map(|&parameter| bytes(parameter)).sum::<u64>();
        let owner = placement.device(setup.stage);
        for &parameter in &setup.shared {
            let elsewhere = setups.iter().filter(|other| placement.device(other.stage) != owner);
            let users = elsewhere.filter(|other| other.program.parameters.contains(&parameter));
            let sums = users.clone().flat_map(|user| &user.program.accumulators);
            let sums = sums.filter(|sum| sum.parameter == parameter).count();
            let mut devices: Vec<DeviceId> =
                users.map(|user| placement.device(user.stage)).collect();
            devices.sort_unstable();
            devices.dedup();
            shared += (sums + devices.len()) as u64 * bytes(parameter);
        }
    }
    (all, shared)
}

/// What the stages cost, from what F, B and W of every block cost on their devices.
pub(super) fn costs(
    split: &Split,
    setups: &[StageSetup],
    placement: &Placement,
    times: &BlockTimes,
) -> Costs {
    let graph = &split.joint.graph;
    let bytes = |ids: &[NodeId]| ids.iter().map(|&id| graph[id].bytes()).sum::<u64>();
    let stage = |setup: &StageSetup| {
        let blocks = &times.devices[placement.device(setup.stage).index()][setup.blocks.clone()];
        let mut time = PerWork::from_fn(|work| blocks.iter().map(|block| block[work]).sum::<f64>());
        time[Work::B] += recompute_time(split, setup, blocks);
        StageCost { time, bytes: setup.program.bytes }
    };
    let boundary = |pair: &[StageSetup]| {
        let activation_bytes = bytes(&pair[0].program.activations_out);
        let gradient_bytes = bytes(&pair[1].program.gradients_out);
        BoundaryCost { activation_bytes, gradient_bytes }
    };
    Costs {
        stages: setups.iter().map(stage).collect(),
        boundaries: setups.windows(2).map(boundary).collect(),
        transfers: times.transfers.clone(),
        buffers: Vec::new(),
    }
}

/// What recomputing F takes in B: of F of every block its share of the operations.
pub(super) fn recompute_time(split: &Split, setup: &StageSetup, blocks: &[PerWork<f64>]) -> f64 {
    let mut flops = vec![0.0; blocks.len()];
    for &id in &setup.program.recomputed {
        let BlockId(block) = split.block(id).expect("it is computed");
        flops[block as usize - setup.blocks.start] += split.flops(id);
    }
    let share = |(flops, block): (f64, usize)| {
        let all = split.blocks[block].flops[Work::F];
        if all > 0.0 { flops / all } else { 0.0 }
    };
    let shares = flops.into_iter().zip(setup.blocks.clone()).map(share);
    shares.zip(blocks).map(|(share, time)| share * time[Work::F]).sum()
}

/// One line per stage: where it is, what it is made of, what it costs.
pub(super) fn describe(
    split: &Split,
    setups: &[StageSetup],
    stage_blocks: &[Range<usize>],
    placement: &Placement,
    devices: &[String],
) -> Stages {
    let line = |(setup, blocks): (&StageSetup, &Range<usize>)| {
        let flops: f64 = split.blocks[blocks.clone()].iter().flat_map(|block| block.flops.0).sum();
        let sent: u64 =
            setup.program.activations_out.iter().map(|&id| split.joint.graph[id].bytes()).sum();
        let recomputes =
            if setup.program.recomputed.is_empty() { "" } else { ", F again before B" };
        format!(
            "stage {} on {}: blocks {}..{} ({}; {}), {:.1} MFLOP, {} bytes out{recomputes}",
            setup.stage,
            devices[placement.device(setup.stage).index()],
            blocks.start,
            blocks.end,
            split.modules(blocks.start),
            split.modules(blocks.end - 1),
            flops / 1e6,
            sent
        )
    };
    let recomputed = setups.iter().filter(|setup| !setup.program.recomputed.is_empty());
    let mut lines: Vec<String> = setups.iter().zip(stage_blocks).map(line).collect();
    let graph = &split.joint.graph;
    let states = graph.states.iter().map(|state| &graph.parameters[state.parameter.index()]);
    let states: Vec<&str> = states.map(|parameter| parameter.path.as_str()).collect();
    if !states.is_empty() {
        lines.push(format!(
            "statistics are those of a microbatch, not of a batch: {}",
            states.join(", ")
        ));
    }
    Stages {
        stage_blocks: stage_blocks.to_vec(),
        lines,
        recomputed: recomputed.map(|setup| setup.stage).collect(),
    }
}
