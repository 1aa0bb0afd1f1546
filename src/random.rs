//! Counter-based random numbers: the same key gives the same numbers, on every device and under
//! every schedule.

use crate::engine::kernels;

/// What a dropout layer's numbers depend on, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutKey {
    /// Seed of the run.
    pub seed: u64,
    /// Training step, from 0.
    pub step: u64,
    /// Microbatch within the step.
    pub microbatch: u32,
    /// Position of the layer among the dropout layers of one forward pass.
    pub layer: u32,
}

/// Fills `mask` with 0 (dropped) or `1 / (1 - probability)` (kept).
///
/// Element i takes word i % 4 of Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as
/// easy as 1, 2, 3") at counter `(i / 4, layer, microbatch, step)`, keyed by the seed. Steps are
/// told apart up to 2^32.
pub fn dropout_mask(key: DropoutKey, probability: f32, mask: &mut [f32]) {
    let seed = [key.seed as u32, (key.seed >> 32) as u32];
    let counter = [key.layer, key.microbatch, key.step as u32];
    kernels::dropout_mask(seed, counter, probability, mask);
}
