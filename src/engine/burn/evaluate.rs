//! Every op through Burn's dispatch layer, on whatever device its operands are: the reference.

mod elementwise;
mod window;

use burn_backend::ops::{ActivationOps, BoolTensorOps, FloatTensorOps, IntTensorOps, ModuleOps};
use burn_backend::{
    BoolDType, FloatDType, IntDType, Scalar as BurnScalar, Shape as BurnShape, Slice, TensorData,
    TensorMetadata, get_or_init_device_settings,
};
use burn_dispatch::{Dispatch, DispatchDevice, DispatchTensor};
use burn_std::IndexingUpdateOp;

use crate::graph::{
    Constant, DType, Indexing, Join, Movement, Node, Op, Reduction, RowWise, Values,
};
use crate::random::RunKey;

type D = Dispatch;

/// Computes `node` from its operands; `key` is the run's.
///
/// # Panics
///
/// When the op is a leaf.
pub(in crate::engine) fn evaluate(
    node: &Node,
    operands: Vec<DispatchTensor>,
    key: RunKey,
) -> DispatchTensor {
    match &node.op {
        Op::Leaf(op) => panic!("{op} is not computed"),
        Op::Elementwise(op) => elementwise::evaluate(*op, node, operands, key),
        Op::Movement(op) => movement(op, node, operands),
        Op::Matmul => {
            let [x, y] = take(operands);
            D::float_matmul(x, y)
        }
        Op::Reduction(op) => reduction(op, operands),
        Op::Join(op) => join(*op, node, operands),
        Op::Indexing(op) => indexing(*op, node, operands),
        Op::RowWise(op) => row_wise(*op, node, operands),
        Op::Windowed(op) => window::evaluate(*op, node, operands),
    }
}

/// A captured constant on a device.
pub(super) fn constant(constant: &Constant, device: &DispatchDevice) -> DispatchTensor {
    let shape = BurnShape::from(constant.shape.0.clone());
    match &constant.values {
        Values::F32(values) => D::float_from_data(TensorData::new(values.clone(), shape), device),
        Values::Int(values) => D::int_from_data(TensorData::new(values.clone(), shape), device),
        Values::Bool(values) => D::bool_from_data(TensorData::new(values.clone(), shape), device),
    }
}

/// The operands, of which there are as many as the op takes.
fn take<const N: usize>(operands: Vec<DispatchTensor>) -> [DispatchTensor; N] {
    operands.try_into().expect("the graph was verified: operands are all there")
}

fn shape(node: &Node) -> BurnShape {
    BurnShape::from(node.shape.0.clone())
}

fn is_float(tensor: &DispatchTensor) -> bool {
    tensor.dtype().is_float()
}

fn bool_dtype(tensor: &DispatchTensor) -> BoolDType {
    get_or_init_device_settings::<D>(&tensor.device()).bool_dtype
}

fn expand(dtype: DType, x: DispatchTensor, to: BurnShape) -> DispatchTensor {
    match dtype {
        DType::F32 => D::float_expand(x, to),
        DType::Int => D::int_expand(x, to),
        DType::Bool => D::bool_expand(x, to),
    }
}

fn movement(op: &Movement, node: &Node, operands: Vec<DispatchTensor>) -> DispatchTensor {
    let [x] = take(operands);
    match (op, node.dtype) {
        (Movement::Reshape(_), DType::F32) => D::float_reshape(x, shape(node)),
        (Movement::Reshape(_), DType::Int) => D::int_reshape(x, shape(node)),
        (Movement::Reshape(_), DType::Bool) => D::bool_reshape(x, shape(node)),
        (Movement::Permute(axes), DType::F32) => D::float_permute(x, axes),
        (Movement::Permute(axes), DType::Int) => D::int_permute(x, axes),
        (Movement::Permute(axes), DType::Bool) => D::bool_permute(x, axes),
        (Movement::Expand(_), dtype) => expand(dtype, x, shape(node)),
        (Movement::Detach, _) => x,
        (Movement::Slice { axis, start, end }, dtype) => {
            let mut slices: Vec<Slice> = vec![Slice::full(); node.shape.rank()];
            slices[*axis] = Slice::new(*start as isize, Some(*end as isize), 1);
            match dtype {
                DType::F32 => D::float_slice(x, &slices),
                DType::Int => D::int_slice(x, &slices),
                DType::Bool => D::bool_slice(x, &slices),
            }
        }
    }
}

fn reduction(op: &Reduction, operands: Vec<DispatchTensor>) -> DispatchTensor {
    let [x] = take(operands);
    if let &Reduction::CumulativeSum { axis, reverse: true } = op {
        let forwards = Reduction::CumulativeSum { axis, reverse: false };
        return reversed(reduction(&forwards, vec![reversed(x, axis)]), axis);
    }
    if !is_float(&x) {
        return int_reduction(op, x);
    }
    match *op {
        Reduction::Sum(ref axes) => D::float_sum_dims(x, axes),
        Reduction::CumulativeSum { axis, .. } => D::float_cumsum(x, axis),
        Reduction::CumulativeProduct(axis) => D::float_cumprod(x, axis),
        Reduction::CumulativeMax(axis) => D::float_cummax(x, axis),
        Reduction::CumulativeMin(axis) => D::float_cummin(x, axis),
        Reduction::ArgMax(axis) => D::float_argmax(x, axis, IntDType::I64),
        Reduction::ArgMin(axis) => D::float_argmin(x, axis, IntDType::I64),
        // Not by `argsort`, which may order equal elements otherwise than Burn's sort.
        Reduction::ArgSort { axis, descending } => {
            D::float_sort_with_indices(x, axis, descending, IntDType::I64).1
        }
    }
}

fn int_reduction(op: &Reduction, x: DispatchTensor) -> DispatchTensor {
    match *op {
        Reduction::Sum(ref axes) => axes.iter().fold(x, |x, &axis| D::int_sum_dim(x, axis)),
        Reduction::CumulativeSum { axis, .. } => D::int_cumsum(x, axis),
        Reduction::CumulativeProduct(axis) => D::int_cumprod(x, axis),
        Reduction::CumulativeMax(axis) => D::int_cummax(x, axis),
        Reduction::CumulativeMin(axis) => D::int_cummin(x, axis),
        Reduction::ArgMax(axis) => D::int_argmax(x, axis),
        Reduction::ArgMin(axis) => D::int_argmin(x, axis),
        Reduction::ArgSort { axis, descending } => D::int_sort_with_indices(x, axis, descending).1,
    }
}

/// The elements the other way round along the axis, as a tensor of their own: what follows does not
/// know views that are flipped.
fn reversed(x: DispatchTensor, axis: usize) -> DispatchTensor {
    let size = x.shape()[axis];
    let index: Vec<i64> = (0..size as i64).rev().collect();
    let index = D::int_from_data(TensorData::new(index, [size]), &x.device());
    if is_float(&x) { D::float_select(x, axis, index) } else { D::int_select(x, axis, index) }
}

fn join(op: Join, node: &Node, operands: Vec<DispatchTensor>) -> DispatchTensor {
    match op {
        Join::Pad { axis, before, after } => {
            let [x] = take(operands);
            pad(node, x, axis, before, after)
        }
        Join::Concatenate(axis) => concatenate(node.dtype, operands, axis),
    }
}

fn pad(node: &Node, x: DispatchTensor, axis: usize, before: usize, after: usize) -> DispatchTensor {
    let device = x.device();
    let zeros = |size: usize| {
        let mut dims = node.shape.0.clone();
        dims[axis] = size;
        let dims = BurnShape::from(dims);
        match node.dtype {
            DType::F32 => D::float_zeros(dims, &device, FloatDType::F32),
            DType::Int => D::int_zeros(dims, &device, IntDType::I64),
            DType::Bool => D::bool_zeros(dims, &device, bool_dtype(&x)),
        }
    };
    let mut parts = Vec::with_capacity(3);
    if before > 0 {
        parts.push(zeros(before));
    }
    parts.push(x.clone());
    if after > 0 {
        parts.push(zeros(after));
    }
    concatenate(node.dtype, parts, axis)
}

fn concatenate(dtype: DType, parts: Vec<DispatchTensor>, axis: usize) -> DispatchTensor {
    match dtype {
        DType::F32 => D::float_cat(parts, axis),
        DType::Int => D::int_cat(parts, axis),
        DType::Bool => D::bool_cat(parts, axis),
    }
}

fn indexing(op: Indexing, node: &Node, operands: Vec<DispatchTensor>) -> DispatchTensor {
    let [x, y] = take(operands);
    match op {
        Indexing::Gather(axis) => gather(node.dtype, axis, x, y),
        Indexing::ScatterAdd { axis, .. } => scatter_add(node, axis, x, y),
        Indexing::Embedding => embedding(node, x, y),
        Indexing::EmbeddingGradient { .. } => embedding_gradient(node, x, y),
    }
}

fn gather(dtype: DType, axis: usize, x: DispatchTensor, index: DispatchTensor) -> DispatchTensor {
    match dtype {
        DType::F32 => D::float_gather(axis, x, index),
        DType::Int => D::int_gather(axis, x, index),
        DType::Bool => D::bool_gather(axis, x, index),
    }
}

fn scatter_add(
    node: &Node,
    axis: usize,
    index: DispatchTensor,
    values: DispatchTensor,
) -> DispatchTensor {
    let zeros = D::float_zeros(shape(node), &values.device(), FloatDType::F32);
    D::float_scatter(axis, zeros, index, values, IndexingUpdateOp::Add)
}

fn embedding(node: &Node, table: DispatchTensor, index: DispatchTensor) -> DispatchTensor {
    let rows = index.shape().num_elements();
    let index = D::int_reshape(index, BurnShape::new([rows]));
    D::float_reshape(D::float_select(table, 0, index), shape(node))
}

fn embedding_gradient(node: &Node, index: DispatchTensor, g: DispatchTensor) -> DispatchTensor {
    let rows = index.shape().num_elements();
    let index = D::int_reshape(index, BurnShape::new([rows]));
    let g = D::float_reshape(g, BurnShape::new([rows, node.shape.0[1]]));
    let zeros = D::float_zeros(shape(node), &g.device(), FloatDType::F32);
    D::float_select_assign(zeros, 0, index, g, IndexingUpdateOp::Add)
}

fn row_wise(op: RowWise, node: &Node, operands: Vec<DispatchTensor>) -> DispatchTensor {
    let mut operands = operands.into_iter();
    let mut next = || operands.next().expect("the graph was verified: operands are all there");
    let last = node.shape.rank() - 1;
    match op {
        RowWise::Softmax => D::softmax(next(), last),
        RowWise::LogSoftmax => D::log_softmax(next(), last),
        RowWise::SoftmaxGradient => softmax_gradient(next(), next()),
        RowWise::LogSoftmaxGradient => log_softmax_gradient(next(), next()),
        RowWise::LayerNorm(epsilon) => {
            let (x, gamma) = (next(), next());
            D::layer_norm(x, gamma, operands.next(), epsilon)
        }
        RowWise::LayerNormGradient(epsilon) => layer_norm_gradient(epsilon, next(), next(), next()),
        RowWise::LayerNormGradientGamma(epsilon) => {
            layer_norm_gradient_gamma(node, epsilon, next(), next())
        }
    }
}

/// `y (g - sum(y g))`.
fn softmax_gradient(y: DispatchTensor, g: DispatchTensor) -> DispatchTensor {
    let last = y.shape().num_dims() - 1;
    let dot = D::float_sum_dim(D::float_mul(y.clone(), g.clone()), last);
    D::float_mul(y, D::float_sub(g, dot))
}

/// `g - exp(y) sum(g)`.
fn log_softmax_gradient(y: DispatchTensor, g: DispatchTensor) -> DispatchTensor {
    let sum = D::float_sum_dim(g.clone(), y.shape().num_dims() - 1);
    D::float_sub(g, D::float_mul(D::float_exp(y), sum))
}

/// `sum(normalised x * g)` over all rows.
fn layer_norm_gradient_gamma(
    node: &Node,
    epsilon: f64,
    x: DispatchTensor,
    g: DispatchTensor,
) -> DispatchTensor {
    let (normalised, _) = normalise(x, epsilon);
    let product = D::float_mul(normalised, g);
    let axes: Vec<usize> = (0..product.shape().num_dims() - 1).collect();
    D::float_reshape(D::float_sum_dims(product, &axes), shape(node))
}

/// `(x - mean) / sqrt(variance + epsilon)` and the factor `1 / sqrt(variance + epsilon)`.
fn normalise(x: DispatchTensor, epsilon: f64) -> (DispatchTensor, DispatchTensor) {
    let last = x.shape().num_dims() - 1;
    let centred = D::float_sub(x.clone(), D::float_mean_dim(x, last));
    let variance = D::float_mean_dim(D::float_mul(centred.clone(), centred.clone()), last);
    let root = D::float_sqrt(D::float_add_scalar(variance, BurnScalar::Float(epsilon)));
    let factor = D::float_recip(root);
    (D::float_mul(centred, factor.clone()), factor)
}

/// With `n = normalised x` and `h = g gamma`: `(h - mean(h) - n mean(h n)) / deviation`.
fn layer_norm_gradient(
    epsilon: f64,
    x: DispatchTensor,
    gamma: DispatchTensor,
    g: DispatchTensor,
) -> DispatchTensor {
    let last = x.shape().num_dims() - 1;
    let mut dims = vec![1; last + 1];
    dims[last] = gamma.shape().num_elements();
    let (normalised, factor) = normalise(x, epsilon);
    let h = D::float_mul(g, D::float_reshape(gamma, BurnShape::from(dims)));
    let mean = D::float_mean_dim(h.clone(), last);
    let slope = D::float_mean_dim(D::float_mul(h.clone(), normalised.clone()), last);
    let along = D::float_mul(normalised, slope);
    D::float_mul(D::float_sub(D::float_sub(h, mean), along), factor)
}
