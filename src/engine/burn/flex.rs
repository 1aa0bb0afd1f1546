//! The ops that a training step spends its time on, on Flex tensors by this crate's kernels.
//!
//! What is here gives the same values as `evaluate` to rounding; what is not here falls back to
//! it. The choice depends on shapes and layouts that the graph fixes, never on timing.

mod ops;

use std::borrow::Cow;

use burn_backend::{DType as BurnDType, TensorMetadata};
use burn_dispatch::{BackendTensor, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind};
use burn_flex::{FlexTensor, Layout};
use burn_std::{Bytes, Shape as BurnShape};

use super::pool::{Buffer, BufferPool};
use crate::engine::kernels::{self, StridedView, WriteMode};
use crate::graph::{DType, Movement, Node, Op};
use crate::random::RunKey;

/// Computes `node` if it is one of the ops here and its operands are Flex tensors.
///
/// With `in_place`, that operand is the only holder of its memory and may become the output.
pub(super) fn evaluate(
    node: &Node,
    operands: &mut [DispatchTensor],
    in_place: Option<usize>,
    key: RunKey,
    pool: &BufferPool,
) -> Option<DispatchTensor> {
    if node.dtype != DType::F32 || node.shape.rank() > kernels::MAX_DIMS {
        return None;
    }
    if let Some(position) = in_place
        && let Some(output) = evaluate_in_place(node, operands, position, key, pool)
    {
        return Some(output);
    }
    let operands: Vec<&FlexTensor> = operands.iter().map(flex).collect::<Option<_>>()?;
    if let Op::Movement(Movement::Reshape(_)) = node.op {
        return reshape(node, operands[0], pool);
    }
    if !ops::is_here(&node.op) {
        return None;
    }
    let mut output = pool.take(node.shape.elements());
    ops::write(node, &operands, &mut output, WriteMode::Set, key).then(|| tensor(node, output))
}

/// Adds what `node` computes to the elements of `sum`, if it is one of the ops here.
pub(super) fn accumulate(
    node: &Node,
    operands: &[DispatchTensor],
    sum: &mut DispatchTensor,
    key: RunKey,
) -> bool {
    let operands: Option<Vec<&FlexTensor>> = operands.iter().map(flex).collect();
    let (Some(operands), Some(sum)) = (operands, slice_mut(sum)) else { return false };
    ops::write(node, &operands, sum, WriteMode::Add, key)
}

/// Adds `value` to the elements of `sum`, if both are Flex tensors.
pub(super) fn add(value: &DispatchTensor, sum: &mut DispatchTensor) -> bool {
    let (Some(value), Some(sum)) = (flex(value), slice_mut(sum)) else { return false };
    match value.as_slice::<f32>() {
        Some(value) => kernels::add_assign(sum, value),
        None => {
            let mut dense = vec![0.0; sum.len()];
            kernels::copy(&mut dense, view(value, &dims(value)));
            kernels::add_assign(sum, &dense);
        }
    }
    true
}

/// The elements of a float tensor of Flex that nothing else holds.
pub(super) fn slice_mut(tensor: &mut DispatchTensor) -> Option<&mut [f32]> {
    match &mut tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) if is_whole(tensor) => {
            tensor.try_storage_mut::<f32>()
        }
        _ => None,
    }
}

/// The elements of a float tensor of Flex, in order.
pub(super) fn slice(tensor: &DispatchTensor) -> Option<&[f32]> {
    flex(tensor)?.as_slice::<f32>()
}

/// Whether an element is NaN. Looks at all of them, so that it is one fast loop.
pub(super) fn any_nan(elements: &[f32]) -> bool {
    elements.iter().fold(false, |nan, element| nan | element.is_nan())
}

/// Whether it is a tensor of Flex whose memory something else holds as well.
pub(super) fn is_shared(tensor: &DispatchTensor) -> bool {
    flex(tensor).is_some_and(|tensor| !tensor.is_unique())
}

/// Whether the elements lie in order and are all of the memory that is held.
pub(super) fn is_dense(tensor: &DispatchTensor) -> bool {
    flex(tensor).is_none_or(is_whole)
}

fn is_whole(tensor: &FlexTensor) -> bool {
    let elements = tensor.layout().num_elements();
    tensor.is_contiguous() && tensor.bytes().len() == elements * tensor.dtype().size()
}

/// A dense copy of a tensor, where it is one of Flex.
pub(super) fn dense_copy(source: &DispatchTensor, pool: &BufferPool) -> Option<DispatchTensor> {
    let of = flex(source)?;
    let dims = dims(of);
    if of.dtype() != BurnDType::F32 || dims.len() > kernels::MAX_DIMS {
        return Some(like(source, FlexTensor::from_data(of.clone().into_data())));
    }
    let mut output = pool.take(dims.iter().product());
    kernels::copy(&mut output, view(of, &dims));
    Some(from_buffer(&dims, output))
}

/// `tensor` as one of the kind of `source`.
fn like(source: &DispatchTensor, tensor: FlexTensor) -> DispatchTensor {
    let kind = match &source.kind {
        DispatchTensorKind::Flex(BackendTensor::Int(_)) => BackendTensor::Int(tensor),
        DispatchTensorKind::Flex(BackendTensor::Bool(_)) => BackendTensor::Bool(tensor),
        _ => BackendTensor::Float(tensor),
    };
    DispatchTensor {
        kind: DispatchTensorKind::Flex(kind),
        autodiff: DispatchAutodiffContext::Disabled,
    }
}

/// Where the elements are and how many bytes are held there, for counting memory.
pub(super) fn memory(tensor: &DispatchTensor) -> (usize, u64) {
    let bytes = match &tensor.kind {
        DispatchTensorKind::Flex(
            BackendTensor::Float(tensor) | BackendTensor::Int(tensor) | BackendTensor::Bool(tensor),
        ) => return (tensor.bytes().as_ptr() as usize, tensor.bytes().len() as u64),
        _ => tensor.shape().num_elements() * tensor.dtype().size(),
    };
    (0, bytes as u64)
}

/// A float tensor of Flex with these elements.
pub(super) fn from_buffer(dims: &[usize], elements: Buffer) -> DispatchTensor {
    let layout = Layout::contiguous(BurnShape::from(dims.to_vec()));
    wrap(FlexTensor::new(elements.into_bytes(), layout, BurnDType::F32))
}

/// What stands for a tensor while its only handle is elsewhere.
pub(super) fn placeholder() -> DispatchTensor {
    let layout = Layout::contiguous(BurnShape::from(vec![0]));
    wrap(FlexTensor::new(Bytes::from_elems(Vec::<f32>::new()), layout, BurnDType::F32))
}

/// Zeros in the shape of a float tensor, where it is one of Flex.
pub(super) fn zeros_like(tensor: &DispatchTensor, pool: &BufferPool) -> Option<DispatchTensor> {
    let dims = dims(flex(tensor)?);
    Some(from_buffer(&dims, pool.zeros(dims.iter().product())))
}

fn tensor(node: &Node, elements: Buffer) -> DispatchTensor {
    from_buffer(&node.shape.0, elements)
}

fn wrap(tensor: FlexTensor) -> DispatchTensor {
    DispatchTensor {
        kind: DispatchTensorKind::Flex(BackendTensor::Float(tensor)),
        autodiff: DispatchAutodiffContext::Disabled,
    }
}

fn flex(tensor: &DispatchTensor) -> Option<&FlexTensor> {
    match &tensor.kind {
        DispatchTensorKind::Flex(
            BackendTensor::Float(tensor) | BackendTensor::Int(tensor) | BackendTensor::Bool(tensor),
        ) => Some(tensor),
        _ => None,
    }
}

fn dims(tensor: &FlexTensor) -> Vec<usize> {
    tensor.layout().shape().to_vec()
}

/// The elements of `tensor`, repeated to `shape`.
fn view<'a>(tensor: &'a FlexTensor, shape: &[usize]) -> StridedView<'a> {
    let from = tensor.layout().shape();
    let strides: Vec<usize> = tensor
        .layout()
        .strides()
        .iter()
        .zip(shape)
        .enumerate()
        .map(|(axis, (&stride, &size))| {
            let stride = usize::try_from(stride).expect("the graph never flips a view");
            if from[axis] == size { stride } else { 0 }
        })
        .collect();
    StridedView::strided(
        &tensor.storage::<f32>()[tensor.layout().start_offset()..],
        shape,
        &strides,
    )
}

/// The elements in order, copied only where they are not.
fn dense(tensor: &FlexTensor) -> Cow<'_, [f32]> {
    match tensor.as_slice::<f32>() {
        Some(elements) => Cow::Borrowed(elements),
        None => {
            let dims = dims(tensor);
            let mut elements = vec![0.0; dims.iter().product()];
            kernels::copy(&mut elements, view(tensor, &dims));
            Cow::Owned(elements)
        }
    }
}

fn evaluate_in_place(
    node: &Node,
    operands: &mut [DispatchTensor],
    position: usize,
    key: RunKey,
    pool: &BufferPool,
) -> Option<DispatchTensor> {
    let mut taken = operands[position].clone();
    // The clone must be the only handle for its memory to be written.
    operands[position] = placeholder();
    let done = match slice_mut(&mut taken) {
        Some(elements) => ops::overwrite(node, operands, position, elements, key, pool),
        None => false,
    };
    if done {
        return Some(taken);
    }
    operands[position] = taken;
    None
}

/// A view where the elements are dense, else a copy: what `Facts::storage` counts on.
fn reshape(node: &Node, x: &FlexTensor, pool: &BufferPool) -> Option<DispatchTensor> {
    let whole = x.bytes().len() == node.shape.elements() * x.dtype().size();
    if whole && x.is_contiguous() {
        return Some(wrap(x.reshape(BurnShape::from(node.shape.0.clone()))));
    }
    let dims = dims(x);
    if dims.len() > kernels::MAX_DIMS {
        return None;
    }
    let mut output = pool.take(node.shape.elements());
    kernels::copy(&mut output, view(x, &dims));
    Some(tensor(node, output))
}
