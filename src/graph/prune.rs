//! The graph without what nothing needs.

use super::{Graph, Leaf, NodeId, Op, State};

/// The graph with those nodes alone that the loss, the states and the marks depend on. Inputs and
/// parameters stay, in their order.
pub fn prune(graph: &Graph) -> Graph {
    let mut needed = vec![false; graph.nodes.len()];
    let roots = graph.loss.iter().chain(graph.states.iter().map(|state| &state.update));
    let leaves = graph.parameters.iter().map(|parameter| &parameter.node);
    for id in roots.chain(&graph.boundaries).chain(&graph.inputs).chain(leaves) {
        needed[id.index()] = true;
    }
    for id in graph.ids().rev().filter(|id| needed[id.index()]).collect::<Vec<_>>() {
        mark(graph, id, &mut needed);
    }
    let mut pruned = Graph::default();
    let mut at = vec![NodeId(u32::MAX); graph.nodes.len()];
    for id in graph.ids().filter(|id| needed[id.index()]) {
        let node = &graph[id];
        at[id.index()] = match node.op {
            Op::Leaf(Leaf::Input(_)) => pruned.push_input(node.shape.clone(), node.dtype),
            Op::Leaf(Leaf::Parameter(parameter)) => {
                let parameter = &graph.parameters[parameter.index()];
                pruned.push_parameter(parameter.path.clone(), node.shape.clone(), parameter.trained)
            }
            Op::Leaf(Leaf::Constant(constant)) => {
                pruned.push_constant(graph.constants[constant.0 as usize].clone())
            }
            _ => {
                let mut node = node.clone();
                node.inputs.iter_mut().for_each(|input| *input = at[input.index()]);
                pruned.append(node)
            }
        };
    }
    pruned.boundaries = graph.boundaries.iter().map(|id| at[id.index()]).collect();
    pruned.weighted = graph.weighted;
    pruned.loss = graph.loss.map(|loss| at[loss.index()]);
    let moved = |state: &State| State { update: at[state.update.index()], ..*state };
    pruned.states = graph.states.iter().map(moved).collect();
    pruned
}

/// Marks everything that `id` depends on.
fn mark(graph: &Graph, id: NodeId, needed: &mut [bool]) {
    let mut open = vec![id];
    while let Some(id) = open.pop() {
        for &input in &graph[id].inputs {
            if !std::mem::replace(&mut needed[input.index()], true) {
                open.push(input);
            }
        }
    }
}
