//! Functions of one row.

use std::fmt;
use std::ops::RangeInclusive;

use super::rule::{Output, require, same_floats};
use crate::graph::{DType, Node, Shape};

/// Computes along the last axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RowWise {
    /// `exp(x) / sum(exp(x))`.
    Softmax,
    /// Gradient of [`RowWise::Softmax`] from its output `y` and `g`.
    SoftmaxGradient,
    /// `x - log(sum(exp(x)))`.
    LogSoftmax,
    /// Gradient of [`RowWise::LogSoftmax`] from its output `y` and `g`.
    LogSoftmaxGradient,
    /// `(x - mean) / sqrt(variance + epsilon) * gamma (+ beta)`.
    LayerNorm(f64),
    /// Gradient of [`RowWise::LayerNorm`] for `x`, from `x`, `gamma` and `g`.
    LayerNormGradient(f64),
    /// Gradient of [`RowWise::LayerNorm`] for `gamma`, from `x` and `g`.
    LayerNormGradientGamma(f64),
}

impl RowWise {
    pub(super) fn operand_counts(&self) -> RangeInclusive<usize> {
        match self {
            RowWise::Softmax | RowWise::LogSoftmax => 1..=1,
            RowWise::SoftmaxGradient | RowWise::LogSoftmaxGradient => 2..=2,
            RowWise::LayerNorm(_) => 2..=3,
            RowWise::LayerNormGradient(_) => 3..=3,
            RowWise::LayerNormGradientGamma(_) => 2..=2,
        }
    }

    pub(super) fn output(&self, operands: &[&Node]) -> Output {
        let (scales, gradient) = match self {
            RowWise::Softmax | RowWise::LogSoftmax => return same_floats(operands),
            RowWise::SoftmaxGradient | RowWise::LogSoftmaxGradient => return same_floats(operands),
            RowWise::LayerNorm(_) => (&operands[1..], None),
            RowWise::LayerNormGradient(_) => (&operands[1..2], Some(operands[2])),
            RowWise::LayerNormGradientGamma(_) => (&operands[..0], Some(operands[1])),
        };
        let x = operands[0];
        let width = *x.shape.0.last().ok_or("rank 1 or more")?;
        for operand in operands {
            require(operand, DType::F32)?;
        }
        if scales.iter().any(|scale| scale.shape.0 != [width]) {
            return Err(format!("gamma and beta of shape [{width}]"));
        }
        if gradient.is_some_and(|gradient| gradient.shape != x.shape) {
            return Err("a gradient of the operand's shape".into());
        }
        match self {
            RowWise::LayerNormGradientGamma(_) => Ok((Shape(vec![width]), DType::F32)),
            _ => Ok((x.shape.clone(), DType::F32)),
        }
    }
}

impl fmt::Display for RowWise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowWise::Softmax => f.write_str("softmax"),
            RowWise::SoftmaxGradient => f.write_str("softmax_gradient"),
            RowWise::LogSoftmax => f.write_str("log_softmax"),
            RowWise::LogSoftmaxGradient => f.write_str("log_softmax_gradient"),
            RowWise::LayerNorm(epsilon) => write!(f, "layer_norm {epsilon:?}"),
            RowWise::LayerNormGradient(epsilon) => write!(f, "layer_norm_gradient {epsilon:?}"),
            RowWise::LayerNormGradientGamma(epsilon) => {
                write!(f, "layer_norm_gradient_gamma {epsilon:?}")
            }
        }
    }
}
