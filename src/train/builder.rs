//! The settings of a training run, and what becomes of them before the first step.

use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::module::Module;
use burn::tensor::Device;

use super::Optimizer;
use super::build_phase::{BuildPhase, Phases};
use super::compare::Comparison;
use super::inputs::shapes;
use super::learning_rate::LearningRates;
use super::prepared::Prepared;
use super::profile::{Balance, BlockTimes, ProfileRequest, flops, profile};
use super::recompute::Recompute;
use super::required::check_parameters;
use super::run_settings::RunSettings;
use super::trainer::Trainer;
use super::variant::Variant;
use super::verified_model::{VerifiedModel, verified_model};
use crate::batch::Batch;
use crate::capture::is_mean;
use crate::engine::wgpu::{Gpu, WgpuDevice};
use crate::engine::{BurnDevice, EngineDevice, Precision, devices};
use crate::error::{Error, Result, of_panic, quietly};
use crate::loss::IntoLoss;
use crate::plan::Schedule;
use crate::runtime::OnNan;

/// Settings of a training run of `M` on batches `B`.
#[derive(Debug)]
pub struct TrainerBuilder<M, B, L> {
    model: M,
    loss: L,
    /// None for `auto`.
    devices: Option<Vec<Box<dyn EngineDevice>>>,
    variant: Variant,
    settings: RunSettings,
    /// None for what suits the schedule and takes little time.
    balance: Option<Balance>,
    joint_loss: bool,
    phases: Phases,
    batch: PhantomData<fn(B)>,
}

impl<M: Module, B: Batch> Trainer<M, B> {
    /// Starts to describe how `model` is trained on `loss`, the mean over a microbatch, or a sum
    /// with its weight.
    ///
    /// Without further settings it trains with AdamW and zb-h1 on `auto` devices, on 8
    /// microbatches a step.
    pub fn of<L, R>(model: M, loss: L) -> TrainerBuilder<M, B, L>
    where
        L: Fn(&M, B) -> R,
        R: IntoLoss,
    {
        TrainerBuilder::new(model, loss)
    }
}

impl<M, B, L, R> TrainerBuilder<M, B, L>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> R,
    R: IntoLoss,
{
    fn new(model: M, loss: L) -> Self {
        Self {
            model,
            loss,
            devices: None,
            variant: Variant::default(),
            settings: RunSettings::default(),
            balance: None,
            joint_loss: false,
            phases: Phases::nobody(),
            batch: PhantomData,
        }
    }

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
    pub fn burn_devices(self, devices: Vec<Device>) -> Self {
        let named = |(index, device)| -> Box<dyn EngineDevice> {
            Box::new(BurnDevice::new(format!("burn:{index}"), device))
        };
        self.custom_devices(devices.into_iter().enumerate().map(named).collect())
    }

    /// The devices as wgpu knows them, in the order of their first stages; each should have the
    /// limits of its adapter.
    pub fn wgpu_devices(self, devices: Vec<(wgpu::Device, wgpu::Queue)>) -> Self {
        let named = |(index, (device, queue))| -> Box<dyn EngineDevice> {
            Box::new(WgpuDevice::new(format!("wgpu:{index}"), Gpu::opened(device, queue)))
        };
        self.custom_devices(devices.into_iter().enumerate().map(named).collect())
    }

    /// Devices of any kind, in the order of their first stages, such as one with an
    /// [`Engine`](crate::engine::Engine) of the caller's own.
    pub fn custom_devices(mut self, devices: Vec<Box<dyn EngineDevice>>) -> Self {
        self.devices = Some(devices);
        self
    }

    /// The order in which devices work: a family such as [`ZB_H1`](crate::plan::ZB_H1), a
    /// [`Plan`](crate::plan::Plan), or any other [`Schedule`].
    pub fn schedule(mut self, schedule: impl Into<Schedule>) -> Self {
        self.variant.schedule = schedule.into();
        self
    }

    /// How many stages every device holds, where the schedule leaves a choice.
    pub fn chunks_per_device(mut self, chunks: impl Into<Option<u32>>) -> Self {
        self.variant.chunks = chunks.into();
        self
    }

    /// How many microbatches a step's batch is cut into: 8, or as many as a given plan has.
    pub fn microbatches(mut self, microbatches: impl Into<Option<u32>>) -> Self {
        self.variant.microbatches = microbatches.into();
        self
    }

    /// How parameters are updated.
    pub fn optimizer(mut self, optimizer: impl Into<Optimizer>) -> Self {
        self.settings.optimizer = optimizer.into();
        self
    }

    /// Clips all gradients by their global norm: where it is above `max_norm`, they are multiplied
    /// by `max_norm / norm`.
    pub fn clip_norm(mut self, max_norm: impl Into<Option<f64>>) -> Self {
        self.settings.clip_norm = max_norm.into();
        self
    }

    /// Lets every device update as soon as it has its own gradients, and undo that where the norm
    /// of all turns out to be clipped. It changes no bit, takes memory for a copy of the parameters
    /// and the optimizer's state, and needs [`clip_norm`](Self::clip_norm).
    pub fn post_validation(mut self, post_validation: bool) -> Self {
        self.settings.post_validation = post_validation;
        self
    }

    /// The learning rate: a number, or one of Burn's schedulers, which takes a step before every
    /// step of the trainer. One with groups of parameters is refused.
    pub fn learning_rate(mut self, learning_rate: impl Into<ModuleLrScheduler>) -> Self {
        self.settings.learning_rate = LearningRates::new(learning_rate);
        self
    }

    /// The seed of the random numbers of training, such as those of dropout.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }

    /// What becomes of a step whose loss is not finite. A skipped step has its number, and so its
    /// learning rate and its random numbers, as every other.
    ///
    /// Gradients that are not finite although all losses are show in their norm, with
    /// [`clip_norm`](Self::clip_norm), and the step is skipped as well. Without it they make the
    /// weights so: then the losses of all later steps are not finite.
    pub fn on_nan(mut self, on_nan: OnNan) -> Self {
        self.settings.on_nan = on_nan;
        self
    }

    /// How many steps in a row may be skipped with [`OnNan::Skip`]: 10 where nothing else is said.
    /// The last of them is an error, since weights that make every loss infinite stay what they
    /// are.
    pub fn max_skips(mut self, steps: u32) -> Self {
        self.settings.max_skips = steps;
        self
    }

    /// Most bytes that a device may hold.
    pub fn memory_limit_per_device(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.settings.memory_limit = bytes.into();
        self
    }

    /// What the stages are balanced by. `None` is [`Balance::Measured`] for [`Schedule::Auto`], and
    /// also else where that takes less than a second, as on CPU devices; if not,
    /// [`Balance::Flops`].
    pub fn balance(mut self, balance: impl Into<Option<Balance>>) -> Self {
        self.balance = balance.into();
        self
    }

    /// How activations are stored between kernels. With [`Precision::F16`], all devices are GPUs
    /// that have it; one that the caller opened has it with `wgpu::Features::SHADER_F16`.
    pub fn activations(mut self, precision: Precision) -> Self {
        self.settings.activations = precision;
        self
    }

    /// Where F is recomputed before B instead of keeping what it computed.
    pub fn recompute(mut self, recompute: Recompute) -> Self {
        self.variant.recompute = recompute;
        self
    }

    /// Takes the loss of a microbatch as it is although it is not the mean of its examples' losses,
    /// as where they are compared with each other. What is minimised is then the mean of the losses
    /// of a step's microbatches, and depends on how a batch is cut. Without it such a loss is
    /// refused, unless it comes with its weight ([`Loss::weighted`](crate::Loss::weighted)).
    pub fn joint_loss(mut self, joint_loss: bool) -> Self {
        self.joint_loss = joint_loss;
        self
    }

    /// Tells `listener` what [`build`](Self::build) begins, for a model whose building takes long.
    pub fn on_phase(mut self, listener: impl FnMut(BuildPhase) + 'static) -> Self {
        self.phases = Phases::told(listener);
        self
    }

    /// Has every device watched: what it computes is computed again by the reference, Burn's own
    /// functions on the CPU, on another thread, and compared: every value, sum of gradients and
    /// update, from what the device itself computed before it. The first one that differs by more
    /// than rounding explains, or at all where it has to be exact, is the error of its step, with
    /// its stage, action, module and op. It changes no bit. A step takes ten times as long and
    /// more, and the host holds what all devices hold once more.
    pub fn shadow(mut self, shadow: bool) -> Self {
        self.settings.shadow = shadow;
        self
    }

    /// Captures the model on a microbatch like `example`, splits, places, schedules and simulates
    /// it, and starts the devices.
    ///
    /// # Errors
    ///
    /// Whatever keeps the model from being trained like this, before the first step.
    pub fn build(self, example: &B) -> Result<Trainer<M, B>> {
        prepared(|| self.try_build(example))
    }

    /// Captures the model and starts the devices as [`build`](Self::build) does, once for all
    /// `variants`, plans each of them, and lets them train in turn: see [`Comparison`]. A variant
    /// stands in place of [`schedule`](Self::schedule),
    /// [`chunks_per_device`](Self::chunks_per_device), [`microbatches`](Self::microbatches) and
    /// [`recompute`](Self::recompute).
    ///
    /// # Errors
    ///
    /// Whatever keeps the model from being trained by any variant. What keeps it from one of them
    /// is a [`fault`](super::Contender::fault) of that one.
    pub fn compare(
        self,
        example: &B,
        variants: impl IntoIterator<Item = Variant>,
    ) -> Result<Comparison<M, B>> {
        let variants: Vec<Variant> = variants.into_iter().collect();
        prepared(|| self.try_compare(example, variants))
    }

    /// The model, captured and split, where its loss may be cut into microbatches.
    fn verified(&mut self, example: &B, microbatches: u32) -> Result<VerifiedModel> {
        let Self { model, loss, phases, settings, joint_loss, .. } = self;
        let verified = verified_model(model, loss, example, microbatches, settings.seed, phases)?;
        if microbatches > 1 && !*joint_loss && !verified.graph.weighted {
            check_mean(model, loss, example)?;
        }
        Ok(verified)
    }

    fn try_build(mut self, example: &B) -> Result<Trainer<M, B>> {
        let microbatches = self.variant.microbatch_count()?;
        let budget = self.variant.profile_budget(self.balance);
        let variant = std::mem::take(&mut self.variant);
        let Proved { mut prepared, mut model, mut phases } = self.proved(example, microbatches)?;
        let times = times(budget, &mut model, &mut prepared, &mut phases)?;
        let split = model.split.clone();
        drop(model);
        phases.begin(BuildPhase::Arrange);
        let planned = prepared.planned(&variant, &split, &times)?;
        phases.begin(BuildPhase::Start);
        prepared.into_trainer(planned)
    }

    fn try_compare(self, example: &B, variants: Vec<Variant>) -> Result<Comparison<M, B>> {
        let counts = variants.iter().filter_map(|variant| variant.microbatch_count().ok());
        let budgets: Vec<Duration> =
            variants.iter().map(|variant| variant.profile_budget(self.balance)).collect();
        let budget = budgets.iter().max().copied().unwrap_or_default();
        let Proved { mut prepared, mut model, mut phases } =
            self.proved(example, counts.max().unwrap_or(1))?;
        let flops = times(Duration::ZERO, &mut model, &mut prepared, &mut phases)?;
        let measured = times(budget, &mut model, &mut prepared, &mut phases)?;
        let graph = model.graph.clone();
        drop(model);
        phases.begin(BuildPhase::Arrange);
        let of = |budget: Duration| if budget.is_zero() { &flops } else { &measured };
        let all = variants.into_iter().zip(budgets);
        let all = all.map(|(variant, budget)| (variant, of(budget)));
        Ok(Comparison::new(prepared, &graph, all))
    }

    /// Proves the model for steps of so many microbatches, and opens the devices.
    fn proved(mut self, example: &B, microbatches: u32) -> Result<Proved<M>> {
        self.settings.learning_rate.check(&self.model)?;
        let rule = self.settings.rule()?;
        let mut devices = chosen(self.devices.take())?;
        let shapes = checked_shapes(example)?;
        check_parameters(&self.model, &rule, &devices, self.settings.memory_limit)?;
        let model = self.verified(example, microbatches)?;
        self.phases.begin(BuildPhase::Devices);
        let activations = self.settings.activations;
        devices.iter_mut().try_for_each(|device| device.open(activations))?;
        let prepared = Prepared {
            model: self.model,
            values: model.values.clone(),
            infers: model.infers,
            devices,
            example: shapes,
            settings: self.settings,
            rule,
        };
        Ok(Proved { prepared, model, phases: self.phases })
    }
}

/// A model that is proved, with what knows of its blocks' times.
struct Proved<M> {
    prepared: Prepared<M>,
    model: VerifiedModel,
    phases: Phases,
}

/// What the blocks cost: measured, where that is within the budget, and else counted.
fn times<M>(
    budget: Duration,
    model: &mut VerifiedModel,
    prepared: &mut Prepared<M>,
    phases: &mut Phases,
) -> Result<BlockTimes> {
    let Prepared { devices, settings: RunSettings { activations, seed, .. }, .. } = prepared;
    if !budget.is_zero() {
        phases.begin(BuildPhase::Profile);
        let (activations, seed) = (*activations, *seed);
        let request = ProfileRequest { model, devices, activations, seed, budget };
        if let Some(times) = profile(request)? {
            return Ok(times);
        }
    }
    Ok(flops(&model.split, devices.len()))
}

/// What `prepare` gives, or a reason where it panics.
fn prepared<T>(prepare: impl FnOnce() -> Result<T>) -> Result<T> {
    quietly(AssertUnwindSafe(prepare)).unwrap_or_else(|panic| {
        let error = of_panic(&*panic);
        let hint = if error.hint.is_empty() {
            "report this model: a model is refused with a reason, not with a panic"
        } else {
            &error.hint
        };
        Err(Error::model(format!("it could not be prepared: {}", error.problem)).hint(hint))
    })
}

/// The devices that were given, or those of `auto`.
fn chosen(given: Option<Vec<Box<dyn EngineDevice>>>) -> Result<Vec<Box<dyn EngineDevice>>> {
    let devices = given.map_or_else(|| devices("auto"), Ok)?;
    if devices.is_empty() {
        return Err(Error::config("no devices").hint("one device or more"));
    }
    Ok(devices)
}

fn checked_shapes<B: Batch>(example: &B) -> Result<Vec<Vec<usize>>> {
    let shapes = shapes(example);
    match shapes.iter().position(|shape| shape.contains(&0)) {
        Some(empty) => Err(Error::data(format!("tensor {empty} of the example has no elements"))
            .hint("an example of one microbatch's shapes")),
        None => Ok(shapes),
    }
}

/// Refuses a loss that is no mean over its microbatch: the mean over the microbatches of a step is
/// then another thing than the loss of its batch.
fn check_mean<M, B, L, R>(model: &M, loss: &L, example: &B) -> Result<()>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> R,
    R: IntoLoss,
{
    if is_mean(model, loss, example) {
        return Ok(());
    }
    let problem = "the loss of the example is not the mean of the losses of its parts, so that \
                   the loss of a step depends on how its batch is cut";
    Err(Error::model(problem).hint(
        "return (sum, weight), such as the summed loss and the number of examples or tokens that \
         count; or `joint_loss(true)` if examples are compared with each other",
    ))
}
