//! Batches of text, and a text of the model's own.

use std::time::{Duration, Instant};

use crate::text::{Vocabulary, Windows};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use zerobubble::error::{Error, Result};
use zerobubble::gpt::Gpt;

/// Characters in a sample.
const SAMPLE_LENGTH: usize = 200;
/// A large model writes less: the run is done, and somebody waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// Below 1 it prefers what the model thinks likely.
const TEMPERATURE: f64 = 0.8;

/// A batch as the example GPT takes it: tokens and targets, each `[rows, context]`.
pub type Batch = (Tensor<2, Int>, Tensor<2, Int>);

/// `windows` as tensors.
pub fn batch(windows: Windows, device: &Device) -> Batch {
    let shape = [windows.rows, windows.context];
    let tensor = |cells| Tensor::from_data(TensorData::new(cells, shape), device);
    (tensor(windows.tokens), tensor(windows.targets))
}

/// A text by `model`, which starts after the end of a line and sees `context` characters. It ends
/// after 200 characters or 5 seconds.
pub fn sample(
    model: &Gpt,
    vocabulary: &Vocabulary,
    context: usize,
    seed: u64,
    device: &Device,
) -> Result<String> {
    let mut generator = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut text = vec![i64::from(vocabulary.token('\n').unwrap_or(0))];
    let started = Instant::now();
    while text.len() <= SAMPLE_LENGTH && (text.len() < 2 || started.elapsed() < PATIENCE) {
        let seen = text[text.len().saturating_sub(context)..].to_vec();
        let last = seen.len() - 1;
        let shape = [1, seen.len()];
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(seen, shape), device);
        let logits = model.forward(tokens).slice([0..1, last..last + 1, 0..vocabulary.size()]);
        let logits = logits.try_into_data().map_err(unreadable)?;
        let logits: Vec<f64> = logits.iter::<f32>().map(f64::from).collect();
        text.push(draw(&logits, &mut generator) as i64);
    }
    Ok(vocabulary.decode(&text[1..]))
}

/// A token with probability proportional to `exp(logit / TEMPERATURE)`.
fn draw(logits: &[f64], generator: &mut Xoshiro256PlusPlus) -> usize {
    // The largest logit is taken off first, so that no weight is infinite.
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weight = |logit: &f64| ((logit - largest) / TEMPERATURE).exp();
    let mut left = generator.random::<f64>() * logits.iter().map(weight).sum::<f64>();
    let passed = |logit: &f64| {
        left -= weight(logit);
        left < 0.0
    };
    // Rounding may leave a little after the last token, and then it is the last one.
    logits.iter().position(passed).unwrap_or(logits.len() - 1)
}

fn unreadable(error: impl std::fmt::Display) -> Error {
    Error::run(format!("the model's output cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likely_tokens_are_drawn_often() {
        let mut generator = Xoshiro256PlusPlus::seed_from_u64(0);
        let logits = [3.0f64, 0.0, 1.0].map(|p| TEMPERATURE * (1000.0 + p.ln()));
        let mut counts = [0; 3];
        for _ in 0..4000 {
            counts[draw(&logits[..], &mut generator)] += 1;
        }
        assert!((2850..3150).contains(&counts[0]) && counts[1] == 0, "{counts:?}");
    }
}
