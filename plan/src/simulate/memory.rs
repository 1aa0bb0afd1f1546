//! The peak bytes of every device.
//!
//! A device runs one action at a time, so what it holds depends on its lane alone, not on timing;
//! what is under way to it is bounded by its channels.

use crate::Plan;
use crate::action::{Action, DeviceId};
use crate::channels::Channel;
use crate::error::{Error, Result};
use crate::placement::Link;
use crate::work::Work;

use super::costs::{BufferBytes, Costs, StageBytes};

/// A device's memory when it holds the most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeviceMemory {
    /// Parameters, gradients and optimizer state of its stages.
    pub fixed_bytes: u64,
    /// For the parcels on their way to it: capacity times bytes of every link that ends here, and
    /// the most parcels between two of its own stages times their bytes.
    pub channel_bytes: u64,
    /// Stash and working memory at the peak.
    pub peak_stash_bytes: u64,
    /// The action that runs at the peak.
    pub peak_at: Action,
    /// Peak stash in microbatches of the device.
    ///
    /// A microbatch counts from the start of F to the end of W, however little of it is left
    /// after B; on a device with v chunks each chunk's part counts 1/v. In a plan that is forward
    /// only it counts while F runs: nothing reads what F made but the next stage.
    pub peak_stash: f64,
}

impl DeviceMemory {
    /// All that the device must hold at once.
    pub fn peak_bytes(&self) -> u64 {
        self.fixed_bytes.saturating_add(self.channel_bytes).saturating_add(self.peak_stash_bytes)
    }
}

/// Whether every device holds its peak within its limit, in bytes; the index is the device.
///
/// # Errors
///
/// The first device that needs more than its limit, with the action of its peak, or a number of
/// limits that is not that of the devices.
pub fn fit(memory: &[DeviceMemory], limits: &[u64]) -> Result<()> {
    if memory.len() != limits.len() {
        return Err(Error::config(format!(
            "{} memory limits for {} devices",
            limits.len(),
            memory.len()
        )));
    }
    for (device, (memory, &limit)) in (0u32..).map(DeviceId).zip(memory.iter().zip(limits)) {
        let need = memory.peak_bytes();
        if need > limit {
            let standing = memory.fixed_bytes.saturating_add(memory.channel_bytes);
            let other = if standing < limit {
                format!("a schedule that stashes less than {} microbatches", memory.peak_stash)
            } else {
                format!("more devices ({standing} bytes are needed before any microbatch)")
            };
            return Err(Error::plan(format!("device {device} needs {need} bytes, has {limit}"))
                .in_action(memory.peak_at)
                .hint(format!("a limit of {need} bytes, a smaller microbatch, or {other}")));
        }
    }
    Ok(())
}

/// The peak of every device of a checked plan.
pub(super) fn peaks(plan: &Plan, costs: &Costs, channels: &[Channel]) -> Vec<DeviceMemory> {
    (0..plan.lanes.len() as u32)
        .map(|device| peak(plan, costs, channels, DeviceId(device)))
        .collect()
}

fn peak(plan: &Plan, costs: &Costs, channels: &[Channel], device: DeviceId) -> DeviceMemory {
    let lane = &plan.lanes[device.index()];
    let mut memory = DeviceMemory {
        fixed_bytes: plan
            .placement
            .stages_of(device)
            .map(|stage| costs.stages[stage.index()].bytes.fixed)
            .fold(0, u64::saturating_add),
        channel_bytes: channel_bytes(plan, costs, channels, device)
            .saturating_add(own_parcel_bytes(plan, costs, device)),
        peak_stash_bytes: 0,
        peak_at: lane[0],
        peak_stash: 0.0,
    };
    let forward_only = plan.is_forward_only();
    let (mut parts, mut most_parts) = (0u32, 0u32);
    for (&action, bytes) in lane.iter().zip(live_stash(lane, costs)) {
        parts += u32::from(action.work == Work::F);
        most_parts = most_parts.max(parts);
        parts -= u32::from(forward_only || action.computes(Work::W));
        let peak = bytes.during.max(bytes.after);
        if peak > memory.peak_stash_bytes {
            (memory.peak_stash_bytes, memory.peak_at) = (peak, action);
        }
    }
    if let Some(&Some(buffers)) = costs.buffers.get(device.index()) {
        // Parcels on their way wait in the host's memory.
        memory.channel_bytes = 0;
        (memory.fixed_bytes, memory.peak_stash_bytes) = (buffers.fixed, buffers.stash);
    }
    memory.peak_stash = f64::from(most_parts) / plan.placement.stages_of(device).count() as f64;
    memory
}

/// What a device holds in stash and working memory while an action runs, and when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StashBytes {
    /// The most while it runs.
    pub during: u64,
    /// The stash that it leaves.
    pub after: u64,
}

/// The stash of `device` at every action of `lane`, in which order it may have run them.
///
/// A device that makes its buffers before the first step holds all of them throughout.
pub fn stash_bytes(lane: &[Action], device: DeviceId, costs: &Costs) -> Vec<StashBytes> {
    match costs.buffers.get(device.index()) {
        Some(&Some(BufferBytes { stash, .. })) => {
            vec![StashBytes { during: stash, after: stash }; lane.len()]
        }
        _ => live_stash(lane, costs),
    }
}

fn live_stash(lane: &[Action], costs: &Costs) -> Vec<StashBytes> {
    let forward_only = lane.iter().all(|action| action.work == Work::F);
    let mut stash = 0u64;
    let at = |action: &Action| {
        let bytes = &costs.stages[action.stage.index()].bytes;
        let mut during = 0;
        for change in action.works().iter().map(|work| change(*work, bytes)) {
            let acquired = if forward_only { 0 } else { change.acquired };
            during = stash.saturating_add(change.working).max(during);
            stash = stash.saturating_add(acquired).saturating_sub(change.released);
            during = stash.max(during);
        }
        StashBytes { during, after: stash }
    };
    lane.iter().map(at).collect()
}

/// What F, B or W does to its device's memory.
struct Change {
    acquired: u64,
    working: u64,
    released: u64,
}

fn change(work: Work, bytes: &StageBytes) -> Change {
    let (acquired, released) = match work {
        Work::F => (bytes.forward_for_b.saturating_add(bytes.forward_for_w), 0),
        Work::B => (bytes.backward_for_w, bytes.forward_for_b),
        Work::W => (0, bytes.forward_for_w.saturating_add(bytes.backward_for_w)),
    };
    Change { acquired, working: bytes.working[work], released }
}

fn channel_bytes(plan: &Plan, costs: &Costs, channels: &[Channel], device: DeviceId) -> u64 {
    let to_here =
        channels.iter().filter(|channel| plan.placement.device(channel.link.to) == device);
    to_here
        .map(|channel| costs.parcel_bytes(channel.link).saturating_mul(u64::from(channel.capacity)))
        .fold(0, u64::saturating_add)
}

/// A parcel between two stages of one device is held from the end of one action to the start of
/// the other.
fn own_parcel_bytes(plan: &Plan, costs: &Costs, device: DeviceId) -> u64 {
    let placement = &plan.placement;
    let stays = |link: &Link| !placement.crosses(*link);
    let (mut held, mut most) = (0u64, 0u64);
    for &action in &plan.lanes[device.index()] {
        if let Some(link) = placement.inbound(action).filter(stays) {
            held = held.saturating_sub(costs.parcel_bytes(link));
        }
        if let Some(link) = placement.outbound(action).filter(stays) {
            held = held.saturating_add(costs.parcel_bytes(link));
        }
        most = most.max(held);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::{BoundaryCost, StageCost};
    use crate::{PerWork, check, simulate};

    /// Bytes as decimal digits, so that a sum shows its parts.
    fn memory(lane: &str) -> DeviceMemory {
        let bytes = StageBytes {
            fixed: 1_000_000,
            forward_for_b: 1,
            forward_for_w: 10,
            backward_for_w: 100,
            working: PerWork([1_000, 2_000, 3_000]),
        };
        let text = format!("schedule test\nmicrobatches 2\nplacement 0\ndevice 0: {lane}\n");
        let plan = check(text.parse().unwrap()).unwrap();
        let stage = StageCost { bytes, ..StageCost::default() };
        simulate(&plan, &Costs { stages: vec![stage], ..Costs::unit(1) }).unwrap().memory[0]
    }

    fn peak(lane: &str, at: &str, peak_stash_bytes: u64, peak_stash: f64) {
        let peak_at = at.parse().unwrap();
        let expected = DeviceMemory {
            fixed_bytes: 1_000_000,
            channel_bytes: 0,
            peak_stash_bytes,
            peak_at,
            peak_stash,
        };
        assert_eq!(memory(lane), expected, "{lane}");
    }

    #[test]
    fn b_frees_what_only_b_needs_and_w_frees_the_rest() {
        peak("0F0 0B0 0W0 0F1 0B1 0W1", "0W0", 3_110, 1.0);
        peak("0F0 0B0 0F1 0W0 0B1 0W1", "0W0", 3_121, 2.0);
        peak("0F0 0F1 0B0 0B1 0W0 0W1", "0W0", 3_220, 2.0);
    }

    #[test]
    fn a_fused_backward_holds_what_b_and_w_hold() {
        peak("0F0 0BW0 0F1 0BW1", "0BW0", 3_110, 1.0);
        peak("0F0 0F1 0BW0 0BW1", "0BW0", 3_121, 2.0);
    }

    #[test]
    fn a_forward_that_no_backward_follows_leaves_nothing() {
        peak("0F0 0F1", "0F0", 1_000, 1.0);
    }

    #[test]
    fn parcels_are_held_by_the_device_they_go_to() {
        let text = "schedule test\nmicrobatches 2\nplacement 0 1\n\
            device 0: 0F0 0F1 0BW0 0BW1\ndevice 1: 1F0 1F1 1BW0 1BW1\n";
        let plan = check(text.parse().unwrap()).unwrap();
        let mut costs = Costs::unit(2);
        costs.boundaries[0] = BoundaryCost { activation_bytes: 10, gradient_bytes: 100 };
        let memory = simulate(&plan, &costs).unwrap().memory;
        assert_eq!([memory[0].channel_bytes, memory[1].channel_bytes], [2 * 100, 2 * 10]);
    }

    #[test]
    fn a_parcel_between_two_stages_of_a_device_is_held_until_it_is_taken() {
        let lane = "0F0 0F1 1F0 1F1 1BW0 0BW0 1BW1 0BW1";
        let text = format!("schedule test\nmicrobatches 2\nplacement 0 0\ndevice 0: {lane}\n");
        let plan = check(text.parse().unwrap()).unwrap();
        let mut costs = Costs::unit(2);
        costs.boundaries[0] = BoundaryCost { activation_bytes: 10, gradient_bytes: 15 };
        assert_eq!(simulate(&plan, &costs).unwrap().memory[0].channel_bytes, 2 * 10);
    }

    #[test]
    fn a_device_that_is_too_small_is_an_error_that_says_what_would_fit() {
        let memory = [memory("0F0 0F1 0BW0 0BW1")];
        fit(&memory, &[1_003_121]).unwrap();
        assert_eq!(
            fit(&memory, &[1_003_120]).unwrap_err().to_string(),
            "action 0BW0: device 0 needs 1003121 bytes, has 1003120 (try: a limit of 1003121 \
             bytes, a smaller microbatch, or a schedule that stashes less than 2 microbatches)"
        );
        assert_eq!(
            fit(&memory, &[5]).unwrap_err().to_string(),
            "action 0BW0: device 0 needs 1003121 bytes, has 5 (try: a limit of 1003121 bytes, a \
             smaller microbatch, or more devices (1000000 bytes are needed before any microbatch))"
        );
    }
}
