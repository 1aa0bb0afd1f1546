//! A block's nodes to kernels, with elementwise ops fused into chains.
//!
//! Fusion sees one block and one kind of work at a time, so that the kernels, and with them the
//! bits of every result, are the same wherever the model is cut.

use std::collections::{HashMap, HashSet};

use super::element::{Element, Elements};
use super::kernel::{Argument, Body, Chain, Kernel, Operand, Step, Target, View, Write};
use super::view::{self, Views};
use crate::compile::{Accumulator, Command, Program, Task, compile};
use crate::graph::{Elementwise, Graph, Leaf, Movement, Node, NodeId, Op};
use crate::plan::PerWork;
use crate::split::{BlockId, Split};

/// Most buffers that fusion puts into one kernel; every adapter can bind as many.
const MOST_BUFFERS: usize = 8;

/// The kernels of one block.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockKernels {
    /// Sums of gradients that its W adds to; [`Target::Sum`] is a position here.
    pub accumulators: Vec<Accumulator>,
    /// Kernels of F, B and W, in order.
    pub works: PerWork<Vec<Kernel>>,
}

/// The kernels of `block`, whose values are stored as `stored` says.
pub fn lower(split: &Split, stored: &Elements, block: BlockId) -> BlockKernels {
    let program = compile(split, block.index()..block.index() + 1);
    let mut views = Views::new(split, block);
    let escaping = escaping(split, &mut views, block);
    let commands = program.commands.as_ref();
    let groups = commands.map(|commands| groups(split, stored, &mut views, &escaping, commands));
    let mut read: HashSet<NodeId> =
        groups.0.iter().flatten().flat_map(|group| group.reads.iter().map(|x| x.node)).collect();
    read.extend(leaving(split, &mut views, &program, block));
    let works = groups.map(|groups| {
        let kernel = |group: Group| group.kernel(&split.joint.graph, stored, &read);
        groups.into_iter().filter_map(kernel).collect()
    });
    BlockKernels { accumulators: program.accumulators, works }
}

/// The kernel of one op by itself, on operands that lie anywhere in their buffers.
///
/// # Panics
///
/// When the op is a leaf.
pub fn kernel_of(node: &Node, operands: Vec<Operand>) -> Kernel {
    let elements = node.shape.elements();
    let chain = |steps, result| Chain { elements, steps, results: vec![result] };
    let (reads, body) = match part(&node.op) {
        Part::Leaf(op) => panic!("{op} is not computed"),
        Part::Whole(body) => (operands, body),
        Part::Matmul => {
            let reads = operands.iter().map(|x| factor(x, &node.shape.0)).collect();
            (reads, Body::Matmul(chain(Vec::new(), Argument::Product)))
        }
        Part::Movement(op) => {
            let view = view::moved(op, &operands[0].view);
            let body = Body::Chain(chain(Vec::new(), Argument::Read(0)));
            (vec![Operand { view, ..operands[0] }], body)
        }
        Part::Step(op) => {
            let arguments = (0..operands.len()).map(Argument::Read).collect();
            let step = Step { op, arguments, dtype: node.dtype };
            let broadcast = |x: Operand| Operand { view: x.view.broadcast(&node.shape.0), ..x };
            let reads = operands.into_iter().map(broadcast).collect();
            (reads, Body::Chain(chain(vec![step], Argument::Step(0))))
        }
    };
    let target = Target::Value(NodeId(u32::MAX));
    let write = Write { target, shape: node.shape.0.clone(), element: node.dtype.into() };
    Kernel { reads, writes: vec![write], body }
}

/// Nodes of the block whose buffers are read outside of its kernels.
fn leaving(split: &Split, views: &mut Views<'_>, program: &Program, block: BlockId) -> Vec<NodeId> {
    let sent = program.activations_out.iter().chain(&program.gradients_out);
    let updates = program.states.iter().map(|state| &state.update);
    let outputs = sent.chain(&program.loss).chain(updates);
    let outputs = outputs.copied().filter(|&id| split.block(id) == Some(block));
    outputs.map(|id| views.of(id).0).collect()
}

/// Nodes of the block that some other block, other work or other kind of kernel reads.
fn escaping(split: &Split, views: &mut Views<'_>, block: BlockId) -> HashSet<NodeId> {
    let graph = &split.joint.graph;
    let mut escaping = HashSet::new();
    for id in graph.ids() {
        for &input in &graph[id].inputs {
            if split.block(input) != Some(block) {
                continue;
            }
            let together = split.places[id.index()] == split.places[input.index()];
            let fuses = matches!(graph[id].op, Op::Elementwise(_) | Op::Movement(_));
            if !together || !fuses {
                escaping.insert(views.of(input).0);
            }
        }
    }
    escaping
}

/// A kernel in the making.
struct Group {
    core: Core,
    elements: usize,
    reads: Vec<Operand>,
    steps: Vec<Step>,
    /// What is computed, in the order in which it is.
    members: Vec<(NodeId, Argument)>,
    sums: Vec<(Argument, usize)>,
}

/// What a group does before its elementwise steps.
enum Core {
    /// Nothing: it is elementwise.
    None,
    /// A product.
    Matmul,
    /// Everything: it takes no steps.
    Whole(Body),
}

/// Fuses the commands of one kind of work. A node joins the last group that computes one of its
/// operands, so what it reads from elsewhere is there before.
fn groups(
    split: &Split,
    stored: &Elements,
    views: &mut Views<'_>,
    escaping: &HashSet<NodeId>,
    commands: &[Command],
) -> Vec<Group> {
    let graph = &split.joint.graph;
    let mut groups = Groups { graph, stored, escaping, groups: Vec::new(), made: HashMap::new() };
    for command in commands {
        match command.task {
            Task::Compute { node, .. } if graph[node].op.is_movement() => {
                if views.of(node).0 == node {
                    let (owner, view) = views.moved(node).expect("a movement of this block");
                    groups.copy(node, owner, view);
                }
            }
            Task::Compute { node, .. } => {
                let at = groups.compute(node, views);
                groups.made.insert(node, at);
            }
            Task::Accumulate { node, accumulator } => {
                let at = groups.compute(node, views);
                groups.groups[at].sums.push((Argument::Product, accumulator));
            }
            Task::Add { node, accumulator } => {
                let (owner, view) = views.of(node);
                groups.add(owner, view, accumulator);
            }
        }
    }
    groups.groups
}

struct Groups<'a> {
    graph: &'a Graph,
    stored: &'a Elements,
    escaping: &'a HashSet<NodeId>,
    groups: Vec<Group>,
    /// The group that computes a node.
    made: HashMap<NodeId, usize>,
}

impl Groups<'_> {
    /// Puts the computation of `id` into a group and gives its position.
    fn compute(&mut self, id: NodeId, views: &mut Views<'_>) -> usize {
        let node = &self.graph[id];
        let operands: Vec<Operand> = node
            .inputs
            .iter()
            .map(|&input| {
                let (owner, view) = views.of(input);
                Operand { node: owner, view, element: self.stored.of(input) }
            })
            .collect();
        let elements = node.shape.elements();
        let (core, reads) = match part(&node.op) {
            Part::Step(op) => return self.step(id, op, operands),
            Part::Whole(body) => (Core::Whole(body), operands),
            Part::Matmul => {
                (Core::Matmul, operands.iter().map(|x| factor(x, &node.shape.0)).collect())
            }
            Part::Leaf(_) | Part::Movement(_) => panic!("{id} {} is not computed", node.op),
        };
        let members = vec![(id, Argument::Product)];
        self.open(Group { core, elements, reads, steps: Vec::new(), members, sums: Vec::new() })
    }

    /// Adds an elementwise step to the group that may take it, or to a new one.
    fn step(&mut self, id: NodeId, op: Elementwise, operands: Vec<Operand>) -> usize {
        let node = &self.graph[id];
        let elements = node.shape.elements();
        let at = self.joinable(elements, &operands).unwrap_or_else(|| self.chain(elements));
        let group = &mut self.groups[at];
        let arguments = operands
            .into_iter()
            .map(|operand| {
                group.member(operand.node).unwrap_or_else(|| {
                    let view = operand.view.broadcast(&node.shape.0);
                    group.read(Operand { view, ..operand })
                })
            })
            .collect();
        group.steps.push(Step { op, arguments, dtype: node.dtype });
        group.members.push((id, Argument::Step(group.steps.len() - 1)));
        at
    }

    /// The last group that computes one of the operands, if the step fits in there.
    fn joinable(&self, elements: usize, operands: &[Operand]) -> Option<usize> {
        let made = |operand: &Operand| self.made.get(&operand.node).copied();
        let last = operands.iter().filter_map(made).max()?;
        let group = &self.groups[last];
        let aligned = |x: &Operand| x.view.is_dense() && x.view.elements() == elements;
        let fits = !matches!(group.core, Core::Whole(_))
            && group.elements == elements
            && operands.iter().filter(|x| made(x) == Some(last)).all(aligned);
        let written = group.members.iter().filter(|(id, _)| self.escaping.contains(id)).count();
        // Besides what is there: the step's operands, its result, and the run's key.
        let buffers = group.reads.len() + written + group.sums.len() + operands.len() + 2;
        (fits && buffers <= MOST_BUFFERS).then_some(last)
    }

    /// Copies the elements of a movement, in order, into a buffer of its own.
    fn copy(&mut self, id: NodeId, owner: NodeId, view: View) {
        let at = self.chain(view.elements());
        let group = &mut self.groups[at];
        let element = self.stored.of(owner);
        let read = group.read(Operand { node: owner, view, element });
        group.members.push((id, read));
        self.made.insert(id, at);
    }

    /// Adds a value that is there to a sum, where it is computed if it can.
    fn add(&mut self, owner: NodeId, view: View, accumulator: usize) {
        let maker = self.made.get(&owner).copied().filter(|&at| {
            let group = &self.groups[at];
            let free = group.sums.iter().all(|&(_, other)| other != accumulator);
            let aligned = view.is_dense() && view.elements() == group.elements;
            free && aligned && !matches!(group.core, Core::Whole(_))
        });
        let at = maker.unwrap_or_else(|| self.chain(view.elements()));
        let group = &mut self.groups[at];
        let value = group.member(owner).filter(|_| maker.is_some()).unwrap_or_else(|| {
            let element = self.stored.of(owner);
            group.read(Operand { node: owner, view, element })
        });
        group.sums.push((value, accumulator));
    }

    fn chain(&mut self, elements: usize) -> usize {
        let (reads, steps) = (Vec::new(), Vec::new());
        let (members, sums) = (Vec::new(), Vec::new());
        self.open(Group { core: Core::None, elements, reads, steps, members, sums })
    }

    fn open(&mut self, group: Group) -> usize {
        self.groups.push(group);
        self.groups.len() - 1
    }
}

impl Group {
    /// The argument that a node of this group is.
    fn member(&self, id: NodeId) -> Option<Argument> {
        self.members.iter().find(|(member, _)| *member == id).map(|&(_, argument)| argument)
    }

    fn read(&mut self, operand: Operand) -> Argument {
        let at = self.reads.iter().position(|read| *read == operand).unwrap_or_else(|| {
            self.reads.push(operand);
            self.reads.len() - 1
        });
        Argument::Read(at)
    }

    /// The kernel that computes what is read elsewhere, if anything is.
    fn kernel(self, graph: &Graph, stored: &Elements, read: &HashSet<NodeId>) -> Option<Kernel> {
        let value = |&(id, argument): &(NodeId, Argument)| {
            let (shape, element) = (graph[id].shape.0.clone(), stored.of(id));
            (argument, Write { target: Target::Value(id), shape, element })
        };
        let sum = |&(argument, accumulator): &(Argument, usize)| {
            let target = Target::Sum(accumulator);
            let element = Element::F32;
            (argument, Write { target, shape: vec![self.elements], element })
        };
        let members = self.members.iter().filter(|(id, _)| read.contains(id)).map(value);
        let results = members.chain(self.sums.iter().map(sum));
        let (results, mut writes): (Vec<Argument>, Vec<Write>) = results.unzip();
        if writes.is_empty() {
            return None;
        }
        let chain = Chain { elements: self.elements, steps: self.steps, results };
        let body = match self.core {
            Core::None => Body::Chain(chain),
            Core::Matmul => Body::Matmul(chain),
            Core::Whole(body) => {
                // The family needs the shape that the op gives, also where it goes to a sum.
                writes
                    .iter_mut()
                    .for_each(|to| to.shape = graph[self.members[0].0].shape.0.clone());
                body
            }
        };
        Some(Kernel { reads: self.reads, writes, body })
    }
}

/// A factor with the leading dimensions of the product.
fn factor(operand: &Operand, product: &[usize]) -> Operand {
    let rank = product.len();
    let own = &operand.view.shape;
    let mut shape = product[..rank - 2].to_vec();
    shape.extend(&own[own.len() - 2..]);
    Operand { view: operand.view.broadcast(&shape), ..operand.clone() }
}

/// What an op is to a block's kernels.
enum Part<'a> {
    /// It is there before any kernel.
    Leaf(Leaf),
    /// It is where its operand is.
    Movement(&'a Movement),
    /// A step of a chain.
    Step(Elementwise),
    /// What a chain may follow.
    Matmul,
    /// A kernel of its own.
    Whole(Body),
}

fn part(op: &Op) -> Part<'_> {
    match op {
        Op::Leaf(op) => Part::Leaf(*op),
        Op::Elementwise(op) => Part::Step(*op),
        Op::Movement(op) => Part::Movement(op),
        Op::Matmul => Part::Matmul,
        Op::Reduction(op) => Part::Whole(Body::Reduction(op.clone())),
        Op::Join(op) => Part::Whole(Body::Join(*op)),
        Op::Indexing(op) => Part::Whole(Body::Indexing(*op)),
        Op::RowWise(op) => Part::Whole(Body::RowWise(*op)),
        Op::Windowed(op) => Part::Whole(Body::Windowed(*op)),
    }
}
