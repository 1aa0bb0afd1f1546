//! Elementwise ops by Burn's own functions: their definition.

use burn_backend::ops::{ActivationOps, BoolTensorOps, FloatTensorOps, IntTensorOps};
use burn_backend::{FloatDType, IntDType, Scalar as BurnScalar, TensorData, TensorMetadata};
use burn_dispatch::DispatchTensor;

use super::{D, bool_dtype, expand, is_float, shape, take};
use crate::graph::{
    Activation, Binary, Bitwise, Comparison, DType, Elementwise, Logical, Node, Scalar, Unary,
};
use crate::random::RunKey;

pub(super) fn evaluate(
    op: Elementwise,
    node: &Node,
    operands: Vec<DispatchTensor>,
    key: RunKey,
) -> DispatchTensor {
    match op {
        Elementwise::Where => {
            let [mask, yes, no] = take(operands);
            select(node, mask, yes, no)
        }
        Elementwise::Binary(op) => with_two(operands, |x, y| binary(op, x, y)),
        Elementwise::Logical(Logical::And) => with_two(operands, D::bool_and),
        Elementwise::Logical(Logical::Or) => with_two(operands, D::bool_or),
        Elementwise::Bitwise(op) => with_two(operands, |x, y| bitwise(op, x, y)),
        Elementwise::Compare(op) => with_two(operands, |x, y| compare(op, x, y)),
        Elementwise::Fill(value) => with_two(operands, |mask, x| fill(node, value, mask, x)),
        Elementwise::ActivationGradient(op) => {
            with_two(operands, |of, g| activation_gradient(op, of, g))
        }
        Elementwise::Unary(op) => with_one(operands, |x| unary(op, x)),
        Elementwise::Scalar(op, value) => with_one(operands, |x| scalar(op, value, x)),
        Elementwise::Not => with_one(operands, D::bool_not),
        Elementwise::CompareScalar(op, value) => {
            with_one(operands, |x| compare_scalar(op, value, x))
        }
        Elementwise::Cast(dtype) => with_one(operands, |x| cast(x, dtype)),
        Elementwise::Dropout { draw, probability } => with_one(operands, |x| {
            let mask = drawn(node, &x, |mask| key.dropout_mask(draw, probability as f32, mask));
            D::float_mul(x, mask)
        }),
        Elementwise::Random { draw, distribution } => {
            with_one(operands, |x| drawn(node, &x, |values| key.draw(draw, distribution, values)))
        }
        Elementwise::Mode => with_two(operands, |x, y| if key.evaluates { y } else { x }),
    }
}

fn with_one(
    operands: Vec<DispatchTensor>,
    function: impl FnOnce(DispatchTensor) -> DispatchTensor,
) -> DispatchTensor {
    let [x] = take(operands);
    function(x)
}

fn with_two(
    operands: Vec<DispatchTensor>,
    function: impl FnOnce(DispatchTensor, DispatchTensor) -> DispatchTensor,
) -> DispatchTensor {
    let [x, y] = take(operands);
    function(x, y)
}

fn unary(op: Unary, x: DispatchTensor) -> DispatchTensor {
    let float = is_float(&x);
    match op {
        Unary::Neg if !float => D::int_neg(x),
        Unary::Abs if !float => D::int_abs(x),
        Unary::Sign if !float => D::int_sign(x),
        Unary::Neg => D::float_neg(x),
        Unary::Abs => D::float_abs(x),
        Unary::Sign => D::float_sign(x),
        Unary::Exp => D::float_exp(x),
        Unary::Log => D::float_log(x),
        Unary::Log1p => D::float_log1p(x),
        Unary::Sqrt => D::float_sqrt(x),
        Unary::Reciprocal => D::float_recip(x),
        Unary::Sin => D::float_sin(x),
        Unary::Cos => D::float_cos(x),
        Unary::Tan => D::float_tan(x),
        Unary::Asin => D::float_asin(x),
        Unary::Acos => D::float_acos(x),
        Unary::Atan => D::float_atan(x),
        Unary::Sinh => D::float_sinh(x),
        Unary::Cosh => D::float_cosh(x),
        Unary::Asinh => D::float_asinh(x),
        Unary::Acosh => D::float_acosh(x),
        Unary::Atanh => D::float_atanh(x),
        Unary::Erf => D::float_erf(x),
        Unary::Floor => D::float_floor(x),
        Unary::Ceil => D::float_ceil(x),
        Unary::Round => D::float_round(x),
        Unary::Trunc => D::float_trunc(x),
        Unary::RoundF16 => D::float_cast(D::float_cast(x, FloatDType::F16), FloatDType::F32),
        Unary::RoundBf16 => D::float_cast(D::float_cast(x, FloatDType::BF16), FloatDType::F32),
        Unary::Activation(Activation::Tanh) => D::float_tanh(x),
        Unary::Activation(Activation::Sigmoid) => D::sigmoid(x),
        Unary::Activation(Activation::Relu) => D::relu(x),
        Unary::Activation(Activation::Gelu) => D::gelu(x),
    }
}

fn activation_gradient(op: Activation, of: DispatchTensor, g: DispatchTensor) -> DispatchTensor {
    match op {
        Activation::Gelu => D::gelu_backward(of, g),
        Activation::Relu => {
            let dead =
                D::float_lower_equal_elem(of.clone(), BurnScalar::Float(0.0), bool_dtype(&of));
            D::float_mask_fill(g, dead, BurnScalar::Float(0.0))
        }
        Activation::Sigmoid => D::sigmoid_backward(of, g),
        Activation::Tanh => {
            // g (1 - y^2)
            let square = D::float_mul(of.clone(), of);
            let slope = D::float_add_scalar(D::float_neg(square), BurnScalar::Float(1.0));
            D::float_mul(g, slope)
        }
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
        Binary::Add if float => D::float_add(x, y),
        Binary::Subtract if float => D::float_sub(x, y),
        Binary::Multiply if float => D::float_mul(x, y),
        Binary::Divide if float => D::float_div(x, y),
        Binary::Remainder if float => D::float_remainder(x, y),
        Binary::Power if float => D::float_powf(x, y),
        Binary::Atan2 => D::float_atan2(x, y),
        Binary::Hypot => D::float_hypot(x, y),
        Binary::Add => D::int_add(x, y),
        Binary::Subtract => D::int_sub(x, y),
        Binary::Multiply => D::int_mul(x, y),
        Binary::Divide => D::int_div(x, y),
        Binary::Remainder => D::int_remainder(x, y),
        Binary::Power => D::int_powi(x, y),
    }
}

fn bitwise(op: Bitwise, x: DispatchTensor, y: DispatchTensor) -> DispatchTensor {
    match op {
        Bitwise::And => D::bitwise_and(x, y),
        Bitwise::Or => D::bitwise_or(x, y),
        Bitwise::Xor => D::bitwise_xor(x, y),
        Bitwise::ShiftLeft => D::bitwise_left_shift(x, y),
        Bitwise::ShiftRight => D::bitwise_right_shift(x, y),
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

/// Numbers that `fill` gives, in the shape of `node`, where `x` is.
fn drawn(node: &Node, x: &DispatchTensor, fill: impl FnOnce(&mut [f32])) -> DispatchTensor {
    let mut values = vec![0.0; node.shape.elements()];
    fill(&mut values);
    D::float_from_data(TensorData::new(values, shape(node)), &x.device())
}
