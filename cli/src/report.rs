//! A run -> the files that were asked for: a page for people, a trace for Perfetto.

mod command;
mod data;
mod machine;
mod page;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use zerobubble::error::{Error, ErrorKind, Result};
use zerobubble::gpt::Gpt;
use zerobubble::trace::{Recording, chrome};
use zerobubble::train::Trainer;

pub use command::quoted;
use page::page;

use super::args::TrainArgs;
use super::evaluate::Batch;
use super::text::is_text;
use super::train::Job;
use super::train_report::{Steps, TrainReport};

/// Steps in a trace, the last ones, beside the one that the figures are of. A trace of all would
/// grow with the run, and no viewer opens it.
const TRACED_STEPS: usize = 20;

/// The files are written no more often than this while the run goes on, and so many times what
/// writing them took lies between.
const LEAST_PAUSE: Duration = Duration::from_secs(10);
const PAUSE: u32 = 20;

/// A run as far as it is.
#[derive(Clone, Copy)]
pub struct Finished<'a> {
    pub args: &'a TrainArgs,
    pub job: &'a Job,
    pub trainer: &'a Trainer<Gpt, Batch>,
    pub steps: &'a Steps,
    pub report: &'a TrainReport,
}

/// Finds out before the first step whether the files that `args` name can be written, so that no
/// run is lost for a typing error, and that they are none of those that the run reads or saves.
pub fn check(args: &TrainArgs) -> Result<()> {
    if let (Some(report), Some(trace)) = (&args.report, &args.trace)
        && place(report) == place(trace)
    {
        return Err(Error::config("the file of both --report and --trace")
            .in_file(trace)
            .hint("another file for one of them"));
    }
    for (option, path) in [("--report", &args.report), ("--trace", &args.trace)] {
        let Some(path) = path else { continue };
        if let Some(input) = taken(args, path) {
            let problem = format!("the file of {option} is {input}");
            return Err(Error::config(problem).in_file(path).hint("another file"));
        }
        let existed = path.exists();
        OpenOptions::new().create(true).append(true).open(path).map_err(unwritable(path))?;
        if !existed {
            fs::remove_file(path).map_err(unwritable(path))?;
        }
    }
    Ok(())
}

/// What else of the run the file of this path is, if it is anything.
fn taken(args: &TrainArgs, path: &Path) -> Option<String> {
    let own = place(path);
    let inputs =
        [("--text", &args.common.text), ("--config", &args.config), ("--plan", &args.plan)];
    let same = inputs.into_iter().find(|(_, of)| of.as_ref().is_some_and(|of| place(of) == own));
    if let Some((option, _)) = same {
        return Some(format!("that of {option}"));
    }
    if args.common.text.as_ref().is_some_and(|text| own.starts_with(place(text))) && is_text(&own) {
        return Some("part of the text that --text names".to_owned());
    }
    let saved = args.checkpoint.as_ref().is_some_and(|folder| {
        let inside = own.strip_prefix(place(folder)).ok();
        inside.is_some_and(|inside| inside.components().count() > 1)
    });
    saved.then(|| "inside a checkpoint".to_owned())
}

/// The same for all paths of a file in a folder that is there.
fn place(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = fs::canonicalize(folder.unwrap_or(Path::new(".")));
    let in_folder = || Some(folder.ok()?.join(path.file_name()?));
    fs::canonicalize(path).ok().or_else(in_folder).unwrap_or_else(|| path.to_owned())
}

/// The files about a run: written at its end, and now and then before, so that there is one also
/// where the run is ended from outside.
#[derive(Debug)]
pub struct Files {
    report: Option<PathBuf>,
    trace: Option<PathBuf>,
    /// When they were written last, and how long that took.
    last: Instant,
    took: Duration,
}

impl Files {
    /// Those that `args` name.
    pub fn of(args: &TrainArgs) -> Self {
        let (report, trace) = (args.report.clone(), args.trace.clone());
        Self { report, trace, last: Instant::now(), took: Duration::ZERO }
    }

    /// Whether it is time to write them again: that takes at most a twentieth of the run.
    pub fn are_due(&self) -> bool {
        let any = self.report.is_some() || self.trace.is_some();
        any && self.last.elapsed() > LEAST_PAUSE.max(PAUSE * self.took)
    }

    /// Writes them while the run goes on, unless one is no file that can be replaced. What cannot
    /// be written now is tried again.
    pub fn write_so_far(&mut self, of: &Finished) {
        let start = Instant::now();
        for (path, kind) in self.all() {
            if !path.exists() || path.is_file() {
                replace(&path, kind, of).ok();
            }
        }
        (self.last, self.took) = (Instant::now(), start.elapsed());
    }

    /// Writes the files, and gives a line about each, or why it could not be written.
    pub fn write(&self, of: &Finished) -> Vec<Result<String>> {
        let write = |(path, kind): (PathBuf, Kind)| {
            if path.is_file() || !path.exists() {
                replace(&path, kind, of)?;
            } else {
                // A pipe, say.
                let file = File::create(&path).map_err(unwritable(&path))?;
                put(&file, kind, of).map_err(unwritable(&path))?;
            }
            Ok(format!("{:14} {}", kind.name(), path.display()))
        };
        self.all().map(write).collect()
    }

    fn all(&self) -> impl Iterator<Item = (PathBuf, Kind)> + use<> {
        let report = self.report.clone().map(|path| (path, Kind::Report));
        report.into_iter().chain(self.trace.clone().map(|path| (path, Kind::Trace)))
    }
}

/// What a file shows of a run.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Report,
    Trace,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Report => "report",
            Kind::Trace => "trace",
        }
    }
}

/// Writes a file beside `path` and puts it in its place: there is always a whole one.
fn replace(path: &Path, kind: Kind, of: &Finished) -> Result<()> {
    // Where the path is a link, what it leads to is replaced.
    let target = place(path);
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = target.with_file_name(name);
    let written = File::create(&partial).and_then(|file| {
        put(&file, kind, of)?;
        if let Ok(before) = fs::metadata(&target) {
            file.set_permissions(before.permissions())?;
        }
        drop(file);
        fs::rename(&partial, &target)
    });
    written.map_err(|error| {
        fs::remove_file(&partial).ok();
        unwritable(path)(error)
    })
}

fn put(file: &File, kind: Kind, of: &Finished) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    match kind {
        Kind::Report => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            out.write_all(page(of, now.map_or(0, |time| time.as_secs()))?.as_bytes())?;
        }
        Kind::Trace => chrome(
            &Recording {
                plan: of.trainer.plan(),
                costs: of.trainer.costs(),
                devices: &of.report.devices,
                steps: &of.steps.recorded(TRACED_STEPS),
                figures_of: of.steps.figures_of(),
            },
            &mut out,
        )?,
    }
    out.flush()
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
