//! Promise: what every op computes, and each of its gradients, equals Burn's own on Flex: every
//! element within 1e-5 of the largest element of its tensor (or of 1, if that is larger), in f32.
//!
//! The loss of a row is `sum(op(x, y, z) * weights)` with parameters all four, so that the gradient
//! of `weights` is what the op computes and the other gradients are the op's, not uniform ones.

#[path = "common/gradients.rs"]
mod common;
#[path = "gradients/functions.rs"]
mod functions;
#[path = "gradients/indexing.rs"]
mod indexing;
#[path = "gradients/order.rs"]
mod order;
#[path = "gradients/resample.rs"]
mod resample;
#[path = "gradients/structural.rs"]
mod structural;
#[path = "gradients/volume.rs"]
mod volume;
#[path = "gradients/window.rs"]
mod window;

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Module, Param};
use burn::tensor::activation as act;
use burn::tensor::module as layers;
use burn::tensor::{Device, Tensor, s};
use common::{compare, compare_on_gpu, tensor};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use zerobubble::nn::{DropoutConfig, boundary};

#[derive(Module, Debug)]
struct Operands {
    x: Param<Tensor<3>>,
    y: Param<Tensor<3>>,
    z: Param<Tensor<3>>,
    weights: Param<Tensor<1>>,
}

type Op = fn([Tensor<3>; 3]) -> Tensor<3>;
type Dims = [[usize; 3]; 3];

/// An op, and the range that its operands are drawn from.
struct Row(&'static str, f32, f32, Op);

/// Where the operands of an op come from.
#[derive(Debug, Clone, Copy)]
enum Source {
    Parameters,
    Activations,
    /// Activations of other blocks, so that values and gradients cross.
    OtherBlocks,
    /// The first an activation, the others parameters, as in a layer.
    Layer,
}

/// Compares a row with Burn, with operands from everywhere.
fn check(row: &Row, dims: Dims, seed: u64) -> Result<(), String> {
    let Row(name, low, high, op) = row;
    let operand =
        |position: usize| tensor(seed.wrapping_add(position as u64), dims[position], *low, *high);
    let size = op([operand(0), operand(1), operand(2)]).shape().num_elements();
    let model = Operands {
        x: Param::from_tensor(operand(0)),
        y: Param::from_tensor(operand(1)),
        z: Param::from_tensor(operand(2)),
        weights: Param::from_tensor(tensor(seed.wrapping_add(3), [size], 0.2, 1.0)),
    };
    use Source::{Activations, Layer, OtherBlocks, Parameters};
    for source in [Parameters, Activations, OtherBlocks, Layer] {
        let loss = |model: &Operands, zero: Tensor<3>| {
            let activation = |parameter: &Param<Tensor<3>>| parameter.val() + zero.clone();
            let operand = |parameter: &Param<Tensor<3>>| match source {
                Parameters | Layer => parameter.val(),
                Activations => activation(parameter),
                OtherBlocks => boundary(activation(parameter)),
            };
            let x = if let Layer = source { activation(&model.x) } else { operand(&model.x) };
            let y = op([x, operand(&model.y), operand(&model.z)]);
            (y.reshape([size]) * model.weights.val()).sum()
        };
        let batch = |device: &Device| Tensor::<3>::zeros([1, 1, 1], device);
        compare(&model, &loss, batch).map_err(|error| format!("{name} on {source:?}: {error}"))?;
        // Shaders are compiled for every shape, so a GPU gets a part of what is drawn.
        if seed.is_multiple_of(16) && matches!(source, Parameters | OtherBlocks) {
            compare_on_gpu(&model, &loss, batch)
                .map_err(|error| format!("{name} on {source:?}, on a GPU: {error}"))?;
        }
    }
    Ok(())
}

/// Checks every row on shapes that `dims` makes.
fn check_all(rows: &[Row], cases: u32, dims: impl Strategy<Value = Dims>) {
    let config = Config {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(7),
        ..Config::default()
    };
    // One run names every row that fails.
    let check_rows = |(dims, seed): (Dims, u64)| {
        let caught = |row: &Row| {
            let panicked = |_| Err(format!("{} panicked", row.0));
            catch_unwind(AssertUnwindSafe(|| check(row, dims, seed))).unwrap_or_else(panicked)
        };
        let failures: Vec<String> = rows.iter().filter_map(|row| caught(row).err()).collect();
        if failures.is_empty() { Ok(()) } else { Err(TestCaseError::fail(failures.join("\n"))) }
    };
    let outcome = TestRunner::new(config).run(&(dims, 0..1u64 << 32), check_rows);
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

fn size() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![1, 2, 3, 5, 7, 17])
}

/// One shape for all operands.
fn same() -> impl Strategy<Value = Dims> {
    (size(), size(), size()).prop_map(|(a, b, c)| [[a, b, c]; 3])
}

/// Shapes that broadcast to one another, with a dimension of 1 anywhere.
fn broadcast() -> impl Strategy<Value = Dims> {
    let ones = prop::array::uniform3(prop::array::uniform3(any::<bool>()));
    (same(), ones).prop_map(|(dims, ones)| {
        let dim = |operand: usize, axis: usize| if ones[operand][axis] { 1 } else { dims[0][axis] };
        std::array::from_fn(|operand| std::array::from_fn(|axis| dim(operand, axis)))
    })
}

#[test]
fn elementwise_functions() {
    let rows = [
        Row("neg", -2.0, 2.0, |[x, ..]| -x),
        Row("abs", -2.0, 2.0, |[x, ..]| x.abs()),
        Row("sign", -2.0, 2.0, |[x, y, _]| x.sign() * y),
        Row("exp", -3.0, 3.0, |[x, ..]| x.exp()),
        Row("log", 0.1, 3.0, |[x, ..]| x.log()),
        Row("log1p", -0.5, 3.0, |[x, ..]| x.log1p()),
        Row("sqrt", 0.1, 3.0, |[x, ..]| x.sqrt()),
        Row("recip", 0.4, 3.0, |[x, ..]| x.recip()),
        Row("sin", -4.0, 4.0, |[x, ..]| x.sin()),
        Row("cos", -4.0, 4.0, |[x, ..]| x.cos()),
        Row("floor", -3.0, 3.0, |[x, y, _]| x.clone().floor() * y + x),
        Row("erf", -3.0, 3.0, |[x, ..]| x.erf()),
        Row("tanh", -4.0, 4.0, |[x, ..]| x.tanh()),
        Row("square", -2.0, 2.0, |[x, ..]| x.square()),
    ];
    check_all(&rows, 16, same());
}

#[test]
fn activation_functions() {
    let rows = [
        Row("relu", -2.0, 2.0, |[x, ..]| act::relu(x)),
        Row("gelu", -4.0, 4.0, |[x, ..]| act::gelu(x)),
        Row("gelu_approximate", -4.0, 4.0, |[x, ..]| act::gelu_approximate(x)),
        Row("silu", -4.0, 4.0, |[x, ..]| act::silu(x)),
        Row("sigmoid", -6.0, 6.0, |[x, ..]| act::sigmoid(x)),
        Row("log_sigmoid", -6.0, 6.0, |[x, ..]| act::log_sigmoid(x)),
        Row("hard_sigmoid", -4.0, 4.0, |[x, ..]| act::hard_sigmoid(x, 0.2, 0.5)),
        Row("leaky_relu", -2.0, 2.0, |[x, ..]| act::leaky_relu(x, 0.1)),
        Row("softplus", -4.0, 4.0, |[x, ..]| act::softplus(x, 1.5)),
        Row("softsign", -4.0, 4.0, |[x, ..]| act::softsign(x)),
        Row("tanhshrink", -4.0, 4.0, |[x, ..]| act::tanhshrink(x)),
        Row("mish", -4.0, 4.0, |[x, ..]| act::mish(x)),
        Row("elu", -2.0, 2.0, |[x, ..]| act::elu(x, 0.7)),
        Row("celu", -2.0, 2.0, |[x, ..]| act::celu(x, 0.7)),
        Row("selu", -2.0, 2.0, |[x, ..]| act::selu(x)),
        Row("hard_swish", -4.0, 4.0, |[x, ..]| act::hard_swish(x)),
        Row("hardtanh", -2.0, 2.0, |[x, ..]| act::hardtanh(x, -1.0, 1.0)),
        Row("relu6", -2.0, 8.0, |[x, ..]| act::relu6(x)),
        Row("shrink", -2.0, 2.0, |[x, ..]| act::shrink(x, 0.5, 0.3)),
        Row("thresholded_relu", -2.0, 2.0, |[x, ..]| act::thresholded_relu(x, 0.5)),
        Row("prelu", -2.0, 2.0, |[x, y, _]| act::prelu(x, y.reshape([-1]).slice(s![0..1]))),
        Row("glu", -2.0, 2.0, |[x, y, _]| act::glu(Tensor::cat(vec![x, y], 2), 2)),
    ];
    check_all(&rows, 16, same());
}

#[test]
fn arithmetic_with_a_number() {
    let rows = [
        Row("add_scalar", -2.0, 2.0, |[x, ..]| x + 1.5),
        Row("sub_scalar", -2.0, 2.0, |[x, ..]| x - 1.5),
        Row("scalar_sub", -2.0, 2.0, |[x, ..]| 1.5 - x),
        Row("mul_scalar", -2.0, 2.0, |[x, ..]| x * -1.5),
        Row("div_scalar", -2.0, 2.0, |[x, ..]| x / 3.0),
        Row("scalar_div", 0.4, 2.0, |[x, ..]| 1.5 / x),
        Row("powf 0.5", 0.1, 2.0, |[x, ..]| x.powf_scalar(0.5)),
        Row("powf 2.5", 0.1, 2.0, |[x, ..]| x.powf_scalar(2.5)),
        Row("powf -1.5", 0.4, 2.0, |[x, ..]| x.powf_scalar(-1.5)),
        Row("powf 3", -2.0, 2.0, |[x, ..]| x.powf_scalar(3.0)),
        Row("powi 0", -2.0, 2.0, |[x, ..]| x.powi_scalar(0)),
        Row("powi 1", -2.0, 2.0, |[x, ..]| x.powi_scalar(1)),
        Row("powi 2", -2.0, 2.0, |[x, ..]| x.powi_scalar(2)),
        Row("powi 3", -2.0, 2.0, |[x, ..]| x.powi_scalar(3)),
        Row("powi -1", 0.4, 2.0, |[x, ..]| -(-x).powi_scalar(-1)),
        Row("clamp_min", -2.0, 2.0, |[x, ..]| x.clamp_min(-0.5)),
        Row("clamp_max", -2.0, 2.0, |[x, ..]| x.clamp_max(0.5)),
        Row("clamp", -2.0, 2.0, |[x, ..]| x.clamp(-0.5, 0.5)),
    ];
    check_all(&rows, 16, same());
}

#[test]
fn arithmetic_broadcasts_in_every_position() {
    let rows = [
        Row("add", -2.0, 2.0, |[x, y, _]| x + y),
        Row("sub", -2.0, 2.0, |[x, y, _]| x - y),
        Row("mul", -2.0, 2.0, |[x, y, _]| x * y),
        Row("div", 0.4, 2.0, |[x, y, _]| x / y),
        Row("of three", 0.4, 2.0, |[x, y, z]| x.clone() * y.clone() / z + x * y),
        Row("with itself", 0.4, 2.0, |[x, ..]| x.clone() * x.clone() / (x.clone() + x)),
    ];
    for ones in 0..64usize {
        let dim = |operand: usize, axis: usize| match ones >> (3 * operand + axis) & 1 {
            1 => 1,
            _ => [2, 5, 3][axis],
        };
        let shape = |operand: usize| std::array::from_fn(|axis| dim(operand, axis));
        let dims = [shape(0), shape(1), [2, 1, 3]];
        rows.iter().try_for_each(|row| check(row, dims, ones as u64)).unwrap();
    }
    check_all(&rows, 16, broadcast());
}

#[test]
fn comparisons_and_masks() {
    let rows = [
        Row("greater", -2.0, 2.0, |[x, y, z]| x.greater(y).float() * z),
        Row("greater_equal", -2.0, 2.0, |[x, y, z]| x.greater_equal(y).float() * z),
        Row("lower", -2.0, 2.0, |[x, y, z]| x.lower(y).float() * z),
        Row("lower_equal", -2.0, 2.0, |[x, y, z]| x.lower_equal(y).float() * z),
        Row("equal", -2.0, 2.0, |[x, y, z]| x.sign().equal(y.sign()).float() * z),
        Row("not_equal", -2.0, 2.0, |[x, y, z]| x.sign().not_equal(y.sign()).float() * z),
        Row("with numbers", -2.0, 2.0, |[x, y, z]| {
            let x = x.clone().greater_scalar(0.5).float() + x.greater_equal_scalar(-0.5).float();
            let y = y.clone().lower_scalar(0.5).float() + y.lower_equal_scalar(-0.5).float();
            let equal = x.clone().equal_scalar(2.0).float() * 3.0;
            (equal + x * y.clone() + y.not_equal_scalar(1.0).float()) * z
        }),
        Row("logic", -2.0, 2.0, |[x, y, z]| {
            let (x, y) = (x.greater_scalar(0.0), y.lower_scalar(0.3));
            let both = x.clone().bool_and(y.clone()).float() * 2.0;
            let one = x.clone().bool_or(y.clone()).int().float() * 3.0;
            (both + one + x.clone().bool_xor(y).float() + x.bool_not().float() * 5.0) * z
        }),
        Row("mask_fill", -2.0, 2.0, |[x, y, _]| {
            let [dims, mask] = [wider(&x, &y), y.dims()];
            x.expand(dims).mask_fill(y.greater_scalar(0.0).reshape(mask).expand(dims), -1.5)
        }),
        Row("max_pair", -2.0, 2.0, |[x, y, _]| x.max_pair(y)),
        Row("min_pair", -2.0, 2.0, |[x, y, _]| x.min_pair(y)),
    ];
    check_all(&rows, 24, broadcast());
}

/// The shape that both broadcast to.
fn wider(x: &Tensor<3>, y: &Tensor<3>) -> [usize; 3] {
    std::array::from_fn(|axis| x.dims()[axis].max(y.dims()[axis]))
}

#[test]
fn masks_broadcast_in_every_position() {
    let rows = [
        Row("mask_where", -2.0, 2.0, |[x, y, z]| z.clone().mask_where(y.greater_scalar(0.0), x)),
        Row("mask_fill", -2.0, 2.0, |[_, y, z]| z.mask_fill(y.greater_scalar(0.0), 0.5)),
    ];
    let dims =
        broadcast().prop_map(|[x, y, _]| [x, y, std::array::from_fn(|axis| x[axis].max(y[axis]))]);
    check_all(&rows, 24, dims);
}

#[test]
fn limits_and_ties() {
    let rows = [
        Row("relu", 0.0, 0.0, |[x, ..]| act::relu(x)),
        Row("leaky_relu", 0.0, 0.0, |[x, ..]| act::leaky_relu(x, 0.1)),
        Row("prelu", 0.0, 0.0, |[x, y, _]| act::prelu(x, (y + 0.5).reshape([-1]).slice(s![0..1]))),
        Row("abs", 0.0, 0.0, |[x, ..]| x.abs()),
        Row("powi", 0.0, 0.0, |[x, ..]| x.powi_scalar(2)),
        Row("clamp_min", 0.5, 0.5, |[x, ..]| x.clamp_min(0.5)),
        Row("clamp_max", 0.5, 0.5, |[x, ..]| x.clamp_max(0.5)),
        Row("clamp", 0.5, 0.5, |[x, ..]| x.clamp(0.5, 0.7)),
        Row("max_dim", 0.5, 0.5, |[x, ..]| x.max_dim(1)),
        Row("min_dim", 0.5, 0.5, |[x, ..]| x.min_dim(2)),
        Row("max", 0.5, 0.5, |[x, ..]| x.max().unsqueeze()),
        Row("max_pair", 0.5, 0.5, |[x, y, _]| x.max_pair(y)),
        Row("hard_sigmoid", 2.5, 2.5, |[x, ..]| act::hard_sigmoid(x, 0.2, 0.5)),
    ];
    check_all(&rows, 16, same());
}

/// More dimensions than this crate's kernels take: every op by way of Burn's own.
#[test]
fn seven_dimensions() {
    fn wide(x: Tensor<3>) -> Tensor<7> {
        let [a, b, c] = x.dims();
        x.reshape([a, 1, 1, 1, 1, b, c])
    }
    fn row(x: &Tensor<3>) -> Tensor<1> {
        x.clone().slice(s![0..1, 0..1, ..]).reshape([-1])
    }
    let rows = [
        Row("unary", 0.2, 2.0, |[x, ..]| {
            let x = wide(x);
            let y = x.clone().exp() + x.clone().log() * x.clone().sqrt() - x.clone().recip();
            let z = x.clone().sin() * x.clone().cos() + x.clone().erf() - x.clone().tanh();
            (y * z + x.clone().abs() * x.clone().sign() - x).flatten(0, 4)
        }),
        Row("activations", -2.0, 2.0, |[x, y, z]| {
            let product = act::relu(wide(x)) * act::gelu(wide(y)) + act::sigmoid(wide(z));
            product.flatten(0, 4)
        }),
        Row("numbers", 0.2, 2.0, |[x, y, _]| {
            let x = (wide(x) * 2.0 + 1.0).powf_scalar(1.5).clamp(0.5, 4.0);
            (x / wide(y)).flatten(0, 4)
        }),
        Row("masks", -2.0, 2.0, |[x, y, z]| {
            let (x, y, z) = (wide(x), wide(y), wide(z));
            let filled = x.clone().mask_fill(y.clone().greater(z.clone()), 0.5);
            filled.mask_where(x.lower_scalar(0.3), y * z).flatten(0, 4)
        }),
        Row("matmul", -1.0, 1.0, |[x, y, _]| wide(x).matmul(wide(y).swap_dims(5, 6)).flatten(0, 4)),
        Row("reductions", -2.0, 2.0, |[x, y, z]| {
            let x = wide(x);
            let sums = x.clone().sum_dim(0) + wide(y).mean_dim(5) * wide(z).max_dim(6);
            (sums * x.sum_dims(&[0, 6])).flatten(0, 4)
        }),
        Row("moves", -2.0, 2.0, |[x, y, _]| {
            let cat = Tensor::cat(vec![wide(x), wide(y)], 5).permute([5, 1, 0, 3, 4, 2, 6]);
            cat.slice(s![1.., .., .., .., .., .., ..;-1]).flatten(0, 4)
        }),
        Row("softmax", -4.0, 4.0, |[x, y, _]| {
            (act::softmax(wide(x), 6) * act::log_softmax(wide(y), 6)).flatten(0, 4)
        }),
        Row("layer_norm", -2.0, 2.0, |[x, y, z]| {
            layers::layer_norm(wide(x), row(&y), Some(row(&z)), 1e-3).flatten(0, 4)
        }),
        Row("dropout", -2.0, 2.0, |[x, ..]| {
            DropoutConfig::new(0.4).init().forward(wide(x)).flatten(0, 4)
        }),
    ];
    check_all(&rows, 16, same());
}
