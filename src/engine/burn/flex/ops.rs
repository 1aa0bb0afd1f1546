//! Which ops have kernels here, and how they are called.

use burn_dispatch::DispatchTensor;
use burn_flex::FlexTensor;

use super::{dense, dims, flex, view};
use crate::engine::burn::pool::BufferPool;
use crate::engine::kernels::{self, MatMut, MatRef, StridedView, WriteMode};
use crate::graph::{
    Activation, Binary, Elementwise, Indexing, Node, Op, Reduction, RowWise, Scalar, Unary,
};
use crate::random::RunKey;

/// Whether [`write`] has the op; it may still refuse some operands.
pub(super) fn is_here(op: &Op) -> bool {
    match op {
        Op::Matmul | Op::RowWise(_) => true,
        Op::Elementwise(op) => match op {
            Elementwise::Binary(_) | Elementwise::Unary(_) | Elementwise::Fill(_) => true,
            Elementwise::ActivationGradient(_) | Elementwise::Dropout { .. } => true,
            Elementwise::Random { .. } | Elementwise::Mode => true,
            Elementwise::Scalar(scalar, _) => *scalar == Scalar::Multiply,
            _ => false,
        },
        Op::Reduction(op) => matches!(op, Reduction::Sum(_)),
        Op::Indexing(op) => {
            matches!(op, Indexing::Embedding | Indexing::EmbeddingGradient { .. })
        }
        Op::Leaf(_) | Op::Movement(_) | Op::Join(_) | Op::Windowed(_) => false,
    }
}

/// Computes `node` into `output`; false if the op is not here.
pub(super) fn write(
    node: &Node,
    operands: &[&FlexTensor],
    output: &mut [f32],
    write: WriteMode,
    key: RunKey,
) -> bool {
    match &node.op {
        Op::Matmul => {
            matmul(operands[0], operands[1], output, write);
            true
        }
        Op::Reduction(Reduction::Sum(axes)) => sum(operands[0], axes, output, write),
        Op::Indexing(op) => indexing(*op, node, operands, output, write),
        Op::RowWise(op) => row_wise(*op, node, operands, output, write),
        Op::Elementwise(op) if write == WriteMode::Set => {
            elementwise(*op, node, operands, output, key)
        }
        _ => false,
    }
}

/// Replaces `elements`, the operand at `position`, by the output.
pub(super) fn overwrite(
    node: &Node,
    operands: &[DispatchTensor],
    position: usize,
    elements: &mut [f32],
    key: RunKey,
    pool: &BufferPool,
) -> bool {
    let Op::Elementwise(op) = node.op else { return false };
    match op {
        Elementwise::Binary(op) => {
            let other = flex(&operands[1 - position]);
            let (Some(op), Some(other)) = (binary(op), other) else { return false };
            kernels::binary_assign(op, elements, view(other, &node.shape.0));
        }
        Elementwise::Scalar(Scalar::Multiply, factor) => kernels::scale(elements, factor as f32),
        Elementwise::Unary(op) => match unary(op) {
            Some(op) => kernels::unary_assign(op, elements),
            None => return false,
        },
        Elementwise::Dropout { .. } if key.evaluates => {}
        Elementwise::Dropout { draw, probability } => {
            let mut mask = pool.take(elements.len());
            key.dropout_mask(draw, probability as f32, &mut mask);
            let mask = StridedView::contiguous(&mask, &node.shape.0);
            kernels::binary_assign(kernels::Binary::Multiply, elements, mask);
        }
        Elementwise::Fill(value) => {
            let Some(mask) = flex(&operands[0]) else { return false };
            fill_where(mask, &node.shape.0, value as f32, elements);
        }
        _ => return false,
    }
    true
}

fn elementwise(
    op: Elementwise,
    node: &Node,
    operands: &[&FlexTensor],
    output: &mut [f32],
    key: RunKey,
) -> bool {
    let x = operands[0];
    match op {
        Elementwise::Binary(op) => {
            let Some(op) = binary(op) else { return false };
            let (x, y) = (view(x, &node.shape.0), view(operands[1], &node.shape.0));
            kernels::binary(op, output, x, y);
        }
        Elementwise::Scalar(Scalar::Multiply, factor) => {
            kernels::copy(output, view(x, &node.shape.0));
            kernels::scale(output, factor as f32);
        }
        Elementwise::Unary(op) => match unary(op) {
            Some(op) => kernels::unary(op, output, &dense(x)),
            None => return false,
        },
        Elementwise::ActivationGradient(op) => {
            let op = match op {
                Activation::Gelu => kernels::UnaryGrad::Gelu,
                Activation::Relu => kernels::UnaryGrad::Relu,
                Activation::Tanh => kernels::UnaryGrad::Tanh,
                Activation::Sigmoid => kernels::UnaryGrad::Sigmoid,
            };
            kernels::unary_grad(op, output, &dense(x), &dense(operands[1]));
        }
        Elementwise::Fill(value) => {
            kernels::copy(output, view(operands[1], &node.shape.0));
            fill_where(x, &node.shape.0, value as f32, output);
        }
        Elementwise::Mode => {
            let chosen = operands[usize::from(key.evaluates)];
            kernels::copy(output, view(chosen, &node.shape.0));
        }
        Elementwise::Random { draw, distribution } => key.draw(draw, distribution, output),
        Elementwise::Dropout { draw, probability } => {
            key.dropout_mask(draw, probability as f32, output);
            let x = view(x, &node.shape.0);
            kernels::binary_assign(kernels::Binary::Multiply, output, x);
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

fn indexing(
    op: Indexing,
    node: &Node,
    operands: &[&FlexTensor],
    output: &mut [f32],
    write: WriteMode,
) -> bool {
    match op {
        Indexing::EmbeddingGradient { .. } => {
            let Some(index) = operands[0].as_slice::<i64>() else { return false };
            if write == WriteMode::Set {
                output.fill(0.0);
            }
            kernels::scatter_add_rows(output, &dense(operands[1]), index, node.shape.0[1]);
            true
        }
        Indexing::Embedding if write == WriteMode::Set => {
            let Some(index) = operands[1].as_slice::<i64>() else { return false };
            let width = node.shape.0[node.shape.rank() - 1];
            kernels::gather_rows(output, &dense(operands[0]), index, width);
            true
        }
        _ => false,
    }
}

fn row_wise(
    op: RowWise,
    node: &Node,
    operands: &[&FlexTensor],
    output: &mut [f32],
    write: WriteMode,
) -> bool {
    let x = dense(operands[0]);
    if let RowWise::LayerNormGradientGamma(epsilon) = op {
        kernels::layer_norm_grad_gamma(output, &x, &dense(operands[1]), epsilon as f32, write);
        return true;
    }
    if write == WriteMode::Add {
        return false;
    }
    let width = node.shape.0.last().copied().unwrap_or(1);
    match op {
        RowWise::Softmax => kernels::softmax(output, &x, width),
        RowWise::LogSoftmax => kernels::log_softmax(output, &x, width),
        RowWise::SoftmaxGradient => kernels::softmax_grad(output, &x, &dense(operands[1]), width),
        RowWise::LogSoftmaxGradient => {
            kernels::log_softmax_grad(output, &x, &dense(operands[1]), width);
        }
        RowWise::LayerNorm(epsilon) => {
            let (gamma, beta) = (dense(operands[1]), operands.get(2).map(|beta| dense(beta)));
            kernels::layer_norm(output, &x, &gamma, beta.as_deref(), epsilon as f32);
        }
        RowWise::LayerNormGradient(epsilon) => {
            let (gamma, g) = (dense(operands[1]), dense(operands[2]));
            kernels::layer_norm_grad_x(output, &x, &gamma, &g, epsilon as f32);
        }
        RowWise::LayerNormGradientGamma(_) => return false,
    }
    true
}

fn matmul(a: &FlexTensor, b: &FlexTensor, output: &mut [f32], write: WriteMode) {
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
fn sum(x: &FlexTensor, axes: &[usize], output: &mut [f32], write: WriteMode) -> bool {
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

fn binary(op: Binary) -> Option<kernels::Binary> {
    Some(match op {
        Binary::Add => kernels::Binary::Add,
        Binary::Subtract => kernels::Binary::Subtract,
        Binary::Multiply => kernels::Binary::Multiply,
        Binary::Divide => kernels::Binary::Divide,
        Binary::Remainder | Binary::Power | Binary::Atan2 | Binary::Hypot => return None,
    })
}

fn unary(op: Unary) -> Option<kernels::Unary> {
    Some(match op {
        Unary::Exp => kernels::Unary::Exp,
        Unary::Log => kernels::Unary::Log,
        Unary::Activation(Activation::Tanh) => kernels::Unary::Tanh,
        Unary::Activation(Activation::Sigmoid) => kernels::Unary::Sigmoid,
        Unary::Activation(Activation::Gelu) => kernels::Unary::Gelu,
        Unary::Activation(Activation::Relu) => kernels::Unary::Relu,
        Unary::Neg => kernels::Unary::Neg,
        Unary::Sqrt => kernels::Unary::Sqrt,
        Unary::Reciprocal => kernels::Unary::Reciprocal,
        Unary::Abs => kernels::Unary::Abs,
        _ => return None,
    })
}
