//! Every op through Burn's dispatch layer, on whatever device its operands are: the reference.

use burn_backend::ops::{ActivationOps, BoolTensorOps, FloatTensorOps, IntTensorOps, ModuleOps};
use burn_backend::{
    BoolDType, FloatDType, IntDType, Scalar as BurnScalar, Shape as BurnShape, Slice, TensorData,
    TensorMetadata, get_or_init_device_settings,
};
use burn_dispatch::{Dispatch, DispatchDevice, DispatchTensor};
use burn_std::IndexingUpdateOp;

use super::window;
use crate::graph::{Binary, Comparison, Constant, DType, Node, Op, Scalar, Unary, Values};
use crate::random::{DropoutKey, dropout_mask};

type D = Dispatch;

/// Computes `node` from its operands. `key` is the run's for dropout; its layer is the op's.
pub(super) fn evaluate(
    node: &Node,
    operands: Vec<DispatchTensor>,
    key: DropoutKey,
) -> DispatchTensor {
    let mut operands = operands.into_iter();
    let mut next = || operands.next().expect("the graph was verified: operands are all there");
    match &node.op {
        Op::Input(_) | Op::Parameter(_) | Op::Constant(_) => {
            unreachable!("{} is not computed", node.op)
        }
        Op::Unary(op) => unary(*op, next()),
        Op::Scalar(op, value) => scalar(*op, *value, next()),
        Op::Binary(op) => binary(*op, next(), next()),
        Op::Compare(op) => compare(*op, next(), next()),
        Op::CompareScalar(op, value) => compare_scalar(*op, *value, next()),
        Op::Where => select(node, next(), next(), next()),
        Op::Fill(value) => fill(node, *value, next(), next()),
        Op::Cast(dtype) => cast(next(), *dtype),
        Op::UnaryGradient(op) => unary_gradient(*op, next(), next()),
        Op::Dropout { layer, probability } => {
            dropout(node, *probability, DropoutKey { layer: *layer, ..key }, next())
        }
        Op::Matmul => D::float_matmul(next(), next()),
        Op::Sum(axes) => D::float_sum_dims(next(), axes),
        Op::ArgMax(axis) => D::float_argmax(next(), *axis, IntDType::I64),
        Op::ArgMin(axis) => D::float_argmin(next(), *axis, IntDType::I64),
        Op::Reshape(_) | Op::Permute(_) | Op::Expand(_) | Op::Slice { .. } => {
            movement(node, next())
        }
        Op::Pad { axis, before, after } => pad(node, next(), *axis, *before, *after),
        Op::Concatenate(axis) => concatenate(node.dtype, operands.collect(), *axis),
        Op::Gather(axis) => gather(node.dtype, *axis, next(), next()),
        Op::ScatterAdd { axis, .. } => scatter_add(node, *axis, next(), next()),
        Op::Embedding => embedding(node, next(), next()),
        Op::EmbeddingGradient { .. } => embedding_gradient(node, next(), next()),
        Op::Softmax => D::softmax(next(), node.shape.rank() - 1),
        Op::LogSoftmax => D::log_softmax(next(), node.shape.rank() - 1),
        Op::SoftmaxGradient => softmax_gradient(next(), next()),
        Op::LogSoftmaxGradient => log_softmax_gradient(next(), next()),
        Op::LayerNorm(epsilon) => {
            let (x, gamma) = (next(), next());
            D::layer_norm(x, gamma, operands.next(), *epsilon)
        }
        Op::LayerNormGradient(epsilon) => layer_norm_gradient(*epsilon, next(), next(), next()),
        Op::LayerNormGradientGamma(epsilon) => {
            layer_norm_gradient_gamma(node, *epsilon, next(), next())
        }
        Op::Conv2d(_)
        | Op::Conv2dInputGradient { .. }
        | Op::Conv2dWeightGradient { .. }
        | Op::MaxPool2d(_)
        | Op::MaxPool2dGradient(_)
        | Op::AvgPool2d { .. }
        | Op::AvgPool2dGradient { .. } => window::evaluate(node, operands.collect()),
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

fn shape(node: &Node) -> BurnShape {
    BurnShape::from(node.shape.0.clone())
}

fn is_float(tensor: &DispatchTensor) -> bool {
    tensor.dtype().is_float()
}

fn bool_dtype(tensor: &DispatchTensor) -> BoolDType {
    get_or_init_device_settings::<D>(&tensor.device()).bool_dtype
}

fn unary(op: Unary, x: DispatchTensor) -> DispatchTensor {
    let float = is_float(&x);
    match op {
        Unary::Not => D::bool_not(x),
        Unary::Neg if !float => D::int_neg(x),
        Unary::Abs if !float => D::int_abs(x),
        Unary::Sign if !float => D::int_sign(x),
        Unary::Neg => D::float_neg(x),
        Unary::Abs => D::float_abs(x),
        Unary::Sign => D::float_sign(x),
        Unary::Exp => D::float_exp(x),
        Unary::Log => D::float_log(x),
        Unary::Sqrt => D::float_sqrt(x),
        Unary::Reciprocal => D::float_recip(x),
        Unary::Sin => D::float_sin(x),
        Unary::Cos => D::float_cos(x),
        Unary::Erf => D::float_erf(x),
        Unary::Tanh => D::float_tanh(x),
        Unary::Sigmoid => D::sigmoid(x),
        Unary::Relu => D::relu(x),
        Unary::Gelu => D::gelu(x),
    }
}

fn unary_gradient(op: Unary, of: DispatchTensor, g: DispatchTensor) -> DispatchTensor {
    match op {
        Unary::Gelu => D::gelu_backward(of, g),
        Unary::Relu => {
            let dead =
                D::float_lower_equal_elem(of.clone(), BurnScalar::Float(0.0), bool_dtype(&of));
            D::float_mask_fill(g, dead, BurnScalar::Float(0.0))
        }
        Unary::Sigmoid => D::sigmoid_backward(of, g),
        Unary::Tanh => {
            // g (1 - y^2)
            let square = D::float_mul(of.clone(), of);
            let slope = D::float_add_scalar(D::float_neg(square), BurnScalar::Float(1.0));
            D::float_mul(g, slope)
        }
        _ => unreachable!("the gradient of {op} is made of other ops"),
    }
}

fn scalar(op: Scalar, value: f64, x: DispatchTensor) -> DispatchTensor {
    if !is_float(&x) {
        let value = BurnScalar::Int(value as i64);
        return match op {
            Scalar::Add => D::int_add_scalar(x, value),
            Scalar::Multiply => D::int_mul_scalar(x, value),
            Scalar::Power => D::int_powi_scalar(x, value),
            Scalar::AtLeast => D::int_clamp_min(x, value),
            Scalar::AtMost => D::int_clamp_max(x, value),
        };
    }
    let value = BurnScalar::Float(value);
    match op {
        Scalar::Add => D::float_add_scalar(x, value),
        Scalar::Multiply => D::float_mul_scalar(x, value),
        Scalar::Power => D::float_powf_scalar(x, value),
        Scalar::AtLeast => D::float_clamp_min(x, value),
        Scalar::AtMost => D::float_clamp_max(x, value),
    }
}

fn binary(op: Binary, x: DispatchTensor, y: DispatchTensor) -> DispatchTensor {
    let float = is_float(&x);
    match op {
        Binary::And => D::bool_and(x, y),
        Binary::Or => D::bool_or(x, y),
        Binary::Add if float => D::float_add(x, y),
        Binary::Subtract if float => D::float_sub(x, y),
        Binary::Multiply if float => D::float_mul(x, y),
        Binary::Divide if float => D::float_div(x, y),
        Binary::Add => D::int_add(x, y),
        Binary::Subtract => D::int_sub(x, y),
        Binary::Multiply => D::int_mul(x, y),
        Binary::Divide => D::int_div(x, y),
    }
}

fn compare(op: Comparison, x: DispatchTensor, y: DispatchTensor) -> DispatchTensor {
    let to = bool_dtype(&x);
    if x.dtype().is_bool() {
        return match op {
            Comparison::Equal => D::bool_equal(x, y),
            _ => D::bool_not_equal(x, y),
        };
    }
    match (op, is_float(&x)) {
        (Comparison::Equal, true) => D::float_equal(x, y, to),
        (Comparison::NotEqual, true) => D::float_not_equal(x, y, to),
        (Comparison::Greater, true) => D::float_greater(x, y, to),
        (Comparison::GreaterEqual, true) => D::float_greater_equal(x, y, to),
        (Comparison::Less, true) => D::float_lower(x, y, to),
        (Comparison::LessEqual, true) => D::float_lower_equal(x, y, to),
        (Comparison::Equal, false) => D::int_equal(x, y, to),
        (Comparison::NotEqual, false) => D::int_not_equal(x, y, to),
        (Comparison::Greater, false) => D::int_greater(x, y, to),
        (Comparison::GreaterEqual, false) => D::int_greater_equal(x, y, to),
        (Comparison::Less, false) => D::int_lower(x, y, to),
        (Comparison::LessEqual, false) => D::int_lower_equal(x, y, to),
    }
}

fn compare_scalar(op: Comparison, value: f64, x: DispatchTensor) -> DispatchTensor {
    let to = bool_dtype(&x);
    if x.dtype().is_bool() {
        let value = BurnScalar::Bool(value != 0.0);
        return match op {
            Comparison::Equal => D::bool_equal_elem(x, value),
            _ => D::bool_not_equal_elem(x, value),
        };
    }
    let float = is_float(&x);
    let v = if float { BurnScalar::Float(value) } else { BurnScalar::Int(value as i64) };
    match (op, float) {
        (Comparison::Equal, true) => D::float_equal_elem(x, v, to),
        (Comparison::NotEqual, true) => D::float_not_equal_elem(x, v, to),
        (Comparison::Greater, true) => D::float_greater_elem(x, v, to),
        (Comparison::GreaterEqual, true) => D::float_greater_equal_elem(x, v, to),
        (Comparison::Less, true) => D::float_lower_elem(x, v, to),
        (Comparison::LessEqual, true) => D::float_lower_equal_elem(x, v, to),
        (Comparison::Equal, false) => D::int_equal_elem(x, v, to),
        (Comparison::NotEqual, false) => D::int_not_equal_elem(x, v, to),
        (Comparison::Greater, false) => D::int_greater_elem(x, v, to),
        (Comparison::GreaterEqual, false) => D::int_greater_equal_elem(x, v, to),
        (Comparison::Less, false) => D::int_lower_elem(x, v, to),
        (Comparison::LessEqual, false) => D::int_lower_equal_elem(x, v, to),
    }
}

fn expand(dtype: DType, x: DispatchTensor, to: BurnShape) -> DispatchTensor {
    match dtype {
        DType::F32 => D::float_expand(x, to),
        DType::Int => D::int_expand(x, to),
        DType::Bool => D::bool_expand(x, to),
    }
}

fn select(
    node: &Node,
    mask: DispatchTensor,
    yes: DispatchTensor,
    no: DispatchTensor,
) -> DispatchTensor {
    let mask = D::bool_expand(mask, shape(node));
    let (yes, no) = (expand(node.dtype, yes, shape(node)), expand(node.dtype, no, shape(node)));
    match node.dtype {
        DType::F32 => D::float_mask_where(no, mask, yes),
        DType::Int => D::int_mask_where(no, mask, yes),
        DType::Bool => D::bool_mask_where(no, mask, yes),
    }
}

fn fill(node: &Node, value: f64, mask: DispatchTensor, x: DispatchTensor) -> DispatchTensor {
    let mask = D::bool_expand(mask, shape(node));
    let x = expand(node.dtype, x, shape(node));
    match node.dtype {
        DType::F32 => D::float_mask_fill(x, mask, BurnScalar::Float(value)),
        DType::Int => D::int_mask_fill(x, mask, BurnScalar::Int(value as i64)),
        DType::Bool => D::bool_mask_fill(x, mask, BurnScalar::Bool(value != 0.0)),
    }
}

fn cast(x: DispatchTensor, to: DType) -> DispatchTensor {
    let from = x.dtype();
    match to {
        DType::F32 if from.is_bool() => D::bool_into_float(x, FloatDType::F32),
        DType::F32 => D::int_into_float(x, FloatDType::F32),
        DType::Int if from.is_bool() => D::bool_into_int(x, IntDType::I64),
        DType::Int => D::float_into_int(x, IntDType::I64),
        DType::Bool => compare_scalar(Comparison::NotEqual, 0.0, x),
    }
}

fn movement(node: &Node, x: DispatchTensor) -> DispatchTensor {
    match (&node.op, node.dtype) {
        (Op::Reshape(_), DType::F32) => D::float_reshape(x, shape(node)),
        (Op::Reshape(_), DType::Int) => D::int_reshape(x, shape(node)),
        (Op::Reshape(_), DType::Bool) => D::bool_reshape(x, shape(node)),
        (Op::Permute(axes), DType::F32) => D::float_permute(x, axes),
        (Op::Permute(axes), DType::Int) => D::int_permute(x, axes),
        (Op::Permute(axes), DType::Bool) => D::bool_permute(x, axes),
        (Op::Expand(_), dtype) => expand(dtype, x, shape(node)),
        (Op::Slice { axis, start, end }, dtype) => {
            let mut slices: Vec<Slice> = vec![Slice::full(); node.shape.rank()];
            slices[*axis] = Slice::new(*start as isize, Some(*end as isize), 1);
            match dtype {
                DType::F32 => D::float_slice(x, &slices),
                DType::Int => D::int_slice(x, &slices),
                DType::Bool => D::bool_slice(x, &slices),
            }
        }
        (op, _) => unreachable!("{op} does not only move elements"),
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

fn gather(dtype: DType, axis: usize, x: DispatchTensor, index: DispatchTensor) -> DispatchTensor {
    match dtype {
        DType::F32 => D::float_gather(axis, x, index),
        DType::Int => D::int_gather(axis, x, index),
        DType::Bool => D::bool_gather(axis, x, index),
    }
}

fn dropout(node: &Node, probability: f64, key: DropoutKey, x: DispatchTensor) -> DispatchTensor {
    let mut mask = vec![0.0; node.shape.elements()];
    dropout_mask(key, probability as f32, &mut mask);
    let mask = D::float_from_data(TensorData::new(mask, shape(node)), &x.device());
    D::float_mul(x, mask)
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
