//! Ops that are worth a kernel of their own, recognised in what they are made of.
//!
//! In training Burn records softmax, layer norm and dropout as the ops that it differentiates them
//! by. The same holds for models that write them so themselves.

use super::record::Mode;
use crate::error::Result;
use crate::graph::{
    Binary, Comparison, Distribution, Elementwise, Graph, Indexing, Movement, NodeId, Op,
    Reduction, RowWise, Scalar, Unary,
};

/// The graph with whole ops in place of what makes them up, as far as nothing else needs that. Only
/// in training there are dropouts: an evaluation drops nothing.
///
/// # Errors
///
/// None that a well-formed graph has.
pub(super) fn fuse(graph: &Graph, mode: Mode) -> Result<Graph> {
    let mut fused = Graph { nodes: Vec::with_capacity(graph.nodes.len()), ..graph.clone() };
    let mut fuse = Fuse { from: graph, mode, at: Vec::new() };
    for id in graph.ids() {
        let to = fuse.whole(&mut fused, id)?;
        let to = match to {
            Some(to) => to,
            None => {
                let mut node = graph[id].clone();
                node.inputs.iter_mut().for_each(|input| *input = fuse.at[input.index()]);
                fused.nodes.push(node);
                NodeId(fused.nodes.len() as u32 - 1)
            }
        };
        fuse.at.push(to);
    }
    let at = |id: &mut NodeId| *id = fuse.at[id.index()];
    fused.inputs.iter_mut().for_each(at);
    fused.parameters.iter_mut().for_each(|parameter| at(&mut parameter.node));
    fused.boundaries.iter_mut().for_each(at);
    fused.loss.iter_mut().for_each(at);
    fused.states.iter_mut().for_each(|state| at(&mut state.update));
    Ok(fused)
}

/// Nodes of one graph on their way to another.
struct Fuse<'a> {
    from: &'a Graph,
    mode: Mode,
    /// Where the nodes so far went.
    at: Vec<NodeId>,
}

/// What is subtracted from and what a row's largest element has to do with it.
struct Shifted {
    /// The elements, less the largest along the axis.
    x: NodeId,
    axis: usize,
    /// Whether a row of which every element is minus infinity gives zeros, and no NaN.
    safe: bool,
}

impl Fuse<'_> {
    /// Appends the whole op that ends in `id`, if one does.
    fn whole(&self, to: &mut Graph, id: NodeId) -> Result<Option<NodeId>> {
        if let Some((shifted, log)) = self.softmax(id) {
            return self.push_softmax(to, &shifted, log).map(Some);
        }
        if let Some((inputs, epsilon)) = self.layer_norm(id) {
            let inputs: Vec<NodeId> = inputs.iter().map(|input| self.at[input.index()]).collect();
            return to.push(RowWise::LayerNorm(epsilon), &inputs).map(Some);
        }
        if self.mode == Mode::Training
            && let Some((x, op)) = self.dropout(id)
        {
            return to.push(op, &[self.at[x.index()]]).map(Some);
        }
        Ok(None)
    }

    fn push_softmax(&self, to: &mut Graph, of: &Shifted, log: bool) -> Result<NodeId> {
        let scores = self.at[of.x.index()];
        let last = to[scores].shape.rank() - 1;
        let op = if log { RowWise::LogSoftmax } else { RowWise::Softmax };
        let mut x = scores;
        if of.safe {
            x = to.push(Elementwise::Scalar(Scalar::AtLeast, f32::MIN.into()), &[x])?;
        }
        let mut y = if of.axis == last {
            to.push(op, &[x])?
        } else {
            let mut axes: Vec<usize> = (0..=last).collect();
            axes.swap(of.axis, last);
            let x = to.push(Movement::Permute(axes.clone()), &[x])?;
            let y = to.push(op, &[x])?;
            to.push(Movement::Permute(axes), &[y])?
        };
        if of.safe {
            let infinity = Elementwise::CompareScalar(Comparison::Equal, f64::NEG_INFINITY);
            let masked = to.push(infinity, &[scores])?;
            y = to.push(Elementwise::Fill(0.0), &[masked, y])?;
        }
        Ok(y)
    }

    /// `exp(s) / sum(exp(s))`, or with `true` `s - log(sum(exp(s)))`, for a shifted `s`.
    fn softmax(&self, id: NodeId) -> Option<(Shifted, bool)> {
        if let Some([exp, sum]) = self.binary(id, Binary::Divide) {
            let shift = self.unary(exp, Unary::Exp)?;
            let smallest = self.scalar(sum, Scalar::AtLeast);
            let safe = smallest.is_some_and(|(_, least)| least == f64::from(f32::MIN_POSITIVE));
            let sum = smallest.filter(|_| safe).map_or(sum, |(sum, _)| sum);
            let shifted = self.shifted(shift)?;
            let fits = self.sum_of(sum) == Some((exp, shifted.axis)) && shifted.safe == safe;
            return fits.then_some((shifted, false));
        }
        let [shift, log] = self.binary(id, Binary::Subtract)?;
        let shifted = self.shifted(shift)?;
        let (exp, axis) = self.sum_of(self.unary(log, Unary::Log)?)?;
        let fits = self.unary(exp, Unary::Exp) == Some(shift) && axis == shifted.axis;
        (fits && !shifted.safe).then_some((shifted, true))
    }

    /// `x - max(x)`, or `x - max(max(x), smallest float)`.
    fn shifted(&self, id: NodeId) -> Option<Shifted> {
        let [x, largest] = self.binary(id, Binary::Subtract)?;
        let smallest = self.scalar(largest, Scalar::AtLeast);
        let safe = smallest.is_some_and(|(_, least)| least == f64::from(f32::MIN));
        let largest = smallest.filter(|_| safe).map_or(largest, |(largest, _)| largest);
        let Op::Indexing(Indexing::Gather(axis)) = self.from[largest].op else { return None };
        let [of, at] = self.from[largest].inputs[..] else { return None };
        let is_largest = self.from[at].op == Op::Reduction(Reduction::ArgMax(axis))
            && self.from[at].inputs == [x];
        (of == x && is_largest).then_some(Shifted { x, axis, safe })
    }

    /// `(x - mean) / sqrt(variance + epsilon) * gamma (+ beta)`: its operands and epsilon.
    fn layer_norm(&self, id: NodeId) -> Option<(Vec<NodeId>, f64)> {
        if let Some([scaled, beta]) = self.binary(id, Binary::Add) {
            let (mut inputs, epsilon) = self.layer_norm(scaled)?;
            if inputs.len() > 2 {
                return None;
            }
            inputs.push(self.along_rows(beta)?);
            return Some((inputs, epsilon));
        }
        let [normalised, gamma] = self.binary(id, Binary::Multiply)?;
        let [centred, deviation] = self.binary(normalised, Binary::Divide)?;
        let (variance, epsilon) = self.scalar(self.unary(deviation, Unary::Sqrt)?, Scalar::Add)?;
        let [a, b] = self.binary(self.mean_of(variance)?, Binary::Multiply)?;
        let [x, mean] = self.binary(centred, Binary::Subtract)?;
        let fits = a == centred && b == centred && self.mean_of(mean) == Some(x);
        let gamma = self.along_rows(gamma)?;
        fits.then(|| (vec![x, gamma], epsilon))
    }

    /// What was repeated for every row of a tensor: `[d]` as `[1, .., d]`.
    fn along_rows(&self, id: NodeId) -> Option<NodeId> {
        let node = &self.from[id];
        let Op::Movement(Movement::Reshape(shape)) = &node.op else { return None };
        let of = &self.from[node.inputs[0]];
        (of.shape.rank() == 1 && shape.0.last() == of.shape.0.first()).then_some(node.inputs[0])
    }

    /// `x * mask / p` for a mask that is drawn with probability `p`.
    fn dropout(&self, id: NodeId) -> Option<(NodeId, Elementwise)> {
        let (product, factor) = self.scalar(id, Scalar::Multiply)?;
        let [a, b] = self.binary(product, Binary::Multiply)?;
        let kept = |id: NodeId| match self.from[id].op {
            Op::Elementwise(Elementwise::Random {
                draw,
                distribution: Distribution::Bernoulli { probability },
            }) if probability > 0.0 && (factor * probability - 1.0).abs() < 1e-9 => {
                Some(Elementwise::Dropout { draw, probability: 1.0 - probability })
            }
            _ => None,
        };
        // A mask times itself is no dropout.
        let same = a != b && self.from[a].shape == self.from[b].shape;
        kept(b).map(|op| (a, op)).or_else(|| kept(a).map(|op| (b, op))).filter(|_| same)
    }

    /// The operand of a mean along the last axis.
    fn mean_of(&self, id: NodeId) -> Option<NodeId> {
        let (sum, factor) = self.scalar(id, Scalar::Multiply)?;
        let (x, axis) = self.sum_of(sum)?;
        let shape = &self.from[x].shape;
        let last = axis + 1 == shape.rank();
        (last && factor == 1.0 / shape.0[axis] as f64).then_some(x)
    }

    /// The operand of a sum along one axis, and which.
    fn sum_of(&self, id: NodeId) -> Option<(NodeId, usize)> {
        match &self.from[id].op {
            Op::Reduction(Reduction::Sum(axes)) if axes.len() == 1 => {
                Some((self.from[id].inputs[0], axes[0]))
            }
            _ => None,
        }
    }

    fn unary(&self, id: NodeId, unary: Unary) -> Option<NodeId> {
        let node = &self.from[id];
        (node.op == unary.into()).then(|| node.inputs[0])
    }

    fn scalar(&self, id: NodeId, scalar: Scalar) -> Option<(NodeId, f64)> {
        match self.from[id].op {
            Op::Elementwise(Elementwise::Scalar(op, value)) if op == scalar => {
                Some((self.from[id].inputs[0], value))
            }
            _ => None,
        }
    }

    fn binary(&self, id: NodeId, binary: Binary) -> Option<[NodeId; 2]> {
        let node = &self.from[id];
        (node.op == binary.into()).then(|| [node.inputs[0], node.inputs[1]])
    }
}
