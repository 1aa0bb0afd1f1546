//! The end of a step: sums of gradients to their owners, their norms, the update.

use burn::tensor::Tensor;
use burn_dispatch::DispatchTensor;

use super::{BurnEngine, add, copy, flex, on_host, zeros_like};
use crate::batch::move_to;
use crate::compile::{Accumulator, accumulators};
use crate::engine::{Engine, OwnParameters, ParameterState, PartialSums, Update, kernels};
use crate::error::Result;
use crate::graph::ParameterId;

impl Engine for BurnEngine {
    fn owner(&mut self) -> &mut dyn OwnParameters {
        self
    }
}

impl OwnParameters for BurnEngine {
    fn partial_sums(&mut self) -> PartialSums {
        let owned = |sum: &Accumulator| self.optimizer.contains_key(&sum.parameter);
        let (mut awaited, mut sent) = (accumulators(&self.setup.split), Vec::new());
        awaited.retain(|sum| owned(sum) && !self.accumulators.contains_key(sum));
        sent.extend(self.accumulators.keys().copied().filter(|sum| !owned(sum)));
        sent.sort_unstable();
        PartialSums { sent, awaited }
    }

    fn take_partial_sums(&mut self) -> Result<Vec<(Accumulator, DispatchTensor)>> {
        let PartialSums { sent, .. } = self.partial_sums();
        let take = |of: Accumulator| {
            let sum = self.accumulators.get_mut(&of).expect("its key was found there");
            let zeros = zeros_like(sum, &self.pool);
            self.meter.release(sum);
            self.meter.hold(&zeros);
            (of, std::mem::replace(sum, zeros))
        };
        Ok(sent.into_iter().map(take).collect())
    }

    fn reduce(&mut self, sent: &[(Accumulator, DispatchTensor)]) -> Result<()> {
        let local = self.accumulators.keys();
        let mut sums: Vec<Accumulator> = local
            .chain(sent.iter().map(|(accumulator, _)| accumulator))
            .copied()
            .filter(|accumulator| self.optimizer.contains_key(&accumulator.parameter))
            .collect();
        // Blocks are added in their order, whichever devices they are on.
        sums.sort_unstable();
        for sums in sums.chunk_by(|a, b| a.parameter == b.parameter) {
            let (&first, rest) = sums.split_first().expect("a chunk is not empty");
            let sum = self.accumulators.get_mut(&first);
            let sum = sum.expect("the owner is the first that has a gradient of the parameter");
            let mut gradient = std::mem::replace(sum, flex::placeholder());
            for accumulator in rest {
                let other = self
                    .accumulators
                    .get(accumulator)
                    .or_else(|| sent.iter().find(|(of, _)| of == accumulator).map(|(_, sum)| sum));
                let other = other.expect("listed a few lines above").clone();
                add(move_to(other, &self.device), &mut gradient);
            }
            self.accumulators.insert(first, gradient);
        }
        Ok(())
    }

    fn squared_norms(&mut self) -> Result<Vec<(ParameterId, f64)>> {
        let square = |(parameter, first): (ParameterId, Accumulator)| {
            let gradient = &self.accumulators[&first];
            let square = flex::slice(gradient).map_or_else(
                || {
                    let data = Tensor::<1>::from_dispatch(gradient.clone()).into_data();
                    kernels::sum_of_squares(&data.iter::<f32>().collect::<Vec<f32>>())
                },
                kernels::sum_of_squares,
            );
            (parameter, square)
        };
        Ok(self.gradients_of_owned().into_iter().map(square).collect())
    }

    fn update(&mut self, update: &Update) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        for (parameter, first) in self.gradients_of_owned() {
            let gradient = &self.accumulators[&first];
            let state = self.optimizer.get_mut(&parameter).expect("owned parameters have state");
            let value = self.parameters.get_mut(&parameter).expect("owned parameters are loaded");
            if flex::is_shared(value) {
                // Somebody still reads it, who was lent it before this step.
                let own = copy(value, &self.pool);
                self.meter.release(value);
                self.meter.hold(&own);
                *value = own;
            }
            if update.provisional {
                state.keep(value);
            }
            state.update(update, value, gradient);
        }
        self.states.complete(true);
        let shared = self.setup.stages.iter().flat_map(|stage| &stage.shared);
        Ok(shared.map(|&id| (id, copy(&self.parameters[&id], &self.pool))).collect())
    }

    fn undo(&mut self) -> Result<()> {
        for (parameter, state) in &mut self.optimizer {
            let value = self.parameters.get_mut(parameter).expect("owned parameters are loaded");
            state.undo(value);
        }
        self.states.complete(false);
        Ok(())
    }

    fn set_parameters(&mut self, values: &[(ParameterId, DispatchTensor)]) -> Result<()> {
        for (parameter, value) in values {
            if let Some(held) = self.parameters.get_mut(parameter)
                && !self.optimizer.contains_key(parameter)
            {
                let value = move_to(value.clone(), &self.device);
                self.meter.release(held);
                self.meter.hold(&value);
                *held = value;
            }
        }
        Ok(())
    }

    fn parameters(&mut self, of: &[ParameterId]) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        let states = self.state_values(of);
        let is_state = |id: &ParameterId| states.iter().any(|(state, _)| state == id);
        let others = of.iter().filter(|id| !is_state(id));
        let held = others.filter_map(|&id| Some((id, lent(self.parameters.get(&id)?))));
        Ok(held.chain(states.iter().cloned()).collect())
    }

    fn state(&mut self, of: &[ParameterId]) -> Result<Vec<(ParameterId, ParameterState)>> {
        let saved = |id: &ParameterId| {
            let state = self.optimizer.get(id)?;
            let (value, moments) = (&self.parameters[id], state.moments().iter().map(on_host));
            let value = on_host(value);
            let moments = moments.collect();
            Some((*id, ParameterState { value, moments, updates: state.updates() }))
        };
        let state = |(id, value)| (id, ParameterState { value, moments: Vec::new(), updates: 0 });
        let states = self.state_values(of).into_iter().map(state);
        Ok(of.iter().filter_map(saved).chain(states).collect())
    }

    fn restore(&mut self, state: &[(ParameterId, ParameterState)]) -> Result<()> {
        let own = |tensor: &DispatchTensor| move_to(copy(tensor, &self.pool), &self.device);
        self.states.complete(true);
        for (parameter, saved) in state {
            if let Some(held) = self.parameters.get_mut(parameter) {
                self.meter.release(held);
                *held = own(&saved.value);
                self.meter.hold(held);
            }
            if let Some(held) = self.optimizer.get_mut(parameter) {
                held.moments().iter().for_each(|moment| self.meter.release(moment));
                held.restore(saved.updates, saved.moments.iter().map(own).collect());
                held.moments().iter().for_each(|moment| self.meter.hold(moment));
            }
        }
        Ok(())
    }
}

/// The same memory where that is the host's, and a copy on the host where it is not.
fn lent(parameter: &DispatchTensor) -> DispatchTensor {
    match flex::slice(parameter) {
        Some(_) => parameter.clone(),
        None => on_host(parameter),
    }
}

impl BurnEngine {
    /// The first sum of every owned parameter, which is its gradient when all have been added up.
    fn gradients_of_owned(&self) -> Vec<(ParameterId, Accumulator)> {
        let mut sums: Vec<Accumulator> = self.accumulators.keys().copied().collect();
        sums.retain(|sum| self.optimizer.contains_key(&sum.parameter));
        sums.sort_unstable();
        sums.dedup_by_key(|sum| sum.parameter);
        sums.into_iter().map(|sum| (sum.parameter, sum)).collect()
    }
}
