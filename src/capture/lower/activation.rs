//! Activation functions and softmax.

use burn_ir::{ActivationOperationIr, DimOpIr};

use super::{Lowering, number};
use crate::error::Result;
use crate::graph::{
    Activation, Binary, Comparison, Elementwise, Movement, NodeId, RowWise, Scalar, Unary,
};

impl Lowering<'_> {
    pub(super) fn activation(&mut self, op: &ActivationOperationIr) -> Result<()> {
        use ActivationOperationIr as Recorded;
        match op {
            Recorded::Relu(op) => self.unary(op, Activation::Relu),
            Recorded::Gelu(op) => self.unary(op, Activation::Gelu),
            Recorded::Sigmoid(op) => self.unary(op, Activation::Sigmoid),
            Recorded::Softmax(op) => {
                let x = self.node(&op.input)?;
                self.softmax(op, x, RowWise::Softmax)
            }
            Recorded::LogSoftmax(op) => {
                let x = self.node(&op.input)?;
                self.softmax(op, x, RowWise::LogSoftmax)
            }
            Recorded::Softmin(op) => {
                let x = self.apply(Unary::Neg, &[&op.input])?;
                self.softmax(op, x, RowWise::Softmax)
            }
            Recorded::PRelu(op) => {
                let x = self.node(&op.lhs)?;
                let slope = self.node(&op.rhs)?;
                let negative =
                    self.push(Elementwise::CompareScalar(Comparison::Less, 0.0), &[x])?;
                let scaled = self.push(Binary::Multiply, &[x, slope])?;
                let node = self.push(Elementwise::Where, &[negative, scaled, x])?;
                self.bind(&op.out, node)
            }
            Recorded::LeakyRelu(op) => {
                let x = self.node(&op.lhs)?;
                let negative =
                    self.push(Elementwise::CompareScalar(Comparison::Less, 0.0), &[x])?;
                let scaled = self.scaled(x, number(op.rhs))?;
                let node = self.push(Elementwise::Where, &[negative, scaled, x])?;
                self.bind(&op.out, node)
            }
            Recorded::HardSigmoid(op) => {
                let x = self.node(&op.tensor)?;
                let x = self.scaled(x, number(op.alpha))?;
                let x = self.push(Elementwise::Scalar(Scalar::Add, number(op.beta)), &[x])?;
                let x = self.push(Elementwise::Scalar(Scalar::AtLeast, 0.0), &[x])?;
                let node = self.push(Elementwise::Scalar(Scalar::AtMost, 1.0), &[x])?;
                self.bind(&op.out, node)
            }
            Recorded::LogSigmoid(op) => {
                // min(x, 0) - log(1 + exp(-|x|)) does not overflow where log(sigmoid(x)) does.
                let x = self.node(&op.input)?;
                let size = self.push(Unary::Abs, &[x])?;
                let power = self.push(Unary::Neg, &[size])?;
                let tail = self.push(Unary::Exp, &[power])?;
                let above = self.push(Elementwise::Scalar(Scalar::Add, 1.0), &[tail])?;
                let log = self.push(Unary::Log, &[above])?;
                let below = self.push(Elementwise::Scalar(Scalar::AtMost, 0.0), &[x])?;
                let node = self.push(Binary::Subtract, &[below, log])?;
                self.bind(&op.out, node)
            }
            _ => self.unknown(op),
        }
    }

    /// Softmax along any axis: the axis is swapped to the end and back.
    fn softmax(&mut self, op: &DimOpIr, x: NodeId, softmax: RowWise) -> Result<()> {
        let last = op.input.shape.num_dims() - 1;
        if op.axis == last {
            let node = self.push(softmax, &[x])?;
            return self.bind(&op.out, node);
        }
        let mut axes: Vec<usize> = (0..=last).collect();
        axes.swap(op.axis, last);
        let x = self.push(Movement::Permute(axes.clone()), &[x])?;
        let y = self.push(softmax, &[x])?;
        let node = self.push(Movement::Permute(axes), &[y])?;
        self.bind(&op.out, node)
    }
}
