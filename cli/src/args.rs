//! What can be written after `zerobubble`, and what is assumed where nothing is.

mod common;
mod compare;
mod stash;
mod train;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use zerobubble::error::{Error, Result};
use zerobubble::plan::{Schedule, ZB_H1};

use super::config::with_file;
pub use common::{BalanceArg, CommonArgs};
pub use compare::CompareArgs;
pub use stash::Stash;
pub use train::{OnNanArg, RateSchedule, TrainArgs};
use values::{DeviceTimes, TransferTimes, all_schedules, count, stash_limit};

/// A parsed command line.
pub struct Cli {
    /// Print one JSON object on stdout and nothing else.
    pub json: bool,
    /// What to do.
    pub command: Command,
}

/// Why there is no [`Cli`].
pub enum UsageError {
    /// Help or the version was asked for: this is it.
    Asked(String),
    /// The arguments make no sense: this says why.
    Wrong(String),
    /// A file with arguments cannot be read.
    Unreadable(Error),
}

/// A portable pipeline-parallel trainer for Burn models.
///
/// Without a command it trains the example GPT, as `train` does without options.
#[derive(Parser)]
#[command(name = "zerobubble", version)]
pub(super) struct Arguments {
    /// Print one JSON object on stdout and nothing else there
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// List what can be trained on
    Devices,
    /// Train the example GPT through a pipeline
    Train(Box<TrainArgs>),
    /// Train a few steps by every schedule that fits, and say which is fastest
    Compare(Box<CompareArgs>),
    /// Draw a timetable without any model
    Plan(PlanArgs),
    /// Measure the figures of docs/benchmarks.md, side by side
    Bench(BenchArgs),
}

/// Options of `plan`.
#[derive(Args)]
pub struct PlanArgs {
    // The help is made of the names, so that a new schedule cannot be missing there.
    #[arg(
        long,
        value_name = "NAME",
        default_value_t = Schedule::from(&ZB_H1),
        help = schedule_help(all_schedules())
    )]
    pub schedule: Schedule,
    /// A file with a plan to judge, as --format plan or csv prints it, in place of a schedule
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["schedule", "stages", "chunks", "microbatches"]
    )]
    pub check: Option<PathBuf>,
    /// Devices
    #[arg(long, value_name = "P", default_value_t = 4, value_parser = count::<u32>(1024))]
    pub stages: u32,
    /// Stages of each device, with a schedule that leaves a choice
    #[arg(long, value_name = "V", value_parser = count::<u32>(64))]
    pub chunks: Option<u32>,
    /// Parts that a step's batch is cut into
    #[arg(long, value_name = "M", default_value_t = 8, value_parser = count::<u32>(65_536))]
    pub microbatches: u32,
    /// Time from device to device, like --cost: one, one per neighbouring pair, or a file of rows
    #[arg(long, value_name = "T", default_value = "0")]
    pub transfer: TransferTimes,
    /// What every device may stash: microbatches, or what else --stash counts
    #[arg(long, value_name = "L", value_parser = stash_limit)]
    pub memory_limit: Option<f64>,
    /// What a microbatch stashes after F, and what is left of it after B until W
    #[arg(long, value_name = "AFTER_F,AFTER_B", default_value = "1,1")]
    pub stash: Stash,
    /// Time of F, B and W per microbatch; or a triple per device with ';' between
    #[arg(long, value_name = "F,B,W", default_value = "1,1,1")]
    pub cost: DeviceTimes,
    /// Bytes of an activation, and of a gradient, between two stages: prints what a step moves
    #[arg(long, value_name = "BYTES")]
    pub activation_bytes: Option<u64>,
    /// Bytes of all parameters, to compare with an all-reduce of their gradients
    #[arg(long, value_name = "BYTES", requires = "activation_bytes")]
    pub parameter_bytes: Option<u64>,
    /// How to print the plan; --json is short for json
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
}

/// How a plan is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The timetable and its figures.
    Text,
    /// One object with the lanes and the figures.
    Json,
    /// The plan alone, as text that --check and train --plan read.
    Plan,
    /// The plan alone, in the compute-only form of PyTorch's pipelining.
    Csv,
    /// The timetable as a picture.
    Svg,
}

/// What `bench` measures in place of training.
#[derive(Clone, Copy, ValueEnum)]
pub enum Benched {
    /// Plans: auto on drawn cases, and schedules on devices that only wait.
    Plan,
}

/// Options of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// Measure plans, without any model, instead of training
    #[arg(value_enum, conflicts_with_all = ["steps", "devices"])]
    pub what: Option<Benched>,
    /// Rounds; in each of them every contender runs one step, in turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = count::<u32>(10_000))]
    pub steps: u32,
    /// A GPU, such as gpu:0, to measure instead of CPU devices
    #[arg(long, value_name = "SPEC")]
    pub devices: Option<String>,
}

impl Cli {
    /// Reads a command line, the program's name first.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> std::result::Result<Self, UsageError> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        if let Some(option) = without_command(&arguments) {
            let problem = format!("'{option}' without a command (try: train {option})");
            return Err(UsageError::Wrong(problem));
        }
        let arguments = with_file(&Arguments::command(), arguments)?;
        let parsed = Arguments::try_parse_from(arguments)?;
        let command = match parsed.command {
            Some(command) => command,
            None => Command::Train(Box::new(Defaults::try_parse_from(["zerobubble"])?.train)),
        };
        Ok(Self { json: parsed.json, command })
    }
}

/// An option of `train` that stands where a command should.
fn without_command(arguments: &[OsString]) -> Option<String> {
    let mut words = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    let first = words.find(|word| *word != "--json")?;
    let option = first.split('=').next()?;
    is_option_of_train(option.strip_prefix("--")?).then(|| option.to_owned())
}

/// Whether `train` has the option `--name`, besides those that every command has.
pub fn is_option_of_train(name: &str) -> bool {
    let definition = Arguments::command();
    let train = definition.find_subcommand("train").expect("there is one");
    train.get_arguments().any(|argument| argument.get_long() == Some(name))
}

/// Gives the options of `train` their defaults.
#[derive(Parser)]
struct Defaults {
    #[command(flatten)]
    train: TrainArgs,
}

impl From<clap::Error> for UsageError {
    fn from(error: clap::Error) -> Self {
        let text = error.render().to_string();
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            return Self::Asked(text);
        }
        // An error is one line here: what is wrong and the tip, without the usage that follows.
        let problem = text.split("\nUsage:").next().unwrap_or_default();
        let problem = problem.split("\nFor more information").next().unwrap_or_default();
        let problem = problem.trim().trim_start_matches("error: ").replace("\n\n  tip:", ";");
        let hint = if problem.contains("(try:") { "" } else { " (try: --help)" };
        Self::Wrong(problem + hint)
    }
}

impl PlanArgs {
    /// How the plan is wanted, given the flag that all commands have.
    pub fn format(&self, json: bool) -> Result<Format> {
        match self.format {
            Some(format) if json && format != Format::Json => {
                Err(Error::config("--json and another --format contradict each other")
                    .hint("one of them"))
            }
            None if json => Ok(Format::Json),
            format => Ok(format.unwrap_or(Format::Text)),
        }
    }
}

fn schedule_help(names: String) -> String {
    format!("Order of the work on the devices: {names}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learning_rate::Rates;

    fn read(line: &str) -> std::result::Result<Cli, UsageError> {
        Cli::read(line.split_whitespace().map(OsString::from))
    }

    /// Words are a command with values in their ranges, a text that was asked for, or an error.
    fn holds(input: &[u8]) {
        // No word is a path that leads out of here, where a file might have no end.
        let text = String::from_utf8_lossy(input).replace('/', "_");
        let words = std::iter::once("zerobubble").chain(text.split_ascii_whitespace());
        match Cli::read(words.map(OsString::from)) {
            Ok(Cli { command: Command::Train(args), .. }) => {
                let rate = args.common.learning_rate;
                assert!(rate >= 0.0 && rate.is_finite());
                assert!(args.steps > 0 && args.checkpoint_keep > 0);
                Rates::of(&args).map(|rates| rates.to_string()).ok();
            }
            Ok(Cli { command: Command::Plan(args), json }) => {
                args.format(json).ok();
                let times = args.cost.of(args.stages);
                assert!(
                    times.is_ok_and(|times| times.len() == args.stages as usize)
                        || text.contains("cost")
                );
            }
            Ok(_) => {}
            Err(UsageError::Asked(text)) => assert!(!text.is_empty()),
            Err(UsageError::Wrong(problem)) => assert!(problem.contains("(try: "), "{problem}"),
            Err(UsageError::Unreadable(error)) => assert!(error.site.file.is_some(), "{error}"),
        }
    }

    #[test]
    fn any_words_are_a_command_or_an_error_with_a_hint() {
        crate::harness::run("command_line", 2_000, holds);
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_command_is_train_with_its_defaults() {
        for line in ["zerobubble --json", "zerobubble train --json", "zerobubble --json train"] {
            let Ok(Cli { json: true, command: Command::Train(args) }) = read(line) else {
                panic!("'{line}' is not train")
            };
            assert_eq!(args.common.devices, "auto");
            assert_eq!(args.schedule, Schedule::from(&ZB_H1));
            let common = args.common;
            assert_eq!((common.text, common.memory_limit_per_device), (None, None));
        }
    }

    #[test]
    fn a_usage_error_is_its_first_paragraph() {
        let rows = [
            ("zerobubble fly", "unrecognized subcommand 'fly' (try: --help)"),
            ("zerobubble --json --steps=3", "'--steps' without a command (try: train --steps)"),
            (
                "zerobubble plan --stage 4",
                "unexpected argument '--stage' found; a similar argument exists: '--stages' \
                 (try: --help)",
            ),
        ];
        for (line, expected) in rows {
            let Err(UsageError::Wrong(problem)) = read(line) else { panic!("'{line}' is right") };
            assert_eq!(problem, expected);
        }
    }
}
