//! `auto`: times and bytes of every block on every device -> the fastest plan that fits in memory.
//!
//! ```text
//! families    every named family and dynamic, on its best cuts -> the plan to beat
//! assignment  device orders and cuts, by a bound on the time   -> some twenty assignments
//! ladder      memory limits, from less to all that there is: for each the steps that follow
//! priorities  an assignment                                    -> priorities to start from
//! dispatch    priorities                                       -> an order of all actions
//! improve     priorities, cuts and device orders, by what comes of them
//! polish      small plans: all orders of the best assignments  -> the best, or that of a beam
//! ```
//!
//! The search for an order is a search for the priorities of a list scheduler, because any
//! priorities give a legal order within the memory. The effort is counted in actions dispatched
//! and not in time: so the same input gives the same plan on every machine.

mod admission;
mod assignment;
mod beam;
mod bound;
mod candidate;
mod cost_model;
mod dispatch;
mod effort;
mod families;
mod groups;
mod improve;
mod incumbent;
mod instance;
mod ladder;
mod optimum;
mod outline;
mod polish;
mod priorities;

use std::ops::Range;

use super::action::DeviceId;
use super::check::CheckedPlan;
use super::placement::Placement;
use super::simulate::{BoundaryCost, Costs, Simulation, StageCost};
use super::transfers::Transfers;
use crate::error::{Error, Result};
use assignment::assignments_of_placement;
use bound::Estimator;
use effort::SearchEffort;
use incumbent::Incumbent;

pub use cost_model::sum_of_blocks;
pub use families::BestFamily;
pub use optimum::{Optimum, lower_bound_within, optimum};
pub use outline::{Outline, outlines};

/// What a search may choose from.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchInput {
    /// `blocks[device][block]`: times and bytes of every block on every device.
    pub blocks: Vec<Vec<StageCost>>,
    /// Entry k is between block k and block k + 1, where these are on different devices.
    pub crossings: Vec<BoundaryCost>,
    /// What parcels take from device to device.
    pub transfers: Transfers,
    /// Where a cut is allowed: k is between block k - 1 and block k. Empty allows all.
    pub marks: Vec<usize>,
    /// How many microbatches a step has.
    pub microbatches: u32,
    /// Bytes of every device; the index is the [`DeviceId`]. Empty limits none.
    pub memory_limits: Vec<u64>,
}

/// The fastest plan found, and the named family to compare it with.
#[derive(Debug, Clone)]
pub struct SearchOutput {
    /// The plan. Its schedule is `auto`, or the family's name where the search found none faster.
    pub plan: CheckedPlan,
    /// The blocks of every stage; the index is the [`StageId`](super::StageId).
    pub stage_blocks: Vec<Range<usize>>,
    /// What the stages cost, as the cost model says.
    pub costs: Costs,
    /// What the plan does at these costs.
    pub simulation: Simulation,
    /// No order on this placement within the memory limits has a smaller makespan. Without limits,
    /// or where they do not matter, about the lower bound of the simulation; never below it.
    pub lower_bound: f64,
    /// Nothing where no family fits in memory.
    pub best_family: Option<BestFamily>,
    /// Whether there is so much to plan that numbers of chunks and orders were left out that would
    /// have been tried of a smaller plan.
    pub cut_short: bool,
}

impl SearchOutput {
    /// How much longer the best family's step takes, as a fraction of this plan's. Not negative.
    pub fn gain(&self) -> Option<f64> {
        let family = self.best_family.as_ref()?;
        let makespan = self.simulation.bubble.makespan;
        Some(if makespan > 0.0 { family.makespan / makespan - 1.0 } else { 0.0 })
    }
}

/// Gives the exact costs of an assignment: of each of these ranges of blocks on its stage's device.
/// See [`sum_of_blocks`].
pub type CostModel<'a> = &'a dyn Fn(&Placement, &[Range<usize>]) -> Result<Costs>;

/// Searches placements, device orders, cuts and orders of actions for the smallest makespan within
/// the memory limits.
///
/// It starts from the named families, with every number of chunks that there are blocks for, and
/// from the orders that [`dynamic`](crate::dynamic) comes to, and is never worse than the best of
/// them. `cost_model` is asked for some hundred assignments.
///
/// # Errors
///
/// When there are fewer blocks than devices, costs cannot be used, `cost_model` fails, or nothing
/// fits in memory: then it names the device, its bytes, and what would fit.
pub fn search(input: &SearchInput, cost_model: CostModel) -> Result<SearchOutput> {
    check_input(input)?;
    let estimator = Estimator::new(input);
    // Whether the marks can be used, and are enough.
    assignments_of_placement(&estimator, &Placement::linear(input.blocks.len() as u32))?;
    let mut incumbent = Incumbent::new(&input.memory_limits);
    let families = families::offer_all(input, &estimator, cost_model, &mut incumbent)?;
    let effort = SearchEffort::of(input.blocks.len(), input.microbatches);
    let rungs = ladder::rungs(input);
    let mut carried = None;
    for memory_limits in &rungs {
        let Some(mut effort) = effort.under_a_limit() else { break };
        let rung = SearchInput { memory_limits: memory_limits.clone(), ..input.clone() };
        carried = candidate::offer_best(&rung, cost_model, &mut effort, carried, &mut incumbent)?;
    }
    let best = incumbent.best()?;
    let placement = &best.plan.plan().placement;
    let (m, limits) = (input.microbatches, &input.memory_limits);
    let within = lower_bound_within(placement, m, &best.costs, limits)?;
    Ok(SearchOutput {
        plan: best.plan,
        stage_blocks: best.stage_blocks,
        costs: best.costs,
        lower_bound: within.max(best.simulation.lower_bound).min(best.simulation.bubble.makespan),
        simulation: best.simulation,
        best_family: families.best,
        cut_short: families.cut_short || effort.cut_short,
    })
}

fn check_input(input: &SearchInput) -> Result<()> {
    let p = input.blocks.len();
    let n = input.blocks.first().map_or(0, Vec::len);
    let bad = |problem: String| Err(Error::config(problem));
    if p == 0 || input.microbatches == 0 {
        return bad(format!(
            "{p} devices and {} microbatches: nothing to plan",
            input.microbatches
        ));
    }
    if let Some(d) = input.blocks.iter().position(|blocks| blocks.len() != n) {
        let found = input.blocks[d].len();
        return bad(format!("device {d} has costs of {found} blocks, device 0 of {n}"));
    }
    if n < p {
        return Err(Error::config(format!("{n} blocks cannot fill {p} devices"))
            .hint(format!("between 1 and {n} devices, or a model of more blocks")));
    }
    if input.crossings.len() + 1 != n {
        return bad(format!("{} crossings between {n} blocks", input.crossings.len()));
    }
    let limits = input.memory_limits.len();
    if limits != 0 && limits != p {
        return bad(format!("{limits} memory limits for {p} devices"));
    }
    let usable = |time: f64| time.is_finite() && time >= 0.0;
    let mut longest = 0.0f64;
    for (device, blocks) in (0u32..).map(DeviceId).zip(&input.blocks) {
        for (k, block) in blocks.iter().enumerate() {
            if let Some(time) = block.time.0.into_iter().find(|time| !usable(*time)) {
                return bad(format!("block {k} on device {device}: {time} is not a time"));
            }
        }
        longest = longest.max(blocks.iter().map(|block| block.time.total()).sum());
    }
    input.transfers.check(p)?;
    let parcels = input.crossings.iter().map(|of| of.activation_bytes.max(of.gradient_bytes));
    longest += input.transfers.longest(parcels.max().unwrap_or(0)) * input.crossings.len() as f64;
    if !(longest * f64::from(input.microbatches) * p as f64).is_finite() {
        return bad("the times add up to more than a number can hold".into());
    }
    Ok(())
}
