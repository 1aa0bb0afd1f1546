//! The front door: a Burn module and a loss in, training steps, the trained module out.

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use burn_dispatch::DispatchTensor;

use super::arrange::{Arranged, Request, Searched, arrange};
use super::engines;
use super::inputs::{self, shapes};
use super::measure::{self, Balance};
use super::prepare::{Studied, study};
use super::recompute::Recompute;
use super::stages::{self, Stages};
use super::step_report::StepReport;
use super::{AdamW, Optimizer};
use crate::batch::Batch;
use crate::capture::{load, read};
use crate::engine::wgpu::Gpu;
use crate::engine::{Clipping, DeviceKind, NamedDevice, Precision, UpdateRule, devices};
use crate::error::{Error, ErrorKind, Result, panic_message};
use crate::plan::{CheckedPlan, Communication, Costs, Schedule, Simulation, ZB_H1};
use crate::runtime::Runtime;
use crate::split::Split;

/// Microbatches of a step where nothing else is said.
const MICROBATCHES: u32 = 8;

/// Settings of a training run of `M` on batches `B`.
#[derive(Debug)]
pub struct TrainerBuilder<M, B, L> {
    model: M,
    loss: L,
    /// None for `auto`.
    devices: Option<Vec<NamedDevice>>,
    schedule: Schedule,
    chunks: Option<u32>,
    /// None for the plan's own, or [`MICROBATCHES`].
    microbatches: Option<u32>,
    optimizer: Optimizer,
    /// Above this, the norm of all gradients is clipped to it.
    clip_norm: Option<f64>,
    post_validation: bool,
    learning_rate: f64,
    seed: u64,
    memory_limit: Option<u64>,
    /// None for what suits the schedule.
    balance: Option<Balance>,
    activations: Precision,
    recompute: Recompute,
    batch: PhantomData<fn(B)>,
}

/// A model in training on a pipeline of devices.
#[derive(Debug)]
pub struct Trainer<M, B> {
    pub(super) model: M,
    pub(super) runtime: Runtime,
    pub(super) plan: CheckedPlan,
    costs: Costs,
    balance: Balance,
    prediction: Simulation,
    communication: Communication,
    searched: Option<Searched>,
    pub(super) split: Arc<Split>,
    stages: Stages,
    devices: Vec<String>,
    pub(super) example: Vec<Vec<usize>>,
    pub(super) optimizer: Optimizer,
    pub(super) clip_norm: Option<f64>,
    learning_rate: f64,
    pub(super) seed: u64,
    pub(super) steps: u64,
    batch: PhantomData<fn(B)>,
}

impl<M: Module, B: Batch> Trainer<M, B> {
    /// Starts to describe how `model` is trained on `loss`, the mean over a microbatch.
    ///
    /// Without further settings it trains with AdamW and zb-h1 on `auto` devices, on 8
    /// microbatches a step.
    pub fn of<L>(model: M, loss: L) -> TrainerBuilder<M, B, L>
    where
        L: Fn(&M, B) -> Tensor<1>,
    {
        TrainerBuilder {
            model,
            loss,
            devices: None,
            schedule: Schedule::Family(&ZB_H1),
            chunks: None,
            microbatches: None,
            optimizer: AdamW::default().into(),
            clip_norm: None,
            post_validation: false,
            learning_rate: 1e-3,
            seed: 0,
            memory_limit: None,
            balance: None,
            activations: Precision::F32,
            recompute: Recompute::None,
            batch: PhantomData,
        }
    }

    /// Trains on one batch: as many microbatches like the example as were asked for.
    ///
    /// # Errors
    ///
    /// When the batch has other shapes, the loss is not finite, or a device fails. After an error
    /// of a device or a loss that is not finite the trainer is of no further use.
    pub fn step(&mut self, batch: B) -> Result<StepReport> {
        let start = Instant::now();
        let count = self.plan.plan().microbatches;
        let inputs = inputs::microbatches(batch, &self.example, count)?;
        let outcome = self
            .runtime
            .step(self.steps, inputs, self.learning_rate)
            .map_err(|error| self.located(error))?;
        self.steps += 1;
        let sum: f64 = outcome.losses.iter().map(|&loss| f64::from(loss)).sum();
        Ok(StepReport {
            loss: sum / f64::from(count),
            losses: outcome.losses,
            gradient_norm: outcome.gradient_norm,
            seconds: start.elapsed().as_secs_f64(),
            timeline: outcome.timeline,
            peak_bytes: outcome.peak_bytes,
        })
    }

    /// Sets the learning rate of the steps to come.
    pub fn set_learning_rate(&mut self, learning_rate: f64) {
        self.learning_rate = learning_rate;
    }

    /// The module with its weights as they are now.
    ///
    /// # Errors
    ///
    /// When a device failed before.
    pub fn model(&mut self) -> Result<M> {
        let values = self.values()?;
        load(self.model.clone(), values)
    }

    /// The trained module.
    ///
    /// # Errors
    ///
    /// When a device failed before.
    pub fn into_module(mut self) -> Result<M> {
        let values = self.values()?;
        load(self.model, values)
    }

    /// A hash of all parameters' bits in the module's own order: equal for equal weights, whatever
    /// the placement.
    ///
    /// # Errors
    ///
    /// When a device failed before.
    pub fn weights_hash(&mut self) -> Result<String> {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        for value in self.values()? {
            let elements: Vec<f32> = value.iter::<f32>().collect();
            hasher.update(bytemuck::cast_slice(&elements));
        }
        Ok(format!("{:032x}", hasher.digest128()))
    }

    /// The plan that every step follows; for [`Schedule::Dynamic`] the one that it comes to where
    /// nothing is late.
    pub fn plan(&self) -> &CheckedPlan {
        &self.plan
    }

    /// What the stages cost by the trainer's [`balance`](Self::balance): times are in seconds if
    /// they were measured, and else floating point operations.
    pub fn costs(&self) -> &Costs {
        &self.costs
    }

    /// What the stages were balanced by.
    pub fn balance(&self) -> Balance {
        self.balance
    }

    /// What the plan was predicted to take, by [`costs`](Self::costs).
    pub fn prediction(&self) -> &Simulation {
        &self.prediction
    }

    /// What a step moves between the devices.
    pub fn communication(&self) -> &Communication {
        &self.communication
    }

    /// What the search of [`Schedule::Auto`] found.
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

    /// Current values of the parameters, in the module's own order.
    fn values(&mut self) -> Result<Vec<TensorData>> {
        let mut values = self.runtime.parameters()?;
        values.sort_by_key(|(parameter, _)| *parameter);
        let trained: std::collections::HashMap<usize, DispatchTensor> =
            values.into_iter().map(|(parameter, value)| (parameter.index(), value)).collect();
        // A parameter that the loss does not use is on no device and keeps its value.
        let initial = read(&self.model);
        Ok(initial
            .into_iter()
            .enumerate()
            .map(|(parameter, initial)| match trained.get(&parameter) {
                Some(value) => Tensor::<1>::from_dispatch(value.clone()).into_data(),
                None => initial,
            })
            .collect())
    }

    fn located(&self, error: Error) -> Error {
        let error = error.in_step(self.steps + 1);
        match (error.kind, error.site.action) {
            (ErrorKind::NotFinite, Some(action)) => error.in_stage(action.stage),
            _ => error,
        }
    }
}

impl<M, B, L> TrainerBuilder<M, B, L>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> Tensor<1>,
{
    /// The devices, such as `cpux2` or `auto`; see [`devices`].
    ///
    /// # Errors
    ///
    /// When `spec` names something that is not a device.
    pub fn devices(mut self, spec: &str) -> Result<Self> {
        self.devices = Some(devices(spec)?);
        Ok(self)
    }

    /// The devices as Burn knows them, in the order of their first stages.
    pub fn burn_devices(mut self, devices: Vec<Device>) -> Self {
        let named = |(index, device)| NamedDevice {
            name: format!("burn:{index}"),
            kind: DeviceKind::Burn(device),
        };
        self.devices = Some(devices.into_iter().enumerate().map(named).collect());
        self
    }

    /// The devices as wgpu knows them, in the order of their first stages; each should have the
    /// limits of its adapter.
    pub fn wgpu_devices(mut self, devices: Vec<(wgpu::Device, wgpu::Queue)>) -> Self {
        let named = |(index, (device, queue))| NamedDevice {
            name: format!("wgpu:{index}"),
            kind: DeviceKind::Wgpu(Gpu::opened(device, queue)),
        };
        self.devices = Some(devices.into_iter().enumerate().map(named).collect());
        self
    }

    /// The order in which devices work: a family such as [`ZB_H1`], a [`Plan`](crate::plan::Plan),
    /// or any other [`Schedule`].
    pub fn schedule(mut self, schedule: impl Into<Schedule>) -> Self {
        self.schedule = schedule.into();
        self
    }

    /// How many stages every device holds, where the schedule leaves a choice.
    pub fn chunks_per_device(mut self, chunks: impl Into<Option<u32>>) -> Self {
        self.chunks = chunks.into();
        self
    }

    /// How many microbatches a step's batch is cut into: 8, or as many as a given plan has.
    pub fn microbatches(mut self, microbatches: impl Into<Option<u32>>) -> Self {
        self.microbatches = microbatches.into();
        self
    }

    /// How parameters are updated.
    pub fn optimizer(mut self, optimizer: impl Into<Optimizer>) -> Self {
        self.optimizer = optimizer.into();
        self
    }

    /// Clips all gradients by their global norm: where it is above `max_norm`, they are multiplied
    /// by `max_norm / norm`.
    pub fn clip_norm(mut self, max_norm: impl Into<Option<f64>>) -> Self {
        self.clip_norm = max_norm.into();
        self
    }

    /// Lets every device update as soon as it has its own gradients, and undo that where the norm
    /// of all turns out to be clipped. It changes no bit, takes memory for a copy of the parameters
    /// and the optimizer's state, and needs [`clip_norm`](Self::clip_norm).
    pub fn post_validation(mut self, post_validation: bool) -> Self {
        self.post_validation = post_validation;
        self
    }

    /// The learning rate.
    pub fn learning_rate(mut self, learning_rate: f64) -> Self {
        self.learning_rate = learning_rate;
        self
    }

    /// The seed of dropout.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Most bytes that a device may hold.
    pub fn memory_limit_per_device(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.memory_limit = bytes.into();
        self
    }

    /// What the stages are balanced by. `None` is [`Balance::Measured`] for [`Schedule::Auto`], and
    /// else [`Balance::Flops`].
    pub fn balance(mut self, balance: impl Into<Option<Balance>>) -> Self {
        self.balance = balance.into();
        self
    }

    /// How activations are stored between kernels. With [`Precision::F16`], all devices are GPUs
    /// that have it; one that the caller opened has it with `wgpu::Features::SHADER_F16`.
    pub fn activations(mut self, precision: Precision) -> Self {
        self.activations = precision;
        self
    }

    /// Where F is computed again before B instead of keeping what it computed.
    pub fn recompute(mut self, recompute: Recompute) -> Self {
        self.recompute = recompute;
        self
    }

    /// Captures the model on a microbatch like `example`, splits, places, schedules and simulates
    /// it, and starts the devices.
    ///
    /// # Errors
    ///
    /// Whatever keeps the model from being trained like this, before the first step.
    pub fn build(self, example: &B) -> Result<Trainer<M, B>> {
        catch_unwind(AssertUnwindSafe(|| self.prepare(example))).unwrap_or_else(|panic| {
            let message = panic_message(&*panic);
            Err(Error::model(format!("it could not be prepared: {message}"))
                .hint("report this model: a model is refused with a reason, not with a panic"))
        })
    }

    fn check_settings(&self) -> Result<()> {
        if !self.learning_rate.is_finite() || self.learning_rate < 0.0 {
            let rate = self.learning_rate;
            return Err(Error::config(format!("a learning rate of {rate}")).hint("1e-3"));
        }
        Ok(())
    }

    fn rule(&self) -> Result<UpdateRule> {
        let clipping = match self.clip_norm {
            Some(norm) if !(norm.is_finite() && norm > 0.0) => {
                return Err(Error::config(format!("gradients clipped to a norm of {norm}"))
                    .hint("a norm above 0, such as 1"));
            }
            None if self.post_validation => {
                return Err(Error::config("post-validation without clipping: nothing to validate")
                    .hint("clip_norm, or no post-validation"));
            }
            norm => norm,
        };
        let post_validation = self.post_validation;
        let clipping = clipping.map(|max_norm| Clipping { max_norm, post_validation });
        Ok(UpdateRule { optimizer: self.optimizer, clipping })
    }

    fn balance_or_default(&self) -> Balance {
        self.balance.unwrap_or(match self.schedule {
            Schedule::Auto => Balance::Measured,
            _ => Balance::Flops,
        })
    }

    fn microbatch_count(&self) -> Result<u32> {
        match (&self.schedule, self.microbatches) {
            (_, Some(0)) => Err(Error::config("0 microbatches").hint("1 or more")),
            (Schedule::Fixed(plan), Some(asked)) if asked != plan.microbatches => {
                let own = plan.microbatches;
                Err(Error::config(format!("the plan has {own} microbatches, not {asked}"))
                    .hint(format!("{own} microbatches")))
            }
            (Schedule::Fixed(plan), _) => Ok(plan.microbatches),
            (_, asked) => Ok(asked.unwrap_or(MICROBATCHES)),
        }
    }

    fn prepare(self, example: &B) -> Result<Trainer<M, B>> {
        self.check_settings()?;
        let rule = self.rule()?;
        let (microbatches, balance) = (self.microbatch_count()?, self.balance_or_default());
        let named = self.devices.map_or_else(|| devices("auto"), Ok)?;
        if named.is_empty() {
            return Err(Error::config("no devices").hint("one device or more"));
        }
        let shapes = shapes(example);
        if let Some(empty) = shapes.iter().position(|shape| shape.contains(&0)) {
            return Err(Error::data(format!("tensor {empty} of the example has no elements"))
                .hint("an example of one microbatch's shapes"));
        }
        let mut studied = study(&self.model, &self.loss, example, microbatches, self.seed)?;
        let times = match balance {
            Balance::Flops => measure::flops(&studied.split, named.len()),
            Balance::Measured => {
                measure::measure(&mut studied, &named, self.activations, self.seed)?
            }
        };
        let Studied { split, values, .. } = studied;

        let names: Vec<String> = named.iter().map(|device| device.name.clone()).collect();
        let opened = engines::open(named, self.activations)?;
        let limits = vec![self.memory_limit.unwrap_or(u64::MAX); names.len()];
        let request = Request {
            split: &split,
            times: &times,
            schedule: &self.schedule,
            chunks: self.chunks,
            microbatches,
            rule: &rule,
            activations: self.activations,
            recompute: self.recompute,
            limits: &limits,
        };
        let arranged = arrange(&request, &opened)?;
        let Arranged { plan, cuts, setups, layouts, costs, prediction, .. } = arranged;
        let placement = &plan.plan().placement;
        let stages = stages::describe(&split, &setups, &cuts, placement, &names);
        let common =
            engines::Common { split: split.clone(), values, microbatches, seed: self.seed, rule };
        let devices = engines::prepare(opened, layouts, &setups, placement);
        let engines =
            devices.into_iter().map(|device| device.engine(&common)).collect::<Result<_>>()?;
        let (dispatch, channels) = (arranged.dispatch, &prediction.channels);
        let runtime = Runtime::start(plan.clone(), dispatch, channels, engines, rule.clipping)?;
        Ok(Trainer {
            model: self.model,
            runtime,
            plan,
            costs,
            balance,
            prediction,
            communication: arranged.communication,
            searched: arranged.searched,
            split,
            stages,
            devices: names,
            example: shapes,
            optimizer: self.optimizer,
            clip_norm: self.clip_norm,
            learning_rate: self.learning_rate,
            seed: self.seed,
            steps: 0,
            batch: PhantomData,
        })
    }
}
