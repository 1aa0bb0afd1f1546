//! The plan of `auto`.

use std::ops::Range;

use super::{
    ArrangeRequest, Arranged, OpenedDevices, Recomputed, fitting, lay_out, partition, stages,
};
use crate::engine::StageSetup;
use crate::error::{Error, Result};
use crate::plan::{
    BestFamily, DeviceId, DeviceMemory, FAMILIES, Family, PerWork, Placement, SearchInput,
    StageCost, Work, check, generate, search,
};

/// What a search for a plan found.
#[derive(Debug, Clone, PartialEq)]
pub struct Searched {
    /// The fastest named family on the same devices, if one fits.
    pub best_family: Option<BestFamily>,
    /// How much longer a step of that family takes, as a fraction of the plan's. Not negative.
    pub gain: Option<f64>,
    /// Whether there is so much to plan that less was tried than of a smaller plan.
    pub cut_short: bool,
}

/// The plan of `auto`.
///
/// The search knows the stages' bytes, but not the buffers that a GPU makes for them. Where these
/// do not fit, it starts again with as many bytes less, and what it finds then has to be faster
/// than every family that fits.
pub(super) fn searched(
    request: &ArrangeRequest,
    devices: &OpenedDevices,
    recomputed: Recomputed,
) -> Result<Arranged> {
    if let Some(chunks) = request.chunks {
        return Err(Error::config(format!("{chunks} chunks per device, but auto chooses them"))
            .hint("auto without chunks, or a family"));
    }
    let first = found(request, devices, recomputed, request.limits)?;
    if fitting(request, &first).is_ok() {
        return Ok(first);
    }
    let mut limits = request.limits.to_vec();
    let mut last = Ok(first);
    for _ in 0..MORE_SEARCHES {
        let Ok(over) = &last else { break };
        if fitting(request, over).is_ok() {
            break;
        }
        reduce(&mut limits, &over.prediction.memory, request.limits);
        last = found(request, devices, recomputed, &limits);
    }
    let makespan = |of: &Arranged| of.prediction.bubble.makespan;
    let fits = last.as_ref().is_ok_and(|last| fitting(request, last).is_ok());
    match (last, best_family(request, devices, recomputed)) {
        (Ok(last), Some(family)) if fits && makespan(&last) <= makespan(&family) => {
            let gain = makespan(&family) / makespan(&last) - 1.0;
            let best_family = family.searched.and_then(|searched| searched.best_family);
            let cut_short = last.searched.as_ref().is_some_and(|searched| searched.cut_short);
            let searched = Searched { best_family, gain: Some(gain), cut_short };
            Ok(Arranged { searched: Some(searched), ..last })
        }
        (_, Some(family)) => Ok(family),
        (last, None) => last,
    }
}

/// How often a search starts again with less memory.
const MORE_SEARCHES: u32 = 5;

/// What the search finds within limits of the stages' own bytes.
fn found(
    request: &ArrangeRequest,
    devices: &OpenedDevices,
    recomputed: Recomputed,
    limits: &[u64],
) -> Result<Arranged> {
    let found = search(&search_input(request, limits, recomputed), &|placement, stage_blocks| {
        let ArrangeRequest { split, rule, .. } = *request;
        let setups =
            stages::setups(split, stage_blocks, placement, rule, &recomputed(stage_blocks.len()));
        Ok(stages::costs(split, &setups, placement, request.times))
    })?;
    let searched =
        Searched { gain: found.gain(), best_family: found.best_family, cut_short: found.cut_short };
    let stages = recomputed(found.stage_blocks.len());
    let arranged = lay_out(request, found.plan, found.stage_blocks, devices, &stages)?;
    Ok(Arranged { searched: Some(searched), ..arranged })
}

/// Takes off every limit by how much a device is above its own.
fn reduce(limits: &mut [u64], memory: &[DeviceMemory], own: &[u64]) {
    for ((limit, memory), own) in limits.iter_mut().zip(memory).zip(own) {
        *limit = limit.saturating_sub(memory.peak_bytes().saturating_sub(*own));
    }
}

/// The fastest family that fits with all buffers.
fn best_family(
    request: &ArrangeRequest,
    devices: &OpenedDevices,
    recomputed: Recomputed,
) -> Option<Arranged> {
    let arranged = |family: &&Family| {
        let plan = generate(family, devices.len() as u32, None, request.microbatches).ok()?;
        if plan.is_forward_only() {
            return None;
        }
        let stage_blocks = partition(request, &plan.placement).ok()?;
        let stages = recomputed(stage_blocks.len());
        let arranged = lay_out(request, check(plan).ok()?, stage_blocks, devices, &stages).ok()?;
        fitting(request, &arranged).ok()?;
        let makespan = arranged.prediction.bubble.makespan;
        let best_family = Some(BestFamily { name: family.name.to_owned(), makespan });
        let searched = Searched { best_family, gain: Some(0.0), cut_short: false };
        Some(Arranged { searched: Some(searched), ..arranged })
    };
    let makespan = |of: &Arranged| of.prediction.bubble.makespan;
    let all = FAMILIES.iter().filter_map(arranged);
    all.min_by(|a, b| makespan(a).total_cmp(&makespan(b)))
}

fn search_input(request: &ArrangeRequest, limits: &[u64], recomputed: Recomputed) -> SearchInput {
    let ArrangeRequest { split, times, .. } = *request;
    let placement = Placement { stages: vec![DeviceId(0); split.blocks.len()] };
    let stage_blocks: Vec<Range<usize>> =
        (0..split.blocks.len()).map(|block| block..block + 1).collect();
    let setups = stages::setups(
        split,
        &stage_blocks,
        &placement,
        request.rule,
        &recomputed(stage_blocks.len()),
    );
    let on_first = stages::costs(split, &setups, &placement, times);
    let on = |times: &[PerWork<f64>]| -> Vec<StageCost> {
        let blocks = setups.iter().zip(&on_first.stages).zip(times);
        let block = |((setup, cost), block): ((&StageSetup, &StageCost), &PerWork<f64>)| {
            let mut time = *block;
            time[Work::B] += stages::recompute_time(split, setup, std::slice::from_ref(block));
            StageCost { time, ..*cost }
        };
        blocks.map(block).collect()
    };
    let limited = limits.iter().any(|&limit| limit != u64::MAX);
    SearchInput {
        blocks: times.devices.iter().map(|times| on(times)).collect(),
        crossings: on_first.boundaries,
        transfers: times.transfers.clone(),
        marks: split.marks.clone(),
        microbatches: request.microbatches,
        memory_limits: if limited { limits.to_vec() } else { Vec::new() },
    }
}
