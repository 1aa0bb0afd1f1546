//! Candidate assignments: all are tried a little, the better ones more.

use std::cmp::Ordering;

use super::assignment::{Assignment, assignments_of_pattern, neighbours};
use super::bound::Estimator;
use super::dispatch::{Order, dispatch};
use super::effort::Effort;
use super::improve::{Budget, Scored, best_of, improve, score};
use super::incumbent::{Incumbent, Verdict};
use super::instance::Instance;
use super::{CostModel, SearchInput, groups, polish, priorities};
use crate::Plan;
use crate::check::check;
use crate::error::Result;
use crate::placement::Placement;
use crate::simulate::{Costs, simulate};

/// An assignment at its costs, and the best priorities for it so far.
pub(super) struct Candidate {
    assignment: Assignment,
    costs: Costs,
    /// Bytes that parcels on their way to every device may take.
    reserved: Vec<u64>,
    scored: Scored,
}

/// What all candidates have in common.
struct Problem<'a> {
    input: &'a SearchInput,
    estimator: &'a Estimator<'a>,
    cost_model: CostModel<'a>,
}

/// Offers the best plans of the best assignments, and of what a search with less memory has
/// `carried` on, which has an effort of its own; returns what the next search goes on from.
pub(super) fn offer_best(
    input: &SearchInput,
    cost_model: CostModel,
    effort: &mut Effort,
    carried: Option<Candidate>,
    incumbent: &mut Incumbent,
) -> Result<Option<Candidate>> {
    let estimator = &Estimator::new(input);
    let problem = Problem { input, estimator, cost_model };
    let mut order = Order::default();
    let mut extra = Budget(effort.budget.0 / REFINED);
    let budget = &mut effort.budget;
    let mut candidates = Vec::new();
    for assignment in assignments(&problem, budget)? {
        candidates.extend(candidate(&problem, assignment, &mut order, budget)?);
    }
    candidates.sort_by(by_makespan);
    candidates.truncate(SHORTLISTED);
    for candidate in &mut candidates {
        let instance = problem.instance(candidate);
        let found = best_of(&instance, &priorities::many(&instance), &mut order, budget);
        if let Some(found) = found.filter(|found| found.makespan < candidate.scored.makespan) {
            candidate.scored = found;
        }
    }
    candidates.sort_by(by_makespan);
    for (place, candidate) in (0..).zip(&mut candidates) {
        if place >= REFINED && budget.0 == 0 {
            break;
        }
        let mut share = budget.take(REFINED.saturating_sub(place).max(1));
        let mut last = share.take(OFFER_SHARE);
        refine(&problem, candidate, &mut order, &mut share)?;
        last.0 += share.0;
        offer(&problem, candidate, &mut order, &mut last, incumbent)?;
        budget.0 += last.0;
    }
    candidates.truncate(REFINED as usize);
    let again = carried.and_then(|carried| again(&problem, carried, &mut order, &mut extra));
    if let Some(mut again) = again {
        let mut last = extra.take(OFFER_SHARE);
        refine(&problem, &mut again, &mut order, &mut extra)?;
        offer(&problem, &mut again, &mut order, &mut last, incumbent)?;
        candidates.push(again);
    }
    let mut assignments: Vec<(Assignment, Costs)> = incumbent.assignment().into_iter().collect();
    for Candidate { assignment, costs, .. } in &candidates {
        if assignments.iter().all(|(other, _)| other != assignment) {
            assignments.push((assignment.clone(), costs.clone()));
        }
    }
    polish::offer_faster(input, &assignments, effort.pairs_weighed, incumbent)?;
    Ok(candidates.into_iter().min_by(by_makespan))
}

/// A candidate of a search with less memory in this one.
fn again(
    problem: &Problem,
    candidate: Candidate,
    order: &mut Order,
    budget: &mut Budget,
) -> Option<Candidate> {
    let instance = problem.instance(&candidate);
    let scored = score(&instance, &candidate.scored.priorities, None, order, budget)?;
    Some(Candidate { scored, ..candidate })
}

fn by_makespan(one: &Candidate, other: &Candidate) -> Ordering {
    one.scored.makespan.total_cmp(&other.scored.makespan)
}

/// Promising assignments of every pattern that there are enough blocks for: a line, loops, a fold,
/// and where links differ loops and folds of the devices between slow ones.
fn assignments(problem: &Problem, budget: &mut Budget) -> Result<Vec<Assignment>> {
    let p = problem.input.blocks.len();
    let mut patterns: Vec<Vec<usize>> = vec![(0..p).collect()];
    if p > 1 {
        patterns.extend((2..=MOST_CHUNKS).map(|v| (0..v * p).map(|s| s % p).collect()));
        patterns.push((0..p).chain((0..p).rev()).collect());
    }
    if !problem.input.transfers.is_uniform() {
        patterns.extend(groups::patterns(problem.input, &groups::nearest_first(problem.input)));
    }
    patterns.retain(|pattern| problem.estimator.can_fill(pattern.len()));
    let mut share = budget.take(ASSIGNMENTS_SHARE);
    let mut assignments = Vec::new();
    for (left, pattern) in (1..=patterns.len() as u64).rev().zip(&patterns) {
        let mut own = share.take(left);
        assignments.extend(assignments_of_pattern(problem.estimator, pattern, &mut own)?);
        share.0 += own.0;
    }
    budget.0 += share.0;
    Ok(assignments)
}

/// The assignment with its first priorities; nothing if it does not fit in memory.
fn candidate(
    problem: &Problem,
    assignment: Assignment,
    order: &mut Order,
    budget: &mut Budget,
) -> Result<Option<Candidate>> {
    let costs = problem.costs(&assignment)?;
    let reserved = usual_parcels(&assignment.placement, &costs);
    let instance = Instance::new(problem.input, &assignment.placement, &costs, &reserved);
    let variations = priorities::few(&instance);
    let Some(scored) = best_of(&instance, &variations, order, budget) else { return Ok(None) };
    let mut candidate = Candidate { assignment, costs, reserved, scored };
    if problem.input.memory_limits.is_empty() {
        return Ok(Some(candidate));
    }
    // With as many bytes for parcels as this plan needs.
    let plan = check(plan(problem, &candidate, order))?;
    let memory = simulate(&plan, &candidate.costs)?.memory;
    let usual = candidate.reserved;
    candidate.reserved = memory.iter().map(|device| device.channel_bytes).collect();
    match best_of(&problem.instance(&candidate), &variations, order, budget) {
        Some(scored) => candidate.scored = scored,
        None => candidate.reserved = usual,
    }
    Ok(Some(candidate))
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

/// Improves the priorities and the assignment in turn, while that helps and the budget lasts.
fn refine(
    problem: &Problem,
    candidate: &mut Candidate,
    order: &mut Order,
    budget: &mut Budget,
) -> Result<()> {
    let mut step = FIRST_STEP;
    loop {
        let instance = problem.instance(candidate);
        let mut share = budget.take(2);
        improve(&instance, &mut candidate.scored, step, order, &mut share);
        budget.0 += share.0;
        if !improve_assignment(problem, candidate, order, budget)? {
            return Ok(());
        }
        step = LATER_STEP;
    }
}

/// Goes to a better assignment nearby while there is one, with the priorities as they are; whether
/// it did.
fn improve_assignment(
    problem: &Problem,
    candidate: &mut Candidate,
    order: &mut Order,
    budget: &mut Budget,
) -> Result<bool> {
    let mut improved = false;
    'better: loop {
        let assignment = &candidate.assignment;
        for assignment in neighbours(problem.estimator, assignment, NEIGHBOURS, budget) {
            if budget.0 == 0 {
                break 'better;
            }
            let costs = problem.costs(&assignment)?;
            let instance =
                Instance::new(problem.input, &assignment.placement, &costs, &candidate.reserved);
            let Scored { priorities, .. } = &candidate.scored;
            if let Some(scored) =
                score(&instance, priorities, Some(&candidate.scored), order, budget)
            {
                (candidate.assignment, candidate.costs, candidate.scored) =
                    (assignment, costs, scored);
                improved = true;
                continue 'better;
            }
        }
        break;
    }
    Ok(improved)
}

/// Offers the candidate's plan. What parcels take is known only then: where that is too much, the
/// search for an order goes on with as many bytes less.
fn offer(
    problem: &Problem,
    candidate: &mut Candidate,
    order: &mut Order,
    budget: &mut Budget,
    incumbent: &mut Incumbent,
) -> Result<()> {
    for left in (1..=ATTEMPTS).rev() {
        let plan = plan(problem, candidate, order);
        let verdict = incumbent.offer(plan, &candidate.assignment, &candidate.costs)?;
        let Verdict::Exceeds(memory) = verdict else { break };
        for (d, memory) in memory.iter().enumerate() {
            let excess = memory.peak_bytes().saturating_sub(problem.input.memory_limits[d]);
            let reserved = candidate.reserved[d].saturating_add(excess);
            candidate.reserved[d] = reserved.max(memory.channel_bytes);
        }
        let instance = problem.instance(candidate);
        let priorities = candidate.scored.priorities.clone();
        let Some(scored) = score(&instance, &priorities, None, order, budget) else { break };
        candidate.scored = scored;
        let mut share = budget.take(left);
        improve(&instance, &mut candidate.scored, LATER_STEP, order, &mut share);
        budget.0 += share.0;
    }
    Ok(())
}

fn plan(problem: &Problem, candidate: &Candidate, order: &mut Order) -> Plan {
    let instance = problem.instance(candidate);
    dispatch(&instance, &candidate.scored.priorities, f64::INFINITY, order)
        .expect("the priorities have run in this memory before");
    Plan {
        schedule: "auto".into(),
        microbatches: problem.input.microbatches,
        placement: candidate.assignment.placement.clone(),
        lanes: order.lanes().to_vec(),
    }
}

impl Problem<'_> {
    fn costs(&self, assignment: &Assignment) -> Result<Costs> {
        let costs = (self.cost_model)(&assignment.placement, &assignment.stage_blocks)?;
        costs.check(&assignment.placement)?;
        Ok(costs)
    }

    fn instance(&self, candidate: &Candidate) -> Instance {
        let Candidate { assignment, costs, reserved, .. } = candidate;
        Instance::new(self.input, &assignment.placement, costs, reserved)
    }
}

/// How many assignments are tried with many priorities.
const SHORTLISTED: usize = 6;
/// How many of these share the budget for refinement. The others get what is left of it.
const REFINED: u64 = 3;
const MOST_CHUNKS: usize = 4;
/// One part in so many of the budget finds the assignments.
const ASSIGNMENTS_SHARE: u64 = 4;
/// How many of an assignment's neighbours are costed and run.
const NEIGHBOURS: usize = 32;
/// How often a plan may be made again to fit.
const ATTEMPTS: u64 = 4;
/// One part in so many of a candidate's budget is kept for that.
const OFFER_SHARE: u64 = 4;
/// In cycles, of priorities that are new and of those that were improved before.
const FIRST_STEP: f64 = 1.0;
const LATER_STEP: f64 = 0.25;
