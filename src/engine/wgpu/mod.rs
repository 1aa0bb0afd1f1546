//! The engine on wgpu: a stage's F, B and W as compute dispatches on Vulkan, Metal or DX12.
//!
//! ```text
//!   Split --lower--> kernels of every block --lay_out--> Layout --build--> WgpuEngine
//!                     (fused, plain data)    (buffers, to the byte)  (pipelines, bind groups)
//! ```
//!
//! Everything is made before the first step; an action only records its dispatches.

mod adapters;
mod buffers;
mod build;
mod context;
mod device;
mod element;
mod kernel;
mod layout;
mod lower;
mod pack;
mod play;
mod shader;
mod show;
mod staging;
mod states;
// Public for `tests/kernels.rs`: tests of a crate see only what is public.
#[doc(hidden)]
pub mod testing;
mod tile_cache;
mod tile_timing;
mod update;
mod view;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

pub use adapters::{Gpu, GpuInfo, gpus};
pub use context::Context;
pub use device::WgpuDevice;
pub use element::{Element, Elements};
pub use kernel::{Argument, Body, Chain, Kernel, Operand, Step, Target, View, Write};
pub use layout::{AdapterLimits, Layout, lay_out};
pub use lower::{BlockKernels, kernel_of, lower};
pub use shader::Abilities;
pub use shader::Shader;
pub use shader::matmul::{Tile, tiles};
pub use tile_timing::product_seconds;

use self::buffers::Buffers;
use self::layout::{Script, Segment, Slots};
use self::play::UnderWay;
use self::staging::Ring;
use super::{Compute, EngineSetup, Observer, Outcome, Parcel, StepInputs};
use crate::error::Result;
use crate::plan::{Action, MicrobatchId, StageId, Work};

/// Plays stages on one queue of a GPU.
#[derive(Debug)]
pub struct WgpuEngine {
    context: Context,
    setup: EngineSetup,
    layout: Layout,
    buffers: Buffers,
    up: Ring,
    down: Ring,
    segments: Vec<SegmentState>,
    updates: update::Updates,
    under_way: VecDeque<UnderWay>,
    inputs: StepInputs,
    step: u64,
    /// Whether it evaluates, and does not train.
    evaluates: bool,
    /// Whether states have been replaced by a step that has not been completed.
    states_are_provisional: bool,
    /// Who is shown what kernels compute, if anybody is.
    show: Option<show::Show>,
    /// Objects made when all was there.
    sealed: u64,
}

/// What a segment's dispatches are, and which microbatches are on their way through it.
#[derive(Debug, Default)]
struct SegmentState {
    /// The dispatches of every work for all slots: see [`layout::Segment::slots_in`].
    dispatches: HashMap<(StageId, Work, Slots), Vec<BoundPipeline>>,
    held: HashMap<MicrobatchId, HeldSlots>,
    /// Slots and backward slots that no microbatch has, that which is free the longest first.
    free: VecDeque<usize>,
    free_backward: VecDeque<usize>,
}

/// The slots of a microbatch on its way through a segment.
#[derive(Debug)]
struct HeldSlots {
    slots: Slots,
    /// How many W are left before it gives them back; of F, without backward work.
    left: usize,
    /// Whether it has a backward slot.
    backward: bool,
}

impl SegmentState {
    /// Begins a step or an evaluation, in which the first microbatch takes the first slots.
    fn begin(&mut self, segment: &Segment) {
        assert!(self.held.is_empty(), "a microbatch is left from the step before");
        self.free = (0..segment.slots).collect();
        self.free_backward = (0..segment.backward_slots).collect();
    }

    /// The first action of a microbatch takes its slot, and the first B its backward slot.
    fn take(&mut self, action: Action, segment: &Segment) {
        let (free, left) = (&mut self.free, segment.stages);
        let of = self.held.entry(action.microbatch).or_insert_with(|| {
            let slot = free.pop_front().expect("a slot for every microbatch that the plan holds");
            HeldSlots { slots: Slots { slot, backward: 0 }, left, backward: false }
        });
        if action.work == Work::F || of.backward || segment.backward_buffers.is_empty() {
            return;
        }
        of.backward = true;
        // As many as slots have the slots' numbers.
        let own = segment.backward_slots == segment.slots;
        let next = if own { Some(of.slots.slot) } else { self.free_backward.pop_front() };
        of.slots.backward = next.expect("a backward slot for every microbatch that the plan holds");
    }

    /// The segment's last W gives the slots back; without backward work its last F does.
    fn release(&mut self, microbatch: MicrobatchId) {
        let of = self.held.get_mut(&microbatch).expect("it was taken by F");
        of.left -= 1;
        if of.left > 0 {
            return;
        }
        let HeldSlots { slots, backward, .. } = *of;
        self.held.remove(&microbatch);
        self.free.push_back(slots.slot);
        self.free_backward.extend(backward.then_some(slots.backward));
    }
}

/// One kernel on its buffers.
#[derive(Debug)]
struct BoundPipeline {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    workgroups: [u32; 3],
}

impl WgpuEngine {
    /// Loads the stages of `setup` as they were laid out.
    ///
    /// # Errors
    ///
    /// When the device has too little memory or too small limits, or a shader does not compile.
    pub fn new(context: Context, setup: EngineSetup, layout: Layout) -> Result<Self> {
        build::build(context, setup, layout)
    }

    /// The scripts of an action: those of a fused backward are B's, then W's.
    fn scripts(&self, action: Action) -> Vec<&Script> {
        action.works().iter().map(|&work| &self.layout.scripts[&(action.stage, work)]).collect()
    }

    /// Where the action's microbatch is, from its first action to its last.
    fn slots(&self, action: Action, segment: usize) -> Slots {
        self.segments[segment].held[&action.microbatch].slots
    }

    /// The dispatches of a work of an action.
    fn dispatches(&self, action: Action, work: Work) -> &[BoundPipeline] {
        let segment = self.layout.scripts[&(action.stage, work)].segment;
        let slots = self.slots(action, segment);
        // F has no part in what B leaves.
        let backward = if work == Work::F { 0 } else { slots.backward };
        let slots = Slots { backward, ..slots };
        &self.segments[segment].dispatches[&(action.stage, work, slots)]
    }

    fn begin_segments(&mut self) {
        let segments = self.segments.iter_mut().zip(&self.layout.segments);
        segments.for_each(|(state, segment)| state.begin(segment));
    }
}

impl Compute for WgpuEngine {
    fn begin_step(&mut self, step: u64, inputs: &StepInputs) -> Result<()> {
        assert_eq!(self.context.objects(), self.sealed, "a step made GPU objects");
        (self.step, self.evaluates) = (step, false);
        self.inputs = inputs.clone();
        self.begin_segments();
        self.keep_states();
        self.clear();
        self.context.check()
    }

    fn begin_evaluation(&mut self, inputs: &StepInputs) -> Result<()> {
        assert_eq!(self.context.objects(), self.sealed, "a step made GPU objects");
        self.evaluates = true;
        self.inputs = inputs.clone();
        self.begin_segments();
        self.context.check()
    }

    fn start(&mut self, action: Action, arrived: Parcel) -> Result<Option<Outcome>> {
        self.submit(action, arrived).map(|()| None)
    }

    fn finish(&mut self, timeout: Duration) -> Result<Option<Outcome>> {
        self.collect(timeout)
    }

    fn observe(&mut self, observer: Observer) -> Result<()> {
        self.observed(observer)
    }

    fn peak_bytes(&self) -> u64 {
        self.context.bytes()
    }
}
