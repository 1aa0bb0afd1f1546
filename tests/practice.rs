//! Promise: models as Burn users have them train as Burn trains them.

#[path = "common/distance.rs"]
mod distance;
#[path = "../examples/lora.rs"]
mod lora;
#[path = "../examples/lstm.rs"]
mod lstm;
#[path = "../examples/mixture_of_experts.rs"]
mod mixture_of_experts;
#[path = "../examples/resnet.rs"]
mod resnet;
#[path = "../examples/text_classification.rs"]
mod text_classification;
#[path = "../examples/text_generation.rs"]
mod text_generation;
#[path = "../examples/unet.rs"]
mod unet;
#[path = "../examples/vae.rs"]
mod vae;

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor};
use distance::assert_close;
use distance::values::values;
use zerobubble::batch::Batch;
use zerobubble::plan::{Family, ONE_F_ONE_B, ZB_H1};
use zerobubble::{Checkpoint, Checkpoints, Error, IntoLoss, Sgd, Trainer};

/// Examples in a microbatch.
const ROWS: usize = 4;
const MICROBATCHES: usize = 3;
const BATCH: usize = ROWS * MICROBATCHES;
const RATE: f64 = 0.1;

/// The model of an example.
trait Practice: Module {
    type Batch: Batch;
    type Loss: Weighed;
    /// The example's own dropout.
    const DROPOUT: f64;

    fn new(dropout: f64, device: &Device) -> Self;
    fn loss(&self, batch: Self::Batch) -> Self::Loss;
    fn batch(first: usize, rows: usize, device: &Device) -> Self::Batch;
}

/// A loss as a sum and its weight.
trait Weighed: IntoLoss {
    fn weighed(self) -> (Tensor<1>, f32);
}

impl Weighed for Tensor<1> {
    fn weighed(self) -> (Tensor<1>, f32) {
        (self, 1.0)
    }
}

impl Weighed for (Tensor<1>, Tensor<1>) {
    fn weighed(self) -> (Tensor<1>, f32) {
        (self.0, self.1.into_scalar())
    }
}

/// What is checked of a model.
struct Checks {
    example: &'static str,
    runs: fn() -> Result<(), Error>,
    trains_as_burn: fn(),
    has_the_same_bits: fn(),
    trains_on_a_gpu: fn(),
}

macro_rules! practice {
    ($($example:ident: $model:ident, $dropout:ident, $batch:ident -> $loss:ty;)+) => {
        $(impl Practice for $example::$model {
            type Batch = $example::$batch;
            type Loss = $loss;
            const DROPOUT: f64 = $example::$dropout;

            fn new(dropout: f64, device: &Device) -> Self {
                Self::new(dropout, device)
            }
            fn loss(&self, batch: Self::Batch) -> Self::Loss {
                self.loss(batch)
            }
            fn batch(first: usize, rows: usize, device: &Device) -> Self::Batch {
                $example::batch(first, rows, device)
            }
        })+

        const EXAMPLES: &[Checks] = &[$(Checks {
            example: stringify!($example),
            runs: $example::main,
            trains_as_burn: trains_as_burn::<$example::$model>,
            has_the_same_bits: has_the_same_bits::<$example::$model>,
            trains_on_a_gpu: trains_on_a_gpu::<$example::$model>,
        }),+];
    };
}

practice! {
    lora: Adapted, DROPOUT, Tokens -> Tensor<1>;
    lstm: LanguageModel, DROPOUT, Tokens -> Tensor<1>;
    mixture_of_experts: MixtureOfExperts, DROPOUT, Points -> Tensor<1>;
    resnet: ResNet, DROPOUT, Images -> Tensor<1>;
    text_classification: TextClassifier, DROPOUT, Texts -> Tensor<1>;
    text_generation: TextGenerator, DROPOUT, Texts -> (Tensor<1>, Tensor<1>);
    unet: UNet, DROPOUT, Masked -> Tensor<1>;
    vae: Vae, NOISE, Waves -> Tensor<1>;
}

/// Runs a check of every model. Burn's random numbers are one stream of the whole program, so one
/// check runs at a time.
fn check_all(check: impl Fn(&Checks)) {
    let _alone = alone();
    for of in EXAMPLES {
        println!("{}", of.example);
        check(of);
    }
}

fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn model<M: Practice>(dropout: f64) -> M {
    let device = Device::flex();
    device.seed(7);
    // A clone has its numbers, which come late otherwise.
    M::new(dropout, &device).clone()
}

fn batch<M: Practice>(step: usize) -> M::Batch {
    M::batch(step * BATCH, BATCH, &Device::flex())
}

fn trainer<M: Practice>(
    model: M,
    devices: &str,
    schedule: &'static Family,
) -> Trainer<M, M::Batch> {
    Trainer::of(model, |model: &M, batch| model.loss(batch))
        .devices(devices)
        .unwrap()
        .microbatches(MICROBATCHES as u32)
        .optimizer(Sgd::default())
        .learning_rate(RATE)
        .schedule(schedule)
        .build(&M::batch(0, ROWS, &Device::flex()))
        .unwrap()
}

/// What the microbatches of a batch add to its loss, one after another as Burn computes them.
fn parts<M: Practice>(model: &M, step: usize, device: &Device) -> Vec<Tensor<1>> {
    let first = |microbatch| step * BATCH + microbatch * ROWS;
    let losses: Vec<_> = (0..MICROBATCHES)
        .map(|microbatch| model.loss(M::batch(first(microbatch), ROWS, device)).weighed())
        .collect();
    let weight: f32 = losses.iter().map(|(_, weight)| weight).sum();
    losses.into_iter().map(|(sum, _)| sum / weight).collect()
}

fn total(parts: &[Tensor<1>]) -> f64 {
    parts.iter().map(|part| f64::from(part.clone().into_scalar::<f32>())).sum()
}

fn trains_as_burn<M: Practice>() {
    let start = model::<M>(0.0);
    let (mut burns, mut sgd) = (start.clone().train(), SgdConfig::new().init());
    let mut ours = trainer(start.clone(), "cpux2", &ZB_H1);
    for step in 0..3 {
        let parts = parts(&burns, step, &Device::flex().autodiff());
        let expected = total(&parts);
        let mut accumulator = GradientsAccumulator::new();
        for part in parts {
            let gradients = GradientsParams::from_grads(part.backward(), &burns);
            accumulator.accumulate(&burns, gradients);
        }
        burns = sgd.step(RATE, burns, accumulator.grads());
        let loss = ours.step(batch::<M>(step)).unwrap().loss;
        assert!((loss - expected).abs() < 2e-4, "step {step}: loss {loss}, Burn's {expected}");
    }
    let burns = burns.valid();
    let loss = ours.evaluate(batch::<M>(3)).unwrap();
    let expected = total(&parts(&burns, 3, &Device::flex()));
    assert!((loss - expected).abs() < 2e-4, "evaluated loss {loss}, Burn's {expected}");
    assert_close(&ours.into_module().unwrap(), &burns, 2e-4);
    assert_ne!(values(&start), values(&burns), "it has learned something");
}

fn has_the_same_bits<M: Practice>() {
    let start = model::<M>(M::DROPOUT);
    let mut hashes = Vec::new();
    for (devices, family) in
        [("cpu", &ONE_F_ONE_B), ("cpu", &ZB_H1), ("cpux2", &ONE_F_ONE_B), ("cpux2", &ZB_H1)]
    {
        let mut trainer = trainer(start.clone(), devices, family);
        (0..2).for_each(|step| assert!(trainer.step(batch::<M>(step)).unwrap().loss.is_finite()));
        hashes.push(trainer.weights_hash().unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    let mut first = trainer(start.clone(), "cpux2", &ZB_H1);
    first.step(batch::<M>(0)).unwrap();
    let saved = first.save(&Checkpoints::open(folder.path()).unwrap(), &()).unwrap();
    let mut second = trainer(start, "cpux2", &ONE_F_ONE_B);
    second.resume(&Checkpoint::read(&saved).unwrap()).unwrap();
    second.step(batch::<M>(1)).unwrap();
    hashes.push(second.weights_hash().unwrap());
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

fn trains_on_a_gpu<M: Practice>() {
    let start = model::<M>(0.0);
    let expected = total(&parts(&start.clone().train(), 0, &Device::flex().autodiff()));
    let mut trainer = trainer(start, "gpu:0", &ZB_H1);
    let loss = trainer.step(batch::<M>(0)).unwrap().loss;
    assert!((loss - expected).abs() < 1e-3, "loss {loss}, on the CPU {expected}");
}

#[test]
fn every_example_runs() {
    check_all(|of| (of.runs)().unwrap());
}

#[test]
fn models_train_as_burn_trains_them() {
    check_all(|of| (of.trains_as_burn)());
}

#[test]
fn weights_are_the_same_bits_with_dropout_on_any_devices_and_after_a_checkpoint() {
    check_all(|of| (of.has_the_same_bits)());
}

#[test]
fn models_train_on_a_gpu() {
    check_all(|of| (of.trains_on_a_gpu)());
}

/// Mean and variance of numbers.
fn moments(of: &[f64]) -> (f64, f64) {
    let count = of.len() as f64;
    let mean = of.iter().sum::<f64>() / count;
    (mean, of.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0))
}

/// Losses at fixed weights differ by the random numbers alone.
fn losses_are_distributed_as_burns<M: Practice>() {
    const TIMES: usize = 200;
    let start = model::<M>(M::DROPOUT);
    let example = M::batch(0, ROWS, &Device::flex());
    let mut trainer = Trainer::of(start.clone(), |model: &M, batch| model.loss(batch))
        .devices("cpux2")
        .unwrap()
        .microbatches(1)
        .optimizer(Sgd::default())
        .learning_rate(0.0)
        .build(&example)
        .unwrap();
    let ours = (0..TIMES).map(|_| trainer.step(example.clone()).unwrap().loss);
    let (our_mean, our_variance) = moments(&ours.collect::<Vec<_>>());

    let device = Device::flex().autodiff();
    device.seed(11);
    let training = start.train();
    let burns = (0..TIMES).map(|_| {
        let (sum, weight) = training.loss(M::batch(0, ROWS, &device)).weighed();
        f64::from(sum.into_scalar::<f32>() / weight)
    });
    let (mean, variance) = moments(&burns.collect::<Vec<_>>());
    let error = ((our_variance + variance) / TIMES as f64).sqrt();
    assert!((our_mean - mean).abs() < 4.0 * error, "{our_mean}, Burn's {mean}, error {error}");
    // Of 200 normal numbers, the variance is within a quarter of the true one.
    assert!((0.5..2.0).contains(&(our_variance / variance)), "{our_variance}, Burn's {variance}");
}

#[test]
fn losses_with_random_numbers_are_distributed_as_burns() {
    let _alone = alone();
    losses_are_distributed_as_burns::<text_classification::TextClassifier>();
    losses_are_distributed_as_burns::<text_generation::TextGenerator>();
    losses_are_distributed_as_burns::<lstm::LanguageModel>();
    losses_are_distributed_as_burns::<mixture_of_experts::MixtureOfExperts>();
    losses_are_distributed_as_burns::<vae::Vae>();
}

#[test]
fn what_is_frozen_stays_as_it_is() {
    let _alone = alone();
    let start = model::<lora::Adapted>(0.1);
    let mut trainer = trainer(start.clone(), "cpux2", &ZB_H1);
    (0..2).for_each(|step| drop(trainer.step(batch::<lora::Adapted>(step)).unwrap()));
    let trained = trainer.into_module().unwrap();
    let changed = values(&start).iter().zip(values(&trained)).filter(|(a, b)| *a != b).count();
    // Two adapters of two matrices in each of three blocks.
    assert_eq!(changed, 12);
}
