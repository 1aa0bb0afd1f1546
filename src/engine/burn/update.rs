//! The end of a step: sums of gradients to their owners, their norms, the update.

use burn::tensor::Tensor;
use burn_dispatch::DispatchTensor;

use super::{BurnEngine, add, flex, zeros_like};
use crate::batch::move_to;
use crate::compile::{Accumulator, accumulators};
use crate::engine::{SharedSums, Update, kernels};
use crate::graph::ParameterId;

impl BurnEngine {
    /// Sums that go to other devices, and come from them.
    pub(super) fn travelling(&self) -> SharedSums {
        let owned = |sum: &Accumulator| self.optimizer.contains_key(&sum.parameter);
        let (mut awaited, mut lent) = (accumulators(&self.setup.split), Vec::new());
        awaited.retain(|sum| owned(sum) && !self.accumulators.contains_key(sum));
        lent.extend(self.accumulators.keys().copied().filter(|sum| !owned(sum)));
        lent.sort_unstable();
        SharedSums { lent, awaited }
    }

    /// Takes the sums that go to other devices.
    pub(super) fn lend(&mut self) -> Vec<(Accumulator, DispatchTensor)> {
        let SharedSums { lent, .. } = self.travelling();
        let take = |of: Accumulator| {
            let sum = self.accumulators.get_mut(&of).expect("its key was found there");
            let zeros = zeros_like(sum, &self.pool);
            self.meter.release(sum);
            self.meter.hold(&zeros);
            (of, std::mem::replace(sum, zeros))
        };
        lent.into_iter().map(take).collect()
    }

    /// Adds all sums of a parameter, here and shared, to the first one.
    pub(super) fn add_up(&mut self, shared: &[(Accumulator, DispatchTensor)]) {
        let local = self.accumulators.keys();
        let mut sums: Vec<Accumulator> = local
            .chain(shared.iter().map(|(accumulator, _)| accumulator))
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
                let other = self.accumulators.get(accumulator).or_else(|| {
                    shared.iter().find(|(of, _)| of == accumulator).map(|(_, sum)| sum)
                });
                let other = other.expect("listed a few lines above").clone();
                add(move_to(other, &self.device), &mut gradient);
            }
            self.accumulators.insert(first, gradient);
        }
    }

    /// Squares of the norms of the gradients.
    pub(super) fn norms(&self) -> Vec<(ParameterId, f64)> {
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
        self.gradients_of_owned().into_iter().map(square).collect()
    }

    /// Updates the parameters that this device owns.
    pub(super) fn apply(&mut self, update: &Update) {
        for (parameter, first) in self.gradients_of_owned() {
            let gradient = &self.accumulators[&first];
            let state = self.optimizer.get_mut(&parameter).expect("owned parameters have state");
            let value = self.parameters.get_mut(&parameter).expect("owned parameters are loaded");
            if update.provisional {
                state.keep(value);
            }
            state.update(update, value, gradient);
        }
    }

    /// The first sum of every owned parameter, which is its gradient when all have been added up.
    fn gradients_of_owned(&self) -> Vec<(ParameterId, Accumulator)> {
        let mut sums: Vec<Accumulator> = self.accumulators.keys().copied().collect();
        sums.retain(|sum| self.optimizer.contains_key(&sum.parameter));
        sums.sort_unstable();
        sums.dedup_by_key(|sum| sum.parameter);
        sums.into_iter().map(|sum| (sum.parameter, sum)).collect()
    }
}
