//! How many parcels a link must hold so that no send ever blocks, whatever the timing.
//!
//! Happens-before (Lamport 1978) orders the actions: along a lane, and from the producer of a
//! parcel to its consumer. When a link is sent its k-th parcel, exactly the receives that happen
//! before the send are certainly done, and some timing has done no other. So the link holds k + 1
//! minus that number, and the maximum over k is both enough and necessary. A link holds parcels by
//! microbatch: in which order they are taken does not matter, only how many have been.
//!
//! Vector clocks (Fidge 1988, Mattern 1989) count those receives. A receive is at the start of its
//! action, but other lanes learn of an action only by what follows its end; so it is enough to
//! count, for each lane, the actions that are certainly done.

use std::collections::HashMap;

use super::action::MicrobatchId;
use super::check::CheckedPlan;
use super::placement::Link;

/// The channel of a link between different devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// Which stages it connects.
    pub link: Link,
    /// How many parcels it holds, each by its microbatch.
    pub capacity: u32,
}

/// The smallest capacity of every link between devices with which no send ever blocks.
pub fn channel_capacities(plan: &CheckedPlan) -> Vec<Channel> {
    let placement = &plan.plan().placement;
    let devices = placement.device_count();
    let mut ends: Vec<LinkEnds> = vec![LinkEnds::default(); 2 * placement.stage_count()];
    for lane in &plan.plan().lanes {
        for (position, action) in (0u32..).zip(lane) {
            if let Some(link) = plan.receives(*action) {
                ends[link.index()].receives.push(position);
            }
        }
    }
    // clocks[d][e]: how many actions of lane e are certainly done, as far as lane d has come.
    let mut clocks = vec![vec![0u32; devices]; devices];
    for (at, action) in plan.in_order() {
        let clock = &mut clocks[at.device.index()];
        if let Some(link) = plan.receives(action) {
            let clocks = &mut ends[link.index()].clocks;
            let sender = clocks.remove(&action.microbatch).expect("in order: sent before taken");
            clock.iter_mut().zip(sender).for_each(|(mine, theirs)| *mine = theirs.max(*mine));
        }
        clock[at.device.index()] = at.position as u32 + 1;
        if let Some(link) = plan.sends(action) {
            let end = &mut ends[link.index()];
            let done = clock[placement.device(link.to).index()];
            let taken = end.receives.partition_point(|position| *position < done) as u32;
            end.sent += 1;
            assert!(taken < end.sent, "{action} cannot follow the receive of its own parcel");
            end.capacity = end.capacity.max(end.sent - taken);
            end.clocks.insert(action.microbatch, clock.clone());
        }
    }
    let channel = |link: Link| Channel { link, capacity: ends[link.index()].capacity };
    placement.links().map(channel).collect()
}

#[derive(Clone, Default)]
struct LinkEnds {
    /// Where in the receiver's lane parcels are taken.
    receives: Vec<u32>,
    /// The sender's clock at the send of each parcel that is not yet taken.
    clocks: HashMap<MicrobatchId, Vec<u32>>,
    sent: u32,
    capacity: u32,
}
