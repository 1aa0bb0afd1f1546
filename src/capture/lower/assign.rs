//! Elements that are read or updated at positions that a tensor of integers names.

use burn::tensor::IndexingUpdateOp;
use burn_ir::{GatherNdOpIr, ScatterNdOpIr, ScatterOpIr, SelectAssignOpIr, TensorIr};

use super::{Lowering, shape};
use crate::error::Result;
use crate::graph::{
    Binary, Comparison, Constant, DType, Elementwise, Indexing, Movement, NodeId, Scalar, Shape,
    Values,
};

impl Lowering<'_> {
    pub(super) fn scatter(&mut self, op: &ScatterOpIr) -> Result<()> {
        let (tensor, index) = (self.node(&op.tensor)?, self.node(&op.indices)?);
        let value = self.node(&op.value)?;
        let node = self.updated(tensor, op.dim, index, value, op.update)?;
        self.bind(&op.out, node)
    }

    pub(super) fn select_assign(&mut self, op: &SelectAssignOpIr) -> Result<()> {
        let (tensor, value) = (self.node(&op.tensor)?, self.node(&op.value)?);
        let index = self.along(&op.indices, op.dim, &shape(&op.value.shape))?;
        let node = self.updated(tensor, op.dim, index, value, op.update)?;
        self.bind(&op.out, node)
    }

    pub(super) fn gather_nd(&mut self, op: &GatherNdOpIr) -> Result<()> {
        let rows = Rows::of(&op.data, &op.indices);
        let index = self.row_index(&op.data, &op.indices, &rows)?;
        let data = self.node(&op.data)?;
        let data = self.reshape(data, Shape(vec![rows.count, rows.width]))?;
        let node = self.push(Indexing::Gather(0), &[data, index])?;
        self.bind_reshaped(&op.out, node)
    }

    pub(super) fn scatter_nd(&mut self, op: &ScatterNdOpIr) -> Result<()> {
        let rows = Rows::of(&op.data, &op.indices);
        let index = self.row_index(&op.data, &op.indices, &rows)?;
        let (data, values) = (self.node(&op.data)?, self.node(&op.values)?);
        let data = self.reshape(data, Shape(vec![rows.count, rows.width]))?;
        let values = self.reshape(values, Shape(vec![rows.named, rows.width]))?;
        let node = self.updated(data, 0, index, values, op.reduction)?;
        self.bind_reshaped(&op.out, node)
    }

    /// A list of indices along `axis`, repeated to the shape of what is at them.
    pub(super) fn along(&mut self, index: &TensorIr, axis: usize, to: &Shape) -> Result<NodeId> {
        let mut dims = vec![1; to.rank()];
        dims[axis] = index.shape[0];
        let index = self.node(index)?;
        let index = self.reshape(index, Shape(dims))?;
        self.push(Movement::Expand(to.clone()), &[index])
    }

    /// `tensor` with elements of an axis updated. Burn says what it computes, and what its
    /// gradients are, for indices that differ; only sums may meet at one.
    fn updated(
        &mut self,
        tensor: NodeId,
        axis: usize,
        index: NodeId,
        value: NodeId,
        update: IndexingUpdateOp,
    ) -> Result<NodeId> {
        let size = self.graph[tensor].shape.0[axis];
        let scatter = Indexing::ScatterAdd { axis, size };
        if let IndexingUpdateOp::Add = update {
            let added = self.scattered(scatter, index, value)?;
            return self.push(Binary::Add, &[tensor, added]);
        }
        let value = self.replacement(tensor, axis, index, value, update)?;
        let spread = self.scattered(scatter, index, value)?;
        let one = Constant {
            shape: Shape(vec![1; self.graph[value].shape.rank()]),
            values: Values::F32(vec![1.0]),
        };
        let one = self.graph.push_constant(one);
        let ones = self.push(Movement::Expand(self.graph[value].shape.clone()), &[one])?;
        let hits = self.push(scatter, &[index, ones])?;
        let hit = self.push(Elementwise::CompareScalar(Comparison::Greater, 0.0), &[hits])?;
        self.push(Elementwise::Where, &[hit, spread, tensor])
    }

    /// Values of any type at positions; integers by way of floats, which have them up to 2^24.
    fn scattered(&mut self, op: Indexing, index: NodeId, value: NodeId) -> Result<NodeId> {
        let dtype = self.graph[value].dtype;
        if dtype == DType::F32 {
            return self.push(op, &[index, value]);
        }
        let value = self.push(Elementwise::Cast(DType::F32), &[value])?;
        let sum = self.push(op, &[index, value])?;
        self.push(Elementwise::Cast(dtype), &[sum])
    }

    /// What the elements that `index` names become.
    fn replacement(
        &mut self,
        tensor: NodeId,
        axis: usize,
        index: NodeId,
        value: NodeId,
        update: IndexingUpdateOp,
    ) -> Result<NodeId> {
        let wins = match update {
            IndexingUpdateOp::Assign | IndexingUpdateOp::Add => return Ok(value),
            IndexingUpdateOp::Mul => None,
            IndexingUpdateOp::Min => Some(Comparison::LessEqual),
            IndexingUpdateOp::Max => Some(Comparison::GreaterEqual),
        };
        let old = self.push(Indexing::Gather(axis), &[tensor, index])?;
        let Some(wins) = wins else { return self.push(Binary::Multiply, &[old, value]) };
        let wins = self.push(Elementwise::Compare(wins), &[value, old])?;
        self.push(Elementwise::Where, &[wins, value, old])
    }

    /// The rows that `indices` name, repeated to their width.
    fn row_index(&mut self, data: &TensorIr, indices: &TensorIr, rows: &Rows) -> Result<NodeId> {
        let dims = data.shape.to_vec();
        let index = self.node(indices)?;
        let index = self.reshape(index, Shape(vec![rows.named, rows.depth]))?;
        let mut row = None;
        for at in 0..rows.depth {
            let stride: usize = dims[at + 1..rows.depth].iter().product();
            let part = self.pick(index, 1, vec![at])?;
            let part = self.push(Elementwise::Scalar(Scalar::Multiply, stride as f64), &[part])?;
            row = Some(match row {
                Some(row) => self.push(Binary::Add, &[row, part])?,
                None => part,
            });
        }
        let row = row.unwrap_or(index);
        self.push(Movement::Expand(Shape(vec![rows.named, rows.width])), &[row])
    }
}

/// A tensor as a matrix, of which indices name rows.
struct Rows {
    count: usize,
    width: usize,
    /// How many rows are named.
    named: usize,
    /// How many indices name one.
    depth: usize,
}

impl Rows {
    /// The last dimension of `indices` is that of one name.
    fn of(data: &TensorIr, indices: &TensorIr) -> Self {
        let last = indices.shape.num_dims() - 1;
        let depth = indices.shape[last];
        let (data, indices) = (data.shape.to_vec(), indices.shape.to_vec());
        Self {
            count: data[..depth].iter().product(),
            width: data[depth..].iter().product(),
            named: indices[..last].iter().product(),
            depth,
        }
    }
}
