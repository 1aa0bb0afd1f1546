//! Burn's recorded ops to graph ops, one function per family of Burn's.

mod activation;
mod assign;
mod base;
mod interpolate;
mod module;
mod numeric;
mod order;
mod pool;
mod range;
mod sample;
mod states;
mod volume;
mod window;

use std::collections::{HashMap, HashSet};

use burn::module::ParamId;
use burn::tensor::{DType as BurnDType, TensorData};
use burn_ir::{
    CustomOpIr, FloatOperationIr, NumericOperationIr, OperationIr, RandomOpIr, ScalarIr, TensorId,
    TensorIr,
};

use states::Update;

use super::copies::Readable;
use super::parameters::RecordedParameter;
use super::record::Record;
use crate::error::{Error, Result};
use crate::graph::{
    Constant, DType, Graph, Join, Leaf, Movement, Node, NodeId, Op, ParameterId, Shape, State,
    Values,
};
use crate::nn::{BOUNDARY, DETACH};

/// A record as a graph.
pub(super) struct Lowered {
    /// The graph, and what of it the model can read.
    pub readable: Readable,
    /// The numbers that it draws at random, by draw.
    pub draws: Vec<RandomOpIr>,
}

/// Lowers a record to a graph that ends in its loss. A parameter that is `frozen` is not trained;
/// those that are `updated` are by the forward pass itself.
///
/// # Errors
///
/// When an op has no counterpart in the graph, or the loss does not depend on the model.
pub(super) fn lower(
    record: &Record,
    frozen: &HashSet<ParamId>,
    updated: &HashSet<ParamId>,
) -> Result<Lowered> {
    let mut lowering = Lowering::new(record, frozen)?;
    let updates = states::updates(record, updated);
    let needed = needed(record, &updates);
    for (operation, needed) in record.operations.iter().zip(needed) {
        if let Some(draw) = random(operation) {
            lowering.draws.push(draw.clone());
        }
        if needed {
            lowering.operation(operation)?;
        }
    }
    let Some(&loss) = lowering.nodes.get(&record.loss) else {
        return Err(Error::model("the loss does not depend on the model")
            .hint("return the tensor that the model's forward computed"));
    };
    lowering.check_width(record.loss)?;
    lowering.graph.loss = Some(loss);
    if let Some(weight) = record.weight {
        lowering.weigh(loss, weight)?;
    }
    for Update { parameter, value } in updates {
        let parameter = ParameterId(lowering.parameters[&parameter] as u32);
        let update = lowering.nodes[&value];
        lowering.graph.states.push(State { parameter, update });
    }
    let read = record.inputs.iter().chain(&record.answered);
    let source = |id: &TensorId| {
        let node = lowering.nodes.get(id)?;
        constant(&record.values[id]).ok().map(|value| (*node, value))
    };
    let sources = read.filter_map(source).collect();
    let Lowering { graph, draws, .. } = lowering;
    Ok(Lowered { readable: Readable { graph, sources }, draws })
}

/// What an operation draws at random, if it does.
fn random(operation: &OperationIr) -> Option<&RandomOpIr> {
    match operation {
        OperationIr::Float(_, FloatOperationIr::Random(op)) => Some(op),
        OperationIr::NumericInt(_, NumericOperationIr::IntRandom(op)) => Some(op),
        _ => None,
    }
}

/// Which operations the loss and the updates depend on: a metric beside it is not trained.
fn needed(record: &Record, updates: &[Update]) -> Vec<bool> {
    let mut open: HashSet<TensorId> = updates.iter().map(|update| update.value).collect();
    open.insert(record.loss);
    open.extend(record.weight);
    let mut needed = vec![false; record.operations.len()];
    for (operation, needed) in record.operations.iter().zip(&mut needed).rev() {
        *needed = operation.outputs().any(|output| open.contains(&output.id));
        if *needed {
            open.extend(operation.inputs().map(|input| input.id));
        }
    }
    needed
}

/// A graph under construction.
struct Lowering<'a> {
    graph: Graph,
    nodes: HashMap<TensorId, NodeId>,
    record: &'a Record,
    /// Position among the graph's parameters, by tensor.
    parameters: HashMap<TensorId, usize>,
    /// Nodes that depend on parameters and on no input, leaves aside, and are used already.
    used_views: HashSet<NodeId>,
    /// Nodes that depend on parameters alone.
    views: HashSet<NodeId>,
    draws: Vec<RandomOpIr>,
    /// Floats that are widened, and so can only be cast back.
    other_floats: HashMap<TensorId, BurnDType>,
    /// Module of the last parameter that an op used, to say where in the model an op stands.
    module: String,
}

impl<'a> Lowering<'a> {
    fn new(record: &'a Record, frozen: &HashSet<ParamId>) -> Result<Self> {
        let mut lowering = Self {
            graph: Graph::default(),
            nodes: HashMap::new(),
            record,
            parameters: HashMap::new(),
            used_views: HashSet::new(),
            views: HashSet::new(),
            draws: Vec::new(),
            other_floats: HashMap::new(),
            module: String::new(),
        };
        for id in &record.inputs {
            let data = &record.values[id];
            let dtype = dtype(data.dtype())?;
            let node = lowering.graph.push_input(shape(data.shape()), dtype);
            lowering.nodes.insert(*id, node);
        }
        let mut ids = Vec::new();
        for RecordedParameter { id, tensor, path, shape, .. } in &record.parameters {
            // A parameter that the module holds twice is one parameter: the first names it.
            let position = ids.iter().position(|known| known == id).unwrap_or_else(|| {
                ids.push(*id);
                let trained = !frozen.contains(id);
                lowering.graph.push_parameter(path.clone(), shape.clone(), trained);
                ids.len() - 1
            });
            lowering.parameters.insert(*tensor, position);
        }
        Ok(lowering)
    }

    /// Makes the loss a pair of a sum and its weight, through which no gradient flows.
    fn weigh(&mut self, sum: NodeId, weight: TensorId) -> Result<()> {
        let one_float = |node: &Node| node.shape.elements() == 1 && node.dtype == DType::F32;
        self.check_width(weight)?;
        let weight = self.value(weight)?;
        if !one_float(&self.graph[sum]) || !one_float(&self.graph[weight]) {
            return Err(Error::model("a sum of losses and its weight are one float each")
                .hint("`loss.sum()` and the sum of the weights, both of shape [1]"));
        }
        let sum = self.reshape(sum, Shape(vec![1]))?;
        let weight = self.reshape(weight, Shape(vec![1]))?;
        let weight = self.push(Movement::Detach, &[weight])?;
        self.graph.loss = Some(self.push(Join::Concatenate(0), &[sum, weight])?);
        self.graph.weighted = true;
        Ok(())
    }

    fn operation(&mut self, operation: &OperationIr) -> Result<()> {
        let parameters = operation.inputs().filter_map(|x| self.parameters.get(&x.id));
        if let Some(&parameter) = parameters.last() {
            let path = &self.graph.parameters[parameter].path;
            self.module = path.rsplit_once('.').map_or("", |(module, _)| module).to_string();
        }
        match operation {
            OperationIr::Init(_) | OperationIr::Drop(_) => Ok(()),
            OperationIr::BaseFloat(op) | OperationIr::BaseInt(op) | OperationIr::BaseBool(op) => {
                self.base(op)
            }
            OperationIr::NumericFloat(_, op) | OperationIr::NumericInt(_, op) => self.numeric(op),
            OperationIr::Float(_, op) => self.float(op),
            OperationIr::Int(op) => self.int(op),
            OperationIr::Bool(op) => self.bool(op),
            OperationIr::Activation(op) => self.activation(op),
            OperationIr::Module(op) => self.module(op),
            OperationIr::Custom(op) => self.custom(op),
            OperationIr::Distributed(op) => self.unknown(op),
        }
    }

    fn custom(&mut self, op: &CustomOpIr) -> Result<()> {
        match (op.id.as_str(), op.inputs.as_slice(), op.outputs.as_slice()) {
            (DETACH, [x], [out]) => self.set(out, Movement::Detach, &[x]),
            (BOUNDARY, [x], [out]) => {
                let node = self.node(x)?;
                self.graph.boundaries.push(node);
                self.nodes.insert(out.id, node);
                Ok(())
            }
            _ => self.unknown(op),
        }
    }

    /// The error for an op that has no counterpart in the graph.
    fn unknown<T>(&self, op: &impl std::fmt::Debug) -> Result<T> {
        let text = format!("{op:?}");
        let name = text.split(['(', '{', ' ']).next().unwrap_or_default();
        let module = if self.module.is_empty() { "(input)" } else { &self.module };
        Err(Error::model("the graph has no such op; it was recorded in or right after this module")
            .in_module(module)
            .in_op(name)
            .hint("express it with matmul, elementwise, reduction, softmax or indexing ops"))
    }

    /// The node that holds `tensor`; a constant or parameter becomes one when it is first used.
    fn node(&mut self, tensor: &TensorIr) -> Result<NodeId> {
        self.check_width(tensor.id)?;
        self.value(tensor.id)
    }

    /// An error for what is to be computed in floats of another width.
    fn check_width(&self, tensor: TensorId) -> Result<()> {
        self.other_floats.get(&tensor).map_or(Ok(()), |other| dtype(*other).map(|_| ()))
    }

    /// [`Self::node`], for a tensor that may be of another width.
    fn value(&mut self, id: TensorId) -> Result<NodeId> {
        if let Some(&parameter) = self.parameters.get(&id) {
            return Ok(self.graph.parameters[parameter].node);
        }
        if let Some(&node) = self.nodes.get(&id) {
            return self.fresh_view(node);
        }
        let Some(data) = self.record.values.get(&id) else {
            return Err(Error::model(format!("tensor {id} was never computed")));
        };
        let node = self.graph.push_constant(constant(data)?);
        self.nodes.insert(id, node);
        Ok(node)
    }

    /// `node`, or its copy when it is a view of parameters that another op uses already: views
    /// of parameters are computed where they are used, so that none crosses between stages.
    fn fresh_view(&mut self, node: NodeId) -> Result<NodeId> {
        if !self.views.contains(&node) || self.used_views.insert(node) {
            return Ok(node);
        }
        let (op, inputs) = (self.graph[node].op.clone(), self.graph[node].inputs.clone());
        let inputs: Vec<NodeId> =
            inputs.into_iter().map(|input| self.fresh_view(input)).collect::<Result<_>>()?;
        self.push(op, &inputs)
    }

    /// Appends `op` on nodes.
    fn push(&mut self, op: impl Into<Op>, inputs: &[NodeId]) -> Result<NodeId> {
        let of_parameters =
            |node: &NodeId| self.graph[*node].op.parameter().is_some() || self.views.contains(node);
        let view = inputs.iter().any(of_parameters)
            && inputs.iter().all(|node| of_parameters(node) || self.is_constant(*node));
        let node =
            self.graph.push(op, inputs).map_err(|error| error.in_module(self.module.clone()))?;
        if view {
            self.views.insert(node);
        }
        Ok(node)
    }

    /// Whether a node depends on nothing.
    fn is_constant(&self, id: NodeId) -> bool {
        let node = &self.graph[id];
        match node.op {
            Op::Leaf(Leaf::Constant(_)) => true,
            Op::Leaf(_) => false,
            Op::Elementwise(op) if op.depends_on_run() => false,
            _ => node.inputs.iter().all(|&input| self.is_constant(input)),
        }
    }

    /// Appends `op` on tensors.
    fn apply(&mut self, op: impl Into<Op>, inputs: &[&TensorIr]) -> Result<NodeId> {
        let inputs: Vec<NodeId> =
            inputs.iter().map(|input| self.node(input)).collect::<Result<_>>()?;
        self.push(op, &inputs)
    }

    /// Appends `op` on tensors as the value of `out`.
    fn set(&mut self, out: &TensorIr, op: impl Into<Op>, inputs: &[&TensorIr]) -> Result<()> {
        let node = self.apply(op, inputs)?;
        self.bind(out, node)
    }

    /// Says that `node` is the value of `out`.
    fn bind(&mut self, out: &TensorIr, node: NodeId) -> Result<()> {
        let (expected, found) = (shape(&out.shape), &self.graph[node].shape);
        assert_eq!(&expected, found, "{} was lowered to another shape", self.graph[node].op);
        self.nodes.insert(out.id, node);
        Ok(())
    }

    /// `node` in the shape of `out`, as the value of `out`.
    fn bind_reshaped(&mut self, out: &TensorIr, node: NodeId) -> Result<()> {
        let node = self.reshape(node, shape(&out.shape))?;
        self.bind(out, node)
    }

    fn reshape(&mut self, node: NodeId, shape: Shape) -> Result<NodeId> {
        if self.graph[node].shape == shape {
            return Ok(node);
        }
        self.push(Movement::Reshape(shape), &[node])
    }

    /// Whether any op reads `tensor`.
    fn is_read(&self, tensor: &TensorIr) -> bool {
        let reads = |op: &OperationIr| {
            !matches!(op, OperationIr::Drop(_)) && op.inputs().any(|input| input.id == tensor.id)
        };
        self.record.operations.iter().any(reads)
    }

    /// Indices along `axis`, repeated to address a tensor of `shape`.
    fn constant_index(&mut self, axis: usize, shape: &Shape, index: Vec<i64>) -> Result<NodeId> {
        let mut dims = vec![1; shape.rank()];
        dims[axis] = index.len();
        let constant = Constant { shape: Shape(dims), values: Values::Int(index) };
        let index = self.graph.push_constant(constant);
        self.push(Movement::Expand(shape.clone()), &[index])
    }
}

/// Burn's element type as the graph's.
fn dtype(dtype: BurnDType) -> Result<DType> {
    match dtype {
        BurnDType::F32 => Ok(DType::F32),
        BurnDType::Bool(_) => Ok(DType::Bool),
        _ if dtype.is_int() || dtype.is_uint() => Ok(DType::Int),
        _ => Err(Error::model(format!("{dtype:?} tensors cannot be trained"))
            .hint("keep the model and its batch in f32, integers and booleans")),
    }
}

fn shape(shape: &burn::tensor::Shape) -> Shape {
    Shape(shape.to_vec())
}

fn number(scalar: ScalarIr) -> f64 {
    scalar.elem()
}

fn constant(data: &TensorData) -> Result<Constant> {
    let values = match dtype(data.dtype())? {
        DType::F32 => Values::F32(data.iter::<f32>().collect()),
        DType::Int => Values::Int(data.iter::<i64>().collect()),
        DType::Bool => Values::Bool(data.iter::<bool>().collect()),
    };
    Ok(Constant { shape: shape(data.shape()), values })
}
