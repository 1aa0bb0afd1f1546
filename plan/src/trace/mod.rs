//! When everything ran, simulated or measured, and how much of that time was bubble.
//!
//! ```text
//! bubble  Timeline                  -> Bubble    idle time, in absolute time and in fractions
//! draw    Timeline, width           -> String    lanes of letters, for the terminal
//! svg     Timeline, Annotations     -> String    lanes of bars, for documents and browsers
//! chrome  Recording                 -> Write     tracks of spans, for Perfetto
//! ```

mod chrome;
mod svg;
mod timetable;

use std::collections::BTreeSet;

pub use chrome::{RecordedStep, Recording, chrome};
pub use svg::{Annotations, PAINTS, Paint, svg};
pub use timetable::draw;

use crate::{Action, DeviceId, StageId};

/// What every device did in one step, in any unit of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    /// Every device's spans in the order they ran, without overlap; the index is the device.
    pub lanes: Vec<Vec<Span>>,
    /// When parcels were on their way, beside the actions: measured ones when they moved between
    /// host and device, predicted ones from the device that sends them to the one that takes them.
    /// The index is that device. Empty where that takes no time of its own.
    pub transfers: Vec<Vec<Span>>,
}

/// One piece of a device's time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// What it was spent on.
    pub label: Label,
    /// When it began.
    pub start: f64,
    /// When it ended.
    pub end: f64,
}

/// What a device spends a [`Span`] on. Only actions count as busy: the rest is not the pipeline's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// An action of the plan.
    Action(Action),
    /// Moving a parcel, where that takes the device's own time.
    Transfer,
    /// A parcel on its way to another device.
    Parcel {
        /// The action that it is of.
        of: Action,
        /// The device that takes it.
        to: DeviceId,
    },
    /// The optimizer's update of the parameters.
    Update,
}

/// The idle time of a timeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Bubble {
    /// From the first action to the end of the last one, over all devices.
    pub makespan: f64,
    /// Step bubble: all devices' idle time as a fraction of devices x makespan.
    pub step: f64,
    /// Span bubble: the largest fraction of its own span that any device idles.
    ///
    /// For devices with equal work this is the bubble rate of Qi et al. 2023: one minus the work
    /// over the longest span.
    pub span: f64,
    /// The same in absolute time; the index is the device.
    pub devices: Vec<DeviceTime>,
}

/// Where a device's time went.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DeviceTime {
    /// Time spent in actions.
    pub busy: f64,
    /// Idle time between the device's first and last action.
    pub span_idle: f64,
    /// Idle time between the first and last action of all devices.
    pub step_idle: f64,
}

impl DeviceTime {
    /// Time spent in actions, in percent of the makespan.
    pub fn busy_percent(&self) -> f64 {
        100.0 * fraction(self.busy, self.busy + self.step_idle)
    }
}

/// The bubble of `timeline`; only its actions count.
pub fn bubble(timeline: &Timeline) -> Bubble {
    let extents: Vec<Extent> = timeline.lanes.iter().map(|lane| extent(lane)).collect();
    let start = extents.iter().map(|extent| extent.start).fold(f64::INFINITY, f64::min);
    let end = extents.iter().map(|extent| extent.end).fold(f64::NEG_INFINITY, f64::max);
    let makespan = (end - start).max(0.0);
    let device = |extent: &Extent| DeviceTime {
        busy: extent.busy,
        span_idle: extent.idle(),
        step_idle: makespan - extent.busy,
    };
    let devices: Vec<DeviceTime> = extents.iter().map(device).collect();
    let idle: f64 = devices.iter().map(|device| device.step_idle).sum();
    let spans = devices.iter().map(|d| fraction(d.span_idle, d.span_idle + d.busy));
    Bubble {
        makespan,
        step: fraction(idle, makespan * devices.len() as f64),
        span: spans.fold(0.0, f64::max),
        devices,
    }
}

/// From the first to the last action of a lane, and how much of that the actions fill.
struct Extent {
    start: f64,
    end: f64,
    busy: f64,
}

impl Extent {
    fn idle(&self) -> f64 {
        if self.start < self.end { self.end - self.start - self.busy } else { 0.0 }
    }
}

fn extent(lane: &[Span]) -> Extent {
    let none = Extent { start: f64::INFINITY, end: f64::NEG_INFINITY, busy: 0.0 };
    let actions = lane.iter().filter(|span| matches!(span.label, Label::Action(_)));
    actions.fold(none, |extent, span| Extent {
        start: extent.start.min(span.start),
        end: extent.end.max(span.end),
        busy: extent.busy + (span.end - span.start),
    })
}

fn fraction(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// A row for each of these transfers, in the order in which they begin: the first row that is free
/// then. Where all are taken it is the one that is free first.
fn rows(transfers: &[Span]) -> Vec<usize> {
    let mut ends: Vec<f64> = Vec::new();
    let row = |span: &Span| {
        let free = ends.iter().position(|end| *end <= span.start);
        let row = match free {
            Some(row) => row,
            None if ends.len() < MOST_ROWS => {
                ends.push(span.end);
                ends.len() - 1
            }
            None => {
                let of_row = |row: &usize| ends[*row];
                (0..MOST_ROWS).min_by(|a, b| of_row(a).total_cmp(&of_row(b))).unwrap_or(0)
            }
        };
        ends[row] = ends[row].max(span.end);
        row
    };
    transfers.iter().map(row).collect()
}

/// More transfers of a device at once are drawn over one another.
const MOST_ROWS: usize = 3;

/// The stages in a lane, ascending.
fn stages(lane: &[Span]) -> BTreeSet<StageId> {
    let stage = |span: &Span| match span.label {
        Label::Action(action) => Some(action.stage),
        Label::Transfer | Label::Parcel { .. } | Label::Update => None,
    };
    lane.iter().filter_map(stage).collect()
}
