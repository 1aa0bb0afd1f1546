//! How far a run is, on stderr: bars on a terminal, a few plain lines anywhere else.

mod line;
mod phase;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

pub use phase::{Phase, phases};

use line::{Shares, clock, device_line, eta, is_told, padded, step_line};
use zerobubble::StepReport;

use super::printable;

/// Shows the steps of a run as they are done. Never writes to stdout.
#[derive(Debug)]
pub struct Progress {
    steps: u64,
    tokens_per_step: u64,
    /// Steps that were done before the clock started.
    before: u64,
    started: Instant,
    /// None where stderr is no terminal.
    view: Option<View>,
}

/// The live view: a bar for the run, a line for each device.
#[derive(Debug)]
struct View {
    all: MultiProgress,
    run: ProgressBar,
    devices: Vec<DeviceView>,
}

#[derive(Debug)]
struct DeviceView {
    name: String,
    line: ProgressBar,
    shares: Option<Shares>,
}

impl Progress {
    /// Starts the clock of a run of `steps` steps on devices of these names.
    pub fn start(steps: u64, tokens_per_step: u64, devices: &[String]) -> Self {
        let view = io::stderr().is_terminal().then(|| View::new(steps, devices));
        Self { steps, tokens_per_step, before: 0, started: Instant::now(), view }
    }

    /// The first steps were done in an earlier run.
    pub fn after(mut self, steps: u64) -> Self {
        self.before = steps;
        if let Some(view) = &self.view {
            view.run.set_position(steps);
            view.run.reset_eta();
        }
        self
    }

    /// Step `step`, counted from 1, is done.
    pub fn step(&mut self, step: u64, report: &StepReport) {
        let elapsed = self.started.elapsed();
        let here = step - self.before;
        let speed = (here * self.tokens_per_step) as f64 / elapsed.as_secs_f64();
        let figures = step_line(report.loss, speed);
        if let Some(view) = &mut self.view {
            view.step(step, &figures, report);
        } else if is_told(step, self.steps) {
            let left = clock(eta(elapsed, here, self.steps - self.before));
            self.say(&format!("step {step}/{}  {figures}  ETA {left}", self.steps));
        }
    }

    /// The loss on held-out data after `step` steps.
    pub fn evaluated(&self, step: u64, loss: f64) {
        self.say(&format!("step {step}/{}  held-out loss {loss:.4}", self.steps));
    }

    /// Puts a line above the bars. Progress is a courtesy: a closed stderr must not end the run.
    pub fn say(&self, line: &str) {
        let line = printable::lines(line);
        let tell = || writeln!(io::stderr(), "{line}");
        match &self.view {
            Some(view) => view.all.suspend(tell).ok(),
            None => tell().ok(),
        };
    }
}

/// Tells of a step of several runs in turn, of which `done` of `all` steps are taken: on a terminal
/// each in the place of the last one, elsewhere some of them in lines of their own.
pub fn told(done: u64, all: u64, figures: &str, elapsed: Duration, in_place: bool) {
    let left = clock(eta(elapsed, done, all));
    let line = printable::line(&format!("step {done}/{all}  {figures}  ETA {left}"));
    let mut stderr = io::stderr();
    if in_place {
        let end = if done == all { "\n" } else { "\r" };
        write!(stderr, "\x1b[K{line}{end}").ok();
    } else if is_told(done, all) {
        writeln!(stderr, "{line}").ok();
    }
}

impl View {
    fn new(steps: u64, devices: &[String]) -> Self {
        let style =
            |template| ProgressStyle::with_template(template).expect("the templates are constant");
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let run = all.add(ProgressBar::new(steps));
        run.set_style(style("{bar:30} step {pos}/{len}  {msg}  ETA {eta}"));
        let device = |name| {
            let line = all.add(ProgressBar::new_spinner());
            line.set_style(style("{msg}"));
            DeviceView { name, line, shares: None }
        };
        let devices = padded(devices).into_iter().map(device).collect();
        Self { all, run, devices }
    }

    fn step(&mut self, step: u64, figures: &str, report: &StepReport) {
        self.run.set_position(step);
        self.run.set_message(figures.to_owned());
        for (device, lane) in self.devices.iter_mut().zip(&report.timeline.lanes) {
            let last = Shares::of(lane, report.seconds);
            let shares = device.shares.map_or(last, |before| before.mixed(last));
            device.shares = Some(shares);
            device.line.set_message(device_line(&device.name, &shares));
        }
    }
}

impl Drop for Progress {
    /// A failed run must not leave half a bar in front of its error.
    fn drop(&mut self) {
        if let Some(view) = &self.view {
            view.devices.iter().for_each(|device| device.line.finish_and_clear());
            view.run.finish_and_clear();
        }
    }
}
