//! Layouts that compete: all are tried a little, the better ones more.

use std::cmp::Ordering;

use super::bound::Estimator;
use super::dispatch::{Order, dispatch};
use super::improve::{Budget, Scored, best_of, improve, score};
use super::instance::Instance;
use super::layout::{Layout, neighbours, orders_of};
use super::record::{Record, Verdict};
use super::{Price, SearchInput, policy};
use crate::Plan;
use crate::check::check;
use crate::error::Result;
use crate::placement::Placement;
use crate::simulate::{Costs, simulate};

/// A layout at its costs, and the best policy for it so far.
struct Contender {
    layout: Layout,
    costs: Costs,
    /// Bytes that parcels on their way to every device may take.
    reserved: Vec<u64>,
    scored: Scored,
}

/// What stays the same for all contenders.
struct Contest<'a> {
    input: &'a SearchInput,
    estimator: &'a Estimator<'a>,
    price: Price<'a>,
}

/// Offers the best plans of the best layouts.
pub(super) fn compete(
    input: &SearchInput,
    estimator: &Estimator,
    price: Price,
    budget: &mut Budget,
    record: &mut Record,
) -> Result<()> {
    let contest = Contest { input, estimator, price };
    let mut order = Order::default();
    let mut contenders = Vec::new();
    for layout in layouts(&contest, budget)? {
        contenders.extend(contender(&contest, layout, &mut order, budget)?);
    }
    contenders.sort_by(by_makespan);
    contenders.truncate(SEMIFINALISTS);
    for contender in &mut contenders {
        let instance = contest.instance(contender);
        let found = best_of(&instance, &policy::many(&instance), &mut order, budget);
        if let Some(found) = found.filter(|found| found.makespan < contender.scored.makespan) {
            contender.scored = found;
        }
    }
    contenders.sort_by(by_makespan);
    for (place, contender) in (0..).zip(&mut contenders) {
        if place >= FINALISTS && budget.0 == 0 {
            break;
        }
        let mut share = budget.take(FINALISTS.saturating_sub(place).max(1));
        let mut last = share.take(PROOF_SHARE);
        refine(&contest, contender, &mut order, &mut share)?;
        last.0 += share.0;
        prove(&contest, contender, &mut order, &mut last, record)?;
        budget.0 += last.0;
    }
    Ok(())
}

fn by_makespan(one: &Contender, other: &Contender) -> Ordering {
    one.scored.makespan.total_cmp(&other.scored.makespan)
}

/// Promising layouts of every pattern that there are enough blocks for: a line, loops, a fold.
fn layouts(contest: &Contest, budget: &mut Budget) -> Result<Vec<Layout>> {
    let p = contest.input.blocks.len();
    let mut patterns: Vec<Vec<usize>> = vec![(0..p).collect()];
    if p > 1 {
        patterns.extend((2..=MOST_CHUNKS).map(|v| (0..v * p).map(|s| s % p).collect()));
        patterns.push((0..p).chain((0..p).rev()).collect());
    }
    patterns.retain(|pattern| contest.estimator.can_fill(pattern.len()));
    let mut share = budget.take(LAYOUTS_SHARE);
    let mut layouts = Vec::new();
    for (left, pattern) in (1..=patterns.len() as u64).rev().zip(&patterns) {
        let mut own = share.take(left);
        layouts.extend(orders_of(contest.estimator, pattern, &mut own)?);
        share.0 += own.0;
    }
    budget.0 += share.0;
    Ok(layouts)
}

/// The layout with a first policy; nothing if it does not fit in memory.
fn contender(
    contest: &Contest,
    layout: Layout,
    order: &mut Order,
    budget: &mut Budget,
) -> Result<Option<Contender>> {
    let costs = contest.costs(&layout)?;
    let reserved = usual_parcels(&layout.placement, &costs);
    let instance = Instance::new(contest.input, &layout.placement, &costs, &reserved);
    let policies = policy::few(&instance);
    let Some(scored) = best_of(&instance, &policies, order, budget) else { return Ok(None) };
    let mut contender = Contender { layout, costs, reserved, scored };
    if contest.input.memory_limits.is_empty() {
        return Ok(Some(contender));
    }
    // With as much room for parcels as this plan needs.
    let plan = check(plan(contest, &contender, order))?;
    let memory = simulate(&plan, &contender.costs)?.memory;
    let usual = contender.reserved;
    contender.reserved = memory.iter().map(|device| device.channel_bytes).collect();
    match best_of(&contest.instance(&contender), &policies, order, budget) {
        Some(scored) => contender.scored = scored,
        None => contender.reserved = usual,
    }
    Ok(Some(contender))
}

/// Bytes on every device for two parcels on every link to it.
fn usual_parcels(placement: &Placement, costs: &Costs) -> Vec<u64> {
    let mut bytes = vec![0u64; placement.device_count()];
    for link in placement.links() {
        let boundary = &costs.boundaries[link.boundary()];
        let parcel =
            if link.is_forward() { boundary.activation_bytes } else { boundary.gradient_bytes };
        let held = &mut bytes[placement.device(link.to).index()];
        *held = held.saturating_add(parcel.saturating_mul(2));
    }
    bytes
}

/// Improves the policy and the layout in turn, while that helps and the budget lasts.
fn refine(
    contest: &Contest,
    contender: &mut Contender,
    order: &mut Order,
    budget: &mut Budget,
) -> Result<()> {
    let mut step = FIRST_STEP;
    loop {
        let instance = contest.instance(contender);
        let mut share = budget.take(2);
        improve(&instance, &mut contender.scored, step, order, &mut share);
        budget.0 += share.0;
        if !improve_layout(contest, contender, order, budget)? {
            return Ok(());
        }
        step = LATER_STEP;
    }
}

/// Goes to a better layout nearby while there is one, with the policy as it is; whether it did.
fn improve_layout(
    contest: &Contest,
    contender: &mut Contender,
    order: &mut Order,
    budget: &mut Budget,
) -> Result<bool> {
    let mut improved = false;
    'better: loop {
        for layout in neighbours(contest.estimator, &contender.layout).into_iter().take(NEIGHBOURS)
        {
            if budget.0 == 0 {
                break 'better;
            }
            let costs = contest.costs(&layout)?;
            let instance =
                Instance::new(contest.input, &layout.placement, &costs, &contender.reserved);
            let Scored { policy, .. } = &contender.scored;
            if let Some(scored) = score(&instance, policy, Some(&contender.scored), order, budget) {
                (contender.layout, contender.costs, contender.scored) = (layout, costs, scored);
                improved = true;
                continue 'better;
            }
        }
        break;
    }
    Ok(improved)
}

/// Offers the contender's plan. What parcels take is known only then: where that is too much, the
/// search for an order goes on with as many bytes less.
fn prove(
    contest: &Contest,
    contender: &mut Contender,
    order: &mut Order,
    budget: &mut Budget,
    record: &mut Record,
) -> Result<()> {
    for left in (1..=ATTEMPTS).rev() {
        let plan = plan(contest, contender, order);
        let verdict = record.offer(plan, &contender.layout, &contender.costs)?;
        let Verdict::Exceeds(memory) = verdict else { break };
        for (d, memory) in memory.iter().enumerate() {
            let excess = memory.peak_bytes().saturating_sub(contest.input.memory_limits[d]);
            let reserved = contender.reserved[d].saturating_add(excess);
            contender.reserved[d] = reserved.max(memory.channel_bytes);
        }
        let instance = contest.instance(contender);
        let policy = contender.scored.policy.clone();
        let Some(scored) = score(&instance, &policy, None, order, budget) else { break };
        contender.scored = scored;
        let mut share = budget.take(left);
        improve(&instance, &mut contender.scored, LATER_STEP, order, &mut share);
        budget.0 += share.0;
    }
    Ok(())
}

fn plan(contest: &Contest, contender: &Contender, order: &mut Order) -> Plan {
    let instance = contest.instance(contender);
    dispatch(&instance, &contender.scored.policy, f64::INFINITY, order)
        .expect("the policy has run in this memory before");
    Plan {
        schedule: "auto".into(),
        microbatches: contest.input.microbatches,
        placement: contender.layout.placement.clone(),
        lanes: order.lanes().to_vec(),
    }
}

impl Contest<'_> {
    fn costs(&self, layout: &Layout) -> Result<Costs> {
        let costs = (self.price)(&layout.placement, &layout.cuts)?;
        costs.check(layout.cuts.len())?;
        Ok(costs)
    }

    fn instance(&self, contender: &Contender) -> Instance {
        let Contender { layout, costs, reserved, .. } = contender;
        Instance::new(self.input, &layout.placement, costs, reserved)
    }
}

/// How many layouts are tried with many policies.
const SEMIFINALISTS: usize = 6;
/// How many of these share the budget for refinement. The others get what is left of it.
const FINALISTS: u64 = 3;
const MOST_CHUNKS: usize = 4;
/// One part in so many of the budget finds the layouts.
const LAYOUTS_SHARE: u64 = 4;
/// How many of a layout's neighbours are priced and run.
const NEIGHBOURS: usize = 32;
/// How often a plan may be made again to fit.
const ATTEMPTS: u64 = 4;
/// One part in so many of a contender's budget is kept for that.
const PROOF_SHARE: u64 = 4;
/// In cycles, of a policy that is new and of one that was improved before.
const FIRST_STEP: f64 = 1.0;
const LATER_STEP: f64 = 0.25;
