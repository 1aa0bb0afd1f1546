//! Ops that Burn records whole: matmul, linear, layer norm, embedding, attention. Those of images
//! are in `window.rs`, `pool.rs`, `volume.rs`, `interpolate.rs` and `sample.rs`.

use burn_ir::{AttentionOpIr, BatchNormOpIr, MatmulOpIr, ModuleOperationIr, TensorIr};

use super::{Lowering, number};
use crate::error::Result;
use crate::graph::{
    Activation, Binary, Constant, Elementwise, Indexing, Movement, NodeId, Op, RowWise, Scalar,
    Shape, Unary, Values,
};

impl Lowering<'_> {
    pub(super) fn module(&mut self, op: &ModuleOperationIr) -> Result<()> {
        use ModuleOperationIr as Module;
        match op {
            Module::Embedding(op) => {
                self.set(&op.out, Indexing::Embedding, &[&op.weights, &op.indices])
            }
            Module::LayerNorm(op) => {
                let mut inputs = vec![&op.input, &op.gamma];
                inputs.extend(&op.beta);
                self.set(&op.out, RowWise::LayerNorm(number(op.epsilon)), &inputs)
            }
            Module::Linear(op) => {
                let rank = op.x.shape.num_dims();
                let x = self.node(&op.x)?;
                let weight = self.node(&op.weight)?;
                let weight = self.with_rank(weight, rank)?;
                let mut node = self.product(x, weight)?;
                if let Some(bias) = &op.bias {
                    let bias = self.node(bias)?;
                    let bias = self.with_rank(bias, rank)?;
                    node = self.push(Binary::Add, &[node, bias])?;
                }
                self.bind(&op.out, node)
            }
            Module::Attention(op) => self.attention(op),
            Module::BatchNorm(op) => self.batch_norm(op),
            Module::Interpolate(op) => self.interpolate(op),
            Module::DeformableConv2d(op) => self.deformable_conv2d(op),
            Module::Conv3d(op) => self.conv3d(op),
            Module::ConvTranspose3d(op) => self.conv_transpose3d(op),
            _ => self.windowed(op),
        }
    }

    /// `(x - mean) / sqrt(variance + epsilon) * gamma + beta`, one of each for a channel.
    fn batch_norm(&mut self, op: &BatchNormOpIr) -> Result<()> {
        let mut dims = vec![1; op.x.shape.num_dims()];
        dims[1] = op.x.shape[1];
        let channels = |lowering: &mut Self, of: &TensorIr| {
            let node = lowering.node(of)?;
            lowering.reshape(node, Shape(dims.clone()))
        };
        let mean = channels(self, &op.mean)?;
        let variance = channels(self, &op.variance)?;
        let gamma = channels(self, &op.gamma)?;
        let beta = channels(self, &op.beta)?;
        let x = self.node(&op.x)?;
        let centred = self.push(Binary::Subtract, &[x, mean])?;
        let epsilon = Elementwise::Scalar(Scalar::Add, number(op.epsilon));
        let variance = self.push(epsilon, &[variance])?;
        let deviation = self.push(Unary::Sqrt, &[variance])?;
        let scale = self.push(Binary::Divide, &[gamma, deviation])?;
        let scaled = self.push(Binary::Multiply, &[centred, scale])?;
        let node = self.push(Binary::Add, &[scaled, beta])?;
        self.bind(&op.out, node)
    }

    pub(super) fn matmul(&mut self, op: &MatmulOpIr) -> Result<()> {
        let (x, y) = (self.node(&op.lhs)?, self.node(&op.rhs)?);
        let node = self.product(x, y)?;
        self.bind(&op.out, node)
    }

    /// `x @ y`. One matrix `y` for a whole batch `x` is one product of all rows of `x`, which
    /// makes the gradient of `y` one product too instead of a sum over the batch.
    fn product(&mut self, x: NodeId, y: NodeId) -> Result<NodeId> {
        let (x_dims, y_dims) = (self.graph[x].shape.0.clone(), self.graph[y].shape.0.clone());
        let matrix = y_dims.len().saturating_sub(2);
        let one_matrix = y_dims[..matrix].iter().all(|&dim| dim == 1);
        if !one_matrix || x_dims.len() != y_dims.len() || x_dims[..matrix].iter().all(|&d| d == 1) {
            return self.push(Op::Matmul, &[x, y]);
        }
        let (width, columns) = (x_dims[matrix + 1], y_dims[matrix + 1]);
        let rows = x_dims[..=matrix].iter().product();
        let x = self.reshape(x, Shape(vec![rows, width]))?;
        let y = self.reshape(y, Shape(vec![y_dims[matrix], columns]))?;
        let product = self.push(Op::Matmul, &[x, y])?;
        let mut dims = x_dims;
        dims[matrix + 1] = columns;
        self.reshape(product, Shape(dims))
    }

    /// `softmax(scale * q @ k^T + bias) @ v` with masked scores at minus infinity.
    fn attention(&mut self, op: &AttentionOpIr) -> Result<()> {
        let (query, key, value) =
            (self.node(&op.query)?, self.node(&op.key)?, self.node(&op.value)?);
        let width = op.query.shape[3] as f64;
        let scale = op.options.scale.map_or(1.0 / width.sqrt(), number);
        let key = self.push(Movement::Permute(vec![0, 1, 3, 2]), &[key])?;
        let scores = self.push(Op::Matmul, &[query, key])?;
        let mut scores = self.scaled(scores, scale)?;
        if let Some(softcap) = op.options.softcap {
            let cap = number(softcap);
            let x = self.scaled(scores, 1.0 / cap)?;
            let x = self.push(Unary::Activation(Activation::Tanh), &[x])?;
            scores = self.scaled(x, cap)?;
        }
        if let Some(bias) = &op.attn_bias {
            let bias = self.node(bias)?;
            scores = self.push(Binary::Add, &[scores, bias])?;
        }
        if let Some(mask) = &op.mask {
            // Finite, so that a row that is masked as a whole is no NaN; below it becomes zero.
            scores = self.masked(scores, mask, f32::MIN.into())?;
        }
        if op.options.is_causal {
            let mask = self.causal_mask(&op.query, &op.key)?;
            scores = self.push(Elementwise::Fill(f64::NEG_INFINITY), &[mask, scores])?;
        }
        let mut weights = self.push(RowWise::Softmax, &[scores])?;
        if let Some(mask) = &op.mask {
            weights = self.masked(weights, mask, 0.0)?;
        }
        let node = self.push(Op::Matmul, &[weights, value])?;
        self.bind(&op.out, node)
    }

    fn masked(&mut self, x: NodeId, mask: &TensorIr, value: f64) -> Result<NodeId> {
        let mask = self.node(mask)?;
        self.push(Elementwise::Fill(value), &[mask, x])
    }

    /// True where a key comes after its query; the last key belongs to the last query.
    fn causal_mask(&mut self, query: &TensorIr, key: &TensorIr) -> Result<NodeId> {
        let (queries, keys) = (query.shape[2], key.shape[2]);
        let later = |query: usize, key: usize| key + queries > query + keys;
        let mask = (0..queries).flat_map(|q| (0..keys).map(move |k| later(q, k))).collect();
        let shape = Shape(vec![1, 1, queries, keys]);
        Ok(self.graph.push_constant(Constant { shape, values: Values::Bool(mask) }))
    }

    /// `node` with dimensions of size 1 put in front.
    fn with_rank(&mut self, node: NodeId, rank: usize) -> Result<NodeId> {
        let dims = &self.graph[node].shape.0;
        let mut padded = vec![1; rank - dims.len()];
        padded.extend(dims);
        self.reshape(node, Shape(padded))
    }
}
