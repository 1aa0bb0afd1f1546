//! Sums and extremes along axes.

use std::fmt;

use super::rule::{Output, require, within};
use crate::graph::{DType, Node, Shape};

/// Computes every element of the output from the elements of `x` along axes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reduction {
    /// Sum over the axes, which stay with size 1.
    Sum(Vec<usize>),
    /// Sum of every element along the axis and those before it, or those after it.
    CumulativeSum {
        /// The dimension that is summed.
        axis: usize,
        /// Whether the sums start at the end of the axis.
        reverse: bool,
    },
    /// Index of the largest element along the axis, which stays with size 1.
    ArgMax(usize),
    /// Index of the smallest element along the axis, which stays with size 1.
    ArgMin(usize),
}

impl Reduction {
    pub(super) fn output(&self, x: &Node) -> Output {
        require(x, DType::F32)?;
        match self {
            Reduction::Sum(axes) => {
                let mut dims = x.shape.0.clone();
                for &axis in axes {
                    *dims.get_mut(axis).ok_or("axes of the operand")? = 1;
                }
                Ok((Shape(dims), DType::F32))
            }
            Reduction::CumulativeSum { axis, .. } => {
                within(*axis, &x.shape)?;
                Ok((x.shape.clone(), DType::F32))
            }
            Reduction::ArgMax(axis) | Reduction::ArgMin(axis) => {
                within(*axis, &x.shape)?;
                Ok((x.shape.reduced(*axis), DType::Int))
            }
        }
    }
}

impl fmt::Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reduction::Sum(axes) => write!(f, "sum {axes:?}"),
            Reduction::CumulativeSum { axis, reverse } => {
                write!(f, "cumulative_sum {axis}{}", if *reverse { " reverse" } else { "" })
            }
            Reduction::ArgMax(axis) => write!(f, "argmax {axis}"),
            Reduction::ArgMin(axis) => write!(f, "argmin {axis}"),
        }
    }
}
