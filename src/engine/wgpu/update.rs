//! The end of a step: sums of gradients to their owners, the update, new values to who reads them.

use burn::tensor::TensorData;
use burn_dispatch::DispatchTensor;
use wgpu::ComputePassDescriptor;

use super::build::Buffers;
use super::context::Context;
use super::layout::{ArenaId, Layout, Range};
use super::shader::matmul::Abilities;
use super::shader::{Shader, optimizer};
use super::{Dispatch, WgpuEngine};
use crate::compile::Accumulator;
use crate::engine::{EngineSetup, Optimizer, host_tensor};
use crate::error::Result;
use crate::graph::ParameterId;

/// What an update dispatches.
#[derive(Debug)]
pub(super) struct Updates {
    /// Adds sums of gradients to the first one of their parameter, in the order of the blocks.
    additions: Vec<Dispatch>,
    /// Updates whole buffers of parameters.
    steps: Vec<Dispatch>,
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
        for sum in &layout.gradients().added {
            let (from, to) = (arenas.sums[sum], arenas.parameters[&sum.parameter]);
            let to = Range { arena: ArenaId::Gradients, ..to };
            // Up to a whole vector: between tensors of an arena there is room, and it is zero.
            let whole = |range: Range| {
                buffers.range(Range { bytes: range.bytes.next_multiple_of(16), ..range })
            };
            let shader = optimizer::add(from.bytes.next_multiple_of(16) as usize / 4, wide);
            let bindings = [whole(from), whole(to)];
            additions.push(dispatch(context, &shader, &[false, true], &bindings)?);
        }
        let mut steps = Vec::new();
        for (chunk, &bytes) in arenas.chunks(ArenaId::Owned).iter().enumerate() {
            // Two kernels, each with the arithmetic that it always has: a factor that is one for
            // some elements could be left out by a driver where it is one for all.
            let decayed = arenas.decayed[chunk];
            let parts = [(0..decayed, setup.optimizer), (decayed..bytes, setup.optimizer.of(1))];
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
        Ok(Self { additions, steps, count: 0 })
    }
}

fn dispatch(
    context: &mut Context,
    shader: &Shader,
    written: &[bool],
    bindings: &[wgpu::BufferBinding<'_>],
) -> Result<Dispatch> {
    let pipeline = context.pipeline(shader, written)?;
    let bindings = bindings.iter().cloned().enumerate();
    let bindings: Vec<_> = bindings.map(|(at, binding)| shader.bound(at, binding)).collect();
    let group = context.bind(&pipeline, &bindings);
    Ok(Dispatch { pipeline, group, workgroups: shader.workgroups })
}

impl WgpuEngine {
    /// Sums of gradients of parameters that other devices update.
    pub(super) fn shared_gradients(&mut self) -> Result<Vec<(Accumulator, DispatchTensor)>> {
        let shared = self.layout.gradients().shared.clone();
        let sum = |sum: Accumulator| {
            let values = self.read(self.layout.arenas.sums[&sum])?;
            Ok((sum, self.tensor(sum.parameter, values)))
        };
        shared.into_iter().map(sum).collect()
    }

    /// Updates the parameters that the device owns.
    pub(super) fn apply(
        &mut self,
        learning_rate: f64,
        shared: &[(Accumulator, DispatchTensor)],
    ) -> Result<()> {
        for sum in self.layout.gradients().foreign.clone() {
            let value = shared.iter().find(|(of, _)| *of == sum).map(|(_, value)| value);
            let value = value.expect("every other device has handed over its sums");
            self.write(self.layout.arenas.sums[&sum], value)?;
        }
        self.updates.count += 1;
        let settings = settings(&self.setup.optimizer, learning_rate, self.updates.count);
        let entry = self.up.take();
        self.up.wait(entry, &self.context)?;
        self.up.write(entry, &self.context, |put| put(0, bytemuck::cast_slice(&settings)))?;
        self.up.unmap(entry);
        let mut encoder = self.context.encoder();
        let bytes = settings.len() as u64 * 4;
        let to = &self.buffers.settings;
        encoder.copy_buffer_to_buffer(self.up.buffer(entry), 0, to, 0, bytes);
        let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
        for dispatch in self.updates.additions.iter().chain(&self.updates.steps) {
            pass.set_pipeline(&dispatch.pipeline);
            pass.set_bind_group(0, &dispatch.group, &[]);
            let [x, y, z] = dispatch.workgroups;
            pass.dispatch_workgroups(x, y, z);
        }
        drop(pass);
        self.context.submit(encoder);
        self.up.map(entry);
        // Waits for the map, so that the update's time is the device's.
        self.up.wait(entry, &self.context)
    }

    /// Clears all sums, for the actions that are submitted next.
    pub(super) fn clear_gradients(&mut self) {
        let mut encoder = self.context.encoder();
        for arena in [ArenaId::Gradients, ArenaId::Sums] {
            for chunk in 0..self.layout.arenas.chunks(arena).len() {
                encoder.clear_buffer(self.buffers.chunk(arena, chunk), 0, None);
            }
        }
        self.context.submit(encoder);
    }

    /// Values of parameters.
    pub(super) fn values(
        &mut self,
        parameters: &[ParameterId],
    ) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        let value = |&parameter: &ParameterId| {
            let values = self.read(self.layout.arenas.parameters[&parameter])?;
            Ok((parameter, self.tensor(parameter, values)))
        };
        parameters.iter().map(value).collect()
    }

    /// Takes new values of parameters that another device updates.
    pub(super) fn set_borrowed(&mut self, values: &[(ParameterId, DispatchTensor)]) -> Result<()> {
        for (parameter, value) in values {
            match self.layout.arenas.parameters.get(parameter) {
                Some(&range) if range.arena == ArenaId::Borrowed => self.write(range, value)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn tensor(&self, parameter: ParameterId, values: Vec<f32>) -> DispatchTensor {
        let graph = &self.setup.split.joint.graph;
        let shape = graph[graph.parameters[parameter.index()].node].shape.0.clone();
        host_tensor(TensorData::new(values, shape))
    }
}

fn settings(optimizer: &Optimizer, learning_rate: f64, step: usize) -> Vec<f32> {
    optimizer::settings(optimizer, learning_rate, step)
}
