//! Counts the bytes that an engine holds.

use std::collections::HashMap;

use burn_dispatch::DispatchTensor;

use super::flex;

/// Bytes of the tensors held; tensors that share memory count once.
#[derive(Debug, Default)]
pub(super) struct Meter {
    held: u64,
    /// Most bytes held at once.
    pub peak: u64,
    /// How many tensors hold each piece of memory.
    holders: HashMap<usize, u32>,
}

impl Meter {
    pub(super) fn hold(&mut self, tensor: &DispatchTensor) {
        let (memory, bytes) = flex::memory(tensor);
        let holders = self.holders.entry(memory).or_default();
        // Memory that cannot be told apart is counted for every tensor.
        if *holders == 0 || memory == 0 {
            self.held += bytes;
            self.peak = self.peak.max(self.held);
        }
        *holders += 1;
    }

    /// Takes note of memory that is the caller's: views of it cost nothing.
    pub(super) fn lend(&mut self, tensor: &DispatchTensor) {
        let (memory, _) = flex::memory(tensor);
        *self.holders.entry(memory).or_default() += u32::from(memory != 0);
    }

    /// Forgets what was lent; nothing views it any more.
    pub(super) fn take_back(&mut self, tensor: &DispatchTensor) {
        self.holders.remove(&flex::memory(tensor).0);
    }

    pub(super) fn release(&mut self, tensor: &DispatchTensor) {
        let (memory, bytes) = flex::memory(tensor);
        let Some(holders) = self.holders.get_mut(&memory) else { return };
        *holders -= 1;
        if *holders == 0 {
            self.holders.remove(&memory);
            self.held -= bytes;
        } else if memory == 0 {
            self.held -= bytes;
        }
    }
}
