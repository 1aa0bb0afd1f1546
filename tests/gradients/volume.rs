//! Rows of convolutions and pools of one and of three dimensions.

use burn::tensor::Tensor;
use burn::tensor::module as functions;
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, ConvTransposeOptions, MaxPoolOptions};
use proptest::prelude::*;

use super::{Dims, Row, check_all};

/// A convolution of `x: [2, c, l]` with the weight `y` and the bias `z: [1, 1, d]`.
fn conv1d([x, y, z]: [Tensor<3>; 3], options: ConvOptions<1>) -> Tensor<3> {
    functions::conv1d(x, y, Some(z.reshape([-1])), options)
}

/// Rows of `groups * into` channels, a weight for `groups * out`, and a bias.
fn rows_of(groups: usize) -> impl Strategy<Value = Dims> {
    let length = prop::sample::select(vec![5usize, 8, 11]);
    (1..3usize, 1..3usize, length, 1..4usize).prop_map(move |(into, out, length, kernel)| {
        [[2, groups * into, length], [groups * out, into, kernel], [1, 1, groups * out]]
    })
}

#[test]
fn convolutions_of_rows() {
    let rows = [
        Row("conv1d", -1.0, 1.0, |of| conv1d(of, ConvOptions::new([1], [0], [1], 1))),
        Row("stride, padding", -1.0, 1.0, |of| conv1d(of, ConvOptions::new([2], [1], [2], 1))),
        Row("padding of one end", -1.0, 1.0, |of| {
            conv1d(of, ConvOptions::new_with_padding([1], [(2, 0)], [1], 1))
        }),
        Row("transposed", -1.0, 1.0, |[x, y, z]| {
            // The weight leads from its first dimension to its second.
            let options = ConvTransposeOptions::new([2], [1], [1], [2], 1);
            let bias = z.slice_dim(2, 0..y.dims()[1]).reshape([-1]);
            let x = x.slice_dim(1, 0..1).repeat_dim(1, y.dims()[0]);
            functions::conv_transpose1d(x, y, Some(bias), options)
        }),
    ];
    check_all(
        &rows,
        6,
        rows_of(1).prop_filter("a bias for every channel", |[_, y, _]| y[1] <= y[0]),
    );
    let rows = [
        // With a stride that leaves elements over, Burn's gradient of the weight is wrong.
        Row("groups", -1.0, 1.0, |of| conv1d(of, ConvOptions::new([1], [1], [2], 2))),
        Row("groups, transposed", -1.0, 1.0, |[x, y, _]| {
            let options = ConvTransposeOptions::new([3], [0], [2], [1], 2);
            let x = x.slice_dim(1, 0..1).repeat_dim(1, y.dims()[0]);
            functions::conv_transpose1d(x, y, None, options)
        }),
    ];
    check_all(&rows, 6, rows_of(2));
}

#[test]
fn pools_of_rows() {
    let rows = [
        Row("max_pool1d", -2.0, 2.0, |[x, ..]| {
            let options = MaxPoolOptions::new([3]).with_stride([2]).with_padding([1]);
            functions::max_pool1d(x, options)
        }),
        Row("max_pool1d, ceil", -2.0, 2.0, |[x, ..]| {
            let options = MaxPoolOptions::new([2]).with_dilation([2]).with_ceil_mode(true);
            functions::max_pool1d(x, options)
        }),
        Row("with indices", -2.0, 2.0, |[x, ..]| {
            let options = MaxPoolOptions::new([3]).with_stride([1]).with_padding([1]);
            let (largest, at) = functions::max_pool1d_with_indices(x, options);
            largest * at.float()
        }),
        Row("avg_pool1d", -2.0, 2.0, |[x, ..]| {
            let options = AvgPoolOptions::new([3]).with_stride([2]).with_padding([1]);
            functions::avg_pool1d(x, options)
        }),
        Row("avg_pool1d, ceil", -2.0, 2.0, |[x, ..]| {
            let options = AvgPoolOptions::new([3]).with_stride([2]).with_padding([1]);
            let options = options.with_count_include_pad(false).with_ceil_mode(true);
            functions::avg_pool1d(x, options)
        }),
        Row("adaptive", -2.0, 2.0, |[x, ..]| functions::adaptive_avg_pool1d(x, 1)),
        Row("adaptive, unequal windows", -2.0, 2.0, |[x, ..]| functions::adaptive_avg_pool1d(x, 3)),
    ];
    let length = prop::sample::select(vec![5usize, 6, 9]);
    check_all(&rows, 6, (1..3usize, 1..4usize, length).prop_map(|(n, c, l)| [[n, c, l]; 3]));
}

/// `x: [2 * c, depth, 2 * height]` as two volumes of width 2.
fn volumes(x: Tensor<3>) -> Tensor<5> {
    let [rows, depth, size] = x.dims();
    x.reshape([2, rows / 2, depth, size / 2, 2])
}

/// A convolution with the weight `y: [d * c / groups, depth, i * 1]` and the bias `z: [1, 1, d]`.
fn conv3d([x, y, z]: [Tensor<3>; 3], options: ConvOptions<3>) -> Tensor<3> {
    let (x, [rows, depth, i]) = (volumes(x), y.dims());
    let channels = x.dims()[1] / options.groups;
    let weight = y.reshape([rows / channels, channels, depth, i, 1]);
    functions::conv3d(x, weight, Some(z.reshape([-1])), options).flatten::<4>(0, 1).flatten(2, 3)
}

/// The weight leads from c channels to d; there is no bias.
fn conv_transpose3d([x, y, _]: [Tensor<3>; 3], options: ConvTransposeOptions<3>) -> Tensor<3> {
    let (x, [rows, depth, i]) = (volumes(x), y.dims());
    let channels = x.dims()[1];
    let weight = y.reshape([channels, rows / channels, depth, i, 1]);
    functions::conv_transpose3d(x, weight, None, options).flatten::<4>(0, 1).flatten(2, 3)
}

/// Volumes of `groups * into` channels, a weight for `groups * out`, and a bias.
fn of_volumes(groups: usize) -> impl Strategy<Value = Dims> {
    let size = || prop::sample::select(vec![3usize, 4, 6]);
    (1..3usize, 1..3usize, size(), size(), 1..4usize, 1..4usize).prop_map(
        move |(into, out, depth, height, k, i)| {
            [
                [2 * groups * into, depth, 2 * height],
                [groups * out * into, k, i],
                [1, 1, groups * out],
            ]
        },
    )
}

#[test]
fn convolutions_of_volumes() {
    let rows = [
        Row("conv3d", -1.0, 1.0, |of| conv3d(of, ConvOptions::new([1; 3], [0; 3], [1; 3], 1))),
        Row("stride, padding", -1.0, 1.0, |of| {
            conv3d(of, ConvOptions::new([2, 1, 1], [1, 2, 0], [1; 3], 1))
        }),
        Row("dilation", -1.0, 1.0, |of| {
            conv3d(of, ConvOptions::new([1, 2, 1], [2, 2, 1], [2, 2, 1], 1))
        }),
    ];
    check_all(&rows, 6, of_volumes(1));
    let grouped = [
        Row("groups", -1.0, 1.0, |of| conv3d(of, ConvOptions::new([1; 3], [1; 3], [1; 3], 2))),
        Row("groups, stride", -1.0, 1.0, |of| {
            conv3d(of, ConvOptions::new([3, 1, 2], [1, 0, 1], [1, 1, 1], 2))
        }),
    ];
    check_all(&grouped, 6, of_volumes(2));
}

#[test]
fn transposed_convolutions_of_volumes() {
    let rows = [
        Row("conv_transpose3d", -1.0, 1.0, |of| {
            conv_transpose3d(of, ConvTransposeOptions::new([1; 3], [0; 3], [0; 3], [1; 3], 1))
        }),
        Row("stride, padding", -1.0, 1.0, |of| {
            let options = ConvTransposeOptions::new([2, 3, 1], [1, 0, 0], [1, 2, 0], [1, 2, 1], 1);
            conv_transpose3d(of, options)
        }),
        Row("dilation", -1.0, 1.0, |of| {
            conv_transpose3d(
                of,
                ConvTransposeOptions::new([3, 1, 1], [0; 3], [2, 0, 0], [2, 1, 1], 1),
            )
        }),
        Row("groups", -1.0, 1.0, |of| {
            conv_transpose3d(of, ConvTransposeOptions::new([2, 1, 1], [0; 3], [0; 3], [1; 3], 2))
        }),
    ];
    check_all(&rows, 6, of_volumes(2));
}

#[test]
fn pools_of_volumes() {
    fn adaptive(x: Tensor<3>, size: [usize; 3]) -> Tensor<3> {
        functions::adaptive_avg_pool3d(volumes(x), size).flatten::<4>(0, 1).flatten(2, 3)
    }
    let rows = [
        Row("adaptive", -2.0, 2.0, |[x, ..]| adaptive(x, [1, 1, 1])),
        Row("unequal windows", -2.0, 2.0, |[x, ..]| adaptive(x, [2, 3, 2])),
        Row("unequal layers", -2.0, 2.0, |[x, ..]| adaptive(x, [3, 1, 2])),
    ];
    check_all(&rows, 6, of_volumes(1));
}
