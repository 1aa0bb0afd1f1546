//! A Burn module to a [`Graph`], and trained parameters back to the module.
//!
//! Architecture invariant: Burn's recorded ops and parameter ids stop here.

mod lower;
mod parameters;
mod verify;

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Module, ParamId};
use burn::tensor::{DType, Device, Tensor};
use burn_capture::CapturedGraph;
use burn_dispatch::{BackendTensor, DispatchTensor, DispatchTensorKind};
use burn_ir::TensorId;

use parameters::RecordedParameter;
pub(crate) use parameters::{load, paths, read};
pub(crate) use verify::{EagerLoss, eager_loss, norm, verify_gradient, verify_loss};

use crate::batch::{Batch, move_to};
use crate::error::{Error, Result, panic_message};
use crate::graph::{Graph, verify as verify_graph};
use lower::{Leaves, lower};

/// Records `loss` of `model` on a microbatch like `example`, and gives it as a [`Graph`].
///
/// No kernel runs. The same input gives the same graph, byte for byte.
///
/// # Errors
///
/// When the model has no parameters, the forward pass panics, an op is not known to the graph
/// (the error names it and its module), or the loss is not one float.
pub fn capture<M, B, L>(model: &M, loss: &L, example: &B) -> Result<Graph>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> Tensor<1>,
{
    let device = Device::capture();
    check_floats(example)?;
    let mut recorded = Recorded { frozen: parameters::frozen(model), ..Recorded::default() };
    let record = || {
        device.capture_scope(|scope| {
            let model = model.valid().to_device(&device);
            recorded.parameters = parameters::recorded(&model);
            let tensors: Vec<DispatchTensor> =
                example.clone().into_tensors().into_iter().map(|x| move_to(x, &device)).collect();
            recorded.inputs = tensors.iter().map(tensor_id).collect();
            let loss = loss(&model, B::from_tensors(&mut tensors.into_iter()));
            recorded.loss = Some(tensor_id(&loss.into_dispatch()));
            scope.complete(recorded.inputs.iter().copied(), recorded.loss)
        })
    };
    let captured = catch_unwind(AssertUnwindSafe(record));
    recorded.check_floats()?;
    let captured = captured
        .map_err(|panic| panicked(&panic_message(&*panic)))?
        .map_err(|error| Error::model(format!("capture failed: {error}")))?;
    let graph = recorded.lower(&captured)?;
    verify_graph(&graph)?;
    Ok(graph)
}

/// Ids that the recording fixed.
#[derive(Default)]
struct Recorded {
    frozen: HashSet<ParamId>,
    parameters: Vec<RecordedParameter>,
    inputs: Vec<TensorId>,
    loss: Option<TensorId>,
}

impl Recorded {
    fn check_floats(&self) -> Result<()> {
        match self.parameters.iter().find(|parameter| parameter.dtype != DType::F32) {
            Some(RecordedParameter { path, dtype, .. }) => {
                Err(Error::model(format!("parameter {path} is of {dtype:?}, not of f32"))
                    .hint("cast the module to f32"))
            }
            None => Ok(()),
        }
    }

    fn lower(&self, captured: &CapturedGraph) -> Result<Graph> {
        if self.parameters.is_empty() {
            return Err(Error::model("the module has no parameters")
                .hint("train a module that holds at least one Param<Tensor<D>>"));
        }
        let mut positions = HashMap::new();
        let mut ids = Vec::new();
        let mut leaves = Vec::new();
        for parameter in &self.parameters {
            // A parameter that the module holds twice is one parameter: the first names it.
            let position = ids.iter().position(|id| *id == parameter.id).unwrap_or_else(|| {
                ids.push(parameter.id);
                leaves.push(lower::ParameterLeaf {
                    path: parameter.path.clone(),
                    shape: parameter.shape.clone(),
                    trained: !self.frozen.contains(&parameter.id),
                });
                ids.len() - 1
            });
            positions.insert(parameter.tensor, position);
        }
        let leaves = Leaves {
            inputs: &self.inputs,
            parameters: &positions,
            table: &leaves,
            values: &captured.values,
        };
        let loss = self.loss.expect("the scope completed, so the loss was recorded");
        lower(leaves, &captured.graph.operations, loss)
    }
}

/// Floats of other widths are refused before Burn panics on an op that mixes them.
fn check_floats<B: Batch>(example: &B) -> Result<()> {
    for (position, tensor) in example.clone().into_tensors().iter().enumerate() {
        let dtype = burn_backend::TensorMetadata::dtype(tensor);
        if dtype.is_float() && dtype != DType::F32 {
            let problem = format!("tensor {position} of the batch is of {dtype:?}, not of f32");
            return Err(Error::data(problem).hint("cast it to f32"));
        }
    }
    Ok(())
}

fn panicked(message: &str) -> Error {
    if message.contains("has no concrete value") {
        return Error::model("the model reads the value of a tensor while it is captured")
            .hint("compute with tensors only: no into_data, into_scalar or one_hot in the loss");
    }
    Error::model(format!("the model panicked while it was captured: {message}"))
        .hint("run the same loss eagerly on one microbatch first")
}

fn tensor_id(tensor: &DispatchTensor) -> TensorId {
    match &tensor.kind {
        DispatchTensorKind::Capture(BackendTensor::Float(tensor)) => tensor.id(),
        DispatchTensorKind::Capture(BackendTensor::Int(tensor)) => tensor.id(),
        DispatchTensorKind::Capture(BackendTensor::Bool(tensor)) => tensor.id(),
        _ => panic!("the tensor left the capture device"),
    }
}
