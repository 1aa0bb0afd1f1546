//! The most bytes that a device can hold under any order within the limits.

use super::stash_limits::StashLimits;
use crate::action::{DeviceId, StageId};
use crate::placement::{Link, Placement};
use crate::simulate::{Costs, StageBytes};
use crate::work::Work;

/// An upper bound on the stash and working memory of `device`, in bytes.
///
/// As many microbatches as the limits allow are open on the stages that keep the most, each at its
/// larger: between F and B, or between B and W. The action that needs the most runs on top.
pub(super) fn most_stash(
    placement: &Placement,
    limits: &StashLimits,
    costs: &Costs,
    device: DeviceId,
) -> u64 {
    let bytes = |stage: StageId| &costs.stages[stage.index()].bytes;
    let mut stages: Vec<StageId> = placement.stages_of(device).collect();
    stages.sort_by_key(|stage| std::cmp::Reverse(kept(bytes(*stage))));
    let mut left = limits.devices[device.index()];
    let mut stash = 0u64;
    for stage in &stages {
        let open = limits.segments[stage.index()].min(left);
        left -= open;
        stash = stash.saturating_add(kept(bytes(*stage)).saturating_mul(u64::from(open)));
    }
    let working = stages.iter().map(|stage| on_top(bytes(*stage))).max().unwrap_or(0);
    stash.saturating_add(working)
}

/// An upper bound on the parcels for `device`, in bytes: on their way from others, and between its
/// own stages. On each link there are no more than are open on its lower stage.
pub(super) fn most_parcels(
    placement: &Placement,
    limits: &StashLimits,
    costs: &Costs,
    device: DeviceId,
) -> u64 {
    let boundaries = (1..placement.stage_count() as u32).map(|s| (StageId(s - 1), StageId(s)));
    let links = boundaries.flat_map(|(below, above)| {
        [Link { from: below, to: above }, Link { from: above, to: below }]
    });
    let bytes = |link: Link| {
        costs.parcel_bytes(link).saturating_mul(u64::from(limits.segments[link.boundary()]))
    };
    let here = links.filter(|link| placement.device(link.to) == device);
    here.map(bytes).fold(0, u64::saturating_add)
}

/// Stash of a microbatch between F and B.
fn before_b(bytes: &StageBytes) -> u64 {
    bytes.forward_for_b.saturating_add(bytes.forward_for_w)
}

/// Stash of a microbatch between B and W.
fn before_w(bytes: &StageBytes) -> u64 {
    bytes.forward_for_w.saturating_add(bytes.backward_for_w)
}

/// The larger of the two.
fn kept(bytes: &StageBytes) -> u64 {
    before_b(bytes).max(before_w(bytes))
}

/// What an action needs beyond the larger stash of its microbatch. F finds no stash of it.
fn on_top(bytes: &StageBytes) -> u64 {
    let b = before_b(bytes).saturating_add(bytes.working[Work::B]);
    let w = before_w(bytes).saturating_add(bytes.working[Work::W]);
    bytes.working[Work::F].max(b).max(w).saturating_sub(kept(bytes))
}
