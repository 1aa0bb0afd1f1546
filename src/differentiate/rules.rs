//! The table of gradient rules: for every op, what its operands' gradients are.

use super::{Builder, elementwise, structural, window};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op, Unary};

/// Gradients of the operands of `id`, given `g`, the gradient of its output. Only those that are
/// `wanted` need to be there.
pub(super) fn gradients(
    b: &mut Builder,
    id: NodeId,
    g: NodeId,
    wanted: &[bool],
) -> Result<Vec<Option<NodeId>>> {
    let node = b.graph[id].clone();
    let x = node.inputs.first().copied();
    let one = |gradient: Result<NodeId>| gradient.map(|gradient| vec![Some(gradient)]);
    match &node.op {
        Op::Unary(unary) => one(elementwise::unary(b, *unary, id, g)),
        Op::Scalar(scalar, value) => one(elementwise::scalar(b, *scalar, *value, id, g)),
        Op::Binary(binary) => elementwise::binary(b, *binary, id, g, wanted),
        Op::Where => elementwise::select(b, id, g, wanted),
        Op::Fill(_) => elementwise::fill(b, id, g),
        Op::Dropout { .. } => one(b.push(node.op.clone(), &[g])),
        Op::Cast(_) => Ok(vec![None]),

        Op::Matmul => structural::matmul(b, id, g, wanted),
        Op::Sum(_) => one(b.push(Op::Expand(b.shape(x.expect("sum has an operand"))), &[g])),
        Op::Reshape(_) | Op::Permute(_) | Op::Expand(_) | Op::Slice { .. } | Op::Pad { .. } => {
            one(structural::movement(b, id, g))
        }
        Op::Concatenate(axis) => structural::concatenate(b, *axis, id, g),
        Op::Gather(axis) => {
            let size = b.shape(node.inputs[0]).0[*axis];
            let scatter = Op::ScatterAdd { axis: *axis, size };
            Ok(vec![Some(b.push(scatter, &[node.inputs[1], g])?), None])
        }
        Op::ScatterAdd { axis, .. } => {
            Ok(vec![None, Some(b.push(Op::Gather(*axis), &[g, node.inputs[0]])?)])
        }
        Op::Embedding => {
            let rows = b.shape(node.inputs[0]).0[0];
            let gradient = b.push(Op::EmbeddingGradient { rows }, &[node.inputs[1], g])?;
            Ok(vec![Some(gradient), None])
        }
        Op::Softmax => one(b.push(Op::SoftmaxGradient, &[id, g])),
        Op::LogSoftmax => one(b.push(Op::LogSoftmaxGradient, &[id, g])),
        Op::LayerNorm(epsilon) => structural::layer_norm(b, *epsilon, id, g, wanted),

        Op::Conv2d(_) => window::conv2d(b, id, g, wanted),
        Op::Conv2dInputGradient { .. } => window::transposed_conv2d(b, id, g, wanted),
        Op::MaxPool2d(_) | Op::AvgPool2d { .. } => one(window::pool(b, id, g)),

        Op::Input(_) | Op::Parameter(_) | Op::Constant(_) => Ok(Vec::new()),
        Op::Compare(_) | Op::CompareScalar(..) | Op::ArgMax(_) | Op::ArgMin(_) => {
            unreachable!("{} is not differentiated through", node.op)
        }
        Op::EmbeddingGradient { .. }
        | Op::SoftmaxGradient
        | Op::LogSoftmaxGradient
        | Op::LayerNormGradient(_)
        | Op::LayerNormGradientGamma(_)
        | Op::Conv2dWeightGradient { .. }
        | Op::MaxPool2dGradient(_)
        | Op::AvgPool2dGradient { .. }
        | Op::UnaryGradient(_) => Err(Error::model("a gradient is not differentiated again")
            .in_op(format!("{id} {}", node.op))
            .hint("train on a loss that takes no gradients itself")),
    }
}

/// Whether the gradient of `unary` is computed from its output instead of its operand.
pub(super) fn from_output(unary: Unary) -> bool {
    matches!(unary, Unary::Tanh | Unary::Sigmoid)
}
