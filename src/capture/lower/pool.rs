//! Pools of images, of rows, which are images of height 1, and of volumes.

use burn_ir::{AdaptiveAvgPool3dOpIr, AvgPool1dOpIr, AvgPool2dOpIr, ModuleOperationIr, TensorIr};

use super::Lowering;
use super::interpolate::Resampling;
use crate::error::Result;
use crate::graph::{
    Constant, Indexing, Join, Movement, NodeId, Pool, Reduction, Shape, Values, Windowed,
};

impl Lowering<'_> {
    pub(super) fn pooled(&mut self, op: &ModuleOperationIr) -> Result<()> {
        use ModuleOperationIr as Module;
        match op {
            Module::MaxPool1d(op) => {
                let (kernel, stride) = (op.kernel_size, op.stride);
                let pool = row_pool(kernel, stride, op.padding, op.dilation, op.ceil_mode);
                self.max_pool(&op.x, pool, &op.out, None)
            }
            Module::MaxPool1dWithIndices(op) => {
                let (kernel, stride) = (op.kernel_size, op.stride);
                let pool = row_pool(kernel, stride, op.padding, op.dilation, op.ceil_mode);
                self.max_pool(&op.x, pool, &op.out, Some(&op.out_indices))
            }
            Module::MaxPool2d(op) => {
                let (kernel, stride, padding) = (op.kernel_size, op.stride, op.padding);
                let (dilation, ceil) = (op.dilation, op.ceil_mode);
                let pool = Pool { kernel, stride, padding, dilation, ceil };
                self.max_pool(&op.x, pool, &op.out, None)
            }
            Module::MaxPool2dWithIndices(op) => {
                let (kernel, stride, padding) = (op.kernel_size, op.stride, op.padding);
                let (dilation, ceil) = (op.dilation, op.ceil_mode);
                let pool = Pool { kernel, stride, padding, dilation, ceil };
                self.max_pool(&op.x, pool, &op.out, Some(&op.out_indices))
            }
            Module::AvgPool1d(op) => self.avg_pool1d(op),
            Module::AvgPool2d(op) => self.avg_pool2d(op),
            Module::AdaptiveAvgPool1d(op) => {
                let x = self.images(&op.x)?;
                let node = self.adaptive(x, [1, op.output_size])?;
                self.bind_reshaped(&op.out, node)
            }
            Module::AdaptiveAvgPool2d(op) => {
                let x = self.images(&op.x)?;
                let node = self.adaptive(x, op.output_size)?;
                self.bind(&op.out, node)
            }
            Module::AdaptiveAvgPool3d(op) => self.adaptive_avg_pool3d(op),
            _ => self.unknown(op),
        }
    }

    /// The largest elements, and where they are, if that is read.
    fn max_pool(
        &mut self,
        x: &TensorIr,
        pool: Pool,
        out: &TensorIr,
        indices: Option<&TensorIr>,
    ) -> Result<()> {
        let x = self.images(x)?;
        let node = self.push(Windowed::MaxPool2d(pool), &[x])?;
        if let Some(indices) = indices.filter(|indices| self.is_read(indices)) {
            let [rows, columns] = [2, 3].map(|axis| self.graph[node].shape.0[axis]);
            let positions = self.largest(x, pool, [rows, columns])?;
            self.bind_reshaped(indices, positions)?;
        }
        self.bind_reshaped(out, node)
    }

    /// Positions of the largest elements of windows among all of their image: the elements of
    /// every window are put in a row, where padding is one more element, below all others.
    fn largest(&mut self, x: NodeId, pool: Pool, [rows, columns]: [usize; 2]) -> Result<NodeId> {
        let dims = self.graph[x].shape.0.clone();
        let (size, elements) = ([dims[2], dims[3]], dims[2] * dims[3]);
        let place = |axis: usize, window: usize, at: usize| {
            let padded = window * pool.stride[axis] + at * pool.dilation[axis];
            padded.checked_sub(pool.padding[axis]).filter(|&place| place < size[axis])
        };
        let mut table = Vec::new();
        for window in 0..rows * columns {
            for at in 0..pool.kernel[0] * pool.kernel[1] {
                let row = place(0, window / columns, at / pool.kernel[1]);
                let column = place(1, window % columns, at % pool.kernel[1]);
                let inside = row.zip(column);
                table.push(inside.map_or(elements, |(row, column)| row * size[1] + column) as i64);
            }
        }
        let flat = self.reshape(x, Shape(vec![dims[0], dims[1], elements]))?;
        let outside = Constant { shape: Shape(vec![1; 3]), values: Values::F32(vec![f32::MIN]) };
        let outside = self.graph.push_constant(outside);
        let outside = self.push(Movement::Expand(Shape(vec![dims[0], dims[1], 1])), &[outside])?;
        let flat = self.push(Join::Concatenate(2), &[flat, outside])?;
        let all = Shape(vec![dims[0], dims[1], table.len()]);
        let index = self.constant_index(2, &all, table)?;
        let values = self.push(Indexing::Gather(2), &[flat, index])?;
        let kernel = pool.kernel[0] * pool.kernel[1];
        let windows = Shape(vec![dims[0], dims[1], rows * columns, kernel]);
        let values = self.reshape(values, windows.clone())?;
        let index = self.reshape(index, windows)?;
        let largest = self.push(Reduction::ArgMax(3), &[values])?;
        self.push(Indexing::Gather(3), &[index, largest])
    }

    fn avg_pool1d(&mut self, op: &AvgPool1dOpIr) -> Result<()> {
        let pool = row_pool(op.kernel_size, op.stride, op.padding, 1, op.ceil_mode);
        let x = self.images(&op.x)?;
        let pool = Windowed::AvgPool2d { pool, count_padding: op.count_include_pad };
        let node = self.push(pool, &[x])?;
        self.bind_reshaped(&op.out, node)
    }

    fn avg_pool2d(&mut self, op: &AvgPool2dOpIr) -> Result<()> {
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
    /// are not, and products with constant matrices take the means.
    fn adaptive(&mut self, x: NodeId, to: [usize; 2]) -> Result<NodeId> {
        let from = [2, 3].map(|axis| self.graph[x].shape.0[axis]);
        if from[0].is_multiple_of(to[0]) && from[1].is_multiple_of(to[1]) {
            let kernel = [from[0] / to[0], from[1] / to[1]];
            let (padding, dilation) = ([0, 0], [1, 1]);
            let pool = Pool { kernel, stride: kernel, padding, dilation, ceil: false };
            return self.push(Windowed::AvgPool2d { pool, count_padding: false }, &[x]);
        }
        self.resampled(x, [means(from[0], to[0]), means(from[1], to[1])])
    }

    /// The means of every layer, and then those over the layers.
    fn adaptive_avg_pool3d(&mut self, op: &AdaptiveAvgPool3dOpIr) -> Result<()> {
        let [n, channels, depth] = [0, 1, 2].map(|axis| op.x.shape[axis]);
        let [layers, rows, columns] = op.output_size;
        let x = self.node(&op.x)?;
        let images = Shape(vec![n, channels * depth, op.x.shape[3], op.x.shape[4]]);
        let x = self.reshape(x, images)?;
        let x = self.adaptive(x, [rows, columns])?;
        let x = self.reshape(x, Shape(vec![n, channels, depth, rows * columns]))?;
        let node = self.adaptive(x, [layers, rows * columns])?;
        self.bind_reshaped(&op.out, node)
    }
}

/// A pool of images of height 1.
fn row_pool(kernel: usize, stride: usize, padding: usize, dilation: usize, ceil: bool) -> Pool {
    Pool {
        kernel: [1, kernel],
        stride: [1, stride],
        padding: [0, padding],
        dilation: [1, dilation],
        ceil,
    }
}

/// Number `i` of the means is of those from `floor(i from / to)` to `ceil((i + 1) from / to)`.
fn means(from: usize, to: usize) -> Resampling {
    Resampling::new(from, to, |i| {
        let part = i * from / to..((i + 1) * from).div_ceil(to);
        let share = 1.0 / part.len() as f64;
        part.map(|j| (j, share)).collect()
    })
}
