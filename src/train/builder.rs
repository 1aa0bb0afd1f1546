//! The settings of a training run, and what becomes of them before the first step.

use std::collections::HashSet;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::module::Module;
use burn::tensor::Device;
use burn_dispatch::DispatchTensor;

use super::arrange::{ArrangeRequest, Arranged, arrange};
use super::build_phase::{BuildPhase, Phases};
use super::inputs::shapes;
use super::learning_rate::LearningRates;
use super::profile::{Balance, BlockTimes, ProfileRequest, flops, profile};
use super::recompute::Recompute;
use super::required::{check_host, check_parameters};
use super::stages;
use super::trainer::Trainer;
use super::verified_model::{VerifiedModel, verified_model};
use super::{AdamW, Optimizer};
use crate::batch::Batch;
use crate::capture::{emptied, is_mean};
use crate::engine::wgpu::{Gpu, WgpuDevice};
use crate::engine::{
    BurnDevice, Clipping, Engine, EngineDevice, EngineSetup, Precision, StageSetup, UpdateRule,
    devices, shadowed,
};
use crate::error::{Error, Result, of_panic, quietly};
use crate::loss::IntoLoss;
use crate::plan::{Schedule, ZB_H1};
use crate::runtime::{OnNan, Runtime, StepRules};

/// Microbatches of a step where nothing else is said.
const MICROBATCHES: u32 = 8;
/// Steps in a row that may be skipped where nothing else is said.
const MAX_SKIPS: u32 = 10;
/// How long blocks are timed where nobody asked for it.
const PROFILE_BUDGET: Duration = Duration::from_secs(1);

/// Settings of a training run of `M` on batches `B`.
#[derive(Debug)]
pub struct TrainerBuilder<M, B, L> {
    model: M,
    loss: L,
    /// None for `auto`.
    devices: Option<Vec<Box<dyn EngineDevice>>>,
    schedule: Schedule,
    chunks: Option<u32>,
    /// None for the plan's own, or [`MICROBATCHES`].
    microbatches: Option<u32>,
    optimizer: Optimizer,
    /// Above this, the norm of all gradients is clipped to it.
    clip_norm: Option<f64>,
    post_validation: bool,
    learning_rate: LearningRates,
    seed: u64,
    on_nan: OnNan,
    max_skips: u32,
    memory_limit: Option<u64>,
    /// None for what suits the schedule and takes little time.
    balance: Option<Balance>,
    activations: Precision,
    recompute: Recompute,
    joint_loss: bool,
    phases: Phases,
    shadow: bool,
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
            schedule: Schedule::Family(&ZB_H1),
            chunks: None,
            microbatches: None,
            optimizer: AdamW::default().into(),
            clip_norm: None,
            post_validation: false,
            learning_rate: LearningRates::new(1e-3),
            seed: 0,
            on_nan: OnNan::Stop,
            max_skips: MAX_SKIPS,
            memory_limit: None,
            balance: None,
            activations: Precision::F32,
            recompute: Recompute::None,
            joint_loss: false,
            phases: Phases::nobody(),
            shadow: false,
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

    /// The learning rate: a number, or one of Burn's schedulers, which takes a step before every
    /// step of the trainer. One with groups of parameters is refused.
    pub fn learning_rate(mut self, learning_rate: impl Into<ModuleLrScheduler>) -> Self {
        self.learning_rate = LearningRates::new(learning_rate);
        self
    }

    /// The seed of the random numbers of training, such as those of dropout.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// What becomes of a step whose loss is not finite. A skipped step has its number, and so its
    /// learning rate and its random numbers, as every other.
    ///
    /// Gradients that are not finite although all losses are show in their norm, with
    /// [`clip_norm`](Self::clip_norm), and the step is skipped as well. Without it they make the
    /// weights so: then the losses of all later steps are not finite.
    pub fn on_nan(mut self, on_nan: OnNan) -> Self {
        self.on_nan = on_nan;
        self
    }

    /// How many steps in a row may be skipped with [`OnNan::Skip`]: 10 where nothing else is said.
    /// The last of them is an error, since weights that make every loss infinite stay what they
    /// are.
    pub fn max_skips(mut self, steps: u32) -> Self {
        self.max_skips = steps;
        self
    }

    /// Most bytes that a device may hold.
    pub fn memory_limit_per_device(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.memory_limit = bytes.into();
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
        self.activations = precision;
        self
    }

    /// Where F is recomputed before B instead of keeping what it computed.
    pub fn recompute(mut self, recompute: Recompute) -> Self {
        self.recompute = recompute;
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
        self.shadow = shadow;
        self
    }

    /// Captures the model on a microbatch like `example`, splits, places, schedules and simulates
    /// it, and starts the devices.
    ///
    /// # Errors
    ///
    /// Whatever keeps the model from being trained like this, before the first step.
    pub fn build(self, example: &B) -> Result<Trainer<M, B>> {
        quietly(AssertUnwindSafe(|| self.try_build(example))).unwrap_or_else(|panic| {
            let error = of_panic(&*panic);
            let hint = if error.hint.is_empty() {
                "report this model: a model is refused with a reason, not with a panic"
            } else {
                &error.hint
            };
            Err(Error::model(format!("it could not be prepared: {}", error.problem)).hint(hint))
        })
    }

    fn rule(&self) -> Result<UpdateRule> {
        self.optimizer.check()?;
        if self.max_skips == 0 {
            return Err(Error::config("no step may be skipped: `max_skips(0)`")
                .hint("`max_skips(1)` or more, or `on_nan(stop)`"));
        }
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

    /// The model, captured and split, where its loss may be cut into microbatches.
    fn verified(&mut self, example: &B, microbatches: u32) -> Result<VerifiedModel> {
        let Self { model, loss, phases, seed, joint_loss, .. } = self;
        let verified = verified_model(model, loss, example, microbatches, *seed, phases)?;
        if microbatches > 1 && !*joint_loss && !verified.split.joint.graph.weighted {
            check_mean(model, loss, example)?;
        }
        Ok(verified)
    }

    /// What the blocks cost, and by what that was found.
    fn times(
        &mut self,
        model: &mut VerifiedModel,
        devices: &mut [Box<dyn EngineDevice>],
    ) -> Result<(BlockTimes, Balance)> {
        let budget = match (self.balance, &self.schedule) {
            (Some(Balance::Flops), _) => Duration::ZERO,
            (None, Schedule::Family(_) | Schedule::Fixed(_) | Schedule::Dynamic) => PROFILE_BUDGET,
            (Some(Balance::Measured), _) | (None, Schedule::Auto) => Duration::MAX,
        };
        if !budget.is_zero() {
            self.phases.begin(BuildPhase::Profile);
            let (activations, seed) = (self.activations, self.seed);
            let request = ProfileRequest { model, devices, activations, seed, budget };
            if let Some(times) = profile(request)? {
                return Ok((times, Balance::Measured));
            }
        }
        Ok((flops(&model.split, devices.len()), Balance::Flops))
    }

    fn try_build(mut self, example: &B) -> Result<Trainer<M, B>> {
        self.learning_rate.check(&self.model)?;
        let rule = self.rule()?;
        let microbatches = self.microbatch_count()?;
        let mut devices = chosen(self.devices.take())?;
        let shapes = checked_shapes(example)?;
        check_parameters(&self.model, &rule, &devices, self.memory_limit)?;
        let mut model = self.verified(example, microbatches)?;
        self.phases.begin(BuildPhase::Devices);
        devices.iter_mut().try_for_each(|device| device.open(self.activations))?;
        let (times, balance) = self.times(&mut model, &mut devices)?;
        let names: Vec<String> = devices.iter().map(|device| device.name().to_owned()).collect();
        let VerifiedModel { split, values, infers, runner, .. } = model;
        drop(runner);

        let request = ArrangeRequest {
            split: &split,
            times: &times,
            schedule: &self.schedule,
            chunks: self.chunks,
            microbatches,
            values: &values,
            seed: self.seed,
            rule: &rule,
            activations: self.activations,
            recompute: self.recompute,
            limits: &vec![self.memory_limit.unwrap_or(u64::MAX); devices.len()],
        };
        self.phases.begin(BuildPhase::Arrange);
        let arranged = arrange(&request, &devices)?;
        check_host(&arranged.prediction.memory, &devices)?;
        self.phases.begin(BuildPhase::Start);
        let Arranged { plan, stage_blocks, setups, costs, prediction, .. } = arranged;
        let placement = &plan.plan().placement;
        let stages = stages::describe(&split, &setups, &stage_blocks, placement, &names);
        let (model, placed) = handed_over(self.model, values, &setups);
        let engines = engines(&mut devices, arranged.engines, self.shadow)?;
        let rules = StepRules { clipping: rule.clipping, on_nan: self.on_nan };
        let (dispatch, channels) = (arranged.dispatch, &prediction.channels);
        let runtime = Runtime::start(plan.clone(), dispatch, channels, engines, rules)?;
        Ok(Trainer {
            model,
            placed,
            runtime,
            plan,
            costs,
            balance,
            links: times.links,
            prediction,
            communication: arranged.communication,
            searched: arranged.searched,
            split,
            infers,
            stages,
            devices: names,
            example: shapes,
            optimizer: self.optimizer,
            clip_norm: self.clip_norm,
            learning_rate: self.learning_rate,
            seed: self.seed,
            steps: 0,
            activations: self.activations,
            on_nan: self.on_nan,
            max_skips: self.max_skips,
            skips: 0,
            last_good: None,
            batch: PhantomData,
        })
    }
}

/// The module without what the devices take over, which then have the only `values`, and the
/// positions of that in the module.
fn handed_over<M: Module>(
    model: M,
    values: Vec<DispatchTensor>,
    setups: &[StageSetup],
) -> (M, HashSet<usize>) {
    let parameters = setups.iter().flat_map(|setup| &setup.program.parameters);
    let placed = parameters.map(|parameter| parameter.index()).collect();
    drop(values);
    (emptied(model, &placed), placed)
}

/// The devices that were given, or those of `auto`.
fn chosen(given: Option<Vec<Box<dyn EngineDevice>>>) -> Result<Vec<Box<dyn EngineDevice>>> {
    let devices = given.map_or_else(|| devices("auto"), Ok)?;
    if devices.is_empty() {
        return Err(Error::config("no devices").hint("one device or more"));
    }
    Ok(devices)
}

/// The engines of the devices, each with a shadow if that is asked for.
fn engines(
    devices: &mut [Box<dyn EngineDevice>],
    setups: Vec<EngineSetup>,
    shadow: bool,
) -> Result<Vec<Box<dyn Engine>>> {
    let engine = |(device, setup): (&mut Box<dyn EngineDevice>, EngineSetup)| match shadow {
        true => shadowed(device.engine(setup.clone())?, setup, device.name()),
        false => device.engine(setup),
    };
    devices.iter_mut().zip(setups).map(engine).collect()
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
