//! The order that the policy takes at given costs.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::limits::Limits;
use super::policy::Policy;
use crate::error::Result;
use crate::plan::Plan;
use crate::plan::action::{Action, DeviceId};
use crate::plan::check::{CheckedPlan, check};
use crate::plan::placement::Link;
use crate::plan::simulate::Costs;
use crate::trace::{Label, Span, Timeline};

/// The plan that dynamic turns into when every action takes what `costs` say.
pub fn dynamic(base: &CheckedPlan, costs: &Costs) -> Result<CheckedPlan> {
    let plan = base.plan();
    costs.check(plan.placement.stage_count())?;
    let timeline = play(base, costs, |action, start| start + costs.time(action));
    let action = |span: &Span| match span.label {
        Label::Action(action) => action,
        Label::Transfer | Label::Update => unreachable!("only actions are played"),
    };
    check(Plan {
        schedule: "dynamic".to_owned(),
        lanes: timeline.lanes.iter().map(|lane| lane.iter().map(action).collect()).collect(),
        ..plan.clone()
    })
}

/// Plays one step on paper; `end` says when an action ends that starts at a time.
pub fn play(
    base: &CheckedPlan,
    costs: &Costs,
    mut end: impl FnMut(Action, f64) -> f64,
) -> Timeline {
    let plan = base.plan();
    let mut policy = Policy::new(&plan.placement, plan.microbatches, Limits::of(base));
    let mut lanes: Vec<Vec<Span>> = vec![Vec::new(); plan.lanes.len()];
    let mut busy = vec![false; lanes.len()];
    let mut events = BinaryHeap::new();
    let mut now = 0.0;
    loop {
        for (device, lane) in (0u32..).map(DeviceId).zip(&mut lanes) {
            if busy[device.index()] {
                continue;
            }
            let Some(action) = policy.next(device) else { continue };
            policy.start(action);
            let span = Span { label: Label::Action(action), start: now, end: end(action, now) };
            lane.push(span);
            busy[device.index()] = true;
            events.push(Event { time: span.end, what: What::Free(device) });
            if let Some(link) = plan.placement.outbound(action)
                && plan.placement.crosses(link)
            {
                let time = span.end + costs.transfer(&plan.placement, link);
                events.push(Event { time, what: What::Arrived(link) });
            }
        }
        // All that happens at one time happens before anything is decided.
        let Some(first) = events.peek() else { break };
        now = first.time;
        while let Some(event) = events.peek().copied().filter(|event| event.time <= now) {
            events.pop();
            match event.what {
                What::Free(device) => busy[device.index()] = false,
                What::Arrived(link) => policy.arrive(link),
            }
        }
    }
    Timeline { lanes, transfers: Vec::new() }
}

#[derive(Debug, Clone, Copy)]
struct Event {
    time: f64,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Free(DeviceId),
    Arrived(Link),
}

/// The earliest event is the greatest.
impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        other.time.total_cmp(&self.time)
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Event {}
