//! A run -> what its page shows.

use std::ops::Range;

use serde::Serialize;
use zerobubble::plan::{
    Action, CheckedPlan, Costs, DeviceId, PerWork, Simulation, StageId, stash_bytes,
};
use zerobubble::split::{Block, Split};
use zerobubble::trace::{Bubble, Label, PAINTS, Span, Timeline, bubble};
use zerobubble::train::Balance;

use super::Finished;
use super::command::command;
use super::machine::machine;
use crate::drawing::counted;
use crate::train::compared;
use crate::train_report::{TrainReport, transfer_seconds};

/// Everything on the page. Times are in seconds, and those of the plan in what costs are in.
#[derive(Serialize)]
pub struct Data<'a> {
    subject: String,
    /// When it was written, in seconds since 1970, and whether the run was done then.
    finished: u64,
    ended: bool,
    command: String,
    settings: Vec<(&'static str, String)>,
    machine: Vec<(String, String)>,
    sample: Option<&'a str>,
    run: &'a TrainReport,
    schedule: &'a str,
    microbatches: u32,
    tokens_per_step: usize,
    /// Steps done, and the loss then.
    held_out: Vec<(u64, f64)>,
    /// The step that is drawn, if there was any, and of how many it has the median time.
    figures_of: Option<u64>,
    recent: usize,
    balance: &'static str,
    searched: Option<String>,
    marked: bool,
    paints: Vec<PaintData>,
    blocks: Vec<BlockData>,
    stages: Vec<StageData>,
    devices: Vec<DeviceData>,
    planned: TimelineData,
    measured: Option<TimelineData>,
}

#[derive(Serialize)]
struct PaintData {
    kind: &'static str,
    fill: &'static str,
    ink: &'static str,
}

#[derive(Serialize)]
struct BlockData {
    modules: String,
    flops: PerWork<f64>,
}

#[derive(Serialize)]
struct StageData {
    stage: u32,
    device: u32,
    /// The first block, and the one after the last.
    blocks: (usize, usize),
    modules: [String; 2],
    /// Of F, B and W.
    cost: PerWork<f64>,
    /// Bytes of an activation to the next stage.
    sends: u64,
}

#[derive(Serialize)]
struct DeviceData {
    device: u32,
    id: String,
    stages: Vec<u32>,
    idle: Both,
    span_idle: Both,
    memory: MemoryData,
    transfers: TransferData,
}

/// A fraction.
#[derive(Serialize)]
struct Both {
    predicted: f64,
    measured: Option<f64>,
}

#[derive(Serialize)]
struct MemoryData {
    /// What is held throughout, and what parcels take.
    standing: u64,
    parcels: u64,
    stash: u64,
    microbatches: f64,
    peak_at: String,
    predicted: u64,
    measured: Option<u64>,
    /// From when on so many bytes are held beside those held throughout.
    curve: Vec<(f64, u64)>,
}

#[derive(Serialize)]
struct TransferData {
    moves: usize,
    seconds: f64,
}

#[derive(Serialize)]
struct TimelineData {
    /// Of the first action of all devices, and until the end of the last one.
    start: f64,
    makespan: f64,
    /// Of the last span.
    end: f64,
    /// Wall time of the whole step; of a plan, the makespan.
    seconds: f64,
    lanes: Vec<Vec<SpanData>>,
    transfers: Vec<Vec<SpanData>>,
}

/// What, from when, until when.
#[derive(Serialize)]
struct SpanData(String, f64, f64);

/// What the page shows of a run as it was so many seconds after the start of 1970.
pub fn data<'a>(of: &Finished<'a>, now: u64) -> Data<'a> {
    let Finished { trainer, steps, report, .. } = *of;
    let (plan, prediction) = (trainer.plan(), trainer.prediction());
    let step = steps.median();
    let measured = step.map(|step| bubble(&step.timeline));
    Data {
        subject: subject(of),
        finished: now,
        ended: report.weights_hash.is_some(),
        command: command(),
        settings: settings(of),
        machine: machine(&report.devices),
        sample: report.sample.as_deref(),
        run: report,
        schedule: &plan.plan().schedule,
        microbatches: plan.plan().microbatches,
        tokens_per_step: tokens_per_step(of),
        held_out: report.evaluations.iter().map(|of| (of.step, of.loss)).collect(),
        figures_of: steps.figures_of(),
        recent: steps.recent(),
        balance: match trainer.balance() {
            Balance::Flops => "flops",
            Balance::Measured => "measured",
        },
        searched: trainer
            .searched()
            .map(|found| compared(found).trim_start_matches("; ").to_owned()),
        marked: !trainer.split().marks.is_empty(),
        paints: PAINTS
            .iter()
            .map(|paint| PaintData { kind: paint.class, fill: paint.fill, ink: paint.ink })
            .collect(),
        blocks: blocks(trainer.split()),
        stages: stages(trainer.split(), &trainer.stages().stage_blocks, plan, trainer.costs()),
        devices: devices(of, plan, measured.as_ref()),
        planned: timeline(&prediction.timeline, prediction.bubble.makespan),
        measured: step.map(|step| timeline(&step.timeline, step.seconds)),
    }
}

fn subject(of: &Finished) -> String {
    let plan = of.trainer.plan().plan();
    let sizes = of.job.model.split_once(": ").map_or("", |(_, sizes)| sizes);
    let all = of.report.steps_before as usize + of.report.losses.len();
    format!(
        "{sizes}. Trained for {} by {} over {} and {}.",
        counted(all, "step"),
        plan.schedule,
        counted(of.report.devices.len(), "device"),
        counted(plan.microbatches as usize, "microbatch"),
    )
}

fn tokens_per_step(of: &Finished) -> usize {
    let microbatches = of.trainer.plan().plan().microbatches as usize;
    microbatches * of.args.common.microbatch_size * of.args.common.context
}

fn settings(of: &Finished) -> Vec<(&'static str, String)> {
    let Finished { args, trainer, report, .. } = *of;
    let plan = trainer.plan().plan();
    let batch = format!(
        "{} of {}, {} tokens",
        counted(plan.microbatches as usize, "microbatch"),
        args.common.microbatch_size,
        tokens_per_step(of)
    );
    let clipping =
        args.common.clip_norm.map(|norm| format!(", gradients clipped to a norm of {norm}"));
    let clipping = clipping.unwrap_or_default();
    vec![
        ("Model", of.job.model.clone()),
        ("Text", of.job.text.clone()),
        ("Schedule", plan.schedule.clone()),
        ("Devices", report.devices.join(", ")),
        ("Batch", batch),
        ("Optimizer", format!("AdamW, learning rate {}{clipping}", args.common.learning_rate)),
        ("Activations", args.common.activations.to_string()),
        ("Seed", args.common.seed.to_string()),
        ("Version", format!("zerobubble {}", env!("CARGO_PKG_VERSION"))),
    ]
}

fn blocks(split: &Split) -> Vec<BlockData> {
    let block = |(index, block): (usize, &Block)| BlockData {
        modules: split.modules(index),
        flops: block.flops,
    };
    split.blocks.iter().enumerate().map(block).collect()
}

fn stages(
    split: &Split,
    stage_blocks: &[Range<usize>],
    plan: &CheckedPlan,
    costs: &Costs,
) -> Vec<StageData> {
    let placement = &plan.plan().placement;
    let stage = |(stage, blocks): (u32, &Range<usize>)| {
        let cost = &costs.stages[stage as usize];
        let sends = costs.boundaries.get(stage as usize);
        StageData {
            stage,
            device: placement.device(StageId(stage)).0,
            blocks: (blocks.start, blocks.end),
            modules: [split.modules(blocks.start), split.modules(blocks.end - 1)],
            cost: cost.time,
            sends: sends.map_or(0, |boundary| boundary.activation_bytes),
        }
    };
    (0..).zip(stage_blocks).map(stage).collect()
}

fn devices(of: &Finished, plan: &CheckedPlan, measured: Option<&Bubble>) -> Vec<DeviceData> {
    let prediction = of.trainer.prediction();
    let placement = &plan.plan().placement;
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let device = |(device, id): (u32, &String)| {
        let index = device as usize;
        let both = |fraction: &dyn Fn(&Bubble) -> f64| Both {
            predicted: fraction(&prediction.bubble),
            measured: measured.map(fraction),
        };
        let spans = of.steps.median().and_then(|step| step.timeline.transfers.get(index));
        let spans = spans.map_or(&[][..], Vec::as_slice);
        DeviceData {
            device,
            id: id.clone(),
            stages: placement.stages_of(DeviceId(device)).map(|stage| stage.0).collect(),
            idle: both(&|bubble| share(bubble.devices[index].step_idle, bubble.makespan)),
            span_idle: both(&|bubble| {
                let time = bubble.devices[index];
                share(time.span_idle, time.span_idle + time.busy)
            }),
            memory: memory(of, prediction, DeviceId(device)),
            transfers: TransferData { moves: spans.len(), seconds: transfer_seconds(spans) },
        }
    };
    (0..).zip(&of.report.devices).map(device).collect()
}

fn memory(of: &Finished, prediction: &Simulation, device: DeviceId) -> MemoryData {
    let predicted = &prediction.memory[device.index()];
    let lane: Vec<(Span, Action)> = prediction.timeline.lanes[device.index()]
        .iter()
        .filter_map(|span| match span.label {
            Label::Action(action) => Some((*span, action)),
            Label::Transfer | Label::Parcel { .. } | Label::Update => None,
        })
        .collect();
    let actions: Vec<_> = lane.iter().map(|(_, action)| *action).collect();
    let bytes = stash_bytes(&actions, device, of.trainer.costs());
    let held = lane.iter().zip(bytes);
    MemoryData {
        standing: predicted.fixed_bytes,
        parcels: predicted.channel_bytes,
        stash: predicted.peak_stash_bytes,
        microbatches: predicted.peak_stash,
        peak_at: predicted.peak_at.to_string(),
        predicted: predicted.peak_bytes(),
        measured: of.steps.peak_bytes(device),
        curve: held
            .flat_map(|((span, _), held)| [(span.start, held.during), (span.end, held.after)])
            .collect(),
    }
}

fn timeline(timeline: &Timeline, seconds: f64) -> TimelineData {
    let span = |span: &Span| {
        let label = match span.label {
            Label::Action(action) => action.to_string(),
            Label::Transfer => "T".to_owned(),
            Label::Parcel { of, to } => format!("{of}>{to}"),
            Label::Update => "U".to_owned(),
        };
        SpanData(label, span.start, span.end)
    };
    let lanes = |lanes: &[Vec<Span>]| -> Vec<Vec<SpanData>> {
        lanes.iter().map(|lane| lane.iter().map(span).collect()).collect()
    };
    let all = || timeline.lanes.iter().flatten();
    let actions = all().filter(|span| matches!(span.label, Label::Action(_)));
    TimelineData {
        start: actions.map(|span| span.start).fold(f64::INFINITY, f64::min),
        makespan: bubble(timeline).makespan,
        end: all().map(|span| span.end).fold(0.0, f64::max),
        seconds,
        lanes: lanes(&timeline.lanes),
        transfers: lanes(&timeline.transfers),
    }
}
