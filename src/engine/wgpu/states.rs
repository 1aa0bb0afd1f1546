//! Parameters that F replaces, such as running statistics.

use burn_dispatch::DispatchTensor;
use wgpu::CommandEncoder;

use super::WgpuEngine;
use super::layout::{Place, Range};
use crate::error::Result;
use crate::graph::ParameterId;
use crate::plan::Action;

impl WgpuEngine {
    /// Keeps the states for a step that begins, after taking back what a step did that was not
    /// completed: one that ends without an update changes none.
    pub(super) fn keep_states(&mut self) {
        let back = std::mem::take(&mut self.states_are_provisional);
        let arenas = &self.layout.arenas;
        if arenas.states.is_empty() {
            return;
        }
        let mut encoder = self.context.encoder();
        for (parameter, &before) in &arenas.states {
            let now = arenas.parameters[parameter];
            let (from, to) = if back { (before, now) } else { (now, before) };
            self.copy(from, to, &mut encoder);
        }
        self.context.submit(encoder);
    }

    /// Records the copies of what F made of states.
    pub(super) fn set_states(
        &mut self,
        states: &[(Place, Range)],
        segment: usize,
        action: Action,
        encoder: &mut CommandEncoder,
    ) {
        if self.evaluates || states.is_empty() {
            return;
        }
        self.states_are_provisional = true;
        for &(place, to) in states {
            let from = self.buffers.place(place, segment, self.slots(action, segment));
            let to_buffer = self.buffers.chunk(to.arena, to.chunk);
            let bytes = to.bytes;
            encoder.copy_buffer_to_buffer(from.buffer, from.offset, to_buffer, to.offset, bytes);
        }
    }

    fn copy(&self, from: Range, to: Range, encoder: &mut CommandEncoder) {
        let [source, target] = [from, to].map(|of| self.buffers.chunk(of.arena, of.chunk));
        encoder.copy_buffer_to_buffer(source, from.offset, target, to.offset, to.bytes);
    }

    /// Values of those of some parameters that are states, as the last complete step left them.
    pub(super) fn state_values(
        &mut self,
        of: &[ParameterId],
    ) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        let arenas = &self.layout.arenas;
        let place = |(&id, &before): (&ParameterId, &Range)| match self.states_are_provisional {
            true => (id, before),
            false => (id, arenas.parameters[&id]),
        };
        let asked = arenas.states.iter().filter(|(id, _)| of.contains(id));
        let places: Vec<(ParameterId, Range)> = asked.map(place).collect();
        let value = |(id, range)| Ok((id, self.read(range).map(|values| self.tensor(id, values))?));
        places.into_iter().map(value).collect()
    }
}
