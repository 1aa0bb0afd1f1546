//! What the elements of buffers are, and which values are stored as halves.

use crate::engine::Precision;
use crate::graph::{DType, Indexing, NodeId, Op};
use crate::plan::Work;
use crate::split::{Role, Split};

/// What the elements of a buffer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 16-bit float, two in a word: an F32 that was rounded when it was written.
    F16,
    /// 32-bit integer.
    Int,
    /// Truth value: a word that is 0 or 1.
    Bool,
}

/// What the elements of every node are in its buffer.
#[derive(Debug, Clone, PartialEq)]
pub struct Elements(Vec<Element>);

impl Element {
    /// Bytes of one of them.
    pub fn bytes(self) -> u64 {
        match self {
            Element::F16 => 2,
            Element::F32 | Element::Int | Element::Bool => 4,
        }
    }

    /// Bytes of that many in a buffer or a copy, which take whole words.
    pub fn bytes_of(self, count: usize) -> u64 {
        (count as u64 * self.bytes()).next_multiple_of(4)
    }
}

impl From<DType> for Element {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Element::F32,
            DType::Int => Element::Int,
            DType::Bool => Element::Bool,
        }
    }
}

impl From<Element> for DType {
    fn from(element: Element) -> Self {
        match element {
            Element::F32 | Element::F16 => DType::F32,
            Element::Int => DType::Int,
            Element::Bool => DType::Bool,
        }
    }
}

impl Elements {
    /// With activations as `precision` says. Halves are the floats that F computes from the
    /// microbatch, but for the loss, for states and for sums: those are small next to what they
    /// sum, and soon above what a half can be. A movement's elements are its operand's, whether or
    /// not it is copied. None of this depends on where the model is cut, so that no bit of a result
    /// does.
    pub fn new(split: &Split, precision: Precision) -> Self {
        let graph = &split.joint.graph;
        let mut elements: Vec<Element> = graph.nodes.iter().map(|node| node.dtype.into()).collect();
        if precision == Precision::F32 {
            return Self(elements);
        }
        let computed_as = |mut id: NodeId| {
            while graph[id].op.is_movement() {
                id = graph[id].inputs[0];
            }
            id
        };
        let updates = graph.states.iter().map(|state| state.update);
        let pair = graph.loss.filter(|_| graph.weighted);
        let parts = pair.into_iter().flat_map(|pair| graph[pair].inputs.iter().copied());
        let outputs = graph.loss.into_iter().chain(parts).chain(updates);
        let outputs: Vec<NodeId> = outputs.map(computed_as).collect();
        for id in graph.ids() {
            let (at, node) = (id.index(), &graph[id]);
            let computed = matches!(split.places[at], Some((_, Work::F)))
                && split.roles[at] == Role::Activation
                && !is_sum(&node.op)
                && !outputs.contains(&id);
            if node.op.is_movement() {
                elements[at] = elements[node.inputs[0].index()];
            } else if computed && node.dtype == DType::F32 {
                elements[at] = Element::F16;
            }
        }
        Self(elements)
    }

    /// Those of a node.
    pub fn of(&self, id: NodeId) -> Element {
        self.0[id.index()]
    }
}

fn is_sum(op: &Op) -> bool {
    match op {
        Op::Reduction(_) => true,
        Op::Indexing(op) => matches!(op, Indexing::ScatterAdd { .. }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::differentiate::differentiate;
    use crate::graph::{Activation, Elementwise, Graph, Movement, Reduction, Scalar, Shape, Unary};
    use crate::split::split;

    #[test]
    fn halves_are_the_floats_of_f_but_for_sums_and_the_loss() {
        let mut graph = Graph::default();
        let x = graph.push_input(Shape(vec![4, 8]), DType::F32);
        let weight = graph.push_parameter("w".into(), Shape(vec![8, 8]), true);
        let mut push = |op, inputs: &[NodeId]| graph.push(op, inputs).expect("it is well-typed");
        let scaled = push(Elementwise::Scalar(Scalar::Multiply, 0.5).into(), &[weight]);
        let turned = push(Movement::Permute(vec![1, 0]).into(), &[x]);
        let back = push(Movement::Permute(vec![1, 0]).into(), &[turned]);
        let product = push(Op::Matmul, &[back, scaled]);
        let part = push(Movement::Slice { axis: 0, start: 1, end: 3 }.into(), &[product]);
        let curved = push(Unary::Activation(Activation::Gelu).into(), &[part]);
        push(Reduction::ArgMax(1).into(), &[curved]);
        let sum = push(Reduction::Sum(vec![0, 1]).into(), &[curved]);
        let mean = push(Elementwise::Scalar(Scalar::Multiply, 0.0625).into(), &[sum]);
        let loss = push(Movement::Reshape(Shape(vec![1])).into(), &[mean]);
        graph.loss = Some(loss);
        let count = graph.nodes.len();
        let split = split(differentiate(graph, 1.0).expect("it has gradients")).expect("it splits");

        let graph = &split.joint.graph;
        let elements = Elements::new(&split, Precision::F16);
        let is_half = |id: &NodeId| elements.of(*id) == Element::F16;
        let (forward, backward): (Vec<_>, Vec<_>) = graph.ids().partition(|id| id.index() < count);
        let halves: Vec<NodeId> = forward.into_iter().filter(is_half).collect();
        assert_eq!(halves, [product, part, curved]);
        // A gradient's graph may view an activation.
        assert!(backward.iter().all(|id| !is_half(id) || graph[*id].op.is_movement()));
        assert!(backward.len() > 3);
        let floats = Elements::new(&split, Precision::F32);
        assert!(graph.ids().all(|id| floats.of(id) == graph[id].dtype.into()));
    }
}
