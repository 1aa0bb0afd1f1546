//! The blocks of one stage to a [`Program`]: one list of commands per kind of work, with every
//! value's last use, every in-place write and every byte decided.
//!
//! A program is plain data and knows no device; engines play it.

mod liveness;
mod recompute;
mod table;

use std::ops::Range;

use crate::graph::{
    Indexing, InputId, Leaf, Movement, NodeId, Op, ParameterId, Reduction, RowWise, State,
};
use crate::plan::{PerWork, StageBytes, Work};
use crate::split::{BlockId, Role, Split};
use liveness::Liveness;
use recompute::recomputed;
pub use table::BlockTable;

/// What an engine does for one stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// What must be computed for `constants`, in an order in which it can be.
    pub folded: Vec<NodeId>,
    /// Constants that the stage's commands read; kept in memory throughout.
    pub constants: Vec<NodeId>,
    /// Tensors of the batch that the stage's commands read; ascending.
    pub inputs: Vec<InputId>,
    /// Parameters that the stage uses.
    pub parameters: Vec<ParameterId>,
    /// Sums of gradients over a step's microbatches.
    pub accumulators: Vec<Accumulator>,
    /// Activations that arrive before F; empty on the first stage.
    pub activations_in: Vec<NodeId>,
    /// Activations that F hands to the next stage.
    pub activations_out: Vec<NodeId>,
    /// Gradients that arrive before B; empty on the last stage.
    pub gradients_in: Vec<NodeId>,
    /// Gradients that B hands to the stage before.
    pub gradients_out: Vec<NodeId>,
    /// Commands of F, of B and of W.
    pub commands: PerWork<Vec<Command>>,
    /// What B recomputes before anything else, as F did, because F did not keep it; ascending.
    pub recomputed: Vec<NodeId>,
    /// The loss, where the stage computes it in F.
    pub loss: Option<NodeId>,
    /// Parameters that F replaces, and by what. An evaluation replaces none.
    pub states: Vec<State>,
    /// Outputs of the stage that it reads again later.
    pub kept: Vec<NodeId>,
    /// What the stage keeps in memory; parameters and optimizer state are not in `fixed` yet.
    pub bytes: StageBytes,
}

/// The sum of a parameter's gradients from one block. A parameter that two blocks use has two,
/// added in block order at the update, so that the sum is the same wherever the blocks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Accumulator {
    /// The parameter.
    pub parameter: ParameterId,
    /// The block whose uses are summed.
    pub block: BlockId,
}

/// One thing to do, and what is not needed after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// What to do.
    pub task: Task,
    /// Values that nothing reads after it.
    pub free: Vec<NodeId>,
}

/// What a [`Command`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Computes a node, into the memory of the operand at `in_place` if there is one.
    Compute {
        /// The node.
        node: NodeId,
        /// Position of the operand whose memory becomes the output's.
        in_place: Option<usize>,
    },
    /// Computes a node and adds it to an accumulator without keeping it.
    Accumulate {
        /// The node; its elements are the parameter's, in order.
        node: NodeId,
        /// Position in [`Program::accumulators`].
        accumulator: usize,
    },
    /// Adds a value that is there to an accumulator.
    Add {
        /// The value; its elements are the parameter's, in order.
        node: NodeId,
        /// Position in [`Program::accumulators`].
        accumulator: usize,
    },
}

impl Task {
    /// The node that is computed or added.
    pub fn node(&self) -> NodeId {
        match *self {
            Task::Compute { node, .. } | Task::Accumulate { node, .. } => node,
            Task::Add { node, .. } => node,
        }
    }
}

/// Compiles the stage that is made of `blocks`, whose F keeps what B and W read.
pub fn compile(split: &Split, blocks: Range<usize>) -> Program {
    assemble(split, blocks, |_, _| Vec::new())
}

/// Compiles the stage that is made of `blocks`, whose F keeps only what the stage was sent, and
/// whose B first recomputes what it and W need of F (Chen et al. 2016, "Training Deep Nets with
/// Sublinear Memory Cost").
pub fn compile_recomputing(split: &Split, blocks: Range<usize>) -> Program {
    assemble(split, blocks, recomputed)
}

/// `recomputed` says which nodes of F are computed in B too, given the tasks of F, B and W.
fn assemble(
    split: &Split,
    blocks: Range<usize>,
    recomputed: fn(&Split, &PerWork<Vec<Task>>) -> Vec<NodeId>,
) -> Program {
    let parts = &split.blocks[blocks.clone()];
    assert!(!parts.is_empty(), "a stage has at least one block");
    let works = PerWork::from_fn(|work| {
        let nodes = parts.iter().flat_map(|block| &block.nodes[work]);
        let mut nodes: Vec<NodeId> = nodes.copied().collect();
        // Backward nodes of a later block come first in the graph: its order is theirs.
        nodes.sort_unstable();
        nodes
    });
    let before = blocks.start.checked_sub(1).map(|block| &split.blocks[block]);
    let after = split.blocks.get(blocks.end);
    let mut accumulators = Vec::new();
    let contributions = contributions(split, &blocks, &mut accumulators);
    let mut program = Program {
        folded: Vec::new(),
        constants: constants(split, &works, &contributions),
        inputs: inputs(split, &works),
        parameters: parts.iter().flat_map(|block| block.parameters.iter().copied()).collect(),
        accumulators,
        activations_in: before.map_or(Vec::new(), |block| block.activations_out.clone()),
        activations_out: parts[parts.len() - 1].activations_out.clone(),
        gradients_in: after.map_or(Vec::new(), |block| block.gradients_out.clone()),
        gradients_out: parts[0].gradients_out.clone(),
        commands: PerWork::default(),
        recomputed: Vec::new(),
        loss: split.joint.graph.loss.filter(|loss| works[Work::F].contains(loss)),
        states: Vec::new(),
        kept: Vec::new(),
        bytes: StageBytes::default(),
    };
    let states = split.joint.graph.states.iter().copied();
    program.states = states.filter(|state| works[Work::F].contains(&state.update)).collect();
    program.folded = folded(split, &program.constants);
    program.parameters.sort_unstable();
    program.parameters.dedup();
    let compute = |&node: &NodeId| Task::Compute { node, in_place: None };
    let mut tasks = works.map(|nodes| nodes.iter().map(compute).collect::<Vec<_>>());
    add_accumulation(split, &contributions, &mut tasks[Work::W]);
    program.recomputed = recomputed(split, &tasks);
    tasks[Work::B].splice(..0, program.recomputed.iter().map(compute));
    let liveness = Liveness::new(split, &program, &tasks);
    program.commands = PerWork::from_fn(|work| liveness.commands(work, &tasks[work]));
    program.kept = liveness.kept(&program);
    program.bytes = liveness.bytes(&program);
    program
}

/// Tensors of the batch that the works read.
fn inputs(split: &Split, works: &PerWork<Vec<NodeId>>) -> Vec<InputId> {
    let graph = &split.joint.graph;
    let operands = works.0.iter().flatten().flat_map(|&id| &graph[id].inputs);
    let mut read: Vec<InputId> = operands
        .filter_map(|&id| match graph[id].op {
            Op::Leaf(Leaf::Input(input)) => Some(input),
            _ => None,
        })
        .collect();
    read.sort_unstable();
    read.dedup();
    read
}

/// Constants that the works read, or that are added to accumulators as they are.
fn constants(
    split: &Split,
    works: &PerWork<Vec<NodeId>>,
    contributions: &[(NodeId, usize)],
) -> Vec<NodeId> {
    let graph = &split.joint.graph;
    let operands = works.0.iter().flatten().flat_map(|&id| graph[id].inputs.iter().copied());
    let added = contributions.iter().map(|&(gradient, _)| gradient);
    let mut read: Vec<NodeId> = operands.chain(added).collect();
    read.retain(|id| split.roles[id.index()] == Role::Constant);
    read.sort_unstable();
    read.dedup();
    read
}

/// The constants and what they are computed from, operands first.
fn folded(split: &Split, constants: &[NodeId]) -> Vec<NodeId> {
    let graph = &split.joint.graph;
    let mut needed = vec![false; graph.nodes.len()];
    let mut open = constants.to_vec();
    while let Some(id) = open.pop() {
        if !std::mem::replace(&mut needed[id.index()], true) {
            open.extend(&graph[id].inputs);
        }
    }
    graph.ids().filter(|id| needed[id.index()]).collect()
}

/// All sums of gradients of the model, ascending.
pub fn accumulators(split: &Split) -> Vec<Accumulator> {
    let contributions = split.joint.contributions.iter();
    let mut all: Vec<Accumulator> = contributions
        .map(|contribution| {
            let block =
                split.block(contribution.user).expect("a user of a parameter is in a block");
            Accumulator { parameter: contribution.parameter, block }
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The gradients that the stage's blocks add to accumulators, in the order in which they are
/// computed.
fn contributions(
    split: &Split,
    blocks: &Range<usize>,
    accumulators: &mut Vec<Accumulator>,
) -> Vec<(NodeId, usize)> {
    let mut found = Vec::new();
    for contribution in &split.joint.contributions {
        let block = split.block(contribution.user).expect("a user of a parameter is in a block");
        if blocks.contains(&block.index()) {
            let accumulator = Accumulator { parameter: contribution.parameter, block };
            found.push((contribution.gradient, accumulator));
            accumulators.push(accumulator);
        }
    }
    accumulators.sort_unstable();
    accumulators.dedup();
    let position = |accumulator| {
        accumulators.binary_search(&accumulator).expect("every accumulator was listed")
    };
    found.into_iter().map(|(gradient, accumulator)| (gradient, position(accumulator))).collect()
}

/// Puts every addition to an accumulator behind the computation of what is added, as one command
/// where the op can write into the sum.
fn add_accumulation(split: &Split, contributions: &[(NodeId, usize)], tasks: &mut Vec<Task>) {
    let graph = &split.joint.graph;
    let mut uses = vec![0u32; graph.nodes.len()];
    for node in tasks.iter().map(Task::node) {
        graph[node].inputs.iter().for_each(|input| uses[input.index()] += 1);
    }
    for &(gradient, _) in contributions {
        uses[gradient.index()] += 1;
    }
    for &(gradient, accumulator) in contributions {
        // A reshape keeps the order of the elements, so the sum can take them from before it.
        let mut source = gradient;
        let mut through = Vec::new();
        while matches!(graph[source].op, Op::Movement(Movement::Reshape(_)))
            && uses[source.index()] == 1
        {
            through.push(source);
            source = graph[source].inputs[0];
        }
        let place = |id: NodeId, tasks: &[Task]| {
            tasks.iter().position(|task| matches!(task, Task::Compute { node, .. } if *node == id))
        };
        let fused = uses[source.index()] == 1 && writes_into_sum(&graph[source].op);
        match place(source, tasks).filter(|_| fused) {
            Some(at) => {
                tasks[at] = Task::Accumulate { node: source, accumulator };
                tasks.retain(
                    |task| !matches!(task, Task::Compute { node, .. } if through.contains(node)),
                );
            }
            None => {
                let at = place(gradient, tasks).map_or(0, |at| at + 1);
                tasks.insert(at, Task::Add { node: gradient, accumulator });
            }
        }
    }
}

/// Ops whose kernels can add to their output instead of replacing it.
fn writes_into_sum(op: &Op) -> bool {
    matches!(
        op,
        Op::Matmul
            | Op::Reduction(Reduction::Sum(_))
            | Op::Indexing(Indexing::EmbeddingGradient { .. })
            | Op::RowWise(RowWise::LayerNormGradientGamma(_))
    )
}
