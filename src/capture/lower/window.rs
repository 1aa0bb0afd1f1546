//! Convolutions of images and of rows, which are images of height 1.

use burn_ir::{
    Conv1dOpIr, Conv2dOpIr, ConvTranspose1dOpIr, ConvTranspose2dOpIr, ModuleOperationIr, TensorIr,
};

use super::Lowering;
use crate::error::Result;
use crate::graph::{Binary, Convolution, NodeId, Shape, Windowed};

impl Lowering<'_> {
    /// What moves a window over images or rows.
    pub(super) fn windowed(&mut self, op: &ModuleOperationIr) -> Result<()> {
        use ModuleOperationIr as Module;
        match op {
            Module::Conv1d(op) => self.conv1d(op),
            Module::Conv2d(op) => self.conv2d(op),
            Module::ConvTranspose1d(op) => self.conv_transpose1d(op),
            Module::ConvTranspose2d(op) => self.conv_transpose2d(op),
            Module::Unfold4d(op) => self.unfold4d(op),
            _ => self.pooled(op),
        }
    }

    fn conv1d(&mut self, op: &Conv1dOpIr) -> Result<()> {
        let of = &op.options;
        let convolution = Convolution {
            stride: [1, of.stride[0]],
            padding: [(0, 0), of.padding[0]],
            dilation: [1, of.dilation[0]],
            groups: of.groups,
        };
        let node = self.convolved([&op.x, &op.weight], convolution)?;
        self.bind_biased(&op.out, node, op.bias.as_ref())
    }

    fn conv2d(&mut self, op: &Conv2dOpIr) -> Result<()> {
        let of = &op.options;
        let convolution = Convolution {
            stride: of.stride,
            padding: of.padding,
            dilation: of.dilation,
            groups: of.groups,
        };
        let node = self.convolved([&op.x, &op.weight], convolution)?;
        self.bind_biased(&op.out, node, op.bias.as_ref())
    }

    fn convolved(&mut self, [x, weight]: [&TensorIr; 2], of: Convolution) -> Result<NodeId> {
        let (x, weight) = (self.images(x)?, self.images(weight)?);
        self.push(Windowed::Conv2d(of), &[x, weight])
    }

    fn conv_transpose1d(&mut self, op: &ConvTranspose1dOpIr) -> Result<()> {
        let of = &op.options;
        let convolution = Convolution {
            stride: [1, of.stride[0]],
            padding: [(0, 0), (of.padding[0], of.padding[0])],
            dilation: [1, of.dilation[0]],
            groups: of.groups,
        };
        let transposed = Windowed::Conv2dInputGradient { convolution, size: [1, op.out.shape[2]] };
        let (x, weight) = (self.images(&op.x)?, self.images(&op.weight)?);
        let node = self.push(transposed, &[weight, x])?;
        self.bind_biased(&op.out, node, op.bias.as_ref())
    }

    /// The gradient that a convolution from the output's images to `x` has for its input.
    fn conv_transpose2d(&mut self, op: &ConvTranspose2dOpIr) -> Result<()> {
        let of = &op.options;
        let convolution = Convolution {
            stride: of.stride,
            padding: of.padding.map(|padding| (padding, padding)),
            dilation: of.dilation,
            groups: of.groups,
        };
        let size = [op.out.shape[2], op.out.shape[3]];
        let transposed = Windowed::Conv2dInputGradient { convolution, size };
        let node = self.apply(transposed, &[&op.weight, &op.x])?;
        self.bind_biased(&op.out, node, op.bias.as_ref())
    }

    /// Images, or rows `[n, c, l]` as images of height 1.
    pub(super) fn images(&mut self, x: &TensorIr) -> Result<NodeId> {
        let node = self.node(x)?;
        let mut dims = x.shape.to_vec();
        if dims.len() == 3 {
            dims.insert(2, 1);
        }
        self.reshape(node, Shape(dims))
    }

    /// `node` with a number added to every channel, as the value of `out`: an op of its own, whose
    /// gradient is a sum.
    pub(super) fn bind_biased(
        &mut self,
        out: &TensorIr,
        node: NodeId,
        bias: Option<&TensorIr>,
    ) -> Result<()> {
        let Some(bias) = bias else { return self.bind_reshaped(out, node) };
        let mut dims = vec![1; self.graph[node].shape.rank()];
        dims[1] = bias.shape.num_elements();
        let bias = self.node(bias)?;
        let bias = self.reshape(bias, Shape(dims))?;
        let node = self.push(Binary::Add, &[node, bias])?;
        self.bind_reshaped(out, node)
    }
}
