//! The stages of a device to buffers: what is made before the first step, to the byte, and what
//! every action binds, takes from staging and puts there.
//!
//! Adjacent stages of a device form a segment. A microbatch that is on its way through a segment
//! holds one slot of it, from the first F to the last W: the buffers of everything that outlives an
//! action. From the first B it also holds a backward slot, if the segment has such: the buffers of
//! what B leaves, of which there are fewer where W follows soon. What one action alone needs is in
//! working buffers that all actions of the device share. So a stage hands its output to the next
//! one of its segment without a copy. A microbatch takes the slot that has been free the longest:
//! where microbatches leave in the order in which they come, they take the slots in turn.

mod arena;
mod slots;
mod values;

use std::collections::HashMap;

pub(super) use arena::{ArenaId, Arenas, NORM_PART, Range};
pub(super) use slots::Slots;
use values::SegmentValues;

use super::element::{Element, Elements};
use super::kernel::{Kernel, Target};
use super::lower::{BlockKernels, lower};
use super::pack::pack;
use crate::compile::{Accumulator, accumulators};
use crate::engine::{IN_FLIGHT, PartialSums, Precision, StageSetup, UpdateRule};
use crate::graph::{InputId, Leaf, NodeId, Op};
use crate::plan::{self, BufferBytes, StageId, Work};
use crate::split::{BlockId, Split};

/// Bytes of an element of what is no activation.
pub(super) const ELEMENT: u64 = 4;

/// Smallest staging buffer: parameters pass through it as well.
const LEAST_STAGING: u64 = 1 << 18;

/// Bytes of the run's key.
pub(super) const KEY_BYTES: u64 = 32;

/// Bytes of the status word and of the optimizer's settings, each in a buffer of its own.
pub(super) const SMALL: u64 = 64;

/// Bytes of the place for the timestamps of an action: the step in which they may be resolved.
pub(super) const TIMESTAMPS: u64 = wgpu::QUERY_RESOLVE_BUFFER_ALIGNMENT;

/// What an adapter allows and asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdapterLimits {
    /// Most bytes of a buffer that a kernel binds.
    pub buffer_bytes: u64,
    /// What offsets into a buffer are multiples of.
    pub alignment: u64,
    /// Whether actions are timed by the device.
    pub timestamps: bool,
}

/// The buffers of a device and what its actions do with them.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Parameters, gradients, optimizer state and constants.
    pub(super) arenas: Arenas,
    /// Bytes of the buffers that actions share.
    pub(super) working: Vec<u64>,
    /// Its stages by segment.
    pub(super) segments: Vec<Segment>,
    /// What every stage's F, B and W does.
    pub(super) scripts: HashMap<(StageId, Work), Script>,
    /// Bytes of one staging buffer, up or down.
    pub(super) staging: u64,
    /// How activations are stored.
    pub(super) precision: Precision,
    limits: AdapterLimits,
    gradient_sums: GradientSums,
}

/// Sums of gradients of a device, by what becomes of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct GradientSums {
    /// Sums to be added to the first sum of their parameter, ascending: local or from elsewhere.
    pub(super) added: Vec<Accumulator>,
    /// Sums that travel.
    pub(super) partial: PartialSums,
}

/// Adjacent stages of the device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Segment {
    /// How many microbatches it can hold at once.
    pub(super) slots: usize,
    /// Bytes of the buffers of one slot.
    pub(super) buffers: Vec<u64>,
    /// How many microbatches it can hold between the first B and the last W.
    pub(super) backward_slots: usize,
    /// Bytes of the buffers of one backward slot.
    pub(super) backward_buffers: Vec<u64>,
    /// The slots that a microbatch may have between the first B and the last W.
    pub(super) pairs: Vec<Slots>,
    /// How many W end a microbatch: one per stage.
    pub(super) stages: usize,
}

impl Segment {
    /// The slots that a microbatch may have in a work: there are dispatches for each of them.
    pub(super) fn slots_in(&self, work: Work) -> Vec<Slots> {
        let before_b = |slot| Slots { slot, backward: 0 };
        if work == Work::F { (0..self.slots).map(before_b).collect() } else { self.pairs.clone() }
    }
}

/// What one kind of work of one stage does.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Script {
    /// The segment whose slot it uses.
    pub(super) segment: usize,
    /// What is copied from staging to the slot first.
    pub(super) uploads: Vec<Transfer<UploadSource>>,
    /// The kernels, in order.
    pub(super) kernels: Vec<Bound>,
    /// What is copied to states, but in an evaluation.
    pub(super) states: Vec<(Place, Range)>,
    /// What is copied to staging last.
    pub(super) downloads: Vec<Transfer<Sink>>,
    /// Whether a kernel may report a bad index.
    pub(super) status: bool,
}

/// A kernel and its buffers, in binding order without key and status.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bound {
    pub(super) kernel: Kernel,
    pub(super) places: Vec<Place>,
    /// Buffer of the slot that holds the run's key.
    pub(super) key: Option<Place>,
}

/// Where a tensor is on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// A buffer of the microbatch's slot.
    Slot(usize),
    /// A buffer of the microbatch's backward slot.
    Backward(usize),
    /// A working buffer.
    Working(usize),
    /// A part of an arena.
    Arena(Range),
}

/// A copy between staging and the device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Transfer<T> {
    /// What is copied.
    pub(super) what: T,
    /// Where in the staging buffer.
    pub(super) offset: u64,
    /// How many bytes.
    pub(super) bytes: u64,
    /// Where on the device.
    pub(super) place: Place,
}

/// What an action takes from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadSource {
    /// A tensor of the parcel, at a position, whose elements become these.
    Parcel(usize, Element),
    /// A tensor of the batch.
    Input(InputId),
    /// The run's key.
    Key,
}

/// What an action gives to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sink {
    /// A tensor of the parcel.
    Parcel { shape: Vec<usize>, element: Element },
    /// The loss.
    Loss,
}

/// Lays out `stages`, with activations stored as `precision` says.
///
/// `stash` is how many microbatches are on the stages at once.
pub fn lay_out(
    split: &Split,
    stages: &[StageSetup],
    stash: &plan::StashLimits,
    rule: &UpdateRule,
    precision: Precision,
    limits: AdapterLimits,
) -> Layout {
    let elements = Elements::new(split, precision);
    let lowered = lowered(split, &elements, stages);
    let gradient_sums = gradient_sums(split, stages);
    let arenas = Arenas::new(split, stages, &gradient_sums, rule, limits);
    let mut layout = Layout {
        arenas,
        working: Vec::new(),
        segments: Vec::new(),
        scripts: HashMap::new(),
        staging: LEAST_STAGING,
        precision,
        limits,
        gradient_sums,
    };
    let mut working = Vec::new();
    let mut segments = Vec::new();
    for (segment, stages) in (0..).zip(segments_of(stages)) {
        let values = SegmentValues::new(split, &elements, stages, &lowered, segment);
        working.extend(values.working());
        segments.push((stages, values));
    }
    let (homes, sizes) = pack(&working);
    layout.working = sizes;
    let mut homes = homes.into_iter();
    for (position, (stages, mut values)) in segments.into_iter().enumerate() {
        let first = stages[0].stage.index();
        layout.segments.push(values.place(
            stash.segments[first],
            stash.backward[first],
            stash.in_turn[first],
            &mut homes,
        ));
        for (stage, work, script) in values.scripts(position, &layout.arenas) {
            let end = |offset: u64, bytes: u64| offset + bytes;
            let up = script.uploads.iter().map(|copy| end(copy.offset, copy.bytes)).max();
            let down = script.downloads.iter().map(|copy| end(copy.offset, copy.bytes)).max();
            layout.staging = layout.staging.max(up.unwrap_or(0)).max(down.unwrap_or(0) + SMALL);
            layout.scripts.insert((stage, work), script);
        }
    }
    layout
}

/// The stages in segments of adjacent ones.
fn segments_of(stages: &[StageSetup]) -> impl Iterator<Item = &[StageSetup]> {
    stages.chunk_by(|a, b| a.stage.0 + 1 == b.stage.0)
}

impl Layout {
    /// Bytes of all buffers of the device.
    pub fn bytes(&self) -> BufferBytes {
        let rings = 2 * IN_FLIGHT as u64 * self.staging;
        let timing = if self.limits.timestamps { IN_FLIGHT as u64 * TIMESTAMPS } else { 0 };
        let fixed = self.arenas.bytes() + self.working.iter().sum::<u64>() + rings + timing;
        let of = |slots: usize, buffers: &[u64]| slots as u64 * buffers.iter().sum::<u64>();
        let slots = |segment: &Segment| {
            of(segment.slots, &segment.buffers)
                + of(segment.backward_slots, &segment.backward_buffers)
        };
        BufferBytes { fixed: fixed + 2 * SMALL, stash: self.segments.iter().map(slots).sum() }
    }

    /// What becomes of the sums of gradients.
    pub(super) fn gradient_sums(&self) -> &GradientSums {
        &self.gradient_sums
    }

    /// The largest tensor if it is above what the adapter can bind: its stage, what it is, and its
    /// bytes.
    pub(super) fn too_large(
        &self,
        split: &Split,
        stages: &[StageSetup],
    ) -> Option<(StageId, String, u64)> {
        let graph = &split.joint.graph;
        let tensor = |stage: StageId, id: NodeId, element: Element| {
            let node = &graph[id];
            let what = match node.op {
                Op::Leaf(Leaf::Parameter(of)) => {
                    format!("parameter {}", graph.parameters[of.index()].path)
                }
                ref op => format!("{op} of shape {}", node.shape),
            };
            (stage, what, element.bytes_of(node.shape.elements()))
        };
        let mut all = Vec::new();
        for StageSetup { stage, program, .. } in stages {
            let parameters = program.parameters.iter();
            let parameters = parameters.map(|id| graph.parameters[id.index()].node);
            let constants = program.constants.iter().copied();
            let fixed = parameters.chain(constants);
            all.extend(fixed.map(|id| tensor(*stage, id, graph[id].dtype.into())));
            for work in Work::ALL {
                let kernels = self.scripts[&(*stage, work)].kernels.iter();
                let writes = kernels.flat_map(|bound| &bound.kernel.writes);
                all.extend(writes.filter_map(|write| match write.target {
                    Target::Value(id) => Some(tensor(*stage, id, write.element)),
                    Target::Sum(_) => None,
                }));
            }
        }
        all.retain(|(_, _, bytes)| *bytes > self.limits.buffer_bytes);
        // The first of the largest: parameters come first.
        all.into_iter().rev().max_by_key(|(_, _, bytes)| *bytes)
    }
}

/// The kernels of every block of the stages.
fn lowered(
    split: &Split,
    elements: &Elements,
    stages: &[StageSetup],
) -> HashMap<BlockId, BlockKernels> {
    let blocks = stages.iter().flat_map(|stage| stage.blocks.clone());
    let blocks = blocks.map(|block| BlockId(block as u32));
    blocks.map(|block| (block, lower(split, elements, block))).collect()
}

fn gradient_sums(split: &Split, stages: &[StageSetup]) -> GradientSums {
    let local: Vec<Accumulator> =
        stages.iter().flat_map(|stage| stage.program.accumulators.iter().copied()).collect();
    let owned = |accumulator: &Accumulator| {
        stages.iter().any(|stage| stage.owned.contains(&accumulator.parameter))
    };
    let mut all = accumulators(split);
    let is_local = |accumulator: &Accumulator| local.contains(accumulator);
    let sent = all.iter().filter(|sum| is_local(sum) && !owned(sum)).copied().collect();
    all.retain(owned);
    let awaited = all.iter().filter(|sum| !is_local(sum)).copied().collect();
    let first = |at: usize| at == 0 || all[at - 1].parameter != all[at].parameter;
    let added = (0..all.len()).filter(|&at| !first(at)).map(|at| all[at]).collect();
    GradientSums { added, partial: PartialSums { sent, awaited } }
}
