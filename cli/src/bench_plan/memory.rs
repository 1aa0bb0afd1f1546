//! What memory is worth: the step bubble of `auto` and of every family that fits, for limits from a
//! third of what `1f1b` stashes to twice that.

use std::fmt;

use serde::Serialize;
use zerobubble::error::Result;
use zerobubble::plan::{
    BoundaryCost, PerWork, Placement, SearchInput, StageBytes, StageCost, TransferCost, Transfers,
    check, outlines, search, simulate, sum_of_blocks,
};

/// Costs of one device's even share of a model of equal blocks.
struct Case {
    times: [f64; 3],
    transfer: f64,
    devices: u32,
    microbatches: u32,
}

const CASES: [Case; 4] = [
    Case { times: [9918.0, 10434.0, 7038.0], transfer: 213.0, devices: 8, microbatches: 24 },
    Case { times: [28814.0, 28760.0, 19352.0], transfer: 1610.0, devices: 16, microbatches: 48 },
    Case { times: [1.0, 1.0, 1.0], transfer: 0.0, devices: 8, microbatches: 32 },
    Case { times: [2.0, 2.4, 1.6], transfer: 0.0, devices: 4, microbatches: 12 },
];
/// In sixths of the devices, rounded up to whole microbatches.
const SIXTHS: [u32; 7] = [2, 3, 4, 6, 8, 10, 12];
const BLOCKS_PER_DEVICE: u32 = 12;
const BLOCK_STASH: u64 = 1 << 20;

/// All cases.
#[derive(Debug, Serialize)]
pub struct Table {
    curves: Vec<Curve>,
}

/// One case under every limit.
#[derive(Debug, Serialize)]
struct Curve {
    times: [f64; 3],
    transfer: f64,
    devices: u32,
    microbatches: u32,
    points: Vec<Point>,
}

/// One limit.
#[derive(Debug, Serialize)]
struct Point {
    /// Microbatches that every device may stash.
    limit: u32,
    /// The step bubble of `auto`; nothing if it finds no plan.
    auto: Option<f64>,
    /// Makespan over the lower bound within the limit.
    to_bound: Option<f64>,
    /// The families that fit, each with its best number of chunks, by their step bubble.
    families: Vec<(String, f64)>,
}

/// Searches a plan for every case under every limit.
pub fn table() -> Result<Table> {
    Ok(Table { curves: CASES.iter().map(curve).collect::<Result<_>>()? })
}

fn curve(case: &Case) -> Result<Curve> {
    let &Case { times, transfer, devices, microbatches } = case;
    let mut limits = SIXTHS.map(|sixths| (sixths * devices).div_ceil(6)).to_vec();
    limits.dedup();
    let families = families(&input(case, None))?;
    let points = limits.into_iter().map(|limit| point(case, limit, &families));
    let points = points.collect::<Result<_>>()?;
    Ok(Curve { times, transfer, devices, microbatches, points })
}

/// A family's plan.
struct Made {
    name: String,
    bubble: f64,
    /// Of its hungriest device, in microbatches.
    peak: f64,
}

/// Every family, with every number of chunks that divides the blocks.
fn families(input: &SearchInput) -> Result<Vec<Made>> {
    let devices = input.blocks.len() as u32;
    let (outlines, _) = outlines(devices, input.microbatches, BLOCKS_PER_DEVICE);
    let mut made = Vec::new();
    for outline in outlines {
        let stages = outline.placement.stage_count();
        let blocks = input.crossings.len() + 1;
        if !blocks.is_multiple_of(stages) {
            continue;
        }
        let blocks = blocks / stages;
        let cuts: Vec<_> = (0..stages).map(|s| s * blocks..(s + 1) * blocks).collect();
        let costs = sum_of_blocks(input, &outline.placement, &cuts)?;
        let simulation = simulate(&check(outline.plan()?)?, &costs)?;
        let peaks = simulation.memory.iter().map(|device| device.peak_stash);
        let (name, peak) = (outline.family.name.to_owned(), peaks.fold(0.0, f64::max));
        made.push(Made { name, bubble: simulation.bubble.step, peak });
    }
    made.sort_by(|a, b| a.bubble.total_cmp(&b.bubble));
    Ok(made)
}

fn point(case: &Case, limit: u32, made: &[Made]) -> Result<Point> {
    let input = input(case, Some(limit));
    let cost_model = |placement: &Placement, stage_blocks: &[std::ops::Range<usize>]| {
        sum_of_blocks(&input, placement, stage_blocks)
    };
    let found = search(&input, &cost_model).ok();
    let mut families: Vec<(String, f64)> = Vec::new();
    for Made { name, bubble, .. } in made.iter().filter(|made| made.peak <= f64::from(limit)) {
        if families.iter().all(|(other, _)| other != name) {
            families.push((name.clone(), *bubble));
        }
    }
    Ok(Point {
        limit,
        auto: found.as_ref().map(|found| found.simulation.bubble.step),
        to_bound: found.map(|found| found.simulation.bubble.makespan / found.lower_bound),
        families,
    })
}

fn input(case: &Case, limit: Option<u32>) -> SearchInput {
    let parts = f64::from(BLOCKS_PER_DEVICE);
    let bytes = StageBytes { forward_for_w: BLOCK_STASH, ..StageBytes::default() };
    let block = StageCost { time: PerWork(case.times).map(|time| time / parts), bytes };
    let (devices, blocks) = (case.devices as usize, (case.devices * BLOCKS_PER_DEVICE) as usize);
    let one = u64::from(BLOCKS_PER_DEVICE) * BLOCK_STASH;
    SearchInput {
        blocks: vec![vec![block; blocks]; devices],
        crossings: vec![BoundaryCost::default(); blocks - 1],
        transfers: Transfers::uniform(TransferCost::of_any_size(case.transfer)),
        marks: Vec::new(),
        microbatches: case.microbatches,
        memory_limits: limit.map_or(Vec::new(), |limit| vec![u64::from(limit) * one; devices]),
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "step bubble by the microbatches that every device may stash")?;
        for Curve { times: [a, b, c], transfer, devices, microbatches, points } in &self.curves {
            writeln!(
                f,
                "F,B,W {a},{b},{c}, transfer {transfer}, {devices} devices, {microbatches} \
                 microbatches"
            )?;
            for Point { limit, auto, to_bound, families } in points {
                let percent = |bubble: &f64| format!("{:.1}%", 100.0 * bubble);
                let auto = auto.as_ref().map_or("none".to_owned(), percent);
                let to_bound = to_bound.map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
                let families = families.iter().map(|(name, of)| format!("{name} {}", percent(of)));
                let families = families.collect::<Vec<_>>().join(", ");
                writeln!(f, "{limit:>6} {auto:>7} {to_bound:>6} to bound; {families}")?;
            }
        }
        Ok(())
    }
}
