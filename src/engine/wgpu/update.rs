//! The end of a step: sums of gradients to their owners, the update, new values to who reads them.

use burn::tensor::TensorData;
use burn_dispatch::DispatchTensor;
use wgpu::ComputePassDescriptor;

use super::buffers::Buffers;
use super::context::Context;
use super::layout::{ArenaId, Layout, Range};
use super::shader::{Abilities, Shader, optimizer};
use super::{BoundPipeline, WgpuEngine};
use crate::compile::Accumulator;
use crate::engine::{
    Engine, EngineSetup, OwnParameters, ParameterState, PartialSums, Update, host_tensor,
};
use crate::error::Result;
use crate::graph::ParameterId;

/// What an update dispatches.
#[derive(Debug)]
pub(super) struct Updates {
    /// Adds sums of gradients to the first one of their parameter, in the order of the blocks.
    additions: Vec<BoundPipeline>,
    /// Squares of the norms of parts of gradients, with clipping.
    norms: Vec<BoundPipeline>,
    /// Updates whole buffers of parameters.
    steps: Vec<BoundPipeline>,
    /// Updates so far.
    count: usize,
}

impl Updates {
    pub(super) fn new(
        context: &mut Context,
        abilities: &Abilities,
        setup: &EngineSetup,
        layout: &Layout,
        buffers: &Buffers,
    ) -> Result<Self> {
        let arenas = &layout.arenas;
        let wide = abilities.cpu && abilities.wide;
        let mut additions = Vec::new();
        for sum in &layout.gradient_sums().added {
            let (from, to) = (arenas.sums[sum], arenas.parameters[&sum.parameter]);
            let to = Range { arena: ArenaId::Gradients, ..to };
            let shader = optimizer::add(from.bytes.next_multiple_of(16) as usize / 4, wide);
            let bindings = [whole(buffers, from), whole(buffers, to)];
            additions.push(dispatch(context, &shader, &[false, true], &bindings)?);
        }
        let mut norms = Vec::new();
        for (parameter, &to) in &arenas.norms {
            let from = Range { arena: ArenaId::Gradients, ..arenas.parameters[parameter] };
            let shader = optimizer::squared_norms(from.bytes as usize / 4);
            let bindings = [whole(buffers, from), buffers.range(to)];
            norms.push(dispatch(context, &shader, &[false, true], &bindings)?);
        }
        let mut steps = Vec::new();
        for (chunk, &bytes) in arenas.chunks(ArenaId::Owned).iter().enumerate() {
            // Two kernels, each with the arithmetic that it always has: a factor that is one for
            // some elements could be left out by a driver where it is one for all.
            let decayed = arenas.decayed[chunk];
            let parts =
                [(0..decayed, setup.rule.optimizer), (decayed..bytes, setup.rule.optimizer.of(1))];
            for (part, optimizer) in parts.into_iter().filter(|(part, _)| !part.is_empty()) {
                let (offset, bytes) = (part.start, part.end - part.start);
                let shader = optimizer::update(&optimizer, bytes as usize / 4, wide);
                let moments = (0..optimizer.moments() as u32).map(ArenaId::Moment);
                let arenas = [ArenaId::Owned, ArenaId::Gradients].into_iter().chain(moments);
                let mut bindings: Vec<_> = arenas
                    .map(|arena| buffers.range(Range { arena, chunk, offset, bytes }))
                    .collect();
                bindings.push(buffers.settings.as_entire_buffer_binding());
                let mut written = vec![true; bindings.len()];
                written[1] = false;
                *written.last_mut().expect("there are parameters") = false;
                steps.push(dispatch(context, &shader, &written, &bindings)?);
            }
        }
        Ok(Self { additions, norms, steps, count: 0 })
    }
}

/// Up to a whole vector: between tensors of an arena there is padding, and it is zero.
fn whole(buffers: &Buffers, range: Range) -> wgpu::BufferBinding<'_> {
    buffers.range(Range { bytes: range.bytes.next_multiple_of(16), ..range })
}

fn dispatch(
    context: &mut Context,
    shader: &Shader,
    written: &[bool],
    bindings: &[wgpu::BufferBinding<'_>],
) -> Result<BoundPipeline> {
    let pipeline = context.pipeline(shader, written)?;
    let bindings = bindings.iter().cloned().enumerate();
    let bindings: Vec<_> = bindings.map(|(at, binding)| shader.bound(at, binding)).collect();
    let group = context.bind(&pipeline, &bindings);
    Ok(BoundPipeline { pipeline, group, workgroups: shader.workgroups })
}

impl Engine for WgpuEngine {
    fn owner(&mut self) -> &mut dyn OwnParameters {
        self
    }
}

impl OwnParameters for WgpuEngine {
    fn partial_sums(&mut self) -> PartialSums {
        self.layout.gradient_sums().partial.clone()
    }

    fn take_partial_sums(&mut self) -> Result<Vec<(Accumulator, DispatchTensor)>> {
        let sent = self.layout.gradient_sums().partial.sent.clone();
        let sum = |sum: Accumulator| {
            let values = self.read(self.layout.arenas.sums[&sum])?;
            Ok((sum, self.tensor(sum.parameter, values)))
        };
        sent.into_iter().map(sum).collect()
    }

    fn reduce(&mut self, sums: &[(Accumulator, DispatchTensor)]) -> Result<()> {
        for sum in self.layout.gradient_sums().partial.awaited.clone() {
            let value = sums.iter().find(|(of, _)| *of == sum).map(|(_, value)| value);
            let value = value.expect("every other device has handed over its sums");
            self.write(self.layout.arenas.sums[&sum], value)?;
        }
        let mut encoder = self.context.encoder();
        record(&mut encoder, &self.updates.additions);
        self.context.submit(encoder);
        self.context.check()
    }

    fn squared_norms(&mut self) -> Result<Vec<(ParameterId, f64)>> {
        let mut encoder = self.context.encoder();
        record(&mut encoder, &self.updates.norms);
        self.context.submit(encoder);
        let norms: Vec<_> = self.layout.arenas.norms.clone().into_iter().collect();
        let square = |(parameter, range): (ParameterId, Range)| {
            let parts = self.read(range)?;
            Ok((parameter, parts.into_iter().map(f64::from).sum()))
        };
        norms.into_iter().map(square).collect()
    }

    fn update(&mut self, update: &Update) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        self.updates.count += 1;
        self.states_are_provisional = false;
        let settings = optimizer::settings(&self.setup.rule.optimizer, update, self.updates.count);
        let entry = self.up.take();
        self.up.wait(entry, &self.context)?;
        self.up.write(entry, &self.context, |put| put(0, bytemuck::cast_slice(&settings)))?;
        self.up.unmap(entry);
        let mut encoder = self.context.encoder();
        if update.provisional {
            self.copy_state(&mut encoder, |now, before| (now, before));
        }
        let bytes = settings.len() as u64 * 4;
        let to = &self.buffers.settings;
        encoder.copy_buffer_to_buffer(self.up.buffer(entry), 0, to, 0, bytes);
        record(&mut encoder, &self.updates.steps);
        self.context.submit(encoder);
        self.up.map(entry);
        // Waits for the map, so that the update's time is the device's.
        self.up.wait(entry, &self.context)?;
        let stages = self.setup.stages.iter();
        let shared: Vec<ParameterId> = stages.flat_map(|stage| stage.shared.clone()).collect();
        self.values(&shared)
    }

    fn undo(&mut self) -> Result<()> {
        self.updates.count -= 1;
        self.states_are_provisional = true;
        let mut encoder = self.context.encoder();
        self.copy_state(&mut encoder, |now, before| (before, now));
        self.context.submit(encoder);
        self.context.check()
    }

    fn set_parameters(&mut self, values: &[(ParameterId, DispatchTensor)]) -> Result<()> {
        for (parameter, value) in values {
            match self.layout.arenas.parameters.get(parameter) {
                Some(&range) if range.arena == ArenaId::Borrowed => self.write(range, value)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn parameters(&mut self, of: &[ParameterId]) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        let arenas = &self.layout.arenas;
        let held = |id: &ParameterId| {
            arenas.parameters.contains_key(id) && !arenas.states.contains_key(id)
        };
        let held: Vec<ParameterId> = of.iter().copied().filter(held).collect();
        let mut values = self.values(&held)?;
        values.extend(self.state_values(of)?);
        Ok(values)
    }

    fn state(&mut self, of: &[ParameterId]) -> Result<Vec<(ParameterId, ParameterState)>> {
        let updates = self.updates.count as u64;
        let mut states = Vec::new();
        for id in self.owned_of(of) {
            let mut tensors = Vec::new();
            for arena in self.arenas_of_state() {
                let values = self.read(Range { arena, ..self.layout.arenas.parameters[&id] })?;
                tensors.push(self.tensor(id, values));
            }
            let value = tensors.remove(0);
            states.push((id, ParameterState { value, moments: tensors, updates }));
        }
        for (id, value) in self.state_values(of)? {
            states.push((id, ParameterState { value, moments: Vec::new(), updates: 0 }));
        }
        Ok(states)
    }

    fn restore(&mut self, state: &[(ParameterId, ParameterState)]) -> Result<()> {
        self.states_are_provisional = false;
        for (id, ParameterState { value, moments, updates }) in state {
            match self.layout.arenas.parameters.get(id) {
                Some(&range) if range.arena == ArenaId::Owned => {
                    let tensors = std::iter::once(value).chain(moments);
                    for (arena, tensor) in self.arenas_of_state().into_iter().zip(tensors) {
                        self.write(Range { arena, ..range }, tensor)?;
                    }
                    self.updates.count = *updates as usize;
                }
                Some(&range) => self.write(range, value)?,
                None => {}
            }
        }
        Ok(())
    }
}

impl WgpuEngine {
    /// Those of some parameters that the device owns, in the order of its stages.
    fn owned_of(&self, some: &[ParameterId]) -> Vec<ParameterId> {
        let owned = self.setup.stages.iter().flat_map(|stage| stage.owned.clone());
        owned.filter(|id| some.contains(id)).collect()
    }

    /// Copies parameters and optimizer state to what an update is undone from, or back.
    fn copy_state(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        direction: impl Fn(ArenaId, ArenaId) -> (ArenaId, ArenaId),
    ) {
        let moments = (0..self.setup.rule.optimizer.moments() as u32).map(ArenaId::Moment);
        for (at, now) in (0..).zip(std::iter::once(ArenaId::Owned).chain(moments)) {
            let (from, to) = direction(now, ArenaId::Before(at));
            for (chunk, &bytes) in self.layout.arenas.chunks(now).iter().enumerate() {
                let [from, to] = [from, to].map(|arena| self.buffers.chunk(arena, chunk));
                encoder.copy_buffer_to_buffer(from, 0, to, 0, bytes);
            }
        }
    }

    /// Clears all sums of gradients, for the actions that are submitted next.
    pub(super) fn clear(&mut self) {
        let mut encoder = self.context.encoder();
        for arena in [ArenaId::Gradients, ArenaId::Sums] {
            for chunk in 0..self.layout.arenas.chunks(arena).len() {
                encoder.clear_buffer(self.buffers.chunk(arena, chunk), 0, None);
            }
        }
        self.context.submit(encoder);
    }

    /// Values of parameters.
    fn values(&mut self, parameters: &[ParameterId]) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        let value = |&parameter: &ParameterId| {
            let values = self.read(self.layout.arenas.parameters[&parameter])?;
            Ok((parameter, self.tensor(parameter, values)))
        };
        parameters.iter().map(value).collect()
    }

    /// Where owned parameters are, and then the optimizer's state of each in the same places.
    fn arenas_of_state(&self) -> Vec<ArenaId> {
        let moments = (0..self.setup.rule.optimizer.moments() as u32).map(ArenaId::Moment);
        std::iter::once(ArenaId::Owned).chain(moments).collect()
    }

    pub(super) fn tensor(&self, parameter: ParameterId, values: Vec<f32>) -> DispatchTensor {
        let graph = &self.setup.split.joint.graph;
        let shape = graph[graph.parameters[parameter.index()].node].shape.0.clone();
        host_tensor(TensorData::new(values, shape))
    }
}

/// Records dispatches one after another.
fn record(encoder: &mut wgpu::CommandEncoder, dispatches: &[BoundPipeline]) {
    let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
    for dispatch in dispatches {
        pass.set_pipeline(&dispatch.pipeline);
        pass.set_bind_group(0, &dispatch.group, &[]);
        let [x, y, z] = dispatch.workgroups;
        pass.dispatch_workgroups(x, y, z);
    }
}
