//! What a step tells the caller.

use crate::error::Error;
use crate::trace::Timeline;

/// What one step did.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// Mean loss over the batch.
    pub loss: f64,
    /// Loss of every microbatch.
    pub losses: Vec<f32>,
    /// With [`OnNan::Skip`], why nothing was updated: a loss or a norm of gradients that is not
    /// finite, or an activation that is NaN.
    ///
    /// [`OnNan::Skip`]: super::OnNan::Skip
    pub skipped: Option<Error>,
    /// Norm of all gradients together, before clipping; none without clipping, and NaN where
    /// nothing was updated.
    pub gradient_norm: Option<f64>,
    /// The step's learning rate.
    pub learning_rate: f64,
    /// Wall time of the step.
    pub seconds: f64,
    /// What every device did when, in seconds from the step's start.
    pub timeline: Timeline,
    /// Most bytes that every device has held at once so far.
    pub peak_bytes: Vec<u64>,
}

/// The mean of the losses of `count` microbatches. Zero has no sign: the loss of what is certain is
/// -0.0, the negative of ln(1).
pub(super) fn mean(losses: &[f32], count: u32) -> f64 {
    losses.iter().fold(0.0, |sum, &loss| sum + f64::from(loss)) / f64::from(count)
}
