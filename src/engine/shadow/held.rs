//! Parameters, sums of gradients and the optimizer's state, as the reference has them.

use std::collections::HashMap;

use burn_dispatch::DispatchTensor;

use super::interval::{numbers, on_host};
use super::{States, Sums};
use crate::compile::Accumulator;
use crate::engine::{EngineSetup, ParameterState};
use crate::graph::ParameterId;

/// What a device holds from one action to the next.
pub(super) struct Held {
    pub values: HashMap<ParameterId, DispatchTensor>,
    pub sums: HashMap<Accumulator, Vec<f32>>,
    /// Of every owned parameter.
    pub moments: HashMap<ParameterId, Moments>,
    /// Values and moments before the last provisional update.
    pub before: HashMap<ParameterId, (DispatchTensor, Moments)>,
    /// States at the beginning of the step.
    states: HashMap<ParameterId, DispatchTensor>,
    /// Whether they have been replaced by a step that is not complete.
    pub provisional: bool,
}

/// What the optimizer remembers of a parameter.
#[derive(Debug, Clone, Default)]
pub(super) struct Moments {
    pub tensors: Vec<Vec<f64>>,
    pub updates: u64,
}

impl Held {
    pub fn new(setup: &EngineSetup) -> Self {
        let values = setup.values.clone();
        let sums = setup.stages.iter().flat_map(|stage| stage.program.accumulators.iter());
        let size = |id: &ParameterId| numbers(&values[id]).len();
        let sums = sums.map(|of| (*of, vec![0.0; size(&of.parameter)])).collect();
        let owned = setup.stages.iter().flat_map(|stage| &stage.owned);
        let moments = owned.map(|id| {
            let tensors = (0..setup.rule.optimizer.moments()).map(|_| vec![0.0; size(id)]);
            (*id, Moments { tensors: tensors.collect(), updates: 0 })
        });
        let moments = moments.collect();
        let states = setup.stages.iter().flat_map(|stage| &stage.program.states);
        let states = states.map(|of| (of.parameter, values[&of.parameter].clone())).collect();
        Self { values, sums, moments, before: HashMap::new(), states, provisional: false }
    }

    pub fn begin_step(&mut self) {
        let back = std::mem::take(&mut self.provisional);
        for (id, before) in &mut self.states {
            let now = self.values.get_mut(id).expect("a stage has its states");
            let (from, to) = if back { (before, now) } else { (now, before) };
            *to = from.clone();
        }
        self.sums.values_mut().for_each(|sum| sum.fill(0.0));
    }

    /// Sets what F made of states.
    pub fn replace(&mut self, states: Vec<(ParameterId, DispatchTensor)>) {
        self.provisional |= !states.is_empty();
        self.values.extend(states);
    }

    /// Adds sums to the first one of their parameter, in the order of the blocks.
    pub fn reduce(&mut self, sent: &Sums) {
        let owned = |of: &&Accumulator| self.moments.contains_key(&of.parameter);
        let mut all: Vec<Accumulator> =
            self.sums.keys().chain(sent.iter().map(|(of, _)| of)).filter(owned).copied().collect();
        all.sort_unstable();
        all.dedup();
        for sums in all.chunk_by(|a, b| a.parameter == b.parameter) {
            for of in &sums[1..] {
                let there = sent.iter().find(|(sum, _)| sum == of);
                let added = match there.filter(|_| !self.sums.contains_key(of)) {
                    Some((_, sum)) => numbers(sum).into_iter().map(|x| x as f32).collect(),
                    None => self.sums[of].clone(),
                };
                let first = self.sums.get_mut(&sums[0]).expect("the owner has the first sum");
                first.iter_mut().zip(added).for_each(|(sum, x)| *sum += x);
            }
        }
    }

    /// Takes parameters that another device updates.
    pub fn set(&mut self, values: &[(ParameterId, DispatchTensor)]) {
        for (id, value) in values {
            if self.values.contains_key(id) && !self.moments.contains_key(id) {
                self.values.insert(*id, on_host(value));
            }
        }
    }

    pub fn restore(&mut self, state: &States) {
        self.provisional = false;
        for (id, ParameterState { value, moments, updates }) in state {
            if self.values.contains_key(id) {
                self.values.insert(*id, on_host(value));
            }
            if let Some(of) = self.moments.get_mut(id) {
                *of = Moments { tensors: moments.iter().map(numbers).collect(), updates: *updates };
            }
        }
    }

    /// The gradient of an owned parameter, when all sums have been added up.
    pub fn gradient(&self, parameter: ParameterId) -> &[f32] {
        let first = self.sums.keys().filter(|of| of.parameter == parameter).min();
        &self.sums[first.expect("an owned parameter has a gradient")]
    }
}
