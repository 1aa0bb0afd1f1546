//! An untimed run of a plan, by tokens, over channels of given capacities: it ends or it deadlocks.
//!
//! A lane takes its parcel at the start of an action and sends at the end; a send blocks while the
//! channel is full. A channel holds parcels by microbatch, so they may be taken in another order
//! than they were sent. Each lane is deterministic, each channel has one sender and one receiver,
//! and what a lane can do it still can whatever another does first; so whether all lanes end
//! depends on no timing (Kahn 1974): one run proves it for all.

use super::Plan;
use super::action::{Action, DeviceId};
use super::channels::Channel;
use super::placement::Link;
use crate::error::{Error, PlanPart, Result};

/// An action by its place in the lanes.
#[derive(Debug, Clone, Copy)]
pub(super) struct LanePosition {
    pub device: DeviceId,
    pub position: usize,
}

/// Runs a plan whose lanes are complete, each in a legal order; returns the actions in one order
/// they can run in.
pub(super) fn run(plan: &Plan, channels: &[Channel]) -> Result<Vec<LanePosition>> {
    let links = 2 * plan.placement.stage_count();
    let mut network = Network {
        plan,
        lanes: vec![LaneCursor::default(); plan.lanes.len()],
        held: vec![Held { parcels: 0, capacity: u32::MAX }; links],
        sent: vec![false; links * plan.microbatches as usize],
        order: Vec::with_capacity(plan.lanes.iter().map(Vec::len).sum()),
    };
    for channel in channels {
        if !plan.placement.links().any(|link| link == channel.link) {
            return Err(Error::plan(format!("no two devices are joined by link {}", channel.link))
                .hint("links are between neighbouring stages on different devices"));
        }
        network.held[channel.link.index()].capacity = channel.capacity;
    }
    let mut awake: Vec<DeviceId> = (0..plan.lanes.len() as u32).rev().map(DeviceId).collect();
    while let Some(device) = awake.pop() {
        advance(&mut network, device, &mut awake);
    }
    let mut stuck = (0..plan.lanes.len() as u32)
        .map(DeviceId)
        .filter_map(|device| Some((device, waits(&network, device)?)));
    let Some((first, wait)) = stuck.next() else { return Ok(network.order) };
    let mut waits = vec![wait];
    waits.extend(stuck.by_ref().take(MOST_WAITS - 1).map(|(_, wait)| wait));
    let more = stuck.count();
    if more > 0 {
        waits.push(format!("and {more} more"));
    }
    let position = network.lanes[first.index()].position;
    Err(Error::plan(format!("deadlock: {}", waits.join(", ")))
        .in_part(PlanPart::Action(first, position))
        .hint("move one of these actions later in its lane"))
}

/// How many devices of a deadlock an error names.
const MOST_WAITS: usize = 8;

struct Network<'a> {
    plan: &'a Plan,
    lanes: Vec<LaneCursor>,
    /// Indexed by [`Link::index`].
    held: Vec<Held>,
    /// Whether a link was given the parcel of microbatch k, at `link * microbatches + k`.
    sent: Vec<bool>,
    order: Vec<LanePosition>,
}

#[derive(Clone, Copy, Default)]
struct LaneCursor {
    position: usize,
    /// The action has run; what remains is to hand its parcel on.
    sending: bool,
}

/// A blocked sender's parcel counts: the receiver may take it from the sender's hand.
#[derive(Clone, Copy)]
struct Held {
    parcels: u32,
    capacity: u32,
}

impl Network<'_> {
    /// The place in `sent` of the parcel that `link` carries for `action`.
    fn parcel(&self, link: Link, action: Action) -> usize {
        link.index() * self.plan.microbatches as usize + action.microbatch.index()
    }

    fn is_overfull(&self, link: Link) -> bool {
        let Held { parcels, capacity } = self.held[link.index()];
        parcels > capacity
    }
}

/// Runs one lane until it is blocked or done; wakes the lanes it may have unblocked.
fn advance(network: &mut Network, device: DeviceId, awake: &mut Vec<DeviceId>) {
    let plan = network.plan;
    let placement = &plan.placement;
    let lane = &plan.lanes[device.index()];
    let LaneCursor { mut position, mut sending } = network.lanes[device.index()];
    while let Some(&action) = lane.get(position) {
        let outbound = placement.outbound(action);
        if !sending {
            if let Some(link) = placement.inbound(action) {
                if !network.sent[network.parcel(link, action)] {
                    break;
                }
                network.held[link.index()].parcels -= 1;
                awake.push(placement.device(link.from));
            }
            network.order.push(LanePosition { device, position });
            if let Some(link) = outbound {
                let parcel = network.parcel(link, action);
                network.sent[parcel] = true;
                network.held[link.index()].parcels += 1;
                awake.push(placement.device(link.to));
            }
        }
        sending = outbound.is_some_and(|link| network.is_overfull(link));
        if sending {
            break;
        }
        position += 1;
    }
    network.lanes[device.index()] = LaneCursor { position, sending };
}

/// What the lane waits for, if it has not come to its end.
fn waits(network: &Network, device: DeviceId) -> Option<String> {
    let lane = network.lanes[device.index()];
    let action = *network.plan.lanes[device.index()].get(lane.position)?;
    if lane.sending {
        let link = network.plan.placement.outbound(action).expect("only a sender blocks on a send");
        let capacity = network.held[link.index()].capacity;
        return Some(format!(
            "device {device} waits after {action} because link {link} is full (capacity {capacity})"
        ));
    }
    let link = network.plan.placement.inbound(action).expect("only a receiver waits for a parcel");
    let sends = |sender: &&Action| {
        sender.microbatch == action.microbatch
            && network.plan.placement.outbound(**sender) == Some(link)
    };
    let sender =
        network.plan.lanes[network.plan.placement.device(link.from).index()].iter().find(sends);
    let sender = sender.expect("every action that is waited for is in its lane");
    Some(format!("device {device} waits at {action} for {sender}"))
}
