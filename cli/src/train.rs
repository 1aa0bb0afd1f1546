//! `zerobubble train`: the main job, training the example GPT on a text.

use std::fmt;

use burn::tensor::Device;
use zerobubble::error::{Error, Result};
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::plan::Plan;
use zerobubble::train::{AdamW, Balance, OnNan, Searched, Trainer};

use super::args::{BalanceArg, CommonArgs, OnNanArg, TrainArgs};
use super::checkpoint::Saving;
use super::devices::memory;
use super::drawing::{bytes, counted, percent};
use super::evaluate::{self, Batch};
use super::interrupt::Interrupt;
use super::learning_rate::Rates;
use super::plan::read;
use super::progress::{Phase, Progress, phases};
use super::report::{self, Files, Finished};
use super::text::{Corpus, Sampler};
use super::train_report::{Ended, Evaluation, Steps, TrainReport, WeightHash};

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

/// A run that is done, with the files that are still to be written about it.
pub struct Trained<'a> {
    /// What it found.
    pub report: TrainReport,
    args: &'a TrainArgs,
    job: Job,
    trainer: Trainer<Gpt, Batch>,
    steps: Steps,
    files: Files,
}

/// Trains as `args` say, and calls `start` when everything is ready for the first step.
pub fn run(args: &TrainArgs, start: impl FnOnce(&Job) -> Result<()>) -> Result<Trained<'_>> {
    report::check(args)?;
    let rates = Rates::of(args)?;
    let corpus = match &args.common.text {
        Some(path) => Corpus::read(path, args.checkpoint.as_deref())?,
        None => Corpus::own_sources()?,
    };
    let mut sampler = corpus.sampler(args.common.context, args.common.seed)?;
    let windows = HELD_OUT_WINDOWS.next_multiple_of(args.common.microbatch_size);
    check_batch(&args.common, args.microbatches.unwrap_or(1), windows)?;
    let device = Device::flex();
    let held_out = evaluate::batch(corpus.held_out_windows(args.common.context, windows)?, &device);
    let model = model(&args.common, &corpus, &device)?;
    let mut saving = Saving::open(args, &corpus)?;
    let example = evaluate::batch(sampler.clone().next_batch(args.common.microbatch_size), &device);
    let mut trainer = trainer(args, model, &example, &rates)?;
    saving.resume(&mut trainer, &mut sampler)?;

    let job = job(args, &corpus, &trainer, &rates);
    start(&job)?;
    let steps = Steps::after(trainer.steps());
    let mut run = Run { args, job, trainer, steps, files: Files::of(args) };
    run.take_steps(sampler, &held_out, &saving, &device)?;

    let sampling = Phase::begin("writing a sample of the model's text");
    let sample = run.trainer.with_model(|model| {
        evaluate::sample(model, &corpus.vocabulary, args.common.context, args.common.seed, &device)
    })??;
    drop(sampling);
    let weights_hash = run.trainer.weights_hash()?;
    let hashes = run.trainer.weight_hashes()?.into_iter();
    let weight_hashes = hashes.map(|(path, hash)| WeightHash { path, hash }).collect();
    let report = run.report(Some(Ended { sample, weights_hash, weight_hashes }));
    let Run { args, job, trainer, steps, files } = run;
    Ok(Trained { report, args, job, trainer, steps, files })
}

impl Trained<'_> {
    /// Why the last step is in no checkpoint, where it should be.
    pub fn unsaved(&mut self) -> Option<Error> {
        self.steps.unsaved.take()
    }

    /// Writes the files that were asked for, all that can be written, and gives a line about each.
    pub fn write_files(&mut self) -> Vec<Result<String>> {
        let Self { report, args, job, trainer, steps, files } = self;
        files.write(&Finished { args, job, trainer, steps, report })
    }
}

fn job(args: &TrainArgs, corpus: &Corpus, trainer: &Trainer<Gpt, Batch>, rates: &Rates) -> Job {
    Job {
        model: model_line(&args.common, trainer.parameters()),
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
    if args.max_skips.is_some() && args.on_nan == OnNanArg::Stop {
        return Err(Error::config("--max-skips, but no step is skipped").hint("--on-nan skip"));
    }
    let schedule = match &args.plan {
        Some(path) => read(path)?.plan().clone().into(),
        None => args.schedule.clone(),
    };
    let builder = Trainer::of(model, loss);
    let builder = match args.max_skips {
        Some(steps) => builder.max_skips(steps),
        None => builder,
    };
    builder
        .devices(&args.common.devices)?
        .schedule(schedule)
        .chunks_per_device(args.chunks)
        .microbatches(args.microbatches)
        .optimizer(AdamW::default())
        .clip_norm(args.common.clip_norm)
        .post_validation(args.common.post_validation)
        .learning_rate(rates.scheduler()?)
        .on_nan(on_nan(args.on_nan))
        .seed(args.common.seed)
        .memory_limit_per_device(args.common.memory_limit_per_device)
        .balance(args.common.balance.map(balance))
        .activations(args.common.activations)
        .recompute(args.recompute)
        .on_phase(phases())
        .shadow(args.shadow)
        .build(example)
}

/// A run that goes on.
struct Run<'a> {
    args: &'a TrainArgs,
    job: Job,
    trainer: Trainer<Gpt, Batch>,
    steps: Steps,
    files: Files,
}

impl Run<'_> {
    /// Trains, and evaluates before, after, and as often as was asked for in between. Where that
    /// fails, the files tell of the steps before.
    fn take_steps(
        &mut self,
        sampler: Sampler,
        held_out: &Batch,
        saving: &Saving,
        device: &Device,
    ) -> Result<()> {
        let taken = self.try_steps(sampler, held_out, saving, device);
        if taken.is_err() && self.steps.any() {
            self.write_so_far();
        }
        taken
    }

    fn try_steps(
        &mut self,
        mut sampler: Sampler,
        held_out: &Batch,
        saving: &Saving,
        device: &Device,
    ) -> Result<()> {
        let (before, count) = (self.trainer.steps(), u64::from(self.args.steps));
        self.evaluate(before, held_out)?;
        let rows =
            self.args.common.microbatch_size * self.trainer.plan().plan().microbatches as usize;
        let tokens = (rows * self.args.common.context) as u64;
        let interrupt = Interrupt::listen()?;
        let mut progress =
            Progress::start(count, tokens, &self.trainer.devices()).after(before.min(count));
        for step in before + 1..=count {
            let batch = evaluate::batch(sampler.next_batch(rows), device);
            let report = self.trainer.step(batch)?;
            progress.step(step, &report);
            if let Some(fault) = &report.skipped {
                progress.say(&format!("skipped: {fault}"));
            }
            self.steps.add(report);
            let due = self.args.evaluate_every.is_some_and(|of| step.is_multiple_of(of.into()));
            if due || step == count {
                let loss = self.evaluate(step, held_out)?;
                if due {
                    progress.evaluated(step, loss);
                }
            }
            let interrupted = interrupt.asked() && step < count;
            let ends = interrupted || step == count;
            self.steps.unsaved = saving.after_step(&mut self.trainer, &sampler, ends)?;
            if interrupted {
                return Err(saving.interrupted(step, count));
            }
            if !ends && self.files.are_due() {
                self.write_so_far();
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, step: u64, held_out: &Batch) -> Result<f64> {
        let _phase = Phase::begin("computing the loss on held-out text");
        let loss = self.trainer.evaluate(held_out.clone())?;
        self.steps.evaluations.push(Evaluation { step, loss });
        Ok(loss)
    }

    /// Writes the files as far as the run is. One that cannot be written is told at the end.
    fn write_so_far(&mut self) {
        let report = self.report(None);
        let Self { args, job, trainer, steps, files } = self;
        files.write_so_far(&Finished { args, job, trainer, steps, report: &report });
    }

    fn report(&self, ended: Option<Ended>) -> TrainReport {
        TrainReport::of(&self.trainer, &self.steps, self.tokens(), ended)
    }

    /// Tokens in a step.
    fn tokens(&self) -> usize {
        let microbatches = self.trainer.plan().plan().microbatches as usize;
        self.args.common.microbatch_size * microbatches * self.args.common.context
    }
}

/// Refuses batches that the machine cannot hold, before any is drawn.
pub fn check_batch(args: &CommonArgs, microbatches: u32, held_out: usize) -> Result<()> {
    // Two tokens of eight bytes, as they are drawn and as tensors.
    const CELL: u128 = 32;
    let rows = (args.microbatch_size as u128 * u128::from(microbatches)).max(held_out as u128);
    let needed = u64::try_from(rows * args.context as u128 * CELL).unwrap_or(u64::MAX);
    let there = memory().unwrap_or(u64::MAX);
    // Another limit than the machine's may hold for the process: the memory is asked for once.
    let room = usize::try_from(needed).map(|needed| Vec::<u8>::new().try_reserve_exact(needed));
    if needed <= there && matches!(room, Ok(Ok(()))) {
        return Ok(());
    }
    let needed = bytes(needed);
    let problem = match there {
        u64::MAX => format!("the tokens of a step take {needed}, more than there is"),
        _ => format!("the tokens of a step take {needed}, and this machine has {}", bytes(there)),
    };
    Err(Error::data(problem).hint("a smaller --microbatch-size, --microbatches or --context"))
}

pub fn model(args: &CommonArgs, corpus: &Corpus, device: &Device) -> Result<Gpt> {
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

pub fn balance(arg: BalanceArg) -> Balance {
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
    let family = match (&searched.best_family, searched.gain) {
        (Some(family), Some(gain)) => {
            format!("; the best family, {}, would take {} longer", family.name, percent(gain))
        }
        _ => "; no family fits".to_owned(),
    };
    let cut_short = if searched.cut_short { "; the search was cut short" } else { "" };
    format!("{family}{cut_short}")
}

pub fn model_line(args: &CommonArgs, parameters: u64) -> String {
    let CommonArgs { layers, width, heads, context, .. } = args;
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
        args.common.microbatch_size,
        counted(args.steps as usize, "step"),
        trainer.searched().map(compared).unwrap_or_default()
    )
}

fn text_line(corpus: &Corpus) -> String {
    let (characters, replaced) = (corpus.characters(), corpus.replaced());
    let different = corpus.vocabulary.size();
    let line =
        format!("{}, {characters} characters, {different} different ones", corpus.source.display());
    match replaced {
        0 => line,
        _ => {
            let share = percent(replaced as f64 / characters as f64);
            format!("{line}; {replaced} rare ones, {share} of the text, are read as one")
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
