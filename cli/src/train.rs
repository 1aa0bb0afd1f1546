//! `zerobubble train`: the main job, training the example GPT on a text.

use std::fmt;

use crate::progress::Progress;
use crate::text::{Corpus, Sampler};
use burn::tensor::Device;
use serde::Serialize;
use zerobubble::error::{Error, Result};
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::plan::Plan;
use zerobubble::train::{AdamW, Balance, OnNan, Searched, Trainer};

use super::args::{BalanceArg, OnNanArg, TrainArgs};
use super::checkpoint::{Done, Saving};
use super::drawing::{counted, percent};
use super::evaluate::{self, Batch};
use super::interrupt::Interrupt;
use super::learning_rate::Rates;
use super::plan::{Moves, read};
use super::report::{self, Finished};
use super::train_report::{
    Evaluation, HeldOut, Steps, TrainReport, bubbles, peaks, timetables, transfers,
};

/// Held-out windows that a loss is the mean of, or a few more to fill the last microbatch.
const HELD_OUT_WINDOWS: usize = 64;

/// What is about to be trained.
pub struct Job {
    /// The model in one line: its name, and after a colon its sizes.
    pub model: String,
    /// The text in one line.
    pub text: String,
    plan: String,
    rates: String,
    devices: Vec<String>,
    stages: String,
}

/// What came of a run.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Outcome {
    Trained(Box<TrainReport>),
    /// There was nothing left to do.
    Done(Done),
}

/// Trains as `args` say, and calls `start` when everything is ready for the first step.
pub fn run(args: &TrainArgs, start: impl FnOnce(&Job) -> Result<()>) -> Result<Outcome> {
    report::check(args)?;
    let corpus = match &args.text {
        Some(path) => Corpus::read(path)?,
        None => Corpus::own_sources()?,
    };
    let mut sampler = corpus.sampler(args.context, args.seed)?;
    let windows = HELD_OUT_WINDOWS.next_multiple_of(args.microbatch_size);
    let device = Device::flex();
    let held_out = evaluate::batch(corpus.held_out_windows(args.context, windows)?, &device);
    let rates = Rates::of(args)?;
    let model = model(args, &corpus, &device)?;
    let mut saving = Saving::open(args, &corpus)?;
    let example = evaluate::batch(sampler.clone().next_batch(args.microbatch_size), &device);
    let mut trainer = trainer(args, model, &example, &rates)?;
    saving.resume(&mut trainer, &mut sampler)?;
    let steps_before = trainer.steps();
    if steps_before >= u64::from(args.steps) {
        return Ok(Outcome::Done(Done::of(&mut trainer)?));
    }

    let (parameters, devices) = (trainer.parameters(), trainer.devices());
    let stages = trainer.stages().to_string();
    let recomputed = trainer.stages().recomputed().iter().map(|stage| stage.0).collect();
    let plan = trainer.plan().plan();
    let (schedule, microbatches) = (plan.schedule.clone(), plan.microbatches);
    let rows = args.microbatch_size * microbatches as usize;
    let tokens = rows * args.context;
    let job = job(args, &corpus, &trainer, &rates);
    start(&job)?;

    let next = |sampler: &mut Sampler| evaluate::batch(sampler.next_batch(rows), &device);
    let steps = take_steps(args, tokens, sampler, next, &held_out, &mut trainer, &saving)?;
    let model = trainer.model()?;

    let weights_hash = trainer.weights_hash()?;
    let prediction = trainer.prediction();
    let measured = steps.median();
    let mut report = TrainReport {
        devices,
        schedule,
        stages: stages.lines().map(str::to_owned).collect(),
        recomputed,
        parameters,
        steps_before,
        tokens_per_second: steps.per_second(tokens),
        bubble: bubbles(prediction, measured),
        peak_bytes: peaks(prediction, &steps),
        transfers: transfers(measured),
        communication: Moves::of(trainer.communication()),
        weights_hash,
        held_out: HeldOut::of(&steps.evaluations),
        timetables: timetables(prediction, measured),
        sample: evaluate::sample(&model, &corpus.vocabulary, args.context, args.seed, &device)?,
        evaluations: steps.evaluations.clone(),
        skipped: steps.skipped.clone(),
        losses: steps.losses.clone(),
        gradient_norms: steps.gradient_norms.clone(),
        step_seconds: steps.seconds.clone(),
        written: Vec::new(),
        unsaved: steps.unsaved.clone(),
    };
    let (trainer, steps) = (&trainer, &steps);
    let finished = Finished { args, job: &job, trainer, steps, report: &report };
    report.written = report::write(&finished);
    Ok(Outcome::Trained(Box::new(report)))
}

impl Outcome {
    /// Why a checkpoint or a file that was asked for is not there. What the run found is worth
    /// telling before.
    pub fn unwritten(self) -> Option<Error> {
        match self {
            Outcome::Trained(report) => {
                let TrainReport { unsaved, written, .. } = *report;
                unsaved.or_else(|| written.into_iter().find_map(Result::err))
            }
            Outcome::Done(_) => None,
        }
    }
}

fn job(args: &TrainArgs, corpus: &Corpus, trainer: &Trainer<Gpt, Batch>, rates: &Rates) -> Job {
    Job {
        model: model_line(args, trainer.parameters()),
        text: text_line(corpus),
        plan: plan_line(args, trainer),
        rates: rates.to_string(),
        devices: trainer.devices(),
        stages: trainer.stages().to_string(),
    }
}

fn trainer(
    args: &TrainArgs,
    model: Gpt,
    example: &Batch,
    rates: &Rates,
) -> Result<Trainer<Gpt, Batch>> {
    let loss = |model: &Gpt, (tokens, targets): Batch| model.loss(tokens, targets);
    let schedule = match &args.plan {
        Some(path) => read(path)?.into(),
        None => args.schedule.clone(),
    };
    Trainer::of(model, loss)
        .devices(&args.devices)?
        .schedule(schedule)
        .chunks_per_device(args.chunks)
        .microbatches(args.microbatches)
        .optimizer(AdamW::default())
        .clip_norm(args.clip_norm)
        .post_validation(args.post_validation)
        .learning_rate(rates.scheduler()?)
        .on_nan(on_nan(args.on_nan))
        .max_skips(args.max_skips)
        .seed(args.seed)
        .memory_limit_per_device(args.memory_limit_per_device)
        .balance(args.balance.map(balance))
        .activations(args.activations)
        .recompute(args.recompute)
        .build(example)
}

/// Trains, and evaluates before, after, and as often as `args` say in between.
fn take_steps(
    args: &TrainArgs,
    tokens: usize,
    mut sampler: Sampler,
    next: impl Fn(&mut Sampler) -> Batch,
    held_out: &Batch,
    trainer: &mut Trainer<Gpt, Batch>,
    saving: &Saving,
) -> Result<Steps> {
    let mut steps = Steps::default();
    let before = trainer.steps();
    let loss = trainer.evaluate(held_out.clone())?;
    steps.evaluations.push(Evaluation { step: before, loss });
    let count = u64::from(args.steps);
    let interrupt = Interrupt::listen()?;
    let mut progress = Progress::start(count, tokens as u64, &trainer.devices()).after(before);
    for step in before + 1..=count {
        let report = trainer.step(next(&mut sampler))?;
        progress.step(step, &report);
        if let Some(fault) = &report.skipped {
            progress.say(&format!("skipped: {fault}"));
        }
        steps.add(report);
        let due = args.evaluate_every.is_some_and(|every| step.is_multiple_of(every.into()));
        if due || step == count {
            let loss = trainer.evaluate(held_out.clone())?;
            steps.evaluations.push(Evaluation { step, loss });
        }
        if due {
            progress.evaluated(step, steps.evaluations[steps.evaluations.len() - 1].loss);
        }
        let interrupted = interrupt.asked() && step < count;
        steps.unsaved = saving.after_step(trainer, &sampler, interrupted || step == count)?;
        if interrupted {
            return Err(saving.interrupted(step, count));
        }
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

fn balance(arg: BalanceArg) -> Balance {
    match arg {
        BalanceArg::Flops => Balance::Flops,
        BalanceArg::Measured => Balance::Measured,
    }
}

fn on_nan(arg: OnNanArg) -> OnNan {
    match arg {
        OnNanArg::Stop => OnNan::Stop,
        OnNanArg::Skip => OnNan::Skip,
    }
}

/// What a search won.
pub fn compared(searched: &Searched) -> String {
    match (&searched.best_family, searched.gain) {
        (Some(family), Some(gain)) => {
            format!("; the best family, {}, would take {} longer", family.name, percent(gain))
        }
        _ => "; no family fits".to_owned(),
    }
}

fn model_line(args: &TrainArgs, parameters: u64) -> String {
    let TrainArgs { layers, width, heads, context, .. } = args;
    format!(
        "GPT of {parameters} parameters: {layers} layers, width {width}, {heads} heads, context \
         {context}"
    )
}

fn plan_line(args: &TrainArgs, trainer: &Trainer<Gpt, Batch>) -> String {
    let Plan { schedule, microbatches, .. } = trainer.plan().plan();
    format!(
        "{schedule} with {} of {}, {}{}",
        counted(*microbatches as usize, "microbatch"),
        args.microbatch_size,
        counted(args.steps as usize, "step"),
        trainer.searched().map(compared).unwrap_or_default()
    )
}

fn text_line(corpus: &Corpus) -> String {
    format!(
        "{}, {} characters, {} different ones",
        corpus.source.display(),
        corpus.characters(),
        corpus.vocabulary.size()
    )
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Trained(report) => report.fmt(f),
            Outcome::Done(done) => done.fmt(f),
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model     {}", self.model)?;
        writeln!(f, "text      {}", self.text)?;
        writeln!(f, "schedule  {}", self.plan)?;
        writeln!(f, "rate      {}", self.rates)?;
        writeln!(f, "devices   {}\n", self.devices.join(", "))?;
        writeln!(f, "{}\n", self.stages.trim_end())
    }
}
