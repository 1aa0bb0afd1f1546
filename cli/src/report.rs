//! A finished run -> the files that were asked for: a page for people, a trace for Perfetto.

mod command;
mod data;
mod machine;
mod page;

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use zerobubble::error::{Error, ErrorKind, Result};
use zerobubble::gpt::Gpt;
use zerobubble::trace::{Recording, chrome};
use zerobubble::train::Trainer;

use page::page;

use super::args::TrainArgs;
use super::evaluate::Batch;
use super::train::Job;
use super::train_report::{Steps, TrainReport};

/// Steps in a trace, the last ones, beside the one that the figures are of. A trace of all would
/// grow with the run, and no viewer opens it.
const TRACED_STEPS: usize = 20;

/// A run that is done.
#[derive(Clone, Copy)]
pub struct Finished<'a> {
    pub args: &'a TrainArgs,
    pub job: &'a Job,
    pub trainer: &'a Trainer<Gpt, Batch>,
    pub steps: &'a Steps,
    pub report: &'a TrainReport,
}

/// Finds out before the first step whether the files that `args` name can be written, so that no
/// run is lost for a typing error.
pub fn check(args: &TrainArgs) -> Result<()> {
    if let (Some(report), Some(trace)) = (&args.report, &args.trace)
        && place(report) == place(trace)
    {
        return Err(Error::config("the file of both --report and --trace")
            .in_file(trace)
            .hint("another file for one of them"));
    }
    [&args.report, &args.trace].into_iter().flatten().try_for_each(|path| {
        let existed = path.exists();
        OpenOptions::new().create(true).append(true).open(path).map_err(unwritable(path))?;
        if existed { Ok(()) } else { fs::remove_file(path).map_err(unwritable(path)) }
    })
}

/// The same for all paths of a file in a folder that is there.
fn place(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = fs::canonicalize(folder.unwrap_or(Path::new(".")));
    let in_folder = || Some(folder.ok()?.join(path.file_name()?));
    fs::canonicalize(path).ok().or_else(in_folder).unwrap_or_else(|| path.to_owned())
}

/// Writes the files, and gives a line about each, or why it could not be written.
pub fn write(finished: &Finished) -> Vec<Result<String>> {
    let TrainArgs { report, trace, .. } = finished.args;
    let mut lines = Vec::new();
    if let Some(path) = report {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let page = page(finished, now.map_or(0, |time| time.as_secs()));
        let written = page.and_then(|page| fs::write(path, page).map_err(unwritable(path)));
        lines.push(written.map(|()| format!("report         {}", path.display())));
    }
    if let Some(path) = trace {
        let written = fs::write(path, recording(finished)).map_err(unwritable(path));
        lines.push(written.map(|()| format!("trace          {}", path.display())));
    }
    lines
}

fn recording(finished: &Finished) -> String {
    chrome(&Recording {
        plan: finished.trainer.plan(),
        costs: finished.trainer.costs(),
        devices: &finished.report.devices,
        steps: &finished.steps.recorded(TRACED_STEPS),
        figures_of: finished.steps.figures_of(),
    })
}

fn unwritable(path: &Path) -> impl Fn(io::Error) -> Error {
    move |error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                "a file in a folder that is there"
            }
            io::ErrorKind::IsADirectory => "a file, not a folder",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "a file on a disk with free space"
            }
            _ => "another file",
        };
        Error::new(ErrorKind::Io, format!("it cannot be written: {error}")).in_file(path).hint(hint)
    }
}
