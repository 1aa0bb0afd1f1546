//! Where a block's values are: which node's buffer holds them, and how.

use std::collections::HashMap;

use super::kernel::View;
use crate::graph::{Movement, NodeId, Op};
use crate::split::{BlockId, Role, Split};

/// The values of one block. It does not know which blocks share its stage, so that a block's
/// kernels are the same wherever the model is cut.
pub(super) struct Views<'a> {
    split: &'a Split,
    block: BlockId,
    known: HashMap<NodeId, (NodeId, View)>,
}

impl<'a> Views<'a> {
    pub(super) fn new(split: &'a Split, block: BlockId) -> Self {
        Self { split, block, known: HashMap::new() }
    }

    /// The node whose buffer holds `id`, and where in it. What other blocks compute, leaves and
    /// constants are dense in buffers of their own.
    pub(super) fn of(&mut self, id: NodeId) -> (NodeId, View) {
        if let Some(known) = self.known.get(&id) {
            return known.clone();
        }
        let own = |split: &Split| (id, View::dense(&split.joint.graph[id].shape.0));
        let found = match self.moved(id) {
            Some((owner, view)) if !self.is_copied(id, &view) => (owner, view),
            _ => own(self.split),
        };
        self.known.insert(id, found.clone());
        found
    }

    /// Where the elements of the movement `id` are before it is copied, if it is one of this
    /// block. A reshape of elements that are not in order keeps its operand's shape.
    pub(super) fn moved(&mut self, id: NodeId) -> Option<(NodeId, View)> {
        let graph = &self.split.joint.graph;
        let node = &graph[id];
        let here = self.split.block(id) == Some(self.block);
        let Op::Movement(movement) = &node.op else { return None };
        if !here || self.split.roles[id.index()] == Role::Constant {
            return None;
        }
        let (owner, view) = self.of(node.inputs[0]);
        Some((owner, moved(movement, &view)))
    }

    /// Whether the movement `id` gets elements of its own: the split says so, or its shape cannot
    /// be had by strides.
    fn is_copied(&self, id: NodeId, view: &View) -> bool {
        let graph = &self.split.joint.graph;
        let is_strided_loss = graph.loss == Some(id) && !view.is_dense();
        is_strided_loss || self.split.copied[id.index()] || view.shape != graph[id].shape.0
    }
}

/// Where the elements of a movement of `view` are. A reshape of elements that are not in order
/// keeps their shape.
pub(super) fn moved(op: &Movement, view: &View) -> View {
    match op {
        Movement::Reshape(shape) if view.is_dense() => View::dense(&shape.0),
        Movement::Permute(axes) => permuted(view, axes),
        Movement::Expand(shape) => view.broadcast(&shape.0),
        Movement::Slice { axis, start, end } => sliced(view, *axis, *start, *end),
        Movement::Reshape(_) | Movement::Detach => view.clone(),
    }
}

fn permuted(view: &View, axes: &[usize]) -> View {
    View {
        shape: axes.iter().map(|&axis| view.shape[axis]).collect(),
        strides: axes.iter().map(|&axis| view.strides[axis]).collect(),
        offset: view.offset,
    }
}

fn sliced(view: &View, axis: usize, start: usize, end: usize) -> View {
    let mut view = view.clone();
    view.offset += start * view.strides[axis];
    view.shape[axis] = end - start;
    view
}
