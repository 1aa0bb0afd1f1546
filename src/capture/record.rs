//! What a model does in one mode, as Burn's capture device records it.

use std::collections::{BTreeMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, OnceLock, PoisonError};

use burn::module::{Module, ParamId};
use burn::tensor::{Device, DeviceConfig, TensorData};
use burn_capture::CaptureClient;
use burn_dispatch::{BackendTensor, DispatchTensor, DispatchTensorKind};
use burn_ir::{OperationIr, TensorId};
use burn_router::{RouterClient, RouterTensor};

use super::lift::{lift_tensor, lifted};
use super::parameters::{self, RecordedParameter};
use crate::batch::{Batch, move_to};
use crate::error::{Error, Result, panic_message, quietly};
use crate::loss::{IntoLoss, Loss};

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
    /// Values of everything that was not computed, and answers.
    pub values: BTreeMap<TensorId, TensorData>,
    /// The tensors of the batch.
    pub inputs: Vec<TensorId>,
    /// The float parameters, in the module's own order.
    pub parameters: Vec<RecordedParameter>,
    /// Stand-ins of what was answered, in the order of the answers.
    pub answered: Vec<TensorId>,
    /// What is minimised; what was to be read where the record ends there.
    pub loss: TensorId,
    /// What it is divided by, over a step's whole batch.
    pub weight: Option<TensorId>,
}

/// The value of a tensor that a record computes, for who reads it.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// How many tensors the model had made before it.
    pub offset: u64,
    /// Its value.
    pub value: TensorData,
}

/// How far a recording came.
pub(super) enum Recorded {
    /// To its end.
    Whole(Record),
    /// To the reading of a value that has no answer: that of the record's `loss`, at this offset.
    UntilRead(Record, u64),
}

/// Records `loss` of `model` on a microbatch like `example`. Parameters that are `running`, which
/// the forward pass itself updates, are no part of what is differentiated. Reading a value that was
/// computed gives its answer.
///
/// # Errors
///
/// When the forward pass panics, or there is no device to record on.
pub(super) fn record<M, B, L, R>(
    model: &M,
    loss: &L,
    example: &B,
    mode: Mode,
    running: &HashSet<ParamId>,
    answers: &[Answer],
) -> Result<Recorded>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> R,
    R: IntoLoss,
{
    let attempt = |lifts| attempt(model, loss, example, lifts, running, answers);
    match mode {
        Mode::Training => match attempt(Lifts::All) {
            Err(error) if error.problem.contains(CANNOT_MOVE) => attempt(Lifts::Parameters)
                .map_err(|error| match error.problem.contains(CANNOT_MOVE) {
                    true if !running.is_empty() => used_twice(),
                    _ => error,
                }),
            recorded => recorded,
        },
        Mode::Inference => attempt(Lifts::Nothing),
    }
}

/// What Burn says of a forward pass that moves what is lifted to the device on which it is. What is
/// not lifted it can move.
const CANNOT_MOVE: &str = "Cannot move a tensor to a capture device with autodiff enabled";

/// The error for what a layer makes of its running values, and moves once more.
fn used_twice() -> Error {
    let problem = "a layer with running values, such as BatchNorm, is used twice in a forward pass";
    Error::model(problem).hint("two layers")
}

/// What takes part in an autodiff run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lifts {
    All,
    Parameters,
    Nothing,
}

fn attempt<M, B, L, R>(
    model: &M,
    loss: &L,
    example: &B,
    lifts: Lifts,
    running: &HashSet<ParamId>,
    answers: &[Answer],
) -> Result<Recorded>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> R,
    R: IntoLoss,
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
            let answered = Answered::new(&tensors[0], answers);
            let loss = || {
                let model = if lifts == Lifts::Nothing { model } else { lifted(model, running) };
                let lift = |tensor| if lifts == Lifts::All { lift_tensor(tensor) } else { tensor };
                loss(&model, B::from_tensors(&mut tensors.into_iter().map(lift)))
            };
            let loss = quietly(AssertUnwindSafe(loss));
            let loss = loss.map(|loss| {
                let Loss { value, weight } = loss.into_loss();
                let weight = weight.map(|weight| tensor_id(&weight.into_dispatch()));
                (tensor_id(&value.into_dispatch()), weight)
            });
            let loss = loss.map_err(|panic| panic_message(&*panic));
            let outputs: Vec<TensorId> = match loss {
                Ok((value, weight)) => [value].into_iter().chain(weight).collect(),
                Err(_) => Vec::new(),
            };
            found = Some((inputs.clone(), parameters, answered, loss));
            scope.complete(inputs, outputs)
        })
    };
    let captured = quietly(AssertUnwindSafe(run))
        .map_err(|panic| panicked(&panic_message(&*panic)))?
        .map_err(|error| Error::model(format!("capture failed: {error}")))?;
    let (inputs, parameters, answered, loss) = found.expect("the scope completed");
    let (operations, values) = (captured.graph.operations, captured.values);
    let record = |loss, weight| {
        let answered = answered.stand_ins.iter().map(RouterTensor::id).collect();
        Record { operations, values, inputs, parameters, answered, loss, weight }
    };
    let message = match loss {
        Ok((loss, weight)) => return Ok(Recorded::Whole(record(loss, weight))),
        Err(message) => message,
    };
    let read = read_tensor(&message).filter(|id| *id > answered.before);
    let read = read.ok_or_else(|| panicked(&message))?;
    Ok(Recorded::UntilRead(record(TensorId::new(read), None), read - answered.before))
}

/// The stand-ins of answers on the capture device.
struct Answered {
    /// The id after which the model's own come.
    before: u64,
    stand_ins: Vec<RouterTensor<CaptureClient>>,
}

impl Answered {
    /// Lets the tensors that the model makes on the device of `tensor` have `answers`.
    ///
    /// The ids that Burn gives go up by one from tensor to tensor. So it is known beforehand which
    /// one has an answer, and it becomes a name for a tensor whose value is there.
    fn new(tensor: &DispatchTensor, answers: &[Answer]) -> Self {
        let client = client(tensor);
        let stand_in = |answer: &Answer| client.register_tensor_data(answer.value.clone());
        let stand_ins: Vec<_> = answers.iter().map(stand_in).collect();
        let before = client.create_empty_handle();
        let before = before.value();
        for (answer, stand_in) in answers.iter().zip(&stand_ins) {
            client.register_alias(TensorId::new(before + answer.offset), stand_in.id());
        }
        Self { before, stand_ins }
    }
}

fn number_in(text: &str) -> Option<u64> {
    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// The tensor that was to be read, if that is what the panic is about.
fn read_tensor(message: &str) -> Option<u64> {
    let (before, _) = message.split_once(" has no concrete value")?;
    number_in(before.rsplit_once("captured tensor ")?.1)
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
    Error::model(format!("the model panicked while it was captured: {message}"))
        .hint("run the same loss eagerly on one microbatch first")
}

/// What a tensor of the capture device records with.
fn client(tensor: &DispatchTensor) -> CaptureClient {
    match &tensor.kind {
        DispatchTensorKind::Capture(BackendTensor::Float(tensor)) => tensor.client.clone(),
        DispatchTensorKind::Capture(BackendTensor::Int(tensor)) => tensor.client.clone(),
        DispatchTensorKind::Capture(BackendTensor::Bool(tensor)) => tensor.client.clone(),
        _ => panic!("the tensor left the capture device"),
    }
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
