//! The lane of one device of a V as it grows, by chunk: down the devices, and back up.

use super::{Size, actions};
use crate::action::{Action, DeviceId, StageId, Work};

/// The chunk on the way down the devices.
pub(super) const DOWN: usize = 0;
/// The chunk on the way back up.
pub(super) const UP: usize = 1;

/// Takes each kind of work of each chunk by ascending microbatch, and leaves out those beyond the
/// microbatches that there are.
pub(super) struct Lane {
    microbatches: u32,
    stages: [StageId; 2],
    /// The next F, B and W of each chunk.
    forwards: [u32; 2],
    backwards: [u32; 2],
    weights: [u32; 2],
    actions: Vec<Action>,
}

impl Lane {
    pub fn new(device: DeviceId, size: Size) -> Self {
        Self {
            microbatches: size.microbatches,
            stages: [device.0, 2 * size.devices - 1 - device.0].map(StageId),
            forwards: [0; 2],
            backwards: [0; 2],
            weights: [0; 2],
            actions: Vec::with_capacity(6 * size.microbatches as usize),
        }
    }

    /// F.
    pub fn forward(&mut self, chunk: usize) {
        self.push(chunk, Work::F, self.forwards[chunk]);
        self.forwards[chunk] += 1;
    }

    /// BW. No W of the chunk may be put off.
    pub fn fused(&mut self, chunk: usize) {
        assert_eq!(self.weights[chunk], self.backwards[chunk], "W of a microbatch before is left");
        self.push(chunk, Work::BW, self.backwards[chunk]);
        self.backwards[chunk] += 1;
        self.weights[chunk] += 1;
    }

    /// B alone.
    pub fn split(&mut self, chunk: usize) {
        self.push(chunk, Work::B, self.backwards[chunk]);
        self.backwards[chunk] += 1;
    }

    /// The oldest W that is put off.
    pub fn weight(&mut self, chunk: usize) {
        self.push(chunk, Work::W, self.weights[chunk]);
        self.weights[chunk] += 1;
    }

    /// Whether a W is put off.
    pub fn puts_off(&self, chunk: usize) -> bool {
        self.weights[chunk] < self.backwards[chunk]
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

    fn push(&mut self, chunk: usize, work: Work, microbatch: u32) {
        if microbatch < self.microbatches {
            self.actions.push(actions(self.stages[chunk], work)(microbatch));
        }
    }
}
