//! Where the forward graph may be cut.

use std::ops::RangeInclusive;

use super::{Role, no_work};
use crate::differentiate::Joint;
use crate::error::{Error, Result};
use crate::graph::{Facts, NodeId};

/// Last forward node of every block but the last, and the boundaries among them that the user
/// marked (none when the model has no marks).
///
/// With marks, blocks end at marks. Without, a block ends between two products where fewer values
/// cross than between the products before and after: in a transformer that is after every
/// residual addition, in a chain of layers after every layer. Convolutions and embeddings are
/// products too.
pub(super) fn ends(
    joint: &Joint,
    facts: &Facts,
    roles: &[Role],
) -> Result<(Vec<NodeId>, Vec<usize>)> {
    let graph = &joint.graph;
    if !graph.boundaries.is_empty() {
        let mut ends = graph.boundaries.clone();
        ends.sort_unstable();
        ends.dedup();
        let last = NodeId(joint.forward as u32 - 1);
        let mut start = 0;
        for (block, end) in ends.iter().chain([&last]).enumerate() {
            let computes =
                |id: NodeId| roles[id.index()] == Role::Activation && !graph[id].op.is_leaf();
            if !(start..=end.0).map(NodeId).any(computes) {
                return Err(no_work(block));
            }
            start = end.0 + 1;
        }
        let parted = |nodes: &RangeInclusive<NodeId>| ends.iter().any(|end| cuts(*end, nodes));
        if let Some((path, _)) = states(joint).find(|(_, nodes)| parted(nodes)) {
            let problem = "a mark stands between what reads this running value and its update";
            return Err(Error::model(problem)
                .in_module(path)
                .hint("call zerobubble::nn::boundary before or after the layer"));
        }
        let marks = (1..=ends.len()).collect();
        return Ok((ends, marks));
    }
    let crossings = crossings(joint, facts, roles);
    let products: Vec<usize> = (0..joint.forward)
        .filter(|&at| graph.nodes[at].op.is_product())
        .filter(|&at| roles[at] == Role::Activation)
        .collect();
    // Among equal positions the last is taken, so that an activation function stays with the
    // layer that feeds it.
    let narrowest: Vec<usize> = products
        .windows(2)
        .map(|pair| {
            (pair[0]..pair[1]).rev().min_by_key(|&at| crossings[at]).expect("products differ")
        })
        .collect();
    let count = |gap: Option<usize>| match gap.and_then(|gap| narrowest.get(gap)) {
        Some(&at) => crossings[at].0,
        None => usize::MAX,
    };
    let ends = (0..narrowest.len())
        .filter(|&gap| {
            let here = count(Some(gap));
            here <= count(gap.checked_sub(1)) && here <= count(Some(gap + 1))
        })
        .map(|gap| NodeId(narrowest[gap] as u32))
        .filter(|end| !states(joint).any(|(_, state)| cuts(*end, &state)))
        .collect();
    Ok((ends, Vec::new()))
}

/// Of every state its path, and the nodes from the first that reads it to its update. One block has
/// them all: the next microbatch finds the value where this one left it.
fn states(joint: &Joint) -> impl Iterator<Item = (&str, RangeInclusive<NodeId>)> {
    let graph = &joint.graph;
    graph.states.iter().map(|state| {
        let of = &graph.parameters[state.parameter.index()];
        let reads = |id: &NodeId| graph[*id].inputs.contains(&of.node);
        let first = graph.ids().find(reads).unwrap_or(state.update).min(state.update);
        let last = graph.ids().rev().filter(|id| id.index() < joint.forward).find(reads);
        (of.path.as_str(), first..=last.unwrap_or(state.update).max(state.update))
    })
}

/// Whether a block that ends in `end` parts these nodes.
fn cuts(end: NodeId, nodes: &RangeInclusive<NodeId>) -> bool {
    *nodes.start() <= end && end < *nodes.end()
}

/// How many values, and how many bytes, cross after every forward node.
fn crossings(joint: &Joint, facts: &Facts, roles: &[Role]) -> Vec<(usize, u64)> {
    let graph = &joint.graph;
    // Last user of every storage, by its owner; views of one storage cross together.
    let mut last_use = vec![None; joint.forward];
    for id in (0..joint.forward as u32).map(NodeId) {
        for &input in &graph[id].inputs {
            let owner = facts.storage(input, &|_| false).owner;
            if roles[owner.index()] == Role::Activation && !graph[owner].op.is_leaf() {
                last_use[owner.index()] = Some(id.index());
            }
        }
    }
    let mut crossings = vec![(0, 0); joint.forward];
    for (owner, last_use) in last_use.into_iter().enumerate() {
        let Some(last_use) = last_use else { continue };
        for crossing in &mut crossings[owner..last_use] {
            crossing.0 += 1;
            crossing.1 += graph.nodes[owner].bytes();
        }
    }
    crossings
}
