//! What happens to the parameters at the end of a step.

use super::Optimizer;
use crate::compile::Accumulator;

/// How gradients become new parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpdateRule {
    /// What every parameter gets from its gradient.
    pub optimizer: Optimizer,
    /// What happens to the gradients before, if anything.
    pub clipping: Option<Clipping>,
}

/// Clipping by the global norm (Pascanu et al. 2013, "On the difficulty of training recurrent
/// neural networks", algorithm 1): where the norm of all gradients together is above `max_norm`,
/// all of them are multiplied by `max_norm / norm`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clipping {
    /// The largest norm that is left alone.
    pub max_norm: f64,
    /// Whether a device updates before it knows the norm, and does it again where the gradients
    /// turn out to be clipped (Qi et al. 2023, "Zero Bubble Pipeline Parallelism", section 4).
    pub post_validation: bool,
}

/// One update of a device's parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// The step's learning rate.
    pub learning_rate: f64,
    /// What gradients are multiplied by: 1 without clipping.
    pub scale: f32,
    /// Whether it may have to be undone.
    pub provisional: bool,
}

/// Partial sums of gradients that travel at the end of a step, of parameters that several devices
/// use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PartialSums {
    /// Those that a device sends, because another updates the parameter.
    pub sent: Vec<Accumulator>,
    /// Those that it gets from others, for parameters that it updates.
    pub awaited: Vec<Accumulator>,
}

impl UpdateRule {
    /// Tensors of a parameter's size that are kept beside it and its gradient: the optimizer's, and
    /// what an update is undone from.
    pub fn kept_tensors(&self) -> u64 {
        let moments = self.optimizer.moments();
        moments + if self.may_undo() { 1 + moments } else { 0 }
    }

    /// Whether updates are provisional.
    pub fn may_undo(&self) -> bool {
        self.clipping.is_some_and(|clipping| clipping.post_validation)
    }
}

impl Clipping {
    /// What gradients of this norm are multiplied by.
    pub fn scale(&self, norm: f64) -> f32 {
        if norm > self.max_norm { (self.max_norm / norm) as f32 } else { 1.0 }
    }
}

impl From<Optimizer> for UpdateRule {
    fn from(optimizer: Optimizer) -> Self {
        Self { optimizer, clipping: None }
    }
}
