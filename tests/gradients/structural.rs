//! Rows of products, moves, reductions, softmax, normalisation and attention.

use burn::tensor::activation as act;
use burn::tensor::module as functions;
use burn::tensor::ops::{AttentionModuleOptions, PadMode};
use burn::tensor::{Bool, Device, Tensor, TensorData, s};
use proptest::prelude::*;

use super::indexing::flat;
use super::{Dims, Row, check_all, same, size};

/// Operands `[a, m, k]`, `[b, k, n]` and `[1, k, n]` with `a` and `b` equal or 1.
fn factors() -> impl Strategy<Value = Dims> {
    (size(), size(), size(), size(), any::<[bool; 2]>()).prop_map(|(b, m, k, n, ones)| {
        let batch = |one: bool| if one { 1 } else { b };
        [[batch(ones[0]), m, k], [batch(ones[1]), k, n], [1, k, n]]
    })
}

#[test]
fn matrix_products() {
    let rows = [
        Row("batched", -1.0, 1.0, |[x, y, _]| x.matmul(y)),
        Row("one matrix", -1.0, 1.0, |[x, _, w]| x.matmul(w)),
        Row("two dimensions", -1.0, 1.0, |[x, _, w]| {
            let x = x.slice(s![0..1, .., ..]);
            x.squeeze_dim::<2>(0).matmul(w.squeeze_dim::<2>(0)).unsqueeze()
        }),
        Row("transposed", -1.0, 1.0, |[x, y, w]| {
            x.clone().matmul(y.swap_dims(1, 2).matmul(w.clone())).matmul(w.transpose())
        }),
        Row("with itself", -1.0, 1.0, |[x, ..]| x.clone().matmul(x.transpose())),
        Row("both batches broadcast", -1.0, 1.0, |[x, y, _]| {
            let product = x.unsqueeze_dim::<4>(0).matmul(y.unsqueeze_dim::<4>(1));
            product.flatten(0, 1)
        }),
        Row("linear", -1.0, 1.0, |[x, _, w]| {
            let bias = w.clone().sum_dim(1).reshape([-1]);
            functions::linear(x, w.squeeze_dim(0), Some(bias))
        }),
    ];
    let rows: Vec<Row> = rows.into();
    let (square, rest): (Vec<Row>, Vec<Row>) =
        rows.into_iter().partition(|Row(name, ..)| *name == "transposed");
    check_all(&rest, 24, factors());
    check_all(&square, 8, factors().prop_map(|[[a, m, k], ..]| [[a, m, k], [1, k, k], [1, k, k]]));
}

#[test]
fn reductions() {
    let rows = [
        Row("sum", -2.0, 2.0, |[x, ..]| x.sum().unsqueeze()),
        Row("cumsum", -2.0, 2.0, |[x, ..]| x.cumsum(1)),
        Row("cumsum of the last", -2.0, 2.0, |[x, ..]| x.cumsum(2)),
        Row("mean", -2.0, 2.0, |[x, ..]| x.mean().unsqueeze()),
        Row("max", -2.0, 2.0, |[x, ..]| x.max().unsqueeze()),
        Row("min", -2.0, 2.0, |[x, ..]| x.min().unsqueeze()),
        Row("sum_dim", -2.0, 2.0, |[x, y, z]| x.sum_dim(0) * y.sum_dim(1) + z.sum_dim(2)),
        Row("mean_dim", -2.0, 2.0, |[x, y, z]| x.mean_dim(0) * y.mean_dim(1) + z.mean_dim(2)),
        Row("max_dim", -2.0, 2.0, |[x, y, z]| x.max_dim(0) * y.max_dim(1) + z.max_dim(2)),
        Row("min_dim", -2.0, 2.0, |[x, y, z]| x.min_dim(0) * y.min_dim(1) + z.min_dim(2)),
        Row("sum_dims", -2.0, 2.0, |[x, y, z]| {
            x.sum_dims(&[0, 2]) + y.sum_dims(&[0, 1]) * z.sum_dims(&[1, 2])
        }),
        Row("mean_dims", -2.0, 2.0, |[x, y, _]| x.mean_dims(&[0, 2]) + y.mean_dims(&[0, 1, 2])),
        Row("var", -2.0, 2.0, |[x, y, _]| x.var_bias(1) + y.var_bias(2)),
        Row("argmax", -2.0, 2.0, |[x, y, z]| {
            x.argmax(1).float() * y.clone() - y.argmin(2).float() * z
        }),
        Row("max_abs", -2.0, 2.0, |[x, ..]| x.abs().max_dim(1)),
    ];
    check_all(&rows, 16, same());
}

#[test]
fn moves() {
    let rows = [
        Row("reshape", -2.0, 2.0, |[x, ..]| {
            let [a, b, c] = x.dims();
            x.reshape([c, a, b])
        }),
        Row("permute", -2.0, 2.0, |[x, y, z]| {
            Tensor::cat(vec![flat(x.permute([2, 0, 1])), flat(y.permute([0, 2, 1])), flat(z)], 2)
        }),
        Row("swap_dims", -2.0, 2.0, |[x, y, _]| x.swap_dims(0, 2) * y.swap_dims(0, 2)),
        Row("permuted, reshaped", -2.0, 2.0, |[x, ..]| {
            let [a, b, c] = x.dims();
            x.permute([1, 2, 0]).reshape([a, b, c]).transpose()
        }),
        Row("expand", -2.0, 2.0, |[x, ..]| {
            let [a, _, c] = x.dims();
            x.sum_dim(1).expand([a, 4, c])
        }),
        Row("expand to more", -2.0, 2.0, |[x, ..]| {
            let [a, b, c] = x.dims();
            x.expand([2, a, b, c]).reshape([2 * a, b, c])
        }),
        Row("repeat", -2.0, 2.0, |[x, ..]| x.repeat(&[2, 1, 3])),
        Row("repeat_dim", -2.0, 2.0, |[x, ..]| x.repeat_dim(1, 3)),
        Row("flip", -2.0, 2.0, |[x, y, _]| x.flip([0, 2]) * y.flip([1])),
        Row("roll", -2.0, 2.0, |[x, ..]| x.roll_dim(1, 2)),
        Row("cat", -2.0, 2.0, |[x, y, z]| {
            let xy = Tensor::cat(vec![x.clone(), y], 1);
            Tensor::cat(vec![xy, Tensor::cat(vec![z, x], 1)], 0)
        }),
        Row("cat last", -2.0, 2.0, |[x, y, z]| Tensor::cat(vec![x, y.clone(), z, y], 2)),
        Row("stack", -2.0, 2.0, |[x, y, _]| Tensor::stack::<4>(vec![x, y], 1).flatten(0, 1)),
        Row("chunk", -2.0, 2.0, |[x, y, _]| {
            let chunks = Tensor::cat(vec![x, y], 0).chunk(2, 0);
            chunks[0].clone() * chunks[1].clone() - chunks[1].clone()
        }),
        Row("triu", -2.0, 2.0, |[x, y, _]| x.triu(0) + y.tril(-1)),
        Row("pad", -2.0, 2.0, |[x, ..]| x.pad((1, 0, 2, 1), PadMode::Constant(0.5))),
        Row("reflected", -2.0, 2.0, |[x, ..]| {
            let [_, height, width] = x.dims();
            let (before, after) = (width - 1, (height - 1).min(2));
            let whole = x.pad((before, 0, 0, after), PadMode::Reflect);
            whole.pad([(1, 0), (0, 2), (0, 0)], PadMode::Edge)
        }),
        Row("edges", -2.0, 2.0, |[x, ..]| x.pad((1, 3, 2, 0), PadMode::Edge)),
        Row("movedim", -2.0, 2.0, |[x, ..]| x.movedim(0, 2)),
    ];
    check_all(&rows, 16, same());
}

#[test]
fn softmax_on_every_axis() {
    let rows = [
        Row("softmax 0", -4.0, 4.0, |[x, ..]| act::softmax(x, 0)),
        Row("softmax 1", -4.0, 4.0, |[x, ..]| act::softmax(x, 1)),
        Row("softmax 2", -4.0, 4.0, |[x, ..]| act::softmax(x, 2)),
        Row("log_softmax 0", -4.0, 4.0, |[x, ..]| act::log_softmax(x, 0)),
        Row("log_softmax 1", -4.0, 4.0, |[x, ..]| act::log_softmax(x, 1)),
        Row("log_softmax 2", -4.0, 4.0, |[x, ..]| act::log_softmax(x, 2)),
        Row("softmin", -4.0, 4.0, |[x, ..]| act::softmin(x, 1)),
        Row("quiet_softmax", -4.0, 4.0, |[x, ..]| act::quiet_softmax(x, 2)),
        Row("masked", -4.0, 4.0, |[x, y, _]| {
            let mask = y.greater_scalar(3.0).bool_and(x.clone().lower_scalar(3.5));
            act::softmax(x.mask_fill(mask, -1e9), 2)
        }),
    ];
    check_all(&rows, 24, same());
}

#[test]
fn normalisation() {
    fn row(x: Tensor<3>) -> Tensor<1> {
        x.slice(s![0..1, 0..1, ..]).reshape([-1])
    }
    let rows = [
        Row("layer_norm", -2.0, 2.0, |[x, y, z]| {
            functions::layer_norm(x, row(y), Some(row(z)), 1e-3)
        }),
        Row("without beta", -2.0, 2.0, |[x, y, _]| functions::layer_norm(x, row(y), None, 1e-3)),
        Row("of a matrix", -2.0, 2.0, |[x, y, z]| {
            let [a, b, c] = x.dims();
            let x = x.reshape([a * b, c]);
            functions::layer_norm(x, row(y), Some(row(z)), 1e-3).reshape([a, b, c])
        }),
    ];
    check_all(&rows, 16, same());
}

type Mask = fn([usize; 4], &Device) -> Tensor<4, Bool>;

/// Queries, keys and values `[2 * heads, length, width]` as the op's operands.
fn attention(
    [q, k, v]: [Tensor<3>; 3],
    mask: Option<Mask>,
    biased: bool,
    options: AttentionModuleOptions,
) -> Tensor<3> {
    let heads = |x: Tensor<3>| {
        let [rows, length, width] = x.dims();
        x.reshape([2, rows / 2, length, width])
    };
    let (q, k, v) = (heads(q), heads(k), heads(v));
    let [batch, count, queries, _] = q.dims();
    let scores = [batch, count, queries, k.dims()[2]];
    let device = q.device();
    let mask = mask.map(|mask| mask(scores, &device));
    let bias = biased.then(|| q.clone().matmul(k.clone().swap_dims(2, 3)).sin());
    functions::attention(q, k, v, mask, bias, options).flatten(0, 1)
}

fn every_third(dims: [usize; 4], device: &Device) -> Tensor<4, Bool> {
    let count: usize = dims.iter().product();
    let mask: Vec<bool> = (0..count).map(|at| at % dims[3] != 0 && at % 3 == 0).collect();
    Tensor::from_data(TensorData::new(mask, dims), device)
}

fn a_whole_row(dims: [usize; 4], device: &Device) -> Tensor<4, Bool> {
    let count: usize = dims.iter().product();
    let mask: Vec<bool> = (0..count).map(|at| (at / dims[3]).is_multiple_of(2)).collect();
    Tensor::from_data(TensorData::new(mask, dims), device)
}

#[test]
fn attention_with_every_option() {
    fn causal() -> AttentionModuleOptions {
        AttentionModuleOptions { is_causal: true, ..Default::default() }
    }
    let rows = [
        Row("plain", -1.0, 1.0, |qkv| attention(qkv, None, false, Default::default())),
        Row("causal", -1.0, 1.0, |qkv| attention(qkv, None, false, causal())),
        Row("mask", -1.0, 1.0, |qkv| attention(qkv, Some(every_third), false, Default::default())),
        Row("whole row masked", -1.0, 1.0, |qkv| {
            attention(qkv, Some(a_whole_row), false, Default::default())
        }),
        Row("bias", -1.0, 1.0, |qkv| attention(qkv, None, true, Default::default())),
        Row("scale, softcap", -1.0, 1.0, |qkv| {
            let options = AttentionModuleOptions {
                scale: Some(0.7),
                softcap: Some(1.5),
                ..Default::default()
            };
            attention(qkv, None, false, options)
        }),
        Row("everything", -1.0, 1.0, |qkv| {
            attention(
                qkv,
                Some(every_third),
                true,
                AttentionModuleOptions { softcap: Some(2.0), ..causal() },
            )
        }),
    ];
    let dims = (1..4usize, size(), size(), size()).prop_map(|(heads, length, width, values)| {
        [[2 * heads, length, width], [2 * heads, length, width], [2 * heads, length, values]]
    });
    check_all(&rows, 16, dims);
}

#[test]
fn uses_of_one_value_add_up_across_blocks() {
    let rows = [
        Row("chain", -1.0, 1.0, |[x, y, z]| {
            let hidden = act::tanh(x.clone().matmul(y.clone()));
            let hidden = hidden.matmul(z.clone()) + x.clone();
            act::tanh(hidden.matmul(y) * x).matmul(z)
        }),
        Row("one computed matrix in three blocks", -1.0, 1.0, |[x, y, z]| {
            let matrix = act::tanh(y.clone() * z.clone()) + y.transpose();
            let hidden = act::tanh(x.matmul(matrix.clone())).matmul(matrix.clone().transpose());
            act::tanh(hidden).matmul(matrix) * z
        }),
    ];
    let dims = (size(), size()).prop_map(|(batch, width)| [[batch, width, width]; 3]);
    check_all(&rows, 16, dims);
}
