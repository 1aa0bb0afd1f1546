//! What a stage costs where nothing but its blocks is known.

use std::ops::Range;

use super::SearchInput;
use crate::error::Result;
use crate::placement::Placement;
use crate::simulate::{Costs, StageBytes, StageCost};
use crate::work::PerWork;

/// Stages take the time and the stash of their blocks together, and the working memory of the block
/// that needs the most.
///
/// # Errors
///
/// None. The `Result` makes it a [`CostModel`](super::CostModel).
pub fn sum_of_blocks(
    input: &SearchInput,
    placement: &Placement,
    stage_blocks: &[Range<usize>],
) -> Result<Costs> {
    let stages = placement.stages.iter().zip(stage_blocks).map(|(device, blocks)| {
        let blocks = &input.blocks[device.index()][blocks.clone()];
        blocks.iter().fold(StageCost::default(), |sum, block| together(&sum, block))
    });
    Ok(Costs {
        stages: stages.collect(),
        boundaries: stage_blocks[1..]
            .iter()
            .map(|blocks| input.crossings[blocks.start - 1])
            .collect(),
        transfers: input.transfers.clone(),
        buffers: Vec::new(),
    })
}

fn together(one: &StageCost, other: &StageCost) -> StageCost {
    let (a, b) = (&one.bytes, &other.bytes);
    StageCost {
        time: PerWork::from_fn(|work| one.time[work] + other.time[work]),
        bytes: StageBytes {
            fixed: a.fixed.saturating_add(b.fixed),
            forward_for_b: a.forward_for_b.saturating_add(b.forward_for_b),
            forward_for_w: a.forward_for_w.saturating_add(b.forward_for_w),
            backward_for_w: a.backward_for_w.saturating_add(b.backward_for_w),
            working: PerWork::from_fn(|work| a.working[work].max(b.working[work])),
        },
    }
}
