//! Gradient rules of products, moves and normalisation.

use super::{Builder, Gradients, Result, cumulative, one, second_derivative};
use crate::graph::{Indexing, Join, Movement, NodeId, Op, Reduction, RowWise, Shape};

/// `X Y` has gradients `G Y^T` and `X^T G`, summed over repeated batch dimensions.
pub(super) fn matmul(b: &mut Builder, o: NodeId, g: NodeId, wanted: &[bool]) -> Gradients {
    let (x, y) = (b.graph[o].inputs[0], b.graph[o].inputs[1]);
    let mut gradients = vec![None, None];
    if wanted[0] {
        let transposed = transpose(b, y)?;
        let full = b.push(Op::Matmul, &[g, transposed])?;
        gradients[0] = Some(b.sum_to(full, &b.shape(x))?);
    }
    if wanted[1] {
        let transposed = transpose(b, x)?;
        let full = b.push(Op::Matmul, &[transposed, g])?;
        gradients[1] = Some(b.sum_to(full, &b.shape(y))?);
    }
    Ok(gradients)
}

fn transpose(b: &mut Builder, x: NodeId) -> Result<NodeId> {
    let rank = b.shape(x).rank();
    let mut axes: Vec<usize> = (0..rank).collect();
    axes.swap(rank - 2, rank - 1);
    b.push(Movement::Permute(axes), &[x])
}

/// The inverse move of the gradient, if it goes on.
pub(super) fn movement(b: &mut Builder, op: &Movement, o: NodeId, g: NodeId) -> Gradients {
    let of = b.shape(b.graph[o].inputs[0]);
    one(match op {
        Movement::Reshape(_) => b.reshape(g, of),
        Movement::Permute(axes) => {
            let mut inverse = vec![0; axes.len()];
            for (to, &from) in axes.iter().enumerate() {
                inverse[from] = to;
            }
            b.push(Movement::Permute(inverse), &[g])
        }
        Movement::Expand(_) => b.sum_to(g, &of),
        &Movement::Slice { axis, start, end } => {
            b.push(Join::Pad { axis, before: start, after: of.0[axis] - end }, &[g])
        }
        Movement::Detach => return Ok(vec![None]),
    })
}

/// Every element gets the gradients of the sums that it is in; a position has none.
pub(super) fn reduction(b: &mut Builder, op: &Reduction, o: NodeId, g: NodeId) -> Gradients {
    let of = b.shape(b.graph[o].inputs[0]);
    match op {
        Reduction::Sum(_) => one(b.push(Movement::Expand(of), &[g])),
        &Reduction::CumulativeSum { axis, reverse } => {
            one(b.push(Reduction::CumulativeSum { axis, reverse: !reverse }, &[g]))
        }
        &Reduction::CumulativeProduct(axis) => one(cumulative::product(b, axis, o, g)),
        &Reduction::CumulativeMax(axis) | &Reduction::CumulativeMin(axis) => {
            one(cumulative::extreme(b, axis, o, g))
        }
        Reduction::ArgMax(_) | Reduction::ArgMin(_) | Reduction::ArgSort { .. } => Ok(vec![None]),
    }
}

/// Every input gets its slice of the gradient.
pub(super) fn join(b: &mut Builder, op: Join, o: NodeId, g: NodeId) -> Gradients {
    let (axis, mut start) = match op {
        Join::Pad { axis, before, .. } => (axis, before),
        Join::Concatenate(axis) => (axis, 0),
    };
    let mut gradients = Vec::new();
    for input in b.graph[o].inputs.clone() {
        let end = start + b.shape(input).0[axis];
        gradients.push(Some(b.push(Movement::Slice { axis, start, end }, &[g])?));
        start = end;
    }
    Ok(gradients)
}

/// What was read is added to where it was read from, and the other way round.
pub(super) fn indexing(b: &mut Builder, op: Indexing, o: NodeId, g: NodeId) -> Gradients {
    let (x, y) = (b.graph[o].inputs[0], b.graph[o].inputs[1]);
    match op {
        Indexing::Gather(axis) => {
            let size = b.shape(x).0[axis];
            Ok(vec![Some(b.push(Indexing::ScatterAdd { axis, size }, &[y, g])?), None])
        }
        Indexing::ScatterAdd { axis, .. } => {
            Ok(vec![None, Some(b.push(Indexing::Gather(axis), &[g, x])?)])
        }
        Indexing::Embedding => {
            let rows = b.shape(x).0[0];
            Ok(vec![Some(b.push(Indexing::EmbeddingGradient { rows }, &[y, g])?), None])
        }
        Indexing::EmbeddingGradient { .. } => Err(second_derivative(b, o)),
    }
}

/// Softmax from its output, layer norm from its operands.
pub(super) fn row_wise(
    b: &mut Builder,
    op: RowWise,
    o: NodeId,
    g: NodeId,
    wanted: &[bool],
) -> Gradients {
    match op {
        RowWise::Softmax => one(b.push(RowWise::SoftmaxGradient, &[o, g])),
        RowWise::LogSoftmax => one(b.push(RowWise::LogSoftmaxGradient, &[o, g])),
        RowWise::LayerNorm(epsilon) => layer_norm(b, epsilon, o, g, wanted),
        RowWise::SoftmaxGradient | RowWise::LogSoftmaxGradient => Err(second_derivative(b, o)),
        RowWise::LayerNormGradient(_) | RowWise::LayerNormGradientGamma(_) => {
            Err(second_derivative(b, o))
        }
    }
}

/// Ba et al. 2016, "Layer Normalization", section 3; the statistics are computed again from `x`.
fn layer_norm(b: &mut Builder, epsilon: f64, o: NodeId, g: NodeId, wanted: &[bool]) -> Gradients {
    let inputs = b.graph[o].inputs.clone();
    let (x, gamma) = (inputs[0], inputs[1]);
    let mut gradients = vec![None; inputs.len()];
    if wanted[0] {
        gradients[0] = Some(b.push(RowWise::LayerNormGradient(epsilon), &[x, gamma, g])?);
    }
    if wanted[1] {
        gradients[1] = Some(b.push(RowWise::LayerNormGradientGamma(epsilon), &[x, g])?);
    }
    if wanted.get(2) == Some(&true) {
        let shape = b.shape(g);
        let width = shape.0[shape.rank() - 1];
        let axes = (0..shape.rank() - 1).collect();
        let sum = b.push(Reduction::Sum(axes), &[g])?;
        gradients[2] = Some(b.reshape(sum, Shape(vec![width]))?);
    }
    Ok(gradients)
}
