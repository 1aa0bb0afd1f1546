//! What a device does next: B before F before W, within the limits of the stash.

use super::limits::Limits;
use super::started::Started;
use crate::plan::action::{Action, DeviceId, MicrobatchId, StageId, Work};
use crate::plan::placement::{Link, Placement};

/// One step, as far as it has come, and the rule by which every device chooses its next action.
#[derive(Debug, Clone)]
pub struct Policy {
    placement: Placement,
    microbatches: u32,
    limits: Limits,
    /// The stages of every device, highest first; the index is the device.
    chunks: Vec<Vec<StageId>>,
    started: Started,
    /// How many parcels every stage has got, from below and from above.
    arrived: Vec<Arrived>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Arrived {
    activations: u32,
    gradients: u32,
}

impl Policy {
    /// A step of `microbatches` microbatches in which nothing has been started.
    pub fn new(placement: &Placement, microbatches: u32, limits: Limits) -> Self {
        let devices = (0..placement.device_count() as u32).map(DeviceId);
        let chunks = |device| placement.stages_of(device).collect::<Vec<_>>();
        let chunks = devices.map(chunks).map(|mut of| { of.reverse(); of }).collect();
        let mut arrived = vec![Arrived::default(); placement.stage_count()];
        arrived[0].activations = microbatches;
        let started = Started::new(placement);
        Self { placement: placement.clone(), microbatches, limits, chunks, started, arrived }
    }

    /// What `device` does next, if there is anything that it can do.
    pub fn next(&self, device: DeviceId) -> Option<Action> {
        let chunks = || self.chunks[device.index()].iter().copied();
        chunks()
            .find_map(|stage| self.backward(stage))
            .or_else(|| chunks().find_map(|stage| self.forward(stage)))
            .or_else(|| chunks().find_map(|stage| self.weight(stage)))
    }

    /// Counts `action` as started.
    pub fn start(&mut self, action: Action) {
        self.started.count(action);
        if let Some(link) = self.placement.outbound(action)
            && !self.placement.crosses(link)
        {
            self.arrive(link);
        }
    }

    /// Counts one more parcel of `link` as arrived.
    pub fn arrive(&mut self, link: Link) {
        let arrived = &mut self.arrived[link.to.index()];
        if link.is_forward() { arrived.activations += 1 } else { arrived.gradients += 1 }
    }

    fn backward(&self, stage: StageId) -> Option<Action> {
        let started = self.started.of(stage);
        let top = stage.index() + 1 == self.placement.stage_count();
        let gradients =
            if top { started.forward } else { self.arrived[stage.index()].gradients };
        (started.backward < gradients).then(|| action(stage, Work::B, started.backward))
    }

    fn forward(&self, stage: StageId) -> Option<Action> {
        let k = self.started.of(stage).forward;
        (k < self.arrived[stage.index()].activations && self.has_room(stage))
            .then(|| action(stage, Work::F, k))
    }

    fn weight(&self, stage: StageId) -> Option<Action> {
        let started = self.started.of(stage);
        (started.weight < started.backward).then(|| action(stage, Work::W, started.weight))
    }

    fn has_room(&self, stage: StageId) -> bool {
        let run = self.started.run(stage);
        if run.start == stage.index() && self.started.open_on_run(stage) >= self.limits.run(stage) {
            return false;
        }
        let device = self.placement.device(stage);
        let reserved = |stage: &StageId| self.started.open_on_stage(*stage).max(1);
        let taken: u32 = self.chunks[device.index()].iter().map(reserved).sum();
        self.started.open_on_stage(stage) == 0 || taken < self.limits.devices[device.index()]
    }
}

fn action(stage: StageId, work: Work, microbatch: u32) -> Action {
    Action::new(stage, work, MicrobatchId(microbatch))
}
