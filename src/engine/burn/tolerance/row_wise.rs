//! Bounds of functions of rows: those of their sums, carried through their formulas.

use burn_backend::Shape as BurnShape;
use burn_backend::TensorMetadata;
use burn_backend::ops::FloatTensorOps;
use burn_dispatch::{Dispatch as D, DispatchTensor};

use super::{ULP, number};
use crate::graph::{Node, RowWise};

pub(super) fn tolerance(
    op: RowWise,
    node: &Node,
    operands: &[DispatchTensor],
    result: &DispatchTensor,
) -> DispatchTensor {
    let n = *operands[0].shape().last().expect("rows have elements") as f64;
    let x = &operands[0];
    match op {
        RowWise::Softmax => softmax(result, n),
        RowWise::SoftmaxGradient => softmax_gradient(x, &operands[1], n),
        RowWise::LogSoftmax => log_softmax(x, result, n),
        RowWise::LogSoftmaxGradient => log_softmax_gradient(x, &operands[1], n),
        RowWise::LayerNorm(epsilon) => {
            let rows = Rows::new(x, epsilon);
            let gamma = along(&operands[1], x);
            let own = times(&rows.error, &gamma);
            let scaled = times(&times(&abs(&rows.normalised), &gamma), &ulps(x, 4.0));
            let beta = operands.get(2).map(|beta| scale(&along(beta, x), 2.0 * ULP));
            let sum = plus(own, scaled);
            beta.map_or(sum.clone(), |beta| plus(sum, beta))
        }
        RowWise::LayerNormGradient(epsilon) => layer_norm_gradient(operands, epsilon, n),
        RowWise::LayerNormGradientGamma(epsilon) => {
            let rows = Rows::new(x, epsilon);
            let g = abs(&operands[1]);
            let count = (x.shape().num_elements() as f64 / n) + 2.0;
            let terms = scale(&times(&abs(&rows.normalised), &g), count * ULP);
            let all = plus(times(&rows.error, &g), terms);
            let axes: Vec<usize> = (0..x.shape().num_dims() - 1).collect();
            let sums = D::float_sum_dims(all, &axes);
            D::float_reshape(sums, BurnShape::from(node.shape.0.clone()))
        }
    }
}

/// `y = exp(x - largest) / sum`. The argument is rounded, and is at most `|ln y|`; of the sum every
/// term is positive.
fn softmax(y: &DispatchTensor, n: f64) -> DispatchTensor {
    let logarithm = abs(&D::float_log(D::float_clamp_min(y.clone(), number(1e-38))));
    scale(&times(y, &D::float_add_scalar(logarithm, number(n + 16.0))), ULP)
}

/// `y = x - largest - ln(sum)`, where the terms of the sum are positive.
fn log_softmax(x: &DispatchTensor, y: &DispatchTensor, n: f64) -> DispatchTensor {
    let last = x.shape().num_dims() - 1;
    let largest = abs(&D::float_max_dim(x.clone(), last));
    let sizes = plus(plus(abs(x), abs(y)), largest);
    scale(&D::float_add_scalar(scale(&sizes, 2.0), number(n + 8.0)), ULP)
}

/// `y (g - sum(y g))`.
fn softmax_gradient(y: &DispatchTensor, g: &DispatchTensor, n: f64) -> DispatchTensor {
    let (y, g) = (abs(y), abs(g));
    let sum = scale(&row_sum(times(&y, &g)), n + 4.0);
    scale(&times(&y, &plus(scale(&g, 4.0), sum)), ULP)
}

/// `g - exp(y) sum(g)`.
fn log_softmax_gradient(y: &DispatchTensor, g: &DispatchTensor, n: f64) -> DispatchTensor {
    let g = abs(g);
    let sum = scale(&row_sum(g.clone()), n + 12.0);
    scale(&plus(scale(&g, 2.0), times(&D::float_exp(y.clone()), &sum)), ULP)
}

/// With `h = g gamma` and `m` its mean, `s` the mean of `h normalised`:
/// `factor (h - m - normalised s)`.
fn layer_norm_gradient(operands: &[DispatchTensor], epsilon: f64, n: f64) -> DispatchTensor {
    let rows = Rows::new(&operands[0], epsilon);
    let h = times(&abs(&operands[2]), &along(&operands[1], &operands[0]));
    let normalised = abs(&rows.normalised);
    let mean = row_mean(h.clone());
    let slope = row_mean(times(&h, &normalised));
    let of_slope = plus(scale(&slope, (n + 6.0) * ULP), row_mean(times(&h, &rows.error)));
    let along_row = plus(times(&rows.error, &slope), times(&normalised, &of_slope));
    let sums = plus(plus(scale(&h, 4.0 * ULP), scale(&mean, (n + 4.0) * ULP)), along_row);
    let all = plus(plus(h, mean), times(&normalised, &slope));
    let of_factor = plus(times(&all, &rows.relative), scale(&all, 4.0 * ULP));
    times(&plus(sums, of_factor), &rows.factor)
}

/// Rows that are normalised, `(x - mean) factor`, and how exact that is.
struct Rows {
    normalised: DispatchTensor,
    factor: DispatchTensor,
    /// Of `normalised`.
    error: DispatchTensor,
    /// Of `factor`, relative to it.
    relative: DispatchTensor,
}

impl Rows {
    fn new(x: &DispatchTensor, epsilon: f64) -> Self {
        let last = x.shape().num_dims() - 1;
        let n = x.shape()[last] as f64;
        let centred = D::float_sub(x.clone(), D::float_mean_dim(x.clone(), last));
        let variance = row_mean(times(&centred, &centred));
        let root = D::float_sqrt(D::float_add_scalar(variance, number(epsilon)));
        let factor = D::float_recip(root);
        let normalised = times(&centred, &factor);
        // What the mean is off by moves every element, and with it the deviation.
        let of_mean = scale(&row_mean(abs(x)), (n + 2.0) * ULP);
        let moved = times(&of_mean, &factor);
        let relative = D::float_add_scalar(moved.clone(), number((n + 8.0) * ULP));
        let own = times(&abs(&normalised), &relative);
        let shift = plus(moved, times(&scale(&abs(x), ULP), &factor));
        Self { error: plus(own, shift), normalised, factor, relative }
    }
}

fn abs(x: &DispatchTensor) -> DispatchTensor {
    D::float_abs(x.clone())
}

fn plus(x: DispatchTensor, y: DispatchTensor) -> DispatchTensor {
    D::float_add(x, y)
}

fn times(x: &DispatchTensor, y: &DispatchTensor) -> DispatchTensor {
    D::float_mul(x.clone(), y.clone())
}

fn scale(x: &DispatchTensor, by: f64) -> DispatchTensor {
    D::float_mul_scalar(x.clone(), number(by))
}

/// So many ulp, in a shape that is repeated along `x`.
fn ulps(x: &DispatchTensor, count: f64) -> DispatchTensor {
    let zeros = scale(&row_sum(abs(x)), 0.0);
    D::float_add_scalar(zeros, number(count * ULP))
}

fn row_sum(x: DispatchTensor) -> DispatchTensor {
    let last = x.shape().num_dims() - 1;
    D::float_sum_dim(x, last)
}

fn row_mean(x: DispatchTensor) -> DispatchTensor {
    let last = x.shape().num_dims() - 1;
    D::float_mean_dim(x, last)
}

/// The magnitudes of one number for every column, in as many dimensions as `x`.
fn along(row: &DispatchTensor, x: &DispatchTensor) -> DispatchTensor {
    let mut dims = vec![1; x.shape().num_dims()];
    *dims.last_mut().expect("rows have elements") = row.shape().num_elements();
    D::float_reshape(abs(row), BurnShape::from(dims))
}
