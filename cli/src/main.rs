//! The command line: arguments in, text or one JSON object out.

mod args;
mod bench;
mod bench_gpu;
mod bench_plan;
mod checkpoint;
mod compare;
mod config;
mod devices;
mod drawing;
mod evaluate;
mod flags;
#[cfg(test)]
#[path = "../../fuzz/harness.rs"]
mod harness;
mod interrupt;
mod learning_rate;
mod plan;
mod printable;
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

use args::{Benched, Cli, Command, Format, TrainArgs, UsageError};
use train::Job;

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;
/// What a shell gives for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    // Mesa's layer that picks the desktop's GPU looks for a display, and complains on stderr where
    // there is none. SAFETY: there is only this thread yet.
    unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    give_memory_back();
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(UsageError::Asked(help)) => return exit(print(&help)),
        Err(UsageError::Wrong(problem)) => return fail(&problem, WRONG_USAGE),
        Err(UsageError::Unreadable(error)) => return exit(Err(error)),
    };
    exit(run(&cli).map_err(flags::on_command_line))
}

/// Lets large buffers go back to the system when they are freed. By default glibc keeps those of up
/// to 32 MiB, once it has seen one: what preparing a model takes would stay as if in use.
fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it sets a number of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
    }
}

fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Devices => show(&devices::run()?, cli.json),
        Command::Train(args) => train(args, cli.json),
        Command::Compare(args) => {
            let compared = compare::run(args)?;
            show(&compared, cli.json)?;
            if compared.interrupted { Err(compare::interrupted()) } else { Ok(()) }
        }
        Command::Plan(args) => {
            let format = args.format(cli.json)?;
            let timetable = plan::run(args)?;
            match format {
                Format::Json => show(&timetable, true),
                Format::Text => print(&printable::lines(&timetable.text(format))),
                Format::Plan | Format::Csv | Format::Svg => print(&timetable.text(format)),
            }
        }
        Command::Bench(args) => match (&args.what, &args.devices) {
            (Some(Benched::Plan), _) => show(&bench_plan::run()?, cli.json),
            (None, None) => show(&bench::run(args)?, cli.json),
            (None, Some(device)) => show(&bench_gpu::run(args, device)?, cli.json),
        },
    }
}

/// Trains, and gives out all that came of it that can be given out: the figures first, then the
/// files. Each of the rest is a line on stderr.
fn train(args: &TrainArgs, json: bool) -> Result<()> {
    // Training takes minutes: say beforehand what is trained.
    let start = |job: &Job| if json { Ok(()) } else { print(&printable::lines(&job.to_string())) };
    let mut trained = train::run(args, start)?;
    let mut faults: Vec<Error> = trained.unsaved().into_iter().collect();
    faults.extend(show(&trained.report, json).err());
    for written in trained.write_files() {
        let told = |line: String| print(&(printable::lines(&line) + "\n"));
        let told = written.and_then(|line| if json { Ok(()) } else { told(line) });
        faults.extend(told.err());
    }
    let last = faults.pop();
    for fault in faults {
        fail(&flags::on_command_line(fault).to_string(), FAILED);
    }
    last.map_or(Ok(()), Err)
}

/// Prints what a command found, for people or for scripts.
fn show(output: &(impl Display + Serialize), json: bool) -> Result<()> {
    if json {
        let object = serde_json::to_string(output)
            .map_err(|error| Error::run(format!("the output is not JSON: {error}")))?;
        print(&(object + "\n"))
    } else {
        print(&printable::lines(&output.to_string()))
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

fn end(reason: &str, code: u8) -> ExitCode {
    writeln!(io::stderr(), "{}", printable::line(reason)).ok();
    ExitCode::from(code)
}
