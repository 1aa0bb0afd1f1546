//! Parameters that F replaces, such as running statistics.

use std::collections::HashMap;

use burn_dispatch::DispatchTensor;

use super::{BurnEngine, copy, on_host};
use crate::graph::ParameterId;

/// What states were at the beginning of a step: one that ends without an update changes none.
#[derive(Debug, Default)]
pub(super) struct States {
    before: HashMap<ParameterId, DispatchTensor>,
    /// Whether they have been replaced since, by a step that has not been completed.
    provisional: bool,
}

impl States {
    /// Says that the step is complete, or that it is not after all.
    pub(super) fn complete(&mut self, complete: bool) {
        self.provisional = !complete;
    }
}

impl BurnEngine {
    /// The states of all stages.
    fn states(&self) -> Vec<ParameterId> {
        let stages = self.setup.stages.iter();
        stages.flat_map(|stage| &stage.program.states).map(|state| state.parameter).collect()
    }

    /// Keeps the states for a step that begins.
    pub(super) fn keep_states(&mut self) {
        self.undo_states();
        for parameter in self.states() {
            let now = copy(&self.parameters[&parameter], &self.pool);
            if let Some(before) = self.states.before.remove(&parameter) {
                self.meter.release(&before);
            }
            self.meter.hold(&now);
            self.states.before.insert(parameter, now);
        }
    }

    /// Takes back what a step did that was not completed.
    fn undo_states(&mut self) {
        if !std::mem::take(&mut self.states.provisional) {
            return;
        }
        for parameter in self.states() {
            let value = copy(&self.states.before[&parameter], &self.pool);
            self.replace(parameter, value);
        }
    }

    /// Sets what F made of a state.
    pub(super) fn set_state(&mut self, parameter: ParameterId, value: &DispatchTensor) {
        self.states.provisional = true;
        let value = copy(value, &self.pool);
        self.replace(parameter, value);
    }

    fn replace(&mut self, parameter: ParameterId, value: DispatchTensor) {
        let held = self.parameters.get_mut(&parameter).expect("a stage has its states");
        self.meter.release(held);
        self.meter.hold(&value);
        *held = value;
    }

    /// Values of those of some parameters that are states, as the last complete step left them.
    pub(super) fn state_values(&self, of: &[ParameterId]) -> Vec<(ParameterId, DispatchTensor)> {
        let value = |parameter: ParameterId| match self.states.provisional {
            true => &self.states.before[&parameter],
            false => &self.parameters[&parameter],
        };
        let asked = self.states().into_iter().filter(|id| of.contains(id));
        asked.map(|id| (id, on_host(value(id)))).collect()
    }
}
