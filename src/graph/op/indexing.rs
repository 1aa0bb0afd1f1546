//! Elements at positions that are computed.

use std::fmt;

use super::rule::{Output, require, within};
use crate::graph::{DType, Node, Shape};

/// Reads or adds elements at the positions that a tensor of integers names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indexing {
    /// `out[i][j][k] = x[i][y[i][j][k]][k]` for axis 1 of 3.
    Gather(usize),
    /// Zeros of `size` along the axis, to which `out[i][x[i][j][k]][k] += y[i][j][k]`.
    ScatterAdd {
        /// The indexed dimension.
        axis: usize,
        /// Size of that dimension in the output.
        size: usize,
    },
    /// Rows of the table `x: [n, d]` for indices `y: [...]`, giving `[..., d]`.
    Embedding,
    /// Gradient of [`Indexing::Embedding`] for its table of `rows` rows, from indices `x` and `g`.
    EmbeddingGradient {
        /// Rows of the table.
        rows: usize,
    },
}

impl Indexing {
    pub(super) fn output(&self, x: &Node, y: &Node) -> Output {
        match *self {
            Indexing::Gather(axis) => {
                require(y, DType::Int)?;
                within(axis, &x.shape)?;
                if y.shape.rank() != x.shape.rank()
                    || y.shape.reduced(axis) != x.shape.reduced(axis)
                {
                    return Err(format!("indices that differ from the tensor in axis {axis} only"));
                }
                Ok((y.shape.clone(), x.dtype))
            }
            Indexing::ScatterAdd { axis, size } => {
                require(x, DType::Int)?;
                require(y, DType::F32)?;
                within(axis, &y.shape)?;
                if x.shape != y.shape {
                    return Err("one index for every value".into());
                }
                let mut dims = y.shape.0.clone();
                dims[axis] = size;
                Ok((Shape(dims), DType::F32))
            }
            Indexing::Embedding => {
                require(x, DType::F32)?;
                require(y, DType::Int)?;
                if x.shape.rank() != 2 {
                    return Err("a table [rows, width]".into());
                }
                let mut dims = y.shape.0.clone();
                dims.push(x.shape.0[1]);
                Ok((Shape(dims), DType::F32))
            }
            Indexing::EmbeddingGradient { rows } => {
                require(x, DType::Int)?;
                require(y, DType::F32)?;
                match y.shape.0.split_last() {
                    Some((&width, leading)) if leading == x.shape.0 => {
                        Ok((Shape(vec![rows, width]), DType::F32))
                    }
                    _ => Err("one row of gradient for every index".into()),
                }
            }
        }
    }
}

impl fmt::Display for Indexing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Indexing::Gather(axis) => write!(f, "gather {axis}"),
            Indexing::ScatterAdd { axis, size } => write!(f, "scatter_add {axis} {size}"),
            Indexing::Embedding => f.write_str("embedding"),
            Indexing::EmbeddingGradient { rows } => write!(f, "embedding_gradient {rows}"),
        }
    }
}
