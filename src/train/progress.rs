//! How far a run is, on stderr: a bar on a terminal, a few plain lines anywhere else.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// About this many lines tell of a run where there is no terminal.
const LINES: u64 = 15;

/// Shows the steps of a run as they are done. Never writes to stdout.
#[derive(Debug)]
pub struct Progress {
    steps: u64,
    tokens_per_step: u64,
    /// Steps that were done before the clock started.
    before: u64,
    started: Instant,
    /// None where stderr is no terminal.
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts the clock of a run of `steps` steps.
    pub fn start(steps: u64, tokens_per_step: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = "{bar:30} step {pos}/{len}  {msg}  ETA {eta}";
            let style = ProgressStyle::with_template(style).expect("the template is constant");
            ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr())
                .with_style(style)
        });
        Self { steps, tokens_per_step, before: 0, started: Instant::now(), bar }
    }

    /// The first steps were done in an earlier run.
    pub fn after(mut self, steps: u64) -> Self {
        self.before = steps;
        if let Some(bar) = &self.bar {
            bar.set_position(steps);
            bar.reset_eta();
        }
        self
    }

    /// Step `step`, counted from 1, is done.
    pub fn step(&self, step: u64, loss: f64) {
        let elapsed = self.started.elapsed();
        let here = step - self.before;
        let speed = (here * self.tokens_per_step) as f64 / elapsed.as_secs_f64();
        let figures = format!("loss {loss:.4}  {speed:.0} tokens/s");
        if let Some(bar) = &self.bar {
            bar.set_position(step);
            bar.set_message(figures);
        } else if is_told(step, self.steps) {
            let left = clock(eta(elapsed, here, self.steps - self.before));
            // Progress is a courtesy: a closed stderr must not end the run.
            let line = format!("step {step}/{}  {figures}  ETA {left}", self.steps);
            writeln!(io::stderr(), "{line}").ok();
        }
    }
}

impl Drop for Progress {
    /// A failed run must not leave half a bar in front of its error.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Whether `step` gets a plain line: the first, the last, and evenly spaced ones between.
fn is_told(step: u64, steps: u64) -> bool {
    step == 1 || step == steps || step.is_multiple_of(steps.div_ceil(LINES).max(1))
}

/// The seconds that are left when the rest of the steps take as long as those done.
fn eta(elapsed: Duration, step: u64, steps: u64) -> f64 {
    elapsed.as_secs_f64() * steps.saturating_sub(step) as f64 / step.max(1) as f64
}

fn clock(seconds: f64) -> String {
    let seconds = seconds as u64;
    match seconds / 60 {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{:02}s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_in_a_few_lines() {
        let told = |steps| (1..=steps).filter(|step| is_told(*step, steps)).count();
        assert_eq!([1, 2, 15, 200].map(told), [1, 2, 15, 16]);
        assert!((10..=20).contains(&told(100_003)));
    }

    #[test]
    fn what_is_left_takes_as_long_per_step_as_what_is_done() {
        let left = |step| clock(eta(Duration::from_secs(30), step, 100));
        assert_eq!([1, 30, 50, 100].map(left), ["49m30s", "1m10s", "30s", "0s"]);
    }
}
