//! Options of `train`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use zerobubble::plan::{Schedule, ZB_H1};
use zerobubble::train::Recompute;

use super::common::CommonArgs;
use super::schedule_help;
use super::values::{count, learning_rate, training_schedule, training_schedules};

/// Options of `train`.
#[derive(Args)]
pub struct TrainArgs {
    /// Those that `compare` has too.
    #[command(flatten)]
    pub common: CommonArgs,
    // The help is made of the names, so that a new schedule cannot be missing there.
    #[arg(
        long,
        value_name = "NAME",
        default_value_t = Schedule::from(&ZB_H1),
        value_parser = training_schedule,
        help = schedule_help(training_schedules())
    )]
    pub schedule: Schedule,
    /// A file with the plan to follow, as plan --format plan or csv prints it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["schedule", "chunks"])]
    pub plan: Option<PathBuf>,
    /// Stages of each device, with a schedule that leaves a choice
    #[arg(long, value_name = "V", value_parser = count::<u32>(64))]
    pub chunks: Option<u32>,
    /// Parts that a step's batch is cut into [default: 8, or those of --plan]
    #[arg(long, value_name = "M", value_parser = count::<u32>(65_536))]
    pub microbatches: Option<u32>,
    /// Optimizer steps
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = count::<u32>(u32::MAX))]
    pub steps: u32,
    /// How the learning rate goes on after the warm-up: as it is, or down along half a cosine
    #[arg(
        long,
        value_enum,
        value_name = "constant|cosine",
        hide_possible_values = true,
        default_value = "constant"
    )]
    pub learning_rate_schedule: RateSchedule,
    // Not a doc comment: rustdoc would take the brackets for a link.
    #[arg(
        long,
        value_name = "R",
        value_parser = learning_rate,
        help = "Where the cosine ends [default: a tenth of --learning-rate]"
    )]
    pub min_learning_rate: Option<f64>,
    /// Steps in which the learning rate rises to its full value
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub warmup: u32,
    // Not a doc comment: rustdoc would take the brackets for a link.
    #[arg(
        long,
        value_name = "N",
        value_parser = count::<u32>(u32::MAX),
        help = "Steps from one loss on held-out text to the next [default: before and after all]"
    )]
    pub evaluate_every: Option<u32>,
    /// What becomes of a step whose loss is not finite: it ends the run, or nothing is updated
    #[arg(
        long,
        value_enum,
        value_name = "stop|skip",
        hide_possible_values = true,
        default_value = "stop"
    )]
    pub on_nan: OnNanArg,
    // Not a doc comment: rustdoc would take the brackets for a link.
    #[arg(
        long,
        value_name = "N",
        value_parser = count::<u32>(u32::MAX),
        help = "With --on-nan skip, the run ends when so many steps in a row were skipped \
                [default: 10]"
    )]
    pub max_skips: Option<u32>,
    /// A TOML file with these options by name; those on the command line come first
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder to save checkpoints in. Ctrl-C ends a run after its step, with one more checkpoint
    /// and exit code 130; a second Ctrl-C ends it at once
    #[arg(long, value_name = "DIR")]
    pub checkpoint: Option<PathBuf>,
    /// Steps from one checkpoint to the next; the last step has one in any case
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        requires = "checkpoint",
        value_parser = count::<u64>(u32::MAX)
    )]
    pub checkpoint_every: u64,
    /// How many checkpoints are kept, the last ones
    #[arg(
        long,
        value_name = "K",
        default_value_t = 3,
        requires = "checkpoint",
        value_parser = count::<usize>(65_536)
    )]
    pub checkpoint_keep: usize,
    /// Continue from the newest checkpoint that is whole and finite; where there is none, start
    /// from the beginning. The model, the text, --seed, --microbatches, --microbatch-size and
    /// --clip-norm have to be as they were. --devices, --schedule and --steps may be others, and so
    /// may learning rates, --activations and --on-nan, which is told
    #[arg(long, requires = "checkpoint")]
    pub resume: bool,
    /// What computes F again before B instead of keeping its values: no stage, every stage, or
    /// those whose device would be above --memory-limit-per-device
    #[arg(long, value_name = "none|stage|auto", default_value_t = Recompute::None)]
    pub recompute: Recompute,
    /// Compute everything again on the CPU and compare: the first value that is wrong ends the run
    /// with its stage, action, module and op. Steps take ten times as long and more
    #[arg(long)]
    pub shadow: bool,
    /// Write a page about the run, which any browser opens: curves, timetables, memory
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Write the last 20 steps as a trace for ui.perfetto.dev or chrome://tracing
    #[arg(long, value_name = "FILE.json")]
    pub trace: Option<PathBuf>,
}

/// How the learning rate goes on after the warm-up.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RateSchedule {
    /// As it is.
    Constant,
    /// Down along half a cosine, to the smallest rate at the last step.
    Cosine,
}

/// What becomes of a step whose loss is not finite.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnNanArg {
    /// The run ends with an error.
    Stop,
    /// Nothing is updated, and the run goes on.
    Skip,
}
