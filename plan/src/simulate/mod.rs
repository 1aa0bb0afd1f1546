//! CheckedPlan + Costs -> Simulation: times, bubble, bytes and channel capacities before anything
//! runs.

mod costs;
mod lower_bound;
mod memory;

pub use costs::{BoundaryCost, BufferBytes, Costs, StageBytes, StageCost};
pub(super) use lower_bound::lower_bound;
pub use memory::{DeviceMemory, StashBytes, fit, stash_bytes};

use super::action::Action;
use super::channels::{Channel, channel_capacities};
use super::check::CheckedPlan;
use super::placement::{Link, Placement};
use crate::error::Result;
use crate::trace::{Bubble, Label, Span, Timeline, bubble};

/// What a plan will do, at given costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulation {
    /// Start and end of every action. The first starts at 0.
    pub timeline: Timeline,
    /// Makespan and bubble of that timeline.
    pub bubble: Bubble,
    /// No schedule on this placement has a smaller makespan: see `simulate/lower_bound.rs`.
    pub lower_bound: f64,
    /// The peak memory of every device.
    pub memory: Vec<DeviceMemory>,
    /// The capacity of every link between devices with which no send ever blocks.
    pub channels: Vec<Channel>,
}

/// Runs `plan` on paper: every action starts as soon as its device is free and its parcel is there.
///
/// A transfer takes its time after the action that sends it, but no time of either device.
///
/// # Errors
///
/// When `costs` are not of as many stages as `plan`, or a time in them cannot be used.
pub fn simulate(plan: &CheckedPlan, costs: &Costs) -> Result<Simulation> {
    simulate_on(plan, costs, channel_capacities(plan))
}

/// The same over `channels`, which must be wide enough that no send blocks.
pub(super) fn simulate_on(
    plan: &CheckedPlan,
    costs: &Costs,
    channels: Vec<Channel>,
) -> Result<Simulation> {
    let placement = &plan.plan().placement;
    costs.check(placement)?;
    let timeline = run(plan, |action| costs.time(action), |link| costs.transfer(placement, link));
    Ok(Simulation {
        bubble: bubble(&timeline),
        timeline,
        lower_bound: lower_bound(plan.plan(), costs),
        memory: memory::peaks(plan.plan(), costs, &channels),
        channels,
    })
}

/// Every action as soon as its device is free and its parcel is there.
pub(super) fn run(
    plan: &CheckedPlan,
    time: impl Fn(Action) -> f64,
    transfer: impl Fn(Link) -> f64,
) -> Timeline {
    let placement = &plan.plan().placement;
    let microbatches = plan.plan().microbatches as usize;
    let mut lanes: Vec<Vec<Span>> =
        plan.plan().lanes.iter().map(|lane| Vec::with_capacity(lane.len())).collect();
    let mut transfers = Vec::new();
    // When the parcel of microbatch k has arrived over a link, at `link * microbatches + k`.
    let mut arrivals = vec![f64::NAN; 2 * placement.stage_count() * microbatches];
    let index = |link: Link, k: usize| link.index() * microbatches + k;
    for (at, action) in plan.in_order() {
        let lane = &mut lanes[at.device.index()];
        let free = lane.last().map_or(0.0, |span| span.end);
        let arrival = placement
            .inbound(action)
            .map_or(0.0, |link| arrivals[index(link, action.microbatch.index())]);
        assert!(!arrival.is_nan(), "{action} runs before its parcel is made");
        let start = free.max(arrival);
        let end = start + time(action);
        lane.push(Span { label: Label::Action(action), start, end });
        if let Some(link) = placement.outbound(action) {
            let arrival = end + transfer(link);
            arrivals[index(link, action.microbatch.index())] = arrival;
            note_transfer(&mut transfers, placement, link, (action, end, arrival));
        }
    }
    Timeline { lanes, transfers }
}

/// Adds the parcel of an action to those that its device sends, if it is under way for some time:
/// from, until when.
pub(super) fn note_transfer(
    transfers: &mut Vec<Vec<Span>>,
    placement: &Placement,
    link: Link,
    (of, start, end): (Action, f64, f64),
) {
    if start < end {
        transfers.resize(placement.device_count().max(transfers.len()), Vec::new());
        let label = Label::Parcel { of, to: placement.device(link.to) };
        transfers[placement.device(link.from).index()].push(Span { label, start, end });
    }
}
