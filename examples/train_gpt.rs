//! Trains a GPT made of Burn's own layers through a two-stage pipeline on two CPU devices.

use burn::tensor::{Device, Int, Tensor, TensorData};
use zerobubble::gpt::GptConfig;
use zerobubble::plan::ZB_H1;
use zerobubble::{AdamW, Error, Trainer};

const VOCABULARY: usize = 16;
const CONTEXT: usize = 32;

fn main() -> Result<(), Error> {
    let device = Device::flex();
    device.seed(1);
    let model = GptConfig::new(VOCABULARY, CONTEXT, 4, 64, 4).init(&device);

    let mut trainer = Trainer::of(model, |model, (tokens, targets)| model.loss(tokens, targets))
        .devices("cpux2")?
        .schedule(&ZB_H1)
        .microbatches(8)
        .optimizer(AdamW::default())
        .learning_rate(3e-3)
        .build(&counting(0, 4))?;
    println!("{}", trainer.stages());

    for step in 1..=30 {
        let report = trainer.step(counting(step, 8 * 4))?;
        println!("step {step}: loss {:.4}", report.loss);
    }
    let trained = trainer.into_module()?;
    let (tokens, targets) = counting(31, 1);
    println!("loss of the trained module: {}", trained.loss(tokens, targets).into_scalar::<f32>());
    Ok(())
}

/// Sequences that count upwards, each from another number; the targets are one ahead.
fn counting(step: i64, rows: i64) -> (Tensor<2, Int>, Tensor<2, Int>) {
    let number = |row, at| (step + 3 * row + at) % VOCABULARY as i64;
    let batch = |ahead| {
        let values: Vec<i64> = (0..rows)
            .flat_map(|row| (0..CONTEXT as i64).map(move |at| number(row, at + ahead)))
            .collect();
        let shape = [rows as usize, CONTEXT];
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    };
    (batch(0), batch(1))
}
