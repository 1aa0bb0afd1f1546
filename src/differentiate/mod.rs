//! The graph to the joint graph: reverse-mode differentiation with one rule per op.
//!
//! What is added is backward work. Every added node is owned by the forward node whose rule asked
//! for it, so that wherever the forward graph is cut, the backward graph is cut with it.

mod cumulative;
mod elementwise;
mod rules;
mod structural;
mod window;

use crate::error::{Error, Result};
use crate::graph::{
    Binary, Constant, DType, Elementwise, Graph, Movement, NodeId, Op, ParameterId, Reduction,
    Scalar, Shape, Values,
};

/// Forward, loss and backward in one graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Joint {
    /// The forward graph, followed by the backward nodes.
    pub graph: Graph,
    /// How many nodes the forward graph has.
    pub forward: usize,
    /// For every backward node, the forward node that it belongs to.
    pub owners: Vec<NodeId>,
    /// Gradient of every forward node that has one; the sum over its uses.
    pub gradients: Vec<Option<NodeId>>,
    /// What every use of a parameter adds to its gradient. Uses of one parameter stay apart: they
    /// may be in different stages.
    pub contributions: Vec<Contribution>,
}

/// What one use of a parameter adds to its gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contribution {
    /// The parameter.
    pub parameter: ParameterId,
    /// The forward node that uses it.
    pub user: NodeId,
    /// The node to add, of the parameter's shape.
    pub gradient: NodeId,
}

impl Joint {
    /// The forward node that `id` is or belongs to.
    pub fn owner(&self, id: NodeId) -> NodeId {
        match id.index().checked_sub(self.forward) {
            Some(backward) => self.owners[backward],
            None => id,
        }
    }

    /// Whether `id` is backward work.
    pub fn is_backward(&self, id: NodeId) -> bool {
        id.index() >= self.forward
    }
}

/// Adds the gradient of `scale` times the loss with respect to every parameter.
///
/// `scale` is 1 / microbatches, so that gradients summed over a step's microbatches are those of
/// the mean over its batch. A weighted loss has the gradients of its sum, which are divided by the
/// step's weight when that is known.
///
/// # Errors
///
/// When the loss depends on no parameter, or an op on the way has no gradient rule.
pub fn differentiate(graph: Graph, scale: f64) -> Result<Joint> {
    let loss = graph.loss.ok_or_else(|| Error::model("the graph has no loss"))?;
    let active = active(&graph);
    if !active[loss.index()] {
        return Err(Error::model("the loss depends on no parameter that is trained")
            .hint("compute the loss from the module's output, and unfreeze a parameter"));
    }
    let forward = graph.nodes.len();
    let mut builder = Builder { graph, forward, owners: Vec::new(), owner: loss };
    let mut gradients: Vec<Option<NodeId>> = vec![None; forward];
    let mut contributions = Vec::new();
    let of_loss =
        if builder.graph.weighted { builder.first()? } else { builder.full(scale, loss)? };
    gradients[loss.index()] = Some(of_loss);

    for id in (0..forward as u32).rev().map(NodeId) {
        let Some(gradient) = gradients[id.index()].filter(|_| active[id.index()]) else { continue };
        builder.owner = id;
        let inputs = builder.graph[id].inputs.clone();
        let wanted: Vec<bool> = inputs.iter().map(|input| active[input.index()]).collect();
        let adjoints = rules::gradients(&mut builder, id, gradient, &wanted)?;
        for (&input, adjoint) in inputs.iter().zip(adjoints) {
            let Some(adjoint) = adjoint.filter(|_| active[input.index()]) else { continue };
            assert_eq!(builder.graph[adjoint].shape, builder.graph[input].shape, "{id}");
            if let Some(parameter) = builder.graph[input].op.parameter() {
                let gradient = builder.owned(adjoint)?;
                contributions.push(Contribution { parameter, user: id, gradient });
                continue;
            }
            gradients[input.index()] = Some(match gradients[input.index()] {
                None => adjoint,
                Some(sum) => builder.binary(Binary::Add, sum, adjoint)?,
            });
        }
    }
    let Builder { graph, owners, .. } = builder;
    Ok(Joint { graph, forward, owners, gradients, contributions })
}

/// Which nodes depend on a trained parameter through ops that have a gradient.
fn active(graph: &Graph) -> Vec<bool> {
    let mut active = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let float = node.dtype == DType::F32 && node.op != Op::Movement(Movement::Detach);
        let reached = node.inputs.iter().any(|input: &NodeId| active[input.index()]);
        let parameter = node.op.parameter().map(|parameter| &graph.parameters[parameter.index()]);
        let trained = parameter.is_some_and(|parameter| parameter.trained);
        active.push(trained || (reached && float));
    }
    active
}

/// Appends backward nodes on behalf of one forward node at a time.
pub(crate) struct Builder {
    graph: Graph,
    forward: usize,
    owners: Vec<NodeId>,
    owner: NodeId,
}

impl Builder {
    fn push(&mut self, op: impl Into<Op>, inputs: &[NodeId]) -> Result<NodeId> {
        let node = self.graph.push(op, inputs)?;
        self.owners.push(self.owner);
        assert_eq!(self.graph.nodes.len(), self.forward + self.owners.len());
        Ok(node)
    }

    /// `gradient` as a node of the current owner. What a rule passes on unchanged belongs to a
    /// later node, which may be in another block than the parameter's user.
    fn owned(&mut self, gradient: NodeId) -> Result<NodeId> {
        let backward = gradient.index() - self.forward;
        if self.owners[backward] == self.owner {
            return Ok(gradient);
        }
        self.push(Movement::Expand(self.shape(gradient)), &[gradient])
    }

    fn binary(&mut self, op: Binary, x: NodeId, y: NodeId) -> Result<NodeId> {
        self.push(op, &[x, y])
    }

    fn scalar(&mut self, op: Scalar, x: NodeId, value: f64) -> Result<NodeId> {
        self.push(Elementwise::Scalar(op, value), &[x])
    }

    /// One and zero: the gradient of the first of a pair.
    fn first(&mut self) -> Result<NodeId> {
        use crate::graph::{Constant, Values};
        let values = Values::F32(vec![1.0, 0.0]);
        let node = self.graph.push_constant(Constant { shape: Shape(vec![2]), values });
        self.owners.push(self.owner);
        Ok(node)
    }

    /// `value` in the shape of `like`.
    fn full(&mut self, value: f64, like: NodeId) -> Result<NodeId> {
        let shape = self.graph[like].shape.clone();
        let one = Shape(vec![1; shape.rank()]);
        let values = Values::F32(vec![value as f32]);
        let constant = self.constant(Constant { shape: one, values });
        self.push(Movement::Expand(shape), &[constant])
    }

    fn constant(&mut self, constant: Constant) -> NodeId {
        let node = self.graph.push_constant(constant);
        self.owners.push(self.owner);
        node
    }

    fn shape(&self, node: NodeId) -> Shape {
        self.graph[node].shape.clone()
    }

    fn reshape(&mut self, node: NodeId, shape: Shape) -> Result<NodeId> {
        if self.graph[node].shape == shape {
            return Ok(node);
        }
        self.push(Movement::Reshape(shape), &[node])
    }

    /// `gradient` summed over the dimensions that were repeated to reach its shape from `shape`.
    fn sum_to(&mut self, gradient: NodeId, shape: &Shape) -> Result<NodeId> {
        let from = self.shape(gradient);
        let axes: Vec<usize> =
            (0..from.rank()).filter(|&axis| from.0[axis] != shape.0[axis]).collect();
        if axes.is_empty() {
            return Ok(gradient);
        }
        self.push(Reduction::Sum(axes), &[gradient])
    }
}

/// For every operand its gradient; those that are not wanted, or that have none, may be missing.
type Gradients = Result<Vec<Option<NodeId>>>;

/// The only operand's gradient.
fn one(gradient: Result<NodeId>) -> Gradients {
    gradient.map(|gradient| vec![Some(gradient)])
}

/// Why the gradient of a gradient is not there.
fn second_derivative(b: &Builder, id: NodeId) -> Error {
    Error::model("a gradient is not differentiated again")
        .in_op(format!("{id} {}", b.graph[id].op))
        .hint("train on a loss that takes no gradients itself")
}
