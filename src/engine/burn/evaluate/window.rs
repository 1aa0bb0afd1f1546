//! Convolutions, pools and their gradients by Burn's own functions: their definition.

use burn_backend::ops::{ConvOptions, FloatTensorOps, ModuleOps};
use burn_backend::{FloatDType, IntDType, TensorMetadata};
use burn_dispatch::{Dispatch, DispatchTensor};

use super::shape;
use crate::graph::{Convolution, Node, Windowed};

type D = Dispatch;

pub(super) fn evaluate(op: Windowed, node: &Node, operands: Vec<DispatchTensor>) -> DispatchTensor {
    let mut operands = operands.into_iter();
    let mut next = || operands.next().expect("the graph was verified: operands are all there");
    // Burn's gradients take the tensor that they are the gradient of, and look at its shape only.
    let like = |device| D::float_empty(shape(node), device, FloatDType::F32);
    match &op {
        Windowed::Conv2d(of) => D::conv2d(next(), next(), None, options(of)),
        Windowed::Conv2dInputGradient { convolution: of, .. } => {
            let (weight, g) = (next(), next());
            D::conv2d_x_backward(like(&g.device()), weight, g, options(of))
        }
        Windowed::Conv2dWeightGradient { convolution: of, .. } => {
            let (x, g) = (next(), next());
            let weight = like(&g.device());
            D::conv2d_weight_backward(x, weight, g, options(of))
        }
        Windowed::MaxPool2d(of) => {
            D::max_pool2d(next(), of.kernel, of.stride, of.padding, of.dilation, of.ceil)
        }
        Windowed::MaxPool2dGradient(of) => {
            let (kernel, stride, padding) = (of.kernel, of.stride, of.padding);
            let (x, g) = (next(), next());
            let pooled = D::max_pool2d_with_indices(
                x.clone(),
                kernel,
                stride,
                padding,
                of.dilation,
                of.ceil,
                IntDType::I64,
            );
            let (dilation, indices) = (of.dilation, pooled.indices);
            let gradient = D::max_pool2d_with_indices_backward(
                x, kernel, stride, padding, dilation, of.ceil, g, indices,
            );
            gradient.x_grad
        }
        Windowed::AvgPool2d { pool: of, count_padding } => {
            D::avg_pool2d(next(), of.kernel, of.stride, of.padding, *count_padding, of.ceil)
        }
        Windowed::AvgPool2dGradient { pool: of, count_padding, .. } => {
            let (kernel, stride, padding) = (of.kernel, of.stride, of.padding);
            let g = next();
            let x = like(&g.device());
            D::avg_pool2d_backward(x, g, kernel, stride, padding, *count_padding, of.ceil)
        }
    }
}

fn options(of: &Convolution) -> ConvOptions<2> {
    ConvOptions { stride: of.stride, padding: of.padding, dilation: of.dilation, groups: of.groups }
}
