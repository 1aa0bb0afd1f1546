//! The lane of one device of a V as it grows, by chunk: down the devices, and back up.

use super::Size;
use crate::action::{Action, DeviceId, MicrobatchId, StageId};
use crate::work::{PerWork, Work};

/// The chunk on the way down the devices.
pub(super) const DOWN: usize = 0;
/// The chunk on the way back up.
pub(super) const UP: usize = 1;

/// Takes each kind of work of each chunk by ascending microbatch, and leaves out those beyond the
/// microbatches that there are.
pub(super) struct FoldedLane {
    microbatches: u32,
    stages: [StageId; 2],
    /// The next microbatch of each chunk, for F, B and W.
    next: [PerWork<u32>; 2],
    actions: Vec<Action>,
}

impl FoldedLane {
    pub fn new(device: DeviceId, size: Size) -> Self {
        Self {
            microbatches: size.microbatches,
            stages: [device.0, 2 * size.devices - 1 - device.0].map(StageId),
            next: [PerWork::default(); 2],
            actions: Vec::with_capacity(6 * size.microbatches as usize),
        }
    }

    /// F.
    pub fn forward(&mut self, chunk: usize) {
        let action = self.action(chunk, Work::F);
        self.push(chunk, action);
    }

    /// B and W as one. No W of the chunk may be put off.
    pub fn fused(&mut self, chunk: usize) {
        assert!(!self.puts_off(chunk), "W of a microbatch before is left");
        let Action { stage, microbatch, .. } = self.action(chunk, Work::B);
        self.push(chunk, Action::fused(stage, microbatch));
    }

    /// B alone.
    pub fn split(&mut self, chunk: usize) {
        let action = self.action(chunk, Work::B);
        self.push(chunk, action);
    }

    /// The oldest W that is put off.
    pub fn weight(&mut self, chunk: usize) {
        let action = self.action(chunk, Work::W);
        self.push(chunk, action);
    }

    /// Whether a W is put off.
    pub fn puts_off(&self, chunk: usize) -> bool {
        self.next[chunk][Work::W] < self.next[chunk][Work::B]
    }

    /// All W that are put off.
    pub fn finish(mut self) -> Vec<Action> {
        for chunk in [UP, DOWN] {
            while self.puts_off(chunk) {
                self.weight(chunk);
            }
        }
        self.actions
    }

    /// The next action of this kind.
    fn action(&self, chunk: usize, work: Work) -> Action {
        Action::new(self.stages[chunk], work, MicrobatchId(self.next[chunk][work]))
    }

    fn push(&mut self, chunk: usize, action: Action) {
        action.works().iter().for_each(|work| self.next[chunk][*work] += 1);
        if action.microbatch.0 < self.microbatches {
            self.actions.push(action);
        }
    }
}
