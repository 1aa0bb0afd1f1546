//! The command line: arguments in, text or one JSON object out.

mod args;
mod bench;
mod bench_gpu;
mod bench_plan;
mod checkpoint;
mod config;
mod devices;
mod drawing;
mod evaluate;
mod flags;
mod interrupt;
mod learning_rate;
mod plan;
mod progress;
mod report;
mod text;
mod train;
mod train_report;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;
use zerobubble::error::{Error, ErrorKind, Result};

use args::{Benched, Cli, Command, Format, UsageError};
use train::Job;

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;
/// What a shell gives for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    // Mesa's layer that picks the desktop's GPU looks for a display, and complains on stderr where
    // there is none. SAFETY: there is only this thread yet.
    unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(UsageError::Asked(help)) => return exit(print(&help)),
        Err(UsageError::Wrong(problem)) => return fail(&problem, WRONG_USAGE),
        Err(UsageError::Unreadable(error)) => return exit(Err(error)),
    };
    exit(run(&cli).map_err(flags::on_command_line))
}

fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Devices => show(&devices::run()?, cli.json),
        Command::Train(args) => {
            // Training takes minutes: say beforehand what is trained.
            let start = |job: &Job| if cli.json { Ok(()) } else { print(&job.to_string()) };
            let outcome = train::run(args, start)?;
            show(&outcome, cli.json)?;
            outcome.unwritten().map_or(Ok(()), Err)
        }
        Command::Plan(args) => {
            let format = args.format(cli.json)?;
            let timetable = plan::run(args)?;
            if format == Format::Json {
                show(&timetable, true)
            } else {
                print(&timetable.text(format))
            }
        }
        Command::Bench(args) => match (&args.what, &args.devices) {
            (Some(Benched::Plan), _) => show(&bench_plan::run()?, cli.json),
            (None, None) => show(&bench::run(args)?, cli.json),
            (None, Some(device)) => show(&bench_gpu::run(args, device)?, cli.json),
        },
    }
}

/// Prints what a command found, for people or for scripts.
fn show(output: &(impl Display + Serialize), json: bool) -> Result<()> {
    if json {
        let object = serde_json::to_string(output)
            .map_err(|error| Error::run(format!("the output is not JSON: {error}")))?;
        print(&(object + "\n"))
    } else {
        print(&output.to_string())
    }
}

fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever reads, as `head` does, has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Error::new(ErrorKind::Io, format!("stdout: {error}"))),
        Ok(()) => Ok(()),
    }
}

fn exit(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Settings that cannot be used together are wrong usage just as unknown ones are.
        Err(error) if error.kind == ErrorKind::Config => fail(&error.to_string(), WRONG_USAGE),
        Err(error) if error.kind == ErrorKind::Interrupted => end(&error.to_string(), INTERRUPTED),
        Err(error) => fail(&error.to_string(), FAILED),
    }
}

fn fail(problem: &str, code: u8) -> ExitCode {
    end(&format!("error: {problem}"), code)
}

/// One line on stderr, whatever a path or a message contains.
fn end(reason: &str, code: u8) -> ExitCode {
    let line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    writeln!(io::stderr(), "{line}").ok();
    ExitCode::from(code)
}
