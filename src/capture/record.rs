//! What a model does in one mode, as Burn's capture device records it.

use std::collections::{BTreeMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, OnceLock, PoisonError};

use burn::module::{Module, ParamId};
use burn::tensor::{Device, DeviceConfig, Tensor, TensorData};
use burn_dispatch::{BackendTensor, DispatchTensor, DispatchTensorKind};
use burn_ir::{OperationIr, TensorId};

use super::lift::{lift_tensor, lifted};
use super::parameters::{self, Parameter};
use crate::batch::{Batch, move_to};
use crate::error::{Error, Result, panic_message, quietly};

/// What Burn's layers take a forward pass for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A part of a training step: they drop out, and normalise by the batch.
    Training,
    /// A prediction.
    Inference,
}

/// The ops of a forward pass and a loss.
pub(super) struct Record {
    /// Every computation, in order.
    pub operations: Vec<OperationIr>,
    /// Values of everything that was not computed.
    pub values: BTreeMap<TensorId, TensorData>,
    /// The tensors of the batch.
    pub inputs: Vec<TensorId>,
    /// The float parameters, in the module's own order.
    pub parameters: Vec<Parameter>,
    /// What is minimised.
    pub loss: TensorId,
}

/// Records `loss` of `model` on a microbatch like `example`. Parameters that are `running`, which
/// the forward pass itself updates, are no part of what is differentiated.
///
/// # Errors
///
/// When the forward pass panics, or there is no device to record on.
pub(super) fn record<M, B, L>(
    model: &M,
    loss: &L,
    example: &B,
    mode: Mode,
    running: &HashSet<ParamId>,
) -> Result<Record>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> Tensor<1>,
{
    // One scope may be open at a time.
    static DEVICE: OnceLock<Mutex<Device>> = OnceLock::new();
    let device = DEVICE.get_or_init(|| Mutex::new(Device::capture()));
    let device = device.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = None;
    let run = || {
        device.capture_scope(|scope| {
            take_host_types(&device);
            let model = model.valid().to_device(&device);
            let parameters = parameters::recorded(&model);
            let tensors = example.clone().into_tensors().into_iter();
            let tensors: Vec<DispatchTensor> = tensors.map(|x| move_to(x, &device)).collect();
            let inputs: Vec<TensorId> = tensors.iter().map(tensor_id).collect();
            let loss = match mode {
                Mode::Training => {
                    let model = lifted(model, running);
                    let mut tensors = tensors.into_iter().map(lift_tensor);
                    loss(&model, B::from_tensors(&mut tensors))
                }
                Mode::Inference => loss(&model, B::from_tensors(&mut tensors.into_iter())),
            };
            let loss = tensor_id(&loss.into_dispatch());
            found = Some((inputs.clone(), parameters, loss));
            scope.complete(inputs, Some(loss))
        })
    };
    let captured = quietly(AssertUnwindSafe(run))
        .map_err(|panic| panicked(&panic_message(&*panic)))?
        .map_err(|error| Error::model(format!("capture failed: {error}")))?;
    let (inputs, parameters, loss) = found.expect("the scope completed");
    let (operations, values) = (captured.graph.operations, captured.values);
    Ok(Record { operations, values, inputs, parameters, loss })
}

/// Lets tensors that are made on the device get the types that they get on the host device. A
/// device that has types already keeps them.
fn take_host_types(device: &Device) {
    let host = Device::flex().settings();
    let types = DeviceConfig {
        float_dtype: Some(host.float_dtype),
        int_dtype: Some(host.int_dtype),
        bool_dtype: Some(host.bool_dtype),
    };
    let _ = device.clone().configure(types);
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
    let kind = match &tensor.kind {
        DispatchTensorKind::Autodiff(kind) => kind,
        kind => kind,
    };
    match kind {
        DispatchTensorKind::Capture(BackendTensor::Float(tensor)) => tensor.id(),
        DispatchTensorKind::Capture(BackendTensor::Int(tensor)) => tensor.id(),
        DispatchTensorKind::Capture(BackendTensor::Bool(tensor)) => tensor.id(),
        DispatchTensorKind::Capture(BackendTensor::Autodiff(tensor)) => {
            tensor.clone().into_primitive().id()
        }
        _ => panic!("the tensor left the capture device"),
    }
}
