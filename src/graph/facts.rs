//! What a graph's proof finds out, for the passes after it.

use super::{Graph, Movement, NodeId, Op};

/// A graph that [`verify`](super::verify) proved well-formed: how its nodes share memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// By node.
    aliases: Vec<Alias>,
}

/// Where a node's elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    /// The node whose computation allocated the elements.
    pub owner: NodeId,
    /// Whether the elements lie in order, without gaps, and are all of the owner's.
    pub dense: bool,
}

/// How a node's elements lie in its operand's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alias {
    /// They do not: it is computed.
    None,
    /// In order, so that elements which are not dense have to be copied.
    Reshaped(NodeId),
    /// Every one where it is there.
    Same(NodeId),
    /// Elsewhere, or not all of them.
    Moved(NodeId),
}

impl Facts {
    /// How the nodes of a well-formed graph share memory.
    pub(super) fn of(graph: &Graph) -> Self {
        let alias = |id: NodeId| {
            let node = &graph[id];
            match &node.op {
                Op::Movement(Movement::Reshape(_)) => Alias::Reshaped(node.inputs[0]),
                Op::Movement(movement) if is_identity(movement, graph, id) => {
                    Alias::Same(node.inputs[0])
                }
                Op::Movement(_) => Alias::Moved(node.inputs[0]),
                _ => Alias::None,
            }
        };
        Self { aliases: graph.ids().map(alias).collect() }
    }

    /// The storage of a node.
    ///
    /// Movement ops view their operand, except that a [`Movement::Reshape`] of elements that are
    /// not dense copies them, and that nodes for which `copied` holds own their elements whatever
    /// they are. An engine must make the same choice: bytes are predicted from it.
    pub fn storage(&self, id: NodeId, copied: &impl Fn(NodeId) -> bool) -> Storage {
        let own = Storage { owner: id, dense: true };
        if copied(id) {
            return own;
        }
        match self.aliases[id.index()] {
            Alias::None => own,
            Alias::Reshaped(of) => {
                Some(self.storage(of, copied)).filter(|of| of.dense).unwrap_or(own)
            }
            Alias::Same(of) => self.storage(of, copied),
            Alias::Moved(of) => Storage { dense: false, ..self.storage(of, copied) },
        }
    }
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
