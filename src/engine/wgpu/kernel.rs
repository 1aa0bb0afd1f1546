//! What one dispatch computes, as plain data: shapes, strides and ops, no device.

use super::element::Element;
use crate::graph::{DType, NodeId, Op};

/// One dispatch. Its buffers are bound in order: reads, writes, then the dropout key and the
/// status word where the body uses them. It computes in f32: halves are widened when they are read,
/// and rounded when they are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    /// What is read, in binding order.
    pub reads: Vec<Operand>,
    /// What is written, in binding order.
    pub writes: Vec<Write>,
    /// What is computed.
    pub body: Body,
}

/// A tensor that a kernel reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Operand {
    /// The node whose buffer is bound.
    pub node: NodeId,
    /// Where the elements are in that buffer.
    pub view: View,
    /// What the elements are.
    pub element: Element,
}

/// Where the elements of a tensor are in a buffer. Strides and offset count elements.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct View {
    /// Sizes of the dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Distance between neighbours along every dimension; 0 where one element is repeated.
    pub strides: Vec<usize>,
    /// Position of the first element.
    pub offset: usize,
}

/// A dense tensor that a kernel writes.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// Whose buffer is bound.
    pub target: Target,
    /// Sizes of the dimensions, outermost first.
    pub shape: Vec<usize>,
    /// What the elements are.
    pub element: Element,
}

/// Where a result goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// The buffer of a node, which is replaced.
    Value(NodeId),
    /// A sum of gradients, at a position in the block's accumulators, which is added to.
    Sum(usize),
}

/// What a kernel computes. `x`, `y` and so on are its reads in order; `g` is a gradient.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Elementwise steps.
    Chain(Chain),
    /// The product of the last two dimensions of `x: [.., m, k]` and `y: [.., k, n]`, whose leading
    /// dimensions are the output's (repeated ones have stride 0), then the chain on every element
    /// of it. The chain's reads are numbered as the kernel's.
    Matmul(Chain),
    /// Sum of `x` over the axes.
    Sum(Vec<usize>),
    /// Index of the first largest element of `x` along the axis.
    ArgMax(usize),
    /// Index of the first smallest element of `x` along the axis.
    ArgMin(usize),
    /// Softmax of `x` along the last axis.
    Softmax,
    /// From the output `y` and `g`.
    SoftmaxGradient,
    /// Log-softmax of `x` along the last axis.
    LogSoftmax,
    /// From the output `y` and `g`.
    LogSoftmaxGradient,
    /// Layer norm of `x` with `gamma` and perhaps `beta`.
    LayerNorm(f64),
    /// From `x`, `gamma` and `g`.
    LayerNormGradient(f64),
    /// From `x` and `g`.
    LayerNormGradientGamma(f64),
    /// Rows of the table `x` at the indices `y`.
    Embedding,
    /// Sum, for every row of the table, of the rows of `g` whose index (`x`) it is.
    EmbeddingGradient,
    /// `x` at the indices `y` along the axis.
    Gather(usize),
    /// Zeros to which `y` is added at the indices `x` along the axis.
    ScatterAdd(usize),
    /// The reads one after another along the axis.
    Concatenate(usize),
    /// `x` behind `before` zeros along the axis, and before as many as the output has room for.
    Pad {
        /// The padded dimension.
        axis: usize,
        /// Number of zeros before.
        before: usize,
    },
    /// A convolution, a pool or one of their gradients: the op says which.
    Window(Op),
}

/// Elementwise steps on elements in row-major order. Steps may differ in shape, not in the number
/// of elements: element `i` of every step is made from element `i` of its arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// Number of elements.
    pub elements: usize,
    /// What is computed, arguments first.
    pub steps: Vec<Step>,
    /// What goes to the kernel's writes, in their order.
    pub results: Vec<Argument>,
}

/// One elementwise op.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The op: elementwise, or dropout.
    pub op: Op,
    /// Its operands.
    pub arguments: Vec<Argument>,
    /// What the result is.
    pub dtype: DType,
}

/// Where a step's operand comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Argument {
    /// The kernel's read at the position, whose view is broadcast to the step's shape.
    Read(usize),
    /// An earlier step.
    Step(usize),
    /// The element of the product that a matmul has computed.
    Product,
}

impl View {
    /// All elements in row-major order from the buffer's start.
    pub fn dense(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), strides: row_major(shape), offset: 0 }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the elements are in row-major order from the buffer's start.
    pub fn is_dense(&self) -> bool {
        let dense = row_major(&self.shape);
        let placed = self.shape.iter().zip(&self.strides).zip(&dense);
        self.offset == 0 && placed.into_iter().all(|((&size, a), b)| size == 1 || a == b)
    }

    /// The view with dimensions of size 1 repeated to `shape`; missing leading ones are added.
    pub fn broadcast(&self, shape: &[usize]) -> Self {
        let added = shape.len() - self.shape.len();
        let stride = |axis: usize| match axis.checked_sub(added) {
            Some(own) if self.shape[own] == shape[axis] => self.strides[own],
            _ => 0,
        };
        let strides = (0..shape.len()).map(stride).collect();
        Self { shape: shape.to_vec(), strides, offset: self.offset }
    }
}

impl Kernel {
    /// Whether each buffer is written, in binding order.
    pub(super) fn written(&self) -> Vec<bool> {
        let mut written = vec![false; self.reads.len()];
        written.resize(self.reads.len() + self.writes.len(), true);
        written.extend(self.uses_key().then_some(false));
        written.extend(self.uses_status().then_some(true));
        written
    }

    /// About how often a thread goes round its loops, at most.
    pub(super) fn rounds(&self) -> usize {
        let of_read = |read: usize| self.reads[read].view.shape.clone();
        let columns = || of_read(0).last().copied().unwrap_or(1);
        match &self.body {
            Body::Chain(_) | Body::Embedding | Body::Gather(_) => 0,
            Body::Concatenate(_) | Body::Pad { .. } => 0,
            Body::Matmul(_) => columns(),
            Body::Sum(axes) => {
                let inputs: usize = axes.iter().map(|&axis| of_read(0)[axis]).product();
                // Long sums of few outputs are shared out among the threads of a workgroup.
                let outputs = of_read(0).iter().product::<usize>() / inputs.max(1);
                if outputs < 64 { inputs.div_ceil(64).max(512) } else { inputs }
            }
            Body::ArgMax(axis) | Body::ArgMin(axis) => of_read(0)[*axis],
            // Up to four loops over vectors of four.
            Body::Softmax | Body::SoftmaxGradient | Body::LogSoftmax => columns(),
            Body::LogSoftmaxGradient | Body::LayerNorm(_) => columns(),
            Body::LayerNormGradient(_) => columns(),
            // Statistics of a sixteenth of the rows in two such loops, then all rows.
            Body::LayerNormGradientGamma(_) => {
                let rows = of_read(0).iter().product::<usize>() / columns();
                rows.div_ceil(16) * columns() / 2 + rows
            }
            Body::EmbeddingGradient => {
                of_read(0).iter().product::<usize>() + self.writes[0].shape[0]
            }
            Body::ScatterAdd(axis) => of_read(1)[*axis] + self.writes[0].shape[*axis],
            Body::Window(op) => self.window_rounds(op),
        }
    }

    /// As [`Self::rounds`], for nested loops. Software Vulkan ends a loop in a round of its own, in
    /// which every loop within makes one too.
    fn window_rounds(&self, op: &Op) -> usize {
        let of_read = |read: usize| self.reads[read].view.shape.as_slice();
        let nested = |sizes: &[usize]| {
            let ascending = (1..).zip(sizes.iter().rev());
            ascending.fold(0, |inner, (loops, size)| size * (1 + inner) + loops)
        };
        match op {
            Op::Conv2d(_) => nested(&of_read(1)[1..]),
            Op::Conv2dInputGradient { convolution, .. } => match of_read(0) {
                [channels, _, k, l] => nested(&[channels / convolution.groups, *k, *l]),
                other => unreachable!("a weight of shape {other:?}"),
            },
            Op::Conv2dWeightGradient { .. } => match of_read(1) {
                [batch, _, rows, columns] => nested(&[*batch, *rows, *columns]),
                other => unreachable!("a gradient of shape {other:?}"),
            },
            // Every window that an element is in is searched.
            Op::MaxPool2dGradient(pool) => nested(&[pool.kernel, pool.kernel].concat()),
            Op::MaxPool2d(pool) => nested(&pool.kernel),
            Op::AvgPool2d { pool, .. } | Op::AvgPool2dGradient { pool, .. } => nested(&pool.kernel),
            op => unreachable!("{op} moves no window"),
        }
    }

    /// Whether the dropout key is bound.
    pub fn uses_key(&self) -> bool {
        let (Body::Chain(chain) | Body::Matmul(chain)) = &self.body else { return false };
        chain.steps.iter().any(|step| matches!(step.op, Op::Dropout { .. }))
    }

    /// Whether the status word is bound: for kernels whose indices may be out of range.
    pub fn uses_status(&self) -> bool {
        matches!(
            self.body,
            Body::Embedding | Body::EmbeddingGradient | Body::Gather(_) | Body::ScatterAdd(_)
        )
    }
}

fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}
