//! Ops that move, pick and compare elements.

use burn::tensor::DType as BurnDType;
use burn_ir::{BaseOperationIr, BoolOperationIr, TensorIr};

use super::{Lowering, dtype, number, shape};
use crate::error::Result;
use crate::graph::{
    Comparison, Constant, DType, Elementwise, Indexing, Join, Logical, Movement, NodeId, Reduction,
    Shape, Unary, Values,
};

impl Lowering<'_> {
    pub(super) fn base(&mut self, op: &BaseOperationIr) -> Result<()> {
        use BaseOperationIr as Base;
        match op {
            Base::Reshape(op) => {
                let node = self.node(&op.input)?;
                self.bind_reshaped(&op.out, node)
            }
            Base::SwapDims(op) => {
                let mut axes: Vec<usize> = (0..op.input.shape.num_dims()).collect();
                axes.swap(op.dim1, op.dim2);
                self.set(&op.out, Movement::Permute(axes), &[&op.input])
            }
            Base::Permute(op) => {
                self.set(&op.out, Movement::Permute(op.axes.clone()), &[&op.input])
            }
            Base::Expand(op) => self.expand(&op.input, &op.out),
            Base::Slice(op) => {
                let node = self.node(&op.tensor)?;
                let node = self.slice(node, &op.ranges)?;
                self.bind(&op.out, node)
            }
            Base::SliceAssign(op) => self.slice_assign(op),
            Base::Flip(op) => {
                let mut node = self.node(&op.input)?;
                for &axis in &op.axes {
                    let size = self.graph[node].shape.0[axis];
                    node = self.pick(node, axis, (0..size).rev().collect())?;
                }
                self.bind(&op.out, node)
            }
            Base::Unfold(op) => self.unfold(op),
            Base::RepeatDim(op) => self.repeat(&op.tensor, op.dim, op.times, &op.out),
            Base::Cat(op) => {
                let tensors: Vec<&TensorIr> = op.tensors.iter().collect();
                self.set(&op.out, Join::Concatenate(op.dim), &tensors)
            }
            Base::Cast(op) => self.cast(&op.input, &op.out),
            Base::Ones(op) => self.full(&op.out, 1.0),
            // What is in there is not said; Burn's host device has zeros.
            Base::Zeros(op) | Base::Empty(op) => self.full(&op.out, 0.0),
            _ => self.indexed_or_compared(op),
        }
    }

    fn indexed_or_compared(&mut self, op: &BaseOperationIr) -> Result<()> {
        use BaseOperationIr as Base;
        match op {
            Base::Select(op) => {
                let tensor = self.node(&op.tensor)?;
                let index = self.along(&op.indices, op.dim, &shape(&op.out.shape))?;
                let node = self.push(Indexing::Gather(op.dim), &[tensor, index])?;
                self.bind(&op.out, node)
            }
            Base::SelectAssign(op) if !op.tensor.dtype.is_bool() => self.select_assign(op),
            Base::Gather(op) => {
                self.set(&op.out, Indexing::Gather(op.dim), &[&op.tensor, &op.indices])
            }
            Base::Scatter(op) if !op.tensor.dtype.is_bool() => self.scatter(op),
            Base::GatherNd(op) => self.gather_nd(op),
            Base::ScatterNd(op) if !op.data.dtype.is_bool() => self.scatter_nd(op),
            Base::MaskWhere(op) => {
                self.set(&op.out, Elementwise::Where, &[&op.mask, &op.value, &op.tensor])
            }
            Base::MaskFill(op) => {
                self.set(&op.out, Elementwise::Fill(number(op.value)), &[&op.mask, &op.tensor])
            }
            Base::Equal(op) => {
                self.set(&op.out, Elementwise::Compare(Comparison::Equal), &[&op.lhs, &op.rhs])
            }
            Base::NotEqual(op) => {
                self.set(&op.out, Elementwise::Compare(Comparison::NotEqual), &[&op.lhs, &op.rhs])
            }
            Base::EqualElem(op) => {
                let compare = Elementwise::CompareScalar(Comparison::Equal, number(op.rhs));
                self.set(&op.out, compare, &[&op.lhs])
            }
            Base::NotEqualElem(op) => {
                let compare = Elementwise::CompareScalar(Comparison::NotEqual, number(op.rhs));
                self.set(&op.out, compare, &[&op.lhs])
            }
            Base::Any(op) => {
                let axes = (0..op.input.shape.num_dims()).collect();
                let any = self.any(&op.input, axes, Comparison::NotEqual)?;
                self.bind_reshaped(&op.out, any)
            }
            Base::AnyDim(op) => {
                let any = self.any(&op.input, vec![op.axis], Comparison::NotEqual)?;
                self.bind(&op.out, any)
            }
            Base::All(op) => {
                let axes = (0..op.input.shape.num_dims()).collect();
                let none = self.any(&op.input, axes, Comparison::Equal)?;
                let all = self.push(Elementwise::Not, &[none])?;
                self.bind_reshaped(&op.out, all)
            }
            Base::AllDim(op) => {
                let none = self.any(&op.input, vec![op.axis], Comparison::Equal)?;
                let all = self.push(Elementwise::Not, &[none])?;
                self.bind(&op.out, all)
            }
            _ => self.unknown(op),
        }
    }

    /// Whether, along the axes, an element compares to zero so.
    fn any(&mut self, x: &TensorIr, axes: Vec<usize>, to_zero: Comparison) -> Result<NodeId> {
        let found = self.apply(Elementwise::CompareScalar(to_zero, 0.0), &[x])?;
        let ones = self.push(Elementwise::Cast(DType::F32), &[found])?;
        let count = self.push(Reduction::Sum(axes), &[ones])?;
        self.push(Elementwise::CompareScalar(Comparison::Greater, 0.0), &[count])
    }

    pub(super) fn bool(&mut self, op: &BoolOperationIr) -> Result<()> {
        match op {
            BoolOperationIr::IntoFloat(op) | BoolOperationIr::IntoInt(op) => {
                self.cast(&op.input, &op.out)
            }
            BoolOperationIr::Not(op) => self.set(&op.out, Elementwise::Not, &[&op.input]),
            BoolOperationIr::And(op) => self.set(&op.out, Logical::And, &[&op.lhs, &op.rhs]),
            BoolOperationIr::Or(op) => self.set(&op.out, Logical::Or, &[&op.lhs, &op.rhs]),
            BoolOperationIr::Xor(op) => {
                self.set(&op.out, Elementwise::Compare(Comparison::NotEqual), &[&op.lhs, &op.rhs])
            }
        }
    }

    /// A conversion between element types; nothing happens where the graph has one type for both. A
    /// float may be widened or narrowed, which rounds it, until it is cast back.
    pub(super) fn cast(&mut self, input: &TensorIr, out: &TensorIr) -> Result<()> {
        let node = self.value(input.id)?;
        if out.dtype.is_float() && out.dtype != BurnDType::F32 && input.dtype == BurnDType::F32 {
            let node = match out.dtype {
                BurnDType::F64 => node,
                BurnDType::F16 => self.push(Unary::RoundF16, &[node])?,
                BurnDType::BF16 => self.push(Unary::RoundBf16, &[node])?,
                other => return dtype(other).map(|_| ()),
            };
            self.other_floats.insert(out.id, out.dtype);
            return self.bind(out, node);
        }
        let to = dtype(out.dtype)?;
        let node = if self.graph[node].dtype == to {
            node
        } else {
            self.push(Elementwise::Cast(to), &[node])?
        };
        self.bind(out, node)
    }

    /// Burn aligns shapes at the last dimension; the graph keeps ranks equal.
    fn expand(&mut self, input: &TensorIr, out: &TensorIr) -> Result<()> {
        let mut dims = vec![1; out.shape.num_dims() - input.shape.num_dims()];
        dims.extend(input.shape.to_vec());
        let node = self.node(input)?;
        let node = self.reshape(node, Shape(dims))?;
        let node = self.push(Movement::Expand(shape(&out.shape)), &[node])?;
        self.bind(out, node)
    }

    /// `[.., d, ..]` repeated along `dim`, by way of `[.., times, d, ..]`.
    fn repeat(&mut self, x: &TensorIr, dim: usize, times: usize, out: &TensorIr) -> Result<()> {
        let mut dims = x.shape.to_vec();
        dims.insert(dim, 1);
        let node = self.node(x)?;
        let node = self.reshape(node, Shape(dims.clone()))?;
        dims[dim] = times;
        let node = self.push(Movement::Expand(Shape(dims)), &[node])?;
        self.bind_reshaped(out, node)
    }

    /// Zeros of a shape.
    pub(super) fn zeros(&mut self, shape: Shape) -> Result<NodeId> {
        let one = Shape(vec![1; shape.rank()]);
        let constant = Constant { shape: one, values: Values::F32(vec![0.0]) };
        let zero = self.graph.push_constant(constant);
        self.push(Movement::Expand(shape), &[zero])
    }

    /// One number in the shape of `out`.
    pub(super) fn full(&mut self, out: &TensorIr, value: f64) -> Result<()> {
        let values = match dtype(out.dtype)? {
            DType::F32 => Values::F32(vec![value as f32]),
            DType::Int => Values::Int(vec![value as i64]),
            DType::Bool => Values::Bool(vec![value != 0.0]),
        };
        let one = Shape(vec![1; out.shape.num_dims()]);
        let node = self.graph.push_constant(Constant { shape: one, values });
        let node = self.push(Movement::Expand(shape(&out.shape)), &[node])?;
        self.bind(out, node)
    }
}
