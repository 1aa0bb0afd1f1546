//! Plans on devices that only wait: the bubble that is measured next to the one predicted, and what
//! a device costs that is slow at times, in a fixed order and in one that is decided meanwhile.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use zerobubble::engine::{Engine, WaitingEngine};
use zerobubble::error::Result;
use zerobubble::plan::{
    Action, BoundaryCost, CheckedPlan, Costs, DeviceId, Family, GPIPE, INTERLEAVED_1F1B,
    ONE_F_ONE_B, PerWork, SearchInput, SearchOutput, StageBytes, StageCost, StashLimits,
    TransferCost, Transfers, ZB_H1, ZB_V, check, dynamic, explain, generate, search, simulate,
    simulate_dynamic, sum_of_blocks,
};
use zerobubble::runtime::{Dispatch, Runtime, StepRules};
use zerobubble::trace::{Label, Span, Timeline, bubble};

/// What F, B and W of a device's stages take for a microbatch, each.
const WORK: Duration = Duration::from_millis(5);
/// Devices and microbatches.
const SIZES: [(u32, u32); 2] = [(4, 12), (8, 16)];
const FAMILIES: [&Family; 5] = [&GPIPE, &ONE_F_ONE_B, &INTERLEAVED_1F1B, &ZB_H1, &ZB_V];
/// Steps that are measured, after one that is not.
const STEPS: u64 = 8;
/// Blocks of the model that `auto` cuts.
const BLOCKS_PER_DEVICE: u32 = 12;

const SEEDS: u64 = 6;
/// How much longer the slow device takes, in a slow span.
const SLOWER: u32 = 3;
/// Every span is slow or not, one in four is.
const SPAN: Duration = Duration::from_millis(25);

/// Both experiments.
#[derive(Debug, Serialize)]
pub struct Table {
    /// From the end of an action to the start of what waits for it on another device, in nine of
    /// ten cases at most.
    hand_over_seconds: f64,
    bubbles: Vec<Row>,
    slow_device: Vec<SlowRow>,
}

/// A plan's step bubble.
#[derive(Debug, Serialize)]
pub struct Row {
    plan: String,
    devices: u32,
    microbatches: u32,
    predicted: f64,
    /// Predicted from the times that actions took in the median.
    expected: f64,
    measured: f64,
}

/// One device that is slow at times, under one seed.
#[derive(Debug, Serialize)]
pub struct SlowRow {
    devices: u32,
    microbatches: u32,
    seed: u64,
    /// Median seconds of a step of zb-h1 in its fixed order.
    fixed_seconds: f64,
    /// Of the same again.
    again_seconds: f64,
    /// Of the order that is decided while a step runs.
    dynamic_seconds: f64,
}

/// Runs both experiments.
pub fn table() -> Result<Table> {
    let hand_over_seconds = hand_over()?;
    let mut table = Table { hand_over_seconds, bubbles: Vec::new(), slow_device: Vec::new() };
    for (devices, microbatches) in SIZES {
        for family in FAMILIES {
            let plan = check(generate(family, devices, None, microbatches)?)?;
            table.bubbles.push(row(&plan, costs(&plan))?);
        }
        let plan = searched(devices, microbatches, table.hand_over_seconds)?.plan;
        let costs = costs(&plan);
        table
            .bubbles
            .push(Row { plan: format!("auto ({})", plan.plan().schedule), ..row(&plan, costs)? });
        for seed in 0..SEEDS {
            table.slow_device.push(slow_row(devices, microbatches, seed)?);
        }
    }
    Ok(table)
}

/// What passes between the end of an action and the start of the one on the next device that waits
/// for it, in nine of ten cases at most: the threads of both devices and the scheduler's wake up
/// one after another, and other devices' do so at the same time.
fn hand_over() -> Result<f64> {
    let (devices, microbatches) = SIZES[SIZES.len() - 1];
    let plan = check(generate(&ZB_V, devices, None, microbatches)?)?;
    let costs = costs(&plan);
    let channels = simulate(&plan, &costs)?.channels;
    let engines = engines(&plan, move |_, action, _| duration(costs.time(action)));
    let mut runtime =
        Runtime::start(plan.clone(), Dispatch::Planned, &channels, engines, StepRules::default())?;
    let mut waits = Vec::new();
    for step in 0..=STEPS {
        let timeline = runtime.step(step, Arc::default(), 0.0)?.timeline;
        waits.extend(idle_waits(&plan, &timeline));
    }
    waits.sort_unstable_by(f64::total_cmp);
    Ok(waits[waits.len() * 9 / 10])
}

/// From the end of an action to the start of what it sends to, where the other device idles.
fn idle_waits(plan: &CheckedPlan, timeline: &Timeline) -> Vec<f64> {
    let spans = timeline.lanes.iter().flatten().filter_map(|span| match span.label {
        Label::Action(action) => Some((action, span.end)),
        Label::Transfer | Label::Parcel { .. } | Label::Update => None,
    });
    let ends: HashMap<Action, f64> = spans.collect();
    let wait = |pair: &[Span]| {
        let Label::Action(action) = pair[1].label else { return None };
        plan.receives(action)?;
        let sent = ends[&plan.inputs(action).parcel?];
        (sent > pair[0].end).then_some(pair[1].start - sent)
    };
    timeline.lanes.iter().flat_map(|lane| lane.windows(2).filter_map(wait)).collect()
}

/// The plan of `auto` for devices and blocks that are all alike, in the memory of 1F1B.
fn searched(devices: u32, microbatches: u32, hand_over: f64) -> Result<SearchOutput> {
    let blocks = (devices * BLOCKS_PER_DEVICE) as usize;
    let time = WORK.as_secs_f64() / f64::from(BLOCKS_PER_DEVICE);
    let block = StageCost {
        time: PerWork([time; 3]),
        bytes: StageBytes { forward_for_w: 1, ..StageBytes::default() },
    };
    let input = SearchInput {
        blocks: vec![vec![block; blocks]; devices as usize],
        crossings: vec![BoundaryCost::default(); blocks - 1],
        transfers: Transfers::uniform(TransferCost::of_any_size(hand_over)),
        marks: Vec::new(),
        microbatches,
        memory_limits: vec![u64::from(devices * BLOCKS_PER_DEVICE); devices as usize],
    };
    Ok(search(&input, &|placement, stage_blocks| sum_of_blocks(&input, placement, stage_blocks))?)
}

/// `plan` on devices that keep to its times.
fn row(plan: &CheckedPlan, costs: Costs) -> Result<Row> {
    let prediction = simulate(plan, &costs)?;
    let times = costs.clone();
    let engines = engines(plan, move |_, action, _| duration(times.time(action)));
    let channels = &prediction.channels;
    let mut runtime =
        Runtime::start(plan.clone(), Dispatch::Planned, channels, engines, StepRules::default())?;
    let mut steps = steps(&mut runtime, 1..=STEPS)?;
    steps.sort_by(|a, b| a.bubble.total_cmp(&b.bubble));
    let timelines: Vec<&Timeline> = steps.iter().map(|step| &step.timeline).collect();
    let median = timelines[timelines.len() / 2];
    let explained = explain(plan, &prediction, &costs, &timelines, median)?;
    Ok(Row {
        plan: plan.plan().schedule.clone(),
        devices: plan.plan().lanes.len() as u32,
        microbatches: plan.plan().microbatches,
        predicted: prediction.bubble.step,
        expected: explained.expected.step,
        measured: explained.measured.step,
    })
}

/// Three pipelines while the same device is slow at the same times of a step: twice the fixed
/// order, which shows what chance does, and once the order that is decided meanwhile.
fn slow_row(devices: u32, microbatches: u32, seed: u64) -> Result<SlowRow> {
    let base = check(generate(&ZB_H1, devices, None, microbatches)?)?;
    let (costs, limits) = (costs(&base), StashLimits::of(&base));
    let planned = dynamic(&base, &costs)?;
    let wider = simulate_dynamic(&planned, &limits, &costs)?.channels;
    let channels = simulate(&base, &costs)?.channels;
    let slowed = |plan: &CheckedPlan| {
        let costs = costs.clone();
        engines(plan, move |device: DeviceId, action, since: Duration| {
            duration(costs.time(action)) * slowness(seed, devices, device, since)
        })
    };
    let fixed = || {
        Runtime::start(
            base.clone(),
            Dispatch::Planned,
            &channels,
            slowed(&base),
            StepRules::default(),
        )
    };
    let dispatch = Dispatch::Dynamic(Box::new(base.clone()));
    let engines = slowed(&planned);
    let free = Runtime::start(planned, dispatch, &wider, engines, StepRules::default())?;
    let mut contenders = [fixed()?, fixed()?, free];
    let mut seconds: [Vec<f64>; 3] = Default::default();
    // They take turns, so that what disturbs the machine disturbs all.
    for step in 1..=STEPS {
        for (contender, seconds) in contenders.iter_mut().zip(&mut seconds) {
            seconds.extend(steps(contender, step..=step)?.iter().map(|step| step.seconds));
        }
    }
    let [fixed_seconds, again_seconds, dynamic_seconds] =
        seconds.map(|seconds| median(seconds.into_iter()));
    Ok(SlowRow { devices, microbatches, seed, fixed_seconds, again_seconds, dynamic_seconds })
}

/// 1, or [`SLOWER`] if the device is the seed's slow one and the span of the step is a slow one.
fn slowness(seed: u64, devices: u32, device: DeviceId, since: Duration) -> u32 {
    let span = (since.as_nanos() / SPAN.as_nanos()) as u64;
    let victim = draw(seed, u64::MAX) % u64::from(devices);
    let is_slow = u64::from(device.0) == victim && draw(seed, span).is_multiple_of(4);
    if is_slow { SLOWER } else { 1 }
}

/// A number that depends on both (SplitMix64, Steele et al. 2014).
fn draw(seed: u64, index: u64) -> u64 {
    let mut z = (seed << 32 ^ index).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) >> 8
}

/// A device's work on a microbatch is divided over its stages.
fn costs(plan: &CheckedPlan) -> Costs {
    let placement = &plan.plan().placement;
    let time =
        WORK.as_secs_f64() * placement.device_count() as f64 / placement.stage_count() as f64;
    Costs::uniform(placement.stage_count(), time, time, time)
}

fn duration(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn engines(
    plan: &CheckedPlan,
    time: impl Fn(DeviceId, Action, Duration) -> Duration + Clone + Send + 'static,
) -> Vec<Box<dyn Engine>> {
    let engine = |device| {
        let time = time.clone();
        let time = move |action, since| time(DeviceId(device), action, since);
        Box::new(WaitingEngine::new(Box::new(time))) as Box<dyn Engine>
    };
    (0..plan.plan().lanes.len() as u32).map(engine).collect()
}

/// What a step took.
struct Step {
    seconds: f64,
    bubble: f64,
    timeline: Timeline,
}

/// Plays steps, and one before if the first is number 1.
fn steps(runtime: &mut Runtime, numbers: std::ops::RangeInclusive<u64>) -> Result<Vec<Step>> {
    let mut play = |step| {
        let timeline = runtime.step(step, Arc::new(Vec::new()), 0.0)?.timeline;
        let bubble = bubble(&timeline);
        Ok(Step { seconds: bubble.makespan, bubble: bubble.step, timeline })
    };
    if *numbers.start() == 1 {
        play(0)?;
    }
    numbers.map(play).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    super::super::bench::median(&values.collect::<Vec<_>>())
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "step bubble on devices that wait {WORK:?} for F, B and W; a hand-over takes {:.2}ms",
            1e3 * self.hand_over_seconds
        )?;
        writeln!(
            f,
            "{:<18} {:>7} {:>12} {:>9} {:>8} {:>8} {:>10}",
            "plan", "devices", "microbatches", "predicted", "expected", "measured", "difference"
        )?;
        for row in &self.bubbles {
            writeln!(
                f,
                "{:<18} {:>7} {:>12} {:>8.2}% {:>7.2}% {:>7.2}% {:>+10.2}",
                row.plan,
                row.devices,
                row.microbatches,
                100.0 * row.predicted,
                100.0 * row.expected,
                100.0 * row.measured,
                100.0 * (row.measured - row.expected)
            )?;
        }
        writeln!(f, "\nzb-h1 with one device {SLOWER} times slower in one of 4 spans of {SPAN:?}")?;
        writeln!(
            f,
            "{:>7} {:>12} {:>4} {:>9} {:>11} {:>13}",
            "devices", "microbatches", "seed", "fixed", "fixed again", "dynamic/fixed"
        )?;
        for row in &self.slow_device {
            writeln!(
                f,
                "{:>7} {:>12} {:>4} {:>7.1}ms {:>11.3} {:>13.3}",
                row.devices,
                row.microbatches,
                row.seed,
                1e3 * row.fixed_seconds,
                row.again_seconds / row.fixed_seconds,
                row.dynamic_seconds / row.fixed_seconds
            )?;
        }
        let mean = |of: fn(&SlowRow) -> f64| {
            self.slow_device.iter().map(of).sum::<f64>() / self.slow_device.len() as f64
        };
        writeln!(
            f,
            "{:>7} {:>12} {:>4} {:>9} {:>11.3} {:>13.3}",
            "mean",
            "",
            "",
            "",
            mean(|row| row.again_seconds / row.fixed_seconds),
            mean(|row| row.dynamic_seconds / row.fixed_seconds)
        )
    }
}
