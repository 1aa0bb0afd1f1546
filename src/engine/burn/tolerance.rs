//! How far what an engine computes may be from the reference, op by op.
//!
//! The bounds are for two computations of the same operands, in f32, each with its own order of
//! sums and its own functions; so each is a bound on the sum of both errors. An ulp is 2^-23.
//!
//! | op | at most |
//! |---|---|
//! | copies, gathers, comparisons, integers, Bools, one IEEE operation, dropout, extremes | exact |
//! | division, square root, reciprocal | 5 ulp of the result: Vulkan allows a division 2.5 |
//! | functions of numbers | some ulp of the result, or of 1 where it is smaller: [`Rule`]s below |
//! | sums, products of matrices, convolutions, average pools | n ulp of the sum of the n terms' |
//! | | magnitudes (Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 4.2) |
//! | softmax, layer norm and their gradients | the same of their sums, through their formulas |
//!
//! The second last row holds for every order of a sum, so what is above it is no rounding.

mod row_wise;

use burn_backend::Scalar as BurnScalar;
use burn_backend::ops::{FloatTensorOps, IntTensorOps};
use burn_backend::{Shape as BurnShape, TensorMetadata};
use burn_dispatch::{Dispatch as D, DispatchTensor};

use super::evaluate::evaluate;
use crate::graph::{
    Activation, Binary, DType, Distribution, Elementwise, Indexing, Node, Op, Reduction, Scalar,
    Unary, Windowed,
};
use crate::random::RunKey;

/// Distance of 1 from the next float.
pub(super) const ULP: f64 = f32::EPSILON as f64;

/// The largest difference from `result`, by element, that is no fault; none where every bit is
/// prescribed. `result` is what the reference makes of `operands`, which are on its device.
pub fn tolerance(
    node: &Node,
    operands: &[DispatchTensor],
    result: &DispatchTensor,
) -> Option<DispatchTensor> {
    if node.dtype != DType::F32 {
        return None;
    }
    let scaled = |x: DispatchTensor, ulps: f64| D::float_mul_scalar(x, number(ulps * ULP));
    let operand = |at: usize| {
        D::float_expand(D::float_abs(operands[at].clone()), BurnShape::from(node.shape.0.clone()))
    };
    let size = || D::float_abs(result.clone());
    Some(match rule(node, operands) {
        Rule::Exact => return None,
        Rule::OfResult(ulps) => scaled(size(), ulps),
        Rule::OfResultOrOne(ulps) => scaled(D::float_clamp_min(size(), number(1.0)), ulps),
        Rule::OfOne(ulps) => D::float_add_scalar(scaled(size(), 0.0), number(ulps * ULP)),
        Rule::OfOperand(at, ulps) => scaled(operand(at), ulps),
        Rule::OfTerms(count) => scaled(sum_of_magnitudes(node, operands), count as f64),
        Rule::OfCountedTerms => {
            let counts = of_magnitudes(node, operands, |x| {
                D::float_add_scalar(D::float_mul_scalar(x, number(0.0)), number(1.0))
            });
            scaled(D::float_mul(sum_of_magnitudes(node, operands), counts), 1.0)
        }
        Rule::Power(ulps) => {
            let ulps = D::float_add_scalar(operand(1), number(ulps));
            scaled(D::float_mul(size(), ulps), 1.0)
        }
        // The slope of the tangent, of the area of a hyperbola's tangent and cosine.
        Rule::Tangent(ulps) => {
            let square = D::float_mul(result.clone(), result.clone());
            scaled(D::float_add_scalar(square, number(1.0)), ulps)
        }
        Rule::AreaTangent(ulps) => {
            let rest = D::float_add_scalar(D::float_neg(operand(0)), number(1.0));
            scaled(D::float_div(D::float_add_scalar(size(), number(1.0)), rest), ulps)
        }
        Rule::AreaCosine(ulps) => {
            let inverse = D::float_recip(size());
            scaled(D::float_add(D::float_add_scalar(inverse, number(1.0)), size()), ulps)
        }
        Rule::RowWise(op) => row_wise::tolerance(op, node, operands, result),
    })
}

/// How often the op rounds on the way to one element of its output, at most: the number of terms of
/// a sum.
pub fn roundings(node: &Node, operands: &[DispatchTensor]) -> usize {
    let size = |at: usize, axis: usize| operands[at].shape()[axis];
    match &node.op {
        Op::Matmul => size(0, operands[0].shape().num_dims() - 1),
        Op::Reduction(Reduction::Sum(axes)) => {
            let mut axes = axes.clone();
            axes.sort_unstable();
            axes.dedup();
            axes.into_iter().map(|axis| size(0, axis)).product()
        }
        Op::Reduction(
            Reduction::CumulativeSum { axis, .. } | Reduction::CumulativeProduct(axis),
        ) => size(0, *axis),
        Op::Indexing(Indexing::ScatterAdd { axis, .. }) => size(0, *axis),
        Op::Indexing(Indexing::EmbeddingGradient { .. }) => operands[0].shape().num_elements(),
        Op::RowWise(_) => {
            let dims = operands[0].shape();
            dims.num_elements() / node.shape.elements().min(dims.num_elements()).max(1)
        }
        Op::Windowed(op) => match *op {
            Windowed::Conv2d(_) => (1..4).map(|axis| size(1, axis)).product(),
            Windowed::Conv2dInputGradient { convolution, .. } => {
                size(0, 0) / convolution.groups * size(0, 2) * size(0, 3)
            }
            Windowed::Conv2dWeightGradient { .. } => size(1, 0) * size(1, 2) * size(1, 3),
            Windowed::AvgPool2d { pool, .. } | Windowed::AvgPool2dGradient { pool, .. } => {
                pool.kernel[0] * pool.kernel[1] + 2
            }
            Windowed::MaxPool2d(_) | Windowed::MaxPool2dGradient(_) => 1,
        },
        _ => 1,
    }
}

/// What the largest difference is measured by.
enum Rule {
    Exact,
    /// So many ulp of the result.
    OfResult(f64),
    /// So many ulp of the result, or of 1 if that is larger.
    OfResultOrOne(f64),
    /// So many ulp of 1.
    OfOne(f64),
    /// So many ulp of an operand.
    OfOperand(usize, f64),
    /// As many ulp of the sum of the terms' magnitudes as it has terms.
    OfTerms(usize),
    /// The same where some sums have more terms than others.
    OfCountedTerms,
    /// So many ulp of the result, and as many more as the exponent.
    Power(f64),
    Tangent(f64),
    AreaTangent(f64),
    AreaCosine(f64),
    RowWise(crate::graph::RowWise),
}

fn rule(node: &Node, operands: &[DispatchTensor]) -> Rule {
    match &node.op {
        Op::Leaf(_) | Op::Movement(_) | Op::Join(_) => Rule::Exact,
        Op::Elementwise(op) => elementwise(*op),
        Op::Matmul => Rule::OfTerms(roundings(node, operands)),
        Op::Reduction(Reduction::Sum(_) | Reduction::CumulativeSum { .. }) => {
            match roundings(node, operands) {
                1 => Rule::Exact,
                count => Rule::OfTerms(count),
            }
        }
        Op::Reduction(Reduction::CumulativeProduct(_)) => {
            Rule::OfResult(2.0 * roundings(node, operands) as f64)
        }
        Op::Reduction(_) => Rule::Exact,
        Op::Indexing(Indexing::Gather(_) | Indexing::Embedding) => Rule::Exact,
        Op::Indexing(Indexing::ScatterAdd { .. } | Indexing::EmbeddingGradient { .. }) => {
            Rule::OfCountedTerms
        }
        Op::RowWise(op) => Rule::RowWise(*op),
        Op::Windowed(Windowed::MaxPool2d(_) | Windowed::MaxPool2dGradient(_)) => Rule::Exact,
        Op::Windowed(_) => Rule::OfTerms(roundings(node, operands)),
    }
}

fn elementwise(op: Elementwise) -> Rule {
    match op {
        Elementwise::Unary(op) => unary(op),
        Elementwise::Scalar(Scalar::Power, exponent) => Rule::OfResult(16.0 + exponent.abs()),
        Elementwise::Binary(Binary::Divide) => Rule::OfResult(5.0),
        Elementwise::Binary(Binary::Power) => Rule::Power(16.0),
        Elementwise::Binary(Binary::Atan2) => Rule::OfResultOrOne(6.0),
        Elementwise::Binary(Binary::Hypot) => Rule::OfResult(6.0),
        Elementwise::ActivationGradient(op) => match op {
            Activation::Relu => Rule::Exact,
            Activation::Sigmoid => Rule::OfResult(6.0),
            Activation::Tanh => Rule::OfOperand(1, 4.0),
            Activation::Gelu => Rule::OfOperand(1, 16.0),
        },
        Elementwise::Random { distribution, .. } => match distribution {
            Distribution::Bernoulli { .. } => Rule::Exact,
            Distribution::Uniform { low, high } => Rule::OfOne(4.0 * (low.abs() + high.abs())),
            // The numbers are within 5.5 deviations.
            Distribution::Normal { mean, deviation } => {
                Rule::OfOne(16.0 * (mean.abs() + 6.0 * deviation.abs()))
            }
        },
        // One operation, which IEEE 754 prescribes, or none.
        _ => Rule::Exact,
    }
}

fn unary(op: Unary) -> Rule {
    match op {
        Unary::Neg | Unary::Abs | Unary::Sign => Rule::Exact,
        Unary::Floor | Unary::Ceil | Unary::Round | Unary::Trunc => Rule::Exact,
        Unary::RoundF16 | Unary::RoundBf16 => Rule::Exact,
        Unary::Sqrt | Unary::Reciprocal => Rule::OfResult(5.0),
        Unary::Exp | Unary::Log | Unary::Log1p => Rule::OfResult(6.0),
        Unary::Sin | Unary::Cos | Unary::Erf => Rule::OfResultOrOne(6.0),
        Unary::Asin | Unary::Acos | Unary::Atan => Rule::OfResultOrOne(6.0),
        Unary::Sinh | Unary::Cosh | Unary::Asinh => Rule::OfResultOrOne(16.0),
        Unary::Tan => Rule::Tangent(8.0),
        Unary::Acosh => Rule::AreaCosine(8.0),
        Unary::Atanh => Rule::AreaTangent(8.0),
        Unary::Activation(Activation::Relu) => Rule::Exact,
        Unary::Activation(Activation::Tanh) => Rule::OfResult(8.0),
        Unary::Activation(Activation::Sigmoid) => Rule::OfResult(12.0),
        // That of the probability, times x.
        Unary::Activation(Activation::Gelu) => Rule::OfOperand(0, 6.0),
    }
}

/// The op of its operands' magnitudes, where it is a sum of products of its operands.
fn sum_of_magnitudes(node: &Node, operands: &[DispatchTensor]) -> DispatchTensor {
    of_magnitudes(node, operands, D::float_abs)
}

fn of_magnitudes(
    node: &Node,
    operands: &[DispatchTensor],
    magnitude: impl Fn(DispatchTensor) -> DispatchTensor,
) -> DispatchTensor {
    let of = |x: &DispatchTensor| match x.dtype().is_float() {
        true => magnitude(x.clone()),
        false => x.clone(),
    };
    evaluate(node, operands.iter().map(of).collect(), RunKey::default())
}

/// Whether two orders of `x` along `axis` are the same but for elements that are equal.
pub fn same_order(node: &Node, x: &DispatchTensor, [first, second]: [DispatchTensor; 2]) -> bool {
    let Op::Reduction(Reduction::ArgSort { axis, .. }) = node.op else { return false };
    let size = x.shape()[axis] as i64;
    let indices = burn::tensor::Tensor::<1, burn::tensor::Int>::from_dispatch(first.clone());
    if indices.into_data().iter::<i64>().any(|index| !(0..size).contains(&index)) {
        return false;
    }
    let of = |order: DispatchTensor| -> Vec<f64> {
        if x.dtype().is_float() {
            let data =
                burn::tensor::Tensor::<1>::from_dispatch(D::float_gather(axis, x.clone(), order));
            return data.into_data().iter::<f64>().collect();
        }
        let data = D::int_gather(axis, x.clone(), order);
        let data = burn::tensor::Tensor::<1, burn::tensor::Int>::from_dispatch(data);
        data.into_data().iter::<f64>().collect()
    };
    let pairs = of(first).into_iter().zip(of(second));
    pairs.into_iter().all(|(x, y)| x == y || (x.is_nan() && y.is_nan()))
}

fn number(value: f64) -> BurnScalar {
    BurnScalar::Float(value)
}
