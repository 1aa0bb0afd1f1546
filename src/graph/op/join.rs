//! Tensors one after another.

use std::fmt;
use std::ops::RangeInclusive;

use super::rule::{Output, require, within};
use crate::graph::{Node, Shape};

/// Puts tensors one after another along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// Zeros put before and after `x` along the axis.
    Pad {
        /// The padded dimension.
        axis: usize,
        /// Number of zeros before.
        before: usize,
        /// Number of zeros after.
        after: usize,
    },
    /// The inputs one after another along the axis.
    Concatenate(usize),
}

impl Join {
    pub(super) fn operand_counts(&self) -> RangeInclusive<usize> {
        match self {
            Join::Pad { .. } => 1..=1,
            Join::Concatenate(_) => 1..=usize::MAX,
        }
    }

    pub(super) fn output(&self, operands: &[&Node]) -> Output {
        let x = operands[0];
        let mut dims = x.shape.0.clone();
        match *self {
            Join::Pad { axis, before, after } => {
                within(axis, &x.shape)?;
                dims[axis] += before + after;
            }
            Join::Concatenate(axis) => {
                within(axis, &x.shape)?;
                for other in &operands[1..] {
                    require(other, x.dtype)?;
                    if other.shape.rank() != x.shape.rank()
                        || other.shape.reduced(axis) != x.shape.reduced(axis)
                    {
                        return Err(format!("shapes that differ in axis {axis} only"));
                    }
                    dims[axis] += other.shape.0[axis];
                }
            }
        }
        Ok((Shape(dims), x.dtype))
    }
}

impl fmt::Display for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Join::Pad { axis, before, after } => write!(f, "pad {axis} {before} {after}"),
            Join::Concatenate(axis) => write!(f, "concatenate {axis}"),
        }
    }
}
