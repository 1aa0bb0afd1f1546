//! The front door: a Burn module and a loss in, training steps, the trained module out.

use std::collections::HashSet;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_dispatch::DispatchTensor;

use super::Optimizer;
use super::arrange::Searched;
use super::inputs;
use super::learning_rate::LearningRates;
use super::links::MeasuredLink;
use super::profile::Balance;
use super::stages::Stages;
use super::step_report::StepReport;
use crate::batch::Batch;
use crate::capture::{load, read_besides};
use crate::engine::{MicrobatchLoss, Precision, floats, host_tensor};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::ParameterId;
use crate::plan::{CheckedPlan, Communication, Costs, Explanation, Simulation, explain};
use crate::runtime::{OnNan, Runtime};
use crate::split::Split;

/// A model in training on a pipeline of devices.
#[derive(Debug)]
pub struct Trainer<M, B> {
    /// Without the values of what is on devices.
    pub(super) model: M,
    /// The positions of those.
    pub(super) placed: HashSet<usize>,
    pub(super) runtime: Runtime,
    pub(super) plan: CheckedPlan,
    pub(super) costs: Costs,
    pub(super) balance: Balance,
    pub(super) links: Vec<MeasuredLink>,
    pub(super) prediction: Simulation,
    pub(super) communication: Communication,
    pub(super) searched: Option<Searched>,
    pub(super) split: Arc<Split>,
    /// Whether its devices know what the module does in inference.
    pub(super) infers: bool,
    pub(super) stages: Stages,
    pub(super) devices: Vec<String>,
    pub(super) example: Vec<Vec<usize>>,
    pub(super) optimizer: Optimizer,
    pub(super) clip_norm: Option<f64>,
    pub(super) learning_rate: LearningRates,
    pub(super) seed: u64,
    pub(super) steps: u64,
    pub(super) activations: Precision,
    pub(super) on_nan: OnNan,
    /// Steps in a row that may be skipped, and that have been.
    pub(super) max_skips: u32,
    pub(super) skips: u32,
    /// The checkpoint that was saved or resumed last.
    pub(super) last_good: Option<PathBuf>,
    pub(super) batch: PhantomData<fn(B)>,
}

impl<M: Module, B: Batch> Trainer<M, B> {
    /// Trains on one batch: as many microbatches like the example as were asked for.
    ///
    /// # Errors
    ///
    /// When the batch has other shapes, a device fails, or, with
    /// [`OnNan::Stop`](crate::OnNan::Stop), the loss is not finite. After an error of a device or a
    /// loss that is not finite the trainer is of no further use. With
    /// [`OnNan::Skip`](crate::OnNan::Skip), when as many steps in a row were skipped as
    /// [`max_skips`](super::TrainerBuilder::max_skips) says.
    pub fn step(&mut self, batch: B) -> Result<StepReport> {
        let start = Instant::now();
        let count = self.plan.plan().microbatches;
        let inputs = inputs::microbatches(batch, &self.example, count)?;
        let learning_rate = self.learning_rate.at(self.steps)?;
        let outcome = self
            .runtime
            .step(self.steps, inputs, learning_rate)
            .map_err(|error| self.located(error))?;
        let skipped = outcome.skipped.map(|fault| self.located(fault));
        self.steps += 1;
        self.count_skip(skipped.as_ref())?;
        Ok(StepReport {
            loss: MicrobatchLoss::mean_of(&outcome.losses),
            losses: outcome.losses.iter().map(|loss| loss.mean()).collect(),
            skipped,
            gradient_norm: outcome.gradient_norm,
            learning_rate,
            seconds: start.elapsed().as_secs_f64(),
            timeline: outcome.timeline,
            peak_bytes: outcome.peak_bytes,
        })
    }

    /// Counts a step that was skipped, or ends the count.
    fn count_skip(&mut self, skipped: Option<&Error>) -> Result<()> {
        let Some(fault) = skipped else {
            self.skips = 0;
            return Ok(());
        };
        self.skips += 1;
        if self.skips < self.max_skips {
            return Ok(());
        }
        let count = std::mem::take(&mut self.skips);
        let problem = format!("{count} steps in a row were skipped, the last one for: {}", {
            Error { hint: String::new(), ..fault.clone() }
        });
        Err(Error::new(ErrorKind::NotFinite, problem).hint(self.back()))
    }

    /// Sets the learning rate of the steps to come, in place of any schedule.
    pub fn set_learning_rate(&mut self, learning_rate: f64) {
        self.learning_rate = LearningRates::new(learning_rate);
    }

    /// The module with its weights as they are now.
    ///
    /// # Errors
    ///
    /// When a device failed before.
    pub fn model(&mut self) -> Result<M> {
        let values = self.copied_values()?;
        load(&self.model, values)
    }

    /// What `read` returns of the module with its weights as they are now.
    ///
    /// Where the weights are in this process's memory, on CPU devices, the module shares them, so
    /// that it costs no memory of its own. A clone of it that is kept keeps all memory of the
    /// devices that it is from: [`model`](Self::model) is for keeping.
    ///
    /// # Errors
    ///
    /// When a device failed before.
    pub fn with_model<T>(&mut self, read: impl FnOnce(&M) -> T) -> Result<T> {
        let values = self.lent_values()?;
        Ok(read(&load(&self.model, values)?))
    }

    /// The trained module.
    ///
    /// # Errors
    ///
    /// When a device failed before.
    pub fn into_module(mut self) -> Result<M> {
        let values = self.copied_values()?;
        load(&self.model, values)
    }

    /// A hash of all parameters' bits in the module's own order: equal for equal weights, whatever
    /// the placement.
    ///
    /// # Errors
    ///
    /// When a device failed before.
    pub fn weights_hash(&mut self) -> Result<String> {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        self.for_each_value(|_, value| hasher.update(bytemuck::cast_slice(value)))?;
        Ok(format!("{:032x}", hasher.digest128()))
    }

    /// A hash of every parameter's bits by its path in the module, in the module's own order: to
    /// find the first parameter that is not the same in two runs. Frozen parameters and running
    /// values are among them.
    ///
    /// # Errors
    ///
    /// When a device failed before.
    pub fn weight_hashes(&mut self) -> Result<Vec<(String, String)>> {
        let mut hashes = Vec::new();
        self.for_each_value(|path, value| {
            let hash = xxhash_rust::xxh3::xxh3_128(bytemuck::cast_slice(value));
            hashes.push((path.to_owned(), format!("{hash:032x}")));
        })?;
        Ok(hashes)
    }

    /// The plan that every step follows; for
    /// [`Schedule::Dynamic`](crate::plan::Schedule::Dynamic) the one that it comes to where nothing
    /// is late.
    pub fn plan(&self) -> &CheckedPlan {
        &self.plan
    }

    /// What the stages cost by the trainer's [`balance`](Self::balance): times are in seconds if
    /// they were measured, and else floating point operations.
    pub fn costs(&self) -> &Costs {
        &self.costs
    }

    /// What was measured of the links between devices, from every device to every other, and is in
    /// [`costs`](Self::costs); none with [`Balance::Flops`], which measures nothing.
    pub fn links(&self) -> &[MeasuredLink] {
        &self.links
    }

    /// What the stages were balanced by.
    pub fn balance(&self) -> Balance {
        self.balance
    }

    /// What the plan was predicted to take, by [`costs`](Self::costs).
    pub fn prediction(&self) -> &Simulation {
        &self.prediction
    }

    /// What the difference between the predicted bubble and that of a measured `step` is made of,
    /// by the medians of `steps`.
    ///
    /// # Errors
    ///
    /// When they are steps of another plan.
    pub fn explain<'a>(
        &self,
        steps: impl IntoIterator<Item = &'a StepReport>,
        step: &StepReport,
    ) -> Result<Explanation> {
        let timelines: Vec<_> = steps.into_iter().map(|step| &step.timeline).collect();
        Ok(explain(&self.plan, &self.prediction, &self.costs, &timelines, &step.timeline)?)
    }

    /// What a step moves between the devices.
    pub fn communication(&self) -> &Communication {
        &self.communication
    }

    /// What the search of [`Schedule::Auto`](crate::plan::Schedule::Auto) found.
    pub fn searched(&self) -> Option<&Searched> {
        self.searched.as_ref()
    }

    /// How the model was cut, one line per stage.
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// The blocks that the stages are made of, with their bytes and work.
    pub fn split(&self) -> &Split {
        &self.split
    }

    /// Names of the devices.
    pub fn devices(&self) -> Vec<String> {
        self.devices.clone()
    }

    /// Number of trained values.
    pub fn parameters(&self) -> u64 {
        let graph = &self.split.joint.graph;
        let trained = graph.parameters.iter().filter(|parameter| parameter.trained);
        trained.map(|parameter| graph[parameter.node].shape.elements() as u64).sum()
    }

    /// Shows every parameter's path and value in the module's own order, one at a time: a model may
    /// be as large as all devices.
    fn for_each_value(&mut self, mut show: impl FnMut(&str, &[f32])) -> Result<()> {
        let split = self.split.clone();
        let parameters = &split.joint.graph.parameters;
        let own = read_besides(&self.model, &self.placed);
        assert_eq!(parameters.len(), own.len(), "a graph has all parameters of its module");
        for (position, (own, parameter)) in own.into_iter().zip(parameters).enumerate() {
            let value = own.map_or_else(|| self.value(position), Ok)?;
            show(&parameter.path, &floats(value));
        }
        Ok(())
    }

    /// Current values of the parameters, in the module's own order. What the loss does not use is
    /// on no device, and has its value in the module.
    fn lent_values(&mut self) -> Result<Vec<Option<DispatchTensor>>> {
        let parameters = 0..self.split.joint.graph.parameters.len();
        let value = |position| match self.placed.contains(&position) {
            true => self.value(position).map(Some),
            false => Ok(None),
        };
        parameters.map(value).collect()
    }

    /// The same in memory that no device has a part in.
    fn copied_values(&mut self) -> Result<Vec<Option<DispatchTensor>>> {
        let copied = |value| host_tensor(Tensor::<1>::from_dispatch(value).into_data());
        let values = self.lent_values()?.into_iter();
        Ok(values.map(|value| value.map(copied)).collect())
    }

    /// The current value of a parameter that is on a device, perhaps in the device's own memory.
    pub(super) fn value(&mut self, position: usize) -> Result<DispatchTensor> {
        let mut found = self.runtime.parameters(vec![ParameterId(position as u32)])?;
        Ok(found.pop().expect("a device tells what it holds").1)
    }

    fn located(&self, error: Error) -> Error {
        let error = error.in_step(self.steps + 1);
        match (error.kind, error.site.action) {
            (ErrorKind::NotFinite, Some(action)) => error.in_stage(action.stage),
            _ => error,
        }
    }
}
