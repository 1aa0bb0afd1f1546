//! What actions cost: time in any one unit, and bytes.

use crate::action::{Action, StageId};
use crate::error::{Error, ErrorKind, Result};
use crate::placement::{Link, Placement};
use crate::transfers::Transfers;
use crate::work::PerWork;

/// The costs of every stage and of every boundary between neighbouring stages.
#[derive(Debug, Clone, PartialEq)]
pub struct Costs {
    /// The index is the [`StageId`].
    pub stages: Vec<StageCost>,
    /// Entry s is the boundary between stage s and stage s + 1.
    pub boundaries: Vec<BoundaryCost>,
    /// What parcels take from device to device.
    pub transfers: Transfers,
    /// Devices that make their buffers before the first step, and these take the place of the
    /// bytes that their stages say; the index is the device. Devices beyond the list are not such.
    pub buffers: Vec<Option<BufferBytes>>,
}

/// The buffers of a device that makes them before the first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BufferBytes {
    /// Whatever the schedule: parameters, gradients, optimizer state, working and staging buffers.
    pub fixed: u64,
    /// One slot for every microbatch that is on its way through the device at once.
    pub stash: u64,
}

/// What one stage costs per microbatch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StageCost {
    /// Times of F, B and W. A fused backward takes those of B and of W.
    pub time: PerWork<f64>,
    /// What the stage keeps in memory.
    pub bytes: StageBytes,
}

/// What one stage keeps in its device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StageBytes {
    /// Throughout: parameters, their gradients, optimizer state.
    pub fixed: u64,
    /// Stash of a microbatch from F to the end of B: what B alone needs.
    pub forward_for_b: u64,
    /// Stash of a microbatch from F to the end of W: what W needs, whether or not B does too.
    pub forward_for_w: u64,
    /// Stash of a microbatch from B to the end of W: what B computes for W.
    pub backward_for_w: u64,
    /// Most bytes while F, B or W runs, on top of the stash at its start.
    pub working: PerWork<u64>,
}

/// What crosses a boundary between two stages for one microbatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BoundaryCost {
    /// Bytes of an activation.
    pub activation_bytes: u64,
    /// Bytes of a gradient.
    pub gradient_bytes: u64,
}

impl Costs {
    /// F = B = W = 1, no transfer, no bytes: what bubbles are usually quoted for.
    pub fn unit(stages: usize) -> Self {
        Self::uniform(stages, 1.0, 1.0, 1.0)
    }

    /// The same times for every stage, no transfer, no bytes.
    pub fn uniform(stages: usize, f: f64, b: f64, w: f64) -> Self {
        let stage = StageCost { time: PerWork([f, b, w]), bytes: StageBytes::default() };
        Self {
            stages: vec![stage; stages],
            boundaries: vec![BoundaryCost::default(); stages.saturating_sub(1)],
            transfers: Transfers::default(),
            buffers: Vec::new(),
        }
    }

    /// How long `action` takes.
    pub fn time(&self, action: Action) -> f64 {
        let time = &self.stages[action.stage.index()].time;
        action.works().iter().map(|work| time[*work]).sum()
    }

    /// How long a parcel is under way on `link`: no time on one device.
    pub(crate) fn transfer(&self, placement: &Placement, link: Link) -> f64 {
        let (from, to) = (placement.device(link.from), placement.device(link.to));
        self.transfers.time(from, to, self.parcel_bytes(link))
    }

    /// How large a parcel on `link` is.
    pub(crate) fn parcel_bytes(&self, link: Link) -> u64 {
        let boundary = &self.boundaries[link.boundary()];
        if link.is_forward() { boundary.activation_bytes } else { boundary.gradient_bytes }
    }

    /// Costs must fit the plan, and every time must be a number that time can be.
    pub(crate) fn check(&self, placement: &Placement) -> Result<()> {
        let stages = placement.stage_count();
        let bad = |problem| Err(Error::new(ErrorKind::Config, problem));
        if self.stages.len() != stages || self.boundaries.len() + 1 != stages {
            return bad(format!(
                "costs of {} stages and {} boundaries for a plan of {stages} stages",
                self.stages.len(),
                self.boundaries.len()
            ));
        }
        let usable = |time: f64| time.is_finite() && time >= 0.0;
        for (id, stage) in (0u32..).map(StageId).zip(&self.stages) {
            if let Some(time) = stage.time.0.into_iter().find(|time| !usable(*time)) {
                return bad(format!("{time} is not a time")).map_err(|e: Error| e.in_stage(id));
            }
        }
        self.transfers.check(placement.device_count())
    }
}
