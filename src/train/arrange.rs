//! A split model, its devices and a schedule's name -> a plan that was proved, and what every
//! device will hold.

mod searched;

use std::ops::Range;
use std::sync::Arc;

use burn_dispatch::DispatchTensor;
pub use searched::Searched;

use self::searched::searched;
use super::profile::BlockTimes;
use super::recompute::{Recompute, RecomputeCandidate, least};
use super::stages;
use crate::engine::{EngineDevice, EngineSetup, Precision, StageSetup, UpdateRule, values_of};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{
    BlockCost, CheckedPlan, Communication, Costs, DeviceId, DeviceMemory, PerWork, PlaceOptions,
    Placement, Plan, Schedule, Simulation, StageId, StashLimits, Work, ZB_H1, check, communication,
    dynamic, dynamic_base, fit, generate, place, progress, simulate, simulate_dynamic,
};
use crate::runtime::Dispatch;
use crate::split::Split;

/// What is to be arranged.
pub(super) struct ArrangeRequest<'a> {
    pub split: &'a Arc<Split>,
    pub times: &'a BlockTimes,
    pub schedule: &'a Schedule,
    /// Stages of every device, where the schedule leaves a choice.
    pub chunks: Option<u32>,
    pub microbatches: u32,
    /// Initial values of all parameters.
    pub values: &'a [DispatchTensor],
    /// Of random numbers.
    pub seed: u64,
    pub rule: &'a UpdateRule,
    pub activations: Precision,
    pub recompute: Recompute,
    /// Bytes that every device may hold; the index is the device.
    pub limits: &'a [u64],
}

/// The devices of a run, opened.
pub(super) type OpenedDevices = [Box<dyn EngineDevice>];

/// A plan with everything that was decided and predicted of it.
#[derive(Debug, Clone)]
pub(super) struct Arranged {
    pub plan: CheckedPlan,
    /// The blocks of every stage.
    pub stage_blocks: Vec<Range<usize>>,
    pub setups: Vec<StageSetup>,
    /// What the engine of every device is made from.
    pub engines: Vec<EngineSetup>,
    /// What the prediction was made of.
    pub costs: Costs,
    pub prediction: Simulation,
    /// What decides the order while a step runs.
    pub dispatch: Dispatch,
    /// What a step moves between the devices.
    pub communication: Communication,
    /// What the search of `auto` found.
    pub searched: Option<Searched>,
}

/// Finds the plan for `devices` and proves that it ends and fits.
pub(super) fn arrange(request: &ArrangeRequest, devices: &OpenedDevices) -> Result<Arranged> {
    let recomputed = if request.recompute == Recompute::Stage { everywhere } else { nowhere };
    let first = planned(request, devices, recomputed);
    let fits = first.as_ref().map_err(Error::clone).and_then(|of| fitting(request, of));
    let arranged = match (fits, request.recompute) {
        (Ok(()), _) => first?,
        (Err(_), Recompute::Auto) => where_needed(request, devices, first)?,
        (Err(error), Recompute::None)
            if error.kind == ErrorKind::Plan && where_needed(request, devices, first).is_ok() =>
        {
            let hint = format!("`recompute(auto)`, {}", error.hint);
            return Err(error.hint(hint));
        }
        (Err(error), _) => return Err(error),
    };
    progress(&arranged.plan, &arranged.prediction.channels)?;
    Ok(arranged)
}

/// Which of so many stages recompute F.
type Recomputed = fn(usize) -> Vec<StageId>;

fn nowhere(_: usize) -> Vec<StageId> {
    Vec::new()
}

fn everywhere(stages: usize) -> Vec<StageId> {
    (0..stages as u32).map(StageId).collect()
}

fn planned(
    request: &ArrangeRequest,
    devices: &OpenedDevices,
    recomputed: Recomputed,
) -> Result<Arranged> {
    if *request.schedule == Schedule::Auto {
        return searched(request, devices, recomputed);
    }
    let plan = proposal(request, devices.len() as u32)?;
    let stage_blocks = partition(request, &plan.placement)?;
    let recomputed = recomputed(stage_blocks.len());
    lay_out(request, check(plan)?, stage_blocks, devices, &recomputed)
}

fn fitting(request: &ArrangeRequest, arranged: &Arranged) -> Result<()> {
    Ok(fit(&arranged.prediction.memory, request.limits)?)
}

/// A plan with as little recomputation as makes it fit, where `plain`, which has none, does not.
fn where_needed(
    request: &ArrangeRequest,
    devices: &OpenedDevices,
    plain: Result<Arranged>,
) -> Result<Arranged> {
    // A search also finds plans that fit with recomputation only.
    let is_searched = *request.schedule == Schedule::Auto;
    let found = if is_searched { planned(request, devices, everywhere) } else { plain }?;
    let base = match &found.dispatch {
        Dispatch::Planned => &found.plan,
        Dispatch::Dynamic(base) => base,
    };
    let lay_out = |recomputed: &[StageId]| {
        lay_out(request, base.clone(), found.stage_blocks.clone(), devices, recomputed)
    };
    let candidates = candidates(request, &base.plan().placement, &found.stage_blocks);
    let recomputed = least(candidates, request.limits, |recomputed| {
        let memory = lay_out(recomputed)?.prediction.memory;
        Ok(memory.iter().map(DeviceMemory::peak_bytes).collect())
    })?;
    let arranged = Arranged { searched: found.searched.clone(), ..lay_out(&recomputed)? };
    fitting(request, &arranged).map(|()| arranged)
}

/// The stages of every device that have something to recompute.
fn candidates(
    request: &ArrangeRequest,
    placement: &Placement,
    stage_blocks: &[Range<usize>],
) -> Vec<Vec<RecomputeCandidate>> {
    let ArrangeRequest { split, times, rule, .. } = *request;
    let setups =
        stages::setups(split, stage_blocks, placement, rule, &everywhere(stage_blocks.len()));
    let mut candidates = vec![Vec::new(); placement.device_count()];
    for setup in setups.iter().filter(|setup| !setup.program.recomputed.is_empty()) {
        let device = placement.device(setup.stage).index();
        let blocks = &times.devices[device][setup.blocks.clone()];
        let time = stages::recompute_time(split, setup, blocks);
        candidates[device].push(RecomputeCandidate { stage: setup.stage, time });
    }
    candidates
}

/// What the schedule's name stands for.
fn proposal(request: &ArrangeRequest, devices: u32) -> Result<Plan> {
    let plan = match request.schedule {
        Schedule::Family(family) => {
            generate(family, devices, request.chunks, request.microbatches)?
        }
        Schedule::Fixed(plan) => Plan::clone(plan),
        // The base: dynamic follows it where nothing is late.
        Schedule::Dynamic => {
            let base = dynamic_base(request.chunks)?;
            generate(base, devices, request.chunks, request.microbatches)?
        }
        Schedule::Auto => unreachable!("auto is searched for"),
    };
    if plan.is_forward_only() {
        return Err(Error::config(format!("{} has no backward work to train by", plan.schedule))
            .hint(format!("`schedule({ZB_H1})`")));
    }
    let lanes = plan.lanes.len();
    if lanes != devices as usize {
        return Err(Error::config(format!("the plan is for {lanes} devices, there are {devices}"))
            .hint(format!("{lanes} devices, such as `devices(cpux{lanes})`")));
    }
    Ok(plan)
}

/// Refuses more stages than there are blocks, and names what was not cut.
fn check_blocks(split: &Split, stages: usize) -> Result<()> {
    let blocks = split.blocks.len();
    if blocks >= stages || !split.marks.is_empty() {
        return Ok(());
    }
    let work = |block: &usize| split.blocks[*block].flops.0.iter().sum::<f64>();
    let largest = (0..blocks).max_by(|a, b| work(a).total_cmp(&work(b)));
    let modules = largest.map_or_else(String::new, |block| split.modules(block));
    Err(Error::config(format!("{blocks} blocks cannot fill {stages} stages")).hint(format!(
        "between 1 and {blocks} stages, or a model of more blocks; {modules} is one, as between \
         its products no fewer values cross than at its ends: `nn::boundary` cuts where it stands"
    )))
}

/// Blocks of every stage: the partition whose slowest stage is fastest.
fn partition(request: &ArrangeRequest, placement: &Placement) -> Result<Vec<Range<usize>>> {
    check_blocks(request.split, placement.stages.len())?;
    let least_bytes = stages::least_bytes(request.split, request.rule);
    // Devices that are twice as fast are so with every block, nearly.
    let reference = &request.times.devices[0];
    // What of F is not recomputed depends on where a stage ends, and is little.
    let share = if request.recompute == Recompute::Stage { 1.0 } else { 0.0 };
    let costs = reference.iter().zip(&least_bytes);
    let blocks: Vec<BlockCost> = costs
        .map(|(&time, &bytes)| {
            let mut time = time;
            time[Work::B] += share * time[Work::F];
            BlockCost { time, bytes }
        })
        .collect();
    let total = |blocks: &[PerWork<f64>]| blocks.iter().flat_map(|time| time.0).sum::<f64>();
    let speed = |device: &DeviceId| {
        let other = total(&request.times.devices[device.index()]);
        if other > 0.0 { total(reference) / other } else { 1.0 }
    };
    let speeds: Vec<f64> = placement.stages.iter().map(speed).collect();
    let crossings = request.split.crossing_bytes();
    let partition = |share: &dyn Fn(DeviceId) -> u64| {
        let limited = request.limits.iter().any(|&limit| limit != u64::MAX);
        let options = PlaceOptions {
            marks: request.split.marks.clone(),
            memory_limits: placement
                .stages
                .iter()
                .filter(|_| limited)
                .map(|device| share(*device))
                .collect(),
            byte_costs: request.times.transfers.byte_costs(placement),
        };
        place(&blocks, &crossings, &speeds, &options).map(|partition| partition.stage_blocks)
    };
    // A device's chunks share its memory; whether they fit together is known exactly later.
    let chunks = |device| placement.stages_of(device).count() as u64;
    let limit = |device: DeviceId| request.limits[device.index()];
    Ok(partition(&|device| limit(device) / chunks(device)).or_else(|_| partition(&limit))?)
}

/// Compiles the stages and plays the plan on paper.
fn lay_out(
    request: &ArrangeRequest,
    plan: CheckedPlan,
    stage_blocks: Vec<Range<usize>>,
    devices: &OpenedDevices,
    recomputed: &[StageId],
) -> Result<Arranged> {
    let ArrangeRequest { split, times, rule, .. } = *request;
    let setups = stages::setups(split, &stage_blocks, &plan.plan().placement, rule, recomputed);
    let (placement, mut stash) = (&plan.plan().placement, StashLimits::of(&plan));
    if *request.schedule == Schedule::Dynamic {
        // Its W may come as late as the stash allows.
        stash.backward.clone_from(&stash.segments);
    }
    let engines = engines(request, &setups, placement, &stash);
    let mut costs = stages::costs(split, &setups, &plan.plan().placement, times);
    let buffers = devices.iter().zip(&engines).map(|(device, setup)| device.buffers(setup));
    costs.buffers = buffers.collect();
    let (plan, dispatch, prediction) = match request.schedule {
        Schedule::Dynamic => {
            let planned = dynamic(&plan, &costs)?;
            let prediction = simulate_dynamic(&planned, &stash, &costs)?;
            (planned, Dispatch::Dynamic(Box::new(plan)), prediction)
        }
        _ => {
            let prediction = simulate(&plan, &costs)?;
            (plan, Dispatch::Planned, prediction)
        }
    };
    let (parameters, shared) = stages::parameter_bytes(split, &setups, &plan.plan().placement);
    let communication = communication(plan.plan(), &costs, parameters, shared);
    Ok(Arranged {
        plan,
        stage_blocks,
        setups,
        engines,
        costs,
        prediction,
        dispatch,
        communication,
        searched: None,
    })
}

/// What the engine of every device is made from, for as many microbatches at once as `limits` say.
fn engines(
    request: &ArrangeRequest,
    setups: &[StageSetup],
    placement: &Placement,
    limits: &StashLimits,
) -> Vec<EngineSetup> {
    let setup = |device: DeviceId| {
        let on_device = |of: &&StageSetup| placement.device(of.stage) == device;
        let stages: Vec<StageSetup> = setups.iter().filter(on_device).cloned().collect();
        EngineSetup {
            split: request.split.clone(),
            values: values_of(&stages, request.values),
            stages,
            limits: limits.clone(),
            activations: request.activations,
            microbatches: request.microbatches,
            seed: request.seed,
            rule: *request.rule,
        }
    };
    (0..placement.device_count() as u32).map(DeviceId).map(setup).collect()
}
