//! Which nodes own memory and which only view the memory of another.

use super::{Graph, Movement, NodeId, Op};

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
/// Movement ops view their operand, except that a [`Movement::Reshape`] of elements that are not
/// dense copies them, and that nodes for which `copied` holds own their elements whatever they are.
/// An engine must make the same choice: bytes are predicted from it.
pub fn storages(graph: &Graph, copied: impl Fn(NodeId) -> bool) -> Vec<Storage> {
    let mut storages: Vec<Storage> = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let node = &graph[id];
        let fresh = Storage { owner: id, dense: true };
        storages.push(match &node.op {
            _ if copied(id) => fresh,
            Op::Movement(Movement::Reshape(_)) => {
                let of = storages[node.inputs[0].index()];
                if of.dense { of } else { fresh }
            }
            Op::Movement(movement) => {
                let of = storages[node.inputs[0].index()];
                Storage { owner: of.owner, dense: of.dense && is_identity(movement, graph, id) }
            }
            _ => fresh,
        });
    }
    storages
}

/// Whether a movement leaves every element where it is.
fn is_identity(movement: &Movement, graph: &Graph, id: NodeId) -> bool {
    let node = &graph[id];
    let of = &graph[node.inputs[0]];
    match movement {
        Movement::Permute(axes) => {
            let moved = axes.iter().filter(|&&axis| of.shape.0[axis] != 1);
            moved.is_sorted()
        }
        _ => node.shape == of.shape,
    }
}
