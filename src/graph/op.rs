//! The ops. Each has one shape rule (`infer`), one gradient rule (`differentiate`), and one
//! implementation per engine.

use super::{ConstantId, Convolution, DType, InputId, ParameterId, Pool, Shape};

/// What a node computes. Names the operands `x`, `y` and so on in the order of the node's inputs;
/// `g` is the gradient of the loss with respect to the output of the op in the name.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// A tensor of the batch.
    Input(InputId),
    /// A trainable tensor.
    Parameter(ParameterId),
    /// A tensor captured with its values.
    Constant(ConstantId),

    /// Elementwise function of `x`.
    Unary(Unary),
    /// Elementwise function of `x` and a number.
    Scalar(Scalar, f64),
    /// Elementwise function of `x` and `y`; a dimension of size 1 is repeated.
    Binary(Binary),
    /// Elementwise `x ? y`, a Bool; a dimension of size 1 is repeated.
    Compare(Comparison),
    /// Elementwise `x ? number`, a Bool.
    CompareScalar(Comparison, f64),
    /// `y` where the Bool `x` is true, else `z`; a dimension of size 1 is repeated.
    Where,
    /// The number where the Bool `x` is true, else `y`.
    Fill(f64),
    /// `x` with elements of another type; true is 1.
    Cast(DType),

    /// Product of the last two dimensions, batched over equal (or size 1) leading ones.
    Matmul,

    /// Sum over the axes, which stay with size 1.
    Sum(Vec<usize>),
    /// Index of the largest element along the axis, which stays with size 1.
    ArgMax(usize),
    /// Index of the smallest element along the axis, which stays with size 1.
    ArgMin(usize),

    /// The same elements, in order, in another shape.
    Reshape(Shape),
    /// Dimension `i` of the output is dimension `axes[i]` of `x`.
    Permute(Vec<usize>),
    /// Dimensions of size 1 repeated to the shape.
    Expand(Shape),
    /// Elements `start..end` of the axis.
    Slice {
        /// The sliced dimension.
        axis: usize,
        /// First index.
        start: usize,
        /// Index after the last.
        end: usize,
    },
    /// Zeros put before and after `x` along the axis.
    Pad {
        /// The padded dimension.
        axis: usize,
        /// Number of zeros before.
        before: usize,
        /// Number of zeros after.
        after: usize,
    },
    /// The inputs one after another along the axis.
    Concatenate(usize),

    /// `out[i][j][k] = x[i][y[i][j][k]][k]` for axis 1 of 3.
    Gather(usize),
    /// Zeros of `size` along the axis, to which `out[i][x[i][j][k]][k] += y[i][j][k]`.
    ScatterAdd {
        /// The indexed dimension.
        axis: usize,
        /// Size of that dimension in the output.
        size: usize,
    },
    /// Rows of the table `x: [n, d]` for indices `y: [...]`, giving `[..., d]`.
    Embedding,
    /// Gradient of [`Op::Embedding`] for its table of `rows` rows, from indices `x` and `g`.
    EmbeddingGradient {
        /// Rows of the table.
        rows: usize,
    },

    /// `exp(x) / sum(exp(x))` along the last axis.
    Softmax,
    /// Gradient of [`Op::Softmax`] from its output `y` and `g`.
    SoftmaxGradient,
    /// `x - log(sum(exp(x)))` along the last axis.
    LogSoftmax,
    /// Gradient of [`Op::LogSoftmax`] from its output `y` and `g`.
    LogSoftmaxGradient,
    /// `(x - mean) / sqrt(variance + epsilon) * gamma (+ beta)` along the last axis.
    LayerNorm(f64),
    /// Gradient of [`Op::LayerNorm`] for `x`, from `x`, `gamma` and `g`.
    LayerNormGradient(f64),
    /// Gradient of [`Op::LayerNorm`] for `gamma`, from `x` and `g`.
    LayerNormGradientGamma(f64),
    /// Cross-correlation of images `x: [n, c, h, w]` with the weight `y: [d, c / groups, i, j]`,
    /// giving `[n, d, windows]`: the sum of `x * y` over every window.
    Conv2d(Convolution),
    /// Gradient of [`Op::Conv2d`] for `x`, from the weight and `g`. It is the transposed
    /// convolution of `g`.
    Conv2dInputGradient {
        /// How the windows move.
        convolution: Convolution,
        /// Height and width of `x`.
        size: [usize; 2],
    },
    /// Gradient of [`Op::Conv2d`] for the weight, from `x` and `g`.
    Conv2dWeightGradient {
        /// How the windows move.
        convolution: Convolution,
        /// Height and width of the weight.
        kernel: [usize; 2],
    },
    /// The largest element of every window of `x: [n, c, h, w]`, minus infinity if there is none.
    MaxPool2d(Pool),
    /// Gradient of [`Op::MaxPool2d`] for `x`, from `x` and `g`: it goes to the first largest
    /// element of the window in row-major order, or to the last that is NaN.
    MaxPool2dGradient(Pool),
    /// The mean of every window of `x: [n, c, h, w]`.
    AvgPool2d {
        /// How the windows move; their dilation is 1.
        pool: Pool,
        /// Whether padding counts as elements that are zero.
        count_padding: bool,
    },
    /// Gradient of [`Op::AvgPool2d`] for `x`, from `g`.
    AvgPool2dGradient {
        /// How the windows move; their dilation is 1.
        pool: Pool,
        /// Whether padding counts as elements that are zero.
        count_padding: bool,
        /// Height and width of `x`.
        size: [usize; 2],
    },
    /// Gradient of the elementwise function, from its `x` and `g`
    /// (for [`Unary::Tanh`] and [`Unary::Sigmoid`]: from its output and `g`).
    UnaryGradient(Unary),

    /// `x` with elements dropped at random and the rest scaled by `1 / (1 - probability)`; the
    /// same op on `g` is its gradient. Which ones depends on (seed, step, microbatch, layer).
    Dropout {
        /// Position among the dropout layers of one forward pass.
        layer: u32,
        /// Probability of dropping an element.
        probability: f64,
    },
}

/// Elementwise functions of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the functions")]
pub enum Unary {
    Neg,
    Abs,
    Sign,
    Exp,
    Log,
    Sqrt,
    Reciprocal,
    Sin,
    Cos,
    Erf,
    Tanh,
    Sigmoid,
    Relu,
    /// `x / 2 * (1 + erf(x / sqrt(2)))` (Hendrycks and Gimpel 2016, section 2).
    Gelu,
    /// Logical negation of a Bool.
    Not,
}

/// Elementwise functions of a tensor and a number.
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

/// Elementwise functions of two tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the functions")]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    And,
    Or,
}

/// Elementwise comparisons.
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

impl Op {
    /// How many operands the op takes.
    pub fn operand_counts(&self) -> std::ops::RangeInclusive<usize> {
        match self {
            Op::Input(_) | Op::Parameter(_) | Op::Constant(_) => 0..=0,
            Op::Unary(_) | Op::Scalar(..) | Op::CompareScalar(..) | Op::Cast(_) => 1..=1,
            Op::Sum(_) | Op::ArgMax(_) | Op::ArgMin(_) | Op::Softmax | Op::LogSoftmax => 1..=1,
            Op::Reshape(_) | Op::Permute(_) | Op::Expand(_) | Op::Slice { .. } => 1..=1,
            Op::Pad { .. } | Op::Dropout { .. } => 1..=1,
            Op::Binary(_) | Op::Compare(_) | Op::Fill(_) | Op::Matmul | Op::Gather(_) => 2..=2,
            Op::ScatterAdd { .. } | Op::Embedding | Op::EmbeddingGradient { .. } => 2..=2,
            Op::SoftmaxGradient | Op::LogSoftmaxGradient | Op::UnaryGradient(_) => 2..=2,
            Op::LayerNormGradientGamma(_) | Op::MaxPool2dGradient(_) => 2..=2,
            Op::Conv2d(_) | Op::Conv2dInputGradient { .. } | Op::Conv2dWeightGradient { .. } => {
                2..=2
            }
            Op::MaxPool2d(_) | Op::AvgPool2d { .. } | Op::AvgPool2dGradient { .. } => 1..=1,
            Op::LayerNorm(_) => 2..=3,
            Op::Where | Op::LayerNormGradient(_) => 3..=3,
            Op::Concatenate(_) => 1..=usize::MAX,
        }
    }

    /// Whether the op only describes elements that already exist.
    pub fn is_movement(&self) -> bool {
        matches!(self, Op::Reshape(_) | Op::Permute(_) | Op::Expand(_) | Op::Slice { .. })
    }

    /// Whether the op has no operands.
    pub fn is_leaf(&self) -> bool {
        matches!(self, Op::Input(_) | Op::Parameter(_) | Op::Constant(_))
    }
}
