//! Arithmetic, reductions and elementwise functions.

use burn::tensor::Distribution as Drawn;
use burn_ir::{
    BinaryOpIr, FloatOperationIr, NumericOperationIr, RandomOpIr, ScalarOpIr, TensorIr, UnaryOpIr,
};

use super::{Lowering, number, shape};
use crate::error::Result;
use crate::graph::{
    Activation, Binary, Comparison, DType, Distribution, Elementwise, Indexing, NodeId, Reduction,
    Scalar, Shape, Unary,
};

impl Lowering<'_> {
    pub(super) fn numeric(&mut self, op: &NumericOperationIr) -> Result<()> {
        use NumericOperationIr as Numeric;
        match op {
            Numeric::Add(op) => self.binary(op, Binary::Add),
            Numeric::Sub(op) => self.binary(op, Binary::Subtract),
            Numeric::Mul(op) => self.binary(op, Binary::Multiply),
            Numeric::Div(op) => self.binary(op, Binary::Divide),
            Numeric::AddScalar(op) => self.scalar(op, Scalar::Add, number(op.rhs)),
            Numeric::SubScalar(op) => self.scalar(op, Scalar::Add, -number(op.rhs)),
            Numeric::MulScalar(op) => self.scalar(op, Scalar::Multiply, number(op.rhs)),
            Numeric::DivScalar(op) if op.lhs.dtype.is_float() => {
                self.scalar(op, Scalar::Multiply, 1.0 / number(op.rhs))
            }
            Numeric::PowiScalar(op) => self.scalar(op, Scalar::Power, number(op.rhs)),
            Numeric::ClampMin(op) => self.scalar(op, Scalar::AtLeast, number(op.rhs)),
            Numeric::ClampMax(op) => self.scalar(op, Scalar::AtMost, number(op.rhs)),
            Numeric::Clamp(op) => {
                let above = Elementwise::Scalar(Scalar::AtLeast, number(op.min));
                let above = self.apply(above, &[&op.tensor])?;
                let node =
                    self.push(Elementwise::Scalar(Scalar::AtMost, number(op.max)), &[above])?;
                self.bind(&op.out, node)
            }
            Numeric::Abs(op) => self.unary(op, Unary::Abs),
            Numeric::Neg(op) => self.unary(op, Unary::Neg),
            Numeric::Sign(op) => self.unary(op, Unary::Sign),
            Numeric::Full(op) => self.full(&op.out, number(op.value)),
            _ => self.compared_or_reduced(op),
        }
    }

    fn compared_or_reduced(&mut self, op: &NumericOperationIr) -> Result<()> {
        use Comparison::{Greater, GreaterEqual, Less, LessEqual};
        use NumericOperationIr as Numeric;
        match op {
            Numeric::Greater(op) => self.compare(op, Greater),
            Numeric::GreaterEqual(op) => self.compare(op, GreaterEqual),
            Numeric::Lower(op) => self.compare(op, Less),
            Numeric::LowerEqual(op) => self.compare(op, LessEqual),
            Numeric::GreaterElem(op) => self.compare_scalar(op, Greater),
            Numeric::GreaterEqualElem(op) => self.compare_scalar(op, GreaterEqual),
            Numeric::LowerElem(op) => self.compare_scalar(op, Less),
            Numeric::LowerEqualElem(op) => self.compare_scalar(op, LessEqual),
            Numeric::Sum(op) => {
                let sum = self.sum_all(&op.input)?;
                self.bind_reshaped(&op.out, sum)
            }
            Numeric::Mean(op) => {
                let sum = self.sum_all(&op.input)?;
                let mean = self.scaled(sum, 1.0 / op.input.shape.num_elements() as f64)?;
                self.bind_reshaped(&op.out, mean)
            }
            Numeric::SumDim(op) => self.set(&op.out, Reduction::Sum(vec![op.axis]), &[&op.input]),
            Numeric::SumDims(op) => {
                self.set(&op.out, Reduction::Sum(op.axes.clone()), &[&op.input])
            }
            Numeric::MeanDim(op) => {
                let sum = self.apply(Reduction::Sum(vec![op.axis]), &[&op.input])?;
                let mean = self.scaled(sum, 1.0 / op.input.shape[op.axis] as f64)?;
                self.bind(&op.out, mean)
            }
            Numeric::CumSum(op) => {
                let sum = Reduction::CumulativeSum { axis: op.axis, reverse: false };
                self.set(&op.out, sum, &[&op.input])
            }
            Numeric::ArgMax(op) => self.set(&op.out, Reduction::ArgMax(op.axis), &[&op.input]),
            Numeric::ArgMin(op) => self.set(&op.out, Reduction::ArgMin(op.axis), &[&op.input]),
            Numeric::MaxDim(op) => {
                self.extreme(&op.input, Reduction::ArgMax(op.axis), op.axis, &op.out)
            }
            Numeric::MinDim(op) => {
                self.extreme(&op.input, Reduction::ArgMin(op.axis), op.axis, &op.out)
            }
            Numeric::Max(op) => self.extreme_of_all(&op.input, Reduction::ArgMax(0), &op.out),
            Numeric::Min(op) => self.extreme_of_all(&op.input, Reduction::ArgMin(0), &op.out),
            Numeric::Pad(op) => self.pad(op),
            Numeric::IntRandom(op) => {
                let drawn = self.drawn(op)?;
                let whole = self.push(Unary::Floor, &[drawn])?;
                let node = self.push(Elementwise::Cast(DType::Int), &[whole])?;
                self.bind(&op.out, node)
            }
            _ => self.unknown(op),
        }
    }

    pub(super) fn float(&mut self, op: &FloatOperationIr) -> Result<()> {
        use FloatOperationIr as Float;
        match op {
            Float::Exp(op) => self.unary(op, Unary::Exp),
            Float::Log(op) => self.unary(op, Unary::Log),
            Float::Sqrt(op) => self.unary(op, Unary::Sqrt),
            Float::Recip(op) => self.unary(op, Unary::Reciprocal),
            Float::Sin(op) => self.unary(op, Unary::Sin),
            Float::Cos(op) => self.unary(op, Unary::Cos),
            Float::Erf(op) => self.unary(op, Unary::Erf),
            Float::Floor(op) => self.unary(op, Unary::Floor),
            Float::Tanh(op) => self.unary(op, Activation::Tanh),
            Float::Log1p(op) => {
                let above = self.apply(Elementwise::Scalar(Scalar::Add, 1.0), &[&op.input])?;
                let node = self.push(Unary::Log, &[above])?;
                self.bind(&op.out, node)
            }
            Float::PowfScalar(op) => self.scalar(op, Scalar::Power, number(op.rhs)),
            Float::IntoInt(op) => self.cast(&op.input, &op.out),
            Float::Random(op) => {
                let node = self.drawn(op)?;
                self.bind(&op.out, node)
            }
            Float::Matmul(op) => self.matmul(op),
            Float::GridSample2d(op) => self.grid_sample2d(op),
            _ => self.unknown(op),
        }
    }

    /// The numbers of the last draw, as floats.
    fn drawn(&mut self, op: &RandomOpIr) -> Result<NodeId> {
        let draw = self.draws.len() as u32 - 1;
        let distribution = match op.distribution {
            Drawn::Default if op.out.dtype.is_int() => return self.unknown(op),
            Drawn::Default => Distribution::Uniform { low: 0.0, high: 1.0 },
            Drawn::Bernoulli(probability) => Distribution::Bernoulli { probability },
            Drawn::Uniform(low, high) => Distribution::Uniform { low, high },
            Drawn::Normal(mean, deviation) => Distribution::Normal { mean, deviation },
        };
        let like = self.zeros(shape(&op.out.shape))?;
        self.push(Elementwise::Random { draw, distribution }, &[like])
    }

    pub(super) fn unary(&mut self, op: &UnaryOpIr, unary: impl Into<Unary>) -> Result<()> {
        self.set(&op.out, Elementwise::Unary(unary.into()), &[&op.input])
    }

    pub(super) fn scaled(&mut self, node: NodeId, factor: f64) -> Result<NodeId> {
        self.push(Elementwise::Scalar(Scalar::Multiply, factor), &[node])
    }

    fn binary(&mut self, op: &BinaryOpIr, binary: Binary) -> Result<()> {
        self.set(&op.out, binary, &[&op.lhs, &op.rhs])
    }

    fn scalar(&mut self, op: &ScalarOpIr, scalar: Scalar, value: f64) -> Result<()> {
        self.set(&op.out, Elementwise::Scalar(scalar, value), &[&op.lhs])
    }

    fn compare(&mut self, op: &BinaryOpIr, comparison: Comparison) -> Result<()> {
        self.set(&op.out, Elementwise::Compare(comparison), &[&op.lhs, &op.rhs])
    }

    fn compare_scalar(&mut self, op: &ScalarOpIr, comparison: Comparison) -> Result<()> {
        self.set(&op.out, Elementwise::CompareScalar(comparison, number(op.rhs)), &[&op.lhs])
    }

    fn sum_all(&mut self, x: &TensorIr) -> Result<NodeId> {
        self.apply(Reduction::Sum((0..x.shape.num_dims()).collect()), &[x])
    }

    /// The element that `arg` points at, so that its gradient goes to one element only.
    fn extreme(&mut self, x: &TensorIr, arg: Reduction, axis: usize, out: &TensorIr) -> Result<()> {
        let x = self.node(x)?;
        let index = self.push(arg, &[x])?;
        let node = self.push(Indexing::Gather(axis), &[x, index])?;
        self.bind(out, node)
    }

    fn extreme_of_all(&mut self, x: &TensorIr, arg: Reduction, out: &TensorIr) -> Result<()> {
        let elements = shape(&x.shape).elements();
        let x = self.node(x)?;
        let x = self.reshape(x, Shape(vec![elements]))?;
        let index = self.push(arg, &[x])?;
        let node = self.push(Indexing::Gather(0), &[x, index])?;
        self.bind_reshaped(out, node)
    }
}
