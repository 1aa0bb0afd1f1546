//! `zerobubble compare`: a few steps of every schedule that fits, in turn, on the real devices.

mod command;

use std::fmt;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use serde::Serialize;
use zerobubble::error::{Error, ErrorKind, Result};
use zerobubble::gpt::Gpt;
use zerobubble::plan::DeviceMemory;
use zerobubble::trace::bubble;
use zerobubble::train::{AdamW, Comparison, Contender, Trainer, Turn};

use super::args::CompareArgs;
use super::drawing::{bytes, percent};
use super::evaluate::{self, Batch};
use super::flags::on_command_line;
use super::interrupt::Interrupt;
use super::progress::{Phase, phases, told};
use super::text::Corpus;
use super::train::{balance, check_batch, model, model_line};

/// What a comparison found.
#[derive(Serialize)]
pub struct Compared {
    devices: Vec<String>,
    /// One for each variant: the fastest first, those that did not run last.
    variants: Vec<Row>,
    /// The command that trains as the fastest did.
    command: Option<String>,
    /// Whether it was ended before all steps were taken.
    pub interrupted: bool,
    #[serde(skip)]
    model: String,
}

/// A variant and its figures. What is not known is none.
#[derive(Serialize)]
struct Row {
    schedule: String,
    chunks: Option<usize>,
    microbatches: Option<u32>,
    recompute: String,
    tokens_per_second: Option<f64>,
    step_seconds: Vec<f64>,
    bubble: Option<RowBubble>,
    peak_bytes: Option<RowPeak>,
    moved_bytes: Option<u64>,
    /// Why it was not measured.
    fault: Option<String>,
}

/// Idle fractions of the devices' time in a step.
#[derive(Serialize)]
struct RowBubble {
    predicted: f64,
    measured: Option<f64>,
}

/// The most that any device held.
#[derive(Serialize)]
struct RowPeak {
    predicted: u64,
    measured: Option<u64>,
}

/// Compares what `args` ask for, until Ctrl-C.
pub fn run(args: &CompareArgs) -> Result<Compared> {
    let common = &args.common;
    let corpus = match &common.text {
        Some(path) => Corpus::read(path, None)?,
        None => Corpus::own_sources()?,
    };
    let mut sampler = corpus.sampler(common.context, common.seed)?;
    let most = args.microbatches.iter().copied().max().unwrap_or(1);
    check_batch(common, most, common.microbatch_size)?;
    let device = Device::flex();
    let model = model(common, &corpus, &device)?;
    let model_line = model_line(common, model.num_params() as u64);
    let example = evaluate::batch(sampler.clone().next_batch(common.microbatch_size), &device);
    let loss = |model: &Gpt, (tokens, targets): Batch| model.loss(tokens, targets);
    let mut comparison = Trainer::of(model, loss)
        .devices(&common.devices)?
        .optimizer(AdamW::default())
        .clip_norm(common.clip_norm)
        .post_validation(common.post_validation)
        .learning_rate(common.learning_rate)
        .seed(common.seed)
        .memory_limit_per_device(common.memory_limit_per_device)
        .balance(common.balance.map(balance))
        .activations(common.activations)
        .on_phase(phases())
        .compare(&example, args.variants())?;
    if comparison.contenders().iter().all(|of| of.fault().is_some()) {
        return Err(nothing_fits(&comparison));
    }
    let interrupt = Interrupt::listen()?;
    let mut progress = Progress { started: Instant::now(), phase: None };
    let mut interrupted = false;
    let batch = |microbatches: u32| {
        let rows = common.microbatch_size * microbatches as usize;
        evaluate::batch(sampler.next_batch(rows), &device)
    };
    comparison.run(args.steps, batch, |turn| {
        progress.show(&turn);
        interrupted = interrupt.asked() && turn.done < turn.all;
        if interrupted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    drop(progress);
    if comparison.contenders().iter().all(|of| of.fault().is_some()) {
        return Err(nothing_fits(&comparison));
    }
    Ok(compared(args, &comparison, model_line, interrupted))
}

/// The first of all faults stands for them.
fn nothing_fits(comparison: &Comparison<Gpt, Batch>) -> Error {
    let contenders = comparison.contenders();
    let first = contenders.iter().find_map(|of| Some((of.variant(), of.fault()?)));
    let (variant, fault) = first.expect("there is a variant, and each has a fault");
    let fault = on_command_line(fault.clone());
    let count = contenders.len();
    let problem = format!("none of {count} variants can be trained; {variant}: {}", {
        Error { hint: String::new(), ..fault.clone() }
    });
    Error::plan(problem).hint(fault.hint)
}

fn compared(
    args: &CompareArgs,
    comparison: &Comparison<Gpt, Batch>,
    model: String,
    interrupted: bool,
) -> Compared {
    let tokens = args.common.microbatch_size * args.common.context;
    let mut variants: Vec<Row> =
        comparison.contenders().iter().map(|of| Row::of(of, tokens)).collect();
    let speed = |row: &Row| row.tokens_per_second.unwrap_or(0.0);
    variants.sort_by(|a, b| {
        let faults = a.fault.is_some().cmp(&b.fault.is_some());
        faults.then(speed(b).total_cmp(&speed(a)))
    });
    let fastest = comparison.fastest().map(|at| comparison.contenders()[at].variant());
    let command = fastest.map(|variant| command::train(&args.common, variant));
    Compared { devices: comparison.devices(), variants, command, interrupted, model }
}

impl Row {
    /// The figures of a contender, in microbatches of so many tokens.
    fn of(contender: &Contender, tokens: usize) -> Self {
        let (variant, measured) = (contender.variant(), contender.measured());
        let plan = contender.plan().map(|plan| plan.plan());
        let prediction = contender.prediction();
        Self {
            schedule: variant.schedule.to_string(),
            chunks: plan.map_or(variant.chunks.map(|chunks| chunks as usize), |plan| {
                Some(plan.placement.stages.len() / plan.lanes.len())
            }),
            microbatches: variant.microbatches,
            recompute: variant.recompute.to_string(),
            tokens_per_second: contender.examples_per_second(tokens),
            bubble: prediction.map(|of| RowBubble {
                predicted: of.bubble.step,
                measured: measured.as_ref().map(|of| bubble(&of.median.timeline).step),
            }),
            peak_bytes: prediction.map(|of| RowPeak {
                predicted: of.memory.iter().map(DeviceMemory::peak_bytes).max().unwrap_or(0),
                measured: measured.as_ref().and_then(|of| of.peak_bytes.iter().copied().max()),
            }),
            step_seconds: measured.map(|of| of.seconds).unwrap_or_default(),
            moved_bytes: contender.communication().map(|of| of.total_bytes),
            fault: contender.fault().map(|fault| on_command_line(fault.clone()).to_string()),
        }
    }

    fn cells(&self) -> [String; 10] {
        let number = |of: Option<String>| of.unwrap_or_default();
        let (bubble, peak) = (self.bubble.as_ref(), self.peak_bytes.as_ref());
        [
            self.schedule.clone(),
            number(self.microbatches.map(|count| count.to_string())),
            number(self.chunks.map(|count| count.to_string())),
            self.recompute.clone(),
            number(self.tokens_per_second.map(|speed| format!("{speed:.0}"))),
            number(bubble.map(|of| percent(of.predicted))),
            number(bubble.and_then(|of| of.measured).map(percent)),
            number(peak.map(|of| bytes(of.predicted))),
            number(peak.and_then(|of| of.measured).map(bytes)),
            number(self.moved_bytes.map(bytes)),
        ]
    }
}

/// What the columns hold. The bubble is that of the step, peaks are of the device with most.
const COLUMNS: [&str; 10] = [
    "schedule",
    "microbatches",
    "chunks",
    "recompute",
    "tokens/s",
    "bubble",
    "measured",
    "peak",
    "measured",
    "moved",
];

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model     {}", self.model)?;
        writeln!(f, "devices   {}\n", self.devices.join(", "))?;
        let ran = self.variants.iter().filter(|row| row.fault.is_none());
        let table: Vec<[String; 10]> =
            [COLUMNS.map(str::to_owned)].into_iter().chain(ran.map(Row::cells)).collect();
        for row in &table {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
                let text = [0, 3].contains(&column);
                line +=
                    &if text { format!("{cell:width$}  ") } else { format!("{cell:>width$}  ") };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        let refused = || self.variants.iter().filter(|row| row.fault.is_some());
        if refused().next().is_some() {
            writeln!(f, "\nnot compared")?;
        }
        for row in refused() {
            let [schedule, microbatches, chunks, recompute, ..] = row.cells();
            let chunks = if chunks.is_empty() { "own".to_owned() } else { chunks };
            let fault = row.fault.as_deref().unwrap_or_default();
            writeln!(
                f,
                "{schedule}, {microbatches} microbatches, {chunks} chunks, recompute {recompute}: \
                 {fault}"
            )?;
        }
        if let (Some(command), Some(first)) = (&self.command, self.variants.first()) {
            let [schedule, .., speed, _, _, _, _, _] = first.cells();
            writeln!(f, "\nfastest   {schedule}, {speed} tokens/s\n          {command}")?;
        }
        Ok(())
    }
}

/// The error that an interrupted comparison ends with, after its table.
pub fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, "interrupted: the table is of the steps before")
}

/// How far the comparison is, on stderr.
struct Progress {
    started: Instant,
    phase: Option<Phase>,
}

impl Progress {
    fn show(&mut self, turn: &Turn) {
        self.phase = None;
        let variant = turn.contender.variant();
        match turn.report {
            None => self.phase = Some(Phase::begin(format!("preparing {variant}"))),
            Some(report) => {
                let elapsed = self.started.elapsed();
                let figures = format!("{variant}  {:.3} s", report.seconds);
                told(turn.done, turn.all, &figures, elapsed, std::io::stderr().is_terminal());
            }
        }
    }
}
