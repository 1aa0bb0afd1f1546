//! What can be made without a search: the named families, which a search starts from and which it
//! is measured by, and the orders that `dynamic` comes to.

use super::assignment::{Assignment, assignments_of_placement};
use super::bound::Estimator;
use super::incumbent::{Incumbent, Verdict};
use super::{CostModel, SearchInput};
use crate::Plan;
use crate::action::Action;
use crate::check::check;
use crate::dynamic::{dynamic, dynamic_base};
use crate::error::Result;
use crate::placement::Placement;
use crate::schedule::{FAMILIES, generate};
use crate::simulate::{Costs, lower_bound};
use crate::work::{PerWork, Work};

/// The most stages of a device, for families that leave the choice.
const MOST_CHUNKS: usize = 64;

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

/// Offers every family with every number of chunks that there are enough blocks for, and the orders
/// of `dynamic`; returns the best family that fits.
pub(super) fn offer_all(
    input: &SearchInput,
    estimator: &Estimator,
    cost_model: CostModel,
    incumbent: &mut Incumbent,
) -> Result<Option<BestFamily>> {
    let mut costed = Costed { estimator, cost_model, placements: Vec::new() };
    let mut best: Option<BestFamily> = None;
    for plan in plans(input, estimator) {
        for (assignment, costs) in costed.assignments(&plan.placement)? {
            let beats = |makespan: f64| best.as_ref().is_none_or(|best| makespan < best.makespan);
            // A little less, as it is rounded.
            if !beats(bound(&plan, costs) * (1.0 - ROUNDING)) {
                continue;
            }
            let verdict = incumbent.offer(plan.clone(), assignment, costs)?;
            if let Verdict::Fits { makespan } = verdict
                && beats(makespan)
            {
                best = Some(BestFamily { name: plan.schedule.clone(), makespan });
            }
        }
    }
    let devices = input.blocks.len() as u32;
    for chunks in DYNAMIC_CHUNKS {
        if !estimator.can_fill(input.blocks.len() * chunks as usize) {
            continue;
        }
        let base = dynamic_base(Some(chunks))?;
        let base = check(generate(base, devices, Some(chunks), input.microbatches)?)?;
        for (assignment, costs) in costed.assignments(&base.plan().placement)? {
            let order = dynamic(&base, costs)?;
            // Nobody decides about it at run time.
            let plan = Plan { schedule: "auto".into(), ..order.plan().clone() };
            incumbent.offer(plan, assignment, costs)?;
        }
    }
    Ok(best)
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
                    costs.check(stage_blocks.len())?;
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

/// Every family that trains, with every number of chunks that it can have and that there are enough
/// blocks for; fewer chunks first, as they need fewer transfers.
fn plans(input: &SearchInput, estimator: &Estimator) -> impl Iterator<Item = Plan> {
    let devices = input.blocks.len();
    let chunks = (1..=MOST_CHUNKS).take_while(move |chunks| estimator.can_fill(devices * chunks));
    let plan = move |family, chunks: usize| {
        generate(family, devices as u32, Some(chunks as u32), input.microbatches).ok()
    };
    let plans = chunks.flat_map(move |chunks| FAMILIES.iter().filter_map(move |f| plan(f, chunks)));
    plans.filter(|plan| !plan.is_forward_only())
}

/// No order of the plan's actions has a smaller makespan. Where all backwards are fused, W is a
/// part of B.
fn bound(plan: &Plan, costs: &Costs) -> f64 {
    let splits = |action: &Action| action.work != Work::F && !action.is_fused();
    if plan.lanes.iter().flatten().any(splits) {
        return lower_bound(plan, costs);
    }
    let mut costs = costs.clone();
    for stage in &mut costs.stages {
        let PerWork([f, b, w]) = stage.time;
        stage.time = PerWork([f, b + w, 0.0]);
    }
    lower_bound(plan, &costs)
}
