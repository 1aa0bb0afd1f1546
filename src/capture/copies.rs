//! Constants of a record that are no constants: values of the microbatch that the model read and
//! made tensors of.

use crate::error::Result;
use crate::graph::{Constant, Elementwise, Graph, Leaf, NodeId, Op, State, Values};

/// A graph, and the values of those of its nodes that the model may have read.
pub(super) struct Readable {
    pub graph: Graph,
    pub sources: Vec<(NodeId, Constant)>,
}

/// The graph of `example` with the nodes themselves in place of what the model read of them, by
/// comparison with the same model's graphs of other microbatches; none where what it reads decides
/// what it computes.
///
/// # Errors
///
/// None that well-formed graphs have.
pub(super) fn without_copies(example: &Readable, others: &[Readable]) -> Result<Option<Graph>> {
    let graph = &example.graph;
    let same = |other: &Readable| {
        let (a, b) = (graph, &other.graph);
        (&a.nodes, a.loss, &a.states, &a.boundaries) == (&b.nodes, b.loss, &b.states, &b.boundaries)
            && a.constants.len() == b.constants.len()
    };
    if !others.iter().all(same) {
        return Ok(None);
    }
    let mut copies = vec![None; graph.constants.len()];
    for (at, copy) in copies.iter_mut().enumerate() {
        let is_fixed = |other: &Readable| other.graph.constants[at] == graph.constants[at];
        if others.iter().all(is_fixed) {
            continue;
        }
        let is_copy = |source: &usize| {
            let of = |graph: &Readable| match graph.sources.get(*source) {
                Some((_, value)) => equal(value, &graph.graph.constants[at]),
                None => false,
            };
            of(example) && others.iter().all(of)
        };
        match (0..example.sources.len()).find(is_copy) {
            Some(source) => *copy = Some(example.sources[source].0),
            None => return Ok(None),
        }
    }
    if copies.iter().all(Option::is_none) {
        return Ok(Some(graph.clone()));
    }
    replaced(graph, &copies).map(Some)
}

/// Whether two tensors have the same numbers, of whatever type.
fn equal(a: &Constant, b: &Constant) -> bool {
    a.shape == b.shape && numbers(&a.values) == numbers(&b.values)
}

fn numbers(values: &Values) -> Vec<f64> {
    match values {
        Values::F32(values) => values.iter().map(|&value| value.into()).collect(),
        Values::Int(values) => values.iter().map(|&value| value as f64).collect(),
        Values::Bool(values) => values.iter().map(|&value| f64::from(u8::from(value))).collect(),
    }
}

/// The graph with nodes in place of constants.
fn replaced(graph: &Graph, copies: &[Option<NodeId>]) -> Result<Graph> {
    let mut to = Graph { nodes: Vec::with_capacity(graph.nodes.len()), ..graph.clone() };
    let mut at: Vec<NodeId> = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let mut node = graph[id].clone();
        node.inputs.iter_mut().for_each(|input| *input = at[input.index()]);
        let copy = match node.op {
            Op::Leaf(Leaf::Constant(constant)) => copies[constant.0 as usize],
            _ => None,
        };
        at.push(match copy {
            Some(of) if graph[of].dtype == node.dtype => at[of.index()],
            Some(of) => to.push(Elementwise::Cast(node.dtype), &[at[of.index()]])?,
            None => {
                to.nodes.push(node);
                NodeId(to.nodes.len() as u32 - 1)
            }
        });
    }
    let moved = |id: &mut NodeId| *id = at[id.index()];
    to.inputs.iter_mut().for_each(moved);
    to.parameters.iter_mut().for_each(|parameter| moved(&mut parameter.node));
    to.boundaries.iter_mut().for_each(moved);
    to.loss.iter_mut().for_each(moved);
    to.states.iter_mut().for_each(|State { update, .. }| moved(update));
    Ok(to)
}
