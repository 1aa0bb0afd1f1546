//! Compares sums of gradients, their norms, and what updates make of parameters.

mod optimizer;

use super::checker::Checker;
use super::held::Moments;
use super::interval::{Difference, Interval, numbers, on_host};
use super::{States, Sums};
use crate::compile::Task;
use crate::engine::burn::roundings;
use crate::engine::{ParameterState, Update};
use crate::error::{Error, Result};
use crate::graph::{NodeId, ParameterId};
use crate::plan::Work;
use optimizer::Updated;

const ULP: f64 = f32::EPSILON as f64;

impl Checker {
    /// Compares sums of gradients with what they were and what the action adds.
    pub(super) fn sums(&mut self, shown: Sums) -> Result<()> {
        let split = self.setup.split.clone();
        let graph = &split.joint.graph;
        let program = self.stage().setup.program.clone();
        let mut unstored = Default::default();
        for (at, accumulator) in program.accumulators.iter().enumerate() {
            let Some((_, found)) = shown.iter().find(|(of, _)| of == accumulator) else { continue };
            let before = &self.held.sums[accumulator];
            let mut expected: Vec<f64> = before.iter().map(|&x| x.into()).collect();
            let mut widths = vec![0.0; before.len()];
            let mut last = None;
            for command in &program.commands[Work::W] {
                let (id, adds) = match command.task {
                    Task::Accumulate { node, accumulator } => (node, accumulator),
                    Task::Add { node, accumulator } => (node, accumulator),
                    Task::Compute { .. } => continue,
                };
                if adds != at {
                    continue;
                }
                last = Some(id);
                let stored = self.stored(graph, id).map(Interval::exact);
                let term = match stored {
                    Some(term) => term,
                    None => self.expected(graph, id, &mut unstored),
                };
                // A kernel may add every term of its own sum to the sum of before.
                let count = match command.task {
                    Task::Accumulate { .. } => 2 + self.roundings(id),
                    _ => 2,
                };
                let of = numbers(&term.middle).into_iter().zip(term.widths());
                for ((sum, width), (x, own)) in expected.iter_mut().zip(&mut widths).zip(of) {
                    *width += own + count as f64 * ULP * (sum.abs() + x.abs());
                    *sum = f64::from((*sum + x) as f32);
                }
            }
            let found = numbers(&on_host(found));
            let difference = first_beyond(&found, &expected, &widths);
            if let (Some(difference), Some(last)) = (difference, last) {
                let path = &graph.parameters[accumulator.parameter.index()].path;
                let what = format!(", added to the gradient of {path}");
                return Err(self.wrong_node(last, &what, &difference));
            }
            let found = found.into_iter().map(|x| x as f32).collect();
            self.held.sums.insert(*accumulator, found);
        }
        Ok(())
    }

    fn roundings(&self, id: NodeId) -> usize {
        let graph = &self.setup.split.joint.graph;
        let stored = |&input: &NodeId| self.stored(graph, input);
        let operands: Option<Vec<_>> = graph[id].inputs.iter().map(stored).collect();
        operands.map_or(1, |operands| roundings(&graph[id], &operands))
    }

    /// Compares sums that go to another device with what they are here.
    pub(super) fn sent(&mut self, sums: &Sums) -> Result<()> {
        for (of, found) in sums {
            let expected: Vec<f64> = self.held.sums[of].iter().map(|&x| x.into()).collect();
            let found = numbers(&on_host(found));
            if let Some(difference) = first_beyond(&found, &expected, &vec![0.0; found.len()]) {
                let what = "'s gradient as it was sent";
                return Err(self.wrong_parameter(of.parameter, what, &difference));
            }
        }
        Ok(())
    }

    /// Compares the squares of the norms of gradients.
    pub(super) fn norms(&self, norms: &[(ParameterId, f64)]) -> Result<()> {
        for &(parameter, found) in norms {
            let gradient = self.held.gradient(parameter);
            let expected: f64 = gradient.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            // A GPU adds a few thousand squares as floats.
            let width = expected * 4096.0 * ULP;
            if let Some(difference) = first_beyond(&[found], &[expected], &[width]) {
                let what = "'s squared norm of the gradient";
                return Err(self.wrong_parameter(parameter, what, &difference));
            }
        }
        Ok(())
    }

    /// Compares an update with the optimizer's formula.
    pub(super) fn updated(&mut self, update: &Update, state: &States) -> Result<()> {
        self.held.before.clear();
        self.held.provisional = false;
        for (parameter, found) in state {
            let Some(moments) = self.held.moments.get(parameter).cloned() else {
                self.unchanged(*parameter, found)?;
                continue;
            };
            let before = self.held.values[parameter].clone();
            let shape = burn_backend::TensorMetadata::shape(&before);
            let dimensions = shape.num_dims();
            let (optimizer, old) = (self.setup.rule.optimizer.of(dimensions), numbers(&before));
            let expected =
                Updated::new(&optimizer, update, &old, self.held.gradient(*parameter), &moments);
            let value = on_host(&found.value);
            let tensors = found.moments.iter().map(|moment| numbers(&on_host(moment)));
            let tensors: Vec<Vec<f64>> = tensors.collect();
            for (at, (found, expected)) in tensors.iter().zip(&expected.moments).enumerate() {
                if let Some(difference) = expected.first_beyond(found) {
                    let what = format!("'s moment {} of the optimizer", at + 1);
                    return Err(self.wrong_parameter(*parameter, &what, &difference));
                }
            }
            let of_value = expected.value(&tensors);
            if let Some(difference) = of_value.first_beyond(&numbers(&value)) {
                return Err(self.wrong_parameter(*parameter, " after its update", &difference));
            }
            if found.updates != moments.updates + 1 {
                let (path, updates) = (self.path(*parameter), found.updates);
                let problem = format!("{updates} updates of {path}, not {}", moments.updates + 1);
                return Err(self.shadow_error(problem));
            }
            if update.provisional {
                self.held.before.insert(*parameter, (before, moments));
            }
            let moments = Moments { tensors, updates: found.updates };
            self.held.moments.insert(*parameter, moments);
            self.held.values.insert(*parameter, value);
        }
        Ok(())
    }

    /// Compares what an update was undone to with what was there before.
    pub(super) fn undone(&mut self, state: &States) -> Result<()> {
        self.held.provisional = true;
        for (parameter, (value, moments)) in std::mem::take(&mut self.held.before) {
            self.held.values.insert(parameter, value);
            self.held.moments.insert(parameter, moments);
        }
        let owned = state.iter().filter(|(id, _)| self.held.moments.contains_key(id));
        owned.into_iter().try_for_each(|(id, found)| self.unchanged(*id, found))
    }

    /// Compares a parameter and its moments with what they were.
    fn unchanged(&self, parameter: ParameterId, found: &ParameterState) -> Result<()> {
        let none = Moments::default();
        let moments = self.held.moments.get(&parameter).unwrap_or(&none);
        let value = numbers(&self.held.values[&parameter]);
        let expected = std::iter::once(&value).chain(&moments.tensors);
        let found = std::iter::once(&found.value).chain(&found.moments);
        for (expected, found) in expected.zip(found) {
            let found = numbers(&on_host(found));
            if let Some(difference) = first_beyond(&found, expected, &vec![0.0; found.len()]) {
                return Err(self.wrong_parameter(
                    parameter,
                    ", which no update changed",
                    &difference,
                ));
            }
        }
        Ok(())
    }

    /// The error about a parameter, its gradient or what the optimizer remembers of it.
    pub(super) fn wrong_parameter(
        &self,
        parameter: ParameterId,
        what: &str,
        difference: &Difference,
    ) -> Error {
        let graph = &self.setup.split.joint.graph;
        let shape = &graph[graph.parameters[parameter.index()].node].shape;
        let path = self.path(parameter);
        let problem = format!("{path}{what}: {}", self.wrong(&shape.0, difference));
        let error = self.shadow_error(problem).in_module(path);
        let owner = self.setup.stages.iter().find(|stage| stage.owned.contains(&parameter));
        match owner {
            Some(owner) => error.in_stage(owner.stage),
            None => error,
        }
    }

    fn path(&self, parameter: ParameterId) -> &str {
        &self.setup.split.joint.graph.parameters[parameter.index()].path
    }
}

/// The first number that is further off than it may be.
fn first_beyond(found: &[f64], expected: &[f64], widths: &[f64]) -> Option<Difference> {
    assert_eq!(found.len(), expected.len(), "as many numbers as there are elements");
    let all = found.iter().zip(expected).zip(widths).enumerate();
    all.map(|(at, ((&found, &expected), &width))| (at, found, expected, width)).find_map(
        |(at, found, expected, width)| {
            let same = found == expected || (found.is_nan() && expected.is_nan());
            let near = (found - expected).abs() <= width + f64::from(f32::MIN_POSITIVE);
            let tolerance = (width > 0.0).then_some(width);
            let near = near || width.is_nan();
            (!same && !near).then_some(Difference { at, found, expected, tolerance })
        },
    )
}
