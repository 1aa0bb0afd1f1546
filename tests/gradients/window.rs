//! Rows of convolutions and pools. Operands of three dimensions stand for two images
//! `[2, channels, height, width]`, for weights and for biases.

use burn::tensor::Tensor;
use burn::tensor::module as functions;
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, ConvTransposeOptions, MaxPoolOptions};
use proptest::prelude::*;

use super::{Dims, Row, check_all};

/// `x: [2 * c, h, w]` as two images.
fn images(x: Tensor<3>) -> Tensor<4> {
    let [rows, height, width] = x.dims();
    x.reshape([2, rows / 2, height, width])
}

/// A convolution with the weight `y: [d * c / groups, i, j]` and perhaps the bias `z: [1, 1, d]`.
fn conv2d([x, y, z]: [Tensor<3>; 3], biased: bool, options: ConvOptions<2>) -> Tensor<3> {
    let (x, [rows, height, width]) = (images(x), y.dims());
    let channels = x.dims()[1] / options.groups;
    let weight = y.reshape([rows / channels, channels, height, width]);
    let bias = biased.then(|| z.reshape([-1]));
    functions::conv2d(x, weight, bias, options).flatten(0, 1)
}

/// Images of `groups * into` channels, a weight for `groups * out`, and a bias.
fn convolutions(groups: usize) -> impl Strategy<Value = Dims> {
    let size = || prop::sample::select(vec![5usize, 6, 9]);
    let kernel = || prop::sample::select(vec![1usize, 2, 3]);
    (1..4usize, 1..3usize, size(), size(), kernel(), kernel()).prop_map(
        move |(into, out, height, width, i, j)| {
            [[2 * groups * into, height, width], [groups * out * into, i, j], [1, 1, groups * out]]
        },
    )
}

fn options(stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2]) -> ConvOptions<2> {
    ConvOptions::new(stride, padding, dilation, 1)
}

#[test]
fn convolutions_of_images() {
    let rows = [
        Row("conv2d", -1.0, 1.0, |of| conv2d(of, true, options([1, 1], [0, 0], [1, 1]))),
        Row("unbiased", -1.0, 1.0, |of| conv2d(of, false, options([1, 1], [1, 1], [1, 1]))),
        Row("stride, padding", -1.0, 1.0, |of| conv2d(of, true, options([2, 3], [1, 2], [1, 1]))),
        Row("dilation", -1.0, 1.0, |of| conv2d(of, true, options([1, 2], [2, 0], [2, 1]))),
        Row("padding of one end", -1.0, 1.0, |of| {
            let padding = [(0, 2), (1, 0)];
            conv2d(of, true, ConvOptions::new_with_padding([2, 1], padding, [1, 2], 1))
        }),
    ];
    check_all(&rows, 8, convolutions(1));
}

#[test]
fn convolutions_in_groups() {
    let rows = [
        Row("groups", -1.0, 1.0, |of| {
            conv2d(of, true, ConvOptions::new([1, 1], [1, 0], [1, 1], 3))
        }),
        Row("groups, stride, dilation", -1.0, 1.0, |of| {
            conv2d(of, true, ConvOptions::new([2, 1], [1, 1], [1, 2], 3))
        }),
    ];
    check_all(&rows, 8, convolutions(3));
}

#[test]
fn transposed_convolutions() {
    /// The weight `y: [c * d / groups, i, j]` leads from c channels to d; there is no bias.
    fn transposed([x, y, _]: [Tensor<3>; 3], options: ConvTransposeOptions<2>) -> Tensor<3> {
        let (x, [rows, height, width]) = (images(x), y.dims());
        let channels = x.dims()[1];
        let weight = y.reshape([channels, rows / channels, height, width]);
        functions::conv_transpose2d(x, weight, None, options).flatten(0, 1)
    }
    let rows = [
        Row("conv_transpose2d", -1.0, 1.0, |of| {
            transposed(of, ConvTransposeOptions::new([1, 1], [0, 0], [0, 0], [1, 1], 1))
        }),
        Row("stride, padding", -1.0, 1.0, |of| {
            transposed(of, ConvTransposeOptions::new([2, 3], [1, 0], [1, 2], [1, 2], 1))
        }),
        Row("groups", -1.0, 1.0, |of| {
            transposed(of, ConvTransposeOptions::new([2, 1], [0, 0], [0, 0], [1, 1], 3))
        }),
    ];
    // Three groups, or one: the channels are a multiple of three.
    check_all(&rows, 8, convolutions(3));
}

fn max_pool2d(x: Tensor<3>, options: MaxPoolOptions<2>) -> Tensor<3> {
    functions::max_pool2d(images(x), options).flatten(0, 1)
}

fn avg_pool2d(x: Tensor<3>, options: AvgPoolOptions<2>) -> Tensor<3> {
    functions::avg_pool2d(images(x), options).flatten(0, 1)
}

fn pooled() -> impl Strategy<Value = Dims> {
    let size = || prop::sample::select(vec![3usize, 4, 7, 10]);
    (1..4usize, size(), size()).prop_map(|(c, height, width)| [[2 * c, height, width]; 3])
}

#[test]
fn max_pools() {
    let rows = |low, high| {
        [
            Row("max_pool2d", low, high, |[x, ..]| max_pool2d(x, MaxPoolOptions::new([2, 2]))),
            Row("windows that overlap", low, high, |[x, ..]| {
                max_pool2d(x, MaxPoolOptions::new([3, 2]).with_stride([1, 1]).with_padding([1, 0]))
            }),
            Row("dilation", low, high, |[x, ..]| {
                max_pool2d(x, MaxPoolOptions::new([2, 2]).with_stride([1, 2]).with_dilation([2, 1]))
            }),
            Row("ceil", low, high, |[x, ..]| {
                max_pool2d(x, MaxPoolOptions::new([2, 3]).with_ceil_mode(true))
            }),
            Row("with indices", low, high, |[x, ..]| {
                let options = MaxPoolOptions::new([3, 2]).with_stride([1, 2]).with_padding([1, 1]);
                let (largest, at) = functions::max_pool2d_with_indices(images(x), options);
                (largest * at.float()).flatten(0, 1)
            }),
            Row("padding of one end", low, high, |[x, ..]| {
                let padding = [(0, 1), (1, 0)];
                let options = MaxPoolOptions::new([2, 2]).with_padding_pairs(padding);
                max_pool2d(x, options)
            }),
        ]
    };
    check_all(&rows(-2.0, 2.0), 8, pooled());
    // Elements that are all the same: the gradient goes to the same one.
    check_all(&rows(0.5, 0.5), 4, pooled());
}

#[test]
fn average_pools() {
    let rows = [
        Row("avg_pool2d", -2.0, 2.0, |[x, ..]| avg_pool2d(x, AvgPoolOptions::new([2, 3]))),
        Row("windows that overlap", -2.0, 2.0, |[x, ..]| {
            avg_pool2d(x, AvgPoolOptions::new([3, 2]).with_stride([1, 1]).with_padding([1, 1]))
        }),
        Row("padding does not count", -2.0, 2.0, |[x, ..]| {
            let options = AvgPoolOptions::new([3, 3]).with_stride([2, 1]).with_padding([1, 1]);
            avg_pool2d(x, options.with_count_include_pad(false))
        }),
        Row("ceil", -2.0, 2.0, |[x, ..]| {
            let options = AvgPoolOptions::new([2, 3]).with_stride([2, 2]).with_padding([0, 1]);
            avg_pool2d(x, options.with_ceil_mode(true))
        }),
        Row("padding of one end", -2.0, 2.0, |[x, ..]| {
            let options = AvgPoolOptions::new([2, 2]).with_padding_pairs([(1, 0), (0, 1)]);
            avg_pool2d(x, options.with_count_include_pad(false))
        }),
        Row("adaptive", -2.0, 2.0, |[x, ..]| {
            functions::adaptive_avg_pool2d(images(x), [1, 1]).flatten(0, 1)
        }),
        Row("adaptive, unequal windows", -2.0, 2.0, |[x, ..]| {
            functions::adaptive_avg_pool2d(images(x), [2, 3]).flatten(0, 1)
        }),
    ];
    check_all(&rows, 8, pooled());
}
