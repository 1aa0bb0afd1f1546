//! What a model does in training and what it does in inference, as one graph.
//!
//! Most of it is the same. Where it is not, a [`Mode`](Elementwise::Mode) takes the one in a step
//! and the other in an evaluation, so that an evaluation runs on the programs of the steps.

use std::collections::HashMap;

use crate::error::Result;
use crate::graph::{Elementwise, Graph, Leaf, Node, NodeId, Op, State};

/// The graph that is `training`, which has so many `draws`, in a step and `inference` in an
/// evaluation; none if they differ in more than what stands around their products.
///
/// # Errors
///
/// None that well-formed graphs have.
pub(super) fn merge(training: &Graph, inference: &Graph, draws: u32) -> Result<Option<Graph>> {
    let mut merge = Merge {
        training,
        inference,
        draws,
        merged: Graph::default(),
        steps: vec![None; training.nodes.len()],
        next: 0,
        shown: HashMap::new(),
        modes: HashMap::new(),
        constants: vec![None; inference.nodes.len()],
    };
    let mut evaluations: Vec<Option<NodeId>> = vec![None; inference.nodes.len()];
    for id in inference.ids() {
        evaluations[id.index()] = match inference[id].op {
            Op::Leaf(Leaf::Input(input)) => Some(merge.leaf(training.inputs[input.0 as usize])),
            Op::Leaf(Leaf::Parameter(parameter)) => {
                Some(merge.leaf(training.parameters[parameter.index()].node))
            }
            // They are looked at where they are used.
            Op::Leaf(Leaf::Constant(_)) => None,
            _ => match merge.computed(id, &evaluations)? {
                Some(node) => Some(node),
                None => return Ok(None),
            },
        };
    }
    merge.emit_until(training.nodes.len());
    let at = |id: NodeId| merge.steps[id.index()].expect("all of training is there");
    let (Some(step), Some(evaluation)) = (training.loss, inference.loss) else { return Ok(None) };
    let (step, evaluation) = (at(step), evaluations[evaluation.index()]);
    let Some(evaluation) = evaluation else { return Ok(None) };
    let boundaries = training.boundaries.iter().map(|&id| at(id)).collect();
    let states = training.states.iter();
    let states = states.map(|state| State { update: at(state.update), ..*state }).collect();
    let loss = merge.join(step, evaluation)?;
    let mut merged = merge.merged;
    (merged.boundaries, merged.states, merged.loss) = (boundaries, states, loss);
    merged.weighted = training.weighted;
    Ok(merged.loss.is_some().then_some(merged))
}

struct Merge<'a> {
    training: &'a Graph,
    inference: &'a Graph,
    draws: u32,
    merged: Graph,
    /// Where the nodes of training went.
    steps: Vec<Option<NodeId>>,
    /// The first node of training that is not there yet, leaves aside.
    next: usize,
    /// The node whose value a node has in an evaluation.
    shown: HashMap<NodeId, NodeId>,
    /// The mode of two nodes.
    modes: HashMap<(NodeId, NodeId), NodeId>,
    /// Where the constants of inference went.
    constants: Vec<Option<NodeId>>,
}

impl Merge<'_> {
    /// Where a leaf of training is.
    fn leaf(&mut self, id: NodeId) -> NodeId {
        while self.steps[id.index()].is_none() {
            self.emit();
        }
        self.steps[id.index()].expect("it is there now")
    }

    /// A node with the value of the inference node `id` in an evaluation; none where that takes a
    /// product that training does not compute.
    fn computed(&mut self, id: NodeId, evaluations: &[Option<NodeId>]) -> Result<Option<NodeId>> {
        let node = &self.inference[id];
        let operands: Vec<Operand> = node
            .inputs
            .iter()
            .map(|&input| match evaluations[input.index()] {
                Some(node) => Operand::Node(node),
                None => Operand::Constant(input),
            })
            .collect();
        if let Some(found) = self.counterpart(node, &operands) {
            self.emit_until(found);
            let of = self.training.nodes[found].inputs.clone();
            let mut inputs = Vec::new();
            for (input, operand) in of.iter().zip(&operands) {
                let step = self.steps[input.index()].expect("operands come first");
                let evaluation = match *operand {
                    Operand::Node(node) => node,
                    Operand::Constant(_) => step,
                };
                let Some(joined) = self.join(step, evaluation)? else { return Ok(None) };
                inputs.push(joined);
            }
            let to = self.merged.push(self.training.nodes[found].op.clone(), &inputs)?;
            self.steps[found] = Some(to);
            self.next = found + 1;
            return Ok(Some(to));
        }
        if node.op.is_product() {
            return Ok(None);
        }
        let mut inputs = Vec::new();
        for operand in operands {
            inputs.push(match operand {
                Operand::Node(node) => node,
                Operand::Constant(id) => self.constant(id),
            });
        }
        let mut op = node.op.clone();
        if let Op::Elementwise(
            Elementwise::Random { draw, .. } | Elementwise::Dropout { draw, .. },
        ) = &mut op
        {
            *draw += self.draws;
        }
        self.merged.push(op, &inputs).map(Some)
    }

    /// The next node of training that computes the same from operands that can be joined. No
    /// product of training is passed over.
    fn counterpart(&self, node: &Node, operands: &[Operand]) -> Option<usize> {
        for at in self.next..self.training.nodes.len() {
            let other = &self.training.nodes[at];
            if other.op.is_leaf() {
                continue;
            }
            if self.matches(other, node, operands) {
                return Some(at);
            }
            if other.op.is_product() {
                return None;
            }
        }
        None
    }

    fn matches(&self, training: &Node, inference: &Node, operands: &[Operand]) -> bool {
        let same_op = match (&training.op, &inference.op) {
            (
                Op::Elementwise(Elementwise::Random { distribution: a, .. }),
                Op::Elementwise(Elementwise::Random { distribution: b, .. }),
            ) => a == b,
            (a, b) => a == b,
        };
        if !same_op || training.shape != inference.shape || training.inputs.len() != operands.len()
        {
            return false;
        }
        let mut anchored = operands.len() == 1;
        for (&input, operand) in training.inputs.iter().zip(operands) {
            let of = &self.training[input];
            match *operand {
                Operand::Constant(id) => {
                    if !self.is_same_constant(input, id) {
                        return false;
                    }
                }
                Operand::Node(node) => {
                    let to = &self.merged[node];
                    if (&of.shape, of.dtype) != (&to.shape, to.dtype) {
                        return false;
                    }
                    anchored |= self.shows(input, node);
                }
            }
        }
        anchored
    }

    fn is_same_constant(&self, step: NodeId, evaluation: NodeId) -> bool {
        match (&self.training[step].op, &self.inference[evaluation].op) {
            (Op::Leaf(Leaf::Constant(a)), Op::Leaf(Leaf::Constant(b))) => {
                let (a, b) = (a.0 as usize, b.0 as usize);
                self.training.constants[a] == self.inference.constants[b]
            }
            _ => false,
        }
    }

    /// Whether the training node `id` has the value of `node` in an evaluation.
    fn shows(&self, id: NodeId, node: NodeId) -> bool {
        match self.steps[id.index()] {
            Some(at) => self.is_shown(at, node),
            None => match self.training[id].op {
                Op::Elementwise(Elementwise::Dropout { .. }) => {
                    self.shows(self.training[id].inputs[0], node)
                }
                _ => false,
            },
        }
    }

    fn is_shown(&self, mut at: NodeId, node: NodeId) -> bool {
        loop {
            if at == node {
                return true;
            }
            match self.shown.get(&at) {
                Some(&next) => at = next,
                None => return false,
            }
        }
    }

    /// A node with the value of `step` in a step and of `evaluation` in an evaluation, if their
    /// types allow one.
    fn join(&mut self, step: NodeId, evaluation: NodeId) -> Result<Option<NodeId>> {
        if self.is_shown(step, evaluation) {
            return Ok(Some(step));
        }
        if let Some(&mode) = self.modes.get(&(step, evaluation)) {
            return Ok(Some(mode));
        }
        let (a, b) = (&self.merged[step], &self.merged[evaluation]);
        if (&a.shape, a.dtype) != (&b.shape, b.dtype) {
            return Ok(None);
        }
        let mode = self.merged.push(Elementwise::Mode, &[step, evaluation])?;
        self.shown.insert(mode, evaluation);
        self.modes.insert((step, evaluation), mode);
        Ok(Some(mode))
    }

    /// Appends the nodes of training below position `end`.
    fn emit_until(&mut self, end: usize) {
        while self.next < end {
            self.emit();
        }
    }

    /// Appends the next node of training as it is.
    fn emit(&mut self) {
        let id = NodeId(self.next as u32);
        self.next += 1;
        if self.steps[id.index()].is_some() {
            return;
        }
        let node = &self.training[id];
        let to = match node.op {
            Op::Leaf(Leaf::Input(_)) => self.merged.push_input(node.shape.clone(), node.dtype),
            Op::Leaf(Leaf::Parameter(parameter)) => {
                let of = &self.training.parameters[parameter.index()];
                self.merged.push_parameter(of.path.clone(), node.shape.clone(), of.trained)
            }
            Op::Leaf(Leaf::Constant(constant)) => {
                self.merged.push_constant(self.training.constants[constant.0 as usize].clone())
            }
            _ => {
                let inputs: Vec<NodeId> = node
                    .inputs
                    .iter()
                    .map(|input| self.steps[input.index()].expect("operands come first"))
                    .collect();
                self.merged.push(node.op.clone(), &inputs).expect("training is well-formed")
            }
        };
        if let Op::Elementwise(Elementwise::Dropout { .. }) = node.op {
            let of = self.steps[node.inputs[0].index()].expect("operands come first");
            self.shown.insert(to, of);
        }
        self.steps[id.index()] = Some(to);
    }

    /// Where a constant of inference is.
    fn constant(&mut self, id: NodeId) -> NodeId {
        if let Some(at) = self.constants[id.index()] {
            return at;
        }
        let Op::Leaf(Leaf::Constant(constant)) = self.inference[id].op else {
            unreachable!("every other node of inference has a place")
        };
        let values = self.inference.constants[constant.0 as usize].clone();
        let at = self.merged.push_constant(values);
        self.constants[id.index()] = Some(at);
        at
    }
}

/// An operand of an inference node.
enum Operand {
    /// A node of the merged graph.
    Node(NodeId),
    /// A constant of inference.
    Constant(NodeId),
}
