//! CheckedPlan, Costs -> CheckedPlan: W moves to where these costs leave a device idle.
//!
//! A family knows no costs, so its W stand where F = B = W leaves time. Here a list scheduler
//! (Graham 1966) keeps the order of F and B on every device, and places W anew by the times that
//! actions really take, as the heuristics of zero-bubble schedules do (Qi et al. 2023, section
//! 3.1).

mod run;

use super::Plan;
use super::action::Action;
use super::check::{CheckedPlan, check};
use super::simulate::{Costs, Simulation, simulate};
use super::work::Work;
use crate::error::Result;
use run::{Rule, run};

/// The plan with W where `costs` leave time for it, if that is faster and no device holds more than
/// before at its peak; else the plan as it is. Within a stage W stays in its order, so that
/// gradients are the same to the last bit.
///
/// # Errors
///
/// When `costs` are not of as many stages as `plan`, or a time in them cannot be used.
pub fn fill(plan: CheckedPlan, costs: &Costs) -> Result<CheckedPlan> {
    let own = simulate(&plan, costs)?;
    let filled = filled(&plan, &own, costs, &plan.plan().schedule)?;
    Ok(filled.map_or(plan, |(filled, _)| filled))
}

/// The same with what it does, under the name `schedule`; nothing where the plan stays as it is.
/// `own` is what the plan does at these costs.
pub(crate) fn filled(
    plan: &CheckedPlan,
    own: &Simulation,
    costs: &Costs,
    schedule: &str,
) -> Result<Option<(CheckedPlan, Simulation)>> {
    let actions: usize = plan.plan().lanes.iter().map(Vec::len).sum();
    if actions > MOST_ACTIONS || !plan.plan().lanes.iter().flatten().any(is_weight) {
        return Ok(None);
    }
    let mut best: Option<(CheckedPlan, Simulation)> = None;
    for rule in RULES {
        let filled = check(Plan { schedule: schedule.to_owned(), ..run(plan, costs, rule) })?;
        let simulation = simulate(&filled, costs)?;
        let to_beat = best.as_ref().map_or(own, |(_, simulation)| simulation);
        if is_faster(&simulation, to_beat) && holds_no_more(&simulation, own) {
            best = Some((filled, simulation));
        }
    }
    Ok(best)
}

fn is_weight(action: &Action) -> bool {
    action.work == Work::W
}

/// By more than rounding, in the whole step; then between the first and the last action of devices.
fn is_faster(one: &Simulation, other: &Simulation) -> bool {
    let less = |a: f64, b: f64| a < b * (1.0 - ROUNDING);
    let (one, other) = (&one.bubble, &other.bubble);
    less(one.makespan, other.makespan)
        || (!less(other.makespan, one.makespan) && one.span < other.span - ROUNDING)
}

fn holds_no_more(one: &Simulation, other: &Simulation) -> bool {
    one.memory.iter().zip(&other.memory).all(|(one, other)| {
        one.peak_bytes() <= other.peak_bytes() && one.peak_stash <= other.peak_stash
    })
}

/// What is tried: W moved up alone, or put off as well; into gaps of any size, or of some.
const RULES: [Rule; 6] = [
    Rule { puts_off: false, least_gap: 0.0 },
    Rule { puts_off: false, least_gap: 0.5 },
    Rule { puts_off: false, least_gap: 1.0 },
    Rule { puts_off: true, least_gap: 0.0 },
    Rule { puts_off: true, least_gap: 0.5 },
    Rule { puts_off: true, least_gap: 1.0 },
];
/// Times are the same within this fraction.
const ROUNDING: f64 = 1e-9;
/// Of longer plans W stays: they would take more than a few seconds.
const MOST_ACTIONS: usize = 1 << 20;
