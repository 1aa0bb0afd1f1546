//! The engine on wgpu: a stage's F, B and W as compute dispatches on Vulkan, Metal or DX12.
//!
//! ```text
//!   Split --lower--> kernels of every block --lay_out--> Layout --build--> WgpuEngine
//!                     (fused, plain data)    (buffers, to the byte)  (pipelines, bind groups)
//! ```
//!
//! Everything is made before the first step; an action only records its dispatches.

mod adapters;
mod build;
mod context;
mod element;
mod kernel;
mod layout;
mod lower;
mod measure;
mod pack;
mod play;
mod shader;
mod staging;
mod tune;
mod update;
mod view;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use burn_dispatch::DispatchTensor;

pub use adapters::{Gpu, GpuInfo, gpus};
pub use context::Context;
pub use element::{Element, Elements};
pub use kernel::{Argument, Body, Chain, Kernel, Operand, Step, Target, View, Write};
pub use layout::{Layout, Limits, lay_out};
pub use lower::{BlockKernels, kernel_of, lower};
pub use measure::{compute, product_seconds};
pub use shader::Shader;
pub use shader::matmul::{Abilities, Tile, tiles};

use self::build::Buffers;
use self::layout::Script;
use self::play::UnderWay;
use self::staging::Ring;
use super::{Engine, EngineSetup, Outcome, ParameterState, Parcel, SharedSums, StepInputs, Update};
use crate::compile::Accumulator;
use crate::error::Result;
use crate::graph::ParameterId;
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
    runs: Vec<RunState>,
    updates: update::Updates,
    under_way: VecDeque<UnderWay>,
    inputs: StepInputs,
    step: u64,
    /// Objects made when all was there.
    sealed: u64,
}

/// What a run's dispatches are, and which of its slots are taken.
#[derive(Debug)]
struct RunState {
    /// Dispatches of every work by slot.
    dispatches: Vec<HashMap<(StageId, Work), Vec<Dispatch>>>,
    free: Vec<usize>,
    /// Slot of every microbatch on its way, and how many W are left.
    held: HashMap<MicrobatchId, (usize, usize)>,
}

/// One kernel on its buffers.
#[derive(Debug)]
struct Dispatch {
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
        play::works(&action.work)
            .iter()
            .map(|&work| &self.layout.scripts[&(action.stage, work)])
            .collect()
    }

    /// The slot of an action's microbatch, which it takes if it is the first of its run.
    fn slot(&mut self, action: Action, run: usize) -> usize {
        let stages = self.layout.runs[run].stages;
        let state = &mut self.runs[run];
        let held = state.held.entry(action.microbatch).or_insert_with(|| {
            (state.free.pop().expect("a slot for every microbatch that the plan holds"), stages)
        });
        held.0
    }

    /// The run's last W gives the slot back.
    fn release(&mut self, action: Action, run: usize) {
        if !matches!(action.work, Work::W | Work::BW) {
            return;
        }
        let state = &mut self.runs[run];
        let (slot, left) = state.held.get_mut(&action.microbatch).expect("it was taken by F");
        *left -= 1;
        if *left == 0 {
            state.free.push(*slot);
            state.held.remove(&action.microbatch);
        }
    }
}

impl Engine for WgpuEngine {
    fn begin_step(&mut self, step: u64, inputs: &StepInputs) -> Result<()> {
        assert_eq!(self.context.objects(), self.sealed, "a step made GPU objects");
        self.step = step;
        self.inputs = inputs.clone();
        self.clear();
        self.context.check()
    }

    fn start(&mut self, action: Action, arrived: Parcel) -> Result<Option<Outcome>> {
        self.submit(action, arrived).map(|()| None)
    }

    fn finish(&mut self, patience: Duration) -> Result<Option<Outcome>> {
        self.collect(patience)
    }

    fn shared_sums(&self) -> SharedSums {
        self.travelling()
    }

    fn take_shared_gradients(&mut self) -> Result<Vec<(Accumulator, DispatchTensor)>> {
        self.shared_gradients()
    }

    fn gather(&mut self, shared: &[(Accumulator, DispatchTensor)]) -> Result<()> {
        self.add_up(shared)
    }

    fn squared_norms(&mut self) -> Result<Vec<(ParameterId, f64)>> {
        self.norms()
    }

    fn update(&mut self, update: &Update) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        self.apply(update)?;
        let shared: Vec<ParameterId> =
            self.setup.stages.iter().flat_map(|stage| stage.shared.clone()).collect();
        self.values(&shared)
    }

    fn undo(&mut self) -> Result<()> {
        self.take_back()
    }

    fn set_parameters(&mut self, values: &[(ParameterId, DispatchTensor)]) -> Result<()> {
        self.set_borrowed(values)
    }

    fn parameters(&mut self) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        let owned: Vec<ParameterId> =
            self.setup.stages.iter().flat_map(|stage| stage.owned.clone()).collect();
        self.values(&owned)
    }

    fn state(&mut self) -> Result<Vec<(ParameterId, ParameterState)>> {
        self.states()
    }

    fn restore(&mut self, state: &[(ParameterId, ParameterState)]) -> Result<()> {
        self.set_states(state)
    }

    fn peak_bytes(&self) -> u64 {
        self.context.bytes()
    }
}
