//! Gradient rules of products, moves and normalisation.

use super::{Builder, Result};
use crate::graph::{NodeId, Op, Shape};

/// `X Y` has gradients `G Y^T` and `X^T G`, summed over repeated batch dimensions.
pub(super) fn matmul(
    b: &mut Builder,
    o: NodeId,
    g: NodeId,
    wanted: &[bool],
) -> Result<Vec<Option<NodeId>>> {
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
    b.push(Op::Permute(axes), &[x])
}

/// The inverse move of the gradient.
pub(super) fn movement(b: &mut Builder, o: NodeId, g: NodeId) -> Result<NodeId> {
    let node = b.graph[o].clone();
    let of = b.shape(node.inputs[0]);
    match node.op {
        Op::Reshape(_) => b.reshape(g, of),
        Op::Permute(axes) => {
            let mut inverse = vec![0; axes.len()];
            for (to, from) in axes.into_iter().enumerate() {
                inverse[from] = to;
            }
            b.push(Op::Permute(inverse), &[g])
        }
        Op::Expand(_) => b.sum_to(g, &of),
        Op::Slice { axis, start, end } => {
            b.push(Op::Pad { axis, before: start, after: of.0[axis] - end }, &[g])
        }
        Op::Pad { axis, before, .. } => {
            b.push(Op::Slice { axis, start: before, end: before + of.0[axis] }, &[g])
        }
        op => unreachable!("{op} does not only move elements"),
    }
}

/// Every input gets its slice of the gradient.
pub(super) fn concatenate(
    b: &mut Builder,
    axis: usize,
    o: NodeId,
    g: NodeId,
) -> Result<Vec<Option<NodeId>>> {
    let mut start = 0;
    let mut gradients = Vec::new();
    for input in b.graph[o].inputs.clone() {
        let end = start + b.shape(input).0[axis];
        gradients.push(Some(b.push(Op::Slice { axis, start, end }, &[g])?));
        start = end;
    }
    Ok(gradients)
}

/// Ba et al. 2016, "Layer Normalization", section 3; the statistics are computed again from `x`.
pub(super) fn layer_norm(
    b: &mut Builder,
    epsilon: f64,
    o: NodeId,
    g: NodeId,
    wanted: &[bool],
) -> Result<Vec<Option<NodeId>>> {
    let inputs = b.graph[o].inputs.clone();
    let (x, gamma) = (inputs[0], inputs[1]);
    let mut gradients = vec![None; inputs.len()];
    if wanted[0] {
        gradients[0] = Some(b.push(Op::LayerNormGradient(epsilon), &[x, gamma, g])?);
    }
    if wanted[1] {
        gradients[1] = Some(b.push(Op::LayerNormGradientGamma(epsilon), &[x, g])?);
    }
    if wanted.get(2) == Some(&true) {
        let shape = b.shape(g);
        let width = shape.0[shape.rank() - 1];
        let axes = (0..shape.rank() - 1).collect();
        let sum = b.push(Op::Sum(axes), &[g])?;
        gradients[2] = Some(b.reshape(sum, Shape(vec![width]))?);
    }
    Ok(gradients)
}
