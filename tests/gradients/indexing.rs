//! Rows of slices, and of what is read or updated at indices.

use burn::tensor::module as functions;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData, s};
use proptest::prelude::*;

use super::common::numbers;
use super::{Row, check_all, same};

fn ints<const D: usize>(like: &Tensor<3>, dims: [usize; D], below: usize) -> Tensor<D, Int> {
    let count = dims.iter().product();
    let values: Vec<i64> =
        numbers(count as u64, count, 0.0, below as f32).into_iter().map(|x| x as i64).collect();
    Tensor::from_data(TensorData::new(values, dims), &like.device())
}

/// All elements in a row.
pub(super) fn flat(x: Tensor<3>) -> Tensor<3> {
    x.reshape([1, 1, -1])
}

#[test]
fn slices() {
    let rows = [
        Row("slice", -2.0, 2.0, |[x, ..]| x.slice(s![1.., 0..2, 1..3])),
        Row("negative", -2.0, 2.0, |[x, ..]| x.slice(s![-2.., ..-1, -3..-1])),
        Row("stepped", -2.0, 2.0, |[x, ..]| x.slice(s![..;2, 1..;2, ..;3])),
        Row("backwards", -2.0, 2.0, |[x, ..]| x.slice(s![..;-1, ..;-2, 0..2;-1])),
        Row("narrow", -2.0, 2.0, |[x, y, _]| x.narrow(0, 1, 2) * y.narrow(0, 0, 2)),
        Row("select_dim", -2.0, 2.0, |[x, ..]| x.slice_dim(1, 1)),
        Row("assign", -2.0, 2.0, |[x, y, _]| {
            let part = y.slice(s![0..2, 1..3, 0..1]);
            x.slice_assign(s![1..3, 0..2, 2..3], part)
        }),
        Row("assign backwards", -2.0, 2.0, |[x, y, _]| {
            let part = y.slice(s![0..2, 0..2, 1..3]);
            x.slice_assign(s![0..3;2, 0..3;-2, 1..3;-1], part)
        }),
        Row("fill", -2.0, 2.0, |[x, ..]| x.slice_fill(s![1.., 0..1, ..], 0.7)),
    ];
    let size = || prop::sample::select(vec![3usize, 4, 5, 7]);
    check_all(&rows, 16, (size(), size(), size()).prop_map(|(a, b, c)| [[a, b, c]; 3]));
}

#[test]
fn indexing() {
    let rows = [
        Row("gather", -2.0, 2.0, |[x, y, z]| {
            let [a, b, c] = x.dims();
            let first = ints(&x, [4, b, c], a);
            let second = ints(&x, [a, 3, c], b);
            let third = ints(&x, [a, b, 1], c);
            let parts =
                [flat(x.gather(0, first)), flat(y.gather(1, second)), flat(z.gather(2, third))];
            Tensor::cat(parts.into(), 2)
        }),
        Row("select", -2.0, 2.0, |[x, y, z]| {
            let [a, b, c] = x.dims();
            let [i, j, k] = [ints(&x, [4], a), ints(&x, [3], b), ints(&x, [5], c)];
            let parts = [flat(x.select(0, i)), flat(y.select(1, j)), flat(z.select(2, k))];
            Tensor::cat(parts.into(), 2)
        }),
        Row("scatter", -2.0, 2.0, |[x, y, z]| {
            let index = ints(&x, x.dims(), x.dims()[1]);
            let x = x.scatter(1, index.clone(), y, IndexingUpdateOp::Add);
            z.scatter(1, index, x, IndexingUpdateOp::Add)
        }),
        Row("select, add", -2.0, 2.0, |[x, y, _]| {
            let index = ints(&x, [y.dims()[1]], x.dims()[1]);
            x.select_assign(1, index, y, IndexingUpdateOp::Add)
        }),
        Row("gather_nd", -2.0, 2.0, |[x, y, _]| {
            let [a, b, c] = x.dims();
            let places = ints(&x, [4, 3, 2], a.min(b));
            let elements = ints(&y, [5, 3], a.min(b).min(c));
            let rows: Tensor<3> = x.gather_nd::<3, 3>(places);
            let elements: Tensor<1> = y.gather_nd::<2, 1>(elements);
            Tensor::cat(vec![flat(rows), elements.reshape([1, 1, 5])], 2)
        }),
        Row("scatter_nd, add", -2.0, 2.0, |[x, y, _]| {
            let places = ints(&x, [x.dims()[0], 1], x.dims()[0]);
            x.scatter_nd::<2, 3>(places, y, IndexingUpdateOp::Add)
        }),
        Row("embedding", -2.0, 2.0, |[x, ..]| {
            let [_, rows, _] = x.dims();
            let table = x.clone().slice(s![0..1, .., ..]).squeeze_dim(0);
            functions::embedding(table, ints(&x, [3, 5], rows))
        }),
    ];
    check_all(&rows, 16, same());
}

/// All updates, at indices that differ: the elements of an axis backwards.
fn updated([x, y, _]: [Tensor<3>; 3], update: IndexingUpdateOp) -> Tensor<3> {
    let [a, b, c] = x.dims();
    // Some elements stay as they are.
    let count = b.div_ceil(2);
    let value = y.clone().slice_dim(1, 0..count);
    let back = Tensor::<1, Int>::arange(0..count as i64, &x.device()).flip([0]);
    let every = back.clone().reshape([1, count, 1]).expand([a, count, c]);
    let scattered = x.clone().scatter(1, every, value.clone(), update);
    let selected = x.clone().select_assign(1, back.clone(), value, update);
    let rows = back.clone().reshape([count, 1]).repeat_dim(1, 2).clamp_max(a.min(b) as i64 - 1);
    let places = rows.slice_dim(0, 0..1);
    let value = y.slice(s![0..1, 0..1, ..]).reshape([1, c]);
    let placed = x.scatter_nd::<2, 2>(places, value, update);
    Tensor::cat(vec![scattered, selected, placed], 0)
}

#[test]
fn updates_at_indices() {
    let rows = [
        Row("assign", -2.0, 2.0, |of| updated(of, IndexingUpdateOp::Assign)),
        Row("multiply", -2.0, 2.0, |of| updated(of, IndexingUpdateOp::Mul)),
        Row("min", -2.0, 2.0, |of| updated(of, IndexingUpdateOp::Min)),
        Row("max", -2.0, 2.0, |of| updated(of, IndexingUpdateOp::Max)),
    ];
    check_all(&rows, 8, same());
}
