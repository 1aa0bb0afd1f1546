//! A split model, its devices and a schedule's name -> a plan that was proved, and what every
//! device will hold.

use std::ops::Range;

use super::engines::{self, Opened};
use super::measure::BlockTimes;
use super::stages;
use crate::engine::wgpu::Layout;
use crate::engine::{Precision, StageSetup, UpdateRule};
use crate::error::{Error, Result};
use crate::plan::{
    BestFamily, BlockCost, CheckedPlan, Communication, DeviceId, DeviceMemory, Limits,
    PlaceOptions, Placement, Plan, Schedule, SearchInput, Simulation, StageCost, ZB_H1, ZB_V,
    check, communication, dynamic, fit, generate, place, progress, search, simulate,
    simulate_dynamic,
};
use crate::runtime::Dispatch;
use crate::split::Split;

/// What is to be arranged.
pub(super) struct Request<'a> {
    pub split: &'a Split,
    pub times: &'a BlockTimes,
    pub schedule: &'a Schedule,
    /// Stages of every device, where the schedule leaves a choice.
    pub chunks: Option<u32>,
    pub microbatches: u32,
    pub rule: &'a UpdateRule,
    pub activations: Precision,
    /// Bytes that every device may hold; the index is the device.
    pub limits: &'a [u64],
}

/// A plan with everything that was decided and predicted of it.
pub(super) struct Arranged {
    pub plan: CheckedPlan,
    /// The blocks of every stage.
    pub cuts: Vec<Range<usize>>,
    pub setups: Vec<StageSetup>,
    /// The buffers of every device that makes them beforehand.
    pub layouts: Vec<Option<Layout>>,
    pub prediction: Simulation,
    /// What decides the order while a step runs.
    pub dispatch: Dispatch,
    /// What a step moves between the devices.
    pub communication: Communication,
    /// What the search of `auto` found.
    pub searched: Option<Searched>,
}

/// What a search for a plan found.
#[derive(Debug, Clone, PartialEq)]
pub struct Searched {
    /// The fastest named family on the same devices, if one fits.
    pub best_family: Option<BestFamily>,
    /// How much longer a step of that family takes, as a fraction of the plan's. Not negative.
    pub gain: Option<f64>,
}

/// Finds the plan for `devices` and proves that it ends and fits.
pub(super) fn arrange(request: &Request, devices: &[Opened]) -> Result<Arranged> {
    let arranged = match request.schedule {
        Schedule::Auto => searched(request, devices)?,
        _ => {
            let plan = proposal(request, devices.len() as u32)?;
            let cuts = cut(request, &plan.placement)?;
            lay_out(request, check(plan)?, cuts, devices)?
        }
    };
    fit(&arranged.prediction.memory, request.limits)?;
    progress(&arranged.plan, &arranged.prediction.channels)?;
    Ok(arranged)
}

/// What the schedule's name stands for.
fn proposal(request: &Request, devices: u32) -> Result<Plan> {
    let plan = match request.schedule {
        Schedule::Family(family) => {
            generate(family, devices, request.chunks, request.microbatches)?
        }
        Schedule::Fixed(plan) => Plan::clone(plan),
        // The base: dynamic follows it where nothing is late.
        Schedule::Dynamic => {
            let base = if request.chunks == Some(2) { &ZB_V } else { &ZB_H1 };
            generate(base, devices, request.chunks, request.microbatches)?
        }
        Schedule::Auto => unreachable!("auto is searched for"),
    };
    if plan.is_forward_only() {
        return Err(Error::config(format!("{} has no backward work to train by", plan.schedule))
            .hint(format!("--schedule {ZB_H1}")));
    }
    let lanes = plan.lanes.len();
    if lanes != devices as usize {
        return Err(Error::config(format!("the plan is for {lanes} devices, there are {devices}"))
            .hint(format!("{lanes} devices, such as --devices cpux{lanes}")));
    }
    Ok(plan)
}

/// The plan of `auto`.
///
/// The search knows the stages' bytes, but not the buffers that a GPU makes for them. Where these
/// do not fit, it starts again with as many bytes less.
fn searched(request: &Request, devices: &[Opened]) -> Result<Arranged> {
    if let Some(chunks) = request.chunks {
        return Err(Error::config(format!("{chunks} chunks per device, but auto chooses them"))
            .hint("auto without chunks, or a family"));
    }
    let mut limits = request.limits.to_vec();
    for attempt in 1.. {
        let found = search(&search_input(request, &limits), &|placement, cuts| {
            let setups = stages::setups(request.split, cuts, placement, request.rule);
            Ok(stages::costs(request.split, &setups, placement, request.times))
        })?;
        let searched = Searched { gain: found.gain(), best_family: found.best_family };
        let mut arranged = lay_out(request, found.plan, found.cuts, devices)?;
        let memory = &arranged.prediction.memory;
        let over = |(memory, limit): (&DeviceMemory, &u64)| memory.peak_bytes() > *limit;
        if attempt == MOST_SEARCHES || !memory.iter().zip(request.limits).any(over) {
            arranged.searched = Some(searched);
            return Ok(arranged);
        }
        for (device, memory) in memory.iter().enumerate() {
            let excess = memory.peak_bytes().saturating_sub(request.limits[device]);
            limits[device] = limits[device].saturating_sub(excess);
        }
    }
    unreachable!("the last attempt returns")
}

/// How often a search starts again with less memory.
const MOST_SEARCHES: u32 = 6;

fn search_input(request: &Request, limits: &[u64]) -> SearchInput {
    let Request { split, times, .. } = *request;
    let placement = Placement { stages: vec![DeviceId(0); split.blocks.len()] };
    let cuts: Vec<Range<usize>> = (0..split.blocks.len()).map(|block| block..block + 1).collect();
    let setups = stages::setups(split, &cuts, &placement, request.rule);
    let on_first = stages::costs(split, &setups, &placement, times);
    let block = |(cost, &[forward, backward_input, backward_weight]): (&StageCost, &[f64; 3])| {
        StageCost { forward, backward_input, backward_weight, ..*cost }
    };
    let limited = limits.iter().any(|&limit| limit != u64::MAX);
    SearchInput {
        blocks: times
            .devices
            .iter()
            .map(|blocks| on_first.stages.iter().zip(blocks).map(block).collect())
            .collect(),
        crossings: on_first.boundaries,
        marks: split.marks.clone(),
        microbatches: request.microbatches,
        memory_limits: if limited { limits.to_vec() } else { Vec::new() },
    }
}

/// Blocks of every stage: the cut whose slowest stage is fastest.
fn cut(request: &Request, placement: &Placement) -> Result<Vec<Range<usize>>> {
    let least = stages::least_bytes(request.split, request.rule);
    // Devices that are twice as fast are so with every block, nearly.
    let reference = &request.times.devices[0];
    let costs = reference.iter().zip(&least);
    let blocks: Vec<BlockCost> = costs
        .map(|(&[forward, backward_input, backward_weight], &bytes)| BlockCost {
            forward,
            backward_input,
            backward_weight,
            bytes,
        })
        .collect();
    let total = |blocks: &[[f64; 3]]| blocks.iter().flatten().sum::<f64>();
    let speed = |device: &DeviceId| {
        let other = total(&request.times.devices[device.index()]);
        if other > 0.0 { total(reference) / other } else { 1.0 }
    };
    let speeds: Vec<f64> = placement.stages.iter().map(speed).collect();
    let crossings = request.split.crossing_bytes();
    let cut = |share: &dyn Fn(DeviceId) -> u64| {
        let limited = request.limits.iter().any(|&limit| limit != u64::MAX);
        let options = PlaceOptions {
            marks: request.split.marks.clone(),
            memory_limits: placement
                .stages
                .iter()
                .filter(|_| limited)
                .map(|device| share(*device))
                .collect(),
        };
        place(&blocks, &crossings, &speeds, &options).map(|cut| cut.stages)
    };
    // A device's chunks share its memory; whether they fit together is known exactly later.
    let chunks = |device| placement.stages_of(device).count() as u64;
    let limit = |device: DeviceId| request.limits[device.index()];
    cut(&|device| limit(device) / chunks(device)).or_else(|_| cut(&limit))
}

/// Compiles the stages and plays the plan on paper.
fn lay_out(
    request: &Request,
    plan: CheckedPlan,
    cuts: Vec<Range<usize>>,
    devices: &[Opened],
) -> Result<Arranged> {
    let Request { split, times, rule, activations, .. } = *request;
    let setups = stages::setups(split, &cuts, &plan.plan().placement, rule);
    let (placement, open) = (&plan.plan().placement, Limits::of(&plan));
    let layouts = engines::layouts(devices, &setups, placement, &open, split, rule, activations);
    let mut costs = stages::costs(split, &setups, &plan.plan().placement, times);
    costs.buffers = layouts.iter().map(|layout| layout.as_ref().map(Layout::bytes)).collect();
    let (plan, dispatch, prediction) = match request.schedule {
        Schedule::Dynamic => {
            let planned = dynamic(&plan, &costs)?;
            let prediction = simulate_dynamic(&planned, &open, &costs)?;
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
        cuts,
        setups,
        layouts,
        prediction,
        dispatch,
        communication,
        searched: None,
    })
}
