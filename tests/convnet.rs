//! Promise: a ConvNet of Burn's layers trains as a GPT does: with Burn's gradients, split into B
//! and W, and to the same bits on any number of devices of one kind.

#[path = "common/gradients.rs"]
mod common;
#[path = "common/precisions.rs"]
mod precisions;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, Linear, LinearConfig, PaddingConfig2d,
};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use common::{compare, compare_on_gpu, tensor};
use precisions::precisions;
use zerobubble::Trainer;
use zerobubble::capture::capture;
use zerobubble::differentiate::differentiate;
use zerobubble::graph::{NodeId, Op, Windowed};
use zerobubble::plan::{GPIPE, Work, ZB_H1, ZB_V};
use zerobubble::split::split;
use zerobubble::train::Precision;

const CLASSES: usize = 3;
const ROWS: usize = 2;
const MICROBATCHES: usize = 3;

#[derive(Module, Debug)]
struct ConvNet {
    first: Conv2d,
    norm: GroupNorm,
    pool: MaxPool2d,
    body: Vec<Conv2d>,
    mean: AvgPool2d,
    head: Linear,
}

impl ConvNet {
    fn new() -> Self {
        let device = Device::flex();
        let explicit = PaddingConfig2d::Explicit;
        let first = Conv2dConfig::new([2, 4], [3, 3]).with_padding(PaddingConfig2d::Same);
        let body = [
            Conv2dConfig::new([4, 6], [3, 2]).with_padding(explicit(1, 0, 1, 1)).with_groups(2),
            Conv2dConfig::new([6, 6], [3, 3])
                .with_padding(explicit(2, 2, 2, 2))
                .with_dilation([2, 2]),
            Conv2dConfig::new([6, 4], [1, 1]).with_bias(false),
            Conv2dConfig::new([4, 4], [3, 3])
                .with_padding(explicit(1, 1, 1, 1))
                .with_stride([2, 2]),
        ];
        Self {
            first: first.init(&device),
            norm: GroupNormConfig::new(2, 4).init(&device),
            pool: MaxPool2dConfig::new([2, 2]).init(),
            body: body.iter().map(|config| config.init(&device)).collect(),
            mean: AvgPool2dConfig::new([2, 1]).init(),
            head: LinearConfig::new(8, CLASSES).init(&device),
        }
    }

    fn loss(&self, (images, labels): Images) -> Tensor<1> {
        let x = activation::relu(self.norm.forward(self.first.forward(images)));
        let x = self.pool.forward(x);
        let x = self.body.iter().fold(x, |x, conv| activation::gelu(conv.forward(x)));
        let logits = self.head.forward(self.mean.forward(x).flatten(1, 3));
        CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, labels)
    }
}

type Images = (Tensor<4>, Tensor<1, Int>);

fn batch(seed: u64, rows: usize, device: &Device) -> Images {
    let labels: Vec<i64> = (0..rows).map(|row| ((seed as usize + row) % CLASSES) as i64).collect();
    let labels = TensorData::new(labels, [rows]);
    let images = tensor(seed, [rows, 2, 8, 9], -1.0, 1.0).to_device(device);
    (images, Tensor::from_data(labels, device))
}

#[test]
fn gradients_are_burns() {
    let model = ConvNet::new();
    let loss = |model: &ConvNet, batch| model.loss(batch);
    compare(&model, &loss, |device| batch(1, ROWS, device)).unwrap();
    compare_on_gpu(&model, &loss, |device| batch(1, ROWS, device)).unwrap();
}

#[test]
fn the_weights_gradient_is_w_and_the_images_is_b() {
    let loss = |model: &ConvNet, batch| model.loss(batch);
    let graph = capture(&ConvNet::new(), &loss, &batch(1, ROWS, &Device::flex())).unwrap();
    let split = split(differentiate(graph, 1.0).unwrap()).unwrap();
    let works = |is: fn(&Windowed) -> bool| -> Vec<Work> {
        let graph = &split.joint.graph;
        let is = |&id: &NodeId| matches!(&graph[id].op, Op::Windowed(op) if is(op));
        let places = graph.ids().filter(is).map(|id| split.places[id.index()]);
        places.map(|place| place.expect("it is done per microbatch").1).collect()
    };
    assert_eq!(works(|op| matches!(op, Windowed::Conv2d(_))), [Work::F; 5]);
    assert_eq!(works(|op| matches!(op, Windowed::Conv2dWeightGradient { .. })), [Work::W; 5]);
    // Nothing asks for the gradient of the batch.
    assert_eq!(works(|op| matches!(op, Windowed::Conv2dInputGradient { .. })), [Work::B; 4]);
    assert_eq!(works(|op| matches!(op, Windowed::MaxPool2dGradient(_))), [Work::B]);
    assert_eq!(works(|op| matches!(op, Windowed::AvgPool2dGradient { .. })), [Work::B]);
}

#[test]
fn weights_are_the_same_bits_on_any_number_of_devices() {
    let model = ConvNet::new();
    let hash = |devices: &str, family, activations| {
        let mut trainer = Trainer::of(model.clone(), |model: &ConvNet, batch| model.loss(batch))
            .devices(devices)
            .unwrap()
            .schedule(family)
            .microbatches(MICROBATCHES as u32)
            .learning_rate(1e-2)
            .activations(activations)
            .build(&batch(0, ROWS, &Device::flex()))
            .unwrap();
        for step in 0..4 {
            trainer.step(batch(step, ROWS * MICROBATCHES, &Device::flex())).unwrap();
        }
        trainer.weights_hash().unwrap()
    };
    let families = [&GPIPE, &ZB_H1, &ZB_V];
    let expected = hash("cpu", &GPIPE, Precision::F32);
    for (devices, family) in ["cpux2", "cpux3"].into_iter().flat_map(|d| families.map(|f| (d, f))) {
        assert_eq!(hash(devices, family, Precision::F32), expected, "{devices}, {family}");
    }
    for activations in precisions() {
        let expected = hash("gpu:0", &GPIPE, activations);
        for family in families {
            let found = hash("gpu:0x2", family, activations);
            assert_eq!(found, expected, "gpu:0x2, {family}, {activations}");
        }
    }
}

#[test]
fn measured_peak_bytes_are_those_predicted() {
    let mut trainer = Trainer::of(ConvNet::new(), |model: &ConvNet, batch| model.loss(batch))
        .devices("cpux3")
        .unwrap()
        .microbatches(MICROBATCHES as u32)
        .build(&batch(0, ROWS, &Device::flex()))
        .unwrap();
    for step in 0..2 {
        trainer.step(batch(step, ROWS * MICROBATCHES, &Device::flex())).unwrap();
    }
    let report = trainer.step(batch(2, ROWS * MICROBATCHES, &Device::flex())).unwrap();
    let memory = &trainer.prediction().memory;
    let predicted: Vec<u64> =
        memory.iter().map(|memory| memory.fixed_bytes + memory.peak_stash_bytes).collect();
    assert_eq!(report.peak_bytes, predicted);
}

/// `gradients` compares with Burn's own, so that it succeeds is the test.
#[test]
fn batch_norm_of_images_has_burns_gradients() {
    #[derive(Module, Debug)]
    struct Normed {
        stem: Conv2d,
        norms: Vec<BatchNorm>,
    }
    let device = Device::flex();
    let model = Normed {
        stem: Conv2dConfig::new([2, 4], [3, 3]).init(&device),
        norms: vec![BatchNormConfig::new(4).init(&device), BatchNormConfig::new(4).init(&device)],
    };
    let loss = |model: &Normed, (images, _): Images| {
        let images = model.norms[0].forward(model.stem.forward(images)).tanh();
        model.norms[1].forward(images).powi_scalar(3).mean()
    };
    zerobubble::gradients(&model, &loss, &batch(0, ROWS, &device)).unwrap();
}
