//! Which nodes own memory and which only view the memory of another.

use super::{Graph, NodeId, Op};

/// Where a node's elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    /// The node whose computation allocated the elements.
    pub owner: NodeId,
    /// Whether the elements lie in order, without gaps, and are all of the owner's.
    pub dense: bool,
}

/// The storage of every node, by node.
///
/// Movement ops view their operand, except that a [`Op::Reshape`] of elements that are not dense
/// copies them, and that nodes for which `copied` holds own their elements whatever they are. An
/// engine must make the same choice: bytes are predicted from it.
pub fn storages(graph: &Graph, copied: impl Fn(NodeId) -> bool) -> Vec<Storage> {
    let mut storages: Vec<Storage> = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let node = &graph[id];
        let fresh = Storage { owner: id, dense: true };
        storages.push(match &node.op {
            _ if copied(id) => fresh,
            Op::Reshape(_) => {
                let of = storages[node.inputs[0].index()];
                if of.dense { of } else { fresh }
            }
            op if op.is_movement() => {
                let of = storages[node.inputs[0].index()];
                Storage { owner: of.owner, dense: of.dense && is_identity(graph, id) }
            }
            _ => fresh,
        });
    }
    storages
}

/// Whether a movement leaves every element where it is.
fn is_identity(graph: &Graph, id: NodeId) -> bool {
    let node = &graph[id];
    let of = &graph[node.inputs[0]];
    match &node.op {
        Op::Permute(axes) => {
            let moved = axes.iter().filter(|&&axis| of.shape.0[axis] != 1);
            moved.is_sorted()
        }
        _ => node.shape == of.shape,
    }
}
