//! What can be made without a search: the named families, which a search starts from and which it
//! is measured by, and the orders that `dynamic` comes to.

use super::assignment::{Assignment, assignments_of_placement};
use super::bound::Estimator;
use super::incumbent::{Incumbent, Verdict};
use super::outline::outlines;
use super::{CostModel, SearchInput};
use crate::Plan;
use crate::check::check;
use crate::dynamic::{dynamic, dynamic_base};
use crate::error::Result;
use crate::placement::Placement;
use crate::schedule::{generate, plans_by_stash};
use crate::simulate::Costs;

/// The most stages of a device, for families that leave the choice.
const MOST_CHUNKS: u32 = 64;

/// There are some 2p of the V plans, of 6 p m actions each.
const MOST_PAIRS_OF_V_PLANS: u64 = 2048;

/// A bound may be above what it bounds by this fraction.
const ROUNDING: f64 = 1e-9;

/// How many stages a device has under `dynamic`.
const DYNAMIC_CHUNKS: [u32; 2] = [1, 2];

/// The named family with the smallest makespan under the same memory limits.
#[derive(Debug, Clone, PartialEq)]
pub struct BestFamily {
    /// Its name, as the plan has it.
    pub name: String,
    /// Its makespan with the devices in the order given, on the better of two partitions: that of
    /// [`place`](crate::place), and the one that the search finds for its placement.
    pub makespan: f64,
}

/// The best family that fits, and whether some were not tried.
pub(super) struct Tried {
    pub best: Option<BestFamily>,
    pub cut_short: bool,
}

/// Offers every family with every number of chunks that there are enough blocks for and that is
/// affordable, and the orders of `dynamic`.
pub(super) fn offer_all(
    input: &SearchInput,
    estimator: &Estimator,
    cost_model: CostModel,
    incumbent: &mut Incumbent,
) -> Result<Tried> {
    let mut costed = Costed { estimator, cost_model, placements: Vec::new() };
    let mut best: Option<BestFamily> = None;
    let devices = input.blocks.len();
    let most = (1..=MOST_CHUNKS).rev().find(|v| estimator.can_fill(devices * *v as usize));
    let most = most.expect("checked: every device gets a block");
    let (outlines, cut_short) = outlines(devices as u32, input.microbatches, most);
    for outline in outlines {
        let mut plan = None;
        for (assignment, costs) in costed.assignments(&outline.placement)? {
            let beats = |makespan: f64| best.as_ref().is_none_or(|best| makespan < best.makespan);
            // A little less, as it is rounded.
            if !beats(outline.lower_bound(costs) * (1.0 - ROUNDING)) {
                continue;
            }
            let plan = match &mut plan {
                Some(plan) => plan,
                None => plan.insert(outline.plan()?),
            };
            let verdict = incumbent.offer(plan.clone(), assignment, costs)?;
            if let Verdict::Fits { makespan } = verdict
                && beats(makespan)
            {
                best = Some(BestFamily { name: plan.schedule.clone(), makespan });
            }
        }
    }
    if !input.memory_limits.is_empty() && devices > 1 && estimator.can_fill(2 * devices) {
        offer_v_plans(input, &mut costed, incumbent)?;
    }
    for chunks in DYNAMIC_CHUNKS {
        if !estimator.can_fill(devices * chunks as usize) {
            continue;
        }
        let base = dynamic_base(Some(chunks))?;
        let base = check(generate(base, devices as u32, Some(chunks), input.microbatches)?)?;
        for (assignment, costs) in costed.assignments(&base.plan().placement)? {
            let order = dynamic(&base, costs)?;
            // Nobody decides about it at run time.
            let plan = Plan { schedule: "auto".into(), ..order.plan().clone() };
            incumbent.offer(plan, assignment, costs)?;
        }
    }
    Ok(Tried { best, cut_short })
}

/// Offers the V plans for every stash, where they are affordable.
fn offer_v_plans(
    input: &SearchInput,
    costed: &mut Costed,
    incumbent: &mut Incumbent,
) -> Result<()> {
    let devices = input.blocks.len() as u32;
    if u64::from(devices) * u64::from(input.microbatches) > MOST_PAIRS_OF_V_PLANS {
        return Ok(());
    }
    for plan in plans_by_stash(devices, input.microbatches) {
        for (assignment, costs) in costed.assignments(&plan.placement)? {
            incumbent.offer(plan.clone(), assignment, costs)?;
        }
    }
    Ok(())
}

/// The assignments of placements at their costs. No placement is costed twice.
struct Costed<'a> {
    estimator: &'a Estimator<'a>,
    cost_model: CostModel<'a>,
    placements: Vec<(Placement, Vec<(Assignment, Costs)>)>,
}

impl Costed<'_> {
    fn assignments(&mut self, placement: &Placement) -> Result<&[(Assignment, Costs)]> {
        let known = self.placements.iter().position(|(known, _)| known == placement);
        let position = match known {
            Some(position) => position,
            None => {
                let assignments = assignments_of_placement(self.estimator, placement)?;
                let cost = |assignment: Assignment| {
                    let Assignment { placement, stage_blocks } = &assignment;
                    let costs = (self.cost_model)(placement, stage_blocks)?;
                    costs.check(placement)?;
                    Ok((assignment, costs))
                };
                let costed = assignments.into_iter().map(cost).collect::<Result<_>>()?;
                self.placements.push((placement.clone(), costed));
                self.placements.len() - 1
            }
        };
        Ok(&self.placements[position].1)
    }
}
