//! Rows of resized images, of windows, and of images that are read at computed places. Operands
//! of three dimensions stand for two images `[2, channels, height, width]`.

use burn::tensor::Tensor;
use burn::tensor::module as functions;
use burn::tensor::ops::{
    DeformConvOptions, GridSampleOptions, GridSamplePaddingMode, InterpolateMode,
    InterpolateOptions, UnfoldOptions,
};
use proptest::prelude::*;

use super::{Dims, Row, check_all, same};

/// `x: [2 * c, h, w]` as two images.
fn images(x: Tensor<3>) -> Tensor<4> {
    let [rows, height, width] = x.dims();
    x.reshape([2, rows / 2, height, width])
}

fn sizes() -> impl Strategy<Value = Dims> {
    let size = || prop::sample::select(vec![1usize, 2, 3, 5, 8]);
    (1..3usize, size(), size()).prop_map(|(c, height, width)| [[2 * c, height, width]; 3])
}

/// Larger and smaller images, with and without aligned corners.
fn resized(x: Tensor<3>, mode: InterpolateMode) -> Tensor<3> {
    let x = images(x);
    let [_, _, height, width] = x.dims();
    let sizes = [[2 * height, 3 * width], [height.div_ceil(2), width + 2], [1, width], [7, 4]];
    let resized = |size: [usize; 2], corners: bool| {
        let options = InterpolateOptions::new(mode.clone()).with_output_size(size);
        let y = functions::interpolate(x.clone(), options.with_align_corners(corners));
        y.reshape([1, 1, -1])
    };
    let parts = sizes.into_iter().flat_map(|size| [resized(size, false), resized(size, true)]);
    Tensor::cat(parts.collect(), 2)
}

#[test]
fn images_of_another_size() {
    let rows = [
        Row("nearest", -2.0, 2.0, |[x, ..]| resized(x, InterpolateMode::Nearest)),
        Row("bilinear", -2.0, 2.0, |[x, ..]| resized(x, InterpolateMode::Bilinear)),
        Row("bicubic", -2.0, 2.0, |[x, ..]| resized(x, InterpolateMode::Bicubic)),
    ];
    check_all(&rows, 8, sizes());
}

#[test]
fn windows() {
    fn unfold4d(x: Tensor<3>, kernel: [usize; 2], options: UnfoldOptions) -> Tensor<3> {
        functions::unfold4d(images(x), kernel, options)
    }
    let rows = [
        Row("unfold", -2.0, 2.0, |[x, ..]| x.unfold::<4, _>(1, 2, 1).flatten(0, 1)),
        Row("unfold, step", -2.0, 2.0, |[x, ..]| x.unfold::<4, _>(2, 2, 3).flatten(1, 2)),
        Row("patches", -2.0, 2.0, |[x, ..]| x.unfold::<4, _>(1, 2, 2).flatten(0, 1)),
        Row("unfold4d", -2.0, 2.0, |[x, ..]| {
            unfold4d(x, [2, 3], UnfoldOptions::new([1, 2], [0, 0], [1, 1]))
        }),
        Row("padding, dilation", -2.0, 2.0, |[x, ..]| {
            unfold4d(x, [2, 2], UnfoldOptions::new([2, 1], [1, 0], [1, 2]))
        }),
        Row("fold4d", -2.0, 2.0, |[x, ..]| {
            let options = || UnfoldOptions::new([1, 1], [1, 0], [1, 1]);
            let size = [x.dims()[1], x.dims()[2]];
            let columns = unfold4d(x, [2, 3], options());
            functions::fold4d(columns, size, [2, 3], options()).flatten(0, 1)
        }),
    ];
    let size = || prop::sample::select(vec![3usize, 4, 7]);
    check_all(&rows, 6, (1..3usize, size(), size()).prop_map(|(c, h, w)| [[2 * c, h, w]; 3]));
}

/// Reads images `x` at the places of `y: [2 * h, w, 2]`.
fn sampled(x: Tensor<3>, y: Tensor<3>, padding: GridSamplePaddingMode) -> Tensor<3> {
    let [rows, columns, _] = y.dims();
    let grid = y.reshape([2, rows / 2, columns, 2]);
    let parts = [false, true].map(|corners| {
        let options = GridSampleOptions::new(InterpolateMode::Bilinear)
            .with_padding_mode(padding)
            .with_align_corners(corners);
        images(x.clone()).grid_sample_2d(grid.clone(), options).flatten(0, 1)
    });
    Tensor::cat(parts.into(), 0)
}

#[test]
fn images_read_at_computed_places() {
    let rows = [
        Row("zeros", -1.4, 1.4, |[x, y, _]| sampled(x, y, GridSamplePaddingMode::Zeros)),
        Row("border", -1.4, 1.4, |[x, y, _]| sampled(x, y, GridSamplePaddingMode::Border)),
        Row("reflection", -3.0, 3.0, |[x, y, _]| sampled(x, y, GridSamplePaddingMode::Reflection)),
    ];
    let dims = (sizes(), 1..4usize, 1..5usize);
    check_all(&rows, 8, dims.prop_map(|([x, ..], h, w)| [x, [2 * h, w, 2], [1, 1, 1]]));
}

/// Images of four channels `x: [8, h, w]`, offsets from `y`, and the weight `z: [d * 2, i, j]`,
/// with two groups of each.
fn deformed([x, y, z]: [Tensor<3>; 3], masked: bool) -> Tensor<3> {
    let (x, [rows, i, j]) = (images(x), z.dims());
    let options = DeformConvOptions::new([1, 2], [1, 1], [1, 1], 2, 2);
    let weight = z.reshape([rows / 2, 2, i, j]);
    let [_, _, height, width] = x.dims();
    let (down, across) = (height + 3 - i, (width + 2 - j) / 2 + 1);
    let drawn = |channels: usize| {
        let count = 2 * channels * down * across;
        let times = count.div_ceil(y.shape().num_elements());
        let many = y.clone().reshape([-1]).repeat_dim(0, times).slice_dim(0, 0..count);
        many.reshape([2, channels, down, across])
    };
    let offset = drawn(2 * 2 * i * j);
    let mask = masked.then(|| drawn(2 * i * j).sin());
    let bias =
        masked.then(|| weight.clone().reshape([rows / 2, 2 * i * j]).sum_dim(1).reshape([-1]));
    functions::deform_conv2d(x, offset, weight, mask, bias, options).flatten(0, 1)
}

#[test]
fn deformed_convolutions() {
    let rows = [
        Row("deform_conv2d", -1.3, 1.3, |of| deformed(of, false)),
        Row("mask, bias", -1.3, 1.3, |of| deformed(of, true)),
    ];
    let size = || prop::sample::select(vec![3usize, 4, 6]);
    let dims = (size(), size(), 1..4usize, 1..4usize, 1..3usize);
    check_all(&rows, 6, dims.prop_map(|(h, w, i, j, d)| [[8, h, w], [3, 5, 7], [2 * d * 2, i, j]]));
}

#[test]
fn floats_that_are_widened_and_cast_back() {
    use burn::tensor::DType;
    let rows = [Row("through f64", -2.0, 2.0, |[x, y, _]| {
        (x.cast(DType::F64).cast(DType::F32) * y).cast(DType::F64).cast(DType::F64).cast(DType::F32)
    })];
    check_all(&rows, 4, same());
}
