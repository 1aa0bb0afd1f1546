//! The joint graph to blocks, and the work of every block to F, B and W, by slicing.
//!
//! A backward node is **B** when the gradient of some activation depends on it, and **W** when
//! only parameter gradients do (Qi et al. 2023, "Zero Bubble Pipeline Parallelism", section 2).
//! The gradient of the first parametrised op's output counts as B too, so that the first stage is
//! split like every other.

mod blocks;

use crate::differentiate::Joint;
use crate::error::{Error, Result};
use crate::graph::{
    Facts, Graph, Leaf, NodeId, Op, ParameterId, Reduction, State, Windowed, verify,
};
use crate::plan::{PerWork, Work};

/// Position of a block in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

impl BlockId {
    /// The id as a position in [`Split::blocks`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a node's value depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// On nothing: computed once, wherever it is used.
    Constant,
    /// On parameters alone: computed where it is used, never sent.
    View,
    /// On the microbatch: computed in one block, sent to the others that use it.
    Activation,
}

/// The joint graph with every node's block and kind of work.
#[derive(Debug, Clone)]
pub struct Split {
    /// The graph that was split.
    pub joint: Joint,
    /// What the proof of its graph found out.
    pub facts: Facts,
    /// What every node depends on.
    pub roles: Vec<Role>,
    /// Block and work of every node that some block computes; none for leaves, constants, and
    /// backward nodes that no gradient needs.
    pub places: Vec<Option<(BlockId, Work)>>,
    /// Nodes that are stored densely because another block uses them.
    pub copied: Vec<bool>,
    /// The blocks, in the model's order.
    pub blocks: Vec<Block>,
    /// Block boundaries at which the user allows a cut, when the model has marks: entry k means
    /// after block k - 1.
    pub marks: Vec<usize>,
}

/// The smallest unit that a stage is made of.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Block {
    /// The parameters it uses.
    pub parameters: Vec<ParameterId>,
    /// Nodes computed by F, by B and by W.
    pub nodes: PerWork<Vec<NodeId>>,
    /// Activations that cross from this block to the next, also those that only pass through.
    pub activations_out: Vec<NodeId>,
    /// Gradients that cross from this block to the one before.
    pub gradients_out: Vec<NodeId>,
    /// Floating-point operations of F, B and W; elementwise work is weighted by its cost.
    pub flops: PerWork<f64>,
}

/// Splits the joint graph into blocks of F, B and W.
///
/// # Errors
///
/// When the graph is not well-formed, or the user's marks leave a block without work.
pub fn split(joint: Joint) -> Result<Split> {
    let graph = &joint.graph;
    let facts = verify(graph)?;
    let roles = roles(&joint);
    let (ends, marks) = blocks::ends(&joint, &facts, &roles)?;
    let works = works(&joint, &roles);
    let homes = homes(&joint, &roles, &ends);
    let home = |id: NodeId| homes[joint.owner(id).index()];
    let places: Vec<Option<(BlockId, Work)>> =
        graph.ids().map(|id| works[id.index()].map(|work| (home(id), work))).collect();
    let mut blocks = vec![Block::default(); ends.len() + 1];
    for id in graph.ids() {
        let Some((block, work)) = places[id.index()] else { continue };
        let block = &mut blocks[block.index()];
        for &input in &graph[id].inputs {
            if let Some(parameter) = graph[input].op.parameter()
                && !block.parameters.contains(&parameter)
            {
                block.parameters.push(parameter);
            }
        }
        block.nodes[work].push(id);
        block.flops[work] += cost(graph, id);
    }
    for &State { parameter, update } in &graph.states {
        let (block, _) = places[update.index()].expect("an update depends on the microbatch");
        let parameters = &mut blocks[block.index()].parameters;
        if !parameters.contains(&parameter) {
            parameters.push(parameter);
        }
    }
    blocks.iter_mut().for_each(|block| block.parameters.sort_unstable());
    let mut split = Split { facts, roles, places, copied: Vec::new(), blocks, marks, joint };
    split.fill_crossings();
    Ok(split)
}

impl Split {
    /// Block of a node that some block computes.
    pub fn block(&self, id: NodeId) -> Option<BlockId> {
        self.places[id.index()].map(|(block, _)| block)
    }

    /// What computing a node counts in [`Block::flops`].
    pub fn flops(&self, id: NodeId) -> f64 {
        cost(&self.joint.graph, id)
    }

    /// The modules whose parameters a block uses, such as `blocks.0.attention.query ..
    /// blocks.0.attention.output`.
    pub fn modules(&self, block: usize) -> String {
        let module = |position: &ParameterId| {
            let path = &self.joint.graph.parameters[position.index()].path;
            path.rsplit_once('.').map_or(path.as_str(), |(module, _)| module)
        };
        let parameters = &self.blocks[block].parameters;
        match (parameters.first().map(module), parameters.last().map(module)) {
            (Some(first), Some(last)) if first != last => format!("{first} .. {last}"),
            (Some(only), _) => only.to_string(),
            (None, _) => "none".to_string(),
        }
    }

    /// Bytes that cross between block k - 1 and block k, both ways, at entry k - 1.
    pub fn crossing_bytes(&self) -> Vec<u64> {
        let bytes =
            |ids: &[NodeId]| ids.iter().map(|&id| self.joint.graph[id].bytes()).sum::<u64>();
        self.blocks
            .windows(2)
            .map(|pair| bytes(&pair[0].activations_out) + bytes(&pair[1].gradients_out))
            .collect()
    }

    /// Every value crosses all boundaries between the block that computes it and the last one
    /// that uses it: forward for activations, backward for gradients.
    fn fill_crossings(&mut self) {
        let graph = &self.joint.graph;
        let mut reach: Vec<Option<(u32, u32)>> =
            self.places.iter().map(|place| place.map(|(block, _)| (block.0, block.0))).collect();
        for id in graph.ids() {
            let Some(BlockId(user)) = self.block(id) else { continue };
            for input in &graph[id].inputs {
                if let Some((low, high)) = &mut reach[input.index()] {
                    (*low, *high) = ((*low).min(user), (*high).max(user));
                }
            }
        }
        self.copied = vec![false; graph.nodes.len()];
        for id in graph.ids() {
            let (Some(BlockId(home)), Some((low, high))) = (self.block(id), reach[id.index()])
            else {
                continue;
            };
            if (low, high) == (home, home) {
                continue;
            }
            let role = self.roles[id.index()];
            assert_eq!(role, Role::Activation, "{id} {} crosses", graph[id]);
            if self.joint.is_backward(id) {
                assert!(high == home, "gradient {id} crosses forward");
                for block in low + 1..=home {
                    self.blocks[block as usize].gradients_out.push(id);
                }
            } else {
                assert!(low == home, "activation {id} crosses backward");
                for block in home..high {
                    self.blocks[block as usize].activations_out.push(id);
                }
            }
            self.copied[id.index()] = !self.facts.storage(id, &|_| false).dense;
        }
    }
}

/// Block of every forward node: by its position, but views of parameters are where they are used.
fn homes(joint: &Joint, roles: &[Role], ends: &[NodeId]) -> Vec<BlockId> {
    let graph = &joint.graph;
    let forward = || (0..joint.forward as u32).map(NodeId);
    let mut homes: Vec<BlockId> =
        forward().map(|id| BlockId(ends.partition_point(|&end| end < id) as u32)).collect();
    for id in forward().rev() {
        for &input in &graph[id].inputs {
            if roles[input.index()] == Role::View {
                homes[input.index()] = homes[id.index()];
            }
        }
    }
    homes
}

/// What every node depends on.
fn roles(joint: &Joint) -> Vec<Role> {
    let graph = &joint.graph;
    let mut roles: Vec<Role> = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let node = &graph[id];
        let of = |role: Role| node.inputs.iter().any(|input| roles[input.index()] == role);
        roles.push(match node.op {
            Op::Leaf(Leaf::Input(_)) => Role::Activation,
            Op::Elementwise(op) if op.depends_on_run() => Role::Activation,
            Op::Leaf(Leaf::Parameter(_)) => Role::View,
            Op::Leaf(Leaf::Constant(_)) => Role::Constant,
            _ if of(Role::Activation) => Role::Activation,
            // A gradient may depend on parameters alone and still be sent.
            _ if of(Role::View) && joint.is_backward(id) => Role::Activation,
            _ if of(Role::View) => Role::View,
            _ => Role::Constant,
        });
    }
    roles
}

/// The kind of work of every node; none where nothing is to be done per microbatch.
fn works(joint: &Joint, roles: &[Role]) -> Vec<Option<Work>> {
    let graph = &joint.graph;
    let mut needed_by: Vec<Option<Work>> = vec![None; graph.nodes.len()];
    for contribution in &joint.contributions {
        needed_by[contribution.gradient.index()] = Some(Work::W);
    }
    let activations = joint.gradients.iter().zip(roles);
    for gradient in
        activations.filter_map(|(gradient, role)| gradient.filter(|_| *role == Role::Activation))
    {
        needed_by[gradient.index()] = Some(Work::B);
    }
    for id in graph.ids().rev().filter(|&id| joint.is_backward(id)) {
        let Some(work) = needed_by[id.index()] else { continue };
        for input in graph[id].inputs.iter().filter(|&&input| joint.is_backward(input)) {
            let needed = &mut needed_by[input.index()];
            *needed = if work == Work::B { Some(Work::B) } else { needed.or(Some(Work::W)) };
        }
    }
    graph
        .ids()
        .map(|id| {
            if graph[id].op.is_leaf() || roles[id.index()] == Role::Constant {
                None
            } else if joint.is_backward(id) {
                needed_by[id.index()]
            } else {
                Some(Work::F)
            }
        })
        .collect()
}

/// Cost of a node in floating-point operations of a matmul: other ops are bound by memory, at
/// about this many operations of a matmul per element.
const ELEMENTWISE_COST: f64 = 16.0;

fn cost(graph: &Graph, id: NodeId) -> f64 {
    let node = &graph[id];
    match &node.op {
        Op::Matmul => {
            let x = &graph[node.inputs[0]].shape;
            2.0 * node.shape.elements() as f64 * x.0[x.rank() - 1] as f64
        }
        Op::Windowed(op) if op.is_convolution() => convolution_cost(op, graph, id),
        Op::Reduction(Reduction::ArgSort { axis, .. }) => {
            // A sort compares an element about so often.
            let comparisons = (node.shape.0[*axis] as f64).log2().max(1.0);
            ELEMENTWISE_COST * node.shape.elements() as f64 * comparisons
        }
        Op::Movement(_) => 0.0,
        _ => {
            let widest = node.inputs.iter().map(|&input| graph[input].shape.elements());
            ELEMENTWISE_COST * widest.max().unwrap_or(0).max(node.shape.elements()) as f64
        }
    }
}

/// Every element of a convolution's output, or of its gradient, meets one window of the weight; the
/// gradients multiply as often.
fn convolution_cost(op: &Windowed, graph: &Graph, id: NodeId) -> f64 {
    let node = &graph[id];
    let [x, y] = [node.inputs[0], node.inputs[1]].map(|input| &graph[input].shape);
    let (weight, windows) = match op {
        Windowed::Conv2d(_) => (y, &node.shape),
        Windowed::Conv2dInputGradient { .. } => (x, y),
        _ => (&node.shape, y),
    };
    2.0 * windows.elements() as f64 * weight.elements() as f64 / weight.0[0] as f64
}

pub(crate) fn no_work(block: usize) -> Error {
    Error::model(format!("block {block} of those that marks make computes nothing"))
        .hint("call zerobubble::nn::boundary on values that the model computed in between")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Convolution, DType, Shape};

    #[test]
    fn a_convolution_and_its_gradients_cost_what_the_product_of_its_patches_does() {
        let mut graph = Graph::default();
        let x = graph.push_input(Shape(vec![2, 6, 9, 8]), DType::F32);
        let weight = graph.push_parameter("w".into(), Shape(vec![4, 3, 3, 2]), true);
        let convolution =
            Convolution { stride: [2, 1], padding: [(0, 0); 2], dilation: [1, 1], groups: 2 };
        let y = graph.push(Windowed::Conv2d(convolution), &[x, weight]).expect("it is well-typed");
        assert_eq!(graph[y].shape, Shape(vec![2, 4, 4, 7]));
        let of_input = Windowed::Conv2dInputGradient { convolution, size: [9, 8] };
        let of_weight = Windowed::Conv2dWeightGradient { convolution, kernel: [3, 2] };
        let nodes = [
            y,
            graph.push(of_input, &[weight, y]).expect("it is well-typed"),
            graph.push(of_weight, &[x, y]).expect("it is well-typed"),
        ];
        let (windows, window) = (2 * 4 * 4 * 7, 3 * 3 * 2);
        for node in nodes {
            assert_eq!(cost(&graph, node), (2 * windows * window) as f64, "{}", graph[node]);
        }
    }
}
