//! Values that a model reads while it is captured.
//!
//! Nothing is computed on the capture device, so a read has no answer there. What was recorded up
//! to it says how to compute one: the model is recorded again, with the answer. If it records the
//! same for other microbatches, what was read decides nothing, as in a check of indices.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;

use burn::module::{Module, ParamId};
use burn::tensor::{DType, TensorData};
use burn_backend::ops::{BoolTensorOps, FloatTensorOps, IntTensorOps};
use burn_backend::{IntDType, Scalar, TensorMetadata};
use burn_dispatch::{Dispatch, DispatchTensor};
use burn_flex::{Flex, FlexDevice};
use burn_ir::{OperationIr, TensorId, TensorIr, TensorStatus};
use burn_router::{CustomOpRegistry, TensorInterpreter};

use super::record::{Answer, Mode, Record, Recorded, record};
use crate::batch::Batch;
use crate::error::{Error, Result, panic_message, quietly};
use crate::loss::IntoLoss;
use crate::nn::IDENTITIES;

/// Most values that a model may read.
const MOST_READS: usize = 256;

/// How often it is recorded again where another capture in the program came between.
const ATTEMPTS: usize = 8;

/// A record, and the reads on its way.
pub(super) struct Answered {
    pub record: Record,
    /// The op whose value was read last, if any was.
    pub last_read: Option<String>,
}

/// Records `loss` of `model`, answering what it reads by what it computes on `example`.
///
/// # Errors
///
/// Those of [`record`], or when a value cannot be computed.
pub(super) fn record_answering<M, B, L, R>(
    model: &M,
    loss: &L,
    example: &B,
    mode: Mode,
    running: &HashSet<ParamId>,
) -> Result<Answered>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> R,
    R: IntoLoss,
{
    for _ in 0..ATTEMPTS {
        let mut answers = Vec::new();
        let mut makers = Vec::new();
        while answers.len() <= MOST_READS {
            match record(model, loss, example, mode, running, &answers)? {
                Recorded::Whole(record) => {
                    if !are_in_place(&record, &makers) {
                        break;
                    }
                    let name = |maker: &usize| name(&record.operations[*maker]);
                    let last_read = makers.last().map(name);
                    return Ok(Answered { record, last_read });
                }
                Recorded::UntilRead(record, offset) => {
                    if !are_in_place(&record, &makers) {
                        break;
                    }
                    let maker = maker(&record, record.loss);
                    makers.push(maker.ok_or_else(|| unknown("a tensor of another capture"))?);
                    answers.push(Answer { offset, value: value(&record)? });
                }
            }
        }
        if answers.len() > MOST_READS {
            return Err(unknown(&format!("more than {MOST_READS} values")));
        }
    }
    Err(Error::model("the model records other tensors every time")
        .hint("capture in one thread at a time"))
}

/// A batch whose every example is one of `example`, the first or the last one.
pub(super) fn of_one_example<B: Batch>(example: &B, last: bool) -> B {
    let rows = example.clone().into_tensors().first().map_or(0, |tensor| tensor.shape()[0]);
    let row = if last { rows.saturating_sub(1) } else { 0 };
    examples(example, &vec![row; rows])
}

/// A batch of these examples of `example`.
pub(super) fn examples<B: Batch>(example: &B, rows: &[usize]) -> B {
    type D = Dispatch;
    let picked = |tensor: DispatchTensor| {
        let (dtype, device) = (tensor.dtype(), tensor.device());
        let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let index = TensorData::new(index, [rows.len()]);
        let index = <D as IntTensorOps<D>>::int_from_data(index, &device);
        if dtype.is_float() {
            <D as FloatTensorOps<D>>::float_select(tensor, 0, index)
        } else if let DType::Bool(store) = dtype {
            // By way of integers: what Burn's host device selects of booleans are bytes.
            let whole = <D as BoolTensorOps<D>>::bool_into_int(tensor, IntDType::I64);
            let picked = <D as IntTensorOps<D>>::int_select(whole, 0, index);
            <D as IntTensorOps<D>>::int_not_equal_elem(picked, Scalar::Int(0), store)
        } else {
            <D as IntTensorOps<D>>::int_select(tensor, 0, index)
        }
    };
    B::from_tensors(&mut example.clone().into_tensors().into_iter().map(picked))
}

/// Why a model cannot be captured that reads `what`.
pub(super) fn unknown(what: &str) -> Error {
    Error::model(format!("the model reads {what} while it is captured, and goes by it")).hint(
        "compute with tensors only: no into_data or into_scalar that decides what is computed",
    )
}

/// Whether every stand-in is what the op computes that computed the value which it stands for.
fn are_in_place(record: &Record, makers: &[usize]) -> bool {
    let made = |(&id, &op): (&TensorId, &usize)| maker(record, id) == Some(op);
    record.answered.iter().zip(makers).all(made)
}

/// The op that computes a tensor.
fn maker(record: &Record, id: TensorId) -> Option<usize> {
    let makes = |op: &OperationIr| {
        !matches!(op, OperationIr::Init(_)) && op.outputs().any(|output| output.id == id)
    };
    record.operations.iter().position(makes)
}

/// The value of a record's loss.
fn value(record: &Record) -> Result<TensorData> {
    let read = |op: &OperationIr| op.outputs().find(|output| output.id == record.loss).cloned();
    let tensor = record.operations.iter().find_map(read);
    let mut tensor: TensorIr = tensor.ok_or_else(|| unknown("a tensor of another capture"))?;
    tensor.status = TensorStatus::ReadOnly;
    let compute = || {
        let mut custom = CustomOpRegistry::<Flex>::new();
        for name in IDENTITIES {
            custom.register(name, |handles, op, _| {
                let input = handles.get_float_tensor::<Flex>(&op.inputs[0]);
                handles.register_float_tensor::<Flex>(&op.outputs[0].id, input);
            });
        }
        let mut interpreter = TensorInterpreter::with_custom_ops(FlexDevice, custom);
        for (id, data) in &record.values {
            interpreter.register_tensor_data_id(*id, data.clone());
        }
        record.operations.iter().for_each(|op| interpreter.register_op(op.clone()));
        pollster::block_on(interpreter.read_tensor_async(tensor))
    };
    let value = quietly(AssertUnwindSafe(compute)).map_err(|panic| {
        let message = panic_message(&*panic);
        Error::model(format!("a value that the model reads cannot be computed: {message}"))
            .hint("compute with tensors only")
    })?;
    value.map_err(|error| Error::model(error.to_string()))
}

/// What a user would call an op.
fn name(op: &OperationIr) -> String {
    let text = format!("{op:?}");
    let parts = text.split(['(', '{', ',', ' ']).filter(|part| !part.is_empty());
    let words = parts.take_while(|part| part.chars().all(char::is_alphanumeric));
    words.filter(|word| !word.ends_with("Ir")).take(3).collect::<Vec<_>>().join(" ")
}
