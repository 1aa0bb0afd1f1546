//! Gradient rules of convolutions and pools.

use super::{Builder, Gradients, one, second_derivative};
use crate::graph::{Convolution, NodeId, Windowed};

pub(super) fn gradients(
    b: &mut Builder,
    op: Windowed,
    o: NodeId,
    g: NodeId,
    wanted: &[bool],
) -> Gradients {
    let x = b.graph[o].inputs[0];
    match op {
        Windowed::Conv2d(of) => conv2d(b, of, o, g, wanted),
        Windowed::Conv2dInputGradient { convolution: of, .. } => {
            transposed_conv2d(b, of, o, g, wanted)
        }
        // Every window gives its gradient back to the elements that it was made of.
        Windowed::MaxPool2d(pool) => one(b.push(Windowed::MaxPool2dGradient(pool), &[x, g])),
        Windowed::AvgPool2d { pool, count_padding } => {
            let size = last_two(b, x);
            one(b.push(Windowed::AvgPool2dGradient { pool, count_padding, size }, &[g]))
        }
        Windowed::Conv2dWeightGradient { .. } => Err(second_derivative(b, o)),
        Windowed::MaxPool2dGradient(_) | Windowed::AvgPool2dGradient { .. } => {
            Err(second_derivative(b, o))
        }
    }
}

/// Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep learning", chapter 4: the
/// gradient of the images is a transposed convolution, that of the weight correlates them with `g`.
fn conv2d(
    b: &mut Builder,
    convolution: Convolution,
    o: NodeId,
    g: NodeId,
    wanted: &[bool],
) -> Gradients {
    let (x, weight) = (b.graph[o].inputs[0], b.graph[o].inputs[1]);
    let mut gradients = vec![None, None];
    if wanted[0] {
        let op = Windowed::Conv2dInputGradient { convolution, size: last_two(b, x) };
        gradients[0] = Some(b.push(op, &[weight, g])?);
    }
    if wanted[1] {
        let op = Windowed::Conv2dWeightGradient { convolution, kernel: last_two(b, weight) };
        gradients[1] = Some(b.push(op, &[x, g])?);
    }
    Ok(gradients)
}

/// The transposed convolution is linear in both its operands, and its adjoint is the convolution:
/// `g` takes the part of the images.
fn transposed_conv2d(
    b: &mut Builder,
    convolution: Convolution,
    o: NodeId,
    g: NodeId,
    wanted: &[bool],
) -> Gradients {
    let (weight, y) = (b.graph[o].inputs[0], b.graph[o].inputs[1]);
    let mut gradients = vec![None, None];
    if wanted[0] {
        let op = Windowed::Conv2dWeightGradient { convolution, kernel: last_two(b, weight) };
        gradients[0] = Some(b.push(op, &[g, y])?);
    }
    if wanted[1] {
        gradients[1] = Some(b.push(Windowed::Conv2d(convolution), &[g, weight])?);
    }
    Ok(gradients)
}

/// Height and width.
fn last_two(b: &Builder, x: NodeId) -> [usize; 2] {
    let dims = b.shape(x).0;
    [dims[dims.len() - 2], dims[dims.len() - 1]]
}
