//! Small plans: all orders of the best assignments are tried, or as many as a beam holds.

use super::SearchInput;
use super::assignment::Assignment;
use super::beam::{MOST_STAGES, beam};
use super::incumbent::Incumbent;
use super::instance::Instance;
use crate::Plan;
use crate::error::Result;
use crate::simulate::Costs;

/// Offers an order of each of these assignments that is faster than the best plan so far, if a beam
/// finds one.
pub(super) fn offer_faster(
    input: &SearchInput,
    assignments: &[(Assignment, Costs)],
    pairs_weighed: usize,
    incumbent: &mut Incumbent,
) -> Result<()> {
    for (assignment, costs) in assignments {
        let Some(to_beat) = incumbent.makespan() else { return Ok(()) };
        let placement = &assignment.placement;
        let pairs = placement.stage_count() * input.microbatches as usize;
        // A beam weighs every pair for every order that it looks at: some two for each that it
        // keeps, of every length up to three actions for each pair.
        let width = pairs_weighed / (6 * pairs * pairs);
        let is_small = placement.stage_count() <= MOST_STAGES && input.microbatches <= 255;
        if !is_small || width < LEAST_WIDTH {
            continue;
        }
        let reserved = vec![0; placement.device_count()];
        let instance = Instance::new(input, placement, costs, &reserved);
        if let Some((lanes, _)) = beam(&instance, to_beat, width).faster {
            let (microbatches, placement) = (input.microbatches, placement.clone());
            let plan = Plan { schedule: "auto".into(), microbatches, placement, lanes };
            incumbent.offer(plan, assignment, costs)?;
        }
    }
    Ok(())
}

/// A narrower beam finds nothing that priorities do not.
const LEAST_WIDTH: usize = 64;
