//! What a trainer saves, and how it continues.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use burn::module::Module;
use serde::Serialize;

use super::draft::Draft;
use super::manifest::{Manifest, NO_NORM, Settings};
use super::order::order;
use super::{
    Checkpoint, Checkpoints, MANIFEST, OPTIMIZER, PLAN, WEIGHTS, short, shortened, tensors,
};
use crate::batch::Batch;
use crate::capture::{load, paths, read_besides};
use crate::engine::{Optimizer, ParameterState, floats, host_tensor};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{ParameterId, Shape};
use crate::runtime::Runtime;
use crate::train::Trainer;

/// Bytes of weights, about, that are read from a checkpoint before they go to the devices.
const RESTORED_AT_ONCE: usize = 64 << 20;

impl<M: Module, B: Batch> Trainer<M, B> {
    /// Steps done so far, those before a resumed checkpoint included.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Saves all that a trainer of the same model continues from, with a `note` of the caller's,
    /// such as where in the data it is. Gives the folder of the checkpoint.
    ///
    /// If that fails, the checkpoints that were there are still there.
    ///
    /// # Errors
    ///
    /// When a weight, or what the optimizer remembers of one, is not finite; when a file cannot be
    /// written, or a device failed before.
    pub fn save(&mut self, into: &Checkpoints, note: &impl Serialize) -> Result<PathBuf> {
        let note = serde_json::to_value(note)
            .map_err(|error| Error::config(format!("the note has no JSON form: {error}")))?;
        let settings = self.settings_at(self.steps);
        let mut draft = into.draft(self.steps)?;
        let written = self.write_weights(&mut draft).and_then(|()| self.write_moments(&mut draft));
        let updates = written.map_err(|error| self.unsaved(error))?;
        draft.add(PLAN, self.plan.plan().to_string().as_bytes())?;
        let manifest = Manifest::new(self.steps, updates, settings, note);
        draft.add(MANIFEST, manifest.text().as_bytes())?;
        let path = draft.finish()?;
        into.saved(self.steps);
        self.last_good = Some(path.clone());
        into.prune(self.steps)?;
        Ok(path)
    }

    /// Continues from a checkpoint with the bits with which the trainer that saved it would have
    /// gone on. Devices, schedule, placement, order of microbatches, learning rate, precision of
    /// activations and what becomes of numbers that are not finite may be others; devices of
    /// another kind round differently. Gives a line for each of these settings that changes what
    /// the steps to come compute.
    ///
    /// # Errors
    ///
    /// When it is of another model, seed, optimizer or batch, or a device failed before.
    pub fn resume(&mut self, from: &Checkpoint) -> Result<Vec<String>> {
        let in_file =
            |name: &'static str| move |error: Error| shortened(error).in_file(from.path.join(name));
        let settings = self.settings_at(from.manifest.step);
        let told = from.manifest.settings.check(&settings).map_err(in_file(MANIFEST))?;
        let parameters = self.paths();
        let weights: Vec<(String, Shape)> =
            parameters.iter().map(|(path, id)| (path.clone(), self.shape(*id))).collect();
        from.weights.check(&weights).map_err(in_file(WEIGHTS))?;
        let moments: Vec<(String, Shape)> = self
            .trained()
            .iter()
            .flat_map(|&id| self.moment_names(id).into_iter().map(move |name| (name, id)))
            .map(|(name, id)| (name, self.shape(id)))
            .collect();
        from.optimizer.check(&moments).map_err(in_file(OPTIMIZER))?;
        self.check_squares(from).map_err(in_file(OPTIMIZER))?;
        self.restore(from)?;
        self.steps = from.manifest.step;
        self.skips = 0;
        self.last_good = Some(from.path.clone());
        Ok(told.iter().map(|line| short(line)).collect())
    }

    /// Puts parameters in place, some at a time: a checkpoint may be as large as all devices.
    fn restore(&mut self, from: &Checkpoint) -> Result<()> {
        let graph = &self.split.joint.graph;
        let (trained, mut values, mut group, mut held) = (self.trained(), Vec::new(), vec![], 0);
        let placed = &self.placed;
        let mut groups = Vec::new();
        for (index, parameter) in graph.parameters.iter().enumerate() {
            held += 4 * graph[parameter.node].shape.elements();
            group.push((ParameterId(index as u32), parameter.path.clone()));
            if held > RESTORED_AT_ONCE || index + 1 == graph.parameters.len() {
                groups.push(std::mem::take(&mut group));
                held = 0;
            }
        }
        for group in groups {
            let mut states = Vec::new();
            for (id, path) in group {
                let value = from.weights.get(&path)?;
                let names = if trained.contains(&id) { self.moment_names(id) } else { Vec::new() };
                let moments = names.iter().map(|name| from.optimizer.get(name).map(host_tensor));
                let moments = moments.collect::<Result<_>>()?;
                let updates = from.manifest.updates;
                // What the loss does not use is on no device.
                values.push(match placed.contains(&id.index()) {
                    true => None,
                    false => Some(host_tensor(value.clone())),
                });
                let value = host_tensor(value);
                states.push((id, ParameterState { value, moments, updates }));
            }
            self.runtime.restore(states)?;
        }
        self.model = load(&self.model, values)?;
        Ok(())
    }

    /// AdamW takes the root of its second moments.
    fn check_squares(&self, from: &Checkpoint) -> Result<()> {
        if !matches!(self.optimizer, Optimizer::AdamW(_)) {
            return Ok(());
        }
        for id in self.trained() {
            for name in self.moment_names(id).iter().skip(1) {
                let negative = from.optimizer.get(name)?.iter::<f32>().find(|value| *value < 0.0);
                if let Some(value) = negative {
                    return Err(Error::data(format!(
                        "{name} is a mean of squares, and has {value}"
                    ))
                    .hint("another checkpoint"));
                }
            }
        }
        Ok(())
    }

    /// What a caller can do who wanted to save numbers that are not finite.
    fn unsaved(&self, error: Error) -> Error {
        if error.kind != ErrorKind::NotFinite {
            return error;
        }
        let problem = format!("nothing is saved after step {}: {}", self.steps, error.problem);
        let error = Error { problem, ..Error::new(error.kind, "") };
        error.hint(self.back())
    }

    /// Where a run whose numbers are not finite can be taken up again.
    pub(in crate::train) fn back(&self) -> String {
        match &self.last_good {
            Some(path) => {
                format!("a smaller learning rate from {}, the last good checkpoint", path.display())
            }
            None => "a smaller learning rate; no checkpoint was saved before".into(),
        }
    }

    /// The settings of a trainer that has done so many steps.
    fn settings_at(&self, step: u64) -> Settings {
        let keeps_states = !self.split.joint.graph.states.is_empty();
        Settings {
            seed: self.seed,
            microbatches: self.plan.plan().microbatches,
            microbatch: self.example.clone(),
            optimizer: format!("{:?}", self.optimizer),
            clip_norm: self.clip_norm.map_or(NO_NORM.into(), |norm| norm.to_string()),
            activations: self.activations.to_string(),
            on_nan: self.on_nan.to_string(),
            order: order(&self.plan, &self.stages.stage_blocks, keeps_states),
            learning_rates: self.learning_rate.ahead(step),
        }
    }

    /// All parameters under all their paths, so that other programs find each where they look.
    fn write_weights(&mut self, draft: &mut Draft) -> Result<()> {
        let own = read_besides(&self.model, &self.placed);
        let (mut shapes, mut ids) = (BTreeMap::new(), HashMap::new());
        for (path, id) in self.paths() {
            ids.insert(path.clone(), id);
            let shape = self.shape(id).0;
            if shapes.insert(path.clone(), shape).is_some() {
                let problem = format!("the module has two parameters named {path}");
                return Err(Error::model(problem).hint("other names in the module"));
            }
        }
        let values = |path: &str| {
            let position = ids[path].index();
            match &own[position] {
                Some(own) => Ok(floats(own.clone())),
                None => self.value(position).map(floats),
            }
        };
        draft.add_by(WEIGHTS, |file| tensors::write(file, &shapes, values))
    }

    /// What the optimizer remembers; gives how many updates it has made.
    fn write_moments(&mut self, draft: &mut Draft) -> Result<u64> {
        let (mut shapes, mut moments) = (BTreeMap::new(), HashMap::new());
        for id in self.trained() {
            for (at, name) in self.moment_names(id).into_iter().enumerate() {
                shapes.insert(name.clone(), self.shape(id).0);
                moments.insert(name, (id, at));
            }
        }
        // An optimizer that remembers nothing counts nevertheless.
        let first = self.trained().first().copied();
        let of = |runtime: &mut Runtime, id| -> Result<ParameterState> {
            let state = runtime.state(vec![id])?.pop();
            Ok(state.expect("a trained parameter is on a device").1)
        };
        let updates = match first {
            Some(id) => of(&mut self.runtime, id)?.updates,
            None => 0,
        };
        // The moments of one parameter follow each other.
        let mut last: Option<(ParameterId, ParameterState)> = None;
        let values = |name: &str| {
            let (id, at) = moments[name];
            if last.as_ref().is_none_or(|(of, _)| *of != id) {
                last = Some((id, of(&mut self.runtime, id)?));
            }
            let (_, state) = last.as_ref().expect("it was just fetched");
            Ok(floats(state.moments[at].clone()))
        };
        draft.add_by(OPTIMIZER, |file| tensors::write(file, &shapes, values))?;
        Ok(updates)
    }

    fn paths(&self) -> Vec<(String, ParameterId)> {
        let paths = paths(&self.model).into_iter();
        paths.map(|(path, position)| (path, ParameterId(position as u32))).collect()
    }

    /// Parameters that an optimizer updates.
    fn trained(&self) -> Vec<ParameterId> {
        let of = self.split.joint.contributions.iter().map(|contribution| contribution.parameter);
        let mut trained: Vec<ParameterId> = of.collect();
        trained.sort_unstable();
        trained.dedup();
        trained
    }

    fn shape(&self, id: ParameterId) -> Shape {
        let graph = &self.split.joint.graph;
        graph[graph.parameters[id.index()].node].shape.clone()
    }

    fn moment_names(&self, id: ParameterId) -> Vec<String> {
        let names: &[&str] = match self.optimizer {
            Optimizer::AdamW(_) => &["first_moment", "second_moment"],
            Optimizer::Sgd(_) => &["velocity"],
        };
        let path = &self.split.joint.graph.parameters[id.index()].path;
        let kept = names.iter().take(self.optimizer.moments() as usize);
        kept.map(|name| format!("{path}.{name}")).collect()
    }
}
