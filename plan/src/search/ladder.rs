//! The memory limits that a search goes through: what is found for less memory fits in more.
//!
//! Rungs are whole numbers of microbatches that a device stashes, up to twice as many as there are
//! devices: no more are ever needed. They do not depend on the limit that is asked for, and every
//! rung is searched in the same way and goes on from what the rung below found. So a search at a
//! rung does all that a search at a lower one does, and more memory is never slower.

use super::SearchInput;
use crate::simulate::{StageBytes, StageCost};

/// The limits of every rung below those of `input`, ascending; then those.
pub(super) fn rungs(input: &SearchInput) -> Vec<Vec<u64>> {
    let p = input.blocks.len() as u64;
    let mut rungs = Vec::new();
    if p > 1 && !input.memory_limits.is_empty() && p * u64::from(input.microbatches) <= MOST_PAIRS {
        let step = p.div_ceil(STEPS_PER_PIPELINE);
        let counts = (1..).map(|rung| rung * step).take_while(|count| *count <= 2 * p);
        for count in counts {
            let limits = limits(input, count);
            let mut asked = input.memory_limits.iter();
            let is_below = limits.iter().all(|limit| asked.next().is_none_or(|most| limit < most));
            if is_below {
                rungs.push(limits);
            }
        }
    }
    rungs.push(input.memory_limits.clone());
    rungs
}

/// Memory of every device for its even share of the blocks, with the stash of so many microbatches.
fn limits(input: &SearchInput, microbatches: u64) -> Vec<u64> {
    let p = input.blocks.len() as u64;
    let parcels = input.crossings.iter().map(|of| of.activation_bytes.max(of.gradient_bytes));
    let parcels = parcels.max().unwrap_or(0).saturating_mul(PARCELS);
    let device = |blocks: &Vec<StageCost>| {
        let sum = |of: &dyn Fn(&StageBytes) -> u64| {
            blocks.iter().map(|block| of(&block.bytes)).fold(0, u64::saturating_add)
        };
        let fixed = sum(&|bytes| bytes.fixed);
        let stash = sum(&|bytes| bytes.forward_for_b.saturating_add(bytes.forward_for_w));
        let all = fixed.saturating_add(stash.saturating_mul(microbatches));
        (all / p).saturating_add(parcels)
    };
    input.blocks.iter().map(device).collect()
}

/// How many rungs there are at most up to as many microbatches as there are devices.
const STEPS_PER_PIPELINE: u64 = 8;
/// With more pairs of device and microbatch only the limit itself is searched.
const MOST_PAIRS: u64 = 800;
/// On their way to one device: two on each of two links.
const PARCELS: u64 = 4;
