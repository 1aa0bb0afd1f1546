//! Rows of products, extremes and order along axes.

use burn::tensor::Tensor;

use super::{Row, check_all, same};

#[test]
fn products() {
    let rows = [
        Row("prod", 0.6, 1.4, |[x, ..]| {
            let [a, b, _] = x.dims();
            x.slice([0..a.min(2), 0..b.min(3)]).prod().unsqueeze()
        }),
        Row("prod_dim", -1.4, 1.4, |[x, y, z]| x.prod_dim(0) * y.prod_dim(1) + z.prod_dim(2)),
        Row("cumprod", -1.4, 1.4, |[x, ..]| x.cumprod(1)),
        Row("cumprod of the last", -1.4, 1.4, |[x, ..]| x.cumprod(2)),
        // A half of the elements is zero: in most lines there are several.
        Row("zeros", -1.4, 1.4, |[x, y, _]| {
            let (x, y) = (x.clamp_min(0.0), y.clamp_max(1.0) - 1.0);
            x.clone().cumprod(1) + y.clone().cumprod(2) + x.prod_dim(2) + y.prod_dim(1)
        }),
        Row("one zero", -0.2, 1.4, |[x, ..]| x.clamp_min(0.0).cumprod(1)),
    ];
    check_all(&rows, 16, same());
}

#[test]
fn extremes() {
    let rows = [
        Row("cummax", -2.0, 2.0, |[x, y, _]| x.cummax(1) + y.cummax(2)),
        Row("cummin", -2.0, 2.0, |[x, y, _]| x.cummin(0) + y.cummin(1)),
        Row("cummax of equals", -2.0, 2.0, |[x, ..]| x.clamp(-0.5, 0.5).cummax(1)),
        Row("cummin of equals", -2.0, 2.0, |[x, ..]| x.clamp(-0.5, 0.5).cummin(2)),
        Row("max_abs", -2.0, 2.0, |[x, ..]| x.max_abs().unsqueeze()),
        Row("max_abs_dim", -2.0, 2.0, |[x, y, _]| x.max_abs_dim(1) + y.max_abs_dim(2)),
        Row("with indices", -2.0, 2.0, |[x, y, z]| {
            let (largest, at) = x.max_dim_with_indices(1);
            let (smallest, place) = y.min_dim_with_indices(2);
            largest * at.float() + smallest * z * place.float()
        }),
    ];
    check_all(&rows, 16, same());
}

#[test]
fn order() {
    let rows = [
        Row("sort", -2.0, 2.0, |[x, y, _]| x.sort(1) + y.sort_descending(2)),
        Row("sort with indices", -2.0, 2.0, |[x, y, z]| {
            let (sorted, at) = x.sort_with_indices(0);
            let (falling, place) = y.sort_descending_with_indices(1);
            sorted * at.float() + falling * z * place.float()
        }),
        Row("argsort", -2.0, 2.0, |[x, y, z]| {
            let places: Tensor<3> = x.argsort(1).float() + y.argsort_descending(2).float();
            places * z
        }),
        Row("sort of equals", -2.0, 2.0, |[x, ..]| x.clamp(-0.5, 0.5).sort(1)),
        Row("topk", -2.0, 2.0, |[x, y, _]| {
            let [_, b, c] = x.dims();
            let (few, some) = (b.div_ceil(2), c.min(2));
            x.topk(few, 1).sum_dim(1) * y.topk(some, 2).sum_dim(2)
        }),
        Row("topk with indices", -2.0, 2.0, |[x, y, z]| {
            let some = x.dims()[2].min(3);
            let (largest, at) = x.topk_with_indices(some, 2);
            let places = Tensor::cat(vec![y.clone(), y + 0.5], 2).argtopk(some, 2);
            largest * z.gather(2, at) + places.float()
        }),
    ];
    check_all(&rows, 16, same());
}
