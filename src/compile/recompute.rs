//! What B recomputes where F keeps only what the stage was sent.

use super::Task;
use crate::graph::{Graph, NodeId};
use crate::plan::{PerWork, Work};
use crate::split::Split;

/// The nodes of F that B and W read, with what these are computed from, in the order of F.
///
/// What no gradient needs, such as the stage's output in most models, is left out.
pub(super) fn recomputed(split: &Split, tasks: &PerWork<Vec<Task>>) -> Vec<NodeId> {
    let graph = &split.joint.graph;
    let mut needed = vec![false; graph.nodes.len()];
    let backward = tasks[Work::B].iter().chain(&tasks[Work::W]);
    for id in backward.flat_map(|task| reads(graph, task)) {
        needed[id.index()] = true;
    }
    let mut recomputed = Vec::new();
    for task in tasks[Work::F].iter().rev() {
        let node = task.node();
        if needed[node.index()] {
            graph[node].inputs.iter().for_each(|id| needed[id.index()] = true);
            recomputed.push(node);
        }
    }
    recomputed.reverse();
    recomputed
}

/// What a task reads.
pub(super) fn reads(graph: &Graph, task: &Task) -> Vec<NodeId> {
    match *task {
        Task::Compute { node, .. } | Task::Accumulate { node, .. } => graph[node].inputs.clone(),
        Task::Add { node, .. } => vec![node],
    }
}
