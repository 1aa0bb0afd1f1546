//! The same elements elsewhere.

use std::fmt;

use super::rule::{Output, within};
use crate::graph::{Node, Shape};

/// Describes elements of `x` that exist already.
#[derive(Debug, Clone, PartialEq)]
pub enum Movement {
    /// The same elements, in order, in another shape.
    Reshape(Shape),
    /// Dimension `i` of the output is dimension `axes[i]` of `x`.
    Permute(Vec<usize>),
    /// Dimensions of size 1 repeated to the shape.
    Expand(Shape),
    /// Elements `start..end` of the axis.
    Slice {
        /// The sliced dimension.
        axis: usize,
        /// First index.
        start: usize,
        /// Index after the last.
        end: usize,
    },
    /// `x`, through which no gradient flows.
    Detach,
}

impl Movement {
    pub(super) fn output(&self, x: &Node) -> Output {
        let shape = match self {
            Movement::Reshape(shape) if shape.elements() == x.shape.elements() => shape.clone(),
            Movement::Reshape(shape) => return Err(format!("{} elements", shape.elements())),
            Movement::Permute(axes) => {
                let mut sorted = axes.clone();
                sorted.sort_unstable();
                if sorted != (0..x.shape.rank()).collect::<Vec<_>>() {
                    return Err(format!("rank {}", axes.len()));
                }
                Shape(axes.iter().map(|&axis| x.shape.0[axis]).collect())
            }
            Movement::Expand(shape) => {
                let fits = shape.rank() == x.shape.rank()
                    && shape.0.iter().zip(&x.shape.0).all(|(to, from)| to == from || *from == 1);
                if !fits {
                    return Err(format!("a shape that expands to {shape}"));
                }
                shape.clone()
            }
            &Movement::Slice { axis, start, end } => {
                within(axis, &x.shape)?;
                let mut dims = x.shape.0.clone();
                if start >= end || end > dims[axis] {
                    return Err(format!("axis {axis} to hold {start}..{end}"));
                }
                dims[axis] = end - start;
                Shape(dims)
            }
            Movement::Detach => x.shape.clone(),
        };
        Ok((shape, x.dtype))
    }
}

impl fmt::Display for Movement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Movement::Reshape(shape) => write!(f, "reshape {shape}"),
            Movement::Permute(axes) => write!(f, "permute {axes:?}"),
            Movement::Expand(shape) => write!(f, "expand {shape}"),
            Movement::Detach => f.write_str("detach"),
            Movement::Slice { axis, start, end } => write!(f, "slice {axis} {start}..{end}"),
        }
    }
}
