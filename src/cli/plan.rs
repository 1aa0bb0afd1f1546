//! `zerobubble plan`: a timetable without any model.

use std::fmt;

use serde::Serialize;
use zerobubble::error::{Error, Result};
use zerobubble::plan::{Costs, Plan, Simulation, StageCost, check, generate, simulate};
use zerobubble::trace::draw;

use super::args::PlanArgs;
use super::drawing::{percent, width};

/// Plans with more (device, microbatch) pairs would take minutes and gigabytes to check.
const PAIRS_LIMIT: u64 = 65_536;

/// A plan and what it will do.
#[derive(Serialize)]
pub struct Timetable {
    lanes: Vec<Vec<String>>,
    makespan: f64,
    lower_bound: f64,
    step_bubble: f64,
    span_bubble: f64,
    /// In microbatches; the index is the device.
    peak_stash: Vec<f64>,
    #[serde(skip)]
    title: String,
    #[serde(skip)]
    drawing: String,
}

/// Makes the plan that the arguments ask for and runs it on paper.
pub fn run(args: &PlanArgs) -> Result<Timetable> {
    let pairs = u64::from(args.stages) * u64::from(args.microbatches);
    if pairs > PAIRS_LIMIT {
        return Err(Error::config(format!("{pairs} pairs of device and microbatch are too many"))
            .hint(format!(
                "fewer --stages or --microbatches: their product at most {PAIRS_LIMIT}"
            )));
    }
    let plan = check(generate(args.schedule, args.stages, args.microbatches)?)?;
    let simulation = simulate(&plan, &costs(args)?)?;
    if !simulation.bubble.makespan.is_finite() {
        return Err(Error::config("the times add up to more than a number can hold")
            .hint("a larger unit for --cost and --transfer"));
    }
    let peak_stash: Vec<f64> = simulation.memory.iter().map(|device| device.peak_stash).collect();
    if let Some(limit) = args.memory_limit {
        check_stash(&peak_stash, limit)?;
    }
    Ok(timetable(plan.plan(), &simulation, peak_stash))
}

fn costs(args: &PlanArgs) -> Result<Costs> {
    let times = args.cost.of(args.stages)?;
    let mut costs = Costs::unit(times.len());
    for (stage, [f, b, w]) in costs.stages.iter_mut().zip(times) {
        *stage =
            StageCost { forward: f, backward_input: b, backward_weight: w, ..StageCost::default() };
    }
    for boundary in &mut costs.boundaries {
        boundary.transfer = args.transfer;
    }
    Ok(costs)
}

fn check_stash(peak_stash: &[f64], limit: f64) -> Result<()> {
    let Some((device, peak)) = peak_stash.iter().enumerate().find(|(_, peak)| **peak > limit)
    else {
        return Ok(());
    };
    let most = peak_stash.iter().copied().fold(0.0, f64::max);
    let problem = format!("device {device} stashes {peak} microbatches, the limit is {limit}");
    Err(Error::plan(problem)
        .hint(format!("a limit of {most}, fewer --microbatches, or a schedule that stashes less")))
}

fn timetable(plan: &Plan, simulation: &Simulation, peak_stash: Vec<f64>) -> Timetable {
    let lane = |lane: &Vec<_>| lane.iter().map(ToString::to_string).collect();
    Timetable {
        lanes: plan.lanes.iter().map(lane).collect(),
        makespan: simulation.bubble.makespan,
        lower_bound: simulation.lower_bound,
        step_bubble: simulation.bubble.step,
        span_bubble: simulation.bubble.span,
        peak_stash,
        title: format!(
            "{}, {} devices, {} microbatches",
            plan.schedule,
            plan.lanes.len(),
            plan.microbatches
        ),
        drawing: draw(&simulation.timeline, width(&simulation.timeline)),
    }
}

impl fmt::Display for Timetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\n{}", self.title, self.drawing)?;
        writeln!(
            f,
            "makespan     {} (no order of this work takes less than {})",
            self.makespan, self.lower_bound
        )?;
        writeln!(f, "step bubble  {}", percent(self.step_bubble))?;
        writeln!(f, "span bubble  {}", percent(self.span_bubble))?;
        let stash = self.peak_stash.iter().map(f64::to_string).collect::<Vec<_>>().join(" ");
        writeln!(f, "peak stash   {stash} (microbatches of each device)")
    }
}
