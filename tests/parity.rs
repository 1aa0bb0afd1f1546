//! Promise: trained weights are the same bits however the model is placed and scheduled, and are
//! those of Burn's own training.

#[path = "common/batches.rs"]
mod batches;
#[path = "common/distance.rs"]
mod distance;
#[path = "common/families.rs"]
mod families;

use batches::{CONTEXT, ROWS, Tokens, VOCABULARY, batch};
use burn::module::Module;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamWConfig, GradientsAccumulator, GradientsParams, SgdConfig};
use burn::tensor::Device;
use distance::assert_close;
use families::families;
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::nn::with_dropout_key;
use zerobubble::plan::{ONE_F_ONE_B, Schedule, ZB_H1};
use zerobubble::{AdamW, Balance, Decayed, Momentum, Optimizer, Sgd, Trainer};

const STEPS: u64 = 5;
const SEED: u64 = 9;
const LEARNING_RATE: f64 = 1e-2;

fn gpt(dropout: f64, tied: bool) -> Gpt {
    let device = Device::flex();
    device.seed(3);
    GptConfig::new(VOCABULARY, CONTEXT, 6, 12, 2)
        .with_dropout(dropout)
        .with_tied(tied)
        .init(&device)
}

fn trainer(
    model: &Gpt,
    devices: usize,
    schedule: impl Into<Schedule>,
    microbatches: u32,
    optimizer: impl Into<Optimizer>,
    balance: Balance,
) -> Trainer<Gpt, Tokens> {
    Trainer::of(model.clone(), |model: &Gpt, (tokens, targets)| model.loss(tokens, targets))
        .devices(&format!("cpux{devices}"))
        .unwrap()
        .schedule(schedule)
        .microbatches(microbatches)
        .optimizer(optimizer)
        .learning_rate(LEARNING_RATE)
        .seed(SEED)
        .balance(balance)
        .build(&batch(0, 0..ROWS))
        .unwrap()
}

fn train(mut trainer: Trainer<Gpt, Tokens>, microbatches: usize) -> (String, Gpt) {
    for step in 0..STEPS {
        let report = trainer.step(batch(step, 0..ROWS * microbatches)).unwrap();
        assert!(report.loss.is_finite());
    }
    (trainer.weights_hash().unwrap(), trainer.into_module().unwrap())
}

#[test]
fn weights_are_the_same_bits_for_every_placement_and_schedule() {
    let model = gpt(0.1, true);
    for microbatches in [1, 2, 3, 8] {
        let mut hashes = Vec::new();
        for devices in 1..=4 {
            for schedule in families().map(Schedule::from).chain([Schedule::Dynamic]) {
                let adamw = AdamW::default();
                let asked = schedule.clone();
                let trainer = trainer(&model, devices, asked, microbatches, adamw, Balance::Flops);
                let (hash, _) = train(trainer, microbatches as usize);
                hashes.push((hash, devices, schedule));
            }
        }
        let (expected, ..) = hashes[0].clone();
        for (hash, devices, schedule) in hashes {
            assert_eq!(hash, expected, "{devices} devices, {schedule}, m={microbatches}");
        }
    }
}

#[test]
fn weights_do_not_depend_on_how_stages_are_balanced() {
    let model = gpt(0.1, false);
    let hash = |balance| train(trainer(&model, 3, &ZB_H1, 4, AdamW::default(), balance), 4).0;
    assert_eq!(hash(Balance::Flops), hash(Balance::Measured));
}

/// Burn's eager training of the same model on the same microbatches.
fn eager(
    model: Gpt,
    microbatches: usize,
    mut step: impl FnMut(f64, Gpt, GradientsParams) -> Gpt,
) -> Gpt {
    let device = Device::flex();
    let mut model = model.train();
    for number in 0..STEPS {
        let mut accumulator = GradientsAccumulator::new();
        for microbatch in 0..microbatches {
            let rows = microbatch * ROWS..(microbatch + 1) * ROWS;
            let (tokens, targets) = batch(number, rows);
            let (tokens, targets) = (tokens.to_device(&device), targets.to_device(&device));
            let loss =
                with_dropout_key(SEED, number, microbatch as u32, || model.loss(tokens, targets));
            let grads = (loss / microbatches as f64).backward();
            accumulator.accumulate(&model, GradientsParams::from_grads(grads, &model));
        }
        model = step(LEARNING_RATE, model, accumulator.grads());
    }
    model.valid()
}

#[test]
fn adamw_training_equals_burns_own() {
    for (dropout, tied) in [(0.0, false), (0.2, true)] {
        let model = gpt(dropout, tied);
        let adamw = AdamW { decayed: Decayed::All, ..AdamW::default() };
        let trainer = trainer(&model, 3, &ZB_H1, 3, adamw, Balance::Flops);
        let (_, ours) = train(trainer, 3);
        let mut adamw = AdamWConfig::new().init();
        let burns = eager(model, 3, |rate, model, grads| adamw.step(rate, model, grads));
        assert_close(&ours, &burns, 1e-4);
    }
}

#[test]
fn sgd_training_with_and_without_momentum_equals_burns_own() {
    for nesterov in [None, Some(false), Some(true)] {
        let model = gpt(0.0, true);
        let momentum = nesterov.map(|nesterov| Momentum { nesterov, ..Momentum::default() });
        let sgd = Sgd { momentum, ..Sgd::default() };
        let (_, ours) = train(trainer(&model, 2, &ONE_F_ONE_B, 2, sgd, Balance::Flops), 2);
        let momentum = nesterov.map(|nesterov| MomentumConfig::new().with_nesterov(nesterov));
        let mut sgd = SgdConfig::new().with_momentum(momentum).init();
        let burns = eager(model, 2, |rate, model, grads| sgd.step(rate, model, grads));
        assert_close(&ours, &burns, 1e-4);
    }
}

#[test]
fn measured_peak_bytes_are_those_predicted() {
    let model = gpt(0.1, true);
    for devices in 1..=3 {
        for schedule in families() {
            let mut trainer =
                trainer(&model, devices, schedule, 6, AdamW::default(), Balance::Flops);
            trainer.step(batch(0, 0..ROWS * 6)).unwrap();
            trainer.step(batch(1, 0..ROWS * 6)).unwrap();
            let report = trainer.step(batch(2, 0..ROWS * 6)).unwrap();
            for (memory, &measured) in trainer.prediction().memory.iter().zip(&report.peak_bytes) {
                let stash = memory.fixed_bytes + memory.peak_stash_bytes;
                // Neighbouring stages of one device hold what passes between them once.
                let shared =
                    trainer.plan().plan().placement.stages.windows(2).any(|w| w[0] == w[1]);
                let exact = measured == stash;
                let what = format!("{devices} devices, {schedule}: {measured}, not {stash}");
                assert!(exact || shared && measured < stash, "{what}");
            }
        }
    }
}
