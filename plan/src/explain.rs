//! A predicted step and measured ones -> what the difference between their bubbles is made of.

use std::collections::HashMap;
use std::fmt;

use super::Plan;
use super::action::{Action, StageId};
use super::check::{CheckedPlan, check};
use super::simulate::{Costs, Simulation, run};
use crate::error::{Error, Result};
use crate::trace::{Bubble, Label, Span, Timeline, bubble};

/// A measured step beside its prediction.
///
/// The three parts are differences of step bubbles, in fractions, and add up to the measured step
/// bubble less the predicted one. A part is negative where a bubble became smaller by it: a device
/// that was slowed while others waited for it anyway has less idle time.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The bubble of the step's order where every action takes what it takes in the median: what
    /// is to be expected at the measured costs.
    pub expected: Bubble,
    /// The measured bubble.
    pub measured: Bubble,
    /// Costs that differ from the plan's: the expected bubble less the predicted one.
    pub costs: f64,
    /// Actions of this step that took longer than in the median, or shorter.
    pub slowed: f64,
    /// Hand-over and scheduling: what is between the end of an action and the start of the next
    /// one that was free to start.
    pub hand_over: f64,
}

/// Explains the bubble of the measured `step` of `plan` by the medians of `steps`. Parcels take
/// what `costs` say, in the timelines' unit if anything.
///
/// # Errors
///
/// When `step` is no whole step of `plan`, or `costs` are not of as many stages.
pub fn explain(
    plan: &CheckedPlan,
    prediction: &Simulation,
    costs: &Costs,
    steps: &[&Timeline],
    step: &Timeline,
) -> Result<Explanation> {
    let played = played(plan.plan(), step)?;
    let placement = &plan.plan().placement;
    costs.check(placement)?;
    let transfer = |link| costs.transfer(placement, link);
    let medians = medians(steps);
    let own: HashMap<Action, f64> = actions(step).collect();
    let typical = |action| medians.get(&kind(action)).copied().unwrap_or(own[&action]);
    let expected = bubble(&run(&played, typical, transfer));
    let undisturbed = bubble(&run(&played, |action| own[&action], transfer));
    let measured = bubble(step);
    Ok(Explanation {
        costs: expected.step - prediction.bubble.step,
        slowed: undisturbed.step - expected.step,
        hand_over: measured.step - undisturbed.step,
        expected,
        measured,
    })
}

/// The order that a step took: `plan`'s own, but for what is decided while it runs.
fn played(plan: &Plan, step: &Timeline) -> Result<CheckedPlan> {
    if step.lanes.len() != plan.lanes.len() {
        let (found, own) = (step.lanes.len(), plan.lanes.len());
        return Err(Error::config(format!("a step of {found} devices for a plan of {own}"))
            .hint("a step that this plan was run by"));
    }
    let lane =
        |lane: &Vec<Span>| lane.iter().filter_map(action).map(|(action, _)| action).collect();
    check(Plan { lanes: step.lanes.iter().map(lane).collect(), ..plan.clone() })
}

/// What is the same work: a stage's F, B, W or BW, on whatever microbatch.
fn kind(action: Action) -> (StageId, &'static str) {
    (action.stage, action.letters())
}

/// The median time of each kind of action.
fn medians(steps: &[&Timeline]) -> HashMap<(StageId, &'static str), f64> {
    let mut times: HashMap<_, Vec<f64>> = HashMap::new();
    for (action, time) in steps.iter().flat_map(|step| actions(step)) {
        times.entry(kind(action)).or_default().push(time);
    }
    let median = |mut times: Vec<f64>| {
        let middle = times.len() / 2;
        *times.select_nth_unstable_by(middle, f64::total_cmp).1
    };
    times.into_iter().map(|(kind, times)| (kind, median(times))).collect()
}

fn actions(timeline: &Timeline) -> impl Iterator<Item = (Action, f64)> {
    timeline.lanes.iter().flatten().filter_map(action)
}

/// The action of a span, and how long it took.
fn action(span: &Span) -> Option<(Action, f64)> {
    match span.label {
        Label::Action(action) => Some((action, span.end - span.start)),
        Label::Transfer | Label::Parcel { .. } | Label::Update => None,
    }
}

impl fmt::Display for Explanation {
    /// One line of percentage points, such as `+5.2 costs that differ from the plan's, -0.3 slowed
    /// devices, +1.1 hand-over and scheduling`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:+.1} costs that differ from the plan's, {:+.1} slowed devices, {:+.1} hand-over and \
             scheduling",
            100.0 * self.costs,
            100.0 * self.slowed,
            100.0 * self.hand_over
        )
    }
}
