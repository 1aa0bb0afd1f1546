//! Arithmetic, reductions and elementwise functions.

use burn::tensor::Distribution as Drawn;
use burn_ir::{
    BinaryOpIr, CrossOpIr, FloatOperationIr, IntOperationIr, MatmulOpIr, NumericOperationIr,
    RandomOpIr, ScalarIr, ScalarOpIr, TensorIr, UnaryOpIr,
};

use super::{Lowering, dtype, number, shape};
use crate::error::Result;
use crate::graph::{
    Activation, Binary, Bitwise, Comparison, Constant, DType, Distribution, Elementwise, Join,
    Movement, NodeId, Op, Reduction, Scalar, Shape, Unary, Values,
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
            Numeric::DivScalar(op) => self.with_number(op, Binary::Divide),
            Numeric::Rem(op) => self.binary(op, Binary::Remainder),
            Numeric::RemScalar(op) => self.with_number(op, Binary::Remainder),
            Numeric::Powi(op) => self.whole_power(op),
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
                let mean = self.shared_out(sum, op.input.shape.num_elements())?;
                self.bind_reshaped(&op.out, mean)
            }
            Numeric::SumDim(op) => self.set(&op.out, Reduction::Sum(vec![op.axis]), &[&op.input]),
            Numeric::SumDims(op) => {
                self.set(&op.out, Reduction::Sum(op.axes.clone()), &[&op.input])
            }
            Numeric::MeanDim(op) => {
                let sum = self.apply(Reduction::Sum(vec![op.axis]), &[&op.input])?;
                let mean = self.shared_out(sum, op.input.shape[op.axis])?;
                self.bind(&op.out, mean)
            }
            Numeric::Pad(op) => self.pad(op),
            Numeric::IntRandom(op) => self.drawn_integers(op),
            _ => self.ordered(op),
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
            Float::Tan(op) => self.unary(op, Unary::Tan),
            Float::ArcSin(op) => self.unary(op, Unary::Asin),
            Float::ArcCos(op) => self.unary(op, Unary::Acos),
            Float::ArcTan(op) => self.unary(op, Unary::Atan),
            Float::Sinh(op) => self.unary(op, Unary::Sinh),
            Float::Cosh(op) => self.unary(op, Unary::Cosh),
            Float::ArcSinh(op) => self.unary(op, Unary::Asinh),
            Float::ArcCosh(op) => self.unary(op, Unary::Acosh),
            Float::ArcTanh(op) => self.unary(op, Unary::Atanh),
            Float::Erf(op) => self.unary(op, Unary::Erf),
            Float::Floor(op) => self.unary(op, Unary::Floor),
            Float::Ceil(op) => self.unary(op, Unary::Ceil),
            Float::Round(op) => self.unary(op, Unary::Round),
            Float::Trunc(op) => self.unary(op, Unary::Trunc),
            Float::Tanh(op) => self.unary(op, Activation::Tanh),
            Float::Log1p(op) => self.unary(op, Unary::Log1p),
            Float::ArcTan2(op) => self.binary(op, Binary::Atan2),
            Float::Hypot(op) => self.binary(op, Binary::Hypot),
            Float::Powf(op) => self.binary(op, Binary::Power),
            Float::IsNan(op) => {
                // Only NaN is not in order.
                let largest = Elementwise::CompareScalar(Comparison::LessEqual, f64::INFINITY);
                let ordered = self.apply(largest, &[&op.input])?;
                let node = self.push(Elementwise::Not, &[ordered])?;
                self.bind(&op.out, node)
            }
            Float::IsInf(op) => {
                let size = self.apply(Unary::Abs, &[&op.input])?;
                let equal = Elementwise::CompareScalar(Comparison::Equal, f64::INFINITY);
                let node = self.push(equal, &[size])?;
                self.bind(&op.out, node)
            }
            Float::Cross(op) => self.cross(op),
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

    fn drawn_integers(&mut self, op: &RandomOpIr) -> Result<()> {
        let drawn = self.drawn(op)?;
        let whole = match op.distribution {
            // Burn cuts what is behind the point.
            Drawn::Normal(..) => self.push(Unary::Trunc, &[drawn])?,
            Drawn::Uniform(_, high) => {
                let below = self.push(Unary::Floor, &[drawn])?;
                self.push(Elementwise::Scalar(Scalar::AtMost, high - 1.0), &[below])?
            }
            Drawn::Bernoulli(_) | Drawn::Default => drawn,
        };
        let node = self.push(Elementwise::Cast(DType::Int), &[whole])?;
        self.bind(&op.out, node)
    }

    /// The numbers of the last draw, as floats.
    fn drawn(&mut self, op: &RandomOpIr) -> Result<NodeId> {
        let draw = self.draws.len() as u32 - 1;
        let distribution = match op.distribution {
            Drawn::Default if op.out.dtype.is_int() => {
                return self.unknown(&NumericOperationIr::IntRandom(op.clone()));
            }
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

    /// A function of a tensor and a number that the graph has for two tensors only.
    fn with_number(&mut self, op: &ScalarOpIr, function: impl Into<Op>) -> Result<()> {
        let x = self.node(&op.lhs)?;
        let y = self.one_number(dtype(op.lhs.dtype)?, op.rhs, op.lhs.shape.num_dims());
        let node = self.push(function, &[x, y])?;
        self.bind(&op.out, node)
    }

    /// A tensor of one element.
    fn one_number(&mut self, dtype: DType, number: ScalarIr, rank: usize) -> NodeId {
        let values = match dtype {
            DType::F32 => Values::F32(vec![number.elem()]),
            DType::Int => Values::Int(vec![number.elem()]),
            DType::Bool => Values::Bool(vec![number.elem()]),
        };
        self.graph.push_constant(Constant { shape: Shape(vec![1; rank]), values })
    }

    /// A tensor to the power of integers.
    fn whole_power(&mut self, op: &BinaryOpIr) -> Result<()> {
        let x = self.node(&op.lhs)?;
        let mut y = self.node(&op.rhs)?;
        if self.graph[x].dtype != self.graph[y].dtype {
            y = self.push(Elementwise::Cast(DType::F32), &[y])?;
        }
        let node = self.push(Binary::Power, &[x, y])?;
        self.bind(&op.out, node)
    }

    /// A sum divided by the number of its terms; of integers without the fraction.
    fn shared_out(&mut self, sum: NodeId, terms: usize) -> Result<NodeId> {
        if self.graph[sum].dtype == DType::F32 {
            return self.scaled(sum, 1.0 / terms as f64);
        }
        let rank = self.graph[sum].shape.rank();
        let terms = self.one_number(DType::Int, ScalarIr::Int(terms as i64), rank);
        self.push(Binary::Divide, &[sum, terms])
    }

    /// The product of two vectors that is orthogonal to both.
    fn cross(&mut self, op: &CrossOpIr) -> Result<()> {
        let operands = [self.node(&op.lhs)?, self.node(&op.rhs)?];
        let mut product = |first: usize, second: usize| -> Result<NodeId> {
            let [x, y] = operands;
            let mut part = |of, start| {
                self.push(Movement::Slice { axis: op.dim, start, end: start + 1 }, &[of])
            };
            let parts = [part(x, first % 3)?, part(y, second % 3)?];
            self.push(Binary::Multiply, &parts)
        };
        let mut parts = Vec::with_capacity(3);
        for axis in 0..3 {
            parts.push([product(axis + 1, axis + 2)?, product(axis + 2, axis + 1)?]);
        }
        let parts = parts.iter().map(|pair| self.push(Binary::Subtract, pair));
        let parts: Vec<NodeId> = parts.collect::<Result<_>>()?;
        let node = self.push(Join::Concatenate(op.dim), &parts)?;
        self.bind(&op.out, node)
    }

    pub(super) fn int(&mut self, op: &IntOperationIr) -> Result<()> {
        use IntOperationIr as Int;
        match op {
            Int::IntoFloat(op) => self.cast(&op.input, &op.out),
            Int::BitwiseAnd(op) => self.bits(op, Bitwise::And),
            Int::BitwiseOr(op) => self.bits(op, Bitwise::Or),
            Int::BitwiseXor(op) => self.bits(op, Bitwise::Xor),
            Int::BitwiseLeftShift(op) => self.bits(op, Bitwise::ShiftLeft),
            Int::BitwiseRightShift(op) => self.bits(op, Bitwise::ShiftRight),
            Int::BitwiseAndScalar(op) => self.with_number(op, Bitwise::And),
            Int::BitwiseOrScalar(op) => self.with_number(op, Bitwise::Or),
            Int::BitwiseXorScalar(op) => self.with_number(op, Bitwise::Xor),
            Int::BitwiseLeftShiftScalar(op) => self.with_number(op, Bitwise::ShiftLeft),
            Int::BitwiseRightShiftScalar(op) => self.with_number(op, Bitwise::ShiftRight),
            Int::BitwiseNot(op) => {
                let x = self.node(&op.input)?;
                let rank = op.input.shape.num_dims();
                let all = self.one_number(DType::Int, ScalarIr::Int(-1), rank);
                let node = self.push(Bitwise::Xor, &[x, all])?;
                self.bind(&op.out, node)
            }
            Int::Matmul(op) => self.int_matmul(op),
        }
    }

    fn bits(&mut self, op: &BinaryOpIr, bitwise: Bitwise) -> Result<()> {
        self.set(&op.out, bitwise, &[&op.lhs, &op.rhs])
    }

    /// `[.., m, k, 1]` times `[.., 1, k, n]`, summed over `k`: products are made for floats.
    fn int_matmul(&mut self, op: &MatmulOpIr) -> Result<()> {
        let (mut x, mut y) = (op.lhs.shape.to_vec(), op.rhs.shape.to_vec());
        let rank = x.len();
        x.push(1);
        y.insert(rank - 2, 1);
        let (lhs, rhs) = (self.node(&op.lhs)?, self.node(&op.rhs)?);
        let lhs = self.reshape(lhs, Shape(x))?;
        let rhs = self.reshape(rhs, Shape(y))?;
        let products = self.push(Binary::Multiply, &[lhs, rhs])?;
        let node = self.push(Reduction::Sum(vec![rank - 1]), &[products])?;
        self.bind_reshaped(&op.out, node)
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
}
