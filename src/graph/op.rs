//! The ops, in groups that are handled alike. A group's file has its ops, their text, and the rule
//! for the shape and the element type of their output; every op has one gradient rule
//! (`differentiate`) and one implementation per engine.

mod elementwise;
mod indexing;
mod join;
mod leaf;
mod movement;
mod reduction;
mod row_wise;
mod rule;
mod windowed;

pub use elementwise::{
    Activation, Binary, Bitwise, Comparison, Distribution, Elementwise, Logical, Scalar, Unary,
};
pub use indexing::Indexing;
pub use join::Join;
pub use leaf::Leaf;
pub use movement::Movement;
pub use reduction::Reduction;
pub use row_wise::RowWise;
pub use windowed::Windowed;

use std::fmt;

use super::{DType, Node, Shape};
use crate::error::{Error, Result};

/// What a node computes. Names the operands `x`, `y` and so on in the order of the node's inputs;
/// `g` is the gradient of the loss with respect to the output of the op in the name.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// What is there before anything is computed.
    Leaf(Leaf),
    /// A function of one element of every operand.
    Elementwise(Elementwise),
    /// The same elements elsewhere.
    Movement(Movement),
    /// Product of the last two dimensions, batched over equal (or size 1) leading ones.
    Matmul,
    /// Sums, products, extremes and order along axes.
    Reduction(Reduction),
    /// Tensors one after another.
    Join(Join),
    /// Elements at positions that are computed.
    Indexing(Indexing),
    /// A function of one row, along the last axis.
    RowWise(RowWise),
    /// A function of the windows of images.
    Windowed(Windowed),
}

impl Op {
    /// Whether the op only describes elements that already exist.
    pub fn is_movement(&self) -> bool {
        matches!(self, Op::Movement(_))
    }

    /// Whether the op multiplies matrices, or is a lookup, which is the product with a one-hot one.
    pub fn is_product(&self) -> bool {
        match self {
            Op::Matmul | Op::Indexing(Indexing::Embedding) => true,
            Op::Windowed(op) => op.is_convolution(),
            _ => false,
        }
    }

    /// Whether the op has no operands.
    pub fn is_leaf(&self) -> bool {
        matches!(self, Op::Leaf(_))
    }

    /// The parameter that the op is, if it is one.
    pub fn parameter(&self) -> Option<super::ParameterId> {
        match self {
            Op::Leaf(Leaf::Parameter(id)) => Some(*id),
            _ => None,
        }
    }

    /// How many operands the op takes.
    pub fn operand_counts(&self) -> std::ops::RangeInclusive<usize> {
        let count = match self {
            Op::Leaf(_) => 0,
            Op::Elementwise(op) => op.operands(),
            Op::Movement(_) | Op::Reduction(_) => 1,
            Op::Matmul | Op::Indexing(_) => 2,
            Op::Join(op) => return op.operand_counts(),
            Op::RowWise(op) => return op.operand_counts(),
            Op::Windowed(op) => op.operands(),
        };
        count..=count
    }

    /// Output shape and element type on `operands`.
    ///
    /// # Errors
    ///
    /// Names the op, what it expected and the operands it got.
    pub(super) fn output(&self, operands: &[&Node]) -> Result<(Shape, DType)> {
        let counts = self.operand_counts();
        let output = if counts.contains(&operands.len()) {
            self.rule(operands)
        } else {
            Err(format!("{} to {} operands", counts.start(), counts.end()))
        };
        output.map_err(|expected| {
            let got = operands.iter().map(|x| format!("{}{}", x.dtype, x.shape));
            let got: Vec<String> = got.collect();
            Error::model(format!("expected {expected}, got ({})", got.join(", ")))
                .in_op(self.to_string())
        })
    }

    /// [`Self::output`] on as many operands as the op takes, or what it expects of them.
    fn rule(&self, operands: &[&Node]) -> rule::Output {
        match self {
            Op::Leaf(_) => Err("a leaf to carry its type".into()),
            Op::Elementwise(op) => op.output(operands),
            Op::Movement(op) => op.output(operands[0]),
            Op::Matmul => rule::matmul(operands[0], operands[1]),
            Op::Reduction(op) => op.output(operands[0]),
            Op::Join(op) => op.output(operands),
            Op::Indexing(op) => op.output(operands[0], operands[1]),
            Op::RowWise(op) => op.output(operands),
            Op::Windowed(op) => op.output(operands),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Leaf(op) => op.fmt(f),
            Op::Elementwise(op) => op.fmt(f),
            Op::Movement(op) => op.fmt(f),
            Op::Matmul => f.write_str("matmul"),
            Op::Reduction(op) => op.fmt(f),
            Op::Join(op) => op.fmt(f),
            Op::Indexing(op) => op.fmt(f),
            Op::RowWise(op) => op.fmt(f),
            Op::Windowed(op) => op.fmt(f),
        }
    }
}

macro_rules! groups {
    ($($group:ident),*) => {$(
        impl From<$group> for Op {
            fn from(op: $group) -> Self {
                Op::$group(op)
            }
        }
    )*};
}

groups!(Leaf, Elementwise, Movement, Reduction, Join, Indexing, RowWise, Windowed);

macro_rules! functions {
    ($($function:ident),*) => {$(
        impl From<$function> for Op {
            fn from(function: $function) -> Self {
                Op::Elementwise(Elementwise::$function(function))
            }
        }
    )*};
}

functions!(Unary, Binary, Bitwise, Logical);
