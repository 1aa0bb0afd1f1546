//! The named families, which a search starts from and which it is measured by.

use super::assignment::assignments_of_placement;
use super::bound::Estimator;
use super::incumbent::{Incumbent, Verdict};
use super::{CostModel, SearchInput};
use crate::Plan;
use crate::error::Result;
use crate::schedule::{FAMILIES, generate};

/// Stages per device, for families that leave the choice.
const CHUNKS: [u32; 3] = [2, 3, 4];

/// The named family with the smallest makespan under the same memory limits.
#[derive(Debug, Clone, PartialEq)]
pub struct BestFamily {
    /// Its name, as the plan has it.
    pub name: String,
    /// Its makespan with the devices in the order given, on the better of two partitions: that of
    /// [`place`](crate::place), and the one that the search finds for its placement.
    pub makespan: f64,
}

/// Offers every family that there are enough blocks for; returns the best one that fits.
pub(super) fn offer_all(
    input: &SearchInput,
    estimator: &Estimator,
    cost_model: CostModel,
    incumbent: &mut Incumbent,
) -> Result<Option<BestFamily>> {
    let mut best: Option<BestFamily> = None;
    for plan in plans(input) {
        if !estimator.can_fill(plan.placement.stage_count()) {
            continue;
        }
        for assignment in assignments_of_placement(estimator, &plan.placement)? {
            let costs = cost_model(&assignment.placement, &assignment.stage_blocks)?;
            let name = plan.schedule.clone();
            if let Verdict::Fits { makespan } =
                incumbent.offer(plan.clone(), &assignment, &costs)?
                && best.as_ref().is_none_or(|best| makespan < best.makespan)
            {
                best = Some(BestFamily { name, makespan });
            }
        }
    }
    Ok(best)
}

/// Every family that trains, with as many chunks per device as it may have.
fn plans(input: &SearchInput) -> Vec<Plan> {
    let devices = input.blocks.len() as u32;
    let plan = |family, chunks| generate(family, devices, chunks, input.microbatches).ok();
    let own = FAMILIES.iter().map(|family| plan(family, None));
    let chosen = FAMILIES.iter().flat_map(|family| CHUNKS.map(|chunks| plan(family, Some(chunks))));
    let mut plans: Vec<Plan> = Vec::new();
    for plan in own.chain(chosen).flatten().filter(|plan| !plan.is_forward_only()) {
        if !plans.contains(&plan) {
            plans.push(plan);
        }
    }
    plans
}
