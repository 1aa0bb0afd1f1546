//! Promise: a Burn module is captured as it trains, the same way every time, or refused with one
//! clear error.

#[path = "capture/layers.rs"]
mod layers;

#[path = "common/gradients.rs"]
mod common;

use std::cell::Cell;

use burn::module::{Module, Param};
use burn::nn::transformer::TransformerEncoderConfig;
use burn::nn::{DropoutConfig, Embedding, EmbeddingConfig, Linear, LinearConfig, Relu};
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{DType, Device, Int, Tensor, activation};
use common::{compare, compare_on_gpu, numbers, tensor};
use zerobubble::batch::Batch;
use zerobubble::capture::capture;
use zerobubble::differentiate::differentiate;
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::graph::{self, Elementwise, Movement, Op};
use zerobubble::nn::{boundary, detach};
use zerobubble::plan::ZB_H1;
use zerobubble::split::{Split, split};
use zerobubble::{AdamW, Trainer, gradients};

/// Burn's device for tensors on the host, with its random numbers started anew.
fn seeded() -> Device {
    let device = Device::flex();
    device.seed(11);
    device
}

fn linear(from: usize, to: usize) -> Linear {
    LinearConfig::new(from, to).init(&seeded())
}

/// A loss whose gradient is another one for every element.
fn weighted<const D: usize>(y: Tensor<D>) -> Tensor<1> {
    let size = y.shape().num_elements();
    let weights = Tensor::from_floats(numbers(5, size, 0.2, 1.0).as_slice(), &y.device());
    (y.reshape([size]) * weights).sum()
}

fn rows(device: &Device) -> Tensor<2> {
    tensor(3, [5, 4], -1.0, 1.0).to_device(device)
}

fn gpt() -> Gpt {
    GptConfig::new(11, 6, 2, 8, 2).init(&seeded())
}

type Tokens = (Tensor<2, Int>, Tensor<2, Int>);

fn gpt_loss(model: &Gpt, (tokens, targets): Tokens) -> Tensor<1> {
    model.loss(tokens, targets)
}

fn token_batch(device: &Device) -> Tokens {
    let tokens = |shift: i64| {
        let tokens = Tensor::<1, Int>::arange(shift..shift + 12, device) * 5;
        let tokens: Vec<i64> = tokens.into_data().iter::<i64>().map(|token| token % 11).collect();
        Tensor::<1, Int>::from_ints(tokens.as_slice(), device).reshape([2, 6])
    };
    (tokens(0), tokens(1))
}

fn graph_of(model: &Gpt) -> graph::Graph {
    capture(model, &gpt_loss, &token_batch(&Device::flex())).unwrap()
}

fn split_of<M: Module, B: Batch>(
    model: &M,
    loss: &impl Fn(&M, B) -> Tensor<1>,
    batch: &B,
) -> Split {
    split(differentiate(capture(model, loss, batch).unwrap(), 1.0).unwrap()).unwrap()
}

fn refusal<M: Module, B: Batch>(model: &M, loss: impl Fn(&M, B) -> Tensor<1>, batch: B) -> String {
    let error = gradients(model, &loss, &batch).unwrap_err().to_string();
    assert!(!error.contains('\n'), "one line: {error}");
    error
}

#[track_caller]
fn assert_names(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn the_same_input_gives_the_same_graph_text() {
    let model = gpt();
    let text = graph_of(&model).to_string();
    assert_eq!(graph_of(&model), graph_of(&model));
    assert_eq!(graph_of(&model).to_string(), text);
    assert_eq!(graph_of(&gpt()).to_string(), text);
}

#[test]
fn a_module_on_an_autodiff_device_is_captured_too() {
    let device = Device::flex().autodiff();
    let graph = |model: &Gpt, device: &Device| {
        capture(model, &gpt_loss, &token_batch(device)).unwrap().to_string()
    };
    let model = gpt();
    let expected = graph(&model, &Device::flex());
    assert_eq!(graph(&model.clone().train(), &device), expected);
    assert_eq!(graph(&model.clone().to_device(&device), &device), expected);
    let model = model.train();
    assert!(gradients(&model, &gpt_loss, &token_batch(&device)).is_ok());
    let model = train_one_step(&model, gpt_loss, "cpux2", &token_batch(&device));
    let gradients = gpt_loss(&model, token_batch(&device)).backward();
    let trained = burn::optim::GradientsParams::from_grads(gradients, &model);
    assert_eq!(trained.len(), graph_of(&model).parameters.len(), "it can be trained on in Burn");
}

#[test]
fn parameters_are_named_by_module_path() {
    let encoder = TransformerEncoderConfig::new(4, 8, 2, 2).with_dropout(0.0).init(&seeded());
    let loss = |model: &burn::nn::transformer::TransformerEncoder, x: Tensor<3>| {
        let input = burn::nn::transformer::TransformerEncoderInput::new(x);
        model.forward(input).mean()
    };
    let graph = capture(&encoder, &loss, &Tensor::zeros([1, 3, 4], &Device::flex())).unwrap();
    let paths: Vec<&str> = graph.parameters.iter().map(|of| of.path.as_str()).collect();
    for path in ["layers.0.mha.query.weight", "layers.1.pwff.linear_inner.bias"] {
        assert!(paths.contains(&path), "{path} is not in {paths:?}");
    }
    let mut sorted = paths.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), paths.len(), "every path once: {paths:?}");
}

#[test]
fn no_index_arithmetic_is_left_for_the_microbatches() {
    let split = split_of(&gpt(), &gpt_loss, &token_batch(&Device::flex()));
    let graph = &split.joint.graph;
    for id in graph.ids() {
        let node = &graph[id];
        let moved = matches!(
            node.op,
            Op::Movement(Movement::Reshape(_)) | Op::Movement(Movement::Expand(_))
        );
        if node.dtype != graph::DType::F32 && split.places[id.index()].is_some() {
            assert!(moved, "{id} {node} is computed for every microbatch");
        }
    }
    assert!(
        graph.nodes.iter().any(|node| matches!(node.op, Op::Elementwise(Elementwise::Fill(_)))),
        "there is a mask"
    );
}

#[test]
fn marks_give_exactly_the_blocks_between_them() {
    type Three = (Linear, Linear, Linear);
    let model: Three = (linear(4, 6), linear(6, 6), linear(6, 3));
    let loss = |(first, second, third): &Three, x| {
        let x = boundary(activation::tanh(first.forward(x)));
        let y = boundary(second.forward(x.clone()) * x.clone());
        weighted(third.forward(y + x))
    };
    let split = split_of(&model, &loss, &rows(&Device::flex()));
    let parameters: Vec<Vec<u32>> = split
        .blocks
        .iter()
        .map(|block| block.parameters.iter().map(|parameter| parameter.0).collect())
        .collect();
    assert_eq!(parameters, [[0, 1], [2, 3], [4, 5]]);
    assert_eq!(split.marks, [1, 2]);
    compare(&model, &loss, rows).unwrap();
    let unmarked = |(first, second, third): &Three, x| {
        let x = activation::tanh(first.forward(x));
        let y = second.forward(x.clone()) * x.clone();
        weighted(third.forward(y + x))
    };
    let flex = Device::flex();
    let [marked, unmarked] = [
        gradients(&model, &loss, &rows(&flex)).unwrap(),
        gradients(&model, &unmarked, &rows(&flex)).unwrap(),
    ];
    for ((path, marked), (_, unmarked)) in marked.iter().zip(&unmarked) {
        assert_eq!(marked, unmarked, "{path} is the same with and without marks");
    }
}

#[test]
fn a_mark_without_work_before_it_is_refused() {
    let loss = |model: &Linear, x| boundary(boundary(model.forward(x))).mean();
    assert!(gradients(&linear(4, 2), &loss, &rows(&Device::flex())).is_ok(), "marks of one value");
    let loss = |model: &Param<Tensor<2>>, x: Tensor<2>| {
        let x = boundary(x.sum());
        (x + boundary(model.val() * 2.0).sum()).sum()
    };
    let model = Param::from_tensor(rows(&Device::flex()));
    let error = refusal(&model, loss, rows(&Device::flex()));
    assert_names(&error, &["block 1 of those that marks make computes nothing", "boundary"]);
}

#[test]
fn own_dropout_drops_the_same_elements_captured_and_eager() {
    type Net = (Linear, zerobubble::nn::Dropout, Linear, zerobubble::nn::Dropout);
    let dropout = |probability| zerobubble::nn::DropoutConfig::new(probability).init();
    let model: Net = (linear(4, 9), dropout(0.5), linear(9, 8), dropout(0.2));
    let loss =
        |net: &Net, x| weighted(net.3.forward(net.2.forward(net.1.forward(net.0.forward(x)))));
    compare(&model, &loss, rows).unwrap();
    let none: Net = (model.0.clone(), dropout(0.0), model.2.clone(), dropout(0.0));
    let of = |model: &Net| gradients(model, &loss, &rows(&Device::flex())).unwrap();
    assert_ne!(of(&model), of(&none), "elements are dropped");
}

#[test]
fn an_unknown_op_is_an_error_that_names_it_and_its_module() {
    type Net = (Linear, Vec<Linear>);
    let net: Net = (linear(4, 4), vec![linear(4, 4)]);
    // Burn's host device does not have this mode, so there is nothing to compare with.
    let loss = |net: &Net, x| {
        let x = net.1[0].forward(net.0.forward(x)).unsqueeze::<4>();
        let options = InterpolateOptions::new(InterpolateMode::NearestExact);
        interpolate(x, options.with_output_size([3, 3])).sum()
    };
    assert_names(&refusal(&net, loss, rows(&Device::flex())), &["module 1.0", "Interpolate"]);
}

#[test]
fn unusable_models_and_losses_are_each_one_clear_error() {
    let flex = Device::flex();
    let error = refusal(&Relu::new(), |model: &Relu, x| model.forward(x).sum(), rows(&flex));
    assert_names(&error, &["the module has no parameters"]);

    let error = refusal(&linear(4, 2), |_, x: Tensor<2>| x.mean(), rows(&flex));
    assert_names(&error, &["the loss depends on no parameter"]);
    let error =
        refusal(&linear(4, 2), |_, x: Tensor<2>| Tensor::zeros([1], &x.device()), rows(&flex));
    assert_names(&error, &["the loss depends on no parameter"]);
    let error = refusal(&linear(4, 2).no_grad(), |m: &Linear, x| m.forward(x).mean(), rows(&flex));
    assert_names(&error, &["the loss depends on no parameter"]);

    let error = refusal(&linear(3, 2), |model: &Linear, x| model.forward(x).mean(), rows(&flex));
    assert_names(&error, &["the model panicked while it was captured"]);
    let panics = |_: &Linear, _: Tensor<2>| -> Tensor<1> { panic!("five rows,\n not four") };
    assert_names(&refusal(&linear(4, 2), panics, rows(&flex)), &["five rows, not four"]);

    let deep: Vec<Linear> = (0..40).map(|_| linear(4, 4)).collect();
    let overflows = |layers: &Vec<Linear>, x: Tensor<2>| {
        let y = layers.iter().fold(x, |x, layer| layer.forward(x) * 1e3);
        y.powi_scalar(2).mean()
    };
    assert_names(&refusal(&deep, overflows, rows(&flex)), &["module ", "NaN", "initial weights"]);

    let several = |model: &Linear, x| model.forward(x).flatten::<1>(0, 1);
    assert_names(&refusal(&linear(4, 2), several, rows(&flex)), &["the loss is", "one float"]);

    let reads = |model: &Linear, x| {
        let y = model.forward(x);
        let largest = y.clone().max().into_scalar::<f32>();
        (y / largest).sum()
    };
    assert_names(&refusal(&linear(4, 2), reads, rows(&flex)), &["reads", "Max", "goes by it"]);
}

/// Burn looks at the largest index before it makes a one-hot tensor.
#[test]
fn what_is_read_and_decides_nothing_is_captured() {
    let device = Device::flex();
    let targets = Tensor::<1, Int>::from_data([0, 2, 1, 2, 0], &device);
    let loss = |model: &Linear, (x, targets): (Tensor<2>, Tensor<1, Int>)| {
        let one_hot: Tensor<2, Int> = targets.one_hot(3);
        let y = activation::log_softmax(model.forward(x), 1);
        (y * one_hot.float()).sum_dim(1).mean().neg()
    };
    let model = linear(4, 3);
    let batch = |device: &Device| (rows(device), targets.clone().to_device(device));
    compare(&model, &loss, batch).unwrap();

    // The second microbatch has one sign, and so another sum.
    let branches = |model: &Linear, x: Tensor<2>| {
        let is_first = x.clone().slice([0..1, 0..1]).sum().into_scalar::<f32>()
            < x.clone().slice([4..5, 0..1]).sum().into_scalar::<f32>();
        let y = model.forward(x);
        if is_first { y.sum() } else { y.powi_scalar(2).sum() }
    };
    let error = refusal(&linear(4, 2), branches, rows(&device));
    assert_names(&error, &["reads", "Sum", "goes by it", "into_scalar"]);
}

/// What a closure reads from outside is fixed when the model is captured.
#[test]
fn a_value_from_outside_that_changes_is_refused() {
    let calls = Cell::new(0.0);
    let count = || calls.replace(calls.get() + 0.5) as f32;
    let scaled = |model: &Linear, x: Tensor<2>| weighted(model.forward(x)) * count();
    let moved = |model: &Linear, x: Tensor<2>| {
        let offset = Tensor::<1>::from_floats([count(), 1.0], &x.device());
        weighted(model.forward(x) + offset.unsqueeze())
    };
    let expected = ["value from outside", "changes", "tensor of the batch"];
    assert_names(&refusal(&linear(4, 2), scaled, rows(&Device::flex())), &expected);
    assert_names(&refusal(&linear(4, 2), moved, rows(&Device::flex())), &expected);
    let fixed = 0.25;
    let loss = |model: &Linear, x: Tensor<2>| weighted(model.forward(x)) * fixed;
    compare(&linear(4, 2), &loss, rows).unwrap();
}

#[test]
fn a_forward_pass_may_move_its_batch_to_the_device_of_the_model() {
    let loss = |layer: &Linear, (x, columns): (Tensor<2>, Tensor<1, Int>)| {
        let device = &layer.devices()[0];
        let y = layer.forward(x.to_device(device)).select(1, columns.clone().to_device(device));
        // A float on the device of what was moved.
        weighted(y * columns.to_device(device).float().unsqueeze())
    };
    let batch = |device: &Device| (rows(device), Tensor::from_data([2, 0, 1, 1, 2], device));
    compare(&linear(4, 3), &loss, batch).unwrap();
    // What drops out of the batch itself is not seen to do so, and not silently left out.
    let dropout = DropoutConfig::new(0.5).init();
    let moved = |layer: &Linear, x: Tensor<2>| {
        let device = &layer.devices()[0];
        weighted(layer.forward(dropout.forward(x.to_device(device))))
    };
    assert_names(&refusal(&linear(4, 3), moved, rows(&seeded())), &["its loss in training"]);
}

#[test]
fn no_gradient_flows_through_what_is_detached() {
    let loss = |model: &Linear, x: Tensor<2>| {
        let y = model.forward(x);
        weighted(activation::sigmoid(y.clone()) * detach(y.clone()) + detach(y.powi_scalar(2)))
    };
    compare(&linear(4, 3), &loss, rows).unwrap();
}

#[test]
fn other_floats_than_f32_are_refused_wherever_they_come_from() {
    let flex = Device::flex();
    let loss = |model: &Linear, x: Tensor<2>| model.forward(x).mean();
    for (dtype, name) in [(DType::F64, "F64"), (DType::F16, "F16")] {
        let error = refusal(&linear(4, 2), loss, rows(&flex).cast(dtype));
        assert_names(&error, &[name, "f32"]);
        let casts = |model: &Linear, x: Tensor<2>| loss(model, x).cast(dtype);
        assert_names(&refusal(&linear(4, 2), casts, rows(&flex)), &[name, "f32"]);
        let mut model = linear(4, 2);
        model.weight = model.weight.map(|weight| weight.cast(dtype));
        model.bias = None;
        let loss =
            |model: &Linear, x: Tensor<2>| x.matmul(model.weight.val().cast(DType::F32)).mean();
        assert_names(&refusal(&model, loss, rows(&flex)), &[name, "f32", "weight"]);
    }
    // They may be cast back, but nothing is computed of them.
    for (dtype, name) in [(DType::F16, "F16"), (DType::BF16, "BF16"), (DType::F64, "F64")] {
        let computes = |model: &Linear, x| (model.forward(x).cast(dtype) * 2.0).cast(DType::F32);
        let computes = |model: &Linear, x| computes(model, x).mean();
        assert_names(&refusal(&linear(4, 2), computes, rows(&flex)), &[name, "f32"]);
    }
}

#[test]
fn a_cast_to_other_floats_and_back_rounds_as_burn_does() {
    for dtype in [DType::F16, DType::BF16, DType::F64] {
        let loss = |model: &Linear, x: Tensor<2>| {
            weighted(activation::tanh(model.forward(x)).cast(dtype).cast(DType::F32))
        };
        compare(&linear(4, 6), &loss, rows).unwrap();
        compare_on_gpu(&linear(4, 6), &loss, rows).unwrap();
    }
}

fn train_one_step<M: Module, B: Batch>(
    model: &M,
    loss: impl Fn(&M, B) -> Tensor<1>,
    devices: &str,
    batch: &B,
) -> M {
    let mut trainer = Trainer::of(model.clone(), loss)
        .devices(devices)
        .unwrap()
        .schedule(&ZB_H1)
        .microbatches(1)
        .optimizer(AdamW { weight_decay: 0.1, ..AdamW::default() })
        .build(batch)
        .unwrap();
    trainer.step(batch.clone()).unwrap();
    trainer.into_module().unwrap()
}

#[test]
fn frozen_parameters_are_not_trained() {
    type Three = (Linear, Linear, Linear);
    let bits = |linear: &Linear| linear.weight.val().into_data();
    let loss = |net: &Three, x| {
        let x = activation::tanh(net.0.forward(x));
        weighted(net.2.forward(activation::tanh(net.1.forward(x))))
    };
    for frozen in 0..3 {
        let mut net: Three = (linear(4, 6), linear(6, 6), linear(6, 3));
        match frozen {
            0 => net.0 = net.0.no_grad(),
            1 => net.1 = net.1.freeze(),
            _ => net.2 = net.2.no_grad(),
        }
        compare(&net, &loss, rows).unwrap();
        for devices in ["cpux1", "cpux3"] {
            let trained = train_one_step(&net, loss, devices, &rows(&Device::flex()));
            let same = [
                bits(&net.0) == bits(&trained.0),
                bits(&net.1) == bits(&trained.1),
                bits(&net.2) == bits(&trained.2),
            ];
            assert_eq!(same, std::array::from_fn(|at| at == frozen), "{frozen} on {devices}");
        }
    }
}

#[test]
fn a_parameter_that_the_loss_does_not_use_keeps_its_value() {
    type Two = (Linear, Linear);
    let net: Two = (linear(4, 2), linear(4, 2));
    let loss = |net: &Two, x| weighted(net.0.forward(x));
    compare(&net, &loss, rows).unwrap();
    let trained = train_one_step(&net, loss, "cpux1", &rows(&Device::flex()));
    assert_eq!(net.1.weight.val().into_data(), trained.1.weight.val().into_data());
    assert_ne!(net.0.weight.val().into_data(), trained.0.weight.val().into_data());
}

/// Burn's optimizers give only one of them a gradient.
#[test]
fn a_layer_and_its_clone_are_refused_by_name() {
    type Two = (Linear, Linear);
    let first = linear(4, 4);
    let net: Two = (first.clone(), first);
    let loss = |net: &Two, x| weighted(net.1.forward(activation::tanh(net.0.forward(x))));
    let error = refusal(&net, loss, rows(&Device::flex()));
    assert_names(&error, &["0.weight and 1.weight are one parameter", "use one twice"]);
}

#[test]
fn a_parameter_of_three_uses_gets_the_sum_of_its_gradients() {
    let loss = |model: &Linear, x| {
        let h = activation::tanh(model.forward(activation::tanh(model.forward(x))));
        weighted(model.forward(h))
    };
    compare(&linear(4, 4), &loss, rows).unwrap();
    for devices in ["cpux1", "cpux2"] {
        let trained = train_one_step(&linear(4, 4), loss, devices, &rows(&Device::flex()));
        assert_ne!(trained.weight.val().into_data(), linear(4, 4).weight.val().into_data());
    }
}

#[test]
fn an_embedding_that_is_also_the_head_gets_the_sum_of_its_gradients() {
    let model: (Embedding, Linear) = (EmbeddingConfig::new(11, 8).init(&seeded()), linear(8, 8));
    let loss = |(table, middle): &(Embedding, Linear), (tokens, _): Tokens| {
        let hidden = activation::gelu(middle.forward(table.forward(tokens)));
        let logits = hidden.matmul(table.weight.val().transpose().unsqueeze());
        weighted(activation::log_softmax(logits, 2))
    };
    compare(&model, &loss, token_batch).unwrap();
    let tied = GptConfig::new(11, 6, 2, 8, 2).with_tied(true).init(&seeded());
    compare(&tied, &gpt_loss, token_batch).unwrap();
    compare(&gpt(), &gpt_loss, token_batch).unwrap();
}
