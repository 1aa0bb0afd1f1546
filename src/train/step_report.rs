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
