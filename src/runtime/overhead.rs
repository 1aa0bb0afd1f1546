//! What the runtime itself costs: a plan on engines that compute nothing.

use std::sync::Arc;
use std::time::Duration;

use super::{Dispatch, Runtime, StepRules};
use crate::engine::{Engine, NullEngine};
use crate::error::Result;
use crate::plan::{ZB_H1, channel_capacities, check, generate};
use crate::threads::now;

/// Wall time per action of `steps` steps of zb-h1 on `devices` empty devices: dispatch, hand-over
/// and report, divided by all actions of all devices.
///
/// # Errors
///
/// When there are no devices, microbatches or threads.
pub fn overhead(devices: u32, microbatches: u32, steps: u32) -> Result<Duration> {
    let plan = check(generate(&ZB_H1, devices, None, microbatches)?)?;
    let actions: usize = plan.plan().lanes.iter().map(Vec::len).sum();
    let channels = channel_capacities(&plan);
    let engines = (0..devices).map(|_| Box::new(NullEngine) as Box<dyn Engine>).collect();
    let mut runtime =
        Runtime::start(plan, Dispatch::Planned, &channels, engines, StepRules::default())?;
    let inputs = Arc::new(Vec::new());
    runtime.step(0, inputs.clone(), 0.0)?;
    let start = now();
    for step in 0..steps {
        runtime.step(u64::from(step), inputs.clone(), 0.0)?;
    }
    Ok((now() - start) / (steps.max(1) * actions as u32))
}
