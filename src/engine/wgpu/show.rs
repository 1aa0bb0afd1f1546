//! Shows what kernels compute: each by itself, with a copy of what it wrote right after it.

use burn_dispatch::DispatchTensor;
use wgpu::CommandEncoder;

use super::WgpuEngine;
use super::element::Element;
use super::kernel::Target;
use super::layout::{Bound, Place, Transfer, UploadSource};
use super::play::sent;
use super::staging::Ring;
use crate::compile::Accumulator;
use crate::engine::{Observer, Shown};
use crate::error::Result;
use crate::graph::NodeId;
use crate::plan::{Action, Work};

/// Least bytes of the buffer that copies wait in: many kernels are then shown at once.
const LEAST: u64 = 1 << 22;

/// Who observes, and what the device shows it through.
#[derive(Debug)]
pub(super) struct Show {
    observer: Observer,
    ring: Ring,
    bytes: u64,
    used: u64,
    /// What has been copied, by kernel.
    waiting: Vec<Vec<Copied>>,
}

/// A copy in the buffer.
#[derive(Debug, Clone, Copy)]
struct Copied {
    what: Written,
    place: Place,
    offset: u64,
    bytes: u64,
    element: Element,
}

#[derive(Debug, Clone, Copy)]
enum Written {
    Value(NodeId),
    Sum(Accumulator),
}

impl WgpuEngine {
    /// Makes what it takes to show everything to `observer`.
    pub(super) fn observed(&mut self, observer: Observer) -> Result<()> {
        let scripts = self.layout.scripts.values();
        let kernels = scripts.flat_map(|script| &script.kernels);
        let bytes = kernels.map(|bound| {
            bound
                .kernel
                .writes
                .iter()
                .map(|write| {
                    write.element.bytes_of(write.shape.iter().product()).next_multiple_of(16)
                })
                .sum()
        });
        let sums = self.layout.arenas.sums.values().map(|range| range.bytes.next_multiple_of(16));
        let parcels = self.layout.staging;
        let bytes: u64 = bytes.chain(sums).max().unwrap_or(0).max(LEAST).max(parcels);
        let ring = Ring::down(&mut self.context, 1, bytes)?;
        self.sealed = self.context.objects();
        self.show = Some(Show { observer, ring, bytes, used: 0, waiting: Vec::new() });
        Ok(())
    }

    /// Shows what arrived, after the copies that put it in its place.
    pub(super) fn show_arrived(
        &mut self,
        action: Action,
        uploads: &[Transfer<UploadSource>],
        segment: usize,
        encoder: &mut CommandEncoder,
    ) -> Result<()> {
        let Some(mut show) = self.show.take() else { return Ok(()) };
        let stage = self.setup.stages.iter().find(|stage| stage.stage == action.stage);
        let program = &stage.expect("the plan gave this stage here").program;
        let received = match action.work {
            Work::F => &program.activations_in,
            Work::B | Work::W => &program.gradients_in,
        };
        for upload in uploads {
            let UploadSource::Parcel(at, element) = upload.what else { continue };
            let (what, place, bytes) = (Written::Value(received[at]), upload.place, upload.bytes);
            let copied = [Copied { what, place, offset: 0, bytes, element }];
            show.copy(self, &copied, segment, action, encoder)?;
        }
        show.flush(self, encoder)?;
        self.show = Some(show);
        Ok(())
    }

    /// Records and submits the dispatches of one work, and shows what they write. Gives false, and
    /// does nothing, where nobody observes.
    pub(super) fn compute_shown(
        &mut self,
        action: Action,
        work: Work,
        encoder: &mut CommandEncoder,
    ) -> Result<bool> {
        let Some(mut show) = self.show.take() else { return Ok(false) };
        let script = &self.layout.scripts[&(action.stage, work)];
        let segment = script.segment;
        let dispatches = self.dispatches(action, work);
        for (bound, dispatch) in script.kernels.iter().zip(dispatches) {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&dispatch.pipeline);
            pass.set_bind_group(0, &dispatch.group, &[]);
            let [x, y, z] = dispatch.workgroups;
            pass.dispatch_workgroups(x, y, z);
            drop(pass);
            show.copy(self, &written(bound), segment, action, encoder)?;
        }
        if work == Work::W {
            let stage = self.setup.stages.iter().find(|stage| stage.stage == action.stage);
            let program = &stage.expect("the plan gave this stage here").program;
            for &sum in &program.accumulators {
                let range = self.layout.arenas.sums[&sum];
                let (what, place) = (Written::Sum(sum), Place::Arena(range));
                let (bytes, element) = (range.bytes, Element::F32);
                let copied = [Copied { what, place, offset: 0, bytes, element }];
                show.copy(self, &copied, segment, action, encoder)?;
            }
        }
        show.flush(self, encoder)?;
        self.show = Some(show);
        Ok(true)
    }
}

/// The values that a kernel writes.
fn written(bound: &Bound) -> Vec<Copied> {
    let places = &bound.places[bound.kernel.reads.len()..];
    let value = |(write, &place): (&super::kernel::Write, &Place)| match write.target {
        Target::Value(id) => {
            let bytes = write.element.bytes_of(write.shape.iter().product());
            let (what, element) = (Written::Value(id), write.element);
            Some(Copied { what, place, offset: 0, bytes, element })
        }
        Target::Sum(_) => None,
    };
    bound.kernel.writes.iter().zip(places).filter_map(value).collect()
}

impl Show {
    /// Records the copies of what one kernel wrote.
    fn copy(
        &mut self,
        engine: &WgpuEngine,
        written: &[Copied],
        segment: usize,
        action: Action,
        encoder: &mut CommandEncoder,
    ) -> Result<()> {
        let size = |of: &Copied| of.bytes.next_multiple_of(16);
        if self.used + written.iter().map(size).sum::<u64>() > self.bytes {
            self.flush(engine, encoder)?;
        }
        let entry = self.ring.take();
        let mut all = Vec::with_capacity(written.len());
        for of in written {
            let from = engine.buffers.place(of.place, segment, engine.slots(action, segment));
            let to = self.ring.buffer(entry);
            encoder.copy_buffer_to_buffer(from.buffer, from.offset, to, self.used, of.bytes);
            all.push(Copied { offset: self.used, ..*of });
            self.used += size(of);
        }
        self.waiting.push(all);
        Ok(())
    }

    /// Submits what has been recorded, waits for it, and shows what it copied.
    fn flush(&mut self, engine: &WgpuEngine, encoder: &mut CommandEncoder) -> Result<()> {
        if self.used == 0 {
            return Ok(());
        }
        let recorded = std::mem::replace(encoder, engine.context.encoder());
        engine.context.submit(recorded);
        let entry = self.ring.take();
        self.ring.map(entry);
        self.ring.wait(entry, &engine.context)?;
        let waiting = std::mem::take(&mut self.waiting);
        let shown = self.ring.read(entry, &engine.context, |bytes| {
            let kernels = waiting.iter().filter(|copies| !copies.is_empty());
            kernels.map(|copies| decoded(engine, copies, bytes)).collect::<Vec<Shown>>()
        });
        self.ring.unmap(entry);
        self.used = 0;
        shown?.into_iter().for_each(|part| self.observer.show(part));
        Ok(())
    }
}

/// What one kernel wrote.
fn decoded(engine: &WgpuEngine, copies: &[Copied], bytes: &[u8]) -> Shown {
    let graph = &engine.setup.split.joint.graph;
    let (mut values, mut sums) = (Vec::new(), Vec::new());
    for &Copied { what, offset, bytes: size, element, .. } in copies {
        let words = &bytes[offset as usize..(offset + size) as usize];
        let words = bytemuck::pod_collect_to_vec::<u8, u32>(words);
        let tensor =
            |id: NodeId| -> DispatchTensor { sent(words, graph[id].shape.0.clone(), element).0 };
        match what {
            Written::Value(id) => values.push((id, tensor(id))),
            Written::Sum(of) => {
                sums.push((of, tensor(graph.parameters[of.parameter.index()].node)));
            }
        }
    }
    values.sort_unstable_by_key(|(id, _)| *id);
    if sums.is_empty() { Shown::Values(values) } else { Shown::Sums(sums) }
}
