//! Functions of one element of every operand.

use std::fmt;

use super::rule::{Output, broadcast, require, same_floats};
use crate::graph::{DType, Node};

/// Computes every element of the output from the operands' elements at its position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Elementwise {
    /// Function of `x`.
    Unary(Unary),
    /// Function of `x` and a number.
    Scalar(Scalar, f64),
    /// Function of `x` and `y`; a dimension of size 1 is repeated.
    Binary(Binary),
    /// Logical negation of the Bool `x`.
    Not,
    /// Function of the Bools `x` and `y`; a dimension of size 1 is repeated.
    Logical(Logical),
    /// Function of the bits of the integers `x` and `y`; a dimension of size 1 is repeated.
    Bitwise(Bitwise),
    /// `x ? y`, a Bool; a dimension of size 1 is repeated.
    Compare(Comparison),
    /// `x ? number`, a Bool.
    CompareScalar(Comparison, f64),
    /// `y` where the Bool `x` is true, else `z`; a dimension of size 1 is repeated.
    Where,
    /// The number where the Bool `x` is true, else `y`.
    Fill(f64),
    /// `x` with elements of another type; true is 1.
    Cast(DType),
    /// Gradient of the activation function, from `g` and its operand or its output
    /// ([`Activation::from_output`]).
    ActivationGradient(Activation),
    /// `x` with elements dropped at random and the rest scaled by `1 / (1 - probability)`; the
    /// same op on `g` is its gradient. Which ones depends on (seed, step, microbatch, draw). In an
    /// evaluation it is `x`.
    Dropout {
        /// Position among the draws of one forward pass.
        draw: u32,
        /// Probability of dropping an element.
        probability: f64,
    },
    /// Numbers drawn at random, one for every element of `x`, whose values do not matter. They
    /// depend on (seed, step, microbatch, draw).
    Random {
        /// Position among the draws of one forward pass.
        draw: u32,
        /// What they are drawn from.
        distribution: Distribution,
    },
    /// `x` in a step, `y` in an evaluation.
    Mode,
}

/// What random numbers are drawn from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// 1 or 0.
    Bernoulli {
        /// Of 1.
        probability: f64,
    },
    /// Every number of `[low, high)` alike.
    Uniform {
        /// The smallest.
        low: f64,
        /// Above the largest.
        high: f64,
    },
    /// The bell curve.
    Normal {
        /// Its middle.
        mean: f64,
        /// Its standard deviation.
        deviation: f64,
    },
}

/// Functions of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the functions")]
pub enum Unary {
    Neg,
    Abs,
    Sign,
    Exp,
    Log,
    /// `log(1 + x)`, exact near 0.
    Log1p,
    Sqrt,
    Reciprocal,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Asinh,
    Acosh,
    Atanh,
    Erf,
    Floor,
    Ceil,
    /// To the next whole number, to the even one of two.
    Round,
    Trunc,
    /// Rounded to what 16 bits hold as IEEE 754 has them; so is its gradient, as in Burn.
    RoundF16,
    /// Rounded to what the first 16 bits of a float hold; so is its gradient, as in Burn.
    RoundBf16,
    /// A function whose gradient is one op.
    Activation(Activation),
}

/// Functions of a number whose gradients are single ops, as models compute them all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the functions")]
pub enum Activation {
    Tanh,
    Sigmoid,
    Relu,
    /// `x / 2 * (1 + erf(x / sqrt(2)))` (Hendrycks and Gimpel 2016, section 2).
    Gelu,
}

/// Functions of a tensor and a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the functions")]
pub enum Scalar {
    Add,
    Multiply,
    Power,
    /// The larger of the two.
    AtLeast,
    /// The smaller of the two.
    AtMost,
}

/// Functions of two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the functions")]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    /// Of integers without the fraction.
    Divide,
    /// `x - floor(x / y) * y`, which has the sign of `y`.
    Remainder,
    Power,
    /// The angle of the point `(y, x)`, for floats.
    Atan2,
    /// `sqrt(x^2 + y^2)`, for floats.
    Hypot,
}

/// Functions of two Bools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the functions")]
pub enum Logical {
    And,
    Or,
}

/// Functions of the bits of two integers. Those of GPUs have 32 bits, others 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the functions")]
pub enum Bitwise {
    And,
    Or,
    Xor,
    /// By as many bits as the last bits of `y` say.
    ShiftLeft,
    /// By as many bits as the last bits of `y` say; the sign stays.
    ShiftRight,
}

/// Comparisons of two elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the comparisons")]
pub enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
}

impl Activation {
    /// Whether the gradient is computed from the function's output instead of its operand.
    pub fn from_output(self) -> bool {
        matches!(self, Activation::Tanh | Activation::Sigmoid)
    }
}

impl From<Activation> for Unary {
    fn from(function: Activation) -> Self {
        Unary::Activation(function)
    }
}

impl Elementwise {
    /// Whether the result depends on the run's seed, step, microbatch or mode besides the operands.
    pub fn depends_on_run(&self) -> bool {
        matches!(self, Elementwise::Dropout { .. } | Elementwise::Random { .. } | Elementwise::Mode)
    }

    pub(super) fn operands(&self) -> usize {
        match self {
            Elementwise::Unary(_) | Elementwise::Scalar(..) | Elementwise::Not => 1,
            Elementwise::CompareScalar(..) | Elementwise::Cast(_) => 1,
            Elementwise::Dropout { .. } | Elementwise::Random { .. } => 1,
            Elementwise::Mode => 2,
            Elementwise::Binary(_) | Elementwise::Bitwise(_) => 2,
            Elementwise::Logical(_) | Elementwise::Compare(_) => 2,
            Elementwise::Fill(_) | Elementwise::ActivationGradient(_) => 2,
            Elementwise::Where => 3,
        }
    }

    pub(super) fn output(&self, operands: &[&Node]) -> Output {
        let x = operands[0];
        let same = |dtype| Ok((x.shape.clone(), dtype));
        match self {
            Elementwise::Not => same(require(x, DType::Bool)?),
            Elementwise::Unary(Unary::Neg | Unary::Abs | Unary::Sign) | Elementwise::Scalar(..) => {
                if x.dtype == DType::Bool {
                    return Err("numbers".into());
                }
                same(x.dtype)
            }
            Elementwise::Unary(_) | Elementwise::Dropout { .. } | Elementwise::Random { .. } => {
                same(require(x, DType::F32)?)
            }
            Elementwise::Mode => {
                if operands[1].shape != x.shape {
                    return Err("two operands of one shape".into());
                }
                same(require(operands[1], x.dtype)?)
            }
            Elementwise::ActivationGradient(_) => same_floats(operands),
            Elementwise::CompareScalar(..) => same(DType::Bool),
            Elementwise::Cast(dtype) => same(*dtype),
            Elementwise::Binary(Binary::Atan2 | Binary::Hypot) => {
                require(operands[1], require(x, DType::F32)?)?;
                Ok((broadcast(operands)?, DType::F32))
            }
            Elementwise::Bitwise(_) => {
                require(operands[1], require(x, DType::Int)?)?;
                Ok((broadcast(operands)?, DType::Int))
            }
            Elementwise::Binary(_) => {
                if x.dtype != operands[1].dtype || x.dtype == DType::Bool {
                    return Err("two numbers of one type".into());
                }
                Ok((broadcast(operands)?, x.dtype))
            }
            Elementwise::Logical(_) => {
                require(operands[1], require(x, DType::Bool)?)?;
                Ok((broadcast(operands)?, DType::Bool))
            }
            Elementwise::Compare(_) => {
                require(operands[1], x.dtype)?;
                Ok((broadcast(operands)?, DType::Bool))
            }
            Elementwise::Where => {
                require(x, DType::Bool)?;
                require(operands[2], operands[1].dtype)?;
                Ok((broadcast(operands)?, operands[1].dtype))
            }
            Elementwise::Fill(_) => {
                require(x, DType::Bool)?;
                Ok((broadcast(operands)?, operands[1].dtype))
            }
        }
    }
}

impl fmt::Display for Elementwise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Elementwise::Unary(unary) => write!(f, "{unary}"),
            Elementwise::Scalar(scalar, value) => write!(f, "{scalar} {value:?}"),
            Elementwise::Binary(binary) => write!(f, "{binary}"),
            Elementwise::Not => f.write_str("not"),
            Elementwise::Logical(logical) => write!(f, "{logical}"),
            Elementwise::Bitwise(bitwise) => write!(f, "bitwise_{bitwise}"),
            Elementwise::Compare(comparison) => write!(f, "{comparison}"),
            Elementwise::CompareScalar(comparison, value) => write!(f, "{comparison} {value:?}"),
            Elementwise::Where => f.write_str("where"),
            Elementwise::Fill(value) => write!(f, "fill {value:?}"),
            Elementwise::Cast(dtype) => write!(f, "cast {dtype}"),
            Elementwise::ActivationGradient(activation) => write!(f, "{activation}_gradient"),
            Elementwise::Dropout { draw, probability } => {
                write!(f, "dropout {draw} {probability:?}")
            }
            Elementwise::Random { draw, distribution } => {
                write!(f, "random {draw} {distribution}")
            }
            Elementwise::Mode => f.write_str("mode"),
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Distribution::Bernoulli { probability } => write!(f, "bernoulli {probability:?}"),
            Distribution::Uniform { low, high } => write!(f, "uniform {low:?} {high:?}"),
            Distribution::Normal { mean, deviation } => write!(f, "normal {mean:?} {deviation:?}"),
        }
    }
}

impl fmt::Display for Unary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unary::Activation(activation) => activation.fmt(f),
            other => f.write_str(&format!("{other:?}").to_lowercase()),
        }
    }
}

macro_rules! lowercase {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&format!("{self:?}").to_lowercase())
            }
        }
    )*};
}

lowercase!(Activation, Scalar, Binary, Bitwise, Logical, Comparison);
