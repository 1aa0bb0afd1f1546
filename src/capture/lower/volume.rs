//! Convolutions of volumes `[n, c, depth, h, w]`: as convolutions of images, of which every one has
//! the channels of all layers that a window reaches.

use burn_ir::{Conv3dOpIr, ConvTranspose3dOpIr, TensorIr};

use super::Lowering;
use super::range::Windows;
use crate::error::Result;
use crate::graph::{Convolution, Indexing, Movement, NodeId, Shape, Windowed};

impl Lowering<'_> {
    pub(super) fn conv3d(&mut self, op: &Conv3dOpIr) -> Result<()> {
        let of = &op.options;
        let [n, channels, _, height, width] = sizes(&op.x);
        let [outputs, part, size, i, j] = sizes(&op.weight);
        let [_, _, layers, rows, columns] = sizes(&op.out);
        let (step, dilation) = (of.stride[0], of.dilation[0]);
        let windows = Windows { axis: 2, count: layers, size, step, dilation };
        let x = self.node(&op.x)?;
        let x = self.zeros_around(x, 2, of.padding[0])?;
        let x = self.windows(x, &windows)?;
        let x = self.push(Movement::Permute(vec![0, 2, 1, 3, 4, 5]), &[x])?;
        let x = self.reshape(x, Shape(vec![n * layers, channels * size, height, width]))?;
        let weight = self.node(&op.weight)?;
        let weight = self.reshape(weight, Shape(vec![outputs, part * size, i, j]))?;
        let convolution = in_layers(of.stride, of.padding, of.dilation, of.groups);
        let node = self.push(Windowed::Conv2d(convolution), &[x, weight])?;
        let node = self.reshape(node, Shape(vec![n, layers, outputs, rows, columns]))?;
        let node = self.push(Movement::Permute(vec![0, 2, 1, 3, 4]), &[node])?;
        self.bind_biased(&op.out, node, op.bias.as_ref())
    }

    /// The gradient that [`Self::conv3d`] has for its input, step by step.
    pub(super) fn conv_transpose3d(&mut self, op: &ConvTranspose3dOpIr) -> Result<()> {
        let of = &op.options;
        let [n, channels, layers, height, width] = sizes(&op.x);
        let [_, part, size, i, j] = sizes(&op.weight);
        let [_, outputs, depth, rows, columns] = sizes(&op.out);
        let x = self.node(&op.x)?;
        let x = self.push(Movement::Permute(vec![0, 2, 1, 3, 4]), &[x])?;
        let x = self.reshape(x, Shape(vec![n * layers, channels, height, width]))?;
        let weight = self.node(&op.weight)?;
        let weight = self.reshape(weight, Shape(vec![channels, part * size, i, j]))?;
        let convolution = in_layers(of.stride, of.padding, of.dilation, of.groups);
        let transposed = Windowed::Conv2dInputGradient { convolution, size: [rows, columns] };
        let node = self.push(transposed, &[weight, x])?;
        let node = self.reshape(node, Shape(vec![n, layers, outputs, size, rows, columns]))?;
        let node = self.push(Movement::Permute(vec![0, 2, 1, 3, 4, 5]), &[node])?;
        let node = self.reshape(node, Shape(vec![n, outputs, layers * size, rows, columns]))?;
        let (step, dilation) = (of.stride[0], of.dilation[0]);
        let windows = Windows { axis: 2, count: layers, size, step, dilation };
        let padding = of.padding[0];
        let node = self.overlapped(node, &windows, padding..padding + depth)?;
        self.bind_biased(&op.out, node, op.bias.as_ref())
    }

    /// The sums of windows where they overlap, at some places of their axis.
    fn overlapped(
        &mut self,
        x: NodeId,
        windows: &Windows,
        places: std::ops::Range<usize>,
    ) -> Result<NodeId> {
        let positions = windows.positions();
        let size = positions.iter().max().map_or(0, |last| last + 1).max(places.end);
        let shape = self.graph[x].shape.clone();
        let index = positions.into_iter().map(|at| at as i64).collect();
        let index = self.constant_index(windows.axis, &shape, index)?;
        let scatter = Indexing::ScatterAdd { axis: windows.axis, size };
        let sums = self.push(scatter, &[index, x])?;
        self.pick(sums, windows.axis, places.collect())
    }
}

/// The convolution within a layer.
fn in_layers(
    stride: [usize; 3],
    padding: [usize; 3],
    dilation: [usize; 3],
    groups: usize,
) -> Convolution {
    Convolution {
        stride: [stride[1], stride[2]],
        padding: [(padding[1], padding[1]), (padding[2], padding[2])],
        dilation: [dilation[1], dilation[2]],
        groups,
    }
}

fn sizes(volume: &TensorIr) -> [usize; 5] {
    std::array::from_fn(|axis| volume.shape[axis])
}
