//! Steps -> a trace in Chrome's trace event format, which Perfetto and `chrome://tracing` open
//! ("Trace TraceEvent Format", Google 2016).
//!
//! ```text
//! process of a device    thread `actions`      F, B, W, update and idle, as they ran
//!                        thread `transfers`    parcels between host and device, if there are any
//!                        counter               stash and working memory, in bytes
//! process `run`          thread `steps`        the steps
//! ```
//!
//! An arrow leads from the end of an action to the start of the one that took its parcel, where
//! that is on another device.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;

use super::{Label, Span, Timeline, bubble};
use crate::{Action, CheckedPlan, Costs, DeviceId, StashBytes, stash_bytes};

/// What a trace is made of.
#[derive(Debug, Clone, Copy)]
pub struct Recording<'a> {
    /// The plan that every step followed.
    pub plan: &'a CheckedPlan,
    /// What its stages hold in memory.
    pub costs: &'a Costs,
    /// Names of the devices.
    pub devices: &'a [String],
    /// Some steps of one run, ascending.
    pub steps: &'a [RecordedStep<'a>],
    /// The step that the run's own figures, such as its bubble, are of, if there is any.
    pub figures_of: Option<u64>,
}

/// A step as it was measured, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct RecordedStep<'a> {
    /// Counted from 1.
    pub number: u64,
    /// When it began.
    pub start: f64,
    /// How long it took.
    pub seconds: f64,
    /// The mean loss over its batch.
    pub loss: f64,
    /// What every device did, from the step's start.
    pub timeline: &'a Timeline,
}

/// Writes the trace to `out`, as one JSON object. What it holds in memory is that of one step.
///
/// Times are microseconds. The counter shows the predicted bytes at the measured times: what is
/// held at an action does not depend on timing.
///
/// # Errors
///
/// Those of `out`.
pub fn chrome(recording: &Recording, out: &mut impl Write) -> io::Result<()> {
    let plan = recording.plan.plan();
    let other = json!({
        "generator": "zerobubble",
        "schedule": plan.schedule,
        "microbatches": plan.microbatches,
        "steps": recording.steps.iter().map(|step| step.number).collect::<Vec<_>>(),
        "figures_of_step": recording.figures_of,
    });
    write!(out, "{{\"displayTimeUnit\":\"ms\",\"otherData\":{other},\"traceEvents\":[")?;
    let (mut flows, mut first) = (0, true);
    let mut write = |events: Vec<TraceEvent>| {
        for event in events {
            out.write_all(if std::mem::take(&mut first) { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut *out, &event)?;
        }
        io::Result::Ok(())
    };
    write(names(recording))?;
    for step in recording.steps {
        write(measured(recording, step, &mut flows))?;
    }
    out.write_all(b"\n]}\n")
}

/// The events of a step by time; those of the step after it come later.
fn measured(recording: &Recording, step: &RecordedStep, flows: &mut u64) -> Vec<TraceEvent> {
    let args = Args::Step { step: step.number, loss: step.loss };
    let times = (step.start, step.start + step.seconds, args);
    let name = format!("step {}", step.number);
    let mut events = vec![TraceEvent::complete(RUN, STEPS, "step", name, times)];
    for device in 0..step.timeline.lanes.len() {
        events.extend(spans(step, device));
        events.extend(counter(recording.costs, step, device));
    }
    events.extend(arrows(recording.plan, step, flows));
    // A reader may close a span when it meets a later time, so arrows come after what they bind to.
    events.sort_by(|a, b| a.ts.total_cmp(&b.ts).then(a.is_arrow().cmp(&b.is_arrow())));
    events
}

/// Process 0 is the idle one in some readers.
const RUN: u32 = 1;
const STEPS: u32 = 1;
const ACTIONS: u32 = 1;
const TRANSFERS: u32 = 2;

fn process(device: usize) -> u32 {
    RUN + 1 + device as u32
}

/// One entry of `traceEvents`.
#[derive(Serialize)]
struct TraceEvent {
    name: Cow<'static, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    cat: &'static str,
    ph: &'static str,
    ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    pid: u32,
    tid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    /// An arrow ends at the span that is open then, not at the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    bp: Option<&'static str>,
    args: Args,
}

/// What is said beside an event.
#[derive(Serialize)]
#[serde(untagged)]
enum Args {
    Name { name: String },
    Sort { sort_index: u32 },
    Step { step: u64, loss: f64 },
    Action { step: u64, stage: u32, work: &'static str, microbatch: u32 },
    InStep { step: u64 },
    Bytes { bytes: u64 },
}

impl TraceEvent {
    fn new(
        ph: &'static str,
        (pid, tid): (u32, u32),
        name: impl Into<Cow<'static, str>>,
        seconds: f64,
        args: Args,
    ) -> Self {
        let (name, ts) = (name.into(), microseconds(seconds));
        Self { name, cat: "", ph, ts, dur: None, pid, tid, id: None, bp: None, args }
    }

    /// A span from a start to an end.
    fn complete(
        pid: u32,
        tid: u32,
        cat: &'static str,
        name: impl Into<Cow<'static, str>>,
        (start, end, args): (f64, f64, Args),
    ) -> Self {
        let event = Self::new("X", (pid, tid), name, start, args);
        let dur = Some((microseconds(end) - event.ts).max(0.0));
        Self { cat, dur, ..event }
    }

    fn is_arrow(&self) -> bool {
        self.id.is_some()
    }
}

/// Readers keep whole nanoseconds. Zero has no sign.
fn microseconds(seconds: f64) -> f64 {
    (seconds * 1e9).round() / 1e3 + 0.0
}

/// What processes and threads are called, and their order.
fn names(recording: &Recording) -> Vec<TraceEvent> {
    let event = |id, name, args| TraceEvent::new("M", id, name, 0.0, args);
    let process_name = |pid: u32, name: String| {
        [
            event((pid, 0), "process_name", Args::Name { name }),
            event((pid, 0), "process_sort_index", Args::Sort { sort_index: pid }),
        ]
    };
    let thread_name = |pid: u32, tid: u32, name: &str| {
        event((pid, tid), "thread_name", Args::Name { name: name.to_owned() })
    };
    let mut events = Vec::from(process_name(RUN, "run".to_owned()));
    events.push(thread_name(RUN, STEPS, "steps"));
    for (device, name) in recording.devices.iter().enumerate() {
        events.extend(process_name(process(device), format!("device {device} ({name})")));
        events.push(thread_name(process(device), ACTIONS, "actions"));
        if recording.steps.iter().any(|step| !transfers(step.timeline, device).is_empty()) {
            events.push(thread_name(process(device), TRANSFERS, "transfers"));
        }
    }
    events
}

fn transfers(timeline: &Timeline, device: usize) -> &[Span] {
    timeline.transfers.get(device).map_or(&[], Vec::as_slice)
}

/// What a device did and when it did nothing.
fn spans(step: &RecordedStep, device: usize) -> Vec<TraceEvent> {
    let (pid, number) = (process(device), step.number);
    let event = |tid: u32, span: &Span| {
        let (cat, name, args): (_, Cow<str>, _) = match span.label {
            Label::Action(action) => {
                let args = Args::Action {
                    step: number,
                    stage: action.stage.0,
                    work: action.letters(),
                    microbatch: action.microbatch.0,
                };
                ("action", action.to_string().into(), args)
            }
            Label::Transfer | Label::Parcel { .. } => {
                ("transfer", "transfer".into(), Args::InStep { step: number })
            }
            Label::Update => ("update", "update".into(), Args::InStep { step: number }),
        };
        let (start, end) = (step.start + span.start, step.start + span.end);
        TraceEvent::complete(pid, tid, cat, name, (start, end, args))
    };
    let lane = step.timeline.lanes[device].iter().map(|span| event(ACTIONS, span));
    let beside = transfers(step.timeline, device).iter().map(|span| event(TRANSFERS, span));
    let idle = idle(step.timeline, device).into_iter().map(|(start, end)| {
        let args = Args::InStep { step: number };
        let times = (step.start + start, step.start + end, args);
        TraceEvent::complete(pid, ACTIONS, "idle", "idle", times)
    });
    lane.chain(beside).chain(idle).collect()
}

/// When a device did nothing between the first and the last action of all devices.
fn idle(timeline: &Timeline, device: usize) -> Vec<(f64, f64)> {
    let starts = timeline.lanes.iter().flatten().filter(|span| is_action(span));
    let first = starts.map(|span| span.start).fold(f64::INFINITY, f64::min);
    let last = first + bubble(timeline).makespan;
    let mut free = first;
    let mut idle = Vec::new();
    for span in &timeline.lanes[device] {
        idle.push((free, span.start.min(last)));
        free = free.max(span.end);
    }
    idle.push((free, last));
    idle.retain(|(start, end)| microseconds(*start) < microseconds(*end));
    idle
}

fn is_action(span: &Span) -> bool {
    matches!(span.label, Label::Action(_))
}

/// What a device holds beside what it holds throughout.
fn counter(costs: &Costs, step: &RecordedStep, device: usize) -> Vec<TraceEvent> {
    let spans: Vec<&Span> = step.timeline.lanes[device].iter().filter(|s| is_action(s)).collect();
    let actions = spans.iter().filter_map(|span| match span.label {
        Label::Action(action) => Some(action),
        Label::Transfer | Label::Parcel { .. } | Label::Update => None,
    });
    let actions: Vec<Action> = actions.collect();
    let bytes = stash_bytes(&actions, DeviceId(device as u32), costs);
    let event = |seconds: f64, bytes: u64| {
        let (id, name) = ((process(device), 0), "stash and working memory");
        TraceEvent::new("C", id, name, step.start + seconds, Args::Bytes { bytes })
    };
    let pair = |(span, bytes): (&&Span, _)| {
        let StashBytes { during, after } = bytes;
        [event(span.start, during), event(span.end, after)]
    };
    spans.iter().zip(bytes).flat_map(pair).collect()
}

/// From where every parcel was made to where it was taken.
fn arrows(plan: &CheckedPlan, step: &RecordedStep, flows: &mut u64) -> Vec<TraceEvent> {
    let of_device = |(device, lane): (usize, &Vec<Span>)| {
        let action = |span: &Span| match span.label {
            Label::Action(action) => Some((device, *span, action)),
            Label::Transfer | Label::Parcel { .. } | Label::Update => None,
        };
        lane.iter().filter_map(action).collect::<Vec<_>>()
    };
    let actions: Vec<(usize, Span, Action)> =
        step.timeline.lanes.iter().enumerate().flat_map(of_device).collect();
    let made: HashMap<Action, (usize, Span)> =
        actions.iter().map(|&(device, span, action)| (action, (device, span))).collect();
    let mut arrows = Vec::new();
    for (device, span, action) in actions {
        let Some(link) = plan.receives(action) else { continue };
        let producer = plan.inputs(action).parcel.and_then(|producer| made.get(&producer));
        let Some((from, producer)) = producer else { continue };
        *flows += 1;
        // A span's end is not in it any more, and an arrow starts in a span.
        let leaves = (producer.end - 1e-9).max(producer.start);
        let name = if link.is_forward() { "activation" } else { "gradient" };
        for (ph, device, seconds) in [("s", *from, leaves), ("f", device, span.start)] {
            let (at, args) = (step.start + seconds, Args::InStep { step: step.number });
            let event = TraceEvent::new(ph, (process(device), ACTIONS), name, at, args);
            let bp = (ph == "f").then_some("e");
            arrows.push(TraceEvent { cat: "parcel", id: Some(*flows), bp, ..event });
        }
    }
    arrows
}
