//! Proof that the captured graph trains what the module trains: on the example, its loss and its
//! gradients are those that the module computes eagerly in training mode, with the same random
//! numbers.

use super::EagerRun;
use crate::error::{Error, Result};
use crate::loss::MicrobatchLoss;

/// Largest accepted difference, relative to 1 or to the loss if that is larger: the two sides sum
/// in different orders in f32.
const TOLERANCE: f64 = 1e-4;

/// Largest accepted difference of a gradient, relative to its norm.
const GRADIENT_TOLERANCE: f64 = 1e-3;

/// Compares the graph's loss with the module's own.
///
/// # Errors
///
/// Says that the losses differ.
pub(crate) fn verify_loss(captured: MicrobatchLoss, eager: &EagerRun) -> Result<()> {
    if captured.is_near(eager.loss, TOLERANCE) {
        return Ok(());
    }
    let problem = format!("its captured loss is {captured}, its loss in training {}", eager.loss);
    Err(Error::model(problem).hint("remove what depends on chance or on the device"))
}

/// Compares a gradient of the graph with the module's own: `path` names the parameter, `largest`
/// is the norm of the module's largest gradient.
///
/// # Errors
///
/// When they differ though the losses do not: something that changes gradients alone, such as
/// `detach`, leaves no record.
pub(crate) fn verify_gradient(
    path: &str,
    captured: &[f32],
    eager: Option<&[f32]>,
    largest: f64,
) -> Result<()> {
    let difference = match eager {
        Some(eager) => norm(captured.iter().zip(eager).map(|(a, b)| a - b)),
        None => norm(captured.iter().copied()),
    };
    let size = eager.map_or(0.0, |eager| norm(eager.iter().copied()));
    if difference <= GRADIENT_TOLERANCE * (size + 0.01 * largest) {
        return Ok(());
    }
    let problem = format!("its captured gradient differs from Burn's by {difference}, of {size}");
    Err(Error::model(problem)
        .in_module(path)
        .hint("zerobubble::nn::detach in place of Tensor::detach, which leaves no trace"))
}

/// Compares what a forward pass makes of a running value with what the module makes of it: `path`
/// names it.
///
/// # Errors
///
/// When they differ: it is updated by something that is not recorded, or in more than one place.
pub(crate) fn verify_state(path: &str, captured: &[f32], eager: &[f32]) -> Result<()> {
    let difference = norm(captured.iter().zip(eager).map(|(a, b)| a - b));
    if difference <= GRADIENT_TOLERANCE * norm(eager.iter().copied()).max(1e-3) {
        return Ok(());
    }
    let problem = "what a forward pass makes of this running value is not known";
    Err(Error::model(problem)
        .in_module(path)
        .hint("update it with tensor ops from its own value, once per forward pass"))
}

/// Euclidean length.
pub(crate) fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
}
