//! Plans on devices that only wait: the bubble that is measured next to the one predicted, and what
//! a device costs that is slow at times, in a fixed order and in one that is decided meanwhile.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use zerobubble::engine::{Engine, WaitingEngine};
use zerobubble::error::Result;
use zerobubble::plan::{
    Action, CheckedPlan, Costs, DeviceId, Family, GPIPE, INTERLEAVED_1F1B, Limits, ONE_F_ONE_B,
    ZB_H1, ZB_V, check, dynamic, generate, simulate, simulate_dynamic,
};
use zerobubble::runtime::{Dispatch, Runtime};
use zerobubble::trace::bubble;

/// What F, B and W of a device's stages take for a microbatch, each.
const WORK: Duration = Duration::from_millis(5);
/// Devices and microbatches.
const SIZES: [(u32, u32); 2] = [(4, 12), (8, 16)];
const FAMILIES: [&Family; 5] = [&GPIPE, &ONE_F_ONE_B, &INTERLEAVED_1F1B, &ZB_H1, &ZB_V];
/// Steps that are measured, after one that is not.
const STEPS: u64 = 4;

const SEEDS: u64 = 6;
/// How much longer the slow device takes, in a slow span.
const SLOWER: u32 = 3;
/// Every span is slow or not, one in four is.
const SPAN: Duration = Duration::from_millis(25);

/// Both experiments.
#[derive(Debug, Serialize)]
pub struct Table {
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
    measured: f64,
}

/// One device that is slow at times, under one seed.
#[derive(Debug, Serialize)]
pub struct SlowRow {
    devices: u32,
    microbatches: u32,
    seed: u64,
    /// Mean seconds of a step.
    zb_h1_seconds: f64,
    dynamic_seconds: f64,
}

/// Runs both experiments: the first with the families and with `others`.
pub fn table(others: &[CheckedPlan]) -> Result<Table> {
    let mut table = Table { bubbles: Vec::new(), slow_device: Vec::new() };
    for (devices, microbatches) in SIZES {
        for family in FAMILIES {
            table.bubbles.push(row(&check(generate(family, devices, None, microbatches)?)?)?);
        }
        for seed in 0..SEEDS {
            table.slow_device.push(slow_row(devices, microbatches, seed)?);
        }
    }
    for plan in others {
        table.bubbles.push(row(plan)?);
    }
    Ok(table)
}

/// `plan` on devices that keep to its times.
fn row(plan: &CheckedPlan) -> Result<Row> {
    let prediction = simulate(plan, &costs(plan))?;
    let times = costs(plan);
    let engines = engines(plan, move |_, action, _| duration(times.time(action)));
    let channels = &prediction.channels;
    let mut runtime = Runtime::start(plan.clone(), Dispatch::Planned, channels, engines)?;
    let measured = steps(&mut runtime, 1..=STEPS)?;
    Ok(Row {
        plan: plan.plan().schedule.clone(),
        devices: plan.plan().lanes.len() as u32,
        microbatches: plan.plan().microbatches,
        predicted: prediction.bubble.step,
        measured: mean(measured.iter().map(|step| step.bubble)),
    })
}

/// Both orders while the same device is slow at the same times of a step.
fn slow_row(devices: u32, microbatches: u32, seed: u64) -> Result<SlowRow> {
    let base = check(generate(&ZB_H1, devices, None, microbatches)?)?;
    let (costs, limits) = (costs(&base), Limits::of(&base));
    let planned = dynamic(&base, &costs)?;
    let room = simulate_dynamic(&planned, &limits, &costs)?.channels;
    let slowed = |plan: &CheckedPlan| {
        let costs = costs.clone();
        engines(plan, move |device: DeviceId, action, since: Duration| {
            duration(costs.time(action)) * slowness(seed, devices, device, since)
        })
    };
    let channels = simulate(&base, &costs)?.channels;
    let mut fixed = Runtime::start(base.clone(), Dispatch::Planned, &channels, slowed(&base))?;
    let dispatch = Dispatch::Dynamic(Box::new(base));
    let engines = slowed(&planned);
    let mut free = Runtime::start(planned, dispatch, &room, engines)?;
    let (mut in_order, mut decided) = (Vec::new(), Vec::new());
    // They take turns, so that what disturbs the machine disturbs both.
    for step in 1..=STEPS {
        in_order.extend(steps(&mut fixed, step..=step)?);
        decided.extend(steps(&mut free, step..=step)?);
    }
    let seconds = |steps: &[Step]| mean(steps.iter().map(|step| step.seconds));
    Ok(SlowRow {
        devices,
        microbatches,
        seed,
        zb_h1_seconds: seconds(&in_order),
        dynamic_seconds: seconds(&decided),
    })
}

/// 1, or [`SLOWER`] if the device is the seed's slow one and the span of the step is a slow one.
fn slowness(seed: u64, devices: u32, device: DeviceId, since: Duration) -> u32 {
    let span = (since.as_nanos() / SPAN.as_nanos()) as u64;
    let victim = draw(seed, u64::MAX) % u64::from(devices);
    let is_slow = u64::from(device.0) == victim && draw(seed, span) % 4 == 0;
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
}

/// Plays steps, and one before if the first is number 1.
fn steps(runtime: &mut Runtime, numbers: std::ops::RangeInclusive<u64>) -> Result<Vec<Step>> {
    let mut play = |step| {
        let bubble = bubble(&runtime.step(step, Arc::new(Vec::new()), 0.0)?.timeline);
        Ok(Step { seconds: bubble.makespan, bubble: bubble.step })
    };
    if *numbers.start() == 1 {
        play(0)?;
    }
    numbers.map(play).collect()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "step bubble on devices that wait {WORK:?} for F, B and W")?;
        writeln!(
            f,
            "{:<18} {:>7} {:>12} {:>9} {:>8} {:>10}",
            "plan", "devices", "microbatches", "predicted", "measured", "difference"
        )?;
        for row in &self.bubbles {
            writeln!(
                f,
                "{:<18} {:>7} {:>12} {:>8.2}% {:>7.2}% {:>+10.2}",
                row.plan,
                row.devices,
                row.microbatches,
                100.0 * row.predicted,
                100.0 * row.measured,
                100.0 * (row.measured - row.predicted)
            )?;
        }
        writeln!(f, "one device {SLOWER} times slower in one of 4 spans of {SPAN:?}")?;
        writeln!(
            f,
            "{:>7} {:>12} {:>4} {:>9} {:>9} {:>5}",
            "devices", "microbatches", "seed", "zb-h1", "dynamic", "ratio"
        )?;
        for row in &self.slow_device {
            writeln!(
                f,
                "{:>7} {:>12} {:>4} {:>7.1}ms {:>7.1}ms {:>5.3}",
                row.devices,
                row.microbatches,
                row.seed,
                1e3 * row.zb_h1_seconds,
                1e3 * row.dynamic_seconds,
                row.dynamic_seconds / row.zb_h1_seconds
            )?;
        }
        Ok(())
    }
}
