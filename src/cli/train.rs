//! `zerobubble train`: the main job, training the example GPT on a text.

use std::fmt;

use burn::tensor::Device;
use zerobubble::error::{Error, Result};
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::train::progress::Progress;
use zerobubble::train::text::{Corpus, Sampler};
use zerobubble::train::{AdamW, Balance, StepReport, Trainer};

use super::args::{BalanceBy, TrainArgs};
use super::evaluate::{self, Batch};
use super::train_report::{HeldOut, Steps, TrainReport, bubbles, peaks, timetables, transfers};

/// Held-out windows that a loss is the mean of.
const HELD_OUT_WINDOWS: usize = 64;

/// What is about to be trained.
pub struct Job {
    model: String,
    text: String,
    plan: String,
    devices: Vec<String>,
    stages: String,
}

/// Trains as `args` say, and calls `start` when everything is ready for the first step.
pub fn run(args: &TrainArgs, start: impl FnOnce(&Job) -> Result<()>) -> Result<TrainReport> {
    let corpus = match &args.text {
        Some(path) => Corpus::read(path)?,
        None => Corpus::of_this_crate()?,
    };
    let sampler = corpus.sampler(args.context, args.seed)?;
    let held_out = corpus.held_out_windows(args.context, HELD_OUT_WINDOWS)?;
    let device = Device::flex();
    let model = model(args, &corpus, &device)?;
    let example = evaluate::batch(sampler.clone().next_batch(args.microbatch_size), &device);
    let loss = |model: &Gpt, (tokens, targets): Batch| model.loss(tokens, targets);
    let mut trainer = Trainer::of(model, loss)
        .devices(&args.devices)?
        .schedule(args.schedule)
        .microbatches(args.microbatches)
        .optimizer(AdamW::default())
        .learning_rate(args.learning_rate)
        .seed(args.seed)
        .memory_limit_per_device(args.memory_limit_per_device)
        .balance(balance(args.balance))
        .activations(args.activations)
        .build(&example)?;

    let (parameters, devices) = (trainer.parameters(), trainer.devices());
    let stages = trainer.stages().to_string();
    start(&Job::new(args, &corpus, parameters, devices.clone(), stages.clone()))?;

    let before = evaluate::loss(&trainer.model()?, &held_out, &device)?;
    let steps = take_steps(args, sampler, &device, |batch| trainer.step(batch))?;
    let model = trainer.model()?;
    let after = evaluate::loss(&model, &held_out, &device)?;

    let weights_hash = trainer.weights_hash()?;
    let prediction = trainer.prediction();
    let measured = steps.median();
    Ok(TrainReport {
        devices,
        schedule: args.schedule.to_string(),
        stages: stages.lines().map(str::to_owned).collect(),
        parameters,
        tokens_per_second: steps.per_second(tokens_per_step(args)),
        bubble: bubbles(prediction, measured),
        peak_bytes: peaks(prediction, &steps),
        transfers: transfers(measured),
        weights_hash,
        held_out: HeldOut { before, after },
        timetables: timetables(prediction, measured),
        sample: evaluate::sample(&model, &corpus.vocabulary, args.context, args.seed, &device)?,
        losses: steps.losses,
        step_seconds: steps.seconds,
    })
}

fn take_steps(
    args: &TrainArgs,
    mut sampler: Sampler,
    device: &Device,
    mut step: impl FnMut(Batch) -> Result<StepReport>,
) -> Result<Steps> {
    let rows = rows_per_step(args);
    let progress = Progress::start(u64::from(args.steps), tokens_per_step(args) as u64);
    let mut steps = Steps::default();
    for number in 1..=args.steps {
        let report = step(evaluate::batch(sampler.next_batch(rows), device))?;
        progress.step(u64::from(number), report.loss);
        steps.add(report);
    }
    Ok(steps)
}

fn model(args: &TrainArgs, corpus: &Corpus, device: &Device) -> Result<Gpt> {
    if !args.width.is_multiple_of(args.heads) {
        let lower = args.width - args.width % args.heads;
        let hint = format!("--width {}", lower.max(args.heads));
        return Err(Error::config(format!(
            "a width of {} cannot be divided among {} heads",
            args.width, args.heads
        ))
        .hint(hint));
    }
    device.seed(args.seed);
    let vocabulary = corpus.vocabulary.size();
    Ok(GptConfig::new(vocabulary, args.context, args.layers, args.width, args.heads).init(device))
}

fn balance(by: BalanceBy) -> Balance {
    match by {
        BalanceBy::Flops => Balance::Flops,
        BalanceBy::Measured => Balance::Measured,
    }
}

fn rows_per_step(args: &TrainArgs) -> usize {
    args.microbatch_size * args.microbatches as usize
}

fn tokens_per_step(args: &TrainArgs) -> usize {
    rows_per_step(args) * args.context
}

impl Job {
    fn new(
        args: &TrainArgs,
        corpus: &Corpus,
        parameters: u64,
        devices: Vec<String>,
        stages: String,
    ) -> Self {
        Self {
            model: format!(
                "GPT of {parameters} parameters: {} layers, width {}, {} heads, context {}",
                args.layers, args.width, args.heads, args.context
            ),
            text: format!(
                "{}, {} characters, {} different ones",
                corpus.source.display(),
                corpus.characters(),
                corpus.vocabulary.size()
            ),
            plan: format!(
                "{} with {} microbatches of {}, {} steps",
                args.schedule, args.microbatches, args.microbatch_size, args.steps
            ),
            devices,
            stages,
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model     {}", self.model)?;
        writeln!(f, "text      {}", self.text)?;
        writeln!(f, "schedule  {}", self.plan)?;
        writeln!(f, "devices   {}\n", self.devices.join(", "))?;
        writeln!(f, "{}\n", self.stages.trim_end())
    }
}
