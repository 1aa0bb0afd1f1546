//! `zerobubble bench`: the figures of `docs/benchmarks.md`, side by side in one run.
//!
//! The contenders take turns, one step each, so that whatever slows the machine down for a while
//! slows all of them.

use std::fmt;
use std::time::Instant;

use crate::text::{Corpus, Windows};
use burn::optim::{AdamWConfig, GradientsAccumulator, GradientsParams};
use burn::tensor::Device;
use serde::Serialize;
use zerobubble::error::{Error, Result};
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::plan::ZB_H1;
use zerobubble::runtime;
use zerobubble::train::{AdamW, Trainer};

use super::args::BenchArgs;
use super::evaluate::{self, Batch};

/// The training step of CPU devices.
const STEP: Workload = Workload {
    microbatches: 8,
    microbatch_size: 2,
    context: 128,
    vocabulary: 96,
    layers: 8,
    width: 256,
    heads: 4,
};
const LEARNING_RATE: f64 = 1e-3;
const SEED: u64 = 0;

/// Devices, microbatches and steps with which the runtime's own cost is measured.
const OVERHEAD: (u32, u32, u32) = (4, 32, 100);

/// The figures, each with the unit in its name.
#[derive(Serialize)]
pub struct Figures {
    /// Of the median round, and of the best one, which other work on the machine disturbed least.
    median: Speeds,
    best: Speeds,
    overhead_microseconds_per_action: f64,
    rounds: u32,
}

/// Tokens per second of every contender, and how they compare.
#[derive(Serialize)]
struct Speeds {
    burn_eager: f64,
    one_device: f64,
    two_devices: f64,
    one_device_to_burn_eager: f64,
    two_devices_to_one: f64,
}

/// A GPT and the batch of a step.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    pub microbatches: u32,
    pub microbatch_size: usize,
    pub context: usize,
    pub vocabulary: usize,
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
}

/// One way to train: takes a step on a batch.
pub type Contender = Box<dyn FnMut(Windows) -> Result<()>>;

/// Measures all figures.
pub fn run(args: &BenchArgs) -> Result<Figures> {
    let text: String = ('\u{20}'..).take(STEP.vocabulary).cycle().take(100_000).collect();
    let mut sampler = Corpus::of_text("the bench's text", &text)?.sampler(STEP.context, SEED)?;
    let mut contenders =
        [burn_eager(STEP, Device::flex()), pipeline(STEP, "cpu")?, pipeline(STEP, "cpux2")?];
    let mut seconds: [Vec<f64>; 3] = Default::default();
    // What round 0 takes is not counted: it allocates and warms up.
    for round in 0..=args.steps {
        let batch = sampler.next_batch(STEP.rows());
        for (contender, seconds) in contenders.iter_mut().zip(&mut seconds) {
            let start = Instant::now();
            contender(batch.clone())?;
            if round > 0 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let best = |seconds: &[f64]| seconds.iter().copied().fold(f64::INFINITY, f64::min);
    let (devices, microbatches, steps) = OVERHEAD;
    let overhead = runtime::overhead(devices, microbatches, steps)?;
    Ok(Figures {
        median: Speeds::of(&seconds, median),
        best: Speeds::of(&seconds, best),
        overhead_microseconds_per_action: 1e6 * overhead.as_secs_f64(),
        rounds: args.steps,
    })
}

impl Speeds {
    /// Speeds from every contender's seconds per step, of which `pick` takes one.
    fn of(seconds: &[Vec<f64>; 3], pick: impl Fn(&[f64]) -> f64) -> Self {
        let tokens = (STEP.rows() * STEP.context) as f64;
        let [burn_eager, one_device, two_devices] =
            [0, 1, 2].map(|contender| tokens / pick(&seconds[contender]));
        Self {
            burn_eager,
            one_device,
            two_devices,
            one_device_to_burn_eager: one_device / burn_eager,
            two_devices_to_one: two_devices / one_device,
        }
    }
}

/// Burn's own training as its users write it: autodiff on one of its devices.
pub fn burn_eager(work: Workload, device: Device) -> Contender {
    let device = device.autodiff();
    let mut model = Some(work.model(&device));
    let mut optimizer = AdamWConfig::new().init();
    let mut accumulator = GradientsAccumulator::new();
    Box::new(move |windows| {
        let current = model.take().ok_or_else(|| Error::run("the step before this one failed"))?;
        for part in 0..work.microbatches as usize {
            let rows = part * work.microbatch_size..(part + 1) * work.microbatch_size;
            let (tokens, targets) = evaluate::batch(windows.rows(rows), &device);
            let loss = current.loss(tokens, targets) / f64::from(work.microbatches);
            let gradients = GradientsParams::from_grads(loss.backward(), &current);
            accumulator.accumulate(&current, gradients);
        }
        model = Some(optimizer.step(LEARNING_RATE, current, accumulator.grads()));
        // A GPU has only been told what to do.
        device.sync().map_err(|error| Error::run(error.to_string()))
    })
}

/// The same through a pipeline.
pub fn pipeline(work: Workload, devices: &str) -> Result<Contender> {
    let device = Device::flex();
    let example = Windows {
        rows: work.microbatch_size,
        context: work.context,
        tokens: vec![0; work.microbatch_size * work.context],
        targets: vec![0; work.microbatch_size * work.context],
    };
    let loss = |model: &Gpt, (tokens, targets): Batch| model.loss(tokens, targets);
    let mut trainer = Trainer::of(work.model(&device), loss)
        .devices(devices)?
        .schedule(&ZB_H1)
        .microbatches(work.microbatches)
        .optimizer(AdamW::default())
        .learning_rate(LEARNING_RATE)
        .seed(SEED)
        .build(&evaluate::batch(example, &device))?;
    Ok(Box::new(move |windows| trainer.step(evaluate::batch(windows, &device)).map(drop)))
}

impl Workload {
    /// Sequences of a step.
    pub fn rows(&self) -> usize {
        self.microbatch_size * self.microbatches as usize
    }

    fn model(&self, device: &Device) -> Gpt {
        device.seed(SEED);
        let Self { vocabulary, context, layers, width, heads, .. } = *self;
        GptConfig::new(vocabulary, context, layers, width, heads).init(device)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { microbatches, microbatch_size, context, vocabulary, layers, width, heads } =
            self;
        write!(
            f,
            "GPT d={width}, {layers} layers, {heads} heads, context {context}, vocabulary \
             {vocabulary}, {microbatches} microbatches of {microbatch_size}, f32, AdamW"
        )
    }
}

pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        (values[middle - 1] + values[middle]) / 2.0
    } else {
        values[middle]
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{STEP}; tokens/s over {} rounds", self.rounds)?;
        let (median, best) = (&self.median, &self.best);
        writeln!(f, "{:22} {:>8} {:>8}", "", "median", "best")?;
        let line = |f: &mut fmt::Formatter<'_>, name, speed: fn(&Speeds) -> f64| {
            writeln!(f, "{name:22} {:8.0} {:8.0}", speed(median), speed(best))
        };
        let ratio = |f: &mut fmt::Formatter<'_>, name, ratio: fn(&Speeds) -> f64| {
            writeln!(f, "{name:22} {:7.2}x {:7.2}x", ratio(median), ratio(best))
        };
        line(f, "Burn eager, one thread", |speeds| speeds.burn_eager)?;
        line(f, "one device", |speeds| speeds.one_device)?;
        line(f, "two devices", |speeds| speeds.two_devices)?;
        ratio(f, "one device / Burn", |speeds| speeds.one_device_to_burn_eager)?;
        ratio(f, "two devices / one", |speeds| speeds.two_devices_to_one)?;
        let (devices, microbatches, _) = OVERHEAD;
        writeln!(
            f,
            "runtime's own cost      {:8.2} microseconds per action, {devices} devices, \
             {microbatches} microbatches",
            self.overhead_microseconds_per_action
        )
    }
}
