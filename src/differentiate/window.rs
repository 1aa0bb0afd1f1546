//! Gradient rules of convolutions and pools.

use super::{Builder, Result};
use crate::graph::{NodeId, Op};

/// Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep learning", chapter 4: the
/// gradient of the images is a transposed convolution, that of the weight correlates them with `g`.
pub(super) fn conv2d(
    b: &mut Builder,
    o: NodeId,
    g: NodeId,
    wanted: &[bool],
) -> Result<Vec<Option<NodeId>>> {
    let node = b.graph[o].clone();
    let Op::Conv2d(convolution) = node.op else { unreachable!("{} is no convolution", node.op) };
    let (x, weight) = (node.inputs[0], node.inputs[1]);
    let mut gradients = vec![None, None];
    if wanted[0] {
        let op = Op::Conv2dInputGradient { convolution, size: last_two(b, x) };
        gradients[0] = Some(b.push(op, &[weight, g])?);
    }
    if wanted[1] {
        let op = Op::Conv2dWeightGradient { convolution, kernel: last_two(b, weight) };
        gradients[1] = Some(b.push(op, &[x, g])?);
    }
    Ok(gradients)
}

/// The transposed convolution is linear in both its operands, and its adjoint is the convolution:
/// `g` takes the part of the images.
pub(super) fn transposed_conv2d(
    b: &mut Builder,
    o: NodeId,
    g: NodeId,
    wanted: &[bool],
) -> Result<Vec<Option<NodeId>>> {
    let node = b.graph[o].clone();
    let Op::Conv2dInputGradient { convolution, .. } = node.op else {
        unreachable!("{} is no transposed convolution", node.op)
    };
    let (weight, y) = (node.inputs[0], node.inputs[1]);
    let mut gradients = vec![None, None];
    if wanted[0] {
        let op = Op::Conv2dWeightGradient { convolution, kernel: last_two(b, weight) };
        gradients[0] = Some(b.push(op, &[g, y])?);
    }
    if wanted[1] {
        gradients[1] = Some(b.push(Op::Conv2d(convolution), &[g, weight])?);
    }
    Ok(gradients)
}

/// Every window gives its gradient back to the elements that it was made of.
pub(super) fn pool(b: &mut Builder, o: NodeId, g: NodeId) -> Result<NodeId> {
    let node = b.graph[o].clone();
    let x = node.inputs[0];
    match node.op {
        Op::MaxPool2d(pool) => b.push(Op::MaxPool2dGradient(pool), &[x, g]),
        Op::AvgPool2d { pool, count_padding } => {
            let size = last_two(b, x);
            b.push(Op::AvgPool2dGradient { pool, count_padding, size }, &[g])
        }
        op => unreachable!("{op} is no pool"),
    }
}

/// Height and width.
fn last_two(b: &Builder, x: NodeId) -> [usize; 2] {
    let dims = b.shape(x).0;
    [dims[dims.len() - 2], dims[dims.len() - 1]]
}
