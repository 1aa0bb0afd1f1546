//! Counter-based random numbers: the same key gives the same numbers, on every device and under
//! every schedule.
//!
//! Element i of a draw takes word i % 4 of Philox 4x32-10 (Salmon et al. 2011, "Parallel random
//! numbers: as easy as 1, 2, 3") at counter `(i / 4, draw, microbatch, step)`, keyed by the seed.
//! Steps are told apart up to 2^32.

use crate::engine::kernels;
use crate::graph::Distribution;

/// What the ops that are not the same in every run depend on, besides their operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunKey {
    /// Seed of the run.
    pub seed: u64,
    /// Training step, from 0.
    pub step: u64,
    /// Microbatch within the step.
    pub microbatch: u32,
    /// Whether it is an evaluation, and no step.
    pub evaluates: bool,
}

impl RunKey {
    /// Fills `mask` with 0 (dropped) or `1 / (1 - probability)` (kept), or with 1 in an evaluation.
    pub fn dropout_mask(self, draw: u32, probability: f32, mask: &mut [f32]) {
        if self.evaluates {
            return mask.fill(1.0);
        }
        kernels::dropout_mask(self.seed(), self.counter(draw), probability, mask);
    }

    /// Fills `values` with numbers of `distribution`.
    pub fn draw(self, draw: u32, distribution: Distribution, values: &mut [f32]) {
        let (seed, counter) = (self.seed(), self.counter(draw));
        match distribution {
            Distribution::Bernoulli { probability } => {
                kernels::bernoulli(seed, counter, (1.0 - probability) as f32, values);
            }
            Distribution::Uniform { low, high } => {
                kernels::uniform(seed, counter, [low as f32, high as f32], values);
            }
            Distribution::Normal { mean, deviation } => {
                kernels::normal(seed, counter, [mean as f32, deviation as f32], values);
            }
        }
    }

    fn seed(self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }

    fn counter(self, draw: u32) -> [u32; 3] {
        [draw, self.microbatch, self.step as u32]
    }
}
