//! Whether a device has the memory for an F or a B, so that it keeps to its capacity and never
//! locks itself in.
//!
//! A microbatch that has begun must be able to end. So F takes no memory without which some
//! microbatch that is under way could not go on: on a device with several chunks, F of a higher
//! chunk needs memory too before B frees any.

use super::instance::{Instance, InstanceDevice};
use crate::work::{PerWork, Work};

/// Whether F runs, and the device can still finish all that is under way on it: first what is
/// deferred, then one microbatch after the other.
///
/// The latter is the banker's question (Dijkstra 1965), and all devices ask it for the same order,
/// that of microbatches: so the oldest microbatch of the whole pipeline can always go on.
pub(super) fn f_fits(
    instance: &Instance,
    device: &InstanceDevice,
    stage: usize,
    stash: u64,
    progress: &[PerWork<u32>],
) -> bool {
    let cost = &instance.stages[stage];
    let after = stash.saturating_add(cost.after_f);
    let fits = |bytes: u64| bytes <= device.capacity;
    if !fits(stash.saturating_add(cost.bytes.working[Work::F])) || !fits(after) {
        return false;
    }
    let more = if device.chunks.len() > 1 { device.stash } else { 0 };
    if fits(after.saturating_add(more).saturating_add(device.headroom.max(device.working_w))) {
        return true;
    }
    let (deferred, working) = deferred(instance, device, progress);
    let needs = after.saturating_add(device.headroom);
    if !fits(after.saturating_add(working)) || !fits(needs.saturating_sub(deferred)) {
        return false;
    }
    if device.chunks.len() == 1 {
        return true;
    }
    let forwards = |s: usize| progress[s][Work::F] + u32::from(s == stage);
    // A microbatch needs the most when it is the first that a chunk has not run F on.
    device.chunks.iter().all(|&first| {
        let k = forwards(first);
        let (mut lacks, mut freed) = (0u64, deferred);
        for &s in &device.chunks {
            let (f, b, after_f) = (forwards(s), progress[s][Work::B], instance.stages[s].after_f);
            lacks = lacks.saturating_add(if f <= k { after_f } else { 0 });
            let in_flight = u64::from(f.min(k).saturating_sub(b));
            freed = freed.saturating_add(in_flight.saturating_mul(after_f));
        }
        k as usize >= instance.microbatches
            || fits(needs.saturating_sub(freed).saturating_add(lacks))
    })
}

/// Whether B runs, and after it every W that is deferred then.
pub(super) fn b_fits(
    instance: &Instance,
    device: &InstanceDevice,
    stage: usize,
    stash: u64,
    progress: &[PerWork<u32>],
) -> bool {
    let bytes = &instance.stages[stage].bytes;
    let after = stash.saturating_add(bytes.backward_for_w).saturating_sub(bytes.forward_for_b);
    stash.saturating_add(bytes.working[Work::B]) <= device.capacity
        && (after.saturating_add(device.working_w) <= device.capacity || {
            let (_, working) = deferred(instance, device, progress);
            after.saturating_add(working.max(bytes.working[Work::W])) <= device.capacity
        })
}

/// The stash of all deferred W, and the most that any of them needs while it runs.
fn deferred(instance: &Instance, device: &InstanceDevice, progress: &[PerWork<u32>]) -> (u64, u64) {
    let chunks = device.chunks.iter().map(|&s| (&instance.stages[s], progress[s]));
    let chunks = chunks.map(|(stage, of)| (stage, of[Work::B] - of[Work::W]));
    chunks.filter(|(_, count)| *count > 0).fold((0, 0), |(stash, working), (stage, count)| {
        let held = u64::from(count).saturating_mul(stage.after_b);
        (stash.saturating_add(held), working.max(stage.bytes.working[Work::W]))
    })
}
