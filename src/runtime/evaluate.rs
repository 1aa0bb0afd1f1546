//! Forward passes without a step: the devices of a run compute losses and change nothing.

use std::time::Instant;

use super::WINDOW;
use super::dispatch::Planned;
use super::scheduler::Scheduler;
use super::worker::{Answer, Order};
use crate::engine::StepInputs;
use crate::error::{Error, Result};
use crate::plan::{CheckedPlan, Choice};

/// What an evaluation found.
pub(super) struct Evaluated {
    /// Loss of every microbatch.
    pub losses: Vec<f32>,
    /// The first number that is not finite.
    pub fault: Option<Error>,
}

impl Scheduler {
    /// Runs the actions of `plan`, which is forward only, over the links that there are.
    pub(super) fn evaluate(
        &mut self,
        plan: &CheckedPlan,
        inputs: &StepInputs,
    ) -> Result<Evaluated> {
        assert!(plan.is_forward_only(), "an evaluation has no backward work");
        let start = Instant::now();
        self.all(|_| Order::BeginEvaluation { inputs: inputs.clone(), start })?;
        let mut lanes = Planned::new(plan, &self.channels);
        let mut open: usize = plan.plan().lanes.iter().map(Vec::len).sum();
        let losses = vec![0.0; plan.plan().microbatches as usize];
        let mut evaluated = Evaluated { losses, fault: None };
        while open > 0 {
            for device in 0..self.orders.len() {
                while self.under_way[device] < WINDOW
                    && let Choice::Run(action) = lanes.next(device)
                {
                    self.order(device, Order::Run(action))?;
                }
            }
            let (device, answer) = self.report()?;
            let Answer::Ran { action, loss, fault, .. } = answer else {
                unreachable!("only actions are under way")
            };
            lanes.end(device);
            open -= 1;
            if let Some(loss) = loss {
                evaluated.losses[action.microbatch.index()] = loss;
            }
            evaluated.fault = evaluated.fault.or(fault);
        }
        Ok(evaluated)
    }
}
