//! The order that the policy takes at given costs, and what any other order can need.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::memory::{most_parcels, most_stash};
use super::policy::{Choice, Policy};
use super::stash_limits::StashLimits;
use crate::Plan;
use crate::action::{Action, DeviceId};
use crate::check::{CheckedPlan, check};
use crate::error::Result;
use crate::placement::Link;
use crate::simulate::{Costs, Simulation, note_transfer, simulate_on};
use crate::trace::{Label, Span, Timeline};

/// The plan that dynamic amounts to when every action takes what `costs` say and nothing is late:
/// its order, within the limits and on the placement of `base`.
///
/// # Errors
///
/// When `costs` are not of as many stages as `base`, or a time in them cannot be used.
pub fn dynamic(base: &CheckedPlan, costs: &Costs) -> Result<CheckedPlan> {
    let plan = base.plan();
    costs.check(&plan.placement)?;
    let timeline = play(base, costs, |action, start| start + costs.time(action));
    let action = |span: &Span| match span.label {
        Label::Action(action) => action,
        Label::Transfer | Label::Parcel { .. } | Label::Update => {
            unreachable!("only actions are played")
        }
    };
    check(Plan {
        schedule: "dynamic".to_owned(),
        lanes: timeline.lanes.iter().map(|lane| lane.iter().map(action).collect()).collect(),
        ..plan.clone()
    })
}

/// Runs `plan`, which [`dynamic`] gave, on paper, with the memory for what may happen instead.
///
/// Times and bubble are those of `plan`. Channels are large enough, and peak bytes an upper bound,
/// for every order within `limits`. A device that makes its buffers beforehand must have made them
/// for the limits of its segments.
///
/// # Errors
///
/// When `costs` are not of as many stages as `plan`, or a time in them cannot be used.
pub fn simulate_dynamic(
    plan: &CheckedPlan,
    limits: &StashLimits,
    costs: &Costs,
) -> Result<Simulation> {
    let placement = &plan.plan().placement;
    let mut simulation = simulate_on(plan, costs, limits.channels(placement))?;
    for (device, memory) in (0u32..).map(DeviceId).zip(&mut simulation.memory) {
        let chunks = placement.stages_of(device).count();
        memory.peak_stash = f64::from(limits.devices[device.index()]) / chunks as f64;
        if costs.buffers.get(device.index()).is_none_or(Option::is_none) {
            memory.channel_bytes = most_parcels(placement, limits, costs, device);
            memory.peak_stash_bytes = most_stash(placement, limits, costs, device);
        }
    }
    Ok(simulation)
}

/// Plays one step of [`Policy`] on paper. `end` says when an action ends that starts at a time;
/// what is expected of it, and what transfers take, is in `costs`.
pub fn play(
    base: &CheckedPlan,
    costs: &Costs,
    mut end: impl FnMut(Action, f64) -> f64,
) -> Timeline {
    let plan = base.plan();
    let mut policy = Policy::new(base, costs);
    let mut lanes: Vec<Vec<Span>> = vec![Vec::new(); plan.lanes.len()];
    let mut transfers = Vec::new();
    let mut busy = vec![false; lanes.len()];
    let mut events = BinaryHeap::new();
    let mut now = 0.0;
    loop {
        for (device, lane) in (0u32..).map(DeviceId).zip(&mut lanes) {
            if busy[device.index()] {
                continue;
            }
            let action = match policy.next(device, now) {
                Choice::Run(action) => action,
                Choice::Wait(time) => {
                    events.push(TimedEvent { time, kind: EventKind::Waited });
                    continue;
                }
                Choice::Idle => continue,
            };
            policy.start(action, now);
            busy[device.index()] = true;
            let span = Span { label: Label::Action(action), start: now, end: end(action, now) };
            lane.push(span);
            let kind = EventKind::Ended { device, time: span.end - span.start };
            events.push(TimedEvent { time: span.end, kind });
            if let Some(link) = base.sends(action) {
                let time = span.end + costs.transfer(&plan.placement, link);
                note_transfer(&mut transfers, &plan.placement, link, (action, span.end, time));
                events.push(TimedEvent { time, kind: EventKind::Arrived(link) });
            }
        }
        // All that happens at one time happens before anything is decided.
        let Some(first) = events.peek() else { break };
        now = first.time;
        while let Some(event) = events.peek().copied().filter(|event| event.time <= now) {
            events.pop();
            match event.kind {
                EventKind::Ended { device, time } => {
                    busy[device.index()] = false;
                    policy.end(device, time, now);
                }
                EventKind::Arrived(link) => policy.arrive(link),
                EventKind::Waited => {}
            }
        }
    }
    Timeline { lanes, transfers }
}

#[derive(Debug, Clone, Copy)]
struct TimedEvent {
    time: f64,
    kind: EventKind,
}

#[derive(Debug, Clone, Copy)]
enum EventKind {
    Ended {
        device: DeviceId,
        time: f64,
    },
    Arrived(Link),
    /// A device has waited long enough.
    Waited,
}

/// The earliest event is the greatest.
impl Ord for TimedEvent {
    fn cmp(&self, other: &Self) -> Ordering {
        other.time.total_cmp(&self.time)
    }
}

impl PartialOrd for TimedEvent {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for TimedEvent {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for TimedEvent {}
