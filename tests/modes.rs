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
use zerobubble::{Checkpoint, Checkpoints, OnNan, Sgd, Trainer};

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
