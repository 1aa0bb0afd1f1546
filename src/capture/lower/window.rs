//! Convolutions and pools.

use burn_ir::{
    AdaptiveAvgPool2dOpIr, AvgPool2dOpIr, Conv2dOpIr, ConvTranspose2dOpIr, MaxPool2dOpIr, TensorIr,
};

use super::Lowering;
use crate::error::Result;
use crate::graph::{Binary, Constant, Convolution, NodeId, Op, Pool, Shape, Values, Windowed};

impl Lowering<'_> {
    pub(super) fn conv2d(&mut self, op: &Conv2dOpIr) -> Result<()> {
        let of = &op.options;
        let convolution = Convolution {
            stride: of.stride,
            padding: of.padding,
            dilation: of.dilation,
            groups: of.groups,
        };
        let node = self.apply(Windowed::Conv2d(convolution), &[&op.x, &op.weight])?;
        let node = self.biased(node, op.bias.as_ref())?;
        self.bind(&op.out, node)
    }

    /// The gradient that a convolution from the output's images to `x` has for its input.
    pub(super) fn conv_transpose2d(&mut self, op: &ConvTranspose2dOpIr) -> Result<()> {
        let of = &op.options;
        let convolution = Convolution {
            stride: of.stride,
            padding: of.padding.map(|padding| (padding, padding)),
            dilation: of.dilation,
            groups: of.groups,
        };
        let transposed = Windowed::Conv2dInputGradient { convolution, size: size(&op.out) };
        let node = self.apply(transposed, &[&op.weight, &op.x])?;
        let node = self.biased(node, op.bias.as_ref())?;
        self.bind(&op.out, node)
    }

    /// Images with a number added to every channel: an op of its own, whose gradient is a sum.
    fn biased(&mut self, images: NodeId, bias: Option<&TensorIr>) -> Result<NodeId> {
        let Some(bias) = bias else { return Ok(images) };
        let channels = bias.shape.num_elements();
        let bias = self.node(bias)?;
        let bias = self.reshape(bias, Shape(vec![1, channels, 1, 1]))?;
        self.push(Binary::Add, &[images, bias])
    }

    pub(super) fn max_pool2d(&mut self, op: &MaxPool2dOpIr) -> Result<()> {
        let pool = Pool {
            kernel: op.kernel_size,
            stride: op.stride,
            padding: op.padding,
            dilation: op.dilation,
            ceil: op.ceil_mode,
        };
        self.set(&op.out, Windowed::MaxPool2d(pool), &[&op.x])
    }

    pub(super) fn avg_pool2d(&mut self, op: &AvgPool2dOpIr) -> Result<()> {
        let pool = Pool {
            kernel: op.kernel_size,
            stride: op.stride,
            padding: op.padding,
            dilation: [1, 1],
            ceil: op.ceil_mode,
        };
        let count_padding = op.count_include_pad;
        self.set(&op.out, Windowed::AvgPool2d { pool, count_padding }, &[&op.x])
    }

    /// Where the output's size divides the image's, its windows are all the same. Elsewhere they
    /// are not, and two products with constant matrices take the means.
    pub(super) fn adaptive_avg_pool2d(&mut self, op: &AdaptiveAvgPool2dOpIr) -> Result<()> {
        let [height, width] = size(&op.x);
        let [rows, columns] = op.output_size;
        if height.is_multiple_of(rows) && width.is_multiple_of(columns) {
            let kernel = [height / rows, width / columns];
            let (padding, dilation) = ([0, 0], [1, 1]);
            let pool = Pool { kernel, stride: kernel, padding, dilation, ceil: false };
            return self.set(&op.out, Windowed::AvgPool2d { pool, count_padding: false }, &[&op.x]);
        }
        let x = self.node(&op.x)?;
        let across = self.means(width, columns, true);
        let down = self.means(height, rows, false);
        let x = self.push(Op::Matmul, &[x, across])?;
        let node = self.push(Op::Matmul, &[down, x])?;
        self.bind(&op.out, node)
    }

    /// The matrix `[1, 1, to, from]`, or its transpose, whose product with `from` numbers are `to`
    /// means: number `i` of those from `floor(i from / to)` to `ceil((i + 1) from / to)`.
    fn means(&mut self, from: usize, to: usize, transposed: bool) -> NodeId {
        let mut values = vec![0.0; from * to];
        for i in 0..to {
            let part = i * from / to..((i + 1) * from).div_ceil(to);
            let share = 1.0 / part.len() as f32;
            for j in part {
                values[if transposed { j * to + i } else { i * from + j }] = share;
            }
        }
        let [a, b] = if transposed { [from, to] } else { [to, from] };
        let shape = Shape(vec![1, 1, a, b]);
        self.graph.push_constant(Constant { shape, values: Values::F32(values) })
    }
}

/// Height and width.
fn size(images: &TensorIr) -> [usize; 2] {
    [images.shape[2], images.shape[3]]
}
