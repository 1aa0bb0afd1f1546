//! What is shown of a run, as text.

use std::time::Duration;

use zerobubble::plan::PerWork;
use zerobubble::trace::{Label, Span};

/// About this many lines tell of a run where there is no terminal.
const LINES: u64 = 15;

/// Characters of a bar.
const BAR: usize = 20;

/// How much the last step counts for what is shown of a device: the eye follows no single steps.
const NEWEST: f64 = 0.2;

/// What shares of its time a device spent on F, B, W, and the optimizer's update. The rest it was
/// idle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shares {
    works: PerWork<f64>,
    update: f64,
}

impl Shares {
    /// Those of a step that took `seconds`. A fused backward is half B, half W.
    pub(super) fn of(lane: &[Span], seconds: f64) -> Self {
        let (mut works, mut update) = (PerWork::default(), 0.0);
        for span in lane {
            let share = (span.end - span.start) / seconds;
            match span.label {
                Label::Action(action) => {
                    let parts = action.works();
                    parts.iter().for_each(|work| works[*work] += share / parts.len() as f64);
                }
                Label::Update => update += share,
                Label::Transfer | Label::Parcel { .. } => {}
            }
        }
        Self { works, update }
    }

    /// These and those of the step after.
    pub(super) fn mixed(self, newer: Self) -> Self {
        let mix = |old: f64, new: f64| (1.0 - NEWEST) * old + NEWEST * new;
        Self {
            works: PerWork::from_fn(|work| mix(self.works[work], newer.works[work])),
            update: mix(self.update, newer.update),
        }
    }
}

/// A device's line: how busy it is, and with what.
pub(super) fn device_line(name: &str, shares: &Shares) -> String {
    let busy = (shares.works.total() + shares.update).clamp(0.0, 1.0);
    let full = (busy * BAR as f64).round() as usize;
    let bar = "=".repeat(full) + &".".repeat(BAR - full);
    let mut line = format!("{name}  |{bar}| {:>3.0}% busy", 100.0 * busy);
    for (work, share) in shares.works.iter() {
        line += &format!("  {work} {:>2.0}%", 100.0 * share);
    }
    line + &format!("  update {:>2.0}%", 100.0 * shares.update)
}

/// Names of one length.
pub(super) fn padded(names: &[String]) -> Vec<String> {
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    names.iter().map(|name| format!("{name:width$}")).collect()
}

/// The figures of a step.
pub(super) fn step_line(loss: f64, tokens_per_second: f64) -> String {
    format!("loss {loss:.4}  {tokens_per_second:.0} tokens/s")
}

/// Whether `step` gets a plain line: the first, the last, and evenly spaced ones between.
pub(super) fn is_told(step: u64, steps: u64) -> bool {
    step == 1 || step == steps || step.is_multiple_of(steps.div_ceil(LINES).max(1))
}

/// The seconds that are left when the rest of the steps take as long as those done.
pub(super) fn eta(elapsed: Duration, step: u64, steps: u64) -> f64 {
    elapsed.as_secs_f64() * steps.saturating_sub(step) as f64 / step.max(1) as f64
}

pub(super) fn clock(seconds: f64) -> String {
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

    #[test]
    fn a_device_is_as_busy_as_its_spans_are_long() {
        let span = |action: &str, start, end| {
            let label = Label::Action(action.parse().unwrap());
            Span { label, start, end }
        };
        let update = Span { label: Label::Update, start: 3.0, end: 3.2 };
        let lane = [span("0F0", 0.0, 1.0), span("0BW0", 2.0, 3.0), update];
        let shares = Shares::of(&lane, 4.0);
        assert_eq!(
            device_line("gpu:0.1", &shares),
            "gpu:0.1  |===========.........|  55% busy  F 25%  B 12%  W 12%  update  5%"
        );
        let idle = Shares::of(&[], 4.0);
        assert_eq!(
            device_line("cpu:0", &shares.mixed(idle)),
            "cpu:0  |=========...........|  44% busy  F 20%  B 10%  W 10%  update  4%"
        );
    }

    #[test]
    fn names_are_of_one_length() {
        let names = ["cpu:0", "gpu:0.1"].map(str::to_owned);
        assert_eq!(padded(&names), ["cpu:0  ", "gpu:0.1"]);
    }
}
