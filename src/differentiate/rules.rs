//! The table of gradient rules: for every op, what its operands' gradients are.

use super::{Builder, Gradients, elementwise, structural, window};
use crate::graph::{NodeId, Op};

/// Gradients of the operands of `id`, given `g`, the gradient of its output. Only those that are
/// `wanted` need to be there.
pub(super) fn gradients(b: &mut Builder, id: NodeId, g: NodeId, wanted: &[bool]) -> Gradients {
    match &b.graph[id].op.clone() {
        Op::Leaf(_) => Ok(Vec::new()),
        Op::Elementwise(op) => elementwise::gradients(b, *op, id, g, wanted),
        Op::Movement(op) => structural::movement(b, op, id, g),
        Op::Matmul => structural::matmul(b, id, g, wanted),
        Op::Reduction(op) => structural::reduction(b, op, id, g),
        Op::Join(op) => structural::join(b, *op, id, g),
        Op::Indexing(op) => structural::indexing(b, *op, id, g),
        Op::RowWise(op) => structural::row_wise(b, *op, id, g, wanted),
        Op::Windowed(op) => window::gradients(b, *op, id, g, wanted),
    }
}
