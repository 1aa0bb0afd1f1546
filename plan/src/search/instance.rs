//! One assignment at its costs, flat, for the inner loop of the search.

use super::SearchInput;
use crate::action::{DeviceId, StageId};
use crate::placement::{Link, Placement};
use crate::simulate::{Costs, StageBytes};
use crate::work::{PerWork, Work};

/// What the order of one step is chosen for. Stages and devices are plain indices here.
pub(super) struct Instance {
    pub microbatches: usize,
    pub stages: Vec<InstanceStage>,
    pub devices: Vec<InstanceDevice>,
}

/// A stage on its device.
pub(super) struct InstanceStage {
    pub device: usize,
    /// Times of F, B and W.
    pub time: PerWork<f64>,
    /// Time of a parcel to the stage above and to the stage below; 0 on one device.
    pub transfer_up: f64,
    pub transfer_down: f64,
    pub bytes: StageBytes,
    /// Bytes of a microbatch between F and B, and between B and W.
    pub after_f: u64,
    pub after_b: u64,
}

/// A device with its stages.
pub(super) struct InstanceDevice {
    /// Ascending.
    pub chunks: Vec<usize>,
    /// Time of a microbatch: F, B and W of all chunks.
    pub work: f64,
    /// Bytes for stash and working memory.
    pub capacity: u64,
    /// The most that W of any chunk needs while it runs.
    pub working_w: u64,
    /// The most that a microbatch of any chunk needs on top of its stash while it finishes: for a
    /// further F, for B, and for W directly after B.
    pub headroom: u64,
    /// Bytes of a microbatch between F and B in all chunks.
    pub stash: u64,
}

impl Instance {
    /// `reserved` is what parcels on their way to each device may take; the index is the device.
    pub fn new(
        input: &SearchInput,
        placement: &Placement,
        costs: &Costs,
        reserved: &[u64],
    ) -> Self {
        let stages: Vec<InstanceStage> = (0..placement.stage_count() as u32)
            .map(|s| stage(placement, costs, StageId(s)))
            .collect();
        let device = |d: usize| {
            let chunks: Vec<usize> =
                placement.stages_of(DeviceId(d as u32)).map(StageId::index).collect();
            let sum = |of: &dyn Fn(&InstanceStage) -> u64| {
                chunks.iter().map(|s| of(&stages[*s])).fold(0, u64::saturating_add)
            };
            let most = |of: &dyn Fn(&InstanceStage) -> u64| {
                chunks.iter().map(|s| of(&stages[*s])).max().unwrap_or(0)
            };
            let fixed = sum(&|stage| stage.bytes.fixed);
            let capacity = input.memory_limits.get(d).map_or(u64::MAX, |limit| {
                match costs.buffers.get(d).copied().flatten() {
                    // Made before the first step, so that no order holds more or less.
                    Some(made) if made.fixed.saturating_add(made.stash) <= *limit => u64::MAX,
                    Some(_) => 0,
                    None => limit.saturating_sub(fixed).saturating_sub(reserved[d]),
                }
            });
            InstanceDevice {
                work: chunks.iter().map(|s| stages[*s].time.total()).sum(),
                capacity,
                working_w: most(&|stage| stage.bytes.working[Work::W]),
                headroom: most(&headroom),
                stash: sum(&|stage| stage.after_f),
                chunks,
            }
        };
        let devices = (0..placement.device_count()).map(device).collect();
        Self { microbatches: input.microbatches as usize, stages, devices }
    }

    /// How many actions a step has, with B and W apart.
    pub fn actions(&self) -> usize {
        Work::ALL.len() * self.microbatches * self.stages.len()
    }

    /// The time between two microbatches at the device that has the most to do.
    pub fn cycle(&self) -> f64 {
        self.devices.iter().map(|device| device.work).fold(0.0, f64::max)
    }
}

fn stage(placement: &Placement, costs: &Costs, id: StageId) -> InstanceStage {
    let cost = &costs.stages[id.index()];
    let transfer = |other: Option<u32>| {
        let link = other.map(|to| Link { from: id, to: StageId(to) });
        link.map_or(0.0, |link| costs.transfer(placement, link))
    };
    let bytes = cost.bytes;
    InstanceStage {
        device: placement.device(id).index(),
        time: cost.time,
        transfer_up: transfer(
            Some(id.0 + 1).filter(|above| (*above as usize) < costs.stages.len()),
        ),
        transfer_down: transfer(id.0.checked_sub(1)),
        bytes,
        after_f: bytes.forward_for_b.saturating_add(bytes.forward_for_w),
        after_b: bytes.forward_for_w.saturating_add(bytes.backward_for_w),
    }
}

fn headroom(stage: &InstanceStage) -> u64 {
    let bytes = &stage.bytes;
    let PerWork([f, b, w]) = bytes.working;
    let f = f.saturating_sub(stage.after_f);
    let w = bytes.backward_for_w.saturating_add(w);
    f.max(b).max(w.saturating_sub(bytes.forward_for_b))
}
