//! Products, extremes and order along axes.

use burn_ir::{NumericOperationIr, TensorIr};

use super::{Lowering, shape};
use crate::error::Result;
use crate::graph::{Indexing, Movement, NodeId, Reduction, Shape, Unary};

impl Lowering<'_> {
    pub(super) fn ordered(&mut self, op: &NumericOperationIr) -> Result<()> {
        use NumericOperationIr as Numeric;
        match op {
            Numeric::CumSum(op) => {
                let sum = Reduction::CumulativeSum { axis: op.axis, reverse: false };
                self.set(&op.out, sum, &[&op.input])
            }
            Numeric::CumProd(op) => {
                self.set(&op.out, Reduction::CumulativeProduct(op.axis), &[&op.input])
            }
            Numeric::CumMax(op) => {
                self.set(&op.out, Reduction::CumulativeMax(op.axis), &[&op.input])
            }
            Numeric::CumMin(op) => {
                self.set(&op.out, Reduction::CumulativeMin(op.axis), &[&op.input])
            }
            Numeric::Prod(op) => {
                let x = self.flat(&op.input)?;
                let product = self.last_product(x, 0)?;
                self.bind_reshaped(&op.out, product)
            }
            Numeric::ProdDim(op) => {
                let x = self.node(&op.input)?;
                let product = self.last_product(x, op.axis)?;
                self.bind(&op.out, product)
            }
            Numeric::ArgMax(op) => self.set(&op.out, Reduction::ArgMax(op.axis), &[&op.input]),
            Numeric::ArgMin(op) => self.set(&op.out, Reduction::ArgMin(op.axis), &[&op.input]),
            Numeric::ArgSort(op) => {
                let x = self.node(&op.input)?;
                let index = self.order(x, op.dim, op.descending)?;
                self.bind(&op.out, index)
            }
            Numeric::ArgTopK(op) => {
                let x = self.node(&op.input)?;
                let index = self.largest_positions(x, op.axis, op.accumulator_len)?;
                self.bind(&op.out, index)
            }
            _ => self.picked(op),
        }
    }

    /// Elements of the tensor, by their position: so their gradients go to one element only.
    fn picked(&mut self, op: &NumericOperationIr) -> Result<()> {
        use NumericOperationIr as Numeric;
        match op {
            Numeric::Max(op) => self.extreme_of_all(&op.input, Reduction::ArgMax(0), &op.out),
            Numeric::Min(op) => self.extreme_of_all(&op.input, Reduction::ArgMin(0), &op.out),
            Numeric::MaxDim(op) => {
                let x = self.node(&op.input)?;
                let index = self.push(Reduction::ArgMax(op.axis), &[x])?;
                self.read_at(x, op.axis, index, &op.out)
            }
            Numeric::MinDim(op) => {
                let x = self.node(&op.input)?;
                let index = self.push(Reduction::ArgMin(op.axis), &[x])?;
                self.read_at(x, op.axis, index, &op.out)
            }
            Numeric::MaxDimWithIndices(op) => {
                let x = self.node(&op.tensor)?;
                let index = self.push(Reduction::ArgMax(op.dim), &[x])?;
                self.bind(&op.out_indices, index)?;
                self.read_at(x, op.dim, index, &op.out)
            }
            Numeric::MinDimWithIndices(op) => {
                let x = self.node(&op.tensor)?;
                let index = self.push(Reduction::ArgMin(op.dim), &[x])?;
                self.bind(&op.out_indices, index)?;
                self.read_at(x, op.dim, index, &op.out)
            }
            Numeric::MaxAbs(op) => {
                let x = self.flat(&op.input)?;
                let size = self.largest_size(x, 0)?;
                self.bind_reshaped(&op.out, size)
            }
            Numeric::MaxAbsDim(op) => {
                let x = self.node(&op.input)?;
                let size = self.largest_size(x, op.axis)?;
                self.bind(&op.out, size)
            }
            Numeric::Sort(op) => {
                let x = self.node(&op.input)?;
                let index = self.order(x, op.dim, op.descending)?;
                self.read_at(x, op.dim, index, &op.out)
            }
            Numeric::SortWithIndices(op) => {
                let x = self.node(&op.input)?;
                let index = self.order(x, op.dim, op.descending)?;
                self.bind(&op.out_indices, index)?;
                self.read_at(x, op.dim, index, &op.out)
            }
            Numeric::TopK(op) => {
                let x = self.node(&op.input)?;
                let index = self.largest_positions(x, op.axis, op.accumulator_len)?;
                self.read_at(x, op.axis, index, &op.out)
            }
            Numeric::TopKWithIndices(op) => {
                let x = self.node(&op.tensor)?;
                let index = self.largest_positions(x, op.dim, op.k)?;
                self.bind(&op.out_indices, index)?;
                self.read_at(x, op.dim, index, &op.out)
            }
            _ => self.unknown(op),
        }
    }

    /// All elements in one line.
    fn flat(&mut self, x: &TensorIr) -> Result<NodeId> {
        let elements = shape(&x.shape).elements();
        let x = self.node(x)?;
        self.reshape(x, Shape(vec![elements]))
    }

    /// The last of the products along the axis.
    fn last_product(&mut self, x: NodeId, axis: usize) -> Result<NodeId> {
        let products = self.push(Reduction::CumulativeProduct(axis), &[x])?;
        let end = self.graph[x].shape.0[axis];
        self.push(Movement::Slice { axis, start: end - 1, end }, &[products])
    }

    fn order(&mut self, x: NodeId, axis: usize, descending: bool) -> Result<NodeId> {
        self.push(Reduction::ArgSort { axis, descending }, &[x])
    }

    /// Positions of the `count` largest elements along the axis, the largest first.
    fn largest_positions(&mut self, x: NodeId, axis: usize, count: usize) -> Result<NodeId> {
        let order = self.order(x, axis, true)?;
        self.push(Movement::Slice { axis, start: 0, end: count }, &[order])
    }

    fn largest_size(&mut self, x: NodeId, axis: usize) -> Result<NodeId> {
        let sizes = self.push(Unary::Abs, &[x])?;
        let index = self.push(Reduction::ArgMax(axis), &[sizes])?;
        self.push(Indexing::Gather(axis), &[sizes, index])
    }

    fn read_at(&mut self, x: NodeId, axis: usize, index: NodeId, out: &TensorIr) -> Result<()> {
        // The model may use the positions elsewhere.
        let index = self.fresh_view(index)?;
        let node = self.push(Indexing::Gather(axis), &[x, index])?;
        self.bind(out, node)
    }

    fn extreme_of_all(&mut self, x: &TensorIr, arg: Reduction, out: &TensorIr) -> Result<()> {
        let x = self.flat(x)?;
        let index = self.push(arg, &[x])?;
        let node = self.push(Indexing::Gather(0), &[x, index])?;
        self.bind_reshaped(out, node)
    }
}
