//! Promise: what Burn's layers do in training alone is trained as it is: random numbers, batch
//! statistics, values that a forward pass keeps; an evaluation does what inference does.

#[path = "common/distance.rs"]
mod distance;
#[path = "common/families.rs"]
mod families;

use burn::module::Module;
use burn::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, GaussianNoise, GaussianNoiseConfig, Linear,
    LinearConfig,
};
use burn::optim::{GradientsAccumulator, GradientsParams, SgdConfig};
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use distance::assert_close;
use distance::values::values;
use families::families;
use zerobubble::capture::capture;
use zerobubble::plan::{ONE_F_ONE_B, Schedule, ZB_H1};
use zerobubble::{Checkpoint, Checkpoints, OnNan, Sgd, Trainer, gradients};

const ROWS: usize = 6;
const RATE: f64 = 0.1;

/// Layers that act differently in training.
#[derive(Module, Debug)]
struct Net {
    first: Linear,
    norm: BatchNorm,
    dropout: Dropout,
    noise: GaussianNoise,
    middle: [Linear; 2],
    second_norm: BatchNorm,
    last: Linear,
    /// Standard deviation of the numbers that the forward pass adds itself.
    own: f64,
}

impl Net {
    fn new(dropout: f64, noise: f64, own: f64) -> Self {
        let device = Device::flex();
        let linear = |from, to, salt| Linear {
            weight: burn::module::Param::from_tensor(numbers(from, to, salt)),
            bias: LinearConfig::new(from, to)
                .init(&device)
                .bias
                .map(|_| burn::module::Param::from_tensor(numbers(1, to, salt + 3).reshape([to]))),
        };
        Self {
            first: linear(5, 8, 1),
            norm: BatchNormConfig::new(8).init(&device),
            dropout: DropoutConfig::new(dropout).init(),
            noise: GaussianNoiseConfig::new(noise).init(),
            middle: [linear(8, 8, 2), linear(8, 8, 9)],
            second_norm: BatchNormConfig::new(8).with_momentum(0.3).init(&device),
            last: linear(8, 3, 4),
            own,
        }
    }

    fn loss(&self, x: Tensor<2>) -> Tensor<1> {
        let h = self.norm.forward(self.first.forward(x)).tanh();
        let h = self.noise.forward(self.dropout.forward(h));
        let h = self.middle[0].forward(h).tanh();
        let mut h = self.second_norm.forward(self.middle[1].forward(h)).tanh();
        if self.own > 0.0 {
            h = h.clone() + h.random_like(Distribution::Normal(0.0, self.own));
        }
        let y = self.last.forward(self.dropout.forward(h));
        (y.powi_scalar(2)).mean()
    }
}

/// Numbers between -1 and 1. Burn's random numbers are one stream for all tests of a process.
fn numbers(rows: usize, columns: usize, salt: usize) -> Tensor<2> {
    let number = |at: usize| ((at * 37 + salt * 11) % 41) as f32 / 20.5 - 1.0;
    let values: Vec<f32> = (0..rows * columns).map(number).collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), &Device::flex())
}

fn batch(step: usize, microbatches: usize) -> Tensor<2> {
    numbers(ROWS * microbatches, 5, 7 * step)
}

fn trainer(model: &Net, devices: &str, schedule: impl Into<Schedule>) -> Trainer<Net, Tensor<2>> {
    Trainer::of(model.clone(), |model: &Net, x: Tensor<2>| model.loss(x))
        .devices(devices)
        .unwrap()
        .microbatches(3)
        .optimizer(Sgd::default())
        .learning_rate(RATE)
        .schedule(schedule)
        .build(&batch(0, 1))
        .unwrap()
}

#[test]
fn weights_and_running_values_are_the_same_bits_on_every_placement_and_schedule() {
    let model = Net::new(0.3, 0.2, 0.1);
    for (kind, devices) in [("cpu", ["cpu", "cpux2"]), ("gpu", ["gpu:0", "gpu:0x2"])] {
        let mut hashes = Vec::new();
        for devices in devices {
            for family in families().filter(|family| kind == "cpu" || **family == ZB_H1) {
                let mut trainer = trainer(&model, devices, family);
                (0..3).for_each(|step| assert!(trainer.step(batch(step, 3)).unwrap().loss > 0.0));
                hashes.push(trainer.weights_hash().unwrap());
            }
        }
        hashes.dedup();
        assert_eq!(hashes.len(), 1, "{kind}");
    }
}

/// Burn's own training of the same model on the same microbatches, one after another.
fn eager(mut model: Net, steps: usize) -> Net {
    let mut sgd = SgdConfig::new().init();
    model = model.train();
    for step in 0..steps {
        let mut accumulator = GradientsAccumulator::new();
        for x in batch(step, 3).chunk(3, 0) {
            let gradients = (model.loss(x.autodiff()) / 3.0).backward();
            accumulator.accumulate(&model, GradientsParams::from_grads(gradients, &model));
        }
        model = sgd.step(RATE, model, accumulator.grads());
    }
    model.valid()
}

#[test]
fn batch_norm_trains_as_burn_trains_it_with_its_running_statistics() {
    let model = Net::new(0.0, 0.0, 0.0);
    let before = values(&model);
    let expected = eager(model.clone(), 3);
    for devices in ["cpu", "cpux2", "gpu:0x2"] {
        let mut trainer = trainer(&model, devices, &ZB_H1);
        (0..3).for_each(|step| assert!(trainer.step(batch(step, 3)).unwrap().loss > 0.0));
        assert_close(&trainer.into_module().unwrap(), &expected, 2e-4);
    }
    assert_eq!(values(&model), before, "the caller's module stays as it is");
    let said = trainer(&model, "cpux2", &ZB_H1).stages().to_string();
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("statistics are those of a microbatch"), "{last}");
    assert!(last.contains("norm.running_mean") && last.contains("second_norm.running_var"));
    assert_ne!(values(&model), values(&expected), "it has learned something");
}

/// Three layers, for losses that do with them what they like.
#[derive(Module, Debug)]
struct Parts {
    first: Linear,
    norms: [BatchNorm; 2],
    last: Linear,
}

fn parts() -> Parts {
    let device = Device::flex();
    let norm = || BatchNormConfig::new(6).init(&device);
    Parts {
        first: LinearConfig::new(5, 6).init(&device),
        norms: [norm().freeze(), norm()],
        last: LinearConfig::new(6, 3).init(&device),
    }
}

/// `gradients` compares with Burn's own, running values included.
#[test]
fn a_frozen_batch_norm_before_one_that_is_trained_keeps_its_statistics() {
    let loss = |model: &Parts, x: Tensor<2>| {
        let h = model.norms[0].forward(model.first.forward(x)).tanh();
        model.last.forward(model.norms[1].forward(h)).powi_scalar(2).mean()
    };
    let model = parts();
    gradients(&model, &loss, &batch(0, 1)).unwrap();
    let graph = capture(&model, &loss, &batch(0, 1)).unwrap();
    let of = |at: usize| graph.parameters[graph.states[at].parameter.index()].path.clone();
    assert_eq!([of(0), of(1)], ["norms.1.running_mean", "norms.1.running_var"]);
}

/// What the mask drops is multiplied by what it keeps, which is nothing.
#[test]
fn a_mask_that_drops_out_is_the_same_mask_everywhere() {
    let loss = |model: &Parts, x: Tensor<2>| {
        let h = model.first.forward(x).tanh();
        let mask = h.random_like(Distribution::Bernoulli(0.5));
        let dropped = h.clone() * mask.clone() * 2.0;
        let lost = h.clone() * (mask.clone().neg() + 1.0);
        let squared = (mask.clone() * mask * 2.0 - 1.0).powi_scalar(2);
        let nothing = (dropped * lost).abs().sum() + (squared - 1.0).abs().sum();
        nothing * 1e3 + (model.last.forward(h) - 1.0).powi_scalar(2).mean()
    };
    for devices in ["cpux2", "gpu:0"] {
        let trainer = Trainer::of(parts(), loss).devices(devices).unwrap();
        let trainer = trainer.microbatches(3).learning_rate(0.0).joint_loss(true);
        let mut trainer = trainer.build(&batch(0, 1)).unwrap();
        let losses: Vec<f64> = (0..2).map(|_| trainer.step(batch(0, 3)).unwrap().loss).collect();
        assert_eq!(losses[0], losses[1], "{devices}: nothing is left to chance");
    }
}

#[test]
fn what_would_be_out_of_date_is_refused_by_name() {
    let refused = |loss: fn(&Parts, Tensor<2>) -> Tensor<1>, parts: &[&str]| {
        let error = gradients(&self::parts(), &loss, &batch(0, 1)).unwrap_err().to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "{part:?} is not in {error}"));
    };
    let old_mean = |model: &Parts, x: Tensor<2>| {
        let h = model.first.forward(x);
        let old = model.norms[1].running_mean.value_sync().unsqueeze::<2>();
        model.last.forward(model.norms[1].forward(h) + old).powi_scalar(2).mean()
    };
    refused(old_mean, &["norms.1.running_mean", "a running value that the forward pass updates"]);
    let weight_as_number = |model: &Parts, x: Tensor<2>| {
        let largest = model.last.weight.val().abs().max().into_scalar::<f32>();
        (model.last.forward(model.first.forward(x)) * largest).powi_scalar(2).mean()
    };
    refused(weight_as_number, &["reads", "goes by it"]);
    let twice = |model: &Parts, x: Tensor<2>| {
        let h = model.norms[1].forward(model.first.forward(x));
        model.last.forward(model.norms[1].forward(h)).powi_scalar(2).mean()
    };
    refused(twice, &["used twice in a forward pass", "two layers"]);
}

/// Integers in a forward pass, of every distribution that has some.
#[test]
fn random_integers_are_trained_with() {
    type Pair = (Linear, Linear);
    let device = Device::flex();
    let model: Pair =
        (LinearConfig::new(5, 5).init(&device), LinearConfig::new(5, 2).init(&device));
    let distributions = [
        Distribution::Uniform(-3.0, 4.0),
        Distribution::Bernoulli(0.4),
        Distribution::Normal(0.0, 3.0),
    ];
    for distribution in distributions {
        let loss = |model: &Pair, x: Tensor<2>| {
            let h = model.0.forward(x).tanh();
            let whole = Tensor::<2, Int>::random(h.dims(), distribution, &h.device());
            model.1.forward(h * whole.float()).powi_scalar(2).mean()
        };
        for devices in ["cpux2", "gpu:0"] {
            let trainer = Trainer::of(model.clone(), loss).devices(devices).unwrap();
            let mut trainer = trainer.microbatches(3).build(&batch(0, 1)).unwrap();
            let losses = trainer.step(batch(0, 3)).unwrap().losses;
            assert!(losses.iter().all(|loss| loss.is_finite() && *loss > 0.0), "{losses:?}");
        }
    }
}

#[test]
fn an_evaluation_is_inference_and_changes_nothing() {
    let model = Net::new(0.3, 0.2, 0.0);
    for devices in ["cpux2", "gpu:0x2"] {
        let mut trainer = trainer(&model, devices, &ONE_F_ONE_B);
        trainer.step(batch(0, 3)).unwrap();
        let before = trainer.weights_hash().unwrap();
        let trained = trainer.model().unwrap().valid();
        let expected = trained.loss(batch(5, 1)).into_scalar::<f32>();
        let found = trainer.evaluate(batch(5, 1)).unwrap();
        assert!((found - f64::from(expected)).abs() < 1e-4, "{devices}: {found}, not {expected}");
        assert_eq!(trainer.weights_hash().unwrap(), before);
        let losses = trainer.step(batch(0, 3)).unwrap().losses;
        assert!(losses.iter().all(|loss| (loss - expected).abs() > 1e-4), "training drops out");
    }
}

#[test]
fn a_skipped_step_leaves_running_values_as_they_were() {
    let model = Net::new(0.0, 0.0, 0.0);
    for devices in ["cpux2", "gpu:0x2"] {
        let build = || {
            Trainer::of(model.clone(), |model: &Net, x: Tensor<2>| model.loss(x))
                .devices(devices)
                .unwrap()
                .microbatches(3)
                .optimizer(Sgd::default())
                .on_nan(OnNan::Skip)
                .build(&batch(0, 1))
                .unwrap()
        };
        let (mut skipping, mut plain) = (build(), build());
        let nan = Tensor::full([ROWS * 3, 5], f32::NAN, &Device::flex());
        skipping.step(batch(0, 3)).unwrap();
        plain.step(batch(0, 3)).unwrap();
        assert!(skipping.step(nan).unwrap().skipped.is_some());
        let hash = plain.weights_hash().unwrap();
        assert_eq!(skipping.weights_hash().unwrap(), hash, "{devices}");
        skipping.step(batch(1, 3)).unwrap();
        plain.step(batch(1, 3)).unwrap();
        assert_eq!(skipping.weights_hash().unwrap(), plain.weights_hash().unwrap(), "{devices}");
    }
}

#[test]
fn a_checkpoint_has_running_values() {
    let model = Net::new(0.3, 0.0, 0.0);
    for devices in ["cpux2", "gpu:0x2"] {
        let folder = tempfile::tempdir().unwrap();
        let mut whole = trainer(&model, devices, &ZB_H1);
        (0..4).for_each(|step| drop(whole.step(batch(step, 3)).unwrap()));
        let mut first = trainer(&model, devices, &ZB_H1);
        (0..2).for_each(|step| drop(first.step(batch(step, 3)).unwrap()));
        let saved = first.save(&Checkpoints::open(folder.path()).unwrap(), &()).unwrap();
        let mut second = trainer(&model, devices, &ONE_F_ONE_B);
        second.resume(&Checkpoint::read(&saved).unwrap()).unwrap();
        (2..4).for_each(|step| drop(second.step(batch(step, 3)).unwrap()));
        assert_eq!(second.weights_hash().unwrap(), whole.weights_hash().unwrap(), "{devices}");
    }
}

#[test]
fn a_dropout_of_burn_is_one_op() {
    let model = Net::new(0.3, 0.0, 0.0);
    let graph = capture(&model, &|model: &Net, x: Tensor<2>| model.loss(x), &batch(0, 1)).unwrap();
    let text = graph.to_string();
    assert_eq!(text.matches("dropout").count(), 2, "{text}");
    assert_eq!(text.matches("random").count(), 0, "{text}");
    // Mean and variance of two layers: of the batch in a step, running in an evaluation.
    assert_eq!(text.matches("mode").count(), 4, "{text}");
    assert_eq!(graph.states.len(), 4);
}
