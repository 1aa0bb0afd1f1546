//! What one dispatch computes, as plain data: shapes, strides and ops, no device.

use super::element::Element;
use crate::graph::{DType, Elementwise, Indexing, Join, NodeId, Reduction, RowWise, Windowed};

/// One dispatch. Its buffers are bound in order: reads, writes, then the run's key and the
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
    /// A sum or an extreme of `x`.
    Reduction(Reduction),
    /// The reads one after another, or `x` between zeros.
    Join(Join),
    /// Reads of `x` or sums of `y`, at indices. Those that are out of range are reported.
    Indexing(Indexing),
    /// A function of rows.
    RowWise(RowWise),
    /// A convolution, a pool or one of their gradients.
    Windowed(Windowed),
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
    /// The op.
    pub op: Elementwise,
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

    /// Size of the last dimension, 1 where there is none.
    pub(super) fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
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

    /// Whether the run's key is bound.
    pub fn uses_key(&self) -> bool {
        let (Body::Chain(chain) | Body::Matmul(chain)) = &self.body else { return false };
        chain.steps.iter().any(|step| step.op.depends_on_run())
    }

    /// Whether the status word is bound: for kernels whose indices may be out of range.
    pub fn uses_status(&self) -> bool {
        matches!(self.body, Body::Indexing(_))
    }
}

fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}
