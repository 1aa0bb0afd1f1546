//! Promise: training does what people expect of it: decay, rates, evaluation, bad batches.

#[path = "common/batches.rs"]
mod batches;
#[path = "training/decay.rs"]
mod decay;
#[path = "common/distance.rs"]
mod distance;
#[path = "training/evaluation.rs"]
mod evaluation;
#[path = "common/families.rs"]
mod families;
#[path = "training/lent_weights.rs"]
mod lent_weights;
#[path = "training/not_finite.rs"]
mod not_finite;
#[path = "common/precisions.rs"]
mod precisions;
#[path = "training/rates.rs"]
mod rates;
#[path = "training/settings.rs"]
mod settings;

use batches::{CONTEXT, ROWS, Tokens, VOCABULARY, batch};
use burn::tensor::{Device, Tensor};
use distance::assert_close;
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::train::TrainerBuilder;
use zerobubble::{Balance, Trainer};

const SEED: u64 = 9;

/// Layers enough for two stages on each of three devices.
fn gpt(dropout: f64) -> Gpt {
    let config = GptConfig::new(VOCABULARY, CONTEXT, 4, 12, 2);
    config.with_dropout(dropout).with_tied(true).init(&Device::flex())
}

fn builder(
    model: &Gpt,
    devices: &str,
) -> TrainerBuilder<Gpt, Tokens, impl Fn(&Gpt, Tokens) -> Tensor<1> + use<>> {
    Trainer::of(model.clone(), |model: &Gpt, (tokens, targets)| model.loss(tokens, targets))
        .devices(devices)
        .unwrap()
        .microbatches(3)
        .learning_rate(1e-2)
        .seed(SEED)
        // Measured times would cut the model in another place each time, and bytes are compared.
        .balance(Balance::Flops)
}

/// Trains on whole batches of three microbatches.
fn steps(trainer: &mut Trainer<Gpt, Tokens>, steps: std::ops::Range<u64>) {
    for step in steps {
        trainer.step(batch(step, 0..3 * ROWS)).unwrap();
    }
}
