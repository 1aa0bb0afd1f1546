//! The fastest plan so far that fits in memory, or what came nearest to fitting.

use std::ops::Range;

use super::assignment::Assignment;
use crate::Plan;
use crate::action::DeviceId;
use crate::check::{CheckedPlan, check};
use crate::error::{Error, Result};
use crate::fill::filled;
use crate::simulate::{Costs, DeviceMemory, Simulation, fit, simulate};

/// The best plan of those that were offered.
pub(super) struct Incumbent<'a> {
    limits: &'a [u64],
    best: Option<Feasible>,
    /// Of the plans that do not fit, the one whose worst device exceeds its limit the least.
    nearest: Option<Excess>,
}

/// A plan that is legal and fits.
pub(super) struct Feasible {
    pub plan: CheckedPlan,
    pub stage_blocks: Vec<Range<usize>>,
    pub costs: Costs,
    pub simulation: Simulation,
}

/// What [`Incumbent::offer`] found out about a plan.
pub(super) enum Verdict {
    /// Its makespan as it was offered.
    Fits {
        makespan: f64,
    },
    Exceeds(Vec<DeviceMemory>),
}

struct Excess {
    schedule: String,
    device: DeviceId,
    need: u64,
    limit: u64,
}

impl<'a> Incumbent<'a> {
    /// The index of `limits` is the device; empty limits none.
    pub fn new(limits: &'a [u64]) -> Self {
        Self { limits, best: None, nearest: None }
    }

    /// Checks and simulates a plan, and keeps it if none that fits is as fast: with W where its
    /// costs leave time for it.
    ///
    /// Every plan that fits is filled, whatever came before: so no plan that fits only with more
    /// memory keeps one from being filled that fits with less.
    pub fn offer(&mut self, plan: Plan, assignment: &Assignment, costs: &Costs) -> Result<Verdict> {
        let plan = check(plan)?;
        let simulation = simulate(&plan, costs)?;
        if !self.limits.is_empty() && fit(&simulation.memory, self.limits).is_err() {
            self.note_excess(&plan, &simulation.memory);
            return Ok(Verdict::Exceeds(simulation.memory));
        }
        let makespan = simulation.bubble.makespan;
        // A filled plan is no family's own.
        let (plan, simulation) = match filled(&plan, &simulation, costs, "auto")? {
            Some(filled) if filled.1.bubble.makespan < makespan => filled,
            _ => (plan, simulation),
        };
        let fastest = simulation.bubble.makespan;
        if self.makespan().is_none_or(|best| fastest < best) {
            let (stage_blocks, costs) = (assignment.stage_blocks.clone(), costs.clone());
            self.best = Some(Feasible { plan, stage_blocks, costs, simulation });
        }
        Ok(Verdict::Fits { makespan })
    }

    /// The makespan of the fastest plan that fits.
    pub fn makespan(&self) -> Option<f64> {
        Some(self.best.as_ref()?.simulation.bubble.makespan)
    }

    /// The assignment of that plan, at its costs.
    pub fn assignment(&self) -> Option<(Assignment, Costs)> {
        let Feasible { plan, stage_blocks, costs, .. } = self.best.as_ref()?;
        let (placement, stage_blocks) = (plan.plan().placement.clone(), stage_blocks.clone());
        Some((Assignment { placement, stage_blocks }, costs.clone()))
    }

    /// The fastest plan that fits; if there is none, an error that says what would.
    pub fn best(self) -> Result<Feasible> {
        self.best.ok_or_else(|| {
            let Excess { schedule, device, need, limit } =
                self.nearest.expect("a family is offered for any number of devices");
            Error::plan(format!(
                "no plan fits in memory: the nearest, {schedule}, needs {need} bytes on device \
                 {device}, which has {limit}"
            ))
            .hint(format!("a limit of {need} bytes, a smaller microbatch, or more devices"))
        })
    }

    fn note_excess(&mut self, plan: &CheckedPlan, memory: &[DeviceMemory]) {
        let devices = (0u32..).map(DeviceId).zip(memory.iter().zip(self.limits));
        let worst = devices
            .map(|(device, (memory, limit))| (device, memory.peak_bytes(), *limit))
            .max_by_key(|(_, need, limit)| need.saturating_sub(*limit));
        let Some((device, need, limit)) = worst else { return };
        let least = self.nearest.as_ref().map(|nearest| nearest.need - nearest.limit);
        if least.is_none_or(|least| need - limit < least) {
            let schedule = plan.plan().schedule.clone();
            self.nearest = Some(Excess { schedule, device, need, limit });
        }
    }
}
