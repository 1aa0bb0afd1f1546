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
use self::layout::{Script, Segment};
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
#[derive(Debug)]
struct SegmentState {
    dispatches: HashMap<(StageId, Work), Turns>,
    held: HashMap<MicrobatchId, HeldSlots>,
}

/// The dispatches of one work in every turn: see [`layout::Segment::turns`].
type Turns = Vec<Vec<BoundPipeline>>;

/// The slots of a microbatch on its way through a segment.
#[derive(Debug)]
struct HeldSlots {
    /// How many W are left before it gives them back; of F, without backward work.
    left: usize,
    /// Whether it has a backward slot.
    backward: bool,
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

    /// The first action of a microbatch takes its slot, and the first B its backward slot.
    fn take(&mut self, action: Action, segment: usize) {
        let Segment { slots, backward_slots, ref backward_buffers, stages, .. } =
            self.layout.segments[segment];
        let held = &mut self.segments[segment].held;
        let of =
            held.entry(action.microbatch).or_insert(HeldSlots { left: stages, backward: false });
        of.backward |= action.work != Work::F && !backward_buffers.is_empty();
        let backward = held.values().filter(|of| of.backward).count();
        let fits = held.len() <= slots && backward <= backward_slots;
        assert!(fits, "a slot for every microbatch that the plan holds");
    }

    /// The segment's last W gives the slot back; without backward work its last F does.
    fn release(&mut self, action: Action, segment: usize) {
        if !self.evaluates && !action.computes(Work::W) {
            return;
        }
        let held = &mut self.segments[segment].held;
        let of = held.get_mut(&action.microbatch).expect("it was taken by F");
        of.left -= 1;
        if of.left == 0 {
            held.remove(&action.microbatch);
        }
    }
}

impl Compute for WgpuEngine {
    fn begin_step(&mut self, step: u64, inputs: &StepInputs) -> Result<()> {
        assert_eq!(self.context.objects(), self.sealed, "a step made GPU objects");
        (self.step, self.evaluates) = (step, false);
        self.inputs = inputs.clone();
        self.keep_states();
        self.clear();
        self.context.check()
    }

    fn begin_evaluation(&mut self, inputs: &StepInputs) -> Result<()> {
        assert_eq!(self.context.objects(), self.sealed, "a step made GPU objects");
        self.evaluates = true;
        self.inputs = inputs.clone();
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
