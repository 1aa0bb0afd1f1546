//! A model that is proved, on devices that are open: what a trainer is made of by any plan.

use std::collections::HashSet;
use std::marker::PhantomData;
use std::sync::Arc;

use burn::module::Module;
use burn_dispatch::DispatchTensor;

use super::arrange::{ArrangeRequest, Arranged, arrange};
use super::links::MeasuredLink;
use super::profile::{Balance, BlockTimes};
use super::required::check_host;
use super::run_settings::RunSettings;
use super::stages;
use super::trainer::Trainer;
use super::variant::Variant;
use crate::capture::emptied;
use crate::engine::{Engine, EngineDevice, EngineSetup, StageSetup, UpdateRule, shadowed};
use crate::error::Result;
use crate::runtime::{Runtime, StepRules};
use crate::split::Split;

/// A model with its initial values, and the devices for it.
#[derive(Debug)]
pub(super) struct Prepared<M> {
    pub model: M,
    /// Initial values of all parameters.
    pub values: Vec<DispatchTensor>,
    /// Whether the captured model does in an evaluation what the module does in inference.
    pub infers: bool,
    pub devices: Vec<Box<dyn EngineDevice>>,
    /// Shapes of the example.
    pub example: Vec<Vec<usize>>,
    pub settings: RunSettings,
    pub rule: UpdateRule,
}

/// A plan for a model, and what is known of it before it runs.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    /// For steps of as many microbatches.
    pub split: Arc<Split>,
    pub balance: Balance,
    /// What was measured between the devices.
    pub links: Vec<MeasuredLink>,
    pub arranged: Arranged,
}

impl<M: Module> Prepared<M> {
    /// The plan of `variant`, by what blocks cost.
    pub fn planned(
        &self,
        variant: &Variant,
        split: &Arc<Split>,
        times: &BlockTimes,
    ) -> Result<Planned> {
        let settings = &self.settings;
        let request = ArrangeRequest {
            split,
            times,
            schedule: &variant.schedule,
            chunks: variant.chunks,
            microbatches: variant.microbatch_count()?,
            values: &self.values,
            seed: settings.seed,
            rule: &self.rule,
            activations: settings.activations,
            recompute: variant.recompute,
            limits: &vec![settings.memory_limit.unwrap_or(u64::MAX); self.devices.len()],
        };
        let arranged = arrange(&request, &self.devices)?;
        check_host(&arranged.prediction.memory, &self.devices)?;
        Ok(Planned {
            split: split.clone(),
            balance: times.balance,
            links: times.links.clone(),
            arranged,
        })
    }

    /// Starts the devices on a plan. They take over the weights, so that no model is in memory
    /// twice.
    pub fn into_trainer<B>(self, planned: Planned) -> Result<Trainer<M, B>> {
        let Self { model, values, infers, mut devices, example, settings, rule } = self;
        let started = Started { model, values, infers, example, settings: &settings, rule };
        started.trainer(&mut devices, planned)
    }

    /// Starts the devices on a plan, and keeps the weights for the next one.
    pub fn trainer<B>(&mut self, planned: Planned) -> Result<Trainer<M, B>> {
        let started = Started {
            model: self.model.clone(),
            values: self.values.clone(),
            infers: self.infers,
            example: self.example.clone(),
            settings: &self.settings,
            rule: self.rule,
        };
        started.trainer(&mut self.devices, planned)
    }
}

/// What becomes a trainer.
struct Started<'a, M> {
    model: M,
    values: Vec<DispatchTensor>,
    infers: bool,
    example: Vec<Vec<usize>>,
    settings: &'a RunSettings,
    rule: UpdateRule,
}

impl<M: Module> Started<'_, M> {
    fn trainer<B>(
        self,
        devices: &mut [Box<dyn EngineDevice>],
        planned: Planned,
    ) -> Result<Trainer<M, B>> {
        let Self { model, values, infers, example, settings, rule } = self;
        let Planned { split, balance, links, arranged } = planned;
        let Arranged { plan, stage_blocks, setups, costs, prediction, .. } = arranged;
        let names: Vec<String> = devices.iter().map(|device| device.name().to_owned()).collect();
        let placement = &plan.plan().placement;
        let stages = stages::describe(&split, &setups, &stage_blocks, placement, &names);
        let (model, placed) = handed_over(model, values, &setups);
        let engines = engines(devices, arranged.engines, settings.shadow)?;
        let rules = StepRules { clipping: rule.clipping, on_nan: settings.on_nan };
        let (dispatch, channels) = (arranged.dispatch, &prediction.channels);
        let runtime = Runtime::start(plan.clone(), dispatch, channels, engines, rules)?;
        Ok(Trainer {
            model,
            placed,
            runtime,
            plan,
            costs,
            balance,
            links,
            prediction,
            communication: arranged.communication,
            searched: arranged.searched,
            split,
            infers,
            stages,
            devices: names,
            example,
            optimizer: settings.optimizer,
            clip_norm: settings.clip_norm,
            learning_rate: settings.learning_rate.clone(),
            seed: settings.seed,
            steps: 0,
            activations: settings.activations,
            on_nan: settings.on_nan,
            max_skips: settings.max_skips,
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
