//! What a trainer saves, and how it continues.

use std::collections::HashMap;
use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use burn_dispatch::DispatchTensor;
use serde::Serialize;

use super::manifest::{Manifest, NO_NORM, Settings};
use super::tensors::Tensors;
use super::{Checkpoint, Checkpoints, MANIFEST, OPTIMIZER, PLAN, WEIGHTS};
use crate::batch::Batch;
use crate::capture::{load, paths, read};
use crate::engine::{Optimizer, ParameterState, host_tensor};
use crate::error::{Error, Result};
use crate::graph::{ParameterId, Shape};
use crate::train::Trainer;

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
    /// When a file cannot be written, or a device failed before.
    pub fn save(&mut self, into: &Checkpoints, note: &impl Serialize) -> Result<PathBuf> {
        let note = serde_json::to_value(note)
            .map_err(|error| Error::config(format!("the note has no JSON form: {error}")))?;
        let state: HashMap<ParameterId, ParameterState> =
            self.runtime.state()?.into_iter().collect();
        let updates = state.values().map(|state| state.updates).max().unwrap_or(0);
        let mut draft = into.draft(self.steps)?;
        draft.add(WEIGHTS, &self.weights(&state)?.bytes()?)?;
        draft.add(OPTIMIZER, &self.moments(&state)?.bytes()?)?;
        draft.add(PLAN, self.plan.plan().to_string().as_bytes())?;
        let manifest = Manifest::new(self.steps, updates, self.settings(), note);
        draft.add(MANIFEST, manifest.text().as_bytes())?;
        let path = draft.finish()?;
        into.prune(self.steps)?;
        Ok(path)
    }

    /// Continues from a checkpoint with the bits with which the trainer that saved it would have
    /// gone on. Devices, schedule, placement and learning rate may be others; devices of another
    /// kind round differently.
    ///
    /// # Errors
    ///
    /// When it is of another model, seed, optimizer or batch, or a device failed before.
    pub fn resume(&mut self, from: &Checkpoint) -> Result<()> {
        let in_file = |name: &'static str| move |error: Error| error.in_file(from.path.join(name));
        from.manifest.settings.check(&self.settings()).map_err(in_file(MANIFEST))?;
        let (parameters, trained) = (self.paths(), self.trained());
        let weights: Vec<(String, Shape)> =
            parameters.iter().map(|(path, id)| (path.clone(), self.shape(*id))).collect();
        from.weights.check(&weights).map_err(in_file(WEIGHTS))?;
        let moments: Vec<(String, Shape)> = trained
            .iter()
            .flat_map(|&id| self.moment_names(id).into_iter().map(move |name| (name, id)))
            .map(|(name, id)| (name, self.shape(id)))
            .collect();
        from.optimizer.check(&moments).map_err(in_file(OPTIMIZER))?;

        let graph = &self.split.joint.graph;
        let ids = (0..graph.parameters.len() as u32).map(ParameterId);
        let values: Vec<TensorData> =
            graph.parameters.iter().map(|parameter| from.weights.get(&parameter.path)).collect();
        let state = ids.zip(&values).map(|(id, value)| {
            let names = if trained.contains(&id) { self.moment_names(id) } else { Vec::new() };
            let moments = names.iter().map(|name| host_tensor(from.optimizer.get(name)));
            let (value, moments) = (host_tensor(value.clone()), moments.collect());
            (id, ParameterState { value, moments, updates: from.manifest.updates })
        });
        let state = state.collect();
        // What the loss does not use is on no device.
        self.model = load(&self.model, values)?;
        self.runtime.restore(state)?;
        self.steps = from.manifest.step;
        Ok(())
    }

    fn settings(&self) -> Settings {
        Settings {
            seed: self.seed,
            microbatches: self.plan.plan().microbatches,
            microbatch: self.example.clone(),
            optimizer: format!("{:?}", self.optimizer),
            clip_norm: self.clip_norm.map_or(NO_NORM.into(), |norm| norm.to_string()),
        }
    }

    /// All parameters under all their paths, so that other programs find each where they look.
    fn weights(&self, state: &HashMap<ParameterId, ParameterState>) -> Result<Tensors> {
        let initial = read(&self.model);
        let mut tensors = Tensors::default();
        for (path, id) in self.paths() {
            match state.get(&id) {
                Some(ParameterState { value, .. }) => tensors.add(path, &data(value))?,
                None => tensors.add(path, &initial[id.index()])?,
            }
        }
        Ok(tensors)
    }

    fn moments(&self, state: &HashMap<ParameterId, ParameterState>) -> Result<Tensors> {
        let mut tensors = Tensors::default();
        for (&id, ParameterState { moments, .. }) in state {
            for (name, moment) in self.moment_names(id).into_iter().zip(moments) {
                tensors.add(name, &data(moment))?;
            }
        }
        Ok(tensors)
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

fn data(tensor: &DispatchTensor) -> TensorData {
    Tensor::<1>::from_dispatch(tensor.clone()).into_data()
}
