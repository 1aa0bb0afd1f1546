//! The ops that a training step spends its time on, on Flex tensors by this crate's kernels.
//!
//! What is here gives the same values as `evaluate` to rounding; what is not here falls back to
//! it. The choice depends on shapes and layouts that the graph fixes, never on timing.

use std::borrow::Cow;

use burn_backend::{DType as BurnDType, TensorMetadata};
use burn_dispatch::{BackendTensor, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind};
use burn_flex::{FlexTensor, Layout};
use burn_std::{Bytes, Shape as BurnShape};

use super::pool::{Buffer, Pool};
use crate::engine::kernels::{self, MatMut, MatRef, View, Write};
use crate::graph::{Binary, DType, Node, Op, Scalar, Unary};
use crate::random::{DropoutKey, dropout_mask};

/// Computes `node` if it is one of the ops here and its operands are Flex tensors.
///
/// With `in_place`, that operand is the only holder of its memory and may become the output.
pub(super) fn evaluate(
    node: &Node,
    operands: &mut [DispatchTensor],
    in_place: Option<usize>,
    key: DropoutKey,
    pool: &Pool,
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
    if let Op::Reshape(_) = node.op {
        return reshape(node, operands[0], pool);
    }
    if !is_here(&node.op) {
        return None;
    }
    let mut output = pool.take(node.shape.elements());
    write(node, &operands, &mut output, Write::Set, key).then(|| tensor(node, output))
}

/// Adds what `node` computes to the elements of `sum`, if it is one of the ops here.
pub(super) fn accumulate(
    node: &Node,
    operands: &[DispatchTensor],
    sum: &mut DispatchTensor,
    key: DropoutKey,
) -> bool {
    let operands: Option<Vec<&FlexTensor>> = operands.iter().map(flex).collect();
    let (Some(operands), Some(sum)) = (operands, slice_mut(sum)) else { return false };
    write(node, &operands, sum, Write::Add, key)
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

/// Whether the elements lie in order and are all of the memory that is held.
pub(super) fn is_dense(tensor: &DispatchTensor) -> bool {
    flex(tensor).is_none_or(is_whole)
}

fn is_whole(tensor: &FlexTensor) -> bool {
    let elements = tensor.layout().num_elements();
    tensor.is_contiguous() && tensor.bytes().len() == elements * tensor.dtype().size()
}

/// A dense copy of a tensor, where it is one of Flex.
pub(super) fn dense_copy(source: &DispatchTensor, pool: &Pool) -> Option<DispatchTensor> {
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
pub(super) fn zeros_like(tensor: &DispatchTensor, pool: &Pool) -> Option<DispatchTensor> {
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
fn view<'a>(tensor: &'a FlexTensor, shape: &[usize]) -> View<'a> {
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
    View::strided(&tensor.storage::<f32>()[tensor.layout().start_offset()..], shape, &strides)
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
    key: DropoutKey,
    pool: &Pool,
) -> Option<DispatchTensor> {
    let mut taken = operands[position].clone();
    // The clone must be the only handle for its memory to be written.
    operands[position] = placeholder();
    let done = match slice_mut(&mut taken) {
        Some(elements) => overwrite(node, operands, position, elements, key, pool),
        None => false,
    };
    if done {
        return Some(taken);
    }
    operands[position] = taken;
    None
}

/// Replaces `elements`, the operand at `position`, by the output.
fn overwrite(
    node: &Node,
    operands: &[DispatchTensor],
    position: usize,
    elements: &mut [f32],
    key: DropoutKey,
    pool: &Pool,
) -> bool {
    match &node.op {
        Op::Binary(op) => {
            let Some(other) = flex(&operands[1 - position]) else { return false };
            kernels::binary_assign(binary(*op), elements, view(other, &node.shape.0));
        }
        Op::Scalar(Scalar::Multiply, factor) => kernels::scale(elements, *factor as f32),
        Op::Unary(op) => match unary(*op) {
            Some(op) => kernels::unary_assign(op, elements),
            None => return false,
        },
        Op::Dropout { layer, probability } => {
            let mut mask = pool.take(elements.len());
            dropout_mask(DropoutKey { layer: *layer, ..key }, *probability as f32, &mut mask);
            let mask = View::contiguous(&mask, &node.shape.0);
            kernels::binary_assign(kernels::Binary::Mul, elements, mask);
        }
        Op::Fill(value) => {
            let Some(mask) = flex(&operands[0]) else { return false };
            fill_where(mask, &node.shape.0, *value as f32, elements);
        }
        _ => return false,
    }
    true
}

/// Writes `value` where the mask, repeated to `shape`, is true.
fn fill_where(mask: &FlexTensor, shape: &[usize], value: f32, elements: &mut [f32]) {
    let strides: Vec<usize> = mask
        .layout()
        .strides()
        .iter()
        .zip(mask.layout().shape().iter().zip(shape))
        .map(|(&stride, (&from, &to))| if from == to { stride.unsigned_abs() } else { 0 })
        .collect();
    let bits = &mask.storage::<u8>()[mask.layout().start_offset()..];
    let rank = shape.len();
    let (columns, step) = (shape[rank - 1], strides[rank - 1]);
    for (row, elements) in elements.chunks_exact_mut(columns).enumerate() {
        let (mut rest, mut start) = (row, 0);
        for axis in (0..rank - 1).rev() {
            start += rest % shape[axis] * strides[axis];
            rest /= shape[axis];
        }
        if step == 1 {
            for (element, &bit) in elements.iter_mut().zip(&bits[start..start + columns]) {
                *element = if bit == 0 { *element } else { value };
            }
        } else {
            for (column, element) in elements.iter_mut().enumerate() {
                *element = if bits[start + column * step] == 0 { *element } else { value };
            }
        }
    }
}

/// Whether [`write`] has the op; it may still refuse some operands.
fn is_here(op: &Op) -> bool {
    match op {
        Op::Binary(_) | Op::Unary(_) | Op::UnaryGradient(_) | Op::Fill(_) | Op::Dropout { .. } => {
            true
        }
        Op::Scalar(scalar, _) => *scalar == Scalar::Multiply,
        Op::Matmul | Op::Sum(_) | Op::Embedding | Op::EmbeddingGradient { .. } => true,
        Op::Softmax | Op::LogSoftmax | Op::SoftmaxGradient | Op::LogSoftmaxGradient => true,
        Op::LayerNorm(_) | Op::LayerNormGradient(_) | Op::LayerNormGradientGamma(_) => true,
        _ => false,
    }
}

/// Computes `node` into `output`; false if the op is not here.
fn write(
    node: &Node,
    operands: &[&FlexTensor],
    output: &mut [f32],
    write: Write,
    key: DropoutKey,
) -> bool {
    match &node.op {
        Op::Matmul => matmul(operands[0], operands[1], output, write),
        Op::Sum(axes) => return sum(operands[0], axes, output, write),
        Op::LayerNormGradientGamma(epsilon) => {
            let (x, g) = (dense(operands[0]), dense(operands[1]));
            kernels::layer_norm_grad_gamma(output, &x, &g, *epsilon as f32, write);
        }
        Op::EmbeddingGradient { .. } => {
            let Some(index) = operands[0].as_slice::<i64>() else { return false };
            if write == Write::Set {
                output.fill(0.0);
            }
            kernels::scatter_add_rows(output, &dense(operands[1]), index, node.shape.0[1]);
        }
        _ if write == Write::Add => return false,
        Op::Binary(_) | Op::Scalar(..) | Op::Unary(_) | Op::UnaryGradient(_) => {
            return write_elementwise(node, operands, output);
        }
        Op::Fill(value) => {
            kernels::copy(output, view(operands[1], &node.shape.0));
            fill_where(operands[0], &node.shape.0, *value as f32, output);
        }
        Op::Dropout { layer, probability } => {
            dropout_mask(DropoutKey { layer: *layer, ..key }, *probability as f32, output);
            let x = view(operands[0], &node.shape.0);
            kernels::binary_assign(kernels::Binary::Mul, output, x);
        }
        Op::Embedding => {
            let Some(index) = operands[1].as_slice::<i64>() else { return false };
            let width = node.shape.0[node.shape.rank() - 1];
            kernels::gather_rows(output, &dense(operands[0]), index, width);
        }
        _ => return write_rows(node, operands, output),
    }
    true
}

/// [`write`] for functions of one element.
fn write_elementwise(node: &Node, operands: &[&FlexTensor], output: &mut [f32]) -> bool {
    let x = operands[0];
    match &node.op {
        Op::Binary(op) => {
            let (x, y) = (view(x, &node.shape.0), view(operands[1], &node.shape.0));
            kernels::binary(binary(*op), output, x, y);
        }
        Op::Scalar(Scalar::Multiply, factor) => {
            kernels::copy(output, view(x, &node.shape.0));
            kernels::scale(output, *factor as f32);
        }
        Op::Unary(op) => match unary(*op) {
            Some(op) => kernels::unary(op, output, &dense(x)),
            None => return false,
        },
        Op::UnaryGradient(op) => {
            let op = match op {
                Unary::Gelu => kernels::UnaryGrad::Gelu,
                Unary::Relu => kernels::UnaryGrad::Relu,
                Unary::Tanh => kernels::UnaryGrad::Tanh,
                Unary::Sigmoid => kernels::UnaryGrad::Sigmoid,
                _ => return false,
            };
            kernels::unary_grad(op, output, &dense(x), &dense(operands[1]));
        }
        _ => return false,
    }
    true
}

/// [`write`] for functions of one row, along the last axis.
fn write_rows(node: &Node, operands: &[&FlexTensor], output: &mut [f32]) -> bool {
    let x = dense(operands[0]);
    let width = node.shape.0.last().copied().unwrap_or(1);
    match &node.op {
        Op::Softmax => kernels::softmax(output, &x, width),
        Op::LogSoftmax => kernels::log_softmax(output, &x, width),
        Op::SoftmaxGradient => kernels::softmax_grad(output, &x, &dense(operands[1]), width),
        Op::LogSoftmaxGradient => {
            kernels::log_softmax_grad(output, &x, &dense(operands[1]), width);
        }
        Op::LayerNorm(epsilon) => {
            let (gamma, beta) = (dense(operands[1]), operands.get(2).map(|beta| dense(beta)));
            kernels::layer_norm(output, &x, &gamma, beta.as_deref(), *epsilon as f32);
        }
        Op::LayerNormGradient(epsilon) => {
            let (gamma, g) = (dense(operands[1]), dense(operands[2]));
            kernels::layer_norm_grad_x(output, &x, &gamma, &g, *epsilon as f32);
        }
        _ => return false,
    }
    true
}

/// A view where the elements are dense, else a copy: what `graph::storages` counts on.
fn reshape(node: &Node, x: &FlexTensor, pool: &Pool) -> Option<DispatchTensor> {
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

fn matmul(a: &FlexTensor, b: &FlexTensor, output: &mut [f32], write: Write) {
    let (a_dims, b_dims) = (dims(a), dims(b));
    let rank = a_dims.len();
    let (rows, inner, columns) = (a_dims[rank - 2], a_dims[rank - 1], b_dims[rank - 1]);
    let batch: Vec<usize> =
        a_dims[..rank - 2].iter().zip(&b_dims[..rank - 2]).map(|(&a, &b)| a.max(b)).collect();
    let matrix = |of: &FlexTensor, dims: &[usize], at: usize| {
        let strides: Vec<usize> =
            of.layout().strides().iter().map(|stride| stride.unsigned_abs()).collect();
        let (mut rest, mut start) = (at, of.layout().start_offset());
        for axis in (0..rank - 2).rev() {
            let index = rest % batch[axis];
            rest /= batch[axis];
            start += if dims[axis] == 1 { 0 } else { index * strides[axis] };
        }
        (start, strides[rank - 2], strides[rank - 1])
    };
    for (at, output) in output.chunks_exact_mut(rows * columns).enumerate() {
        let (start, row, column) = matrix(a, &a_dims, at);
        let a = MatRef::strided(&a.storage::<f32>()[start..], rows, inner, row, column);
        let (start, row, column) = matrix(b, &b_dims, at);
        let b = MatRef::strided(&b.storage::<f32>()[start..], inner, columns, row, column);
        kernels::matmul(MatMut::new(output, rows, columns), a, b, write);
    }
}

/// Sums over neighbouring axes; false where the axes are not neighbours.
fn sum(x: &FlexTensor, axes: &[usize], output: &mut [f32], write: Write) -> bool {
    let dims = dims(x);
    let (Some(&first), Some(&last)) = (axes.iter().min(), axes.iter().max()) else { return false };
    // An axis of size 1 between them may be summed or not.
    if (first..=last).any(|axis| !axes.contains(&axis) && dims[axis] != 1) {
        return false;
    }
    let size = |range: std::ops::Range<usize>| dims[range].iter().product();
    let shape = [size(0..first), size(first..last + 1), size(last + 1..dims.len())];
    kernels::sum_axis(output, &dense(x), shape, write);
    true
}

fn binary(op: Binary) -> kernels::Binary {
    match op {
        Binary::Add => kernels::Binary::Add,
        Binary::Subtract => kernels::Binary::Sub,
        Binary::Multiply => kernels::Binary::Mul,
        Binary::Divide => kernels::Binary::Div,
        Binary::And | Binary::Or => unreachable!("a float has no {op}"),
    }
}

fn unary(op: Unary) -> Option<kernels::Unary> {
    Some(match op {
        Unary::Exp => kernels::Unary::Exp,
        Unary::Log => kernels::Unary::Log,
        Unary::Tanh => kernels::Unary::Tanh,
        Unary::Sigmoid => kernels::Unary::Sigmoid,
        Unary::Gelu => kernels::Unary::Gelu,
        Unary::Relu => kernels::Unary::Relu,
        Unary::Neg => kernels::Unary::Neg,
        Unary::Sqrt => kernels::Unary::Sqrt,
        Unary::Reciprocal => kernels::Unary::Recip,
        Unary::Abs => kernels::Unary::Abs,
        Unary::Sign | Unary::Sin | Unary::Cos | Unary::Erf | Unary::Not => return None,
    })
}
