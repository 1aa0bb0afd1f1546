//! Promise: training does what people expect of it: decay, rates, evaluation, bad batches.

#[path = "training/decay.rs"]
mod decay;
#[path = "training/evaluation.rs"]
mod evaluation;
#[path = "training/not_finite.rs"]
mod not_finite;
#[path = "training/rates.rs"]
mod rates;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData};
use zerobubble::Trainer;
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::train::TrainerBuilder;

const ROWS: usize = 2;
const CONTEXT: usize = 7;
const VOCABULARY: usize = 11;
const SEED: u64 = 9;

type Tokens = (Tensor<2, Int>, Tensor<2, Int>);

/// Layers enough for two stages on each of three devices.
fn gpt(dropout: f64) -> Gpt {
    let config = GptConfig::new(VOCABULARY, CONTEXT, 4, 12, 2);
    config.with_dropout(dropout).with_tied(true).init(&Device::flex())
}

/// Tokens that depend on the step and on their row in the whole batch.
fn batch(step: u64, rows: std::ops::Range<usize>) -> Tokens {
    let token = |row: usize, at: usize| {
        ((step as usize * 31 + row * 17 + at * at * 5 + at) % VOCABULARY) as i64
    };
    let tensor = |ahead: usize| {
        let values: Vec<i64> = rows
            .clone()
            .flat_map(|row| (0..CONTEXT).map(move |at| token(row, at + ahead)))
            .collect();
        Tensor::from_data(TensorData::new(values, [rows.len(), CONTEXT]), &Device::flex())
    };
    (tensor(0), tensor(1))
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
}

/// Trains on whole batches of three microbatches.
fn steps(trainer: &mut Trainer<Gpt, Tokens>, steps: std::ops::Range<u64>) {
    for step in steps {
        trainer.step(batch(step, 0..3 * ROWS)).unwrap();
    }
}

/// The parameters' elements in the module's order, each parameter once.
fn values<M: Module>(model: &M) -> Vec<Vec<f32>> {
    struct Values(Vec<(ParamId, Vec<f32>)>);
    impl ModuleVisitor for Values {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.0.iter().all(|(id, _)| *id != param.id) {
                self.0.push((param.id, param.val().into_data().iter::<f32>().collect()));
            }
        }
    }
    let mut values = Values(Vec::new());
    model.visit(&mut values);
    values.0.into_iter().map(|(_, values)| values).collect()
}

/// Every parameter, to a fraction of its size.
#[track_caller]
fn assert_close<M: Module>(ours: &M, expected: &M, tolerance: f64) {
    for (at, (ours, expected)) in values(ours).iter().zip(values(expected)).enumerate() {
        let norm = |values: &mut dyn Iterator<Item = f32>| {
            values.map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
        };
        let distance = norm(&mut ours.iter().zip(&expected).map(|(a, b)| a - b));
        let size = norm(&mut expected.iter().copied());
        assert!(distance <= tolerance * size, "parameter {at}: {distance} of {size}");
    }
}
