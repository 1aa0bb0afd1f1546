//! Gradient rules of products and extremes along an axis.

use super::{Builder, Result};
use crate::graph::{
    Binary, Comparison, Constant, DType, Elementwise, Indexing, Logical, Movement, NodeId,
    Reduction, Shape, Values,
};

/// With `S` the sums from every position to the end of the axis: before the first zero
/// `S(g o) / x`, at it `S(g p)`, where `p` are the products with 1 for that zero, and behind it
/// nothing.
pub(super) fn product(b: &mut Builder, axis: usize, o: NodeId, g: NodeId) -> Result<NodeId> {
    let x = b.graph[o].inputs[0];
    let zero = b.push(Elementwise::CompareScalar(Comparison::Equal, 0.0), &[x])?;
    let ones = b.push(Elementwise::Cast(DType::F32), &[zero])?;
    let zeros = b.push(Reduction::CumulativeSum { axis, reverse: false }, &[ones])?;
    let below = |number| Elementwise::CompareScalar(Comparison::Less, number);
    let before = b.push(below(0.5), &[zeros])?;
    let at_most_one = b.push(below(1.5), &[zeros])?;
    let first = b.push(Logical::And, &[zero, at_most_one])?;

    let divisor = b.push(Elementwise::Fill(1.0), &[zero, x])?;
    let sums = sums_to_end(b, axis, o, g)?;
    let ordinary = b.binary(Binary::Divide, sums, divisor)?;

    let without = b.push(Elementwise::Fill(1.0), &[first, x])?;
    let products = b.push(Reduction::CumulativeProduct(axis), &[without])?;
    let sums = sums_to_end(b, axis, products, g)?;
    let elsewhere = b.push(Elementwise::Not, &[first])?;
    let at_first = b.push(Elementwise::Fill(0.0), &[elsewhere, sums])?;
    b.push(Elementwise::Where, &[before, ordinary, at_first])
}

/// The sums of `g products` from every position to the end of the axis.
fn sums_to_end(b: &mut Builder, axis: usize, products: NodeId, g: NodeId) -> Result<NodeId> {
    let terms = b.binary(Binary::Multiply, g, products)?;
    b.push(Reduction::CumulativeSum { axis, reverse: true }, &[terms])
}

/// The gradient of an output goes to the last element so far that is the extreme.
pub(super) fn extreme(b: &mut Builder, axis: usize, o: NodeId, g: NodeId) -> Result<NodeId> {
    let x = b.graph[o].inputs[0];
    let shape = b.shape(x);
    let size = shape.0[axis];
    let mut dims = vec![1; shape.rank()];
    dims[axis] = size;
    let positions = Values::Int((0..size as i64).collect());
    let positions = b.constant(Constant { shape: Shape(dims), values: positions });
    let positions = b.push(Movement::Expand(shape), &[positions])?;
    let other = b.push(Elementwise::Compare(Comparison::NotEqual), &[o, x])?;
    let position = b.push(Elementwise::Fill(0.0), &[other, positions])?;
    let last = b.push(Reduction::CumulativeMax(axis), &[position])?;
    b.push(Indexing::ScatterAdd { axis, size }, &[last, g])
}
