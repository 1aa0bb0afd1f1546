//! Activation functions and softmax.

use burn_ir::{ActivationOperationIr, DimOpIr};

use super::{Lowering, number};
use crate::error::Result;
use crate::graph::{Binary, Comparison, NodeId, Op, Scalar, Unary};

impl Lowering<'_> {
    pub(super) fn activation(&mut self, op: &ActivationOperationIr) -> Result<()> {
        use ActivationOperationIr as Activation;
        match op {
            Activation::Relu(op) => self.unary(op, Unary::Relu),
            Activation::Gelu(op) => self.unary(op, Unary::Gelu),
            Activation::Sigmoid(op) => self.unary(op, Unary::Sigmoid),
            Activation::Softmax(op) => {
                let x = self.node(&op.input)?;
                self.softmax(op, x, Op::Softmax)
            }
            Activation::LogSoftmax(op) => {
                let x = self.node(&op.input)?;
                self.softmax(op, x, Op::LogSoftmax)
            }
            Activation::Softmin(op) => {
                let x = self.apply(Op::Unary(Unary::Neg), &[&op.input])?;
                self.softmax(op, x, Op::Softmax)
            }
            Activation::PRelu(op) => {
                let x = self.node(&op.lhs)?;
                let slope = self.node(&op.rhs)?;
                let negative = self.push(Op::CompareScalar(Comparison::Less, 0.0), &[x])?;
                let scaled = self.push(Op::Binary(Binary::Multiply), &[x, slope])?;
                let node = self.push(Op::Where, &[negative, scaled, x])?;
                self.bind(&op.out, node)
            }
            Activation::LeakyRelu(op) => {
                let x = self.node(&op.lhs)?;
                let positive = self.push(Op::CompareScalar(Comparison::GreaterEqual, 0.0), &[x])?;
                let scaled = self.scaled(x, number(op.rhs))?;
                let node = self.push(Op::Where, &[positive, x, scaled])?;
                self.bind(&op.out, node)
            }
            Activation::HardSigmoid(op) => {
                let x = self.node(&op.tensor)?;
                let x = self.scaled(x, number(op.alpha))?;
                let x = self.push(Op::Scalar(Scalar::Add, number(op.beta)), &[x])?;
                let x = self.push(Op::Scalar(Scalar::AtLeast, 0.0), &[x])?;
                let node = self.push(Op::Scalar(Scalar::AtMost, 1.0), &[x])?;
                self.bind(&op.out, node)
            }
            Activation::LogSigmoid(op) => {
                // min(x, 0) - log(1 + exp(-|x|)) does not overflow where log(sigmoid(x)) does.
                let x = self.node(&op.input)?;
                let size = self.push(Op::Unary(Unary::Abs), &[x])?;
                let power = self.push(Op::Unary(Unary::Neg), &[size])?;
                let tail = self.push(Op::Unary(Unary::Exp), &[power])?;
                let above = self.push(Op::Scalar(Scalar::Add, 1.0), &[tail])?;
                let log = self.push(Op::Unary(Unary::Log), &[above])?;
                let below = self.push(Op::Scalar(Scalar::AtMost, 0.0), &[x])?;
                let node = self.push(Op::Binary(Binary::Subtract), &[below, log])?;
                self.bind(&op.out, node)
            }
            _ => self.unknown(op),
        }
    }

    /// Softmax along any axis: the axis is swapped to the end and back.
    fn softmax(&mut self, op: &DimOpIr, x: NodeId, softmax: Op) -> Result<()> {
        let last = op.input.shape.num_dims() - 1;
        if op.axis == last {
            let node = self.push(softmax, &[x])?;
            return self.bind(&op.out, node);
        }
        let mut axes: Vec<usize> = (0..=last).collect();
        axes.swap(op.axis, last);
        let x = self.push(Op::Permute(axes.clone()), &[x])?;
        let y = self.push(softmax, &[x])?;
        let node = self.push(Op::Permute(axes), &[y])?;
        self.bind(&op.out, node)
    }
}
