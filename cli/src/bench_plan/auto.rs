//! How good the plans of `auto` are: on drawn cases, against the lower bound and the families.
//!
//! A case has p devices, p to 4p microbatches and 4 to 8 blocks per device. F, B and W of a block
//! take 1, each times a factor of its own in 0.7 to 1.4; its bytes vary likewise. A device is 0.5
//! to 2 times as fast. All devices have the same memory: a multiple of what 1F1B needs on its
//! hungriest device, on the partition that `place` gives it.

use std::fmt;
use std::time::Instant;

use serde::Serialize;
use zerobubble::error::Result;
use zerobubble::plan::{
    BlockCost, BoundaryCost, Costs, ONE_F_ONE_B, PerWork, PlaceOptions, Placement, SearchInput,
    SearchOutput, StageBytes, StageCost, TransferCost, Transfers, check, generate, place, search,
    simulate, sum_of_blocks,
};

const CASES: u64 = 40;
const DEVICES: [usize; 4] = [2, 4, 6, 8];
const LIMITS: [f64; 3] = [1.0, 1.5, 2.0];
/// Devices and microbatches of searches that are timed.
const LARGE: [(usize, u32); 2] = [(16, 64), (32, 256)];
/// From one device to another, where a block's F takes about 1.
const TRANSFER: f64 = 0.1;

/// All cases under every memory limit.
#[derive(Debug, Serialize)]
pub struct Table {
    cases: u64,
    rows: Vec<Row>,
    large: Vec<Large>,
}

/// A search for many devices.
#[derive(Debug, Serialize)]
pub struct Large {
    devices: usize,
    microbatches: u32,
    seconds: f64,
    to_bound: f64,
}

/// All cases under one memory limit.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The memory of every device, as a multiple of 1F1B's.
    memory: f64,
    /// Makespan over the lower bound of the layout chosen, within the same memory.
    mean_to_bound: f64,
    worst_to_bound: f64,
    /// Makespan over the time in which devices that never idle share the blocks' work in
    /// proportion to their speeds: no layout is faster. It shows a layout that is chosen badly.
    mean_to_ideal: f64,
    /// How much longer the best family takes.
    mean_gain: f64,
    /// Cases in which some family fits and is faster. Always 0.
    behind_family: u64,
    /// Cases in which no family fits.
    no_family: u64,
    slowest_search_seconds: f64,
}

/// Searches a plan for every case under every limit.
pub fn table() -> Result<Table> {
    let rows = LIMITS.into_iter().map(row).collect::<Result<_>>()?;
    let large = LARGE.into_iter().map(large).collect::<Result<_>>()?;
    Ok(Table { cases: CASES, rows, large })
}

fn large((devices, microbatches): (usize, u32)) -> Result<Large> {
    let mut draw = Draw { seed: 0, count: 0 };
    let (input, _) = model(&mut draw, devices, microbatches, 8 * devices, 1.5)?;
    let start = Instant::now();
    let found =
        search(&input, &|placement, stage_blocks| sum_of_blocks(&input, placement, stage_blocks))?;
    let seconds = start.elapsed().as_secs_f64();
    let to_bound = found.simulation.bubble.makespan / found.lower_bound;
    Ok(Large { devices, microbatches, seconds, to_bound })
}

fn row(memory: f64) -> Result<Row> {
    let outcomes = (0..CASES).map(|seed| outcome(seed, memory)).collect::<Result<Vec<_>>>()?;
    let all = |of: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(of).collect::<Vec<f64>>();
    let mean = |of: &dyn Fn(&Outcome) -> f64| all(of).iter().sum::<f64>() / CASES as f64;
    let most = |of: &dyn Fn(&Outcome) -> f64| all(of).into_iter().fold(0.0, f64::max);
    let gains: Vec<f64> = outcomes.iter().filter_map(|outcome| outcome.found.gain()).collect();
    Ok(Row {
        memory,
        mean_to_bound: mean(&Outcome::to_bound),
        worst_to_bound: most(&Outcome::to_bound),
        mean_to_ideal: mean(&|outcome| outcome.makespan() / outcome.ideal),
        mean_gain: gains.iter().sum::<f64>() / gains.len().max(1) as f64,
        behind_family: gains.iter().filter(|gain| **gain < 0.0).count() as u64,
        no_family: CASES - gains.len() as u64,
        slowest_search_seconds: most(&|outcome| outcome.seconds),
    })
}

struct Outcome {
    found: SearchOutput,
    ideal: f64,
    seconds: f64,
}

impl Outcome {
    fn makespan(&self) -> f64 {
        self.found.simulation.bubble.makespan
    }

    fn to_bound(&self) -> f64 {
        self.makespan() / self.found.lower_bound
    }
}

fn outcome(seed: u64, memory: f64) -> Result<Outcome> {
    let (input, ideal) = case(seed, memory)?;
    let start = Instant::now();
    let found =
        search(&input, &|placement, stage_blocks| sum_of_blocks(&input, placement, stage_blocks))?;
    Ok(Outcome { found, ideal, seconds: start.elapsed().as_secs_f64() })
}

/// Case number `seed` under a limit of `memory` times 1F1B's, and its ideal time.
fn case(seed: u64, memory: f64) -> Result<(SearchInput, f64)> {
    let mut draw = Draw { seed, count: 0 };
    let p = DEVICES[seed as usize % DEVICES.len()];
    let microbatches = draw.whole(p, 4 * p) as u32;
    let n = p * draw.whole(4, 8);
    model(&mut draw, p, microbatches, n, memory)
}

/// A model of `n` blocks on `p` devices, and its ideal time.
fn model(
    draw: &mut Draw,
    p: usize,
    microbatches: u32,
    n: usize,
    memory: f64,
) -> Result<(SearchInput, f64)> {
    let speeds: Vec<f64> = (0..p).map(|_| draw.between(0.5, 2.0)).collect();
    let blocks: Vec<StageCost> = (0..n).map(|_| block(draw)).collect();
    let on = |speed: &f64| -> Vec<StageCost> {
        let faster =
            |block: &StageCost| StageCost { time: block.time.map(|time| time / speed), ..*block };
        blocks.iter().map(faster).collect()
    };
    let crossing = BoundaryCost { activation_bytes: 50, gradient_bytes: 50 };
    let mut input = SearchInput {
        blocks: speeds.iter().map(on).collect(),
        crossings: vec![crossing; n - 1],
        transfers: Transfers::uniform(TransferCost::of_any_size(TRANSFER)),
        marks: Vec::new(),
        microbatches,
        memory_limits: Vec::new(),
    };
    let most = one_f_one_b(&input, &blocks, &speeds)?;
    input.memory_limits = vec![(most as f64 * memory) as u64; p];
    let times = blocks.iter().map(|block| block.time.total());
    let ideal = f64::from(microbatches) * times.sum::<f64>() / speeds.iter().sum::<f64>();
    Ok((input, ideal))
}

/// Parameters with their optimizer state take about what the stash of a microbatch does.
fn block(draw: &mut Draw) -> StageCost {
    let mut about = |mean: f64| mean * draw.between(0.7, 1.4);
    StageCost {
        time: PerWork::from_fn(|_| about(1.0)),
        bytes: StageBytes {
            fixed: about(1000.0) as u64,
            forward_for_b: about(200.0) as u64,
            forward_for_w: about(600.0) as u64,
            backward_for_w: about(200.0) as u64,
            working: PerWork::from_fn(|_| about(100.0) as u64),
        },
    }
}

/// The most bytes that a device needs under 1F1B.
fn one_f_one_b(input: &SearchInput, blocks: &[StageCost], speeds: &[f64]) -> Result<u64> {
    let block = |block: &StageCost| BlockCost { time: block.time, bytes: block.bytes.fixed };
    let blocks: Vec<BlockCost> = blocks.iter().map(block).collect();
    let crossing: Vec<u64> = input.crossings.iter().map(|k| k.activation_bytes).collect();
    let stage_blocks = place(&blocks, &crossing, speeds, &PlaceOptions::default())?.stage_blocks;
    let p = speeds.len() as u32;
    let plan = check(generate(&ONE_F_ONE_B, p, None, input.microbatches)?)?;
    let costs: Costs = sum_of_blocks(input, &Placement::linear(p), &stage_blocks)?;
    let memory = simulate(&plan, &costs)?.memory;
    Ok(memory.iter().map(|device| device.peak_bytes()).max().unwrap_or(0))
}

/// Numbers that depend on the seed and on how many were drawn before (SplitMix64, Steele et al.
/// 2014).
struct Draw {
    seed: u64,
    count: u64,
}

impl Draw {
    fn between(&mut self, low: f64, high: f64) -> f64 {
        self.count += 1;
        let mut z = (self.seed << 32 | self.count).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        low + (high - low) * ((z >> 11) as f64 / (1u64 << 53) as f64)
    }

    fn whole(&mut self, low: usize, high: usize) -> usize {
        (self.between(low as f64, (high + 1) as f64) as usize).min(high)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "auto on {} drawn cases, 2 to 8 devices of 0.5 to 2 times the speed",
            self.cases
        )?;
        writeln!(
            f,
            "{:>6} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8}",
            "memory", "to bound", "worst", "to ideal", "gain", "behind", "no family", "slowest"
        )?;
        for row in &self.rows {
            writeln!(
                f,
                "{:>5}x {:>8.4} {:>8.4} {:>8.4} {:>7.1}% {:>8} {:>9} {:>7.2}s",
                row.memory,
                row.mean_to_bound,
                row.worst_to_bound,
                row.mean_to_ideal,
                100.0 * row.mean_gain,
                row.behind_family,
                row.no_family,
                row.slowest_search_seconds
            )?;
        }
        for Large { devices, microbatches, seconds, to_bound } in &self.large {
            writeln!(
                f,
                "{devices} devices, {microbatches} microbatches: found in {seconds:.2}s, \
                 {to_bound:.4} to bound"
            )?;
        }
        Ok(())
    }
}
