//! Sums, products, extremes and order along axes.

use std::fmt;

use super::rule::{Output, within};
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
    /// Product of every element along the axis and those before it.
    CumulativeProduct(usize),
    /// The largest of every element along the axis and those before it.
    CumulativeMax(usize),
    /// The smallest of every element along the axis and those before it.
    CumulativeMin(usize),
    /// Index of the largest element along the axis, which stays with size 1.
    ArgMax(usize),
    /// Index of the smallest element along the axis, which stays with size 1.
    ArgMin(usize),
    /// Indices of the elements along the axis in order. NaN is the largest. Of equal elements the
    /// first comes first, but for CPU devices on a long axis: there they come as Burn's sort has
    /// them, so that gradients go to the same elements.
    ArgSort {
        /// The dimension that is sorted.
        axis: usize,
        /// Whether the largest element comes first.
        descending: bool,
    },
}

impl Reduction {
    pub(super) fn output(&self, x: &Node) -> Output {
        if x.dtype == DType::Bool {
            return Err("numbers".into());
        }
        match self {
            Reduction::Sum(axes) => {
                let mut dims = x.shape.0.clone();
                for &axis in axes {
                    *dims.get_mut(axis).ok_or("axes of the operand")? = 1;
                }
                Ok((Shape(dims), x.dtype))
            }
            Reduction::CumulativeSum { axis, .. }
            | Reduction::CumulativeProduct(axis)
            | Reduction::CumulativeMax(axis)
            | Reduction::CumulativeMin(axis) => {
                within(*axis, &x.shape)?;
                Ok((x.shape.clone(), x.dtype))
            }
            Reduction::ArgSort { axis, .. } => {
                within(*axis, &x.shape)?;
                Ok((x.shape.clone(), DType::Int))
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
            Reduction::CumulativeProduct(axis) => write!(f, "cumulative_product {axis}"),
            Reduction::CumulativeMax(axis) => write!(f, "cumulative_max {axis}"),
            Reduction::CumulativeMin(axis) => write!(f, "cumulative_min {axis}"),
            Reduction::ArgSort { axis, descending } => {
                write!(f, "argsort {axis}{}", if *descending { " descending" } else { "" })
            }
            Reduction::ArgMax(axis) => write!(f, "argmax {axis}"),
            Reduction::ArgMin(axis) => write!(f, "argmin {axis}"),
        }
    }
}
