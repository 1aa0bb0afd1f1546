//! The operation graph: forward, loss and, once differentiated, backward, in one small SSA form.
//!
//! A [`Graph`] is a list of [`Node`]s in topological order; a node is an [`Op`] applied to earlier
//! nodes and has one output of static [`Shape`] and [`DType`]. Ops are pure: what a node computes
//! depends on its inputs and, for random numbers, on the run's key. [`Graph::push`] infers every
//! shape, so a graph that was built is well-typed; [`verify`] proves the same of a graph from
//! anywhere.
//!
//! Architecture invariant: nothing here knows Burn, a device or a clock.

mod display;
mod facts;
mod op;
mod prune;
mod verify;
mod window;

pub use facts::{Facts, Storage};
pub use op::{
    Activation, Binary, Bitwise, Comparison, Distribution, Elementwise, Indexing, Join, Leaf,
    Logical, Movement, Op, Reduction, RowWise, Scalar, Unary, Windowed,
};
pub use prune::prune;
pub use verify::verify;
pub use window::{Convolution, Pool};

use crate::error::Result;

/// Position of a node in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// Position of a parameter in [`Graph::parameters`], which is the module's own order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParameterId(pub u32);

/// Position of a tensor in the user's batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InputId(pub u32);

/// Position of a captured constant in [`Graph::constants`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConstantId(pub u32);

/// What the elements of a tensor are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// Integer of the engine's index width (64 bits on CPU devices).
    Int,
    /// Truth value.
    Bool,
}

/// Sizes of a tensor's dimensions, outermost first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape(pub Vec<usize>);

/// One operation and what it yields.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// Its operands, all earlier in the graph.
    pub inputs: Vec<NodeId>,
    /// Shape of its output.
    pub shape: Shape,
    /// Element type of its output.
    pub dtype: DType,
}

/// A float tensor of the module that can be trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Where it stands in the module, such as `blocks.3.attention.query.weight`.
    pub path: String,
    /// Its node.
    pub node: NodeId,
    /// Whether it is trained; a frozen one has no gradient.
    pub trained: bool,
}

/// A tensor that the model made from no input: positions, masks, tables.
#[derive(Debug, Clone, PartialEq)]
pub struct Constant {
    /// Sizes of its dimensions.
    pub shape: Shape,
    /// Its elements, outermost dimension first.
    pub values: Values,
}

/// Elements of a constant.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// Integers.
    Int(Vec<i64>),
    /// Truth values.
    Bool(Vec<bool>),
}

/// A parameter that every forward pass of a step replaces, such as a running mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The parameter, which is not trained.
    pub parameter: ParameterId,
    /// Its next value.
    pub update: NodeId,
}

/// Forward and loss of a model on one microbatch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Graph {
    /// Nodes in topological order.
    pub nodes: Vec<Node>,
    /// Trainable tensors in the module's own order.
    pub parameters: Vec<Parameter>,
    /// Tensors of the batch, in the batch's own order.
    pub inputs: Vec<NodeId>,
    /// Captured constants.
    pub constants: Vec<Constant>,
    /// Nodes after which the user allows a cut; empty when the model has no marks.
    pub boundaries: Vec<NodeId>,
    /// The scalar that is minimised, or a pair of a sum and its weight.
    pub loss: Option<NodeId>,
    /// Whether the loss is a pair: the sums of a step are divided by the sum of their weights.
    pub weighted: bool,
    /// What the forward pass updates by itself.
    pub states: Vec<State>,
}

impl NodeId {
    /// The id as a position in [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl ParameterId {
    /// The id as a position in [`Graph::parameters`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl DType {
    /// Bytes of one element on a CPU device.
    pub fn bytes(self) -> u64 {
        match self {
            DType::F32 => 4,
            DType::Int => 8,
            DType::Bool => 1,
        }
    }
}

impl Shape {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.0.iter().product()
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The shape with dimension `axis` of size 1.
    pub fn reduced(&self, axis: usize) -> Self {
        let mut dims = self.0.clone();
        dims[axis] = 1;
        Self(dims)
    }
}

impl Node {
    /// Bytes of the output when it is stored densely.
    pub fn bytes(&self) -> u64 {
        self.shape.elements() as u64 * self.dtype.bytes()
    }
}

impl Values {
    /// Element type of the values.
    pub fn dtype(&self) -> DType {
        match self {
            Values::F32(_) => DType::F32,
            Values::Int(_) => DType::Int,
            Values::Bool(_) => DType::Bool,
        }
    }
}

impl std::ops::Index<NodeId> for Graph {
    type Output = Node;

    fn index(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }
}

impl Graph {
    /// Appends `op` on `inputs`; shape and element type follow from the op's rule.
    ///
    /// # Errors
    ///
    /// When the op does not accept operands of these shapes or types.
    pub fn push(&mut self, op: impl Into<Op>, inputs: &[NodeId]) -> Result<NodeId> {
        let op = op.into();
        let operands: Vec<&Node> = inputs.iter().map(|&id| &self[id]).collect();
        let (shape, dtype) = op.output(&operands)?;
        Ok(self.append(Node { op, inputs: inputs.to_vec(), shape, dtype }))
    }

    /// Appends a tensor of the batch.
    pub fn push_input(&mut self, shape: Shape, dtype: DType) -> NodeId {
        let op = Op::Leaf(Leaf::Input(InputId(self.inputs.len() as u32)));
        let node = self.append(Node { op, inputs: Vec::new(), shape, dtype });
        self.inputs.push(node);
        node
    }

    /// Appends a parameter; one that is not `trained` gets no gradient.
    pub fn push_parameter(&mut self, path: String, shape: Shape, trained: bool) -> NodeId {
        let op = Op::Leaf(Leaf::Parameter(ParameterId(self.parameters.len() as u32)));
        let node = self.append(Node { op, inputs: Vec::new(), shape, dtype: DType::F32 });
        self.parameters.push(Parameter { path, node, trained });
        node
    }

    /// Appends a constant.
    pub fn push_constant(&mut self, constant: Constant) -> NodeId {
        let op = Op::Leaf(Leaf::Constant(ConstantId(self.constants.len() as u32)));
        let (shape, dtype) = (constant.shape.clone(), constant.values.dtype());
        self.constants.push(constant);
        self.append(Node { op, inputs: Vec::new(), shape, dtype })
    }

    /// Ids of all nodes, in order.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    fn append(&mut self, node: Node) -> NodeId {
        let id =
            NodeId(u32::try_from(self.nodes.len()).expect("a graph has fewer than 2^32 nodes"));
        self.nodes.push(node);
        id
    }
}
