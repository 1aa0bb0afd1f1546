//! What a training run found, for people and for scripts.

use std::collections::VecDeque;
use std::fmt;

use serde::Serialize;
use zerobubble::error::Error;
use zerobubble::gpt::Gpt;
use zerobubble::plan::{DeviceId, DeviceMemory, Explanation, Simulation};
use zerobubble::trace::{RecordedStep, Span, draw};
use zerobubble::train::{MeasuredLink, StepReport, Trainer};

use super::drawing::{bytes, line_width, percent};
use super::evaluate::Batch;
use super::plan::Moves;

/// The median of this many steps, the last ones, stands for all of them: or of fewer, so that
/// their timelines have no more than so many spans.
const RECENT_STEPS: usize = 101;
const RECENT_SPANS: usize = 1 << 20;

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
    /// Over all steps; none where all were done before.
    pub tokens_per_second: Option<f64>,
    /// One for each step.
    pub step_seconds: Vec<f64>,
    /// Idle shares of the devices' time.
    pub bubble: Bubbles,
    /// One for each device.
    pub peak_bytes: Vec<PeakBytes>,
    /// One for each device: what moving parcels between it and the host took in a step. Without a
    /// step nothing was measured.
    pub transfers: Vec<Transfers>,
    /// From every device to every other, what its link was measured to take; empty where nothing
    /// was measured.
    pub links: Vec<LinkTimes>,
    /// Bytes that a step moves between devices.
    pub communication: Moves,
    /// Of all parameters' bits; none while the run goes on.
    pub weights_hash: Option<String>,
    /// Of each parameter's bits, in the module's own order; none while the run goes on.
    pub weight_hashes: Vec<WeightHash>,
    /// Loss on the text that was not trained on.
    pub held_out: HeldOut,
    /// Drawings of one step.
    #[serde(skip)]
    timetables: Timetables,
    /// Text by the trained model.
    #[serde(skip)]
    pub sample: Option<String>,
}

/// What a run has when it is done.
pub struct Ended {
    /// Text by the trained model.
    pub sample: String,
    /// Of all parameters' bits.
    pub weights_hash: String,
    /// Of each parameter's bits, in the module's own order.
    pub weight_hashes: Vec<WeightHash>,
}

/// A hash of a parameter's bits.
#[derive(Serialize)]
pub struct WeightHash {
    /// Where the parameter is in the model.
    pub path: String,
    pub hash: String,
}

/// Both bubbles, measured and predicted, as fractions. Without a step nothing was measured.
#[derive(Serialize)]
pub struct Bubbles {
    step: Option<f64>,
    span: Option<f64>,
    predicted_step: f64,
    predicted_span: f64,
    /// Predicted from the times that actions took in the median, in place of the plan's costs.
    expected_step: Option<f64>,
    expected_span: Option<f64>,
    /// What the measured step bubble is made of beside the predicted one.
    difference: Option<Difference>,
}

/// The measured step bubble less the predicted one, in three parts.
#[derive(Serialize)]
pub struct Difference {
    /// Costs that differ from the plan's.
    costs: f64,
    /// Actions that took longer than their median.
    slowed: f64,
    /// Hand-over and scheduling.
    hand_over: f64,
    /// The same as a line of percentage points.
    #[serde(skip)]
    line: String,
}

/// The most that a device held at once. Without a step nothing was measured.
#[derive(Serialize)]
pub struct PeakBytes {
    predicted: u64,
    measured: Option<u64>,
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

impl TrainReport {
    /// What is known of a run with so many tokens per step.
    ///
    /// # Panics
    ///
    /// Panics when it was not evaluated.
    pub fn of(
        trainer: &Trainer<Gpt, Batch>,
        steps: &Steps,
        tokens: usize,
        ended: Option<Ended>,
    ) -> Self {
        let (prediction, measured) = (trainer.prediction(), steps.median());
        let explained = measured.map(|step| {
            let explained = trainer.explain(&steps.recent, step);
            explained.expect("the steps are of the trainer's own plan")
        });
        let stages = trainer.stages();
        let (sample, weights_hash, weight_hashes) = match ended {
            Some(of) => (Some(of.sample), Some(of.weights_hash), of.weight_hashes),
            None => (None, None, Vec::new()),
        };
        Self {
            devices: trainer.devices(),
            schedule: trainer.plan().plan().schedule.clone(),
            stages: stages.to_string().lines().map(str::to_owned).collect(),
            recomputed: stages.recomputed().iter().map(|stage| stage.0).collect(),
            parameters: trainer.parameters(),
            steps_before: steps.before,
            tokens_per_second: steps.per_second(tokens),
            bubble: bubbles(prediction, explained.as_ref()),
            peak_bytes: peaks(prediction, steps),
            transfers: measured.map(transfers).unwrap_or_default(),
            links: trainer.links().iter().map(LinkTimes::of).collect(),
            communication: Moves::of(trainer.communication()),
            held_out: HeldOut::of(&steps.evaluations),
            timetables: timetables(prediction, measured),
            evaluations: steps.evaluations.clone(),
            skipped: steps.skipped.clone(),
            losses: steps.losses.clone(),
            gradient_norms: steps.gradient_norms.clone(),
            step_seconds: steps.seconds.clone(),
            sample,
            weights_hash,
            weight_hashes,
        }
    }
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
struct Timetables {
    planned: String,
    measured: Option<String>,
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
    /// Steps that were done before, in the run that this one continues.
    before: u64,
    /// The most that each device ever held.
    peak_bytes: Vec<u64>,
    /// Timelines are large: only the last ones are kept.
    recent: VecDeque<StepReport>,
}

impl Steps {
    /// None yet, after so many in the run that this one continues.
    pub fn after(before: u64) -> Self {
        Self { before, ..Self::default() }
    }

    /// Whether any step was taken.
    pub fn any(&self) -> bool {
        !self.seconds.is_empty()
    }

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
        let of_a_plan = spans(&report).max(1);
        let kept = (RECENT_SPANS / of_a_plan).clamp(1, RECENT_STEPS);
        while self.recent.len() >= kept {
            self.recent.pop_front();
        }
        self.recent.push_back(report);
    }

    /// Of the last steps the one that took the median time.
    pub fn median(&self) -> Option<&StepReport> {
        Some(&self.recent[self.median_position()?])
    }

    fn median_position(&self) -> Option<usize> {
        let mut by_time: Vec<usize> = (0..self.recent.len()).collect();
        by_time.sort_by(|&a, &b| self.recent[a].seconds.total_cmp(&self.recent[b].seconds));
        by_time.get(by_time.len() / 2).copied()
    }

    /// The number of the step that [`median`](Self::median) is, of those taken here, counted
    /// from 1.
    pub fn figures_of(&self) -> Option<u64> {
        let position = self.median_position()?;
        Some((self.seconds.len() - self.recent.len() + position) as u64 + 1)
    }

    /// How many steps the median is of.
    pub fn recent(&self) -> usize {
        self.recent.len()
    }

    /// The most that a device ever held, in bytes.
    pub fn peak_bytes(&self, device: DeviceId) -> Option<u64> {
        self.peak_bytes.get(device.index()).copied()
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
            if position >= kept || Some(position) == median {
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
    fn per_second(&self, tokens_per_step: usize) -> Option<f64> {
        let tokens = (self.seconds.len() * tokens_per_step) as f64;
        self.any().then(|| tokens / self.seconds.iter().sum::<f64>())
    }
}

/// How many spans a step's timeline has.
fn spans(report: &StepReport) -> usize {
    let timeline = &report.timeline;
    timeline.lanes.iter().chain(&timeline.transfers).map(Vec::len).sum()
}

/// The bubbles of a step beside the predicted ones.
fn bubbles(prediction: &Simulation, explained: Option<&Explanation>) -> Bubbles {
    Bubbles {
        step: explained.map(|of| of.measured.step),
        span: explained.map(|of| of.measured.span),
        predicted_step: prediction.bubble.step,
        predicted_span: prediction.bubble.span,
        expected_step: explained.map(|of| of.expected.step),
        expected_span: explained.map(|of| of.expected.span),
        difference: explained.map(|of| Difference {
            costs: of.costs,
            slowed: of.slowed,
            hand_over: of.hand_over,
            line: of.to_string(),
        }),
    }
}

/// Every device's peak beside the predicted one.
fn peaks(prediction: &Simulation, steps: &Steps) -> Vec<PeakBytes> {
    let peak = |(device, predicted): (u32, &DeviceMemory)| PeakBytes {
        predicted: predicted.peak_bytes(),
        measured: steps.peak_bytes(DeviceId(device)),
    };
    (0..).zip(&prediction.memory).map(peak).collect()
}

/// What the link from one device to another was measured to take.
#[derive(Serialize)]
pub struct LinkTimes {
    from: u32,
    to: u32,
    /// Of the largest parcel that any cut sends.
    bytes: u64,
    /// What that takes.
    seconds: f64,
    bytes_per_second: f64,
    /// The part of `seconds` that does not depend on the bytes.
    latency: f64,
}

impl LinkTimes {
    fn of(link: &MeasuredLink) -> Self {
        let MeasuredLink { from, to, bytes, seconds, bytes_per_second, latency } = *link;
        Self { from: from.0, to: to.0, bytes, seconds, bytes_per_second, latency }
    }
}

/// The fastest and the slowest link.
fn link_line(links: &[LinkTimes]) -> Option<String> {
    let by_time = |a: &&LinkTimes, b: &&LinkTimes| a.seconds.total_cmp(&b.seconds);
    let (fastest, slowest) = (links.iter().min_by(by_time)?, links.iter().max_by(by_time)?);
    let time = |link: &LinkTimes| format!("{:.1} µs", 1e6 * link.seconds);
    let line = format!("{} take {}", bytes(fastest.bytes), time(fastest));
    if fastest.seconds == slowest.seconds {
        return Some(line + " from any device to any other");
    }
    let LinkTimes { from, to, .. } = slowest;
    Some(format!(
        "{line} from device {} to device {}, {} from device {from} to device {to}",
        fastest.from,
        fastest.to,
        time(slowest)
    ))
}

/// What every device's transfers took in a step.
fn transfers(step: &StepReport) -> Vec<Transfers> {
    let of = |spans: &Vec<Span>| Transfers { moves: spans.len(), seconds: transfer_seconds(spans) };
    step.timeline.transfers.iter().map(of).collect()
}

/// How long a device's transfers took. The `sum` of none would be -0.0.
pub fn transfer_seconds(spans: &[Span]) -> f64 {
    spans.iter().fold(0.0, |sum, span| sum + (span.end - span.start))
}

/// The planned and the measured step, drawn equally wide.
fn timetables(prediction: &Simulation, step: Option<&StepReport>) -> Timetables {
    let measured = step.map(|step| &step.timeline);
    let width = line_width(measured.unwrap_or(&prediction.timeline));
    Timetables {
        planned: draw(&prediction.timeline, width),
        measured: measured.map(|timeline| draw(timeline, width)),
    }
}

impl fmt::Display for TrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HeldOut { before, after } = self.held_out;
        if let Some(speed) = self.tokens_per_second {
            let losses = format!("{before:.4} before, {after:.4} after, in nats per character");
            writeln!(f, "held-out loss  {losses}")?;
            if !self.skipped.is_empty() {
                writeln!(f, "skipped        {} steps", self.skipped.len())?;
            }
            writeln!(f, "speed          {speed:.0} tokens/s\n")?;
        } else {
            writeln!(f, "all steps were done before: {} (more with --steps)", self.steps_before)?;
            writeln!(f, "held-out loss  {after:.4}, in nats per character\n")?;
        }
        writeln!(f, "one step as planned\n{}", self.timetables.planned)?;
        if let Some(measured) = &self.timetables.measured {
            writeln!(f, "one step as measured\n{measured}")?;
        }
        writeln!(f, "{}", self.figures())?;
        writeln!(f, "moved          {}\n", self.communication)?;
        if let Some(links) = link_line(&self.links) {
            writeln!(f, "links          {links}\n")?;
        }
        if let Some(sample) = &self.sample {
            writeln!(f, "sample of the model's text\n{}\n", sample.trim_end())?;
        }
        self.weights_hash.iter().try_for_each(|hash| writeln!(f, "weights hash   {hash}"))
    }
}

impl TrainReport {
    /// What was predicted beside what was measured.
    fn figures(&self) -> String {
        let row = |name: &str, cells: [Option<String>; 3]| {
            let cells = cells.map(|cell| format!("  {:>10}", cell.unwrap_or_default()));
            format!("{name:16}{}", cells.concat()).trim_end().to_owned() + "\n"
        };
        let bubble = &self.bubble;
        let ran = self.tokens_per_second.is_some();
        let head = |name: &str| ran.then(|| name.to_owned());
        let mut table = row("", [Some("predicted".to_owned()), head("expected"), head("measured")]);
        let of = |predicted, expected: Option<f64>, measured: Option<f64>| {
            [Some(percent(predicted)), expected.map(percent), measured.map(percent)]
        };
        table += &row("step bubble", of(bubble.predicted_step, bubble.expected_step, bubble.step));
        table += &row("span bubble", of(bubble.predicted_span, bubble.expected_span, bubble.span));
        for (device, peak) in self.peak_bytes.iter().enumerate() {
            let name = format!("peak of device {device}");
            table += &row(&name, [Some(bytes(peak.predicted)), None, peak.measured.map(bytes)]);
        }
        for (device, of) in self.transfers.iter().enumerate().filter(|(_, of)| of.moves > 0) {
            let name = format!("moves of device {device}");
            let time = format!("{:.1} ms", 1e3 * of.seconds);
            table += &row(&name, [None, None, Some(format!("{} in {time}", of.moves))]);
        }
        if let Some(difference) = &bubble.difference {
            table += "expected: from the median times of actions, not the plan's costs\n";
            table += &format!("step bubble, measured less predicted: {}\n", difference.line);
        }
        table
    }
}
