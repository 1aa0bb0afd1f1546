//! What a training run found, for people and for scripts.

use std::collections::VecDeque;
use std::fmt;

use serde::Serialize;
use zerobubble::error::{Error, Result};
use zerobubble::plan::{DeviceId, Simulation};
use zerobubble::trace::{RecordedStep, Span, bubble, draw};
use zerobubble::train::StepReport;

use super::drawing::{bytes, line_width, percent};
use super::plan::Moves;

/// The median of this many steps, the last ones, stands for all of them.
const RECENT_STEPS: usize = 101;

/// The results of a run.
#[derive(Serialize)]
pub struct TrainReport {
    /// Ids of the devices, in the order of their stages.
    pub devices: Vec<String>,
    /// The schedule's name.
    pub schedule: String,
    /// One line for each stage.
    pub stages: Vec<String>,
    /// The stages whose B computes F again.
    pub recomputed: Vec<u32>,
    /// How many numbers were trained.
    pub parameters: u64,
    /// Steps that were done before this run, in the one that it continues.
    pub steps_before: u64,
    /// One for each step; null where a step was skipped, as its loss is not finite.
    pub losses: Vec<f64>,
    /// Steps in which nothing was updated, counted from 1.
    pub skipped: Vec<u64>,
    /// Losses on the text that was not trained on, the first before any step.
    pub evaluations: Vec<Evaluation>,
    /// Of all gradients together, before clipping; one for each step, null where it was skipped.
    /// None without clipping.
    pub gradient_norms: Vec<f64>,
    /// Over all steps.
    pub tokens_per_second: f64,
    /// One for each step.
    pub step_seconds: Vec<f64>,
    /// Idle shares of the devices' time.
    pub bubble: Bubbles,
    /// One for each device.
    pub peak_bytes: Vec<PeakBytes>,
    /// One for each device: what moving parcels between it and the host took in a step.
    pub transfers: Vec<Transfers>,
    /// Bytes that a step moves between devices.
    pub communication: Moves,
    /// Of all parameters' bits.
    pub weights_hash: String,
    /// Loss on the text that was not trained on.
    pub held_out: HeldOut,
    /// Drawings of one step.
    #[serde(skip)]
    pub timetables: Timetables,
    /// Text by the trained model.
    #[serde(skip)]
    pub sample: String,
    /// A line about every file that was to be written, or why it was not.
    #[serde(skip)]
    pub written: Vec<Result<String>>,
    /// Why the last step is in no checkpoint, where it should be.
    #[serde(skip)]
    pub unsaved: Option<Error>,
}

/// Both bubbles, measured and predicted, as fractions.
#[derive(Serialize)]
pub struct Bubbles {
    step: f64,
    span: f64,
    predicted_step: f64,
    predicted_span: f64,
}

/// The most that a device held at once.
#[derive(Serialize)]
pub struct PeakBytes {
    predicted: u64,
    measured: u64,
}

/// Moves of parcels in one step. They go on beside a GPU's actions; between CPU devices a parcel is
/// handed over as it is.
#[derive(Serialize)]
pub struct Transfers {
    moves: usize,
    seconds: f64,
}

/// Loss in nats per character, before the first step and after the last.
#[derive(Serialize)]
pub struct HeldOut {
    /// Of the model as it was initialised.
    pub before: f64,
    /// Of the trained model.
    pub after: f64,
}

/// A loss on held-out text, in nats per character.
#[derive(Clone, Copy, Serialize)]
pub struct Evaluation {
    /// How many steps had been taken.
    pub step: u64,
    /// The mean over the text's windows.
    pub loss: f64,
}

impl HeldOut {
    /// The first and the last of some evaluations.
    ///
    /// # Panics
    ///
    /// Panics when there are none.
    pub fn of(evaluations: &[Evaluation]) -> Self {
        let at = |evaluation: Option<&Evaluation>| evaluation.expect("a run is evaluated").loss;
        Self { before: at(evaluations.first()), after: at(evaluations.last()) }
    }
}

/// The same step as it was planned and as it was measured.
pub struct Timetables {
    planned: String,
    measured: String,
}

/// What the steps of a run reported.
#[derive(Default)]
pub struct Steps {
    /// One for each step.
    pub losses: Vec<f64>,
    /// One for each step, with clipping.
    pub gradient_norms: Vec<f64>,
    /// One for each step.
    pub seconds: Vec<f64>,
    /// Steps that were skipped.
    pub skipped: Vec<u64>,
    /// Losses on held-out text.
    pub evaluations: Vec<Evaluation>,
    /// Why the last step is in no checkpoint, where it should be.
    pub unsaved: Option<Error>,
    /// The most that each device ever held.
    peak_bytes: Vec<u64>,
    /// Timelines are large: only the last ones are kept.
    recent: VecDeque<StepReport>,
}

impl Steps {
    /// Takes the report of the next step.
    pub fn add(&mut self, report: StepReport) {
        self.losses.push(report.loss);
        self.gradient_norms.extend(report.gradient_norm);
        self.seconds.push(report.seconds);
        if report.skipped.is_some() {
            self.skipped.push(self.losses.len() as u64);
        }
        self.peak_bytes.resize(report.peak_bytes.len(), 0);
        for (peak, bytes) in self.peak_bytes.iter_mut().zip(&report.peak_bytes) {
            *peak = (*peak).max(*bytes);
        }
        if self.recent.len() == RECENT_STEPS {
            self.recent.pop_front();
        }
        self.recent.push_back(report);
    }

    /// Of the last steps the one that took the median time.
    ///
    /// # Panics
    ///
    /// Panics when there was no step.
    pub fn median(&self) -> &StepReport {
        &self.recent[self.median_position()]
    }

    fn median_position(&self) -> usize {
        let mut by_time: Vec<usize> = (0..self.recent.len()).collect();
        by_time.sort_by(|&a, &b| self.recent[a].seconds.total_cmp(&self.recent[b].seconds));
        by_time[by_time.len() / 2]
    }

    /// The number of the step that [`median`](Self::median) is, counted from 1.
    pub fn figures_of(&self) -> u64 {
        (self.seconds.len() - self.recent.len() + self.median_position()) as u64 + 1
    }

    /// How many steps the median is of.
    pub fn recent(&self) -> usize {
        self.recent.len()
    }

    /// The most that a device ever held, in bytes.
    pub fn peak_bytes(&self, device: DeviceId) -> u64 {
        self.peak_bytes[device.index()]
    }

    /// The last `count` steps and the one that [`median`](Self::median) is, ascending. A step
    /// starts when the one before ends: what is done between them counts in no step.
    pub fn recorded(&self, count: usize) -> Vec<RecordedStep<'_>> {
        let first = self.seconds.len() - self.recent.len();
        let mut start: f64 = self.seconds[..first].iter().sum();
        let kept = self.recent.len().saturating_sub(count);
        let median = self.median_position();
        let mut steps = Vec::new();
        for (position, report) in self.recent.iter().enumerate() {
            if position >= kept || position == median {
                steps.push(RecordedStep {
                    number: (first + position) as u64 + 1,
                    start,
                    seconds: report.seconds,
                    loss: report.loss,
                    timeline: &report.timeline,
                });
            }
            start += report.seconds;
        }
        steps
    }

    /// The speed of the whole run in tokens, at so many per step.
    pub fn per_second(&self, tokens_per_step: usize) -> f64 {
        (self.seconds.len() * tokens_per_step) as f64 / self.seconds.iter().sum::<f64>()
    }
}

/// The bubbles of a step beside the predicted ones.
pub fn bubbles(prediction: &Simulation, step: &StepReport) -> Bubbles {
    let measured = bubble(&step.timeline);
    Bubbles {
        step: measured.step,
        span: measured.span,
        predicted_step: prediction.bubble.step,
        predicted_span: prediction.bubble.span,
    }
}

/// Every device's peak beside the predicted one.
pub fn peaks(prediction: &Simulation, steps: &Steps) -> Vec<PeakBytes> {
    let pairs = prediction.memory.iter().zip(&steps.peak_bytes);
    let peak = |(predicted, measured): (&zerobubble::plan::DeviceMemory, &u64)| PeakBytes {
        predicted: predicted.peak_bytes(),
        measured: *measured,
    };
    pairs.map(peak).collect()
}

/// What every device's transfers took in a step.
pub fn transfers(step: &StepReport) -> Vec<Transfers> {
    let of = |spans: &Vec<Span>| Transfers { moves: spans.len(), seconds: transfer_seconds(spans) };
    step.timeline.transfers.iter().map(of).collect()
}

/// How long a device's transfers took. The `sum` of none would be -0.0.
pub fn transfer_seconds(spans: &[Span]) -> f64 {
    spans.iter().fold(0.0, |sum, span| sum + (span.end - span.start))
}

/// The planned and the measured step, drawn equally wide.
pub fn timetables(prediction: &Simulation, step: &StepReport) -> Timetables {
    Timetables {
        planned: draw(&prediction.timeline, line_width(&step.timeline)),
        measured: draw(&step.timeline, line_width(&step.timeline)),
    }
}

impl fmt::Display for TrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HeldOut { before, after } = self.held_out;
        writeln!(f, "held-out loss  {before:.4} before, {after:.4} after, in nats per character")?;
        if !self.skipped.is_empty() {
            writeln!(f, "skipped        {} steps", self.skipped.len())?;
        }
        writeln!(f, "speed          {:.0} tokens/s\n", self.tokens_per_second)?;
        writeln!(f, "one step as planned\n{}", self.timetables.planned)?;
        writeln!(f, "one step as measured\n{}", self.timetables.measured)?;
        let row = |name: &str, planned: String, measured: String| {
            format!("{name:16}  {planned:>10}  {measured:>10}\n")
        };
        let bubble = &self.bubble;
        let mut table = row("", "predicted".to_owned(), "measured".to_owned());
        table += &row("step bubble", percent(bubble.predicted_step), percent(bubble.step));
        table += &row("span bubble", percent(bubble.predicted_span), percent(bubble.span));
        for (device, peak) in self.peak_bytes.iter().enumerate() {
            let name = format!("peak of device {device}");
            table += &row(&name, bytes(peak.predicted), bytes(peak.measured));
        }
        for (device, of) in self.transfers.iter().enumerate().filter(|(_, of)| of.moves > 0) {
            let name = format!("moves of device {device}");
            let time = format!("{:.1} ms", 1e3 * of.seconds);
            table += &row(&name, String::new(), format!("{} in {time}", of.moves));
        }
        writeln!(f, "{table}")?;
        writeln!(f, "moved          {}\n", self.communication)?;
        writeln!(f, "sample of the model's text\n{}\n", self.sample.trim_end())?;
        writeln!(f, "weights hash   {}", self.weights_hash)?;
        self.written.iter().flatten().try_for_each(|line| writeln!(f, "{line}"))
    }
}
