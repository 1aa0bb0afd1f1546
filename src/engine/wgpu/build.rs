//! A layout to a loaded engine: buffers, pipelines, bind groups, first values.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use wgpu::BufferBinding;

use super::buffers::Buffers;
use super::context::Context;
use super::layout::{Bound, KEY_BYTES, Layout, Slots};
use super::shader::{rounds, shader};
use super::staging::Ring;
use super::tile_timing::TileSelector;
use super::update::Updates;
use super::{BoundPipeline, SegmentState, WgpuEngine};
use crate::engine::burn::constants;
use crate::engine::{EngineSetup, IN_FLIGHT};
use crate::error::Result;
use crate::plan::{StageId, Work};

/// Mesa's software renderer ends a thread's loops, in silence, after 65535 rounds of all of them.
const LLVMPIPE_ROUNDS: usize = 65_000;

/// Makes everything that the engine needs for its whole life.
pub(super) fn build(
    mut context: Context,
    setup: EngineSetup,
    layout: Layout,
) -> Result<WgpuEngine> {
    if let Some((stage, what, bytes)) = layout.too_large(&setup.split, &setup.stages) {
        let most = context.limits().buffer_bytes;
        return Err(context
            .error(format!("{what} needs a buffer of {bytes} bytes, it binds at most {most}"))
            .in_stage(stage)
            .hint("a smaller model or microbatch, or another device"));
    }
    let first = setup.stages[0].stage;
    let buffers = Buffers::new(&mut context, &layout).map_err(|error| error.in_stage(first))?;
    let up = Ring::up(&mut context, IN_FLIGHT, layout.staging)?;
    let down = Ring::down(&mut context, IN_FLIGHT, layout.staging)?;
    let mut tiles = TileSelector::new(&context);
    let mut segments = Vec::new();
    for segment in 0..layout.segments.len() {
        let dispatches = dispatches(&mut context, &mut tiles, &layout, &buffers, segment)?;
        segments.push(SegmentState { dispatches, ..SegmentState::default() });
    }
    tiles.remember();
    let updates = Updates::new(&mut context, tiles.abilities(), &setup, &layout, &buffers)?;
    let mut engine = WgpuEngine {
        sealed: 0,
        context,
        setup,
        layout,
        buffers,
        up,
        down,
        segments,
        updates,
        under_way: VecDeque::new(),
        inputs: Arc::default(),
        step: 0,
        evaluates: false,
        states_are_provisional: false,
        show: None,
    };
    engine.load()?;
    engine.sealed = engine.context.objects();
    let bytes = engine.layout.bytes();
    assert_eq!(engine.context.bytes(), bytes.fixed + bytes.stash, "bytes were predicted");
    Ok(engine)
}

/// What the stages of a segment do, for all slots that a microbatch may have.
fn dispatches(
    context: &mut Context,
    tiles: &mut TileSelector,
    layout: &Layout,
    buffers: &Buffers,
    segment: usize,
) -> Result<HashMap<(StageId, Work, Slots), Vec<BoundPipeline>>> {
    let mut all = HashMap::new();
    for (&action, script) in layout.scripts.iter().filter(|(_, script)| script.segment == segment) {
        let (stage, work) = action;
        for slots in layout.segments[segment].slots_in(work) {
            let kernels = script.kernels.iter();
            let dispatches = kernels.map(|bound| {
                dispatch(context, tiles, buffers, bound, segment, slots)
                    .map_err(|error| error.in_stage(stage))
            });
            all.insert((stage, work, slots), dispatches.collect::<Result<_>>()?);
        }
    }
    Ok(all)
}

fn dispatch(
    context: &mut Context,
    tiles: &mut TileSelector,
    buffers: &Buffers,
    bound: &Bound,
    segment: usize,
    slots: Slots,
) -> Result<BoundPipeline> {
    let kernel = &bound.kernel;
    let rounds = rounds(kernel);
    if tiles.abilities().cpu && rounds > LLVMPIPE_ROUNDS {
        let problem = format!("a kernel of {rounds} rounds, software Vulkan ends it at 65535");
        let op = format!("{:?} of {:?}", kernel.body, kernel.reads[0].view.shape);
        return Err(context.error(problem).in_op(op).hint("a smaller microbatch, or cpu devices"));
    }
    let tile = tiles.of(context, kernel)?;
    let shader = shader(kernel, tile.as_ref(), tiles.abilities());
    let places = bound.places.iter().map(|&place| buffers.place(place, segment, slots));
    let mut bindings: Vec<BufferBinding<'_>> =
        places.enumerate().map(|(at, binding)| shader.bound(at, binding)).collect();
    if let Some(key) = bound.key {
        let size = std::num::NonZeroU64::new(KEY_BYTES);
        bindings.push(BufferBinding { size, ..buffers.place(key, segment, slots) });
    }
    if kernel.uses_status() {
        bindings.push(buffers.status.as_entire_buffer_binding());
    }
    let pipeline = context.pipeline(&shader, &kernel.written())?;
    let group = context.bind(&pipeline, &bindings);
    context.check().map_err(|error| error.in_op(shader.label.clone()))?;
    Ok(BoundPipeline { pipeline, group, workgroups: shader.workgroups })
}

impl WgpuEngine {
    /// Puts parameters and constants where they belong.
    fn load(&mut self) -> Result<()> {
        let split = self.setup.split.clone();
        let parameters: Vec<_> = self.layout.arenas.parameters.clone().into_iter().collect();
        for (parameter, range) in parameters {
            let value = self.setup.values.remove(&parameter).expect("its stages have values");
            self.write(range, &value)?;
        }
        for at in 0..self.setup.stages.len() {
            for (id, value) in constants(&split.joint.graph, &self.setup.stages[at].program) {
                let range = self.layout.arenas.constants[&id];
                self.write(range, &value)?;
            }
        }
        Ok(())
    }
}
